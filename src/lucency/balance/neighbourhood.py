"""Resampling by neighbours: films left out that contradict those like them, or mixed with them.

Left out: MLeNN, MLTL, MLUL. Mixed, for findings that are rare: MLSMOTE, MLSOL; an entry of the plan
names both parents and the share of the second, and the pictures are mixed when the network is
trained. All films are compared before any goes. Local imbalance is from Liu, Blekas and Tsoumakas,
"Multi-label sampling based on local label imbalance", Pattern Recognition 122, 2022. A finding's
rarer value is present, unless more than half of all films have it; a label of NaN counts as absent.
Letters in shapes: n films, k findings, d feature dimensions, m pairs or synthetic films, q query
films, c neighbours, b films of a bag.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lucency.balance.imbalance import minority_findings, scumble_of_films
from lucency.core.neighbours import nearest_films, require_features
from lucency.core.plan import Plan, clones, joined, originals

SAFE, BORDERLINE, RARE, OUTLIER, MAJORITY = range(5)
LIMITS = (0.3, 0.7, 1.0)  # local imbalance from which an entry is no more safe, borderline, rare
# Largest distance from the parent with the rarer value, as a share of the way to the other parent,
# at which a synthetic film still has it: safe, borderline, rare, outlier; common has no use for it.
REACH = np.array([0.5, 0.75, 1 + 1e-5, -1e-5, 0.0])
MLENN_NEIGHBOURS, NEIGHBOURS = 3, 5  # of the papers, MLeNN's and the others'
MIXED_UP = 0.3  # SCUMBLE above which MLTL is at its most lenient
Label = Float32[np.ndarray, "n k"]
Feature = Float32[np.ndarray, "n d"]
Near = Int64[np.ndarray, "n c"]
LocalImbalance = Float64[np.ndarray, "n k"]
Kind = Int64[np.ndarray, "m k"]
Rule = Callable[[Int64[np.ndarray, "b k"], int], Bool[np.ndarray, "b k"]]


def mlenn(label: Label, *, feature: Feature, neighbours: int) -> Plan:
    """Return MLeNN: films left out whose labels differ from those of most films like them.

    Charte et al., "MLeNN: a first approach to heuristic multilabel undersampling", IDEAL 2014. A
    film without a minority finding (IRLbl above MeanIR) goes when at least half of its nearest
    films, of all films, are at an adjusted Hamming distance above 0.5. Nothing is random.
    `neighbours` 0 is the paper's 3. Raises ValueError for unusable features.
    """
    minority, _ = minority_findings(label)
    common = np.flatnonzero(~(label[:, minority] == 1).any(axis=1))
    near = _nearest(label, feature, common, count=neighbours or MLENN_NEIGHBOURS)
    distance = adjusted_hamming(label[common, np.newaxis], label[near])
    different = (distance > 0.5).sum(axis=1)
    dropped = common[2 * different >= max(1, near.shape[1])]
    return originals(label).take(np.delete(np.arange(len(label)), dropped))


def mltl(label: Label, *, feature: Feature) -> Plan:
    """Return MLTL: films left out that are unlike the film nearest to them.

    Pereira et al., "MLTL: a multi-label approach for the Tomek Link undersampling algorithm",
    Neurocomputing 383, 2020. A film with a majority finding goes when its adjusted Hamming distance
    from its nearest film is above a threshold: with x = 1 / sqrt(MeanIR), 0.5 where x is above 0.5
    or SCUMBLE is above 0.3, else 0.3 where x is above 0.3, else 0.15. Such a film may carry a
    minority finding too. Nothing is random. Raises ValueError for unusable features.
    """
    minority, mean_ir = minority_findings(label)
    common = np.flatnonzero((label[:, ~minority] == 1).any(axis=1))
    near = _nearest(label, feature, common, count=1)
    limit, scumble = 0.5, scumble_of_films(label)
    if not (len(scumble) and scumble.mean() > MIXED_UP):
        evenness = 1 / math.sqrt(mean_ir)
        limit = next((least for least in (0.5, 0.3) if evenness > least), 0.15)
    distance = adjusted_hamming(label[common, np.newaxis], label[near])
    dropped = common[(distance > limit).any(axis=1)]
    return originals(label).take(np.delete(np.arange(len(label)), dropped))


def mlul(label: Label, *, feature: Feature, percent: float, neighbours: int, seed: int) -> Plan:
    """Return MLUL: `percent` of films, cut to whole films, left out, rather those that do harm.

    Liu, Blekas and Tsoumakas, Pattern Recognition 122, 2022, as in the authors' Java. Films that
    stay are drawn one by one with a chance proportional to u = w + v, raised so that none is
    negative. w is the film's own difficulty added up over findings. v is the mean, over the films
    that have it as a neighbour, of their difficulty where it holds the finding's rarer value too
    and is no outlier, less that where it does not. Films of chance 0 stay only when the others do
    not suffice, and then at random: the first of several waiting times at the rates u is that of a
    film with a chance proportional to u (Efraimidis and Spirakis, Information Processing Letters
    97, 2006). `neighbours` 0 is the paper's 5. Raises ValueError for unusable features and for 100
    percent or more.
    """
    if percent >= 100:
        raise ValueError(f"balance.percent is {percent:g}, expected less than 100 to leave films")
    near = _nearest(label, feature, np.arange(len(label)), count=neighbours or NEIGHBOURS)
    usefulness = _usefulness(local_imbalance(label, near=near), near)
    generator, wait = np.random.default_rng(seed), np.full(len(label), np.inf)
    np.divide(generator.exponential(size=len(label)), usefulness, out=wait, where=usefulness > 0)
    order = np.lexsort((generator.random(len(label)), wait))
    kept = order[: len(label) - int(len(label) * percent / 100)]
    return originals(label).take(np.sort(kept))


def mlsmote(label: Label, *, feature: Feature, neighbours: int, labels: str, seed: int) -> Plan:
    """Return MLSMOTE: for every film of every minority finding, one mixed with a film like it.

    Charte et al., Knowledge-Based Systems 89, 2015. The films of a minority finding (IRLbl above
    MeanIR) are its bag, and neighbours are sought there; a film of two such findings is mixed
    twice. The mate is any of the film's neighbours, its share uniform in 0 to 1. The findings come
    from the film and all its neighbours, by `labels`: "ranking" those of more than half of them,
    "union" those of any, "intersection" those of all. A label that none of them states stays NaN;
    else NaN counts as absent. A bag of one film makes none. `neighbours` 0 is the paper's 5.
    Synthetic films follow the originals, bag by bag. Raises ValueError for unusable features and
    for another word than those three.
    """
    if labels not in RULES:
        raise ValueError(f"balance.labels is {labels!r}, expected one of {', '.join(RULES)}")
    require_features(feature, films=len(label))
    minority, _ = minority_findings(label)
    bags = [np.flatnonzero(one == 1) for one in label.T[minority]]
    bags = [bag for bag in bags if len(bag) > 1]
    if not bags:
        return originals(label)
    generator, count = np.random.default_rng(seed), neighbours or NEIGHBOURS
    voted, mate, source = [], [], np.concatenate(bags)
    for bag in bags:
        near = nearest_films(feature, query=bag, among=bag, count=count)
        cell = label[np.column_stack((bag, near))]
        vote = RULES[labels]((cell == 1).sum(axis=1), cell.shape[1])
        voted.append(np.where(np.isnan(cell).all(axis=1), np.nan, vote).astype(np.float32))
        mate.append(_draw_one(near, generator))
    mix = generator.random(len(source), dtype=np.float32)
    mixed = {"label": np.concatenate(voted), "mate": np.concatenate(mate), "mix": mix}
    return joined(originals(label), replace(clones(label, source), **mixed))


def mlsol(label: Label, *, feature: Feature, percent: float, neighbours: int, seed: int) -> Plan:
    """Return MLSOL: `percent` of films, cut to whole films, mixed where a finding is rare nearby.

    Liu and Tsoumakas, ECML-PKDD 2019, as in the authors' Java of 2019-06. Films are drawn, with
    replacement, with a chance proportional to their difficulty over all findings, the mate is any
    of their neighbours, its share in the mix uniform in 0 to 1. Where the parents agree on a
    finding, the label is the first one's. Elsewhere the parent with the rarer value decides by what
    that value is there: the synthetic film has it up to half of the way to the other parent when it
    is safe, up to three quarters when borderline, always when rare, never when an outlier. NaN
    counts as absent and is handed down as NaN. The way is taken from the share, for parents with
    equal features too. Without any local imbalance there are only the originals. `neighbours` 0 is
    the papers' 5. Raises ValueError for unusable features.
    """
    films = int(len(label) * percent / 100)
    near = _nearest(label, feature, np.arange(len(label)), count=neighbours or NEIGHBOURS)
    imbalance = local_imbalance(label, near=near)
    weight = difficulty(imbalance).sum(axis=1)
    if not weight.any():
        return originals(label)
    generator = np.random.default_rng(seed)
    source = generator.choice(len(label), size=films, p=weight / weight.sum())
    mate = _draw_one(near[source], generator)
    mix = generator.random(films, dtype=np.float32)
    kind = kinds(imbalance, near=near)
    own = _keeps_own(kind[source], kind[mate], mix=mix)
    mixed = np.where(own, label[source], label[mate])
    return joined(originals(label), replace(clones(label, source), label=mixed, mate=mate, mix=mix))


def local_imbalance(label: Label, *, near: Near) -> LocalImbalance:
    """Return the share of neighbours with the other value, 0 to 1; NaN where a value is common."""
    active = label == 1
    rare = active == (2 * active.sum(axis=0) <= len(active))
    other = (active[near] != active[:, np.newaxis]).sum(axis=1)
    return np.where(rare, other / max(1, near.shape[1]), np.nan)


def difficulty(imbalance: LocalImbalance) -> Float64[np.ndarray, "n k"]:
    """Return each film's share in a finding's local imbalance; 0 for outliers and common values.

    A finding's shares come to 1, or to 0 when no film has a local imbalance above 0 and below 1.
    """
    counted = np.where(imbalance < 1, imbalance, 0)
    total = counted.sum(axis=0)
    return counted / np.where(total > 0, total, 1)


def kinds(imbalance: LocalImbalance, *, near: Near) -> Int64[np.ndarray, "n k"]:
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
    one: Float32[np.ndarray, "*a k"], other: Float32[np.ndarray, "*b k"]
) -> Float64[np.ndarray, ...]:
    """Return findings that only one of two films has, over the findings of both added up.

    Charte et al., IDEAL 2014: 0 for the same findings, 1 for none in common; 0 when both are
    without any.
    """
    first, second = one == 1, other == 1
    carried = first.sum(axis=-1) + second.sum(axis=-1)
    return (first != second).sum(axis=-1) / np.maximum(carried, 1)


def _nearest(
    label: Label, feature: Feature, query: Int64[np.ndarray, " q"], *, count: int
) -> Int64[np.ndarray, "q c"]:
    """Return the films nearest to those of `query`, of all films."""
    require_features(feature, films=len(label))
    return nearest_films(feature, query=query, among=np.arange(len(label)), count=count)


def _usefulness(imbalance: LocalImbalance, near: Near) -> Float64[np.ndarray, " n"]:
    share, films = difficulty(imbalance), len(imbalance)
    sides_with = np.where(imbalance < 1, 1, -1)
    support = np.zeros(films)
    for neighbour in near.T:
        gain = (share * sides_with[neighbour]).sum(axis=1)
        support += np.bincount(neighbour, weights=gain, minlength=films)
    times = np.bincount(near.ravel(), minlength=films)
    usefulness = share.sum(axis=1) + support / np.maximum(times, 1)
    return usefulness - usefulness.min(initial=0)


def _draw_one(near: Near, generator: np.random.Generator) -> Int64[np.ndarray, " n"]:
    drawn = generator.integers(near.shape[1], size=len(near))
    return near[np.arange(len(near)), drawn]


def _keeps_own(
    own: Kind, other: Kind, *, mix: Float32[np.ndarray, " m"]
) -> Bool[np.ndarray, "m k"]:
    """Return where a synthetic film has its first parent's label, by both parents' kinds."""
    leads = own != MAJORITY
    away = np.where(leads, mix[:, np.newaxis], 1 - mix[:, np.newaxis])
    rare = away <= REACH[np.where(leads, own, other)]
    agree = leads == (other != MAJORITY)
    return agree | (rare == leads)


RULES: dict[str, Rule] = {
    "ranking": lambda carried, films: 2 * carried > films,
    "union": lambda carried, films: carried > 0,
    "intersection": lambda carried, films: carried == films,
}
