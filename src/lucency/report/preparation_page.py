"""The figure and the page of a preprocessing study: the effect of CLAHE's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from lucency.config.protocol import Protocol, shown_text
from lucency.data.image_measures import MEASURES
from lucency.evaluation.preparation_grid import LEVEL, OFF, OWN, TIMES, PreparationStudy
from lucency.report.rendering import COLOURS, INK, MUTED, WIDTH, decimal, styled, svg, write_page

AGAINST = {"off": OFF, "own": OWN}
WHEN = {"clahe-first": "before resizing", "resize-first": "after resizing"}
NAMES = {
    "entropy": "Entropy", "eme": "EME", "cii": "CII of the lungs", "ambe": "AMBE",
    "noise": "Noise amplification", "ssim": "SSIM",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    "level": LEVEL, "meanings": MEASURES, "names": NAMES, "off": OFF, "own": OWN, "when": WHEN,
}  # fmt: skip
STRONG = 0.6  # of the largest difference: from here on numbers are white
LINES = ("-", "--")


class AblationResult(NamedTuple):
    """A finished ablation of preparations: its macro rows, its conclusion, the path of its page.

    `rows` have preparation (in words), variant, network, and value and difference with intervals;
    `size` is the side that films were prepared at.
    """

    rows: Sequence[dict[Any, Any]]
    conclusion: str
    size: int
    page: str


def write_preparation_page(
    protocol: Protocol,
    *,
    study: PreparationStudy,
    issues: pd.DataFrame,
    ablated: AblationResult | None,
    file: Path,
) -> None:
    """Write a study as one HTML file; `issues` are of `audit.checks.issue`."""
    write_page(
        file,
        "preparation.html.jinja",
        protocol=protocol,
        protocol_text=shown_text(protocol),
        about=study.about,
        conclusion=study.conclusion,
        issues=issues.to_dict("records"),
        cells=study.cells.sort_values("auc", ascending=False, kind="stable").to_dict("records"),
        number=dict(zip(study.summary["name"], study.summary["value"], strict=True)),
        measure={(row["cell"], row["measure"]): row for row in study.measures.to_dict("records")},
        figure=draw_study(study),
        ablated=ablated,
        **CONSTANTS,
    )


def preparation_values(study: PreparationStudy) -> dict[str, Any]:
    """Return what a run's report shows of a study, by its template's names; nothing of none."""
    found = len(study.cells) > 0
    return {"conclusion": study.conclusion, "figure": draw_study(study)} if found else {}


@styled
def draw_study(study: PreparationStudy) -> str:
    """Return the figure: differences in macro AUC over clip limits and tiles, and the measures."""
    cells = study.cells.loc[study.cells["cell"] != OFF]
    orders, tiles = list(dict.fromkeys(cells["order"])), sorted(cells["tiles"].unique().tolist())
    upper, lower = 2 * (0.75 + 0.32 * len(tiles)), 4.4
    figure = Figure(figsize=(WIDTH, upper + lower))
    halves: Any = figure.subfigures(2, 1, height_ratios=(upper, lower), hspace=0.04)
    maps, lines = halves
    panels = maps.subplots(len(AGAINST), len(orders), squeeze=False)
    for row, against in zip(panels, AGAINST, strict=True):
        for panel, order in zip(row, orders, strict=True):
            _draw_map(panel, cells, order=order, against=against)
    _draw_measures(lines, study, orders=orders, tiles=tiles)
    return svg(figure, name="clahe", title="Effect of CLAHE's parameters")


def _draw_map(panel: Axes, cells: pd.DataFrame, *, order: str, against: str) -> None:
    """Draw the differences of one order from one reference, with stars of significance."""
    clips, tiles = (sorted(cells[name].unique().tolist()) for name in ("clip", "tiles"))
    mine = cells.loc[cells["order"] == order]
    table = mine.pivot(index="tiles", columns="clip", values=f"{against}_difference")
    difference = table.reindex(index=tiles, columns=clips).to_numpy(dtype=np.float64)
    limit = max(np.abs(cells[f"{against}_difference"].to_numpy()).max(), 1e-6)
    look: Any = {"cmap": "RdBu_r", "edgecolors": "white", "linewidth": 1}
    panel.pcolormesh(difference, vmin=-limit, vmax=limit, **look)
    for row in mine.to_dict("records"):
        x, y = clips.index(row["clip"]) + 0.5, tiles.index(row["tiles"]) + 0.5
        value = float(row[f"{against}_difference"])
        colour = "white" if abs(value) > STRONG * limit else INK
        weight = "bold" if row["cell"] == OWN else "normal"
        text = decimal(value) + _stars(row, against)
        panel.text(x, y, text, ha="center", va="center", color=colour, fontsize=8, weight=weight)
    panel.set_xticks(np.arange(len(clips)) + 0.5, labels=[f"{clip:g}" for clip in clips])
    panel.set_yticks(np.arange(len(tiles)) + 0.5, labels=[f"{one} {TIMES} {one}" for one in tiles])
    panel.tick_params(length=0)
    panel.grid(visible=False)
    title = f"CLAHE {WHEN[order]}, minus {AGAINST[against]}"
    panel.set(title=title, xlabel="clip limit", ylabel="tiles")


def _stars(row: dict[Any, Any], against: str) -> str:
    """Return one star where the interval excludes 0, two where p is below the level after Holm."""
    apart = row[f"{against}_low"] > 0 or row[f"{against}_high"] < 0
    return ("*" if apart else "") + ("*" if row[f"{against}_p_holm"] < LEVEL else "")


def _draw_measures(
    figure: SubFigure, study: PreparationStudy, *, orders: Sequence[str], tiles: Sequence[int]
) -> None:
    """Draw a panel a measure: its mean over films by clip limit, a line for tiles and order."""
    table = study.measures.merge(study.cells[["cell", "order", "clip", "tiles"]], on="cell")
    clips = sorted(table.loc[table["cell"] != OFF, "clip"].unique().tolist())
    colours = {tile: COLOURS[place % len(COLOURS)] for place, tile in enumerate(tiles)}
    lines = dict(zip(orders, LINES, strict=False))
    panels = figure.subplots(2, 3).ravel()
    for panel, measure in zip(panels, MEASURES, strict=True):
        rows = table.loc[table["measure"] == measure]
        plain = float(rows.loc[rows["cell"] == OFF, "value"].iloc[0])
        panel.axhline(plain, color=MUTED, linestyle=":", linewidth=1)
        for (order, line), (tile, colour) in product(lines.items(), colours.items()):
            mine = rows.loc[(rows["order"] == order) & (rows["tiles"] == tile)]
            mine = mine.set_index("clip").reindex(clips)
            panel.plot(range(len(clips)), mine["value"], line, color=colour, marker=".")
        panel.set_xticks(range(len(clips)), labels=[f"{clip:g}" for clip in clips])
        panel.set_title(f"{NAMES[measure]}, {MEASURES[measure].unit}")
    for panel in panels[3:]:
        panel.set_xlabel("clip limit")
    handles = [
        Line2D([], [], color=MUTED, linestyle=":", label="no CLAHE"),
        *(Line2D([], [], color=colour, label=f"{tile} {TIMES} {tile} tiles")
          for tile, colour in colours.items()),
        *(Line2D([], [], color=INK, linestyle=line, label=f"CLAHE {WHEN[order]}")
          for order, line in lines.items()),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8)
