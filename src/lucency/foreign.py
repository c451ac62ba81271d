"""Predictions of anybody's network, judged as our own: joined to labels by name, then evaluated.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64
from scipy.special import expit, logit

from lucency.choices import DRAWS
from lucency.data.labels import read_labelled
from lucency.data.scores import Scores, read_scores
from lucency.hearing import write_hearing
from lucency.judge.calibrate import FALLBACK, threshold_table
from lucency.judge.claims import Claim
from lucency.judge.compare import compare
from lucency.judge.evaluate import TRIVIAL, evaluate
from lucency.predictions import Predictions
from lucency.progress import say
from lucency.values import Manifest

Rows = Int64[np.ndarray, " n"]
UNKNOWN_SPLIT = "unknown: predictions of a table"
ALIKE = 0.8  # how like a finding a column must be called to be meant as one
LEAST, MOST = np.finfo(float).tiny, 1 - np.finfo(float).eps / 2  # their logits are finite


def judge_table(
    test: Path, *, labels: Path, val: Path | None, scale: str, out: Path | None
) -> dict[str, object]:
    """Return what the predictions are worth, by finding; table and page go to `out`."""
    films = read_labelled(labels)
    said, thresholds = read_tables(test, films=films, val=val, scale=scale)
    fitted = thresholds["threshold"].to_numpy(dtype=np.float64)
    table = evaluate(said, threshold=fitted, **DRAWS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "metrics.csv", index=False)
        tables = {"metrics": table, "comparison": compare([said], **DRAWS)}
        write_hearing([said], **tables, thresholds=thresholds, films=films, out=out)
    answer: dict[str, object] = {"network": said.network}
    for finding in dict.fromkeys(table["finding"]):
        rows = table.loc[table["finding"] == finding]
        counts = {name: int(rows[name].iloc[0]) for name in ("films", "positives", "patients")}
        bounds = rows.set_index("metric")[["value", "low", "high"]].astype(object)
        scores = bounds.where(bounds.notna(), None).to_dict(orient="index")
        answer[str(finding)] = {**counts, **scores}
    return answer if out is None else {**answer, "report": str(out / "report.html")}


def read_tables(
    test: Path, *, films: Manifest, val: Path | None, scale: str
) -> tuple[Predictions, pd.DataFrame]:
    """Return the predictions of the table `test` and their thresholds, as `threshold_table` does.

    `scale` is a key of SCALES and says what the tables hold. Thresholds are fitted to the table
    `val`, which holds other patients' films; without it they are .5. Raises ValueError when films
    are not labelled, or are in both tables.
    """
    said = predictions_of(test, films=films, scale=scale, part="test")
    if val is None:
        say(f"No validation predictions (--val): thresholds are {FALLBACK} for every finding")
        return said, standard_thresholds(said)
    return said, _fit(val, said, films=films, scale=scale)


def standard_thresholds(said: Predictions) -> pd.DataFrame:
    """Return thresholds of .5, as `threshold_table` returns those that were fitted."""
    return pd.DataFrame(
        {
            "network": said.network,
            "split": said.split,
            "finding": said.findings,
            "threshold": FALLBACK,
            "positives": 0,
            "note": f"not fitted: {FALLBACK} for every finding",
        }
    )


def predictions_of(file: Path, *, films: Manifest, scale: str, part: str) -> Predictions:
    """Return the predictions of a table, joined by image name to the labels of `films`."""
    _check_scale(scale)
    scores, row, label = _joined(file, films)
    return Predictions(
        network=_name_of(file),
        split=UNKNOWN_SPLIT,
        findings=scores.findings,
        image=scores.image,
        patient=films.patient[row],
        part=np.full(len(row), part),
        label=label,
        logit=SCALES[scale](scores, file),
        feature=np.empty((len(row), 0), dtype=np.float32),
    )


def labelled_table(file: Path, films: Manifest | None, *, scale: str) -> Predictions:
    """Return the predictions of a table of test films; ValueError where no labels were named."""
    if films is None:
        raise ValueError(f"{file} holds no labels: expected --labels FILE, the films' label file")
    return predictions_of(file, films=films, scale=scale, part="test")


def check_sides(val: Predictions, test: Predictions, *, name: Path) -> None:
    """Raise ValueError unless a validation table has other patients than the test table's."""
    both = set(val.patient.tolist()) & set(test.patient.tolist())
    if both:
        raise ValueError(
            f"{name}: {len(both):,} patients are in the test table too; expected other patients: "
            "thresholds fitted on test films flatter the test"
        )
    if val.findings != test.findings:
        raise ValueError(
            f"{name} has columns for {', '.join(val.findings)}; expected those of the test table"
        )


def claim_of_table(file: Path, *, labels: Path, scale: str) -> Claim:
    """Return what a table says of its films, numbers as they are: nothing is refused for them."""
    _check_scale(scale)
    films = read_labelled(labels)
    scores, row, label = _joined(file, films)
    return Claim(
        network=_name_of(file),
        findings=scores.findings,
        image=scores.image,
        patient=films.patient[row],
        part=np.full(len(row), "test"),
        label=label,
        probability=expit(scores.score) if scale == "logit" else scores.score,
    )


def _name_of(file: Path) -> str:
    """Return a network's name: its table's, and never that of the trivial predictor."""
    name = file.name.removesuffix(".gz").removesuffix(".csv")
    return f"{name} (table)" if name == TRIVIAL else name


def _joined(file: Path, films: Manifest) -> tuple[Scores, Rows, Float32[np.ndarray, "n k"]]:
    """Return the scores of a table, the row of `films` of each, and its labels."""
    scores = read_scores(file, findings=films.findings)
    row = pd.Index(films.image).get_indexer(pd.Index(scores.image))
    if (row < 0).any():
        raise ValueError(
            f"{file}: {(row < 0).sum():,} of {len(row):,} films are not labelled, such as "
            f"{str(scores.image[row < 0][0])!r}: expected all; leave them out, or name their "
            "label file"
        )
    absent = [name for name in films.findings if name not in scores.findings]
    for name in scores.left_out:
        meant = get_close_matches(name.rpartition("_")[2], absent, n=1, cutoff=ALIKE)
        if meant:
            raise ValueError(f"{file}: column {name!r} is no finding; {meant[0]!r} is: rename it")
    if absent:
        say(f"{file}: no column for {', '.join(absent)}")
    column = [films.findings.index(name) for name in scores.findings]
    return scores, row, films.label[row][:, column]


def _check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r} is unknown; expected {' or '.join(SCALES)}")


def _fit(val: Path, test: Predictions, *, films: Manifest, scale: str) -> pd.DataFrame:
    said = predictions_of(val, films=films, scale=scale, part="val")
    check_sides(said, test, name=val)
    return threshold_table(replace(said, network=test.network), method="f1")


def _from_probability(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    low, high = scores.score.min(initial=0), scores.score.max(initial=0)
    if low < 0 or high > 1:
        raise ValueError(
            f"{file}: scores go from {low:g} to {high:g}, expected probabilities from 0 to 1: "
            "say --scale logit if these are logits"
        )
    return logit(np.clip(scores.score, LEAST, MOST))


def _from_logit(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    if scores.score.min(initial=0) >= 0 and scores.score.max(initial=0) <= 1:
        raise ValueError(
            f"{file}: all scores lie between 0 and 1, expected logits: say --scale probability"
        )
    return scores.score


SCALES = {"probability": _from_probability, "logit": _from_logit}
