"""The program: all stages of a run in order. Each asks for those before it, and is done once.

films -> prepared -> parts -> plan -> networks -> predictions -> evaluation -> checks -> report.
STAGES, at the end, is the list: `lucency run P --out D --until STAGE` cuts it short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int64

from lucency.audit.checks.run_checks import check_run, load_issues, save_issues
from lucency.audit.label_quality import AuditResults
from lucency.balance.imbalance import (
    POPULATIONS,
    Balanced,
    Change,
    describe_change,
    load_steps,
    save_steps,
)
from lucency.balance.methods import needs_features, plan_parts, planned, splitter
from lucency.config.sections import Source
from lucency.core.manifest import (
    Manifest,
    Prepared,
    load_part,
    part_fingerprint,
    read_table,
    save_part,
)
from lucency.core.plan import Plan, load_plan, originals, save_plan
from lucency.core.predictions import Predictions, load_predictions, save_predictions
from lucency.core.progress import progress, say
from lucency.core.stage import (
    RECEIPT,
    Failures,
    discard_outdated,
    fingerprint_file,
    fingerprint_of,
    produce,
)
from lucency.core.tables import save_tables
from lucency.data.preprocess import prepare
from lucency.data.sources import draw_source, read_films
from lucency.data.split import set_apart, split
from lucency.ensemble.ensembles import EnsembleResults
from lucency.evaluation.leakage_inflation import (
    StudyComparison,
    compare_with_study,
    conclude_inflation,
    inflate_all,
    load_comparison,
)
from lucency.evaluation.preparation_grid import STUDY
from lucency.evaluation.summary import (
    Evaluation,
    evaluate_networks,
    fit_thresholds,
    load_evaluation,
)
from lucency.explain.heatmap_results import HeatmapResults
from lucency.pipeline.audit_stage import audit_network
from lucency.pipeline.ensemble_stage import compare_ensembles, leaderboard_folder
from lucency.pipeline.feature_stage import features_folder, similarity_features
from lucency.pipeline.heatmap_stage import explain_network
from lucency.pipeline.run import Run, Trained, kept


def source(run: Run) -> Source:
    """Return where the films are; phantoms are drawn first."""
    protocol, out = run.protocol, run.source / "phantom"
    return draw_source(protocol.data, findings=protocol.findings, out=out, workers=run.workers)


@kept
def manifest(run: Run) -> Manifest:
    """Return the films that lie on disk, with labels."""
    if not (run.source / "manifest").exists():
        check_networks(run)  # before the first of hours of work, not after
    return read_films(source(run), findings=run.protocol.findings, out=run.source / "manifest")


@kept
def prepared(run: Run) -> Prepared:
    """Return the films as a network sees them."""
    films = manifest(run)
    with progress("Preparing films", unit="films") as advance:
        return prepare(
            films,
            preparation=run.protocol.preparation,
            out=run.cache / "prepared",
            workers=run.workers,
            progress=advance,
            inputs={"manifest": fingerprint_of(run.source / "manifest")},
        )


@kept
def parts(run: Run) -> np.ndarray:
    """Return the part of every film; or of every plan entry, where a protocol balances first."""
    films, choices = prepared(run).manifest, run.protocol.split
    early = run.protocol.balance.before_split
    inputs = {
        "split": choices.model_dump(),
        "balance": run.protocol.balance.model_dump() if early else "after the split",
        "prepared": fingerprint_of(run.cache / "prepared"),
    }
    names = _balanced_first(run).plan.names(films.image) if early else films.image

    def write(folder: Path) -> None:
        if early:
            part = _balanced_first(run).plan.part
        else:
            part = split(films, choices=choices, root=Path(source(run).root))
        save_part(names, part, folder / "part.csv")

    return load_part(produce(run.shared / "split", inputs=inputs, write=write) / "part.csv", names)


def split_name(run: Run) -> str:
    """Return the fingerprint of the parts."""
    early = run.protocol.balance.before_split
    image = prepared(run).manifest.image
    return part_fingerprint(_balanced_first(run).plan.names(image) if early else image, parts(run))


@kept
def _balanced_first(run: Run) -> Balanced:
    """Return the plan of a protocol that balances before its split, parted."""
    films = prepared(run).manifest
    return planned(films, splitter(run.protocol)(films, Path()), run.protocol)


def _features(run: Run) -> np.ndarray:
    """Return what says which training films are alike; nothing where no method asks for it."""
    rows = training_films(run)
    if not needs_features(run.protocol.balance):
        return np.empty((len(rows), 0), dtype=np.float32)
    return similarity_features(
        prepared(run),
        rows=rows,
        choice=run.protocol.balance.features,
        root=Path(run.protocol.data.root),
        upstream={"prepared": fingerprint_of(run.cache / "prepared"), "split": split_name(run)},
        home=run.shared,
    )


@kept
def plan(run: Run) -> Plan:
    """Return what each part sees."""
    films, part = prepared(run).manifest, parts(run)
    choices = run.protocol.balance
    made_of = {"prepared": fingerprint_of(run.cache / "prepared"), "split": split_name(run)}
    inputs = {"balance": choices.model_dump(), **made_of}
    feature = _features(run)
    if needs_features(choices):
        inputs["features"] = fingerprint_of(features_folder(run.shared, choices.features))

    def write(folder: Path) -> None:
        if choices.before_split:
            made = _balanced_first(run)
        else:
            made = plan_parts(
                films.label,
                part=part,
                findings=films.findings,
                choices=choices,
                feature=feature,
            )
        save_plan(made.plan, films.image, folder)
        save_steps(made.steps, folder)

    return load_plan(produce(run.out / "plan", inputs=inputs, write=write), films.image)


def change(run: Run) -> Change:
    """Return what balancing made of its films: all, or the training part."""
    films, seen = prepared(run).manifest, plan(run)
    early = run.protocol.balance.before_split
    return describe_change(
        films.label[training_films(run)],
        plan=seen if early else seen.take(seen.part == "train"),
        findings=films.findings,
        steps=load_steps(run.out / "plan"),
        population=POPULATIONS[early],
    )


@kept
def pictures(run: Run) -> Prepared:
    """Return the prepared films, with the plan's copies where these are made at the native size."""
    choices, films = run.protocol.balance, prepared(run)
    if choices.copies_at == "prepared":
        return films
    from lucency.models.native_copies import load_copies, make_copies

    seen = plan(run)
    upstream = {"plan": fingerprint_of(run.out / "plan")}
    upstream |= {"prepared": fingerprint_of(run.cache / "prepared")}

    def write(folder: Path) -> None:
        with progress("Making copies", unit="films") as advance:
            make_copies(
                films,
                plan=seen,
                seed=choices.seed,
                folder=folder,
                workers=run.workers,
                progress=advance,
            )

    folder = produce(run.out / "copies", inputs=upstream, write=write)
    return replace(films, copies=load_copies(folder, copies=seen.take(seen.copy > 0)))


