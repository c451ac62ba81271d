"""Whether probabilities are shares: the calibration error of one finding, over bins.

Letters in shapes: n films, r columns of weights.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from lucency.judge.intervals import Weights

BINS = 15  # Guo et al. 2017


def expected_calibration_error(
    label: Float[np.ndarray, " n"], probability: Float[np.ndarray, " n"], *, weights: Weights
) -> Float64[np.ndarray, " r"]:
    """Return by how much mean probability misses the share of positives, on average over bins.

    Fifteen bins of equal width, (0, 1/15] to (14/15, 1], and 0 in the first; a bin counts by its
    films. NaN where no film has a label. Naeini, Cooper and Hauskrecht, AAAI (2015); Guo, Pleiss,
    Sun and Weinberger, ICML (2017), equation 3, here of the finding's probability.
    """
    stated = ~np.isnan(label)
    wide = probability.astype(np.float64)
    gap = np.where(stated, wide - label, 0)
    place = np.searchsorted(np.arange(1, BINS) / BINS, wide)
    # One bin at a time: all at once would hold 15 numbers a film.
    missed = [weights.total(np.where(place == b, gap, 0)[None]) for b in range(BINS)]
    films = weights.total(stated[None].astype(np.float64))[0]
    error = np.abs(np.concatenate(missed)).sum(axis=0)
    return np.divide(error, films, out=np.full_like(films, np.nan), where=films > 0)
