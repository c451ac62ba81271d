"""The labels of a label file: NIH's, a manifest, or a table of 0 and 1; no picture is read.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest, load_manifest
from lucency.data.nih import LABEL_COLUMN, films_of_nih, parse_label_column
from lucency.data.tables import (
    NAMELESS,
    STATED,
    Columns,
    parse_column,
    parse_stated,
    read_columns,
    read_labels_of_table,
)

MOSTLY = 0.5  # share of cells of 0 or 1 from which a column is meant as a finding's
NEVER_FINDINGS = (
    "image", "patient", "age", "sex", "view", "follow_up", "width", "height",  # of a manifest
    NO_FINDING.casefold(),  # which follows from the findings
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The labels of a file: 1, 0 or NaN (not stated); the names of columns that are no findings."""

    findings: tuple[str, ...]
    label: Float32[np.ndarray, "n k"]
    left_out: tuple[str, ...]


def read_labels(file: Path) -> Labels:
    """Read the labels of NIH's file (14 findings), of a manifest, or of a table's 0/1 columns.

    Plain or .gz. Raises ValueError when there is no such file, or no column of 0, 1 and empty.
    """
    columns = read_label_columns(file)
    if LABEL_COLUMN in columns:
        return Labels(findings=FINDINGS, label=parse_label_column(columns, file), left_out=())
    findings = _findings(file, columns)
    cells = [parse_column(columns, name, parse_stated, file) for name in findings]
    return Labels(
        findings=findings,
        label=np.stack(cells, axis=1).astype(np.float32),
        left_out=tuple(name for name in columns if name not in findings),
    )


def read_labelled(file: Path) -> Manifest:
    """Read a label file with its images' and patients' names, boxes and facts.

    NIH's file, a manifest, or a table with the columns image and patient. Pictures are not looked
    for; raises ValueError as `read_labels` does.
    """
    columns = read_label_columns(file)
    if LABEL_COLUMN in columns:
        return films_of_nih(columns, file, root=file.parent)
    findings = _findings(file, columns)
    if _is_manifest(file):
        return load_manifest(file.parent)
    return read_labels_of_table(columns, file, findings=findings)


def read_label_columns(file: Path) -> Columns:
    """Return the columns of a label file as text; raises ValueError where there is no such file."""
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "no such file"
        raise ValueError(f"{file}: {found}; expected a label file (.csv or .csv.gz)")
    return read_columns(file)


def _is_manifest(file: Path) -> bool:
    return file.name == "manifest.csv" and file.with_name("manifest.json").is_file()


def _findings(file: Path, columns: Columns) -> tuple[str, ...]:
    """Return what the manifest beside the table names, or the columns of 0, 1 and empty cells.

    A column where most cells are 0 or 1 is meant as one, and its odd cells are refused later.
    """
    if _is_manifest(file):
        findings = _named(file.with_name("manifest.json"))
        if absent := [name for name in findings if name not in columns]:
            raise ValueError(
                f"{file}: no column {absent[0]!r}, which manifest.json names as finding"
            )
    else:
        findings = tuple(name for name in columns if _is_finding(name, columns[name]))
    if not findings:
        raise ValueError(
            f"{file}: found the columns {', '.join(columns)}; expected {LABEL_COLUMN!r}, or a "
            "column of 0, 1 and empty cells for each finding"
        )
    return findings


def _is_finding(name: str, cells: np.ndarray) -> bool:
    if name.startswith(NAMELESS) or name.casefold() in NEVER_FINDINGS:
        return False
    share = float(np.isin(cells, [text for text in STATED if text]).mean())
    return share >= MOSTLY or (share > 0 and set(cells.tolist()) <= STATED.keys())


def _named(about: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(about.read_text())["findings"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{about}: found no list of findings, expected a run's file") from error
