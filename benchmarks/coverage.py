"""Do intervals hold the truth, and do tests call equal networks equal? Simulated, by metric.

Usage: python benchmarks/coverage.py [--sets N] [--jobs N] (default 400 data sets of each size, 60
of the largest; one process). Films have the 14 prevalences of ChestX-ray14 and scores of two normal
distributions, so that every truth is known: AUCs of .62 to .97, calibrated probabilities,
thresholds at the best F1. Patients have several films that are alike, in labels and scores. Written
are a table of every metric and size, for findings, macro and micro, with the share of data sets in
which an interval was given, and a table of tests; both in Markdown too. What follows from rules of
other modules is simulated by coverage_ablation.py, coverage_audit.py and coverage_split.py.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import once
from lucency.evaluation.compare import compare, rank
from lucency.evaluation.evaluate import Inputs, evaluate, metric_inputs
from lucency.evaluation.metrics import METRICS, PER_FILM, measure

ROOT = Path(__file__).resolve().parents[1]
SIZES = {236: 60, 1_000: 250, 3_000: 750, 25_596: 2_797}  # films, patients
LARGEST, FEWER = 25_596, 0.5  # of the data sets
RESAMPLES = 300
ALIKE = 0.5  # share of the variance that a patient's films share
PREVALENCE = np.array([0.11, 0.025, 0.12, 0.18, 0.05, 0.056, 0.013, 0.047, 0.042, 0.021, 0.022,
                       0.015, 0.03, 0.002])  # fmt: skip
AREA = np.linspace(0.62, 0.97, 14)[np.random.default_rng(5).permutation(14)]
APART = np.sqrt(2) * ndtri(AREA)
FINDINGS = tuple(f"finding {k}" for k in range(14))
POOLED = 200_000  # films from which the truth of all cells, and of whole films, is taken
GRID = np.linspace(-9, 13, 220_001)
STEP = GRID[1] - GRID[0]
LEAST_GIVEN = 0.02  # of the data sets, below which a coverage is not shown
PLANTED, REPEATS = 0.02, 20  # of macro AUC


def main() -> None:
    """Simulate, print the tables and write them to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Simulate coverage and false alarms.")
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    with ProcessPoolExecutor(chosen.jobs) as pool:
        rows, tests = [], []
        for films in SIZES:
            sets = max(2, round(chosen.sets * (FEWER if films == LARGEST else 1)))
            parts = pool.map(partial(_one_set, films), range(sets), chunksize=1)
            table = pd.concat(list(parts))
            rows.append(table.assign(size=films))
            pairs = pool.map(partial(_one_pair, films), range(sets), chunksize=1)
            tests.append(pd.concat(list(pairs)).assign(size=films))
            print(f"{films:,} films: {sets} data sets", flush=True)
        found = sum(pool.map(_found, range(REPEATS)))
    intervals, tested = _summary(pd.concat(rows)), _false_alarms(pd.concat(tests))
    print(intervals.to_string(), tested.to_string(), sep="\n")
    print(f"a difference of {PLANTED} on {LARGEST:,} films is found in {found} of {REPEATS}")
    cores = f"{platform.machine()}-{os.cpu_count()}core-{datetime.date.today()}"
    folder = ROOT / "benchmarks" / "results"
    for name, table in (("intervals", intervals), ("tests", tested)):
        table.to_csv(folder / f"coverage-{name}-{cores}.csv")
    text = markdown(intervals, tested)
    (folder / f"coverage-{cores}.md").write_text(text, encoding="utf-8")
    print(text, f"written to benchmarks/results/coverage-*-{cores}.*", sep="\n")