@kept
def classifiers(run: Run) -> dict[str, Path]:
    """Return the folders of the trained networks by name."""
    from lucency.models.training import check_labels, train

    check_networks(run)
    films = prepared(run).manifest
    check_labels(films.label[training_films(run)], findings=films.findings)
    seen = plan(run)
    upstream = {"prepared": fingerprint_of(run.cache / "prepared")}
    upstream |= {"plan": fingerprint_of(run.out / "plan")}
    trained = {}
    for choice in run.protocol.network:
        with progress(f"Training {choice.name}", unit="films") as advance:
            trained[choice.name] = train(
                pictures(run),
                plan=seen,
                protocol=run.protocol,
                choice=choice,
                upstream={**upstream, "split": split_name(run)},
                out=run.out / "networks" / choice.name,
                progress=advance,
            )
    return trained


def check_networks(run: Run) -> None:
    """Raise ValueError for a network that cannot be built, or whose weights are not there.

    Those that only give features are among them.
    """
    from lucency.models.training import check_choice

    root = Path(run.protocol.data.root)
    for choice in run.protocol.network:
        check_choice(choice, root=root, frozen=run.protocol.training_of(choice.name).frozen)
    for choice in run.protocol.ensemble.frozen:
        check_choice(choice, root=root)


@kept
def predictions(run: Run) -> list[Predictions]:
    """Return every network's predictions on validation and test films."""
    return _predicted(run, plan(run).take(plan(run).part != "train"), place="predictions")


def _predicted(run: Run, seen: Plan, *, place: str) -> list[Predictions]:
    """Return every network's predictions of a plan's entries, each in a folder of its own."""
    made = []
    for name, trained in classifiers(run).items():

        def write(folder: Path, name: str = name, trained: Path = trained) -> None:
            save_predictions(_predict(run, name, trained, seen), folder / "predictions.npz")

        weights = fingerprint_file(trained / "weights.safetensors")
        inputs = {"network": fingerprint_of(trained), "weights": weights}
        folder = produce(run.out / place / name, inputs=inputs, write=write)
        made.append(load_predictions(folder / "predictions.npz"))
    return made


