"""The chapter on where a network looked: is it where the finding is, and may one believe the map?

Every number is read from the tables of `judge.sight`; nothing is computed twice.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lucency.judge.evaluate import MACRO
from lucency.judge.naive_maps import mean_maps
from lucency.judge.pointing import GAME
from lucency.judge.rivals import conclude_sight
from lucency.judge.sight import REDRAWN, STRETCHED, TRIED, Sight
from lucency.show.canvas import MUTED, SETTINGS, WIDTH, name_rows, style_networks, svg
from lucency.show.explanations import (
    explanation_png,
    explanation_svg,
    gallery_figure,
    mean_figure,
)
from lucency.values import Prepared

WANG = "Wang 2017"
REACHED = {("IoBB", 0.5), ("IoBB", 0.9), ("IoU", 0.3), ("IoU", 0.5), ("IoU", 0.7)}


def sight_values(sight: Sight, *, prepared: Prepared) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses."""
    scores = sight.scores
    return {
        "network": sight.network,
        "remarks": sight.remarks,
        "conclusion": conclude_sight(scores.rivals, boxes=sight.boxes),
        "boxes": len(sight.boxes),
        "films": sight.boxes["image"].nunique(),
        "grids": {maps.method: " x ".join(map(str, maps.grid.shape[2:])) for maps in sight.maps},
        "verdicts": _verdicts(sight),
        **(_scored(sight) if len(scores.pointing) else {"pointing": []}),
        "galleries": _galleries(sight, prepared),
    }


def draw_pointing(pointing: pd.DataFrame, *, title: str) -> str:
    """Return dots with intervals: a row for the mean and for each finding, a dot for each method.

    `pointing` is of judge.pointing.
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
        axes.set_xlabel("Share of films whose map points into a box, with 95 % interval (films)")
        return svg(figure, name="pointing", title=title)


def _verdicts(sight: Sight) -> list[dict[str, Any]]:
    """Return one row a method: both tests of its truth, side by side."""
    if not len(sight.faith):
        return []
    faith = sight.faith.set_index(["method", "measure"]).to_dict(orient="index")
    rows = []
    for row in sight.sanity.to_dict("records"):
        rows.append({**row, **{name: faith[row["method"], name] for name in TRIED}})
    return rows


def _scored(sight: Sight) -> dict[str, Any]:
    scores = sight.scores
    pointing, found = scores.pointing, scores.localisation
    macro = pointing.loc[pointing["finding"] == MACRO]
    methods = list(dict.fromkeys(pointing["method"]))
    table = {(row["method"], row["measure"]): row for row in macro.to_dict("records")}
    scored = set(found["method"])
    first = next(maps for maps in sight.maps if maps.method in scored)
    mean = mean_maps(first, boxes=sight.boxes)
    drawn = mean_figure(mean, findings=first.findings, centres=first.centres, boxes=sight.boxes)
    return {
        "pointing": methods,
        "measures": list(dict.fromkeys(macro["measure"])),
        "score": lambda *key: table[key],
        "redrawn": REDRAWN,
        "stretched": STRETCHED,
        "pointing_figure": Markup(draw_pointing(pointing, title="Where maps point")),
        **_wang(found, method=first.method),
        "reach": _reach(scores.reach),
        "mean_method": first.method,
        "mean_figure": Markup(explanation_svg(drawn, name="mean", title="Mean maps")),
    }


def _wang(found: pd.DataFrame, *, method: str) -> dict[str, Any]:
    """Return accuracy and false boxes by IoBB of one method beside Wang's, and all by IoU."""
    cell = {
        (row["method"], row["finding"], row["measure"], row["threshold"]): row
        for row in found.to_dict("records")
    }
    mine = found.loc[found["method"] == method]
    limits = {name: sorted(of["threshold"].unique()) for name, of in mine.groupby("measure")}
    methods = [name for name in dict.fromkeys(found["method"]) if name != WANG]
    return {
        "wang": WANG,
        "ours": method,
        "rows": [MACRO, *(name for name in dict.fromkeys(mine["finding"]) if name != MACRO)],
        "limits": limits,
        "cell": lambda *key: cell.get(key, NOTHING),
        "localised": methods,
        "macro": MACRO,
    }


def _reach(reach: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each grid what share of boxes it could hit at some thresholds, on average."""
    pairs = zip(reach["measure"], reach["threshold"], strict=True)
    shown = np.array([pair in REACHED for pair in pairs])
    macro = reach.loc[(reach["finding"] == MACRO) & shown]
    return [
        {"grid": grid, "levels": mine.loc[:, ["measure", "threshold", "reachable"]].values.tolist()}
        for grid, mine in macro.groupby("grid", sort=False)
    ]


def _galleries(sight: Sight, prepared: Prepared) -> list[dict[str, str]]:
    """Return one picture a finding: its surest hits, false alarms and misses, with their maps."""
    if not sight.maps:
        return []
    row = {name: place for place, name in enumerate(prepared.manifest.image.tolist())}
    shown = []
    for finding in sight.maps[0].findings:
        cases = sight.cases.loc[sight.cases["finding"] == finding]
        if not len(cases):
            continue
        films = {name: np.asarray(prepared.pixels[row[name]]) for name in cases["image"]}
        figure = gallery_figure(
            cases, finding=finding, films=films, maps=sight.maps[0], boxes=sight.boxes
        )
        uri = "data:image/png;base64," + base64.b64encode(explanation_png(figure)).decode()
        shown.append({"finding": finding, "uri": uri})
    return shown


NOTHING: Mapping[str, float] = dict.fromkeys(
    ("accuracy", "accuracy_low", "accuracy_high", "afp", "afp_low", "afp_high"), np.nan
)
