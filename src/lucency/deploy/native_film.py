"""Films at the size and depth of their files, as the viewer shows them.

Letters in shapes: h and w pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt, UInt8

from lucency.core.manifest import Preparation
from lucency.data.dicom import decode_dicom_deep, is_dicom
from lucency.data.images import bits_that_hold, decode, read_grey

THUMBNAIL = 96  # pixels of the longer side


class NativeFilm(NamedTuple):
    """A film's stored grey, its depth, and the values that are shown black and white at first."""

    grey: UInt[np.ndarray, "h w"]
    bits: int
    low: float
    high: float


def read_native(file: Path) -> NativeFilm:
    """Return the film of a file; ValueError, with the file's name, where it cannot be read."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file.name}: cannot be read: {error.strerror}") from error
    return decode_native(content, name=file.name)


def decode_native(content: bytes, *, name: str) -> NativeFilm:
    """Return the film that a file's content holds: PNG, JPEG or DICOM.

    A DICOM film is first shown in its own window, others in their whole depth. Raises ValueError,
    which begins with `name`, for what is no whole film.
    """
    try:
        if is_dicom(content):
            deep = decode_dicom_deep(content)
            return NativeFilm(deep.pixels, deep.bits, deep.low, deep.high)
        grey = decode(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    bits = 8 if grey.dtype == np.uint8 else bits_that_hold([grey], least=9)
    return NativeFilm(grey, bits, 0, 2**bits - 1)


def in_eight_bits(film: NativeFilm) -> UInt8[np.ndarray, "h w"]:
    """Return a film in eight bits, as it is shown at first."""
    if film.grey.dtype == np.uint8:
        return film.grey
    share = (film.grey.astype(np.float32) - film.low) / max(film.high - film.low, 1)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def enhanced(film: NativeFilm, *, path: Path | None, preparation: Preparation) -> NativeFilm:
    """Return a film with the CLAHE of a preparation, at its native size, in eight bits.

    A film with a file is brought to eight bits as it is read for a network.
    """
    bits = preparation.bits if preparation.bits > 8 else 0
    grey = in_eight_bits(film) if path is None else read_grey(path, bits=bits)
    tiles = (preparation.clahe_tiles, preparation.clahe_tiles)
    return NativeFilm(cv2.createCLAHE(preparation.clahe_clip, tiles).apply(grey), 8, 0, 255)


def thumbnail(grey: UInt8[np.ndarray, "h w"]) -> bytes:
    """Return a PNG of a film whose longer side has THUMBNAIL pixels."""
    share = THUMBNAIL / max(grey.shape)
    side = (max(1, round(grey.shape[1] * share)), max(1, round(grey.shape[0] * share)))
    return cv2.imencode(".png", cv2.resize(grey, side, interpolation=cv2.INTER_AREA))[1].tobytes()
