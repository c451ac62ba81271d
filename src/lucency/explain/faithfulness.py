"""Faithfulness of heat maps: the sanity check, deletion and insertion, stability, in tables.

Letters in shapes: n films, k findings, gh and gw cells of the grid, c of all cells, r resamples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64
from scipy.stats import rankdata

from lucency.evaluation.bootstrap import Weights, interval, once, ratio, resample_patients

BOUND = 0.5  # mean strength of rank correlation below which a map has changed; ours
REQUIRED = ("method", "block", "similarity")
SANITY = (
    "method", "maps", "head_randomised", "network_randomised", "bound", "verdict", "note",
)  # fmt: skip
TRIED = ("deletion", "insertion", "stability")
BASELINES = ("deletion", "insertion")  # of these a random map is the baseline
FAITHFULNESS = (
    "method", "measure", "films", "patients", "value", "random", "better", "low", "high", "note",
)  # fmt: skip
NO_FILMS = "not computable: every map is the same everywhere"


def map_similarity(
    one: Float32[np.ndarray, "n k gh gw"], *, other: Float32[np.ndarray, "n k gh gw"]
) -> Float64[np.ndarray, "n k"]:
    """Return Spearman's rank correlation of each map with its counterpart.

    NaN where either map is the same everywhere, as there is no order to compare.
    """
    first, second = (_centred_ranks(maps) for maps in (one, other))
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
    rows = []
    for method, mine in tried.groupby("method", sort=False):
        for measure in TRIED:
            rows.append((method, measure, *_faith(mine, measure, resamples=resamples, seed=seed)))
    return pd.DataFrame(rows, columns=list(FAITHFULNESS))


def _centred_ranks(maps: Float32[np.ndarray, "n k gh gw"]) -> Float64[np.ndarray, "n k c"]:
    flat = maps.reshape(*maps.shape[:2], -1)
    rank = rankdata(flat, axis=2)
    return rank - rank.mean(axis=2, keepdims=True)


def _faith(
    mine: pd.DataFrame, measure: str, *, resamples: int, seed: int
) -> tuple[int, int, float, float, float, float, float, str]:
    value = mine[measure].to_numpy(dtype=np.float64)
    random = np.full(len(mine), np.nan)
    if measure in BASELINES:
        random = mine[f"{measure}_random"].to_numpy(dtype=np.float64)
    gain = (random - value) * (1 if measure == "deletion" else -1)
    counted = gain if measure in BASELINES else value
    stated = ~np.isnan(counted)
    if not stated.any():
        return 0, 0, np.nan, np.nan, np.nan, np.nan, np.nan, NO_FILMS
    patient = mine["patient"].to_numpy(dtype=np.int64)[stated]
    weights = resample_patients(patient, resamples=resamples, seed=seed)
    low, high = interval(_mean(counted[stated], weights))
    mean, baseline, better = (
        float(_mean(one[stated], once(int(stated.sum())))[0]) for one in (value, random, gain)
    )
    left, people, notes = int((~stated).sum()), len(np.unique(patient)), []
    if left:
        notes.append(f"{left} of {len(mine)} maps are the same everywhere, left out")
    if people < 2:
        notes.append("no interval: films of one patient")
        low, high = np.nan, np.nan
    counts = int(stated.sum()), people
    return *counts, mean, baseline, better, float(low), float(high), "; ".join(notes)


def _mean(value: Float64[np.ndarray, " n"], weights: Weights) -> Float64[np.ndarray, " r"]:
    total = weights.total(np.stack([value, np.ones(len(value))]))
    return ratio(total[0], total[1])
