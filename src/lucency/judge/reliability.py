"""Whether probabilities are shares: calibration error, the reliability diagram, Brier's parts.

Letters in shapes: n films, k findings, r columns of weights, b bins.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64

from lucency.judge.intervals import (
    Weights,
    interval,
    mean_over_findings,
    ratio,
    resample_patients,
)
from lucency.predictions import Predictions

BINS = 15  # Guo et al. 2017
POOLED, MEAN = "micro", "macro"
UNSEEN, UNLABELLED = "not computable: 0 films", "not computable: 0 films with a label"
COLUMNS = (
    "network", "finding", "bin", "low_edge", "high_edge", "films", "positives", "mean_probability",
    "share", "share_low", "share_high", "note",
)  # fmt: skip
PARTS = ("brier", "reliability", "resolution", "uncertainty", "within")


def expected_calibration_error(
    label: Float[np.ndarray, " n"], probability: Float[np.ndarray, " n"], *, weights: Weights
) -> Float64[np.ndarray, " r"]:
    """Return by how much mean probability misses the share of positives, on average over bins.

    Fifteen bins of equal width, (0, 1/15] to (14/15, 1], and 0 in the first; a bin counts by its
    films. NaN where no film has a label. Naeini, Cooper and Hauskrecht, AAAI (2015); Guo, Pleiss,
    Sun and Weinberger, ICML (2017), equation 3, here of the finding's probability.
    """
    stated = ~np.isnan(label)
    wide = probability.astype(np.float64)
    gap = np.where(stated, wide - label, 0)
    place = _place(wide)
    # One bin at a time: all at once would hold 15 numbers a film.
    missed = [weights.total(np.where(place == b, gap, 0)[None]) for b in range(BINS)]
    error = np.abs(np.concatenate(missed)).sum(axis=0)
    return ratio(error, weights.total(stated[None].astype(np.float64))[0])


def reliability_table(predictions: Predictions, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return the share of positives in every bin of probability, with 95 % intervals over patients.

    A row a finding and bin, then the rows of all cells pooled (micro), in the bins of
    `expected_calibration_error`; `films` counts those with a label, for micro films x findings.
    Mean probability and share are NaN in a bin without films, and `note` says so, as it says in
    how many resamples a bin was empty. Where all films of a bin are positive, or none is, no
    resample can differ and the interval has no width. Murphy and Winkler, Applied Statistics 26
    (1977), 41-47.
    """
    drawn = resample_patients(predictions.patient, resamples=resamples, seed=seed)
    owner = np.repeat(drawn.owner, len(predictions.findings))
    rows = []
    for finding, label, probability in _columns(predictions):
        mine = drawn if finding != POOLED else Weights(owner=owner, times=drawn.times)
        bins = _bins(label, probability, weights=mine)
        rows += [(predictions.network, finding, *row) for row in bins]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def brier_parts(predictions: Predictions) -> pd.DataFrame:
    """Return the Brier score of every finding in four parts, and their means over findings (macro).

    brier = reliability - resolution + uncertainty + within, exactly. The first three are those of
    the bins' mean probabilities: Murphy, Journal of Applied Meteorology 12 (1973), 595-600.
    `within` is what bins hide, the variance of probability within them less twice its covariance
    with the label: Stephenson, Coelho and Jolliffe, Weather and Forecasting 23 (2008), 752-757. NaN
    for a finding without a label, which macro leaves out; `note` says so.
    """
    names = predictions.findings
    pairs = zip(predictions.label.T, predictions.probability.T, strict=True)
    parts = np.array([_parts(*pair) for pair in pairs]).reshape(len(names), len(PARTS))
    there = ~np.isnan(parts[:, 0])
    table = pd.DataFrame([*parts, mean_over_findings(parts)], columns=list(PARTS))
    table.insert(0, "network", predictions.network)
    table.insert(1, "finding", [*names, MEAN])
    mean = f"mean over {there.sum()} of {len(names)} findings"
    return table.assign(note=[*np.where(there, "", UNLABELLED), mean])


def _place(probability: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    return np.searchsorted(np.arange(1, BINS) / BINS, probability)


def _columns(
    predictions: Predictions,
) -> Iterator[tuple[str, Float[np.ndarray, " n"], Float64[np.ndarray, " n"]]]:
    """Yield label and probability of each finding, then of all cells, a film's side by side."""
    label, probability = predictions.label, predictions.probability
    yield from zip(predictions.findings, label.T, probability.T, strict=True)
    yield POOLED, label.ravel(), probability.ravel()


def _bins(
    label: Float[np.ndarray, " n"], probability: Float64[np.ndarray, " n"], *, weights: Weights
) -> Iterator[tuple[object, ...]]:
    """Yield the row of each bin, from its number on."""
    stated, positive = np.flatnonzero(~np.isnan(label)), np.flatnonzero(label == 1)
    place, edge = _place(probability), np.arange(BINS + 1) / BINS
    films, positives = (np.bincount(place[rows], minlength=BINS) for rows in (stated, positive))
    total = np.bincount(place[stated], weights=probability[stated], minlength=BINS)
    mean, share = ratio(total, films), ratio(positives, films)
    found, all_films = (
        weights.histogram(rows, place=place[rows], bins=BINS) @ weights.times
        for rows in (positive, stated)
    )
    sampled = ratio(found, all_films)
    low, high = interval(sampled)
    for b in range(BINS):
        lost, count = int((all_films[b] == 0).sum()), sampled.shape[1]
        missing = f"empty in {lost} of {count} resamples, left out of the interval" if lost else ""
        note = missing if films[b] else UNSEEN
        counts = (int(films[b]), int(positives[b]))
        yield b, edge[b], edge[b + 1], *counts, mean[b], share[b], low[b], high[b], note


def _parts(
    label: Float[np.ndarray, " n"], probability: Float64[np.ndarray, " n"]
) -> tuple[float, ...]:
    """Return the numbers of PARTS for one finding."""
    stated = ~np.isnan(label)
    if not stated.any():
        return (np.nan,) * len(PARTS)
    truth, said = label[stated].astype(np.float64), probability[stated]
    _, place, films = np.unique(_place(said), return_inverse=True, return_counts=True)
    share, mean = (np.bincount(place, weights=one) / films for one in (truth, said))
    prevalence, weight = truth.mean(), films / films.sum()
    apart = said - mean[place]
    return (
        float(np.mean((said - truth) ** 2)),
        float(weight @ (mean - share) ** 2),
        float(weight @ (share - prevalence) ** 2),
        float(prevalence * (1 - prevalence)),
        float(np.mean(apart**2 - 2 * apart * (truth - share[place]))),
    )
