"""Ensembles, classical learners and similar films beside a run's networks, in one leaderboard.

Every predictor is a stage of its own: its predictions, its cost (milliseconds a film, measured
here), and what was fitted, so that it predicts other films (`lucency.ensemble.fitted`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.special import logit

from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.sections import AND, FROZEN, TEXTURE
from lucency.core.files import write_table
from lucency.core.manifest import read_table
from lucency.core.plan import originals
from lucency.core.predictions import (
    Features,
    Predictions,
    concatenate,
    load_predictions,
    save_predictions,
)
from lucency.core.progress import progress, say
from lucency.core.saved_files import read_json, write_json
from lucency.core.stage import discard_outdated, fingerprint_of, produce
from lucency.core.tables import load_tables, save_tables
from lucency.core.written import read_stage_json
from lucency.ensemble import ensembles
from lucency.ensemble.blend import Blend, Stack
from lucency.ensemble.fitted import VERSION, FittedPredictor, Rule, folder_name, save_predictor
from lucency.evaluation.calibration import recalibrate
from lucency.evaluation.compare import Entry, leaderboard
from lucency.evaluation.conformal import fit_sets
from lucency.evaluation.metrics import macro_auc
from lucency.evaluation.summary import fit_thresholds
from lucency.pipeline.feature_stage import feature_sets, sources, textures
from lucency.pipeline.run import Trained, best_network, kept

FEW, MANY = 8, 72
Work = Callable[[Int64[np.ndarray, " m"]], object]


@kept
def costs(trained: Trained) -> dict[str, float]:
    """Return the milliseconds that a prepared film takes each network, frozen ones and textures.

    The time for MANY films less that for FEW, so that setting up is left out, after a round that is
    not measured; reading the cache is in it, preparation is not.
    """
    inputs: dict[str, object] = {n: fingerprint_of(p) for n, p in trained.classifiers.items()}
    frozen = {"sources", "frozen", "feature_views"}
    inputs["sources"] = trained.run.protocol.ensemble.model_dump(include=frozen)
    place = trained.run.out / "ensemble" / "costs"
    discard_outdated(place, inputs=inputs)
    folder = produce(place, inputs=inputs, write=partial(_write_costs, trained))
    return read_json(folder / "milliseconds.json")


def _write_costs(trained: Trained, folder: Path) -> None:
    say("Measuring what a film costs")
    films = len(trained.prepared.manifest)
    few, many = (np.arange(min(count, films)) for count in (FEW, MANY))
    taken = {}
    for name, work in _works(trained).items():
        work(few)  # unmeasured: the first films take as long as setting up
        short, long = _seconds(work, few), _seconds(work, many)
        taken[name] = 1000 * max(0.0, long - short) / max(1, len(many) - len(few))
    write_json(folder / "milliseconds.json", taken)


def _seconds(work: Work, rows: Int64[np.ndarray, " m"]) -> float:
    started = time.perf_counter()
    work(rows)
    return time.perf_counter() - started


def _works(trained: Trained) -> dict[str, Work]:
    from lucency.models.classifier import load_classifier
    from lucency.models.features import embed, frozen_network
    from lucency.models.inference import predict

    films, choices = trained.prepared, trained.run.protocol.ensemble
    everything = originals(films.manifest.label)
    works: dict[str, Work] = {}
    for name, place in trained.classifiers.items():
        classifier = load_classifier(place)
        works[name] = lambda rows, it=classifier: predict(
            it, prepared=films, plan=everything.take(rows)
        )
    root = Path(trained.run.protocol.data.root)
    for choice in choices.frozen:
        network = frozen_network(choice, root=root)
        works[FROZEN + choice.name] = lambda rows, it=network: embed(
            films, rows=rows, network=it, views=choices.feature_views
        )
    if TEXTURE in choices.single_sources:
        from lucency.ensemble.radiomics import texture_row

        works[TEXTURE] = lambda rows: [texture_row(films.pixels[row]) for row in rows]
    return works


class Predictor(NamedTuple):
    """A predictor's predictions of validation and test films, its cost, tables, and its rule.

    `rule` is None for a network, which predicts by itself.
    """

    predictions: Predictions
    entry: Entry
    tables: dict[str, pd.DataFrame]
    rule: Rule | None


def ensemble(trained: Trained, members: Mapping[str, Predictor], method: str) -> Predictor:
    """Return members combined by a method of ENSEMBLES, or stacked."""
    say(f"Combining {len(members)} predictors: {method}")
    several = [one.predictions for one in members.values()]
    seed = trained.run.protocol.ensemble.seed
    combined = ensembles.make_ensemble(several, method=method, seed=seed)
    entry = Entry("ensemble", sum(one.entry.milliseconds for one in members.values()))
    rule = _rule_of(combined.fitted, tuple(members))
    return Predictor(combined.predictions, entry, {"weights": combined.weights}, rule)


def _rule_of(fitted: Blend | Stack, members: tuple[str, ...]) -> Rule:
    """Return an ensemble's rule for members of these names."""
    held = {name: value for name, value in vars(fitted).items() if name != "members"}
    arrays = {name: value for name, value in held.items() if isinstance(value, np.ndarray)}
    about = {name: value for name, value in held.items() if name not in arrays}
    name = "blend" if isinstance(fitted, Blend) else "stack"
    return Rule(name=name, members=members, about=about, arrays=arrays)


