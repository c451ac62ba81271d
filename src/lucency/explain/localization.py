"""Localisation: how well heat maps find the boxes that radiologists drew.

`localize` follows the protocol of Wang et al., ChestX-ray8 (CVPR 2017), from heat maps to boxes and
hits, and `reach` gives what a grid can reach at most; `pointing` needs no threshold, or fits it on
other films.

Letters in shapes: gh and gw cells of the grid, h and w pixels, d detected and b true boxes,
t thresholds, m pairs of a film and a finding with a box, k findings, k1 one more for their mean,
c terms, l levels, p points, r resamples (the first: all films once).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64

from lucency.core.manifest import BOX_COLUMNS, mean_over, require
from lucency.evaluation.bootstrap import Weights, all_and_resampled, ratio, with_macro
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.intervals import (
    AVERAGED,
    FEWEST,
    Bounds,
    bootstrap_interval,
    macro_interval,
    mean_interval,
    no_interval,
)
from lucency.explain.heatmaps import FRAME, Centres, Corners, Heatmaps, blend, cover, enlarge

BRIGHTEST = 255.0
LEVELS = (60.0, 180.0)
THRESHOLDS = {"IoBB": (0.1, 0.25, 0.5, 0.75, 0.9), "IoU": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}
LIMITS = [(name, least) for name, several in THRESHOLDS.items() for least in several]
FARTHEST = 1.5  # a box beyond this share of a film is not in shares
TOLERANCE = 15.0  # pixels of the published films, Zhang et al. 2016
GAME = "pointing game"
STEPS = 20  # the fitted level is one of 1/20 to 19/20 of a map's range
POINTING_COLUMNS = (
    "method", "finding", "measure", "films", "patients", "value", "low", "high", "note",
)  # fmt: skip
LOCALIZATION_COLUMNS = (
    "method", "finding", "measure", "threshold", "films", "patients", "boxes", "accuracy",
    "accuracy_low", "accuracy_high", "afp", "afp_low", "afp_high", "note",
)  # fmt: skip
NO_BOX = "not computable: no box of this finding"
Overlaps = Float64[np.ndarray, "d b"]
Value = Float64[np.ndarray, " m"]
Ends = Callable[..., Bounds]  # of resamples and patients, as mean_interval


class Boxes(NamedTuple):
    """Boxes beside their maps: the row of the film, the column of the finding, the corners."""

    row: Int64[np.ndarray, " b"]
    column: Int64[np.ndarray, " b"]
    corners: Corners


class Pairs(NamedTuple):
    """The films with a box of a finding, once a finding; `corners` has the boxes of each."""

    row: Int64[np.ndarray, " m"]
    column: Int64[np.ndarray, " m"]
    corners: list[Corners]


class BoxedFilms(NamedTuple):
    """The films with a box of each finding, and how often each counts in every resample.

    `counts` are films, patients and boxes of each finding, then of all; `notes` say what to note.
    """

    pairs: Pairs
    weights: Weights
    counts: list[tuple[int, int, int]]
    notes: list[str]


def localize(maps: Heatmaps, *, boxes: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return accuracy and false boxes of each finding and of their mean, at every threshold.

    The protocol of Wang et al., ChestX-ray8 (CVPR 2017), on the films with a box of the finding.
    `accuracy` is the share of its true boxes that are hit. `afp` is the number of wrong boxes on
    its films over all true boxes of all findings, 984 in NIH's file, as they publish it; with
    other boxes it means something else. 95 % intervals resample patients. `boxes` is a manifest's;
    each must have a map (ValueError). A finding without boxes is NaN, and its note says so.
    """
    boxed = boxed_films(maps, boxes, resamples=resamples, seed=seed)
    number = np.array([len(corners) for corners in boxed.pairs.corners], dtype=np.float64)
    sums = sum_by_finding(boxed, np.concatenate([*count_hits(maps, boxed.pairs), number[None]]))
    hits, wrong, own = np.split(sums, [len(LIMITS), 2 * len(LIMITS)], axis=1)
    whole = np.where(own[..., :1] > 0, own.sum(axis=0), 0)
    shares = np.stack([ratio(hits, own + 0 * hits), ratio(wrong, whole + 0 * wrong)], axis=1)
    shares = with_macro(shares.reshape(len(shares), -1)).reshape(-1, *shares.shape[1:])
    found, why = [], []
    for accuracy, false in zip(*shares.transpose(1, 2, 0, 3), strict=True):
        hit, reasons = with_interval(accuracy, boxed.counts, ends=mean_interval, fewest=FEWEST)
        wrong, others = with_interval(false, boxed.counts, ends=bootstrap_interval)
        found.append(np.column_stack([hit, wrong]).tolist())
        pairs = zip(reasons, others, strict=True)
        why.append([one or (other and f"{other} (AFP)") for one, other in pairs])
    named = zip((*maps.findings, MACRO), boxed.counts, boxed.notes, strict=True)
    rows = [
        (maps.method, finding, *limit, *count, *found[t][k], _joined(note, why[t][k]))
        for k, (finding, count, note) in enumerate(named)
        for t, limit in enumerate(LIMITS)
    ]
    return pd.DataFrame(rows, columns=list(LOCALIZATION_COLUMNS))


