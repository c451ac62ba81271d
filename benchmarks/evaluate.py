"""How long does the patient bootstrap of all AUCs and average precisions take, beside a plain loop?

Usage: python benchmarks/evaluate.py [NIH] (default ../shared/nih, the label file and the lists).
The labels are those of NIH's official test list (25,596 films, 14 findings), the logits are
invented; 1,000 resamples of patients. The loop is what a notebook does: films of the drawn patients
listed again, then scikit-learn's two functions for each finding. It runs on a few of the very same
resamples, must give the same numbers, and its time is scaled to all of them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from lucency.core.predictions import Predictions
from lucency.data.labels import read_nih, read_official_lists
from lucency.evaluation.bootstrap import Weights, resample_patients
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.metrics import rank_films

ROOT = Path(__file__).resolve().parents[1]
RESAMPLES, LOOPED, ROUNDS = 1000, 5, 3
SEPARATION = 1.2  # of the logits of positive and negative films: AUC about .8


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Time the bootstrap of AUC and average precision.")
    default = ROOT.parent / "shared" / "nih"
    parser.add_argument("nih", nargs="?", type=Path, default=default)
    said = _predictions(parser.parse_args().nih)
    drawn = resample_patients(said.patient, resamples=RESAMPLES, seed=0)
    spent, value = [], np.empty(0)
    for _ in range(ROUNDS):
        started = time.perf_counter()
        value = _ours(said, drawn)
        spent.append(time.perf_counter() - started)
    ours, memory = min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    started = time.perf_counter()
    theirs = _loop(said, drawn)
    loop = (time.perf_counter() - started) * RESAMPLES / LOOPED
    gap = float(np.abs(value[..., :LOOPED] - theirs).max())
    started = time.perf_counter()
    evaluate(said, threshold=np.full(len(said.findings), 0.5), resamples=RESAMPLES, seed=0)
    whole = time.perf_counter() - started
    table = pd.DataFrame(
        [
            ("all AUCs and average precisions", round(ours, 2), 1.0, round(memory, 2)),
            ("a loop over scikit-learn, scaled", round(loop, 1), round(loop / ours, 1), np.nan),
            ("every metric, macro and micro", round(whole, 2), round(whole / ours, 2), np.nan),
        ],
        columns=["what", "seconds", "ratio", "peak_memory_gb"],
    )
    print(f"{len(said):,} films, {len(drawn.times):,} patients, {RESAMPLES:,} resamples")
    print(f"largest difference from scikit-learn over {LOOPED} resamples: {gap:.1e}")
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"evaluate-{cores}-{datetime.date.today()}.csv"
    table.assign(largest_difference=gap).to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _predictions(nih: Path) -> Predictions:
    films = read_nih(nih)
    films = films.take(np.flatnonzero(np.isin(films.image, read_official_lists(nih)[1])))
    noise = np.random.default_rng(0).normal(size=films.label.shape)
    return Predictions(
        network="invented",
        split="official",
        findings=films.findings,
        image=films.image,
        patient=films.patient,
        part=np.full(len(films), "test"),
        label=films.label,
        logit=(noise + SEPARATION * films.label).astype(np.float32),
        feature=np.empty((len(films), 0), dtype=np.float32),
    )


def _ours(said: Predictions, drawn: Weights) -> np.ndarray:
    pairs = list(zip(said.label.T, said.logit.T, strict=True))
    names = ("auc", "average_precision")
    found = [rank_films(*pair, weights=drawn, names=names) for pair in pairs]
    return np.stack([[one[name] for one in found] for name in names])


def _loop(said: Predictions, drawn: Weights) -> np.ndarray:
    """Return the same for the first resamples, as a notebook would compute it."""
    films_of = [np.flatnonzero(drawn.owner == owner) for owner in range(len(drawn.times))]
    scores = np.empty((2, len(said.findings), LOOPED))
    for column in range(LOOPED):
        times = drawn.times[:, column].astype(int)
        rows = np.concatenate(
            [films_of[owner] for owner in np.repeat(np.arange(len(times)), times)]
        )
        for finding in range(len(said.findings)):
            truth, score = said.label[rows, finding], said.logit[rows, finding]
            scores[0, finding, column] = roc_auc_score(truth, score)
            scores[1, finding, column] = average_precision_score(truth, score)
    return scores


if __name__ == "__main__":
    main()
