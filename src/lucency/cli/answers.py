"""Answers of commands and audits, printed: in words for people, as JSON for programs."""

from __future__ import annotations

import json as text_of
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lucency.core.progress import printable

if TYPE_CHECKING:
    import pandas as pd

    from lucency.core.tables import Answer, Audit

OUTPUT = "standard output"
LINES = 30  # of a table on a terminal
SHOWN_METRICS = {
    "auc": "AUC", "average_precision": "average precision", "f1": "F1", "precision": "precision",
    "recall": "recall", "accuracy": "accuracy",
}  # fmt: skip
NONE = "no interval: "  # before the reason, in a note
FEW = re.compile(r"patients with (.*) \d+, expected (\d+) or more")
LEFT_OUT = ("note", "wilson_low", "wilson_high")  # of the terminal


def print_answer(
    answer: Answer, json: bool, *, words: Callable[[Answer], str] | None = None
) -> None:
    """Write an answer to standard output, as JSON or in words, by default those of `in_words`."""
    write_out(in_json(answer) if json else (words or in_words)(plain(answer)))


def write_out(text: str) -> None:
    """Write lines to standard output, as they are; on a terminal so that no name commands it."""
    if sys.stdout.isatty():
        text = "\n".join(map(printable, text.split("\n")))
    text = text.encode(errors="backslashreplace").decode()  # bytes of names that are no UTF-8
    with naming_output():
        typer.echo(text, nl=False, color=True)  # nothing is stripped of names


