"""The program: all stages of a run in order. Each asks for those before it, and is done once.

STAGES, at the end, is the list that `lucency run P --out D --until STAGE` cuts short. What each
stage makes, and its folder: prepare, films (manifest, prepared); split, parts (split); balance, a
plan (plan); train, networks (networks); predict, predictions (predictions); evaluate, tables
(evaluation); check, issues (check); report, the page (report) and its chapters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from lucency.audit.checks.run_checks import NUMBER_OF_CHECKS, check_run, load_issues, save_issues
from lucency.audit.shortcuts import AuditResults
from lucency.balance import imbalance
from lucency.balance.methods import needs_features, plan_parts, planned, splitter
from lucency.config.protocol import Protocol, without_places
from lucency.config.sections import THUMBNAIL, Source
from lucency.core.manifest import (
    Manifest,
    Prepared,
    counted,
    load_part,
    load_prepared,
    part_fingerprint,
    read_table,
    save_part,
)
from lucency.core.plan import Plan, load_plan, only_tests, save_plan
from lucency.core.predictions import Predictions
from lucency.core.progress import AfterEpoch, progress, say, unwatched
from lucency.core.stage import RECEIPT, Failures, discard_outdated, fingerprint_of, produce
from lucency.core.tables import save_tables
from lucency.data.film_cache import prepare
from lucency.data.film_files import film_exists
from lucency.data.several_sources import (
    draw_sources,
    films_of_sources,
    places_absent,
    read_sources,
    refuse_same_pictures,
)
from lucency.data.sources import refuse_unstated, with_both_labels
from lucency.data.split import list_fingerprints, set_apart, split
from lucency.data.stored_tables import tables_folder
from lucency.ensemble.ensembles import EnsembleResults
from lucency.evaluation import leakage_inflation as inflation
from lucency.evaluation import summary
from lucency.evaluation.external_validation import ExternalValidation
from lucency.evaluation.preparation_grid import STUDY, PreparationStudy, load_study
from lucency.evaluation.set_coverage import SetCoverage
from lucency.evaluation.unfamiliar_results import UnfamiliarResults
from lucency.evaluation.unfamiliarity import FOLDER
from lucency.explain.heatmap_results import HeatmapResults
from lucency.pipeline.audit_stage import audit_network
from lucency.pipeline.augmentation_gallery import augmentation_gallery
from lucency.pipeline.coverage_stage import cover_networks
from lucency.pipeline.ensemble_stage import compare_ensembles
from lucency.pipeline.external_stage import (
    check_external,
    check_test,
    external_films,
    external_validation,
)
from lucency.pipeline.feature_stage import features_folder, similarity_features
from lucency.pipeline.heatmap_stage import explain_network
from lucency.pipeline.network_predictions import predict_each
from lucency.pipeline.run import (
    EXTERNAL,
    Run,
    Trained,
    describe_network,
    external_run,
    how_to_move,
    kept,
    read_history,
    require_pictures,
)
from lucency.pipeline.unfamiliar_stage import compare_aliens

REASONS = 3  # of rejected films that are named


def source(run: Run) -> Source:
    """Return where the films are; phantoms are drawn first."""
    protocol, out = run.protocol, run.source / "phantom"
    return draw_sources(protocol.data, findings=protocol.findings, out=out, workers=run.workers)


@kept
def _tables(run: Run) -> Path:
    """Return the folder of the first source's tables; where they are gone, their root."""
    place = source(run)
    return Path(place.root) if "root" in places_absent(place) else tables_folder(place)


@kept
def manifest(run: Run) -> Manifest:
    """Return the films that lie on disk, with labels; as they were read, where these are gone."""
    if not (run.source / "manifest").exists():  # before the first of hours of work, not after
        _fetch_weights(run)
        refuse_unstated(run.protocol.data, findings=run.protocol.findings)
        check_tests(run)
    return _films_to_split(run)


@kept
def _films_to_split(run: Run) -> Manifest:
    """Return the films as `manifest` does; what cannot be split is refused before it is written."""
    place, out = source(run), run.source / "manifest"
    if (out / RECEIPT).is_file():
        return labelled_films(run)

    def check(films: Manifest) -> None:
        splitter(run.protocol)(with_both_labels(films), tables_folder(place))

    return read_sources(place, findings=run.protocol.findings, out=out, check=check)


