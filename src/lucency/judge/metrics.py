"""The metrics of one finding: each a function of label, what was said, and weights on films.

Every function returns one value for each column of weights. A film whose label is NaN (not stated)
is left out. A value that cannot be computed is NaN, never 0 and never a warning (scikit-learn's
`zero_division` would put a number there); `not_computable` says why.

Letters in shapes: n films, k findings, r columns of weights, g points of a curve or distinct
scores that a positive film has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from lucency.judge.intervals import Weights, mean_over_findings, once
from lucency.judge.reliability import expected_calibration_error

Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Score = Float[np.ndarray, " n"]  # a logit or a probability
Called = Bool[np.ndarray, " n"]  # True where the film is called positive
Values = Float64[np.ndarray, " r"]
Points = Float64[np.ndarray, " g"]

BLOCK = 2**22  # numbers in one working array of a rank metric: 32 MiB


class Metric(NamedTuple):
    """A metric: what computes it, what of the predictions it takes, and what it means."""

    function: Callable[..., Values]
    takes: Literal["logit", "probability", "decision"]
    needs: tuple[Literal["positives", "negatives", "films called positive"], ...]
    better: Literal["higher", "lower"]
    unit: str
    definition: str


def auc(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the chance that a positive film scores above a negative one, ties counted half.

    The area under the ROC curve. Hanley and McNeil, Radiology 143 (1982), 29-36.
    """
    return np.concatenate([_area(*block) for block in _ranked(label, score, weights)])


