"""Films at the size and depth of their files, as the viewer shows them.

What decodes here is called in a decoder process (`lucency.deploy.decoding`). Letters in shapes: h
and w pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt, UInt8

from lucency.core.manifest import Preparation
from lucency.data.clahe import equalise
from lucency.data.dicom import decode_dicom_deep, is_dicom
from lucency.data.images import bits_that_hold, decode, decode_film

THUMBNAIL = 96  # pixels of the longer side


class NativeFilm(NamedTuple):
    """A film's stored grey, its depth, and the values that are shown black and white at first."""

    grey: UInt[np.ndarray, "h w"]
    bits: int
    low: float
    high: float


def decode_native(content: bytes) -> NativeFilm:
    """Return the film that a file's content holds: PNG, JPEG or DICOM.

    A DICOM film is first shown in its own window, others in their whole depth. Raises ValueError
    with the reason for what is no whole film.
    """
    if is_dicom(content):
        deep = decode_dicom_deep(content)
        return NativeFilm(deep.pixels, deep.bits, deep.low, deep.high)
    grey = decode(content)
    bits = 8 if grey.dtype == np.uint8 else bits_that_hold([grey], least=9)
    return NativeFilm(grey, bits, 0, 2**bits - 1)


def enhance_native(content: bytes, *, preparation: Preparation) -> NativeFilm:
    """Return a film with the CLAHE of a preparation, at its native size, in eight bits.

    It is brought to eight bits as it is read for a network. Raises ValueError as `decode_native`.
    """
    bits = preparation.bits if preparation.bits > 8 else 0
    film = decode_film(content, bits=bits)
    about = {"clip": preparation.clahe_clip, "tiles": preparation.clahe_tiles}
    return NativeFilm(equalise(film.grey, padded=film.padded, **about), 8, 0, 255)


def thumbnail(grey: UInt8[np.ndarray, "h w"]) -> bytes:
    """Return a PNG of a film whose longer side has THUMBNAIL pixels."""
    share = THUMBNAIL / max(grey.shape)
    side = (max(1, round(grey.shape[1] * share)), max(1, round(grey.shape[0] * share)))
    return cv2.imencode(".png", cv2.resize(grey, side, interpolation=cv2.INTER_AREA))[1].tobytes()
