"""What a film's pixels tell by themselves: whether it is flat, framed, or written on.

Letters in shapes: n films, h and w pixels, s pixels of a side.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from lucency.judge.intervals import ratio

COARSE = 32  # pixels a side of a thumbnail
WHITE = 255
EVEN_STEP, EVEN_SHARE = 2, 0.95  # grey between neighbours in a border; share of a line that is so
STROKE_STEP, STROKE_GREY = 50, 200  # of the edge of a letter
LINE_WIDE, LINE_HIGH = 6.4, 32  # a line of writing is this part of the frame

Films = UInt8[np.ndarray, "n s s"]


def structure(films: Films) -> Float64[np.ndarray, " n"]:
    """Return the standard deviation of grey (0..1) of each film reduced to 32 x 32 pixels.

    A film of noise is flat, too.
    """
    side = (COARSE, COARSE)
    small = np.stack([cv2.resize(film, side, interpolation=cv2.INTER_AREA) for film in films])
    return small.reshape(len(films), -1).std(axis=1, dtype=np.float64) / WHITE


def border(films: Films) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the share of each frame that is empty border, and the border's mean grey, 0..1.

    The border is all rows and columns, from the edges inwards, without structure: EVEN_SHARE of
    their pixels are within EVEN_STEP of the next one. CLAHE shades an empty area, so that equal
    grey cannot be asked for. The grey is NaN without a border.
    """
    across = _even(films[:, :, 1:], films[:, :, :-1]).mean(axis=2) >= EVEN_SHARE
    down = _even(films[:, 1:], films[:, :-1]).mean(axis=1) >= EVEN_SHARE
    top, bottom, left, right = (
        _leading(lines) for lines in (across, across[:, ::-1], down, down[:, ::-1])
    )
    area, inside, within = films[0].size, np.zeros(len(films)), np.zeros(len(films))
    for row, film in enumerate(films):
        picture = film[top[row] : len(film) - bottom[row], left[row] : len(film) - right[row]]
        inside[row], within[row] = picture.size, picture.sum(dtype=np.int64)
    grey = ratio(films.sum(axis=(1, 2), dtype=np.int64) - within, area - inside) / WHITE
    return 1 - inside / area, grey


def writing(films: Films) -> Float64[np.ndarray, " n"]:
    """Return how dense strokes are in the densest patch of the size of a line of writing, 0..1.

    A stroke is a bright pixel (STROKE_GREY) with a step of STROKE_STEP from left to right. So dark
    writing, writing down the film and faint writing are not seen, nor is writing that the prepared
    size blurs; wires and clips may be taken for it, and single letters (L, R) are too few strokes.
    """
    side = films.shape[1]
    patch = (max(1, round(side / LINE_WIDE)), max(1, round(side / LINE_HIGH)))
    dense = np.empty(len(films))
    for row, film in enumerate(films):
        step = np.abs(cv2.Sobel(film, cv2.CV_16S, 1, 0, ksize=1))
        bright = cv2.dilate(film, _NEAR) >= STROKE_GREY
        stroke = ((step >= STROKE_STEP) & bright).astype(np.float32)
        dense[row] = cv2.boxFilter(stroke, -1, patch, borderType=cv2.BORDER_CONSTANT).max()
    return dense


def _even(one: UInt8[np.ndarray, "n h w"], other: UInt8[np.ndarray, "n h w"]) -> np.ndarray:
    return np.maximum(one, other) - np.minimum(one, other) <= EVEN_STEP


def _leading(lines: Bool[np.ndarray, "n s"]) -> np.ndarray:
    """Return how many lines hold before the first that does not."""
    return np.where(lines.all(axis=1), lines.shape[1], lines.argmin(axis=1))


_NEAR = np.ones((3, 3), dtype=np.uint8)