def markdown(intervals: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Return both tables for docs/evaluation.md: coverage, and false alarms; a column a size."""
    heads = " | ".join(f"{films:,}" for films in SIZES)
    lines = [f"| metric | of | {heads} |", f"|---|---|{'---|' * len(SIZES)}"]
    for metric, place in intervals.index:
        row = intervals.loc[(metric, place)]
        cells = [_cell(row[("held", films)], row[("given", films)]) for films in SIZES]
        lines.append(f"| `{metric}` | {place} | {' | '.join(cells)} |")
    lines += ["", f"| test of a difference | {heads} |", f"|---|{'---|' * len(SIZES)}"]
    for place in tested.index:
        cells = [_cell(tested.loc[place, ("significant", films)], 1.0) for films in SIZES]
        lines.append(f"| {place} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(share: float, given: float) -> str:
    """Return a share, and of how many data sets where not of all; too few are not shown."""
    if given < LEAST_GIVEN or share != share:
        return "not given"
    part = "" if given > 0.995 else f" ({100 * given:.0f} %)"
    return f"{share:.3f}".removeprefix("0") + part


def true_values(prevalence: float, apart: float, threshold: float) -> dict[str, float]:
    """Return every metric's true value of a finding whose positives score `apart` higher."""
    positive, negative = _normal(GRID - apart), _normal(GRID)
    above = ndtr(apart - GRID), ndtr(-GRID)
    share = prevalence * above[0] / (prevalence * above[0] + (1 - prevalence) * above[1] + 1e-300)
    cut, corner = -ndtri(0.1), 0.1**2 / 2
    area = (negative * above[0])[cut <= GRID].sum() * STEP
    tp = prevalence * ndtr(apart - threshold)
    fp = (1 - prevalence) * ndtr(-threshold)
    fn, tn = prevalence - tp, 1 - prevalence - fp
    odds = apart * GRID - apart**2 / 2 + logit(prevalence)
    classes = prevalence * positive * STEP, (1 - prevalence) * negative * STEP
    recall, specificity = tp / prevalence, tn / (1 - prevalence)
    root = np.sqrt((tp + fp) * prevalence * (1 - prevalence) * (tn + fn))
    return {
        "auc": float(ndtr(apart / np.sqrt(2))),
        "average_precision": float((positive * share).sum() * STEP),
        "partial_auc": (1 + (area - corner) / (0.1 - corner)) / 2,
        "recall_at_specificity": float(ndtr(apart - cut)),
        "specificity_at_recall": float(ndtr(apart - ndtri(0.9))),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": recall,
        "specificity": specificity,
        "npv": tn / (tn + fn),
        "mcc": (tp * tn - fp * fn) / root,
        "accuracy": tp + tn,
        "balanced_accuracy": (recall + specificity) / 2,
        "bce": classes[0] @ np.logaddexp(0, -odds) + classes[1] @ np.logaddexp(0, odds),
        "brier": classes[0] @ (1 - expit(odds)) ** 2 + classes[1] @ expit(odds) ** 2,
        "ece": 0.0,
    }


def _normal(at: np.ndarray) -> np.ndarray:
    return np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)


def _best_threshold(prevalence: float, apart: float) -> float:
    """Return the score at which F1 is highest."""
    at = np.linspace(-2, 6, 801)
    tp, fp = prevalence * ndtr(apart - at), (1 - prevalence) * ndtr(-at)
    return float(at[np.argmax(2 * tp / (tp + fp + prevalence))])


THRESHOLD = np.array([_best_threshold(*pair) for pair in zip(PREVALENCE, APART, strict=True)])
DECIDED = expit(APART * THRESHOLD - APART**2 / 2 + logit(PREVALENCE))
TRUE = pd.DataFrame(
    [true_values(*one) for one in zip(PREVALENCE, APART, THRESHOLD, strict=True)], index=FINDINGS
)


def _draw(films: int, patients: int, generator: np.random.Generator, networks: int = 1) -> list[
    Predictions
]:  # fmt: skip
    """Return networks' predictions of the same films; they share half of their noise."""
    owner = np.sort(generator.integers(patients, size=films))

    def noise() -> np.ndarray:
        of_patient = generator.normal(size=(patients, 14))[owner]
        return np.sqrt(ALIKE) * of_patient + np.sqrt(1 - ALIKE) * generator.normal(size=(films, 14))

    label = (noise() > ndtri(1 - PREVALENCE)).astype(np.float32)
    shared = noise()
    made = []
    for number in range(networks):
        own = shared if networks == 1 else np.sqrt(0.5) * (shared + noise())
        score = own + APART * label
        made.append(
            Predictions(
                network=f"net{number}",
                split="simulated",
                findings=FINDINGS,
                image=np.arange(films).astype(str),
                patient=owner,
                part=np.full(films, "test"),
                label=label,
                logit=APART * score - APART**2 / 2 + logit(PREVALENCE),
                feature=np.empty((films, 0), dtype=np.float32),
            )
        )
    return made


