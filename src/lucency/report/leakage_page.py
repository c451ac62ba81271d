"""The page of a leakage study: metrics on own test films and on held-out patients, by scheme."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lucency.config.protocol import Protocol, protocol_text
from lucency.evaluation.evaluate import MACRO, MICRO
from lucency.report.html import render
from lucency.report.style import COLOURS, MUTED, SETTINGS, WIDTH, name_rows, svg

NAMES = {
    ("auc", MACRO): "Macro AUC", ("auc", MICRO): "Pooled AUC",
    ("average_precision", MACRO): "Average precision", ("f1", MACRO): "Macro F1",
    ("accuracy", MICRO): "Accuracy, all cells", ("brier", MACRO): "Brier score",
}  # fmt: skip
KINDS = (
    ("own_test", "own test films", COLOURS[1], -0.14),
    ("held_out", "held-out patients", COLOURS[0], 0.14),
)


def write_leakage_page(
    protocol: Protocol,
    *,
    seen: str,
    descriptions: Mapping[str, str],
    pages: Mapping[str, str],
    table: pd.DataFrame,
    conclusion: str,
    file: Path,
) -> None:
    """Write the leakage inflation of every scheme as one HTML file.

    `seen` describes the films; `table` as `evaluation.leakage_inflation` gives it, with a column
    scheme. `descriptions` and `pages` hold a sentence and the path of the report of each scheme.
    """
    page = render(
        "leakage.html.jinja",
        protocol=protocol,
        protocol_text=protocol_text(protocol),
        data_set=seen,
        descriptions=descriptions,
        pages=pages,
        names={f"{metric} {finding}": name for (metric, finding), name in NAMES.items()},
        rows={
            scheme: {
                key: mine.to_dict(orient="records")
                for key, mine in theirs.groupby(theirs["metric"] + " " + theirs["finding"])
            }
            for scheme, theirs in table.groupby("scheme", sort=False)
        },
        conclusion=conclusion,
        figure=Markup(draw_inflation(table)),
    )
    file.write_text(page, encoding="utf-8")


def draw_inflation(table: pd.DataFrame) -> str:
    """Return macro AUC on held-out patients and on own test films, joined by a line."""
    macro = table.loc[(table["metric"] == "auc") & (table["finding"] == MACRO)]
    names = (macro["network"] + ", " + macro["scheme"]).tolist()
    place = np.arange(len(names))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * len(names)))
        axes = figure.subplots()
        axes.hlines(place, macro["held_out"], macro["own_test"], color=MUTED, linewidth=1.5)
        for kind, label, colour, shift in KINDS:
            ends = macro[f"{kind}_low"], macro[f"{kind}_high"]
            axes.hlines(place + shift, *ends, color=colour, alpha=0.35, linewidth=3)
            axes.plot(macro[kind], place, "o", color=colour, label=label)
        name_rows(axes, names)
        axes.set_xlabel("macro AUC, with 95 % intervals over patients")
        return svg(
            figure, name="inflation", title="Macro AUC on own test films and on held-out patients"
        )