def average_precision(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the mean over positive films of the precision among films that score as high.

    Without interpolation, as scikit-learn's `average_precision_score`; chance is the prevalence.
    """
    return np.concatenate([_mean_precision(*block) for block in _ranked(label, score, weights)])


def f1(label: Label, decision: Called, *, weights: Weights) -> Values:
    """Return the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
    tp, fp, fn, _ = _confusion(label, decision, weights)
    return np.where(tp + fn > 0, _ratio(2 * tp, 2 * tp + fp + fn), np.nan)


def precision(label: Label, decision: Called, *, weights: Weights) -> Values:
    """Return the share of positive films among those called positive, TP / (TP + FP)."""
    tp, fp, fn, _ = _confusion(label, decision, weights)
    return np.where(tp + fn > 0, _ratio(tp, tp + fp), np.nan)


def recall(label: Label, decision: Called, *, weights: Weights) -> Values:
    """Return the share of positive films that are called positive, TP / (TP + FN): sensitivity."""
    tp, _, fn, _ = _confusion(label, decision, weights)
    return _ratio(tp, tp + fn)


def specificity(label: Label, decision: Called, *, weights: Weights) -> Values:
    """Return the share of negative films that are called negative, TN / (TN + FP)."""
    _, fp, _, tn = _confusion(label, decision, weights)
    return _ratio(tn, tn + fp)


def accuracy(label: Label, decision: Called, *, weights: Weights) -> Values:
    """Return the share of films that are called right; high for whoever calls all negative."""
    tp, fp, fn, tn = _confusion(label, decision, weights)
    return _ratio(tp + tn, tp + fp + fn + tn)


def balanced_accuracy(label: Label, decision: Called, *, weights: Weights) -> Values:
    """Return the mean of recall and specificity."""
    tp, fp, fn, tn = _confusion(label, decision, weights)
    return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2


def bce(label: Label, logit: Score, *, weights: Weights) -> Values:
    """Return the mean binary cross-entropy in nats, from logits: log(1 + exp(z)) - y z."""
    wide = logit.astype(np.float64)
    return _mean(label, np.logaddexp(0, np.where(label == 1, -wide, wide)), weights)


def brier(label: Label, probability: Score, *, weights: Weights) -> Values:
    """Return the mean squared difference of probability and label (Brier 1950, one class)."""
    return _mean(label, (probability.astype(np.float64) - label) ** 2, weights)


def not_computable(name: str, *, label: Label, decision: Called) -> str:
    """Return why the metric `name` has no value here, or nothing when it has one."""
    stated = ~np.isnan(label)
    there = {
        "positives": (label == 1).any(),
        "negatives": (label == 0).any(),
        "films called positive": decision[stated].any(),
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
    return -level, np.cumsum(counts[0]), np.cumsum(counts[1])


def _ranked(
    label: Label, score: Score, weights: Weights
) -> Iterator[tuple[Float64[np.ndarray, "g r"], Float64[np.ndarray, "g2 r"]]]:
    """Yield, for blocks of columns, positive weight at each distinct score of a positive film.

    From the highest score down; and negative weight in 2 g + 1 places: above the first score, at
    it, between it and the second, at the second, and so on. Only g, not n, grows with resamples.
    """
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    level, place = np.unique(-score[positive], return_inverse=True)
    at = weights.histogram(positive, place=place, bins=len(level))
    found = -score[negative]
    around = np.searchsorted(level, found) + np.searchsorted(level, found, side="right")
    between = weights.histogram(negative, place=around, bins=2 * len(level) + 1)
    columns = max(1, BLOCK // (2 * len(level) + 1))
    for start in range(0, weights.times.shape[1], columns):
        times = weights.times[:, start : start + columns]
        yield at @ times, between @ times


def _area(positive: Float64[np.ndarray, "g r"], negative: Float64[np.ndarray, "g2 r"]) -> Values:
    above = np.cumsum(negative, axis=0)
    beaten = above[-1] - (above[0:-1:2] + above[1::2]) / 2
    return _ratio(np.einsum("gr,gr->r", positive, beaten), positive.sum(axis=0) * above[-1])


def _mean_precision(
    positive: Float64[np.ndarray, "g r"], negative: Float64[np.ndarray, "g2 r"]
) -> Values:
    above = np.cumsum(negative, axis=0)
    true = np.cumsum(positive, axis=0)
    called = true + above[1::2]
    share = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    value = _ratio(np.einsum("gr,gr->r", positive, share), positive.sum(axis=0))
    return np.where(above[-1] > 0, value, np.nan)


def _confusion(label: Label, decision: Called, weights: Weights) -> Float64[np.ndarray, "4 r"]:
    positive, negative = label == 1, label == 0
    cells = [positive & decision, negative & decision, positive & ~decision, negative & ~decision]
    return weights.total(np.stack(cells).astype(np.float64))


def _mean(label: Label, loss: Float64[np.ndarray, " n"], weights: Weights) -> Values:
    stated = ~np.isnan(label)
    total, count = weights.total(np.stack([np.where(stated, loss, 0), stated.astype(np.float64)]))
    return _ratio(total, count)


def _ratio(part: Values, whole: Values) -> Values:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


_BOTH = ("positives", "negatives")
METRICS: dict[str, Metric] = {
    "auc": Metric(auc, "logit", _BOTH, "higher", "0 to 1, chance .5",
                  "chance that a positive film scores above a negative one"),
    "average_precision": Metric(average_precision, "logit", _BOTH, "higher",
                                "0 to 1, chance is the prevalence",
                                "mean precision over the positive films, by falling score"),
    "f1": Metric(f1, "decision", ("positives",), "higher", "0 to 1",
                 "harmonic mean of precision and recall"),
    "precision": Metric(precision, "decision", ("positives", "films called positive"), "higher",
                        "0 to 1", "share of films called positive that are positive"),
    "recall": Metric(recall, "decision", ("positives",), "higher", "0 to 1",
                     "share of positive films that are called positive"),
    "specificity": Metric(specificity, "decision", ("negatives",), "higher", "0 to 1",
                          "share of negative films that are called negative"),
    "accuracy": Metric(accuracy, "decision", (), "higher", "0 to 1",
                       "share of films called right; calling all negative scores high"),
    "balanced_accuracy": Metric(balanced_accuracy, "decision", _BOTH, "higher",
                                "0 to 1, chance .5", "mean of recall and specificity"),
    "bce": Metric(bce, "logit", (), "lower", "nats, from 0",
                  "mean binary cross-entropy of the probabilities"),
    "brier": Metric(brier, "probability", (), "lower", "0 to 1",
                    "mean squared difference of probability and label"),
    "ece": Metric(expected_calibration_error, "probability", (), "lower", "0 to 1",
                  "mean gap of probability and share of positives, over 15 bins of probability"),
}  # fmt: skip
