"""Everything that the report of a finished run shows, gathered from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.checks.run_checks import CHECKS
from lucency.config.protocol import Protocol
from lucency.core.manifest import Manifest, Prepared
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import Failures
from lucency.data.split import set_apart
from lucency.evaluation.preparation_grid import STUDY, PreparationStudy, load_study
from lucency.evaluation.summary import Evaluation
from lucency.models.metadata import read_metadata
from lucency.pipeline.run import Run
from lucency.report.run_page import Experiment, Gallery

GALLERY_FILMS, GALLERY_VERSIONS = 4, 3
GALLERY_SEED = 0


def gather(
    run: Run,
    *,
    manifest: Manifest,
    prepared: Prepared,
    plan: Plan,
    predictions: Sequence[Predictions],
    evaluation: Evaluation,
    made: Mapping[str, Any],
) -> Experiment:
    """Return all that the report of a run shows.

    `made` maps chapters to what they show, None where that could not be made; what cannot be had
    here is added to the run's `Failures`.
    """
    protocol, folder, failures = run.protocol, run.out, Failures(run.out / "failed")
    names = [choice.name for choice in protocol.network]
    return Experiment(
        protocol=protocol,
        manifest=manifest,
        prepared=prepared,
        plan=plan,
        change=made["balance"],
        gallery=failures.attempt("augmentation", lambda: _gallery(protocol, prepared, plan)),
        predictions=predictions,
        histories={name: pd.read_csv(_network(folder, name) / "history.csv") for name in names},
        networks=pd.DataFrame([_about(folder, name) for name in names]),
        evaluation=evaluation,
        issues=made["checks"],
        apart=np.flatnonzero(set_apart(prepared.manifest, choices=protocol.split)),
        checks=CHECKS,
        study=made["study"],
        heatmaps=made["heatmaps"],
        audit=made["audit"],
        ensembles=made["ensembles"],
        preparations=failures.attempt(
            "preparation", lambda: load_study(folder / STUDY / "evaluation")
        )
        or PreparationStudy(),
    )


def _gallery(protocol: Protocol, prepared: Prepared, plan: Plan) -> Gallery:
    together = _augmented(protocol, prepared, plan)
    return Gallery(together, _steps_alone(protocol, plan, together[0]) if together else [])


def _augmented(protocol: Protocol, prepared: Prepared, plan: Plan) -> list[tuple[str, np.ndarray]]:
    """Return films beside their copies or, without copies, beside what epochs make of them."""
    from lucency.models.film_loader import Films

    train = plan.take(plan.part == "train")
    copied = np.flatnonzero(train.copy > 0)
    recipe, seed = protocol.training.augment, protocol.training.seed
    if not len(copied) and recipe == "none":
        return []
    chosen = np.unique(train.row[copied]) if len(copied) else train.row
    pictures: list[tuple[str, np.ndarray]] = []
    for row in np.random.default_rng(GALLERY_SEED).permutation(chosen)[:GALLERY_FILMS]:
        pictures.append((str(prepared.manifest.image[row]), prepared.pixels[row]))
        versions = np.flatnonzero((train.row == row) & (train.copy > 0))[:GALLERY_VERSIONS]
        films = Films(prepared=prepared, plan=train, copies=protocol.balance.seed)
        for entry in versions:
            caption = f"copy {train.copy[entry]}: {train.transform[entry]}"
            pictures.append((caption, films.picture(int(entry))))
        for epoch in range(GALLERY_VERSIONS if not len(copied) else 0):
            films = replace(films, recipe=recipe, seed=seed, epoch=epoch)
            entry = int(np.flatnonzero(train.row == row)[0])
            pictures.append((f"epoch {epoch + 1}: {recipe}", films.picture(entry)))
    return pictures


def _steps_alone(
    protocol: Protocol, plan: Plan, film: tuple[str, np.ndarray]
) -> list[tuple[str, np.ndarray]]:
    """Return a film, and each step alone of the recipes that copies and epochs are changed by."""
    from lucency.models.augmentation import steps_alone

    links = {link for chain in np.unique(plan.transform).tolist() for link in chain.split(">")}
    copied = {link.rpartition("#")[0] for link in links if link}
    recipes = sorted(copied | ({protocol.training.augment} - {"none"}))
    shown = steps_alone(np.asarray(film[1]), recipes=recipes)
    return [film, *shown] if shown else []


def _network(folder: Path, name: str) -> Path:
    return folder / "networks" / name


def _about(folder: Path, name: str) -> dict[str, object]:
    """Return one row of the report's table of networks."""
    history = pd.read_csv(_network(folder, name) / "history.csv")
    metadata = read_metadata(_network(folder, name))
    choice = next(n for n in metadata.protocol["network"] if n["name"] == name)
    return {
        "network": name,
        "parameters": metadata.parameters,
        "weights": choice["weights"],
        "provenance": metadata.provenance,
        "epochs": len(history),
        "kept_epoch": metadata.epoch,
        "minutes": history["seconds"].iloc[-1] / 60,
        "films_per_second": history["films_per_second"].median(),
        "device": metadata.device,
    }