@kept
def labelled_films(run: Run) -> Manifest:
    """Return the films as `manifest` does, of a run that makes nothing else."""
    place, out = source(run), run.source / "manifest"
    lost = places_absent(place)
    if lost and (out / RECEIPT).is_file():
        for text in lost.values():
            say(f"{text}: films and labels stay as they were read; {how_to_move(run, *lost)}")
        return films_of_sources(place, out)
    return read_sources(place, findings=run.protocol.findings, out=out)


@kept
def prepared(run: Run) -> Prepared:
    """Return the films as a network sees them; as they are prepared, where files are gone."""
    films, out = manifest(run), run.cache / "prepared"
    path = films.facts["path"].to_numpy(dtype=str)
    lost, gone = places_absent(source(run)), 0
    if (out / RECEIPT).is_file():  # made before
        rootless = any(key.endswith("root") for key in lost)  # no film is looked for
        gone = len(path) if rootless else sum(not film_exists(file) for file in path.tolist())
    if gone:
        if not lost:
            absent = counted(gone, "film", "is/are", of=len(path))
            roots = " and ".join(one.root for one in source(run).every)
            say(f"{absent} no longer below {roots}: they stay as prepared")
        made = load_prepared(out)
    elif lost:
        raise ValueError(f"{min(lost.values())}; {how_to_move(run, *lost)}")
    else:
        made = _prepare(run, films)
    row = pd.Index(films.image).get_indexer(pd.Index(made.manifest.image))
    facts = made.manifest.facts.assign(path=path[row])
    return replace(made, manifest=replace(made.manifest, facts=facts))


def _prepare(run: Run, films: Manifest) -> Prepared:
    with progress("Preparing films", unit="films") as advance:
        made = prepare(
            films,
            preparation=run.protocol.preparation,
            out=run.cache / "prepared",
            workers=run.workers,
            progress=advance,
            inputs={"manifest": fingerprint_of(run.source / "manifest")},
        )
    say_rejected(made.rejected, films=len(films), file=run.cache / "prepared" / "rejected.csv")
    return made


def say_rejected(rejected: pd.DataFrame, *, films: int, file: Path) -> None:
    """Tell how many of `films` were rejected, and the first reasons; `file` lists all."""
    if count := len(rejected):
        pairs = zip(rejected["image"], rejected["reason"], strict=True)
        shown = "; ".join(f"{image}: {reason}" for image, reason in islice(pairs, REASONS))
        more = "; …" if count > REASONS else ""
        left_out = f"{counted(count, 'film', 'is/are', of=films)} rejected and left out"
        say(f"{left_out}: {shown}{more} (all in {file})")


@kept
def parts(run: Run) -> np.ndarray:
    """Return the part of every film; or of every plan entry, where a protocol balances first."""
    early, names = run.protocol.balance.before_split, _parted_names(run)
    inputs = {
        "split": run.protocol.split.model_dump(),
        "balance": run.protocol.balance.model_dump() if early else "after the split",
        **_lists(run),
        **run.fingerprints("prepared"),
    }
    folder = produce(run.shared / "split", inputs=inputs, write=partial(_write_parts, run))
    return load_part(folder / "part.csv", names)


def _lists(run: Run) -> dict[str, object]:
    """Return what the lists of the split hold; where they are gone, what they held when split."""
    receipt, lists = run.shared / "split" / RECEIPT, run.protocol.split.lists
    if not lists:
        return {}
    root = _tables(run)
    if receipt.is_file() and not any((root / name).is_file() for name in lists.values()):
        held = json.loads(receipt.read_text(encoding="utf-8"))
        return {"lists": held["lists"]} if "lists" in held else {}
    return {"lists": list_fingerprints(run.protocol.split, root)}


def _write_parts(run: Run, folder: Path) -> None:
    refuse_same_pictures(prepared(run), run.protocol.data, out=run.shared)
    if run.protocol.balance.before_split:
        part = _balanced_first(run).plan.part
    else:
        films, root = prepared(run).manifest, _tables(run)
        about = {"choices": run.protocol.split, "place": source(run)}
        part = split(films, root=root, tell=_shown_when_read, **about)
    save_part(_parted_names(run), part, folder / "part.csv")


