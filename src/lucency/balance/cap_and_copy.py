"""The plan of the reference study: cap common findings, then copy rare ones.

Letters in shapes: n films, k findings, p entries with a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Int64

from lucency.balance.steps import Step, carries
from lucency.config.sections import Cap, Copy
from lucency.core.plan import Plan, clones, followed_by, joined, originals


def cap_and_copy(
    label: Float32[np.ndarray, "n k"],
    *,
    findings: tuple[str, ...],
    cap: Sequence[Cap],
    copy_plan: Sequence[Copy],
    cap_after: Sequence[Cap],
    seed: int,
) -> Iterator[Step]:
    """Yield the plan of the reference study after each of its steps, the last one whole.

    "Research on Chest X-Rays" (2025), its notebooks: `cap` drops random films of a finding until
    the number is left; `copy_plan` adds augmented copies, later findings copying copies too;
    `cap_after` drops again. Whole label rows move, so capping one finding costs others.
    """
    generator = np.random.default_rng(seed)
    plan = originals(label)
    for step in (*cap, *copy_plan, *cap_after):
        carried = carries(plan, findings=findings, finding=step.finding)
        members = np.flatnonzero(carried).astype(np.int64)
        if isinstance(step, Cap):
            plan, action = _cap(plan, step, members, generator), "cap"
        else:
            plan, action = _copy(plan, step, members, generator), "copy"
        yield Step(action, step.finding, plan)


def _cap(
    plan: Plan, step: Cap, members: Int64[np.ndarray, " p"], generator: np.random.Generator
) -> Plan:
    surplus = max(0, len(members) - step.films)
    dropped = generator.choice(members, size=surplus, replace=False)
    return plan.take(np.setdiff1d(np.arange(len(plan)), dropped))


def _copy(
    plan: Plan, step: Copy, members: Int64[np.ndarray, " p"], generator: np.random.Generator
) -> Plan:
    if step.films > len(members):
        raise ValueError(
            f"balance.copy_plan wants {step.films} films of {step.finding}, but only "
            f"{len(members)} are there: state fewer, or 0 for all"
        )
    if step.films:
        members = np.sort(generator.choice(members, size=step.films, replace=False))
    source = np.repeat(members, step.copies)
    copies = clones(plan.label, source, copies=f"reference@{step.sharpen:g}")
    return followed_by(plan, joined(originals(plan.label), copies))
