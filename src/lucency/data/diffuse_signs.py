"""The signs that spread over the lungs, the pleura or the hiatus; and `SIGNS`, all fourteen.

Letters and units as in `lucency.data.signs`.
"""

from dataclasses import replace

import numpy as np

from lucency.data import signs
from lucency.data.anatomy import LEFT, RIGHT, Chest, dome, hilum, lung_outline, wall, wall_at
from lucency.data.projection import Frame, clouds, disc, fill, smooth, stroke
from lucency.data.signs import Lesion, Outline, Posture, Sign, Trace, inside, lift, trace_of, zone

SIDES = (RIGHT, LEFT)


def congest(chest: Chest, lesion: Lesion) -> Chest:
    """Edema: the vessels swell and the heart with them."""
    return replace(chest, calibre=chest.calibre * lesion.between(1.1, 1.8))


def flood(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Edema: a bat's wings about both hila, and Kerley's short lines at the lateral bases."""
    rng = lesion.rng
    wings, lines = [], []
    for side in SIDES:
        x, y = hilum(chest, side)
        size = rng.uniform(0.85, 1.1)
        wings.append(disc(np.array([x + side * 2.0, y + 2.6]), 4.0 * size, 6.0 * size))
        for k in range(7):
            height = (0.74 + 0.04 * k) * dome(chest, side)
            outer = wall_at(chest, height) - 0.1
            lines.append([(side * outer, height), (side * (outer - 1.6), height - 0.15)])
    haze = fill(frame, *wings, soft=1.7)
    uneven = np.maximum(1 + 0.15 * clouds(frame, rng, grain=1.5), 0)
    kerley = stroke(frame, np.array(lines), width=0.13)
    filled = np.minimum(lesion.between(0.12, 0.8) * haze * uneven, 0.9)
    return trace_of(frame, *wings, filled=filled, added=lesion.between(0.2, 0.9) * kerley)


def inflate(chest: Chest, lesion: Lesion) -> Chest:
    """Emphysema: lungs long and black, domes low and flat, heart narrow, few vessels."""
    fall = lesion.between(0.5, 3.5)
    return replace(
        chest,
        right_dome=chest.right_dome + fall,
        left_dome=chest.left_dome + fall,
        arch=chest.arch * lesion.between(0.85, 0.2),
        heart=chest.heart * lesion.between(0.97, 0.72),
        aeration=chest.aeration * lesion.between(1.03, 1.22),
        calibre=chest.calibre * lesion.between(0.9, 0.45),
    )


def show_bullae(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Emphysema: bullae, black rounds with thin walls, over inflated lungs."""
    rng = lesion.rng
    bullae = []
    for _ in range(rng.integers(2, 6)):
        side = SIDES[rng.integers(0, 2)]
        x, y = inside(chest, side, rng.uniform(0.4, 0.85), rng.uniform(0.12, 0.45))
        bullae.append(disc(np.array([x, y]), rng.uniform(0.9, 2.0), rng.uniform(0.9, 2.0)))
    space = fill(frame, *bullae, soft=0.15)
    rim = stroke(frame, np.stack(bullae), width=0.12, closed=True)
    added = lesion.between(0.1, 0.6) * rim - lesion.between(0.1, 1.6) * space
    lungs = [lung_outline(chest, side) for side in SIDES]
    return trace_of(frame, *lungs, added=added, bare=lesion.between(0.2, 0.9) * space)


def shrink(chest: Chest, lesion: Lesion) -> Chest:
    """Fibrosis: both lungs lose volume."""
    lost = lesion.between(0.2, 2.6)
    return lift(lift(chest, RIGHT, lost), LEFT, lost)


def scar(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Fibrosis: a net of lines and rings at the bases and the periphery of both lungs."""
    rng = lesion.rng
    count = 520
    bases = [zone(chest, side, 0.55, 1.1, medial=0.35) for side in SIDES]
    x = rng.uniform(0.3, 1.0, count) * chest.half * rng.choice(SIDES, count)
    y = rng.uniform(0.5, 1.1, count) * chest.right_dome
    turn = rng.uniform(0, np.pi, count)
    arm = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * rng.uniform(0.4, 0.9, (count, 1))
    middle = np.stack([x, y], axis=-1)
    net = stroke(frame, np.stack([middle - arm, middle, middle + arm], axis=1), width=0.16)
    where = fill(frame, *bases, soft=1.3)
    added = lesion.between(0.4, 2.6) * net * where
    return trace_of(frame, *bases, added=added, filled=lesion.between(0.02, 0.2) * where)


def collapse_lung(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Pneumothorax: black pleural space without vessels around a lung with a thin visible edge."""
    side = lesion.side
    gap = lesion.between(0.7, 5.0)
    whole = lung_outline(chest, side)
    root = hilum(chest, side)
    share = np.clip(1.15 - 0.75 * (whole[:, 1:] / dome(chest, side)), 0.12, 1.0)
    away = whole - root
    reach = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    lateral = np.clip((side * away[:, :1] + 3.0) / 4.0, 0, 1)
    shrunk = whole - away / reach * np.minimum(gap * share * lateral * 1.2, 0.75 * reach)
    lung = fill(frame, shrunk, soft=0.08)
    space = np.maximum(fill(frame, whole, soft=0.08) - lung, 0)
    edge = stroke(frame, shrunk, width=0.16, closed=True) * fill(frame, whole, soft=0.3)
    dense = lesion.between(0.02, 0.25) * lung
    added = 0.9 * edge - lesion.between(1.0, 4.0) * space
    return trace_of(frame, _crescent(whole, shrunk, gap), filled=dense, added=added, bare=space)


def _crescent(whole: Outline, shrunk: Outline, gap: float) -> Outline:
    apart = np.linalg.norm(whole - shrunk, axis=1) > 0.45 * gap
    return np.concatenate([whole[apart], shrunk[apart]]) if apart.any() else whole


def thicken_pleura(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Pleural thickening: a band along the chest wall, and a cap on the apex."""
    rng, side = lesion.rng, lesion.side
    thick = lesion.between(0.35, 2.0)
    high, low = rng.uniform(0.0, 0.3), rng.uniform(0.75, 0.95)
    y = np.linspace(high, low, 20) * dome(chest, side)
    outer = wall(chest, y) + 0.4
    uneven = smooth(np.stack([np.arange(8.0), rng.uniform(0.5, 1.3, 8)], axis=-1), closed=False)
    swell = np.sin(np.linspace(0, np.pi, 20)) ** 0.5 * uneven[:40:2, 1]
    inner = outer - 0.5 - thick * swell
    band = np.concatenate([np.stack([outer, y], -1), np.stack([inner, y], -1)[::-1]]) * [side, 1]
    apex = zone(chest, side, -0.1, (0.9 + 0.8 * thick) / dome(chest, side))
    rind = fill(frame, band, soft=0.1)
    if rng.random() < 0.5:
        rind = np.maximum(rind, fill(frame, apex, soft=0.3))
    return trace_of(frame, band, filled=lesion.between(0.35, 0.9) * rind)


def herniate(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Hernia: a round shadow behind the heart, gas above a level of fluid."""
    rng = lesion.rng
    radius = lesion.between(1.8, 4.6)
    x, y = rng.uniform(0.0, 2.5), chest.left_dome - 0.75 * radius
    sac = disc(np.array([x, y]), radius, radius * 0.9)
    gas = (sac - [x, y]) * 0.84 + [x, y]
    gas[:, 1] = np.minimum(gas[:, 1], y + radius * rng.uniform(-0.5, 0.4))
    whole = fill(frame, sac, soft=0.15)
    pocket = fill(frame, gas, soft=0.12) * (0.4 + 0.6 * fill(frame, gas, soft=0.25 * radius))
    added = lesion.between(0.8, 3.0) * whole - lesion.between(2.0, 8.0) * pocket
    return trace_of(frame, sac, added=added, filled=lesion.between(0.3, 0.9) * (whole - pocket))


SIGNS: dict[str, tuple[Posture, Sign]] = {
    "Atelectasis": (signs.lose_volume, signs.collapse_plates),
    "Cardiomegaly": (signs.enlarge_heart, signs.heart_sign),
    "Effusion": (signs.unchanged, signs.pour_effusion),
    "Infiltration": (signs.unchanged, signs.infiltrate),
    "Mass": (signs.unchanged, signs.place_mass),
    "Nodule": (signs.unchanged, signs.place_nodule),
    "Pneumonia": (signs.unchanged, signs.pneumonic_patch),
    "Pneumothorax": (signs.unchanged, collapse_lung),
    "Consolidation": (signs.unchanged, signs.consolidate),
    "Edema": (congest, flood),
    "Emphysema": (inflate, show_bullae),
    "Fibrosis": (shrink, scar),
    "Pleural_Thickening": (signs.unchanged, thicken_pleura),
    "Hernia": (signs.unchanged, herniate),
}
