"""What balancing changed: the same measures, counts and shared films before and after it.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from lucency.balance.measures import class_ratio, cooccurrence, measure, no_finding
from lucency.plan import Plan
from lucency.values import require

Population = Literal["all films", "the training part"]
POPULATIONS: dict[bool, Population] = {True: "all films", False: "the training part"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """Films before balancing beside the plan's entries after it, both of one `population`.

    `counts` has a row a finding: finding, before, after (positives, after by their weight),
    irlbl_before, irlbl_after, imr_before, imr_after. `totals` has a row "before" and a row "after":
    when, entries, no_finding (those with none of the findings), share (no_finding over entries),
    unstated (those of which that is not known); unweighted. `steps` is the table of balance.steps.
    `summary` has a row a measure: measure, before, after. `cooccurrence` holds for "before" and
    "after" the share of a row's films that carry a column's finding. `origins` has a row a finding:
    finding, originals, copies, mixed, sources (films behind the added entries), most (entries made
    of one film, at most).
    """

    population: Population
    counts: pd.DataFrame
    totals: pd.DataFrame
    steps: pd.DataFrame
    summary: pd.DataFrame
    cooccurrence: dict[str, Float64[np.ndarray, "k k"]]
    origins: pd.DataFrame


def describe_change(
    label: Float32[np.ndarray, "n k"],
    *,
    plan: Plan,
    findings: tuple[str, ...],
    steps: pd.DataFrame,
    population: Population,
) -> Change:
    """Return what `plan` made of the labels of these films; it holds their entries only.

    Raises ValueError where the steps do not begin and end with as many entries.
    """
    ends = steps["total"].iloc[[0, -1]].tolist()
    require(ends == [len(label), len(plan)], "totals of the first and last step", ends)
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
    totals = [
        _total(when, one, findings) for when, one in (("before", label), ("after", plan.label))
    ]
    return Change(
        population=population,
        counts=pd.DataFrame(counts),
        totals=pd.DataFrame(totals),
        steps=steps,
        summary=summary.rename_axis("measure").reset_index(),
        cooccurrence={"before": cooccurrence(label), "after": cooccurrence(plan.label)},
        origins=pd.DataFrame([_origin(plan, place, name) for place, name in enumerate(findings)]),
    )


def _total(
    when: str, label: Float32[np.ndarray, "n k"], findings: tuple[str, ...]
) -> dict[str, object]:
    given = no_finding(label, names=findings)
    none, unstated = int((given == 1).sum()), int(np.isnan(given).sum())
    share = none / len(label) if len(label) else np.nan
    about = {"when": when, "entries": len(label), "no_finding": none}
    return {**about, "share": share, "unstated": unstated}


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
