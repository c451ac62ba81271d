"""HeatmapResults: the heat maps of one network, films that they show, and tables of their worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucency.core.manifest import nearest, read_table
from lucency.core.predictions import Predictions
from lucency.explain.baselines import baseline_maps, baseline_table
from lucency.explain.faithfulness import TRIED as TRIED  # until renamed
from lucency.explain.faithfulness import faithfulness_table as faithfulness_table  # until renamed
from lucency.explain.heatmaps import FRAME, Heatmaps, even_centres, load_heatmaps, save_heatmaps
from lucency.explain.localization import localize, pointing, published_localisation, reach

RANDOMISED, STRETCHED = "head randomised", "stretched"
KINDS = ("true positive", "false positive", "miss")
TABLES = ("boxes", "cases", "sanity", "faithfulness")
TEXT = ("method", "baseline", "finding", "measure", "note", "grid", "verdict", "kind", "image")


class HeatmapScores(NamedTuple):
    """What was measured on boxes: hits, what grids can reach, pointing, and baselines beaten."""

    localisation: pd.DataFrame  # of explain.localization: every method, the baselines and Wang's
    reach: pd.DataFrame
    pointing: pd.DataFrame  # of explain.localization: also of networks with a random head
    baselines: pd.DataFrame  # of explain.baselines


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatmapResults:
    """The maps of one network by method on one list of films, and what they are worth.

    `boxes` are those that were scored; `remarks` say what could not be scored or explained, and
    why; then tables may be empty. `cases` are the films of `choose_cases` of every finding;
    `sanity` and `faithfulness` are of explain.faithfulness.
    """

    network: str
    remarks: tuple[str, ...]
    maps: tuple[Heatmaps, ...]
    boxes: pd.DataFrame
    cases: pd.DataFrame
    scores: HeatmapScores
    sanity: pd.DataFrame
    faithfulness: pd.DataFrame


def score_maps(
    several: Sequence[Heatmaps],
    *,
    randomised_maps: Sequence[Heatmaps],
    boxes: pd.DataFrame,
    resamples: int,
    seed: int,
) -> HeatmapScores:
    """Return localisation, reach, pointing and baselines of all methods, baselines and Wang's.

    Maps are of films with boxes. Baselines have the grid of the first; `randomised_maps` are those
    of the same methods and a network with a random head, of which only pointing is measured.
    """
    draws = {"boxes": boxes, "resamples": resamples, "seed": seed}
    blind = baseline_maps(several[0], boxes=boxes, seed=seed)
    found = [localize(maps, **draws) for maps in (*several, *blind)]
    stretched = [evenly for maps in several for evenly in _stretched(maps)]
    pointed = [pointing(maps, **draws) for maps in (*several, *stretched, *randomised_maps, *blind)]
    pairs = zip(several, randomised_maps, strict=True)
    baselines = [baseline_table(maps, baselines=(other, *blind), **draws) for maps, other in pairs]
    grids = {maps.grid.shape[2:]: maps for maps in several}
    reachable = [reach(maps, boxes=boxes) for maps in grids.values()]
    localisation = pd.concat([*found, published_localisation()], ignore_index=True)
    return HeatmapScores(
        localisation=localisation,
        reach=pd.concat(reachable, ignore_index=True),
        pointing=pd.concat(pointed, ignore_index=True),
        baselines=pd.concat(baselines, ignore_index=True),
    )


def no_scores() -> HeatmapScores:
    """Return empty tables, of maps that cannot be scored."""
    return HeatmapScores(*(pd.DataFrame() for _ in HeatmapScores._fields))


def choose_cases(
    predictions: Predictions, *, finding: str, threshold: float, films: int
) -> pd.DataFrame:
    """Return the surest films of each kind: columns kind, image, probability.

    True and false positives (probability >= threshold) by falling, misses by rising probability,
    at most `films` of each; equal ones by name. Raises ValueError for an unknown finding.
    """
    if finding not in predictions.findings:
        near = nearest(finding, predictions.findings)
        known = f"expected one of {', '.join(predictions.findings)}"
        raise ValueError(f"finding {finding!r} is unknown: {known}{near}")
    column = predictions.findings.index(finding)
    probability, label = predictions.probability[:, column], predictions.label[:, column]
    found = probability >= threshold
    masks = (found & (label == 1), found & (label == 0), ~found & (label == 1))
    parts = []
    for kind, mask, rising in zip(KINDS, masks, (False, False, True), strict=True):
        part = pd.DataFrame({
            "kind": kind, "image": predictions.image[mask], "probability": probability[mask],
        })  # fmt: skip
        parts.append(part.sort_values(["probability", "image"], ascending=[rising, True])[:films])
    return pd.concat(parts, ignore_index=True)


def save_heatmap_results(results: HeatmapResults, folder: Path) -> None:
    """Write one CSV a table, one .npz a method's maps, and heatmaps.json."""
    tables = results.scores._asdict() | {name: getattr(results, name) for name in TABLES}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    for place, maps in enumerate(results.maps):
        save_heatmaps(maps, folder / f"maps-{place}.npz")
    about = {"network": results.network, "remarks": results.remarks, "maps": len(results.maps)}
    (folder / "heatmaps.json").write_text(json.dumps(about, indent=1))


def load_heatmap_results(folder: Path) -> HeatmapResults:
    """Read what `save_heatmap_results` wrote."""
    about = json.loads((folder / "heatmaps.json").read_text())
    return HeatmapResults(
        network=about["network"],
        remarks=tuple(about["remarks"]),
        maps=tuple(load_heatmaps(folder / f"maps-{place}.npz") for place in range(about["maps"])),
        scores=HeatmapScores(*(_read(folder / f"{name}.csv") for name in HeatmapScores._fields)),
        **{name: _read(folder / f"{name}.csv") for name in TABLES},
    )


def _stretched(maps: Heatmaps) -> list[Heatmaps]:
    """Return the maps laid evenly over the film, as is the custom, where that moves them."""
    evenly = even_centres(maps.grid.shape[2:])
    apart = [np.abs(one - other).max() for one, other in zip(maps.centres, evenly, strict=True)]
    if max(apart) * FRAME < 1:
        return []
    return [replace(maps, method=f"{maps.method}, {STRETCHED}", centres=evenly)]


def _read(file: Path) -> pd.DataFrame:
    if not file.read_text().strip():
        return pd.DataFrame()  # which has no columns to read
    return read_table(file, text=TEXT)


Scores = HeatmapScores  # until renamed
