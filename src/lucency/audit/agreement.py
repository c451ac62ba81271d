"""How far a label file agrees with radiologists, and they with each other; 95 % intervals.

NIH's labels were mined from reports, with which they agree at F1 .94 (Wang et al., CVPR 2017):
here they are held against what was seen. Films that readers saw were chosen to hold many findings,
so that a predictive value is not that of a random film. Letters in shapes: n films,
r resamples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64

from lucency.audit.ontology import meet, merged
from lucency.balance.measures import no_finding
from lucency.data.expert import Readings
from lucency.judge.decided import Cells, count_cells, ratio
from lucency.judge.intervals import Weights, interval, once, resample_patients
from lucency.judge.statistics import wilson
from lucency.values import FINDINGS, NO_FINDING, Manifest

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
ROUNDING = 1e-12  # of a share; below it two are equal
ALL_ALIKE = "every resample gives the same: take Wilson's interval"
Values = Float64[np.ndarray, " r"]


def agreement(labels: Manifest, experts: Manifest, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return MEASURES of every finding of both, `labels` as the test and `experts` as the truth.

    A film of which one says nothing (NaN) is left out. `labelled`, `seen` and `both` count the
    positives of labels, of experts and of both. Beside the interval from resampling patients
    stands Wilson's, of a share, which takes films as independent, but holds for few films too. For
    groups of findings merge both with lucency.audit.ontology.merge_labels first. Raises ValueError
    when they have no film or no finding in common.
    """
    ours, theirs = meet(labels, experts)
    plainly = once(len(ours))
    drawn = resample_patients(ours.patient, resamples=resamples, seed=seed)
    rows = []
    for finding, mine, seen in zip(ours.findings, ours.label.T, theirs.label.T, strict=True):
        stated = ~np.isnan(mine) & ~np.isnan(seen)
        truth, called = np.where(stated, seen, np.nan), mine == 1
        counts = [count_cells(truth, called, weights=one) for one in (plainly, drawn)]
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
    and where experts were asked ABNORMAL and NORMAL. A film may show several findings, so shares
    do not add up to 1; one of which a finding is not stated does not count there. Raises
    ValueError when they have no film or no finding in common.
    """
    ours, theirs = meet(labels, experts)
    drawn = resample_patients(ours.patient, resamples=resamples, seed=seed)
    given = {**_columns(ours), NO_FINDING: no_finding(ours.label, names=ours.findings)}
    seen = _columns(theirs)
    if ABNORMAL in theirs.facts:
        abnormal = theirs.facts[ABNORMAL].to_numpy(dtype=np.float64)
        seen |= {ABNORMAL: abnormal, NORMAL: 1 - abnormal}
    tables = [_flow_from(name, label == 1, seen, drawn) for name, label in given.items()]
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
    drawn = resample_patients(patient, resamples=resamples, seed=seed)
    rows = []
    for finding, label in answer.items():
        yes, no = (np.bincount(film[label[kept] == one], minlength=len(first)) for one in (1, 0))
        several = yes + no > 1
        value = fleiss(yes, no, weights=once(len(first)))[0]
        low, high = interval(fleiss(yes, no, weights=drawn))
        note = "not computable: all answers are the same" if several.any() else NO_PAIRS
        counts = (int(several.sum()), int((yes + no)[several].sum()))
        people = len(np.unique(patient[several]))
        rows.append((finding, value, low, high, *counts, people, note if np.isnan(value) else ""))
    return pd.DataFrame(rows, columns=list(READ))


def fleiss(
    yes: Int64[np.ndarray, " n"], no: Int64[np.ndarray, " n"], *, weights: Weights
) -> Values:
    """Return Fleiss' kappa from how many readers of each film said yes and no.

    NaN where all say the same of all films. Films with fewer than two answers are left out.
    """
    several = yes + no > 1
    said = np.where(several, yes + no, 0).astype(np.float64)
    pairs = np.where(several, said * (said - 1), 1)
    alike = np.where(several, 1 - 2 * yes * no / pairs, 0)
    terms = np.stack([alike, several.astype(np.float64), np.where(several, yes, 0), said])
    same, films, positive, answers = weights.total(terms)
    share = ratio(positive, answers)
    return _above_chance(ratio(same, films), share**2 + (1 - share) ** 2)


def cohen(cells: Cells) -> Values:
    """Return the agreement of two beyond chance, (observed - expected) / (1 - expected).

    Cohen, Educational and Psychological Measurement 20 (1960), 37-46. NaN where both say the same
    of all films.
    """
    tp, fp, fn, tn = cells
    films = tp + fp + fn + tn
    expected = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
    return _above_chance(ratio(tp + tn, films), ratio(expected, films**2))


def _above_chance(observed: Values, expected: Values) -> Values:
    room = 1 - expected
    return np.divide(
        observed - expected, room, out=np.full_like(room, np.nan), where=room > ROUNDING
    )


def _measure(name: str, plain: Cells, sampled: Cells) -> tuple[float | str, ...]:
    """Return value, ends of the interval, ends of Wilson's, and what is to be noted."""
    value = float(MEASURES[name](plain)[0])
    low, high = interval(MEASURES[name](sampled))
    if np.isnan(value):
        return (*[np.nan] * 5, f"not computable: {_LACKING[name]}")
    if name == KAPPA:
        return value, low, high, np.nan, np.nan, "no share of films: no Wilson interval"
    part, whole = (cell[:1] for cell in _SHARES[name](plain))
    least, most = wilson(part, whole)[:, 0]
    return value, low, high, least, most, ALL_ALIKE if low == high else ""


