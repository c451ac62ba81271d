"""Big label files of public collections: found below a root, read fast, checked, cells of states.

A label file states 1, 0, -1 (uncertain) or nothing. Letters in shapes: n films or rows, k findings,
t rows of another table.
"""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped

from lucency.core.manifest import (
    READING_COLUMNS,
    Manifest,
    counted,
    listed,
    nearest,
)
from lucency.core.progress import say
from lucency.data.csv_tables import CsvTable, clean_text, read_text

UNSURE = -1.0  # as label files state what is uncertain
STATES = {"": np.nan, "1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": UNSURE, "-1": UNSURE}
BLOCK = 1 << 22  # bytes read at once
COMMA, QUOTE, NEWLINE = b",", b'"', b"\n"
SMALL = 1 << 24  # bytes; a file that is no table is looked at closer if it is not larger
FRAGMENTS = (".azDownload-*", "*.part", "*.crdownload", "*.filepart")  # of unfinished downloads
SHOWN = 3  # counts that differ, in one line


class StatedCells(NamedTuple):
    """Labels 1, 0 or NaN, and which of the latter the file states as uncertain."""

    label: Float32[np.ndarray, "n k"]
    uncertain: Bool[np.ndarray, "n k"]


def table_patterns(*names: str) -> tuple[str, ...]:
    """Return the patterns of label files in a root and in its folders, plain or .gz.

    >>> table_patterns("train.csv")
    ('train.csv', 'train.csv.gz', '*/train.csv', '*/train.csv.gz')
    """
    return tuple(f"{f}{name}{gz}" for name in names for f in ("", "*/") for gz in ("", ".gz"))


def find_table(root: Path, *names: str) -> Path | None:
    """Return the first of these label files (names or patterns) in `root`, else in its folders.

    Raises ValueError where several folders hold one.
    """
    for name in names:
        for folder in ("", "*/"):
            patterns = (f"{folder}{name}", f"{folder}{name}.gz")
            found = [one for p in patterns for one in sorted(root.glob(p)) if one.is_file()]
            if len({file.parent for file in found}) > 1:
                raise ValueError(
                    f"{root}: found {found[0].relative_to(root)} and {found[-1].relative_to(root)};"
                    " expected one: set data.root to the folder of one of them"
                )
            if found:
                return found[0]
    return None


def require_table(root: Path, *names: str, title: str) -> Path:
    """Return what `find_table` finds; raises ValueError with what is there where it finds none."""
    found = find_table(root, *names)
    if found is None:
        expected = f"no {names[0]} of {title} in {root}: "
        if parts := sorted(part.name for one in FRAGMENTS for part in root.glob(one)):
            raise ValueError(
                f"{expected}found {listed(parts, most=SHOWN)}, of a download that is not finished; "
                "expected the whole file: fetch it again"
            )
        there = sorted(place.name for place in root.iterdir() if not place.name.startswith("."))
        raise ValueError(
            f"{expected}found {listed(there, most=8) or 'nothing'}; set data.root to the folder of "
            "its label files"
        )
    return found


def named_table(root: Path, labels: str, *, title: str) -> Path:
    """Return the label file that `data.labels` names; raises ValueError where there is none."""
    if not (root / labels).is_file():
        raise ValueError(f"data.labels: {root / labels}: no such file; expected one of {title}")
    return root / labels


def read_big_table(file: Path, *names: str, title: str, optional: Sequence[str] = ()) -> CsvTable:
    """Return these columns of a CSV table (plain or .gz) as text, by pandas' C parser.

    Columns go by their names, whatever their order; others are not kept. Raises ValueError for a
    file that is damaged, cut short or no table, for a row with more or fewer cells than the
    heading, for an absent column, as in another version of the file, and for one that is there
    twice.
    """
    with _no_whole_table(file, title):
        with _opened(file) as stream:
            heading = stream.readline().decode("utf-8-sig")
        written = next(csv.reader([heading]), [])
        _require_columns(file, [clean_text(one) for one in written], names, title)
        kept = [one for one in written if clean_text(one) in {*names, *optional}]
        with _opened(file) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # rows are counted below
            table = pd.read_csv(
                stream,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                index_col=False,
                encoding="utf-8-sig",
                usecols=kept,
            )
        line = _lines(file, columns=len(written), rows=len(table))
    if not len(table):
        raise ValueError(f"{file}: found no rows, expected the label file of {title}")
    return CsvTable(
        file=file,
        columns={clean_text(one): table[one].to_numpy(dtype=object) for one in table.columns},
        line=line,
        decimal_comma=False,
    )


def refuse_twice(table: CsvTable, column: str) -> None:
    """Raise ValueError where a column of keys names one twice, with its line."""
    again = pd.Series(table.columns[column]).duplicated().to_numpy()
    if again.any():
        row = int(np.argmax(again))
        raise ValueError(
            f"{table.file}, line {table.line[row]}: {column} {table.columns[column][row]!r} is "
            "listed twice; expected each once: fetch the file again"
        )


def rows_of(key: Shaped[np.ndarray, " n"], table: CsvTable, column: str) -> Int64[np.ndarray, " n"]:
    """Return the row of a table whose column has each key, -1 where none has it.

    Raises ValueError where the table has a key twice.
    """
    refuse_twice(table, column)
    return pd.Index(table.columns[column]).get_indexer(pd.Index(key)).astype(np.int64)


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


