"""Maps that never saw a film: what any method must beat, in the shape of its own maps.

Letters in shapes: n films, k findings, b boxes, c numbers of a box or its cells, gh and gw cells
of the grid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from lucency.judge.maps import Boxes, Maps, cover, even_centres, place_boxes


def naive_maps(maps: Maps, *, boxes: pd.DataFrame, seed: int) -> list[Maps]:
    """Return four naive methods on the films, findings and grid of `maps`, whose cells are even."""
    maps = replace(maps, centres=even_centres(maps.grid.shape[2:]))
    return [
        random_maps(maps, seed=seed),
        centre_maps(maps),
        mean_box_maps(maps, boxes=boxes),
        box_density_maps(maps, boxes=boxes),
    ]


def random_maps(maps: Maps, *, seed: int) -> Maps:
    """Return cells drawn evenly from 0 to 1."""
    drawn = np.random.default_rng(seed).random(maps.grid.shape, dtype=np.float32)
    return replace(maps, method="random", grid=drawn)


def centre_maps(maps: Maps) -> Maps:
    """Return 1 in the film's centre falling to 0 in its corners, by distance in shares of it."""
    down, across = ((np.arange(cells) + 0.5) / cells - 0.5 for cells in maps.grid.shape[2:])
    near = (1 - np.hypot(down[:, None], across) / np.hypot(0.5, 0.5)).astype(np.float32)
    return replace(maps, method="centre", grid=np.broadcast_to(near, maps.grid.shape).copy())


def mean_box_maps(maps: Maps, *, boxes: pd.DataFrame) -> Maps:
    """Return how much of each cell the finding's mean box covers; its own patient is left out.

    The mean box has the mean left, top, right and bottom of other patients' boxes. All cells are 0
    where no other patient has one.
    """
    placed = place_boxes(maps, boxes)
    grid = np.zeros_like(maps.grid)
    for column in range(len(maps.findings)):
        corners, others = _mean_of_others(maps, placed, column, placed.corners)
        grid[others, column] = cover(corners, cells=maps.grid.shape[2:])
    return replace(maps, method="mean box", grid=grid)


def box_density_maps(maps: Maps, *, boxes: pd.DataFrame) -> Maps:
    """Return the mean share of each cell that other patients' boxes of the finding cover.

    Unlike the mean box it can lie in both lungs. All cells are 0 where no other patient has a box.
    """
    placed = place_boxes(maps, boxes)
    grid = np.zeros_like(maps.grid)
    covered = cover(placed.corners, cells=maps.grid.shape[2:])
    for column in range(len(maps.findings)):
        flat = covered.reshape(len(covered), -1)
        mean, others = _mean_of_others(maps, placed, column, flat)
        grid[others, column] = mean.reshape(-1, *maps.grid.shape[2:])
    return replace(maps, method="box density", grid=grid)


def mean_maps(maps: Maps, *, boxes: pd.DataFrame) -> Float32[np.ndarray, "k gh gw"]:
    """Return the mean raw map over the films with a box of each finding; NaN where none has."""
    placed = place_boxes(maps, boxes)
    found = np.full(maps.grid.shape[1:], np.nan, dtype=np.float32)
    for column in np.unique(placed.column):
        films = np.unique(placed.row[placed.column == column])
        found[column] = maps.grid[films, column].mean(axis=0)
    return found


def _mean_of_others(
    maps: Maps, placed: Boxes, column: int, value: Float64[np.ndarray, "b c"]
) -> tuple[Float64[np.ndarray, "n c"], Int64[np.ndarray, " n"]]:
    """Return the mean over other patients' boxes, and the films for which there are any."""
    patients, owner = np.unique(maps.patient, return_inverse=True)
    mine = placed.column == column
    whose = owner[placed.row[mine]]
    own = np.zeros((len(patients), value.shape[1]))
    np.add.at(own, whose, value[mine])
    number = np.bincount(whose, minlength=len(patients))
    left = number.sum() - number
    films = np.flatnonzero(left[owner])
    total = own.sum(axis=0) - own[owner[films]]
    return total / left[owner[films], None], films
