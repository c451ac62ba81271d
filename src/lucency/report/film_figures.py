"""Films of a report as pictures: before and after preprocessing, augmented, and with predictions.

Pictures become data URIs, so that the page needs no other file.
Letters in shapes: n films, k findings, h and w pixels, g pixels of a network's input, c colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, UInt8
from matplotlib.figure import Figure

from lucency.core.manifest import NO_FINDING, Prepared
from lucency.core.plan import COPY_MARK
from lucency.core.predictions import Predictions
from lucency.core.progress import say
from lucency.data.dicom import GreyFilm
from lucency.data.film_files import film_exists, in_reading_order
from lucency.data.images import read_film
from lucency.data.preprocess import prepare_film
from lucency.report.rendering import AFTER, BEFORE, jpeg_uri, styled, svg

SIDE = 320  # pixels of a shown film's longer side
LISTED = 5  # findings named beside a sample film
UNSTATED = "not stated"
LEVELS, BINS = 256, 64
GREYS_SIDE = 2.9  # inches


class Thumbnail(NamedTuple):
    """A picture on the page, with its alternative text."""

    caption: str
    alt: str
    uri: str


class Outcome(NamedTuple):
    """The prediction of one finding of one film, and its label (1, 0 or NaN)."""

    finding: str
    label: float
    probability: float
    threshold: float
    decided: bool


def show_augmented(augmented: Sequence[tuple[str, np.ndarray]]) -> list[Thumbnail]:
    """Return the gallery of (caption, uint8 picture)."""
    return [
        Thumbnail(name, f"Film: {name}", jpeg_uri(picture, side=SIDE))
        for name, picture in augmented
    ]


def show_preparation(prepared: Prepared, *, films: int, seed: int) -> list[dict[str, Any]]:
    """Return films sampled with `seed`: pictures, histogram of grey levels, and its caption.

    The pictures are the original, preprocessed, and as network input. Films whose file is no longer
    at its path are left out; the list may be short, or empty, as where a store fails.
    """
    facts = prepared.manifest.facts
    path = facts["path"].to_list() if "path" in facts else [""] * len(facts)
    drawn = np.random.default_rng(seed).permutation(len(facts))
    try:
        there = sorted([row for row in drawn if film_exists(path[row])][:films])
    except ValueError as error:  # of a store: the films are prepared, the report needs no more
        say(f"The report shows no preparation of films: {error}")
        return []
    files = in_reading_order([path[row] for row in there])
    film = {number: read_film(file, bits=prepared.preparation.bits) for number, file in files}
    return [
        _strip(prepared, int(row), film[number], number=number) for number, row in enumerate(there)
    ]


def _strip(prepared: Prepared, row: int, film: GreyFilm, *, number: int) -> dict[str, Any]:
    name, size = str(prepared.manifest.image[row]), prepared.preparation.size
    large = prepared.preparation.model_copy(update={"size": SIDE})
    grey, seen = film.grey, np.asarray(prepared.pixels[row])
    height, width = grey.shape
    larger = prepare_film(grey, padded=film.padded, preparation=large)
    views = (
        (f"{name}, {width} x {height} px", "before preprocessing", grey),
        (f"preprocessed, at {SIDE} px", "after preprocessing", larger),
        (f"network input, {size} x {size} px", "as network input", seen),
    )
    pictures = [
        Thumbnail(caption, f"{name} {state}", jpeg_uri(picture, side=SIDE))
        for caption, state, picture in views
    ]
    mean, spread = ([f"{of(one):.0f}" for one in (grey, seen)] for of in (np.mean, np.std))
    caption = f"mean {mean[0]} → {mean[1]}, standard deviation {spread[0]} → {spread[1]}"
    histogram = draw_histogram(grey, seen, name=name, number=number)
    return {"pictures": pictures, "histogram": histogram, "caption": caption}


@styled
def draw_histogram(
    found: UInt8[np.ndarray, "h w"], seen: UInt8[np.ndarray, "g g"], *, name: str, number: int
) -> str:
    """Return the grey-level histograms of the original and of the network input, and their sums.

    `name` is the film's, for the title; `number` keeps the ids of several figures apart.
    """
    figure = Figure(figsize=(GREYS_SIDE, GREYS_SIDE))
    axes = figure.add_subplot()
    sums = axes.twinx()
    for label, picture, colour in (("original", found, BEFORE), ("network input", seen, AFTER)):
        count, edges = np.histogram(picture, bins=BINS, range=(0, LEVELS))
        share = 100 * (count / picture.size)
        axes.stairs(share, edges, fill=colour == BEFORE, color=colour, label=label)
        sums.plot(edges, np.r_[0, share.cumsum()], color=colour, linestyle=":", linewidth=1.2)
    axes.set(xlim=(0, LEVELS), xticks=(0, 128, 255), xlabel="Grey level", ylabel="% of pixels")
    axes.set_ylim(bottom=0)
    sums.set(ylim=(0, 102), ylabel="Cumulative % (dotted)")
    sums.grid(visible=False)
    title = f"{name}: grey-level histograms of the original and of the network input"
    return svg(figure, name=f"greys-{number}", title=title)


def show_samples(
    test: Predictions,
    *,
    prepared: Prepared,
    threshold: Float64[np.ndarray, " k"],
    films: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return test films in four groups, at most `films` of each, sampled with `seed`.

    A group has title, films (how many there are) and samples, each with picture and outcomes: all
    findings that are labelled or predicted, and five at least. A film is in the first group that
    applies: a false negative, a false positive, all findings true positives, all true negatives.
    Decisions are probability >= threshold; findings whose label is not stated count neither way.
    """
    place = pd.Index(prepared.manifest.image)
    random = np.random.default_rng(seed)
    groups = []
    for title, mask in _group(test, test.probability >= threshold).items():
        rows = np.flatnonzero(mask)
        samples = []
        for row in random.permutation(rows)[:films].tolist():
            name = str(test.image[row])
            film = name if name in place else name.rpartition(COPY_MARK)[0]  # its source
            pixels = np.asarray(prepared.pixels[place.get_loc(film)])
            outcomes = outcomes_of(test, row, threshold)
            positive = sum(one.label == 1 or one.decided for one in outcomes)
            truth = ", ".join(one.finding for one in outcomes if one.label == 1) or "none"
            alt = f"Test film {name}; ground truth: {truth}"
            picture = Thumbnail(name, alt, jpeg_uri(pixels, side=SIDE))
            shown = outcomes[: max(LISTED, positive)]
            samples.append({"picture": picture, "outcomes": shown})
        groups.append({"title": title, "films": len(rows), "samples": samples})
    return groups


