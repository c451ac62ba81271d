"""Balancing step by step: what each step did, and how many entries there are after it.

Letters in shapes: n films, k findings, m entries of a plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64

from lucency.core.manifest import NO_FINDING, read_table
from lucency.core.plan import Plan, originals

START = "before"
STEPS = ("step", "action", "finding", "before", "after", "added", "dropped", "total")
FILE = "steps.csv"


class Step(NamedTuple):
    """What was done, to the entries of which finding ("" for all), and the plan after it."""

    action: str
    finding: str
    plan: Plan


class Balanced(NamedTuple):
    """A plan, and the table of the steps that led to it, as `followed` gives it."""

    plan: Plan
    steps: pd.DataFrame


def followed(
    label: Float32[np.ndarray, "n k"], steps: Iterable[Step], *, findings: tuple[str, ...]
) -> Balanced:
    """Return the plan after the last step, and a row a step with the columns STEPS.

    The first row holds the films before all steps. `before` and `after` count the entries that
    carry the step's finding (NaN where it is about all films), `added` and `dropped` the entries
    that are new and gone, `total` all entries after the step.
    """
    plan = originals(label)
    rows: list[tuple[object, ...]] = [(0, START, "", np.nan, np.nan, 0, 0, len(plan))]
    for number, (action, finding, made) in enumerate(steps, start=1):
        added = int((~np.isin(_key(made), _key(plan))).sum())
        dropped = len(plan) + added - len(made)
        counts = [
            int(carries(one, findings=findings, finding=finding).sum()) if finding else np.nan
            for one in (plan, made)
        ]
        rows.append((number, action, finding, *counts, added, dropped, len(made)))
        plan = made
    return Balanced(plan, pd.DataFrame(rows, columns=list(STEPS)))


def carries(plan: Plan, *, findings: tuple[str, ...], finding: str) -> Bool[np.ndarray, " m"]:
    """Return which entries carry a finding, or none of them for "No Finding" without an output.

    Raises ValueError for a finding that is no output.
    """
    if finding in findings:
        return plan.label[:, findings.index(finding)] == 1
    if finding == NO_FINDING:
        return ~(plan.label == 1).any(axis=1)
    raise ValueError(f"balance names {finding!r}; expected one of {', '.join(findings)}")


def steps_text(steps: pd.DataFrame) -> str:
    """Return the table as CSV, counts as whole numbers."""
    return steps.astype({"before": "Int64", "after": "Int64"}).to_csv(index=False)


def save_steps(steps: pd.DataFrame, folder: Path) -> None:
    """Write steps.csv."""
    (folder / FILE).write_text(steps_text(steps), encoding="utf-8")


def load_steps(folder: Path) -> pd.DataFrame:
    """Read what `save_steps` wrote; raises ValueError where a plan was made without it."""
    if not (folder / FILE).is_file():
        raise ValueError(
            f"{folder} holds no {FILE}: the plan was made by an earlier version; remove that "
            "folder, and the same plan is made again"
        )
    return read_table(folder / FILE, text=("action", "finding"))


def _key(plan: Plan) -> Int64[np.ndarray, " m"]:
    """Return a number for each entry that no other film or copy has."""
    return plan.row * 2**32 + plan.copy
