"""What `lucency audit` answers of a run: its pictures, and its labels by folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lucency.audit.answer import Audit
from lucency.audit.quality import inspect, quality_counts, quality_table
from lucency.choices import Judging
from lucency.folds import out_of_fold
from lucency.judge.calibrate import FALLBACK
from lucency.judge.evaluate import evaluate
from lucency.predictions import load_predictions
from lucency.progress import progress
from lucency.values import load_prepared
from lucency.workspace import Run

DRAWS = {"resamples": Judging().resamples, "seed": Judging().seed}


def audit_folds(run: Run, *, folds: int, divisions: int) -> Audit:
    """Train on folds by patient, and say what the networks are worth on films not trained on."""
    found = out_of_fold(run, folds=folds, divisions=divisions)
    said = [load_predictions(folder / "predictions.npz") for folder in found.values()]
    half = np.full(len(said[0].findings), FALLBACK)
    scores = pd.concat([evaluate(one, threshold=half, **DRAWS) for one in said])
    areas = scores.loc[scores["metric"] == "auc"].drop(columns="metric")
    places = ", ".join(str(folder / "predictions.npz") for folder in found.values())
    return Audit(
        tables={"auc": areas.rename(columns={"value": "auc"})},
        shown=("auc",),
        remarks=(f"Each of {len(said[0]):,} films is judged by networks of other patients.",),
        conclusion=f"next: lucency audit suspects {places}",
    )


def audit_quality(folder: Path) -> Audit:
    """Look for odd pictures among the prepared films of a run: repeated, turned, blank and such.

    Raises ValueError where there are none.
    """
    place = folder / "prepared"
    if not (place / "receipt.json").is_file():
        raise ValueError(
            f"{folder} holds no prepared films: expected the --out folder of `lucency prepare`"
        )
    films = load_prepared(place)
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
