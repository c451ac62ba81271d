"""Do intervals cover the truth, are equal networks called equal, and is a difference found?

Usage: python benchmarks/coverage.py [--sets N] (default 1000 simulated data sets).
Scores are binormal, so that the true AUC is known: Phi(d / sqrt 2) for a separation d. First with
films that are independent, then with patients who have several alike films: what is constant of a
patient moves label and score together. Then two networks that see the same signal through noise of
their own, and two whose macro AUCs differ by .02.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import interval, resample_patients
from lucency.evaluation.compare import compare, rank
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.metrics import auc
from lucency.evaluation.significance import delong

ROOT = Path(__file__).resolve().parents[1]
FILMS, PATIENTS, RESAMPLES = 1_000, 200, 300
SEPARATION = 1.0
ALIKE = 0.7  # share of a score's variance that a patient's films share
OFFICIAL = 25_596
PREVALENCE = (0.11, 0.025, 0.12, 0.18, 0.05, 0.056, 0.013, 0.047, 0.042, 0.021, 0.022, 0.015, 0.03,
              0.002)  # fmt: skip
TWINS = (2_000, 8_000)  # films; 2,000 have four of the rarest finding
PLANTED = 0.02  # of macro AUC
REPEATS = 20


def main() -> None:
    """Simulate, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Simulate coverage and comparisons.")
    parser.add_argument("--sets", type=int, default=1_000)
    sets = parser.parse_args().sets
    rows = [
        *_independent(sets),
        *_correlated(sets),
        *(_twins(sets // 2, films=films) for films in TWINS),
        _planted(),
    ]
    table = pd.DataFrame(rows, columns=["what", "share", "of"])
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"coverage-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _independent(sets: int) -> list[tuple[str, float, int]]:
    """Count how often intervals hold the true AUC where every film is its own patient's."""
    truth, owner, held = float(ndtr(SEPARATION / np.sqrt(2))), np.arange(FILMS), np.zeros(2)
    for seed in range(sets):
        generator = np.random.default_rng([0, seed])
        label = (generator.random(FILMS) < 0.2).astype(np.float32)
        score = generator.normal(size=FILMS) + SEPARATION * label
        bounds = _bounds(label, score, owner, seed), _delong_interval(label, score, owner=owner)
        held += [low <= truth <= high for low, high in bounds]
    names = ("independent films: bootstrap", "independent films: DeLong")
    return [(name, share / sets, sets) for name, share in zip(names, held.tolist(), strict=True)]


def _correlated(sets: int) -> list[tuple[str, float, int]]:
    """Count the same where films of a patient are alike; the truth is that of new patients."""
    truth, held = float(ndtr(SEPARATION / np.sqrt(2))), np.zeros(4)
    for seed in range(sets):
        generator = np.random.default_rng([1, seed])
        owner = np.sort(generator.integers(PATIENTS, size=FILMS))
        ill = generator.random(PATIENTS) < 0.3
        label = ill[owner].astype(np.float32)
        of_patient, of_film = generator.normal(size=PATIENTS), generator.normal(size=FILMS)
        noise = np.sqrt(ALIKE) * of_patient[owner] + np.sqrt(1 - ALIKE) * of_film
        score, single = noise + SEPARATION * label, np.arange(FILMS)
        bounds = (
            _bounds(label, score, owner, seed),
            _delong_interval(label, score, owner=owner),
            _bounds(label, score, single, seed),
            _delong_interval(label, score, owner=single),
        )
        held += [low <= truth <= high for low, high in bounds]
    names = ("bootstrap of patients", "DeLong, patients as clusters", "bootstrap of films",
             "DeLong, films as if independent")  # fmt: skip
    pairs = zip(names, held.tolist(), strict=True)
    return [(f"alike films of a patient: {name}", share / sets, sets) for name, share in pairs]


def _delong_interval(
    label: np.ndarray, score: np.ndarray, *, owner: np.ndarray
) -> tuple[float, float]:
    """Return the 95 % interval of the AUC, symmetric on the logit scale (Pepe 2003, chapter 5)."""
    area, error = delong(label, score, owner=owner)
    half = ndtri(0.975) * error / (area * (1 - area))
    return float(expit(logit(area) - half)), float(expit(logit(area) + half))


def _twins(sets: int, *, films: int) -> tuple[str, float, int]:
    """Count how often two networks that differ by their noise alone share the first rank."""
    shared = 0
    for seed in range(sets):
        several = _networks(films, gains=(1.0, 1.0), seed=seed, owners=films // 4)
        shared += int(_ranks(several) == [1, 1])
    return f"networks that differ by seed alone, equal on {films:,} films", shared / sets, sets


def _planted() -> tuple[str, float, int]:
    """Count how often a planted difference in macro AUC is found on as many films as NIH's test."""
    better = float(np.asarray(brentq(lambda gain: ndtr(gain / 2) - ndtr(0.5) - PLANTED, 1, 2)))
    found = 0
    for seed in range(REPEATS):
        several = _networks(OFFICIAL, gains=(better, 1.0), seed=seed, owners=2_797)
        found += int(_ranks(several) == [1, 2])
    return f"a difference of {PLANTED} in macro AUC is found", found / REPEATS, REPEATS


def _networks(
    films: int, *, gains: tuple[float, float], seed: int, owners: int
) -> list[Predictions]:
    """Return two networks that see half of the noise together and the other half each alone.

    The noise has variance 2, so that a gain g makes an AUC of Phi(g / 2).
    """
    generator = np.random.default_rng([2, seed])
    label = (generator.random((films, len(PREVALENCE))) < PREVALENCE).astype(np.float32)
    common = generator.normal(size=label.shape)
    return [
        Predictions(
            network=f"net{number}",
            split="simulated",
            findings=tuple(f"finding{k}" for k in range(label.shape[1])),
            image=np.arange(films).astype(str),
            patient=np.arange(films) % owners,
            part=np.full(films, "test"),
            label=label,
            logit=common + generator.normal(size=label.shape) + gain * label,
            feature=np.empty((films, 0), dtype=np.float32),
        )
        for number, gain in enumerate(gains)
    ]


def _ranks(several: list[Predictions]) -> list[int]:
    half, draws = np.full(len(PREVALENCE), 0.5), {"resamples": RESAMPLES, "seed": 0}
    metrics = [evaluate(one, threshold=half, resamples=20, seed=0) for one in several]
    ranking = rank(pd.concat(metrics), compare(several, **draws))
    return ranking["rank"].to_numpy(dtype=np.int64).tolist()


def _bounds(label: np.ndarray, score: np.ndarray, owner: np.ndarray, seed: int) -> np.ndarray:
    drawn = resample_patients(owner, resamples=RESAMPLES, seed=seed)
    return interval(auc(label, score, weights=drawn))


if __name__ == "__main__":
    main()
