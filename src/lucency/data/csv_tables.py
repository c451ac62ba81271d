"""CSV tables: their columns as text, parsed cell by cell; external scores; lists of image names.

Letters in shapes: n films or names, k findings.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from lucency.core.manifest import nearest

LONGEST = 40  # digits of a whole number, leading zeros counted
NAMELESS = "Unnamed: "  # and its place: a column without a heading
IMAGE_COLUMNS = ("image", "Image Index", "film", "Image", "filename", "path")
PREFIXES = ("", "prob_", "logit_")


@dataclass(frozen=True, kw_only=True, eq=False)
class CsvTable:
    """The columns of a CSV table as text, empty where a cell is."""

    file: Path
    columns: Mapping[str, Shaped[np.ndarray, " n"]]

    def require(self, *names: str) -> None:
        """Raise ValueError unless the table has all these columns."""
        for name in names:
            if name not in self.columns:
                found = f"found {', '.join(self.columns)}{nearest(name, self.columns)}"
                raise ValueError(f"{self.file}: no column {name!r}: {found}")

    def parse(self, name: str, parse: Callable[[str], Any]) -> Shaped[np.ndarray, " n *k"]:
        """Return `parse(text)` for each row of a column; every distinct text is parsed once.

        Raises the parser's ValueError with the file, the line of the first such row and the column.
        """
        row, texts = pd.factorize(self.columns[name].astype(object))
        parsed = []
        for number, text in enumerate(texts):
            try:
                parsed.append(parse(text))
            except ValueError as error:
                line = int(np.argmax(row == number)) + 2
                raise ValueError(f"{self.file}, line {line}, {name}: {error}") from error
        return np.array(parsed)[row]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """External predictions: one score a film and finding; the names of the columns left out."""

    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    score: Float64[np.ndarray, "n k"]
    left_out: tuple[str, ...]


def read_csv(file: Path, *, expected: str = "a CSV table") -> CsvTable:
    """Return the cells of a CSV table as text.

    Raises ValueError when there is no such file (`expected` is what it should be), when two columns
    have one name, or when there are no rows.
    """
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "no such file"
        raise ValueError(f"{file}: {found}; expected {expected}")
    try:
        table = pd.read_csv(file, header=None, dtype=str, keep_default_na=False, index_col=False)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: found a damaged file ({error}): fetch it again") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{file}: found no CSV table ({why}), expected one") from error
    names = [name or f"{NAMELESS}{place}" for place, name in enumerate(table.iloc[0].tolist())]
    if again := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{file}: column {again[0]!r} is there twice; expected each name once")
    if len(table) == 1:
        raise ValueError(f"{file}: found no rows, expected one for each film")
    cells = table.iloc[1:]
    columns = {name: cells[place].to_numpy(dtype=str) for place, name in enumerate(names)}
    return CsvTable(file=file, columns=columns)


def parse_number(text: str) -> float:
    """Return a number, NaN for an empty cell."""
    try:
        return float(text or "nan")
    except ValueError:
        raise ValueError(f"found {text!r}, expected a number") from None


def parse_whole(text: str) -> int:
    """Return a whole number, leading zeros allowed."""
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST and int(text) < 2**63):
        raise ValueError(f"found {text!r}, expected a whole number")
    return int(text)


def read_scores(file: Path, *, findings: tuple[str, ...]) -> Scores:
    """Read a table (.csv or .csv.gz): a column of image names, and one a finding.

    A finding's column is called by its name, alone or after prob_ or logit_; of `findings` those
    that have one are read. Raises ValueError for a table without an image column or a finding's,
    for a cell that is no number, and for a film that is listed twice.
    """
    table = read_csv(file, expected="a table of predictions (.csv or .csv.gz)")
    columns = table.columns
    key = next((name for name in IMAGE_COLUMNS if name in columns), "")
    if not key:
        raise ValueError(f"{file}: found {', '.join(columns)}; expected a column 'image' of names")
    where = _finding_columns(columns, findings)
    if not where:
        hint = next((nearest(name, findings) for name in columns if nearest(name, findings)), "")
        raise ValueError(f"{file}: no column is named by a finding{hint}: expected some of them")
    image = columns[key]
    listed, count = np.unique(image, return_counts=True)
    if (count > 1).any():
        raise ValueError(
            f"{file}: film {str(listed[count > 1][0])!r} is listed {count.max()} times; expected "
            "each once: average or remove the repeated rows"
        )
    score = [table.parse(name, _parse_score) for name in where.values()]
    return Scores(
        findings=tuple(where),
        image=image,
        score=np.stack(score, axis=1).astype(np.float64),
        left_out=tuple(name for name in columns if name not in {key, *where.values()}),
    )


def read_names(file: Path) -> Shaped[np.ndarray, " n"]:
    """Return the image names of a list, in its order, repeated ones too.

    Of a line only the first word counts, so that lists with labels behind the name are read. A
    table (.csv, .csv.gz) has a column of names, called as `lucency evaluate` knows it. Raises
    ValueError for a file that cannot be read or holds no name.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected a list of image names, one a line")
    lines = _column(file) if ".csv" in file.suffixes[-2:] else _lines(file)
    if not lines:
        raise ValueError(f"{file}: found no name; expected one image name a line")
    return np.array(lines)


def _finding_columns(columns: Iterable[str], findings: tuple[str, ...]) -> dict[str, str]:
    """Return finding -> column, in the order of `findings`."""
    found = {}
    for finding in findings:
        named = [prefix + finding for prefix in PREFIXES if prefix + finding in columns]
        if len(named) > 1:
            raise ValueError(
                f"columns {' and '.join(named)} are one finding's: expected one of them"
            )
        if named:
            found[finding] = named[0]
    return found


def _parse_score(text: str) -> float:
    value = parse_number(text)
    if not np.isfinite(value):
        raise ValueError(f"found {text!r}, expected a finite number")
    return value


def _column(file: Path) -> list[str]:
    columns = read_csv(file).columns
    for name in IMAGE_COLUMNS:
        if name in columns:
            return columns[name].tolist()
    if len(columns) == 1:  # a list without a heading
        (heading,) = columns
        return [heading, *columns[heading].tolist()]
    found = ", ".join(columns)
    raise ValueError(f"{file}: found the columns {found}; expected a column 'image' of names")


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text; expected image names, one a line") from error
    return [line.split()[0] for line in text.splitlines() if line.strip()]
