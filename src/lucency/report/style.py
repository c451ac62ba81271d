"""The style of all figures: colours, sizes, line styles, and figures as SVG text for a page.

The same tables give the same bytes. Text stays text, in the font of the page, and ids carry the
name of the figure, so that several figures share one page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 9.6  # inches
INK, MUTED, HAIRLINE = "#1d2730", "#5c6873", "#dde4e9"
BEFORE, AFTER = "#a9bac6", "#0072B2"


class Style(NamedTuple):
    """How one network is drawn, in every figure and beside its name."""

    colour: str
    marker: str
    line: str


def style_networks(networks: Sequence[str]) -> dict[str, Style]:
    """Return a style for each network: seven colours, then the same with other marks and lines.

    The colours are those that colour-blind readers tell apart, without the yellow, which is too
    faint on white. Okabe and Ito, *Color Universal Design* (2008).
    """
    rounds = [divmod(number, len(COLOURS)) for number in range(len(networks))]
    styles = [Style(COLOURS[hue], *SHAPES[turn % len(SHAPES)]) for turn, hue in rounds]
    return dict(zip(networks, styles, strict=True))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure, from the top."""
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def svg(figure: Figure, *, name: str, title: str) -> str:
    """Return a figure as SVG text with a title for the blind and ids that carry `name`."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    body = file.getvalue().partition("<svg ")[2]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    size, end, drawing = body.partition(">")
    size = re.sub(r'(width|height)="[^"]*" ', "", size)
    return f'<svg role="img" {size}{end}<title>{escape(title)}</title>{drawing}'


def standalone_svg(drawing: str) -> str:
    """Return a figure of `svg` as a file of its own, on a white background."""
    return drawing.replace("<svg ", '<svg style="background:white;font-family:sans-serif" ', 1)


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PLAIN = Style(MUTED, "o", ":")  # the trivial predictor
SHAPES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"))
SETTINGS: Any = {  # matplotlib's own names
    "axes.axisbelow": True, "axes.edgecolor": MUTED, "axes.grid": True, "axes.labelcolor": MUTED,
    "axes.labelsize": 9, "axes.linewidth": 0.6, "axes.spines.right": False,
    "axes.spines.top": False, "axes.titlecolor": INK, "axes.titlesize": 9,
    "figure.constrained_layout.use": True, "figure.labelsize": 9, "font.size": 9,
    "grid.color": HAIRLINE, "grid.linewidth": 0.6, "legend.frameon": False,
    "lines.linewidth": 1.6, "lines.markersize": 5, "svg.fonttype": "none",
    "svg.hashsalt": "lucency", "text.color": INK, "text.parse_math": False, "xtick.color": MUTED,
    "xtick.labelsize": 8.5, "ytick.color": INK, "ytick.labelsize": 8.5,
}  # fmt: skip
