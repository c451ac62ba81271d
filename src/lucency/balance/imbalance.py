"""Class imbalance: measures of a set of labels, and what balancing changed in them, step by step.

Letters in shapes: n films, k findings, m entries of a plan. A label of NaN (not stated) counts as
absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64

from lucency.core.files import write_whole
from lucency.core.manifest import NO_FINDING, read_table, require
from lucency.core.plan import Plan, originals

Population = Literal["all films", "the training part"]
STEPS = ("step", "action", "finding", "before", "after", "added", "dropped", "total")
STEPS_FILE = "steps.csv"
SIGNS = {"added": "+", "dropped": "\N{MINUS SIGN}"}  # before the numbers of these columns
Label = Float32[np.ndarray, "n k"]


class Step(NamedTuple):
    """What was done, to the entries of which finding ("" for all), and the plan after it."""

    action: str
    finding: str
    plan: Plan


class Balanced(NamedTuple):
    """A plan, and the table of the steps that led to it, as `followed` gives it."""

    plan: Plan
    steps: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Imbalance:
    """The imbalance of one set: a number for each measure, and a row for each finding.

    `summary` is indexed by measure: instances, labels, cardinality, density, labelsets, max_ir,
    mean_ir, cvir, scumble, scumble_cv, tcs. `per_finding` has the columns finding, count, irlbl,
    imr, scumble and minority (IRLbl above MeanIR).
    """

    summary: pd.Series
    per_finding: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """Films before balancing beside the plan's entries after it, both of one `population`.

    `counts` has a row a finding: finding, before, after (positives, after by their weight),
    irlbl_before, irlbl_after, imr_before, imr_after. `totals` has a row "before" and a row "after":
    when, entries, no_finding (those with none of the findings), share (no_finding over entries),
    unstated (those of which that is not known); unweighted. `steps` is the table of `followed`.
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


def measure(label: Label, *, names: tuple[str, ...], inputs: int = 1) -> Imbalance:
    """Return the imbalance measures of Charte et al. (Neurocomputing 163, 2015), as R's mldr.

    IRLbl is the largest count over a finding's own, MeanIR its mean, CVIR its sample standard
    deviation over MeanIR; findings that no film has are left out of the three. SCUMBLE (Charte et
    al., HAIS 2014) is how much rare and common findings share films, 0 to 1. TCS = ln(inputs x k
    x labelsets) (Charte et al., HAIS 2016). What has no value is NaN.
    """
    active = label == 1
    count = active.sum(axis=0)
    ratio = imbalance_ratio(label)
    there = ratio[count > 0]
    minority, mean_ir = minority_findings(label)
    scumble = scumble_of_films(label)
    labelsets = len(np.unique(np.packbits(active, axis=1), axis=0))
    cardinality = active.sum() / max(1, len(active))
    summary = {
        "instances": len(active),
        "labels": len(count),
        "cardinality": cardinality,
        "density": cardinality / len(count),
        "labelsets": labelsets,
        "max_ir": float(there.max()) if len(there) else np.nan,
        "mean_ir": mean_ir,
        "cvir": _variation(there),
        "scumble": scumble.mean() if len(scumble) else np.nan,
        "scumble_cv": _variation(scumble),
        "tcs": np.log(inputs * len(count) * max(1, labelsets)),
    }
    per_finding = {
        "finding": names,
        "count": count,
        "irlbl": ratio,
        "imr": class_ratio(label),
        "scumble": _over(scumble @ active, count),
        "minority": minority,
    }
    return Imbalance(summary=pd.Series(summary, dtype=float), per_finding=pd.DataFrame(per_finding))


