"""Radiologists' labels of ChestX-ray14 films, as Google Health published them: every reading, too.

Four findings: Majkowska et al., Radiology 294 (2020), 421-431. All findings: Nabulsi et al.,
Scientific Reports 11 (2021), 15523; readers labelled them only on films that they called abnormal.
The films were chosen to hold many findings: their shares are not those of the collection. For
research and education only. Letters in shapes: n films, m readings, k findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64, Shaped

from lucency.core.manifest import FINDINGS, Manifest, counted, empty_boxes, nearest, require
from lucency.data.csv_tables import CsvTable, parse_whole, read_csv

FOUR_FINDINGS = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")
Release = Literal["all", "four"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """Single readers' labels, one row a reading: 1, 0 or NaN (hedged).

    A reader may have read a film twice.
    """

    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " m"]
    patient: Int64[np.ndarray, " m"]
    reader: Int64[np.ndarray, " m"]
    label: Float32[np.ndarray, "m k"]

    def __post_init__(self) -> None:
        rows = len(self.image)
        lengths = [len(self.patient), len(self.reader)]
        require(lengths == [rows] * 2, "patient, reader", lengths)
        require(self.label.shape == (rows, len(self.findings)), "label", self.label.shape)

    def __len__(self) -> int:
        return len(self.image)


def read_expert_table(file: Path) -> Manifest:
    """Read one table of published labels, of either release: 14 findings, or four.

    Facts: `abnormal` and `other` (1 or 0) of the former; `part` (test or val) of the latter. Raises
    ValueError when the file is absent, or for a cell that is not YES, NO or HEDGE (NaN).
    """
    table = _read(file)
    findings = RELEASES[release_of(table.columns)].findings
    facts = {
        fact: table.parse(name, parse)
        for name, (fact, parse) in _FACTS.items()
        if name in table.columns
    }
    image = table.columns[_spelt(table, _IMAGE)]
    return Manifest(
        findings=findings,
        image=image,
        patient=table.parse("Patient ID", parse_whole),
        label=_labels(table, findings),
        facts=pd.DataFrame(facts, index=range(len(image))),
        boxes=empty_boxes(),
        origin=f"radiologists, {file.name}: {counted(len(image), 'film')}",
    )


def release_of(names: Iterable[str]) -> Release:
    """Return the release whose table has columns of these names."""
    return "four" if FOUR_FINDINGS[0] in names else "all"


def read_readings(root: Path, *, release: Release) -> Readings:
    """Read every reader's labels of every film of a release; HEDGE is NaN.

    Raises ValueError when the file is absent, or for a cell that is not YES, NO or HEDGE.
    """
    if release not in RELEASES:
        known = f"expected {' or '.join(RELEASES)}"
        raise ValueError(f"release {release!r} is unknown; {known}{nearest(release, RELEASES)}")
    about = RELEASES[release]
    table = _read(root / about.readings)
    return Readings(
        findings=about.findings,
        image=table.columns[_spelt(table, _IMAGE)],
        patient=table.parse("Patient ID", parse_whole),
        reader=table.parse("Reader ID", parse_whole),
        label=_labels(table, about.findings),
    )


class _Release(NamedTuple):
    findings: tuple[str, ...]
    labels: tuple[str, ...]
    readings: str


def _read(file: Path) -> CsvTable:
    table = read_csv(file, expected="a table of Google's chest-xray-labels")
    table.require("Patient ID")
    return table


def _labels(table: CsvTable, findings: tuple[str, ...]) -> Float32[np.ndarray, "m k"]:
    label = [table.parse(_spelt(table, finding), _parse_answer) for finding in findings]
    return np.stack(label, axis=1).astype(np.float32)


def _spelt(table: CsvTable, name: str) -> str:
    """Return the column of that name, in any spelling of the releases."""
    for spelling in (name, *_SPELLINGS.get(name, ())):
        if spelling in table.columns:
            return spelling
    raise ValueError(
        f"{table.file}: found the columns {', '.join(table.columns)}; expected {name!r}"
    )


def _parse_answer(text: str) -> float:
    if text not in _ANSWERS:
        raise ValueError(f"found {text!r}, expected {', '.join(_ANSWERS)}")
    return _ANSWERS[text]


_IMAGE = "Image ID"
_SPELLINGS = {
    _IMAGE: ("Image Index",),
    "Pleural_Thickening": ("Pleural Thickening",),
    "Nodule or mass": ("Nodule/mass",),
}
_FACTS = {"Abnormal": ("abnormal", _parse_answer), "Other": ("other", _parse_answer),
          "Set Id": ("part", str)}  # fmt: skip
_ANSWERS = {"YES": 1.0, "NO": 0.0, "HEDGE": np.nan}
RELEASES = {
    "all": _Release(
        FINDINGS,
        ("all_findings_expert_labels_test_labels.csv",),
        "all_findings_expert_labels_test_individual_readers.csv",
    ),
    "four": _Release(
        FOUR_FINDINGS,
        (
            "four_findings_expert_labels_test_labels.csv",
            "four_findings_expert_labels_validation_labels.csv",
        ),
        "four_findings_expert_labels_individual_readers.csv",
    ),
}
