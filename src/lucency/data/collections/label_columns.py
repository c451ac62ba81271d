"""Label files of public collections: found below a root, their columns read, counts compared.

Letters in shapes: n films.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from lucency.core.manifest import (
    OLDEST,
    READING_COLUMNS,
    UNKNOWN_PATIENT,
    Manifest,
    counted,
    listed,
    nearest,
)
from lucency.data.csv_tables import CsvTable, clean_text

SHOWN = 3  # counts that differ, files that lie in a root: what an error or a line names


def find_table(root: Path, labels: str, *, title: str, usual: Sequence[str]) -> Path:
    """Return the label file `labels` below `root`, else the first that fits a `usual` pattern.

    Raises ValueError where there is none, with what lies there instead.
    """
    if labels:
        if (root / labels).is_file():
            return root / labels
        raise ValueError(f"{root / labels}: no such file; expected a label file of {title}")
    for pattern in usual:
        if found := first_file(root, pattern):
            return found
    there = sorted(place.name for place in root.iterdir()) if root.is_dir() else []
    raise ValueError(
        f"no label file of {title} in {root}: expected {usual[0]}, found "
        f"{listed(there, most=2 * SHOWN) or 'nothing'}"
    )


def first_file(root: Path, *patterns: str) -> Path | None:
    """Return the first file below `root` that fits one of the patterns, if any does."""
    found = (file for pattern in patterns for file in sorted(root.glob(pattern)) if file.is_file())
    return next(found, None)


def read_columns(file: Path, *names: str, title: str, optional: Sequence[str] = ()) -> CsvTable:
    """Return these columns of a CSV table (plain, .gz, or alone in a .zip) as text.

    Blanks around headings and cells do not count; other columns are not kept. Made for tables of
    100,000 rows: faster than `csv_tables.read_csv`, which recognises more.
    Raises ValueError for a file that is damaged, cut short or no table, and for an absent column.
    """
    head = [clean_text(str(one)) for one in _parsed(file, title, nrows=0).columns]
    if lacking := [name for name in names if name not in head]:
        raise ValueError(
            f"{file}: no column {lacking[0]!r}{nearest(lacking[0], head)}: found {listed(head)}; "
            f"expected the label file of {title}, of the version on its documentation page"
        )
    wanted = {*names, *optional}
    table = _parsed(file, title, usecols=lambda one: clean_text(one) in wanted)
    table.columns = [clean_text(one) for one in table.columns]
    short = table.isna().any(axis=1).to_numpy()
    if short.any():
        raise ValueError(
            f"{file}, line {int(np.argmax(short)) + 2}: found a row with fewer cells than the "
            f"heading: the file is cut short; fetch the label file of {title} again"
        )
    if not len(table):
        raise ValueError(f"{file}: found no rows, expected the label file of {title}")
    return CsvTable(
        file=file,
        columns={name: table[name].str.strip().to_numpy(dtype=object) for name in table.columns},
        line=np.arange(len(table)) + 2,
        decimal_comma=False,
    )


def _parsed(file: Path, title: str, **choices: Any) -> pd.DataFrame:
    text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        return pd.read_csv(file, **text, **choices)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{file}: found no whole table ({why}); expected the label file of {title}: fetch it "
            "again"
        ) from error


def known_ages(years: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ages with NaN for those that are impossible, and how many these are."""
    absurd = (years < 0) | (years > OLDEST)
    return np.where(absurd, np.nan, years), int(absurd.sum())


def reading_of(*steps: tuple[str, str, int]) -> pd.DataFrame:
    """Return steps, their finding and films as `Manifest.reading` has them, without empty ones."""
    return pd.DataFrame([step for step in steps if step[2]], columns=list(READING_COLUMNS))


def as_published(films: Manifest, published: Mapping[str, int]) -> str:
    """Return "as published", or which of the published counts differ."""
    found = {
        "films": len(films),
        "patients": len(np.unique(films.patient)),
        "studies": films.facts["study"].nunique() if "study" in films.facts else 0,
        **dict(zip(films.findings, positives(films.label), strict=True)),
    }
    others = [
        f"{name} {found.get(name, 0):,}, not {count:,}"
        for name, count in published.items()
        if found.get(name, 0) != count
    ]
    if not others:
        return "as published"
    more = f" and {len(others) - SHOWN} more counts" if len(others) > SHOWN else ""
    return f"not as published ({'; '.join(others[:SHOWN])}{more})"


def positives(label: Float32[np.ndarray, "n k"]) -> list[int]:
    """Return how many labels of each finding are 1."""
    return (label == 1).sum(axis=0).tolist()


def origin_of(films: Manifest, *, file: Path, title: str, published: Mapping[str, int]) -> str:
    """Return where films come from: file, collection, version, films and patients."""
    known = len(np.unique(films.patient[films.patient != UNKNOWN_PATIENT]))
    patients = counted(known, "patient") if known else "unknown patients"
    return (
        f"{file.name}: {title}, {as_published(films, published)}, "
        f"{counted(len(films), 'film')} of {patients}"
    )
