"""Does the audit keep its promise? False alarms and findings of strata, label quality and errors.

Usage: python benchmarks/coverage_audit.py [--sets N] (default 100 simulated data sets a row).
Strata of positives that are of one kind, Gaussian, skewed or heavy-tailed, and of two kinds; labels
half of which are right, on films of patients that are alike; right labels beside readers who hardly
agree; right labels with overlapping classes, and wrong labels among the first of the ranking.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtri

from lucency.audit.agreement import (
    UNRELIABLE,
    agreement,
    between_readers,
    counts_of,
    rate_label_quality,
)
from lucency.audit.label_errors import contradiction, error_score, joint_counts
from lucency.audit.shortcuts import strata
from lucency.core.manifest import Manifest, empty_boxes
from lucency.core.predictions import Predictions
from lucency.data.radiologists import Readings

FILMS, FINDINGS, DIMENSIONS = 1_200, 4, 24
POSITIVE = 0.25
LOADING = np.random.default_rng(7).normal(size=(3, DIMENSIONS))
PREVALENCE = np.array((0.11, 0.025, 0.12, 0.18, 0.05, 0.056, 0.013, 0.047, 0.042, 0.021, 0.022,
                       0.015, 0.03, 0.002))  # fmt: skip
LABELLED, PATIENTS = 60, 20  # films with the label, and whose they are
Row = tuple[str, float, int]
Draw = Callable[[np.random.Generator, int], np.ndarray]
ONE_KIND: dict[str, Draw] = {
    "Gaussian": lambda random, films: random.normal(size=(films, DIMENSIONS)),
    "exponential": lambda random, films: random.exponential(size=(films, DIMENSIONS)),
    "lognormal": lambda random, films: random.lognormal(sigma=0.7, size=(films, DIMENSIONS)),
    "heavy-tailed (t, 3 degrees)": lambda random, films: random.standard_t(
        3, size=(films, DIMENSIONS)
    ),
    "correlated exponential": lambda random, films: (
        random.exponential(size=(films, 3)) @ LOADING + random.normal(size=(films, DIMENSIONS))
    ),
    "correlated lognormal": lambda random, films: np.exp(
        0.3 * random.normal(size=(films, 3)) @ LOADING
        + 0.5 * random.normal(size=(films, DIMENSIONS))
    ),
    "rectified, correlated": lambda random, films: np.maximum(
        random.normal(size=(films, 3)) @ LOADING + random.normal(size=(films, DIMENSIONS)) - 0.5, 0
    ),
}


def rows(sets: int) -> list[Row]:
    """Return what was measured, its share, and in how many data sets."""
    return [*_strata(sets), *_label_quality(sets), *_label_errors(sets)]


def main() -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description="Simulate the audit's false alarms.")
    parser.add_argument("--sets", type=int, default=100)
    table = pd.DataFrame(rows(parser.parse_args().sets), columns=["what", "share", "of"])
    print(table.round(3).to_string(index=False))


def _strata(sets: int) -> list[Row]:
    found = []
    for name, draw in ONE_KIND.items():
        told = np.mean([_any_strata(draw, films=1, seed=seed) for seed in range(sets)])
        found.append((f"strata in any of {FINDINGS} findings of one kind, {name}", told, sets))
    alike = np.mean([_any_strata(ONE_KIND["Gaussian"], films=4, seed=s) for s in range(sets)])
    found.append(("the same, Gaussian, four alike films of a patient", alike, sets))
    for apart in (2.0, 4.0):
        told = np.mean([_any_strata(_two_kinds(apart), films=1, seed=s) for s in range(sets)])
        found.append((f"strata found of two kinds {apart:g} apart in 6 features", told, sets))
    return found


def _two_kinds(apart: float) -> Draw:
    def draw(random: np.random.Generator, films: int) -> np.ndarray:
        feature = random.normal(size=(films, DIMENSIONS))
        feature[: films // 2, 2:8] += apart
        return feature

    return draw


def _any_strata(draw: Draw, *, films: int, seed: int) -> bool:
    """Return whether any finding has strata; a patient has so many films, alike by .7."""
    random = np.random.default_rng([20, seed])
    label = (random.random((FILMS, FINDINGS)) < POSITIVE).astype(np.float32)
    patient = np.arange(FILMS) // films
    feature = draw(random, FILMS)
    if films > 1:
        theirs = draw(random, FILMS // films)[patient]
        feature = np.sqrt(0.7) * theirs + np.sqrt(0.3) * feature
    predictions = _predictions(label, np.zeros(label.shape), patient=patient, feature=feature)
    return len(strata(predictions, seed=seed)) > 0


def _label_quality(sets: int) -> list[Row]:
    half = [
        _is_unreliable(*_half_right(np.random.default_rng([21, s])), seed=s) for s in range(sets)
    ]
    argued = [_is_unreliable(*_hardly_agreed(np.random.default_rng([22, s])), seed=s)
              for s in range(sets)]  # fmt: skip
    return [
        (
            "labels half right, alike films of a patient: rated unreliable",
            float(np.mean(half)),
            sets,
        ),
        ("right labels, readers of kappa about .1: rated unreliable", float(np.mean(argued)), sets),
    ]


def _half_right(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patients, labels and the answers of five readers; a patient's films are alike."""
    patient = np.sort(random.integers(PATIENTS, size=LABELLED))
    there = random.normal(size=PATIENTS)[patient] * np.sqrt(0.7)
    there = there + random.normal(size=LABELLED) * np.sqrt(0.3) > 0
    return patient, np.ones(LABELLED), np.repeat(there[:, None], 5, axis=1)


