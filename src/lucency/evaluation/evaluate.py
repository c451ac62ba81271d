"""Predictions of one part in, a long table of metrics with confidence intervals out.

Letters in shapes: n films, k findings, c columns (the findings, then macro and micro), r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64

from lucency.core.manifest import listed, mean_over
from lucency.core.memory import thread_pool
from lucency.core.parallel import usable_cores
from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap, intervals
from lucency.evaluation.bootstrap import MACRO, MICRO, Weights, mean_over_findings
from lucency.evaluation.calibration import UNLABELLED
from lucency.evaluation.metrics import (
    METRICS,
    PER_FILM,
    WITHOUT_BIAS,
    Cells,
    Input,
    Label,
    Labels,
    Need,
    calibration_floor,
    count_cells,
    measure,
    not_computable,
)

TRIVIAL = "trivial"  # the baseline of `trivial`, where a network is named
PER_FILM_ROW = "per film"  # in place of a finding, where the metric is one of PER_FILM
CONFUSION = ("network", "finding", "threshold", *Cells._fields)
COLUMNS = (
    "network", "finding", "metric", "value", "low", "high", "films", "positives", "patients",
    "note",
)  # fmt: skip
UNBIASED = "average_precision"
SMALL = 0.005  # of a bias: not worth a note
THREADS = 4  # that measure findings at once; each has arrays of all films
MANY_CELLS = 1 << 20  # of film x finding; of more, one is measured at a time: memory
# What counts 0 in the mean over findings where no film is called so, but the other is computable.
NEVER_CALLED = {"precision": "recall", "npv": "specificity", "mcc": "balanced_accuracy"}
Inputs = dict[Input, np.ndarray]  # what metrics take of films, or of cells of film x finding
Patient = Int64[np.ndarray, " n"]  # numbered from 0
Values = dict[str, Float64[np.ndarray, "c r"]]  # metric -> of all films, then of each resample
Described = tuple[float, float, float, str]  # value, ends of its interval, note
FLOOR = "no interval; a calibrated network has {:.3f} by chance"
_BOTH: tuple[Need, ...] = ("positives", "negatives")


class Column(NamedTuple):
    """What metrics take of a finding's films, or of all cells of film x finding."""

    label: Label
    inputs: Inputs
    patient: Patient
    patients: dict[Need, int]  # that have such films


def thresholds_of(thresholds: pd.DataFrame, predictions: Predictions) -> Float64[np.ndarray, " k"]:
    """Return a network's thresholds from a table of one or more networks.

    Raises ValueError unless they were fitted for its findings, in this order, under its split.
    """
    mine = thresholds.loc[thresholds["network"] == predictions.network]
    if not len(mine):
        networks = ", ".join(thresholds["network"].unique()) or "no network"
        raise ValueError(
            f"thresholds were fitted for {networks}; expected {predictions.network}: fit them to "
            "its validation films"
        )
    findings = tuple(mine["finding"])
    if findings != predictions.findings:
        raise ValueError(
            f"{predictions.network}: thresholds were fitted for {', '.join(findings)}; expected "
            f"{', '.join(predictions.findings)}, in this order: fit them anew"
        )
    strange = mine["split"].loc[mine["split"] != predictions.split]
    if len(strange):
        raise ValueError(
            f"{predictions.network}: thresholds were fitted under split {strange.iloc[0]}; "
            f"expected {predictions.split}, that of the predictions: test films may have been "
            "among those they were fitted on; fit them to the validation films of this split"
        )
    return mine["threshold"].to_numpy(dtype=np.float64)


