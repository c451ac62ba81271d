"""Image quality: films that are repeated, blank, framed, inverted, turned, mirrored or written on.

What is listed may be in order: look at the films before leaving them out.

Letters in shapes: n films, m and b chosen ones, h and w pixels, s pixels of a side, d edges of an
outline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64, UInt8

from lucency.audit.orientation import EDGES, FEWEST, FOLDS, TURNS, estimate_orientation, outline
from lucency.core.manifest import Prepared, counted
from lucency.data.duplicates import near_identical
from lucency.evaluation.bootstrap import ratio

COARSE = 32  # pixels a side of a thumbnail
WHITE = 255
EVEN_STEP, EVEN_SHARE = 2, 0.95  # grey between neighbours in a border; share of a line that is so
STROKE_STEP, STROKE_GREY = 50, 200  # of the edge of a letter
STROKE_NEAR = np.ones((3, 3), dtype=np.uint8)
LINE_WIDE, LINE_HIGH = 6.4, 32  # a line of writing is this part of the frame
AT_ONCE = 512  # films
FLATTEST = 0.05  # standard deviation of grey; real films have .12 and more
WIDEST_BORDER = 0.2  # of the frame
DENSEST = 0.4  # of a patch of strokes
LIKELY = 0.5  # to be mirrored
BITS_APART, ALIKE = 8, 0.98  # exposed anew: 95 % within; films of two patients correlate below .96
MOST_UNLIKE, MOST_STRANGE = 2.8, 4.0  # modified z
WRITING_FROM = 160  # pixels a side: strokes of smaller films are ribs; see docs/audit.md
REFERENCE = 500  # films, evenly spread, that others are compared with
ANY = "any"
SAME, OTHER = "the same patient", "another patient"
UNKNOWN, UPRIGHT, INVERTED = "", "upright", "inverted"
TURNED = ("turned clockwise by 90°", "upside down", "turned anticlockwise by 90°")
POSES = (UPRIGHT, *TURNED, INVERTED, *(f"{INVERTED}, {turn}" for turn in TURNED))
MEASURED = (
    "image", "patient", "structure", "border", "border_grey", "writing", "pose", "margin",
    "mirrored", "unlike", "strange", "twin", "twin_of", "twin_correlation", "twin_pixels", "note",
)  # fmt: skip
LISTED = ("image", "patient", "problem", "value", "reason")
COUNTED = ("problem", "films", "patients", "share")
Films = UInt8[np.ndarray, "n s s"]


def switched_off(side: int) -> str:
    """Return the line that says which detectors do not hold at this side, "" where all do."""
    if side >= WRITING_FROM:
        return ""
    return f"writing: not looked for at {side} pixels, as it holds from {WRITING_FROM} on"


def inspect(prepared: Prepared, *, progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return what was measured on every film, a row each, in the films' order: MEASURED.

    `structure`, `border` (share of the frame), `border_grey` and `writing` are of the pixels alone;
    `pose`, `margin`, `mirrored` (a probability), `unlike` and `strange` compare a film with those
    of other patients (`lucency.audit.orientation`), whatever their view. The twin is another film
    with the same picture (`lucency.data.duplicates`): of another patient, where there is one, else
    the first of the same patient, named at the later films only; `twin_pixels`: its pixels are
    equal. NaN and a note where a measure is not computable. `progress(done, films)` is called as
    films get read.
    """
    films = len(prepared.manifest)
    edge = np.zeros((films, EDGES), dtype=np.float32)
    surface = np.empty((films, 4))
    for start in range(0, films, AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        block = np.asarray(prepared.pixels[rows])
        edge[rows], surface[rows] = look_at(block)
        progress(min(start + AT_ONCE, films), films)
    named = {"image": prepared.manifest.image, "patient": prepared.manifest.patient}
    measured = pd.DataFrame(surface, columns=list(MEASURED[2:6])).assign(**named)
    parts = [measured, _orientation(edge, measured), _twins(prepared)]
    return pd.DataFrame(pd.concat(parts, axis=1), columns=list(MEASURED))


def look_at(films: Films) -> tuple[Float32[np.ndarray, "n d"], Float64[np.ndarray, "n 4"]]:
    """Return outlines, and what is measured on the pixels alone: the third to sixth of MEASURED.

    Writing is NaN on films smaller than WRITING_FROM.
    """
    holds = films.shape[1] >= WRITING_FROM
    strokes = writing(films) if holds else np.full(len(films), np.nan)
    return outline(films), np.stack([structure(films), *border(films), strokes], axis=1)


def problems_of(
    edge: Float32[np.ndarray, "n d"],
    surface: Float64[np.ndarray, "n 4"],
    *,
    known: Prepared | None,
) -> tuple[list[str], str]:
    """Return the problems of films that `look_at` saw, by PROBLEMS, joined by |, and a note.

    Each film counts as a patient's of its own. They are compared with `known`, films prepared
    alike, REFERENCE of them at most; without those, with each other. The note says why poses are
    not estimated, where they are not. Repeats are not looked for.
    """
    films, patient = len(edge), -1 - np.arange(len(edge))
    if known is not None and len(known.manifest):
        spread = np.linspace(0, len(known.manifest) - 1, min(REFERENCE, len(known.manifest)))
        rows = np.unique(spread.astype(np.int64))
        seen = [look_at(np.asarray(known.pixels[block])) for block in _blocks(rows)]
        edge = np.concatenate([edge, *(one for one, _ in seen)])
        surface = np.concatenate([surface, *(one for _, one in seen)])
        patient = np.concatenate([patient, known.manifest.patient[rows]])
    measured = pd.DataFrame(surface, columns=list(MEASURED[2:6])).assign(patient=patient)
    measured = pd.concat([measured, _orientation(edge, measured)], axis=1).iloc[:films]
    measured = measured.assign(twin_of="", strangest=np.nan)
    found = {name: np.asarray(of(measured), dtype=bool) for name, (of, *_) in PROBLEMS.items()}
    problems = ["|".join(name for name in found if found[name][film]) for film in range(films)]
    notes = measured.loc[measured["structure"] >= FLATTEST, "note"]
    return problems, notes.iloc[0] if len(notes) else ""


def quality_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the films that have a problem, a row a film and problem: LISTED, problem by problem.

    Saved as CSV, or some of its rows, it is a list of films for `data.exclude` of a protocol. Of
    films of one patient with one picture the first is not listed; where two patients share a
    picture, whose it is cannot be known, and all are.
    """
    films = measured.assign(
        what=np.where(measured["twin_pixels"], "pixels", "picture"),
        strangest=np.maximum(measured["unlike"], measured["strange"]),
    )
    pieces = []
    for name, (found, value, text) in PROBLEMS.items():
        rows = films.loc[found(films)]
        reason = [text.format_map(row) for row in rows.to_dict("records")]
        piece = rows.assign(problem=name, value=rows[value].astype(float))
        pieces.append(piece.assign(reason=pd.Series(reason, index=rows.index, dtype="str")))
    return pd.DataFrame(pd.concat(pieces, ignore_index=True), columns=list(LISTED))


def quality_counts(table: pd.DataFrame, *, films: int, side: int) -> pd.DataFrame:
    """Return how many films and patients have each problem, and ANY, and the share of `films`.

    Problems that are not looked for at `side` pixels have no row.
    """
    rows = []
    off = switched_off(side).partition(":")[0]
    for name in (*(one for one in PROBLEMS if one != off), ANY):
        mine = table if name == ANY else table.loc[table["problem"] == name]
        count = mine["image"].nunique()
        share = count / films if films else np.nan
        rows.append((name, count, mine["patient"].nunique(), share))
    return pd.DataFrame(rows, columns=list(COUNTED))


def structure(films: Films) -> Float64[np.ndarray, " n"]:
    """Return the standard deviation of grey (0..1) of each film reduced to 32 x 32 pixels.

    A film of noise is flat, too.
    """
    side = (COARSE, COARSE)
    small = np.stack([cv2.resize(film, side, interpolation=cv2.INTER_AREA) for film in films])
    return small.reshape(len(films), -1).std(axis=1, dtype=np.float64) / WHITE


def border(films: Films) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the share of each frame that is empty border, and the border's mean grey, 0..1.

    The border is all rows and columns, from the edges inwards, without structure: EVEN_SHARE of
    their pixels are within EVEN_STEP of the next one (not equal, for CLAHE shades an empty area).
    The grey is NaN without a border.
    """
    across = _even(films[:, :, 1:], films[:, :, :-1]).mean(axis=2) >= EVEN_SHARE
    down = _even(films[:, 1:], films[:, :-1]).mean(axis=1) >= EVEN_SHARE
    top, bottom, left, right = (  # how many lines hold before the first that does not
        np.where(lines.all(axis=1), lines.shape[1], lines.argmin(axis=1))
        for lines in (across, across[:, ::-1], down, down[:, ::-1])
    )
    area, inside, within = films[0].size, np.zeros(len(films)), np.zeros(len(films))
    for row, film in enumerate(films):
        picture = film[top[row] : len(film) - bottom[row], left[row] : len(film) - right[row]]
        inside[row], within[row] = picture.size, picture.sum(dtype=np.int64)
    grey = ratio(films.sum(axis=(1, 2), dtype=np.int64) - within, area - inside) / WHITE
    return 1 - inside / area, grey


def writing(films: Films) -> Float64[np.ndarray, " n"]:
    """Return how dense strokes are in the densest patch of the size of a line of writing, 0..1.

    A stroke is a bright pixel (STROKE_GREY) with a step of STROKE_STEP from left to right. So dark
    writing, writing down the film and faint writing are not seen, nor is writing that the prepared
    size blurs; wires and clips may be taken for it, and single letters (L, R) are too few strokes.
    """
    side = films.shape[1]
    patch = (max(1, round(side / LINE_WIDE)), max(1, round(side / LINE_HIGH)))
    dense = np.empty(len(films))
    for row, film in enumerate(films):
        step = np.abs(cv2.Sobel(film, cv2.CV_16S, 1, 0, ksize=1))
        bright = cv2.dilate(film, STROKE_NEAR) >= STROKE_GREY
        stroke = ((step >= STROKE_STEP) & bright).astype(np.float32)
        dense[row] = cv2.boxFilter(stroke, -1, patch, borderType=cv2.BORDER_CONSTANT).max()
    return dense


def _orientation(edge: Float32[np.ndarray, "n d"], measured: pd.DataFrame) -> pd.DataFrame:
    """Return pose, margin, mirrored, unlike, strange and note, a row a film."""
    seen = np.flatnonzero(measured["structure"] >= FLATTEST)
    patient = measured["patient"].to_numpy()[seen]
    found = estimate_orientation(edge[seen], patient=patient)
    names = np.array([*POSES, UNKNOWN])
    owners = counted(len(np.unique(patient)), "patient")
    few = f"{counted(len(seen), 'film')} of {owners}"
    note = f"pose not estimated: {few}, expected {FEWEST} of {FOLDS} at least"
    table = pd.DataFrame({**found._asdict(), "pose": names[found.pose]}, index=seen)
    table = table.assign(note=np.where(found.pose >= 0, "", note)).reindex(range(len(measured)))
    return table.fillna({"pose": UNKNOWN, "note": "pose not estimated: blank"})


def _twins(prepared: Prepared) -> pd.DataFrame:
    """Return twin, twin_of, twin_correlation and twin_pixels, a row a film."""
    image, patient = prepared.manifest.image, prepared.manifest.patient
    pairs = near_identical(prepared, side=np.arange(len(image)), distance=BITS_APART, least=ALIKE)
    one, other = (pd.Index(image).get_indexer(pd.Index(pairs[name])) for name in ("image", "other"))
    pair = pd.DataFrame({"film": other, "twin": one, "twin_correlation": pairs["correlation"]})
    pair["own"] = patient[one] == patient[other]
    turned = pair.loc[~pair["own"]].rename(columns={"film": "twin", "twin": "film"})
    both = pd.concat([pair, turned]).sort_values(["film", "own", "twin"])
    first = both.drop_duplicates("film").set_index("film")
    twin = first["twin"].to_numpy()
    same = [
        bool(np.array_equal(prepared.pixels[a], prepared.pixels[b]))
        for a, b in zip(first.index, twin, strict=True)
    ]
    named = {"twin": image[twin], "twin_of": np.where(first["own"], SAME, OTHER)}
    table = first.assign(**named, twin_pixels=np.array(same, dtype=bool))
    filled = {"twin": "", "twin_of": "", "twin_pixels": False}
    return table.reindex(range(len(image))).fillna(filled).astype({"twin_pixels": bool})


def _blocks(rows: Int64[np.ndarray, " m"]) -> Iterator[Int64[np.ndarray, " b"]]:
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]


