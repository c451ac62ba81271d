"""The verdict on several networks: thresholds, metrics, comparison, ranking, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.choices import Judging
from lucency.judge.calibrate import threshold_table
from lucency.judge.compare import compare, conclude, rank
from lucency.judge.evaluate import evaluate, trivial
from lucency.predictions import Predictions
from lucency.values import read_table

NOTHING_BELOW = 0.5
TEXT = ("network", "other", "finding", "metric", "note")


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What was found on the test part, as tables and one sentence."""

    thresholds: pd.DataFrame
    metrics: pd.DataFrame
    comparison: pd.DataFrame
    ranking: pd.DataFrame
    conclusion: str


def judge(
    several: Sequence[Predictions], *, prevalence: Float64[np.ndarray, " k"], choices: Judging
) -> Verdict:
    """Return the verdict: thresholds fitted on validation films, everything else on test films.

    `prevalence` is that of the training films before balancing; the trivial predictor says it.
    """
    thresholds = [threshold_table(p.of("val"), method=choices.threshold) for p in several]
    tests = [predictions.of("test") for predictions in several]
    fitted = [table["threshold"].to_numpy(dtype=np.float64) for table in thresholds]
    nothing = np.full(len(prevalence), NOTHING_BELOW)
    pairs = [*zip(tests, fitted, strict=True), (trivial(tests[0], prevalence=prevalence), nothing)]
    draws = {"resamples": choices.resamples, "seed": choices.seed}
    metrics = [evaluate(test, threshold=threshold, **draws) for test, threshold in pairs]
    table = pd.concat(metrics, ignore_index=True)
    comparison = compare(tests, **draws)
    ranking = rank(table, comparison)
    return Verdict(
        thresholds=pd.concat(thresholds, ignore_index=True),
        metrics=table,
        comparison=comparison,
        ranking=ranking,
        conclusion=conclude(ranking),
    )


def save_verdict(verdict: Verdict, folder: Path) -> None:
    """Write one CSV a table and conclusion.txt."""
    for name in TABLES:
        getattr(verdict, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "conclusion.txt").write_text(verdict.conclusion + "\n")


def load_verdict(folder: Path) -> Verdict:
    """Read what `save_verdict` wrote."""
    tables = {name: read_table(folder / f"{name}.csv", text=TEXT) for name in TABLES}
    return Verdict(conclusion=(folder / "conclusion.txt").read_text().strip(), **tables)


TABLES = ("thresholds", "metrics", "comparison", "ranking")
