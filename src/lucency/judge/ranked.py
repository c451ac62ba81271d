"""The metrics of how films are ranked: all of them from one walk down the scores of a finding.

Every function returns one value for each column of weights, and NaN where the weighted films lack
a class. A film whose label is NaN (not stated) is left out. Only the order of scores matters.

Letters in shapes: n films, r columns of weights, g levels (the distinct scores of positive films).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from lucency.judge.intervals import Weights, ratio

Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Score = Float[np.ndarray, " n"]  # a logit or a probability
Values = Float64[np.ndarray, " r"]
AtLevels = Float64[np.ndarray, "g r"]

BLOCK = 2**19  # numbers in one working array, 4 MiB; four times as many, and it is slower
RATE = 0.1  # the false positive rate up to which partial AUC looks
SPECIFICITY = RECALL = 0.9  # the least that is asked for
ROUNDING = 1e-9  # of all weight: two sums that differ by less are equal


class Descent(NamedTuple):
    """What has been met at each level, from the highest down; there is one level at least."""

    positive: AtLevels  # weight of the positive films at the level
    true: AtLevels  # of those at or above it
    above: AtLevels  # of the negative films above it
    false: AtLevels  # of those at or above it
    negatives: Values  # of all negative films


def auc(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the chance that a positive film scores above a negative one, ties counted half.

    The area under the ROC curve. Hanley and McNeil, Radiology 143 (1982), 29-36.
    """
    return rank_films(label, score, weights=weights, names=["auc"])["auc"]


