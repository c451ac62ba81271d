"""Coverage of the intervals of heat maps, similar films, labels and readers, simulated.

Usage: python benchmarks/coverage_means.py [--sets N] (default 500 data sets a row). Patients have
four films each that are alike. Boxes hit or missed, scores of similar films, differences of two
methods, shares of labels that experts confirm, kappa among readers, and AUCs of one score for two
label files; each by the function that the program uses, from 10 to 300 patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from lucency.audit.agreement import agreement, between_readers
from lucency.core.manifest import Manifest, empty_boxes
from lucency.data.radiologists import Readings
from lucency.evaluation.bootstrap import all_and_resampled
from lucency.evaluation.intervals import (
    BOOTSTRAPPED,
    FEWEST,
    Bounds,
    bootstrap_interval,
    difference_interval,
    mean_interval,
)
from lucency.evaluation.metrics import auc, mean_over_films

PATIENTS, FILMS = (10, 30, 100, 300), 4  # of a patient
ALIKE = 0.5  # share of the variance that a patient's films share
RESAMPLES = 300
READERS = 3
Row = tuple[str, int, float, float]
Held = tuple[Bounds, float]
Draw = Callable[[np.random.Generator, int], Held]


def rows(sets: int) -> Iterator[Row]:
    """Yield what was measured, patients, the share that holds the truth, and the share given."""
    for name, draw in CASES.items():
        for patients in PATIENTS:
            found = [draw(np.random.default_rng([patients, k]), patients) for k in range(sets)]
            given = [(low, high, truth) for (low, high), truth in found if low == low]
            held = [low <= truth <= high for low, high, truth in given]
            yield name, patients, float(np.mean(held)) if held else np.nan, len(given) / sets


def main() -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description="Simulate the coverage of other intervals.")
    parser.add_argument("--sets", type=int, default=500)
    table = pd.DataFrame(
        rows(parser.parse_args().sets), columns=["what", "patients", "held", "given"]
    )
    print(table.round(3).to_string(index=False))


def _owner(patients: int) -> np.ndarray:
    return np.repeat(np.arange(patients), FILMS)


def _noise(random: np.random.Generator, patients: int) -> np.ndarray:
    """Return standard normal numbers, a film each, that a patient's films share in part."""
    of_patient = random.normal(size=patients)[_owner(patients)]
    return np.sqrt(ALIKE) * of_patient + np.sqrt(1 - ALIKE) * random.normal(size=patients * FILMS)


def _sampled(value: np.ndarray, random: np.random.Generator, patients: int) -> np.ndarray:
    seed = int(random.integers(2**31))
    weights = all_and_resampled(_owner(patients), resamples=RESAMPLES, seed=seed)
    return mean_over_films(value, weights=weights)


def _hits(share: float) -> Draw:
    def draw(random: np.random.Generator, patients: int) -> Held:
        hit = (_noise(random, patients) > -ndtri(share)).astype(np.float64)
        sampled = _sampled(hit, random, patients)
        return mean_interval(sampled, patients=patients, fewest=FEWEST), share

    return draw


def _scores(power: float) -> Draw:
    def draw(random: np.random.Generator, patients: int) -> Held:
        value = ndtr(_noise(random, patients)) ** power
        return mean_interval(_sampled(value, random, patients), patients=patients), 1 / (power + 1)

    return draw


def _apart(random: np.random.Generator, patients: int) -> Held:
    shared = _noise(random, patients)
    one, other = (shared + 0.7 * _noise(random, patients) > at for at in (0.0, 0.4))
    sampled = _sampled(one.astype(np.float64) - other, random, patients)
    truth = 0.5 - ndtr(-0.4 / np.sqrt(1 + 0.7**2))
    return difference_interval(sampled, patients=patients, fewest=FEWEST), float(truth)


def _gain(random: np.random.Generator, patients: int) -> Held:
    value = np.exp(0.5 * _noise(random, patients)) - 1
    truth = np.exp(0.5**2 / 2) - 1
    return bootstrap_interval(_sampled(value, random, patients), patients=patients), float(truth)


