"""Ablations, leakage inflation and subgroups of simulated films on which nothing differs.

Usage: python benchmarks/coverage_ablation.py [--sets N] (default 400 simulated data sets a row).
Every claim of a difference is then false, and every interval should hold 0.

An ablation compares four variants with the base: all five are the same recipe in truth, and differ
by what is drawn for a film and a recipe, for a training (a seed), and for a film and a training.
Three mixtures of these: *films* (what a recipe makes of the films decides), *trainings* (skill
differs from seed to seed), *both*. The rule before, percentiles over resampled patients and seeds
without a correction, stands beside for comparison.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import chi2, t

from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap
from lucency.evaluation.ablation_effects import mean_over_seeds
from lucency.evaluation.bootstrap import with_macro
from lucency.evaluation.leakage_inflation import inflate
from lucency.evaluation.metrics import by_finding
from lucency.evaluation.significance import LEVEL, holm
from lucency.evaluation.subgroups import subgroups, worst_group

FILMS, PATIENTS, RESAMPLES = 1_000, 250, 200
PREVALENCE = (0.2, 0.12, 0.1, 0.06, 0.05)
NORMAL = 2_000  # variances over seeds that are drawn, evenly by their probability
VARIANTS, SEEDS = 4, (1, 2, 3, 5)
MIXTURES = {  # standard deviation of a patient and recipe, of a training's skill, of a film and it
    "films": (0.9, 0.0, 0.2), "trainings": (0.1, 0.3, 0.3), "both": (0.5, 0.15, 0.4),
}  # fmt: skip
OFFICIAL = (0.11, 0.025, 0.12, 0.18, 0.05, 0.056, 0.013, 0.047, 0.042, 0.021, 0.022, 0.015, 0.03,
            0.002)  # fmt: skip
LEAK_FREE = (300, 1_500)  # films of a network's own test part, and of patients set apart
Row = tuple[str, float, int]


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(description="Simulate false claims of ablations and gaps.")
    parser.add_argument("--sets", type=int, default=400)
    table = pd.DataFrame(rows(parser.parse_args().sets), columns=["what", "share", "of"])
    print(table.to_string(index=False))


def rows(sets: int) -> list[Row]:
    """Return what was counted, its share, and of how many."""
    return [*rules(), *ablations(sets), *inflations(sets), *groups(sets)]


def rules() -> list[Row]:
    """Return the lowest and highest coverage of three rules for a mean over seeds of normal scores.

    Over shares of the patients' part of the variance from 0 to 1, that part being known: Student's
    t on the whole variance; t with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946,
    110-114); and that of `mean_over_seeds`. The number is that of drawn variances over seeds.
    """
    found = []
    for seeds in SEEDS[1:]:
        freedom, covered = seeds - 1, {}
        drawn = chi2.ppf((np.arange(NORMAL) + 0.5) / NORMAL, freedom) / freedom
        for patients in np.linspace(0, 1, 21):
            part = (1 - patients) * drawn
            whole = patients + part
            degrees = np.where(part > 0, whole**2 * freedom / np.maximum(part, 1e-9) ** 2, 1e9)
            halves = {
                "t on the whole": t.ppf(0.975, freedom) * np.sqrt(whole),
                "Satterthwaite": t.ppf(0.975, np.minimum(degrees, 1e9)) * np.sqrt(whole),
                "Behrens-Fisher": _behrens_fisher(patients, part, seeds),
            }
            for name, half in halves.items():
                covered.setdefault(name, []).append(float(np.mean(1 - 2 * ndtr(-half))))
        found += [
            (f"rule for {seeds} seeds, {name}: {word} coverage", of(shares), NORMAL)
            for name, shares in covered.items()
            for word, of in (("lowest", min), ("highest", max))
        ]
    return found


def _behrens_fisher(patients: float, part: np.ndarray, seeds: int) -> np.ndarray:
    """Return half the interval of `mean_over_seeds` for parts of the variance, a column each."""
    scale = np.sqrt(part * seeds)  # of scores whose mean has such a variance over seeds
    unit = np.linspace(-1, 1, seeds)
    score = scale * (unit / unit.std(ddof=1))[:, None]
    pair = np.sqrt(patients / 2) * np.array([1.0, -1.0])  # two resamples with variance `patients`
    found = mean_over_seeds(score, score[:, :, None] + pair)
    return (found.high - found.low) / 2


def ablations(sets: int) -> list[Row]:
    """Count false claims and intervals that hold 0, by mixture and number of seeds."""
    found = []
    for name, mixture in MIXTURES.items():
        for seeds in SEEDS:
            count = Counter[str]()
            for number in range(sets):
                count.update(_ablation(mixture, seeds, [3, number]))
            where = f"ablation, {seeds} seeds, noise of {name}"
            found += [
                (f"{where}: {what}", times / of, of)
                for what, of in _of(sets).items()
                for times in [count[what]]
                if seeds > 1 or what != "interval holds 0"
            ]
    return found


def _of(sets: int) -> dict[str, int]:
    """Return what is counted, and of how many."""
    each = dict.fromkeys(("interval holds 0", "false claims", "before: false claims"), 4 * sets)
    return {**each, **dict.fromkeys(("any false claim", "before: any false claim"), sets)}


def _ablation(mixture: tuple[float, float, float], seeds: int, number: list[int]) -> Counter[str]:
    """Return what is claimed of four variants that do not differ from the base."""
    plain, drawn = _areas(mixture, seeds, np.random.default_rng(number))
    chosen = bootstrap.resample_repeats(seeds, resamples=RESAMPLES, seed=0)
    found, before = [], []
    for k in range(1, VARIANTS + 1):
        apart, sampled = plain[k] - plain[0], drawn[k] - drawn[0]
        found.append(mean_over_seeds(apart[:, None], sampled[:, None]))
        low, high = bootstrap.interval(np.einsum("sr,sr->r", sampled, chosen))
        before.append(bool(low > 0 or high < 0))
    claimed = holm(np.array([one.p[0] for one in found])) < LEVEL
    return Counter({
        "interval holds 0": sum(bool(one.low[0] <= 0 <= one.high[0]) for one in found),
        "false claims": int(claimed.sum()), "any false claim": int(claimed.any()),
        "before: false claims": sum(before), "before: any false claim": int(any(before)),
    })  # fmt: skip


def _areas(
    mixture: tuple[float, float, float], seeds: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return macro AUC by recipe and seed, on all films and (by resample) on resampled patients."""
    patient = np.sort(generator.integers(PATIENTS, size=FILMS))
    label = (generator.random((FILMS, len(PREVALENCE))) < PREVALENCE).astype(np.float32)
    recipe, skill, training = mixture
    draws = bootstrap.resample_patients(patient, resamples=RESAMPLES, seed=0)
    common = 1.2 * label + generator.normal(size=label.shape)
    plain, drawn = [], []
    for _ in range(VARIANTS + 1):
        mine = common + recipe * generator.normal(size=(PATIENTS, label.shape[1]))[patient]
        for _ in range(seeds):
            gain = skill * generator.normal() * label
            score = mine + gain + training * generator.normal(size=label.shape)
            for kept, weights in ((plain, bootstrap.once(FILMS)), (drawn, draws)):
                kept.append(with_macro(by_finding("auc", label, score, weights=weights))[-1])
    shape = (VARIANTS + 1, seeds)
    return np.reshape(plain, shape), np.reshape(drawn, (*shape, RESAMPLES))


