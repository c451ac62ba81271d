"""Tables of predictions evaluated: one network, or several compared on the same films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.config.sections import DRAWS
from lucency.core.manifest import Manifest
from lucency.core.predictions import Predictions, load_predictions
from lucency.core.tables import plain
from lucency.data.labels import read_labelled
from lucency.evaluation.compare import OVER_FINDINGS, compare, conclude_comparison, rank
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.external import (
    assume_one_split,
    read_networks,
    read_tables,
    read_test_table,
    standard_thresholds,
)
from lucency.evaluation.summary import Evaluation, evaluate_networks, network_metrics
from lucency.evaluation.thresholds import threshold_table
from lucency.report.predictions_page import write_external_page


def evaluate_tables(
    several: Sequence[Path], *, labels: Path | None, val: Path | None, scale: str, out: Path | None
) -> dict[str, object]:
    """Return the evaluation of one network's predictions, or of several with their comparison.

    Each of `several` is as in `compare_tables`; `val` is a table of validation films of one table.
    Raises ValueError where a table comes without `labels`, and for `val` beside several tables.
    """
    if len(several) == 1 and several[0].is_file() and several[0].suffix != ".npz":
        if labels is None:
            raise ValueError(
                f"{several[0]} holds no labels: expected --labels FILE, the films' label file"
            )
        return evaluate_table(several[0], labels=labels, val=val, scale=scale, out=out)
    if val is not None:
        raise ValueError("--val fits the thresholds of one table: expected one TABLE.csv beside it")
    alone = _files_in(several[0]) if len(several) == 1 else []
    if len(alone) == 1:
        return evaluate_file(alone[0], labels=labels, out=out)
    return compare_tables(several, labels=labels, scale=scale, out=out)


def evaluate_table(
    test: Path, *, labels: Path, val: Path | None, scale: str, out: Path | None
) -> dict[str, object]:
    """Return what a table of predictions is worth, by finding; tables and page go to `out`."""
    films = read_labelled(labels)
    predictions, thresholds = read_tables(test, films=films, val=val, scale=scale)
    return _answer_of(predictions, thresholds=thresholds, films=films, out=out)


def evaluate_file(file: Path, *, labels: Path | None, out: Path | None) -> dict[str, object]:
    """Return the evaluation of the test films of a predictions.npz, as `evaluate_table` does.

    Thresholds are fitted on its validation films, or .5 where it has none. The page needs `labels`.
    """
    films = None if labels is None else read_labelled(labels)
    whole = load_predictions(file)
    val, test = whole.of("val"), whole.of("test")
    if films is not None:
        _check_labels(test, films)
    fitted = threshold_table(val, method="f1") if len(val) else standard_thresholds(test)
    return _answer_of(test, thresholds=fitted, films=films, out=out)


def _answer_of(
    predictions: Predictions,
    *,
    thresholds: pd.DataFrame,
    films: Manifest | None,
    out: Path | None,
) -> dict[str, object]:
    """Return one network's metrics by finding; tables go to `out`, with `films` the page too."""
    if out is None:
        metrics = network_metrics([predictions], thresholds=thresholds, **DRAWS)
        return _by_finding(predictions.network, metrics)
    found = _evaluated([predictions], thresholds=thresholds, films=films)
    out.mkdir(parents=True, exist_ok=True)
    found.metrics.to_csv(out / "metrics.csv", index=False)
    answer = _by_finding(predictions.network, found.metrics)
    if films is None:
        return {**answer, "tables": str(out)}
    write_external_page([predictions], evaluation=found, films=films, out=out)
    return {**answer, "report": str(out / "report.html")}


def _by_finding(network: str, metrics: pd.DataFrame) -> dict[str, object]:
    """Return counts of films, and each metric with its interval, by finding."""
    answer: dict[str, object] = {"network": network}
    for finding in dict.fromkeys(metrics["finding"]):
        rows = metrics.loc[metrics["finding"] == finding]
        counts = {name: int(rows[name].iloc[0]) for name in ("films", "positives", "patients")}
        bounds = rows.set_index("metric")[["value", "low", "high"]]
        answer[str(finding)] = {**counts, **plain(bounds.to_dict(orient="index"))}
    return answer


