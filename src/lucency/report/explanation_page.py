"""Predictions and heat maps of films: a page, a PNG a film and finding, and the raw maps.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.core.manifest import Prepared
from lucency.core.predictions import Predictions
from lucency.explain.heatmaps import Heatmaps, save_heatmaps
from lucency.report.film_figures import Outcome, outcomes_of
from lucency.report.heatmap_figures import (
    Drawn,
    corners_of,
    explanation_png,
    overlay_figure,
    png_uri,
)
from lucency.report.html import render

NO_NAME = re.compile(r"[^\w.+-]+")  # not allowed in the name of a file
LONGEST = 40  # characters of a film's or a finding's name in the name of a file
SHOWN = 3  # findings of a film at most, unless they are named


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
    table.to_csv(folder / "probabilities.csv", index=False)
    films = []
    for row, image in enumerate(predictions.image.tolist()):
        outcomes = outcomes_of(predictions, row, threshold)
        figures = []
        for finding in findings or _chosen(outcomes):
            drawn = _draw(row, finding, maps, prepared)
            column = predictions.findings.index(finding) + 1
            stem = Path(image).stem[:LONGEST]
            name = NO_NAME.sub("_", f"{row + 1:04d}-{stem}-{column:02d}-{finding[:LONGEST]}")
            (folder / f"{name}.png").write_bytes(drawn)
            figures.append({"finding": finding, "uri": png_uri(drawn)})
        films.append({"image": image, "outcomes": outcomes, "figures": figures})
    page = render(
        "explanation.html.jinja",
        network=predictions.network,
        methods=[one.method for one in maps],
        films=films,
    )
    (folder / "explained.html").write_text(page, encoding="utf-8")


def _chosen(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the positive findings, the most certain first; without any, the nearest to it."""
    sure = sorted(outcomes, key=lambda one: one.probability / one.threshold, reverse=True)
    positive = [one.finding for one in sure if one.decided]
    return positive[:SHOWN] or [sure[0].finding]


def _draw(row: int, finding: str, maps: Sequence[Heatmaps], prepared: Prepared) -> bytes:
    films = prepared.manifest
    drawn = {
        one.method: Drawn(one.grid[row, one.findings.index(finding)], one.centres) for one in maps
    }
    corners = corners_of(films.boxes, str(films.image[row]), finding)
    figure = overlay_figure(np.asarray(prepared.pixels[row]), maps=drawn, corners=corners)
    return explanation_png(figure)
