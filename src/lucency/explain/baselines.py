"""Baselines: maps made without any network, and whether heat maps beat them at pointing into boxes.

Letters in shapes: n films, k findings, k1 one more for their mean, b boxes, c numbers of a box or
its cells, gh and gw cells of the grid, r resamples (the first: all films once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from lucency.evaluation.bootstrap import Weights, all_and_resampled, interval, ratio
from lucency.evaluation.evaluate import MACRO
from lucency.explain.heatmaps import (
    Boxes,
    Heatmaps,
    Pairs,
    cover,
    even_centres,
    pair_up,
    place_boxes,
)
from lucency.explain.localization import ONE_PATIENT, pointing_game, sum_by_finding, with_mean

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
    pairs = pair_up(place_boxes(maps, boxes))
    weights = all_and_resampled(maps.patient, resamples=resamples, seed=seed)
    own = _hits(maps, pairs, weights)
    findings = (*maps.findings, MACRO)
    patient = maps.patient[pairs.row]
    of = [pairs.column == column for column in range(len(findings) - 1)]
    of.append(np.ones(len(pairs.row), dtype=bool))
    rows = []
    for baseline in baselines:
        apart = own - _hits(baseline, pairs, weights)
        low, high = interval(apart[:, 1:])
        for place, finding in enumerate(findings):
            people = len(np.unique(patient[of[place]]))
            bounds = (low[place], high[place]) if people > 1 else (np.nan, np.nan)
            counts = (len(np.unique(pairs.row[of[place]])), people)
            note = ONE_PATIENT if people == 1 else ""
            names = (maps.method, baseline.method, finding)
            rows.append((*names, apart[place, 0], *bounds, *counts, note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_heatmaps(baselines: pd.DataFrame, *, boxes: pd.DataFrame) -> str:
    """Return whether maps beat the baselines: differences and their 95 % intervals."""
    if not len(baselines):
        return "No box could be scored, so the localisation of this network is unknown."
    mean = baselines.loc[baselines["finding"] == MACRO]
    words = [
        _compared(name, mean.loc[mean["method"] == name]) for name in dict.fromkeys(mean["method"])
    ]
    count = boxes["finding"].value_counts()
    few = [f"{name} {number}" for name, number in count.items() if number < FEW]
    if few:
        words.append(f"Findings with fewer than {FEW} boxes are inconclusive: {', '.join(few)}.")
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
    placed = place_boxes(maps, boxes)
    grid = np.zeros_like(maps.grid)
    for column in range(len(maps.findings)):
        corners, others = _mean_of_others(maps, placed, column, placed.corners)
        grid[others, column] = cover(corners, cells=maps.grid.shape[2:])
    return replace(maps, method="mean box", grid=grid)


def box_density_maps(maps: Heatmaps, *, boxes: pd.DataFrame) -> Heatmaps:
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


def mean_maps(maps: Heatmaps, *, boxes: pd.DataFrame) -> Float32[np.ndarray, "k gh gw"]:
    """Return the mean raw map over the films with a box of each finding; NaN where none has."""
    placed = place_boxes(maps, boxes)
    found = np.full(maps.grid.shape[1:], np.nan, dtype=np.float32)
    for column in np.unique(placed.column):
        films = np.unique(placed.row[placed.column == column])
        found[column] = maps.grid[films, column].mean(axis=0)
    return found


def _mean_of_others(
    maps: Heatmaps, placed: Boxes, column: int, value: Float64[np.ndarray, "b c"]
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


def _compared(method: str, mine: pd.DataFrame) -> str:
    """Return which baselines a method beats, which beat it, and which tie with it."""
    kinds = {"more often than": [], "less often than": [], "no more often for sure than": []}
    for row in mine.to_dict("records"):
        kind = list(kinds)[0 if row["low"] > 0 else 1 if row["high"] < 0 else 2]
        known = (
            f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] == row["low"] else row["note"]
        )
        gap = f"{row['difference']:+.3f}, {known}"
        kinds[kind].append(f"{row['baseline']} ({gap})")
    parts = [f"{kind} {', '.join(several)}" for kind, several in kinds.items() if several]
    return f"{method} points into boxes {'; '.join(parts)}."


def _hits(maps: Heatmaps, pairs: Pairs, weights: Weights) -> Float64[np.ndarray, "k1 r"]:
    """Return the share of films whose map points into a box, by finding and their mean."""
    terms = np.stack([pointing_game(maps, pairs=pairs), np.ones(len(pairs.row))])
    sums = sum_by_finding(maps, pairs, terms, weights=weights)
    share = ratio(sums[:, 0], sums[:, 1])
    return with_mean(share)
