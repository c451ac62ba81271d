"""Significance: DeLong's test of AUCs, the signed-rank test, Holm's correction, Wilson's interval.

DeLong's standard error of an AUC is by formula, with patients as clusters of films: Obuchowski,
Biometrics 53 (1997), 567-578. Where every film is its own owner, it is that of DeLong, DeLong and
Clarke-Pearson, Biometrics 44 (1988), 837-845. Computed from midranks in O(n log n), as Sun and Xu,
IEEE Signal Processing Letters 21 (2014), 1389-1393. A film whose label is NaN (not stated) is left
out. An error is NaN when all positive films, or all negative ones, belong to one owner; it is 0,
which is no certainty, when the films of all owners do equally well, as with one score for all.

Letters in shapes: n films, p owners (patients), m tests, k findings.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64, Real
from scipy.special import ndtr, ndtri

from lucency.evaluation.bootstrap import HIGH

LEVEL = 0.05  # a p value below it is more than chance
FEWEST = 6  # differences; with 5 the smallest two-sided p is 2 / 2^5 = .0625
Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Score = Float[np.ndarray, " n"]
Owner = Int64[np.ndarray, " n"]
PerOwner = Float64[np.ndarray, " p"]


def delong(label: Label, score: Score, *, owner: Owner) -> tuple[float, float]:
    """Return the AUC and its standard error; `owner` says whose film it is, such as the patient.

    For films that are independent of each other, `owner=np.arange(n)`. Raises ValueError when the
    score of a film with a label is NaN.
    """
    return _area_and_error(*_pair_counts(label, score, owner))


def delong_difference(
    label: Label, score: Score, other: Score, *, owner: Owner
) -> tuple[float, float, float]:
    """Return the AUC of `score` minus that of `other`, its standard error, and the two-sided p.

    Paired: both scores are of the same films. p is that of the normal distribution. Where the
    standard error is 0, p is 1 for a difference of 0, and NaN for any other. Errors as `delong`.
    """
    positive, negative, won, lost = _pair_counts(label, score, owner)
    _, _, other_won, other_lost = _pair_counts(label, other, owner)
    difference, error = _area_and_error(positive, negative, won - other_won, lost - other_lost)
    if error > 0:
        return difference, error, float(2 * ndtr(-abs(difference) / error))
    return difference, error, 1.0 if difference == 0 == error else np.nan


def not_computable(label: Label, *, owner: Owner) -> str:
    """Return why these films have no AUC, or no standard error, or nothing when they have both."""
    names = {"positives": owner[label == 1], "negatives": owner[label == 0]}
    if lacking := [name for name, owners in names.items() if not len(owners)]:
        return f"not computable: 0 {' and 0 '.join(lacking)}"
    single = [name for name, owners in names.items() if len(np.unique(owners)) == 1]
    return f"no standard error: all {' and all '.join(single)} are of one owner" if single else ""


def signed_rank(difference: Float[np.ndarray, " k"]) -> tuple[float, str]:
    """Return the two-sided p of Wilcoxon's signed-rank test, one paired difference a finding.

    Exact, tied differences included: every way to give the ranks signs is counted. Differences of 0
    and NaN (not computable) are left out; when fewer than 6 remain p is NaN, with the reason beside
    it. Findings share films and patients, which the test ignores: p is a rough guide,
    no substitute for the interval over patients. Wilcoxon, Biometrics Bulletin 1 (1945), 80-83;
    with data sets as rows, Demsar, Journal of Machine Learning Research 7 (2006), 1-30.
    """
    kept = difference[~np.isnan(difference) & (difference != 0)].astype(np.float64)
    if len(kept) < FEWEST:
        counts = f"{len(kept)} of {len(difference)} differences are not 0"
        return np.nan, f"not computable: {counts}; needs {FEWEST}"
    rank = (2 * _rank(np.abs(kept))).astype(np.int64)  # doubled, since ties have halves
    chance = np.ones(1)
    for step in rank:
        chance = (np.pad(chance, (0, step)) + np.pad(chance, (step, 0))) / 2
    positive = rank[kept > 0].sum()
    return float(min(1, 2 * chance[: positive + 1].sum(), 2 * chance[positive:].sum())), ""


def holm(p: Float[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Return the p values adjusted for their number, so that one below .05 holds among them all.

    The chance of any false alarm stays below the level, whatever the tests have in common. NaN (no
    test) stays NaN and does not count. Raises ValueError when a value is not within 0 and 1. Holm,
    Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    stated = np.flatnonzero(~np.isnan(p))
    value = p[stated].astype(np.float64)
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError(f"p values from {value.min()} to {value.max()}; expected 0 to 1")
    order = np.argsort(value)
    raised = np.maximum.accumulate(value[order] * np.arange(len(value), 0, -1))
    adjusted = np.full(len(p), np.nan)
    adjusted[stated[order]] = np.minimum(raised, 1)
    return adjusted


def wilson(
    successes: Real[np.ndarray, " ..."], trials: Real[np.ndarray, " ..."]
) -> Float64[np.ndarray, "2 ..."]:
    """Return the ends, low and high, of the 95 % interval of each share of successes in trials.

    Trials must be independent: films of one patient are not. NaN for 0 trials. Without continuity
    correction. Raises ValueError when successes are below 0 or above their trials. Wilson,
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if wrong := int((~((successes >= 0) & (successes <= trials))).sum()):
        raise ValueError(
            f"{wrong} counts of successes are below 0 or above their trials; expected 0 to trials"
        )
    square = ndtri(HIGH) ** 2
    some = np.where(trials > 0, trials, np.nan)
    failures = some - successes
    middle = successes + square / 2
    reach = np.sqrt(square * (successes * failures / some + square / 4))
    low = (middle - reach) / (some + square)
    high = np.where(failures == 0, 1.0, (middle + reach) / (some + square))
    return np.stack([low, high])


