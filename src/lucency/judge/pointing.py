"""Does a map point into the box? Measures that need no threshold, or fit it on other films.

Letters in shapes: m pairs of a film and a finding with a box, k findings, l levels, f folds,
gh and gw cells of the grid, r resamples (the first: all films once).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from lucency.judge.evaluate import MACRO
from lucency.judge.intervals import Weights, interval, mean_over_findings, ratio
from lucency.judge.localize import describe, lone, sum_by_finding
from lucency.judge.maps import (
    FRAME,
    Corners,
    Maps,
    Pairs,
    blend,
    by_finding,
    enlarge,
    paint,
    pair_up,
    place_boxes,
    scale,
    weigh,
)

TOLERANCE = 15.0  # pixels of the published films, Zhang et al. 2016
GAME = "pointing game"
STEPS = 20  # the fitted level is one of 1/20 to 19/20 of a map's range
COLUMNS = (
    "method", "finding", "measure", "films", "patients", "value", "low", "high", "note",
)  # fmt: skip
Value = Float64[np.ndarray, " m"]


def pointing(maps: Maps, *, boxes: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return each finding's mean over its films with a box, and the mean over findings.

    `pointing game` is the share of films whose map is strongest within 15 pixels of a box,
    `energy inside` the share of positive strength in the boxes, `fitted IoU` the overlap of the
    map's strong part with the boxes, the level fitted on other patients. 95 % intervals resample
    patients; the fitted levels stay. Films that have no value are left out, and a note counts them.
    """
    pairs = pair_up(place_boxes(maps, boxes))
    weights = weigh(maps, resamples=resamples, seed=seed)
    fitted, level = fitted_iou(maps, pairs=pairs, seed=seed)
    levels = [f"levels {' and '.join(f'{one:.2f}' for one in two)}" for two in level]
    plain = [""] * (len(maps.findings) + 1)
    return pd.concat([
        _rows(maps, pairs, weights, (GAME, pointing_game(maps, pairs=pairs)), plain),
        _rows(maps, pairs, weights, ("energy inside", energy_inside(maps, pairs=pairs)), plain),
        _rows(maps, pairs, weights, ("fitted IoU", fitted), [*levels, ""]),
    ], ignore_index=True)  # fmt: skip


def pointing_game(maps: Maps, *, pairs: Pairs, tolerance: float = TOLERANCE) -> Value:
    """Return 1 where the map's strongest cell has its centre in a box or near it, 0 elsewhere.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016. `tolerance` is in
    pixels of a film of 1024. Equal maxima share the point; a map that is the same everywhere
    points nowhere.
    """
    found = np.zeros(len(pairs.row))
    for pair, (row, column, corners) in enumerate(zip(*pairs, strict=True)):
        cells = maps.grid[row, column]
        down, across = np.nonzero(cells == cells.max())
        if cells.min() < cells.max():
            point = np.stack([maps.centres.across[across], maps.centres.down[down]], axis=1)
            away = _distance(point, corners)
            found[pair] = (away * FRAME <= tolerance).mean()
    return found


def energy_inside(maps: Maps, *, pairs: Pairs) -> Value:
    """Return the share of a map's positive strength that lies in the boxes; NaN where it has none.

    Wang H. et al., Score-CAM, CVPR workshops 2020: the energy-based pointing game. What is
    negative counts as 0 before the map is enlarged.
    """
    down, across = (blend(centre, frame=FRAME) for centre in maps.centres)
    size = down.sum(axis=0)[:, None] * across.sum(axis=0)
    inner, whole = np.zeros((2, len(pairs.row)))
    for pair, (row, column, corners) in enumerate(zip(*pairs, strict=True)):
        strength = np.maximum(maps.grid[row, column], 0).astype(np.float64)
        inside = down.T @ paint(corners).astype(np.float32) @ across
        inner[pair], whole[pair] = np.sum(strength * inside), np.sum(strength * size)
    return ratio(inner, whole)


