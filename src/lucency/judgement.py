"""What a run's predictions are worth: the verdict, the leak doctor's complaints, the report.

STAGES names all stages of the program, those of `run` first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.checkup import check_run, load_complaints, save_complaints
from lucency.combining import combined, league_folder
from lucency.doubts import doubts
from lucency.judge.verdict import Verdict, judge, load_verdict, save_verdict
from lucency.looking import sight
from lucency.progress import say
from lucency.receipt import discard_outdated, fingerprint_of, produce
from lucency.run import (
    change,
    classifiers,
    manifest,
    parts,
    plan,
    predictions,
    prepared,
    training_films,
)
from lucency.values import read_table
from lucency.workspace import Run


@cache
def verdict(run: Run) -> Verdict:
    """Return thresholds, metrics, comparison, ranking, calibration, subgroups and conclusion."""
    several, films = predictions(run), prepared(run).manifest
    label = films.label[training_films(run)]
    made = {p.network: fingerprint_of(run.out / "predictions" / p.network) for p in several}
    inputs = {"judging": run.protocol.judging.model_dump(), "predictions": made}

    def write(folder: Path) -> None:
        say(f"Judging {len(several)} networks on {len(several[0].of('test')):,} test films")
        prevalence = np.nanmean(label.astype(np.float64), axis=0)
        facts = films.facts.set_axis(films.image)
        found = judge(several, prevalence=prevalence, facts=facts, choices=run.protocol.judging)
        save_verdict(found, folder)

    return load_verdict(produce(run.out / "evaluation", inputs=inputs, write=write))


@cache
def complaints(run: Run) -> pd.DataFrame:
    """Return what the leak doctor found, as `judge.complaints.complaint_table` gives it."""
    found = verdict(run)
    inputs = {
        "evaluation": fingerprint_of(run.out / "evaluation"),
        "plan": fingerprint_of(run.out / "plan"),
        "manifest": fingerprint_of(run.source / "manifest"),
    }

    def write(folder: Path) -> None:
        say("Looking for leaks")
        table = read_table(run.source / "manifest" / "missing.csv", text=("image",))
        complained = check_run(
            run.protocol,
            prepared=prepared(run),
            plan=plan(run),
            missing=table["image"].tolist(),
            predictions=predictions(run),
            thresholds=found.thresholds,
            scores=found.metrics,
        )
        save_complaints(complained, folder)

    return load_complaints(produce(run.out / "check", inputs=inputs, write=write))


def report(run: Run) -> Path:
    """Return the page that shows it all."""
    from lucency.experiment import gather
    from lucency.show.report import write_report

    found = verdict(run)
    complaints(run)
    sight(run)
    doubts(run)
    beside = combined(run)
    folders = {name: fingerprint_of(run.out / name) for name in SHOWN}
    if len(beside.league):
        folders["combined"] = fingerprint_of(league_folder(run))
    discard_outdated(run.out / "report", inputs=folders)

    def write(folder: Path) -> None:
        say("Writing the report")
        experiment = gather(
            run,
            manifest=manifest(run),
            prepared=prepared(run),
            plan=plan(run),
            change=change(run),
            predictions=predictions(run),
            verdict=found,
        )
        write_report(experiment, file=folder / "report.html")

    return produce(run.out / "report", inputs=folders, write=write) / "report.html"


STAGES: dict[str, Callable[[Run], object]] = {
    "prepare": prepared,
    "split": parts,
    "balance": plan,
    "train": classifiers,
    "predict": predictions,
    "evaluate": verdict,
    "check": complaints,
    "report": report,
}
SHOWN = ("evaluation", "check", "explanation", "doubts")
