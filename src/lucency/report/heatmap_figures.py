"""Figures of heat maps: overlays on a film, examples of predictions, mean maps, pointing game.

Heat maps keep their own units, given by the colour bar; nothing here scales them. Ground-truth
boxes are outlined. Films are square, as networks see them.
Letters in shapes: h and w pixels, k findings, gh and gw cells of the grid, n maps, s pixels of a
shown side.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lucency.evaluation.evaluate import MACRO
from lucency.explain.heatmap_results import KINDS, STRETCHED
from lucency.explain.heatmaps import Centres, Heatmaps, cover, enlarge
from lucency.explain.localization import GAME
from lucency.report.style import MUTED, SETTINGS, WIDTH, name_rows, style_networks, svg

SIDE = 224  # pixels of a shown film
COLOURS = "magma"  # its lightness rises evenly, so that colour-blind readers see the same order
OPAQUE = 0.7  # of the strongest place; evidence against the finding is transparent
DOTS = 110  # an inch, of a PNG
COLUMNS = 4
FINE = 64  # cells a side, for the density of boxes
Film = UInt8[np.ndarray, "h w"]
Cells = Float32[np.ndarray, "gh gw"]
Corners = Float64[np.ndarray, "_ 4"]  # left, top, right, bottom in shares of the film


class Drawn(NamedTuple):
    """One heat map as it is drawn: its cells, and the places of their centres."""

    cells: Cells
    centres: Centres


def overlay_figure(film: Film, *, maps: Mapping[str, Drawn], corners: Corners) -> Figure:
    """Return the film with its true boxes, and a heat map a method, each on its own scale."""
    shown = _shrink(film)
    with mpl.rc_context(SETTINGS):
        columns = len(maps) + 1
        rows = math.ceil(columns / COLUMNS)
        figure = Figure(figsize=(WIDTH, 2.3 * rows))
        panels = figure.subplots(rows, min(columns, COLUMNS), squeeze=False).ravel()
        _film(panels[0], shown, corners)
        panels[0].set_title("film" + (", with its true boxes" if len(corners) else ""))
        for axes, (method, drawn) in zip(panels[1:], maps.items(), strict=False):
            cells = drawn.cells
            _film(axes, shown, corners)
            if cells.min() == cells.max():
                axes.set_title(f"{method}: {cells.min():.3g} everywhere")
                continue
            scale = _range(cells)
            _glow(axes, drawn, scale)
            _bar(figure, [axes], scale)
            axes.set_title(method)
        for axes in panels[columns:]:
            axes.set_axis_off()
        return figure


def gallery_figure(
    cases: pd.DataFrame,
    *,
    finding: str,
    films: Mapping[str, Film],
    maps: Heatmaps,
    boxes: pd.DataFrame,
) -> Figure:
    """Return a row of films a kind of case, with their heat maps on one scale for all.

    `cases` as `choose_cases` gives them; `boxes` is a manifest's.
    """
    column = maps.findings.index(finding)
    cells = {name: maps.grid[row, column] for row, name in enumerate(maps.image.tolist())}
    shown = [cells[name] for name in cases["image"]]
    across = max(1, *(cases["kind"].tolist().count(kind) for kind in KINDS))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 2.15 * len(KINDS)))
        panels = figure.subplots(len(KINDS), across, squeeze=False)
        scale = _range(np.stack(shown)) if shown else Normalize(0, 1)
        for kind, row in zip(KINDS, panels, strict=True):
            mine = cases[cases["kind"] == kind]
            row[0].set_title(f"{kind}: none" if mine.empty else "", loc="left")
            for axes in row[len(mine) :]:
                axes.set_axis_off()
            for axes, name, sure in zip(row, mine["image"], mine["probability"], strict=False):
                _film(axes, _shrink(films[name]), corners_of(boxes, name, finding))
                _glow(axes, Drawn(cells[name], maps.centres), scale)
                axes.set_title(f"{kind}, {sure:.2f}\n{name}", fontsize=7)
        _bar(figure, list(panels.ravel()), scale)
        figure.suptitle(f"{finding}, {maps.method}: surest first; white: true boxes")
        return figure


def mean_figure(
    mean: Float32[np.ndarray, "k gh gw"],
    *,
    findings: tuple[str, ...],
    centres: Centres,
    boxes: pd.DataFrame,
) -> Figure:
    """Return the mean heat map of each finding on its own scale, with the densest boxes dashed.

    `mean` as `explain.baselines.mean_maps` gives it; a finding that is NaN says so.
    """
    rows = math.ceil(len(findings) / COLUMNS)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 2.4 * rows))
        panels = figure.subplots(rows, min(len(findings), COLUMNS), squeeze=False).ravel()
        for axes, finding, cells in zip(panels, findings, mean, strict=False):
            mine = corners_of(boxes, "", finding)
            if np.isnan(cells).any() or not len(mine):
                axes.set_axis_off()
                axes.set_title(f"{finding}: no film with a box")
                continue
            scale = _range(cells)
            axes.imshow(
                enlarge(cells, centres, frame=SIDE), cmap=COLOURS, norm=scale, extent=(0, 1, 1, 0)
            )
            _dense(axes, mine)
            _plain(axes)
            _bar(figure, [axes], scale)
            axes.set_title(f"{finding} ({len(mine)})")
        for axes in panels[len(findings) :]:
            axes.set_axis_off()
        return figure


def draw_pointing(pointing: pd.DataFrame) -> str:
    """Return dots with intervals: a row for the mean and for each finding, a dot for each method.

    `pointing` is of explain.localization.
    """
    game = pointing.loc[pointing["measure"] == GAME]
    methods = [name for name in game["method"].unique() if STRETCHED not in name]
    rows = [MACRO, *(name for name in game["finding"].unique() if name != MACRO)]
    table = game.set_index(["method", "finding"])
    style = style_networks(methods)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.4 + len(rows) * max(0.36, 0.075 * len(methods))))
        axes = figure.add_subplot()
        for number, name in enumerate(methods):
            place = np.arange(len(rows)) + ((number + 0.5) / len(methods) - 0.5) * 0.72
            row = table.loc[name].reindex(rows)
            axes.hlines(place, row["low"], row["high"], color=style[name].colour, alpha=0.5)
            axes.plot(row["value"], place, style[name].marker, color=style[name].colour, label=name)
        axes.axhline(0.5, color=MUTED, linewidth=0.6)
        films = table.loc[methods[0]]["films"]
        name_rows(axes, ["Mean", *(f"{name}  ({films[name]:,.0f})" for name in rows[1:])])
        axes.set_xlabel(
            "Pointing game: share of films hit, with 95 % interval (in brackets: films)"
        )
        return svg(figure, name="pointing", title="Pointing game by finding and method")


def corners_of(boxes: pd.DataFrame, image: str, finding: str) -> Corners:
    """Return the boxes of a finding on one film, or on all when no film is named."""
    mine = boxes[boxes["finding"] == finding]
    mine = mine[mine["image"] == image] if image else mine
    side = np.asarray(mine[["x", "y", "w", "h"]], dtype=np.float64)
    return np.concatenate([side[:, :2], side[:, :2] + side[:, 2:]], axis=1)


def explanation_svg(figure: Figure, *, name: str, title: str) -> str:
    """Return a figure as SVG text for the page; the same figure gives the same bytes."""
    with mpl.rc_context(SETTINGS):
        return svg(figure, name=name, title=title)


def explanation_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file; the same figure gives the same bytes."""
    file = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(file, format="png", dpi=DOTS, facecolor="white", metadata=NO_SOFTWARE)
    return file.getvalue()


