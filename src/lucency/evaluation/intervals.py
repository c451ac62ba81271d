"""95 % intervals that hold with few patients, and how few are too few.

Percentiles of a bootstrap are too narrow where a class has few patients, and an AUC of 1 or a
recall of 0 has none at all. So an AUC has a score interval, a share Wilson's, and what is made of
shares follows from these; all with patients as clusters. What has no formula has the bootstrap's
error, from BOOTSTRAPPED patients of either class on. The counts were found by simulation
(`benchmarks/coverage.py`).

Letters in shapes: n films, p patients, k findings, k1 the findings and macro, c columns (all
films, then r resamples).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import root_scalar
from scipy.special import expit, logit, ndtri, stdtrit

from lucency.core.manifest import counted
from lucency.evaluation.bootstrap import HIGH, mean_over_findings
from lucency.evaluation.significance import delong, wilson

FEWEST = 3  # patients of either class: with fewer there is no interval
TOO_FEW = f"no interval: fewer than {FEWEST} patients"
ALIKE = "no interval: the same in every resample"
AVERAGED = 20  # patients from whom resamples show the error of a mean
BOOTSTRAPPED = 30  # the same, where the interval is one of the bootstrap
LEAST = {"specificity_at_recall": 100}  # the same, where it rests on the lowest tenth of positives
TRUSTED = 15  # patients with whom a finding's own error counts half, and the model's the other half
ENOUGH = 10  # patients of either class, from whom others may borrow
RANKS = ("auc", "partial_auc", "recall_at_specificity")  # of macro_interval_of_ranks
UNKNOWN_VARIANCE = 1 / 12  # of a number between 0 and 1 of which nothing is known
TINY = 1e-9
NORMAL = float(ndtri(HIGH))
Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Score = Float[np.ndarray, " n"]
Labels = Float[np.ndarray, "n k"]
Scores = Float[np.ndarray, "n k"]
Rows = Bool[np.ndarray, " n"]
Owner = Int64[np.ndarray, " n"]
Bounds = tuple[float, float]
Inputs = Mapping[Literal["logit", "probability", "decision"], np.ndarray]
NONE: Bounds = (np.nan, np.nan)
RANGE: dict[str, Bounds] = {"mcc": (-1.0, 1.0), "bce": (0.0, np.inf)}  # others are from 0 to 1
ROUNDING = 1e-24  # of a variance


def auc_interval(label: Label, score: Score, *, owner: Owner) -> Bounds:
    """Return the ends of the interval of an AUC; `owner` are the films' patients.

    The AUCs that differ from the one found by less than 1.96 of *their* standard errors, so that an
    AUC of 1 has an interval too: Newcombe, Statistics in Medicine 25 (2006), 559-573, method 5. His
    variance is multiplied by the ratio of DeLong's, patients as clusters, to it; of few patients
    the ratio is known badly, and counts less. NaN with fewer than FEWEST patients of either class.
    """
    positive, negative = (owner[label == value] for value in (1, 0))
    (some, mine), (others, theirs) = _effective(positive), _effective(negative)
    fewest = min(mine, theirs)
    if fewest < FEWEST:
        return NONE
    area, error = delong(label, score, owner=owner)
    if not np.ptp(score[~np.isnan(label)]):
        return area, area  # no order at all: .5 whatever the films
    ratio = 1.0
    if 0 < area < 1 and error > 0:
        known = error**2 / _variance(area, some, others)
        ratio = known ** (fewest**2 / (fewest**2 + TRUSTED**2))

    def beyond(truth: float) -> float:
        return abs(area - truth) - NORMAL * np.sqrt(ratio * _variance(truth, some, others))

    low = 0.0 if area == 0 else root_scalar(beyond, bracket=(0, area - TINY)).root
    high = 1.0 if area == 1 else root_scalar(beyond, bracket=(area + TINY, 1)).root
    return low, high


def auc_intervals(
    label: Labels, score: Scores, *, area: Float64[np.ndarray, "k c"], owner: Owner
) -> Float64[np.ndarray, "2 k1"]:
    """Return the ends of the intervals of all AUCs and of their mean, whose resamples are `area`.

    Of a finding `auc_interval`, of the mean `macro_interval_of_ranks`.
    """
    ends = [
        auc_interval(mine, its, owner=owner) for mine, its in zip(label.T, score.T, strict=True)
    ]
    rarer = patients_of_rarer(label, owner=owner)
    return np.array([*ends, macro_interval_of_ranks(area, patients=rarer)]).T


def patients_of_rarer(label: Labels, *, owner: Owner) -> Int64[np.ndarray, " k"]:
    """Return how many patients have films of each finding's rarer class."""
    classes = [[owner[mine == value] for value in (1, 0)] for mine in label.T]
    return np.array([min(len(np.unique(one)) for one in both) for both in classes], dtype=np.int64)


