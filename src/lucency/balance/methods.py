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

import numpy as np
from jaxtyping import Float32, Shaped

from lucency.balance.cap_and_copy import cap_and_copy
from lucency.balance.cleaning import mlenn, mltl, mlul
from lucency.balance.labelset import lp_ros, lp_rus
from lucency.balance.minority import ml_ros, ml_rus, remedial
from lucency.balance.mixing import mlsmote, mlsol
from lucency.balance.steps import Balanced, Step, followed
from lucency.balance.weighting import partial, positive_weights, weighted_sampler
from lucency.config.sections import BALANCE_KEYS, Balance
from lucency.core.manifest import APART
from lucency.core.plan import Plan, followed_by, joined, originals


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


def resample(
    label: Float32[np.ndarray, "t k"],
    *,
    findings: tuple[str, ...],
    choices: Balance,
    feature: Float32[np.ndarray, "t d"],
) -> Plan:
    """Return the plan of training films: `choices.method`, then `choices.then` on what it made."""
    plan = originals(label)
    for step in resample_steps(label, findings=findings, choices=choices, feature=feature):
        plan = step.plan
    return plan


def resample_steps(
    label: Float32[np.ndarray, "t k"],
    *,
    findings: tuple[str, ...],
    choices: Balance,
    feature: Float32[np.ndarray, "t d"],
) -> Iterator[Step]:
    """Yield the plan of `resample` after each of its steps: one a method, or several."""
    about, first = {"findings": findings, "choices": choices}, originals(label)
    for step in _steps(choices.method, label, feature=feature, **about):
        first = step.plan
        yield step
    if choices.then == "none":
        return
    for step in _steps(choices.then, first.label, feature=feature[first.row], **about):
        yield step._replace(plan=followed_by(first, step.plan))


def needs_features(choices: Balance) -> bool:
    """Return whether a method of `choices` compares films by features."""
    return any("features" in BALANCE_KEYS[name] for name in (choices.method, choices.then))


def _steps(
    method: str,
    label: Float32[np.ndarray, "t k"],
    *,
    findings: tuple[str, ...],
    choices: Balance,
    feature: Float32[np.ndarray, "t d"],
) -> Iterator[Step]:
    at_hand = {**dict(choices), "findings": findings, "feature": feature}
    keys = [name for name in inspect.signature(RESAMPLERS[method]).parameters if name != "label"]
    made = RESAMPLERS[method](label, **{name: at_hand[name] for name in keys})
    if isinstance(made, Plan):
        yield Step(method, "", made)
    else:
        yield from made


RESAMPLERS: dict[str, Callable[..., Plan | Iterator[Step]]] = {
    "none": originals,
    "cap-and-copy": cap_and_copy,
    "partial": partial,
    "positive-weights": positive_weights,
    "weighted-sampler": weighted_sampler,
    "lp-rus": lp_rus,
    "lp-ros": lp_ros,
    "ml-rus": ml_rus,
    "ml-ros": ml_ros,
    "remedial": remedial,
    "mlsmote": mlsmote,
    "mlsol": mlsol,
    "mlul": mlul,
    "mlenn": mlenn,
    "mltl": mltl,
}
