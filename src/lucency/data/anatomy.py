"""The normal chest of a phantom: where its parts lie, in cm, and how thick they are.

Letters: `h w` pixels of the film, `p` points, `n` curves. The frame of the body is that of
`lucency.data.projection`: x from the midline to the patient's left, y down from the lungs' apices.
Sizes follow an adult of ordinary build (half width of the ribcage 13.5 cm, lungs 23 cm high).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from lucency.data.projection import Frame, bend, disc, fill, smooth, soften, stroke, trace

HALF, HEIGHT = 13.5, 23.0  # cm, of the lung below
RIGHT, LEFT = -1, 1  # sides of the patient; the right is on the left of the film
OUTER = np.array(  # the lung's outer border from apex to costophrenic angle, cm
    [(5.2, 0), (7.4, 0.9), (9.4, 3.2), (11.2, 7), (12.5, 11.5), (13.2, 16), (13.5, 20.5)]
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


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What the rays cross, in cm: soft tissue if the lungs held no air, air, vessels, bone."""

    body: Float32[np.ndarray, "h w"]
    air: Float32[np.ndarray, "h w"]
    vessel: Float32[np.ndarray, "h w"]
    bone: Float32[np.ndarray, "h w"]


def draw_chest(chest: Chest, frame: Frame) -> Layers:
    """The normal chest as thickness maps."""
    lung = soften(frame, fill(frame, lung_outline(chest, RIGHT), lung_outline(chest, LEFT)), soft=0.06)
    rounded = soften(frame, lung, soft=1.6)
    air = 12.5 * chest.aeration * lung * (0.3 + 0.7 * rounded)
    central = cv2.max(
        0.78 * fill(frame, heart_outline(chest), soft=0.12),
        0.95 * fill(frame, mediastinum_outline(chest), soft=0.12),
    )
    air = cv2.max(air * (1 - central), _recess(chest, frame) * (1 - central))
    return Layers(
        body=_body(chest, frame) + 5.0 * central * (1 - 0.5 * lung),
        air=air + _gas(chest, frame),
        vessel=_vessels(chest, frame) * cv2.min(air * 0.25, 1.0) + 1.6 * _hila(chest, frame) * lung,
        bone=_bones(chest, frame) * chest.bone,
    )


def dome(chest: Chest, side: int) -> float:
    """The y of the diaphragm's dome, cm."""
    return chest.right_dome if side == RIGHT else chest.left_dome


def wall(chest: Chest, y: float | np.ndarray) -> np.ndarray:
    """Distance from the midline to the inner chest wall at height `y`, cm."""
    return np.interp(y, OUTER[:, 1], OUTER[:, 0]) * chest.half / HALF


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
    base = [corner, corner]
    base += [
        (u * chest.half, bottom + v * arch)
        for u, v in ((0.87, 0.5), (0.68, 0.08), (0.46, 0.0), (0.27, 0.2), (0.13, 0.45))
    ]
    return smooth(np.vstack([outer, base, inner])) * [side, 1]


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
    return smooth(np.array(shape) + [chest.shift, 0])


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


def _vessels(chest: Chest, frame: Frame) -> np.ndarray:
    mask = np.zeros((frame.size, frame.size), np.uint8)
    widest = VESSELS[0][0]
    trees = [vessel_tree(chest, side) for side in (RIGHT, LEFT)]
    for level in reversed(range(len(VESSELS))):
        calibre = VESSELS[level][0]
        for tree in trees:
            width = calibre * chest.calibre
            trace(mask, frame, tree[level], width=width, value=calibre / widest)
    return soften(frame, mask.astype(np.float32) * (1.1 * widest * chest.calibre / 255), soft=0.07)


def _hila(chest: Chest, frame: Frame) -> np.ndarray:
    blobs = [disc(*hilum(chest, s), 1.1, 2.0) * 1.0 for s in (RIGHT, LEFT)]
    return fill(frame, *blobs, soft=0.7) * chest.calibre


def _recess(chest: Chest, frame: Frame) -> np.ndarray:
    """Lung in the posterior recess behind the domes: a little air, fading downwards."""
    slabs = []
    for side in (RIGHT, LEFT):
        y = dome(chest, side)
        x = np.array([0.2, 0.9, 0.9, 0.2]) * chest.half * side
        slabs.append(np.stack([x, [y - 1, y - 1, y + 3.5, y + 1.5]], axis=-1))
    return 1.6 * fill(frame, *slabs, soft=0.9)


