"""Any table of films: an image column, a patient column, one 0/1/empty column per finding.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from lucency.data.film import find_films
from lucency.values import Manifest, empty_boxes, nearest

LONGEST = 40  # digits of a whole number, leading zeros counted
Columns = Mapping[str, Shaped[np.ndarray, " n"]]
PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def read_csv_table(
    root: Path,
    *,
    labels: str,
    findings: tuple[str, ...],
    image_column: str,
    patient_column: str,
) -> Manifest:
    """Read a CSV table of films: one row a film, in the table's order, none left out.

    `labels` names the table (relative to `root` or absolute, .csv or .csv.gz). An image is named
    by its path below `root` or its file name, with or without suffix. An empty label is NaN, not
    stated. Facts: the columns age (years), sex and view where the table has them, and path.
    Raises ValueError for an absent column, and for a label that is not 0, 1 or empty.
    """
    file = root / labels
    if not labels or not file.is_file():
        raise ValueError(f"data.labels: found {labels!r}, expected the name of a table in {root}")
    columns = read_columns(file, required=(image_column, patient_column, *findings))
    image = columns[image_column]
    label = [parse_column(columns, name, parse_stated, file) for name in findings]
    facts = {name: columns[name] for name in ("sex", "view") if name in columns}
    if "age" in columns:
        facts["age"] = parse_column(columns, "age", parse_number, file)
    return Manifest(
        findings=findings,
        image=image,
        patient=parse_column(columns, patient_column, _number_patient, file),
        label=np.array(label, dtype=np.float32).reshape(len(findings), len(image)).T,
        facts=pd.DataFrame({**facts, "path": find_films(root, image=image)}),
        boxes=empty_boxes(),
        origin=f"{file.name}: {len(image):,} films",
    )


def read_columns(file: Path, *, required: tuple[str, ...]) -> Columns:
    """Return the columns of a CSV table as text, empty where a cell is.

    Raises ValueError when a required column is absent, or when there are no rows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows cut to the header
            table = pd.read_csv(file, dtype=str, keep_default_na=False, index_col=False)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: found a damaged file ({error}): fetch it again") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{file}: found no CSV table ({why}), expected one") from error
    _refuse_repeated_columns(file)
    for name in required:
        if name not in table:
            found = f"found {', '.join(table.columns)}{nearest(name, table.columns)}"
            raise ValueError(f"{file}: no column {name!r}: {found}")
    if not len(table):
        raise ValueError(f"{file}: found no rows, expected one for each film")
    return {str(name): table[name].to_numpy(dtype=str) for name in table.columns}


def _refuse_repeated_columns(file: Path) -> None:
    head = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    named = head[head != ""]
    if again := named[named.duplicated()].tolist():
        raise ValueError(f"{file}: column {again[0]!r} is there twice; expected each name once")


def parse_column(
    columns: Columns, name: str, parse: Callable[[str], Any], file: Path
) -> Shaped[np.ndarray, " n *k"]:
    """Return `parse(text)` for each row of a column; every distinct text is parsed once.

    Raises the parser's ValueError with the file, the line of the first such row and the column.
    """
    row, texts = pd.factorize(columns[name].astype(object))
    parsed = []
    for number, text in enumerate(texts):
        try:
            parsed.append(parse(text))
        except ValueError as error:
            line = int(np.argmax(row == number)) + 2
            raise ValueError(f"{file}, line {line}, {name}: {error}") from error
    return np.array(parsed)[row]


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


def parse_stated(text: str) -> float:
    """Return 0, 1 or, for an empty cell, NaN."""
    if text not in _STATED:
        raise ValueError(f"found {text!r}, expected 0, 1 or nothing")
    return _STATED[text]


def _number_patient(name: str) -> int:
    """Keep a plain number; turn any other name into 63 bits of its SHA-256, wherever it stands."""
    if not name:
        raise ValueError("found nothing, expected a patient: films of one patient belong together")
    if PLAIN_NUMBER.fullmatch(name):
        return int(name)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


_STATED = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "": np.nan}
