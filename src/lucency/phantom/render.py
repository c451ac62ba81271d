"""One phantom film: the patient's chest, posed, with its findings and devices drawn in, exposed.

Letters: `h w` pixels of the film. Anatomy and the place of lesions derive from (seed, patient);
pose, exposure, severity and noise from (seed, patient, film). A drain and a marker on AP films are
the phantom's shortcuts: signs of the treatment and of the room, not of the disease.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import UInt8

from lucency.core.manifest import FINDINGS
from lucency.phantom.anatomy import LEFT, RIGHT, Chest, draw_chest
from lucency.phantom.cohort import Film, Patient
from lucency.phantom.findings import SIGNS, Lesion
from lucency.phantom.hospitals import HOSPITALS, Hospital, Marker, Original
from lucency.phantom.imaging import Exposure, Frame, Map, disc, expose, smooth

BOX_FRAME = 1024  # NIH's boxes are in pixels of this frame, whatever the file's size


@dataclass(frozen=True, kw_only=True)
class Box:
    """A finding's true box: left, top, width and height in pixels of a 1024 × 1024 frame."""

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class PhantomFilm:
    """One phantom film: pixels, true boxes, and each finding's difficulty (0 plain .. 1 hidden)."""

    pixels: UInt8[np.ndarray, "h w"]
    boxes: tuple[Box, ...]
    difficulty: dict[str, float]
    original: tuple[int, int, str]  # columns, rows and mm a pixel of the film before reduction


def phantom_film(patient: Patient, film: Film, *, size: int) -> PhantomFilm:
    """One film of a patient, `size` × `size` pixels, with its true boxes: a pure function."""
    hospital = HOSPITALS[patient.hospital]
    own = [patient.seed, patient.number, film.number]
    chest = _chest_on_film(_patients_chest(patient), film, np.random.default_rng([*own, 1]))
    original, frame = _pose(
        film, size, np.random.default_rng([*own, 2]), originals=hospital.formats[film.view]
    )
    severity = {finding: _severity(patient, film, finding) for finding in film.findings}
    lesions = {finding: _lesion(patient, finding, severity[finding]) for finding in film.findings}
    for finding, lesion in lesions.items():
        chest = SIGNS[finding][0](chest, lesion)
    layers = draw_chest(chest, frame)
    air, water = layers.air, layers.body + layers.bone
    vessel, boxes = layers.vessel, []
    for finding, lesion in lesions.items():
        trace = SIGNS[finding][1](chest, frame, lesion)
        air = air * (1 - trace.filled)
        water = water + trace.added * np.minimum(layers.air * 0.5 + (finding == "Hernia"), 1)
        vessel = vessel * (1 - trace.bare)
        boxes += [_box(frame, finding, outline) for outline in trace.outlines]
    water = np.maximum(water + vessel - air, 0.0)
    side = _lesion(patient, "Pneumothorax", 1.0).side
    rng = np.random.default_rng([*own, 3])
    water += _devices(film, chest, frame, rng, side=side, hospital=hospital)
    exposure = _exposure(film, [*own, 4], hospital=hospital)
    pixels = expose(frame, water, exposure, rng=np.random.default_rng([*own, 5]))
    return PhantomFilm(
        pixels=pixels,
        boxes=tuple(box for box in boxes if box.width > 4 and box.height > 4),
        difficulty={finding: 1 - share for finding, share in severity.items()},
        original=original,
    )


def _patients_chest(patient: Patient) -> Chest:
    """The patient's own chest: build, heart, bones and vessels."""
    rng = np.random.default_rng([patient.seed, patient.number])
    woman = patient.sex == "F"
    return Chest(
        half=(12.4 if woman else 13.5) * rng.uniform(0.95, 1.05),
        right_dome=(22.0 if woman else 23.0) + rng.normal(0, 0.5),
        arch=rng.uniform(3.0, 4.0),
        heart=rng.uniform(0.40, 0.46),
        depth=rng.uniform(18.5, 21.5),
        fat=rng.uniform(1.8, 6.0),
        breast=rng.uniform(0.6, 2.6) if woman and patient.age > 12 else 0.0,
        calibre=rng.uniform(0.9, 1.1),
        bone=rng.uniform(0.85, 1.15) * (1.0 if patient.age < 60 else 0.85),
        knob=np.interp(patient.age, [10, 40, 90], [0.3, 0.8, 1.6]) * rng.uniform(0.8, 1.2),
        bubble=rng.uniform(0.2, 1.3),
        tree=int(rng.integers(2**31)),
    )


def _chest_on_film(chest: Chest, film: Film, rng: np.random.Generator) -> Chest:
    """The chest as the film found it: AP enlarges the heart and lifts the domes."""
    lying = film.view == "AP"
    breath = rng.normal(0, 0.4) - (1.2 if lying else 0.0)
    dome = chest.right_dome + breath
    return replace(
        chest,
        right_dome=dome,
        left_dome=dome + rng.uniform(0.7, 1.6),
        heart=chest.heart + (0.04 if lying else 0.0) + rng.normal(0, 0.005),
        tilt=rng.normal(0, 0.5),
        scapula=rng.uniform(0.6, 1.0) if lying else rng.uniform(0.0, 0.25),
    )


