"""An epoch's accuracy and AUC as Keras keeps them: pooled over films and findings, as they come by.

`binary_accuracy` counts what is right at .5. `AUC()` keeps how many labels of either kind lie
between 200 thresholds, 0 to 1 in equal steps, and sums trapezes; training batches are counted with
the weights of the moment, as they are met.
Letters in shapes: b films, k findings, t counts between thresholds.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

STEPS = 199  # between Keras's 200 thresholds
BINS = STEPS + 1
RIGHT, ALL = 2 * BINS, 2 * BINS + 1  # after negatives and positives in each bin
SIZE = 2 * BINS + 2


def tally(logit: Float[Tensor, "b k"], label: Float32[Tensor, "b k"]) -> Float32[Tensor, " t"]:
    """Return the counts of one batch; they may be added up over batches and processes.

    Labels that are not stated (NaN) do not count.
    """
    stated, positive = ~torch.isnan(label), label == 1
    probability = torch.sigmoid(logit.detach().float())
    above = torch.ceil(probability * STEPS).long().clamp(min=1, max=STEPS)
    right = ((probability > 0.5) == positive).float()
    counts = torch.zeros(SIZE, device=logit.device)
    counts.index_add_(0, (above + BINS * positive.long()).ravel(), stated.float().ravel())
    counts[RIGHT], counts[ALL] = (right * stated).sum(), stated.sum()
    return counts


def pooled_auc(counts: Float64[np.ndarray, " t"]) -> float:
    """Return the area under the ROC curve through the thresholds; NaN where a class is absent."""
    negatives, positives = counts[:BINS], counts[BINS : 2 * BINS]
    if not (negatives.sum() and positives.sum()):
        return float("nan")
    false, true = (
        np.append(0.0, side[::-1].cumsum() / side.sum()) for side in (negatives, positives)
    )
    return float(np.trapezoid(true, false))


def binary_accuracy(counts: Float64[np.ndarray, " t"]) -> float:
    """Return the share of right answers at .5; NaN where nothing was stated."""
    return float(counts[RIGHT] / counts[ALL]) if counts[ALL] else float("nan")
