"""Do maps change when the network forgets? The sanity check of Adebayo et al., NeurIPS 2018.

Letters in shapes: n films, k findings, gh and gw cells of the grid.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64
from scipy.stats import rankdata

BOUND = 0.5  # mean strength of rank correlation below which a map has changed; ours
REQUIRED = ("method", "block", "similarity")


def map_similarity(
    one: Float32[np.ndarray, "n k gh gw"], *, other: Float32[np.ndarray, "n k gh gw"]
) -> Float64[np.ndarray, "n k"]:
    """Return Spearman's rank correlation of each map with its counterpart.

    NaN where either map is the same everywhere, as there is no order to compare.
    """
    first, second = (_centred_ranks(maps) for maps in (one, other))
    shared = (first * second).sum(axis=2)
    spread = np.sqrt((first**2).sum(axis=2) * (second**2).sum(axis=2))
    return np.divide(shared, spread, out=np.full_like(shared, np.nan), where=spread > 0)


def sanity_table(similarities: pd.DataFrame) -> pd.DataFrame:
    """Return one verdict a method: does its map depend on what the network has learnt?

    `similarities` has a row for each map and each block, from the head down to the block after
    which the whole network is drawn anew, with columns method, block and similarity, Spearman's
    correlation of the maps before and after. A method passes when the mean of |similarity| is
    below 0.5 with the whole network drawn anew; the sign is left aside, since a map turned upside
    down shows the same edges. Adebayo et al. name no bound; this one is ours. Heatmaps that are NaN
    are left out and counted. Raises ValueError for a table without those columns.
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
        verdict = "not computable" if np.isnan(mean) else "passes" if mean < BOUND else "fails"
        flat = int(whole.isna().sum())
        note = f"{flat} of {len(whole)} maps are the same everywhere, left out" if flat else ""
        rows.append((method, len(whole), head.abs().mean(), mean, BOUND, verdict, note))
    columns = [
        "method",
        "maps",
        "head_randomised",
        "network_randomised",
        "bound",
        "verdict",
        "note",
    ]
    return pd.DataFrame(rows, columns=columns)


def _centred_ranks(maps: Float32[np.ndarray, "n k gh gw"]) -> Float64[np.ndarray, "n k c"]:
    flat = maps.reshape(*maps.shape[:2], -1)
    rank = rankdata(flat, axis=2)
    return rank - rank.mean(axis=2, keepdims=True)
