"""The labels of any label file, without a look at a picture: NIH's, a manifest, a table of 0 and 1.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest, load_manifest
from lucency.data.nih import LABEL_COLUMN, parse_label_column, read_nih
from lucency.data.tables import Columns, parse_column, parse_stated, read_columns, read_csv_table

SAID = ("0", "1", "0.0", "1.0")
STATED = frozenset(("", *SAID))
MOSTLY = 0.5
NAMELESS = "Unnamed: "  # what pandas calls a column without a head
NEVER_FINDINGS = (
    "image", "patient", "age", "sex", "view", "follow_up", "width", "height",  # of a manifest
    NO_FINDING.casefold(),  # which the findings say
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What a label file says of its films: 1, 0 or NaN (not stated); columns left out by name."""

    findings: tuple[str, ...]
    label: Float32[np.ndarray, "n k"]
    left_out: tuple[str, ...]


def read_labels(file: Path) -> Labels:
    """Read the labels of NIH's file (14 findings), of a manifest, or of a table's 0/1 columns.

    Plain or .gz. Raises ValueError when there is no such file, or no column of 0, 1 and empty.
    """
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "no such file"
        raise ValueError(f"{file}: {found}; expected a label file (.csv or .csv.gz)")
    columns = read_columns(file, required=())
    if LABEL_COLUMN in columns:
        return Labels(findings=FINDINGS, label=parse_label_column(columns, file), left_out=())
    findings = _findings(file, columns)
    if not findings:
        raise ValueError(
            f"{file}: found the columns {', '.join(columns)}; expected {LABEL_COLUMN!r}, or a "
            "column of 0, 1 and empty cells for each finding"
        )
    cells = [parse_column(columns, name, parse_stated, file) for name in findings]
    return Labels(
        findings=findings,
        label=np.stack(cells, axis=1).astype(np.float32),
        left_out=tuple(name for name in columns if name not in findings),
    )


def read_labelled(file: Path) -> Manifest:
    """Read a label file with its images' and patients' names; pictures may be absent.

    NIH's file, a manifest, or a table with the columns image and patient.
    """
    read = read_labels(file)
    if LABEL_COLUMN in read_columns(file, required=()):
        return read_nih(file.parent, labels=file.name)
    if file.name == "manifest.csv" and file.with_name("manifest.json").is_file():
        return load_manifest(file.parent)
    key = {"image_column": "image", "patient_column": "patient"}
    return read_csv_table(file.parent, labels=file.name, findings=read.findings, **key)


def _findings(file: Path, columns: Columns) -> tuple[str, ...]:
    """Return what the manifest beside the table names, or the columns of 0, 1 and empty cells.

    A column where most cells are 0 or 1 is meant as one, and its odd cells are refused later.
    """
    about = file.with_name("manifest.json")
    if file.name == "manifest.csv" and about.is_file():
        findings = _named(about)
        if absent := [name for name in findings if name not in columns]:
            raise ValueError(
                f"{file}: no column {absent[0]!r}, which {about.name} names as finding"
            )
        return findings
    stated = {name: float(np.isin(cells, SAID).mean()) for name, cells in columns.items()}
    held = {name: set(cells.tolist()) for name, cells in columns.items()}
    named = [
        name
        for name, share in stated.items()
        if not name.startswith(NAMELESS)
        and name.casefold() not in NEVER_FINDINGS
        and (share >= MOSTLY or (share and held[name] <= STATED))
    ]
    return tuple(named)


def _named(about: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(about.read_text(encoding="utf-8"))["findings"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{about}: found no list of findings, expected a run's file") from error
