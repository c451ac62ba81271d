"""VinDr-CXR: films that three radiologists read, in PhysioNet's layout and in Kaggle's.

Nguyen et al., Scientific Data 2022 (arXiv 2012.15029). PhysioNet has 15,000 films of train by three
readers and 3,000 of test by consensus, 28 findings; Kaggle's train.csv has the 15,000 and 15 of the
findings. Letters in shapes: n films, k findings, r readings (a film by a reader).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped

from lucency.core.manifest import (
    BOX_COLUMNS,
    PATIENT_ID,
    Manifest,
    cells_where,
    empty_boxes,
    nearest,
)
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import grouped, parse_binary, refuse_twice
from lucency.data.collections.label_columns import (
    CONTRADICTION,
    find_table,
    first_file,
    origin_of,
    reading_of,
    say_short,
)
from lucency.data.csv_tables import parse_number
from lucency.data.labels import patients_of

TITLE = "VinDr-CXR"
TRAIN, TEST = "annotations/image_labels_train.csv*", "annotations/image_labels_test.csv*"
KAGGLE = "train.csv*", "vinbigdata-train.csv*"
BOXES = {"train": "annotations/annotations_train.csv*", "test": "annotations/annotations_test.csv*"}
SIZES = ("*_meta.csv*",)  # of native films: image_id, dim0 (rows), dim1 (columns)
NO_FINDING_OF_VINDR = "No finding"
FINDINGS_OF_VINDR = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease", NO_FINDING_OF_VINDR,
)  # fmt: skip
OF_KAGGLE = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", NO_FINDING_OF_VINDR,
)  # fmt: skip
EDGES = ("x_min", "y_min", "x_max", "y_max")
PLACE_OF_VINDR = {name: place for place, name in enumerate(FINDINGS_OF_VINDR)}


class FilmReadings(NamedTuple):
    """Readings: film, its patient, part and the reader of each, and the labels that are stated."""

    image: Shaped[np.ndarray, " r"]
    patient: Int64[np.ndarray, " r"]
    part: Shaped[np.ndarray, " r"]
    reader: Shaped[np.ndarray, " r"]
    label: Float32[np.ndarray, "r k"]


def read_vindr(root: Path, labels: str) -> Manifest:
    """Return VinDr-CXR's films, labels by majority of readers, as `PublicCollection.read` does.

    `soft` has the share of readers that state 1 where they disagree. Facts: view (all PA), readers
    ("R1 R8 R9"), split (train, test). The set has no patient numbers: each film is its own patient.
    Boxes are in native pixels, of every reader; they are kept where a table `*_meta.csv` has the
    films' sizes, and where a reader states the label: `reading` counts the others.
    Raises ValueError for a film that a reader has read twice, and a label that is not 0 or 1.
    """
    file = find_table(root, labels, title=TITLE, usual=(TRAIN, *KAGGLE))
    of_kaggle = (
        "class_name"
        in read_columns(file, "image_id", title=TITLE, optional=("class_name",)).columns
    )
    parts = {"test" if "test" in file.name else "train": file}
    if not (of_kaggle or labels) and (test := first_file(root, TEST)):
        parts["test"] = test
    read = _read_kaggle if of_kaggle else _read_table
    each = [read(one, part) for part, one in parts.items()]
    for (part, one), readings in zip(parts.items(), each, strict=True):
        count = READINGS_OF_KAGGLE if of_kaggle else READINGS_OF_VINDR[part]
        say_short(one.name, len(readings.image), published=0 if labels else count, noun="readings")
    fields = [np.concatenate(field) for field in zip(*each, strict=True)]
    films = _by_majority(FilmReadings(*fields))
    boxed = [file] if of_kaggle else [first_file(root, BOXES[part]) for part in parts]
    films = _with_boxes(films, root, [one for one in boxed if one])
    published = PUBLISHED_KAGGLE if of_kaggle else PUBLISHED_VINDR
    origin = origin_of(films, file=file, title=TITLE, published=published)
    return replace(films, origin=f"{origin}: each film is taken for a patient")


def _read_table(file: Path, part: str) -> FilmReadings:
    """Return the readings of a table of 0 and 1, a row a reading."""
    either = ("Other disease", "Other diseases")  # the latter in the file of train
    names = [name for name in FINDINGS_OF_VINDR if name not in either]
    table = read_columns(file, "image_id", *names, title=TITLE, optional=("rad_id", *either))
    spelt = next((name for name in either if name in table.columns), either[0])
    table.require(spelt)
    label = [
        table.parse(spelt if name == either[0] else name, parse_binary)
        for name in FINDINGS_OF_VINDR
    ]
    image = table.columns["image_id"]
    reader = table.columns.get("rad_id", np.full(len(image), "consensus", dtype=object))
    refuse_twice(
        replace(table, columns={"image_id": image, "rad_id": reader}), "image_id", "rad_id"
    )
    return FilmReadings(
        image=image,
        patient=patients_of(table, "image_id")[0],
        part=np.full(len(image), part, dtype=object),
        reader=reader,
        label=np.stack(label, axis=1).astype(np.float32),
    )


def _read_kaggle(file: Path, part: str) -> FilmReadings:
    """Return the readings of Kaggle's table, a row a box or a film without findings."""
    table = read_columns(file, "image_id", "class_name", "rad_id", title=TITLE)
    where = table.parse("class_name", _parse_class)
    columns = [table.columns["image_id"], table.columns["rad_id"]]
    reading, first = grouped(pd.MultiIndex.from_arrays(columns))
    label = np.full((len(first), len(FINDINGS_OF_VINDR)), np.nan, dtype=np.float32)
    label[:, [PLACE_OF_VINDR[name] for name in OF_KAGGLE]] = 0
    label[reading, where] = 1
    return FilmReadings(
        image=columns[0][first],
        patient=patients_of(table, "image_id")[0][first],
        part=np.full(len(first), part, dtype=object),
        reader=columns[1][first],
        label=label,
    )