def _pose(
    film: Film, size: int, rng: np.random.Generator, *, originals: tuple[Original, ...]
) -> tuple[tuple[int, int, str], Frame]:
    share = [original[3] for original in originals]
    columns, rows, spacing, _ = originals[rng.choice(len(originals), p=share)]
    frame = Frame(
        size=size,
        width=columns * float(spacing) / 10,
        height=rows * float(spacing) / 10,
        angle=rng.normal(0, 0.02 if film.view == "PA" else 0.035),
        x=rng.normal(0, 0.6),
        y=rng.normal(0, 0.6),
        magnification=rng.uniform(0.96, 1.04) * (1.0 if film.view == "PA" else 1.05),
    )
    return (columns, rows, spacing), frame


def _exposure(film: Film, key: list[int], *, hospital: Hospital) -> Exposure:
    rng = np.random.default_rng(key)
    portable = film.view == "AP"
    return Exposure(
        dose=(rng.uniform(0.3, 0.7) if portable else rng.uniform(0.7, 1.3)) * hospital.dose,
        scatter=(rng.uniform(0.35, 0.6) if portable else rng.uniform(0.2, 0.35)) + hospital.scatter,
        centre=rng.normal(2.25 if portable else 2.35, 0.15) + hospital.centre,
        contrast=(rng.uniform(55, 85) if portable else rng.uniform(65, 100)) * hospital.contrast,
        blur=hospital.blur,
    )


def _lesion(patient: Patient, finding: str, severity: float) -> Lesion:
    place = (patient.seed, patient.number, 1000 + FINDINGS.index(finding))
    strength = float(np.interp(severity, [0, 0.25, 1], [0.08, 0.45, 1]))
    side = LEFT if np.random.default_rng(place).random() < 0.5 else RIGHT
    return Lesion(strength=strength, side=side, place=(*place, 1))


def _severity(patient: Patient, film: Film, finding: str) -> float:
    key = [patient.seed, patient.number, film.number, 100 + FINDINGS.index(finding)]
    return float(np.random.default_rng(key).random())


def _box(frame: Frame, finding: str, outline: np.ndarray) -> Box:
    pixel = np.clip(frame.at(BOX_FRAME).project(outline), 0, BOX_FRAME)
    (x, y), (right, bottom) = pixel.min(axis=0), pixel.max(axis=0)
    return Box(finding=finding, x=x, y=y, width=right - x, height=bottom - y)


def _devices(
    film: Film,
    chest: Chest,
    frame: Frame,
    rng: np.random.Generator,
    *,
    side: int,
    hospital: Hospital,
) -> Map:
    """Devices as cm of water: always a side marker; leads on some AP films; drain and AP marker."""
    added = _letters(frame, hospital.side, rng)
    leads = rng.random() < 0.5
    wires = rng.normal(0, 1.2, (3, 4, 2))
    if film.view == "AP" and leads:
        added += _leads(chest, frame, wires)
    if film.drain:
        added += _drain(chest, frame, side)
    if film.marker:
        added += _letters(frame, hospital.view, rng)
    return added


def _letters(frame: Frame, marker: Marker, rng: np.random.Generator) -> np.ndarray:
    """Lead letters of a marker."""
    mask = np.zeros((frame.size, frame.size), np.uint8)
    down = float(rng.uniform(*marker.down))
    origin = (int(marker.across * frame.size), int(down * frame.size))
    scale, pen = frame.size / 512, max(1, frame.size // 170)
    cv2.putText(mask, marker.text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, pen, cv2.LINE_AA)
    return mask.astype(np.float32) * (14.0 / 255)


def _leads(chest: Chest, frame: Frame, wires: np.ndarray) -> np.ndarray:
    """Three electrodes on the chest and their wires."""
    added = np.zeros((frame.size, frame.size), np.float32)
    for (x, y), wander in zip(((-0.75, 3.0), (0.8, 3.5), (0.85, 21.0)), wires, strict=True):
        spot = np.array([x * chest.half, y]) + wander[0]
        bends = [spot, spot + [2, 4] + wander[1], [12, 26] + wander[2], [18, 36]]
        path = smooth(np.vstack(bends), closed=False)
        added += 1.2 * frame.fill(disc(spot, 0.55)) + 1.2 * frame.stroke(path, width=0.14)
    return added


def _drain(chest: Chest, frame: Frame, side: int) -> np.ndarray:
    """A chest drain: a tube from the lateral wall up to the apex, its rim and stripe opaque."""
    low = 0.72 * chest.dome(side)
    wall = chest.wall(low)
    points = [(wall + 6.0, low + 4.5), (wall, low)]
    points += [(0.72 * chest.half, 0.5 * low), (0.55 * chest.half, 0.14 * low)]
    path = smooth(np.array(points) * [side, 1], steps=12, closed=False)
    tube = frame.stroke(path, width=0.8) - 0.75 * frame.stroke(path, width=0.45)
    return 2.6 * tube + 2.6 * frame.stroke(path, width=0.16)
