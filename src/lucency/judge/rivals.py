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
from lucency.judge.localize import sum_by_finding
from lucency.judge.maps import Maps, pair_up, place_boxes, weigh
from lucency.judge.pointing import pointing_game

COLUMNS = ("method", "rival", "finding", "difference", "low", "high", "films", "patients", "note")
FEW = 30  # boxes of a finding below which its row says little: a share of .5 is known to +- .18
ONE_PATIENT = "no interval: the films are of one patient"


def rival_table(
    several: Sequence[Maps],
    *,
    rivals: Sequence[Maps],
    boxes: pd.DataFrame,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the pointing game of each method minus that of each rival, by finding and their mean.

    All are maps of the same films, so that differences are paired; 95 % intervals over patients.
    """
    pairs = pair_up(place_boxes(several[0], boxes))
    weights = weigh(several[0], resamples=resamples, seed=seed)
    hits = {maps.method: _hits(maps, boxes, weights) for maps in (*several, *rivals)}
    findings = (*several[0].findings, MACRO)
    patient = several[0].patient[pairs.row]
    of = [pairs.column == column for column in range(len(findings) - 1)]
    of.append(np.ones(len(pairs.row), dtype=bool))
    rows = []
    for maps in several:
        for rival in rivals:
            apart = hits[maps.method] - hits[rival.method]
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
    """Return in a sentence or two whether the maps beat those that know nothing, and how far."""
    if not len(rivals):
        return "No box could be scored, so nothing is known of where this network looked."
    mean = rivals[rivals["finding"] == MACRO]
    told = []
    for method, mine in mean.groupby("method", sort=False):
        worst = pd.DataFrame(mine).sort_values("difference").iloc[0]
        beaten = bool((mine["low"] > 0).all())
        verdict = "points into boxes more often than every" if beaten else "does not clearly beat"
        rest = "map that knows nothing" if beaten else f"{worst['rival']!r}"
        gap = f"{worst['difference']:+.3f}, 95 % interval {worst['low']:.3f} to {worst['high']:.3f}"
        against = f"against {worst['rival']!r} " if beaten else ""
        told.append(f"{method} {verdict} {rest} ({against}{gap}).")
    count = boxes["finding"].value_counts()
    few = [f"{name} {number}" for name, number in count.items() if number < FEW]
    if few:
        told.append(f"Findings with fewer than {FEW} boxes carry no claim: {', '.join(few)}.")
    return " ".join(told)


def _hits(maps: Maps, boxes: pd.DataFrame, weights: Weights) -> Float64[np.ndarray, "k1 r"]:
    """Return the share of films whose map points into a box, by finding and their mean."""
    pairs = pair_up(place_boxes(maps, boxes))
    terms = np.stack([pointing_game(maps, pairs=pairs), np.ones(len(pairs.row))])
    sums = sum_by_finding(maps, pairs, terms, weights=weights)
    share = ratio(sums[:, 0], sums[:, 1])
    return np.concatenate([share, mean_over_findings(share)[None]])