def _pooled_truth() -> dict[str, float]:
    """Return the metrics of all cells and of whole films, from very many films."""
    (films,) = _draw(POOLED, POOLED, np.random.default_rng([0, 0]))
    decision = films.probability >= DECIDED
    given = metric_inputs(films, decision)
    cells: Inputs = {name: one.ravel() for name, one in given.items()}
    found = measure(films.label.ravel(), cells, weights=once(films.label.size))
    true = {name: float(value[0]) for name, value in found.items()} | {"ece": 0.0}
    for name, metric in PER_FILM.items():
        value = metric.function(films.label, given[metric.takes], weights=once(POOLED))
        true[name] = float(value[0])
    return true


def _one_set(films: int, seed: int) -> pd.DataFrame:
    """Return for every metric and place of one data set: given or not, and whether it held."""
    (predictions,) = _draw(films, SIZES[films], np.random.default_rng([1, films, seed]))
    table = evaluate(predictions, threshold=DECIDED, resamples=RESAMPLES, seed=seed)
    table = table.set_index(["metric", "finding"])
    rows = []
    for name in METRICS:
        each = table.loc[name].loc[list(FINDINGS)]
        known = each["value"].notna().to_numpy()
        truths = [*TRUE[name], TRUE[name].to_numpy()[known].mean(), _pooled()[name]]
        lines = [
            *each.to_dict("records"),
            *(table.loc[(name, place)].to_dict() for place in ("macro", "micro")),
        ]
        places = [*["finding"] * 14, "macro", "micro"]
        rows += [
            (name, place, *_held(*one)) for place, *one in zip(places, lines, truths, strict=True)
        ]
    for name in PER_FILM:
        row = table.loc[(name, "per film")].to_dict()
        rows.append((name, "per film", *_held(row, _pooled()[name])))
    return pd.DataFrame(rows, columns=["metric", "place", "given", "held", "above"])


_POOLED: dict[str, float] = {}


def _pooled() -> dict[str, float]:
    if not _POOLED:
        _POOLED.update(_pooled_truth())
    return _POOLED


def _held(row: Mapping[Any, Any], truth: float) -> tuple[bool, bool, bool]:
    """Return whether an interval is given, whether it holds the truth, and whether it is above."""
    low, high = float(row["low"]), float(row["high"])
    return low == low, low <= truth <= high, low > truth


def _summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return coverage among the intervals that are given, and their share, by metric and size."""
    return _by_size(rows, ["metric", "place"], ["held", "above"])


def _by_size(rows: pd.DataFrame, keys: list[str], counted: list[str]) -> pd.DataFrame:
    """Return shares of the data sets: given, and among these the counted; a column a size."""
    among = rows.assign(**{name: rows[name].where(rows["given"]).astype(float) for name in counted})
    shares = {"values": ["given", *counted], "aggfunc": "mean", "sort": False}
    return among.pivot_table(index=keys, columns="size", **shares).round(3)


def _one_pair(films: int, seed: int) -> pd.DataFrame:
    """Return which tests of two networks that differ by their noise alone are significant."""
    several = _draw(films, SIZES[films], np.random.default_rng([2, films, seed]), networks=2)
    table = compare(several, resamples=RESAMPLES, seed=seed)
    place = table["finding"].where(table["finding"].isin(["macro", "over findings"]), "finding")
    p, bare = table["p"].astype(float), (table["low"] > 0) | (table["high"] < 0)
    columns = {"place": place, "given": p.notna(), "significant": p < 0.05, "interval": bare}
    return pd.DataFrame(columns)


def _false_alarms(rows: pd.DataFrame) -> pd.DataFrame:
    return _by_size(rows, ["place"], ["significant", "interval"])


def _found(seed: int) -> bool:
    """Return whether a planted difference in macro AUC is found on as many films as NIH's test."""

    def gained(gain: float) -> float:
        return float(ndtr(gain * APART / np.sqrt(2)).mean() - AREA.mean() - PLANTED)

    gain = float(np.asarray(brentq(gained, 1, 3)))
    several = _draw(LARGEST, SIZES[LARGEST], np.random.default_rng([3, seed]), networks=2)
    label, better = several[0].label, (gain - 1) * APART**2
    object.__setattr__(several[0], "logit", several[0].logit + better * label)
    half, draws = np.full(14, 0.5), {"resamples": RESAMPLES, "seed": seed}
    metrics = pd.concat([evaluate(one, threshold=half, resamples=20, seed=0) for one in several])
    return rank(metrics, compare(several, **draws))["rank"].tolist() == [1, 2]


if __name__ == "__main__":
    main()
