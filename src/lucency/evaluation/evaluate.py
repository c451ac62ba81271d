"""Predictions of one part in, a long table of metrics with confidence intervals out.

Letters in shapes: n films, k findings, c columns (the findings, then macro and micro), r resamples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64

from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap
from lucency.evaluation.bootstrap import MACRO, MICRO, Weights, with_macro
from lucency.evaluation.calibration import UNLABELLED
from lucency.evaluation.metrics import (
    METRICS,
    PER_FILM,
    Cells,
    Input,
    Label,
    Labels,
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
Inputs = dict[Input, np.ndarray]  # what metrics take of films, or of cells of film x finding
Columns = list[tuple[np.ndarray, Inputs]]  # label and inputs of each finding, then of all cells
Patient = Int64[np.ndarray, " n"]


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

    Macro is the mean over the findings for which the metric is computable, micro pools all cells
    of film x finding. The metrics of whole films (PER_FILM) follow in rows of their own, under
    PER_FILM_ROW. A finding is called positive when its probability reaches its threshold. Where a
    class is one patient's there is no interval, and the note says so. `positives` counts films; in
    rows of all findings, cells of film x finding. Raises ValueError when the predictions hold
    several parts, no films, or another number of findings than of thresholds.
    """
    _check(predictions, threshold)
    label, patient, findings = predictions.label, predictions.patient, predictions.findings
    inputs = metric_inputs(predictions, predictions.probability >= threshold)
    both = (
        bootstrap.once(len(label)),
        bootstrap.resample_patients(patient, resamples=resamples, seed=seed),
    )
    columns = _columns(label, inputs)
    plain, sampled = (_values(columns, weights) for weights in both)
    whole_films = _counts(label, patient)
    counts = [*(_counts(one[:, None], patient) for one in label.T), whole_films, whole_films]
    singles = [*(_one_patient(one, patient) for one in label.T), "", ""]
    rows = []
    for name, metric in METRICS.items():
        bounds, whole = bootstrap.interval(sampled[name]), plain[name][:, 0]
        notes = _notes(name, columns, findings, whole)
        for place, column in enumerate((*findings, MACRO, MICRO)):
            value, note, (low, high) = float(whole[place]), notes[place], bounds[:, place]
            if np.isnan(value):
                low = high = np.nan
            elif metric.needs and singles[place]:
                low, high, note = np.nan, np.nan, singles[place]
            else:
                note = "; ".join(filter(None, (note, _lost(sampled[name], whole, place))))
            rows.append((predictions.network, column, name, value, low, high, *counts[place], note))
    for name, metric in PER_FILM.items():
        whole, drawn = (metric.function(label, inputs[metric.takes], weights=w) for w in both)
        note = _lost(drawn[None], whole, 0) if whole_films[0] else UNLABELLED
        row = (PER_FILM_ROW, name, float(whole[0]), *bootstrap.interval(drawn), *whole_films, note)
        rows.append((predictions.network, *row))
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


def _columns(label: Labels, inputs: Inputs) -> Columns:
    """Return each finding's films, then all cells pooled, a film's cells side by side."""
    each: Columns = [
        (label[:, finding], {key: one[:, finding] for key, one in inputs.items()})
        for finding in range(label.shape[1])
    ]
    return [*each, (label.ravel(), {key: one.ravel() for key, one in inputs.items()})]


def _values(columns: Columns, weights: Weights) -> dict[str, Float64[np.ndarray, "c r"]]:
    """Return metric -> its value in every column, macro among them, and resample."""
    *each, pooled = columns
    found = [measure(*one, weights=weights) for one in each]
    cells = measure(*pooled, weights=weights.of_cells(len(each)))
    return {
        name: np.stack([*with_macro(np.stack([one[name] for one in found])), cells[name]])
        for name in METRICS
    }


def _counts(label: Labels, patient: Patient) -> tuple[int, int, int]:
    """Return films and positives, and patients, counting stated labels only."""
    stated = ~np.isnan(label).all(axis=1)
    return int(stated.sum()), int((label == 1).sum()), len(np.unique(patient[stated]))


def _one_patient(label: Label, patient: Patient) -> str:
    """Return that all films of a class are of one patient, so that no interval has a meaning."""
    owners = {"positives": patient[label == 1], "negatives": patient[label == 0]}
    single = [name for name, mine in owners.items() if len(np.unique(mine)) == 1]
    return f"no interval: all {' and all '.join(single)} are of one patient" if single else ""


def _notes(
    name: str, columns: Columns, findings: tuple[str, ...], value: Float64[np.ndarray, " c"]
) -> list[str]:
    """Return why a value is absent, or for the macro value which findings it leaves out."""
    why = [not_computable(name, label=one, decision=given["decision"]) for one, given in columns]
    left_out = np.array(findings)[np.isnan(value[: len(findings)])]
    kept = len(findings) - len(left_out)
    without = f", without {', '.join(left_out)}" if len(left_out) and kept else ""
    return [*why[:-1], f"mean over {kept} of {len(findings)} findings{without}", why[-1]]


def _lost(sampled: Float64[np.ndarray, "c r"], plain: Float64[np.ndarray, " c"], place: int) -> str:
    """Return in how many resamples a value, or a part of a macro value, was not computable."""
    resamples = f"of {sampled.shape[1]} resamples"
    if place == len(plain) - 2:
        missing = np.isnan(sampled[:place][~np.isnan(plain[:place])]).any(axis=0).sum()
        return f"over fewer findings in {missing} {resamples}" if missing else ""
    missing = np.isnan(sampled[place]).sum()
    return f"not computable in {missing} {resamples}, left out of the interval" if missing else ""
