"""Films explained: a page with what a network says of each, PNGs of where it looked, and the maps.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import base64
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
from lucency.report.heatmap_figures import Drawn, corners_of, explanation_png, overlay_figure
from lucency.report.html import render

NO_NAME = re.compile(r"[^\w.+-]+")  # what may not stand in the name of a file
LONGEST = 40  # characters of a film's or a finding's name in that of a file
SHOWN = 3  # findings of a film at most, unless they are named


def write_explained(
    said: Predictions,
    *,
    maps: Sequence[Heatmaps],
    prepared: Prepared,
    threshold: Float64[np.ndarray, " k"],
    findings: tuple[str, ...],
    folder: Path,
) -> None:
    """Write explained.html, a PNG a film and finding, maps-METHOD.npz and probabilities.csv.

    Without `findings` those are drawn that reach their thresholds, or the nearest to it. `maps` and
    `prepared` hold the films of `said` in the same order; names of files come from films' names.
    """
    for one in maps:
        save_heatmaps(one, folder / f"maps-{one.method}.npz")
    table = pd.DataFrame(said.probability, columns=list(said.findings))
    table.insert(0, "image", said.image)
    table.to_csv(folder / "probabilities.csv", index=False)
    films = []
    for row, image in enumerate(said.image.tolist()):
        verdicts = outcomes_of(said, row, threshold)
        figures = []
        for finding in findings or _chosen(verdicts):
            drawn = _draw(row, finding, maps, prepared)
            column = said.findings.index(finding) + 1
            stem = Path(image).stem[:LONGEST]
            name = NO_NAME.sub("_", f"{row + 1:04d}-{stem}-{column:02d}-{finding[:LONGEST]}")
            (folder / f"{name}.png").write_bytes(drawn)
            figures.append({"finding": finding, "uri": _uri(drawn)})
        films.append({"image": image, "verdicts": verdicts, "figures": figures})
    page = render(
        "explained.html.jinja",
        network=said.network,
        methods=[one.method for one in maps],
        films=films,
    )
    (folder / "explained.html").write_text(page, encoding="utf-8")


def _chosen(verdicts: Sequence[Outcome]) -> list[str]:
    """Return the findings that are called, the surest first; else the one nearest to being so."""
    sure = sorted(verdicts, key=lambda one: one.probability / one.threshold, reverse=True)
    called = [one.finding for one in sure if one.decided]
    return called[:SHOWN] or [sure[0].finding]


def _draw(row: int, finding: str, maps: Sequence[Heatmaps], prepared: Prepared) -> bytes:
    films = prepared.manifest
    drawn = {
        one.method: Drawn(one.grid[row, one.findings.index(finding)], one.centres) for one in maps
    }
    corners = corners_of(films.boxes, str(films.image[row]), finding)
    figure = overlay_figure(np.asarray(prepared.pixels[row]), maps=drawn, corners=corners)
    return explanation_png(figure)


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
