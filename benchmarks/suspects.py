"""Are wrong labels found? Ours beside cleanlab's rankings, on the same out-of-fold predictions.

Usage: python benchmarks/suspects.py [RUN …] (default runs/noise-10 runs/noise-20)
Folders of `lucency study cross-validation protocols/noise.toml`: phantoms with planted errors; the
truth is theirs, and nothing of the ranking was chosen on them. Labels of all findings are ranked as
one list, then whole films; precision and recall at budgets, as a table and as a figure of labels in
dev/suspects.png. Needs cleanlab.
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
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from lucency.audit.label_errors import (
    error_score,
    film_score,
    gather_evidence,
    joint_counts,
    mean_rank,
    nearest_others,
)
from lucency.core.predictions import Predictions, load_predictions, load_repeats

ROOT = Path(__file__).resolve().parents[1]
RUNS = ("noise-10", "noise-20")
BUDGETS = (50, 100, 200)
STYLES = (
    {"color": "#0072b2", "linewidth": 2},
    {"color": "#d55e00", "linestyle": "--"},
    {"color": "#e69f00", "linestyle": "-."},
)
FEWEST = 5  # wrong labels of a finding and direction, for its list to count


def main() -> None:
    """Measure, print the tables and write them to benchmarks/results."""
    runs = [Path(name) for name in sys.argv[1:]] or [ROOT / "runs" / name for name in RUNS]
    if lacking := [run for run in runs if not run.is_dir()]:
        print(f"not measured: {lacking[0]} is missing; `lucency study cross-validation` makes it")
        return
    tables, curves = [], {}
    for folder in runs:
        for file in sorted(folder.glob("out-of-fold/*/*/predictions.npz")):
            predicted = load_predictions(file)
            wrong = np.asarray(truth_of(folder, predicted) != (predicted.label == 1))
            tables.append(
                compare(predicted, wrong, file).assign(run=folder.name, network=predicted.network)
            )
            curves[folder.name] = budgets_of(predicted, wrong)
    table = pd.concat(tables, ignore_index=True).round(3)
    print(table.to_string(index=False))
    table.to_csv(ROOT / "benchmarks" / "results" / "suspects.csv", index=False)
    draw(curves, ROOT / "dev" / "suspects.png")


def truth_of(folder: Path, predicted: Predictions) -> np.ndarray:
    """Return what is truly on each film, n x k."""
    truth = pd.read_csv(folder / "phantom" / "truth.csv").set_index("Image Index")["True Labels"]
    found = truth.str.split("|").loc[predicted.image.tolist()]
    return np.array([[finding in names for finding in predicted.findings] for names in found])


def compare(predicted: Predictions, wrong: np.ndarray, file: Path) -> pd.DataFrame:
    """Return a row a ranking: of labels, of films, within lists of a finding and direction."""
    lists, given = lists_of(predicted), predicted.probability
    plain, adjusted = cleanlab_of(predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        film = 1 - get_label_quality_scores(lists, given)
    score = error_score(predicted.label, given, joint_counts(predicted.label, given))
    near = nearest_others(predicted.feature, patient=predicted.patient)
    evidence = gather_evidence(predicted, folds=load_repeats(file, predicted), near=near)
    ranks = mean_rank(predicted.label, tuple(evidence.values()))
    any_wrong = np.asarray(wrong.any(axis=1))
    rows = [
        ("labels", "cleanlab", *scores(plain.ravel(), wrong.ravel())),
        ("labels", "cleanlab, adjusted", *scores(adjusted.ravel(), wrong.ravel())),
        ("labels", "lucency", *scores(score.ravel(), wrong.ravel())),
        ("films", "cleanlab", *scores(film, any_wrong)),
        ("films", "lucency", *scores(film_score(score), any_wrong)),
        ("lists", "cleanlab", *within_lists(plain, predicted.label, wrong)),
        ("lists", "lucency", *within_lists(ranks, predicted.label, wrong)),
    ]
    named = [f"{what}_{budget}" for budget in BUDGETS for what in ("precision", "recall")]
    columns = ["what", "ranking", "auc", "wrong", "chance", "precision_all", *named]
    return pd.DataFrame(rows, columns=columns)


def lists_of(predicted: Predictions) -> list[list[int]]:
    """Return the labels as cleanlab wants them: a list of findings a film."""
    return [np.flatnonzero(row).tolist() for row in predicted.label]


def cleanlab_of(predicted: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return cleanlab's suspicion of each label, n x k, plain and adjusted."""
    lists = lists_of(predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, adjusted = (
            1
            - get_label_quality_scores_per_class(
                lists, predicted.probability, adjust_pred_probs=one
            )
            for one in (False, True)
        )
    return plain, adjusted


def budgets_of(predicted: Predictions, wrong: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each ranking of labels whether the 1st, 2nd, … suspect is wrong."""
    plain, adjusted = cleanlab_of(predicted)
    rankings = {
        "lucency": error_score(
            predicted.label,
            predicted.probability,
            joint_counts(predicted.label, predicted.probability),
        ),
        "cleanlab, adjusted": adjusted,
        "cleanlab": plain,
    }
    orders = {name: np.argsort(-one.ravel(), kind="stable") for name, one in rankings.items()}
    return {name: wrong.ravel()[order] for name, order in orders.items()}


def draw(curves: dict[str, dict[str, np.ndarray]], file: Path) -> None:
    """Draw precision and recall of each run against how many labels are reviewed."""
    figure = Figure(figsize=(9, 3.1 * len(curves)), layout="constrained")
    rows = figure.subplots(len(curves), 2, squeeze=False, sharex="row")
    for (run, rankings), (left, right) in zip(curves.items(), rows, strict=True):
        number, labels = int(rankings["lucency"].sum()), rankings["lucency"].size
        shown = np.arange(1, 2 * number + 1)
        for style, (name, found) in zip(STYLES, rankings.items(), strict=True):
            hits = np.cumsum(found)[: 2 * number]
            left.plot(shown[9:], (hits / shown)[9:], label=name, **style)
            right.plot(shown, hits / number, label=name, **style)
        left.axhline(number / labels, color="grey", linestyle=":", label="at random")
        right.plot(shown, shown / labels, color="grey", linestyle=":", label="at random")
        left.set(ylabel="precision", title=f"{run}: {number} of {labels:,} labels are wrong")
        right.set(ylabel="recall", ylim=(0, None))
        for axes in (left, right):
            axes.axvline(number, color="black", linewidth=0.6)
            axes.set_xlabel("labels reviewed; the line: as many as are wrong")
        left.legend(frameon=False)
    figure.savefig(file, dpi=110)


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
