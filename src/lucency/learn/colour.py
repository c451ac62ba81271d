"""Colour tables: each of 256 greys becomes a colour, so that a film fills three channels.

Letters in shapes: none.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from lucency.values import nearest

GREYS = np.arange(256, dtype=np.uint8)
GREEN_FIRE_BLUE = ((0, 0, 0), (0, 85, 170), (0, 255, 0), (255, 255, 0), (255, 255, 255))


def colour_table(name: str) -> UInt8[np.ndarray, "256 3"]:
    """Return red, green and blue of every grey: those of OpenCV's `applyColorMap`, or ImageJ's.

    "none" is grey itself. ImageJ's Green Fire Blue is drawn here from its five colours, which lie
    evenly apart and are joined by straight lines. Raises ValueError for an unknown name.
    """
    if name == "none":
        return np.repeat(GREYS[:, None], 3, axis=1)
    if name == "green-fire-blue":
        at, colours = np.linspace(0, 255, len(GREEN_FIRE_BLUE)), np.array(GREEN_FIRE_BLUE).T
        return np.stack([np.interp(GREYS, at, line).round() for line in colours], 1).astype(
            np.uint8
        )
    if name not in OPENCV:
        known = ("none", "green-fire-blue", *OPENCV)
        raise ValueError(
            f"colour {name!r} is unknown: expected {', '.join(known)}{nearest(name, known)}"
        )
    blue_first = cv2.applyColorMap(GREYS[:, None], OPENCV[name])[:, 0]
    return np.ascontiguousarray(blue_first[:, ::-1])


OPENCV = {
    "autumn": cv2.COLORMAP_AUTUMN,
    "bone": cv2.COLORMAP_BONE,
    "jet": cv2.COLORMAP_JET,
    "winter": cv2.COLORMAP_WINTER,
    "rainbow": cv2.COLORMAP_RAINBOW,
    "ocean": cv2.COLORMAP_OCEAN,
    "summer": cv2.COLORMAP_SUMMER,
    "spring": cv2.COLORMAP_SPRING,
    "cool": cv2.COLORMAP_COOL,
    "hsv": cv2.COLORMAP_HSV,
    "pink": cv2.COLORMAP_PINK,
    "hot": cv2.COLORMAP_HOT,
    "parula": cv2.COLORMAP_PARULA,
    "magma": cv2.COLORMAP_MAGMA,
    "inferno": cv2.COLORMAP_INFERNO,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "twilight": cv2.COLORMAP_TWILIGHT,
    "twilight-shifted": cv2.COLORMAP_TWILIGHT_SHIFTED,
    "turbo": cv2.COLORMAP_TURBO,
    "deepgreen": cv2.COLORMAP_DEEPGREEN,
}
