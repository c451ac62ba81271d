"""Balancing by weight: every finding on its own in the loss, or films drawn by their rarity.

A label of NaN (not stated) is neither a positive nor a negative, and weighs 1: the loss leaves it
out. Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from lucency.core.plan import Plan, clones, joined, originals


def partial(
    label: Float32[np.ndarray, "n k"], *, ratio: float, positive_weight: float, seed: int
) -> Plan:
    """Return partial resampling: each finding balanced by weights of its own, no film moved.

    García-Pedrajas et al., Knowledge-Based Systems 302, 2024, for a network's loss. Where a
    finding has more than `ratio` negatives to a positive, positives weigh `positive_weight` and
    random negatives weigh 0, so that `ratio` to 1 is what their weights come to, up to one
    negative. Where that takes more negatives than there are, all weigh 1 and positives only as
    much as it takes. A finding at or below `ratio`, or without positives, weighs 1 throughout.
    A finding's draws depend on the seed and its own column alone.
    """
    generators = np.random.default_rng(seed).spawn(label.shape[1])
    columns = [
        _weigh(value, ratio=ratio, positive_weight=positive_weight, generator=generator)
        for value, generator in zip(label.T, generators, strict=True)
    ]
    return replace(originals(label), weight=np.stack(columns, axis=1))


def positive_weights(label: Float32[np.ndarray, "n k"]) -> Plan:
    """Return positives weighed by inverse frequency: their finding's negatives over positives.

    Both then weigh the same in sum. A finding without positives or without negatives weighs 1.
    """
    positives, negatives = (label == 1).sum(axis=0), (label == 0).sum(axis=0)
    both = (positives > 0) & (negatives > 0)
    heavy = np.where(both, negatives / np.maximum(positives, 1), 1)
    weight = np.where(label == 1, heavy, 1).astype(np.float32)
    return replace(originals(label), weight=weight)


def weighted_sampler(label: Float32[np.ndarray, "n k"], *, copies: str, seed: int) -> Plan:
    """Return as many entries as films, drawn with replacement, films of rare findings more often.

    A film's chance is proportional to the mean of 1 / count over its findings; films without any
    share the weight of one finding. The first draw of a film is the film itself, further ones are
    copies (`copies` is a key of plan.RECIPES). A film that is not drawn is left out, be it the
    only one of its finding.
    """
    weight = _rarity(label)
    share = weight / weight.sum()
    drawn = np.random.default_rng(seed).choice(len(label), size=len(label), p=share)
    times = np.bincount(drawn, minlength=len(label))
    source = np.repeat(np.arange(len(label)), np.maximum(times - 1, 0))
    return joined(originals(label).take(times > 0), clones(label, source, copies=copies))


def _weigh(
    value: Float32[np.ndarray, " n"],
    *,
    ratio: float,
    positive_weight: float,
    generator: np.random.Generator,
) -> Float32[np.ndarray, " n"]:
    positives, negatives = np.flatnonzero(value == 1), np.flatnonzero(value == 0)
    weight = np.ones(len(value), dtype=np.float32)
    if not len(positives) or len(negatives) <= ratio * len(positives):
        return weight
    heavy = min(positive_weight, len(negatives) / (ratio * len(positives)))
    kept = round(ratio * heavy * len(positives))
    weight[positives] = heavy
    weight[generator.choice(negatives, size=len(negatives) - kept, replace=False)] = 0
    return weight


def _rarity(label: Float32[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """Return the mean of 1 / count over a film's findings, for films of none 1 / their number."""
    active = label == 1
    carried = active.sum(axis=1)
    share = active @ (1 / np.maximum(active.sum(axis=0), 1))
    none = carried == 0
    return np.where(none, 1 / max(1, int(none.sum())), share / np.maximum(carried, 1))
