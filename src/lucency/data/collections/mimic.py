"""MIMIC-CXR-JPG 2.1.0: films of Beth Israel Deaconess Medical Center, labelled study by study.

Johnson et al., 2019 (arXiv 1901.07042). Age and sex are MIMIC-IV's. What CXR-LT, which labels the
same films anew, has in common with it stands here too. Letters in shapes: n films.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64, Shaped

from lucency.core.manifest import Manifest, cells_where, counted, empty_boxes
from lucency.core.progress import say
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.chexpert import (
    DEVICES,
    EFFUSION,
    FOURTEEN,
    LATERAL,
    normal_beside,
)
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import (
    StatedCells,
    cells_at,
    parse_part,
    refuse_twice,
    rows_of,
    stated_cells,
)
from lucency.data.collections.label_columns import (
    find_table,
    first_file,
    origin_of,
    reading_of,
    say_short,
    step_of_absent,
    table_patterns,
)
from lucency.data.csv_tables import CsvTable, parse_number, parse_whole
from lucency.data.labels import patients_of

TITLE = "MIMIC-CXR-JPG"
METADATA, SPLIT = "mimic-cxr-2.*-metadata.csv", "mimic-cxr-2.*-split.csv"
LABELLERS = {  # what `data.labels` may name, and the files
    "chexpert": "mimic-cxr-2.*-chexpert.csv",
    "negbio": "mimic-cxr-2.*-negbio.csv",
    "test-set-labeled": "mimic-cxr-2.*-test-set-labeled.csv",
}
USUAL = "chexpert"  # of LABELLERS
OPACITY, AIRSPACE = "Lung Opacity", "Airspace Opacity"  # the latter in the test set's file
PATIENTS = table_patterns("patients.csv", "hosp/patients.csv", "*/hosp/patients.csv")  # MIMIC-IV's
IDS = FILM, PATIENT, STUDY = "dicom_id", "subject_id", "study_id"
DATE, VIEW, VIEW_CODE = "StudyDate", "ViewPosition", "ViewCodeSequence_CodeMeaning"
VIEW_OF_CODE = {  # where the position is empty
    "postero-anterior": "PA",
    "antero-posterior": "AP",
    "lateral": LATERAL,
    "left lateral": "LL",
}
PEOPLE = (PATIENT, "gender", "anchor_age", "anchor_year")
OLDEST_ANCHOR = 91  # years, for all who are older
SPLIT_OF = {"train": "train", "validate": "val", "test": "test"}
# Of the page and the tables of release 2.1.0. Studies: 227,827 with a row of labels, 8 without.
PUBLISHED = {"films": 377_110, "studies": 227_835, "train": 368_960, "val": 2_991, "test": 5_159}
ROWS = {"chexpert": 227_827, "negbio": 227_827, "test-set-labeled": 687}  # of LABELLERS
READ = {"studies": 687}  # by radiologists, of the test set


def read_mimic_cxr(root: Path, labels: str) -> Manifest:
    """Read the films of the metadata, with the labels of their studies and the official split.

    `labels` is chexpert ("" too) or negbio, or names a file; with test-set-labeled the films are
    those of the studies that radiologists have read. A film is called by its path,
    files/p10/p10000032/s50414267/ and its dicom_id, without suffix. Facts: view, study, split, and
    age and sex where MIMIC-IV's patients.csv lies below `root`; no date, for dates are shifted
    patient by patient. Films whose study has no row of labels have none stated and are counted.
    Raises ValueError for another collection's root, and where one of the tables is not there.
    """
    file = find_table(root, "", title=TITLE, usual=table_patterns(METADATA))
    films = read_columns(file, *IDS, VIEW, VIEW_CODE, DATE, title=TITLE)
    say_short(file.name, len(films.line), published=PUBLISHED["films"])
    stated, column = _label_table(root, file.parent, labels)
    usual = table_patterns(SPLIT)
    split = read_columns(
        find_table(file.parent, "", title=TITLE, usual=usual), *IDS, "split", title=TITLE
    )
    say_short(split.file.name, len(split.line), published=PUBLISHED["films"])
    lacking = _say_without_view(films, split)
    if AIRSPACE in stated.columns:
        films = _of_read_studies(films, stated)
    row, place = (
        rows_of(films.columns[STUDY], stated, STUDY),
        rows_of(films.columns[FILM], split, FILM),
    )
    for other, rows in ((stated, row), (split, place)):
        if (rows < 0).all():
            raise ValueError(
                f"{other.file}: none of its {counted(len(other.line), 'row')} is of a film in "
                f"{films.file.name}; expected the tables of one release of {TITLE}"
            )
        _refuse_other_patients(films, other, rows)
    facts = {
        "view": views_of_positions(films),
        "split": np.append(split.parse("split", parse_part(SPLIT_OF)), "")[place],
        **people(root, films.columns[PATIENT], year=films.parse(DATE, parse_year)),
    }
    manifest = films_of_studies(
        films, cells=cells_at(stated_cells(stated, column), row), findings=FOURTEEN, facts=facts
    )
    reading = reading_of(
        step_of_absent(stated.file, row >= 0),
        step_of_absent(split.file, place >= 0),
        (f"left out: no row in {films.file.name}", "", lacking),
        normal_beside(manifest),
    )
    published = READ if AIRSPACE in stated.columns else PUBLISHED
    origin = origin_of(manifest, file=stated.file, title=TITLE, published=published)
    return replace(manifest, origin=origin, reading=reading)


def _say_without_view(films: CsvTable, split: CsvTable) -> int:
    """Return how many films of the split the metadata lacks, and report them."""
    lacking = int((rows_of(split.columns[FILM], films, FILM) < 0).sum())
    if lacking:
        have = counted(lacking, "film", "has/have", of=len(split.line))
        say(f"{split.file.name}: {have} no row in {films.file.name}, and no view: left out")
    return lacking


def films_of_studies(
    films: CsvTable,
    *,
    cells: StatedCells,
    findings: tuple[str, ...],
    facts: dict[str, Shaped[np.ndarray, " n"]],
) -> Manifest:
    """Return the films of a table that names MIMIC's films, patients and studies by their ids."""
    refuse_twice(films, FILM)
    patient, named = patients_of(films, PATIENT)
    films.parse(STUDY, parse_whole)
    image, study = _image_names(films), films.columns[STUDY]
    return Manifest(
        findings=findings,
        image=image,
        patient=patient,
        label=cells.label,
        facts=pd.DataFrame({**named, "study": study, **facts, "path": np.full(len(image), "")}),
        boxes=empty_boxes(),
        origin="",
        uncertain=cells_where(cells.uncertain, image=image, findings=findings),
    )