def outcomes_of(
    predictions: Predictions, row: int, threshold: Float64[np.ndarray, " k"]
) -> list[Outcome]:
    """Return the predictions of one film: labelled findings, then other positive ones, then all."""
    probability, label = predictions.probability[row].tolist(), predictions.label[row].tolist()
    columns = zip(predictions.findings, label, probability, threshold.tolist(), strict=True)
    outcomes = (Outcome(*one, decided=one[2] >= one[3]) for one in columns)
    return sorted(outcomes, key=lambda one: (one.label != 1, not one.decided, -one.probability))


def findings_of(label: Float32[np.ndarray, " k"], findings: tuple[str, ...]) -> list[str]:
    """Return the findings of a film; of one without, No Finding or that it is not stated."""
    present = [findings[place] for place in np.flatnonzero(label == 1)]
    return present or [NO_FINDING if (label == 0).all() else UNSTATED]


def _group(
    test: Predictions, decided: Bool[np.ndarray, "n k"]
) -> Mapping[str, Bool[np.ndarray, " n"]]:
    present = test.label == 1
    missed = (present & ~decided).any(axis=1)
    alarm = (decided & (test.label == 0)).any(axis=1) & ~missed
    right = present.any(axis=1) & ~missed & ~alarm
    nothing = ~(missed | alarm | right)
    names = ("False negatives", "False positives", "True positives only", "True negatives only")
    return dict(zip(names, (missed, alarm, right, nothing), strict=True))
