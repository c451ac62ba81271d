"""The normal chest of a phantom: where its parts lie, in cm.

Letters: `p` points, `n` curves. The frame of the body is that of
`lucency.data.projection`: x from the midline to the patient's left, y down from the lungs' apices.
Sizes follow an adult of ordinary build (half width of the ribcage 13.5 cm, lungs 23 cm high).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lucency.data.projection import bend, smooth

HALF, HEIGHT = 13.5, 23.0  # cm, of the lung below
RIGHT, LEFT = -1, 1  # sides of the patient; the right is on the left of the film
OUTER = np.array(  # the lung's outer border from apex to costophrenic angle, cm
    [(5.3, 0), (8.0, 1.0), (10.1, 3.3), (11.8, 7), (12.8, 11.5), (13.4, 16), (13.5, 20.5)]
)
INNER = np.array([(1.7, 19), (1.5, 12), (1.7, 6), (2.3, 2.4), (3.5, 0.5)])
VESSELS = ((0.5, 3.4), (0.36, 3.2), (0.25, 2.8), (0.16, 2.3), (0.1, 1.8))  # calibre, length, cm


@dataclass(frozen=True, kw_only=True)
class Chest:
    """The measures of one chest on one film, lengths in cm; findings replace some of them."""

    half: float = HALF  # half the inner width of the ribcage
    right_dome: float = 23.0  # y of the diaphragm's domes
    left_dome: float = 24.3
    arch: float = 3.6  # height of the dome above the costophrenic angle
    heart: float = 0.44  # cardiothoracic ratio
    shift: float = 0.0  # of the mediastinum, to the patient's left
    tilt: float = 0.0  # of the ribs, cm at the chest wall
    depth: float = 20.0  # front to back
    fat: float = 2.2  # chest wall outside the ribs
    breast: float = 0.0  # thickness
    aeration: float = 1.0  # air in the lungs, relative
    calibre: float = 1.0  # of the vessels, relative
    bone: float = 1.0  # mineral, relative
    scapula: float = 0.0  # how far over the lungs, 0 (PA) .. 1 (AP)
    knob: float = 1.0  # size of the aortic knob
    bubble: float = 1.0  # size of the gas in the stomach
    tree: int = 0  # seed of the vessels


def dome(chest: Chest, side: int) -> float:
    """The y of the diaphragm's dome, cm."""
    return chest.right_dome if side == RIGHT else chest.left_dome