def views_of_positions(films: CsvTable) -> Shaped[np.ndarray, " n"]:
    """Return the view position; where it is empty that of the view's code, "" where unknown."""
    position = films.parse(VIEW, str.upper)
    code = films.parse(VIEW_CODE, lambda text: VIEW_OF_CODE.get(text.strip().casefold(), ""))
    return np.where(position == "", code, position)


def people(
    root: Path, subject: Shaped[np.ndarray, " n"], *, year: Float64[np.ndarray, " n"]
) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Return age and sex of each film's patient by MIMIC-IV's patients.csv, or nothing without it.

    `year` is that of each film's study. An age of 91 stands for all above 89. Reports what lacks.
    """
    file = first_file(root, *PATIENTS)
    if file is None:
        say(
            f"{root}: without MIMIC-IV's hosp/patients.csv.gz no film has age and sex: put it "
            "there where they are needed"
        )
        return {}
    table = read_columns(file, *PEOPLE, title="MIMIC-IV")
    row = rows_of(subject, table, PATIENT)
    age, born = (np.append(table.parse(name, parse_number), np.nan)[row] for name in PEOPLE[2:])
    if lost := int((row < 0).sum()):
        say(f"{file}: the patients of {counted(lost, 'film', 'is/are')} not in it: no age, no sex")
    return {
        "age": np.minimum(age + year - born, OLDEST_ANCHOR),
        "sex": np.append(table.parse("gender", str.upper), "")[row],
    }


def parse_year(text: str) -> float:
    """Return the year of a date such as 21800506, NaN for none."""
    if text and not (len(text) == 8 and text.isascii() and text.isdigit()):
        raise ValueError(f"found {text!r}, expected a date such as 21800506")
    return float(text[:4] or "nan")


def tables_beside_metadata(root: Path, labels: str) -> Iterator[Path]:
    """Yield the tables of films and studies that lie beside the metadata, or in a folder there."""
    metadata = first_file(root, *table_patterns(METADATA))
    if metadata is None:
        return
    for name in (SPLIT, LABELLERS.get(labels or USUAL, "")):
        if name and (file := first_file(metadata.parent, *table_patterns(name))):
            yield file


def _label_table(root: Path, folder: Path, labels: str) -> tuple[CsvTable, dict[str, str]]:
    """Return the table of studies' labels, and the column of each finding in it."""
    kind = labels or USUAL
    named = "" if kind in LABELLERS else labels
    usual = table_patterns(LABELLERS.get(kind, ""))
    file = find_table(root if named else folder, named, title=TITLE, usual=usual)
    required = [name for name in FOURTEEN if name != OPACITY]
    optional = (PATIENT, OPACITY, AIRSPACE)
    table = read_columns(file, STUDY, *required, title=TITLE, optional=optional)
    say_short(file.name, len(table.line), published=ROWS.get(kind, 0))
    opacity = next((name for name in (OPACITY, AIRSPACE) if name in table.columns), "")
    if not opacity:
        raise ValueError(f"{file}: found neither {OPACITY!r} nor {AIRSPACE!r}; expected one")
    return table, {name: opacity if name == OPACITY else name for name in FOURTEEN}


