"""Exact answers to small questions: a share's interval, many p values, one number a finding.

Letters in shapes: m tests, k findings.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Real
from scipy.special import ndtri
from scipy.stats import rankdata

from lucency.judge.intervals import HIGH

FEWEST = 6  # differences; with 5 the smallest two-sided p is 2 / 2^5 = .0625


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


def signed_rank(difference: Float[np.ndarray, " k"]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, one paired difference a finding.

    Exact, tied differences included: every way to give the ranks signs is counted. Differences of 0
    and NaN (not computable) are left out; NaN when fewer than 6 remain, of which `not_testable`
    says why. Findings share films and patients, which the test does not know: p is a rough guide,
    no substitute for the interval over patients. Wilcoxon, Biometrics Bulletin 1 (1945), 80-83;
    with data sets as rows, Demsar, Journal of Machine Learning Research 7 (2006), 1-30.
    """
    kept = _kept(difference)
    if len(kept) < FEWEST:
        return np.nan
    rank = (2 * rankdata(np.abs(kept))).astype(np.int64)  # doubled, since ties have halves
    chance = np.ones(1)
    for step in rank:
        chance = (np.pad(chance, (0, step)) + np.pad(chance, (step, 0))) / 2
    positive = rank[kept > 0].sum()
    return float(min(1, 2 * chance[: positive + 1].sum(), 2 * chance[positive:].sum()))


def not_testable(difference: Float[np.ndarray, " k"]) -> str:
    """Return why `signed_rank` gives no p here, or nothing when it does."""
    kept = len(_kept(difference))
    if kept >= FEWEST:
        return ""
    return f"not computable: {kept} of {len(difference)} differences are not 0; needs {FEWEST}"


def _kept(difference: Float[np.ndarray, " k"]) -> Float64[np.ndarray, " k2"]:
    return difference[~np.isnan(difference) & (difference != 0)].astype(np.float64)
