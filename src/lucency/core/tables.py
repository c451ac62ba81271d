"""Result tables, saved and loaded; names of films compared across files.

Letters in shapes: n films, t known films.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped

from lucency.core.files import write_table, write_whole
from lucency.core.manifest import read_table
from lucency.core.plan import COPY_MARK

Value = TypeVar("Value")
Answer = dict[str, Any]  # of a command, for people or for JSON
NIH_NAME = re.compile(r"(?:.*[/\\])?([0-9]{8}_[0-9]{3})(?:\.\w+)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """An audit's tables by name, the names of those shown on a terminal, remarks and conclusion."""

    tables: Mapping[str, pd.DataFrame]
    shown: tuple[str, ...]
    remarks: tuple[str, ...]
    conclusion: str


def write_audit(audit: Audit, folder: Path) -> None:
    """Write each table as NAME.csv, and conclusion.txt; ValueError where other tables are."""
    others = sorted({file.stem for file in folder.glob("*.csv")} - {*audit.tables})
    if others:
        raise ValueError(
            f"{folder} holds {others[0]}.csv of something else: choose another folder (--out)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in audit.tables.items():
        write_table(table, folder / f"{name}.csv")
    lines = "\n".join([*audit.remarks, audit.conclusion])
    write_whole(folder / "conclusion.txt", f"{lines}\n")


def save_tables(value: object, folder: Path) -> None:
    """Write each field of a dataclass: a table as NAME.csv, a text as NAME.txt, else NAME.json.

    A table without columns, which CSV cannot state, has no file.
    """
    for name, held in vars(value).items():
        if isinstance(held, str):
            write_whole(folder / f"{name}.txt", held + "\n")
        elif not isinstance(held, pd.DataFrame):
            write_whole(folder / f"{name}.json", json.dumps(held, indent=1))
        elif len(held.columns):
            write_table(held, folder / f"{name}.csv")


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


def refuse_same_files(files: Sequence[Path]) -> None:
    """Raise ValueError where a file or folder is named twice, in whatever spelling."""
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise ValueError(f"{file} is named twice: expected each file and run once")
        seen.add(file.resolve())


def film_names(image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Return the film behind each name; those of ChestX-ray14 without folder and suffix."""
    plain = [str(name).partition(COPY_MARK)[0] for name in image]
    known = ((NIH_NAME.fullmatch(name), name) for name in plain)
    return np.array([match[1] if match else name for match, name in known], dtype=object)


def within(
    film: Shaped[np.ndarray, " n"], known: Shaped[np.ndarray, " t"]
) -> Bool[np.ndarray, " n"]:
    """Return which films are among the known ones, both as `film_names` gives them."""
    return pd.Index(film).isin(known)
