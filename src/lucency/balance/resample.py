"""Resamplers: a label array in, a Plan of training entries out; seeded, and nothing is duplicated.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from lucency.protocol import Balance, Cap, Copy
from lucency.values import NO_FINDING, Plan


def plan_parts(
    label: Float32[np.ndarray, "n k"],
    *,
    part: Shaped[np.ndarray, " n"],
    findings: tuple[str, ...],
    choices: Balance,
) -> Plan:
    """Return what each part sees: training films resampled, validation and test films as they are.

    The resampler is shown the training rows alone.
    """
    train = np.flatnonzero(part == "train")
    resampled = RESAMPLERS[choices.method](label[train], findings=findings, choices=choices)
    held_out = np.flatnonzero(part != "train")
    kept = keep_all(label[held_out], findings=findings, choices=choices)
    return _join(
        replace(resampled, row=train[resampled.row]),
        replace(kept, row=held_out[kept.row], part=part[held_out]),
    )


def keep_all(
    label: Float32[np.ndarray, "n k"], *, findings: tuple[str, ...], choices: Balance
) -> Plan:
    """Return the plan that shows every film once, unweighted."""
    return _plan(_Entries.originals(len(label)), findings=len(findings))


def cap_and_copy(
    label: Float32[np.ndarray, "n k"], *, findings: tuple[str, ...], choices: Balance
) -> Plan:
    """Return the plan of the reference study: cap class after class, then copy rare films.

    "Research on Chest X-Rays" (2025), its notebooks: `cap` drops random films of a finding until
    the number is left; `copy_plan` adds augmented copies, later findings copying copies too;
    `cap_after` drops again. Whole label rows move, so capping one finding costs others.
    """
    generator = np.random.default_rng(choices.seed)
    entries = _Entries.originals(len(label))
    for step in (*choices.cap, *choices.copy_plan, *choices.cap_after):
        positive = _positive(label, findings=findings, finding=step.finding)
        members = np.flatnonzero(positive[entries.row])
        entries = _STEPS[type(step)](entries, step, members, generator)
    return _plan(entries, findings=len(findings))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entries:
    row: Int64[np.ndarray, " m"]
    copy: Int64[np.ndarray, " m"]
    transform: Shaped[np.ndarray, " m"]
    copies_made: Int64[np.ndarray, " n"]

    @classmethod
    def originals(cls, films: int) -> _Entries:
        zero = np.zeros(films, dtype=np.int64)
        nothing = np.full(films, "", dtype=object)
        return cls(row=np.arange(films), copy=zero, transform=nothing, copies_made=zero)


def _positive(
    label: Float32[np.ndarray, "n k"], *, findings: tuple[str, ...], finding: str
) -> Bool[np.ndarray, " n"]:
    if finding in findings:
        return label[:, findings.index(finding)] == 1
    if finding == NO_FINDING:
        return ~(label == 1).any(axis=1)
    raise ValueError(f"balance names {finding!r}; expected one of {', '.join(findings)}")


def _cap(
    entries: _Entries, step: Cap, members: Int64[np.ndarray, " p"], generator: np.random.Generator
) -> _Entries:
    surplus = max(0, len(members) - step.films)
    dropped = generator.choice(members, size=surplus, replace=False)
    kept = np.setdiff1d(np.arange(len(entries.row)), dropped)
    names = ("row", "copy", "transform")
    return replace(entries, **{name: getattr(entries, name)[kept] for name in names})


def _copy(
    entries: _Entries, step: Copy, members: Int64[np.ndarray, " p"], generator: np.random.Generator
) -> _Entries:
    if step.films > len(members):
        raise ValueError(
            f"balance.copy_plan wants {step.films} films of {step.finding}, but only "
            f"{len(members)} are there: ask for fewer, or 0 for all"
        )
    if step.films:
        members = np.sort(generator.choice(members, size=step.films, replace=False))
    source = np.repeat(members, step.copies)
    row, made = entries.row[source], entries.copies_made.copy()
    number = np.empty_like(row)
    for place, film in enumerate(row):
        made[film] += 1
        number[place] = made[film]
    parent = entries.transform[source]
    link = np.array([f"reference@{step.sharpen:g}#{copy}" for copy in number], dtype=object)
    chain = np.where(parent == "", link, parent + ">" + link)
    return _Entries(
        row=np.concatenate([entries.row, row]),
        copy=np.concatenate([entries.copy, number]),
        transform=np.concatenate([entries.transform, chain]),
        copies_made=made,
    )


def _plan(entries: _Entries, *, findings: int) -> Plan:
    return Plan(
        row=entries.row,
        copy=entries.copy,
        transform=entries.transform.astype(str),
        part=np.full(len(entries.row), "train"),
        weight=np.ones((len(entries.row), findings), dtype=np.float32),
    )


def _join(first: Plan, second: Plan) -> Plan:
    names = Plan.__dataclass_fields__
    fields = {n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in names}
    return Plan(**fields)


_STEPS: dict[type, Callable[..., _Entries]] = {Cap: _cap, Copy: _copy}
RESAMPLERS: dict[str, Callable[..., Plan]] = {"none": keep_all, "cap-and-copy": cap_and_copy}
