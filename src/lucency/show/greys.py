"""The grey levels of one film before and after preparation: histograms and their cumulative lines.

Letters in shapes: h and w pixels.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64, UInt8
from matplotlib.figure import Figure

from lucency.show.canvas import AFTER, BEFORE, SETTINGS, svg

LEVELS, BINS = 256, 64
SIDE = 2.9  # inches


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
        figure = Figure(figsize=(SIDE, SIDE))
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
