"""Stacking: logistic regression on what several networks say, fitted out of fold.

Letters in shapes: m networks, n films, k findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from lucency.combine.ensemble import check_members
from lucency.predictions import Predictions

FOLDS = 5
STRENGTH = 1.0  # inverse of the ridge penalty on standardised logits
STACKED = "stacked"


def stack(
    validation: Sequence[Predictions], test: Sequence[Predictions]
) -> tuple[Predictions, Predictions]:
    """Return what the stack says of validation films, out of fold, and of test films.

    A finding's logits of all networks, standardised on the films that are fitted to, go into one
    logistic regression (Wolpert, Neural Networks 5, 1992, 241-259). A validation film is judged by
    a regression that has not seen its patient, so that thresholds may be fitted to it. A finding
    without both classes in a fold's films is said to be as common as it is there. Raises
    ValueError as `fit_blend` does.
    """
    check_members(validation, part="val")
    check_members(test, part="test")
    known, asked = (np.stack([one.calibrated for one in side]) for side in (validation, test))
    label, patient = validation[0].label, validation[0].patient
    folds = min(FOLDS, len(np.unique(patient)))
    beyond = np.empty(label.shape)
    for fitted, left_out in GroupKFold(folds).split(label, groups=patient):
        beyond[left_out] = _regress(label[fitted], known[:, fitted], known[:, left_out])
    whole = _regress(label, known, asked)
    return _as_predictions(validation[0], beyond), _as_predictions(test[0], whole)


def _regress(
    label: Float32[np.ndarray, "n k"],
    known: Float64[np.ndarray, "m n k"],
    asked: Float64[np.ndarray, "m n2 k"],
) -> Float64[np.ndarray, "n2 k"]:
    """Return the logits that regressions fitted to the known films give to those asked about."""
    said = np.empty(asked.shape[1:])
    for k in range(label.shape[1]):
        stated = ~np.isnan(label[:, k])
        truth, score = label[stated, k], known[:, stated, k].T
        positives, negatives = (truth == 1).sum(), (truth == 0).sum()
        if not (positives and negatives):
            said[:, k] = np.log((positives + 0.5) / (negatives + 0.5))
            continue
        middle, scale = score.mean(axis=0), np.maximum(score.std(axis=0), 1e-12)
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit((score - middle) / scale, truth)
        said[:, k] = model.decision_function((asked[:, :, k].T - middle) / scale)
    return said


def _as_predictions(first: Predictions, said: Float64[np.ndarray, "n k"]) -> Predictions:
    nothing = np.empty((len(first), 0), dtype=np.float32)
    return replace(first.uncalibrated(), network=STACKED, logit=said, feature=nothing)
