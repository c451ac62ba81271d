"""The evaluation of several networks: metrics, comparison, calibration, subgroups, conclusion.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from lucency.config.sections import EvaluationChoices
from lucency.core.manifest import mean_over
from lucency.core.predictions import Predictions
from lucency.core.tables import load_tables
from lucency.evaluation.calibration import brier_parts, reliability_table
from lucency.evaluation.compare import compare, conclude_comparison, rank
from lucency.evaluation.evaluate import confusion_table, evaluate, thresholds_of, trivial
from lucency.evaluation.subgroups import subgroups
from lucency.evaluation.thresholds import threshold_table

TRIVIAL_THRESHOLD = 0.5
TEXT = ("network", "other", "finding", "metric", "test", "note", "split", "fact", "group")
UNKNOWN_PREVALENCE = np.empty(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What predictions of test films are worth, as tables and a conclusion.

    A row a network and finding: `thresholds`, `confusion`, `reliability`, `brier`; `metrics` are
    of evaluation.evaluate, `comparison` and `ranking` of evaluation.compare, `subgroups` those of
    the highest ranked network.
    """

    thresholds: pd.DataFrame
    metrics: pd.DataFrame
    confusion: pd.DataFrame
    comparison: pd.DataFrame
    ranking: pd.DataFrame
    reliability: pd.DataFrame
    brier: pd.DataFrame
    subgroups: pd.DataFrame
    conclusion: str

    def __repr__(self) -> str:
        return f"<Evaluation of {', '.join(self.ranking['network'])}: {self.conclusion}>"

    def _repr_html_(self) -> str:
        return self.ranking.to_html(index=False)


def evaluate_networks(
    several: Sequence[Predictions],
    *,
    thresholds: pd.DataFrame,
    facts: pd.DataFrame,
    prevalence: Float64[np.ndarray, " k"] = UNKNOWN_PREVALENCE,
    resamples: int,
    seed: int,
) -> Evaluation:
    """Return the evaluation of several networks' predictions of the same test films.

    `thresholds` are those of every network, as `threshold_table` gives them. `facts` has a row a
    film, its index their names; the highest ranked network is evaluated on the groups that they
    make. `prevalence` is that of the training labels, which the trivial predictor gives for every
    film; where it is not known there is no trivial predictor. Raises ValueError for predictions
    that cannot be compared.
    """
    draws = {"resamples": resamples, "seed": seed}
    pairs = [(one, thresholds_of(thresholds, one)) for one in several]
    if prevalence.size:
        base = trivial(several[0], prevalence=prevalence)
        pairs.append((base, np.full(len(prevalence), TRIVIAL_THRESHOLD)))
    metrics = _stack(evaluate(one, threshold=limit, **draws) for one, limit in pairs)
    comparison = compare(several, **draws)
    ranking = rank(metrics, comparison)
    best = next(one for one in several if one.network == ranking["network"].iloc[0])
    return Evaluation(
        thresholds=thresholds,
        metrics=metrics,
        confusion=_stack(confusion_table(one, threshold=limit) for one, limit in pairs),
        comparison=comparison,
        ranking=ranking,
        reliability=_stack(reliability_table(one) for one in several),
        brier=_stack(brier_parts(one) for one in several),
        subgroups=subgroups(best, facts=facts, **draws),
        conclusion=conclude_comparison(ranking),
    )


def fit_thresholds(several: Sequence[Predictions], *, choices: EvaluationChoices) -> pd.DataFrame:
    """Return every network's thresholds, fitted on its predictions of validation films."""
    rule = {"method": choices.threshold, "recall": choices.recall}
    return _stack(threshold_table(one, **rule) for one in several)


def macro_over(label: Float[np.ndarray, "n k"], findings: Sequence[str]) -> str:
    """Return over which findings macro AUC is the mean: those that have positives and negatives."""
    positive, negative = ((label == value).any(axis=0) for value in (1, 0))
    return mean_over(findings, np.asarray(positive & negative))


def load_evaluation(folder: Path) -> Evaluation:
    """Read what `save_tables` wrote."""
    return load_tables(Evaluation, folder, text=TEXT)


def _stack(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(tables), ignore_index=True)