def _shown_when_read(line: str) -> None:
    """Show no line on the films of lists a second time."""
    del line


def _parted_names(run: Run) -> np.ndarray:
    """Return the names of what has parts: films, or the entries of a plan before the split."""
    image = prepared(run).manifest.image
    early = run.protocol.balance.before_split
    return _balanced_first(run).plan.names(image) if early else image


@kept
def split_name(run: Run) -> str:
    """Return the fingerprint of the parts."""
    return part_fingerprint(_parted_names(run), parts(run))


@kept
def _balanced_first(run: Run) -> imbalance.Balanced:
    """Return the plan of a protocol that balances before its split, parted."""
    films = prepared(run).manifest
    return planned(films, splitter(run.protocol)(films, Path()), run.protocol)


@kept
def _features(run: Run) -> np.ndarray:
    """Return what says which training films are alike; nothing where no method needs it."""
    rows = training_films(run)
    if not needs_features(run.protocol.balance):
        return np.empty((len(rows), 0), dtype=np.float32)
    return similarity_features(
        prepared(run),
        rows=rows,
        choice=run.protocol.balance.features,
        root=Path(run.protocol.data.root),
        upstream={**run.fingerprints("prepared"), "split": split_name(run)},
        home=run.shared,
    )


@kept
def plan(run: Run) -> Plan:
    """Return what each part sees."""
    choices = run.protocol.balance
    inputs = {"balance": choices.model_dump(), "split": split_name(run)}
    inputs |= run.fingerprints("prepared")
    if needs_features(choices):
        _features(run)
        inputs["features"] = fingerprint_of(features_folder(run.shared, choices.features))
    folder = produce(run.out / "plan", inputs=inputs, write=partial(_write_plan, run))
    return load_plan(folder, prepared(run).manifest.image)


def _write_plan(run: Run, folder: Path) -> None:
    films = prepared(run).manifest
    if run.protocol.balance.before_split:
        made = _balanced_first(run)
    else:
        made = plan_parts(
            films.label,
            part=parts(run),
            findings=films.findings,
            choices=run.protocol.balance,
            feature=_features(run),
        )
    save_plan(made.plan, films.image, folder)
    imbalance.save_steps(made.steps, folder)


def change(run: Run) -> imbalance.Change:
    """Return what balancing made of its films: all, or the training part."""
    films, seen = prepared(run).manifest, plan(run)
    early = run.protocol.balance.before_split
    return imbalance.describe_change(
        films.label[training_films(run)],
        plan=seen if early else seen.take(seen.part == "train"),
        findings=films.findings,
        steps=imbalance.load_steps(run.out / "plan"),
        population="all films" if early else "the training part",
    )


@kept
def pictures(run: Run) -> Prepared:
    """Return the prepared films, with the plan's copies where these are made at the native size."""
    films = prepared(run)
    if run.protocol.balance.copies_at == "prepared":
        return films
    from lucency.models.augmentation import load_copies

    seen = plan(run)
    inputs = run.fingerprints("plan", "prepared")
    folder = produce(run.out / "copies", inputs=inputs, write=partial(_write_copies, run))
    copies = seen.take(seen.copy > 0)
    return replace(films, copies=load_copies(folder, copies=copies, prepared=films))


def _write_copies(run: Run, folder: Path) -> None:
    from lucency.models.augmentation import make_copies

    require_pictures(run, prepared(run).manifest.facts["path"].tolist())
    how = {"seed": run.protocol.balance.seed, "workers": run.workers}
    with progress("Making copies", unit="films") as advance:
        make_copies(prepared(run), plan=plan(run), folder=folder, progress=advance, **how)