def _predict(run: Run, name: str, trained: Path, seen: Plan) -> Predictions:
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict

    with progress(f"Predicting with {name}", unit="films") as advance:
        films = pictures(run)
        return predict(load_classifier(trained), prepared=films, plan=seen, progress=advance)


def training_films(run: Run) -> np.ndarray:
    """Return the training films before balancing; all films where it comes before the split."""
    if run.protocol.balance.before_split:
        return np.setdiff1d(np.arange(len(prepared(run).manifest)), films_apart(run))
    return np.flatnonzero(parts(run) == "train")


def patients_seen(run: Run) -> Int64[np.ndarray, " p"]:
    """Return the patients of every film that the plan shows or mixes, in any part."""
    seen, films = plan(run), prepared(run).manifest
    return np.unique(films.patient[np.concatenate([seen.row, seen.mate])])


@kept
def films_apart(run: Run) -> Int64[np.ndarray, " m"]:
    """Return the films of patients set apart, whom no network meets; there may be none."""
    return np.flatnonzero(set_apart(prepared(run).manifest, choices=run.protocol.split))


@kept
def predictions_apart(run: Run) -> list[Predictions]:
    """Return every network's predictions on the films of patients set apart, as a test part."""
    rows = films_apart(run)
    shown = originals(prepared(run).manifest.label).take(rows)
    return _predicted(run, replace(shown, part=np.full(len(rows), "test")), place="apart")


@kept
def trained(run: Run) -> Trained:
    """Return what the stages up to `predict` made, for those that explain, audit and combine."""
    return Trained(
        run=run,
        root=Path(source(run).root),
        prepared=prepared(run),
        pictures=pictures(run),
        plan=plan(run),
        training_films=training_films(run),
        classifiers=classifiers(run),
        predictions=predictions(run),
    )


@kept
def evaluation(run: Run) -> Evaluation:
    """Return thresholds, metrics, comparison, ranking, calibration, subgroups and conclusion."""
    several, films, choices = predictions(run), prepared(run).manifest, run.protocol.evaluation
    early = run.protocol.balance.before_split
    shown = plan(run).label[plan(run).part == "train"]
    label = shown if early else films.label[training_films(run)]
    made = {p.network: fingerprint_of(run.out / "predictions" / p.network) for p in several}
    inputs = {"evaluation": choices.model_dump(), "predictions": made}

    def write(folder: Path) -> None:
        tests = [one.of("test") for one in several]
        say(f"Evaluating {len(several)} networks on {len(tests[0]):,} test films")
        found = evaluate_networks(
            tests,
            thresholds=fit_thresholds([one.of("val") for one in several], choices=choices),
            facts=films.facts.set_axis(films.image),
            prevalence=np.nanmean(label.astype(np.float64), axis=0),
            resamples=choices.resamples,
            seed=choices.seed,
        )
        save_tables(found, folder)

    return load_evaluation(produce(run.out / "evaluation", inputs=inputs, write=write))


@kept
def study_comparison(run: Run) -> StudyComparison:
    """Return what networks reach on patients set apart and what was published; both may be none."""
    choices, own = run.protocol.evaluation, [one.of("test") for one in predictions(run)]
    rows, draws = films_apart(run), choices.model_dump(include={"resamples", "seed"})
    if not len(rows) and not choices.published:
        return StudyComparison()
    reached = predictions_apart(run) if len(rows) else []
    inputs = {
        "evaluation": fingerprint_of(run.out / "evaluation"),
        "apart": {p.network: fingerprint_of(run.out / "apart" / p.network) for p in reached},
        "published": choices.published,
    }

    def write(folder: Path) -> None:
        found, people = StudyComparison(), prepared(run).manifest.patient[rows]
        if reached:
            say(f"Evaluating on {len(rows):,} films of patients set apart")
            fitted, seen = evaluation(run).thresholds, patients_seen(run)
            table = inflate_all(own, reached, seen=seen, thresholds=fitted, **draws)
            sentence = conclude_inflation({"": table}, patients=len(np.unique(people)))
            found = replace(found, inflation=table, conclusion=sentence)
        if choices.published:
            found = replace(found, study=compare_with_study(own, reached, **draws))
        save_tables(found, folder)

    return load_comparison(produce(run.out / "study", inputs=inputs, write=write))


