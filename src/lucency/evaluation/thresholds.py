"""Decision thresholds, fitted on validation films and nowhere else.

Letters in shapes: n films, k findings, t distinct probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.core.predictions import Predictions
from lucency.evaluation.metrics import Label, Score, counts_above

Rule = Literal["f1", "youden", "recall", "half"]
FALLBACK = 0.5
HALF = "half"  # fitted to nothing: .5 for every finding
RECALL = 0.9
ROUNDING = 1e-9  # of the positive films: recalls that differ by less are equal


def threshold_table(
    predictions: Predictions, *, method: Rule, recall: float = RECALL
) -> pd.DataFrame:
    """Return the fitted thresholds: network, split, finding, threshold, positives, note.

    Of several that do equally well the highest is taken; "half" is .5 whatever the films. `recall`
    is read by the method "recall" alone, and is the least expected of *new* films: of P positive
    films the one with the ceil(recall (P + 1))-th highest probability is the last called positive,
    since the k-th leaves a new positive film below it with probability 1 - k / (P + 1) (David and
    Nagaraja, Order Statistics, 2003; Vovk et al., Algorithmic Learning in a Random World, 2005).
    Where that exceeds P, all are called positive, and the note says what recall is to be expected.
    A fitted threshold lies halfway between the lowest probability called positive and the next one
    below, so that a film predicted again is not decided by its last digit. A finding without both
    classes in validation gets .5, and the note says so. Raises ValueError for films of another part
    and for a recall that is not above 0 and at most 1.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall:g}; expected above 0 and at most 1")
    if not (len(predictions) and (predictions.part == "val").all()):
        parts = ", ".join(sorted(set(predictions.part.tolist()))) or "no"
        raise ValueError(
            f"{predictions.network}: thresholds fitted to {parts} films; expected validation films "
            'only: take predictions.of("val")'
        )
    pairs = zip(predictions.label.T, predictions.probability.T, strict=True)
    fits = [_fit(*pair, method=method, recall=recall) for pair in pairs]
    names = {"network": predictions.network, "split": predictions.split}
    fitted = pd.DataFrame(fits, columns=["threshold", "positives", "note"])
    return pd.DataFrame({**names, "finding": predictions.findings, **fitted})


def _fit(
    label: Label, probability: Score, *, method: Rule, recall: float
) -> tuple[float, int, str]:
    positives, negatives = int((label == 1).sum()), int((label == 0).sum())
    if method == HALF:
        return FALLBACK, positives, ""
    if not (positives and negatives):
        lacking = "negatives" if positives else "positives"
        return FALLBACK, positives, f"not fitted: 0 {lacking} in validation, {FALLBACK} instead"
    level, true, false = counts_above(label, probability)
    best = int(np.argmax(THRESHOLDS[method](true, false, recall=recall)))
    below = np.append(level, 0.0)[best + 1]
    note = ""
    if method == "recall" and _needed(positives, recall=recall) > positives:
        note = (
            f"recall {recall:g} cannot be expected with {positives} positives in validation; "
            f"all are called positive, expected of new films: {positives / (positives + 1):.2f}"
        )
    return float((level[best] + below) / 2), positives, note


def _needed(positives: int, *, recall: float) -> int:
    """Return how many validation positives must be called, to expect `recall` of new films."""
    return int(np.ceil((recall - ROUNDING) * (positives + 1)))


# What is highest at the best threshold, of positives and negatives called positive at each.
THRESHOLDS: dict[Rule, Callable[..., Float64[np.ndarray, " t"]]] = {
    "f1": lambda true, false, recall: 2 * true / (true + false + true[-1]),
    # Recall + specificity - 1. Youden, Cancer 3 (1950), 32-35.
    "youden": lambda true, false, recall: true / true[-1] - false / false[-1],
    # True at the thresholds that call as many positives as `_needed`, or all.
    "recall": lambda true, false, recall: (
        true >= min(true[-1], _needed(int(true[-1]), recall=recall))
    ),
}
