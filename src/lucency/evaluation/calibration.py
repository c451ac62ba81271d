"""Calibration: recalibrating logits, and measuring whether probabilities are shares of positives.

A recalibration is a line or a rising curve a finding, from logits to logits. It is fitted to
validation films at their natural prevalence, since balancing and weighted losses shift what a
network predicts. A line that rises never changes the order of films; a curve may tie them. It is
measured by the reliability table, the parts of the Brier score, and a metric (evaluation.metrics).

Letters in shapes: n films (n2, if they must be as many), k findings (so k2), p coefficients, m
knots of all curves, j knots of one, r columns of weights, b bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64, Int64
from scipy.optimize import isotonic_regression, minimize, root_scalar
from scipy.special import expit
from scipy.special import logit as log_odds

from lucency.core.manifest import mean_over
from lucency.core.predictions import Predictions, Recalibration, no_knots
from lucency.evaluation.bootstrap import MACRO, MICRO, mean_over_findings
from lucency.evaluation.intervals import TOO_FEW, share_interval
from lucency.evaluation.metrics import bin_edges, bin_of

SMALLEST_SLOPE = 1e-3
FAR = 20.0  # further than any curve of `isotonic` is moved, in logits
PRECISION = 1e-10  # of the gradient of the mean log-loss, in nats for a standardised logit
HELD = f"slope held at {SMALLEST_SLOPE}: the best on validation films is not above it"
LEVEL = "one level for all films: no higher logits have a higher share in validation"
RIGHT = "not fitted: no logit has the wrong sign in validation, so no temperature is the best"
UNSEEN, UNLABELLED = "not computable: 0 films", "not computable: 0 films with a label"
COLUMNS = (
    "network", "finding", "bin", "low_edge", "high_edge", "films", "positives", "mean_probability",
    "share", "share_low", "share_high", "note",
)  # fmt: skip
PARTS = ("brier", "reliability", "resolution", "uncertainty", "within")
Films = Float64[np.ndarray, " n"]  # a number a film: its label, logit, target or probability


class Fit(NamedTuple):
    """The line of one finding, its curve's logits and calibrated logits, and what is amiss."""

    slope: float = 1.0
    offset: float = 0.0
    note: str = ""
    knot: Float64[np.ndarray, "j 2"] = np.empty((0, 2))


def recalibrate(
    label: Float32[np.ndarray, "n k"], logit: Float32[np.ndarray, "n2 k2"], *, method: str
) -> Recalibration:
    """Return what a method of RECALIBRATIONS fits to validation films, finding by finding.

    Films whose label is NaN (not stated) are left out. For a finding without positives or
    negatives see the method; it is noted. Raises ValueError for an unknown method, arrays of
    different shapes, labels other than 1, 0 and NaN, and logits that are not finite.
    """
    if method not in RECALIBRATIONS:
        known = ", ".join(RECALIBRATIONS)
        raise ValueError(f"recalibration {method!r} is unknown; expected one of {known}")
    _check(label, logit)
    pairs = zip(label.T.astype(np.float64), logit.T.astype(np.float64), strict=True)
    fits = [RECALIBRATIONS[method](y[~np.isnan(y)], z[~np.isnan(y)]) for y, z in pairs]
    knots = [np.insert(fit.knot, 0, place, axis=1) for place, fit in enumerate(fits)]
    return Recalibration(
        method=method,
        slope=np.array([fit.slope for fit in fits], dtype=np.float64),
        offset=np.array([fit.offset for fit in fits], dtype=np.float64),
        note=tuple(fit.note for fit in fits),
        knot=np.concatenate([no_knots(), *knots]),
    )


def recalibrated(predictions: Predictions, *, method: str) -> Predictions:
    """Return the predictions with a recalibration fitted to their own validation films."""
    known = predictions.of("val")
    line = recalibrate(known.label, known.logit.astype(np.float32), method=method)
    return replace(predictions, slope=line.slope, offset=line.offset, knot=line.knot)


def no_recalibration(findings: int) -> Recalibration:
    """Return the lines that change nothing."""
    empty = np.empty((0, findings), dtype=np.float32)
    return recalibrate(empty, empty, method="none")


def temperature(label: Films, logit: Films) -> Fit:
    """Return the slope 1 / T of least log-loss, without offset: it cannot undo a shift.

    When every logit has its label's sign, ever steeper is ever better: such a finding is not
    fitted. Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML (2017).
    """
    if lacking := _lacking(label):
        return Fit(note=lacking)
    if not (np.where(label == 1, logit, -logit) < 0).any():
        return Fit(note=RIGHT)
    if _rise(logit, target=label, calibrated=SMALLEST_SLOPE * logit) >= 0:
        return Fit(slope=SMALLEST_SLOPE, note=HELD)
    scale = np.sqrt(np.mean(logit**2))
    (slope,) = _least(logit[:, None] / scale, target=label, given=np.zeros_like(logit))
    return Fit(slope=max(slope / scale, SMALLEST_SLOPE))