def wall(chest: Chest, y: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Distance from the midline to the inner chest wall at height `y`, cm."""
    return np.asarray(np.interp(y, OUTER[:, 1], OUTER[:, 0]) * (chest.half / HALF))


def wall_at(chest: Chest, y: float) -> float:
    """Distance from the midline to the inner chest wall at one height `y`, cm."""
    return float(wall(chest, np.array(y)))


def angle(chest: Chest, side: int) -> Float[np.ndarray, "2"]:
    """The costophrenic angle, cm."""
    return np.array([side * chest.half * 0.965, dome(chest, side) + chest.arch])


def hilum(chest: Chest, side: int) -> Float[np.ndarray, "2"]:
    """The hilum of the lung, cm; the left is higher."""
    x = side * 0.27 * chest.half + chest.shift
    return np.array([x, (0.43 if side == RIGHT else 0.39) * dome(chest, side)])


def lung_outline(chest: Chest, side: int) -> Float[np.ndarray, "p 2"]:
    """The lung as far as it can be seen above the diaphragm, with what lies behind the heart."""
    bottom, arch = dome(chest, side), chest.arch
    stretch = np.array([chest.half / HALF, bottom / HEIGHT])
    outer, inner = OUTER * stretch, INNER * stretch
    corner = np.abs(angle(chest, side))
    base = [
        tuple(corner),
        tuple(corner),
    ]
    base += [
        (u * chest.half, bottom + v * arch)
        for u, v in ((0.87, 0.5), (0.68, 0.08), (0.46, 0.0), (0.27, 0.2), (0.13, 0.45))
    ]
    return smooth(np.concatenate([outer, np.array(base), inner])) * [side, 1]


def heart_outline(chest: Chest) -> Float[np.ndarray, "p 2"]:
    """The heart's silhouette; its width is the cardiothoracic ratio times that of the ribcage."""
    width = chest.heart * 2 * chest.half
    right, left = -0.35 * width, 0.65 * width
    top, bottom = 0.39 * chest.left_dome, chest.left_dome + 0.25 * chest.arch
    tall = bottom - top
    shape = [
        (0.6 * right, 0.0),
        (0.92 * right, 0.3),
        (right, 0.55),
        (0.93 * right, 0.8),
        (0.7 * right, 1.0),
        (0.0, 1.08),
        (0.7 * left, 1.03),
        (0.95 * left, 0.93),
        (left, 0.79),
        (0.87 * left, 0.57),
        (0.64 * left, 0.31),
        (0.45 * left, 0.08),
    ]
    return smooth(np.array([(x + chest.shift, top + v * tall) for x, v in shape]))


def mediastinum_outline(chest: Chest) -> Float[np.ndarray, "p 2"]:
    """The mediastinum from neck to diaphragm with aortic knob and pulmonary trunk."""
    low, knob = chest.left_dome + 0.8 * chest.arch, chest.knob
    shape = [(-2.6, low), (-2.7, 14), (-3.1, 10), (-2.9, 6), (-2.7, 2), (-2.6, -4), (2.3, -4)]
    shape += [(2.5, 2.4), (2.9 + 0.5 * knob, 3.9), (3.1 + 0.9 * knob, 5.2), (3.0 + 0.6 * knob, 6.6)]
    shape += [(3.0, 7.6), (3.9, 9.2), (3.8, 11), (2.9, 15), (2.8, low)]
    return smooth(np.add(shape, [chest.shift, 0]))


def vessel_tree(chest: Chest, side: int) -> list[Float[np.ndarray, "n p 2"]]:
    """The vessels of a lung by generation, fanning out from the hilum, doubling each time."""
    rng = np.random.default_rng([chest.tree, side + 1])
    heading = np.linspace(-1.35, 1.4, 9) + rng.normal(0, 0.1, 9)
    start = np.repeat(hilum(chest, side)[None], len(heading), axis=0)
    start[:, 1] += np.linspace(-1.0, 1.5, len(heading))
    scale = np.array([side * chest.half / HALF, dome(chest, side) / HEIGHT])
    tree = []
    for _, length in VESSELS:
        turned = heading + rng.normal(0, 0.22, len(heading))
        reach = length * rng.uniform(0.75, 1.2, len(heading))
        middle = start + _arrow(heading, 0.5 * reach) * scale
        end = middle + _arrow(turned, 0.5 * reach) * scale
        tree.append(bend(start, middle, end, steps=4))
        spread = rng.uniform(0.22, 0.62, len(heading))
        heading = np.concatenate([turned - spread, turned + spread])
        start = np.concatenate([end, end])
    return tree


def _arrow(heading: np.ndarray, length: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(heading), np.sin(heading)], axis=-1) * length[:, None]


def long_bones(chest: Chest) -> list[tuple[Float[np.ndarray, "n p 2"], float, float]]:
    """Long bones as (curves, width in cm, density): posterior and anterior ribs, clavicles."""
    count = np.arange(1, 12)
    stretch = chest.right_dome / HEIGHT
    root = (-3.0 + 2.3 * count) * stretch
    low = root + 2.3 + 0.3 * count + chest.tilt
    x = wall(chest, low) + 0.15
    front = low + 2.6 + 0.25 * count
    tip = np.interp(count, [1, 3, 10], [3.6, 4.6, 9.0]) * chest.half / HALF
    back, forward = [], []
    for side in (RIGHT, LEFT):
        start = np.stack([2.0 + 0 * x, root], axis=-1) * [side, 1]
        turn = np.stack([0.8 * x, root - 0.9 + 0.06 * count], axis=-1) * [side, 1]
        end = np.stack([x, low], axis=-1) * [side, 1]
        back.append(bend(start, turn, end))
        dip = np.stack([0.96 * x, low + 0.75 * (front - low)], axis=-1) * [side, 1]
        forward.append(bend(end, dip, np.stack([tip, front], axis=-1) * [side, 1])[:8])
    collar = np.array([(1.6, 2.6), (5, 1.6), (9.5, 0.2), (13.5, -0.8), (17, -0.9)])
    collars = np.stack([smooth(collar * [s, 1], closed=False) for s in (RIGHT, LEFT)])
    return [
        (np.concatenate(back), 1.05, 1.5),
        (np.concatenate(forward), 1.2, 0.9),
        (collars, 1.2, 2.4),
    ]
