"""From heat maps to boxes and hits, by the protocol of Wang et al., ChestX-ray8 (CVPR 2017).

Letters in shapes: gh and gw cells of the grid, h and w pixels, d detected and b true boxes,
t thresholds, m pairs of a film and a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from lucency.judge.maps import FRAME, Centres, Corners, Maps, Pairs, enlarge, scale

BRIGHTEST = 255.0
LEVELS = (60.0, 180.0)
Overlaps = Float64[np.ndarray, "d b"]


class Tally(NamedTuple):
    """Of each pair at each threshold: true boxes that are hit, and detected boxes that are not."""

    hits: Float64[np.ndarray, "t m"]
    wrong: Float64[np.ndarray, "t m"]


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

    Pixels that touch at a corner belong together (8-connectivity): Wang et al. do not say, this
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


def tally(maps: Maps, pairs: Pairs) -> Tally:
    """Return hits and wrong boxes of all pairs, at every threshold of every measure.

    A true box is hit when a detected box overlaps it by more than the threshold; a detected box is
    wrong when it overlaps no true box of the finding on its film by more than that.
    """
    size = sum(map(len, THRESHOLDS.values())), len(pairs.row)
    hits, wrong = np.zeros(size), np.zeros(size)
    for pair, (row, column, true) in enumerate(zip(*pairs, strict=True)):
        detected = detect(maps.grid[row, column], maps.centres)
        above = np.concatenate([
            OVERLAPS[name](detected, true)[None] > np.array(least)[:, None, None]
            for name, least in THRESHOLDS.items()
        ])  # fmt: skip
        hits[:, pair] = above.any(axis=1).sum(axis=1)
        wrong[:, pair] = (~above.any(axis=2)).sum(axis=1)
    return Tally(hits, wrong)


def _shared(detected: Corners, true: Corners) -> Overlaps:
    start = np.maximum(detected[:, None, :2], true[:, :2])
    end = np.minimum(detected[:, None, 2:], true[:, 2:])
    return np.maximum(end - start, 0).prod(axis=2)


def _area(corners: Corners) -> Float64[np.ndarray, " b"]:
    return (corners[:, 2:] - corners[:, :2]).prod(axis=1)


OVERLAPS: dict[str, Callable[[Corners, Corners], Overlaps]] = {"IoBB": iobb, "IoU": iou}
THRESHOLDS = {
    "IoBB": (0.1, 0.25, 0.5, 0.75, 0.9),
    "IoU": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
}
