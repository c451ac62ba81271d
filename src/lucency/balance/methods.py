"""Balancing: the training films' labels in, a Plan of what every part sees out; seeded.

RESAMPLERS names the methods. Each is a function of the labels, and of those of the protocol's
`balance` keys, the findings' names and the films' features that its signature names. It returns a
plan, or yields the plan after each of several steps.
Letters in shapes: n films, k findings, t training films, d feature dimensions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from lucency.balance import neighbourhood, resampling
from lucency.balance.imbalance import Balanced, Change, Step, describe_change, followed
from lucency.config.protocol import Protocol
from lucency.config.sections import BALANCE_KEYS, Balance
from lucency.core.manifest import APART, Manifest
from lucency.core.plan import Plan, followed_by, joined, originals
from lucency.data.several_sources import list_sources
from lucency.data.sources import place_of_labels
from lucency.data.split import set_apart, split, split_by_image


class LabelPlan(NamedTuple):
    """Films that a label table lists, what each part sees of them, and what balancing changed."""

    films: Manifest
    plan: Plan
    change: Change


def plan_parts(
    label: Float32[np.ndarray, "n k"],
    *,
    part: Shaped[np.ndarray, " n"],
    findings: tuple[str, ...],
    choices: Balance,
    feature: Float32[np.ndarray, "t d"],
) -> Balanced:
    """Return what each part sees: training films balanced, validation and test films as they are.

    Films set apart are seen by none. The methods are shown the training films' rows alone;
    `feature` holds those films only, in their order, and may have no columns where no method
    needs them. The steps count training entries.
    """
    train = np.flatnonzero(part == "train")
    held_out = np.flatnonzero(~np.isin(part, ("train", APART)))
    shown = label[train]
    steps = resample_steps(shown, findings=findings, choices=choices, feature=feature)
    balanced, table = followed(shown, steps, findings=findings)
    kept = originals(label[held_out])
    plan = joined(
        replace(balanced, row=train[balanced.row], mate=train[balanced.mate]),
        replace(kept, row=held_out[kept.row], mate=held_out[kept.mate], part=part[held_out]),
    )
    return Balanced(plan, table)


def resample_steps(
    label: Float32[np.ndarray, "t k"],
    *,
    findings: tuple[str, ...],
    choices: Balance,
    feature: Float32[np.ndarray, "t d"],
) -> Iterator[Step]:
    """Yield the plan of training films after each step: of `choices.method`, then `choices.then`.

    A method is one step, or several. The second is applied to what the first one made.
    """
    at_hand, first = {**dict(choices), "findings": findings}, originals(label)
    for step in _steps(choices.method, label, {**at_hand, "feature": feature}):
        first = step.plan
        yield step
    if choices.then != "none":
        for step in _steps(choices.then, first.label, {**at_hand, "feature": feature[first.row]}):
            yield step._replace(plan=followed_by(first, step.plan))


def needs_features(choices: Balance) -> bool:
    """Return whether a method of `choices` compares films by features."""
    return any("features" in BALANCE_KEYS[name] for name in (choices.method, choices.then))


def plan_of_labels(protocol: Protocol, *, labels: Path | None) -> LabelPlan:
    """Return the plan of the protocol's label table, or of the label file `labels`.

    No picture is read, and none need be there. The protocol's split is made too, NIH's official one
    by the lists beside the label file. It is the plan of a run whose films are all there and can be
    read. Raises ValueError for a method that compares films by features, which labels do not hold.
    """
    choices = protocol.balance
    if needs_features(choices):
        named = f"{choices.method}, then {choices.then}"
        raise ValueError(
            f"balance.method {named.removesuffix(', then none')} compares films by features, which "
            "labels do not hold: make the plan in a run, with lucency run --until balance"
        )
    place = protocol.data if labels is None else place_of_labels(protocol.data, labels)
    films, part = list_sources(place, findings=protocol.findings, split=splitter(protocol))
    made, early = planned(films, part, protocol), choices.before_split
    change = describe_change(
        films.label[part == "train"],
        plan=made.plan if early else made.plan.take(made.plan.part == "train"),
        findings=films.findings,
        steps=made.steps,
        population="all films" if early else "the training part",
    )
    return LabelPlan(films, made.plan, change)


def splitter(protocol: Protocol) -> Callable[[Manifest, Path], np.ndarray]:
    """Return what parts films, given them and the folder of the official lists.

    Where a protocol balances before its split, all films that are not set apart are one part, which
    `planned` parts.
    """
    if protocol.balance.before_split:
        return lambda films, _: np.where(set_apart(films, choices=protocol.split), APART, "train")
    about = {"choices": protocol.split, "place": protocol.data}
    return lambda films, root: split(films, root=root, **about)


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


def _steps(
    method: str, label: Float32[np.ndarray, "t k"], at_hand: dict[str, object]
) -> Iterator[Step]:
    keys = [name for name in inspect.signature(RESAMPLERS[method]).parameters if name != "label"]
    made = RESAMPLERS[method](label, **{name: at_hand[name] for name in keys})
    if isinstance(made, Plan):
        yield Step(method, "", made)
    else:
        yield from made


RESAMPLERS: dict[str, Callable[..., Plan | Iterator[Step]]] = {
    "none": originals,
    "cap-and-copy": resampling.cap_and_copy,
    "partial": resampling.partial,
    "positive-weights": resampling.positive_weights,
    "weighted-sampler": resampling.weighted_sampler,
    "class-aware": resampling.class_aware,
    "lp-rus": resampling.lp_rus,
    "lp-ros": resampling.lp_ros,
    "ml-rus": resampling.ml_rus,
    "ml-ros": resampling.ml_ros,
    "remedial": resampling.remedial,
    "mlsmote": neighbourhood.mlsmote,
    "mlsol": neighbourhood.mlsol,
    "mlul": neighbourhood.mlul,
    "mlenn": neighbourhood.mlenn,
    "mltl": neighbourhood.mltl,
}
