"""Do maps point into boxes more often than maps that know nothing? Paired, film by film.

Letters in shapes: k findings, k1 one more for their mean, r resamples (the first: all films once).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.judge.evaluate import MACRO
from lucency.judge.intervals import Weights, interval, mean_over_findings, ratio
from lucency.judge.localize import ONE_PATIENT, sum_by_finding
from lucency.judge.maps import Maps, pair_up, place_boxes, weigh
from lucency.judge.pointing import pointing_game

COLUMNS = ("method", "rival", "finding", "difference", "low", "high", "films", "patients", "note")
FEW = 30  # boxes of a finding below which its row says little: a share of .5 is known to +- .18


def rival_table(
    maps: Maps,
    *,
    rivals: Sequence[Maps],
    boxes: pd.DataFrame,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the pointing game of a method minus that of each rival, by finding and their mean.

    All are maps of the same films, so that differences are paired; 95 % intervals over patients.
    """
    pairs = pair_up(place_boxes(maps, boxes))
    weights = weigh(maps, resamples=resamples, seed=seed)
    own = _hits(maps, boxes, weights)
    findings = (*maps.findings, MACRO)
    patient = maps.patient[pairs.row]
    of = [pairs.column == column for column in range(len(findings) - 1)]
    of.append(np.ones(len(pairs.row), dtype=bool))
    rows = []
    for rival in rivals:
        apart = own - _hits(rival, boxes, weights)
        low, high = interval(apart[:, 1:])
        for place, finding in enumerate(findings):
            people = len(np.unique(patient[of[place]]))
            bounds = (low[place], high[place]) if people > 1 else (np.nan, np.nan)
            counts = (len(np.unique(pairs.row[of[place]])), people)
            note = ONE_PATIENT if people == 1 else ""
            names = (maps.method, rival.method, finding)
            rows.append((*names, apart[place, 0], *bounds, *counts, note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_sight(rivals: pd.DataFrame, *, boxes: pd.DataFrame) -> str:
    """Return whether maps beat those that know nothing: differences and their 95 % intervals."""
    if not len(rivals):
        return "No box could be scored, so nothing is known of where this network looked."
    mean = rivals.loc[rivals["finding"] == MACRO]
    told = [_told(name, mean.loc[mean["method"] == name]) for name in dict.fromkeys(mean["method"])]
    count = boxes["finding"].value_counts()
    few = [f"{name} {number}" for name, number in count.items() if number < FEW]
    if few:
        told.append(f"Findings with fewer than {FEW} boxes carry no claim: {', '.join(few)}.")
    return " ".join(told)


def _told(method: str, mine: pd.DataFrame) -> str:
    """Return which rivals a method beats, which beat it, and which it cannot be told from."""
    kinds = {"more often than": [], "less often than": [], "no more often for sure than": []}
    for row in mine.to_dict("records"):
        kind = list(kinds)[0 if row["low"] > 0 else 1 if row["high"] < 0 else 2]
        known = (
            f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] == row["low"] else row["note"]
        )
        gap = f"{row['difference']:+.3f}, {known}"
        kinds[kind].append(f"{row['rival']} ({gap})")
    said = [f"{kind} {', '.join(several)}" for kind, several in kinds.items() if several]
    return f"{method} points into boxes {'; '.join(said)}."


def _hits(maps: Maps, boxes: pd.DataFrame, weights: Weights) -> Float64[np.ndarray, "k1 r"]:
    """Return the share of films whose map points into a box, by finding and their mean."""
    pairs = pair_up(place_boxes(maps, boxes))
    terms = np.stack([pointing_game(maps, pairs=pairs), np.ones(len(pairs.row))])
    sums = sum_by_finding(maps, pairs, terms, weights=weights)
    share = ratio(sums[:, 0], sums[:, 1])
    return np.concatenate([share, mean_over_findings(share)[None]])
