"""The normal chest of a phantom as maps of thickness: what the rays cross, in cm.

Letters: `h w` pixels of the film, `n` curves of `p` points. Soft parts are drawn on a grid of half
the film's size; lungs, vessels and bones on the film's own.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from lucency.data.anatomy import (
    LEFT,
    RIGHT,
    VESSELS,
    Chest,
    dome,
    heart_outline,
    hilum,
    long_bones,
    lung_outline,
    mediastinum_outline,
    vessel_tree,
)
from lucency.data.projection import FRACTION, Frame, disc, enlarge, fill, smooth, stroke, trace

SIDES = (RIGHT, LEFT)
COARSEST = 64  # pixels of the grid of soft parts, at least
LUNG = 12.5  # air along the longest ray through a lung, cm


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What the rays cross, in cm: the body if the lungs held no air, air, vessels, bone."""

    body: Float32[np.ndarray, "h w"]
    air: Float32[np.ndarray, "h w"]
    vessel: Float32[np.ndarray, "h w"]
    bone: Float32[np.ndarray, "h w"]


def draw_chest(chest: Chest, frame: Frame) -> Layers:
    """The normal chest as thickness maps."""
    coarse = frame.at(max(frame.size // 2, COARSEST))
    lungs = [lung_outline(chest, side) for side in SIDES]
    central = np.maximum(
        0.78 * fill(coarse, heart_outline(chest), soft=0.12),
        0.95 * fill(coarse, mediastinum_outline(chest), soft=0.12),
    )
    profile = LUNG * chest.aeration * (0.3 + 0.7 * fill(coarse, *lungs, soft=1.6)) * (1 - central)
    recess = _recess(chest, coarse) * (1 - central)
    soft = _body(chest, coarse) - _gas(chest, coarse)
    lung = fill(frame, *lungs)
    return Layers(
        body=enlarge(soft, frame.size),
        air=np.maximum(lung * enlarge(profile, frame.size), enlarge(recess, frame.size)),
        vessel=lung * _vessels(chest, frame) * enlarge(np.minimum(profile * 0.25, 1.0), frame.size),
        bone=_bones(chest, frame, coarse),
    )


def _vessels(chest: Chest, frame: Frame) -> np.ndarray:
    """Vessels thinning from the hila outwards, with the soft shadows of the hila themselves."""
    mask = np.zeros((frame.size, frame.size), np.uint8)
    widest = VESSELS[0][0]
    trees = [vessel_tree(chest, side) for side in SIDES]
    for level in reversed(range(len(VESSELS))):
        calibre = VESSELS[level][0]
        for tree in trees:
            width = calibre * chest.calibre
            trace(mask, frame, tree[level], width=width, value=calibre / widest)
    blobs = [disc(hilum(chest, side), 1.1, 2.0) for side in SIDES]
    hila = fill(frame, *blobs, soft=0.7)
    return cv2.addWeighted(
        mask, 3.4 * widest * chest.calibre / 255, hila, 2.2 * chest.calibre, 0, dtype=cv2.CV_32F
    )


def _recess(chest: Chest, frame: Frame) -> np.ndarray:
    """Lung in the posterior recess behind the domes: a little air, fading downwards."""
    slabs = []
    for side in SIDES:
        y = dome(chest, side)
        x = np.array([0.2, 0.9, 0.9, 0.2]) * chest.half * side
        slabs.append(np.stack([x, [y - 1, y - 1, y + 3.5, y + 1.5]], axis=-1))
    return 1.6 * fill(frame, *slabs, soft=0.9)


def _gas(chest: Chest, frame: Frame) -> np.ndarray:
    """Gas outside the lungs: the trachea with its two main bronchi, and the stomach's bubble."""
    carina = 7.0
    pipe = np.array([(0.2, -9), (0.1, 0), (chest.shift * 0.7 + 0.1, carina)])
    airway = stroke(frame, pipe, width=1.7, soft=0.25)
    for side in SIDES:
        bronchus = np.array([pipe[-1], pipe[-1] + [side * 2.6, 2.3 if side == RIGHT else 2.0]])
        airway = np.maximum(airway, stroke(frame, bronchus, width=1.1, soft=0.25))
    y = chest.left_dome + 1.1 + 1.3 * chest.bubble
    bubble = disc(np.array([0.42 * chest.half, y]), 2.6 * chest.bubble, 1.3 * chest.bubble)
    stomach = fill(frame, bubble, soft=0.3)
    return 3.2 * airway + 5.0 * min(chest.bubble, 1.0) * stomach


def _body(chest: Chest, frame: Frame) -> np.ndarray:
    """Neck, shoulders, arms and trunk as soft tissue, thinner towards their edges."""
    side, skin = chest.half + 1.2, chest.half + chest.fat
    right = [(5.6, -12), (5.9, -5.5), (9, -3.6), (16, -2.2), (20, 0.5), (30, 5), (30, 13)]
    right += [(21.5, 9.0), (skin + 1.2, 6.5), (skin, 12), (skin, 20), (skin + 0.6, 45)]
    half = np.array(right)
    outline = smooth(np.vstack([half, half[::-1] * [-1, 1]]))
    mask = fill(frame, outline, soft=0.05)
    round_edge = np.sqrt(np.maximum(fill(frame, outline, soft=2.2) * 1.6 - 0.6, 0.02)) * mask
    trunk = np.array([(-side, 5), (side, 5), (side, 60), (-side, 60)])
    body = chest.depth * round_edge * (0.66 + 0.34 * fill(frame, trunk, soft=3.0))
    belly = np.array([(-40, 28), (40, 28), (40, 70), (-40, 70)])
    body += 3.0 * fill(frame, belly, soft=2.5) * mask
    if chest.breast > 0:
        y = 0.86 * chest.right_dome
        pair = [disc(np.array([s * 0.6 * chest.half, y]), 0.46 * chest.half, 5.2) for s in SIDES]
        body += chest.breast * fill(frame, *pair, soft=0.6)
    return body


def _bones(chest: Chest, frame: Frame, coarse: Frame) -> np.ndarray:
    """Ribs, clavicles, scapulae and spine as cm of water of the same attenuation."""
    column = np.array([(-1.9, -12), (1.9, -12), (2.1, 50), (-2.1, 50)])
    level = np.arange(-9.0, 40.0, 2.35)
    disc_space = np.stack([np.stack([level * 0 + x, level], axis=-1) for x in (-1.8, 1.8)], axis=1)
    bone = 2.0 * fill(coarse, column, soft=0.35)
    bone -= 0.8 * stroke(coarse, disc_space, width=0.5, soft=0.15)
    bone = enlarge(bone + _shoulders(chest, coarse), frame.size) * np.float32(chest.bone)
    for curve, width, density in long_bones(chest):
        bars = _bars_drawn(frame, curve, width)
        bone = cv2.addWeighted(bone, 1, bars, density * chest.bone / 200, 0, dtype=cv2.CV_32F)
    return bone


def _bars_drawn(frame: Frame, curve: Float[np.ndarray, "n p 2"], width: float) -> np.ndarray:
    """Bones along curves: a fainter marrow between bright cortical edges."""
    along = np.gradient(curve, axis=1)
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    normal *= 0.5 * width / np.linalg.norm(normal, axis=-1, keepdims=True)
    mask = np.zeros((frame.size, frame.size), np.uint8)
    outlines = np.concatenate([curve + normal, (curve - normal)[:, ::-1]], axis=1)
    for outline in frame.ink(outlines):
        cv2.fillPoly(mask, [outline], 150, cv2.LINE_AA, FRACTION)
    for edge in (curve + normal, curve - normal):
        trace(mask, frame, edge, width=0.16)
    return mask


def _shoulders(chest: Chest, frame: Frame) -> np.ndarray:
    """Humeral heads and the blades of the scapulae, swung out of the lungs on a PA film."""
    edge = 0.68 * chest.half + (1 - chest.scapula) * 4.0
    blade = [(0, 3.0), (6.5, 0.5), (6.2, 4), (2.2, 13.5), (0.9, 14)]
    pair = [smooth(np.add(blade, [edge, 0])) * [side, 1] for side in SIDES]
    heads = [disc(np.array([side * (chest.half + 5.8), 2.4]), 2.4) for side in SIDES]
    rim = stroke(frame, np.stack(pair), width=0.3, closed=True)
    return 0.9 * fill(frame, *pair) + 1.1 * rim + 2.2 * fill(frame, *heads, soft=0.3)
