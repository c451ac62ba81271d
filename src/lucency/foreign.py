"""Predictions of anybody's network, judged as our own: joined to labels by name, then evaluated.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.special import logit

from lucency.choices import Judging
from lucency.data.labels import read_labelled
from lucency.data.scores import Scores, read_scores
from lucency.judge.calibrate import FALLBACK, threshold_table
from lucency.judge.evaluate import evaluate
from lucency.predictions import Predictions
from lucency.progress import say
from lucency.values import Manifest

CERTAIN = 1e-12  # how near to 0 and 1 a probability is kept, so that its logit is finite


def judge_table(
    test: Path, *, labels: Path, val: Path | None, scale: str, out: Path | None
) -> dict[str, object]:
    """Return what the predictions are worth, by finding; the table goes to metrics.csv in `out`."""
    draws = {"resamples": Judging().resamples, "seed": Judging().seed}
    table = evaluate_tables(test, labels=labels, val=val, scale=scale, **draws)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "metrics.csv", index=False)
    answer: dict[str, object] = {"network": str(table["network"].iloc[0])}
    for finding in dict.fromkeys(table["finding"]):
        rows = table.loc[table["finding"] == finding]
        counts = {name: int(rows[name].iloc[0]) for name in ("films", "positives", "patients")}
        bounds = rows.set_index("metric")[["value", "low", "high"]].astype(object)
        scores = bounds.where(bounds.notna(), None).to_dict(orient="index")
        answer[str(finding)] = {**counts, **scores}
    return answer


def evaluate_tables(
    test: Path, *, labels: Path, val: Path | None, scale: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Return every metric of the predictions in the table `test`, with intervals over patients.

    `scale` is a key of SCALES and says what the table holds. Thresholds are fitted to the table
    `val`, which holds other patients' films; without it they are .5, and every metric that needs
    one says so in its note. Raises ValueError when films are not labelled, or are in both tables.
    """
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r} is unknown; expected {' or '.join(SCALES)}")
    films = read_labelled(labels)
    said = predictions_of(test, films=films, scale=scale, part="test")
    if val is None:
        fitted = np.full(len(said.findings), FALLBACK)
        say(f"No validation predictions (--val): thresholds are {FALLBACK} for every finding")
    else:
        fitted = _fit(val, said, films=films, scale=scale)
    return evaluate(said, threshold=fitted, resamples=resamples, seed=seed)


def predictions_of(file: Path, *, films: Manifest, scale: str, part: str) -> Predictions:
    """Return the predictions of a table, joined by image name to the labels of `films`."""
    scores = read_scores(file, findings=films.findings)
    row = pd.Index(films.image).get_indexer(pd.Index(scores.image))
    if (row < 0).any():
        raise ValueError(
            f"{file}: {(row < 0).sum():,} of {len(row):,} films are not labelled, such as "
            f"{str(scores.image[row < 0][0])!r}: expected all; leave them out, or name their "
            "label file"
        )
    absent = [name for name in films.findings if name not in scores.findings]
    if absent:
        say(f"{file}: no column for {', '.join(absent)}")
    column = [films.findings.index(name) for name in scores.findings]
    return Predictions(
        network=file.name.partition(".")[0],
        split="unknown: predictions of a table",
        findings=scores.findings,
        image=scores.image,
        patient=films.patient[row],
        part=np.full(len(row), part),
        label=films.label[row][:, column],
        logit=SCALES[scale](scores, file),
        feature=np.empty((len(row), 0), dtype=np.float32),
    )


def _fit(val: Path, test: Predictions, *, films: Manifest, scale: str) -> Float64[np.ndarray, " k"]:
    said = predictions_of(val, films=films, scale=scale, part="val")
    both = set(said.patient.tolist()) & set(test.patient.tolist())
    if both:
        raise ValueError(
            f"{val}: {len(both):,} patients are in the test table too; expected other patients: "
            "thresholds fitted on test films flatter the test"
        )
    if said.findings != test.findings:
        raise ValueError(
            f"{val} has columns for {', '.join(said.findings)}; expected those of the test table"
        )
    return threshold_table(said, method="f1")["threshold"].to_numpy(dtype=np.float64)


def _from_probability(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    low, high = scores.score.min(initial=0), scores.score.max(initial=0)
    if low < 0 or high > 1:
        raise ValueError(
            f"{file}: scores go from {low:g} to {high:g}, expected probabilities from 0 to 1: "
            "say --scale logit if these are logits"
        )
    return logit(np.clip(scores.score, CERTAIN, 1 - CERTAIN))


def _from_logit(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    if scores.score.min(initial=0) >= 0 and scores.score.max(initial=0) <= 1:
        raise ValueError(
            f"{file}: all scores lie between 0 and 1, expected logits: say --scale probability"
        )
    return scores.score


SCALES = {"probability": _from_probability, "logit": _from_logit}
