"""The metrics of one finding: each a function of label, what was said, and weights on films.

Those of ranks are in `ranked`, those of decisions in `decided`; all are in METRICS. Every function
returns one value for each column of weights. A film whose label is NaN (not stated) is left out. A
value that cannot be computed is NaN, never 0 and never a warning; `not_computable` says why.

Letters in shapes: n films, k findings, r columns of weights, g points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from lucency.judge import decided
from lucency.judge.decided import DECIDED, Cells, count_cells, ratio
from lucency.judge.intervals import Weights, mean_over_findings, once
from lucency.judge.ranked import (
    RANKED,
    auc,
    average_precision,
    partial_auc,
    rank_films,
    recall_at_specificity,
    specificity_at_recall,
)
from lucency.judge.reliability import expected_calibration_error

Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Score = Float[np.ndarray, " n"]  # a logit or a probability
Called = Bool[np.ndarray, " n"]  # True where the film is called positive
Values = Float64[np.ndarray, " r"]
Points = Float64[np.ndarray, " g"]
Said = Literal["logit", "probability", "decision"]
Need = Literal["positives", "negatives", "films called positive", "films called negative"]


class Metric(NamedTuple):
    """A metric: what computes it, what of the predictions it takes, and what it means."""

    function: Callable[..., Values]
    takes: Said
    needs: tuple[Need, ...]
    better: Literal["higher", "lower"]
    unit: str
    definition: str


def measure(
    label: Label, said: Mapping[Said, np.ndarray], *, weights: Weights
) -> dict[str, Values]:
    """Return every metric of METRICS; what several are made of is computed once for all of them.

    `said` holds what the metrics take of the predictions: logit, probability and decision, each of
    shape n.
    """
    cells = count_cells(label, said["decision"], weights=weights)
    found = rank_films(label, said["logit"], weights=weights, names=RANKED)
    found |= {name: function(cells) for name, function in DECIDED.items()}
    for name in METRICS.keys() - found.keys():
        function, takes, *_ = METRICS[name]
        found[name] = function(label, said[takes], weights=weights)
    return {name: found[name] for name in METRICS}


def bce(label: Label, logit: Score, *, weights: Weights) -> Values:
    """Return the mean binary cross-entropy in nats, from logits: log(1 + exp(z)) - y z."""
    wide = logit.astype(np.float64)
    loss = np.logaddexp(0, np.where(label == 1, -wide, wide))
    return mean_over_films(np.where(np.isnan(label), np.nan, loss), weights=weights)


def brier(label: Label, probability: Score, *, weights: Weights) -> Values:
    """Return the mean squared difference of probability and label (Brier 1950, one class)."""
    return mean_over_films((probability.astype(np.float64) - label) ** 2, weights=weights)


def mean_over_films(value: Float64[np.ndarray, " n"], *, weights: Weights) -> Values:
    """Return the weighted mean of a value for each film; films without one (NaN) are left out."""
    stated = ~np.isnan(value)
    total, count = weights.total(np.stack([np.where(stated, value, 0), stated.astype(np.float64)]))
    return ratio(total, count)


def not_computable(name: str, *, label: Label, decision: Called) -> str:
    """Return why the metric `name` has no value here, or nothing when it has one."""
    stated = ~np.isnan(label)
    there = {
        "positives": (label == 1).any(),
        "negatives": (label == 0).any(),
        "films called positive": decision[stated].any(),
        "films called negative": (~decision[stated]).any(),
    }
    lacking = [need for need in METRICS[name].needs if not there[need]]
    if not stated.any():
        lacking = ["films with a label"]
    return f"not computable: 0 {' and 0 '.join(lacking)}" if lacking else ""


def macro_auc(label: Float[np.ndarray, "n k"], score: Float[np.ndarray, "n k"]) -> float:
    """Return the mean AUC over the findings that have both classes; NaN when none has."""
    weights = once(len(label))
    area = [auc(label[:, k], score[:, k], weights=weights) for k in range(label.shape[1])]
    return float(mean_over_findings(np.stack(area))[0])


def roc_points(label: Label, score: Score) -> tuple[Points, Points]:
    """Return the ROC curve's corners, false positive rate and recall, from (0, 0) to (1, 1).

    Points on a straight line between others are left out. Empty when a class is absent.
    """
    _, true, false = counts_above(label, score)
    true, false = np.append(0.0, true), np.append(0.0, false)
    if not (true[-1] and false[-1]):
        return np.empty(0), np.empty(0)
    bend = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    kept = np.concatenate([[True], bend, [True]])
    return false[kept] / false[-1], true[kept] / true[-1]


def precision_recall_points(label: Label, score: Score) -> tuple[Points, Points]:
    """Return recall and precision from the highest score down, one point a distinct score.

    Inner points of equal recall are left out. Empty when there are no positives.
    """
    _, true, false = counts_above(label, score)
    if not true.any():
        return np.empty(0), np.empty(0)
    kept = np.diff(true, prepend=-1, append=-1) != 0
    kept = kept[:-1] | kept[1:]
    return true[kept] / true[-1], true[kept] / (true + false)[kept]


def counts_above(label: Label, score: Score) -> tuple[Points, Points, Points]:
    """Return the distinct scores, falling, and the positive and negative films that reach each."""
    stated = ~np.isnan(label)
    level, place = np.unique(-score[stated].astype(np.float64), return_inverse=True)
    positive = label[stated].astype(np.float64)
    counts = [np.bincount(place, weights=y, minlength=len(level)) for y in (positive, 1 - positive)]
    return -level, np.cumsum(counts[0], dtype=float), np.cumsum(counts[1], dtype=float)


def _counted(function: Callable[[Cells], Values]) -> Callable[..., Values]:
    """Return a function of the confusion matrix as one of label, decision and weights."""

    def metric(label: Label, decision: Called, *, weights: Weights) -> Values:
        return function(count_cells(label, decision, weights=weights))

    return metric


_BOTH: tuple[Need, ...] = ("positives", "negatives")
METRICS: dict[str, Metric] = {
    "auc": Metric(auc, "logit", _BOTH, "higher", "0 to 1, chance .5",
                  "chance that a positive film scores above a negative one"),
    "average_precision": Metric(average_precision, "logit", _BOTH, "higher",
                                "0 to 1, chance is the prevalence",
                                "mean precision over the positive films, by falling score"),
    "partial_auc": Metric(partial_auc, "logit", _BOTH, "higher", "0 to 1, chance .5",
                          "area under the ROC curve up to a false positive rate of .1, "
                          "standardised"),
    "recall_at_specificity": Metric(recall_at_specificity, "logit", _BOTH, "higher",
                                    "0 to 1, chance .1",
                                    "largest recall of a threshold whose specificity is .9 or "
                                    "more"),
    "specificity_at_recall": Metric(specificity_at_recall, "logit", _BOTH, "higher",
                                    "0 to 1, chance .1",
                                    "largest specificity of a threshold whose recall is .9 or "
                                    "more"),
    "f1": Metric(_counted(decided.f1), "decision", ("positives",), "higher", "0 to 1",
                 "harmonic mean of precision and recall"),
    "precision": Metric(_counted(decided.precision), "decision",
                        ("positives", "films called positive"), "higher", "0 to 1",
                        "share of films called positive that are positive"),
    "recall": Metric(_counted(decided.recall), "decision", ("positives",), "higher", "0 to 1",
                     "share of positive films that are called positive"),
    "specificity": Metric(_counted(decided.specificity), "decision", ("negatives",), "higher",
                          "0 to 1", "share of negative films that are called negative"),
    "npv": Metric(_counted(decided.npv), "decision", ("negatives", "films called negative"),
                  "higher", "0 to 1", "share of films called negative that are negative"),
    "mcc": Metric(_counted(decided.mcc), "decision",
                  (*_BOTH, "films called positive", "films called negative"), "higher",
                  "-1 to 1, chance 0", "correlation of label and decision (Matthews)"),
    "accuracy": Metric(_counted(decided.accuracy), "decision", (), "higher", "0 to 1",
                       "share of films called right; calling all negative scores high"),
    "balanced_accuracy": Metric(_counted(decided.balanced_accuracy), "decision", _BOTH, "higher",
                                "0 to 1, chance .5", "mean of recall and specificity"),
    "bce": Metric(bce, "logit", (), "lower", "nats, from 0",
                  "mean binary cross-entropy of the probabilities"),
    "brier": Metric(brier, "probability", (), "lower", "0 to 1",
                    "mean squared difference of probability and label"),
    "ece": Metric(expected_calibration_error, "probability", (), "lower", "0 to 1",
                  "mean gap of probability and share of positives, over 15 bins of probability"),
}  # fmt: skip