def evaluate(
    predictions: Predictions, *, threshold: Float64[np.ndarray, " k"], resamples: int, seed: int
) -> pd.DataFrame:
    """Return every metric of every finding, macro and micro, with 95 % intervals over patients.

    Macro is the mean over the findings for which the metric is computable; precision, NPV and MCC
    count 0 there where no film is called so. Micro pools all cells of film x finding. The metrics
    of whole films (PER_FILM) follow in rows of their own, under PER_FILM_ROW. A finding is called
    positive when its probability reaches its threshold. Intervals are those of
    evaluation.intervals; where patients are too few for one, the note says so. That of an average
    precision is without its bias, so that it may lie below the value, and the note states the bias.
    The calibration error has none: the note states that of a calibrated network. `positives` counts
    films; in rows of all findings, cells of film x finding. Raises ValueError when the predictions
    hold several parts, no films, or another number of findings than of thresholds.
    """
    _check(predictions, threshold)
    label, findings = predictions.label, predictions.findings
    inputs = metric_inputs(predictions, predictions.probability >= threshold)
    weights = bootstrap.all_and_resampled(predictions.patient, resamples=resamples, seed=seed)
    patient = weights.owner
    columns = _columns(label, inputs, patient)
    values = _values(columns, weights)
    whole = _counts(label, patient)
    counts = [*(_counts(one[:, None], patient) for one in label.T), whole, whole]
    rows = []
    for name in METRICS:
        described = [_described(name, column, values, k) for k, column in enumerate(columns)]
        described.insert(-1, _described_macro(name, columns[:-1], values, findings))
        several = zip((*findings, MACRO, MICRO), described, counts, strict=True)
        rows += [(one, name, *numbers, *count, note) for one, (*numbers, note), count in several]
    for name, metric in PER_FILM.items():
        value, *sampled = metric.function(label, inputs[metric.takes], weights=weights)
        note = _lost(np.array(sampled)) if whole[0] else UNLABELLED
        ends = intervals.bootstrap_interval(np.array([value, *sampled]), patients=whole[-1])
        note = note or intervals.no_interval(ends, patients=whole[-1])
        rows.append((PER_FILM_ROW, name, value, *ends, *whole, note))
    table = pd.DataFrame(rows, columns=list(COLUMNS[1:]))
    table.insert(0, "network", predictions.network)
    return table


def confusion_table(
    predictions: Predictions, *, threshold: Float64[np.ndarray, " k"]
) -> pd.DataFrame:
    """Return how many films of one part are called rightly and wrongly, a row a finding.

    CONFUSION names the columns: films with the finding that are called positive (tp) or missed
    (fn), films without it that are called positive (fp) or not (tn). A film whose label is not
    stated is in none of the four. Raises ValueError as `evaluate` does.
    """
    _check(predictions, threshold)
    decision, plainly = predictions.probability >= threshold, bootstrap.once(len(predictions))
    rows = []
    for place, finding in enumerate(predictions.findings):
        cells = count_cells(predictions.label[:, place], decision[:, place], weights=plainly)
        counts = (int(count[0]) for count in cells)
        rows.append((predictions.network, finding, float(threshold[place]), *counts))
    return pd.DataFrame(rows, columns=list(CONFUSION))


def trivial(predictions: Predictions, *, prevalence: Float64[np.ndarray, " k"]) -> Predictions:
    """Return the trivial baseline of the same films: the training prevalence, for every film.

    Every AUC of a finding is .5 and its accuracy is high; at a threshold of .5 it calls positive
    only what most training films have, as "No Finding" may be. Prevalences are kept a millionth
    away from 0 and 1, so that logits are finite.
    """
    share = np.clip(prevalence, 1e-6, 1 - 1e-6)
    logit = np.log(share / (1 - share)).astype(np.float32)
    every = np.broadcast_to(logit, predictions.logit.shape).copy()
    return with_logits(predictions, network=TRIVIAL, logit=every)


def with_logits(
    films: Predictions, *, network: str, logit: Float[np.ndarray, "n k"]
) -> Predictions:
    """Return other predictions of the same films: not recalibrated, and without features."""
    nothing = np.empty((len(films), 0), dtype=np.float32)
    return replace(films.uncalibrated(), network=network, logit=logit, feature=nothing)


def require_one_part(predictions: Predictions) -> None:
    """Raise ValueError unless the predictions are of films of one part."""
    parts = np.unique(predictions.part).tolist()
    if len(parts) != 1:
        raise ValueError(
            f"{predictions.network}: predictions of {', '.join(parts) or 'no films'}; expected one "
            'part: take predictions.of("test")'
        )


