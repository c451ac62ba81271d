"""What a film costs each source of predictions or features, measured here, one after the other.

What can be made of a run's networks, one function a kind; each says what a film costs it.

What is made of a run's networks, judged beside them in one leaderboard; a stage a predictor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.special import logit

from lucency.config.sections import AND, FROZEN, TEXTURE, EnsembleChoices
from lucency.core.plan import Plan, originals
from lucency.core.predictions import Predictions, concatenate, load_predictions, save_predictions
from lucency.core.progress import progress, say
from lucency.core.stage import discard_outdated, fingerprint_of, produce
from lucency.ensemble.diversity import diversity
from lucency.ensemble.ensemble_results import (
    EnsembleResults,
    load_ensemble_results,
    no_ensemble_results,
    save_ensemble_results,
)
from lucency.ensemble.ensembles import EQUAL, pool
from lucency.evaluation.calibration import recalibrated
from lucency.evaluation.leaderboard import Entrant, leaderboard
from lucency.evaluation.thresholds import threshold_table
from lucency.pipeline.feature_stage import sides, sources, textures
from lucency.pipeline.run import Run, best_network
from lucency.pipeline.stages import classifiers, pictures, plan, predictions, prepared

FEW, MANY = 8, 72
Work = Callable[[Int64[np.ndarray, " m"]], object]


@cache
def costs(run: Run) -> dict[str, float]:
    """Return the milliseconds that a prepared film takes each network, frozen ones and textures.

    The time for MANY films less that for FEW, so that setting up is left out, after a round that is
    not measured; reading the cache is in it, preparation is not.
    """
    choices = run.protocol.ensemble
    inputs: dict[str, object] = {n: fingerprint_of(p) for n, p in classifiers(run).items()}
    inputs["sources"] = choices.model_dump(include={"sources", "frozen"})

    def write(folder: Path) -> None:
        say("Measuring what a film costs")
        films = len(prepared(run).manifest)
        few, many = (np.arange(min(count, films)) for count in (FEW, MANY))
        taken = {}
        for name, work in _works(run).items():
            work(few)  # unmeasured: the first films take as long as setting up
            short, long = _seconds(work, few), _seconds(work, many)
            taken[name] = 1000 * max(0.0, long - short) / max(1, len(many) - len(few))
        (folder / "milliseconds.json").write_text(json.dumps(taken))

    discard_outdated(run.out / "combined" / "costs", inputs=inputs)
    folder = produce(run.out / "combined" / "costs", inputs=inputs, write=write)
    return json.loads((folder / "milliseconds.json").read_text())


def _seconds(work: Work, rows: Int64[np.ndarray, " m"]) -> float:
    started = time.perf_counter()
    work(rows)
    return time.perf_counter() - started


def _works(run: Run) -> dict[str, Work]:
    from lucency.models.classifier import load_classifier
    from lucency.models.features import embed
    from lucency.models.inference import predict

    films, choices = prepared(run), run.protocol.ensemble
    everything = originals(films.manifest.label)
    works: dict[str, Work] = {}
    for name, place in classifiers(run).items():
        classifier = load_classifier(place)
        works[name] = lambda rows, it=classifier: predict(
            it, prepared=films, plan=everything.take(rows)
        )
    root = Path(run.protocol.data.root)
    for choice in choices.frozen:
        works[FROZEN + choice.name] = lambda rows, it=choice: embed(
            films, rows=rows, choice=it, root=root
        )
    if TEXTURE in choices.single_sources:
        from lucency.ensemble.radiomics.extract import texture_row

        works[TEXTURE] = lambda rows: [texture_row(films.pixels[row]) for row in rows]
    return works


VIEWS = "gentle"  # how the views of a film differ


class Made(NamedTuple):
    """A predictor's say on validation and test films, what a film costs, and tables beside it."""

    said: Predictions
    entrant: Entrant
    tables: dict[str, pd.DataFrame]


def ensemble(run: Run, method: str) -> Made:
    """Return the networks combined by a method of ENSEMBLES, or stacked."""
    say(f"EnsembleChoices {len(predictions(run))} networks: {method}")
    cost = costs(run)
    pooled = pool(predictions(run), method=method, seed=run.protocol.ensemble.seed)
    entrant = Entrant("ensemble", sum(cost[one.network] for one in predictions(run)))
    return Made(pooled.said, entrant, {"weights": pooled.weights})


