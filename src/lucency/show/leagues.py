"""The figure of a league: every predictor's macro AUC with its interval, the highest first."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lucency.show.canvas import INK, MUTED, SETTINGS, WIDTH, name_rows, style_networks, svg

ROW = 0.26  # inches


def draw_league(table: pd.DataFrame, *, reference: str) -> str:
    """Return macro AUC of the rows of `judge.league`, marked by kind; a line at the reference."""
    kinds = list(dict.fromkeys(table["kind"]))
    style = style_networks(kinds)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.1 + ROW * len(table)))
        axes = figure.subplots()
        at = table.loc[table["network"] == reference, "auc"].iloc[0]
        axes.axvline(at, color=INK, linewidth=0.8)
        for kind in kinds:
            rows = np.flatnonzero((table["kind"] == kind).to_numpy())
            value, low, high = (
                table[f"auc{end}"].to_numpy()[rows] for end in ("", "_low", "_high")
            )
            colour = style[kind].colour
            axes.hlines(rows, low, high, color=colour, linewidth=1.6)
            axes.plot(value, rows, "o", color=colour, label=kind)
        name_rows(axes, table["network"].tolist())
        axes.set_xlabel(f"Macro AUC on test films, 95 % interval; the line: {reference}")
        axes.xaxis.label.set_color(MUTED)
        return svg(figure, name="league", title="Macro AUC of networks and what was made of them")
