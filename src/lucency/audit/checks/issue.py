"""What the leak doctor checks, a SplitTable or UnverifiedPredictions, and Issues, that it reports.

Letters in shapes: n rows of a split or films that are scored, k findings, k1 findings and macro,
t, d, u and v listed names, b films with boxes, p pairs of films, r resamples (the first of all).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from scipy.special import expit

from lucency.core.manifest import PARTS, require
from lucency.core.plan import COPY_MARK
from lucency.core.predictions import Predictions
from lucency.core.tables import film_names, refuse_label_file
from lucency.data.labels import USUAL_COLUMNS, Columns, read_labelled
from lucency.evaluation.bootstrap import Weights, all_and_resampled, mean_over_findings
from lucency.evaluation.evaluate import COLUMNS
from lucency.evaluation.external import UNKNOWN_SPLIT, join_labels, share_of_percent
from lucency.evaluation.metrics import auc

RESAMPLES, SEED = 200, 0  # of the patients of unverified predictions
EXAMPLES = 3
Severity = Literal["serious", "note"]


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One thing that is wrong: found with numbers, why it matters, how many, what to do."""

    severity: Severity
    check: str
    message: str
    count: int
    examples: tuple[str, ...]
    remedy: str


def no_names() -> Shaped[np.ndarray, " 0"]:
    """Return an empty list of films."""
    return np.empty(0, dtype=str)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitTable:
    """The part of each film: a row a film, or an entry of a plan, whose copies are named film#copy.

    What is not at hand stays empty: `method` of the protocol's split; `listed`, the films of the
    label table; `dropped`, those that balancing left out; NIH's two lists as they lie on disk;
    `boxed`, films whose boxes are to be scored; `origins` of the manifests in play; `alike`, pairs
    that show one picture (data.duplicates); `named`, patients as their label file names them.
    """

    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    part: Shaped[np.ndarray, " n"]
    method: str = ""
    listed: Shaped[np.ndarray, " t"] = field(default_factory=no_names)
    dropped: Shaped[np.ndarray, " d"] = field(default_factory=no_names)
    official_train_val: Shaped[np.ndarray, " u"] = field(default_factory=no_names)
    official_test: Shaped[np.ndarray, " v"] = field(default_factory=no_names)
    boxed: Shaped[np.ndarray, " b"] = field(default_factory=no_names)
    origins: tuple[str, ...] = ()
    alike: Shaped[np.ndarray, "p 2"] = field(default_factory=lambda: no_names().reshape(0, 2))
    named: Mapping[int, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = [len(self.patient), len(self.part)]
        require(lengths == [len(self.image)] * 2, "patient, part", lengths)
        strange = self.part[~np.isin(self.part, PARTS)]
        require(not len(strange), "part", np.unique(strange))

    @cached_property
    def film(self) -> Shaped[np.ndarray, " n"]:
        """The film behind each row: of a copy, its source."""
        return film_names(self.image)

    @cached_property
    def copy(self) -> Shaped[np.ndarray, " n"]:
        """The copy's number as text, empty for a film itself."""
        return np.array([str(name).partition(COPY_MARK)[2] for name in self.image], dtype=object)


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

    Numbers may be anything, unless they are `own`: of a network that ran here, which gives logits.
    What is not at hand stays empty: `split`, the fingerprint that the predictions carry; `fitted`,
    what was fitted before scoring; `listed` and `listed_part`, the films of the split and their
    parts; `scores`, a table such as evaluation.evaluate gives.
    """

    network: str
    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    part: Shaped[np.ndarray, " n"]
    label: Float[np.ndarray, "n k"]
    probability: Float[np.ndarray, "n k"]
    own: bool = False
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
    def weights(self) -> Weights:
        """All of these films, then resamples of their patients; the same for every AUC."""
        return all_and_resampled(self.patient[self.whole], resamples=RESAMPLES, seed=SEED)

    def sampled_auc(self, finding: int, column: int) -> Float64[np.ndarray, " r"]:
        """Return the AUC of a finding by a column of probabilities: plain, then resampled.

        Films without a number in any column are left out; NaN where no film is left.
        """
        if not self.whole.any():
            return np.full(RESAMPLES + 1, np.nan)
        truth, score = self.label[self.whole, finding], self.probability[self.whole, column]
        return auc(truth, score, weights=self.weights)

    @cached_property
    def area(self) -> Float64[np.ndarray, "k1 r"]:
        """The AUC of every finding and, last, of macro: plain, then in resamples of patients."""
        rows = np.stack([self.sampled_auc(place, place) for place in range(len(self.findings))])
        return np.concatenate([rows, mean_over_findings(rows)[None]])


def unverified(predictions: Predictions) -> UnverifiedPredictions:
    """Return predictions as unverified; `dataclasses.replace` adds what else is known.

    They are `own` unless they came in a table, whose split is unknown. Take
    `predictions.uncalibrated()` for the range of the network's own probabilities.
    """
    names = ("network", "findings", "image", "patient", "part", "label", "probability", "split")
    own = predictions.split != UNKNOWN_SPLIT
    return UnverifiedPredictions(own=own, **{name: getattr(predictions, name) for name in names})


def unverified_table(
    file: Path, *, labels: Path, scale: str, columns: Columns = USUAL_COLUMNS
) -> UnverifiedPredictions:
    """Return the predictions in a table as they are, whatever their numbers."""
    refuse_label_file([file], labels)
    films = read_labelled(labels, **columns)
    scores, about = join_labels(file, films, scale=scale, part="test")
    probability = expit(scores.score) if scale == "logit" else scores.score
    probability = share_of_percent(scores) if scale == "percent" else probability
    return UnverifiedPredictions(**about, probability=probability)


def issues_of(
    check: str,
    found: Sequence[str],
    message: str,
    *,
    remedy: str,
    severity: Severity = "serious",
    count: int = 0,
) -> Iterator[Issue]:
    """Yield one issue about what was found, its first members as examples; nothing of nothing.

    `count` is how many were found, unless given.
    """
    if len(found):
        yield Issue(
            severity=severity,
            check=check,
            message=message,
            count=count or len(found),
            examples=tuple(found[:EXAMPLES]),
            remedy=remedy,
        )


def ranked(issues: Iterable[Issue]) -> list[Issue]:
    """Return the serious issues, then the notes, else in their order."""
    return sorted(issues, key=lambda issue: issue.severity != "serious")


def count_serious(table: pd.DataFrame) -> int:
    """Return how many issues of a table are serious."""
    return int(np.count_nonzero(table["severity"].to_numpy(dtype=str) == "serious"))


def issue_table(issues: Sequence[Issue]) -> pd.DataFrame:
    """Return a row an issue: severity, check, message, count, examples (| between), remedy."""
    rows = [asdict(one) | {"examples": "|".join(one.examples)} for one in issues]
    return pd.DataFrame(rows, columns=[one.name for one in fields(Issue)])
