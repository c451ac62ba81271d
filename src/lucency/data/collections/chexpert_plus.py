"""CheXpert Plus: CheXpert's studies again, as DICOM or PNG, with reports and labels by CheXbert.

Chambon et al., 2024 (arXiv 2405.19538). Its labels are JSON lines, one object a film, made of the
whole report, its impression or its findings. Letters in shapes: n films.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from lucency.core.manifest import Manifest
from lucency.core.memory import says_out_of_memory
from lucency.core.progress import say
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.chexpert import (
    DEVICES,
    EFFUSION,
    FOURTEEN,
    SPLIT_OF,
    films_of_cells,
    normal_beside,
    parse_sex,
    parts_of_paths,
    views_of,
)
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import (
    UNSURE,
    StatedCells,
    as_cells,
    cells_at,
    parse_part,
    rows_of,
)
from lucency.data.collections.label_columns import (
    find_table,
    first_file,
    origin_of,
    reading_of,
    step_of_absent,
    table_patterns,
)
from lucency.data.csv_tables import DAMAGED_ZIP, CsvTable, parse_number

TITLE = "CheXpert Plus"
TABLE, OTHER_TABLES = "df_chexpert_plus_240401.csv", "df_chexpert_plus_*.csv"
ARCHIVE = "chexbert_labels.zip"
KINDS = ("impression", "report", "findings")  # of what the labels are made; the first is the usual
PATH = "path_to_image"
COLUMNS = (PATH, "frontal_lateral", "ap_pa", "deid_patient_id", "age", "sex", "split")
PEOPLE = ("race", "ethnicity")
LONGEST = 1 << 16  # bytes of a line of labels
PUBLISHED = {"studies": 187_711, "patients": 64_725}  # by the data set's page


def read_chexpert_plus(root: Path, labels: str) -> Manifest:
    """Read the table of films, and the labels made of the section of reports that `labels` names.

    That is impression ("" too), report or findings, or a file of JSON lines below `root`. A film is
    called patient00001/study1/view1_frontal, without suffix, as it may be PNG, JPEG or DICOM.
    Facts: age, sex, view, study, split; race and ethnicity where the table has them. Films without
    a line of labels have none stated and are counted. Raises ValueError for another collection's
    root, and where the labels are not there.
    """
    file = find_table(root, "", title=TITLE, usual=table_patterns(TABLE, OTHER_TABLES))
    table = read_columns(file, *COLUMNS, title=TITLE, optional=PEOPLE)
    lines = _label_lines(root, file.parent, labels)
    row = rows_of(table.columns[PATH], lines[0], PATH)
    parts = parts_of_paths(table, PATH)
    facts = pd.DataFrame(
        {
            "view": views_of(table, side="frontal_lateral", projection="ap_pa"),
            "study": parts["patient"] + "/" + parts["study"],
            "split": table.parse("split", parse_part(SPLIT_OF)),
            "age": table.parse("age", parse_number),
            "sex": table.parse("sex", parse_sex),
            **{name: table.columns[name] for name in PEOPLE if name in table.columns},
        }
    )
    image = (facts["study"] + "/" + parts["file"].str.partition(".")[0]).to_numpy(dtype=object)
    films = films_of_cells(
        table, image=image, patient="deid_patient_id", cells=cells_at(lines[1], row), facts=facts
    )
    return _counted(films, table, lines[0], row, parts["patient"].to_numpy(dtype=object))


def _counted(
    films: Manifest, table: CsvTable, lines: CsvTable, row: np.ndarray, owner: np.ndarray
) -> Manifest:
    """Return the films with what reading counts; what does not fit is reported."""
    without, strange = int((row < 0).sum()), len(lines.line) - len(np.unique(row[row >= 0]))
    if without == len(films):
        raise ValueError(
            f"{lines.file}: none of its {len(lines.line):,} lines is a film of {table.file.name}; "
            f"expected the same {PATH}, such as {table.columns[PATH][0]!r}"
        )
    if strange:
        say(f"{lines.file}: {strange:,} of its films are not in {table.file.name}")
    others = int((table.columns["deid_patient_id"] != owner).sum())
    if others:
        say(f"{table.file}: {others:,} films of another deid_patient_id than their path names")
    return replace(
        films,
        origin=origin_of(films, file=lines.file, title=TITLE, published=PUBLISHED),
        reading=reading_of(step_of_absent(lines.file, row >= 0), normal_beside(films)),
    )


def _label_lines(root: Path, folder: Path, labels: str) -> tuple[CsvTable, StatedCells]:
    """Return the paths of a file of labels, as a table with its lines, and its cells."""
    with _opened(root, folder, labels) as (file, lines):
        path, state = _parsed(file, lines)
    table = CsvTable(
        file=file, columns={PATH: path}, line=np.arange(len(path)) + 1, decimal_comma=False
    )
    strange = ~(np.isnan(state) | np.isin(state, (0, 1, UNSURE)))
    if strange.any():
        row, column = np.argwhere(strange)[0].tolist()
        raise ValueError(
            f"{file}, line {row + 1}, {FOURTEEN[column]}: found {state[row, column]:g}, expected "
            "1, 0, -1 (uncertain) or null"
        )
    return table, as_cells(state)


@contextmanager
def _opened(root: Path, folder: Path, labels: str) -> Iterator[tuple[Path, Iterator[bytes]]]:
    """Lend the lines of the file that `labels` names, and its name; it may lie in the archive."""
    kind = labels or KINDS[0]
    name = f"{kind}_fixed.json"
    if kind in KINDS:
        file = first_file(folder, name, f"*/{name}")
    else:
        file = find_table(root, labels, title=TITLE, usual=())
    if file:
        with file.open("rb") as stream:
            yield file, _lines_of(stream)
        return
    archive = first_file(folder, ARCHIVE, f"*/{ARCHIVE}")
    if archive is None:
        raise ValueError(
            f"{folder}: found no {name} and no {ARCHIVE}: the labels of {TITLE} are not there; "
            "fetch them, or name a file of JSON lines by data.labels"
        )
    try:
        with zipfile.ZipFile(archive) as held:
            members = [one for one in held.namelist() if one.rpartition("/")[2] == name]
            if not members:
                raise ValueError(
                    f"{archive}: found no {name} in it; expected the labels of {TITLE}"
                )
            with held.open(members[0]) as stream:
                yield archive / name, _lines_of(stream)
    except (*DAMAGED_ZIP, OSError) as error:
        if says_out_of_memory(error):
            raise
        raise ValueError(f"{archive}: found a damaged archive ({error}): fetch it again") from error


def _lines_of(stream: Any) -> Iterator[bytes]:
    """Yield the lines of a file, none longer than LONGEST."""
    return iter(partial(stream.readline, LONGEST), b"")


def _parsed(
    file: Path, lines: Iterator[bytes]
) -> tuple[Shaped[np.ndarray, " n"], Float64[np.ndarray, "n k"]]:
    """Return path and states of each line."""
    key, value, path, state = (
        itemgetter(PATH),
        itemgetter(*FOURTEEN),
        list[str](),
        list[tuple[object, ...]](),
    )
    for number, line in enumerate(lines, start=1):
        try:
            one = json.loads(line)
            path.append(key(one))
            state.append(value(one))
        except KeyError as error:
            raise ValueError(
                f"{file}, line {number}: found no {error.args[0]!r}, expected {PATH} and the 14 "
                f"findings of {TITLE}"
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{file}, line {number}: found no JSON object, expected one a line: {PATH} and "
                f"labels of {TITLE}; if the file is cut short, fetch it again"
            ) from error
    if not path:
        raise ValueError(f"{file}: found no line, expected one a film of {TITLE}")
    try:
        return np.array(path, dtype=object), np.array(state, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{file}: found a label that is no number ({error})") from error


CHEXPERT_PLUS = PublicCollection(
    title=TITLE,
    read=read_chexpert_plus,
    findings=FOURTEEN,
    align=EFFUSION,
    no_finding="No Finding",
    beside_no_finding=(DEVICES,),
    tables=(
        *table_patterns(TABLE, OTHER_TABLES),
        *(f"{folder}{name}" for folder in ("", "*/", "*/*/") for name in ("*_fixed.json", ARCHIVE)),
    ),
    published=PUBLISHED,
    traps=(
        "The films are CheXpert's: a network that has seen one has seen the other.",
        "Labels are made by CheXbert from one section of the reports, the impression unless "
        "data.labels names another; a findings section exists for about a quarter of the films.",
        "null means that the section does not mention the finding, which is not absence.",
        "About 5 % of the DICOM files lack HighBit; .azDownload-* are fragments of a download.",
    ),
)