def _rank(value: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return ranks from 1, their mean where values are tied."""
    return pd.Series(value).rank().to_numpy(dtype=np.float64)


def _count_below(
    value: Float[np.ndarray, " n"], others: Float[np.ndarray, " m"]
) -> Float64[np.ndarray, " n"]:
    """Return how many of the others lie below each value; those that are equal count a half."""
    rising = np.sort(others)
    below, upto = (np.searchsorted(rising, value, side=side) for side in ("left", "right"))
    return (below + upto) / 2


def _pair_counts(label: Label, score: Score, owner: Owner) -> tuple[PerOwner, ...]:
    """Return for each owner: positive and negative films, and the pairs that these win and lose.

    A pair is a positive and a negative film, of any owners; a tie is half a win.
    """
    stated = (label == 1) | (label == 0)
    truth, known = label[stated] == 1, score[stated]
    if absent := int(np.isnan(known).sum()):
        raise ValueError(
            f"the score of {absent} of {len(known)} films with a label is NaN; expected a number "
            "each: leave those films out, and say so"
        )
    owners, place = np.unique(owner[stated], return_inverse=True)
    won = _count_below(known[truth], known[~truth])
    lost = truth.sum() - _count_below(known[~truth], known[truth])
    terms = ((truth, None), (~truth, None), (truth, won), (~truth, lost))
    return tuple(
        np.bincount(place[rows], weights=weight, minlength=len(owners)).astype(np.float64)
        for rows, weight in terms
    )


def _area_and_error(
    positive: PerOwner, negative: PerOwner, won: PerOwner, lost: PerOwner
) -> tuple[float, float]:
    """Return Obuchowski's estimate; also of a difference, since all of it is linear in the counts.

    Pairs are counted in halves, so the sums are exact, and a variance of 0 is exactly 0.
    """
    positives, negatives, wins = positive.sum(), negative.sum(), won.sum()
    pairs = positives * negatives
    if not pairs:
        return np.nan, np.nan
    owners = [(positive > 0).sum(), (negative > 0).sum(), len(won)]
    if min(owners) < 2:
        return float(wins / pairs), np.nan
    above = (positives * won - positive * wins) / pairs / positives
    below = (negatives * lost - negative * lost.sum()) / pairs / negatives
    terms = [(above**2).sum(), (below**2).sum(), 2 * (above * below).sum()]
    variance = sum(term * n / (n - 1) for term, n in zip(terms, owners, strict=True))
    return float(wins / pairs), float(np.sqrt(max(0, variance)))
