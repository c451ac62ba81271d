"""Reliability diagrams: the share of positives against the predicted probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lucency.evaluation.evaluate import MICRO
from lucency.report.style import MUTED, SETTINGS, WIDTH, Style, svg

POOLED_COLUMNS, FINDING_COLUMNS = 4, 5
SMALLEST, LARGEST = 6.0, 60.0  # area of a dot, in points squared


class Panel(NamedTuple):
    """One diagram: its title, its rows of the table, its colour."""

    title: str
    rows: pd.DataFrame
    colour: str


def draw_pooled(reliability: pd.DataFrame, *, style: Mapping[str, Style]) -> str:
    """Return a reliability diagram a network, pooled over all pairs of film and finding.

    `reliability` is the table of `evaluation.calibration.reliability_table`. A dot is a bin of
    probability, its area grows with the films in the bin; below stand these counts.
    """
    table = reliability.loc[reliability["finding"] == MICRO]
    panels = [
        Panel(name, table.loc[table["network"] == name], one.colour) for name, one in style.items()
    ]
    title = "Reliability by network, all findings pooled"
    return _draw(panels, columns=POOLED_COLUMNS, name="reliability", title=title)


def draw_each_finding(
    reliability: pd.DataFrame, *, network: str, findings: Sequence[str], style: Style
) -> str:
    """Return a small reliability diagram for each finding, of one network."""
    table = reliability.loc[reliability["network"] == network]
    panels = [Panel(one, table.loc[table["finding"] == one], style.colour) for one in findings]
    title = f"Reliability of {network} by finding"
    return _draw(panels, columns=FINDING_COLUMNS, name="reliabilities", title=title)


def _draw(panels: Sequence[Panel], *, columns: int, name: str, title: str) -> str:
    lines = -(-len(panels) // columns)
    films = [panel.rows["films"].to_numpy(dtype=np.int64) for panel in panels]
    most = max(int(count.max(initial=0)) for count in films)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.35 * WIDTH / columns * lines))
        grid = figure.add_gridspec(2 * lines, columns, height_ratios=[3.4, 1] * lines)
        for number, (panel, count) in enumerate(zip(panels, films, strict=True)):
            line, column = divmod(number, columns)
            above = figure.add_subplot(grid[2 * line, column], title=panel.title)
            below = figure.add_subplot(grid[2 * line + 1, column], sharex=above)
            _frame(above, below, most=most)
            if count.any():
                _dots(above, panel)
                _bars(below, panel)
            else:
                above.text(0.5, 0.5, "no film", ha="center", va="center", color=MUTED)
        return svg(figure, name=name, title=title)


def _frame(above: Axes, below: Axes, *, most: int) -> None:
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    above.set_xticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    above.set_yticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    above.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
    below.set_yscale("log")
    below.set_ylim(0.7, max(10, 2 * most))
    ticks = [10**power for power in range(0, len(str(most)), 2)]
    below.set_yticks(ticks, labels=[f"{count:,}" for count in ticks])
    below.minorticks_off()
    above.set_ylabel("Share of positives")
    below.set(xlabel="Mean probability", ylabel="Films")
    for axes in (above, below):
        axes.label_outer()


def _dots(axes: Axes, panel: Panel) -> None:
    seen = panel.rows.loc[panel.rows["films"] > 0]
    mean, films = seen["mean_probability"], seen["films"].to_numpy(dtype=np.float64)
    area = SMALLEST + (LARGEST - SMALLEST) * films / films.max()
    axes.vlines(mean, seen["share_low"], seen["share_high"], color=panel.colour, alpha=0.5)
    axes.plot(mean, seen["share"], color=panel.colour, linewidth=0.8, alpha=0.4)
    axes.scatter(mean, seen["share"], s=area, color=panel.colour, clip_on=False, zorder=3)


def _bars(axes: Axes, panel: Panel) -> None:
    edges = [*panel.rows["low_edge"], panel.rows["high_edge"].iloc[-1]]
    axes.stairs(panel.rows["films"], edges, fill=True, color=panel.colour, alpha=0.55)
