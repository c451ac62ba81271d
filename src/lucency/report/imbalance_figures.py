"""Figures of class balance: counts, steps of balancing, co-occurrence, origin of the entries.

Letters in shapes: k findings.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lucency.balance.imbalance import SIGNS, Change
from lucency.core.manifest import NO_FINDING
from lucency.report.rendering import AFTER, BEFORE, MUTED, WIDTH, name_rows, styled, svg

DROPPED = "#D55E00"
ORIGINS = {"originals": BEFORE, "copies": AFTER, "mixed": "#D55E00"}
THOUSANDS, ROOM = "{x:,.0f}", 1.2
WRITTEN = 30  # findings between which shares are written, at most
CELL = 0.15  # inches of a cell, at least
DARK = 0.5  # a share from which text on a cell must be white


@styled
def draw_balancing(change: Change) -> str:
    """Return the figure of `draw_counts` above that of `draw_steps`.

    Of a method that is a single step, the counts alone.
    """
    rows, steps = finding_rows(change), change.steps
    if not has_steps(steps):
        return draw_counts(change)
    heights = (_height(rows), _steps_height(steps))
    figure = Figure(figsize=(WIDTH, sum(heights)))
    above, below = figure.subplots(2, 1, height_ratios=heights)
    _counts(above, rows, change)
    _steps(below, steps)
    return svg(figure, name="balancing", title="Counts before and after balancing, and by step")


@styled
def draw_counts(change: Change) -> str:
    """Return bars of each finding's films and its IRLbl, before and after balancing.

    After balancing films count by their weight in the loss. No Finding has a bar and its share
    whether or not it is an output; the totals are above the bars.
    """
    rows = finding_rows(change)
    figure = Figure(figsize=(WIDTH, _height(rows)))
    _counts(figure.add_subplot(), rows, change)
    title = f"Films by finding, of {change.population}, before and after balancing"
    return svg(figure, name="counts", title=title)


@styled
def draw_steps(steps: pd.DataFrame) -> str:
    """Return bars of the entries after each step of balancing, with what it dropped and added.

    `steps` has the columns of balance.imbalance.
    """
    figure = Figure(figsize=(WIDTH, _steps_height(steps)))
    _steps(figure.add_subplot(), steps)
    return svg(figure, name="steps", title="Entries after each step of balancing")


def has_steps(steps: pd.DataFrame) -> bool:
    """Return whether balancing had several steps, or one of a single finding."""
    return len(steps) > 2 or bool((steps["finding"] != "").any())


def finding_rows(change: Change) -> pd.DataFrame:
    """Return `change.counts`, No Finding last where it is no output, with two columns more.

    share_before and share_after are those of No Finding in all entries, NaN for all others.
    """
    totals = change.totals.set_index("when")
    rows = change.counts
    if NO_FINDING not in set(rows["finding"]):
        none = totals["no_finding"].to_dict()
        rows = pd.concat([rows, pd.DataFrame([{"finding": NO_FINDING, **none}])], ignore_index=True)
    mine = rows["finding"] == NO_FINDING
    shares = {f"share_{k}": np.where(mine, totals["share"][k], np.nan) for k in totals.index}
    return rows.assign(**shares)


@styled
def draw_cooccurrence(shares: Mapping[str, Float64[np.ndarray, "k k"]], names: list[str]) -> str:
    """Return a panel for each title: share of films with the row's finding that have the column's.

    Rows and columns are in the order of `names`; the shares are written where these are few.
    """
    side = max(WIDTH / max(2, len(shares)), CELL * len(names))
    figure = Figure(figsize=(side * len(shares) + 1.2, side + 0.9))
    panels = figure.subplots(1, len(shares), squeeze=False, sharey=True).ravel()
    for panel, (title, share) in zip(panels, shares.items(), strict=True):
        apart = np.where(np.eye(len(names), dtype=bool), np.nan, share)
        panel.imshow(apart, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if len(names) <= WRITTEN:
            _write_shares(panel, apart)
        panel.set_xticks(range(len(names)), labels=names, rotation=90)
        panel.set_title(title)
        panel.grid(visible=False)
    panels[0].set_yticks(range(len(names)), labels=names)
    figure.supxlabel("% of the films with the row's finding that have the column's")
    return svg(figure, name="cooccurrence", title="Co-occurrence of findings")


def narrowed(change: Change, findings: Sequence[str]) -> Change:
    """Return what balancing did to these findings; steps and totals are those of all films."""
    place = [change.counts["finding"].tolist().index(name) for name in findings]
    shares = {when: share[np.ix_(place, place)] for when, share in change.cooccurrence.items()}
    return replace(
        change,
        counts=change.counts.loc[change.counts["finding"].isin(findings)],
        origins=change.origins.loc[change.origins["finding"].isin(findings)],
        cooccurrence=shares,
    )


@styled
def draw_origins(origins: pd.DataFrame) -> str:
    """Return stacked bars: originals, copies and mixed entries of each finding.

    `origins` has the columns finding, originals, copies, mixed, sources (films behind the added
    entries) and most (entries made of the film that gave most).
    """
    figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(origins)))
    axes, end, place = figure.add_subplot(), np.zeros(len(origins)), np.arange(len(origins))
    for column, colour in ORIGINS.items():
        axes.barh(place, origins[column], left=end, color=colour, label=column)
        end += origins[column].to_numpy(dtype=np.float64)
    for row, one in enumerate(origins.to_dict("records")):
        if one["sources"]:
            text = f"from {one['sources']:,} films, at most {one['most']:,} from each"
            _annotate(axes, float(end[row]), row, text)
    name_rows(axes, list(origins["finding"]))
    axes.margins(x=0.2)
    axes.set_xlabel("Entries with the finding")
    return svg(figure, name="origins", title="Origin of the entries by finding")


def _counts(axes: Axes, rows: pd.DataFrame, change: Change) -> None:
    for column, shift, colour in (("before", -0.19, BEFORE), ("after", 0.19, AFTER)):
        place, count = np.arange(len(rows)) + shift, rows[column]
        bars = axes.barh(place, count, height=0.36, color=colour, label=f"{column} balancing")
        text = [_counted(row, column) for row in rows.to_dict("records")]
        axes.bar_label(bars, text, padding=3, color=MUTED, fontsize=7.5)
    name_rows(axes, list(rows["finding"]))
    axes.margins(x=0.2)
    axes.xaxis.set_major_formatter(THOUSANDS)
    films, entries = change.totals.set_index("when")["entries"].loc[["before", "after"]]
    whole = change.population[0].upper() + change.population[1:]
    axes.set_title(f"{whole}: {films:,} films before, {entries:,} entries after", loc="left")
    axes.set_xlabel("Films (before) and entries (after) with the finding")


def _counted(row: Mapping[Hashable, Any], column: str) -> str:
    """Return the count of a bar in words, with what is known of IRLbl and share."""
    count, ratio, share = row[column], row[f"irlbl_{column}"], row[f"share_{column}"]
    known = [f"IRLbl {ratio:.1f}"] if count and not np.isnan(ratio) else []
    known += [f"{100 * share:.1f} %"] if not np.isnan(share) else []
    return f"{count:,.0f}" + (f" ({', '.join(known)})" if known else "")


def _steps(axes: Axes, steps: pd.DataFrame) -> None:
    place, total = np.arange(len(steps)), steps["total"]
    kept = total - steps["added"]
    parts = (
        ("kept", 0 * total, kept, BEFORE),
        ("added", kept, steps["added"], AFTER),
        ("dropped", total, steps["dropped"], DROPPED),
    )
    for name, left, count, colour in parts:
        axes.barh(place, count, left=left, height=0.62, color=colour, label=name)
    for row, one in enumerate(steps.to_dict("records")):
        change = [f"{sign}{one[k]:,}" for k, sign in SIGNS.items() if one[k]]
        text = f"{one['total']:,}" + (f" ({', '.join(change)})" if change else "")
        _annotate(axes, float(one["total"] + one["dropped"]), row, text)
    names = [f"{one['action']} {one['finding']}".strip() for one in steps.to_dict("records")]
    name_rows(axes, names)
    axes.set_xlim(0, ROOM * float((total + steps["dropped"]).to_numpy().max()))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_title("Entries after each step of balancing", loc="left")
    if axes.figure.axes[0] is not axes:  # else the figure has a legend
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)


def _write_shares(axes: Axes, share: Float64[np.ndarray, "k k"]) -> None:
    for (row, column), value in np.ndenumerate(share):
        if not np.isnan(value):
            colour, text = "white" if value >= DARK else MUTED, f"{100 * value:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, size=6)


def _annotate(axes: Axes, end: float, row: int, text: str) -> None:
    """Write beside the end of a bar."""
    look: dict[str, Any] = {"va": "center", "color": MUTED, "fontsize": 7.5}
    axes.annotate(text, (end, row), (3, 0), textcoords="offset points", **look)


def _height(rows: pd.DataFrame) -> float:
    return 1.4 + 0.42 * len(rows)


def _steps_height(steps: pd.DataFrame) -> float:
    return 1.1 + 0.26 * len(steps)
