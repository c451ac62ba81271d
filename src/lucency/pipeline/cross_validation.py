"""Every film judged by a network that has not seen its patient: k folds by patient, k trainings.

A division deals patients to folds; several divisions, with seeds of their own, train independently.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from lucency.config.protocol import parse_protocol
from lucency.core.predictions import EACH, Predictions, save_predictions
from lucency.core.progress import say
from lucency.core.stage import fingerprint_of, produce
from lucency.pipeline import stages
from lucency.pipeline.run import Run, open_run


@cache
def out_of_fold(run: Run, *, folds: int, divisions: int) -> dict[str, Path]:
    """Return for each network the folder of what it says of films it has not trained on.

    There: predictions.npz, all films in the order of the manifest, part test, the mean recalibrated
    logit of the divisions, without features (each fold's network has its own); and EACH, the
    probabilities by division. Films are prepared once, for all.
    """
    films = stages.prepared(run).manifest
    members = [
        [_member(run, folds=folds, fold=fold, division=division) for fold in range(folds)]
        for division in range(divisions)
    ]
    said: dict[str, list[Predictions]] = {}
    made = {}
    for division, several in enumerate(members):
        tests: dict[str, list[Predictions]] = {}
        for fold, member in enumerate(several):
            say(f"Division {division + 1} of {divisions}, fold {fold + 1} of {folds}")
            for one in stages.predictions(member):
                tests.setdefault(one.network, []).append(one.of("test"))
                place = member.out / "predictions" / one.network
                made[f"{division}/{fold}/{one.network}"] = fingerprint_of(place)
        for network, parts in tests.items():
            said.setdefault(network, []).append(_joined(parts, films.image))
    inputs = {"folds": folds, "divisions": divisions, "predictions": made}
    found = {}
    for network, each in said.items():

        def write(folder: Path, each: list[Predictions] = each) -> None:
            logit = np.mean([one.calibrated for one in each], axis=0)
            save_predictions(replace(each[0], logit=logit), folder / "predictions.npz")
            np.save(folder / EACH, np.stack([one.probability for one in each]))

        place = run.out / "out-of-fold" / f"{folds}x{divisions}" / network
        found[network] = produce(place, inputs=inputs, write=write)
    return found


def _member(run: Run, *, folds: int, fold: int, division: int) -> Run:
    """Return the run that tests one fold, on all films that `run` has prepared."""
    choices = run.protocol.model_dump()
    choices["split"] |= {"method": "patient", "folds": folds, "fold": fold, "apart": 0.0}
    choices["split"]["seed"] += division
    choices["training"]["seed"] += division
    protocol = parse_protocol(choices, name=f"fold {fold} of division {division}")
    place = run.out / "members" / f"division-{division}-fold-{fold}"
    member = open_run(protocol, out=place, workers=run.workers)
    return replace(member, source=run.source, cache=run.cache)


def _joined(parts: list[Predictions], image: np.ndarray) -> Predictions:
    """Return the predictions of all folds as one, films in the order of `image`."""
    names = np.concatenate([one.image for one in parts])
    order = np.argsort(names)
    row = order[np.searchsorted(names[order], image)]
    assert (names[row] == image).all(), "every film tests in one fold"

    def whole(field: str) -> np.ndarray:
        return np.concatenate([getattr(one, field) for one in parts])[row]

    return Predictions(
        network=parts[0].network,
        split=f"{len(parts)} folds by patient: {' '.join(one.split for one in parts)}",
        findings=parts[0].findings,
        image=whole("image"),
        patient=whole("patient"),
        part=whole("part"),
        label=whole("label"),
        logit=whole("calibrated"),
        feature=np.empty((len(row), 0), dtype=np.float32),
    )
