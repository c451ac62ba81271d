"""Where a network looked and what that is worth: the tables, and the maps they were made from.

Letters in shapes: n films, r resamples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.core.manifest import read_table
from lucency.evaluation.bootstrap import Weights, interval, once, ratio, resample_patients
from lucency.explain.baselines import baseline_maps, baseline_table
from lucency.explain.heatmaps import FRAME, Heatmaps, even_centres, load_heatmaps, save_heatmaps
from lucency.explain.localization import localize, pointing, reach
from lucency.explain.published_boxes import published_localisation

RANDOMISED, STRETCHED = "head randomised_maps", "stretched"
TRIED = ("deletion", "insertion", "stability")
FAITHFULNESS = (
    "method", "measure", "films", "patients", "value", "random", "better", "low", "high", "note",
)  # fmt: skip
NO_FILMS = "not computable: every map is the same everywhere"


class Scores(NamedTuple):
    """What was measured on boxes: hits, what grids can reach, pointing, and baselines beaten."""

    localisation: pd.DataFrame  # of explain.localization, every method, naive ones and Wang's
    reach: pd.DataFrame
    pointing: pd.DataFrame  # of explain.localization, also of networks whose head was drawn anew
    baselines: pd.DataFrame  # of explain.baselines


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatmapResults:
    """Where one network looked: maps by method on one list of films, and what they are worth.

    `boxes` are those that were scored; `remarks` say what could not be scored or explained, and
    why; then tables may be empty. `cases` are films that show what is right and wrong: finding,
    kind, image, probability. `sanity` is of explain.faithfulness.
    """

    network: str
    remarks: tuple[str, ...]
    maps: tuple[Heatmaps, ...]
    boxes: pd.DataFrame
    cases: pd.DataFrame
    scores: Scores
    sanity: pd.DataFrame
    faithfulness: pd.DataFrame


def score_maps(
    several: Sequence[Heatmaps],
    *,
    randomised_maps: Sequence[Heatmaps],
    boxes: pd.DataFrame,
    resamples: int,
    seed: int,
) -> Scores:
    """Return localisation, reach, pointing and baselines of all methods, naive ones and Wang's.

    Heatmaps are of films with boxes. Naive methods have the grid of the first; `randomised_maps`
    are those of the same methods and a network that knows nothing, which are only asked to point.
    """
    draws = {"boxes": boxes, "resamples": resamples, "seed": seed}
    naive = baseline_maps(several[0], boxes=boxes, seed=seed)
    found = [localize(maps, **draws) for maps in (*several, *naive)]
    stretched = [evenly for maps in several for evenly in _stretched(maps)]
    pointed = [pointing(maps, **draws) for maps in (*several, *stretched, *randomised_maps, *naive)]
    pairs = zip(several, randomised_maps, strict=True)
    baselines = [baseline_table(maps, baselines=(blind, *naive), **draws) for maps, blind in pairs]
    grids = {maps.grid.shape[2:]: maps for maps in several}
    reachable = [reach(maps, boxes=boxes) for maps in grids.values()]
    localisation = pd.concat([*found, published_localisation()], ignore_index=True)
    return Scores(
        localisation=localisation,
        reach=pd.concat(reachable, ignore_index=True),
        pointing=pd.concat(pointed, ignore_index=True),
        baselines=pd.concat(baselines, ignore_index=True),
    )


def no_scores() -> Scores:
    """Return empty tables, of maps that cannot be scored."""
    return Scores(*(pd.DataFrame() for _ in Scores._fields))


def faithfulness_table(tried: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how true each method's maps are to their network, with 95 % intervals over patients.

    `tried` has a row a method and film: method, image, patient, and deletion, insertion (areas
    under the curves of Petsiuk et al., BMVC 2018) of its map and of a random one, and stability.
    `better` is by how much the method beats the random map, above 0 in either test; the interval is
    of that, and of `value` for stability, which has no baseline. Films whose value is NaN are left
    out and counted.
    """
    rows = []
    for method, mine in tried.groupby("method", sort=False):
        for measure in TRIED:
            rows.append((method, measure, *_faith(mine, measure, resamples=resamples, seed=seed)))
    return pd.DataFrame(rows, columns=list(FAITHFULNESS))


