"""Labels of CheXpert's kind: 1, 0, -1 (uncertain) or nothing, in tables of films or of studies.

Letters in shapes: n films, k findings, t rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def refuse_twice(table: CsvTable, column: str) -> None:
    """Raise ValueError where a column of keys names one twice, with its line."""
    again = pd.Series(table.columns[column]).duplicated().to_numpy()
    if again.any():
        row = int(np.argmax(again))
        raise ValueError(
            f"{table.file}, line {table.line[row]}: {column} {table.columns[column][row]!r} is "
            "listed twice; expected each once: fetch the file again"
        )


def _parse_state(text: str) -> float:
    if text not in STATES:
        raise ValueError(f"found {text!r}, expected 1, 0, -1 (uncertain) or nothing")
    return STATES[text]