def png_uri(png: bytes) -> str:
    """Return a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _shrink(film: Film) -> UInt8[np.ndarray, "s s"]:
    return np.asarray(cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _film(axes: Axes, shown: UInt8[np.ndarray, "s s"], corners: Corners) -> None:
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0))
    _outline(axes, corners)
    _plain(axes)


def _glow(axes: Axes, drawn: Drawn, scale: Normalize) -> None:
    large = enlarge(drawn.cells, drawn.centres, frame=SIDE)
    peak = float(large.max())
    opacity = np.clip(large / peak, 0, 1) * OPAQUE if peak > 0 else np.zeros_like(large)
    axes.imshow(large, cmap=COLOURS, norm=scale, alpha=opacity, extent=(0, 1, 1, 0))


def _range(cells: Float32[np.ndarray, "*n gh gw"]) -> Normalize:
    low, high = float(cells.min()), float(cells.max())
    return Normalize(low, high if high > low else low + 1)


def _bar(figure: Figure, panels: list[Axes], scale: Normalize) -> None:
    ticks = MaxNLocator(nbins=5)
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS), ax=panels, shrink=0.75, pad=0.02, ticks=ticks
    )
    bar.ax.tick_params(labelsize=6.5)


def _outline(axes: Axes, corners: Corners) -> None:
    for left, top, right, bottom in corners:
        for colour, width in (("black", 2.4), ("white", 1.2)):
            size = (right - left, bottom - top)
            axes.add_patch(
                Rectangle(
                    (left, top), *size, fill=False, edgecolor=colour, linewidth=width, zorder=3
                )
            )


def _dense(axes: Axes, corners: Corners) -> None:
    """Draw the contour at half of the highest density of boxes."""
    density = np.pad(cover(corners, cells=(FINE, FINE)).mean(axis=0), 1)
    centre = (np.arange(FINE + 2) - 0.5) / FINE
    half = [density.max() / 2]
    axes.contour(centre, centre, density, half, colors="white", linestyles="--", linewidths=1)


def _plain(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


NO_SOFTWARE: Any = {"Software": None}