def _confirmed(random: np.random.Generator, patients: int) -> Held:
    """Of films a fifth of which are labelled, .4 of these rightly."""
    labelled = _noise(random, patients) > -ndtri(0.2)
    seen = labelled & (_noise(random, patients) > -ndtri(0.4))
    owner = _owner(patients)
    films = [_manifest(one.astype(np.float32)[:, None], owner) for one in (labelled, seen)]
    table = agreement(*films, resamples=2, seed=0).set_index("measure")
    row = table.loc["ppv"]
    return (float(row["low"]), float(row["high"])), 0.4


def _manifest(label: np.ndarray, owner: np.ndarray) -> Manifest:
    image = np.array([f"{film}.png" for film in range(len(owner))])
    return Manifest(
        origin="simulated",
        findings=("a",),
        image=image,
        patient=owner.astype(np.int64),
        label=label,
        facts=pd.DataFrame(index=range(len(owner))),
        boxes=empty_boxes(),
    )


def _readers(share: float, correlation: float) -> Draw:
    at = np.linspace(-8, 8, 4001)
    alone = ndtr((ndtri(share) + np.sqrt(correlation) * at) / np.sqrt(1 - correlation))
    both = (alone**2 * np.exp(-(at**2) / 2)).sum() * (at[1] - at[0]) / np.sqrt(2 * np.pi)
    kappa = float((both - share**2) / (share - share**2))

    def draw(random: np.random.Generator, patients: int) -> Held:
        owner, common = _owner(patients), _noise(random, patients)
        own = random.normal(size=(READERS, len(owner)))
        seen = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own > -ndtri(share)
        films = np.tile(np.arange(len(owner)), READERS)
        readings = Readings(
            findings=("a",),
            image=films.astype(str),
            patient=owner[films],
            reader=np.repeat(np.arange(READERS), len(owner)),
            label=seen.reshape(-1, 1).astype(np.float32),
        )
        seed = int(random.integers(2**31))
        row = between_readers(readings, resamples=RESAMPLES, seed=seed).iloc[0]
        return (float(row["low"]), float(row["high"])), kappa

    return draw


def _versions(random: np.random.Generator, patients: int) -> Held:
    """A score's AUC by labels a tenth of which are wrong, less that by right ones."""
    right = _noise(random, patients) > -ndtri(0.3)
    wrong = random.random(len(right)) < 0.1
    labels = [one.astype(np.float64) for one in (right, right ^ wrong)]
    score, owner = _noise(random, patients) + 1.2 * right, _owner(patients)
    weights = all_and_resampled(owner, resamples=RESAMPLES, seed=int(random.integers(2**31)))
    true, noisy = (auc(label, score, weights=weights) for label in labels)
    rarer = min(len(np.unique(owner[one == kind])) for one in labels for kind in (0, 1))
    ends = difference_interval(noisy - true, patients=rarer, fewest=BOOTSTRAPPED)
    area, flipped = ndtr(1.2 / np.sqrt(2)), 0.1
    ill, well = 0.3 * (1 - flipped), 0.7 * flipped
    positive = ill / (ill + well)
    negative = 0.7 * (1 - flipped) / (0.7 * (1 - flipped) + 0.3 * flipped)
    mixed = positive * negative * area + (1 - positive) * (1 - negative) * (1 - area)
    mixed += (positive * (1 - negative) + (1 - positive) * negative) / 2
    return ends, float(mixed - area)


CASES: dict[str, Draw] = {
    "share of boxes hit, .4": _hits(0.4),
    "share of boxes hit, .9": _hits(0.9),
    "scores from 0 to 1, few high": _scores(6),
    "scores from 0 to 1, few low": _scores(0.3),
    "difference of hits": _apart,
    "gain of a mean, skewed": _gain,
    "share of labels confirmed, .4": _confirmed,
    "kappa of readers, 3 in 10 positive": _readers(0.3, 0.5),
    "kappa of readers, 1 in 10 positive": _readers(0.1, 0.3),
    "AUC by other labels, difference": _versions,
}


if __name__ == "__main__":
    main()
