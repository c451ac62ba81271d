"""Agreement of a label file with radiologists, and of radiologists with each other.

NIH's labels were mined from reports, with which they agree at F1 .94 (Wang et al., CVPR 2017); here
they are compared with what radiologists saw. The films that were read were chosen to hold many
findings, so that a predictive value is not that of a random film. All intervals are 95 %.

Findings may be merged into groups first: consolidation, pneumonia and infiltration describe one
appearance, and no reader distinguishes them by the picture alone (Oakden-Rayner, Academic Radiology
27 (2020), 106-112).

Letters in shapes: n films, k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from lucency.balance.imbalance import no_finding
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest, nearest
from lucency.core.predictions import Predictions
from lucency.data.radiologists import Readings
from lucency.evaluation.bootstrap import Weights, interval, once, resample_patients
from lucency.evaluation.metrics import Cells, count_cells, ratio
from lucency.evaluation.significance import wilson

AGREED = (
    "finding", "measure", "value", "low", "high", "wilson_low", "wilson_high", "labelled",
    "seen", "both", "films", "patients", "note",
)  # fmt: skip
FLOW = (
    "labelled", "seen", "films", "of", "share", "low", "high", "wilson_low", "wilson_high", "note",
)  # fmt: skip
READ = ("finding", "kappa", "low", "high", "films", "readings", "patients", "note")
ANY, ABNORMAL, NORMAL = "any finding", "abnormal", "normal"
KAPPA = "kappa"
NO_PAIRS = "not computable: no film has two answers"
ONE_ANSWER = "not computable: all answers are the same"
ALL_ALIKE = "every resample gives the same: take Wilson's interval"
ROUNDING = 1e-12  # of a share; below it two are equal
GROUPS: dict[str, tuple[str, ...]] = {
    "Opacity": ("Infiltration", "Consolidation", "Pneumonia", "Atelectasis", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
}
FOUR_GROUPS: dict[str, tuple[str, ...]] = {  # as the four-finding release of experts names them
    "Pneumothorax": ("Pneumothorax",),
    "Airspace opacity": ("Consolidation", "Infiltration", "Pneumonia", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
}
Groups = Mapping[str, tuple[str, ...]]
Values = Float64[np.ndarray, " r"]


def agreement(labels: Manifest, experts: Manifest, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return MEASURES of every finding of both, `labels` as the test, `experts` as ground truth.

    A film that either leaves open (NaN) is left out. `labelled`, `seen` and `both` count the
    positives of labels, of experts and of both. Beside the interval from resampling
    patients stands Wilson's, of a share, which takes films as independent, but holds for few films
    too. For groups of findings merge both with `merge_labels` first. Raises ValueError when they
    have no film or no finding in common.
    """
    ours, theirs = in_common(labels, experts)
    plain = once(len(ours))
    resampled = resample_patients(ours.patient, resamples=resamples, seed=seed)
    rows = []
    for finding, mine, seen in zip(ours.findings, ours.label.T, theirs.label.T, strict=True):
        stated = ~np.isnan(mine) & ~np.isnan(seen)
        truth, called = np.where(stated, seen, np.nan), mine == 1
        counts = [count_cells(truth, called, weights=one) for one in (plain, resampled)]
        tp, fp, fn, _ = (int(cell[0]) for cell in counts[0])
        patients = len(np.unique(ours.patient[stated]))
        about = (tp + fp, tp + fn, tp, int(stated.sum()), patients)
        for measure in MEASURES:
            *numbers, note = _measure(measure, *counts)
            rows.append((finding, measure, *numbers, *about, note))
    return pd.DataFrame(rows, columns=list(AGREED))


