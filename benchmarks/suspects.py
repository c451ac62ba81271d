"""Are wrong labels found? Ours beside cleanlab's rankings, on the same out-of-fold predictions.

Usage: python benchmarks/suspects.py RUN… (folders of `lucency audit folds protocols/noise.toml`, of
invented films with wrong labels planted; the truth is theirs). Labels of all findings are ranked as
one list, then whole films; precision and recall at budgets. Needs cleanlab.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.multilabel_classification.rank import (
    get_label_quality_scores,
    get_label_quality_scores_per_class,
)
from sklearn.metrics import roc_auc_score

from lucency.audit.chances import chance_wrong
from lucency.audit.suspects import combine_ranks, gather_evidence
from lucency.folds import load_divisions
from lucency.predictions import Predictions, load_predictions

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = (50, 100, 200)
FEWEST = 5  # wrong labels of a finding and direction, for its list to count


def main() -> None:
    """Measure, print the tables and write them to benchmarks/results."""
    if len(sys.argv) < 2:
        raise SystemExit("name folders of lucency audit folds, of invented films")
    tables = []
    for folder in map(Path, sys.argv[1:]):
        for file in sorted(folder.glob("out-of-fold/*/*/predictions.npz")):
            said = load_predictions(file)
            wrong = np.asarray(truth_of(folder, said) != (said.label == 1))
            tables.append(compare(said, wrong, file).assign(run=folder.name, network=said.network))
    table = pd.concat(tables, ignore_index=True).round(3)
    print(table.to_string(index=False))
    table.to_csv(ROOT / "benchmarks" / "results" / "suspects.csv", index=False)


def truth_of(folder: Path, said: Predictions) -> np.ndarray:
    """Return what is truly on each film, n x k."""
    truth = pd.read_csv(folder / "phantom" / "truth.csv").set_index("Image Index")["True Labels"]
    found = truth.str.split("|").loc[said.image.tolist()]
    return np.array([[finding in names for finding in said.findings] for names in found])


def compare(said: Predictions, wrong: np.ndarray, file: Path) -> pd.DataFrame:
    """Return a row a ranking: of labels, of films, within lists of a finding and direction."""
    lists = [np.flatnonzero(row).tolist() for row in said.label]
    given = said.probability
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, adjusted = (
            1 - np.array(get_label_quality_scores_per_class(lists, given, adjust_pred_probs=one))
            for one in (False, True)
        )
        film = 1 - get_label_quality_scores(lists, given)
    chance = chance_wrong(said.label, given)
    evidence = gather_evidence(said, folds=load_divisions(file, said))
    ranks = combine_ranks(said.label, tuple(evidence.values()))
    any_wrong, either = np.asarray(wrong.any(axis=1)), 1 - np.prod(1 - chance, axis=1)
    rows = [
        ("labels", "cleanlab", *scores(plain.ravel(), wrong.ravel())),
        ("labels", "cleanlab, adjusted", *scores(adjusted.ravel(), wrong.ravel())),
        ("labels", "lucency", *scores(chance.ravel(), wrong.ravel())),
        ("films", "cleanlab", *scores(film, any_wrong)),
        ("films", "lucency", *scores(either, any_wrong)),
        ("lists", "cleanlab", *within_lists(plain, said.label, wrong)),
        ("lists", "lucency", *within_lists(ranks, said.label, wrong)),
    ]
    named = [f"{what}_{budget}" for budget in BUDGETS for what in ("precision", "recall")]
    columns = ["what", "ranking", "auc", "wrong", "chance", "precision_all", *named]
    return pd.DataFrame(rows, columns=columns)


def scores(suspicion: np.ndarray, wrong: np.ndarray) -> tuple[float, ...]:
    """Return AUC, how many are wrong, their share, and precision (and recall) at budgets."""
    found = wrong[np.argsort(-suspicion, kind="stable")]
    number = int(wrong.sum())
    at = [each for b in BUDGETS for each in (found[:b].mean(), found[:b].sum() / number)]
    return roc_auc_score(wrong, suspicion), number, wrong.mean(), found[:number].mean(), *at


def within_lists(suspicion: np.ndarray, label: np.ndarray, wrong: np.ndarray) -> tuple[float, ...]:
    """Return the means over lists of a finding and direction; budgets are as many as are wrong."""
    rows = []
    for k in range(label.shape[1]):
        for given in (0, 1):
            films = label[:, k] == given
            if wrong[films, k].sum() >= FEWEST:
                rows.append(scores(suspicion[films, k], wrong[films, k])[:4])
    mean = np.mean(rows, axis=0)
    return (mean[0], int(sum(row[1] for row in rows)), *mean[2:], *[np.nan] * 2 * len(BUDGETS))


if __name__ == "__main__":
    main()
