"""Figures of heat maps, and the page of films with their predictions and heat maps.

Heat maps keep their own units, given by the colour bar; nothing here scales them. Ground-truth
boxes are outlined. Films are square, as networks see them.
Letters in shapes: h and w pixels, k findings, gh and gw cells of the grid, n maps, s pixels of a
shown side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lucency.core.files import write_table, write_whole
from lucency.core.manifest import Prepared
from lucency.core.predictions import Predictions
from lucency.explain.baselines import mean_maps
from lucency.explain.heatmap_results import KINDS
from lucency.explain.heatmaps import Centres, Corners, Heatmaps, cover, enlarge, save_heatmaps
from lucency.report.film_figures import Outcome, outcomes_of
from lucency.report.rendering import NO_NAME, WIDTH, png, png_uri, styled, write_page

LONGEST = 40  # characters of a film's or a finding's name in the name of a file
SHOWN = 3  # findings of a film at most, unless they are named
SIDE = 224  # pixels of a shown film
COLOURS = "magma"  # its lightness rises evenly, so that colour-blind readers see the same order
OPAQUE = 0.7  # of the strongest place; evidence against the finding is transparent
COLUMNS = 4
CASES = dict(zip(KINDS, ("true positive", "false positive", "false negative"), strict=True))
WIDE = 8.8  # inches, of a gallery's films
HIGHEST = 2.15  # inches, of one film with its gap
TITLE = 0.36  # inches, of names
FILM = 0.95  # of a place in a gallery; the rest is gap
FINE = 64  # cells a side, for the density of boxes
Film = UInt8[np.ndarray, "h w"]
Drawn = tuple[Float32[np.ndarray, "gh gw"], Centres]  # the cells of one map, and their places


def write_explanation(
    predictions: Predictions,
    *,
    maps: Sequence[Heatmaps],
    prepared: Prepared,
    threshold: Float64[np.ndarray, " k"],
    findings: tuple[str, ...],
    folder: Path,
) -> None:
    """Write explained.html, a PNG a film and finding, maps-METHOD.npz and probabilities.csv.

    Without `findings` those that reach their thresholds are drawn, or the nearest to it. `maps` and
    `prepared` hold the films of `predictions` in the same order.
    """
    for one in maps:
        save_heatmaps(one, folder / f"maps-{one.method}.npz")
    table = pd.DataFrame(predictions.probability, columns=list(predictions.findings))
    table.insert(0, "image", predictions.image)
    write_table(table, folder / "probabilities.csv")
    films = []
    for row, image in enumerate(predictions.image.tolist()):
        outcomes = outcomes_of(predictions, row, threshold)
        figures = []
        for finding in findings or _chosen(outcomes):
            drawn = _explained(row, finding, maps, prepared)
            column = predictions.findings.index(finding) + 1
            stem = Path(image).stem[:LONGEST]
            name = NO_NAME.sub("_", f"{row + 1:04d}-{stem}-{column:02d}-{finding[:LONGEST]}")
            write_whole(folder / f"{name}.png", drawn)
            figures.append({"finding": finding, "uri": png_uri(drawn)})
        films.append({"image": image, "outcomes": outcomes, "figures": figures})
    write_page(
        folder / "explained.html",
        "explanation.html.jinja",
        network=predictions.network,
        methods=[one.method for one in maps],
        films=films,
    )


@styled
def overlay_figure(film: Film, *, maps: Mapping[str, Drawn], corners: Corners) -> Figure:
    """Return the film with its true boxes, and a heat map a method, each on its own scale."""
    shown = _square(film)
    figure, panels = _panels(len(maps) + 1, high=2.3)
    _film(panels[0], shown, corners)
    panels[0].set_title("film" + (", with its true boxes" if len(corners) else ""))
    for axes, (method, (cells, centres)) in zip(panels[1:], maps.items(), strict=True):
        _film(axes, shown, corners)
        if cells.min() == cells.max():
            axes.set_title(f"{method}: {cells.min():.3g} everywhere")
            continue
        scale = _range(cells)
        _glow(axes, enlarge(cells, centres, frame=SIDE), scale)
        _bar(figure, [axes], scale)
        axes.set_title(method)
    return figure


@styled
def gallery_figure(
    cases: pd.DataFrame,
    *,
    finding: str,
    films: Mapping[str, Film],
    maps: Heatmaps,
    boxes: pd.DataFrame,
) -> Figure:
    """Return a row of films a kind of case, with their heat maps on one scale for all.

    `cases` as `choose_cases` gives them; `boxes` is a manifest's. A map of one cell tells no place
    from another and is not drawn.
    """
    column = maps.findings.index(finding)
    cells = {name: maps.grid[row, column] for row, name in enumerate(maps.image.tolist())}
    shown = [cells[name] for name in cases["image"]]
    scale = _range(np.stack(shown)) if shown else Normalize(0, 1)
    single = maps.grid.shape[2:] == (1, 1)
    counts = [cases["kind"].tolist().count(kind) for kind in KINDS]
    inches = min(HIGHEST, WIDE / max(1, *counts))  # of a film; titles and gaps are in films
    title = TITLE / inches
    heights = [title + (count > 0) for count in counts]
    figure = Figure(figsize=(WIDTH, 0.4 + inches * sum(heights)))
    axes = figure.subplots()  # one for all films: axes cost far more than pictures
    ends = np.cumsum(heights)
    for kind, count, end in zip(KINDS, counts, ends.tolist(), strict=True):
        if not count:
            axes.text(0, end - title / 4, f"{CASES[kind]}: none")
            continue
        mine, top = cases[cases["kind"] == kind], end - 1
        for place, (name, sure) in enumerate(zip(mine["image"], mine["probability"], strict=True)):
            shown = _grey(_square(films[name]))
            if not single:
                shown = _glowing(shown, enlarge(cells[name], maps.centres, frame=SIDE), scale)
            axes.imshow(shown, extent=(place, place + FILM, top + FILM, top))
            _outline(axes, corners_of(boxes, name, finding) * FILM + [place, top, place, top])
            above = (place, top - title / 8)
            axes.text(*above, f"{CASES[kind]}, {sure:.2f}\n{name}", fontsize=7, va="bottom")
    _plain(axes)
    axes.set(xlim=(0, WIDE / inches), ylim=(ends[-1], 0), aspect="equal", anchor="W")
    if not single and len(cases):
        _bar(figure, [axes], scale)
    about = f"heat map {maps.method}" + (": one cell, not drawn" if single else "")
    figure.suptitle(f"{finding}, {about}; most confident first; white: ground-truth boxes")
    return figure


@styled
def mean_figure(maps: Heatmaps, *, findings: Sequence[str], boxes: pd.DataFrame) -> Figure:
    """Return the mean heat map of some findings on its own scale, with the densest boxes dashed.

    The mean is that of `explain.baselines.mean_maps`; a finding that is NaN says so.
    """
    figure, panels = _panels(len(findings), high=2.4)
    means = dict(zip(maps.findings, mean_maps(maps, boxes=boxes), strict=True))
    for axes, finding in zip(panels, findings, strict=True):
        cells = means[finding]
        mine = corners_of(boxes, "", finding)
        if np.isnan(cells).any() or not len(mine):
            axes.set_axis_off()
            axes.set_title(f"{finding}: no film with a box")
            continue
        scale, large = _range(cells), enlarge(cells, maps.centres, frame=SIDE)
        axes.imshow(large, cmap=COLOURS, norm=scale, extent=(0, 1, 1, 0))
        _dense(axes, mine)
        _plain(axes)
        _bar(figure, [axes], scale)
        axes.set_title(f"{finding} ({len(mine)})")
    return figure


def corners_of(boxes: pd.DataFrame, image: str, finding: str) -> Corners:
    """Return the boxes of a finding on one film, or on all when no film is named."""
    mine = boxes[boxes["finding"] == finding]
    mine = mine[mine["image"] == image] if image else mine
    side = np.asarray(mine[["x", "y", "w", "h"]], dtype=np.float64)
    return np.concatenate([side[:, :2], side[:, :2] + side[:, 2:]], axis=1)


def _chosen(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the positive findings, the most certain first; without any, the nearest to it."""
    sure = sorted(outcomes, key=lambda one: one.probability / one.threshold, reverse=True)
    positive = [one.finding for one in sure if one.decided]
    return positive[:SHOWN] or [sure[0].finding]