def metric_inputs(predictions: Predictions, decision: Bool[np.ndarray, "n k"]) -> Inputs:
    """Return what metrics take, each n x k: logits, probabilities (recalibrated) and decisions."""
    logit, probability = predictions.calibrated, predictions.probability
    return {"logit": logit, "probability": probability, "decision": decision}


def _check(predictions: Predictions, threshold: Float64[np.ndarray, " k"]) -> None:
    require_one_part(predictions)
    if threshold.shape != (len(predictions.findings),):
        raise ValueError(
            f"{predictions.network}: {threshold.size} thresholds for {len(predictions.findings)} "
            "findings; expected one each: fit them with threshold_table"
        )


def _columns(label: Labels, inputs: Inputs, patient: Patient) -> list[Column]:
    """Return each finding's films, then all cells pooled, a film's cells side by side."""
    findings = label.shape[1]
    each: list[tuple[Label, Inputs, Patient]] = [
        (label[:, k], {key: one[:, k] for key, one in inputs.items()}, patient)
        for k in range(findings)
    ]
    pooled: Inputs = {key: one.ravel() for key, one in inputs.items()}
    each.append((label.ravel(), pooled, np.repeat(patient, findings)))
    return [Column(*one, _patients_of(*one)) for one in each]


def _patients_of(label: Label, inputs: Inputs, patient: Patient) -> dict[Need, int]:
    """Return how many patients have films of each kind that metrics need."""
    stated, called = ~np.isnan(label), inputs["decision"]
    films: dict[Need, np.ndarray] = {
        "positives": label == 1,
        "negatives": label == 0,
        "films called positive": stated & called,
        "films called negative": stated & ~called,
    }
    return {need: _people(patient[rows]) for need, rows in films.items()}


def _values(columns: Sequence[Column], weights: Weights) -> Values:
    """Return metric -> its value in every column and for each column of weights.

    WITHOUT_BIAS is beside them, of which the interval of UNBIASED is; all cells have no bias.
    """
    cells = weights.of_cells(len(columns) - 1)

    def measured(column: Column) -> dict[str, Float64[np.ndarray, " r"]]:
        pooled = column is columns[-1]
        each = cells if pooled else weights
        one = measure(column.label, column.inputs, weights=each, unbiased=not pooled)
        return {WITHOUT_BIAS: one[UNBIASED], **one}

    with thread_pool(min(usable_cores(), THREADS)) as threads:
        each = threads.map if len(cells.owner) <= MANY_CELLS else map
        found = list(each(measured, columns[::-1]))  # all cells first: they take longest
    return {name: np.stack([one[name] for one in found[::-1]]) for name in found[0]}


def _described(name: str, column: Column, values: Values, place: int) -> Described:
    """Return a metric of one column, the ends of its interval, and what must be known of it."""
    found = values[name][place]
    value, (low, high) = float(found[0]), intervals.NONE
    if np.isnan(value):
        note = not_computable(name, label=column.label, decision=column.inputs["decision"])
    elif name == "ece":
        note = FLOOR.format(calibration_floor(column.label, column.inputs["probability"]))
    elif note := _few(name, [column]):
        pass
    elif name in intervals.INTERVALS:
        low, high = intervals.INTERVALS[name](column.label, column.inputs, column.patient)
        note = "" if low == low else intervals.TOO_FEW
    elif name == UNBIASED:
        centre = values[WITHOUT_BIAS][place]
        low, high = intervals.logit_interval(centre, patients=column.patients["positives"])
        notes = ["" if low == low else intervals.ALIKE, _bias(value, centre[0])]
        note = "; ".join(filter(None, notes))
    else:
        low, high = intervals.bootstrap_interval(found, patients=_rarer(name, column))
        note = _lost(found[1:]) if low == low else intervals.ALIKE
    return value, low, high, note