def reach(maps: Heatmaps, *, boxes: pd.DataFrame) -> pd.DataFrame:
    """Return what share of each finding's boxes some box made of whole cells overlaps enough.

    Exact: for IoBB no cells beat the best single one; for IoU each edge lies on one of the two
    lines of the grid beside the true edge. It is what so coarse a grid allows, but
    no strict bound on `localize`: an enlarged map may pass a level on less than a cell.
    """
    placed = place_boxes(maps, boxes)
    down, across = maps.grid.shape[2:]
    best = {
        "IoBB": cover(placed.corners, cells=(down, across)).max(axis=(1, 2)),
        "IoU": _best_iou(placed.corners, (down, across)),
    }
    rows = []
    for name, least in LIMITS:
        mine = [best[name][placed.column == column] for column in range(len(maps.findings))]
        shares = [float((one > least).mean()) if len(one) else np.nan for one in mine]
        shares = with_macro(np.array(shares)[:, None])[:, 0].tolist()
        counts = [*map(len, mine), len(placed.column)]
        for finding, count, share in zip((*maps.findings, MACRO), counts, shares, strict=True):
            note = "" if count else NO_BOX
            rows.append((f"{down} x {across}", finding, name, least, count, share, note))
    columns = ["grid", "finding", "measure", "threshold", "boxes", "reachable", "note"]
    return pd.DataFrame(rows, columns=columns)