def share_interval(hit: Rows, among: Rows, *, owner: Owner) -> Bounds:
    """Return the ends of Wilson's interval of the share of the films `among` that are `hit`.

    The films count as so many as are independent: their number by the design effect of patients,
    never more than films, and all of a patient's as one where the share is 0 or 1; where a patient
    has several, Student's t takes the place of the normal distribution. Korn and Graubard, Survey
    Methodology 24 (1998), 193-201. NaN with fewer than FEWEST patients.
    """
    _, place, count = np.unique(owner[among], return_inverse=True, return_counts=True)
    patients, films = len(count), int(count.sum())
    if patients < FEWEST:
        return NONE
    hits = np.bincount(place, weights=hit[among], minlength=patients)
    share, effect = hits.sum() / films, (count**2).sum() / films
    if 0 < share < 1 and patients < films:
        spread = ((hits - share * count) ** 2).sum() * patients / (patients - 1)
        effect = max(1.0, spread / (share * (1 - share) * films))
    independent = films / effect
    if patients < films:
        independent *= (NORMAL / stdtrit(patients - 1, HIGH)) ** 2
    low, high = wilson(np.array([share * independent]), np.array([independent]))[:, 0]
    return float(low), float(high)


def logit_interval(sampled: Float64[np.ndarray, " c"], *, patients: int) -> Bounds:
    """Return the ends of the interval of a number between 0 and 1, symmetric on the logit scale.

    By the standard deviation over resamples and Student's t of the `patients` of the rarer class
    less one. NaN where it is 0 or 1, or computable in fewer than two resamples.
    """
    value, error = float(sampled[0]), np.sqrt(_variance_of(sampled[1:]))
    if not 0 < value < 1 or error == 0:
        return NONE
    reach = stdtrit(patients - 1, HIGH) * error / (value * (1 - value))
    middle = logit(value)
    return float(expit(middle - reach)), float(expit(middle + reach))


def bootstrap_interval(
    sampled: Float64[np.ndarray, " c"], *, patients: int, fewest: int = AVERAGED
) -> Bounds:
    """Return the ends of the interval of a number that has no formula, from its resamples.

    Its standard deviation over resamples, which is that of n - 1 of n patients, and Student's t of
    `patients`, those of the rarer class, less one; no further than any resample. Means over films
    hold from AVERAGED patients on, what rests on the films of a class from BOOTSTRAPPED. Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), sections 5.3 and 12.2. NaN with fewer than
    `fewest` patients, or where resamples show no error.
    """
    variance = _variance_of(sampled[1:])
    if np.isnan(sampled[0]) or patients < fewest or variance == 0:
        return NONE
    error = np.sqrt(variance * patients / (patients - 1))
    value, reach = float(sampled[0]), stdtrit(patients - 1, HIGH) * error
    low, high = (float(end(sampled[~np.isnan(sampled)])) for end in (np.min, np.max))
    return max(low, value - reach), min(high, value + reach)


def mean_interval(
    sampled: Float64[np.ndarray, " c"], *, patients: int, fewest: int = AVERAGED
) -> Bounds:
    """Return the ends of Wilson's interval of a mean of numbers between 0 and 1.

    The films count as so many as have, were they 0 or 1, the variance that resamples of patients
    show; Student's t takes the place of the normal distribution. Korn and Graubard, Survey
    Methodology 24 (1998), 193-201. Where all numbers are 0, or 1, each of the `patients` counts
    once. NaN with fewer patients than `fewest`, which may be FEWEST for shares, or where resamples
    show no error of another mean.
    """
    value, variance = float(sampled[0]), _variance_of(sampled[1:])
    alike = value in (0, 1)
    if np.isnan(value) or patients < fewest or not (alike or variance):
        return NONE
    independent = patients if alike else value * (1 - value) / variance * (patients - 1) / patients
    independent *= (NORMAL / stdtrit(patients - 1, HIGH)) ** 2
    low, high = wilson(np.array([value * independent]), np.array([independent]))[:, 0]
    return float(low), float(high)