def _parse_class(text: str) -> int:
    if text not in OF_KAGGLE:
        raise ValueError(
            f"found {text!r}, no finding of {TITLE} on Kaggle{nearest(text, OF_KAGGLE)}"
        )
    return PLACE_OF_VINDR[text]


def _by_majority(readings: FilmReadings) -> Manifest:
    """Return the films of readings: labels that more than half of the readers state."""
    film, first = grouped(readings.image)
    readers = np.bincount(film)[:, None].astype(np.float32)
    votes = np.zeros((len(first), len(FINDINGS_OF_VINDR)), dtype=np.float32)
    np.add.at(votes, film, readings.label)
    label = np.where(np.isnan(votes), votes, votes * 2 > readers).astype(np.float32)
    by_film = pd.Series(readings.reader).groupby(film)
    image, part = readings.image[first].astype(str), readings.part[first].astype(str)
    name = np.char.add(np.char.add(part, "/"), image)
    return Manifest(
        findings=FINDINGS_OF_VINDR,
        image=name,
        patient=readings.patient[first],
        label=label,
        facts=pd.DataFrame(
            {
                PATIENT_ID: image,
                "view": np.full(len(first), "PA"),
                "split": part,
                "readers": by_film.agg(lambda who: " ".join(sorted(who))).to_numpy(),
                "path": np.full(len(first), ""),
            }
        ),
        boxes=empty_boxes(),
        origin="",
        soft=cells_where(
            (votes > 0) & (votes < readers),
            image=name,
            findings=FINDINGS_OF_VINDR,
            share=votes / readers,
        ),
        reading=pd.concat(
            [
                _counts_of_readers(readers[:, 0], (votes > 0) & (votes < readers)),
                reading_of((CONTRADICTION, NO_FINDING_OF_VINDR, _contradicting(readings))),
            ],
            ignore_index=True,
        ),
    )


def _contradicting(readings: FilmReadings) -> int:
    """Return of how many films one reader states No finding and a finding."""
    normal = np.array([name == NO_FINDING_OF_VINDR for name in FINDINGS_OF_VINDR])
    one = readings.label == 1
    both = one[:, normal].any(axis=1) & one[:, ~normal].any(axis=1)
    return len(np.unique(readings.image[both].astype(str)))


def _counts_of_readers(
    readers: Float32[np.ndarray, " n"], disagree: Bool[np.ndarray, "n k"]
) -> pd.DataFrame:
    numbers, films = np.unique(readers.astype(int), return_counts=True)
    counts = zip(numbers.tolist(), films.tolist(), strict=True)
    read = [(f"read by {number}", "", count) for number, count in counts]
    apart = zip(FINDINGS_OF_VINDR, disagree.sum(axis=0).tolist(), strict=True)
    return reading_of(*read, *(("readers disagree", name, count) for name, count in apart))


def _with_boxes(films: Manifest, root: Path, files: list[Path]) -> Manifest:
    """Return the films with the boxes of all readers, and with counts of boxes left out."""
    if not files:
        return films
    boxes = pd.concat([_boxes_in(file) for file in files], ignore_index=True)
    sizes = _sizes(root)
    row = pd.Index(films.facts[PATIENT_ID]).get_indexer(pd.Index(boxes["id"]))
    place = pd.Index(FINDINGS_OF_VINDR).get_indexer(pd.Index(boxes["finding"]))
    listed, sized = (row >= 0) & (place >= 0), np.isin(boxes["id"], sizes.index)
    stated = listed & (films.targets[row, place] > 0)
    kept = boxes[stated & sized]
    width, height = sizes.loc[kept["id"], ["dim1", "dim0"]].to_numpy(dtype=float).T
    left, top = kept["x_min"] / width, kept["y_min"] / height
    across, down = kept["x_max"] / width - left, kept["y_max"] / height - top
    fields = (films.image[row[stated & sized]], kept["finding"], left, top, across, down)
    reading = reading_of(
        ("boxes left out: of no film of the table", "", int((~listed).sum())),
        ("boxes left out: no reader states the label", "", int((listed & ~stated).sum())),
        ("boxes left out: the film's size is in no table", "", int((stated & ~sized).sum())),
    )
    return replace(
        films,
        boxes=pd.DataFrame(dict(zip(BOX_COLUMNS, fields, strict=True))).reset_index(drop=True),
        reading=pd.concat([films.reading, reading], ignore_index=True),
    )


