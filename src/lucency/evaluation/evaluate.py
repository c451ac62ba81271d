"""Predictions of one part in, a long table of metrics with confidence intervals out.

Letters in shapes: n films, k findings, c columns (the findings, then macro and micro), r resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import (
    MACRO,
    MICRO,
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.evaluation.calibration import UNLABELLED
from lucency.evaluation.metrics import (
    METRICS,
    PER_FILM,
    Cells,
    Input,
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


def evaluate(
    predictions: Predictions, *, threshold: Float64[np.ndarray, " k"], resamples: int, seed: int
) -> pd.DataFrame:
    """Return every metric of every finding, macro and micro, with 95 % intervals over patients.

    Macro is the mean over the findings for which the metric is computable, micro pools all cells
    of film x finding. The metrics of whole films (PER_FILM) follow in rows of their own, under
    PER_FILM_ROW. A finding is called positive when its probability reaches its threshold.
    Where a class is one patient's there is no interval, and the note says so.
    `positives` counts films; in rows of all findings, cells of film x finding. Raises ValueError
    when the predictions hold several parts, no films, or another number of findings than of
    thresholds.
    """
    _check(predictions, threshold)
    decision = predictions.probability >= threshold
    plainly = once(len(predictions))
    drawn = resample_patients(predictions.patient, resamples=resamples, seed=seed)
    plain, sampled = (_values(predictions, decision, weights) for weights in (plainly, drawn))
    columns = (*predictions.findings, MACRO, MICRO)
    counts = [_counts(predictions, column) for column in columns]
    singles = [*(_one_patient(label, predictions.patient) for label in predictions.label.T), "", ""]
    rows = []
    for name in METRICS:
        bounds, whole = interval(sampled[name]), plain[name][:, 0]
        for place, column in enumerate(columns):
            value = float(whole[place])
            single = singles[place] if METRICS[name].needs and not np.isnan(value) else ""
            low, high = (np.nan, np.nan) if np.isnan(value) or single else bounds[:, place]
            why = single or _note(name, predictions, decision, column, whole)
            lost = "" if np.isnan(value) or single else _lost(sampled[name], whole, place)
            note = "; ".join(filter(None, (why, lost)))
            row = (predictions.network, column, name, value, low, high)
            rows.append((*row, *counts[place], note))
    rows += _film_rows(predictions, decision, plainly=plainly, drawn=drawn)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def confusion_table(
    predictions: Predictions, *, threshold: Float64[np.ndarray, " k"]
) -> pd.DataFrame:
    """Return how many films of one part are called rightly and wrongly, a row a finding.

    CONFUSION names the columns: films with the finding that are called positive (tp) or missed
    (fn), films without it that are called positive (fp) or not (tn). A film whose label is not
    stated is in none of the four. Raises ValueError as `evaluate` does.
    """
    _check(predictions, threshold)
    decision, plainly = predictions.probability >= threshold, once(len(predictions))
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


def metric_inputs(
    predictions: Predictions, decision: Bool[np.ndarray, "n k"]
) -> dict[Input, np.ndarray]:
    """Return what metrics take, each n x k: logits, probabilities (recalibrated) and decisions."""
    return {
        "logit": predictions.calibrated,
        "probability": predictions.probability,
        "decision": decision,
    }


def _check(predictions: Predictions, threshold: Float64[np.ndarray, " k"]) -> None:
    require_one_part(predictions)
    if threshold.shape != (len(predictions.findings),):
        raise ValueError(
            f"{predictions.network}: {threshold.size} thresholds for {len(predictions.findings)} "
            "findings; expected one each: fit them with threshold_table"
        )


def _values(
    predictions: Predictions, decision: Bool[np.ndarray, "n k"], weights: Weights
) -> dict[str, Float64[np.ndarray, "c r"]]:
    """Return metric -> its value in every column and resample."""
    columns = [
        measure(label, inputs, weights=drawn)
        for label, inputs, drawn in _columns(
            predictions.label, metric_inputs(predictions, decision), weights
        )
    ]
    table = {}
    for name in METRICS:
        value = np.stack([column[name] for column in columns])
        table[name] = np.stack([*value[:-1], mean_over_findings(value[:-1]), value[-1]])
    return table


def _columns(
    label: Float[np.ndarray, "n k"], inputs: Mapping[Input, np.ndarray], weights: Weights
) -> Iterator[tuple[np.ndarray, dict[Input, np.ndarray], Weights]]:
    """Yield each finding's films, then all cells pooled, a film's cells side by side."""
    for finding in range(label.shape[1]):
        yield label[:, finding], {key: one[:, finding] for key, one in inputs.items()}, weights
    pooled = weights.of_cells(label.shape[1])
    yield label.ravel(), {key: one.ravel() for key, one in inputs.items()}, pooled


def _film_rows(
    predictions: Predictions,
    decision: Bool[np.ndarray, "n k"],
    *,
    plainly: Weights,
    drawn: Weights,
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the metrics of whole films."""
    inputs, label = metric_inputs(predictions, decision), predictions.label
    counts = _counts(predictions, PER_FILM_ROW)
    for name, metric in PER_FILM.items():
        value = metric.function(label, inputs[metric.takes], weights=plainly)
        sampled = metric.function(label, inputs[metric.takes], weights=drawn)
        note = _lost(sampled[None], value, 0) if counts[0] else UNLABELLED
        row = (predictions.network, PER_FILM_ROW, name, float(value[0]), *interval(sampled))
        yield (*row, *counts, note)