def _even(one: UInt8[np.ndarray, "n h w"], other: UInt8[np.ndarray, "n h w"]) -> np.ndarray:
    return np.maximum(one, other) - np.minimum(one, other) <= EVEN_STEP


_TWIN = "the same {what} as {twin} of {twin_of}, correlation {twin_correlation:.4f}"
_POSE = "{pose}: fits so by {margin:.2f} more"
# By name: which of the measured films have it, the column of its size, a reason of the columns.
PROBLEMS: dict[str, tuple[Callable[[pd.DataFrame], Any], str, str]] = {
    "duplicate": (lambda films: films["twin_of"] == SAME, "twin_correlation", _TWIN),
    "shared": (lambda films: films["twin_of"] == OTHER, "twin_correlation", _TWIN),
    "blank": (
        lambda films: films["structure"] < FLATTEST,
        "structure",
        "flat: a standard deviation of grey of {structure:.3f}",
    ),
    "border": (
        lambda films: (films["border"] > WIDEST_BORDER) & (films["structure"] >= FLATTEST),
        "border",
        "{border:.0%} of the frame is empty border, of grey {border_grey:.2f} (0 is black)",
    ),
    "inverted": (lambda films: films["pose"].isin(POSES[TURNS:]), "margin", _POSE),
    "turned": (
        lambda films: films["pose"].isin(POSES[1:TURNS] + POSES[TURNS + 1 :]),
        "margin",
        _POSE,
    ),
    "mirrored": (  # flipped, or the heart is
        lambda films: (films["mirrored"] > LIKELY) & (films["pose"] == UPRIGHT),
        "mirrored",
        "left and right exchanged: {mirrored:.0%} sure",
    ),
    "strange": (  # perhaps no chest: unlike the others in any pose
        lambda films: (films["unlike"] > MOST_UNLIKE) | (films["strange"] > MOST_STRANGE),
        "strangest",
        "unlike a chest by {unlike:.1f}, not explained by {strange:.1f} (modified z)",
    ),
    "writing": (  # a line of bright writing, or a label burnt in
        lambda films: films["writing"] > DENSEST,
        "writing",
        "a patch like writing: {writing:.0%} of it bright strokes",
    ),
}
