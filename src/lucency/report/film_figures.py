"""The grey levels of one film before and after preparation: histograms and their cumulative lines.

Letters in shapes: h and w pixels.

The films of a report: before and after preparation, augmented, and judged right or wrong.

Pictures become data URIs, so that the page needs no other file.
Letters in shapes: n films, k findings, h and w pixels, c colours.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, UInt8
from matplotlib.figure import Figure

from lucency.core.manifest import Prepared
from lucency.core.predictions import Predictions
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film
from lucency.report.style import AFTER, BEFORE, SETTINGS, svg

LEVELS, BINS = 256, 64
GREYS_SIDE = 2.9  # inches


def draw_greys(
    found: UInt8[np.ndarray, "h w"], seen: UInt8[np.ndarray, "g g"], *, name: str, number: int
) -> str:
    """Return the share of pixels by grey level, as found and as networks see it, and their sums.

    `name` is the film's, for those who cannot see the figure; `number` tells figures of one page
    apart.
    """
    edges = np.linspace(0, LEVELS, BINS + 1)
    sides = (("as found", found, BEFORE), ("as networks see it", seen, AFTER))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(GREYS_SIDE, GREYS_SIDE))
        axes = figure.add_subplot()
        sums = axes.twinx()
        for label, picture, colour in sides:
            share = 100 * grey_shares(picture)
            filled = colour == BEFORE
            axes.stairs(share, edges, fill=filled, color=colour, label=label)
            sums.plot(edges, np.r_[0, share.cumsum()], color=colour, linestyle=":", linewidth=1.2)
        axes.set_xlim(0, LEVELS)
        axes.set_xticks((0, 128, 255))
        axes.set_ylim(bottom=0)
        sums.set_ylim(0, 102)
        sums.grid(visible=False)
        axes.set_xlabel("Grey level")
        axes.set_ylabel("% of pixels")
        sums.set_ylabel("% as dark or darker (dotted)")
        title = f"{name}: grey levels as found and as networks see it"
        return svg(figure, name=f"greys-{number}", title=title)


def grey_shares(picture: UInt8[np.ndarray, "h w"]) -> Float64[np.ndarray, " _"]:
    """Return the share of pixels in each of BINS equal steps of the 256 grey levels, from black."""
    count = np.bincount(picture.ravel(), minlength=LEVELS)
    return count.reshape(BINS, LEVELS // BINS).sum(axis=1) / picture.size


SIDE = 320  # pixels of a shown film's longer side
QUALITY = 85  # of JPEG
LISTED = 5  # findings named beside a sample film


class Picture(NamedTuple):
    """A picture on the page; `says` describes it to those who cannot see it."""

    caption: str
    says: str
    uri: str


class Strip(NamedTuple):
    """One film as found, prepared and as networks see it, and an SVG figure of its grey levels."""

    pictures: list[Picture]
    greys: str
    caption: str


class Outcome(NamedTuple):
    """What a network said of one finding of one film, and what the label says (1, 0 or NaN)."""

    finding: str
    label: float
    probability: float
    threshold: float
    decided: bool


class Sample(NamedTuple):
    """A test film and the findings that matter in it."""

    image: str
    picture: Picture
    verdicts: list[Outcome]


class SampleGroup(NamedTuple):
    """Test films of one kind: how many there are of how many, and those drawn."""

    title: str
    films: int
    total: int
    samples: list[Sample]


def encode_picture(picture: UInt8[np.ndarray, "h w *c"]) -> str:
    """Return the picture as a JPEG data URI, its longer side at most 320 pixels."""
    shrink = SIDE / max(picture.shape[:2])
    if shrink < 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def show_augmented(augmented: Sequence[tuple[str, np.ndarray]]) -> list[Picture]:
    """Return the gallery of (caption, uint8 picture)."""
    return [Picture(name, f"Film: {name}", encode_picture(picture)) for name, picture in augmented]


def show_preparation(prepared: Prepared, *, films: int, seed: int) -> list[Strip]:
    """Return films drawn with `seed`: each as found, as prepared, and as networks see it.

    Only films whose file is still where it was read are drawn; the list may so be short or empty.
    """
    facts = prepared.manifest.facts
    path = facts["path"].to_list() if "path" in facts else [""] * len(facts)
    drawn = np.random.default_rng(seed).permutation(len(facts))
    there = [row for row in drawn if Path(path[row]).is_file()][:films]
    return [
        _strip(prepared, int(row), read_grey(Path(path[row])), number=number)
        for number, row in enumerate(sorted(there))
    ]


def _strip(prepared: Prepared, row: int, grey: UInt8[np.ndarray, "h w"], *, number: int) -> Strip:
    name, size = str(prepared.manifest.image[row]), prepared.preparation.size
    large = prepared.preparation.model_copy(update={"size": SIDE})
    height, width = grey.shape
    seen = np.asarray(prepared.pixels[row])
    pictures = [
        Picture(f"{name}, {width} x {height} px", f"{name} before preparation",
                encode_picture(grey)),
        Picture(f"prepared, at {SIDE} px", f"{name} after preparation",
                encode_picture(prepare_film(grey, preparation=large))),
        Picture(f"as a network sees it, {size} x {size} px", f"{name} as a network sees it",
                encode_picture(seen)),
    ]  # fmt: skip
    mean, spread = ([f"{of(one):.0f}" for one in (grey, seen)] for of in (np.mean, np.std))
    caption = f"mean {mean[0]} → {mean[1]}, standard deviation {spread[0]} → {spread[1]}"
    return Strip(pictures, draw_greys(grey, seen, name=name, number=number), caption)


def show_samples(
    predictions: Predictions,
    *,
    prepared: Prepared,
    threshold: Float64[np.ndarray, " k"],
    films: int,
    seed: int,
) -> list[SampleGroup]:
    """Return test films in four groups, at most `films` of each, drawn with `seed`.

    A film stands in the first group that fits: a finding missed, a false alarm, all findings
    right, rightly nothing found. Decisions are probability >= threshold; findings whose label is
    not stated count neither way.
    """
    test = predictions.of("test")
    place = pd.Index(prepared.manifest.image)
    random = np.random.default_rng(seed)
    groups = []
    for title, mask in _sorted_out(test, test.probability >= threshold).items():
        rows = np.flatnonzero(mask)
        drawn = random.permutation(rows)[:films]
        samples = [_sample(test, int(row), prepared, place, threshold) for row in drawn]
        groups.append(SampleGroup(title, len(rows), len(test), samples))
    return groups


def outcomes_of(said: Predictions, row: int, threshold: Float64[np.ndarray, " k"]) -> list[Outcome]:
    """Return what was said of one film: true findings first, then those called, then others."""
    probability, label = said.probability[row].tolist(), said.label[row].tolist()
    columns = zip(said.findings, label, probability, threshold.tolist(), strict=True)
    return sorted((Outcome(*one, decided=one[2] >= one[3]) for one in columns), key=_matter)


def _sorted_out(
    test: Predictions, decided: Bool[np.ndarray, "n k"]
) -> Mapping[str, Bool[np.ndarray, " n"]]:
    present = test.label == 1
    missed = (present & ~decided).any(axis=1)
    alarm = (decided & (test.label == 0)).any(axis=1) & ~missed
    right = present.any(axis=1) & ~missed & ~alarm
    nothing = ~(missed | alarm | right)
    names = ("Wrong: a finding missed", "Wrong: a false alarm", "Right: every finding named",
             "Right: nothing to find, nothing found")  # fmt: skip
    return dict(zip(names, (missed, alarm, right, nothing), strict=True))


def _sample(
    test: Predictions,
    row: int,
    prepared: Prepared,
    place: pd.Index,
    threshold: Float64[np.ndarray, " k"],
) -> Sample:
    name = str(test.image[row])
    film = name if name in place else name.rpartition("#")[0]  # a copy shows its source
    verdicts = outcomes_of(test, row, threshold)
    certain = sum(verdict.label == 1 or verdict.decided for verdict in verdicts)
    shown = verdicts[: max(LISTED, certain)]
    truth = ", ".join(v.finding for v in verdicts if v.label == 1) or "none"
    uri = encode_picture(np.asarray(prepared.pixels[place.get_loc(film)]))
    return Sample(name, Picture(name, f"Test film {name}; true findings: {truth}", uri), shown)


def _matter(verdict: Outcome) -> tuple[bool, bool, float]:
    """Sort true findings first, then those decided, then by falling probability."""
    return verdict.label != 1, not verdict.decided, -verdict.probability
