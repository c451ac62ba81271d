"""Result tables: as text, JSON and CSV, saved and loaded; names of films compared across files.

Letters in shapes: n films, t known films.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped

from lucency.core.manifest import read_table
from lucency.core.stage import write_atomically

Value = TypeVar("Value")
Answer = dict[str, Any]  # of a command, for people or for JSON
LINES = 30  # of a table on a terminal
LEFT_OUT = ("note", "wilson_low", "wilson_high")  # of the terminal
NIH_NAME = re.compile(r"(?:.*[/\\])?([0-9]{8}_[0-9]{3})(?:\.\w+)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """An audit's tables by name, the names of those shown on a terminal, remarks and conclusion."""

    tables: Mapping[str, pd.DataFrame]
    shown: tuple[str, ...]
    remarks: tuple[str, ...]
    conclusion: str


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: None where a number is NaN or NA, and paths as text.

    A table becomes a list of rows, each a dict.

    >>> plain({"auc": np.nan, "films": np.int64(3), "folder": Path("runs")})
    {'auc': None, 'films': 3, 'folder': 'runs'}
    """
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


def in_json(answer: Answer) -> str:
    """Return an answer for programs."""
    return json.dumps(plain(answer), indent=1) + "\n"


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


def audit_in_words(audit: Audit) -> str:
    """Return the shown tables, short, the remarks and the conclusion, for people."""
    parts = [f"{name}\n{short_table(audit.tables[name])}" for name in audit.shown]
    return "\n\n".join([*parts, *audit.remarks, audit.conclusion]) + "\n"


def audit_in_json(audit: Audit) -> str:
    """Return everything, for programs: a table is a list of rows, an absent number is null."""
    rows = {
        name: json.loads(str(table.to_json(orient="records", double_precision=15)))
        for name, table in audit.tables.items()
    }
    answer = {**rows, "remarks": list(audit.remarks), "conclusion": audit.conclusion}
    return json.dumps(answer, indent=1) + "\n"


def write_audit(audit: Audit, folder: Path) -> None:
    """Write each table as NAME.csv, and conclusion.txt; ValueError where other tables are."""
    others = sorted({file.stem for file in folder.glob("*.csv")} - {*audit.tables})
    if others:
        raise ValueError(f"{folder} holds {others[0]}.csv of something else: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in audit.tables.items():
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    lines = "\n".join([*audit.remarks, audit.conclusion])
    write_atomically(folder / "conclusion.txt", f"{lines}\n")


def save_tables(value: object, folder: Path) -> None:
    """Write each field of a dataclass: a table as NAME.csv, a text as NAME.txt, else NAME.json.

    A table without columns, which CSV cannot state, has no file.
    """
    for name, held in vars(value).items():
        if isinstance(held, str):
            (folder / f"{name}.txt").write_text(held + "\n", encoding="utf-8")
        elif not isinstance(held, pd.DataFrame):
            (folder / f"{name}.json").write_text(json.dumps(held, indent=1), encoding="utf-8")
        elif len(held.columns):
            held.to_csv(folder / f"{name}.csv", index=False)


def load_tables(kind: type[Value], folder: Path, *, text: tuple[str, ...]) -> Value:
    """Return the dataclass that `save_tables` wrote; a field without a file keeps its default.

    `text` are the columns of text, as of `read_table`.
    """
    held: dict[str, object] = {}
    for name in kind.__annotations__:
        place = folder / name
        if (file := place.with_suffix(".csv")).is_file():
            held[name] = read_table(file, text=text)
        elif (file := place.with_suffix(".txt")).is_file():
            held[name] = file.read_text(encoding="utf-8").strip()
        elif (file := place.with_suffix(".json")).is_file():
            held[name] = json.loads(file.read_text(encoding="utf-8"))
    return kind(**held)


def short_table(table: pd.DataFrame) -> str:
    """Return a table for a terminal: a number with its interval in one cell, measures as columns.

    Columns NAME, NAME_low, NAME_high (or value, low, high) are one; notes are left to the files.
    """
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
        short[name] = [_cell(*each) for each in cells]
        short = short.drop(columns=[low, high])
    return short


def _cell(value: float, low: float, high: float) -> str:
    if value != value:
        return "-"
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low == low else f"{value:.3f}"


def film_names(image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Return the film behind each name; those of ChestX-ray14 without folder and suffix."""
    plain = [str(name).partition("#")[0] for name in image]
    known = ((NIH_NAME.fullmatch(name), name) for name in plain)
    return np.array([match[1] if match else name for match, name in known], dtype=object)


def within(
    film: Shaped[np.ndarray, " n"], known: Shaped[np.ndarray, " t"]
) -> Bool[np.ndarray, " n"]:
    """Return which films are among the known ones, both as `film_names` gives them."""
    return pd.Index(film).isin(known)
