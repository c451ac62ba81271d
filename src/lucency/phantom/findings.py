"""What the 14 findings do to a phantom: a changed chest, and traces laid over its lungs.

Letters: `h w` pixels of the film, `p` points. Lengths in cm in the body's frame. Each finding is
one or two small functions of a `Lesion`; `SIGNS` names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from lucency.phantom.anatomy import LEFT, RIGHT, SIDES, Chest
from lucency.phantom.imaging import Frame, Map, Outline, disc, smooth


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One finding of one film: `strength` 0..1 is how plainly it shows, `side` where it is.

    `place` is one seed for all films of the patient, so that a lesion returns where it was.
    """

    strength: float
    side: int
    place: tuple[int, ...]

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator for the lesion's place and form."""
        return np.random.default_rng(self.place)

    def between(self, faint: float, plain: float) -> float:
        """The value at this strength between a faint and a plain lesion's."""
        return faint + (plain - faint) * self.strength


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a lesion adds: shares of air filled, cm of water added (gas is negative), vessels gone.

    `outlines` are its true borders in cm, of which the boxes are made.
    """

    outlines: Sequence[Outline]
    filled: Map | float = 0.0
    added: Map | float = 0.0
    bare: Map | float = 0.0


# Lobes as top, bottom and slope (see `zone`), and where below the bottom the shadow has faded.
LOBES = ((-0.05, 0.42, 0.0, 0.3), (0.42, 0.9, 0.6, -0.1), (0.5, 1.15, 4.0, 0.3))

Posture = Callable[[Chest, Lesion], Chest]
Sign = Callable[[Chest, Frame, Lesion], Trace]


def inside(chest: Chest, side: int, across: float, down: float) -> Float[np.ndarray, 2]:
    """The point of a lung at shares 0..1 of its breadth (from the hilum out) and its height."""
    y = down * chest.dome(side)
    near = 0.3 * chest.half
    return np.array([side * (near + across * (chest.wall(y) - near)), y])


def zone(
    chest: Chest, side: int, top: float, bottom: float, *, medial: float = 0.1, slope: float = 0.0
) -> Outline:
    """A lung between two heights (shares of the dome's y), from `medial` (a share) to the wall.

    The top border falls by `slope` cm from the wall to the middle.
    """
    y = np.linspace(top, bottom, 12) * chest.dome(side)
    outer = chest.wall(y) + 0.3
    inner = np.full_like(y, medial * chest.half)
    inward = np.stack([inner, np.maximum(y, y[0] + slope)], -1)[::-1]
    return np.concatenate([np.stack([outer, y], -1), inward]) * [side, 1]


def unchanged(chest: Chest, lesion: Lesion) -> Chest:
    """The chest of a lesion that moves nothing."""
    return chest


def lose_volume(chest: Chest, lesion: Lesion) -> Chest:
    """Atelectasis: the dome rises and the mediastinum moves to the smaller lung."""
    lifted = chest.lift(lesion.side, lesion.between(0.3, 3.0))
    return replace(lifted, shift=chest.shift + lesion.side * lesion.between(0.0, 1.0))


def collapse_plates(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Atelectasis: one to three dense plates across the lower lung, above crowded bases."""
    rng, side = lesion.rng, lesion.side
    dense = np.zeros((frame.size, frame.size), np.float32)
    paths = []
    for k in range(rng.integers(2, 4)):
        across, down = rng.uniform(0.35, 0.6), 0.9 - 0.13 * k + rng.uniform(-0.03, 0.03)
        x, y = inside(chest, side, across, down)
        reach, rise = rng.uniform(2.6, 4.4), rng.uniform(-1.4, 1.8)
        ends = np.array([(x - side * reach, y + rise), (x, y + 0.3), (x + side * reach, y - rise)])
        paths.append(ends)
        dense += frame.stroke(ends, width=rng.uniform(0.6, 1.1), soft=0.16)
    base = frame.fill(zone(chest, side, 0.84, 1.12), soft=1.0)
    filled = np.minimum(lesion.between(0.12, 0.8) * dense + lesion.between(0.0, 0.3) * base, 0.9)
    return Trace(outlines=[np.concatenate(paths)], filled=filled)


def enlarge_heart(chest: Chest, lesion: Lesion) -> Chest:
    """Cardiomegaly: a cardiothoracic ratio of .53 to .70."""
    return replace(chest, heart=lesion.between(0.53, 0.70), calibre=chest.calibre * 1.1)


def heart_sign(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Cardiomegaly: all is in the silhouette."""
    return Trace(outlines=[chest.heart_outline()])


def pour_effusion(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Effusion: fluid at the base under a meniscus that climbs the chest wall, often both sides."""
    rng = lesion.rng
    sides = [lesion.side] if rng.random() < 0.65 else [lesion.side, -lesion.side]
    level = lesion.between(2.0, 13.0) * rng.uniform(0.8, 1.1)
    pools = []
    for share, side in zip((1.0, rng.uniform(0.4, 0.8)), sides, strict=False):
        bottom = chest.dome(side) + chest.arch + 0.6
        across = np.linspace(1.0, 0.12, 12)
        top = bottom - level * share * (0.42 + 0.58 * across**4)
        surface = np.stack([across * chest.half + 0.3, top], axis=-1)
        rest = [(0.1 * chest.half, bottom + 1), (chest.half + 0.3, bottom + 1)]
        pools.append(np.vstack([surface, rest]) * [side, 1])
    return Trace(outlines=pools, filled=0.93 * frame.fill(*pools, soft=0.35))


def infiltrate(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Infiltration: several ill-defined patches of haze, uneven, in one or both lungs."""
    rng = lesion.rng
    both = rng.random() < 0.5
    patches = []
    for k in range(rng.integers(3, 6)):
        side = -lesion.side if both and k % 2 else lesion.side
        centre = inside(chest, side, rng.uniform(0.15, 0.7), rng.uniform(0.35, 0.85))
        patches.append(disc(centre, rng.uniform(1.5, 2.8), rng.uniform(1.4, 2.6)))
    haze = frame.fill(*patches, soft=0.9)
    uneven = np.maximum(1 + 0.3 * frame.clouds(rng, grain=1.3), 0)
    filled = np.minimum(lesion.between(0.1, 0.5) * haze * uneven, 0.8)
    return Trace(outlines=_by_side(patches), filled=filled)


def place_mass(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Mass: a lobulated ball of more than 3 cm."""
    radius = lesion.rng.uniform(1.7, 2.2) + lesion.between(0.0, 1.5)
    return _ball(chest, frame, lesion, radius=radius, density=lesion.between(0.35, 1.4))


def place_nodule(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Nodule: a ball of less than 3 cm, the plain ones dense."""
    radius = min(lesion.rng.uniform(0.5, 0.9) + lesion.between(0.0, 0.6), 1.45)
    return _ball(chest, frame, lesion, radius=radius, density=lesion.between(0.6, 2.6))


def _ball(chest: Chest, frame: Frame, lesion: Lesion, *, radius: float, density: float) -> Trace:
    rng = np.random.default_rng([*lesion.place, 1])
    centre = inside(chest, lesion.side, rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.9))
    edge = disc(centre, radius, radius * rng.uniform(0.85, 1.15))
    turn = np.linspace(0, 2 * np.pi, len(edge), endpoint=False)
    bump = 1 + 0.05 * np.sin(np.outer((2, 3, 5), turn) + rng.uniform(0, 6, (3, 1))).sum(axis=0)
    edge = (edge - centre) * bump[:, None] + centre
    core = frame.fill((edge - centre) * 0.75 + centre, soft=0.3 * radius)
    return Trace(outlines=[edge], added=density * radius * (frame.fill(edge, soft=0.08) + core))


def pneumonic_patch(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Pneumonia: one mottled patch in a lower or middle zone, with dark bronchi running in it."""
    rng, side = lesion.rng, lesion.side
    centre = inside(chest, side, rng.uniform(0.3, 0.5), rng.uniform(0.55, 0.8))
    patch = disc(centre, rng.uniform(3.2, 4.0), rng.uniform(3.0, 4.0))
    mottle = np.maximum(1 + 0.28 * frame.clouds(rng, grain=1.1), 0.1)
    area = frame.fill(patch, soft=0.7)
    bronchi = sum(
        frame.stroke(path, width=width, soft=0.08)
        for path, width in zip(chest.vessel_tree(side)[:4], (0.4, 0.36, 0.3, 0.2), strict=True)
    )
    filled = lesion.between(0.15, 0.85) * area * mottle * np.maximum(1 - 0.5 * bronchi, 0.2)
    return Trace(outlines=[patch], filled=np.minimum(filled, 0.92))


def consolidate(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Consolidation: a lobe or segment, dense and even, cut off sharply by a fissure."""
    rng, side = lesion.rng, lesion.side
    medial = rng.uniform(0.15, 0.3)
    top, bottom, slope, fade = LOBES[rng.integers(0, len(LOBES))]
    lobe = zone(chest, side, top, bottom, medial=medial, slope=slope)
    around = zone(chest, side, top - 0.3, bottom + fade)
    shadow = frame.fill(lobe, soft=0.15) * frame.fill(around, soft=1.3)
    return Trace(outlines=[lobe], filled=lesion.between(0.15, 0.97) * shadow)


def _by_side(outlines: list[Outline]) -> list[Outline]:
    """The outlines of each lung as one cloud of points, so that each lung has one box."""
    sides = [[o for o in outlines if np.sign(o[:, 0].mean()) == s] for s in SIDES]
    return [np.concatenate(group) for group in sides if group]


def congest(chest: Chest, lesion: Lesion) -> Chest:
    """Edema: the vessels swell and the heart with them."""
    return replace(chest, calibre=chest.calibre * lesion.between(1.1, 1.8))


def flood(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Edema: a bat's wings about both hila, and Kerley's short lines at the lateral bases."""
    rng = lesion.rng
    wings, lines = [], []
    for side in SIDES:
        x, y = chest.hilum(side)
        size = rng.uniform(0.85, 1.1)
        wings.append(disc(np.array([x + side * 2.0, y + 2.6]), 4.0 * size, 6.0 * size))
        for k in range(7):
            height = (0.74 + 0.04 * k) * chest.dome(side)
            outer = chest.wall(height) - 0.1
            lines.append([(side * outer, height), (side * (outer - 1.6), height - 0.15)])
    haze = frame.fill(*wings, soft=1.7)
    uneven = np.maximum(1 + 0.15 * frame.clouds(rng, grain=1.5), 0)
    kerley = frame.stroke(np.array(lines), width=0.13)
    filled = np.minimum(lesion.between(0.12, 0.8) * haze * uneven, 0.9)
    return Trace(outlines=wings, filled=filled, added=lesion.between(0.2, 0.9) * kerley)


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
        centre = inside(chest, side, rng.uniform(0.4, 0.85), rng.uniform(0.12, 0.45))
        bullae.append(disc(centre, rng.uniform(0.9, 2.0), rng.uniform(0.9, 2.0)))
    space = frame.fill(*bullae, soft=0.15)
    rim = frame.stroke(np.stack(bullae), width=0.12, closed=True)
    added = lesion.between(0.1, 0.6) * rim - lesion.between(0.1, 1.6) * space
    lungs = [chest.lung_outline(side) for side in SIDES]
    return Trace(outlines=lungs, added=added, bare=lesion.between(0.2, 0.9) * space)


def shrink(chest: Chest, lesion: Lesion) -> Chest:
    """Fibrosis: both lungs lose volume."""
    lost = lesion.between(0.2, 2.6)
    return chest.lift(RIGHT, lost).lift(LEFT, lost)


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
    net = frame.stroke(np.stack([middle - arm, middle, middle + arm], axis=1), width=0.16)
    where = frame.fill(*bases, soft=1.3)
    added = lesion.between(0.4, 2.6) * net * where
    return Trace(outlines=bases, added=added, filled=lesion.between(0.02, 0.2) * where)


def collapse_lung(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Pneumothorax: black pleural space without vessels around a lung with a thin visible edge."""
    side = lesion.side
    gap = lesion.between(0.7, 5.0)
    whole = chest.lung_outline(side)
    share = np.clip(1.15 - 0.75 * (whole[:, 1:] / chest.dome(side)), 0.12, 1.0)
    away = whole - chest.hilum(side)
    reach = np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    lateral = np.clip((side * away[:, :1] + 3.0) / 4.0, 0, 1)
    shrunk = whole - away / reach * np.minimum(gap * share * lateral * 1.2, 0.75 * reach)
    lung = frame.fill(shrunk, soft=0.08)
    space = np.maximum(frame.fill(whole, soft=0.08) - lung, 0)
    edge = frame.stroke(shrunk, width=0.16, closed=True) * frame.fill(whole, soft=0.3)
    dense = lesion.between(0.02, 0.25) * lung
    added = 0.9 * edge - lesion.between(1.0, 4.0) * space
    apart = np.linalg.norm(whole - shrunk, axis=1) > 0.45 * gap
    crescent = np.concatenate([whole[apart], shrunk[apart]]) if apart.any() else whole
    return Trace(outlines=[crescent], filled=dense, added=added, bare=space)


def thicken_pleura(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Pleural thickening: a band along the chest wall, and a cap on the apex."""
    rng, side = lesion.rng, lesion.side
    thick = lesion.between(0.35, 2.0)
    high, low = rng.uniform(0.0, 0.3), rng.uniform(0.75, 0.95)
    y = np.linspace(high, low, 20) * chest.dome(side)
    outer = chest.wall(y) + 0.4
    uneven = smooth(np.stack([np.arange(8.0), rng.uniform(0.5, 1.3, 8)], axis=-1), closed=False)
    swell = np.sin(np.linspace(0, np.pi, 20)) ** 0.5 * uneven[:40:2, 1]
    inner = outer - 0.5 - thick * swell
    band = np.concatenate([np.stack([outer, y], -1), np.stack([inner, y], -1)[::-1]]) * [side, 1]
    apex = zone(chest, side, -0.1, (0.9 + 0.8 * thick) / chest.dome(side))
    rind = frame.fill(band, soft=0.1)
    if rng.random() < 0.5:
        rind = np.maximum(rind, frame.fill(apex, soft=0.3))
    return Trace(outlines=[band], filled=lesion.between(0.35, 0.9) * rind)


def herniate(chest: Chest, frame: Frame, lesion: Lesion) -> Trace:
    """Hernia: a round shadow behind the heart, gas above a level of fluid."""
    rng = lesion.rng
    radius = lesion.between(1.8, 4.6)
    x, y = rng.uniform(0.0, 2.5), chest.left_dome - 0.75 * radius
    sac = disc(np.array([x, y]), radius, radius * 0.9)
    gas = (sac - [x, y]) * 0.84 + [x, y]
    gas[:, 1] = np.minimum(gas[:, 1], y + radius * rng.uniform(-0.5, 0.4))
    whole = frame.fill(sac, soft=0.15)
    pocket = frame.fill(gas, soft=0.12) * (0.4 + 0.6 * frame.fill(gas, soft=0.25 * radius))
    added = lesion.between(0.8, 3.0) * whole - lesion.between(2.0, 8.0) * pocket
    return Trace(outlines=[sac], added=added, filled=lesion.between(0.3, 0.9) * (whole - pocket))


SIGNS: dict[str, tuple[Posture, Sign]] = {
    "Atelectasis": (lose_volume, collapse_plates),
    "Cardiomegaly": (enlarge_heart, heart_sign),
    "Effusion": (unchanged, pour_effusion),
    "Infiltration": (unchanged, infiltrate),
    "Mass": (unchanged, place_mass),
    "Nodule": (unchanged, place_nodule),
    "Pneumonia": (unchanged, pneumonic_patch),
    "Pneumothorax": (unchanged, collapse_lung),
    "Consolidation": (unchanged, consolidate),
    "Edema": (congest, flood),
    "Emphysema": (inflate, show_bullae),
    "Fibrosis": (shrink, scar),
    "Pleural_Thickening": (unchanged, thicken_pleura),
    "Hernia": (unchanged, herniate),
}
