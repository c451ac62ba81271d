"""How well a suspicion finds wrong labels: by the budget of a review, and by AUC.

Letters in shapes: n films, k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64

from lucency.audit.suspects import DIRECTIONS
from lucency.judge.evaluate import MACRO
from lucency.judge.intervals import (
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.judge.metrics import auc, counts_above

REVIEW = ("budget", "found", "precision", "recall", "chance", "note")
DETECTED = ("finding", "direction", "auc", "low", "high", "films", "wrong")
SHARES = (0.05, 0.1, 0.2, 0.5)
Of = Float[np.ndarray, " n"]  # one finding


def review_curve(suspicion: Of, truth: Of, *, budgets: Sequence[int]) -> pd.DataFrame:
    """Return how many wrong labels a review of the most suspect films finds, by its budget.

    `truth` is 1 where a label is wrong, 0 where it is right; films where either is NaN are left
    out. Among equally suspect films the expected number counts. `chance` is the precision of a
    review at random.
    """
    known = np.where(np.isnan(suspicion), np.nan, truth)
    _, wrong, right = counts_above(known, suspicion)
    seen, met = (np.append(0.0, one) for one in (wrong + right, wrong))
    rows = []
    for budget in budgets:
        if not 0 < budget <= seen[-1]:
            note = f"not computable: {seen[-1]:.0f} films to review, 1 to as many expected"
            rows.append((budget, *[np.nan] * 4, note))
            continue
        found = float(np.interp(budget, seen, met))
        recall = found / met[-1] if met[-1] else np.nan
        note = "" if met[-1] else "no recall: 0 labels are wrong"
        rows.append((budget, found, found / budget, recall, met[-1] / seen[-1], note))
    return pd.DataFrame(rows, columns=list(REVIEW))


def review_table(
    suspicion: Float[np.ndarray, "n k"],
    label: Float[np.ndarray, "n k"],
    truth: Float[np.ndarray, "n k"],
    *,
    findings: Sequence[str],
) -> pd.DataFrame:
    """Return `review_curve` of every finding and direction, at SHARES of the films labelled so."""
    tables = []
    for k, finding in enumerate(findings):
        for direction, given in DIRECTIONS.items():
            films = (label[:, k] == given) & ~np.isnan(truth[:, k])
            wrong = (truth[films, k] != given).astype(np.float64)
            budgets = sorted({int(np.ceil(share * films.sum())) for share in SHARES})
            curve = review_curve(suspicion[films, k], wrong, budgets=budgets)
            tables.append(curve.assign(finding=finding, direction=direction))
    return pd.concat(tables, ignore_index=True).loc[:, ["finding", "direction", *REVIEW]]


def detection(
    suspicion: Float[np.ndarray, "n k"],
    label: Float[np.ndarray, "n k"],
    truth: Float[np.ndarray, "n k"],
    *,
    findings: Sequence[str],
    patient: Int64[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the AUC of a suspicion for "the label is wrong", by finding and macro, and direction.

    Labels are wrong where `truth` (1, 0, or NaN for not known) says the other; only films labelled
    alike are compared, for labels of 1 are wrong more often than those of 0 and any doubt tells
    the two apart. NaN where no label, or every one, is wrong. 95 % intervals over patients; none
    where the wrong, or the right, are of one patient, whom every resample holds as a whole.
    """
    films = np.flatnonzero(~np.isnan(truth + label).all(axis=1))
    label, truth, suspicion, patient = (one[films] for one in (label, truth, suspicion, patient))
    drawn = resample_patients(patient, resamples=resamples, seed=seed)
    tables = []
    for direction, given in DIRECTIONS.items():
        asked = (label == given) & ~np.isnan(truth)
        wrong = np.where(asked, truth != label, np.nan)
        value, sampled = (_areas(wrong, suspicion, one) for one in (once(len(films)), drawn))
        single = np.append([_of_one(one, patient) for one in wrong.T], False)
        low, high = np.where(single | np.isnan(value[:, 0]), np.nan, interval(sampled))
        count = [np.append(each, each.sum()) for each in (asked.sum(0), (wrong == 1).sum(0))]
        columns = ([*findings, MACRO], direction, value[:, 0], low, high, *count)
        tables.append(pd.DataFrame(dict(zip(DETECTED, columns, strict=True))))
    return pd.concat(tables, ignore_index=True)


def _of_one(wrong: Of, patient: Int64[np.ndarray, " n"]) -> bool:
    return any(len(np.unique(patient[wrong == one])) == 1 for one in (0, 1))


def _areas(
    wrong: Float64[np.ndarray, "n k"], suspicion: Float[np.ndarray, "n k"], weights: Weights
) -> Float64[np.ndarray, "k1 r"]:
    each = np.stack([auc(*one, weights=weights) for one in zip(wrong.T, suspicion.T, strict=True)])
    return np.vstack([each, mean_over_findings(each)])
