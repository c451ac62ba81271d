"""Pictures that are no ordinary chest films, invented: what a network should call strange.

Each is made for an ordinary film, whose size it has, from a generator; the same generator gives the
same picture. None shows a person's film: photographs are samples of scikit-image and scikit-learn.

Letters in shapes: h and w pixels of a film, a and b pixels of a photograph, s pixels of a side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.random import Generator

from lucency.phantom.imaging import CENTRE, Exposure, Frame, Map, disc, expose, smooth

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")  # of skimage.data
SMALLEST = 0.5  # side of a photograph's part, as a share of its shorter side
FINGERS = ((-6.5, 9.0), (-3.2, 1.5), (-0.4, 0.0), (2.4, 0.8), (5.0, 4.0))  # x and y of tips, cm
KNUCKLES = ((-3.2, 15.0), (-2.6, 11.0), (-0.6, 10.4), (1.4, 10.8), (3.2, 12.2))
WRIST = (0.0, 22.0)
Grey = UInt8[np.ndarray, "h w"]


def inverted(film: Grey, rng: Generator) -> Grey:
    """Return the film with black and white exchanged."""
    del rng
    return cv2.bitwise_not(film)


def noise(film: Grey, rng: Generator) -> Grey:
    """Return normal noise of some brightness, contrast and grain."""
    grain = rng.normal(size=film.shape).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.3, 3.0))
    level = rng.uniform(70, 180) + rng.uniform(20, 60) * grain / max(float(grain.std()), 1e-6)
    return level.clip(0, 255).astype(np.uint8)


def photograph(film: Grey, rng: Generator) -> Grey:
    """Return a part of a photograph in grey, mirrored or not."""
    several = _photographs()
    whole = several[rng.integers(len(several))]
    side = int(rng.uniform(SMALLEST, 1.0) * min(whole.shape))
    top, left = (int(rng.integers(1 + length - side)) for length in whole.shape)
    part = whole[top : top + side, left : left + side]
    return _sized(part[:, ::-1] if rng.random() < 0.5 else part, film)


def hand(film: Grey, rng: Generator) -> Grey:
    """Return a hand: five fingers of three bones, a palm of five, the ends of the forearm."""
    frame = _frame(film, rng, width=22.0, height=28.0)
    tips, knuckles = (np.array(points) for points in (FINGERS, KNUCKLES))
    tips = tips + rng.normal(0, 0.4, tips.shape) * [1.5, 1.0]
    wrist = np.array(WRIST)
    flesh = frame.fill(smooth(np.array([[-4, 13], [-1, 10], [3.8, 11.5], [4, 18], [2.6, 23],
                                        [-2.6, 23], [-3.6, 18]])), soft=0.5) * 2.2  # fmt: skip
    flesh += frame.stroke(np.array([wrist, np.add(wrist, (0, 12))]), width=5.6, soft=0.5) * 2.0
    bone = _forearm(frame, wrist)
    for tip, knuckle in zip(tips, knuckles, strict=True):
        flesh = np.maximum(flesh, frame.stroke(np.array([tip, knuckle]), width=1.9, soft=0.3) * 1.5)
        joints = knuckle + (tip - knuckle) * np.array([0.0, 0.42, 0.72, 0.93])[:, np.newaxis]
        ends = [(wrist * 0.75 + knuckle * 0.25, knuckle), *pairwise(joints)]
        for start, end in ends:
            bone += _bone(frame, start, end, width=0.85)
    for place in rng.normal(0, 0.9, (7, 2)) + wrist - (0, 2.5):
        bone = np.maximum(bone, frame.fill(disc(place, 0.7), soft=0.1) * 1.3)
    return _exposed(frame, flesh + bone, film, rng, centre=0.5, contrast=rng.uniform(200, 300))


def abdomen(film: Grey, rng: Generator) -> Grey:
    """Return an abdomen: lumbar spine, lowest ribs, wings of the pelvis, gas in the bowel."""
    frame = _frame(film, rng, width=36.0, height=43.0)
    low = CENTRE + rng.uniform(8, 11)  # of the wings' upper edge
    trunk = np.array([[-16, -20], [16, -20], [17, 50], [-17, 50]])
    water = 14.0 * frame.fill(trunk, soft=2.0)
    for step in range(9):
        middle = np.array([rng.normal(0, 0.1), -6 + 4.2 * step])
        water += 3.0 * frame.fill(disc(middle, 2.2, 1.6), soft=0.3)
    for side in (-1, 1):
        wing = np.array([[2, low + 5], [5, low], [11, low - 1], [13, low + 4], [8, low + 11]])
        water += 2.2 * frame.fill(smooth(wing * [side, 1]), soft=0.4)
        for step in range(3):
            start = np.array([[2, -5 + 3 * step], [9, -3 + 3 * step], [13, 2 + 3 * step]])
            water += 0.8 * frame.stroke(smooth(start * [side, 1], closed=False), width=1.0)
        psoas = np.array([[2, 4], [4, 10], [7, low + 6], [3, low + 6]])
        water += 1.5 * frame.fill(smooth(psoas * [side, 1]), soft=0.6)
    for _ in range(int(rng.integers(8, 20))):
        place = np.array([rng.uniform(-12, 12), rng.uniform(0, low + 8)])
        bubble = disc(place, rng.uniform(0.8, 2.6), rng.uniform(0.6, 1.6))
        water -= rng.uniform(2, 5) * frame.fill(bubble, soft=0.4)
    return _exposed(
        frame, np.maximum(water, 0), film, rng, centre=2.7, contrast=rng.uniform(60, 95)
    )


@cache
def _photographs() -> list[UInt8[np.ndarray, "a b"]]:
    """Return the photographs that come with scikit-image and scikit-learn, in grey."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    several = [getattr(skimage.data, name)() for name in PHOTOGRAPHS] + load_sample_images().images
    return [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) if one.ndim == 3 else one for one in several]


