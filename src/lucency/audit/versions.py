"""Versions of a label file: which labels changed, and how a network's AUC changes with them.

The second version may be the labels of radiologists. Letters in shapes: n films, k findings, k1 the
findings and macro, r resamples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64

from lucency.audit.agreement import align, in_common, in_one_patient
from lucency.core.manifest import NO_FINDING, Manifest
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import (
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.metrics import auc

ALL = "all"
CHANGES = ("finding", "before", "after", "added", "removed", "films")
CHANGED = ("image", "patient", "finding", "before", "after")
DIFFERENCE = "difference"
EXPERTS = ("labels", "experts")
VERSIONS = ("old", "new")
Label = Float32[np.ndarray, "n k"]


def changes(old: Manifest, new: Manifest) -> pd.DataFrame:
    """Return how many labels of each finding were added and removed, on how many films.

    `before` and `after` count positives; NO_FINDING (all findings are 0) and ALL findings have rows
    of their own. A label that is no longer 1, even if not stated, is removed. Only films and
    findings of both files count. Raises ValueError when there are none.
    """
    one, other = in_common(old, new)
    columns = [
        (name, *pair) for name, *pair in zip(one.findings, one.label.T, other.label.T, strict=True)
    ]
    nothing = [(labels.label == 0).all(axis=1).astype(np.float32) for labels in (one, other)]
    columns = [*columns, (NO_FINDING, *nothing), (ALL, one.label, other.label)]
    rows = []
    for name, before, after in columns:
        was, now = before == 1, after == 1
        films = _differs(before, after).reshape(len(one), -1).any(axis=1)
        counts = (was.sum(), now.sum(), (now & ~was).sum(), (was & ~now).sum(), films.sum())
        rows.append((name, *map(int, counts)))
    return pd.DataFrame(rows, columns=list(CHANGES))


def changed_labels(old: Manifest, new: Manifest) -> pd.DataFrame:
    """Return every label that differs, one row each, film by film: `before` and `after`.

    Raises ValueError when the files have no film or no finding in common.
    """
    one, other = in_common(old, new)
    film, finding = np.nonzero(_differs(one.label, other.label))
    columns = (
        one.image[film],
        one.patient[film],
        np.array(one.findings)[finding],
        one.label[film, finding],
        other.label[film, finding],
    )
    return pd.DataFrame(dict(zip(CHANGED, columns, strict=True)))


def effect(
    predictions: Predictions, old: Manifest, new: Manifest, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return the AUC of every finding and macro by either version of the labels, and new - old.

    On the films and findings that both versions label. The 95 % intervals come from
    resampling patients, the same for both, so that of the difference is paired; where a class is
    one patient's there is none, with a note. `differing` counts the films
    labelled otherwise, in the row of macro the cells of film x finding. Raises ValueError when no
    film is in all three.
    """
    first, second = (
        align(labels, image=predictions.image, findings=predictions.findings)
        for labels in (old, new)
    )
    return _areas(predictions, (first, second), names=VERSIONS, resamples=resamples, seed=seed)


def against_experts(
    predictions: Predictions, experts: Manifest, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return the AUC of every finding and macro by labels and by experts, and experts - labels.

    As `effect`: on the same films, paired, intervals over patients.
    """
    seen = align(experts, image=predictions.image, findings=predictions.findings)
    pair = (predictions.label, seen)
    return _areas(predictions, pair, names=EXPERTS, resamples=resamples, seed=seed)


def _areas(
    predictions: Predictions,
    pair: tuple[Label, Label],
    *,
    names: tuple[str, str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    stated = ~np.isnan(pair[0]) & ~np.isnan(pair[1])
    films = np.flatnonzero(stated.any(axis=1))
    if not len(films):
        raise ValueError(
            f"{predictions.network}: no film and finding is labelled by both; expected some: "
            "compare image names and findings"
        )
    stated, score, patient = (
        one[films] for one in (stated, predictions.calibrated, predictions.patient)
    )
    labels = [np.where(stated, label[films], np.nan) for label in pair]
    resampled = resample_patients(patient, resamples=resamples, seed=seed)
    plain, sampled = (_both(labels, score, weights) for weights in (once(len(films)), resampled))
    value = plain[..., 0]
    low, high = np.where(np.isnan(value), np.nan, interval(sampled))
    single = np.append(np.any([in_one_patient(one, patient) for one in labels], axis=0), False)
    low, high = (np.where(single, np.nan, end) for end in (low, high))
    people = [len(np.unique(patient[known])) for known in stated.T]
    columns: dict[str, object] = {
        "network": predictions.network,
        "finding": [*predictions.findings, MACRO],
        "films": [*stated.sum(axis=0), len(films)],
        "patients": [*people, len(np.unique(patient))],
    }
    for name, label in zip(names, labels, strict=True):
        columns[f"positives_{name}"] = _with_sum((label == 1).sum(axis=0))
    columns["differing"] = _with_sum(_differs(*labels).sum(axis=0))
    for place, name in enumerate((*names, DIFFERENCE)):
        columns |= {name: value[place], f"{name}_low": low[place], f"{name}_high": high[place]}
    return pd.DataFrame({**columns, "note": _notes(value, sampled, single, names)})


def _with_sum(count: Int64[np.ndarray, " k"]) -> list[int]:
    return [*count.tolist(), int(count.sum())]


def _notes(
    value: Float64[np.ndarray, "3 k1"],
    sampled: Float64[np.ndarray, "3 k1 r"],
    single: Bool[np.ndarray, " k1"],
    names: tuple[str, str],
) -> list[str]:
    """Return why a finding has no difference or no interval, or in how many resamples neither."""
    lost = np.isnan(sampled[2]).sum(axis=1)
    notes = []
    for place in range(len(lost) - 1):
        lacking = [name for name, one in zip(names, value[:2, place], strict=True) if np.isnan(one)]
        if lacking:
            notes.append(f"not computable: one class only by {' and by '.join(lacking)}")
        elif single[place]:
            notes.append("no interval: a class is of one patient")
        else:
            missing = f"no difference in {lost[place]} of {sampled.shape[2]} resamples, left out"
            notes.append(missing if lost[place] else "")
    known = ~np.isnan(value[2, :-1])
    fewer = int(np.isnan(sampled[2, :-1][known]).any(axis=0).sum())
    mean = f"mean over {known.sum()} of {len(known)} findings"
    return [*notes, f"{mean}; over fewer in {fewer} resamples" if fewer else mean]


def _both(
    labels: list[Label], score: Float64[np.ndarray, "n k"], weights: Weights
) -> Float64[np.ndarray, "3 k1 r"]:
    """Return the AUCs by either labelling and their difference, macro over findings of both."""
    first, second = (
        np.stack([auc(*column, weights=weights) for column in zip(label.T, score.T, strict=True)])
        for label in labels
    )
    known = ~np.isnan(first) & ~np.isnan(second)
    macro = [mean_over_findings(np.where(known, area, np.nan))[None] for area in (first, second)]
    first, second = np.concatenate([first, macro[0]]), np.concatenate([second, macro[1]])
    return np.stack([first, second, second - first])


def _differs(
    before: Float32[np.ndarray, " n *k"], after: Float32[np.ndarray, " n *k"]
) -> Bool[np.ndarray, " n *k"]:
    return (before != after) & ~(np.isnan(before) & np.isnan(after))