def snapshots(trained: Trained, network: str) -> Predictor:
    """Return the mean probability of a network's snapshots, one at the end of each cycle."""
    from lucency.models.inference import predict_snapshots

    with progress(f"Snapshots of {network}", unit="films") as advance:
        several = predict_snapshots(
            trained.classifiers[network],
            prepared=trained.pictures,
            plan=trained.evaluated,
            progress=advance,
        )
    mean = ensembles.make_ensemble(several, method=ensembles.EQUAL, seed=0)
    rule = _rule_of(mean.fitted, tuple(one.network for one in several))
    cost = costs(trained)[network] * len(several)
    return Predictor(mean.predictions, Entry("snapshots", cost), {}, rule)


def viewed(trained: Trained, network: str) -> Predictor:
    """Return the mean logit of a film and of several augmented views of it."""
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict_views

    choices = trained.run.protocol.ensemble
    how = {"recipe": "gentle", "views": choices.views, "seed": choices.seed}
    with progress(f"More views for {network}", unit="films") as advance:
        predicted = predict_views(
            load_classifier(trained.classifiers[network]),
            prepared=trained.pictures,
            plan=trained.evaluated,
            progress=advance,
            **how,
        )
    rule = Rule(name="views", members=(network,), about=how)
    cost = costs(trained)[network] * (choices.views + 1)
    return Predictor(predicted, Entry("views", cost), {}, rule)


def learnt(trained: Trained, source: str, learner: str) -> Predictor:
    """Return what a classical learner makes of the features of a source."""
    from lucency.ensemble.feature_classifiers import Fitting, classical_predictions

    train, evaluated, _ = feature_sets(trained, source)
    choices = trained.run.protocol.ensemble
    reduction = "selection" if source == TEXTURE else "components"
    others = concatenate([evaluated.of("val"), evaluated.of("test")])
    with progress(f"Fitting {learner} to features of {source}", unit="fits") as advance:
        predicted, table, fitted = classical_predictions(
            train,
            others,
            learner=learner,
            seed=choices.seed,
            fitting=Fitting(choices.oversampling, reduction, advance),
        )
    cost = _cost_of(trained, source) + float(table["milliseconds"].iloc[0])
    table = table.drop(columns=["fold", "milliseconds"])
    about = {"form": list(fitted.form)}
    rule = Rule(name="learner", sources=(source,), about=about, arrays=fitted.arrays)
    return Predictor(predicted, Entry("learner", cost), {"choices": table}, rule)


def voted(trained: Trained, source: str) -> Predictor:
    """Return the vote of similar training films, and how good the search for them is."""
    from lucency.ensemble.retrieval import build_index, neighbour_predictions, prevalence
    from lucency.ensemble.retrieval_metrics import similar_table

    say(f"Looking for similar films by features of {source}")
    train, evaluated, axes = _comparable(*feature_sets(trained, source)[:2], source=source)
    train, there = train.take(_shown(train)), _shown(evaluated)
    choices, label = trained.run.protocol.ensemble, train.label
    index = build_index(train)
    started = time.perf_counter()
    found = neighbour_predictions(
        evaluated.take(there), index=index, label=label, neighbours=choices.neighbours
    )
    cost = _cost_of(trained, source) + 1000 * (time.perf_counter() - started) / len(there)
    tests = evaluated.take(there).of("test")
    table = similar_table(tests, index=index, label=label, **trained.run.draws)
    table.insert(0, "source", source)
    predicted = np.tile(logit(prevalence(label)), (len(evaluated), 1))
    predicted[there] = found.logit
    whole = evaluated.predictions(network=found.network, logit=predicted)
    half = {"direction": index.direction.astype(np.float16), "patient": index.patient}
    rule = Rule(
        name="neighbours",
        sources=(source,),
        about={"neighbours": choices.neighbours},
        arrays={**axes, **half, "label": label},
    )
    return Predictor(whole, Entry("neighbours", cost), {"similar": table}, rule)