def average_precision(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the mean over positive films of the precision among films that score as high.

    Without interpolation, as scikit-learn's `average_precision_score`; chance is the prevalence.
    """
    name = "average_precision"
    return rank_films(label, score, weights=weights, names=[name])[name]


def partial_auc(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the area under the ROC curve up to a false positive rate of RATE, standardised.

    So that chance is .5 and perfection 1. McClish, Medical Decision Making 9 (1989), 190-195; as
    scikit-learn's `roc_auc_score` with `max_fpr`.
    """
    return rank_films(label, score, weights=weights, names=["partial_auc"])["partial_auc"]


def recall_at_specificity(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the largest recall of any threshold whose specificity is SPECIFICITY or more.

    Only thresholds that some films have count, without interpolation between them; 0 where even
    the highest scores hold too many negative films.
    """
    name = "recall_at_specificity"
    return rank_films(label, score, weights=weights, names=[name])[name]


def specificity_at_recall(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the largest specificity of any threshold whose recall is RECALL or more.

    Only thresholds that some films have count, without interpolation between them.
    """
    name = "specificity_at_recall"
    return rank_films(label, score, weights=weights, names=[name])[name]


def rank_films(
    label: Label, score: Score, *, weights: Weights, names: Iterable[str]
) -> dict[str, Values]:
    """Return the named metrics of RANKED, for all of which the films are walked through once."""
    chosen = {name: RANKED[name] for name in names}
    parts: dict[str, list[Values]] = {name: [] for name in chosen}
    for descent in _descents(label, score, weights):
        both = (descent.true[-1] > 0) & (descent.negatives > 0)
        for name, function in chosen.items():
            parts[name].append(np.where(both, function(descent), np.nan))
    nothing = [np.full(weights.times.shape[1], np.nan)]
    return {name: np.concatenate(values or nothing) for name, values in parts.items()}


def _descents(label: Label, score: Score, weights: Weights) -> Iterator[Descent]:
    """Yield blocks of columns; none without a positive film. Only g, not n, grows with columns."""
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    level, place = np.unique(-score[positive], return_inverse=True)
    if not len(level):
        return
    said = -score[negative]
    below = np.searchsorted(level, said, side="right")  # the first level that is below the film
    tied = (below > 0) & (level[below - 1] == said)
    shared, tie = np.unique(below[tied] - 1, return_inverse=True)
    at = weights.histogram(positive, place=place, bins=len(level))
    between = weights.histogram(negative, place=below, bins=len(level) + 1)
    beside = weights.histogram(negative[tied], place=tie, bins=len(shared))
    columns = max(1, BLOCK // (len(level) + 1))
    for start in range(0, weights.times.shape[1], columns):
        times = weights.times[:, start : start + columns]
        here, above = at @ times, between @ times
        np.cumsum(above, axis=0, out=above)
        false = above[:-1].copy()
        false[shared] += beside @ times
        yield Descent(here, np.cumsum(here, axis=0), above[:-1], false, above[-1])


def _area(descent: Descent) -> Values:
    positive, true, above, false, negatives = descent
    pairs = true[-1] * negatives
    lost = _dot(positive, above) + _dot(positive, false)
    return ratio(pairs - lost / 2, pairs)


def _mean_precision(descent: Descent) -> Values:
    called = descent.true + descent.false
    share = np.divide(descent.true, called, out=called, where=called > 0)
    return ratio(_dot(descent.positive, share), descent.true[-1])


def _partial_area(descent: Descent) -> Values:
    end = RATE * descent.negatives
    rows = int(_count_up_to(descent.above, end).max())
    positive, above, false = descent.positive[:rows], descent.above[:rows], descent.false[:rows]
    passed = _dot(positive, np.minimum(above, end)) + _dot(positive, np.minimum(false, end))
    area = descent.true[rows - 1] * end - passed / 2 if rows else np.zeros_like(end)
    share = ratio(area - _cut_corner(descent, end), descent.true[-1] * descent.negatives)
    least, most = RATE**2 / 2, RATE
    return (1 + (share - least) / (most - least)) / 2


def _cut_corner(descent: Descent, end: Values) -> Values:
    """Return the area above the slope of a level that is tied across the end, missed so far.

    Half the rectangle up to the end was counted, as if the slope rose to its top by then.
    """
    row = np.minimum(_count_up_to(descent.false, end), len(descent.false) - 1)
    column = np.arange(len(end))
    above, false = descent.above[row, column], descent.false[row, column]
    width, ran = false - above, np.clip(end - above, 0, None)
    crossing = (above < end) & (end < false)
    steep = np.divide(ran, width, out=np.ones_like(end), where=crossing)
    return descent.positive[row, column] * ran / 2 * (1 - steep)


def _recall_within(descent: Descent) -> Values:
    negatives = descent.negatives
    rows = _count_up_to(descent.false, (1 - SPECIFICITY + ROUNDING) * negatives)
    true = descent.true[np.maximum(rows, 1) - 1, np.arange(len(rows))]
    return ratio(np.where(rows > 0, true, 0), descent.true[-1])


def _specificity_within(descent: Descent) -> Values:
    rows = _count_up_to(descent.true, (RECALL - ROUNDING) * descent.true[-1])
    false = descent.false[np.minimum(rows, len(descent.false) - 1), np.arange(len(rows))]
    return ratio(descent.negatives - false, descent.negatives)


def _dot(one: AtLevels, other: AtLevels) -> Values:
    return np.einsum("gr,gr->r", one, other)


def _count_up_to(rising: AtLevels, limit: Values) -> Int64[np.ndarray, " r"]:
    """Return for each column how many levels are at the limit or below: by halving, not counting.

    A column is read in as many places as the number of levels has binary digits.
    """
    levels, column = len(rising), np.arange(len(limit))
    count = np.zeros(len(limit), dtype=np.int64)
    for digit in reversed(range(levels.bit_length())):
        more = count + 2**digit
        within = rising[np.minimum(more, levels) - 1, column] <= limit
        count = np.where((more <= levels) & within, more, count)
    return count


RANKED: dict[str, Callable[[Descent], Values]] = {
    "auc": _area,
    "average_precision": _mean_precision,
    "partial_auc": _partial_area,
    "recall_at_specificity": _recall_within,
    "specificity_at_recall": _specificity_within,
}
