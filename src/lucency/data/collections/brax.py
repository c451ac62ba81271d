"""BRAX 1.1.0: films of Hospital Israelita Albert Einstein, labelled from Portuguese reports.

Reis et al., Scientific Data 2022. Letters in shapes: n films.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.manifest import Manifest, cells_where, empty_boxes
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.chexpert import DEVICES, EFFUSION, FOURTEEN, normal_beside
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import refuse_twice, stated_cells
from lucency.data.collections.label_columns import (
    find_table,
    origin_of,
    reading_of,
    say_short,
    table_patterns,
)
from lucency.data.csv_tables import CsvTable, parse_number
from lucency.data.labels import patients_of

TITLE = "BRAX"
TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")  # the newer first
PNG, DICOM, PATIENT = "PngPath", "DicomPath", "PatientID"
PNG_FOLDER, DICOM_FOLDER = "images", "Anonymized_DICOMs"
COLUMNS = (
    DICOM, PNG, PATIENT, "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition",
    "Manufacturer",
)  # fmt: skip
OR_MORE = " or more"
PUBLISHED = {"films": 40_967, "studies": 24_959, "patients": 19_351}  # of its page


def read_brax(root: Path, labels: str) -> Manifest:
    """Read master_spreadsheet_update.csv, else the older master_spreadsheet.csv, or `labels`.

    A film is called by its PNG's path, by its DICOM file's where only those lie there. Facts: age
    (the lower end of a group of five years, 85 is 85 or more), sex, view, study (patient and
    accession number, which is not unique), device (coded); no date, for dates are invented. Raises
    ValueError for another collection's root.
    """
    file = find_table(root, labels, title=TITLE, usual=table_patterns(*TABLES))
    table = read_columns(file, *COLUMNS, *FOURTEEN, title=TITLE)
    if not labels:
        say_short(file.name, len(table.line), published=PUBLISHED["films"])
    stored = DICOM if _has_dicom_alone(file.parent) else PNG
    refuse_twice(table, stored)
    image = table.columns[stored].astype(str)
    patient, named = patients_of(table, PATIENT)
    study = [f"{one}/{number}" for one, number in _pairs(table, PATIENT, "AccessionNumber")]
    facts = {
        "age": table.parse("PatientAge", _parse_age),
        "sex": table.columns["PatientSex"],
        "view": table.parse("ViewPosition", str.upper),
        "study": study,
        "device": table.columns["Manufacturer"],
    }
    cells = stated_cells(table, dict(zip(FOURTEEN, FOURTEEN, strict=True)))
    films = Manifest(
        findings=FOURTEEN,
        image=image,
        patient=patient,
        label=cells.label,
        facts=pd.DataFrame({**named, **facts, "path": np.full(len(image), "")}),
        boxes=empty_boxes(),
        origin="",
        uncertain=cells_where(cells.uncertain, image=image, findings=FOURTEEN),
    )
    origin = origin_of(films, file=file, title=TITLE, published=PUBLISHED)
    return replace(films, origin=origin, reading=reading_of(normal_beside(films)))


def _has_dicom_alone(folder: Path) -> bool:
    return (folder / DICOM_FOLDER).is_dir() and not (folder / PNG_FOLDER).is_dir()


def _pairs(table: CsvTable, *names: str) -> zip[tuple[str, ...]]:
    return zip(*(table.columns[name].tolist() for name in names), strict=True)


def _parse_age(text: str) -> float:
    """Return an age, of "85 or more" 85, NaN for none."""
    return parse_number(text.removesuffix(OR_MORE))


BRAX = PublicCollection(
    title=TITLE,
    read=read_brax,
    findings=FOURTEEN,
    align=EFFUSION,
    no_finding="No Finding",
    beside_no_finding=(DEVICES,),
    tables=table_patterns(*TABLES),
    published=PUBLISHED,
    traps=(
        "Labels come from Portuguese reports by CheXpert's rules; an empty cell means that the "
        "report does not mention the finding, which is not absence.",
        "Ages are groups of five years; 85 means 85 or more.",
        "An accession number is not unique: a study is a patient and a number.",
        "Dates are invented, and there is no official split.",
    ),
)
