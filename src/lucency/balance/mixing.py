"""Synthetic films: mixes of a film and one like it, for findings that are rare.

An entry of the plan names both parents and the share of the second; the pictures are mixed when
the network is trained. Letters in shapes: n films, k findings, d feature dimensions, m synthetic
films, c neighbours, b films of a bag, e films that vote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lucency.balance.cleaning import MAJORITY, difficulty, kinds, local_imbalance
from lucency.balance.imbalance import minority_findings
from lucency.core.neighbours import nearest_films, require_features
from lucency.core.plan import Plan, clones, joined, originals

Rule = Callable[[Int64[np.ndarray, "b k"], int], Bool[np.ndarray, "b k"]]
NEIGHBOURS = 5  # of both papers
# Largest distance from the parent with the rarer value, as a share of the way to the other parent,
# at which a synthetic film still has it: safe, borderline, rare, outlier; common has no use for it.
REACH = np.array([0.5, 0.75, 1 + 1e-5, -1e-5, 0.0])


def mlsmote(
    label: Float32[np.ndarray, "n k"],
    *,
    feature: Float32[np.ndarray, "n d"],
    neighbours: int,
    labels: str,
    seed: int,
) -> Plan:
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
    bags = _minority_bags(label)
    if not bags:
        return originals(label)
    generator, count = np.random.default_rng(seed), neighbours or NEIGHBOURS
    near = [nearest_films(feature, query=bag, among=bag, count=count) for bag in bags]
    voted = [
        _vote(label[np.column_stack((bag, alike))], rule=RULES[labels])
        for bag, alike in zip(bags, near, strict=True)
    ]
    mate = [_draw_one(alike, generator) for alike in near]
    source = np.concatenate(bags)
    made = replace(
        clones(label, source),
        label=np.concatenate(voted),
        mate=np.concatenate(mate),
        mix=generator.random(len(source), dtype=np.float32),
    )
    return joined(originals(label), made)


def mlsol(
    label: Float32[np.ndarray, "n k"],
    *,
    feature: Float32[np.ndarray, "n d"],
    percent: float,
    neighbours: int,
    seed: int,
) -> Plan:
    """Return MLSOL: `percent` of films, cut to whole films, mixed where a finding is rare nearby.

    Liu and Tsoumakas, ECML-PKDD 2019, as in the authors' Java of 2019-06. Films are drawn, with
    replacement, with a chance proportional to their difficulty (balance.cleaning) over all
    findings, the mate is any of their neighbours, its share in the mix uniform in 0 to 1. Where the
    parents agree on a finding, the label is the first one's. Elsewhere the parent with the rarer
    value decides by what that value is there (balance.cleaning): the synthetic film has it up to
    half of the way to the other parent when it is safe, up to three quarters when borderline,
    always when rare, never when an outlier. NaN counts as absent and is handed down as NaN. The way
    is taken from the share, for parents with equal features too. Without any local imbalance there
    are only the originals. `neighbours` 0 is the papers' 5. Raises ValueError for unusable
    features.
    """
    require_features(feature, films=len(label))
    everyone, films = np.arange(len(label)), int(len(label) * percent / 100)
    near = nearest_films(feature, query=everyone, among=everyone, count=neighbours or NEIGHBOURS)
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


def _minority_bags(label: Float32[np.ndarray, "n k"]) -> list[Int64[np.ndarray, " b"]]:
    """Return the films of each minority finding, of those that at least two films have."""
    minority, _ = minority_findings(label)
    bags = [np.flatnonzero(one == 1) for one in label.T[minority]]
    return [bag for bag in bags if len(bag) > 1]


def _draw_one(
    near: Int64[np.ndarray, "m c"], generator: np.random.Generator
) -> Int64[np.ndarray, " m"]:
    drawn = generator.integers(near.shape[1], size=len(near))
    return near[np.arange(len(near)), drawn]


def _vote(cell: Float32[np.ndarray, "b e k"], *, rule: Rule) -> Float32[np.ndarray, "b k"]:
    voted = rule((cell == 1).sum(axis=1), cell.shape[1])
    return np.where(np.isnan(cell).all(axis=1), np.nan, voted).astype(np.float32)


def _keeps_own(
    own: Int64[np.ndarray, "m k"],
    other: Int64[np.ndarray, "m k"],
    *,
    mix: Float32[np.ndarray, " m"],
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