def save_heatmap_results(sight: HeatmapResults, folder: Path) -> None:
    """Write one CSV a table, one .npz a method's maps, and sight.json."""
    tables = sight.scores._asdict() | {name: getattr(sight, name) for name in TABLES}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    for place, maps in enumerate(sight.maps):
        save_heatmaps(maps, folder / f"maps-{place}.npz")
    about = {"network": sight.network, "remarks": sight.remarks, "maps": len(sight.maps)}
    (folder / "sight.json").write_text(json.dumps(about, indent=1))


def load_heatmap_results(folder: Path) -> HeatmapResults:
    """Read what `save_heatmap_results` wrote."""
    about = json.loads((folder / "sight.json").read_text())
    return HeatmapResults(
        network=about["network"],
        remarks=tuple(about["remarks"]),
        maps=tuple(load_heatmaps(folder / f"maps-{place}.npz") for place in range(about["maps"])),
        scores=Scores(*(_read(folder / f"{name}.csv") for name in Scores._fields)),
        **{name: _read(folder / f"{name}.csv") for name in TABLES},
    )


def _stretched(maps: Heatmaps) -> list[Heatmaps]:
    """Return the maps laid evenly over the film, as is the custom, where that moves them."""
    evenly = even_centres(maps.grid.shape[2:])
    apart = [np.abs(one - other).max() for one, other in zip(maps.centres, evenly, strict=True)]
    if max(apart) * FRAME < 1:
        return []
    return [replace(maps, method=f"{maps.method}, {STRETCHED}", centres=evenly)]


def _faith(
    mine: pd.DataFrame, measure: str, *, resamples: int, seed: int
) -> tuple[int, int, float, float, float, float, float, str]:
    value = mine[measure].to_numpy(dtype=np.float64)
    baseline = f"{measure}_random"
    other = (
        mine[baseline].to_numpy(dtype=np.float64)
        if baseline in mine
        else np.full(len(mine), np.nan)
    )
    gain = (other - value) * (1 if measure == "deletion" else -1)
    counted = value if measure not in BASELINES else gain
    stated = ~np.isnan(counted)
    if not stated.any():
        return 0, 0, np.nan, np.nan, np.nan, np.nan, np.nan, NO_FILMS
    patient = mine["patient"].to_numpy(dtype=np.int64)[stated]
    drawn = resample_patients(patient, resamples=resamples, seed=seed)
    low, high = interval(_mean(counted[stated], drawn))
    mean, random, better = (
        float(_mean(one[stated], once(int(stated.sum())))[0]) for one in (value, other, gain)
    )
    left = int((~stated).sum())
    note = f"{left} of {len(mine)} maps are the same everywhere, left out" if left else ""
    people = len(np.unique(patient))
    single = "no interval: films of one patient" if people < 2 else ""
    low, high = (np.nan, np.nan) if people < 2 else (low, high)
    told = "; ".join(filter(None, (note, single)))
    return int(stated.sum()), people, mean, random, better, float(low), float(high), told


def _mean(value: Float64[np.ndarray, " n"], weights: Weights) -> Float64[np.ndarray, " r"]:
    total = weights.total(np.stack([value, np.ones(len(value))]))
    return ratio(total[0], total[1])


def _read(file: Path) -> pd.DataFrame:
    if not file.read_text().strip():
        return pd.DataFrame()  # which has no columns to read
    return read_table(file, text=TEXT)


TABLES = ("boxes", "cases", "sanity", "faithfulness")
BASELINES = ("deletion", "insertion")
TEXT = ("method", "baseline", "finding", "measure", "note", "grid", "verdict", "kind", "image")
