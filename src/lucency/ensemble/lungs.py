"""Segmentation of the lungs by grey level and place: simple, and it reports when it fails.

Letters in shapes: h and w pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label as connected
from skimage.morphology import isotropic_closing, isotropic_opening

SMOOTH, OPEN, CLOSE = 1 / 75, 1 / 40, 1 / 20  # of the film's side: blur, and radii
MARGIN = 0.03  # of the side: a film's edge is no lung
STEPS = np.linspace(-1.0, 0.6, 13)  # of Otsu's threshold, in standard deviations of the middle
COARSE = 112  # pixels of a side are enough to find lungs
SHARE = (0.025, 0.32)  # of the film that one lung may take
ACROSS, DOWN = (0.13, 0.48), (0.22, 0.72)  # where its centre may be: from the film's side, from top
UNLIKE = 4.0  # times that one lung may be larger than the other
CONTACT = 0.06  # of the film's side: how much of its edge one lung may touch
TALL = 0.22  # of the film's height, at least
MIDDLE = (0.15, 0.85)  # of the film, where grey levels are divided
NAMES = ("left", "right")


class Lungs(NamedTuple):
    """Which pixels show lung; none where it failed, and `reason` says why."""

    mask: Bool[np.ndarray, "h w"]
    reason: str


def lung_mask(film: UInt8[np.ndarray, "h w"]) -> Lungs:
    """Return the lungs as far as they are darker than what lies around them.

    The blurred film is divided at thresholds around Otsu's (IEEE Transactions on Systems, Man, and
    Cybernetics 9, 1979, 62-66) of its middle; at each, the dark region of likely size and place on
    each side is a candidate, and the pair that is largest for how alike its sides are is taken, its
    gaps closed and holes filled. What is dense (effusion, consolidation, the heart) is
    left out, as is lung behind it. It fails, with a reason, where a side has no candidate or the
    two are unlike.
    """
    side, nothing = min(film.shape), np.zeros(film.shape, dtype=bool)
    step = max(1, side // COARSE)
    grey = ndimage.gaussian_filter(film.astype(np.float32), SMOOTH * side)[::step, ::step]
    down, across = (max(1, round(MARGIN * n)) for n in grey.shape)
    inner = np.zeros(grey.shape, dtype=bool)
    inner[down:-down, across:-across] = True
    middle = grey[tuple(slice(*(int(end * n) for end in MIDDLE)) for n in grey.shape)]
    if np.ptp(middle) < 1:
        return Lungs(nothing, "the film shows nothing: all its middle is alike")
    spread, start = middle.std(), threshold_otsu(middle)
    edge = inner & (np.asarray(ndimage.binary_erosion(inner)) == 0)
    pairs = [_pair(inner & (grey < start + by * spread), edge) for by in STEPS]
    best = max(pairs, key=lambda pair: pair.worth)
    if best.worth <= 0:
        return Lungs(nothing, best.reason)
    closed = [isotropic_closing(lung, CLOSE * min(lung.shape)) for lung in best.lungs]
    mask = np.any([np.asarray(ndimage.binary_fill_holes(lung)) for lung in closed], axis=0)
    large = mask.repeat(step, axis=0).repeat(step, axis=1)
    return Lungs(large[: film.shape[0], : film.shape[1]], "")


class _Pair(NamedTuple):
    lungs: tuple[Bool[np.ndarray, "h w"], ...]
    worth: float
    reason: str


def _pair(dark: Bool[np.ndarray, "h w"], edge: Bool[np.ndarray, "h w"]) -> _Pair:
    """Return the likely lungs at one threshold: worth their area times how alike they are."""
    opened = isotropic_opening(dark, OPEN * min(dark.shape))
    label = np.asarray(connected(opened, connectivity=1))
    found = int(label.max())
    sides = [_side(label, found, edge=edge, place=place) for place in range(2)]
    if 0 in sides:
        lost = " and ".join(NAMES[place] for place, one in enumerate(sides) if not one)
        return _Pair((), 0.0, f"no region of likely size and place on the film's {lost}")
    lungs = tuple(np.asarray(label == one) for one in sides)
    area = [float(lung.sum()) for lung in lungs]
    ratio = max(area) / min(area)
    if ratio > UNLIKE:
        return _Pair((), 0.0, f"one side is {ratio:.1f} times as large as the other")
    return _Pair(lungs, sum(area) / ratio, "")


def _side(
    label: Int[np.ndarray, "h w"], found: int, *, edge: Bool[np.ndarray, "h w"], place: int
) -> int:
    """Return the largest region whose size and centre may be a lung's, 0 where there is none."""
    height, width = label.shape
    best, largest = 0, 0.0
    for region, box in enumerate(ndimage.find_objects(label, found), start=1):
        inside = label[box] == region
        area = inside.sum() / label.size
        down, across = np.argwhere(inside).mean(axis=0)
        down, across = (down + box[0].start) / height, (across + box[1].start) / width
        across = across if place == 0 else 1 - across
        tall = (box[0].stop - box[0].start) / height
        touches = (inside & edge[box]).sum() / min(label.shape)
        fits = touches <= CONTACT and SHARE[0] <= area <= SHARE[1] and tall >= TALL
        there = ACROSS[0] <= across <= ACROSS[1] and DOWN[0] <= down <= DOWN[1]
        if fits and there and area > largest:
            best, largest = region, area
    return best