def _gas(chest: Chest, frame: Frame) -> np.ndarray:
    """Gas outside the lungs: the trachea with its two main bronchi, and the stomach's bubble."""
    small, carina = frame.at(max(frame.size // 2, 16)), 7.0
    pipe = np.array([(0.2, -9), (0.1, 0), (chest.shift * 0.7 + 0.1, carina)])
    airway = stroke(small, pipe, width=1.7, soft=0.25)
    for side in (RIGHT, LEFT):
        bronchus = np.array([pipe[-1], pipe[-1] + [side * 2.6, 2.3 if side == RIGHT else 2.0]])
        airway = cv2.max(airway, stroke(small, bronchus, width=1.1, soft=0.25))
    y = chest.left_dome + 1.1 + 1.3 * chest.bubble
    stomach = fill(small, disc(0.42 * chest.half, y, 2.6 * chest.bubble, 1.3 * chest.bubble), soft=0.3)
    gas = 3.2 * airway + 5.0 * min(chest.bubble, 1.0) * stomach
    return cv2.resize(gas, (frame.size, frame.size), interpolation=cv2.INTER_LINEAR)


def _body(chest: Chest, frame: Frame) -> np.ndarray:
    """Neck, shoulders, arms and trunk as soft tissue, thinner towards their edges."""
    side, skin = chest.half + 1.2, chest.half + chest.fat
    right = [(5.6, -12), (5.9, -5.5), (9, -3.6), (16, -2.2), (20, 0.5), (30, 5), (30, 13)]
    right += [(21.5, 9.0), (skin + 1.2, 6.5), (skin, 12), (skin, 20), (skin + 0.6, 45)]
    half = np.array(right)
    outline = smooth(np.vstack([half, half[::-1] * [-1, 1]]))
    mask = fill(frame, outline, soft=0.05)
    round_edge = cv2.sqrt(cv2.max(fill(frame, outline, soft=2.2) * 1.6 - 0.6, 0.02)) * mask
    trunk = np.array([(-side, 5), (side, 5), (side, 60), (-side, 60)])
    body = chest.depth * round_edge * (0.66 + 0.34 * fill(frame, trunk, soft=3.0))
    belly = np.array([(-40, 28), (40, 28), (40, 70), (-40, 70)])
    body += 3.0 * fill(frame, belly, soft=2.5) * mask
    if chest.breast > 0:
        y = 0.86 * chest.right_dome
        pair = [disc(s * 0.6 * chest.half, y, 0.46 * chest.half, 5.2) for s in (RIGHT, LEFT)]
        body += chest.breast * fill(frame, *pair, soft=0.6)
    return body


def _bones(chest: Chest, frame: Frame) -> np.ndarray:
    """Ribs, clavicles, scapulae and spine as cm of water of the same attenuation."""
    bone = np.zeros((frame.size, frame.size), np.float32)
    for curve, width, density in _bars(chest):
        bone += density * _bars_drawn(frame, curve, width)
    bone = soften(frame, bone, soft=0.06)
    column = np.array([(-1.9, -12), (1.9, -12), (2.1, 50), (-2.1, 50)])
    bone += 2.0 * fill(frame, column, soft=0.35)
    level = np.arange(-9.0, 40.0, 2.35)
    disc_space = np.stack([np.stack([level * 0 + x, level], axis=-1) for x in (-1.8, 1.8)], axis=1)
    bone -= 0.8 * stroke(frame, disc_space, width=0.5, soft=0.15)
    return bone + 0.9 * _shoulders(chest, frame)


def _bars(chest: Chest) -> list[tuple[np.ndarray, float, float]]:
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
        (np.concatenate(back), 1.05, 1.0),
        (np.concatenate(forward), 1.2, 0.6),
        (collars, 1.3, 1.6),
    ]


def _bars_drawn(frame: Frame, curve: Float[np.ndarray, "n p 2"], width: float) -> np.ndarray:
    """Bones along curves: a fainter marrow between bright cortical edges."""
    along = np.gradient(curve, axis=1)
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    normal *= 0.5 * width / np.linalg.norm(normal, axis=-1, keepdims=True)
    mask = np.zeros((frame.size, frame.size), np.uint8)
    for outline in np.concatenate([curve + normal, (curve - normal)[:, ::-1]], axis=1):
        cv2.fillPoly(mask, [frame.ink(outline)], 150, cv2.LINE_AA, 4)
    for edge in (curve + normal, curve - normal):
        trace(mask, frame, edge, width=0.16)
    return mask.astype(np.float32) / 200


def _shoulders(chest: Chest, frame: Frame) -> np.ndarray:
    """Humeral heads and the blades of the scapulae, swung out of the lungs on a PA film."""
    out = (1 - chest.scapula) * 4.0
    edge = 0.68 * chest.half + out
    blade = np.array([(edge, 3.0), (edge + 6.5, 0.5), (edge + 6.2, 4), (edge + 2.2, 13.5), (edge + 0.9, 14)])
    pair = [smooth(blade * [s, 1]) for s in (RIGHT, LEFT)]
    heads = [disc(s * (chest.half + 5.8), 2.4, 2.4) for s in (RIGHT, LEFT)]
    rim = stroke(frame, np.stack(pair), width=0.3, soft=0.1, closed=True)
    return 0.8 * fill(frame, *pair, soft=0.1) + 0.8 * rim + 2.0 * fill(frame, *heads, soft=0.3)