def difference_interval(
    sampled: Float64[np.ndarray, " c"], *, patients: int, fewest: int = AVERAGED
) -> Bounds:
    """Return the ends of the interval of a difference of two means, from -1 to 1.

    It is `mean_interval` of the difference moved to 0 to 1, so that there is one too where all
    patients agree. Of what is equal everywhere, both ends are 0.
    """
    if patients >= fewest and not np.nan_to_num(sampled).any():
        return 0.0, 0.0
    low, high = mean_interval((sampled + 1) / 2, patients=patients, fewest=fewest)
    return 2 * low - 1, 2 * high - 1


def unpaired_interval(value: float, ends: Bounds, other: float, other_ends: Bounds) -> Bounds:
    """Return the ends of the interval of `value` - `other`, two estimates of other patients.

    From the intervals of both, so that those of an AUC or a share of 1, which are one-sided, give
    one too: Zou and Donner, Statistics in Medicine 27 (2008), 1693-1702. Where both are symmetric
    it is that of the sum of the variances. NaN where one of the intervals is.
    """
    (low, high), (other_low, other_high) = ends, other_ends
    below = np.hypot(value - low, other_high - other)
    above = np.hypot(high - value, other - other_low)
    return float(value - other - below), float(value - other + above)


def within_range(metric: str, ends: Bounds) -> Bounds:
    """Return the ends of an interval of a metric, no further than its values go."""
    least, most = RANGE.get(metric, (0.0, 1.0))
    low, high = np.clip(ends, least, most)
    return float(low), float(high)


def no_interval(ends: Bounds, *, patients: int, fewest: int = AVERAGED) -> str:
    """Return why there is no interval, or nothing where there is one."""
    if ends[0] == ends[0]:
        return ""
    few = f"no interval: {counted(patients, 'patient')}, expected {fewest} or more"
    return few if patients < fewest else ALIKE


def macro_interval(
    value: Float64[np.ndarray, "k c"], *, patients: Int64[np.ndarray, " k"]
) -> Bounds:
    """Return the ends of the interval of a mean over findings, by `macro_error`."""
    return _around(value, NORMAL * macro_error(value, patients=patients))


def macro_interval_of_ranks(
    value: Float64[np.ndarray, "k c"], *, patients: Int64[np.ndarray, " k"]
) -> Bounds:
    """Return the same of a metric between 0 and 1 of how films are ranked, by its own error."""
    error, freedom = macro_error_of_ranks(value, patients=patients)
    return within_range("auc", _around(value, float(stdtrit(freedom, HIGH)) * error))


def macro_error_of_ranks(
    value: Float64[np.ndarray, "k c"], *, patients: Int64[np.ndarray, " k"]
) -> tuple[float, float]:
    """Return the standard error of the mean of a metric of how films are ranked, and its freedom.

    What a patient of the rarer class adds to the variance is alike in all findings, as a multiple
    of v (1 - v) of the value v, so that the variance of a finding with few of them is borrowed: a
    share TRUSTED / (TRUSTED + patients - 1) of it is that of the others (a generalised variance
    function: Wolter, Introduction to Variance Estimation, 2007, chapter 7), with v of two more
    patients of either kind (Agresti and Coull, The American Statistician 52, 1998, 119-126). The
    degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946, 110-114), of
    TRUSTED + patients - 1 each. NaN where resamples show no error.
    """
    known = ~np.isnan(value[:, 0])
    count = np.maximum(patients[known], 1)
    variance = np.array([_variance_of(row) for row in value[known, 1:]])
    if not variance.any():
        return np.nan, np.nan
    moved = (value[known, 0] * count + 2) / (count + 4)
    unit, others = moved * (1 - moved) / count, np.maximum(count - 1, 1)
    enough = variance > 0  # patients who all do equally well show nothing
    enough &= count >= min(ENOUGH, np.sort(count[enough])[-2:][0])
    multiple = variance[enough] * count[enough] / others[enough] / unit[enough]
    shared = np.exp(np.average(np.log(multiple), weights=count[enough])) * unit
    own = (count - 1) / (count - 1 + TRUSTED)
    true = own * variance * count / others + (1 - own) * shared
    whole = _variance_of(mean_over_findings(value[known, 1:])) * true.sum() / variance.sum()
    freedom = true.sum() ** 2 / (true**2 / (count - 1 + TRUSTED)).sum()
    return float(np.sqrt(whole)), float(freedom)


def _around(value: Float64[np.ndarray, "k c"], reach: float) -> Bounds:
    """Return what is as far from the mean over findings, of all films, on either side."""
    centre = float(mean_over_findings(value)[0])
    return centre - reach, centre + reach