def _of_read_studies(films: CsvTable, stated: CsvTable) -> CsvTable:
    """Return the films of the studies that a label table has."""
    kept = np.isin(films.columns[STUDY].astype(str), stated.columns[STUDY].astype(str))
    if not kept.any():
        raise ValueError(f"{stated.file}: none of its studies is in {films.file}: expected some")
    columns = {name: cells[kept] for name, cells in films.columns.items()}
    return replace(films, columns=columns, line=films.line[kept])


def _refuse_other_patients(films: CsvTable, other: CsvTable, row: Int64[np.ndarray, " n"]) -> None:
    """Raise ValueError where another table has another patient for a film or study."""
    if PATIENT not in other.columns:
        return
    differs = (row >= 0) & (films.columns[PATIENT] != other.columns[PATIENT][row])
    if differs.any():
        place = int(np.argmax(differs))
        raise ValueError(
            f"{other.file}, line {other.line[row[place]]}: found {PATIENT} "
            f"{other.columns[PATIENT][row[place]]}, expected {films.columns[PATIENT][place]} as in "
            f"{films.file.name}: the tables are of different releases"
        )


def _image_names(films: CsvTable) -> Shaped[np.ndarray, " n"]:
    patient, study, film = (
        pd.Series(films.columns[name], dtype=object) for name in (PATIENT, STUDY, FILM)
    )
    path = "files/p" + patient.str[:2] + "/p" + patient + "/s" + study + "/" + film
    return path.to_numpy(dtype=str)


MIMIC_CXR = PublicCollection(
    title=TITLE,
    read=read_mimic_cxr,
    findings=FOURTEEN,
    align=EFFUSION,
    no_finding="No Finding",
    beside_no_finding=(DEVICES,),
    tables=(*table_patterns(METADATA, SPLIT, *LABELLERS.values()), *PATIENTS),
    deeper=tables_beside_metadata,
    published=PUBLISHED,
    traps=(
        "Labels are those of a study's report: every film of a study has them, its lateral too.",
        "An empty cell means that the report does not mention the finding, which is not absence.",
        "The films were inverted where needed and had their histogram equalised when they were "
        "published.",
        "Dates are shifted into the future by another span for each patient: they order the films "
        "of one patient alone.",
        "Age and sex come from MIMIC-IV; an age of 91 means older than 89.",
        "In the file of the test set that radiologists have read, Airspace Opacity stands for Lung "
        "Opacity.",
    ),
)
