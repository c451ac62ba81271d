"""HeatmapResults: the heat maps of one network, and tables of their localisation and faithfulness.

Faithfulness is the sanity check, deletion and insertion, and stability. Letters in shapes: n films,
k findings, gh and gw cells of the grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64
from scipy.stats import rankdata

from lucency.core.files import write_table, write_whole
from lucency.core.manifest import nearest, read_table
from lucency.core.predictions import Predictions
from lucency.core.saved_files import SavedFields
from lucency.core.written import read_stage_fields, refuse_changed
from lucency.evaluation.bootstrap import all_and_resampled, once, ratio
from lucency.evaluation.intervals import bootstrap_interval, no_interval
from lucency.evaluation.metrics import mean_over_films
from lucency.explain.baselines import baseline_maps, baseline_table
from lucency.explain.heatmaps import FRAME, Heatmaps, even_centres, load_heatmaps, save_heatmaps
from lucency.explain.localization import localize, pointing, published_localisation, reach

RANDOMISED, STRETCHED = "head randomised", "stretched"
KINDS = ("true positive", "false positive", "miss")
TABLES = ("boxes", "cases", "sanity", "faithfulness")
BOUND = 0.5  # mean strength of rank correlation below which a map has changed; ours
REQUIRED = ("method", "block", "similarity")
SANITY = (
    "method", "maps", "head_randomised", "network_randomised", "bound", "outcome", "note",
)  # fmt: skip
TRIED = ("deletion", "insertion", "stability")
BASELINES = ("deletion", "insertion")  # of these a random map is the baseline
FAITHFULNESS = (
    "method", "measure", "films", "patients", "value", "random", "better", "low", "high", "note",
)  # fmt: skip
NO_FILMS = "not computable: every map is the same everywhere"
TEXT = ("method", "baseline", "finding", "measure", "note", "grid", "outcome", "kind", "image")


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
    why; then tables may be empty. `cases` are those of `choose_cases` of every finding, `sanity`
    and `faithfulness` the tables of these names.
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


def map_similarity(
    one: Float32[np.ndarray, "n k gh gw"], *, other: Float32[np.ndarray, "n k gh gw"]
) -> Float64[np.ndarray, "n k"]:
    """Return Spearman's rank correlation of each map with its counterpart.

    NaN where either map is the same everywhere, as there is no order to compare.
    """
    ranks = (rankdata(maps.reshape(*maps.shape[:2], -1), axis=2) for maps in (one, other))
    first, second = (rank - rank.mean(axis=2, keepdims=True) for rank in ranks)
    shared = (first * second).sum(axis=2)
    spread = np.sqrt((first**2).sum(axis=2) * (second**2).sum(axis=2))
    return ratio(shared, spread)


def sanity_table(similarities: pd.DataFrame) -> pd.DataFrame:
    """Return the sanity check of Adebayo et al. (NeurIPS 2018), a row a method: passes, or fails.

    `similarities` has a row for each map and each block, from the head down to the block after
    which the whole network is randomised, with columns method, block and similarity, Spearman's
    correlation of the maps before and after. A method passes when the mean of |similarity| is
    below 0.5 with the whole network randomised; the sign is left aside, since a map turned upside
    down shows the same edges. Adebayo et al. name no bound; this one is ours. Maps whose similarity
    is NaN are left out and counted. Raises ValueError for a table without those columns.
    """
    if missing := [name for name in REQUIRED if name not in similarities]:
        raise ValueError(
            f"similarities lack {', '.join(missing)}; expected the columns {', '.join(REQUIRED)}"
        )
    rows = []
    for method, mine in similarities.groupby("method", sort=False):
        blocks = mine["block"].unique()
        head, whole = (mine.loc[mine["block"] == block, "similarity"] for block in blocks[[0, -1]])
        mean = whole.abs().mean()
        outcome = "not computable" if np.isnan(mean) else "passes" if mean < BOUND else "fails"
        flat = int(whole.isna().sum())
        note = f"{flat} of {len(whole)} maps are the same everywhere, left out" if flat else ""
        rows.append((method, len(whole), head.abs().mean(), mean, BOUND, outcome, note))
    return pd.DataFrame(rows, columns=list(SANITY))


def faithfulness_table(tried: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how true each method's maps are to their network, with 95 % intervals over patients.

    `tried` has a row a method and film: method, image, patient, and deletion, insertion (areas
    under the curves of Petsiuk et al., BMVC 2018) of its map and of a random one, and stability.
    `better` is by how much the method beats the random map, above 0 in either test; the interval is
    of that, and of `value` for stability, which has no baseline. Films whose value is NaN are left
    out and counted.
    """
    rows = [
        (method, measure, *_faith(mine, measure, resamples=resamples, seed=seed))
        for method, mine in tried.groupby("method", sort=False)
        for measure in TRIED
    ]
    return pd.DataFrame(rows, columns=list(FAITHFULNESS))