def snapshots(run: Run, network: str) -> Made:
    """Return the mean probability of a network's snapshots, one at the end of each cycle."""
    from lucency.models.inference import predict_snapshots

    with progress(f"Snapshots of {network}", unit="films") as advance:
        several = predict_snapshots(
            classifiers(run)[network], prepared=pictures(run), plan=_asked(run), progress=advance
        )
    said = pool(several, method=EQUAL, seed=0).said
    return Made(said, Entrant("snapshots", costs(run)[network] * len(several)), {})


def viewed(run: Run, network: str) -> Made:
    """Return the mean logit of a film and of several augmented views of it."""
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict_views

    choices = run.protocol.ensemble
    with progress(f"More views for {network}", unit="films") as advance:
        said = predict_views(
            load_classifier(classifiers(run)[network]),
            prepared=pictures(run),
            plan=_asked(run),
            recipe=VIEWS,
            views=choices.views,
            seed=choices.seed,
            progress=advance,
        )
    return Made(said, Entrant("views", costs(run)[network] * (choices.views + 1)), {})


def learnt(run: Run, source: str, learner: str) -> Made:
    """Return what a classical learner makes of the features of a source."""
    from lucency.ensemble.feature_classifiers import classical_predictions
    from lucency.ensemble.nested_cv import Fitting

    train, asked, _ = sides(run, source)
    choices = run.protocol.ensemble
    reduction = "selection" if source == TEXTURE else "components"
    several = [asked.of("val"), asked.of("test")]
    with progress(f"Fitting {learner} to features of {source}", unit="fits") as advance:
        said, table = classical_predictions(
            train,
            several,
            learner=learner,
            seed=choices.seed,
            fitting=Fitting(choices.oversampling, reduction, advance),
        )
    cost = _cost_of(run, source) + float(table["milliseconds"].iloc[0])
    table = table.drop(columns=["fold", "milliseconds"])
    return Made(concatenate(said), Entrant("learner", cost), {"choices": table})


def voted(run: Run, source: str) -> Made:
    """Return the vote of similar training films, and how good the search for them is."""
    from lucency.ensemble.retrieval import build_index, neighbour_predictions, prevalence
    from lucency.ensemble.retrieval_metrics import similar_table

    say(f"Looking for similar films by features of {source}")
    train, asked = _comparable(*sides(run, source)[:2], source=source)
    train, there = train.take(_shown(train)), _shown(asked)
    choices, evaluation = run.protocol.ensemble, run.protocol.evaluation
    index = build_index(train.feature, image=train.image, patient=train.patient)
    started = time.perf_counter()
    found = neighbour_predictions(
        asked.take(there), index=index, label=train.label, neighbours=choices.neighbours
    )
    cost = _cost_of(run, source) + 1000 * (time.perf_counter() - started) / len(there)
    draws = {"resamples": evaluation.resamples, "seed": evaluation.seed}
    table = similar_table(asked.take(there).of("test"), index=index, label=train.label, **draws)
    table.insert(0, "source", source)
    said = np.tile(logit(prevalence(train.label)), (len(asked), 1))
    said[there] = found.logit
    nothing = np.empty((len(asked), 0), dtype=np.float32)
    whole = replace(asked.uncalibrated(), network=found.network, logit=said, feature=nothing)
    return Made(whole, Entrant("neighbours", cost), {"similar": table})


def _comparable(
    train: Predictions, asked: Predictions, *, source: str
) -> tuple[Predictions, Predictions]:
    """Return features whose cosine means something: textures have units, and may be missing."""
    if TEXTURE not in source.split(AND):
        return train, asked
    from lucency.ensemble.nested_cv import standardised

    rows = np.arange(len(train) + len(asked))
    space = standardised(
        np.concatenate([train.feature, asked.feature]),
        fitted=rows[: len(train)],
        left=rows[len(train) :],
        seed=0,
    )
    return _seen_by(train, space.known), _seen_by(asked, space.asked)


def _seen_by(said: Predictions, axes: Float64[np.ndarray, "n d"]) -> Predictions:
    """Return films on other axes; those without features stay without."""
    nothing = np.full(axes.shape, np.nan)
    nothing[_shown(said)] = axes[_shown(said)]
    return replace(said, feature=nothing.astype(np.float32))


