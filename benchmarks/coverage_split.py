"""Are parts of a split alike, and does the threshold "recall" reach it on new films?

Usage: python benchmarks/coverage_split.py [--sets N] [--nih DIR] (default 50 seeds, ../shared/nih).
Splits are of ChestX-ray14's label file, one a seed; recall is of scores whose truth is known.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.special import logit, ndtr

from lucency.config.sections import Split
from lucency.core.manifest import PARTS, Manifest
from lucency.core.predictions import Predictions
from lucency.data.labels import read_nih
from lucency.data.split import split
from lucency.evaluation.thresholds import RECALL, threshold_table

ROOT = Path(__file__).resolve().parents[1]
NIH = ROOT.parent / "shared" / "nih"
SEVERAL = 20  # films of a patient who has many
POSITIVES, NEGATIVES = (5, 10, 20, 50), 400
SETS_A_SPLIT = 20  # thresholds for every split: these are cheap


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(description="Simulate splits and thresholds.")
    parser.add_argument("--sets", type=int, default=50)
    parser.add_argument("--nih", type=Path, default=NIH)
    choices = parser.parse_args()
    for what, share, number in [
        *part_rows(read_nih(choices.nih), choices.sets),
        *recall_rows(SETS_A_SPLIT * choices.sets),
    ]:
        print(f"{share:8.4f} {number:6d}  {what}")


def rows(sets: int) -> list[tuple[str, float, int]]:
    """Return what was simulated, its share and the number of data sets.

    Splits are of NIH's label file, and left out where it is absent.
    """
    films = part_rows(read_nih(NIH), sets) if NIH.is_dir() else []
    return [*films, *recall_rows(SETS_A_SPLIT * sets)]


def part_rows(films: Manifest, sets: int) -> list[tuple[str, float, int]]:
    """Return shares of films in each part, means over seeds, and the worst share of a finding."""
    _, owner, count = np.unique(films.patient, return_inverse=True, return_counts=True)
    kinds = {
        f"of patients with {SEVERAL} films or more": count[owner] >= SEVERAL,
        "AP": (films.facts["view"] == "AP").to_numpy(),
    }
    positives, worst = (films.label == 1).sum(axis=0), 0.0
    shares = np.zeros((len(PARTS), len(kinds), sets))
    for seed in range(sets):
        choices = Split(seed=seed)
        part = split(films, choices=choices, root=NIH)
        for place, name in enumerate(PARTS):
            rows_of = part == name
            shares[place, :, seed] = [kind[rows_of].mean() for kind in kinds.values()]
            share = (films.label[rows_of] == 1).sum(axis=0) / positives
            worst = max(worst, float(np.abs(share / getattr(choices, name) - 1).max()))
    found = []
    for kind, (what, every) in enumerate(kinds.items()):
        found.append((f"split: films {what}, all", float(every.mean()), 1))
        for name, several in zip(PARTS, shares[:, kind], strict=True):
            error = several.std(ddof=1) / np.sqrt(sets)
            found.append((f"split: films {what}, {name}", float(several.mean()), sets))
            found.append((f"split: films {what}, {name}, standard error", float(error), sets))
    return [*found, ("split: most that a finding's share is off, relative", worst, sets)]


def recall_rows(sets: int) -> list[tuple[str, float, int]]:
    """Return the mean recall on new films of thresholds fitted to a few positive films."""
    found = []
    for positives in POSITIVES:
        reached = [_reached(positives, np.random.default_rng([positives, s])) for s in range(sets)]
        what = f"threshold recall {RECALL}: recall on new films, {positives} positives"
        found.append((what, float(np.mean(reached)), sets))
    return found


def _reached(positives: int, generator: np.random.Generator) -> float:
    """Return the recall on new films, whose scores are normal and a unit above the negatives'."""
    films = positives + NEGATIVES
    label = np.repeat([1, 0], [positives, NEGATIVES])[:, None].astype(np.float32)
    predictions = Predictions(
        network="simulated",
        split="0" * 16,
        findings=("finding",),
        image=np.arange(films).astype(str),
        patient=np.arange(films),
        part=np.full(films, "val"),
        label=label,
        logit=(generator.normal(size=(films, 1)) + label).astype(np.float32),
        feature=np.empty((films, 0), dtype=np.float32),
    )
    threshold = threshold_table(predictions, method="recall")["threshold"].to_numpy(dtype=float)
    return float(ndtr(1 - logit(threshold[0])))


if __name__ == "__main__":
    main()