def save_heatmap_results(results: HeatmapResults, folder: Path) -> None:
    """Write one CSV a table, one .npz a method's maps, and heatmaps.json."""
    tables = results.scores._asdict() | {name: getattr(results, name) for name in TABLES}
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv")
    for place, maps in enumerate(results.maps):
        save_heatmaps(maps, folder / f"maps-{place}.npz")
    about = {"network": results.network, "remarks": results.remarks, "maps": len(results.maps)}
    write_whole(folder / "heatmaps.json", json.dumps(about, indent=1))


class HeatmapFields(SavedFields):
    """What heatmaps.json holds; `maps` is the number of files of maps."""

    network: str
    remarks: list[str]
    maps: int


def read_heatmap_fields(folder: Path) -> HeatmapFields:
    """Return what heatmaps.json of a folder holds; raises errors as `load_heatmap_results` does."""
    return read_stage_fields(folder / "heatmaps.json", HeatmapFields)


def load_heatmap_results(folder: Path) -> HeatmapResults:
    """Read what `save_heatmap_results` wrote.

    Raises ValueError for a damaged file, and OSError for one that the system does not read.
    """
    about = read_heatmap_fields(folder)
    files = (folder / f"maps-{place}.npz" for place in range(about.maps))
    return HeatmapResults(
        network=about.network,
        remarks=tuple(about.remarks),
        maps=tuple(load_heatmaps(file) for file in files),
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
    if not (content := file.read_bytes()).strip():
        refuse_changed(file, content)
        return pd.DataFrame()  # which has no columns to read
    return read_table(file, text=TEXT)


def _faith(
    mine: pd.DataFrame, measure: str, *, resamples: int, seed: int
) -> tuple[int, int, float, float, float, float, float, str]:
    value, random = mine[measure].to_numpy(dtype=np.float64), np.full(len(mine), np.nan)
    if measure in BASELINES:
        random = mine[f"{measure}_random"].to_numpy(dtype=np.float64)
    gain = (random - value) * (1 if measure == "deletion" else -1)
    counted = gain if measure in BASELINES else value
    stated = ~np.isnan(counted)
    if not stated.any():
        return 0, 0, np.nan, np.nan, np.nan, np.nan, np.nan, NO_FILMS
    patient = mine["patient"].to_numpy(dtype=np.int64)[stated]
    weights = all_and_resampled(patient, resamples=resamples, seed=seed)
    sampled = mean_over_films(counted[stated], weights=weights)
    films, people, notes = int(stated.sum()), len(np.unique(patient)), []
    mean, baseline, better = (
        float(mean_over_films(one[stated], weights=once(films))[0]) for one in (value, random, gain)
    )
    if left := len(mine) - films:
        notes.append(f"{left} of {len(mine)} maps are the same everywhere, left out")
    low, high = bootstrap_interval(sampled, patients=people)
    notes.append(no_interval((low, high), patients=people))
    return films, people, mean, baseline, better, low, high, "; ".join(filter(None, notes))
