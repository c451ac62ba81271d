"""Which network is better: paired differences over the same resampled patients, and a verdict.

Letters in shapes: k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.judge.evaluate import MACRO, TRIVIAL
from lucency.judge.intervals import (
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.judge.metrics import auc
from lucency.predictions import Predictions

COLUMNS = ("network", "other", "finding", "metric", "difference", "low", "high")


def compare(several: Sequence[Predictions], *, resamples: int, seed: int) -> pd.DataFrame:
    """Return the paired differences in AUC of each pair of networks, per finding and macro.

    The difference is `network` minus `other`; its 95 % interval comes from resampling patients,
    the same patients for both, so what makes a film hard for both cancels out. Intervals are not
    corrected for the number of pairs. Raises ValueError when the predictions were not made of the
    same films, labels, findings and split, or a network is there twice.
    """
    _check(several)
    areas = {}
    patient = several[0].patient
    plainly, drawn = once(len(patient)), resample_patients(patient, resamples=resamples, seed=seed)
    for predictions in several:
        areas[predictions.network] = _areas(predictions, plainly), _areas(predictions, drawn)
    rows = []
    for network, other in combinations(areas, 2):
        plain, sampled = (
            mine - its for mine, its in zip(areas[network], areas[other], strict=True)
        )
        bounds = interval(sampled)
        for place, finding in enumerate((*several[0].findings, MACRO)):
            difference, (low, high) = plain[place, 0], bounds[:, place]
            rows.append((network, other, finding, "auc", difference, low, high))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rank(metrics: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the networks by falling macro AUC: rank, network, value, low, high, tied_with_best.

    A network is tied with the best when the interval of their paired difference holds 0, as it is
    when the difference is not computable. The trivial predictor is not ranked.
    """
    macro = _macro_auc(metrics)
    networks = macro.loc[macro["network"] != TRIVIAL, ["network", "value", "low", "high"]]
    ranking = networks.sort_values(by="value", ascending=False, ignore_index=True)
    ranking.insert(0, "rank", np.arange(1, len(ranking) + 1))
    best = ranking["network"].iloc[0]
    tied = [name == best or _ties(comparison, best, name) for name in ranking["network"]]
    return ranking.assign(tied_with_best=tied)


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
    if len(tied) > 1:
        names = f"{', '.join(said[:-1])} and {said[-1]}"
        return (
            f"These films cannot tell which of {names} has the best macro AUC: the paired "
            f"differences from the highest hold 0 ({best['network']}: {reach}{chance})."
        )
    return (
        f"{best['network']} is best: macro AUC {_number(best['value'])} ({reach}{chance}), and the "
        "interval of its paired difference from every other network excludes 0."
    )


def _check(several: Sequence[Predictions]) -> None:
    names = [predictions.network for predictions in several]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"networks [{', '.join(names)}]: expected one or more, each named once")
    if len(parts := np.unique(several[0].part)) != 1:
        raise ValueError(
            f"{names[0]}: predictions of [{', '.join(parts)}]; expected one part: "
            'take predictions.of("test")'
        )
    for predictions in several[1:]:
        check_comparable(several[0], predictions, name=predictions.network)


def check_comparable(first: Predictions, other: Predictions, *, name: str) -> None:
    """Raise ValueError unless both were made of the same films, labels, findings and split.

    `name` is what the error calls the other.
    """
    for field in ("split", "findings", "image", "patient", "part", "label"):
        if not _same(getattr(first, field), getattr(other, field)):
            raise ValueError(
                f"{first.network} and {name} differ in {field}; expected the same "
                "films judged alike: predict both from the same prepared and split films"
            )


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and one.dtype.kind == "f":
        return np.array_equal(one, np.asarray(other), equal_nan=True)
    return np.array_equal(np.asarray(one), np.asarray(other))


def _areas(predictions: Predictions, weights: Weights) -> Float64[np.ndarray, "k1 r"]:
    """Return the AUC of every finding, and macro in the last row."""
    pairs = zip(predictions.label.T, predictions.logit.T, strict=True)
    area = np.stack([auc(label, logit, weights=weights) for label, logit in pairs])
    return np.concatenate([area, mean_over_findings(area)[None]])


def _ties(comparison: pd.DataFrame, best: str, name: str) -> bool:
    macro = _macro_auc(comparison)
    pairs = zip(macro["network"], macro["other"], strict=True)
    pair = macro.loc[[set(names) == {best, name} for names in pairs]]
    if len(pair) != 1:
        raise ValueError(
            f"{len(pair)} macro AUC differences of {best} and {name} in the comparison; expected "
            "one: compare all networks that are ranked"
        )
    apart = (pair["low"] > 0) | (pair["high"] < 0)
    return not apart.iloc[0]


def _macro_auc(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[(table["finding"] == MACRO) & (table["metric"] == "auc")]


def _number(value: float) -> str:
    return f"{value:.3f}"
