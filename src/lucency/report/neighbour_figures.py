"""The figure of similar films: a query and its results by similarity, with their labels.

Findings that the query has are marked by a filled disc and bold letters, others by a ring, so that
marks are read without colours. Letters in shapes: h and w pixels, k findings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from lucency.report.film_figures import UNSTATED, findings_of
from lucency.report.rendering import AFTER, INK, MUTED, NOTICE, WIDTH, shrink, styled

ACROSS = 5  # results of a row
SIDE, LARGE = 224, 448  # pixels of the longer side of a result, and of the query
HIGH, LEAST = 2.1, 4.1  # inches of a result without labels, and of the query
LINES = 0.17  # inches of a label's line
FOOT = 0.5  # inches
LINE = 1.4  # height of a label's line, in that of its letters
LETTERS = 24  # of a name's line
SHARED, OTHER = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}"
Film = UInt8[np.ndarray, "h w"]


class SimilarFilm(NamedTuple):
    """A film to show: its name, its grey picture, and its labels (1, 0 or NaN)."""

    image: str
    film: Film
    label: Float32[np.ndarray, " k"]


@styled
def similar_figure(
    query: SimilarFilm,
    answers: Sequence[SimilarFilm],
    *,
    similarity: Sequence[float],
    findings: tuple[str, ...],
    requested: int,
    note: str,
) -> Figure:
    """Return the query on the left and its results, best first, in rows of five.

    `requested` is the number of results wanted; where there are fewer, the title gives both. `note`
    goes below the figure: the films that were searched.
    """
    rows = max(1, math.ceil(len(answers) / ACROSS))
    figure = Figure(figsize=(1.25 * WIDTH, _height(query, answers, rows)))
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 2.6))
    left, right = (figure.add_subfigure(grid[place]) for place in range(2))
    _query(left, query, findings)
    panels = right.subplots(rows, ACROSS, squeeze=False).ravel()
    for axes in panels[len(answers) :]:
        axes.set_axis_off()
    ranked = zip(panels, answers, similarity, strict=False)
    for place, (axes, answer, alike) in enumerate(ranked, start=1):
        _film(axes, answer.film, side=SIDE)
        axes.set_title(f"{place}.  {alike:.3f}\n{_short(answer.image)}", fontsize=8)
        _labels(axes, _marked(answer.label, query.label, findings), size=7.5)
    right.suptitle(_title(len(answers), requested), fontsize=9, color=INK)
    figure.supxlabel(f"{note[:1].upper()}{note[1:]}. {NOTICE}", fontsize=8, color=MUTED)
    return figure


def _height(query: SimilarFilm, answers: Sequence[SimilarFilm], rows: int) -> float:
    """Return the inches that films and labels need; the query's have a key of three lines below."""
    most = max([1, *(int((answer.label == 1).sum()) for answer in answers)])
    mine = max(1, int((query.label == 1).sum())) + 3
    return FOOT + max(LEAST + LINES * mine, rows * (HIGH + LINES * most))


def _query(panel: SubFigure, query: SimilarFilm, findings: tuple[str, ...]) -> None:
    panel.suptitle("query", fontsize=9, color=INK)
    axes = panel.subplots()
    _film(axes, query.film, side=LARGE)
    axes.set_title(_short(query.image), fontsize=8)
    marked = _marked(query.label, query.label, findings)
    key = [("", ""), ("", f"{SHARED} also in the query"), ("", f"{OTHER} not in the query")]
    _labels(axes, [*marked, *key], size=8.5)


def _film(axes: Axes, film: Film, *, side: int) -> None:
    axes.imshow(shrink(film, side=side), cmap="gray", vmin=0, vmax=255)
    axes.set_anchor("N")
    axes.set_axis_off()


def _labels(axes: Axes, lines: Sequence[tuple[str, str]], *, size: float) -> None:
    """Write the labels below a film: those shared in bold and in colour, each after its mark."""
    for number, (mark, words) in enumerate(lines):
        look: Any = {"weight": "bold", "color": AFTER} if mark == SHARED else {"color": MUTED}
        look |= {"size": size, "va": "top", "xycoords": "axes fraction"}
        look |= {"xytext": (0, -size * (0.5 + LINE * number)), "textcoords": "offset points"}
        axes.annotate(f"{mark} {words}".strip(), (0, 0), **look)


def _marked(
    label: Float32[np.ndarray, " k"], other: Float32[np.ndarray, " k"], findings: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Return the marks and names of a film's labels; films without any finding share No Finding."""
    theirs = findings_of(other, findings)
    return [
        ("" if name == UNSTATED else SHARED if name in theirs else OTHER, name.replace("_", " "))
        for name in findings_of(label, findings)
    ]


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"…{name[-LETTERS:]}"


def _title(answers: int, requested: int) -> str:
    if not answers:
        return "similar films: none, the index holds no other film"
    fewer = f" of {requested} requested" if answers < requested else ""
    return f"similar films: {answers}{fewer}; rank and cosine similarity above each"
