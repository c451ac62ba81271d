"""The report's part on films that are not like the training films: values and figure."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lucency.evaluation.unfamiliar_results import UnfamiliarResults
from lucency.report.rendering import MUTED, WIDTH, styled, styles_of, svg

NAMES = {
    "energy": "Energy",
    "mahalanobis": "Mahalanobis distance",
    "neighbour": "Distance to near training films",
}
AXES = {"auc": "Macro AUC", "brier": "Brier score"}


def unfamiliar_values(results: UnfamiliarResults) -> dict[str, Any]:
    """Return what the part shows; empty where no distance is stored."""
    if not results:
        return {}
    aliens = results.aliens
    scores = list(dict.fromkeys(aliens["score"]))
    return {
        "about": results.about,
        "conclusion": results.conclusion,
        "refused": results.refused.to_dict("records"),
        "kinds": list(dict.fromkeys(aliens["kind"])),
        "scores": scores,
        "titles": [NAMES[score] for score in scores],
        "auc": aliens.set_index(["kind", "score"]).to_dict("index"),
        "names": NAMES,
        "figure": draw_abstention(results.abstention),
    }


@styled
def draw_abstention(curves: pd.DataFrame) -> str:
    """Return macro AUC and Brier score against the share of films answered, a line a distance."""
    figure = Figure(figsize=(WIDTH, 3.8))
    style = styles_of([NAMES[score] for score in dict.fromkeys(curves["score"])])
    for axes, (column, title) in zip(figure.subplots(1, 2), AXES.items(), strict=True):
        for score, rows in curves.groupby("score", sort=False):
            look = style[NAMES[str(score)]]
            axes.plot(
                100 * rows["answered"],
                rows[column],
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=3,
                label=NAMES[str(score)],
            )
        axes.axhline(curves[column].iloc[0], color=MUTED, linestyle=":", linewidth=1)
        axes.invert_xaxis()
        axes.set_xlabel("Test films answered, %")
        axes.set_ylabel(title)
    return svg(figure, name="abstention", title="Scores against the share of films answered")
