"""What is made of a run's networks, judged beside them in one league; a stage a predictor."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucency.combine.combined import Combined, load_combined, nothing_combined, save_combined
from lucency.combine.diversity import diversity
from lucency.combine.pool import EQUAL
from lucency.combining_keys import TEXTURE, Combining
from lucency.costs import costs
from lucency.featuring import sides, sources, textures
from lucency.judge.calibrate import threshold_table
from lucency.judge.league import Entrant, league
from lucency.judge.recalibrate import recalibrated
from lucency.predictions import Predictions, load_predictions, save_predictions
from lucency.predictors import Made, ensemble, learnt, snapshots, viewed, voted
from lucency.progress import progress
from lucency.receipt import discard_outdated, fingerprint_of, produce
from lucency.run import classifiers, predictions, prepared
from lucency.workspace import Run, best_network


class _Job(NamedTuple):
    """How one predictor is made, and what of."""

    inputs: dict[str, object]
    make: Callable[[], Made]


@cache
def combined(run: Run) -> Combined:
    """Return the league of networks and all that the protocol makes of them."""
    jobs = _jobs(run)
    if not jobs:
        discard_outdated(league_folder(run), inputs={})
        return nothing_combined()
    made = {name: _made(run, name, job) for name, job in jobs.items()}
    places = {name: fingerprint_of(_place(run, name)) for name in jobs}
    inputs = {
        "judging": run.protocol.judging.model_dump(),
        "networks": _members(run),
        "predictors": places,
    }
    discard_outdated(league_folder(run), inputs=inputs)

    def write(folder: Path) -> None:
        save_combined(_judged(run, made), folder)

    return load_combined(produce(league_folder(run), inputs=inputs, write=write))


def league_folder(run: Run) -> Path:
    """Return where the league lies, if there is one."""
    return run.out / "combined" / "league"


def _jobs(run: Run) -> dict[str, _Job]:
    """Return name -> job of every predictor that the protocol asks for beside its networks."""
    choices = run.protocol.combining
    jobs: dict[str, _Job] = {}
    for name in (choice.name for choice in run.protocol.network):
        weights: dict[str, object] = {"network": _members(run)[name]}
        if choices.views:
            how = choices.model_dump(include={"views", "seed"})
            jobs[f"{name} with views"] = _Job(weights | how, partial(viewed, run, name))
        if run.protocol.training_of(name).snapshots:
            jobs[f"{name} snapshots"] = _Job(weights, partial(snapshots, run, name))
    for method in choices.ensembles:
        inputs = {"members": _members(run), "method": method, "seed": choices.seed}
        jobs[method] = _Job(inputs, partial(ensemble, run, method))
    if choices.learners or choices.neighbours:
        for source in sources(run):
            jobs |= _jobs_on_features(run, source, choices)
    return jobs


def _members(run: Run) -> dict[str, str]:
    """Return the networks and what their predictions are made from, their weights among it."""
    place = run.out / "predictions"
    return {one.network: fingerprint_of(place / one.network) for one in predictions(run)}


def _jobs_on_features(run: Run, source: str, choices: Combining) -> dict[str, _Job]:
    made_of: dict[str, object] = {"features": sides(run, source).made_of, "seed": choices.seed}
    jobs = {}
    for learner in choices.learners:
        inputs = {**made_of, "learner": learner, "oversampling": choices.oversampling}
        jobs[f"{learner} on {source}"] = _Job(inputs, partial(learnt, run, source, learner))
    if choices.neighbours:
        draws = run.protocol.judging.model_dump(include={"resamples", "seed"})
        inputs = {**made_of, "neighbours": choices.neighbours, "draws": draws}
        jobs[f"{choices.neighbours} neighbours on {source}"] = _Job(
            inputs, partial(voted, run, source)
        )
    return jobs


def _made(run: Run, name: str, job: _Job) -> Made:
    """Return what a predictor says, recalibrated on validation films: a stage of its own."""
    method = run.protocol.judging.recalibration

    def write(folder: Path) -> None:
        try:
            made = job.make()
        except ValueError as error:
            told = f"combining: {name}: {error}; take it out of [combining] to go on without it"
            raise ValueError(told) from error
        said = recalibrated(made.said, method=method)
        save_predictions(replace(said, network=name), folder / "predictions.npz")
        (folder / "entrant.json").write_text(json.dumps(made.entrant._asdict()))
        for table, rows in made.tables.items():
            rows.to_csv(folder / f"{table}.csv", index=False)

    inputs = {"recalibration": method, **job.inputs}
    discard_outdated(_place(run, name), inputs=inputs)
    folder = produce(_place(run, name), inputs=inputs, write=write)
    about = json.loads((folder / "entrant.json").read_text())
    tables = {file.stem: pd.read_csv(file) for file in sorted(folder.glob("*.csv"))}
    return Made(load_predictions(folder / "predictions.npz"), Entrant(**about), tables)


def _place(run: Run, name: str) -> Path:
    return run.out / "combined" / name.replace(" ", "-")


def _judged(run: Run, made: dict[str, Made]) -> Combined:
    networks, choices, cost = predictions(run), run.protocol.combining, costs(run)
    entrants = {one.network: Entrant("network", cost[one.network]) for one in networks}
    entrants |= {name: one.entrant for name, one in made.items()}
    best = best_network(classifiers(run).values()).name
    with progress("Judging what was combined", unit="predictors") as advance:
        table = league(
            [*networks, *(one.said for one in made.values())],
            entrants=entrants,
            reference=EQUAL if EQUAL in choices.ensembles else best,
            choices=run.protocol.judging,
            progress=advance,
        )
    tables = [one.tables for one in made.values()]
    return Combined(
        league=table,
        weights=_together(tables, "weights"),
        diversity=_diversity(run, networks) if len(networks) > 1 else pd.DataFrame(),
        choices=_together(tables, "choices"),
        similar=_together(tables, "similar"),
        lungs=_lungs(run) if TEXTURE in choices.single_sources else pd.DataFrame(),
    )


def _together(tables: Sequence[dict[str, pd.DataFrame]], name: str) -> pd.DataFrame:
    found = [one[name] for one in tables if name in one]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _lungs(run: Run) -> pd.DataFrame:
    from lucency.combine.textures import lungs_table

    return lungs_table(prepared(run).manifest, textures(run))


def _diversity(run: Run, networks: Sequence[Predictions]) -> pd.DataFrame:
    rule = run.protocol.judging
    fitted = [
        threshold_table(one.of("val"), method=rule.threshold, recall=rule.recall)["threshold"]
        for one in networks
    ]
    threshold = np.stack([one.to_numpy(dtype=np.float64) for one in fitted])
    return diversity([one.of("test") for one in networks], threshold=threshold)