def _boxes_in(file: Path) -> pd.DataFrame:
    """Return the boxes of a table in native pixels: id, finding, and EDGES."""
    table = read_columns(file, "image_id", "class_name", *EDGES, title=TITLE)
    edge = {name: table.parse(name, parse_number) for name in EDGES}
    named = {"id": table.columns["image_id"], "finding": table.columns["class_name"]}
    return pd.DataFrame({**named, **edge}).dropna().reset_index(drop=True)


def _sizes(root: Path) -> pd.DataFrame:
    """Return rows (dim0) and columns (dim1) of native films by id, from tables `*_meta.csv`."""
    columns = ("dim0", "dim1")
    found = [pd.DataFrame({name: np.empty(0) for name in columns}, index=pd.Index([], dtype=str))]
    for file in sorted(file for pattern in SIZES for file in root.glob(pattern)):
        table = read_columns(file, "image_id", *columns, title=f"{TITLE}'s film sizes")
        sizes = {name: table.parse(name, parse_number) for name in columns}
        found.append(pd.DataFrame(sizes, index=pd.Index(table.columns["image_id"], dtype=str)))
    return pd.concat(found).loc[lambda sizes: ~sizes.index.duplicated()]


_BY_MAJORITY = {
    "Aortic enlargement": (2_346, 220), "Atelectasis": (62, 86), "Calcification": (177, 194),
    "Cardiomegaly": (1_817, 309), "Clavicle fracture": (1, 2), "Consolidation": (121, 96),
    "Edema": (1, 0), "Emphysema": (14, 3), "Enlarged PA": (21, 8), "ILD": (152, 221),
    "Infiltration": (245, 58), "Lung Opacity": (547, 84), "Lung cavity": (20, 9),
    "Lung cyst": (4, 2), "Mediastinal shift": (85, 20), "Nodule/Mass": (409, 176),
    "Pleural effusion": (634, 111), "Pleural thickening": (882, 169), "Pneumothorax": (58, 18),
    "Pulmonary fibrosis": (1_017, 217), "Rib fracture": (41, 11), "Other lesion": (362, 94),
    "COPD": (7, 2), "Lung tumor": (134, 80), "Pneumonia": (471, 246), "Tuberculosis": (482, 164),
    "Other disease": (4_003, 657), NO_FINDING_OF_VINDR: (10_601, 2_051),
}  # fmt: skip
READINGS_OF_VINDR = {"train": 45_000, "test": 3_000}  # of films by readers; test: by consensus
READINGS_OF_KAGGLE = READINGS_OF_VINDR["train"]
PUBLISHED_VINDR = {"films": 18_000} | {name: sum(parts) for name, parts in _BY_MAJORITY.items()}
PUBLISHED_KAGGLE = {  # of the 15,000 films of train.csv, by majority
    "films": 15_000, **{name: _BY_MAJORITY[name][0] for name in OF_KAGGLE},
    "Nodule/Mass": 405, NO_FINDING_OF_VINDR: 10_606,
}  # fmt: skip
VINDR = PublicCollection(
    title=TITLE,
    read=read_vindr,
    findings=FINDINGS_OF_VINDR,
    align={
        "Pleural effusion": "Effusion",
        "Pulmonary fibrosis": "Fibrosis",
        "Pleural thickening": "Pleural_Thickening",
        "Nodule/Mass": "Nodule or Mass",
        NO_FINDING_OF_VINDR: "No Finding",
    },
    no_finding=NO_FINDING_OF_VINDR,
    tables=(TRAIN, *KAGGLE, TEST, *BOXES.values(), *SIZES),
    published=PUBLISHED_VINDR,
    traps=(
        "there are no patient numbers: each film is taken for a patient",
        "three readers of 17 read each film of train; R8, R9 and R10 together read 5,501: the "
        "reader is a confounder, and a fact",
        "no film of test has Edema, three have Emphysema",
        "Kaggle's table lacks 13 of the 28 findings, and its test films have no labels",
        "541 of the 3,000 films of test are MONOCHROME1; films end in .dicom",
    ),
)
