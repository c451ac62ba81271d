"""Which columns of a label file are findings, and which others are reported."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lucency.core.manifest import listed
from lucency.core.progress import say
from lucency.data.csv_tables import (
    MISSING,
    NAMELESS,
    USUAL,
    CsvTable,
    parse_number,
    plain_name,
)

LABEL_COLUMN = "Finding Labels"
UNCERTAIN = -1  # as CheXpert's labels have it
ANSWERS = {"yes", "positive", "present", "wahr", "ja", "vrai", "oui", "+"}  # in small letters
MOSTLY = 0.5  # share of stated cells of 0 or 1 from which a column is meant as a finding's
NEVER_FINDINGS = {  # plain names
    *(name for usual in USUAL.values() for name in usual),
    "patientid", "followup", "width", "height", "reader", "readerid", "rater", "fold",
    "nofinding",  # which follows from the findings
}  # fmt: skip


def is_manifest(file: Path) -> bool:
    """Say whether a file is a run's table of films, beside which a JSON file names the findings."""
    return file.name == "manifest.csv" and file.with_name("manifest.json").is_file()


def finding_columns(table: CsvTable) -> tuple[str, ...]:
    """Return what the manifest beside the table names, or the columns of 0, 1 and empty cells.

    A column where most stated cells are 0 or 1, or all are 0, 1 or -1, is meant as one, and its odd
    cells are refused later. Raises ValueError where there is none, and for two whose names differ
    in capital letters, blanks or punctuation alone.
    """
    file, columns = table.file, table.columns
    if is_manifest(file):
        findings = _named(file.with_name("manifest.json"))
        if absent := [name for name in findings if name not in columns]:
            raise ValueError(
                f"{file}: no column {absent[0]!r}, which manifest.json names as finding"
            )
    else:
        findings = tuple(name for name in columns if _is_finding(table, name))
        _name_answers(table, findings)
        _refuse_one_twice(table, findings)
    if not findings:
        raise ValueError(
            f"{file}: found the columns {', '.join(columns)}; expected {LABEL_COLUMN!r}, or a "
            "column of 0, 1 and empty cells for each finding"
        )
    return findings


def _refuse_one_twice(table: CsvTable, findings: tuple[str, ...]) -> None:
    first: dict[str, str] = {}
    for name in findings:
        other = first.setdefault(plain_name(name) or name, name)
        if other != name:
            raise ValueError(
                f"{table.file}: columns {other!r} and {name!r} may both be one finding; expected "
                "each finding once: rename or remove one"
            )


def _name_answers(table: CsvTable, findings: tuple[str, ...]) -> None:
    """Report columns whose cells mean labels in words; ValueError where there are no findings."""
    first = {name: _first_answer(table, name) for name in table.columns if name not in findings}
    worded = [name for name, found in first.items() if found]
    if not worded:
        return
    meant = "is a finding" if len(worded) == 1 else "are findings"
    line = f"{first[worded[0]]}, no label: write 1 and 0 where {listed(worded)} {meant}"
    if not findings:
        raise ValueError(f"{line}; expected a column of 0, 1 and empty cells for each finding")
    say(line)


def say_left_out(table: CsvTable, findings: tuple[str, ...], *, named: Sequence[str]) -> None:
    """Report the columns that are neither findings nor named, nor hold what is known not to be one.

    Of a column in which some cells are labels the first that is none is shown. Labels in words have
    been named.
    """
    known = {*NEVER_FINDINGS, *map(plain_name, named)}
    others = [name for name in table.columns if name not in findings]
    left = [
        name + _first_odd(table, name)
        for name in others
        if not (
            name.startswith(NAMELESS) or plain_name(name) in known or _first_answer(table, name)
        )
    ]
    if left:
        say(f"{table.file}: left out are {listed(left)}; read are {listed(findings)}")


def _first_odd(table: CsvTable, name: str) -> str:
    """Return the first cell that is no label and its line, in brackets, where others are labels."""
    code = table.parse(name, label_code)
    is_label = np.isin(code, (0, 1))
    if not is_label.any():
        return ""
    row = np.argmax(~is_label & ~np.isnan(code))
    return f" ({str(table.columns[name][row])!r} in line {table.line[row]})"


def _first_answer(table: CsvTable, name: str) -> str:
    """Return where and what the first cell is that means a label in a word, or in percent."""
    words = [text.casefold() for text in table.columns[name].tolist()]
    stated = {word for word in words if word not in MISSING}
    shares = bool(stated) and all(re.fullmatch(r"[0-9.,]+ ?%", word) for word in stated)
    crosses = stated == {"x"}
    for row, word in enumerate(words):
        if word in stated and (word in ANSWERS or shares or crosses):
            text = str(table.columns[name][row])
            return f"{table.file}, line {table.line[row]}, {name}: found {text!r}"
    return ""


def _is_finding(table: CsvTable, name: str) -> bool:
    if name.startswith(NAMELESS) or plain_name(name) in NEVER_FINDINGS:
        return False
    code = table.parse(name, label_code)
    code = code[~np.isnan(code)]
    share = float(np.isin(code, (0, 1)).mean()) if len(code) else 0.0
    return share >= MOSTLY or (share > 0 and bool(np.isin(code, (UNCERTAIN, 0, 1)).all()))


def _named(about: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(about.read_text(encoding="utf-8"))["findings"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{about}: found no list of findings, expected a run's file") from error


def label_code(text: str) -> float:
    """Return the number that a label is, NaN for an empty cell, infinity for other text."""
    word = text.casefold()
    if word in ("true", "false"):
        return float(word == "true")
    try:
        return parse_number(text.replace(",", "."))
    except ValueError:
        return np.inf