def compare_tables(
    several: Sequence[Path], *, labels: Path | None, scale: str, out: Path | None
) -> dict[str, object]:
    """Return the networks' ranking, every pair's difference, and the conclusion.

    Each of `several` is a table of predictions (.csv, which needs `labels`), a predictions.npz, or
    a run's folder, all of whose networks take part; test films count. The tables go to `out`, and
    with `labels` the page too. Raises ValueError for fewer than two networks, and for networks
    that were not evaluated on the same films, labels, findings and split.
    """
    films = None if labels is None else read_labelled(labels)
    entries = read_networks(several, table=lambda file: read_test_table(file, films, scale=scale))
    tests = assume_one_split([one.of("test") for one in entries])
    if films is not None:
        _check_labels(tests[0], films)
    thresholds = pd.concat([standard_thresholds(one) for one in tests], ignore_index=True)
    if out is None:
        comparison = compare(tests, **DRAWS)
        ranking = rank(network_metrics(tests, thresholds=thresholds, **DRAWS), comparison)
        return _compared(ranking, comparison)
    found = _evaluated(tests, thresholds=thresholds, films=films)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("metrics", "comparison", "ranking"):
        getattr(found, name).to_csv(out / f"{name}.csv", index=False)
    answer = {**_compared(found.ranking, found.comparison), "tables": str(out)}
    if films is None:
        return answer
    write_external_page(tests, evaluation=found, films=films, out=out)
    return {**answer, "report": str(out / "report.html")}


def _compared(ranking: pd.DataFrame, comparison: pd.DataFrame) -> dict[str, object]:
    return {
        "ranking": _ranked(ranking),
        "pairs": _pairs(comparison),
        "conclusion": conclude_comparison(ranking),
    }


def _evaluated(
    tests: Sequence[Predictions], *, thresholds: pd.DataFrame, films: Manifest | None
) -> Evaluation:
    """Return the evaluation; without a label file there are no facts, and so no subgroups."""
    facts = pd.DataFrame(index=tests[0].image)
    if films is not None:
        facts = films.facts.set_axis(films.image)
    return evaluate_networks(tests, thresholds=thresholds, facts=facts, **DRAWS)


def _check_labels(predictions: Predictions, films: Manifest) -> None:
    """Raise ValueError unless the predictions have the labels of `films`."""
    row = pd.Index(films.image).get_indexer(pd.Index(predictions.image))
    known = [films.findings.index(f) if f in films.findings else -1 for f in predictions.findings]
    same = (row >= 0).all() and min(known) >= 0
    if not (same and np.array_equal(films.label[row][:, known], predictions.label, equal_nan=True)):
        raise ValueError(
            f"--labels: {films.origin} does not hold the labels of {predictions.network}; "
            "expected the same label file, with these films and findings"
        )


def _ranked(ranking: pd.DataFrame) -> dict[str, object]:
    """Return each network's rank, macro AUC and interval, and whether it is tied with the best."""
    columns = zip(*(ranking[name].tolist() for name in RANKED), strict=True)
    rows = [dict(zip(RANKED.values(), plain(row), strict=True)) for row in columns]
    return dict(zip(ranking["network"].tolist(), rows, strict=True))


def _pairs(comparison: pd.DataFrame) -> dict[str, object]:
    """Return each pair's macro difference, its interval and its two corrected p values."""
    named = comparison.assign(pair=comparison["network"] + " - " + comparison["other"])
    pairs: dict[str, object] = {}
    for pair, rows in named.groupby("pair", sort=False):
        found = {row["finding"]: row for row in rows.to_dict(orient="records")}
        numbers = {name: found[MACRO][name] for name in PAIRED}
        pairs[str(pair)] = plain({**numbers, "p_holm_signed_rank": found[OVER_FINDINGS]["p_holm"]})
    return pairs


def _files_in(place: Path) -> list[Path]:
    """Return the predictions.npz files of a run's folder, or the file itself."""
    return sorted(place.glob("predictions/*/predictions.npz")) if place.is_dir() else [place]


PAIRED = ("difference", "low", "high", "p_holm")
RANKED = {
    "rank": "rank", "value": "macro_auc", "low": "low", "high": "high",
    "tied_with_best": "tied_with_best",
}  # fmt: skip