def counts_of_reading(*steps: tuple[str, str, int]) -> pd.DataFrame:
    """Return steps, findings and films as `Manifest.reading` has them, without empty ones."""
    return pd.DataFrame([step for step in steps if step[2]], columns=list(READING_COLUMNS))


def films_of_splits(split: Shaped[np.ndarray, " n"]) -> dict[str, int]:
    """Return how many films each official part has."""
    names, count = np.unique(split.astype(str), return_counts=True)
    return dict(zip(names.tolist(), count.tolist(), strict=True))


def compare_counts(films: Manifest, published: Mapping[str, int], *, title: str) -> str:
    """Return "as published", or that counts differ; these are reported, found and published.

    Counted are films, patients, studies, films by official part, and positives by finding.
    """
    found = {
        "films": len(films),
        "patients": len(np.unique(films.patient)),
        "studies": films.facts["study"].nunique(),
        **(films_of_splits(films.facts["split"].to_numpy()) if "split" in films.facts else {}),
        **films.label_counts()["positive"].to_dict(),
    }
    others = [
        f"{name} {found.get(name, 0):,} (published {count:,})"
        for name, count in published.items()
        if found.get(name, 0) != count
    ]
    if not others:
        return "as published"
    say(f"{title}: counts differ from the published ones: {listed(others, most=2 * SHOWN)}")
    return "not as published"


def origin_of(files: Sequence[Path], films: Manifest, *, title: str, version: str) -> str:
    """Return in a line what films come from: files, collection, version, films and patients."""
    names = ", ".join(file.name for file in files)
    patients = counted(len(np.unique(films.patient)), "patient")
    return f"{names}: {title}, {version}, {counted(len(films), 'film')} of {patients}"


def _parse_state(text: str) -> float:
    if text not in STATES:
        raise ValueError(f"found {text!r}, expected 1, 0, -1 (uncertain) or nothing")
    return STATES[text]


def _require_columns(file: Path, head: Sequence[str], names: Sequence[str], title: str) -> None:
    if again := [name for name in names if head.count(name) > 1]:
        raise ValueError(f"{file}: column {again[0]!r} is there twice; expected each name once")
    if lacking := [name for name in names if name not in head]:
        if file.stat().st_size <= SMALL:  # a page of a server, a pointer, a spreadsheet?
            read_text(file, expected=f"a label file of {title}")
        found = listed([name if len(name) < 60 else f"{name[:60]}…" for name in head], most=24)
        raise ValueError(
            f"{file}: no column {lacking[0]!r}{nearest(lacking[0], head)}; found {found}; expected "
            f"the label file of {title}, of the version that its documentation page names"
        )


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Lend the bytes of a file, unpacked if it is a .gz by its content."""
    with file.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        yield io.BufferedReader(gzip.GzipFile(fileobj=stream)) if packed else stream


@contextmanager
def _no_whole_table(file: Path, title: str) -> Iterator[None]:
    """Raise ValueError with the file's name where its content is damaged or no table."""
    damage = (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error)
    try:
        yield
    except (*damage, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{file}: found no whole table ({why}); expected the label file of {title}: fetch it "
            "again"
        ) from error


def _lines(file: Path, *, columns: int, rows: int) -> Int64[np.ndarray, " n"]:
    """Return the line where each row begins.

    pandas fills short rows with empty cells, so commas outside quotes are counted here: raises
    ValueError where a row has more or fewer cells than the heading.
    """
    commas, ends = _scan(file)
    if commas != (rows + 1) * (columns - 1):
        _refuse_ragged(file, columns)
    plain = np.arange(rows, dtype=np.int64) + 2
    return ends[:rows] + 1 if len(ends) in (rows, rows + 1) else plain


def _refuse_ragged(file: Path, columns: int) -> None:
    with _opened(file) as stream:
        reader, line = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")), 1
        for cells in reader:
            if cells and len(cells) != columns:
                raise ValueError(
                    f"{file}, line {line}: found {counted(len(cells), 'cell')}, expected {columns} "
                    "as in the heading: the file is cut short or damaged; fetch it again"
                )
            line = reader.line_num + 1


def _scan(file: Path) -> tuple[int, Int64[np.ndarray, " n"]]:
    """Return how many commas stand outside quotes, and the lines that end outside quotes."""
    commas, line, quoted, ends = 0, 0, False, list[np.ndarray]()
    with _opened(file) as stream:
        while block := stream.read(BLOCK):
            code = np.frombuffer(block, dtype=np.uint8)
            if quoted or QUOTE in block:
                inside = np.logical_xor.accumulate(code == ord(QUOTE)) ^ quoted
                quoted = bool(inside[-1])
                commas += int(((code == ord(COMMA)) & ~inside).sum())
                newline = np.flatnonzero(code == ord(NEWLINE))
                ends.append(line + 1 + np.flatnonzero(~inside[newline]))
                line += len(newline)
            else:
                commas += block.count(COMMA)
                ends.append(line + 1 + np.arange(lines := block.count(NEWLINE)))
                line += lines
    return commas, np.concatenate([*ends, np.empty(0, np.int64)])
