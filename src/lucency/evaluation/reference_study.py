"""The reference study: its published numbers beside what its networks reach here.

"Research on Chest X-Rays" (2025), notebooks at github.com/rahulogoel/Research-on-Chest-X-rays.
Films were dropped and copied before a random split by film, so its test films are balanced, and
copies of one film and films of one patient stand on both sides. It counts as Keras does:
`binary_accuracy`, `Precision`, `Recall` and `F1Score(average="micro", threshold=0.5)` take the
sigmoid as it comes, call positive what is above .5, and pool every film x finding; `AUC` pools too,
over 200 thresholds, and is the area over all here. Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import MICRO, all_and_resampled, interval
from lucency.evaluation.leakage_inflation import COLUMNS
from lucency.evaluation.metrics import DECIDED, METRICS, count_cells

HALF_METRICS = ("auc", "accuracy", "precision", "recall", "f1", "bce")
HALF_COLUMNS = ("network", "finding", "metric", "value", "low", "high", "films", "note")
SOURCE = "Research on Chest X-Rays (2025), its notebooks"
TEST_FILMS = 7_708  # of 51,382 entries after balancing, copies among them
NOTHING = 0.90095  # accuracy there of the baseline that calls no finding positive
NONE = np.nan  # its F1 is of the finding with the highest probability, which is no F1 of ours
PUBLISHED = (  # network as protocols name it, what it was, and HALF_METRICS
    ("densenet121", "lr 1e-4, batch 64, 20 epochs", .8421, .9109, .5519, .5147, NONE, .3046),
    ("densenet121-fast", "lr 1e-3, batch 64, 50 epochs", .7786, .8913, .4520, .4825, NONE, .5768),
    ("densenet121-long", "lr 1e-4, batch 64, 50 epochs", .8207, .9108, .5510, .5154, NONE, .4023),
    ("mobilenetv2", "all layers, lr 1e-4, batch 64, 20 epochs", .7691, .8920, .4341, .3522, NONE,
     .3779),
    ("mobilenetv2-frozen", "frozen, lr 1e-3, batch 64, 50 epochs", .7940, .9066, .6224, .2011,
     NONE, .2701),
    ("alexnet-reference", "lr 1e-4, batch 128, 20 epochs, split 60:20:20", NONE, .8865, .2968,
     .0813, NONE, .3582),
)  # fmt: skip
BESIDE = (
    "network", "metric", "published", "claimed", "claimed_low", "claimed_high", "reached",
    "reached_low", "reached_high", "as_published",
)  # fmt: skip
UNKNOWN = (np.nan,) * 3
UNPUBLISHED = "no notebook of it was published"
NO_ROW = (UNPUBLISHED, *[np.nan] * len(HALF_METRICS))
TEXT = ("network", "metric", "finding", "as_published")


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyComparison:
    """Two tables, each empty where nothing was set apart or no published study is named.

    `inflation` is of evaluation.leakage_inflation, on patients set apart; `study` of
    evaluation.reference_study. `conclusion` is a sentence on the first.
    """

    inflation: pd.DataFrame
    study: pd.DataFrame
    conclusion: str

    def __bool__(self) -> bool:
        return bool(len(self.inflation) or len(self.study))


def compare_with_study(
    own: Sequence[Predictions], untouched: Sequence[Predictions], *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return a row a network and metric: published, on own test films, and on untouched films.

    Everything is pooled over findings and decided at .5, as `at_half` does and Keras did.
    `untouched` are the same networks on patients set apart, none where there are none. What was
    not published, or not tried, is NaN.
    """
    apart = {one.network: one for one in untouched}
    rows = []
    for one in own:
        about, *scores = next((row[1:] for row in PUBLISHED if row[0] == one.network), NO_ROW)
        both = [
            at_half(side, resamples=resamples, seed=seed).set_index("metric")
            for side in (one, *([apart[one.network]] if apart else []))
        ]
        for metric, score in zip(HALF_METRICS, scores, strict=True):
            found = [side.loc[metric, ["value", "low", "high"]].tolist() for side in both]
            mine, other = (*found, UNKNOWN)[:2]
            rows.append((one.network, metric, score, *mine, *other, about))
    return pd.DataFrame(rows, columns=list(BESIDE))


def at_half(predictions: Predictions, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return HALF_METRICS pooled over findings, before recalibration, with 95 % intervals.

    `bce` is Keras's loss. Intervals resample patients. A value that cannot be computed is NaN, and
    the note says so; raises ValueError for no films.
    """
    if not len(predictions):
        raise ValueError(f"{predictions.network}: no films; expected those of one part")
    plain = predictions.uncalibrated()
    drawn = all_and_resampled(plain.patient, resamples=resamples, seed=seed)
    pooled = drawn.of_cells(len(plain.findings))
    label, logit = plain.label.ravel(), plain.logit.ravel()
    cells = count_cells(label, logit > 0, weights=pooled)
    rows = []
    for name in HALF_METRICS:
        if name in DECIDED:
            value = DECIDED[name](cells)
        else:
            value = METRICS[name].function(label, logit, weights=pooled)
        low, high = interval(value[1:])
        note = "not computable from these labels and decisions" if np.isnan(value[0]) else ""
        rows.append((plain.network, MICRO, name, value[0], low, high, len(plain), note))
    return pd.DataFrame(rows, columns=list(HALF_COLUMNS))


def no_comparison() -> StudyComparison:
    """Return two empty tables."""
    tables = {"inflation": pd.DataFrame(columns=list(COLUMNS))}
    return StudyComparison(**tables, study=pd.DataFrame(columns=list(BESIDE)), conclusion="")


def save_comparison(comparison: StudyComparison, folder: Path) -> None:
    """Write inflation.csv, study.csv and conclusion.txt."""
    for name in ("inflation", "study"):
        getattr(comparison, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "conclusion.txt").write_text(comparison.conclusion + "\n", encoding="utf-8")


def load_comparison(folder: Path) -> StudyComparison:
    """Read what `save_comparison` wrote; empty tables where there is no such folder."""
    if not folder.is_dir():
        return no_comparison()
    names = ("inflation", "study")
    tables = {name: read_table(folder / f"{name}.csv", text=TEXT) for name in names}
    return StudyComparison(**tables, conclusion=(folder / "conclusion.txt").read_text().strip())
