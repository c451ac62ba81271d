"""The metrics of decisions: each a function of the four cells of the confusion matrix.

Every function returns one value for each column of weights, and NaN where it cannot be computed,
never 0 (scikit-learn's `zero_division` would put a number there).

Letters in shapes: n films, r columns of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from lucency.judge.intervals import Weights, ratio

Values = Float64[np.ndarray, " r"]


class Cells(NamedTuple):
    """The weight of films called positive or negative, truly or falsely."""

    tp: Values
    fp: Values
    fn: Values
    tn: Values


def count_cells(
    label: Float[np.ndarray, " n"], decision: Bool[np.ndarray, " n"], *, weights: Weights
) -> Cells:
    """Return the confusion matrix; a film whose label is NaN (not stated) is left out."""
    positive, negative = label == 1, label == 0
    cells = [positive & decision, negative & decision, positive & ~decision, negative & ~decision]
    return Cells(*weights.total(np.stack(cells).astype(np.float64)))


def f1(cells: Cells) -> Values:
    """Return the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
    tp, fp, fn, _ = cells
    return np.where(tp + fn > 0, ratio(2 * tp, 2 * tp + fp + fn), np.nan)


def precision(cells: Cells) -> Values:
    """Return the share of positive films among those called positive, TP / (TP + FP)."""
    tp, fp, fn, _ = cells
    return np.where(tp + fn > 0, ratio(tp, tp + fp), np.nan)


def recall(cells: Cells) -> Values:
    """Return the share of positive films that are called positive, TP / (TP + FN): sensitivity."""
    return ratio(cells.tp, cells.tp + cells.fn)


def specificity(cells: Cells) -> Values:
    """Return the share of negative films that are called negative, TN / (TN + FP)."""
    return ratio(cells.tn, cells.tn + cells.fp)


def npv(cells: Cells) -> Values:
    """Return the share of negative films among those called negative, TN / (TN + FN).

    NaN without negative films, as precision is without positive ones.
    """
    _, fp, fn, tn = cells
    return np.where(tn + fp > 0, ratio(tn, tn + fn), np.nan)


def accuracy(cells: Cells) -> Values:
    """Return the share of films that are called right; high for whoever calls all negative."""
    tp, fp, fn, tn = cells
    return ratio(tp + tn, tp + fp + fn + tn)


def balanced_accuracy(cells: Cells) -> Values:
    """Return the mean of recall and specificity."""
    return (recall(cells) + specificity(cells)) / 2


def mcc(cells: Cells) -> Values:
    """Return the correlation of label and decision, from -1 to 1: Matthews' coefficient.

    NaN where a class is absent or all films are called alike, for which scikit-learn puts 0.
    Matthews, Biochimica et Biophysica Acta 405 (1975), 442-451.
    """
    tp, fp, fn, tn = cells
    root = np.sqrt((tp + fn) * (tn + fp)) * np.sqrt((tp + fp) * (tn + fn))
    return ratio(tp * tn - fp * fn, root)


DECIDED: dict[str, Callable[[Cells], Values]] = {
    "f1": f1,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "npv": npv,
    "mcc": mcc,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
}
