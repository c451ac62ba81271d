"""Cells of label tables: 1, 0, -1 (uncertain) or nothing, keys of rows, official parts.

Letters in shapes: n films, k findings, r rows of a table, g groups of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped

from lucency.data.csv_tables import CsvTable

UNSURE = -1.0  # as label files state what is uncertain
STATES = {"": np.nan, "1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": UNSURE, "-1": UNSURE}


class StatedCells(NamedTuple):
    """Labels 1, 0 or NaN, and which of the latter the file states as uncertain."""

    label: Float32[np.ndarray, "n k"]
    uncertain: Bool[np.ndarray, "n k"]


def stated_cells(table: CsvTable, column: Mapping[str, str]) -> StatedCells:
    """Return the labels in the columns of findings; ValueError for a cell of another state."""
    states = [table.parse(name, _parse_state) for name in column.values()]
    return as_cells(np.stack(states, axis=1))


def as_cells(state: Shaped[np.ndarray, "n k"]) -> StatedCells:
    """Return the labels of numbers 1, 0, -1 and NaN."""
    unsure = state == UNSURE
    return StatedCells(np.where(unsure, np.nan, state).astype(np.float32), unsure)


def cells_at(cells: StatedCells, row: Int64[np.ndarray, " n"]) -> StatedCells:
    """Return the cells of these rows, nothing stated where a row is -1."""
    absent = (row < 0)[:, None]
    label = np.where(absent, np.float32(np.nan), cells.label[row])
    return StatedCells(label, cells.uncertain[row] & ~absent)


def rows_of(key: Shaped[np.ndarray, " n"], table: CsvTable, column: str) -> Int64[np.ndarray, " n"]:
    """Return the row of a table whose column has each key, -1 where none has it.

    Raises ValueError where the table has a key twice.
    """
    refuse_twice(table, column)
    return pd.Index(table.columns[column]).get_indexer(pd.Index(key)).astype(np.int64)


def refuse_twice(table: CsvTable, *columns: str) -> None:
    """Raise ValueError where columns of keys name one together twice, with its line."""
    keys = pd.MultiIndex.from_arrays([table.columns[name] for name in columns])
    again = keys.duplicated()
    if again.any():
        row = int(np.argmax(again))
        named = ", ".join(f"{name} {str(table.columns[name][row])!r}" for name in columns)
        raise ValueError(
            f"{table.file}, line {table.line[row]}: {named} is listed twice; expected each once: "
            "fetch the file again"
        )


def grouped(
    keys: Shaped[np.ndarray, " r"] | pd.Index,
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " g"]]:
    """Return each row's group, and each group's first row, in the order of the rows."""
    group = pd.factorize(pd.Index(keys))[0]
    return group.astype(np.int64), np.unique(group, return_index=True)[1].astype(np.int64)


def parse_binary(text: str) -> int:
    """Return 0 or 1, which may be written as 0.0 and 1.0; raises ValueError for other text."""
    if text not in ("0", "1", "0.0", "1.0"):
        raise ValueError(f"found {text!r}, expected 0 or 1")
    return int(text[0])


def parse_part(known: Mapping[str, str]) -> Callable[[str], str]:
    """Return a parser of the official part, as a collection spells the parts.

    The parser raises ValueError for text that is not `known`.
    """

    def parse(text: str) -> str:
        if text not in known:
            raise ValueError(f"found {text!r}, expected {', '.join(known)}")
        return known[text]

    return parse


def _parse_state(text: str) -> float:
    if text not in STATES:
        raise ValueError(f"found {text!r}, expected 1, 0, -1 (uncertain) or nothing")
    return STATES[text]