def _columns(labels: Manifest) -> dict[str, Float[np.ndarray, " n"]]:
    label = labels.label
    return {**dict(zip(labels.findings, label.T, strict=True)), ANY: merged(label)}


def _flow_from(
    name: str,
    given: Bool[np.ndarray, " n"],
    seen: dict[str, Float[np.ndarray, " n"]],
    drawn: Weights,
) -> pd.DataFrame:
    """Return the rows of one label."""
    both = np.stack([given & (label == 1) for label in seen.values()]).astype(np.float64)
    stated = np.stack([given & ~np.isnan(label) for label in seen.values()]).astype(np.float64)
    films, total = both.sum(axis=1), stated.sum(axis=1)
    sampled, whole = drawn.total(both), drawn.total(stated)
    columns = (name, list(seen), films.astype(np.int64), total.astype(np.int64))
    shares = ratio(sampled.ravel(), whole.ravel()).reshape(sampled.shape)
    bounds = (*interval(shares), *wilson(films, total))
    values = (*columns, ratio(films, total), *bounds)
    table = pd.DataFrame(dict(zip(FLOW[:-1], values, strict=True)))
    none = f"not computable: 0 films labelled {name} of which this is stated"
    return table.assign(note=np.where(total > 0, "", none))


def _ppv(cells: Cells) -> tuple[Values, Values]:
    return cells.tp, cells.tp + cells.fp


def _sensitivity(cells: Cells) -> tuple[Values, Values]:
    return cells.tp, cells.tp + cells.fn


def _specificity(cells: Cells) -> tuple[Values, Values]:
    return cells.tn, cells.tn + cells.fp


def _npv(cells: Cells) -> tuple[Values, Values]:
    return cells.tn, cells.tn + cells.fn


def _share(parts: Callable[[Cells], tuple[Values, Values]]) -> Callable[[Cells], Values]:
    return lambda cells: ratio(*parts(cells))


_SHARES = {"ppv": _ppv, "sensitivity": _sensitivity, "specificity": _specificity, "npv": _npv}
_LACKING = {
    "ppv": "0 films labelled positive",
    "sensitivity": "0 films that experts call positive",
    "specificity": "0 films that experts call negative",
    "npv": "0 films labelled negative",
    KAPPA: "labels and experts say the same of all films",
}
MEASURES: dict[str, Callable[[Cells], Values]] = {
    **{name: _share(parts) for name, parts in _SHARES.items()},
    KAPPA: cohen,
}
