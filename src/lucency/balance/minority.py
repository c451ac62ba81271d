"""Resampling by minority finding: one whose IRLbl is above MeanIR (see balance.imbalance).

A finding that no film has is never a minority one, and a label of NaN counts as absent. Letters in
shapes: n films, k findings, c copies.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lucency.balance.imbalance import minority_findings, scumble_of_films
from lucency.core.plan import Plan, clones, joined, originals

ROUNDING = 1e-9  # values of SCUMBLE that differ by less are the same


def ml_rus(label: Float32[np.ndarray, "n k"], *, percent: float, seed: int) -> Plan:
    """Return ML-RUS: random films dropped among those that carry no minority finding.

    Charte et al., Neurocomputing 163, 2015. `percent` of all films, cut to whole films, is
    dropped; when fewer are without a minority finding, all of those and no more.
    """
    minority, _ = minority_findings(label)
    common = np.flatnonzero(~(label[:, minority] == 1).any(axis=1))
    films = min(len(common), int(len(label) * percent / 100))
    kept = np.ones(len(label), dtype=bool)
    kept[np.random.default_rng(seed).choice(common, size=films, replace=False)] = False
    return originals(label).take(kept)


def ml_ros(label: Float32[np.ndarray, "n k"], *, percent: float, copies: str, seed: int) -> Plan:
    """Return ML-ROS: copies of random films that carry a minority finding, finding after finding.

    Charte et al., Neurocomputing 163, 2015. In each round every minority finding has one of its
    films copied, until there are `percent` of all films in copies, cut to whole films. A finding
    leaves once its IRLbl, copies counted, is at most the MeanIR of the start; when all have left,
    there are fewer copies. A copy adds to whatever else it carries, so copying may raise the
    commonest finding faster than a minority one: copies end at the last one after which no
    minority finding's IRLbl is above that of the start, possibly before the first. `copies` is a
    key of plan.RECIPES; copies are in the order in which they were drawn.
    """
    minority, mean_ir = minority_findings(label)
    source = _draw_in_turn(
        label == 1,
        minority=minority,
        mean_ir=mean_ir,
        films=int(len(label) * percent / 100),
        generator=np.random.default_rng(seed),
    )
    return joined(originals(label), clones(label, source, copies=copies))


def remedial(label: Float32[np.ndarray, "n k"], *, copies: str) -> Plan:
    """Return REMEDIAL: films on which rare and common findings meet, parted into two entries.

    Charte et al., "Resampling multilabel datasets by decoupling highly imbalanced labels", HAIS
    2015, as R's mldr does it. Every film with more SCUMBLE than the mean keeps its majority
    findings in place and gets a copy with its minority findings; either may be left with none, a
    training target of no finding at all. No finding's count changes. NaN stays NaN
    in both. `copies` is a key of plan.RECIPES. Nothing is random: there is no
    seed.
    """
    minority, _ = minority_findings(label)
    scumble = scumble_of_films(label)
    parted = scumble - scumble.sum() / max(1, len(label)) > ROUNDING
    source = np.flatnonzero(parted)
    common = np.where(parted[:, np.newaxis] & minority & (label == 1), 0, label)
    rare = np.where(~minority & (label[source] == 1), 0, label[source])
    return joined(
        replace(originals(label), label=common),
        replace(clones(label, source, copies=copies), label=rare),
    )


def _draw_in_turn(
    active: Bool[np.ndarray, "n k"],
    *,
    minority: Bool[np.ndarray, " k"],
    mean_ir: float,
    films: int,
    generator: np.random.Generator,
) -> Int64[np.ndarray, " c"]:
    """Return the films to copy, one of each minority finding in turn, while it helps all."""
    bags = {finding: np.flatnonzero(active[:, finding]) for finding in np.flatnonzero(minority)}
    start = active.sum(axis=0)
    count, source, sound = start.copy(), [], 0
    while bags and len(source) < films:
        for finding in list(bags)[: films - len(source)]:
            film = generator.choice(bags[finding])
            source.append(film)
            count += active[film]
            if count.max() / count[finding] <= mean_ir:
                del bags[finding]
            if (count.max() * start[minority] <= start.max() * count[minority]).all():
                sound = len(source)
    return np.array(source[:sound], dtype=np.int64)