@kept
def classifiers(run: Run, *, after_epoch: AfterEpoch = unwatched) -> dict[str, Path]:
    """Return the folders of the trained networks by name; `after_epoch` watches each training."""
    from lucency.models.training import check_labels, train

    done = {one.name: run.out / "networks" / one.name for one in run.protocol.network}
    if all((one / RECEIPT).is_file() for one in done.values()) and places_absent(source(run)):
        return done  # weights below the root cannot be compared
    check_networks(run)
    if not all((one / RECEIPT).is_file() for one in done.values()):
        check_tests(run)
    films = prepared(run).manifest
    check_labels(films.label[training_films(run)], findings=films.findings)
    seen = plan(run)
    upstream = {**run.fingerprints("prepared", "plan"), "split": split_name(run)}
    over = summary.macro_over(seen.label[seen.part == "val"], films.findings)
    trained = {}
    for choice in run.protocol.network:
        if "without" in over and not (run.out / "networks" / choice.name).exists():
            say(f"{choice.name}: val AUC is the {over}")
        with progress(f"Training {choice.name}", unit="films") as advance:
            trained[choice.name] = train(
                pictures(run),
                plan=seen,
                protocol=run.protocol,
                choice=choice,
                upstream=upstream,
                out=run.out / "networks" / choice.name,
                progress=advance,
                after_epoch=after_epoch,
            )
    return trained


@kept
def check_networks(run: Run) -> None:
    """Raise ValueError for a network that cannot be built, or whose weights are not there.

    Those that only give features are among them.
    """
    from lucency.models.networks import check_size
    from lucency.models.training import check_choice

    protocol, root = run.protocol, Path(run.protocol.data.root)
    for choice in protocol.network:
        check_choice(choice, root=root, training=protocol.training_of(choice.name))
        check_size(choice, side=protocol.preparation.size)
    for choice in (*protocol.ensemble.frozen, protocol.balance.features):
        if choice.name != THUMBNAIL:
            check_choice(choice, root=root)


def _fetch_weights(run: Run) -> None:
    """Check the networks and that their weights can be had."""
    from lucency.models.weights import fetch_weights

    check_networks(run)
    others = (*run.protocol.ensemble.frozen, run.protocol.balance.features)
    for choice in (*run.protocol.network, *others):
        fetch_weights(choice, root=Path(run.protocol.data.root))


@kept
def check_tests(run: Run) -> None:
    """Raise ValueError for an external test that cannot be one."""
    check_external(
        run, read=lambda one: _films_to_split(one) if one is run else labelled_films(one)
    )


@kept
def predictions(run: Run) -> list[Predictions]:
    """Return every network's predictions on validation and test films."""
    seen = plan(run).take(plan(run).part != "train")
    return predict_each(classifiers(run), pictures(run), seen, out=run.out / "predictions")


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
    seen = only_tests(prepared(run).manifest.label).take(films_apart(run))
    return predict_each(classifiers(run), pictures(run), seen, out=run.out / "apart")


@kept
def trained(run: Run) -> Trained:
    """Return what the stages up to `predict` made, for those that explain, audit and combine."""
    return Trained(
        run=run,
        root=_tables(run),
        prepared=prepared(run),
        pictures=pictures(run),
        plan=plan(run),
        training_films=training_films(run),
        classifiers=classifiers(run),
        predictions=predictions(run),
    )


@kept
def evaluation(run: Run) -> summary.Evaluation:
    """Return thresholds, metrics, comparison, ranking, calibration, subgroups and conclusion."""
    place = run.out / "predictions"
    made = {one.network: fingerprint_of(place / one.network) for one in predictions(run)}
    inputs = {"evaluation": run.protocol.evaluation.scoring, "predictions": made}
    write = partial(_write_evaluation, run)
    return summary.load_evaluation(produce(run.out / "evaluation", inputs=inputs, write=write))


def _write_evaluation(run: Run, folder: Path) -> None:
    several, films, seen = predictions(run), prepared(run).manifest, plan(run)
    tests = [one.of("test") for one in several]
    validation = [one.of("val") for one in several]
    say(f"Evaluating {counted(len(several), 'network')} on {counted(len(tests[0]), 'test film')}")
    early = run.protocol.balance.before_split
    label = seen.label[seen.part == "train"] if early else films.label[training_films(run)]
    found = summary.evaluate_networks(
        tests,
        thresholds=summary.fit_thresholds(validation, choices=run.protocol.evaluation),
        facts=films.facts.set_axis(films.image),
        prevalence=np.nanmean(label.astype(np.float64), axis=0),
        **run.draws,
    )
    save_tables(found, folder)


