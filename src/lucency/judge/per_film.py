"""The metrics of whole films: each over all findings of a film, then the mean over films.

Every function returns one value for each column of weights. A film is judged on the findings whose
label is stated (not NaN); one without any is left out, and a value is NaN where that leaves none.

Letters in shapes: n films, k findings, r columns of weights.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64

from lucency.judge.intervals import Weights
from lucency.judge.metrics import Metric, mean_over_films

Label = Float[np.ndarray, "n k"]  # 1, 0 or NaN
Values = Float64[np.ndarray, " r"]


def label_ranking_loss(
    label: Label, score: Float[np.ndarray, "n k"], *, weights: Weights
) -> Values:
    """Return the share of a film's pairs of present and absent finding that are ordered wrongly.

    A tie is wrong, and a film whose findings are all present, or all absent, has no loss: as
    scikit-learn's `label_ranking_loss`. Tsoumakas, Katakis and Vlahavas, Data Mining and Knowledge
    Discovery Handbook (2010), 667-685.
    """
    present, absent = label == 1, label == 0
    pairs = present.sum(axis=1) * absent.sum(axis=1)
    wrong = np.zeros(len(label))
    # One finding at a time: all pairs at once would hold k numbers a cell.
    for finding in range(label.shape[1]):
        reached = (absent & (score >= score[:, [finding]])).sum(axis=1)
        wrong += present[:, finding] * reached
    loss = wrong / np.maximum(pairs, 1)
    return mean_over_films(np.where(_stated(label), loss, np.nan), weights=weights)


def exact_match(label: Label, decision: Bool[np.ndarray, "n k"], *, weights: Weights) -> Values:
    """Return the share of films of which every finding is called right.

    As scikit-learn's `accuracy_score` of a table: the subset accuracy of Zhu, Ji, Xu and Gong,
    SIGIR (2005), 274-281.
    """
    right = (np.isnan(label) | (decision == label)).all(axis=1)
    return mean_over_films(np.where(_stated(label), right, np.nan), weights=weights)


def _stated(label: Label) -> Bool[np.ndarray, " n"]:
    """Return which films have a stated finding."""
    return np.asarray(~np.isnan(label).all(axis=1))


PER_FILM: dict[str, Metric] = {
    "label_ranking_loss": Metric(
        label_ranking_loss, "logit", (), "lower", "0 to 1",
        "share of a film's pairs of present and absent finding that are ordered wrongly, mean "
        "over films"),
    "exact_match": Metric(
        exact_match, "decision", (), "higher", "0 to 1",
        "share of films of which every finding is called right"),
}  # fmt: skip
