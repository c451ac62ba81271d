"""Local imbalance: how alone a film is with a finding's rarer value among the films like it.

Liu, Blekas and Tsoumakas, "Multi-label sampling based on local label imbalance", Pattern
Recognition 122, 2022. A finding's rarer value is present, unless more than half of all films have
it; a label of NaN counts as absent. Letters in shapes: n films, k findings, c neighbours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

SAFE, BORDERLINE, RARE, OUTLIER, MAJORITY = range(5)
LIMITS = (0.3, 0.7, 1.0)  # local imbalance from which an entry is no more safe, borderline, rare


def local_imbalance(
    label: Float32[np.ndarray, "n k"], *, near: Int64[np.ndarray, "n c"]
) -> Float64[np.ndarray, "n k"]:
    """Return the share of neighbours with the other value, 0 to 1; NaN where a value is common."""
    active = label == 1
    rare = active == (2 * active.sum(axis=0) <= len(active))
    other = np.zeros(label.shape)
    for neighbour in near.T:
        other += active[neighbour] != active
    return np.where(rare, other / max(1, near.shape[1]), np.nan)


def difficulty(imbalance: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
    """Return each film's share in a finding's local imbalance; 0 for outliers and common values.

    A finding's shares come to 1, or to 0 when no film has a local imbalance above 0 and below 1.
    """
    counted = np.where(imbalance < 1, imbalance, 0)
    total = counted.sum(axis=0)
    return counted / np.where(total > 0, total, 1)


def kinds(
    imbalance: Float64[np.ndarray, "n k"], *, near: Int64[np.ndarray, "n c"]
) -> Int64[np.ndarray, "n k"]:
    """Return what each entry is: SAFE, BORDERLINE, RARE, OUTLIER, or MAJORITY (the common value).

    By LIMITS; then a rare entry with a safe or borderline neighbour becomes borderline itself,
    again and again until none is left.
    """
    kind = np.where(np.isnan(imbalance), MAJORITY, np.digitize(imbalance, LIMITS))
    film, finding = np.nonzero(kind == RARE)
    while True:
        calm = (kind[near[film], finding[:, np.newaxis]] <= BORDERLINE).any(axis=1)
        if not calm.any():
            return kind
        kind[film[calm], finding[calm]] = BORDERLINE
        film, finding = film[~calm], finding[~calm]
