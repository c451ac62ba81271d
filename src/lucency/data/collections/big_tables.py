"""Big CSV tables of public collections: chosen columns, read fast as text, every row whole.

Letters in shapes: n rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from lucency.core.manifest import counted, listed, nearest
from lucency.core.memory import says_out_of_memory
from lucency.data.csv_tables import (
    DAMAGED_ZIP,
    BoundedGzip,
    CsvTable,
    clean_text,
    read_text,
    refuse_bomb,
)

BLOCK = 1 << 22  # bytes read at once
COMMA, QUOTE, NEWLINE = b",", b'"', b"\n"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"  # how such files begin
SMALL = 1 << 24  # bytes; a file that is no table is looked at closer if it is not larger
WIDEST = 60  # characters of a heading that an error shows


def read_columns(file: Path, *names: str, title: str, optional: Sequence[str] = ()) -> CsvTable:
    """Return these columns of a CSV table (plain, .gz, or alone in a .zip) as text.

    Columns go by their names, whatever their order; others are not kept. Blanks around headings and
    cells do not count. By pandas' C parser, which is faster than `csv_tables.read_csv`, and
    recognises less. Raises ValueError for a file that is damaged, cut short or no table, for a row
    with more or fewer cells than the heading, for an absent column, as in another version of the
    file, and for one that is there twice, an optional one too.
    """
    with _no_whole_table(file, title):
        with _opened(file) as stream:
            heading = stream.readline().decode("utf-8-sig")
        written = next(csv.reader([heading], skipinitialspace=True), [])
        if not any(one.strip() for one in written):
            raise ValueError(
                f"{file}: found an empty first line, expected the heading of the label file of "
                f"{title}: fetch it again"
            )
        head = [clean_text(one) for one in written]
        for name in (*names, *optional):
            if head.count(name) > 1:
                raise ValueError(f"{file}: column {name!r} is there twice; expected each name once")
        _require_columns(file, head, names, title)
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
        raise ValueError(
            f"{file}: found no rows below the heading, expected the label file of {title}: fetch "
            "it again"
        )
    return CsvTable(
        file=file,
        columns={clean_text(one): _without_blanks(table[one].tolist()) for one in table.columns},
        line=line,
        decimal_comma=False,
    )


def _without_blanks(cells: list[str]) -> Shaped[np.ndarray, " n"]:
    """Return cells without the blanks around them."""
    return np.array([text.strip() for text in cells], dtype=object)


def _require_columns(file: Path, head: Sequence[str], names: Sequence[str], title: str) -> None:
    if lacking := [name for name in names if name not in head]:
        if file.stat().st_size <= SMALL:  # a page of a server, a pointer, a spreadsheet?
            read_text(file, expected=f"a label file of {title}")
        found = listed([name[:WIDEST] for name in head], most=24)
        raise ValueError(
            f"{file}: no column {lacking[0]!r}{nearest(lacking[0], head)}; found {found}; expected "
            f"the label file of {title}, of the version that its documentation page names"
        )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """Lend the bytes of a file, unpacked if it is a .gz or a .zip by its content."""
    with file.open("rb") as stored, ExitStack() as held:
        mark = stored.read(len(ZIP))
        stored.seek(0)
        if mark.startswith(GZIP):
            yield held.enter_context(io.BufferedReader(BoundedGzip(file)))
        elif mark == ZIP:
            archive = held.enter_context(zipfile.ZipFile(stored))
            names = [one for one in archive.namelist() if not one.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"{file}: found {counted(len(names), 'file')} in it, expected one")
            entry = archive.getinfo(names[0])
            refuse_bomb(file, entry.file_size, packed=entry.compress_size)
            yield held.enter_context(archive.open(names[0]))
        else:
            yield stored


@contextmanager
def _no_whole_table(file: Path, title: str) -> Iterator[None]:
    """Raise ValueError with the file's name where its content is damaged or no table."""
    no_text = (UnicodeDecodeError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError)
    try:
        yield
    except (*DAMAGED_ZIP, gzip.BadGzipFile, *no_text) as error:
        if says_out_of_memory(error):
            raise
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