def pointing(maps: Heatmaps, *, boxes: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return each finding's mean over its films with a box, and the mean over findings.

    `pointing game` is the share of films whose map is strongest within 15 pixels of a box,
    `energy inside` the share of positive strength in the boxes, `fitted IoU` the overlap of the
    map's strong part with the boxes, the level fitted on other patients. 95 % intervals resample
    patients; the fitted levels stay. Films that have no value are left out, and a note counts them.
    """
    boxed = boxed_films(maps, boxes, resamples=resamples, seed=seed)
    pairs = boxed.pairs
    fitted, level = fitted_iou(maps, pairs=pairs, seed=seed)
    levels = [f"levels {' and '.join(f'{one:.2f}' for one in two)}" for two in level]
    plain = [""] * (len(maps.findings) + 1)
    measures = (
        (GAME, pointing_game(maps, pairs=pairs), plain, FEWEST),
        ("energy inside", energy_inside(maps, pairs=pairs), plain, AVERAGED),
        ("fitted IoU", fitted, [*levels, ""], AVERAGED),
    )
    rows = []
    for measure, value, remarks, fewest in measures:
        means = mean_by_finding(boxed, value)
        found, why = with_interval(means, boxed.counts, ends=mean_interval, fewest=fewest)
        for place, finding in enumerate((*maps.findings, MACRO)):
            mine = (pairs.column == place) | (finding == MACRO)
            left, count = int((mine & np.isnan(value)).sum()), boxed.counts[place][:2]
            out = f"{left} films not computable, left out" if left else ""
            note = _joined(boxed.notes[place], why[place], out, remarks[place])
            rows.append((maps.method, finding, measure, *count, *found[place].tolist(), note))
    return pd.DataFrame(rows, columns=list(POINTING_COLUMNS))


def pointing_game(maps: Heatmaps, *, pairs: Pairs) -> Value:
    """Return 1 where the map's strongest cell has its centre in a box or near it, 0 elsewhere.

    Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016. Equal maxima share
    the point; a map that is the same everywhere points nowhere.
    """
    found = np.zeros(len(pairs.row))
    for pair, (row, column, corners) in enumerate(zip(*pairs, strict=True)):
        cells = maps.grid[row, column]
        down, across = np.nonzero(cells == cells.max())
        if cells.min() < cells.max():
            point = np.stack([maps.centres.across[across], maps.centres.down[down]], axis=1)
            away = _distance(point, corners)
            found[pair] = (away * FRAME <= TOLERANCE).mean()
    return found


def energy_inside(maps: Heatmaps, *, pairs: Pairs) -> Value:
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


def fitted_iou(
    maps: Heatmaps, *, pairs: Pairs, seed: int
) -> tuple[Value, Float64[np.ndarray, "k 2"]]:
    """Return each pair's IoU of strong pixels and boxes, and the two levels of each finding.

    The patients of a finding are dealt into two folds; the level (a share of each map's own
    range) with the highest mean IoU in one fold is used in the other. NaN where a finding's boxes
    are of one patient.
    """
    every = _iou_at_levels(maps, pairs)
    found = np.full(len(pairs.row), np.nan)
    level = np.full((len(maps.findings), 2), np.nan)
    generator = np.random.default_rng(seed)
    for column in range(len(maps.findings)):
        mine = np.flatnonzero(pairs.column == column)
        patients, owner = np.unique(maps.patient[pairs.row[mine]], return_inverse=True)
        fold = generator.permutation(np.arange(len(patients)) % 2)[owner]
        for number in (0, 1):
            here, there = mine[fold == number], mine[fold != number]
            if len(here) and len(there):
                best = int(every[there].mean(axis=0).argmax())
                level[column, number] = (best + 1) / STEPS
                found[here] = every[here, best]
    return found, level


def published_localisation() -> pd.DataFrame:
    """Return the published table in the columns of `localize`, so that both stand in one.

    IoBB alone; no interval was published. The macro rows are the means of the eight findings.
    """
    limits, nothing = THRESHOLDS["IoBB"], np.nan
    accuracy, afp = (
        np.column_stack([several, np.mean(several, axis=1)]).ravel()
        for several in (WANG_ACCURACY, WANG_FALSE_BOXES)
    )
    return pd.DataFrame({
        "method": "Wang 2017", "finding": [*WANG_BOXES, MACRO] * len(limits), "measure": "IoBB",
        "threshold": np.repeat(limits, len(WANG_BOXES) + 1),
        "boxes": [*WANG_BOXES.values(), sum(WANG_BOXES.values())] * len(limits),
        "accuracy": accuracy, "accuracy_low": nothing, "accuracy_high": nothing,
        "afp": afp, "afp_low": nothing, "afp_high": nothing, "note": WANG,
    })  # fmt: skip


def detect(cells: Float32[np.ndarray, "gh gw"], centres: Centres, *, frame: int = FRAME) -> Corners:
    """Return Wang's boxes of one map: one a connected region above 60, and one a region above 180.

    The map is stretched from 0 to 255 by itself and enlarged to the film. The boxes of both levels
    stand together, as the published table suggests: from T = .1 to .9 Cardiomegaly gains 302 false
    boxes on 146 films, two a film. A map that is the same everywhere has no boxes.
    """
    large = enlarge(scale(cells, top=BRIGHTEST), centres, frame=frame)
    return np.concatenate([regions(large > level) for level in LEVELS])


def regions(mask: Bool[np.ndarray, "h w"]) -> Corners:
    """Return the box around each connected region of a mask, in shares of it.

    Pixels that touch at a corner belong together (8-connectivity): Wang et al. leave it open, this
    is what OpenCV's contours do, and a region does not fall apart where it is one pixel thin.
    """
    edges, tree = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = np.flatnonzero(tree[0, :, 3] < 0).tolist() if edges else []  # no edges of holes
    found = np.array([cv2.boundingRect(edges[one]) for one in outer], dtype=np.float64)
    start, size = np.split(found.reshape(-1, 4), 2, axis=1)
    return np.hstack([start, start + size]) / np.tile(mask.shape[::-1], 2)


def iobb(detected: Corners, true: Corners) -> Overlaps:
    """Return the share of each detected box that each true box covers."""
    return _shared(detected, true) / _area(detected)[:, None]


def iou(detected: Corners, true: Corners) -> Overlaps:
    """Return the shared area of each detected and each true box, over that of both together."""
    shared = _shared(detected, true)
    return shared / (_area(detected)[:, None] + _area(true) - shared)


def count_hits(maps: Heatmaps, pairs: Pairs) -> Float64[np.ndarray, "2 t m"]:
    """Return hits and wrong boxes of all pairs, at every threshold of every measure.

    A true box is hit when a detected box overlaps it by more than the threshold; a detected box is
    wrong when it overlaps no true box of the finding on its film by more than that.
    """
    hits, wrong = counted = np.zeros((2, len(LIMITS), len(pairs.row)))
    for pair, (row, column, true) in enumerate(zip(*pairs, strict=True)):
        detected = detect(maps.grid[row, column], maps.centres)
        above = np.concatenate([
            OVERLAPS[name](detected, true)[None] > np.array(least)[:, None, None]
            for name, least in THRESHOLDS.items()
        ])  # fmt: skip
        hits[:, pair] = above.any(axis=1).sum(axis=1)
        wrong[:, pair] = (~above.any(axis=2)).sum(axis=1)
    return counted


def place_boxes(maps: Heatmaps, boxes: pd.DataFrame) -> Boxes:
    """Return each box of a manifest beside its map.

    Raises ValueError for a box without a map, in pixels, or without an area.
    """
    require(tuple(boxes.columns) == BOX_COLUMNS, "box columns", list(boxes.columns))
    row = pd.Index(maps.image.astype(str)).get_indexer(pd.Index(boxes["image"].astype(str)))
    column = pd.Index(maps.findings).get_indexer(pd.Index(boxes["finding"].astype(str)))
    if (lost := (row < 0) | (column < 0)).any():
        first = boxes.loc[lost].iloc[0]
        raise ValueError(
            f"{lost.sum():,} of {len(boxes):,} boxes have no map, such as {first['finding']} on "
            f"{first['image']}: explain all films and findings with boxes, or leave out those boxes"
        )
    side = boxes[["x", "y", "w", "h"]].to_numpy(dtype=np.float64)
    corners = np.concatenate([side[:, :2], side[:, :2] + side[:, 2:]], axis=1)
    odd = ~((side[:, 2:] > 0).all(axis=1) & (np.abs(corners) < FARTHEST).all(axis=1))
    if odd.any():
        raise ValueError(
            f"{odd.sum():,} of {len(boxes):,} boxes are no boxes in shares of the film, such as "
            f"x, y, w, h = {side[odd][0].tolist()}; expected 0 to 1: divide pixels by the film's "
            "width and height"
        )
    return Boxes(row.astype(np.int64), column.astype(np.int64), corners)


def pair_up(boxes: Boxes) -> Pairs:
    """Return the films of each finding with a box of it, in the order of films."""
    keys = np.stack([boxes.row, boxes.column], axis=1)
    pairs, owner = np.unique(keys.reshape(-1, 2), axis=0, return_inverse=True)
    corners = [boxes.corners[owner.ravel() == pair] for pair in range(len(pairs))]
    return Pairs(pairs[:, 0], pairs[:, 1], corners)


def boxed_films(maps: Heatmaps, boxes: pd.DataFrame, *, resamples: int, seed: int) -> BoxedFilms:
    """Return the films with boxes; ValueError as `place_boxes` raises it."""
    pairs = pair_up(place_boxes(maps, boxes))
    weights = all_and_resampled(maps.patient, resamples=resamples, seed=seed)
    counts, notes = [], []
    each = [pairs.column == column for column in range(len(maps.findings))]
    for mine in (*each, pairs.column >= 0):
        films = np.unique(pairs.row[mine])
        people = len(np.unique(maps.patient[films]))
        number = sum(len(pairs.corners[pair]) for pair in np.flatnonzero(mine))
        counts.append((len(films), people, number))
        notes.append("" if people else NO_BOX)
    notes[-1] = mean_over(maps.findings, [note != NO_BOX for note in notes[:-1]])
    return BoxedFilms(pairs, weights, counts, notes)


def sum_by_finding(
    boxed: BoxedFilms, term: Float64[np.ndarray, "c m"]
) -> Float64[np.ndarray, "k c r"]:
    """Return each finding's resampled sums of terms over its pairs."""
    totals = []
    for column in range(len(boxed.counts) - 1):
        mine = boxed.pairs.column == column
        owner = boxed.weights.owner[boxed.pairs.row[mine]]
        totals.append(replace(boxed.weights, owner=owner).total(term[:, mine]))
    return np.stack(totals)


def with_interval(
    value: Float64[np.ndarray, "k1 r"],
    counts: Sequence[tuple[int, int, int]],
    *,
    ends: Ends,
    fewest: int = AVERAGED,
) -> tuple[Float64[np.ndarray, "k1 3"], list[str]]:
    """Return each value over all films with both ends of its 95 % interval, and why it has none.

    `ends` is the rule of a finding, such as `mean_interval`; that of the mean over findings is
    `macro_interval`, or the same where all resamples are alike. With fewer patients than `fewest`
    there is none (NaN); `counts` are of `BoxedFilms`.
    """
    people = [patients for _, patients, _ in counts]
    each = zip(value, people[:-1], strict=False)
    found = [ends(row, patients=patients, fewest=fewest) for row, patients in each]
    mean = macro_interval(value[:-1], patients=np.array(people[:-1]))
    pooled = ends(value[-1], patients=people[-1], fewest=fewest)
    found.append(pooled if np.isnan(pooled + mean).any() else mean)
    several = zip(found, people, strict=True)
    why = [
        no_interval(one, patients=patients, fewest=fewest) if patients else ""
        for one, patients in several
    ]
    return np.column_stack([value[:, 0], np.array(found)]), why


def mean_by_finding(boxed: BoxedFilms, value: Value) -> Float64[np.ndarray, "k1 r"]:
    """Return each finding's resampled mean of a value over its pairs, and the mean of findings.

    Pairs without a value (NaN) are left out.
    """
    stated = ~np.isnan(value)
    terms = np.stack([np.where(stated, value, 0), stated.astype(np.float64)])
    sums = sum_by_finding(boxed, terms)
    return with_macro(ratio(sums[:, 0], sums[:, 1]))


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def scale(cells: Float32[np.ndarray, "gh gw"], *, top: float) -> Float32[np.ndarray, "gh gw"]:
    """Return one map stretched from 0 to `top`, as Wang et al. (CVPR 2017) do before thresholds.

    It hides how strong the map was. A map that is the same everywhere becomes 0.
    """
    low, high = float(cells.min()), float(cells.max())
    spread = high - low
    return (cells - np.float32(low)) * np.float32(top / spread if spread > 0 else 0)


def paint(corners: Corners, *, frame: int = FRAME) -> Bool[np.ndarray, "h w"]:
    """Return which pixels have their centre in any of the boxes."""
    centre = (np.arange(frame) + 0.5) / frame
    left, top, right, bottom = corners.T[:, :, None]
    across, down = (left <= centre) & (centre < right), (top <= centre) & (centre < bottom)
    return (down[:, :, None] & across[:, None, :]).any(axis=0)


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
        total = np.maximum(sides, 0).prod(axis=1) + _area(corners)
        best = np.maximum(best, shared / (total - shared))
    return best


def _shared(detected: Corners, true: Corners) -> Overlaps:
    start = np.maximum(detected[:, None, :2], true[:, :2])
    end = np.minimum(detected[:, None, 2:], true[:, 2:])
    return np.maximum(end - start, 0).prod(axis=2)


def _area(corners: Corners) -> Float64[np.ndarray, " b"]:
    return (corners[:, 2:] - corners[:, :2]).prod(axis=1)


def _distance(point: Float64[np.ndarray, "p 2"], corners: Corners) -> Float64[np.ndarray, " p"]:
    """Return how far each point is from the nearest box, 0 inside."""
    beyond = np.maximum(corners[:, :2] - point[:, None], point[:, None] - corners[:, 2:])
    return np.hypot(*np.moveaxis(np.maximum(beyond, 0), 2, 0)).min(axis=1)


def _iou_at_levels(maps: Heatmaps, pairs: Pairs) -> Float64[np.ndarray, "m l"]:
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


OVERLAPS: dict[str, Callable[[Corners, Corners], Overlaps]] = {"IoBB": iobb, "IoU": iou}
WANG = "Wang et al., ChestX-ray8, CVPR 2017 (arXiv 1705.02315), ResNet-50, IoBB"
WANG_BOXES = {  # by finding: boxes of NIH's BBox_List_2017.csv, one a film
    "Atelectasis": 180, "Cardiomegaly": 146, "Effusion": 153, "Infiltration": 123, "Mass": 85,
    "Nodule": 79, "Pneumonia": 120, "Pneumothorax": 98,
}  # fmt: skip
WANG_ACCURACY = (  # a row a threshold, in the order of WANG_BOXES
    (.6222, 1.0, .7974, .9106, .5882, .1519, .8583, .5204),
    (.3944, .9863, .6339, .7967, .4588, .0506, .7083, .3367),
    (.1944, .9452, .4183, .6504, .3058, 0, .4833, .2653),
    (.0889, .8151, .2287, .4390, .1647, 0, .2917, .1735),
    (.0722, .6507, .1373, .3577, .0941, 0, .2333, .1224),
)  # fmt: skip
WANG_FALSE_BOXES = (  # over 984
    (.8293, .1768, .6148, .4919, .3933, .4685, .4360, .4543),
    (.9319, .2042, .6880, .5447, .4288, .4786, .4959, .4857),
    (.9979, .2785, .7652, .6006, .4604, .4827, .5630, .5030),
    (1.0285, .4045, .8222, .6697, .4827, .4827, .6169, .5243),
    (1.0356, .4837, .8445, .7043, .4939, .4827, .6331, .5346),
)  # fmt: skip