@kept
def study_comparison(run: Run) -> inflation.StudyComparison:
    """Return what networks reach on patients set apart and what was published; both may be none."""
    published, rows = run.protocol.evaluation.published, films_apart(run)
    if not len(rows) and not published:
        return inflation.StudyComparison()
    reached = predictions_apart(run) if len(rows) else []
    inputs = {
        "apart": {p.network: fingerprint_of(run.out / "apart" / p.network) for p in reached},
        "published": published,
        **run.fingerprints("evaluation"),
    }
    write = partial(_write_comparison, run, reached)
    return inflation.load_comparison(produce(run.out / "study", inputs=inputs, write=write))


def _write_comparison(run: Run, reached: list[Predictions], folder: Path) -> None:
    own = [one.of("test") for one in predictions(run)]
    found, rows = inflation.StudyComparison(), films_apart(run)
    if reached:
        say(f"Evaluating on {counted(len(rows), 'film')} of patients set apart")
        patients = len(np.unique(prepared(run).manifest.patient[rows]))
        fitted, seen = evaluation(run).thresholds, patients_seen(run)
        table = inflation.inflate_all(own, reached, seen=seen, thresholds=fitted, **run.draws)
        sentence = inflation.conclude_inflation({"": table}, patients=patients)
        found = replace(found, inflation=table, conclusion=sentence)
    if run.protocol.evaluation.published:
        found = replace(found, study=inflation.compare_with_study(own, reached, **run.draws))
    save_tables(found, folder)


@kept
def issues(run: Run) -> pd.DataFrame:
    """Return what the leak doctor found, as `audit.checks.issue.issue_table` gives it."""
    found = evaluation(run)
    inputs: dict[str, object] = {**run.fingerprints("evaluation", "plan", "manifest")}
    if run.protocol.external:
        inputs[EXTERNAL] = without_places(run.protocol)[EXTERNAL]
    discard_outdated(run.out / "check", inputs=inputs)
    scored = {"thresholds": found.thresholds, "scores": found.metrics}
    write = partial(write_issues, run, run.protocol, predictions(run), scored)
    return load_issues(produce(run.out / "check", inputs=inputs, write=write))


def write_issues(
    run: Run,
    protocol: Protocol,
    predicted: list[Predictions],
    scored: Mapping[str, pd.DataFrame],
    folder: Path,
) -> None:
    """Write what the leak doctor finds; `run` is that of `protocol`, or of its base.

    `scored` are the `thresholds` and `scores` of `check_run`.
    """
    say("Looking for leaks")
    missing = read_table(run.source / "manifest" / "missing.csv", text=("image",))
    found = check_run(
        protocol,
        prepared=prepared(run),
        plan=plan(run),
        missing=missing["image"].tolist(),
        predictions=predicted,
        **scored,
    )
    save_issues(found, folder)


@kept
def external_predictions(run: Run, name: str) -> tuple[Prepared, list[Predictions]]:
    """Return the films of one external test, and every network's predictions of them."""
    test = external_run(run, name)
    check_test(run, name, read=labelled_films)  # which leaves no weights to fetch for its films
    films = external_films(test, prepare=prepared, findings=run.protocol.findings)
    return films, predict_each(
        classifiers(run),
        films,
        only_tests(films.manifest.label),
        out=test.out / "predictions",
        upstream=test.fingerprints("prepared"),
    )


@kept
def external_test(run: Run, name: str) -> ExternalValidation:
    """Return what the networks are worth on one external test, beside their own test films."""
    films, predicted = external_predictions(run, name)
    about = {"test": external_run(run, name), "evaluation": evaluation(run)}
    return external_validation(trained(run), films, predicted, **about)


@kept
def unfamiliar(run: Run) -> UnfamiliarResults:
    """Return how well films that are not like the training films are found; may be nothing.

    Films of external tests are among them. Every network keeps its distance.
    """
    if run.protocol.unfamiliar.score == "none":
        return UnfamiliarResults()
    others = {one.name: external_predictions(run, one.name)[1] for one in run.protocol.external}
    return compare_aliens(trained(run), others)


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


def set_coverage(run: Run, *, tests: tuple[str, ...] = ()) -> SetCoverage:
    """Return what the networks' sets cover of test films, and of those of external `tests`."""
    return cover_networks(trained(run), tests=tests)


