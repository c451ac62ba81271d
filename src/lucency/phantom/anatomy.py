"""The normal chest of a phantom: outlines of its parts, and their thickness along the rays, in cm.

Letters: `h w` pixels of the film, `n` curves of `p` points. The frame of the body is that of
`lucency.phantom.imaging`: x from the midline to the patient's left, y down from the lungs' apices.
Sizes follow an adult of ordinary build (half width of the ribcage 13.5 cm, lungs 23 cm high).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float

from lucency.phantom.imaging import FRACTION, Frame, Map, Outline, bend, disc, enlarge, smooth

HALF, HEIGHT = 13.5, 23.0  # cm, of the lung below
RIGHT, LEFT = SIDES = -1, 1  # of the patient; the right is on the left of the film
COARSEST = 64  # pixels of the grid of soft parts, at least
LUNG = 12.5  # air along the longest ray through a lung, cm
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

    def dome(self, side: int) -> float:
        """The y of the diaphragm's dome, cm."""
        return self.right_dome if side == RIGHT else self.left_dome

    def wall(self, y: float | Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Distance from the midline to the inner chest wall at height `y`, cm."""
        return np.asarray(np.interp(y, OUTER[:, 1], OUTER[:, 0]) * (self.half / HALF))

    def hilum(self, side: int) -> Float[np.ndarray, 2]:
        """The hilum of the lung, cm; the left is higher."""
        x = side * 0.27 * self.half + self.shift
        return np.array([x, (0.43 if side == RIGHT else 0.39) * self.dome(side)])

    def lung_outline(self, side: int) -> Outline:
        """The lung that can be seen above the diaphragm, with what lies behind the heart."""
        bottom, arch = self.dome(side), self.arch
        stretch = np.array([self.half / HALF, bottom / HEIGHT])
        outer, inner = OUTER * stretch, INNER * stretch
        corner = (self.half * 0.965, bottom + arch)  # the costophrenic angle
        base = [corner, corner]  # doubled, so that the curve has a corner there
        base += [
            (u * self.half, bottom + v * arch)
            for u, v in ((0.87, 0.5), (0.68, 0.08), (0.46, 0.0), (0.27, 0.2), (0.13, 0.45))
        ]
        return smooth(np.concatenate([outer, np.array(base), inner])) * [side, 1]

    def heart_outline(self) -> Outline:
        """The heart's silhouette, as wide as the cardiothoracic ratio times the ribcage."""
        width = self.heart * 2 * self.half
        right, left = -0.35 * width, 0.65 * width
        top, bottom = 0.39 * self.left_dome, self.left_dome + 0.25 * self.arch
        tall = bottom - top
        shape = [
            (0.6 * right, 0.0), (0.92 * right, 0.3), (right, 0.55), (0.93 * right, 0.8),
            (0.7 * right, 1.0), (0.0, 1.08), (0.7 * left, 1.03), (0.95 * left, 0.93),
            (left, 0.79), (0.87 * left, 0.57), (0.64 * left, 0.31), (0.45 * left, 0.08),
        ]  # fmt: skip
        return smooth(np.array([(x + self.shift, top + v * tall) for x, v in shape]))

    def mediastinum_outline(self) -> Outline:
        """The mediastinum from neck to diaphragm with aortic knob and pulmonary trunk."""
        low, knob = self.left_dome + 0.8 * self.arch, self.knob
        shape = [(-2.6, low), (-2.7, 14), (-3.1, 10), (-2.9, 6), (-2.7, 2), (-2.6, -4), (2.3, -4)]
        shape += [(2.5, 2.4), (2.9 + 0.5 * knob, 3.9), (3.1 + 0.9 * knob, 5.2)]
        shape += [(3.0 + 0.6 * knob, 6.6), (3.0, 7.6), (3.9, 9.2), (3.8, 11), (2.9, 15), (2.8, low)]
        return smooth(np.add(shape, [self.shift, 0]))

    def vessel_tree(self, side: int) -> list[Float[np.ndarray, "n p 2"]]:
        """The vessels of a lung by generation, fanning out from the hilum, doubling each time."""
        rng = np.random.default_rng([self.tree, side + 1])
        heading = np.linspace(-1.35, 1.4, 9) + rng.normal(0, 0.1, 9)
        start = np.repeat(self.hilum(side)[None], len(heading), axis=0)
        start[:, 1] += np.linspace(-1.0, 1.5, len(heading))
        scale = np.array([side * self.half / HALF, self.dome(side) / HEIGHT])
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

    def long_bones(self) -> list[tuple[Float[np.ndarray, "n p 2"], float, float]]:
        """Long bones as (curves, width in cm, density): posterior and anterior ribs, clavicles."""
        count = np.arange(1, 12)
        stretch = self.right_dome / HEIGHT
        root = (-3.0 + 2.3 * count) * stretch
        low = root + 2.3 + 0.3 * count + self.tilt
        x = self.wall(low) + 0.15
        front = low + 2.6 + 0.25 * count
        tip = np.interp(count, [1, 3, 10], [3.6, 4.6, 9.0]) * self.half / HALF
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

    def lift(self, side: int, height: float) -> Chest:
        """The chest with one dome raised by `height` cm."""
        if side == RIGHT:
            return replace(self, right_dome=self.right_dome - height)
        return replace(self, left_dome=self.left_dome - height)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What the rays cross, in cm: the body if the lungs held no air, air, vessels, bone."""

    body: Map
    air: Map
    vessel: Map
    bone: Map


def draw_chest(chest: Chest, frame: Frame) -> Layers:
    """The normal chest as thickness maps; soft parts are drawn on a grid of half the size."""
    coarse = frame.at(max(frame.size // 2, COARSEST))
    lungs = [chest.lung_outline(side) for side in SIDES]
    central = np.maximum(
        0.78 * coarse.fill(chest.heart_outline(), soft=0.12),
        0.95 * coarse.fill(chest.mediastinum_outline(), soft=0.12),
    )
    profile = LUNG * chest.aeration * (0.3 + 0.7 * coarse.fill(*lungs, soft=1.6)) * (1 - central)
    recess = _recess(chest, coarse) * (1 - central)
    soft = _body(chest, coarse) - _gas(chest, coarse)
    lung = frame.fill(*lungs)
    return Layers(
        body=enlarge(soft, frame.size),
        air=np.maximum(lung * enlarge(profile, frame.size), enlarge(recess, frame.size)),
        vessel=lung * _vessels(chest, frame) * enlarge(np.minimum(profile * 0.25, 1.0), frame.size),
        bone=_bones(chest, frame, coarse),
    )


def _arrow(heading: np.ndarray, length: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(heading), np.sin(heading)], axis=-1) * length[:, None]


def _vessels(chest: Chest, frame: Frame) -> np.ndarray:
    """Vessels thinning from the hila outwards, with the soft shadows of the hila themselves."""
    mask = np.zeros((frame.size, frame.size), np.uint8)
    widest = VESSELS[0][0]
    trees = [chest.vessel_tree(side) for side in SIDES]
    for level in reversed(range(len(VESSELS))):
        calibre = VESSELS[level][0]
        for tree in trees:
            width = calibre * chest.calibre
            frame.trace(mask, tree[level], width=width, value=calibre / widest)
    blobs = [disc(chest.hilum(side), 1.1, 2.0) for side in SIDES]
    hila = frame.fill(*blobs, soft=0.7)
    return cv2.addWeighted(
        mask, 3.4 * widest * chest.calibre / 255, hila, 2.2 * chest.calibre, 0, dtype=cv2.CV_32F
    )


def _recess(chest: Chest, frame: Frame) -> np.ndarray:
    """Lung in the posterior recess behind the domes: a little air, fading downwards."""
    slabs = []
    for side in SIDES:
        y = chest.dome(side)
        x = np.array([0.2, 0.9, 0.9, 0.2]) * chest.half * side
        slabs.append(np.stack([x, [y - 1, y - 1, y + 3.5, y + 1.5]], axis=-1))
    return 1.6 * frame.fill(*slabs, soft=0.9)


def _gas(chest: Chest, frame: Frame) -> np.ndarray:
    """Gas outside the lungs: the trachea with its two main bronchi, and the stomach's bubble."""
    carina = 7.0
    pipe = np.array([(0.2, -9), (0.1, 0), (chest.shift * 0.7 + 0.1, carina)])
    airway = frame.stroke(pipe, width=1.7, soft=0.25)
    for side in SIDES:
        bronchus = np.array([pipe[-1], pipe[-1] + [side * 2.6, 2.3 if side == RIGHT else 2.0]])
        airway = np.maximum(airway, frame.stroke(bronchus, width=1.1, soft=0.25))
    y = chest.left_dome + 1.1 + 1.3 * chest.bubble
    bubble = disc(np.array([0.42 * chest.half, y]), 2.6 * chest.bubble, 1.3 * chest.bubble)
    stomach = frame.fill(bubble, soft=0.3)
    return 3.2 * airway + 5.0 * min(chest.bubble, 1.0) * stomach


def _body(chest: Chest, frame: Frame) -> np.ndarray:
    """Neck, shoulders, arms and trunk as soft tissue, thinner towards their edges."""
    side, skin = chest.half + 1.2, chest.half + chest.fat
    right = [(5.6, -12), (5.9, -5.5), (9, -3.6), (16, -2.2), (20, 0.5), (30, 5), (30, 13)]
    right += [(21.5, 9.0), (skin + 1.2, 6.5), (skin, 12), (skin, 20), (skin + 0.6, 45)]
    half = np.array(right)
    outline = smooth(np.vstack([half, half[::-1] * [-1, 1]]))
    mask = frame.fill(outline, soft=0.05)
    round_edge = np.sqrt(np.maximum(frame.fill(outline, soft=2.2) * 1.6 - 0.6, 0.02)) * mask
    trunk = np.array([(-side, 5), (side, 5), (side, 60), (-side, 60)])
    body = chest.depth * round_edge * (0.66 + 0.34 * frame.fill(trunk, soft=3.0))
    belly = np.array([(-40, 28), (40, 28), (40, 70), (-40, 70)])
    body += 3.0 * frame.fill(belly, soft=2.5) * mask
    if chest.breast > 0:
        y = 0.86 * chest.right_dome
        pair = [disc(np.array([s * 0.6 * chest.half, y]), 0.46 * chest.half, 5.2) for s in SIDES]
        body += chest.breast * frame.fill(*pair, soft=0.6)
    return body


def _bones(chest: Chest, frame: Frame, coarse: Frame) -> np.ndarray:
    """Ribs, clavicles, scapulae and spine as cm of water of the same attenuation."""
    column = np.array([(-1.9, -12), (1.9, -12), (2.1, 50), (-2.1, 50)])
    level = np.arange(-9.0, 40.0, 2.35)
    disc_space = np.stack([np.stack([level * 0 + x, level], axis=-1) for x in (-1.8, 1.8)], axis=1)
    bone = 2.0 * coarse.fill(column, soft=0.35)
    bone -= 0.8 * coarse.stroke(disc_space, width=0.5, soft=0.15)
    bone = enlarge(bone + _shoulders(chest, coarse), frame.size) * np.float32(chest.bone)
    for curve, width, density in chest.long_bones():
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
        frame.trace(mask, edge, width=0.16)
    return mask


def _shoulders(chest: Chest, frame: Frame) -> np.ndarray:
    """Humeral heads and the blades of the scapulae, swung out of the lungs on a PA film."""
    edge = 0.68 * chest.half + (1 - chest.scapula) * 4.0
    blade = [(0, 3.0), (6.5, 0.5), (6.2, 4), (2.2, 13.5), (0.9, 14)]
    pair = [smooth(np.add(blade, [edge, 0])) * [side, 1] for side in SIDES]
    heads = [disc(np.array([side * (chest.half + 5.8), 2.4]), 2.4) for side in SIDES]
    rim = frame.stroke(np.stack(pair), width=0.3, closed=True)
    return 0.9 * frame.fill(*pair) + 1.1 * rim + 2.2 * frame.fill(*heads, soft=0.3)
