"""Undersampling by neighbours: films left out whose labels contradict those of similar films.

Local imbalance is from Liu, Blekas and Tsoumakas, "Multi-label sampling based on local label
imbalance", Pattern Recognition 122, 2022. A finding's rarer value is present, unless more than half
of all films have it; a label of NaN counts as absent. Letters in shapes: n films, k findings, d
feature dimensions, m pairs, q query films, c neighbours.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lucency.balance.imbalance import minority_findings, scumble_of_films
from lucency.core.neighbours import nearest_films, require_features
from lucency.core.plan import Plan, originals

SAFE, BORDERLINE, RARE, OUTLIER, MAJORITY = range(5)
LIMITS = (0.3, 0.7, 1.0)  # local imbalance from which an entry is no more safe, borderline, rare
MLENN_NEIGHBOURS, MLUL_NEIGHBOURS = 3, 5  # of the papers
MLENN_DISTANCE = 0.5
MIXED_UP = 0.3  # SCUMBLE above which MLTL is at its most lenient


def mlenn(
    label: Float32[np.ndarray, "n k"], *, feature: Float32[np.ndarray, "n d"], neighbours: int
) -> Plan:
    """Return MLeNN: films left out whose labels differ from those of most films like them.

    Charte et al., "MLeNN: a first approach to heuristic multilabel undersampling", IDEAL 2014. A
    film without a minority finding (IRLbl above MeanIR) goes when at least half of its nearest
    films, of all films, are at an adjusted Hamming distance above 0.5. All are compared before any
    goes; nothing is random. `neighbours` 0 is the paper's 3. Raises ValueError for unusable
    features.
    """
    require_features(feature, films=len(label))
    minority, _ = minority_findings(label)
    common = np.flatnonzero(~(label[:, minority] == 1).any(axis=1))
    everyone, count = np.arange(len(label)), neighbours or MLENN_NEIGHBOURS
    near = nearest_films(feature, query=common, among=everyone, count=count)
    different = _count_different(label, common, near, limit=MLENN_DISTANCE)
    dropped = common[2 * different >= max(1, near.shape[1])]
    return originals(label).take(np.setdiff1d(everyone, dropped))


def mltl(label: Float32[np.ndarray, "n k"], *, feature: Float32[np.ndarray, "n d"]) -> Plan:
    """Return MLTL: films left out that are unlike the film nearest to them.

    Pereira et al., "MLTL: a multi-label approach for the Tomek Link undersampling algorithm",
    Neurocomputing 383, 2020. A film with a majority finding goes when its adjusted Hamming distance
    from its nearest film is above a threshold: with x = 1 / sqrt(MeanIR), 0.5 where x is above 0.5
    or SCUMBLE is above 0.3, else 0.3 where x is above 0.3, else 0.15. Such a film may carry a
    minority finding too. All are compared before any goes; nothing is random. Raises ValueError for
    unusable features.
    """
    require_features(feature, films=len(label))
    minority, mean_ir = minority_findings(label)
    common = np.flatnonzero((label[:, ~minority] == 1).any(axis=1))
    everyone = np.arange(len(label))
    near = nearest_films(feature, query=common, among=everyone, count=1)
    different = _count_different(label, common, near, limit=_threshold(label, mean_ir))
    return originals(label).take(np.setdiff1d(everyone, common[different > 0]))


def mlul(
    label: Float32[np.ndarray, "n k"],
    *,
    feature: Float32[np.ndarray, "n d"],
    percent: float,
    neighbours: int,
    seed: int,
) -> Plan:
    """Return MLUL: `percent` of films, cut to whole films, left out, rather those that do harm.

    Liu, Blekas and Tsoumakas, Pattern Recognition 122, 2022, as in the authors' Java. Films that
    stay are drawn one by one with a chance proportional to u = w + v, raised so that none is
    negative. w is the film's own difficulty (balance.cleaning) added up over findings. v is the
    mean, over the films that have it as a neighbour, of their difficulty where it holds the
    finding's rarer value too and is no outlier, less that where it does not. Films of chance 0 stay
    only when the others do not suffice, and then at random. `neighbours` 0 is the paper's 5. Raises
    ValueError for unusable features and for 100 percent or more.
    """
    if percent >= 100:
        raise ValueError(f"balance.percent is {percent:g}, expected less than 100 to leave films")
    require_features(feature, films=len(label))
    everyone, count = np.arange(len(label)), neighbours or MLUL_NEIGHBOURS
    near = nearest_films(feature, query=everyone, among=everyone, count=count)
    usefulness = _usefulness(local_imbalance(label, near=near), near)
    order = _draw_all(usefulness, generator=np.random.default_rng(seed))
    kept = order[: len(label) - int(len(label) * percent / 100)]
    return originals(label).take(np.sort(kept))


def local_imbalance(
    label: Float32[np.ndarray, "n k"], *, near: Int64[np.ndarray, "n c"]
) -> Float64[np.ndarray, "n k"]:
    """Return the share of neighbours with the other value, 0 to 1; NaN where a value is common."""
    active = label == 1
    rare = active == (2 * active.sum(axis=0) <= len(active))
    other = np.zeros(label.shape)
    for neighbour in near.T:
        other += active[neighbour] != active
    return np.where(rare, other / max(1, near.shape[1]), np.nan)


def difficulty(imbalance: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
    """Return each film's share in a finding's local imbalance; 0 for outliers and common values.

    A finding's shares come to 1, or to 0 when no film has a local imbalance above 0 and below 1.
    """
    counted = np.where(imbalance < 1, imbalance, 0)
    total = counted.sum(axis=0)
    return counted / np.where(total > 0, total, 1)


def kinds(
    imbalance: Float64[np.ndarray, "n k"], *, near: Int64[np.ndarray, "n c"]
) -> Int64[np.ndarray, "n k"]:
    """Return what each entry is: SAFE, BORDERLINE, RARE, OUTLIER, or MAJORITY (the common value).

    By LIMITS; then a rare entry with a safe or borderline neighbour becomes borderline itself,
    again and again until none is left.
    """
    kind = np.where(np.isnan(imbalance), MAJORITY, np.digitize(imbalance, LIMITS))
    film, finding = np.nonzero(kind == RARE)
    while True:
        calm = (kind[near[film], finding[:, np.newaxis]] <= BORDERLINE).any(axis=1)
        if not calm.any():
            return kind
        kind[film[calm], finding[calm]] = BORDERLINE
        film, finding = film[~calm], finding[~calm]


def adjusted_hamming(
    one: Float32[np.ndarray, "m k"], other: Float32[np.ndarray, "m k"]
) -> Float64[np.ndarray, " m"]:
    """Return findings that only one of two films has, over the findings of both added up.

    Charte et al., IDEAL 2014: 0 for the same findings, 1 for none in common; 0 when both are
    without any.
    """
    first, second = one == 1, other == 1
    carried = first.sum(axis=1) + second.sum(axis=1)
    return (first != second).sum(axis=1) / np.maximum(carried, 1)


def _threshold(label: Float32[np.ndarray, "n k"], mean_ir: float) -> float:
    """Return the adjusted Hamming distance above which MLTL calls two films unlike."""
    scumble = scumble_of_films(label)
    if len(scumble) and scumble.mean() > MIXED_UP:
        return 0.5
    evenness = 1 / math.sqrt(mean_ir)
    return next((limit for limit in (0.5, 0.3) if evenness > limit), 0.15)


def _count_different(
    label: Float32[np.ndarray, "n k"],
    films: Int64[np.ndarray, " q"],
    near: Int64[np.ndarray, "q c"],
    *,
    limit: float,
) -> Int64[np.ndarray, " q"]:
    """Return how many of each film's neighbours lie beyond `limit`."""
    different = np.zeros(len(films), dtype=np.int64)
    for neighbour in near.T:
        different += adjusted_hamming(label[films], label[neighbour]) > limit
    return different


def _usefulness(
    imbalance: Float64[np.ndarray, "n k"], near: Int64[np.ndarray, "n c"]
) -> Float64[np.ndarray, " n"]:
    share, films = difficulty(imbalance), len(imbalance)
    sides_with = np.where(imbalance < 1, 1, -1)
    support = np.zeros(films)
    for neighbour in near.T:
        gain = (share * sides_with[neighbour]).sum(axis=1)
        support += np.bincount(neighbour, weights=gain, minlength=films)
    times = np.bincount(near.ravel(), minlength=films)
    usefulness = share.sum(axis=1) + support / np.maximum(times, 1)
    return usefulness - usefulness.min(initial=0)


def _draw_all(
    weight: Float64[np.ndarray, " n"], *, generator: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Return all films in the order of drawing them by weight, without replacement.

    The first of several waiting times at these rates is that of a film with a chance proportional
    to its weight (Efraimidis and Spirakis, Information Processing Letters 97, 2006).
    """
    wait = np.full(len(weight), np.inf)
    np.divide(generator.exponential(size=len(weight)), weight, out=wait, where=weight > 0)
    return np.lexsort((generator.random(len(weight)), wait))
