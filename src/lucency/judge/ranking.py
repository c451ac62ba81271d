"""Which network is best: a rank that networks share where the films cannot tell, and a sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucency.judge.evaluate import MACRO, TRIVIAL

LEVEL = 0.05


def rank(metrics: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the networks by falling macro AUC, with value, interval, rank and tied_with_best.

    The rank is one more than the number of networks whose macro AUC is higher by more than chance
    allows (`p_holm` of the paired difference below .05), so that networks which the films cannot
    tell apart may share one. A network is tied with the best when it cannot be told from it. The
    trivial predictor is not ranked. `note` says where the tests are rough. Raises ValueError when
    two ranked networks were not compared.
    """
    macro = _macro_auc(metrics)
    networks = macro.loc[macro["network"] != TRIVIAL, ["network", "value", "low", "high"]]
    ranking = networks.sort_values(by="value", ascending=False, ignore_index=True)
    names = ranking["network"].tolist()
    p = _p_by_pair(comparison)
    place = [
        1 + sum(_differ(p, better, name) for better in names[:above])
        for above, name in enumerate(names)
    ]
    ranking.insert(0, "rank", np.array(place, dtype=np.int64))
    tied = [name == names[0] or not _differ(p, names[0], name) for name in names]
    notes = _macro_auc(comparison)["note"].fillna("").astype(str).tolist()
    rough = next((note for note in notes if note.startswith("rough")), "")
    return ranking.assign(tied_with_best=tied, note=rough)


def conclude(ranking: pd.DataFrame) -> str:
    """Return one sentence: which network is best, or which ones the films cannot tell apart."""
    best = ranking.iloc[0]
    if np.isnan(best["value"]):
        return "No network can be ranked: macro AUC is not computable on these films."
    tied = ranking[ranking["tied_with_best"]]
    said = [f"{n} ({_number(v)})" for n, v in zip(tied["network"], tied["value"], strict=True)]
    reach = f"95 % interval {_number(best['low'])} to {_number(best['high'])}"
    chance = ", which does not exclude .5, chance" if best["low"] <= 0.5 else ""
    if len(ranking) == 1:
        return (
            f"{best['network']} reaches a macro AUC of {_number(best['value'])} ({reach}{chance})."
        )
    pairs = len(ranking) * (len(ranking) - 1) // 2
    rough = f" ({best['note']})" if best["note"] else ""
    corrected = f", Holm-corrected over {pairs} pairs" if pairs > 1 else ""
    if len(tied) > 1:
        names = f"{', '.join(said[:-1])} and {said[-1]}"
        return (
            f"These films cannot tell which of {names} has the best macro AUC: the paired "
            f"differences from the highest may be chance{corrected} ({best['network']}: "
            f"{reach}{chance})."
        )
    return (
        f"{best['network']} is best: macro AUC {_number(best['value'])} ({reach}{chance}), and its "
        f"paired difference from every other network is more than chance{corrected}{rough}."
    )


def _p_by_pair(comparison: pd.DataFrame) -> dict[frozenset[str], float]:
    macro = _macro_auc(comparison)
    pairs = zip(macro["network"], macro["other"], strict=True)
    values = macro["p_holm"].to_numpy(dtype=np.float64)
    return {frozenset(pair): float(p) for pair, p in zip(pairs, values, strict=True)}


def _differ(p: dict[frozenset[str], float], one: str, other: str) -> bool:
    """Say whether two networks' macro AUCs differ by more than chance allows."""
    pair = frozenset((one, other))
    if pair not in p:
        raise ValueError(
            f"no macro AUC difference of {one} and {other} in the comparison; expected one: "
            "compare all networks that are ranked"
        )
    return p[pair] < LEVEL


def _macro_auc(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[(table["finding"] == MACRO) & (table["metric"] == "auc")]


def _number(value: float) -> str:
    return f"{value:.3f}"
