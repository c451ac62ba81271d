"""Audits of a run: its films, its labels by cross-validation, films for reviewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lucency.audit.image_quality import inspect, quality_counts, quality_table
from lucency.audit.review import (
    WORDS,
    draw_label_errors,
    draw_sample,
    ppv_from_verdicts,
    read_sample,
    read_verdicts,
    reviewers_agree,
)
from lucency.config.sections import DRAWS
from lucency.core.manifest import NO_FINDING, load_prepared, read_table
from lucency.core.predictions import load_predictions
from lucency.core.progress import progress
from lucency.core.tables import Audit
from lucency.data.images import read_grey
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.thresholds import FALLBACK
from lucency.pipeline.cross_validation import out_of_fold
from lucency.pipeline.reopening import open_run_folder
from lucency.pipeline.run import Run
from lucency.pipeline.stages import prepared
from lucency.report.review_page import write_review


def audit_folds(run: Run, *, folds: int, repeats: int) -> Audit:
    """Train on folds by patient, and say what the networks are worth on films not trained on."""
    found = out_of_fold(run, folds=folds, repeats=repeats)
    said = [load_predictions(folder / "predictions.npz") for folder in found.values()]
    half = np.full(len(said[0].findings), FALLBACK)
    scores = pd.concat([evaluate(one, threshold=half, **DRAWS) for one in said])
    areas = scores.loc[scores["metric"] == "auc"].drop(columns="metric")
    places = [str(folder / "predictions.npz") for folder in found.values()]
    return Audit(
        tables={"auc": areas.rename(columns={"value": "auc"})},
        shown=("auc",),
        remarks=(f"Each of {len(said[0]):,} films is judged by networks of other patients.",),
        conclusion="\n".join(f"next: lucency audit errors {place}" for place in places),
    )


def draw_review(folder: Path, *, suspects: Path | None, films: int, seed: int, out: Path) -> Audit:
    """Draw films of a run for people to judge, and write sheets, page and form to `out`.

    Random ones of every finding, or the first of each list of `suspects` (suspects.csv of `lucency
    audit errors`). Raises ValueError for a folder without films, and for films that are not its.
    """
    if (out / "form.csv").exists():
        raise ValueError(f"{out} holds a review, perhaps a filled one: choose another --out")
    run = open_run_folder(folder)
    _require_prepared(run.cache)
    shown = prepared(run).manifest
    if suspects is None:
        sample = draw_sample(shown, films=films, seed=seed)
    else:
        try:
            table = read_table(suspects, text=("finding", "direction", "image", "reason"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{suspects} is no table; expected a suspects.csv") from error
        if lacking := {"finding", "direction", "image"} - set(table):
            raise ValueError(f"{suspects}: no column {min(lacking)!r}; expected a suspects.csv")
        sample = draw_label_errors(shown, table, films=films, seed=seed)
    names = sample["image"].unique().tolist()
    path = dict(zip(shown.image.tolist(), shown.facts["path"].tolist(), strict=True))
    pictures = {}
    with progress("Reading films", unit="films") as advance:
        for done, name in enumerate(names, start=1):
            pictures[name] = read_grey(Path(path[name]))
            advance(done, len(names))
    without = [name for name in (*shown.findings, NO_FINDING) if name not in {*sample["finding"]}]
    write_review(sample, films=pictures, manifest=shown, folder=out)
    return Audit(
        tables={"sheets": sample.groupby("sheet", sort=False)["image"].count().reset_index()},
        shown=("sheets",),
        remarks=(
            f"Drawn with seed {seed}; at most one film a patient on a sheet.",
            *([f"No sheet, for want of films: {', '.join(without)}."] if without else []),
        ),
        conclusion=f"open {out / 'review.html'}, or fill {out / 'form.csv'}; then: lucency audit "
        f"score-review {out / 'sample.csv'} VERDICTS.csv",
    )


def audit_verdicts(sample: Path, files: list[Path]) -> Audit:
    """Turn reviewers' verdicts into how many labels are right, weighted to all films."""
    drawn = read_sample(sample)
    said = read_verdicts(files, sample=drawn)
    if not len(said):
        raise ValueError(
            f"{', '.join(map(str, files))}: no film has a verdict; expected yes, no or unsure in "
            "the column verdict"
        )
    found = {"right": ppv_from_verdicts(drawn, said)}
    found["reviewers"] = reviewers_agree(drawn, said, **DRAWS)
    judged = sum(sum(found["right"][word].tolist()) for word in WORDS)
    return Audit(
        tables=found,
        shown=tuple(found),
        remarks=(
            "Verdicts of several reviewers count by majority; unsure ones are counted apart.",
        ),
        conclusion=f"{judged:,} of {len(drawn):,} films drawn are judged",
    )


def audit_quality(folder: Path) -> Audit:
    """Look for odd pictures among the prepared films of a run: repeated, turned, blank and such.

    Raises ValueError where there are none.
    """
    _require_prepared(folder)
    films = load_prepared(folder / "prepared")
    with progress("Looking at films", unit="films") as advance:
        measured = inspect(films, progress=advance)
    table = quality_table(measured)
    counts = quality_counts(table, films=len(measured))
    suspects = table["image"].nunique()
    return Audit(
        tables={"quality": table, "counts": counts, "measured": measured},
        shown=("counts", "quality"),
        remarks=(f"{films.manifest.origin}, at {films.preparation.size} pixels.",),
        conclusion=(
            f"{suspects:,} of {len(measured):,} films are suspect: look at them; a protocol with "
            'data.exclude = "quality.csv" leaves them out'
        ),
    )


def _require_prepared(folder: Path) -> None:
    if not (folder / "prepared" / "receipt.json").is_file():
        raise ValueError(
            f"{folder} holds no prepared films: expected the --out folder of `lucency run`"
        )
