"""The plan that a protocol makes of a label table: no picture is read, and none need be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from lucency.balance.imbalance import POPULATIONS, Change, describe_change
from lucency.balance.methods import needs_features, plan_parts
from lucency.balance.steps import Balanced
from lucency.config.protocol import Protocol
from lucency.core.manifest import APART, Manifest
from lucency.core.plan import Plan
from lucency.data.sources import list_films, place_of_labels
from lucency.data.split import set_apart, split, split_by_image

Splitter = Callable[[Manifest, Path], np.ndarray]


class LabelPlan(NamedTuple):
    """Films that a label table lists, what each part sees of them, and what balancing changed."""

    films: Manifest
    plan: Plan
    change: Change


def plan_of_labels(protocol: Protocol, *, labels: Path | None) -> LabelPlan:
    """Return the plan of the protocol's label table, or of the label file `labels`.

    The protocol's split is made too, NIH's official one by the lists beside the label file. It is
    the plan of a run whose films are all there and can be read. Raises ValueError for a method
    that compares films by features, which labels do not hold.
    """
    choices = protocol.balance
    if needs_features(choices):
        named = f"{choices.method}, then {choices.then}"
        raise ValueError(
            f"balance.method {named.removesuffix(', then none')} compares films by features, which "
            "labels do not hold: expected --out DIR, the folder of a run whose films are prepared"
        )
    place = protocol.data if labels is None else place_of_labels(protocol.data, labels)
    films, part = list_films(place, findings=protocol.findings, split=splitter(protocol))
    made, early = planned(films, part, protocol), choices.before_split
    rows = np.flatnonzero(part == "train")
    plan = made.plan if early else made.plan.take(made.plan.part == "train")
    change = describe_change(
        films.label[rows],
        plan=plan,
        findings=films.findings,
        steps=made.steps,
        population=POPULATIONS[early],
    )
    return LabelPlan(films, made.plan, change)


def splitter(protocol: Protocol) -> Splitter:
    """Return what parts films, given them and the folder of the official lists.

    Where a protocol balances before its split, all films that are not set apart are one part, which
    `planned` parts.
    """
    if protocol.balance.before_split:
        return lambda films, _: np.where(set_apart(films, choices=protocol.split), APART, "train")
    return lambda films, root: split(films, choices=protocol.split, root=root)


def planned(films: Manifest, part: Shaped[np.ndarray, " n"], protocol: Protocol) -> Balanced:
    """Return the plan of a protocol that needs no features, the parts being those of `splitter`."""
    made = plan_parts(
        films.label,
        part=part,
        findings=films.findings,
        choices=protocol.balance,
        feature=np.empty((int((part == "train").sum()), 0), dtype=np.float32),
    )
    if not protocol.balance.before_split:
        return made
    choices, entries = protocol.split, len(made.plan)
    share = (choices.train, choices.val, choices.test)
    parts = split_by_image(entries, share=share, seed=choices.seed)
    return made._replace(plan=replace(made.plan, part=parts))