def report(run: Run) -> Path:
    """Return the page that shows it all; a chapter that cannot be made is left out, and named.

    `Failures` of the folder `failed` in the run say which; the next call tries them again.
    """
    evaluation(run)
    failures = Failures(run.out / "failed")
    if failures.reasons():  # what was left out is tried anew
        discard_outdated(run.out / "report", inputs={})
    failures.clear()
    made = {name: failures.attempt(name, partial(make, run)) for name, make in CHAPTERS.items()}
    tests = {
        one.name: failures.attempt(f"{EXTERNAL}-{one.name}", partial(external_test, run, one.name))
        for one in run.protocol.external
    }
    validated = {name: found for name, found in tests.items() if found is not None}
    finished = tuple(validated)
    made["abstain"] = failures.attempt("abstain", partial(set_coverage, run, tests=finished))
    there = ["evaluation", *(place for name, place in PLACES.items() if made[name] is not None)]
    there += [name for name in ("study", FOLDER) if made[name]]
    if made["abstain"] is not None:
        there.append("coverage")
    inputs: dict[str, object] = {**run.fingerprints(*there)}
    if made["ensembles"] is not None and len(made["ensembles"].leaderboard):
        inputs["ensemble"] = fingerprint_of(run.out / "ensemble" / "leaderboard")
    for name in validated:
        inputs[f"{EXTERNAL}-{name}"] = fingerprint_of(run.out / EXTERNAL / name / "evaluation")
    if (run.out / STUDY / "evaluation" / RECEIPT).is_file():
        inputs[STUDY] = fingerprint_of(run.out / STUDY / "evaluation")
    if failures.reasons():
        inputs["failed"] = failures.reasons()
    discard_outdated(run.out / "report", inputs=inputs)
    folder = produce(
        run.out / "report",
        inputs=inputs,
        write=partial(_write_report, run, {**made, EXTERNAL: validated}),
    )
    return folder / "report.html"


def _write_report(run: Run, made: Mapping[str, Any], folder: Path) -> None:
    """Write the page; `made` maps chapters to what they show, None where that could not be made."""
    from lucency.report.run_page import Experiment, write_report

    say("Writing the report")
    failures = Failures(run.out / "failed")
    studied = partial(load_study, run.out / STUDY / "evaluation")
    shown = (run.protocol, pictures(run), plan(run))
    experiment = Experiment(
        protocol=run.protocol,
        manifest=manifest(run),
        prepared=pictures(run),
        plan=plan(run),
        change=failures.attempt("balance", partial(change, run)),
        gallery=failures.attempt("augmentation", partial(augmentation_gallery, *shown)),
        predictions=predictions(run),
        histories={name: read_history(place) for name, place in classifiers(run).items()},
        networks=pd.DataFrame([describe_network(place) for place in classifiers(run).values()]),
        evaluation=evaluation(run),
        issues=made["checks"],
        apart=films_apart(run),
        checks=NUMBER_OF_CHECKS,
        study=made["study"],
        heatmaps=made["heatmaps"],
        audit=made["audit"],
        ensembles=made["ensembles"],
        external=made[EXTERNAL],
        coverage=made["abstain"] or SetCoverage(),
        unfamiliar=made[FOLDER],
        preparations=failures.attempt("preparation", studied) or PreparationStudy(),
    )
    write_report(experiment, file=folder / "report.html", failures=failures)


CHAPTERS: dict[str, Callable[[Run], Any]] = {
    "checks": issues,
    "study": study_comparison,
    "heatmaps": heatmaps,
    "audit": audit,
    "ensembles": ensembles,
    FOLDER: unfamiliar,
}
PLACES = {"checks": "check", "heatmaps": "explanation", "audit": "audit"}


STAGES: dict[str, Callable[[Run], Any]] = {
    "prepare": prepared,  # films as a network sees them, from label files and pictures
    "split": parts,  # the part of every film: train, val or test
    "balance": plan,  # which films each part sees, how often and how changed
    "train": classifiers,  # the trained networks
    "predict": predictions,  # every network's predictions on validation and test films
    "evaluate": evaluation,  # metrics with confidence intervals, and comparisons
    "check": issues,  # what the leak doctor finds
    "report": report,  # heat maps, audit, ensembles, and the page that shows it all
}
