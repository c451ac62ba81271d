"""Orientation of films: turned, mirrored or inverted, by their coarse edges in sixteen poses.

The edges are histograms of oriented gradients (Dalal and Triggs, CVPR 2005), which a turn, a mirror
and a reversal of grey merely reorder. A pose is found by a linear discriminant of the collection as
it is against itself in all poses, so no film is labelled by hand: most are taken to be right. The
fit that estimates a film has not seen its patient.

Letters in shapes: n films, h and w pixels, d edges of an outline, g poses, c components.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from scipy.special import expit

from lucency.evaluation.bootstrap import ratio

CELLS, CELL, DIRECTIONS = 8, 16, 8  # cells a side, pixels a side of a cell, directions of edges
SIDE, EDGES = CELLS * CELL, CELLS * CELLS * DIRECTIONS
SOFTEN = 0.1  # of a film's mean energy: cells with less are not blown up
FOLDS, SAMPLE = 5, 4000  # films of a fit, at most
FEWEST = 100  # films to fit to
RIDGE = 0.3  # of the mean variance
COMPONENTS = 100
PRIOR = 0.01  # share of mirrored films
MAD = 1.4826  # standard deviations of a normal distribution in a median absolute deviation
TURNS = 4
MIRROR = TURNS  # the pose of a mirror image that is not turned

Outline = Float32[np.ndarray, "n d"]
Values = Float64[np.ndarray, " n"]


class Orientation(NamedTuple):
    """The pose of each film; all but `pose` are NaN, and `pose` -1, where it is not estimated."""

    pose: Int64[np.ndarray, " n"]  # quarter turns anticlockwise to upright, + TURNS if inverted
    margin: Values  # its best pose over upright, 0 where that is the best
    mirrored: Values  # probability that left and right are exchanged
    unlike: Values  # modified z of how badly its best pose fits
    strange: Values  # modified z of what the collection does not explain


def outline(films: UInt8[np.ndarray, "n h w"]) -> Outline:
    """Return the strength of edges by cell (8 down, 8 across) and direction (8), 0 to 1.

    A gradient counts for the two nearest directions, so that a mirror image has exactly the
    mirrored outline; a cell is scaled by its own energy, so that contrast does not count. Zeros for
    a flat film.
    """
    edge = np.empty((len(films), CELLS**2, DIRECTIONS))
    for row, film in enumerate(films):
        shrinks = min(film.shape) >= SIDE
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(film, (SIDE, SIDE), interpolation=how)
        across, down = (cv2.Sobel(small, cv2.CV_32F, *axis, ksize=1) for axis in ((1, 0), (0, 1)))
        strength, angle = cv2.cartToPolar(across, down)
        place = angle.ravel() * (DIRECTIONS / (2 * np.pi)) + (DIRECTIONS - 0.5)
        low = place.astype(np.int64)
        upper = strength.ravel() * (place - low)
        one = np.bincount(_CELL + low % DIRECTIONS, strength.ravel() - upper, minlength=EDGES)
        one += np.bincount(_CELL + (low + 1) % DIRECTIONS, upper, minlength=EDGES)
        edge[row] = one.reshape(edge.shape[1:])
    energy = np.square(edge).sum(axis=2, keepdims=True)
    scale = np.sqrt(energy + SOFTEN * energy.mean(axis=1, keepdims=True))
    scaled = ratio(edge, np.broadcast_to(scale, edge.shape))
    return np.nan_to_num(scaled).astype(np.float32).reshape(len(films), EDGES)


def estimate_orientation(edge: Outline, *, patient: Int64[np.ndarray, " n"]) -> Orientation:
    """Return the orientation of films of these outlines, by the other patients' films.

    `mirrored` takes the discriminant of film and mirror image for normally distributed, opposite in
    mean, and PRIOR for the share of mirrored films. `unlike` is by the discriminant of the best
    pose, `strange` by how far the outline, so put upright, lies from the first COMPONENTS principal
    components, both in modified z-scores (Iglewicz and Hoaglin, How to Detect and Handle Outliers,
    1993). Nothing is estimated from fewer films than FEWEST or fewer patients than FOLDS.
    """
    owner = np.unique(patient, return_inverse=True)[1]
    if len(edge) < FEWEST or owner.max() + 1 < FOLDS:
        unknown = np.full(len(edge), np.nan)
        return Orientation(np.full(len(edge), -1), unknown, unknown, unknown, unknown)
    pose, (upright, best, side, beyond) = np.empty(len(edge), np.int64), np.empty((4, len(edge)))
    for fold in range(FOLDS):
        mine, rest = np.flatnonzero(owner % FOLDS == fold), np.flatnonzero(owner % FOLDS != fold)
        spread = np.linspace(0, len(rest) - 1, min(SAMPLE, len(rest))).astype(np.int64)
        typical = _fit(edge[rest[spread]])
        for start in range(0, len(mine), SAMPLE):
            rows = mine[start : start + SAMPLE]
            found = _compare(edge[rows], *typical)
            pose[rows], upright[rows], best[rows], side[rows], beyond[rows] = found
    middle, deviation = _middle(side)
    against = 2 * middle * ratio(side, np.full(len(edge), deviation**2))
    mirrored = expit(np.log(PRIOR / (1 - PRIOR)) - against)
    return Orientation(pose, best - upright, mirrored, _modified_z(-best), _modified_z(beyond))


def _fit(edge: Outline) -> tuple[Float64[np.ndarray, "d ..."], ...]:
    """Return the discriminants of poses and of sides, the mean and the components of films.

    The discriminant of poses is Fisher's, with a ridge; its covariance is that of all films in all
    poses, which are reorderings of one matrix.
    """
    wide = edge.astype(np.float64)
    mean, moment = wide.mean(axis=0), wide.T @ wide / len(wide)
    centre = mean[_POSES].mean(axis=0)
    everywhere = np.mean([moment[np.ix_(pose, pose)] for pose in _POSES], axis=0)
    everywhere -= np.outer(centre, centre)
    weight = _discriminant(everywhere, mean - centre)
    poses = np.empty((EDGES, len(_POSES)))
    for column, pose in enumerate(_POSES):
        poses[pose, column] = weight
    mirror = _POSES[MIRROR]
    odd = moment - moment[mirror] - moment[:, mirror] + moment[np.ix_(mirror, mirror)]
    sides = _discriminant(odd / 4, (mean - mean[mirror]) / 2)
    _, basis = np.linalg.eigh(moment - np.outer(mean, mean))
    return poses, (sides - sides[mirror]) / 2, mean, basis[:, -COMPONENTS:]


def _discriminant(
    moment: Float64[np.ndarray, "d d"], mean: Float64[np.ndarray, " d"]
) -> Float64[np.ndarray, " d"]:
    """Return the weights that separate films from their other poses, of unit variance over all."""
    ridge = RIDGE * np.trace(moment) / EDGES + np.finfo(np.float64).tiny
    weight = np.linalg.solve(moment + ridge * np.eye(EDGES), mean)
    return weight / np.sqrt(max(weight @ moment @ weight, np.finfo(np.float64).tiny))


def _compare(
    edge: Outline,
    poses: Float64[np.ndarray, "d g"],
    sides: Float64[np.ndarray, " d"],
    centre: Float64[np.ndarray, " d"],
    basis: Float64[np.ndarray, "d c"],
) -> tuple[np.ndarray, ...]:
    """Return pose, fit upright and in it, side, and distance from what components explain."""
    wide = edge.astype(np.float64)
    films = np.arange(len(edge))
    score = (wide @ poses).reshape(len(edge), 2, 2, TURNS)  # polarity, sides, turns
    either = score.max(axis=2).reshape(len(edge), 2 * TURNS)
    pose = either.argmax(axis=1)
    mirrored = score.argmax(axis=2).reshape(len(edge), 2 * TURNS)[films, pose]
    exact = pose + TURNS * (mirrored + pose // TURNS)
    away = np.take_along_axis(wide, _POSES[exact], axis=1) - centre
    away -= away @ basis @ basis.T
    beyond = np.linalg.norm(away, axis=1)
    return pose, either[:, 0], either[films, pose], wide @ sides, beyond


def _modified_z(value: Values) -> Values:
    middle, deviation = _middle(value)
    return ratio(value - middle, np.full(len(value), deviation))


def _middle(value: Values) -> tuple[float, float]:
    """Return the median, and the standard deviation by the median absolute deviation."""
    middle = float(np.median(value))
    return middle, MAD * float(np.median(np.abs(value - middle)))


def _all_poses() -> Int64[np.ndarray, "g d"]:
    """Return for each pose which edge of a film stands where: turned, mirrored, grey reversed.

    A mirror takes the direction at an angle to its supplement, a quarter turn anticlockwise takes a
    quarter off, a reversal of grey turns all round.
    """
    plain = np.arange(EDGES).reshape(CELLS, CELLS, DIRECTIONS)
    quarter, half = DIRECTIONS // TURNS, DIRECTIONS // 2
    turned = [np.roll(np.rot90(plain, turn), -turn * quarter, axis=2) for turn in range(TURNS)]
    supplement = (half - 1 - np.arange(DIRECTIONS)) % DIRECTIONS
    sides = [*turned, *(one[:, ::-1, supplement] for one in turned)]
    reversed_grey = [np.roll(one, half, axis=2) for one in sides]
    return np.stack([one.ravel() for one in [*sides, *reversed_grey]])


_POSES = _all_poses()
_CELL = DIRECTIONS * (np.arange(SIDE)[:, None] // CELL * CELLS + np.arange(SIDE) // CELL).ravel()
