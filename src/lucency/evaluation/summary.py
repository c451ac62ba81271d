"""The verdict on several networks: thresholds, scores, comparison, calibration, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.config.sections import EvaluationChoices
from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions
from lucency.evaluation.calibration import brier_parts, reliability_table
from lucency.evaluation.compare import compare, conclude, rank
from lucency.evaluation.evaluate import confusion_table, evaluate, trivial
from lucency.evaluation.subgroups import subgroups
from lucency.evaluation.thresholds import threshold_table

NOTHING_BELOW = 0.5
TEXT = ("network", "other", "finding", "metric", "test", "note", "split", "fact", "group")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was found on the test part, as tables and one sentence."""

    thresholds: pd.DataFrame
    metrics: pd.DataFrame
    confusion: pd.DataFrame
    comparison: pd.DataFrame
    ranking: pd.DataFrame
    reliability: pd.DataFrame
    brier: pd.DataFrame
    subgroups: pd.DataFrame
    conclusion: str


def evaluate_networks(
    several: Sequence[Predictions],
    *,
    prevalence: Float64[np.ndarray, " k"],
    facts: pd.DataFrame,
    choices: EvaluationChoices,
) -> Evaluation:
    """Return the verdict: thresholds fitted on validation films, everything else on test films.

    `prevalence` is that of the training films before balancing, or of the training entries where
    balancing came before the split, as it did to the test films; the trivial predictor says it.
    `facts` has a row a film, its index their names; the highest ranked network is judged on the
    groups that they make.
    """
    rule = {"method": choices.threshold, "recall": choices.recall}
    thresholds = [threshold_table(p.of("val"), **rule) for p in several]
    tests = [predictions.of("test") for predictions in several]
    fitted = [table["threshold"].to_numpy(dtype=np.float64) for table in thresholds]
    nothing = np.full(len(prevalence), NOTHING_BELOW)
    pairs = [*zip(tests, fitted, strict=True), (trivial(tests[0], prevalence=prevalence), nothing)]
    draws = {"resamples": choices.resamples, "seed": choices.seed}
    metrics = [evaluate(test, threshold=threshold, **draws) for test, threshold in pairs]
    table = pd.concat(metrics, ignore_index=True)
    comparison = compare(tests, **draws)
    ranking = rank(table, comparison)
    best = next(test for test in tests if test.network == ranking["network"].iloc[0])
    return Evaluation(
        thresholds=pd.concat(thresholds, ignore_index=True),
        metrics=table,
        confusion=pd.concat(
            [confusion_table(test, threshold=one) for test, one in pairs], ignore_index=True
        ),
        comparison=comparison,
        ranking=ranking,
        reliability=pd.concat(
            [reliability_table(one, **draws) for one in tests], ignore_index=True
        ),
        brier=pd.concat([brier_parts(one) for one in tests], ignore_index=True),
        subgroups=subgroups(best, facts=facts, **draws),
        conclusion=conclude(ranking),
    )


def save_evaluation(verdict: Evaluation, folder: Path) -> None:
    """Write one CSV a table and conclusion.txt."""
    for name in TABLES:
        getattr(verdict, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "conclusion.txt").write_text(verdict.conclusion + "\n")


def load_evaluation(folder: Path) -> Evaluation:
    """Read what `save_evaluation` wrote."""
    tables = {name: read_table(folder / f"{name}.csv", text=TEXT) for name in TABLES}
    return Evaluation(conclusion=(folder / "conclusion.txt").read_text().strip(), **tables)


TABLES = (
    "thresholds", "metrics", "confusion", "comparison", "ranking", "reliability", "brier",
    "subgroups",
)  # fmt: skip
