"""Runs of equal grey levels along lines, in four directions: lengths, levels, and what they say.

Letters in shapes: h and w pixels, r runs, m pixels of a film.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt8

Each = Int64[np.ndarray, " r"]


def runs(level: UInt8[np.ndarray, "h w"]) -> dict[str, float]:
    """Return what runs of equal levels say, the mean over four directions.

    Galloway, Computer Graphics and Image Processing 4 (1975), 172-179; Chu, Sehgal and Greenleaf,
    Pattern Recognition Letters 11 (1990), 415-419.
    """
    each = [run_features(*found) for found in runs_by_direction(level)]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def runs_by_direction(
    level: UInt8[np.ndarray, "h w"],
) -> list[tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]]:
    """Return level and length of every run inside the mask, in each of four directions."""
    found = []
    for order, line in _lines(level.shape):
        said = level.ravel()[order].astype(np.int64)
        starts = np.flatnonzero(np.r_[True, (np.diff(said) != 0) | (np.diff(line) != 0)])
        length = np.diff(np.r_[starts, len(said)])
        inside = said[starts] > 0
        found.append((said[starts][inside], length[inside]))
    return found


def run_features(
    level: Int64[np.ndarray, " r"], length: Int64[np.ndarray, " r"]
) -> dict[str, float]:
    """Return what runs of one direction say, by name; there must be one at least."""
    number, pixels = len(level), length.sum()
    by_level, by_length = np.bincount(level), np.bincount(length)
    return {
        "short runs emphasis": (1 / length.astype(np.float64) ** 2).mean(),
        "long runs emphasis": (length.astype(np.float64) ** 2).mean(),
        "low grey level run emphasis": (1 / level.astype(np.float64) ** 2).mean(),
        "high grey level run emphasis": (level.astype(np.float64) ** 2).mean(),
        "normalised grey level non-uniformity": (by_level.astype(float) ** 2).sum() / number**2,
        "normalised run length non-uniformity": (by_length.astype(float) ** 2).sum() / number**2,
        "run percentage": number / pixels,
    }


@lru_cache(maxsize=8)
def _lines(shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each direction, the order of pixels along its lines, and the line of each."""
    down, across = np.indices(shape)
    lines = (down, across, across - down, across + down)
    found = []
    for line in lines:
        order = np.lexsort((down.ravel() if line is not down else across.ravel(), line.ravel()))
        found.append((order, line.ravel()[order]))
    return found
