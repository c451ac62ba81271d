"""Thresholds, fitted on validation films and nowhere else.

Letters in shapes: n films, k findings, t distinct probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from lucency.judge.metrics import counts_above
from lucency.predictions import Predictions

FALLBACK = 0.5


def threshold_table(predictions: Predictions, *, method: Literal["f1", "youden"]) -> pd.DataFrame:
    """Return the fitted thresholds as a table: network, finding, threshold, positives, note.

    The threshold lies halfway between the lowest probability called positive and the next one
    below, so that a film predicted again is not decided by its last digit. A finding without both
    classes in validation gets .5, and the note says so.
    """
    if not (len(predictions) and (predictions.part == "val").all()):
        parts = ", ".join(sorted(set(predictions.part.tolist()))) or "no"
        raise ValueError(
            f"{predictions.network}: thresholds asked of {parts} films; expected validation films "
            'only: take predictions.of("val")'
        )
    pairs = zip(predictions.label.T, predictions.probability.T, strict=True)
    return pd.DataFrame(
        {
            "network": predictions.network,
            "finding": predictions.findings,
            **pd.DataFrame([_fit(*pair, method=method) for pair in pairs], columns=list(_FITTED)),
        }
    )


def best_f1(
    true: Float64[np.ndarray, " t"], false: Float64[np.ndarray, " t"]
) -> Float64[np.ndarray, " t"]:
    """Return F1 at each threshold, from positives and negatives called positive."""
    return 2 * true / (true + false + true[-1])


def youden(
    true: Float64[np.ndarray, " t"], false: Float64[np.ndarray, " t"]
) -> Float64[np.ndarray, " t"]:
    """Return recall + specificity - 1 at each threshold. Youden, Cancer 3 (1950), 32-35."""
    return true / true[-1] - false / false[-1]


def _fit(
    label: Float32[np.ndarray, " n"], probability: Float64[np.ndarray, " n"], *, method: str
) -> tuple[float, int, str]:
    positives, negatives = int((label == 1).sum()), int((label == 0).sum())
    if not (positives and negatives):
        lacking = "negatives" if positives else "positives"
        return FALLBACK, positives, f"not fitted: 0 {lacking} in validation, {FALLBACK} instead"
    level, true, false = counts_above(label, probability)
    best = int(np.argmax(THRESHOLDS[method](true, false)))
    below = np.append(level, 0.0)[best + 1]
    return float((level[best] + below) / 2), positives, ""


_FITTED = ("threshold", "positives", "note")
THRESHOLDS: dict[str, Callable[..., Float64[np.ndarray, " t"]]] = {"f1": best_f1, "youden": youden}
