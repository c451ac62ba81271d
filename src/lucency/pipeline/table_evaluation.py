"""Tables of predictions evaluated: one network, or several compared on the same films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lucency.config.sections import DRAWS
from lucency.core.files import write_table
from lucency.core.manifest import Manifest
from lucency.core.predictions import Predictions, load_predictions, why_no_predictions
from lucency.core.tables import refuse_label_file, refuse_same_files
from lucency.core.written import RECEIPT, refuse_others, writing_into
from lucency.data.labels import USUAL_COLUMNS, Columns, read_labelled
from lucency.evaluation import external
from lucency.evaluation.compare import OVER_FINDINGS, conclude_comparison
from lucency.evaluation.evaluate import MACRO, evaluate, thresholds_of
from lucency.evaluation.summary import evaluate_networks
from lucency.evaluation.thresholds import threshold_table
from lucency.pipeline.run import command_of, read_kept


def evaluate_tables(
    several: Sequence[Path],
    *,
    labels: Path | None,
    val: Path | None,
    scale: str,
    out: Path | None,
    columns: Columns = USUAL_COLUMNS,
) -> dict[str, object]:
    """Return the evaluation of one network's predictions, or of several with their comparison.

    Each of `several` is as in `compare_tables`; `columns` are as of `read_labelled`; `val` is a
    table of validation films of one table. Thresholds of one network are fitted on its validation
    films, or .5 where it has none. Tables go to `out`, and with `labels` the page too. Raises
    ValueError where a table comes without `labels`, for `val` beside several tables, for a table
    that is named twice, for the label file in place of predictions, and for a scale without tables.
    """
    refuse_same_files(several)
    refuse_label_file([*several, *([val] if val else [])], labels)
    external.refuse_scale(several, scale)
    if len(several) == 1 and several[0].is_file() and several[0].suffix != ".npz":
        if labels is None:
            raise ValueError(
                f"{several[0]} holds no labels: expected --labels FILE, the films' label file"
            )
        films = read_labelled(labels, **columns)
        test, thresholds = external.read_tables(several[0], films=films, val=val, scale=scale)
        return _answer_of([test], thresholds=thresholds, films=films, out=out)
    if val is not None and several[0].exists():
        raise ValueError("--val fits the thresholds of one table: expected one TABLE.csv beside it")
    if lost := [file for file in several if not file.exists()]:
        raise ValueError(why_no_predictions(lost[0]))
    _require_predictions(several)
    alone = list(several)
    if len(several) == 1 and several[0].is_dir():
        alone = list(several[0].glob("predictions/*/predictions.npz"))
    if len(alone) != 1:
        return compare_tables(several, labels=labels, scale=scale, out=out, columns=columns)
    films = None if labels is None else read_labelled(labels, **columns)
    whole = load_predictions(alone[0])
    val_films, test = whole.of("val"), external.named_as(films, whole.of("test"))
    fitted = len(val_films) > 0
    thresholds = (
        threshold_table(val_films, method="f1") if fitted else external.standard_thresholds(test)
    )
    return _answer_of([test], thresholds=thresholds, films=films, out=out)


def _require_predictions(several: Sequence[Path]) -> None:
    """Raise ValueError, with the command that goes on, for a run that has not predicted all yet."""
    for one in (one for one in several if (one / "protocol.toml").is_file()):
        networks = [network.name for network in read_kept(one).network]
        files = {name: _predictions(one, name) for name in networks}
        lost = [name for name, file in files.items() if not file.with_name(RECEIPT).is_file()]
        if networks and lost == networks:
            raise ValueError(f"{one} has no predictions yet: go on with {command_of(one)}")
        if lost:
            raise ValueError(
                f"{one} has no predictions of {lost[0]}: go on with {command_of(one)}, or name the "
                f"files of others, such as {_predictions(one, 'NAME')}"
            )


def _predictions(run: Path, network: str) -> Path:
    return run / "predictions" / network / "predictions.npz"


def compare_tables(
    several: Sequence[Path],
    *,
    labels: Path | None,
    scale: str,
    out: Path | None,
    columns: Columns = USUAL_COLUMNS,
) -> dict[str, object]:
    """Return the networks' ranking, every pair's difference, and the conclusion.

    Each of `several` is a table of predictions (.csv, which needs `labels`), a predictions.npz, or
    a run's folder, all of whose networks take part; test films count. The tables go to `out`, and
    with `labels` the page too. Raises ValueError for fewer than two networks, and for networks
    that were not evaluated on the same films, labels, findings and split.
    """
    films = None if labels is None else read_labelled(labels, **columns)
    entries = external.read_networks(
        several, table=lambda file: external.read_test_table(file, films, scale=scale)
    )
    tests = external.assume_one_split([external.named_as(films, one.of("test")) for one in entries])
    tables = [one.network for one in entries if one.split == external.UNKNOWN_SPLIT]
    thresholds = pd.concat([external.standard_thresholds(one) for one in tests], ignore_index=True)
    return _answer_of(tests, thresholds=thresholds, films=films, out=out, tables=tables)


def _answer_of(
    tests: Sequence[Predictions],
    *,
    thresholds: pd.DataFrame,
    films: Manifest | None,
    out: Path | None,
    tables: Sequence[str] = (),
) -> dict[str, object]:
    """Return one network's metrics by finding, or several networks compared.

    `tables` are the networks that came in tables and were given the split of the others.

    Tables go to `out`, with `films` the page too; without them there are no facts, and so no
    subgroups.
    """
    if len(tests) == 1 and out is None:
        limit = thresholds_of(thresholds, tests[0])
        return metrics_by_finding(evaluate(tests[0], threshold=limit, **DRAWS))
    names = ["metrics"] if len(tests) == 1 else ["metrics", "comparison", "ranking"]
    files = [*(f"{name}.csv" for name in names), *([] if films is None else [PAGE])]
    if out is not None:
        refuse_others(out, files)  # before the work
    facts = pd.DataFrame(index=tests[0].image)
    if films is not None and out is not None:
        facts = films.facts.set_axis(films.image)
    found = evaluate_networks(tests, thresholds=thresholds, facts=facts, **DRAWS)
    if len(tests) == 1:
        answer = metrics_by_finding(found.metrics)
    else:
        answer = compared(found.ranking, found.comparison)
    if out is None:
        return answer
    with writing_into(out, files):
        for name in names:
            write_table(getattr(found, name), out / f"{name}.csv")
        if films is not None:
            from lucency.report.predictions_page import write_external_page  # a library to draw

            write_external_page(tests, evaluation=found, films=films, out=out, tables=tables)
    return {**answer, "tables": out, **({} if films is None else {"report": out / PAGE})}


def metrics_by_finding(metrics: pd.DataFrame) -> dict[str, object]:
    """Return a network's counts of films, and each metric with its interval and note, by finding.

    An interval without width is none.
    """
    answer: dict[str, object] = {"network": metrics["network"].iloc[0]}
    for finding, rows in _with_width(metrics).groupby("finding", sort=False):
        counts = {name: int(rows[name].iloc[0]) for name in ("films", "positives", "patients")}
        scores = rows.set_index("metric").loc[:, ["value", "low", "high", "note"]]
        answer[str(finding)] = {**counts, **scores.to_dict(orient="index")}
    return answer


def compared(ranking: pd.DataFrame, comparison: pd.DataFrame) -> dict[str, object]:
    """Return each network's rank, macro AUC and interval, each pair's difference, a sentence.

    An interval without width is none.
    """
    ranked = _with_width(ranking).set_index("network").rename(columns={"value": "macro_auc"})
    named = _with_width(comparison).assign(pair=comparison["network"] + " - " + comparison["other"])
    pairs: dict[str, object] = {}
    for pair, rows in named.groupby("pair", sort=False):
        found = rows.set_index("finding").loc[:, list(PAIRED)].to_dict(orient="index")
        pairs[str(pair)] = {**found[MACRO], "p_holm_signed_rank": found[OVER_FINDINGS]["p_holm"]}
    return {
        "ranking": ranked.loc[:, list(RANKED)].to_dict(orient="index"),
        "pairs": pairs,
        "conclusion": conclude_comparison(ranking),
    }


def _with_width(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the ends of intervals that have no width."""
    flat = ~(table["low"] < table["high"])
    return table.assign(**{end: table[end].mask(flat) for end in ("low", "high")})


PAGE = "report.html"
PAIRED = ("difference", "low", "high", "p_holm", "note")
RANKED = ("rank", "macro_auc", "low", "high", "tied_with_best", "note")