@contextmanager
def naming_output() -> Iterator[None]:
    """Let an error of the system that comes here be one of standard output, by name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), OUTPUT) from error


def write_csv_out(table: pd.DataFrame, **choices: Any) -> None:
    """Write a table to standard output as CSV; on a terminal each name in one line.

    `choices` are those of `to_csv`.
    """
    from lucency.core.files import csv_text

    if sys.stdout.isatty():
        text = table.select_dtypes(["object", "string"])
        table = table.assign(**text.map(lambda cell: printable(str(cell)), na_action="ignore"))
    write_out(csv_text(table, **choices))


def print_audit(found: Audit, out: Path | None, json: bool) -> None:
    """Write an audit's tables to `out`, and its short tables or all as JSON to standard output."""
    from lucency.core.tables import write_audit

    if out is not None:
        write_audit(found, out)
    write_out(audit_in_json(found) if json else audit_in_words(found))
    if out is not None and not json:
        write_out(f"tables: {out}\n")


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: None where a number is NaN or NA, and paths as text.

    A table becomes a list of rows, each a dict.

    >>> plain({"auc": float("nan"), "films": 3, "folder": Path("runs")})
    {'auc': None, 'films': 3, 'folder': 'runs'}
    """
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        value = value.to_dict("records")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def in_words(answer: Answer) -> str:
    """Return an answer for people, one line an item."""
    return "".join(f"{key}: {_words(value)}\n" for key, value in plain(answer).items())


def archive_in_words(answer: Answer) -> str:
    """Return what an archive holds for people: a line for each reason to leave files out."""
    left_out = [f"{files:,} {reason}" for reason, files in answer["left_out"].items()]
    return in_words({**answer, "left_out": left_out or 0})


def in_json(answer: Answer) -> str:
    """Return an answer for programs."""
    return text_of.dumps(plain(answer), indent=1) + "\n"


def _words(value: object) -> str:
    if isinstance(value, dict):
        apart = "\n  " if any(isinstance(item, dict) for item in value.values()) else ", "
        lines = [f"{key} {_words(item)}" for key, item in value.items()]
        return (apart if apart != ", " else "") + apart.join(lines)
    if isinstance(value, list):
        return "".join(f"\n  {_words(item)}" for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, float):
        return "not computable" if value is None else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def evaluation_in_words(answer: Answer) -> str:
    """Return the evaluation of one network for people: a table of findings, macro and micro.

    Of several networks their comparison, as `in_words`. `answer` is that of `evaluate_tables`.
    """
    import pandas as pd

    from lucency.core.manifest import counted

    if "macro" not in answer:
        return in_words(answer)
    findings = {name: held for name, held in answer.items() if "auc" in held}
    scores = {
        name: {"positives": held["positives"]}
        | {title: _score(held.get(metric)) for metric, title in SHOWN_METRICS.items()}
        for name, held in findings.items()
    }
    macro = findings["macro"]
    films, patients = (counted(macro[f"{noun}s"], noun) for noun in ("film", "patient"))
    table = pd.DataFrame.from_dict(scores, orient="index").to_string()
    written = f"{answer['tables']}/metrics.csv" if "tables" in answer else "--out DIR or --json"
    given = ", 95 % confidence interval over patients" if has_interval(**macro["auc"]) else ""
    lines = [
        f"{answer['network']}: macro AUC {_score(macro['auc'])}{given}; {macro['auc']['note']}; "
        f"{films} of {patients}",
        table,
        *_lacking(findings),
        f"all metrics: {written}",
        *([f"report: {answer['report']}"] if "report" in answer else []),
    ]
    return "\n".join(lines) + "\n"


def external_in_words(answer: Answer) -> str:
    """Return an external test for people: each network's scores in both sets, its calibration.

    `answer` is that of `pipeline.added_tests.answer`.
    """
    import pandas as pd

    from lucency.core.manifest import counted

    tested, apart = (
        f"{counted(answer[films], 'film')} of {counted(answer[people], 'patient')}"
        for films, people in (("films", "patients"), ("apart_films", "apart_patients"))
    )
    lines = [f"{answer['origin']}: {tested}; set apart to recalibrate: {apart}"]
    scores, calibration = (pd.DataFrame(answer[name]) for name in ("scores", "calibration"))
    if len(scores):
        shown = scores.loc[(scores["metric"] == "auc") & (scores["finding"] != "micro")]
        lines += ["AUC", short_table(shown.drop(columns="metric").astype(_numbers(shown)))]
        macro = calibration.loc[calibration["finding"] == "macro"]
        macro = macro.astype(_numbers(macro) | {"films": "int64"})
        slope = [_short(one) if one == one else "not estimated" for one in macro["slope"]]
        lines += ["calibration, mean over findings", short_table(macro.assign(slope=slope))]
    out = [f"{row['finding']} ({row['reason']})" for row in answer["findings"] if row["reason"]]
    lines += [f"not compared: {'; '.join(out)}"] if out else []
    lines += [answer["distance"], answer["conclusion"], f"tables: {answer['tables']}"]
    return "\n".join(lines) + "\n"


def _numbers(table: pd.DataFrame) -> dict[str, str]:
    """Return the columns of a table that are numbers, where None stands for one that is not."""
    ends = (
        "low",
        "high",
        "internal",
        "external",
        "difference",
        "brier",
        "ece",
        "gap",
        "slope",
        "chance",
    )
    return {str(name): "float64" for name in table if str(name).rpartition("_")[2] in ends}


def _score(row: Answer | None) -> str:
    return estimate(*(row[end] for end in ("value", "low", "high"))) if row else "-"


def _lacking(findings: Answer) -> list[str]:
    """Return for how many of the shown numbers there is no interval, and why, in a line."""
    from lucency.core.manifest import counted

    rows = [
        held[metric] for held in findings.values() for metric in SHOWN_METRICS if metric in held
    ]
    bare = [row for row in rows if row["value"] is not None and not has_interval(**row)]
    parts = [part for row in bare for part in row["note"].split("; ") if part.startswith(NONE)]
    reasons = dict.fromkeys(FEW.sub(r"fewer than \2 patients with \1", part) for part in parts)
    why = "; ".join(reason.removeprefix(NONE) for reason in reasons)
    return [f"{counted(len(bare), 'number')} without interval: {why}".rstrip(": ")] if bare else []


def has_interval(*, low: float | None, high: float | None, **_: object) -> bool:
    """Return whether there is an interval: one without width, as of one patient, is none."""
    return low is not None and high is not None and low < high


def estimate(value: float | None, low: float | None, high: float | None) -> str:
    """Return a number with its interval, short; "-" where it is not computable.

    >>> estimate(0.5, 0.25, 0.75), estimate(-0.5, -1.5, 0.0), estimate(1.0, 1.0, 1.0)
    ('.500 (.250-.750)', '-.500 (-1.500 to .000)', '1.000')
    """
    if value is None or value != value:
        return "-"
    if not has_interval(low=low, high=high):
        return _short(value)
    between = "-" if low is not None and low >= 0 else " to "
    return f"{_short(value)} ({between.join(_short(end) for end in (low, high))})"


def _short(number: float | None) -> str:
    return f"{number:.3f}".replace("0.", ".", 1) if abs(number or 0) < 1 else f"{number:.3f}"


def audit_in_words(audit: Audit) -> str:
    """Return the shown tables, short, the remarks and the conclusion, for people."""
    parts = [f"{name}\n{short_table(audit.tables[name])}" for name in audit.shown]
    return "\n\n".join([*parts, *audit.remarks, audit.conclusion]) + "\n"


def audit_in_json(audit: Audit) -> str:
    """Return everything, for programs: a table is a list of rows, an absent number is null."""
    rows = {
        name: text_of.loads(str(table.to_json(orient="records", double_precision=15)))
        for name, table in audit.tables.items()
    }
    answer = {**rows, "remarks": list(audit.remarks), "conclusion": audit.conclusion}
    return text_of.dumps(answer, indent=1) + "\n"


def short_table(table: pd.DataFrame) -> str:
    """Return a table for a terminal: a number with its interval in one cell, measures as columns.

    Columns NAME, NAME_low, NAME_high (or value, low, high) are one; notes are left to the files.
    """
    if table.empty:
        return "none"
    short = _with_intervals(table.drop(columns=list(LEFT_OUT), errors="ignore"))
    if {"finding", "measure", "value"} <= set(short):
        rest = [name for name in short if name not in ("measure", "value")]
        short = short.pivot(index=rest, columns="measure", values="value")
        short = short.loc[:, list(dict.fromkeys(table["measure"]))].reset_index()
        order = {name: place for place, name in enumerate(dict.fromkeys(table["finding"]))}
        short = short.sort_values("finding", key=lambda names: names.map(order))
    text = short.head(LINES).to_string(index=False, na_rep="-", float_format=lambda x: f"{x:.3f}")
    more = len(short) - LINES
    return f"{text}\n… {more:,} more rows" if more > 0 else text


def _with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    short = table.copy()
    names = [str(name) for name in table]
    for low in [name for name in names if name == "low" or name.endswith("_low")]:
        high = low.removesuffix("low") + "high"
        before = names[names.index(low) - 1]  # the number that a nameless interval is of
        name = before if low == "low" else low.removesuffix("_low")
        cells = zip(table[name], table[low], table[high], strict=True)
        short[name] = [estimate(*each) for each in cells]
        short = short.drop(columns=[low, high])
    return short