def platt(label: Films, logit: Films) -> Fit:
    """Return slope and offset of least log-loss against Platt's smoothed targets.

    With P positives and N negatives the target of a positive film is (P + 1) / (P + 2), of a
    negative one 1 / (N + 2). Without positives, or without negatives, only the offset is fitted,
    so that what balanced training raised comes down again. Where the best slope is not above
    SMALLEST_SLOPE, that slope is taken with the offset that fits it best. Platt, Probabilistic
    Outputs for Support Vector Machines (1999); with Newton's steps on a sum that cannot overflow,
    after Lin, Lin and Weng, Machine Learning 68 (2007), 267-276.
    """
    positives, negatives = (label == 1).sum(), (label == 0).sum()
    if not (positives or negatives):
        return Fit(note=_lacking(label))
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    ones, held = np.ones((len(logit), 1)), SMALLEST_SLOPE * logit
    if lacking := _lacking(label):
        (offset,) = _least(ones, target=target, given=logit)
        return Fit(offset=float(offset), note=f"slope {lacking}")
    (offset,) = _least(ones, target=target, given=held)
    middle, scale = logit.mean(), logit.std()
    if _rise(logit - middle, target=target, calibrated=held + offset) >= 0:
        return Fit(slope=SMALLEST_SLOPE, offset=float(offset), note=HELD)
    standard = np.column_stack([(logit - middle) / scale, ones])
    slope, offset = _least(standard, target=target, given=np.zeros_like(logit)) / (scale, 1)
    return Fit(slope=max(slope, SMALLEST_SLOPE), offset=float(offset - slope * middle))


def isotonic(label: Films, logit: Films) -> Fit:
    """Return a rising curve from logits to calibrated logits; lacking a class, the line of `platt`.

    Films of one logit are pooled; isotonic regression joins neighbours into blocks whose shares
    rise. A block's knot stands at the mean logit of its films. A share s becomes the log odds of
    1 / (N + 2) x (1 - s) + (P + 1) / (P + 2) x s, with P positives and N negatives in all: the
    same regression of Platt's smoothed targets, so that no level is 0 or 1. Films outside the
    curve's ends become equal, all films where logits carry no order: AUC may fall. Zadrozny and
    Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD
    (2002). A curve's mean probability on these films need not be their share of positives, since it
    is straight between logits, not probabilities: it is moved by one number until it is that of
    the smoothed targets.
    """
    if _lacking(label):
        return platt(label, logit)
    level, place, films = np.unique(logit, return_inverse=True, return_counts=True)
    positives = np.bincount(place, weights=label)
    fitted = isotonic_regression(positives / films, weights=films)
    share, block = np.unique(fitted.x, return_inverse=True)
    centre = np.bincount(block, weights=level * films) / np.bincount(block, weights=films)
    low, high = 1 / ((1 - label).sum() + 2), (label.sum() + 1) / (label.sum() + 2)
    to = log_odds(low + (high - low) * share)
    bent, wanted = np.interp(logit, centre, to), low + (high - low) * label.mean()
    moved = root_scalar(lambda by: expit(bent + by).mean() - wanted, bracket=(-FAR, FAR)).root
    knot = np.column_stack([centre, to + moved])
    return Fit(knot=knot, note="" if len(knot) > 1 else LEVEL)


