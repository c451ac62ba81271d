"""UnverifiedPredictions: external predictions of test films as they came, before any check.

Letters in shapes: n films, k findings, k1 findings and macro, t listed films, r resamples (the
first: all films).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from scipy.special import expit

from lucency.audit.checks.issue import no_names
from lucency.core.manifest import require
from lucency.core.predictions import Predictions
from lucency.data.labels import read_labelled
from lucency.evaluation.bootstrap import Weights, mean_over_findings, once, resample_patients
from lucency.evaluation.evaluate import COLUMNS
from lucency.evaluation.external import check_scale, join_labels, name_of_table
from lucency.evaluation.metrics import auc

RESAMPLES, SEED = 200, 0


class Fitted(NamedTuple):
    """Something fitted to predictions, such as thresholds: on which part, of which split."""

    what: str
    part: str
    split: str


def no_scores() -> pd.DataFrame:
    """Return an empty table of scores."""
    return pd.DataFrame({name: [] for name in COLUMNS})


@dataclass(frozen=True, kw_only=True, eq=False)
class UnverifiedPredictions:
    """The predictions of a network for the films that are scored as test, not yet checked.

    Numbers may be anything. What is not at hand stays empty: `split`, the fingerprint that the
    predictions carry; `fitted`, what was fitted before scoring; `listed` and `listed_part`, the
    films of the split and their parts; `scores`, a table such as evaluation.evaluate gives.
    """

    network: str
    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    part: Shaped[np.ndarray, " n"]
    label: Float[np.ndarray, "n k"]
    probability: Float[np.ndarray, "n k"]
    split: str = ""
    fitted: tuple[Fitted, ...] = ()
    listed: Shaped[np.ndarray, " t"] = field(default_factory=no_names)
    listed_part: Shaped[np.ndarray, " t"] = field(default_factory=no_names)
    scores: pd.DataFrame = field(default_factory=no_scores)

    def __post_init__(self) -> None:
        shape = (len(self.image), len(self.findings))
        require(self.label.shape == shape, "label", self.label.shape)
        require(self.probability.shape == shape, "probability", self.probability.shape)
        lengths = [len(self.patient), len(self.part)]
        require(lengths == [len(self.image)] * 2, "patient, part", lengths)
        require(len(self.listed) == len(self.listed_part), "listed_part", len(self.listed_part))
        lacking = [name for name in COLUMNS if name not in self.scores]
        require(not lacking, "columns of scores", f"no {', '.join(lacking)}")

    @cached_property
    def whole(self) -> Bool[np.ndarray, " n"]:
        """Which films have a number in every column."""
        return np.asarray(~np.isnan(self.probability).any(axis=1))

    @cached_property
    def resampled(self) -> Weights:
        """Resamples of the patients of these films, the same for every finding and column."""
        return resample_patients(self.patient[self.whole], resamples=RESAMPLES, seed=SEED)

    def sampled_auc(self, finding: int, column: int) -> Float64[np.ndarray, " r"]:
        """Return the AUC of a finding by a column of probabilities: plain, then resampled.

        Films without a number in any column are left out; NaN where no film is left.
        """
        if not self.whole.any():
            return np.full(RESAMPLES + 1, np.nan)
        truth, score = self.label[self.whole, finding], self.probability[self.whole, column]
        both = (once(len(truth)), self.resampled)
        return np.concatenate([auc(truth, score, weights=weights) for weights in both])

    @cached_property
    def area(self) -> Float64[np.ndarray, "k1 r"]:
        """The AUC of every finding and, last, of macro: plain, then in resamples of patients."""
        rows = np.stack([self.sampled_auc(place, place) for place in range(len(self.findings))])
        return np.concatenate([rows, mean_over_findings(rows)[None]])


def unverified(predictions: Predictions) -> UnverifiedPredictions:
    """Return predictions as unverified; `dataclasses.replace` adds what else is known.

    Take `predictions.uncalibrated()` for the range of the network's own probabilities.
    """
    names = ("network", "findings", "image", "patient", "part", "label", "probability", "split")
    return UnverifiedPredictions(**{name: getattr(predictions, name) for name in names})


def unverified_table(file: Path, *, labels: Path, scale: str) -> UnverifiedPredictions:
    """Return the predictions in a table as they are, whatever their numbers."""
    check_scale(scale)
    films = read_labelled(labels)
    scores, row, label = join_labels(file, films)
    return UnverifiedPredictions(
        network=name_of_table(file),
        findings=scores.findings,
        image=scores.image,
        patient=films.patient[row],
        part=np.full(len(row), "test"),
        label=label,
        probability=expit(scores.score) if scale == "logit" else scores.score,
    )
