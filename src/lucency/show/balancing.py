"""The figures of balancing: counts, which findings share films, where the entries come from.

Letters in shapes: k findings.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.figure import Figure

from lucency.show.canvas import AFTER, BEFORE, MUTED, SETTINGS, WIDTH, name_rows, svg

ORIGINS = {"originals": BEFORE, "copies": AFTER, "mixed": "#D55E00"}
DARK = 0.5  # a share from which text on a cell must be white


def draw_counts(imbalance: pd.DataFrame) -> str:
    """Return bars of each finding's positives and its IRLbl, before and after balancing.

    `imbalance` has the columns finding, before, after, irlbl_before, irlbl_after; after balancing
    positives count by their weight in the loss.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(imbalance)))
        axes = figure.add_subplot()
        for column, shift, colour in (("before", -0.19, BEFORE), ("after", 0.19, AFTER)):
            place, count = np.arange(len(imbalance)) + shift, imbalance[column]
            label = f"{column} balancing"
            bars = axes.barh(place, count, height=0.36, color=colour, label=label)
            pairs = zip(count, imbalance[f"irlbl_{column}"], strict=True)
            text = [f"{c:,.0f} (IRLbl {ratio:.1f})" if c else "0" for c, ratio in pairs]
            axes.bar_label(bars, text, padding=3, color=MUTED, fontsize=7.5)
        name_rows(axes, list(imbalance["finding"]))
        axes.margins(x=0.16)
        axes.set_xlabel("Positives in training")
        return svg(figure, name="counts", title="Positives of each finding in training")


def draw_cooccurrence(shares: Mapping[str, Float64[np.ndarray, "k k"]], names: list[str]) -> str:
    """Return a panel for each title: of the films with a row's finding, how many carry a column's.

    Rows and columns are in the order of `names`.
    """
    with mpl.rc_context(SETTINGS):
        side = WIDTH / max(2, len(shares))
        figure = Figure(figsize=(side * len(shares) + 1.2, side + 0.9))
        panels = figure.subplots(1, len(shares), squeeze=False, sharey=True).ravel()
        for panel, (title, share) in zip(panels, shares.items(), strict=True):
            apart = np.where(np.eye(len(names), dtype=bool), np.nan, share)
            panel.imshow(apart, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for (row, column), value in np.ndenumerate(apart):
                if not np.isnan(value):
                    colour = "white" if value >= DARK else MUTED
                    text = f"{100 * value:.0f}"
                    panel.text(column, row, text, ha="center", va="center", color=colour, size=6)
            panel.set_xticks(range(len(names)), labels=names, rotation=90)
            panel.set_title(title)
            panel.grid(visible=False)
        panels[0].set_yticks(range(len(names)), labels=names)
        title = "Of the films with the row's finding, how many carry the column's"
        figure.supxlabel("of the films with the row's finding, per cent that carry the column's")
        return svg(figure, name="cooccurrence", title=title)


def draw_origins(origins: pd.DataFrame) -> str:
    """Return stacked bars: of each finding's training entries, which are originals, copies, mixed.

    `origins` has the columns finding, originals, copies, mixed, sources (films behind the added
    entries) and most (entries made of the film that gave most).
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(origins)))
        axes, left = figure.add_subplot(), np.zeros(len(origins))
        place = np.arange(len(origins))
        for column, colour in ORIGINS.items():
            axes.barh(place, origins[column], left=left, color=colour, label=column)
            left += origins[column].to_numpy(dtype=np.float64)
        pairs = zip(origins["sources"], origins["most"], strict=True)
        text = [f"of {n:,} films, at most {most:,} of one" if n else "" for n, most in pairs]
        for row, (end, said) in enumerate(zip(left, text, strict=True)):
            axes.text(end, row, f" {said}", va="center", color=MUTED, fontsize=7.5)
        name_rows(axes, list(origins["finding"]))
        axes.margins(x=0.2)
        axes.set_xlabel("Training entries that carry the finding")
        return svg(figure, name="origins", title="Where each finding's training entries come from")