def reliability_table(predictions: Predictions) -> pd.DataFrame:
    """Return the share of positives in every bin of probability, with 95 % intervals over patients.

    A row a finding and bin, then the rows of all cells pooled (micro), in the bins of
    `expected_calibration_error`, of about as many films each; `films` counts those with a label,
    for micro films x findings. The intervals are of `share_interval`, none for fewer than three
    patients, as `note` says. A finding without a label has one bin, whose numbers are NaN. Murphy
    and Winkler, Applied Statistics 26 (1977), 41-47.
    """
    label, probability, patient = predictions.label, predictions.probability, predictions.patient
    columns = [
        *zip(predictions.findings, label.T, probability.T, strict=True),
        (MICRO, label.ravel(), probability.ravel()),
    ]
    owners = {MICRO: np.repeat(patient, len(predictions.findings))}
    rows = [
        (predictions.network, name, *row)
        for name, *pair in columns
        for row in _bins(*pair, owner=owners.get(name, patient))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def brier_parts(predictions: Predictions) -> pd.DataFrame:
    """Return the Brier score of every finding in four parts, and their means over findings (macro).

    brier = reliability - resolution + uncertainty + within, exactly. The first three are those of
    the bins' mean probabilities (Murphy, Journal of Applied Meteorology 12, 1973, 595-600) without
    the bias of small bins, so that a calibrated network's reliability is 0 on average, and may be
    below 0: Ferro and Fricker, Quarterly Journal of the Royal Meteorological Society 138 (2012),
    1954-1960. `within` is what bins hide, the variance of probability within them less twice its
    covariance with the label: Stephenson, Coelho and Jolliffe, Weather and Forecasting 23 (2008),
    752-757. NaN for a finding without a label, which macro leaves out; `note` says so.
    """
    names = predictions.findings
    pairs = zip(predictions.label.T, predictions.probability.T, strict=True)
    parts = np.array([_parts(*pair) for pair in pairs]).reshape(len(names), len(PARTS))
    there = ~np.isnan(parts[:, 0])
    table = pd.DataFrame([*parts, mean_over_findings(parts)], columns=list(PARTS))
    table.insert(0, "network", predictions.network)
    table.insert(1, "finding", [*names, MACRO])
    mean = mean_over(names, there)
    return table.assign(note=[*np.where(there, "", UNLABELLED), mean])


def _check(label: Float32[np.ndarray, "n k"], logit: Float32[np.ndarray, "n2 k2"]) -> None:
    if logit.shape != label.shape:
        raise ValueError(f"logits of shape {logit.shape}; expected {label.shape} as the labels")
    if not np.isfinite(logit).all():
        raise ValueError("a logit is NaN or infinite; expected finite numbers")
    odd = np.unique(label[~np.isin(label, (0, 1)) & ~np.isnan(label)])
    if len(odd):
        raise ValueError(f"a label is {odd[0]}; expected 1, 0 or NaN (not stated)")


def _lacking(label: Films) -> str:
    counts = {"positives": (label == 1).sum(), "negatives": (label == 0).sum()}
    lacking = [name for name, count in counts.items() if not count]
    return f"not fitted: 0 {' and 0 '.join(lacking)} in validation" if lacking else ""


def _rise(logit: Films, *, target: Films, calibrated: Films) -> float:
    """Return the derivative of the mean log-loss by the slope, at these calibrated logits."""
    return float(np.mean((expit(calibrated) - target) * logit))


def _least(
    design: Float64[np.ndarray, "n p"], *, target: Films, given: Films
) -> Float64[np.ndarray, " p"]:
    """Return the coefficients of least mean log-loss of the logits design x coefficients + given.

    The log-loss is convex, so that a trust region of Newton's steps from 0 finds its minimum.
    """

    def loss(at: Float64[np.ndarray, " p"]) -> float:
        calibrated = design @ at + given
        return float(np.mean(np.logaddexp(0, calibrated) - target * calibrated))

    def gradient(at: Float64[np.ndarray, " p"]) -> Float64[np.ndarray, " p"]:
        return (expit(design @ at + given) - target) @ design / len(design)

    def curvature(at: Float64[np.ndarray, " p"]) -> Float64[np.ndarray, "p p"]:
        share = expit(design @ at + given)
        return (design.T * (share * (1 - share))) @ design / len(design)

    newton = {"method": "trust-exact", "options": {"gtol": PRECISION}}
    return minimize(loss, np.zeros(design.shape[1]), jac=gradient, hess=curvature, **newton).x


def _bins(
    label: Float[np.ndarray, " n"], probability: Films, *, owner: Int64[np.ndarray, " n"]
) -> Iterator[tuple[object, ...]]:
    """Yield the row of each bin, from its number on."""
    stated = ~np.isnan(label)
    edges, place = bin_edges(probability[stated]), bin_of(probability, stated=stated)
    low_edge, high_edge = np.append(0.0, edges), np.append(edges, 1.0)
    for b in range(len(low_edge)):
        inside = stated & (place == b)
        films, positives = int(inside.sum()), int((label[inside] == 1).sum())
        mean, share = (
            (float(probability[inside].mean()), positives / films) if films else (np.nan, np.nan)
        )
        low, high = share_interval(label == 1, inside, owner=owner)
        note = UNSEEN if not films else TOO_FEW if np.isnan(low) else ""
        yield b, low_edge[b], high_edge[b], films, positives, mean, share, low, high, note


def _parts(label: Float[np.ndarray, " n"], probability: Films) -> tuple[float, ...]:
    """Return the numbers of PARTS for one finding."""
    stated = ~np.isnan(label)
    if not stated.any():
        return (np.nan,) * len(PARTS)
    truth, predicted = label[stated].astype(np.float64), probability[stated]
    bins = bin_of(predicted, stated=np.ones(len(predicted), dtype=bool))
    _, place, films = np.unique(bins, return_inverse=True, return_counts=True)
    share, mean = (np.bincount(place, weights=one) / films for one in (truth, predicted))
    prevalence, weight = truth.mean(), films / films.sum()
    apart = predicted - mean[place]
    spread = prevalence * (1 - prevalence)
    small = float(weight @ (share * (1 - share) / np.maximum(films - 1, 1)))
    few = spread / max(len(truth) - 1, 1)
    return (
        float(np.mean((predicted - truth) ** 2)),
        float(weight @ (mean - share) ** 2) - small,
        float(weight @ (share - prevalence) ** 2) - small + few,
        float(spread + few),
        float(np.mean(apart**2 - 2 * apart * (truth - share[place]))),
    )


RECALIBRATIONS: dict[str, Callable[..., Fit]] = {
    "none": lambda label, logit: Fit(),
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
}