def _explained(row: int, finding: str, maps: Sequence[Heatmaps], prepared: Prepared) -> bytes:
    films = prepared.manifest
    drawn = {one.method: (one.grid[row, one.findings.index(finding)], one.centres) for one in maps}
    corners = corners_of(films.boxes, str(films.image[row]), finding)
    return png(overlay_figure(np.asarray(prepared.pixels[row]), maps=drawn, corners=corners))


def _panels(count: int, *, high: float) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, four in a row of `high` inches."""
    rows = math.ceil(count / COLUMNS)
    figure = Figure(figsize=(WIDTH, high * rows))
    panels = figure.subplots(rows, min(count, COLUMNS), squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _square(film: Film) -> UInt8[np.ndarray, "s s"]:
    return np.asarray(cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _film(axes: Axes, shown: UInt8[np.ndarray, "s s"], corners: Corners) -> None:
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0))
    _outline(axes, corners)
    _plain(axes)


def _outline(axes: Axes, corners: Corners) -> None:
    for left, top, right, bottom in corners:
        for colour, width in (("black", 2.4), ("white", 1.2)):
            look: Any = {"fill": False, "edgecolor": colour, "linewidth": width, "zorder": 3}
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, **look))


def _grey(film: UInt8[np.ndarray, "s s"]) -> Float32[np.ndarray, "s s 3"]:
    return np.repeat(film[..., None], 3, axis=2).astype(np.float32) / 255


def _glow(axes: Axes, large: Float32[np.ndarray, "s s"], scale: Normalize) -> None:
    opacity = _opacity(large)
    axes.imshow(large, cmap=COLOURS, norm=scale, alpha=opacity, extent=(0, 1, 1, 0))


def _glowing(
    film: Float32[np.ndarray, "s s 3"], large: Float32[np.ndarray, "s s"], scale: Normalize
) -> Float32[np.ndarray, "s s 3"]:
    """Return a film under its heat map, as `_glow` draws it."""
    opacity = _opacity(large)[..., None]
    heat = colormaps[COLOURS](scale(large))[..., :3]
    return (film * (1 - opacity) + heat * opacity).astype(np.float32)


def _opacity(large: Float32[np.ndarray, "s s"]) -> Float32[np.ndarray, "s s"]:
    peak = float(large.max())
    return np.clip(large / peak, 0, 1) * np.float32(OPAQUE) if peak > 0 else np.zeros_like(large)


def _range(cells: Float32[np.ndarray, "*n gh gw"]) -> Normalize:
    low, high = float(cells.min()), float(cells.max())
    return Normalize(low, high if high > low else low + 1)


def _bar(figure: Figure, panels: list[Axes], scale: Normalize) -> None:
    look: Any = {"shrink": 0.75, "pad": 0.02, "ticks": MaxNLocator(nbins=5)}
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=panels, **look)
    bar.ax.tick_params(labelsize=6.5)


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