def flow(labels: Manifest, experts: Manifest, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return what radiologists saw on the films of each label: `films` of `of`, their share.

    Labels are the findings, ANY of them, and NO_FINDING (all are 0); seen are the findings, ANY,
    and where experts rated it ABNORMAL and NORMAL. A film may show several findings, so shares
    do not add up to 1; one of which a finding is not stated does not count there. Raises
    ValueError when they have no film or no finding in common.
    """
    ours, theirs = in_common(labels, experts)
    resampled = resample_patients(ours.patient, resamples=resamples, seed=seed)
    given = {**_columns(ours), NO_FINDING: no_finding(ours.label, names=ours.findings)}
    seen = _columns(theirs)
    if ABNORMAL in theirs.facts:
        abnormal = theirs.facts[ABNORMAL].to_numpy(dtype=np.float64)
        seen |= {ABNORMAL: abnormal, NORMAL: 1 - abnormal}
    tables = [_flow_from(name, label == 1, seen, resampled) for name, label in given.items()]
    return pd.concat(tables, ignore_index=True)


def between_readers(readings: Readings, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return Fleiss' kappa of every finding among the readers of each film.

    Hedged answers are left out, as is a reader's second reading of a film, and a film with fewer
    than two answers; the number of answers may differ between films. Readings of all 14 findings
    have a row of "No Finding" as well: a reader who saw none of them. Fleiss, Psychological
    Bulletin 76 (1971), 378-382.
    """
    whole = {*FINDINGS} <= {*readings.findings}
    answer = dict(zip(readings.findings, readings.label.T, strict=True))
    nothing = no_finding(readings.label, names=readings.findings)
    answer |= {NO_FINDING: nothing} if whole else {}
    again = pd.DataFrame({"image": readings.image, "reader": readings.reader}).duplicated()
    kept = np.flatnonzero(~again.to_numpy())
    _, first, film = np.unique(readings.image[kept], return_index=True, return_inverse=True)
    patient = readings.patient[kept][first]
    resampled = resample_patients(patient, resamples=resamples, seed=seed)
    rows = []
    for finding, label in answer.items():
        yes, no = (np.bincount(film[label[kept] == one], minlength=len(first)) for one in (1, 0))
        several = yes + no > 1
        value = fleiss(yes, no, weights=once(len(first)))[0]
        low, high = interval(fleiss(yes, no, weights=resampled))
        note = ONE_ANSWER if several.any() else NO_PAIRS
        counts = (int(several.sum()), int((yes + no)[several].sum()))
        people = len(np.unique(patient[several]))
        rows.append((finding, value, low, high, *counts, people, note if np.isnan(value) else ""))
    return pd.DataFrame(rows, columns=list(READ))


def fleiss(
    yes: Int64[np.ndarray, " n"], no: Int64[np.ndarray, " n"], *, weights: Weights
) -> Values:
    """Return Fleiss' kappa from how many readers of each film answered yes and no.

    NaN where all answers are the same. Films with fewer than two answers are left out.
    """
    several = yes + no > 1
    count = np.where(several, yes + no, 0).astype(np.float64)
    pairs = np.where(several, count * (count - 1), 1)
    alike = np.where(several, 1 - 2 * yes * no / pairs, 0)
    terms = np.stack([alike, several.astype(np.float64), np.where(several, yes, 0), count])
    same, films, positive, answers = weights.total(terms)
    share = ratio(positive, answers)
    return _above_chance(ratio(same, films), share**2 + (1 - share) ** 2)


def cohen(cells: Cells) -> Values:
    """Return the agreement of two beyond chance, (observed - expected) / (1 - expected).

    Cohen, Educational and Psychological Measurement 20 (1960), 37-46. NaN where both give all
    films one and the same label.
    """
    tp, fp, fn, tn = cells
    films = tp + fp + fn + tn
    expected = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
    return _above_chance(ratio(tp + tn, films), ratio(expected, films**2))


def merge_labels(labels: Manifest, groups: Groups) -> Manifest:
    """Return the labels of groups: 1 where a member is, 0 where all are 0, else NaN (not stated).

    Boxes are left out. Raises ValueError for a group with an unknown member.
    """
    label = [merged(labels.label[:, row]) for row in _members(labels.findings, groups)]
    return replace(
        labels, findings=tuple(groups), label=np.stack(label, axis=1), boxes=labels.boxes.iloc[:0]
    )


def merge_predictions(predictions: Predictions, groups: Groups) -> Predictions:
    """Return the predictions of groups: the probability of any, as if they were independent.

    So the probability of a group is never below any member's. Raises ValueError for a group with
    an unknown member.
    """
    members = _members(predictions.findings, groups)
    logit = predictions.calibrated
    return replace(
        predictions.uncalibrated(),
        findings=tuple(groups),
        label=np.stack([merged(predictions.label[:, row]) for row in members], axis=1),
        logit=np.stack([_any_of(logit[:, row]) for row in members], axis=1),
    )


def with_no_finding(labels: Manifest) -> Manifest:
    """Return the labels with "No Finding" as one more: none of the others is present.

    It is known where all others are, or one is present. Labels that have it are left as they are.
    """
    if NO_FINDING in labels.findings:
        return labels
    column = no_finding(labels.label, names=labels.findings)[:, None]
    return replace(
        labels,
        findings=(*labels.findings, NO_FINDING),
        label=np.concatenate([labels.label, column], axis=1),
    )


def merged(label: Float[np.ndarray, "n k"]) -> Float32[np.ndarray, " n"]:
    """Return 1 where any label is, 0 where all are 0, NaN where neither is known."""
    there = (label == 1).any(axis=1)
    absent = (label == 0).all(axis=1)
    return np.where(there, 1, np.where(absent, 0, np.nan)).astype(np.float32)


def in_common(one: Manifest, other: Manifest) -> tuple[Manifest, Manifest]:
    """Return both labellings of the films and findings that both have, in the order of `one`.

    Raises ValueError when they have no film or no finding in common.
    """
    findings = tuple(name for name in one.findings if name in other.findings)
    if not findings:
        raise ValueError(
            f"findings {', '.join(one.findings)} and {', '.join(other.findings)} have none in "
            "common; expected some: merge them with lucency.audit.agreement.merge_labels"
        )
    known = np.flatnonzero(np.isin(one.image, other.image)).astype(np.int64)
    if not len(known):
        raise ValueError(
            f"{one.origin}, and {other.origin}: no film is in both; expected image names alike"
        )
    mine = one.take(known)
    return _only(mine, findings), _only(other.take(rows_of(other, mine.image)), findings)


def rows_of(labels: Manifest, image: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the row of each image in `labels`; -1 where it is not there."""
    order = np.argsort(labels.image)
    place = np.searchsorted(labels.image, image, sorter=order)
    row = order[np.minimum(place, len(order) - 1)]
    return np.where(labels.image[row] == image, row, -1)


def align(
    labels: Manifest, *, image: Shaped[np.ndarray, " n"], findings: tuple[str, ...]
) -> Float32[np.ndarray, "n k"]:
    """Return the `labels` of these films and findings; NaN where there is none."""
    label = np.full((len(image), len(findings)), np.nan, dtype=np.float32)
    row = rows_of(labels, image)
    for place, name in enumerate(findings):
        if name in labels.findings:
            column = labels.label[:, labels.findings.index(name)]
            label[:, place] = np.where(row >= 0, column[row], np.nan)
    return label


def in_one_patient(
    label: Float[np.ndarray, "n k"], patient: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " k"]:
    """Return for which columns a class is of one patient, whom every resample holds as a whole."""
    owners = [[len(np.unique(patient[films])) for films in (label == one).T] for one in (0, 1)]
    return (np.array(owners) == 1).any(axis=0)


def _measure(name: str, plain: Cells, sampled: Cells) -> tuple[float | str, ...]:
    """Return value, ends of the interval, ends of Wilson's, and the note."""
    value = float(MEASURES[name](plain)[0])
    low, high = interval(MEASURES[name](sampled))
    if np.isnan(value):
        return (*[np.nan] * 5, f"not computable: {_LACKING[name]}")
    if name == KAPPA:
        return value, low, high, np.nan, np.nan, "no share of films: no Wilson interval"
    part, whole = (cell[:1] for cell in _PARTS[name](plain))
    least, most = wilson(part, whole)[:, 0]
    return value, low, high, least, most, ALL_ALIKE if low == high else ""


def _columns(labels: Manifest) -> dict[str, Float[np.ndarray, " n"]]:
    label = labels.label
    return {**dict(zip(labels.findings, label.T, strict=True)), ANY: merged(label)}


def _flow_from(
    name: str,
    given: Bool[np.ndarray, " n"],
    seen: dict[str, Float[np.ndarray, " n"]],
    resampled: Weights,
) -> pd.DataFrame:
    """Return the rows of one label."""
    both = np.stack([given & (label == 1) for label in seen.values()]).astype(np.float64)
    stated = np.stack([given & ~np.isnan(label) for label in seen.values()]).astype(np.float64)
    films, total = both.sum(axis=1), stated.sum(axis=1)
    shares = ratio(resampled.total(both), resampled.total(stated))
    columns = (name, list(seen), films.astype(np.int64), total.astype(np.int64))
    values = (*columns, ratio(films, total), *interval(shares), *wilson(films, total))
    table = pd.DataFrame(dict(zip(FLOW[:-1], values, strict=True)))
    none = f"not computable: 0 films labelled {name} of which this is stated"
    return table.assign(note=np.where(total > 0, "", none))


def _above_chance(observed: Values, expected: Values) -> Values:
    room = 1 - expected
    return np.divide(
        observed - expected, room, out=np.full_like(room, np.nan), where=room > ROUNDING
    )


def _any_of(logit: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """Return the logit of 1 - the product of 1 - p, without rounding p to 0 or 1."""
    none = np.logaddexp(0, logit).sum(axis=1)  # minus the log of that product
    return none + np.log(-np.expm1(-np.maximum(none, np.finfo(np.float64).tiny)))


def _only(labels: Manifest, findings: tuple[str, ...]) -> Manifest:
    column = [labels.findings.index(name) for name in findings]
    return replace(labels, findings=findings, label=labels.label[:, column])


def _members(findings: tuple[str, ...], groups: Groups) -> list[list[int]]:
    """Return the places of each group's members among the findings."""
    for group, members in groups.items():
        for name in members:
            if name not in findings:
                known = f"expected some of {', '.join(findings)}{nearest(name, findings)}"
                raise ValueError(f"group {group!r}: finding {name!r} is unknown; {known}")
    return [[findings.index(name) for name in members] for members in groups.values()]


def _share(name: str, cells: Cells) -> Values:
    return ratio(*_PARTS[name](cells))


_PARTS: dict[str, Callable[[Cells], tuple[Values, Values]]] = {  # of shares: part and whole
    "ppv": lambda cells: (cells.tp, cells.tp + cells.fp),
    "sensitivity": lambda cells: (cells.tp, cells.tp + cells.fn),
    "specificity": lambda cells: (cells.tn, cells.tn + cells.fp),
    "npv": lambda cells: (cells.tn, cells.tn + cells.fn),
}
_LACKING = {
    "ppv": "0 films labelled positive",
    "sensitivity": "0 films that experts call positive",
    "specificity": "0 films that experts call negative",
    "npv": "0 films labelled negative",
    KAPPA: "labels and experts are the same on all films",
}
MEASURES: dict[str, Callable[[Cells], Values]] = {
    **{name: partial(_share, name) for name in _PARTS},
    KAPPA: cohen,
}