def macro_error(value: Float64[np.ndarray, "k c"], *, patients: Int64[np.ndarray, " k"]) -> float:
    """Return the standard error of a mean over findings, from resamples.

    It is that of the mean over resamples, and what these do not show of findings with few patients:
    `patients` are those of the rarer class. The bootstrap's variance of a mean of p patients is too
    small by (p - 1) / p (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section
    5.3). One patient shows nothing: his variance is taken to be a patient's of the other findings,
    on average. Findings that are not computable on all films do not count. NaN where resamples show
    no error.
    """
    known = ~np.isnan(value[:, 0])
    several, count = value[known, 1:], np.maximum(patients[known], 1)
    variance = np.array([_variance_of(row) for row in several])
    if not variance.any():
        return np.nan
    more, others = count > 1, np.maximum(count - 1, 1)
    true = np.where(more, variance * count / others, np.nan)
    alone = np.mean(true[more] * count[more]) if more.any() else UNKNOWN_VARIANCE
    true = np.where(more, true, np.maximum(variance, alone))
    hidden = (true - variance).sum() / len(several) ** 2
    return float(np.sqrt(_variance_of(mean_over_findings(several)) + hidden))


def _variance_of(sampled: Float64[np.ndarray, " r"]) -> float:
    """Return the variance over the resamples that are computable; 0 for fewer than two."""
    known = sampled[~np.isnan(sampled)]
    variance = float(np.var(known - known[0], ddof=1)) if len(known) > 1 else 0.0
    return variance if variance > ROUNDING else 0.0


def _recall(label: Label, given: Inputs, owner: Owner) -> Bounds:
    return share_interval(given["decision"], label == 1, owner=owner)


def _specificity(label: Label, given: Inputs, owner: Owner) -> Bounds:
    return share_interval(~given["decision"], label == 0, owner=owner)


def _precision(label: Label, given: Inputs, owner: Owner) -> Bounds:
    called = given["decision"] & ~np.isnan(label)
    return share_interval(label == 1, called, owner=owner)


def _npv(label: Label, given: Inputs, owner: Owner) -> Bounds:
    called = ~given["decision"] & ~np.isnan(label)
    return share_interval(label == 0, called, owner=owner)


def _accuracy(label: Label, given: Inputs, owner: Owner) -> Bounds:
    return share_interval(given["decision"] == label, ~np.isnan(label), owner=owner)


def _f1(label: Label, given: Inputs, owner: Owner) -> Bounds:
    """Return 2 j / (1 + j) of the ends of j: F1 rises with this share, Jaccard's.

    It is that of true positives among films that are called positive or are.
    """
    positive = label == 1
    either = (positive | given["decision"]) & ~np.isnan(label)
    low, high = share_interval(positive & given["decision"], either, owner=owner)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def _balanced_accuracy(label: Label, given: Inputs, owner: Owner) -> Bounds:
    """Return the ends for the mean of two shares from theirs.

    Zou and Donner, Statistics in Medicine 27 (2008), 1693-1702.
    """
    ends, middle = [], []
    for side, hit in ((label == 1, given["decision"]), (label == 0, ~given["decision"])):
        ends.append(share_interval(hit, side, owner=owner))
        middle.append(hit[side].mean() if side.any() else np.nan)
    (low, high), mean = zip(*ends, strict=True), sum(middle) / 2
    below = np.hypot(*(m - one for m, one in zip(middle, low, strict=True))) / 2
    above = np.hypot(*(one - m for m, one in zip(middle, high, strict=True))) / 2
    return float(mean - below), float(mean + above)


def _effective(owner: Int64[np.ndarray, " m"]) -> tuple[float, int]:
    """Return as how many patients of one film each these count, and how many patients they are.

    Kish, Survey Sampling (1965), where films of a patient are all alike.
    """
    count = np.unique(owner, return_counts=True)[1].astype(np.float64)
    return float(count.sum() ** 2 / max(1.0, (count**2).sum())), len(count)


def _variance(area: float, positives: float, negatives: float) -> float:
    """Return Newcombe's variance of an AUC."""
    pairs = (positives + negatives) / 2 - 1
    odds = (1 - area) / (2 - area) + area / (1 + area)
    return area * (1 - area) * (1 + pairs * odds) / (positives * negatives)


# Metrics of evaluation.metrics whose interval has a formula.
INTERVALS: dict[str, Callable[[Label, Inputs, Owner], Bounds]] = {
    "auc": lambda label, given, owner: auc_interval(label, given["logit"], owner=owner),
    "f1": _f1,
    "precision": _precision,
    "recall": _recall,
    "specificity": _specificity,
    "npv": _npv,
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
}
