"""The rising curve that fits shares best, for recalibrations that a line is too stiff for.

Letters in shapes: n films, m knots.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.optimize import isotonic_regression
from scipy.special import logit as log_odds


def rising_curve(
    label: Float64[np.ndarray, " n"], logit: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, "m 2"]:
    """Return the knots of the curve from logits to calibrated logits; labels are 1 and 0, of both.

    Films of one logit are pooled; isotonic regression joins neighbours into blocks whose shares
    rise. A block's knot stands at the mean logit of its films. A share s becomes the log odds of
    1 / (N + 2) x (1 - s) + (P + 1) / (P + 2) x s, with P positives and N negatives in all: the
    same regression of Platt's smoothed targets, so that no level is 0 or 1. Zadrozny and Elkan,
    Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD (2002).
    """
    level, place, films = np.unique(logit, return_inverse=True, return_counts=True)
    positives = np.bincount(place, weights=label)
    fitted = isotonic_regression(positives / films, weights=films)
    share, block = np.unique(fitted.x, return_inverse=True)
    centre = np.bincount(block, weights=level * films) / np.bincount(block, weights=films)
    low, high = 1 / ((1 - label).sum() + 2), (label.sum() + 1) / (label.sum() + 2)
    return np.column_stack([centre, log_odds(low + (high - low) * share)])
