"""What a run's predictions are worth: the verdict, the leak doctor's issues, the report.

STAGES names all stages of the program, those of `run` first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.checks.run_checks import check_run, load_issues, save_issues
from lucency.core.manifest import read_table
from lucency.core.progress import say
from lucency.core.stage import RECEIPT, Failures, discard_outdated, fingerprint_of, produce
from lucency.evaluation.leakage_inflation import conclude_inflation, inflate_all
from lucency.evaluation.preparation_grid import STUDY
from lucency.evaluation.reference_study import (
    StudyComparison,
    compare_with_study,
    load_comparison,
    no_comparison,
    save_comparison,
)
from lucency.evaluation.summary import (
    Evaluation,
    evaluate_networks,
    load_evaluation,
    save_evaluation,
)
from lucency.pipeline.audit_stage import doubts
from lucency.pipeline.ensemble_stage import combined, leaderboard_folder
from lucency.pipeline.heatmap_stage import sight
from lucency.pipeline.run import Run
from lucency.pipeline.stages import (
    change,
    classifiers,
    films_apart,
    manifest,
    parts,
    patients_seen,
    pictures,
    plan,
    predictions,
    predictions_apart,
    prepared,
    training_films,
)


@cache
def verdict(run: Run) -> Evaluation:
    """Return thresholds, metrics, comparison, ranking, calibration, subgroups and conclusion."""
    several, films = predictions(run), prepared(run).manifest
    early = run.protocol.balance.before_split
    trained = plan(run).label[plan(run).part == "train"]
    label = trained if early else films.label[training_films(run)]
    made = {p.network: fingerprint_of(run.out / "predictions" / p.network) for p in several}
    inputs = {"evaluation": run.protocol.evaluation.model_dump(), "predictions": made}

    def write(folder: Path) -> None:
        say(f"Evaluating {len(several)} networks on {len(several[0].of('test')):,} test films")
        prevalence = np.nanmean(label.astype(np.float64), axis=0)
        facts = films.facts.set_axis(films.image)
        found = evaluate_networks(
            several, prevalence=prevalence, facts=facts, choices=run.protocol.evaluation
        )
        save_evaluation(found, folder)

    return load_evaluation(produce(run.out / "evaluation", inputs=inputs, write=write))


@cache
def beside(run: Run) -> StudyComparison:
    """Return what networks reach on patients set apart and what was published; both may be none."""
    evaluation, claimed = run.protocol.evaluation, [one.of("test") for one in predictions(run)]
    rows, draws = films_apart(run), evaluation.model_dump(include={"resamples", "seed"})
    if not len(rows) and not evaluation.published:
        return no_comparison()
    reached = predictions_apart(run) if len(rows) else []
    inputs = {
        "evaluation": fingerprint_of(run.out / "evaluation"),
        "apart": {p.network: fingerprint_of(run.out / "apart" / p.network) for p in reached},
        "published": evaluation.published,
    }

    def write(folder: Path) -> None:
        found, people = no_comparison(), prepared(run).manifest.patient[rows]
        if reached:
            say(
                f"Evaluating on {len(rows):,} films of {len(np.unique(people)):,} patients set apart"
            )
            fitted, met = verdict(run).thresholds, patients_seen(run)
            table = inflate_all(claimed, reached, met=met, thresholds=fitted, **draws)
            said = conclude_inflation({"": table}, patients=len(np.unique(people)))
            found = replace(found, inflation=table, conclusion=said)
        if evaluation.published:
            found = replace(found, study=compare_with_study(claimed, reached, **draws))
        save_comparison(found, folder)

    return load_comparison(produce(run.out / "beside", inputs=inputs, write=write))


@cache
def issues(run: Run) -> pd.DataFrame:
    """Return what the leak doctor found, as `audit.checks.issue.issue_table` gives it."""
    evaluation = verdict(run)
    inputs = {
        "evaluation": fingerprint_of(run.out / "evaluation"),
        "plan": fingerprint_of(run.out / "plan"),
        "manifest": fingerprint_of(run.source / "manifest"),
    }

    def write(folder: Path) -> None:
        say("Looking for leaks")
        table = read_table(run.source / "manifest" / "missing.csv", text=("image",))
        found = check_run(
            run.protocol,
            prepared=prepared(run),
            plan=plan(run),
            missing=table["image"].tolist(),
            predictions=predictions(run),
            thresholds=evaluation.thresholds,
            scores=evaluation.metrics,
        )
        save_issues(found, folder)

    return load_issues(produce(run.out / "check", inputs=inputs, write=write))


def report(run: Run) -> Path:
    """Return the page that shows it all; a chapter that cannot be made is left out, and named.

    `Failures` of the folder `failed` in the run say which; the next call tries them again.
    """
    from lucency.pipeline.experiment import gather
    from lucency.report.run_page import write_report

    found, failures = verdict(run), Failures(run.out / "failed")
    if failures.reasons():  # what was left out is tried anew
        discard_outdated(run.out / "report", inputs={})
    failures.clear()
    made = {name: failures.attempt(name, partial(make, run)) for name, make in CHAPTERS.items()}
    there = ["evaluation", *(place for name, place in PLACES.items() if made[name] is not None)]
    folders: dict[str, object] = {place: fingerprint_of(run.out / place) for place in there}
    if made["reached"]:
        folders["beside"] = fingerprint_of(run.out / "beside")
    if made["combined"] is not None and len(made["combined"].leaderboard):
        folders["combined"] = fingerprint_of(leaderboard_folder(run))
    if (run.out / STUDY / "verdict" / RECEIPT).is_file():
        folders[STUDY] = fingerprint_of(run.out / STUDY / "verdict")
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
            verdict=found,
            made=made | {"balance": failures.attempt("balance", partial(change, run))},
        )
        write_report(experiment, file=folder / "report.html", failures=failures)

    return produce(run.out / "report", inputs=folders, write=write) / "report.html"


STAGES: dict[str, Callable[[Run], object]] = {
    "prepare": prepared,
    "split": parts,
    "balance": plan,
    "train": classifiers,
    "predict": predictions,
    "evaluate": verdict,
    "check": issues,
    "report": report,
}
PLACES = {"warnings": "check", "sight": "explanation", "doubts": "doubts"}
CHAPTERS: dict[str, Callable[[Run], Any]] = {
    "warnings": issues,
    "reached": beside,
    "sight": sight,
    "doubts": doubts,
    "combined": combined,
}