def _comparable(
    train: Features, evaluated: Features, *, source: str
) -> tuple[Features, Features, dict[str, np.ndarray]]:
    """Return features whose cosine means something, and their axes: textures have units."""
    if TEXTURE not in source.split(AND):
        return train, evaluated, {}
    from lucency.ensemble.feature_classifiers import standardised

    rows = np.arange(len(train) + len(evaluated))
    both = np.concatenate([train.feature, evaluated.feature])
    space = standardised(both, rows[: len(train)], rows[len(train) :])
    both = _on_axes(train, space.known), _on_axes(evaluated, space.new)
    return *both, space.axes.arrays()


def _on_axes(films: Features, axes: Float64[np.ndarray, "n d"]) -> Features:
    """Return films on other axes; those without features stay without."""
    feature = np.full(axes.shape, np.nan)
    feature[_shown(films)] = axes[_shown(films)]
    return replace(films, feature=feature.astype(np.float32))


def _shown(films: Features) -> Int64[np.ndarray, " m"]:
    """Return the rows of films that have features: those without lungs have no textures."""
    return np.flatnonzero(~np.isnan(films.feature).all(axis=1))


def _cost_of(trained: Trained, source: str) -> float:
    return sum(costs(trained)[one] for one in source.split(AND))


class _Job(NamedTuple):
    """How one predictor is made, and what of."""

    inputs: dict[str, object]
    make: Callable[[], Predictor]


@kept
def compare_ensembles(trained: Trained) -> ensembles.EnsembleResults:
    """Return the leaderboard of networks and all that the protocol makes of them."""
    place = trained.run.out / "ensemble" / "leaderboard"
    made = {name: _made(trained, name, job) for name, job in _jobs(trained).items()}
    combined = _ensemble_jobs(trained, made)
    made |= {name: _made(trained, name, job) for name, job in combined.items()}
    if not made:
        discard_outdated(place, inputs={})
        return ensembles.EnsembleResults()
    inputs = {
        "evaluation": trained.run.protocol.evaluation.scoring,
        "networks": _members(trained),
        "predictors": {name: fingerprint_of(_place(trained, name)) for name in made},
    }
    discard_outdated(place, inputs=inputs)
    write = partial(_write_leaderboard, trained, made)
    folder = produce(place, inputs=inputs, write=write)
    return load_tables(ensembles.EnsembleResults, folder, text=ensembles.TEXT)


def _jobs(trained: Trained) -> dict[str, _Job]:
    """Return name -> job of every predictor beside the networks, but ensembles."""
    choices = trained.run.protocol.ensemble
    jobs: dict[str, _Job] = {}
    for name in (choice.name for choice in trained.run.protocol.network):
        weights: dict[str, object] = {"network": _members(trained)[name]}
        if choices.views:
            how = choices.model_dump(include={"views", "seed"})
            jobs[f"{name} with views"] = _Job(weights | how, partial(viewed, trained, name))
        if trained.run.protocol.training_of(name).snapshots:
            jobs[f"{name} snapshots"] = _Job(weights, partial(snapshots, trained, name))
    if choices.learners or choices.neighbours:
        for source in sources(trained):
            jobs |= _jobs_on_features(trained, source, choices)
    return jobs


def _ensemble_jobs(trained: Trained, made: Mapping[str, Predictor]) -> dict[str, _Job]:
    """Return name -> job of every ensemble, of networks or of what was made beside them."""
    choices, networks = trained.run.protocol.ensemble, _members(trained)
    if not choices.ensembles:
        return {}
    cost = costs(trained)
    known = {
        one.network: Predictor(one, Entry("network", cost[one.network]), {}, None)
        for one in trained.predictions
    } | dict(made)
    members = {name: known[name] for name in choices.members or networks}
    prints = {name: networks.get(name) or fingerprint_of(_place(trained, name)) for name in members}
    return {
        method: _Job(
            {"members": prints, "method": method, "seed": choices.seed},
            partial(ensemble, trained, members, method),
        )
        for method in choices.ensembles
    }


def _members(trained: Trained) -> dict[str, str]:
    """Return the networks and what their predictions are made from, their weights among it."""
    place = trained.run.out / "predictions"
    return {one.network: fingerprint_of(place / one.network) for one in trained.predictions}