def _one_patient(label: Float[np.ndarray, " n"], patient: Int64[np.ndarray, " n"]) -> str:
    """Return that all films of a class are of one patient, so that no interval has a meaning."""
    owners = {"positives": patient[label == 1], "negatives": patient[label == 0]}
    single = [name for name, mine in owners.items() if len(np.unique(mine)) == 1]
    return f"no interval: all {' and all '.join(single)} are of one patient" if single else ""


def _counts(predictions: Predictions, column: str) -> tuple[int, int, int]:
    """Return films and positives of a column, and patients, counting stated labels only."""
    label = predictions.label
    if column in predictions.findings:
        label = label[:, [predictions.findings.index(column)]]
    stated = ~np.isnan(label).all(axis=1)
    patients = len(np.unique(predictions.patient[stated]))
    return int(stated.sum()), int((label == 1).sum()), patients


def _note(
    name: str,
    predictions: Predictions,
    decision: Bool[np.ndarray, "n k"],
    column: str,
    value: Float64[np.ndarray, " c"],
) -> str:
    """Return why a value is absent, or for a macro value which findings it leaves out."""
    if column == MACRO:
        findings = np.array(predictions.findings)
        left_out = findings[np.isnan(value[: len(findings)])]
        kept = len(findings) - len(left_out)
        without = f", without {', '.join(left_out)}" if len(left_out) and kept else ""
        return f"mean over {kept} of {len(findings)} findings{without}"
    if column == MICRO:
        return not_computable(name, label=predictions.label.ravel(), decision=decision.ravel())
    place = predictions.findings.index(column)
    return not_computable(name, label=predictions.label[:, place], decision=decision[:, place])


def _lost(sampled: Float64[np.ndarray, "c r"], plain: Float64[np.ndarray, " c"], place: int) -> str:
    """Return in how many resamples a value, or a part of a macro value, was not computable."""
    resamples = f"of {sampled.shape[1]} resamples"
    if place == len(plain) - 2:
        missing = np.isnan(sampled[:place][~np.isnan(plain[:place])]).any(axis=0).sum()
        return f"over fewer findings in {missing} {resamples}" if missing else ""
    missing = np.isnan(sampled[place]).sum()
    return f"not computable in {missing} {resamples}, left out of the interval" if missing else ""
