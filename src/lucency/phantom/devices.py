"""What lies on or in a phantom besides the body: side marker, leads, drain, AP marker.

Letters: `h w` pixels of the film. A drain and an AP marker are the phantom's shortcuts: signs of
the treatment and of the room, not of the disease.
"""

import cv2
import numpy as np
from jaxtyping import Float32

from lucency.phantom.anatomy import Chest, dome, wall_at
from lucency.phantom.cohort import Film
from lucency.phantom.imaging import Frame, disc, fill, smooth, stroke


def draw_devices(
    film: Film, chest: Chest, frame: Frame, rng: np.random.Generator, *, side: int
) -> Float32[np.ndarray, "h w"]:
    """Devices as cm of water: always a side marker; leads on some AP films; drain and AP marker."""
    added = _letters(frame, "L", 0.93, float(rng.uniform(0.05, 0.12)))
    leads = rng.random() < 0.5
    wires = rng.normal(0, 1.2, (3, 4, 2))
    if film.view == "AP" and leads:
        added += _leads(chest, frame, wires)
    if film.drain:
        added += _drain(chest, frame, side)
    if film.marker:
        added += _letters(frame, "AP", 0.08, 0.10)
    return added


def _letters(frame: Frame, text: str, across: float, down: float) -> np.ndarray:
    """Lead letters at shares of the film's width and height."""
    mask = np.zeros((frame.size, frame.size), np.uint8)
    origin = (int(across * frame.size), int(down * frame.size))
    scale, pen = frame.size / 512, max(1, frame.size // 170)
    cv2.putText(mask, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, pen, cv2.LINE_AA)
    return mask.astype(np.float32) * (14.0 / 255)


def _leads(chest: Chest, frame: Frame, wires: np.ndarray) -> np.ndarray:
    """Three electrodes on the chest and their wires."""
    added = np.zeros((frame.size, frame.size), np.float32)
    for (x, y), wander in zip(((-0.75, 3.0), (0.8, 3.5), (0.85, 21.0)), wires, strict=True):
        spot = np.array([x * chest.half, y]) + wander[0]
        bends = [spot, spot + [2, 4] + wander[1], [12, 26] + wander[2], [18, 36]]
        path = smooth(np.vstack(bends), closed=False)
        added += 1.2 * fill(frame, disc(spot, 0.55)) + 1.2 * stroke(frame, path, width=0.14)
    return added


def _drain(chest: Chest, frame: Frame, side: int) -> np.ndarray:
    """A chest drain: a tube from the lateral wall up to the apex, its rim and stripe opaque."""
    low = 0.72 * dome(chest, side)
    wall = wall_at(chest, low)
    points = [(wall + 6.0, low + 4.5), (wall, low)]
    points += [(0.72 * chest.half, 0.5 * low), (0.55 * chest.half, 0.14 * low)]
    path = smooth(np.array(points) * [side, 1], steps=12, closed=False)
    tube = stroke(frame, path, width=0.8) - 0.75 * stroke(frame, path, width=0.45)
    return 2.6 * tube + 2.6 * stroke(frame, path, width=0.16)
