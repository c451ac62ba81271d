"""CheXpert v1.0: films of Stanford Hospital with labels from reports, validated by radiologists.

Irvin et al., AAAI 2019 (arXiv 1901.07031). What the three readers of CheXpert's kind share, the 14
findings and how they fit those of ChestX-ray14, stands here too. Letters in shapes: n films.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from lucency.core.manifest import Manifest, cells_where, empty_boxes
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import StatedCells, refuse_twice, stated_cells
from lucency.data.collections.label_columns import (
    films_of_splits,
    find_table,
    first_file,
    joined,
    origin_of,
    reading_of,
    say_short,
    step_of_contradiction,
    table_patterns,
)
from lucency.data.csv_tables import CsvTable, parse_number
from lucency.data.labels import patients_of

TITLE = "CheXpert"
FOURTEEN = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
EFFUSION = {"Pleural Effusion": "Effusion"}  # "Pleural Other" is wider than Pleural_Thickening
NORMAL = "No Finding"
DEVICES = "Support Devices"  # which may stand beside No Finding
LATERAL, FRONTAL = "LATERAL", "FRONTAL"  # views; of the latter it is not known whether PA or AP
PARTS_OF_PATH = {  # the last parts of a film's path, and how they look
    "split": r"train|valid|val|test",
    "patient": r"patient\d+",
    "study": r"study\d+",
    "file": r"view\d+_(?:frontal|lateral)\.\w+",
}
SPLIT_OF = {"train": "train", "valid": "val", "val": "val", "test": "test"}
SEXES = {"Male": "M", "Female": "F", "Unknown": "", "": ""}
TRAIN, VALID, TEST = "train.csv", "valid.csv", "test_labels.csv"
OTHERS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")  # columns that the test set's file has not


def read_chexpert(root: Path, labels: str) -> Manifest:
    """Read train.csv, valid.csv and, where it is there, test_labels.csv; or the file `labels`.

    A film is called patient00001/study1/view1_frontal.jpg, whatever folders stand before it. Facts:
    age (90 is 90 or more), sex, view, study, split. Raises ValueError for another collection's
    root, and for train.csv without valid.csv.
    """
    files = _label_files(root, labels)
    first = next(files)
    each = {first: _films_of(first)}  # before the others are looked for
    each |= {file: _films_of(file) for file in files}
    films = joined([*each.values()])
    if not labels:
        for (file, part), rows in zip(each.items(), ROWS, strict=False):
            say_short(file.name, len(part), published=rows)
    published = _published_of(films)
    origin = origin_of(films, file=first, title=TITLE, published=published)
    return replace(films, origin=origin, reading=reading_of(normal_beside(films)))


def parts_of_paths(table: CsvTable, column: str) -> pd.DataFrame:
    """Return split, patient, study and file of the paths of CheXpert's films.

    Raises ValueError for another path, with its line.
    """
    path, wide = table.columns[column].tolist(), len(PARTS_OF_PATH)
    ends = [one.replace("\\", "/").rsplit("/", wide)[-wide:] for one in path]
    parts = pd.DataFrame(
        [end if len(end) == wide else [""] * wide for end in ends],
        columns=list(PARTS_OF_PATH),
        dtype=object,
    )
    strange = np.zeros(len(path), dtype=np.bool_)
    for name, pattern in PARTS_OF_PATH.items():
        row, texts = pd.factorize(parts[name])
        strange |= np.array([not re.fullmatch(pattern, text) for text in texts])[row]
    if strange.any():
        row = int(np.argmax(strange))
        raise ValueError(
            f"{table.file}, line {table.line[row]}, {column}: found {path[row]!r}, expected a path "
            "such as CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
        )
    return parts


def parse_sex(text: str) -> str:
    """Return M, F, or "" for Unknown; raises ValueError for other text."""
    if text not in SEXES:
        raise ValueError(f"found {text!r}, expected Male, Female or Unknown")
    return SEXES[text]


def views_of(table: CsvTable, *, side: str, projection: str) -> Shaped[np.ndarray, " n"]:
    """Return LATERAL, and of frontal films AP or PA, or FRONTAL where that is not stated."""
    lateral = table.parse(side, _is_lateral)
    stated = table.parse(projection, str.upper).astype(object)
    return np.where(lateral, LATERAL, np.where(stated == "", FRONTAL, stated))


def normal_beside(films: Manifest) -> tuple[str, str, int]:
    """Return the step that counts films of No Finding and of another finding than DEVICES."""
    return step_of_contradiction(films, normal=NORMAL, beside=(DEVICES,))


def films_of_cells(
    table: CsvTable, *, image: np.ndarray, patient: str, cells: StatedCells, facts: pd.DataFrame
) -> Manifest:
    """Return the films of a label table with their cells of CheXpert's findings.

    `patient` is the column of `table` that names patients; `facts` are joined by those of all
    collections.
    """
    number, named = patients_of(table, patient)
    image = image.astype(str)
    refuse_twice(replace(table, columns={"film": image}), "film")
    return Manifest(
        findings=FOURTEEN,
        image=image,
        patient=number,
        label=cells.label,
        facts=pd.DataFrame({**named, **facts.to_dict("series"), "path": np.full(len(image), "")}),
        boxes=empty_boxes(),
        origin="",
        uncertain=cells_where(cells.uncertain, image=image, findings=FOURTEEN),
    )


def _label_files(root: Path, labels: str) -> Iterator[Path]:
    """Yield the label files; that the second is absent is noticed after the first was read."""
    if labels:
        yield find_table(root, labels, title=TITLE, usual=())
        return
    train = find_table(root, "", title=TITLE, usual=table_patterns(TRAIN))
    yield train
    valid = first_file(train.parent, *table_patterns(VALID)[:2])
    if valid is None:
        raise ValueError(
            f"{train.parent}: found {train.name} without {VALID}, half of {TITLE}: fetch the "
            "other, or name one label file by data.labels"
        )
    yield valid
    if test := first_file(train.parent, *table_patterns(TEST)[:2]):
        yield test


def _films_of(file: Path) -> Manifest:
    """Return the films of one label file."""
    table = read_columns(file, "Path", *FOURTEEN, title=TITLE, optional=OTHERS)
    parts = parts_of_paths(table, "Path")
    facts = pd.DataFrame(
        {
            "view": np.where(parts["file"].str.contains("lateral"), LATERAL, FRONTAL),
            "study": parts["patient"] + "/" + parts["study"],
            "split": parts["split"].replace(SPLIT_OF),
        }
    )
    if "Age" in table.columns:
        facts["age"] = table.parse("Age", parse_number)
    if "Sex" in table.columns:
        facts["sex"] = table.parse("Sex", parse_sex)
    if {*OTHERS[2:]} <= {*table.columns}:
        facts["view"] = views_of(table, side=OTHERS[2], projection=OTHERS[3])
    image = facts["study"] + "/" + parts["file"]
    named = replace(table, columns={"Path": parts["patient"].to_numpy(dtype=object)})
    cells = stated_cells(table, dict(zip(FOURTEEN, FOURTEEN, strict=True)))
    return films_of_cells(
        named, image=image.to_numpy(dtype=object), patient="Path", cells=cells, facts=facts
    )


def _published_of(films: Manifest) -> dict[str, int]:
    """Return the published counts of the parts that are there, as far as every part has them."""
    parts = films_of_splits(films)
    known = [PUBLISHED[name] for name in parts]
    shared = [key for key in known[0] if all(key in one for one in known)]
    return {
        **{key: sum(one[key] for one in known) for key in shared},
        **{name: PUBLISHED[name]["films"] for name in parts},
    }


def _is_lateral(text: str) -> bool:
    if text not in ("Frontal", "Lateral"):
        raise ValueError(f"found {text!r}, expected Frontal or Lateral")
    return text == "Lateral"


def _counts(films: int, patients: int, *positives: int) -> dict[str, int]:
    named = dict(zip(FOURTEEN, positives, strict=True))
    return {"films": films, "patients": patients, **named}


# Counted in the label files: of train as torchxrayvision 1.5.7 holds it, with 187,641 studies.
PUBLISHED: Mapping[str, dict[str, int]] = {
    "train": {
        **_counts(223_414, 64_540, 22_381, 10_798, 27_000, 105_581, 9_186, 52_246, 14_783, 6_039,
                  33_376, 19_448, 86_187, 3_523, 9_040, 116_001),
        "studies": 187_641,
    },
    "val": _counts(234, 200, 38, 109, 68, 126, 1, 45, 33, 8, 80, 8, 67, 1, 0, 107),
    "test": _counts(668, 500, 109, 298, 175, 310, 14, 85, 35, 14, 178, 10, 120, 8, 6, 315),
}  # fmt: skip
ROWS = tuple(one["films"] for one in PUBLISHED.values())  # of TRAIN, VALID, TEST
CHEXPERT = PublicCollection(
    title=TITLE,
    read=read_chexpert,
    findings=FOURTEEN,
    align=EFFUSION,
    no_finding=NORMAL,
    beside_no_finding=(DEVICES,),
    tables=table_patterns(TRAIN, VALID, TEST),
    published={
        key: PUBLISHED["train"][key] + PUBLISHED["val"][key]
        for key in ("films", "patients", *FOURTEEN)
    },
    traps=(
        "Labels of the training films come from reports by rules; radiologists labelled those of "
        "validation and test.",
        "An empty cell means that the report does not mention the finding, which is not absence.",
        "No Finding may stand beside Support Devices.",
        "An age of 90 means 90 or more.",
        "Fracture has no positive among the 234 validation films; Lung Lesion and Pleural Other "
        "have one: their validation AUC means nothing.",
        "Pleural Other is wider than pleural thickening and is not mapped to it.",
    ),
)
