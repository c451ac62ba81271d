"""Baselines: maps made without any network, and whether heat maps beat them at pointing into boxes.

Letters in shapes: m films, k findings, b boxes, c numbers of a box or its cells, gh and gw cells of
the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.intervals import FEWEST, difference_interval
from lucency.explain.heatmaps import Heatmaps, cover, even_centres
from lucency.explain.localization import (
    Boxes,
    boxed_films,
    mean_by_finding,
    place_boxes,
    pointing_game,
    with_interval,
)

COLUMNS = (
    "method", "baseline", "finding", "difference", "low", "high", "films", "patients", "note",
)  # fmt: skip
FEW = 30  # boxes of a finding below which its row is imprecise: a share of .5 is known to +- .18


def baseline_table(
    maps: Heatmaps, *, baselines: Sequence[Heatmaps], boxes: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Return the pointing game of a method minus that of each baseline, by finding and their mean.

    All are maps of the same films, so that differences are paired; 95 % intervals over patients.
    """
    boxed = boxed_films(maps, boxes, resamples=resamples, seed=seed)
    own, *theirs = (
        mean_by_finding(boxed, pointing_game(one, pairs=boxed.pairs)) for one in (maps, *baselines)
    )
    rows = []
    for other, hits in zip(baselines, theirs, strict=True):
        apart, why = with_interval(
            own - hits, boxed.counts, ends=difference_interval, fewest=FEWEST
        )
        named = zip((*maps.findings, MACRO), boxed.counts, apart.tolist(), why, strict=True)
        for finding, count, ends, note in named:
            rows.append((maps.method, other.method, finding, *ends, *count[:2], note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_heatmaps(baselines: pd.DataFrame, *, boxes: pd.DataFrame) -> str:
    """Return sentences on the pointing game of each method minus that of each baseline."""
    if not len(baselines):
        return "Localisation is not computable: no box could be scored."
    mean = baselines.loc[baselines["finding"] == MACRO]
    words = [_compared(str(name), mine) for name, mine in mean.groupby("method", sort=False)]
    count = boxes["finding"].value_counts()
    few = [f"{name} {number}" for name, number in count.items() if number < FEW]
    if few:
        words.append(f"Inconclusive, fewer than {FEW} boxes: {', '.join(few)}.")
    return " ".join(words)


def baseline_maps(maps: Heatmaps, *, boxes: pd.DataFrame, seed: int) -> list[Heatmaps]:
    """Return four baselines on the films, findings and grid of `maps`, whose cells are even."""
    maps = replace(maps, centres=even_centres(maps.grid.shape[2:]))
    return [
        random_maps(maps, seed=seed),
        centre_maps(maps),
        mean_box_maps(maps, boxes=boxes),
        box_density_maps(maps, boxes=boxes),
    ]


def random_maps(maps: Heatmaps, *, seed: int) -> Heatmaps:
    """Return cells with uniform random values from 0 to 1."""
    grid = np.random.default_rng(seed).random(maps.grid.shape, dtype=np.float32)
    return replace(maps, method="random", grid=grid)


def centre_maps(maps: Heatmaps) -> Heatmaps:
    """Return 1 in the film's centre falling to 0 in its corners, by distance in shares of it."""
    down, across = ((np.arange(cells) + 0.5) / cells - 0.5 for cells in maps.grid.shape[2:])
    near = (1 - np.hypot(down[:, None], across) / np.hypot(0.5, 0.5)).astype(np.float32)
    return replace(maps, method="centre", grid=np.broadcast_to(near, maps.grid.shape).copy())


def mean_box_maps(maps: Heatmaps, *, boxes: pd.DataFrame) -> Heatmaps:
    """Return how much of each cell the finding's mean box covers; its own patient is left out.

    The mean box has the mean left, top, right and bottom of other patients' boxes. All cells are 0
    where no other patient has one.
    """
    placed, grid = place_boxes(maps, boxes), np.zeros_like(maps.grid)
    for column, films, corners in _means_of_others(maps, placed, placed.corners):
        grid[films, column] = cover(corners, cells=maps.grid.shape[2:])
    return replace(maps, method="mean box", grid=grid)


def box_density_maps(maps: Heatmaps, *, boxes: pd.DataFrame) -> Heatmaps:
    """Return the mean share of each cell that other patients' boxes of the finding cover.

    Unlike the mean box it can lie in both lungs. All cells are 0 where no other patient has a box.
    """
    placed, grid = place_boxes(maps, boxes), np.zeros_like(maps.grid)
    covered = cover(placed.corners, cells=maps.grid.shape[2:])
    for column, films, share in _means_of_others(maps, placed, covered):
        grid[films, column] = share
    return replace(maps, method="box density", grid=grid)


def mean_maps(maps: Heatmaps, *, boxes: pd.DataFrame) -> Float32[np.ndarray, "k gh gw"]:
    """Return the mean raw map over the films with a box of each finding; NaN where none has."""
    placed = place_boxes(maps, boxes)
    found = np.full(maps.grid.shape[1:], np.nan, dtype=np.float32)
    for column in np.unique(placed.column):
        films = np.unique(placed.row[placed.column == column])
        found[column] = maps.grid[films, column].mean(axis=0)
    return found


def _means_of_others(
    maps: Heatmaps, placed: Boxes, value: Float64[np.ndarray, "b ..."]
) -> Iterator[tuple[int, Int64[np.ndarray, " m"], Float64[np.ndarray, "m ..."]]]:
    """Yield each finding's column, the films of which other patients have boxes, and their mean."""
    patients, owner = np.unique(maps.patient, return_inverse=True)
    for column in range(len(maps.findings)):
        mine = placed.column == column
        whose = owner[placed.row[mine]]
        own = np.zeros((len(patients), *value.shape[1:]))
        np.add.at(own, whose, value[mine])
        number = np.bincount(whose, minlength=len(patients))
        left = number.sum() - number
        films = np.flatnonzero(left[owner])
        total = own.sum(axis=0) - own[owner[films]]
        yield column, films, (total.T / left[owner[films]]).T


def _compared(method: str, mine: pd.DataFrame) -> str:
    names = ("above", "below", "not significantly different from", "not compared with")
    kinds: dict[str, list[str]] = {name: [] for name in names}
    for row in mine.to_dict("records"):
        low, high = row["low"], row["high"]
        known = row["note"] if np.isnan(low) else f"{low:.3f} to {high:.3f}"
        kind = names[0 if low > 0 else 1 if high < 0 else 2 if low == low else 3]
        kinds[kind].append(f"{row['baseline']} {row['difference']:+.3f} ({known})")
    parts = [f"{kind} {', '.join(several)}" for kind, several in kinds.items() if several]
    return f"Pointing game of {method}, difference with 95 % interval: {'; '.join(parts)}."
