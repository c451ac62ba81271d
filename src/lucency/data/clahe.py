"""CLAHE of films, of which a part may be padding.

Letters in shapes: h and w pixels of the film, t tiles of a row and of a column of tiles.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

LEVELS = 256
Grey = UInt8[np.ndarray, "h w"]
Padded = Bool[np.ndarray, "h w"] | Bool[np.ndarray, "0 0"]
NOT_PADDED: Bool[np.ndarray, "0 0"] = np.empty((0, 0), dtype=np.bool_)


def equalise(film: Grey, *, clip: float, tiles: int, padded: Padded = NOT_PADDED) -> Grey:
    """Return the film with its contrast limited and adapted, by OpenCV's CLAHE bit for bit.

    `padded` pixels are no part of the film: the tiles lie over the smallest rectangle around the
    others, and they are black. Where some lie inside of that rectangle, they count in no histogram:
    the clip limit of a tile follows the pixels that do, and so does its weight in interpolation
    (1 for a whole tile, as OpenCV has it). That differs from OpenCV, which has no masks, by one
    level at most where nothing is padded. Method: Zuiderveld, Graphics Gems IV (1994), as OpenCV
    implements it.
    """
    rows, columns = (np.flatnonzero(~padded.all(axis=axis)) for axis in (1, 0))
    if not padded.any() or not len(rows):
        return cv2.createCLAHE(clip, (tiles, tiles)).apply(film)
    inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    box, holes, equalised = film[inside], padded[inside], np.zeros_like(film)
    if holes.any():
        equalised[inside] = _masked(box, holes, clip=clip, tiles=tiles)
    else:
        box = np.ascontiguousarray(box)
        equalised[inside] = cv2.createCLAHE(clip, (tiles, tiles)).apply(box)
    return equalised


def _masked(film: Grey, padded: Bool[np.ndarray, "h w"], *, clip: float, tiles: int) -> Grey:
    height, width = (_tile(length, film.shape, tiles) for length in film.shape)
    beyond = tuple(
        (0, tile * tiles - length) for tile, length in zip((height, width), film.shape, strict=True)
    )
    wide, outside = (np.pad(one, beyond, mode="reflect") for one in (film, padded))
    row, column = np.arange(len(wide)) // height, np.arange(wide.shape[1]) // width
    place = ((row[:, None] * tiles + column) * LEVELS + wide)[~outside]
    histogram = np.bincount(place, minlength=tiles * tiles * LEVELS).reshape(-1, LEVELS)
    count = histogram.sum(axis=1)
    curve = _curves(histogram, count, clip).reshape(tiles, tiles, LEVELS)
    whole = (count / (height * width)).astype(np.float32).reshape(tiles, tiles)
    level, weight = np.zeros(film.shape, np.float32), np.zeros(film.shape, np.float32)
    for row, above in _neighbours(film.shape[0], height, tiles):
        for column, beside in _neighbours(film.shape[1], width, tiles):
            share = above[:, None] * beside * whole[row[:, None], column]
            level += share * curve[row[:, None], column, film]
            weight += share
    level = np.divide(level, weight, out=level, where=~padded)
    return np.where(padded, 0, np.rint(level)).astype(np.uint8)


def _tile(length: int, shape: tuple[int, ...], tiles: int) -> int:
    """Return a tile's side; films are made longer both ways where they do not divide one way."""
    divides = all(side % tiles == 0 for side in shape)
    return length // tiles if divides else length // tiles + 1


def _curves(
    histogram: Int64[np.ndarray, "t2 256"], count: Int64[np.ndarray, " t2"], clip: float
) -> Float32[np.ndarray, "t2 256"]:
    """Return each tile's new grey for each grey; what is clipped is spread over all greys."""
    if clip > 0:
        limit = np.maximum((clip * count / LEVELS).astype(np.int64), 1)[:, None]
        batch, rest = np.divmod(np.maximum(histogram - limit, 0).sum(axis=1)[:, None], LEVELS)
        step, grey = np.maximum(LEVELS // np.maximum(rest, 1), 1), np.arange(LEVELS)
        extra = (grey % step == 0) & (grey // step < rest)
        histogram = np.minimum(histogram, limit) + batch + extra
    scale = np.float32(LEVELS - 1) / np.maximum(count, 1).astype(np.float32)
    curve = np.cumsum(histogram, axis=1).astype(np.float32) * scale[:, None]
    return np.clip(np.rint(curve), 0, LEVELS - 1).astype(np.float32)


def _neighbours(
    length: int, side: int, tiles: int
) -> tuple[tuple[Int64[np.ndarray, " l"], Float32[np.ndarray, " l"]], ...]:
    """Return, for each place along a film, the tiles before and after it and their weights."""
    at = np.arange(length, dtype=np.float32) / np.float32(side) - np.float32(0.5)
    before = np.floor(at).astype(np.int64)
    share = at - before.astype(np.float32)
    return (np.maximum(before, 0), 1 - share), (np.minimum(before + 1, tiles - 1), share)