def fitted_iou(maps: Maps, *, pairs: Pairs, seed: int) -> tuple[Value, Float64[np.ndarray, "k 2"]]:
    """Return each pair's IoU of strong pixels and boxes, and the two levels of each finding.

    The patients of a finding are dealt into two folds; the level (a share of each map's own
    range) with the highest mean IoU in one fold is used in the other. NaN where a finding's boxes
    are of one patient.
    """
    every = _iou_at_levels(maps, pairs)
    found = np.full(len(pairs.row), np.nan)
    level = np.full((len(maps.findings), 2), np.nan)
    generator = np.random.default_rng(seed)
    for column, mine in by_finding(maps, pairs):
        fold = _deal(maps.patient[pairs.row[mine]], generator)
        for number in (0, 1):
            here, there = mine[fold == number], mine[fold != number]
            if len(here) and len(there):
                best = int(every[there].mean(axis=0).argmax())
                level[column, number] = (best + 1) / STEPS
                found[here] = every[here, best]
    return found, level


def _distance(point: Float64[np.ndarray, "p 2"], corners: Corners) -> Float64[np.ndarray, " p"]:
    """Return how far each point is from the nearest box, 0 inside."""
    beyond = np.maximum(corners[:, :2] - point[:, None], point[:, None] - corners[:, 2:])
    return np.hypot(*np.moveaxis(np.maximum(beyond, 0), 2, 0)).min(axis=1)


def _iou_at_levels(maps: Maps, pairs: Pairs) -> Float64[np.ndarray, "m l"]:
    found = np.zeros((len(pairs.row), STEPS - 1))
    for pair, (row, column, corners) in enumerate(zip(*pairs, strict=True)):
        step = enlarge(scale(maps.grid[row, column], top=float(STEPS)), maps.centres)
        step = step.astype(np.uint8)
        mask = paint(corners)
        strong, shared = (_at_least(pixels) for pixels in (step.ravel(), step[mask]))
        found[pair] = shared / (strong + mask.sum() - shared)
    return found


def _at_least(step: np.ndarray) -> Float64[np.ndarray, " l"]:
    """Return how many pixels reach each level."""
    count = np.bincount(step, minlength=STEPS + 1)
    return count[::-1].cumsum()[::-1][1:STEPS].astype(np.float64)


def _deal(
    patient: Int64[np.ndarray, " m"], generator: np.random.Generator
) -> Int64[np.ndarray, " m"]:
    """Return a fold, 0 or 1, for each film; films of a patient stay together."""
    patients, owner = np.unique(patient, return_inverse=True)
    return generator.permutation(np.arange(len(patients)) % 2)[owner]


def _rows(
    maps: Maps,
    pairs: Pairs,
    weights: Weights,
    named: tuple[str, Value],
    remarks: list[str],
) -> pd.DataFrame:
    measure, value = named
    stated = ~np.isnan(value)
    terms = np.stack([np.where(stated, value, 0), stated.astype(np.float64)])
    sums = sum_by_finding(maps, pairs, terms, weights=weights)
    sampled = ratio(sums[:, 0], sums[:, 1])
    every = np.concatenate([sampled, mean_over_findings(sampled)[None]])
    low, high = interval(every[:, 1:])
    counts, notes = describe(maps, pairs)
    low, high = (np.where(lone(counts), np.nan, end) for end in (low, high))
    rows = []
    for place, finding in enumerate((*maps.findings, MACRO)):
        mine = pairs.column == place if finding != MACRO else np.ones(len(stated), dtype=bool)
        left = int((mine & ~stated).sum())
        out = f"{left} films not computable, left out" if left else ""
        note = "; ".join(filter(None, (notes[place], out, remarks[place])))
        rows.append((maps.method, finding, measure, *counts[place][:2], every[place, 0],
                     low[place], high[place], note))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))