def _shown(said: Predictions) -> Int64[np.ndarray, " m"]:
    """Return the rows of films that have features: those without lungs have no textures."""
    return np.flatnonzero(~np.isnan(said.feature).all(axis=1))


def _asked(run: Run) -> Plan:
    seen = plan(run)
    return seen.take(seen.part != "train")


def _cost_of(run: Run, source: str) -> float:
    return sum(costs(run)[one] for one in source.split(AND))


class _Job(NamedTuple):
    """How one predictor is made, and what of."""

    inputs: dict[str, object]
    make: Callable[[], Made]


@cache
def combined(run: Run) -> EnsembleResults:
    """Return the leaderboard of networks and all that the protocol makes of them."""
    jobs = _jobs(run)
    if not jobs:
        discard_outdated(leaderboard_folder(run), inputs={})
        return no_ensemble_results()
    made = {name: _made(run, name, job) for name, job in jobs.items()}
    places = {name: fingerprint_of(_place(run, name)) for name in jobs}
    inputs = {
        "evaluation": run.protocol.evaluation.model_dump(),
        "networks": _members(run),
        "predictors": places,
    }
    discard_outdated(leaderboard_folder(run), inputs=inputs)

    def write(folder: Path) -> None:
        save_ensemble_results(_judged(run, made), folder)

    return load_ensemble_results(produce(leaderboard_folder(run), inputs=inputs, write=write))


def leaderboard_folder(run: Run) -> Path:
    """Return where the leaderboard lies, if there is one."""
    return run.out / "combined" / "leaderboard"


def _jobs(run: Run) -> dict[str, _Job]:
    """Return name -> job of every predictor that the protocol asks for beside its networks."""
    choices = run.protocol.ensemble
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


def _jobs_on_features(run: Run, source: str, choices: EnsembleChoices) -> dict[str, _Job]:
    made_of: dict[str, object] = {"features": sides(run, source).made_of, "seed": choices.seed}
    jobs = {}
    for learner in choices.learners:
        inputs = {**made_of, "learner": learner, "oversampling": choices.oversampling}
        jobs[f"{learner} on {source}"] = _Job(inputs, partial(learnt, run, source, learner))
    if choices.neighbours:
        draws = run.protocol.evaluation.model_dump(include={"resamples", "seed"})
        inputs = {**made_of, "neighbours": choices.neighbours, "draws": draws}
        jobs[f"{choices.neighbours} neighbours on {source}"] = _Job(
            inputs, partial(voted, run, source)
        )
    return jobs


def _made(run: Run, name: str, job: _Job) -> Made:
    """Return what a predictor says, recalibrated on validation films: a stage of its own."""
    method = run.protocol.evaluation.recalibration

    def write(folder: Path) -> None:
        try:
            made = job.make()
        except ValueError as error:
            told = f"ensemble: {name}: {error}; take it out of [ensemble] to go on without it"
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


def _judged(run: Run, made: dict[str, Made]) -> EnsembleResults:
    networks, choices, cost = predictions(run), run.protocol.ensemble, costs(run)
    entrants = {one.network: Entrant("network", cost[one.network]) for one in networks}
    entrants |= {name: one.entrant for name, one in made.items()}
    best = best_network(classifiers(run).values()).name
    with progress("EvaluationChoices what was combined", unit="predictors") as advance:
        table = leaderboard(
            [*networks, *(one.said for one in made.values())],
            entrants=entrants,
            reference=EQUAL if EQUAL in choices.ensembles else best,
            choices=run.protocol.evaluation,
            progress=advance,
        )
    tables = [one.tables for one in made.values()]
    return EnsembleResults(
        leaderboard=table,
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
    from lucency.ensemble.radiomics.extract import lungs_table

    return lungs_table(prepared(run).manifest, textures(run))


def _diversity(run: Run, networks: Sequence[Predictions]) -> pd.DataFrame:
    rule = run.protocol.evaluation
    fitted = [
        threshold_table(one.of("val"), method=rule.threshold, recall=rule.recall)["threshold"]
        for one in networks
    ]
    threshold = np.stack([one.to_numpy(dtype=np.float64) for one in fitted])
    return diversity([one.of("test") for one in networks], threshold=threshold)