def _frame(film: Grey, rng: Generator, *, width: float, height: float) -> Frame:
    """Return where the body lies on a film, somewhat turned, shifted and enlarged."""
    return Frame(
        size=max(film.shape),
        width=width,
        height=height,
        angle=rng.normal(0, 0.08),
        x=rng.normal(0, 1.0),
        y=rng.normal(0, 1.0),
        magnification=rng.uniform(0.85, 1.15),
    )


def _forearm(frame: Frame, wrist: np.ndarray) -> Map:
    """Return radius and ulna, in cm of water."""
    ends = [[np.add(wrist, (side, down)) for down in (1.2, 14)] for side in (-1.3, 1.3)]
    radius, ulna = (_bone(frame, *pair, width=1.3) for pair in ends)
    return radius + ulna


def _bone(frame: Frame, start: np.ndarray, end: np.ndarray, *, width: float) -> Map:
    """Return a long bone between two joints, its ends thicker, in cm of water."""
    gap = (end - start) * 0.06
    shaft = frame.stroke(np.array([start + gap, end - gap]), width=width * 0.8, soft=0.1)
    knobs = [frame.fill(disc(one, width * 0.62), soft=0.1) for one in (start + gap, end - gap)]
    return np.maximum(shaft, np.maximum(*knobs)) * np.float32(1.4)


def _exposed(
    frame: Frame,
    water: Float[np.ndarray, "s s"],
    film: Grey,
    rng: Generator,
    *,
    centre: float,
    contrast: float,
) -> Grey:
    exposure = Exposure(
        dose=rng.uniform(0.5, 1.3),
        scatter=rng.uniform(0.1, 0.3),
        centre=rng.normal(centre, 0.1),
        contrast=contrast,
    )
    return _sized(expose(frame, water.astype(np.float32), exposure, rng=rng), film)


def _sized(picture: UInt8[np.ndarray, "a b"], film: Grey) -> Grey:
    if picture.shape == film.shape:
        return np.ascontiguousarray(picture)
    shrinks = min(picture.shape) >= min(film.shape)
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture), film.shape[::-1], interpolation=how)


ALIENS: dict[str, Callable[[Grey, Generator], Grey]] = {
    "hand": hand,
    "abdomen": abdomen,
    "inverted": inverted,
    "photograph": photograph,
    "noise": noise,
}