@kept
def issues(run: Run) -> pd.DataFrame:
    """Return what the leak doctor found, as `audit.checks.issue.issue_table` gives it."""
    found = evaluation(run)
    inputs = {
        "evaluation": fingerprint_of(run.out / "evaluation"),
        "plan": fingerprint_of(run.out / "plan"),
        "manifest": fingerprint_of(run.source / "manifest"),
    }

    def write(folder: Path) -> None:
        say("Looking for leaks")
        table = read_table(run.source / "manifest" / "missing.csv", text=("image",))
        issues_found = check_run(
            run.protocol,
            prepared=prepared(run),
            plan=plan(run),
            missing=table["image"].tolist(),
            predictions=predictions(run),
            thresholds=found.thresholds,
            scores=found.metrics,
        )
        save_issues(issues_found, folder)

    return load_issues(produce(run.out / "check", inputs=inputs, write=write))


@kept
def heatmaps(run: Run) -> HeatmapResults:
    """Return the heat maps of the network that the protocol names, and what they are worth."""
    choices = run.protocol.explanation
    return explain_network(trained(run), choices, out=run.out / "explanation")


@kept
def audit(run: Run) -> AuditResults:
    """Return label quality, shortcuts, hidden strata and odd pictures of the best network."""
    return audit_network(trained(run))


@kept
def ensembles(run: Run) -> EnsembleResults:
    """Return the leaderboard of the networks and of all that the protocol makes of them."""
    return compare_ensembles(trained(run))


def report(run: Run) -> Path:
    """Return the page that shows it all; a chapter that cannot be made is left out, and named.

    `Failures` of the folder `failed` in the run say which; the next call tries them again.
    """
    from lucency.pipeline.experiment import gather
    from lucency.report.run_page import write_report

    found, failures = evaluation(run), Failures(run.out / "failed")
    if failures.reasons():  # what was left out is tried anew
        discard_outdated(run.out / "report", inputs={})
    failures.clear()
    made = {name: failures.attempt(name, partial(make, run)) for name, make in CHAPTERS.items()}
    there = ["evaluation", *(place for name, place in PLACES.items() if made[name] is not None)]
    folders: dict[str, object] = {place: fingerprint_of(run.out / place) for place in there}
    if made["study"]:
        folders["study"] = fingerprint_of(run.out / "study")
    if made["ensembles"] is not None and len(made["ensembles"].leaderboard):
        folders["ensemble"] = fingerprint_of(leaderboard_folder(run.out))
    if (run.out / STUDY / "evaluation" / RECEIPT).is_file():
        folders[STUDY] = fingerprint_of(run.out / STUDY / "evaluation")
    if failures.reasons():
        folders["failed"] = failures.reasons()
    discard_outdated(run.out / "report", inputs=folders)

    def write(folder: Path) -> None:
        say("Writing the report")
        experiment = gather(
            run,
            manifest=manifest(run),
            prepared=pictures(run),
            plan=plan(run),
            predictions=predictions(run),
            evaluation=found,
            made=made | {"balance": failures.attempt("balance", partial(change, run))},
        )
        write_report(experiment, file=folder / "report.html", failures=failures)

    return produce(run.out / "report", inputs=folders, write=write) / "report.html"


CHAPTERS: dict[str, Callable[[Run], Any]] = {
    "checks": issues,
    "study": study_comparison,
    "heatmaps": heatmaps,
    "audit": audit,
    "ensembles": ensembles,
}
PLACES = {"checks": "check", "heatmaps": "explanation", "audit": "audit"}


class Stage(NamedTuple):
    """A stage: its name, what it makes of a run, and that in words."""

    name: str
    make: Callable[[Run], Any]
    makes: str


STAGES = (
    Stage("prepare", prepared, "films as a network sees them, from label files and pictures"),
    Stage("split", parts, "the part of every film: train, val or test"),
    Stage("balance", plan, "which films each part sees, how often and how changed"),
    Stage("train", classifiers, "the trained networks"),
    Stage("predict", predictions, "every network's predictions on validation and test films"),
    Stage("evaluate", evaluation, "metrics with confidence intervals, and comparisons"),
    Stage("check", issues, "what the leak doctor finds"),
    Stage("report", report, "heat maps, audit, ensembles, and the page that shows it all"),
)


def make(run: Run, name: str) -> Any:
    """Do the stage `name`, and all before it that is not done; return what it makes."""
    return next(stage for stage in STAGES if stage.name == name).make(run)