def describe_change(
    label: Label,
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
    shown = {"before": label, "after": plan.label}
    normal = [no_finding(one, names=findings) for one in shown.values()]
    without = np.array([(one == 1).sum() for one in normal])
    entries = np.array([len(one) for one in normal])
    totals = {
        "when": list(shown),
        "entries": entries,
        "no_finding": without,
        "share": _over(without, entries),
        "unstated": [int(np.isnan(one).sum()) for one in normal],
    }
    before, after = (measure(one, names=findings) for one in shown.values())
    weighted = ((plan.label == 1) * plan.weight).sum(axis=0, dtype=np.float64)
    counts = {
        "finding": findings,
        "before": before.per_finding["count"],
        "after": weighted,
        "irlbl_before": before.per_finding["irlbl"],
        "irlbl_after": _over(weighted.max(initial=0), weighted),
        "imr_before": before.per_finding["imr"],
        "imr_after": class_ratio(plan.label, weight=plan.weight),
    }
    summary = pd.DataFrame({"before": before.summary, "after": after.summary})
    return Change(
        population=population,
        counts=pd.DataFrame(counts),
        totals=pd.DataFrame(totals),
        steps=steps,
        summary=summary.rename_axis("measure").reset_index(),
        cooccurrence={when: cooccurrence(one) for when, one in shown.items()},
        origins=pd.DataFrame([_origin(plan, place, name) for place, name in enumerate(findings)]),
    )


def followed(label: Label, steps: Iterable[Step], *, findings: tuple[str, ...]) -> Balanced:
    """Return the plan after the last step, and a row a step with the columns STEPS.

    The first row holds the films before all steps. `before` and `after` count the entries that
    carry the step's finding (NaN where it is about all films), `added` and `dropped` the entries
    that are new and gone, `total` all entries after the step.
    """
    plan = originals(label)
    rows: list[tuple[object, ...]] = [(0, "before", "", np.nan, np.nan, 0, 0, len(plan))]
    for number, (action, finding, made) in enumerate(steps, start=1):
        span = 1 + max(one.copy.max(initial=0) for one in (plan, made))
        old, new = (one.row * span + one.copy for one in (plan, made))  # no two entries alike
        added = int((~np.isin(new, old)).sum())
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
    write_whole(folder / STEPS_FILE, steps_text(steps))


def load_steps(folder: Path) -> pd.DataFrame:
    """Read what `save_steps` wrote; raises ValueError where a plan was made without it."""
    if not (folder / STEPS_FILE).is_file():
        raise ValueError(
            f"{folder} holds no {STEPS_FILE}: the plan was made by an earlier version; remove that "
            "folder, and the same plan is made again"
        )
    return read_table(folder / STEPS_FILE, text=("action", "finding"))


def no_finding(label: Label, *, names: tuple[str, ...]) -> Float32[np.ndarray, " n"]:
    """Return 1 for films with none of the findings, 0 for those with one, NaN where not stated.

    Where "No Finding" is one of `names`, it is that label. Else a film without a finding of
    which some are not stated (NaN) is not stated either.
    """
    if NO_FINDING in names:
        return label[:, names.index(NO_FINDING)]
    there, unknown = (label == 1).any(axis=1), np.isnan(label).any(axis=1)
    return np.where(there, 0, np.where(unknown, np.nan, 1)).astype(np.float32)


def imbalance_ratio(label: Label) -> Float64[np.ndarray, " k"]:
    """Return IRLbl: the commonest finding's count over each one's own; NaN when it has none."""
    count = (label == 1).sum(axis=0)
    return _over(count.max(initial=0), count)


def minority_findings(label: Label) -> tuple[Bool[np.ndarray, " k"], float]:
    """Return which findings have an IRLbl above MeanIR, and MeanIR (NaN when there is none).

    A finding that no film has is no minority one.
    """
    ratio = imbalance_ratio(label)
    there = ratio[~np.isnan(ratio)]
    mean_ir = float(there.mean()) if len(there) else float("nan")
    return ratio > mean_ir, mean_ir


def class_ratio(label: Label, *, weight: float | Label = 1.0) -> Float64[np.ndarray, " k"]:
    """Return ImR: the commoner of positives and negatives over the rarer; NaN where one is absent.

    Labels that are not stated count as neither; each cell counts by its weight.
    """
    ones, zeros = (((label == value) * weight).sum(axis=0, dtype=float) for value in (1, 0))
    return _over(np.maximum(ones, zeros), np.minimum(ones, zeros))


def cooccurrence(label: Label) -> Float64[np.ndarray, "k k"]:
    """Return, of the films with the row's finding, the share that carries the column's; or NaN."""
    active = (label == 1).astype(np.float64)
    return _over(active.T @ active, active.sum(axis=0)[:, np.newaxis])


def scumble_of_films(label: Label) -> Float64[np.ndarray, " n"]:
    """Return 1 - geometric / arithmetic mean of IRLbl over each film's findings; 0 when none."""
    active = (label == 1).astype(np.float64)
    ratio = np.nan_to_num(imbalance_ratio(label), nan=1.0)
    carried = np.maximum(active.sum(axis=1), 1)
    arithmetic = active @ ratio / carried
    geometric = np.exp(active @ np.log(ratio) / carried)
    return np.where(active.any(axis=1), 1 - geometric / np.where(arithmetic, arithmetic, 1), 0)


def _over(above: np.ndarray | np.number, below: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where `below` is 0."""
    nothing = np.full(np.broadcast_shapes(np.shape(above), below.shape), np.nan)
    return np.divide(above, below, out=nothing, where=below > 0)


def _variation(value: Float64[np.ndarray, " values"]) -> float:
    """Return sample standard deviation over mean; NaN for fewer than two values or a mean of 0."""
    computable = len(value) > 1 and value.mean() > 0
    return float(value.std(ddof=1) / value.mean()) if computable else float("nan")


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