def _described_macro(
    name: str, columns: Sequence[Column], values: Values, findings: tuple[str, ...]
) -> Described:
    """Return the same of the mean over findings; the note says over which."""
    found = _counted(name, values)
    known = np.flatnonzero(~np.isnan(found[:, 0])).tolist()
    value, (low, high) = float(mean_over_findings(found)[0]), intervals.NONE
    notes = [_over(name, findings, found[:, 0], values[name][:-1, 0])]
    several = [columns[k] for k in known]
    if name == "ece" and known:
        floors = [calibration_floor(one.label, one.inputs["probability"]) for one in several]
        notes.append(FLOOR.format(np.mean(floors)))
    elif known and (few := _few(name, several) if name in intervals.LEAST else ""):
        notes.append(few)
    elif known:
        centre = _counted(WITHOUT_BIAS if name == UNBIASED else name, values)
        rarer = np.array([_rarer(name, one) for one in columns])
        people = _people(columns[0].patient)
        if people >= intervals.FEWEST:
            ends = _macro_rule(name)(centre, patients=rarer)
            low, high = intervals.within_range(name, ends)
        counts = {"patients": people, "fewest": intervals.FEWEST}
        notes.append(intervals.no_interval((low, high), **counts))
        notes.append(_bias(value, mean_over_findings(centre)[0]))
    return value, low, high, "; ".join(filter(None, notes))


def _macro_rule(name: str) -> Callable[..., intervals.Bounds]:
    ranks = name in intervals.RANKS
    return intervals.macro_interval_of_ranks if ranks else intervals.macro_interval


def _counted(name: str, values: Values) -> Float64[np.ndarray, "k r"]:
    """Return what a mean over findings counts; of those never called, as NEVER_CALLED says."""
    value = values[name][:-1]
    if name not in NEVER_CALLED:
        return value
    other = values[NEVER_CALLED[name]][:-1]
    return np.where(np.isnan(value) & ~np.isnan(other), 0.0, value)


def _few(name: str, columns: Sequence[Column]) -> str:
    """Return that one of the columns has too few patients for an interval, or nothing."""
    closed = name in intervals.INTERVALS
    fewest = intervals.FEWEST if closed else intervals.LEAST.get(name, intervals.BOOTSTRAPPED)
    for need in METRICS[name].needs if closed else _BOTH:
        count = min(one.patients[need] for one in columns)
        if count < fewest:
            return f"no interval: patients with {need} {count}, expected {fewest} or more"
    return ""


def _rarer(name: str, column: Column) -> int:
    """Return how many patients the rarer class has of those that a metric needs."""
    needed = [column.patients[need] for need in METRICS[name].needs if need in _BOTH]
    return min(needed, default=_people(column.patient))


def _bias(value: float, centre: float) -> str:
    high = value - centre
    return f"bias {high:+.3f}, for positives are few" if high > SMALL else ""


def _over(
    name: str,
    findings: tuple[str, ...],
    counted: Float64[np.ndarray, " k"],
    value: Float64[np.ndarray, " k"],
) -> str:
    """Return which findings a mean is over, and which count 0."""
    zero = np.array(findings)[np.isnan(value) & ~np.isnan(counted)].tolist()
    never = f", 0 for {listed(zero, most=6)}, which is never called so" if zero else ""
    return mean_over(findings, ~np.isnan(counted)) + never


def _counts(label: Labels, patient: Patient) -> tuple[int, int, int]:
    """Return films and positives, and patients, counting stated labels only."""
    stated = ~np.isnan(label).all(axis=1)
    return int(stated.sum()), int((label == 1).sum()), _people(patient[stated])


def _people(patient: Patient) -> int:
    return int(np.count_nonzero(np.bincount(patient)))


def _lost(sampled: Float64[np.ndarray, " r"]) -> str:
    """Return in how many resamples a value was not computable."""
    missing, of = np.isnan(sampled).sum(), f"of {len(sampled)} resamples"
    return f"not computable in {missing} {of}, left out of the interval" if missing else ""