def inflations(sets: int) -> list[Row]:
    """Count inflations whose interval excludes 0 between films that no network was trained on."""
    above, below, names = Counter[str](), Counter[str](), list[str]()
    for number in range(sets):
        own, apart = (
            _equal(films, [4, number, films], first=k * 10_000) for k, films in enumerate(LEAK_FREE)
        )
        nobody, fixed = np.empty(0, dtype=np.int64), np.array(OFFICIAL) * 2
        table = inflate(own, apart, seen=nobody, threshold=fixed, resamples=RESAMPLES, seed=number)
        names = (table["metric"] + ", " + table["finding"]).tolist()
        above.update(np.array(names)[(table["low"] > 0).to_numpy()].tolist())
        below.update(np.array(names)[(table["high"] < 0).to_numpy()].tolist())
    return [
        (f"inflation without a leak, {name}: called {word} 0", count[name] / sets, sets)
        for name in names
        for word, count in (("above", above), ("below", below))
    ]


def _equal(films: int, number: list[int], *, first: int = 0) -> Predictions:
    """Return what one calibrated network predicts of new films, two films a patient."""
    generator = np.random.default_rng(number)
    label = (generator.random((films, len(OFFICIAL))) < OFFICIAL).astype(np.float32)
    score = generator.normal(size=label.shape) + 1.5 * label
    return Predictions(
        network="net",
        split="simulated",
        findings=tuple(f"finding{k}" for k in range(label.shape[1])),
        image=np.array([f"{first + film}.png" for film in range(films)]),
        patient=first + np.arange(films) // 2,
        part=np.full(films, "test"),
        label=label,
        # The log odds of a label, given a score that is normal with means 0 and 1.5.
        logit=1.5 * score - 1.5**2 / 2 + np.log(np.divide(OFFICIAL, 1 - np.array(OFFICIAL))),
        feature=np.empty((films, 0), dtype=np.float32),
    )


def groups(sets: int) -> list[Row]:
    """Count data sets in which a group is named the worst though none is."""
    named = 0
    for number in range(sets):
        films = _equal(3_000, [5, number])
        table = subgroups(films, facts=_facts(films, number), resamples=RESAMPLES, seed=number)
        named += worst_group(table).startswith("Largest gap")
    return [("subgroups: a worst group is named and there is none", named / sets, sets)]


def _facts(films: Predictions, number: int) -> pd.DataFrame:
    """Return views, sexes, ages and visits that have nothing to do with the films."""
    generator = np.random.default_rng([6, number])
    whose = np.unique(films.patient, return_inverse=True)[1]
    sex = generator.choice(["F", "M"], size=whose.max() + 1)[whose]
    age = generator.integers(5, 90, size=whose.max() + 1)[whose]
    return pd.DataFrame({
        "image": films.image, "view": generator.choice(["AP", "PA"], size=len(films)), "sex": sex,
        "age": age, "follow_up": np.arange(len(films)) % 2,
    })  # fmt: skip


if __name__ == "__main__":
    main()