def _jobs_on_features(trained: Trained, source: str, choices: EnsembleChoices) -> dict[str, _Job]:
    made_of = {"features": feature_sets(trained, source).made_of, "seed": choices.seed}
    jobs = {}
    for learner in choices.learners:
        inputs = {**made_of, "learner": learner, "oversampling": choices.oversampling}
        jobs[f"{learner} on {source}"] = _Job(inputs, partial(learnt, trained, source, learner))
    if choices.neighbours:
        inputs = {**made_of, "neighbours": choices.neighbours, "draws": trained.run.draws}
        jobs[f"{choices.neighbours} neighbours on {source}"] = _Job(
            inputs, partial(voted, trained, source)
        )
    return jobs


def _made(trained: Trained, name: str, job: _Job) -> Predictor:
    """Return what a predictor says, recalibrated on validation films: a stage of its own."""
    choices = trained.run.protocol.evaluation
    inputs, place = {"kept": VERSION, **choices.deciding, **job.inputs}, _place(trained, name)
    discard_outdated(place, inputs=inputs)
    folder = produce(place, inputs=inputs, write=partial(_write_predictor, trained, name, job))
    about = read_stage_json(folder / "entry.json")
    files = sorted(folder.glob("*.csv"))
    tables = {file.stem: read_table(file, text=ensembles.TEXT) for file in files}
    return Predictor(load_predictions(folder / "predictions.npz"), Entry(**about), tables, None)


def _write_predictor(trained: Trained, name: str, job: _Job, folder: Path) -> None:
    try:
        made = job.make()
    except ValueError as error:
        message = f"ensemble: {name}: {error}; take it out of [ensemble] to go on without it"
        raise ValueError(message) from error
    choices = trained.run.protocol.evaluation
    known = made.predictions.of("val")
    line = recalibrate(known.label, known.logit.astype(np.float32), method=choices.recalibration)
    about = {"slope": line.slope, "offset": line.offset, "knot": line.knot}
    predicted = replace(made.predictions, network=name, **about)
    validated = predicted.of("val")
    fitted = fit_thresholds([validated], choices=choices)
    assert made.rule is not None, "every job gives a rule"
    save_predictor(
        FittedPredictor(
            name=name,
            kind=made.entry.kind,
            findings=predicted.findings,
            preparation=trained.prepared.preparation,
            split=predicted.split,
            recalibration=line,
            threshold=fitted["threshold"].to_numpy(dtype=np.float64),
            sets=fit_sets(validated, **choices.levels),
            validation_auc=macro_auc(validated.label, validated.calibrated),
            rule=made.rule,
        ),
        folder,
    )
    save_predictions(predicted, folder / "predictions.npz")
    write_json(folder / "entry.json", made.entry._asdict())
    for table, rows in made.tables.items():
        write_table(rows, folder / f"{table}.csv")


def _place(trained: Trained, name: str) -> Path:
    return trained.run.out / "ensemble" / folder_name(name)


def _write_leaderboard(trained: Trained, made: dict[str, Predictor], folder: Path) -> None:
    networks, choices, cost = trained.predictions, trained.run.protocol.ensemble, costs(trained)
    entries = {one.network: Entry("network", cost[one.network]) for one in networks}
    entries |= {name: one.entry for name, one in made.items()}
    best = best_network(trained.classifiers.values()).name
    with progress("Evaluating predictors", unit="predictors") as advance:
        table = leaderboard(
            [*networks, *(one.predictions for one in made.values())],
            entries=entries,
            reference=ensembles.EQUAL if ensembles.EQUAL in choices.ensembles else best,
            choices=trained.run.protocol.evaluation,
            progress=advance,
        )
    tables, lungs = [one.tables for one in made.values()], pd.DataFrame()
    if TEXTURE in choices.single_sources:
        from lucency.ensemble.radiomics import lungs_table

        lungs = lungs_table(trained.prepared.manifest, textures(trained))
    results = ensembles.EnsembleResults(
        leaderboard=table,
        weights=_together(tables, "weights"),
        diversity=_diversity(trained) if len(networks) > 1 else pd.DataFrame(),
        choices=_together(tables, "choices"),
        similar=_together(tables, "similar"),
        lungs=lungs,
    )
    save_tables(results, folder)


def _together(tables: Sequence[dict[str, pd.DataFrame]], name: str) -> pd.DataFrame:
    found = [one[name] for one in tables if name in one]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _diversity(trained: Trained) -> pd.DataFrame:
    networks, choices = trained.predictions, trained.run.protocol.evaluation
    fitted = fit_thresholds([one.of("val") for one in networks], choices=choices)["threshold"]
    threshold = fitted.to_numpy(dtype=np.float64).reshape(len(networks), -1)
    return ensembles.diversity([one.of("test") for one in networks], threshold=threshold)
