"""What balancing changed: the same measures, counts and shared films before and after it.

Letters in shapes: t training films, k findings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from lucency.balance.measures import class_ratio, cooccurrence, measure
from lucency.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """Training films before balancing beside the plan's training entries after it.

    `counts` has a row a finding: finding, before, after (positives, after by their weight),
    irlbl_before, irlbl_after, imr_before, imr_after. `summary` has a row a measure: measure,
    before, after. `cooccurrence` holds for "before" and "after" the share of a row's films that
    carry a column's finding. `origins` has a row a finding: finding, originals, copies, mixed,
    sources (films behind the added entries), most (entries made of one film, at most).
    """

    counts: pd.DataFrame
    summary: pd.DataFrame
    cooccurrence: dict[str, Float64[np.ndarray, "k k"]]
    origins: pd.DataFrame


def describe_change(
    label: Float32[np.ndarray, "t k"], *, plan: Plan, findings: tuple[str, ...]
) -> Change:
    """Return what `plan` made of the training films' labels; it holds training entries only."""
    before, after = measure(label, names=findings), measure(plan.label, names=findings)
    weighted = ((plan.label == 1) * plan.weight).sum(axis=0, dtype=np.float64)
    ratio = np.full_like(weighted, np.nan)
    np.divide(weighted.max(initial=0), weighted, out=ratio, where=weighted > 0)
    counts = {
        "finding": findings,
        "before": before.per_finding["count"],
        "after": weighted,
        "irlbl_before": before.per_finding["irlbl"],
        "irlbl_after": ratio,
        "imr_before": before.per_finding["imr"],
        "imr_after": class_ratio(plan.label, weight=plan.weight),
    }
    summary = pd.DataFrame({"before": before.summary, "after": after.summary})
    return Change(
        counts=pd.DataFrame(counts),
        summary=summary.rename_axis("measure").reset_index(),
        cooccurrence={"before": cooccurrence(label), "after": cooccurrence(plan.label)},
        origins=pd.DataFrame([_origin(plan, place, name) for place, name in enumerate(findings)]),
    )


def _origin(plan: Plan, place: int, finding: str) -> dict[str, object]:
    mine = plan.take(plan.label[:, place] == 1)
    added = mine.row[mine.copy > 0]
    made = np.unique(added, return_counts=True)[1]
    return {
        "finding": finding,
        "originals": int((mine.copy == 0).sum()),
        "copies": int(((mine.copy > 0) & (mine.mix == 0)).sum()),
        "mixed": int((mine.mix > 0).sum()),
        "sources": len(made),
        "most": int(made.max(initial=0)),
    }
