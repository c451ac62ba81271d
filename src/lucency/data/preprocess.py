"""Preprocessing: CLAHE, brightness, denoising and resizing of a film, each a pure function.

Letters in shapes: m chosen films, h and w pixels of the film, s pixels of the prepared side.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from lucency.core.manifest import Preparation, Prepared
from lucency.data.clahe import NOT_PADDED, Padded, equalise
from lucency.data.film_files import FilmFile
from lucency.data.images import read_film

THUMBNAIL_SIDE = 32

Grey = UInt8[np.ndarray, "h w"]
Square = UInt8[np.ndarray, "s s"]


def prepare_film(
    grey: Grey,
    *,
    preparation: Preparation,
    padded: Padded = NOT_PADDED,
    change: Callable[[Grey], Grey] = np.asarray,
) -> Square:
    """Return the film as a network sees it: contrast, brightness, denoising, size.

    Pure, and OpenCV's own CLAHE bit for bit. `clahe-first` works at the film's native size (as the
    reference study does), `resize-first` on the square (LungNet22, Shamrat 2022). `padded` pixels
    take no part in CLAHE and are black. `change` is done to the film at its native size, last
    before it is resized: what makes a copy of it.
    """
    if preparation.order == "resize-first":
        square, outside = _resize(change(grey), preparation), NOT_PADDED
        if padded.any():  # the film is changed, so its mask is, as a picture of black and white
            inside = _resize(change(np.where(padded, 0, 255).astype(np.uint8)), preparation)
            outside = inside < 128
        return _enhance(square, outside, preparation)
    return _resize(change(_enhance(grey, padded, preparation)), preparation)


def prepare_file(file: FilmFile, *, preparation: Preparation) -> Square | str:
    """Return the film of a file as `prepare_film` does, or the reason why it cannot be decoded."""
    try:
        film = read_film(file, bits=preparation.bits)
    except ValueError as error:
        return str(error)
    return prepare_film(film.grey, padded=film.padded, preparation=preparation)


def thumbnails(
    prepared: Prepared, *, rows: Int64[np.ndarray, " m"]
) -> Float32[np.ndarray, "m 1024"]:
    """Return the films at `rows` as 32 x 32 grey values in 0..1, area-averaged, one after another.

    A film's mean is taken off, so that exposure does not make films alike.
    """
    small = np.empty((len(rows), THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.float32)
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    for place, row in enumerate(rows.tolist()):
        small[place] = cv2.resize(prepared.pixels[row], side, interpolation=cv2.INTER_AREA)
    flat = small.reshape(len(rows), -1) / 255
    return flat - flat.mean(axis=1, keepdims=True)


def _enhance(film: Grey, padded: Padded, preparation: Preparation) -> Grey:
    if preparation.order != "no-clahe":
        about = {"clip": preparation.clahe_clip, "tiles": preparation.clahe_tiles}
        film = equalise(film, padded=padded, **about)
    if preparation.brightness:
        film = cv2.add(film, np.array([float(preparation.brightness)]))
    for name in preparation.denoise:
        film = DENOISERS[name](film)
    return np.where(padded, np.uint8(0), film) if padded.any() else film


def _resize(film: Grey, preparation: Preparation) -> Square:
    square = (preparation.size, preparation.size)
    if preparation.interpolation == "bicubic":
        return np.asarray(Image.fromarray(film).resize(square, Image.Resampling.BICUBIC))
    shrinks = min(film.shape) >= preparation.size
    return cv2.resize(film, square, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


DENOISERS = {
    "median": lambda film: cv2.medianBlur(film, 3),
    "gaussian": lambda film: cv2.GaussianBlur(film, (3, 3), 0),
    "bilateral": lambda film: cv2.bilateralFilter(film, 5, 50, 50),
}
