"""How well maps find the boxes that radiologists drew, beside what a grid can reach.

Letters in shapes: b boxes, k findings, k1 one more for their mean, m pairs of a film and a finding,
t thresholds, c terms, r resamples (the first: all films once).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from lucency.judge.boxes import THRESHOLDS, tally
from lucency.judge.evaluate import MACRO
from lucency.judge.intervals import Weights, interval, mean_over_findings, ratio
from lucency.judge.maps import (
    Corners,
    Maps,
    Pairs,
    by_finding,
    cover,
    pair_up,
    place_boxes,
    weigh,
)

COLUMNS = (
    "method", "finding", "measure", "threshold", "films", "patients", "boxes", "accuracy",
    "accuracy_low", "accuracy_high", "afp", "afp_low", "afp_high", "note",
)  # fmt: skip
NO_BOX = "not computable: no box of this finding"
ONE_PATIENT = "no interval: the films are of one patient"
LIMITS = [(name, least) for name, several in THRESHOLDS.items() for least in several]


def localize(maps: Maps, *, boxes: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return accuracy and false boxes of each finding and of their mean, at every threshold.

    The protocol of Wang et al., ChestX-ray8 (CVPR 2017), on the films with a box of the finding.
    `accuracy` is the share of its true boxes that are hit. `afp` is the number of wrong boxes on
    its films over all true boxes of all findings, 984 in NIH's file, as they publish it; with
    other boxes it means something else. 95 % intervals resample patients. `boxes` is a manifest's;
    each must have a map (ValueError). A finding without boxes is NaN, and its note says so.
    """
    pairs = pair_up(place_boxes(maps, boxes))
    weights = weigh(maps, resamples=resamples, seed=seed)
    counted = tally(maps, pairs)
    number = np.array([len(corners) for corners in pairs.corners], dtype=np.float64)
    terms = np.concatenate([counted.hits, counted.wrong, number[None]])
    sums = sum_by_finding(maps, pairs, terms, weights=weights)
    hits, wrong, own = np.split(sums, [len(LIMITS), 2 * len(LIMITS)], axis=1)
    whole = np.where(own[..., :1] > 0, own.sum(axis=0), 0)
    values = [
        _with_mean(ratio(hits, own + 0 * hits)),
        _with_mean(ratio(wrong, whole + 0 * wrong)),
    ]
    found = np.stack([[value[..., 0], *interval(value[..., 1:])] for value in values])
    counts, notes = describe(maps, pairs)
    found[:, 1:, lone(counts)] = np.nan
    rows = [
        (maps.method, finding, *limit, *count, *found[:, :, place, which].ravel().tolist(), note)
        for place, (finding, count, note) in enumerate(
            zip((*maps.findings, MACRO), counts, notes, strict=True)
        )
        for which, limit in enumerate(LIMITS)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reach(maps: Maps, *, boxes: pd.DataFrame) -> pd.DataFrame:
    """Return what share of each finding's boxes some box made of whole cells overlaps enough.

    Exact: for IoBB no cells beat the best single one; for IoU each edge lies on one of the two
    lines of the grid beside the true edge. It says what so coarse a grid may be asked for. It is
    no strict bound on `localize`: an enlarged map may pass a level on less than a cell.
    """
    placed = place_boxes(maps, boxes)
    down, across = maps.grid.shape[2:]
    best = {name: function(placed.corners, (down, across)) for name, function in _BEST.items()}
    rows = []
    for name, least in LIMITS:
        mine = [best[name][placed.column == column] for column in range(len(maps.findings))]
        shares = [float((one > least).mean()) if len(one) else np.nan for one in mine]
        mean = mean_over_findings(np.array(shares)[:, None])[0]
        counts = [*map(len, mine), len(placed.column)]
        for finding, count, share in zip(
            (*maps.findings, MACRO), counts, [*shares, mean], strict=True
        ):
            note = "" if count else NO_BOX
            rows.append((f"{down} x {across}", finding, name, least, count, float(share), note))
    columns = ["grid", "finding", "measure", "threshold", "boxes", "reachable", "note"]
    return pd.DataFrame(rows, columns=columns)


def sum_by_finding(
    maps: Maps, pairs: Pairs, term: Float64[np.ndarray, "c m"], *, weights: Weights
) -> Float64[np.ndarray, "k c r"]:
    """Return each finding's resampled sums of terms over its pairs."""
    totals = []
    for _, mine in by_finding(maps, pairs):
        owner = weights.owner[pairs.row[mine]]
        totals.append(Weights(owner=owner, times=weights.times).total(term[:, mine]))
    return np.stack(totals)


def describe(maps: Maps, pairs: Pairs) -> tuple[list[tuple[int, int, int]], list[str]]:
    """Return films, patients and boxes of each finding and of all, and a note for each."""
    counts, notes = [], []
    for _, mine in [*by_finding(maps, pairs), (-1, np.arange(len(pairs.row)))]:
        films = np.unique(pairs.row[mine])
        boxes = sum(len(pairs.corners[pair]) for pair in mine)
        counts.append((len(films), len(np.unique(maps.patient[films])), boxes))
        people = counts[-1][1]
        notes.append(ONE_PATIENT if people == 1 else "" if boxes else NO_BOX)
    without = [name for name, note in zip(maps.findings, notes, strict=False) if note == NO_BOX]
    number = len(maps.findings) - len(without)
    mean = f"mean over {number} of {len(maps.findings)} findings"
    mean += f", without {', '.join(without)}" if without else ""
    notes[-1] = f"{ONE_PATIENT}; {mean}" if counts[-1][1] == 1 else mean
    return counts, notes


def lone(counts: Sequence[tuple[int, int, int]]) -> Bool[np.ndarray, " k1"]:
    """Return which rows of `describe` are of one patient, whom every resample holds as a whole."""
    return np.array([patients == 1 for _, patients, _ in counts])


def _with_mean(value: Float64[np.ndarray, "k t r"]) -> Float64[np.ndarray, "k1 t r"]:
    mean = mean_over_findings(value.reshape(len(value), -1))
    return np.concatenate([value, mean.reshape(1, *value.shape[1:])])


def _best_iobb(corners: Corners, cells: tuple[int, int]) -> Float64[np.ndarray, " b"]:
    return cover(corners, cells=cells).max(axis=(1, 2))


def _best_iou(corners: Corners, cells: tuple[int, int]) -> Float64[np.ndarray, " b"]:
    """Return the largest overlap over the at most 16 rectangles around and within each box."""
    lines = np.tile(cells[::-1], 2)
    before = np.floor(corners * lines)
    best = np.zeros(len(corners))
    for choice in product((0, 1), repeat=4):
        edge = (before + np.array(choice)).clip(0, lines) / lines
        sides = edge[:, 2:] - edge[:, :2]
        inside = np.minimum(edge[:, 2:], corners[:, 2:]) - np.maximum(edge[:, :2], corners[:, :2])
        shared = np.where((sides > 0).all(axis=1), np.maximum(inside, 0).prod(axis=1), 0)
        true = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
        best = np.maximum(best, shared / (np.maximum(sides, 0).prod(axis=1) + true - shared))
    return best


_BEST = {"IoBB": _best_iobb, "IoU": _best_iou}