def _hardly_agreed(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same of right labels, of which a reader confirms a quarter."""
    films = 10 * LABELLED
    label = np.arange(films) < LABELLED
    seen = random.random((films, 5)) < np.where(label, 0.25, 0.05)[:, None]
    return np.arange(films), label, seen


def _is_unreliable(
    patient: np.ndarray, label: np.ndarray, answer: np.ndarray, *, seed: int
) -> bool:
    image = np.arange(len(patient)).astype(str)

    def manifest(one: np.ndarray) -> Manifest:
        return Manifest(
            findings=("a",), image=image, patient=patient, label=one.astype(np.float32)[:, None],
            facts=pd.DataFrame(index=range(len(patient))), boxes=empty_boxes(), origin="simulated",
        )  # fmt: skip

    majority = answer[:, :3].sum(axis=1) > 1
    agreed = agreement(manifest(label), manifest(majority), resamples=300, seed=seed)
    readers = answer.shape[1]
    readings = Readings(
        findings=("a",), image=np.repeat(image, readers), patient=np.repeat(patient, readers),
        reader=np.tile(np.arange(readers), len(image)),
        label=answer.astype(np.float32).reshape(-1, 1),
    )  # fmt: skip
    kappa = between_readers(readings, resamples=2, seed=seed)
    rated = rate_label_quality(counts_of(agreed, kappa), caveats={})
    return rated["rating"].iloc[0] == UNRELIABLE


def _label_errors(sets: int) -> list[Row]:
    counted, found = [], []
    for seed in range(sets):
        random = np.random.default_rng([23, seed])
        truth, score = _scored(random, prevalence=np.full(1, 0.05), apart=np.sqrt(2) * ndtri(0.8))
        joint = joint_counts(truth.astype(np.float32), score)
        counted.append(joint[0, 0, 1] / (~truth).sum())
        apart = np.sqrt(2) * ndtri(random.uniform(0.65, 0.95, size=len(PREVALENCE)))
        truth, score = _scored(random, prevalence=PREVALENCE, apart=apart)
        wrong = random.random(truth.shape) < np.where(truth, 0.15, 0.15 * PREVALENCE)
        label = (truth ^ wrong).astype(np.float32)
        ours = error_score(label, score, joint_counts(label, score))
        found.append([_share(one, wrong) for one in (ours, contradiction(label, score))])
    first = np.mean(found, axis=0).tolist()
    return [
        (
            "right labels of 0, AUC .8, that the joint counts as missing",
            float(np.mean(counted)),
            sets,
        ),
        ("wrong labels among as many first, by the score", first[0], sets),
        ("wrong labels among as many first, by confidence alone", first[1], sets),
    ]


def _scored(
    random: np.random.Generator, *, prevalence: np.ndarray, apart: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is true of films, and its probability given a binormal score."""
    truth = random.random((5_000, len(prevalence))) < prevalence
    evidence = apart * (random.normal(apart * truth) - apart / 2)
    return truth, expit(evidence + logit(prevalence))


def _share(against: np.ndarray, wrong: np.ndarray) -> float:
    first = np.argsort(-against.ravel(), kind="stable")[: wrong.sum()]
    return float(wrong.ravel()[first].mean())


def _predictions(
    label: np.ndarray, score: np.ndarray, *, patient: np.ndarray, feature: np.ndarray
) -> Predictions:
    return Predictions(
        network="simulated", split="", findings=tuple(map(str, range(label.shape[1]))),
        image=np.arange(len(label)).astype(str), patient=patient,
        part=np.full(len(label), "test"), label=label, logit=score,
        feature=feature.astype(np.float32),
    )  # fmt: skip


if __name__ == "__main__":
    main()
