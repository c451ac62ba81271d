"""Resampling by labelset: films that carry exactly the same findings are one bag.

Charte et al., "Addressing imbalance in multilabel classification: Measures and random resampling
algorithms", Neurocomputing 163, 2015. Films without any finding are a bag too; a label of NaN
counts as absent. Letters in shapes: n films, k findings, b bags.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from lucency.core.plan import Plan, clones, joined, originals


def lp_rus(label: Float32[np.ndarray, "n k"], *, percent: float, seed: int) -> Plan:
    """Return LP-RUS: random films dropped from the bags of more films than the mean bag.

    `percent` of all films, cut to whole films, is shared equally among those bags, from the
    smallest up. No bag is left with fewer films than the mean, and what one cannot give is shared
    equally among the bigger ones. Every share is cut to whole films and the cut passed on too: the
    total is as wanted, or less when all these bags have come down to the mean (rounded up).
    The seed decides which films of a bag go, never how many.
    """
    bag, size = _bags(label)
    above_mean = (size * len(size) - len(label)) // max(1, len(size))
    share = _share(above_mean, films=int(len(label) * percent / 100))
    order = np.random.default_rng(seed).permutation(len(label))
    order = order[np.argsort(bag[order], kind="stable")]
    place = np.arange(len(label)) - np.repeat(_start(size), size)
    kept = np.ones(len(label), dtype=bool)
    kept[order[place < np.repeat(share, size)]] = False
    return originals(label).take(kept)


def lp_ros(label: Float32[np.ndarray, "n k"], *, percent: float, copies: str, seed: int) -> Plan:
    """Return LP-ROS: copies of random films added to the bags of fewer films than the mean bag.

    The mirror of `lp_rus`: shared from the largest of those bags down, no bag grows beyond the
    mean (rounded down), and what one cannot take is shared among the smaller ones. A film may be
    copied several times; `copies` is a key of plan.RECIPES.
    """
    bag, size = _bags(label)
    below_mean = (len(label) - size * len(size)) // max(1, len(size))
    share = _share(below_mean, films=int(len(label) * percent / 100))
    drawn = np.random.default_rng(seed).integers(np.repeat(size, share))
    members = np.argsort(bag, kind="stable")
    source = np.sort(members[np.repeat(_start(size), share) + drawn])
    return joined(originals(label), clones(label, source, copies=copies))


def _bags(
    label: Float32[np.ndarray, "n k"],
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " b"]]:
    """Return each film's bag and each bag's number of films."""
    packed = np.packbits(label == 1, axis=1)
    _, bag, size = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    return bag.astype(np.int64), size.astype(np.int64)


def _share(room: Int64[np.ndarray, " b"], *, films: int) -> Int64[np.ndarray, " b"]:
    """Return how many films each bag gives or takes: an equal share, at most its room."""
    share, order = np.zeros_like(room), np.argsort(room, kind="stable")
    order = order[room[order] > 0]
    for place, bag in enumerate(order):
        share[bag] = min(room[bag], films // (len(order) - place))
        films -= int(share[bag])
    return share


def _start(size: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
    """Return where each bag begins when films are sorted by bag."""
    return np.cumsum(size) - size
