"""ChestX-ray14 as NIH publishes it: label files of every version, boxes, official lists, films.

Wang et al., "ChestX-ray8", CVPR 2017 (arXiv 1705.02315). Readers never filter: a row of the label
file is a row of the manifest. Letters in shapes: n films, k findings, t and u listed names, m rows.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64, Shaped

from lucency.core.manifest import BOX_COLUMNS, FINDINGS, NO_FINDING, Manifest, empty_boxes, nearest
from lucency.data.images import locate_films
from lucency.data.tables import (
    Columns,
    parse_column,
    parse_number,
    parse_whole,
    read_columns,
    require_columns,
)

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_FILE, TRUTH_FILE = "BBox_List_2017.csv", "truth.csv"
OFFICIAL_LISTS = ("train_val_list.txt", "test_list.txt")
BOX_FRAME = 1024  # boxes are in pixels of the published 1024 x 1024 films
LABELS = (*FINDINGS, NO_FINDING)
LABEL_COLUMN = "Finding Labels"
REQUIRED = ("Image Index", LABEL_COLUMN, "Follow-up #", "Patient ID")
UNPUBLISHED = "not a published version"


def read_nih(root: Path, *, labels: str = "", findings: tuple[str, ...] = FINDINGS) -> Manifest:
    """Read a folder in NIH's layout: one row a film, in the label file's order, none left out.

    `labels` names the label file (relative to `root` or absolute, .csv or .csv.gz), by default the
    newest in `root`. `findings` are the outputs; "No Finding" may be one. Facts: age in years as
    published, impossible ones included, sex, view, follow_up, width, height and spacing_x,
    spacing_y of the original film, path below `root` ("" when missing), and the columns of a
    phantom's truth.csv. Boxes of other films or findings are left out.
    Raises ValueError for a label that is unknown or contradicts another, naming its row.
    """
    return locate_films(read_nih_tables(root, labels=labels, findings=findings), root)


def read_nih_tables(
    root: Path, *, labels: str = "", findings: tuple[str, ...] = FINDINGS
) -> Manifest:
    """Read what `read_nih` reads but the pictures, which need not be there: every path is ""."""
    file = label_file(root, labels)
    return films_of_nih(read_columns(file), file, root=root, findings=findings)


def films_of_nih(
    columns: Columns, file: Path, *, root: Path, findings: tuple[str, ...] = FINDINGS
) -> Manifest:
    """Return the films of a label file's columns; boxes and a phantom's truth lie in `root`."""
    for name in findings:
        label_column(name)
    require_columns(columns, REQUIRED, file)
    image = columns["Image Index"]
    patient = parse_column(columns, "Patient ID", parse_whole, file)
    label = parse_column(columns, LABEL_COLUMN, _parse_labels, file).astype(np.float32)
    facts = {
        name: parse_column(columns, column, parse, file)
        for column, (name, parse) in _FACTS.items()
        if column in columns
    }
    return Manifest(
        findings=findings,
        image=image,
        patient=patient,
        label=label[:, [label_column(name) for name in findings]],
        facts=_with_truth({**facts, "path": np.full(len(image), "")}, root, image),
        boxes=_read_boxes(root, image, findings),
        origin=f"{file.name}: {_version(columns, patient, label)}, {len(image):,} films "
        f"of {len(np.unique(patient)):,} patients",
    )


def parse_label_column(columns: Columns, file: Path) -> Float32[np.ndarray, "n 14"]:
    """Return the 14 findings of each row of a label file that was read from `file`."""
    label = parse_column(columns, LABEL_COLUMN, _parse_labels, file).astype(np.float32)
    return label[:, : len(FINDINGS)]


def read_official_lists(root: Path) -> tuple[Shaped[np.ndarray, " t"], Shaped[np.ndarray, " u"]]:
    """Return the names on train_val_list.txt and on test_list.txt.

    Raises ValueError when a list is absent.
    """
    for name in OFFICIAL_LISTS:
        if not (root / name).is_file():
            raise ValueError(f"{root / name} is absent: the official split needs both lists there")
    train_val, test = ((root / name).read_text().split() for name in OFFICIAL_LISTS)
    return np.array(train_val, dtype=str), np.array(test, dtype=str)


def missing_films(manifest: Manifest) -> Int64[np.ndarray, " m"]:
    """Return the rows whose film was not found on disk."""
    return np.flatnonzero(manifest.facts["path"].to_numpy(dtype=str) == "").astype(np.int64)


def found_films(manifest: Manifest) -> Int64[np.ndarray, " m"]:
    """Return the rows whose film was found on disk."""
    return np.flatnonzero(manifest.facts["path"].to_numpy(dtype=str) != "").astype(np.int64)


def label_file(root: Path, labels: str) -> Path:
    """Return the label file in `root`, the newest where `labels` names none; plain or .gz.

    Raises ValueError where it is not there.
    """
    names = (labels,) if labels else LABEL_FILES
    for file in (root / (name + ending) for name in names for ending in ("", ".gz")):
        if file.is_file():
            return file
    raise ValueError(f"no label file in {root}: expected {' or '.join(names)}, plain or .gz")


def label_column(name: str) -> int:
    """Return the place of a finding among LABELS; raises ValueError for an unknown one."""
    if name not in LABELS:
        known = f"expected one of {', '.join(LABELS)}"
        raise ValueError(f"finding {name!r} is unknown: {known}{nearest(name, LABELS)}")
    return LABELS.index(name)


def _parse_labels(text: str) -> list[int]:
    """Return 0 or 1 for each of LABELS from a text such as "Mass|Nodule"."""
    tokens = text.split("|")
    if NO_FINDING in tokens and len(tokens) > 1:
        raise ValueError(f"found {text!r}, expected {NO_FINDING} alone or findings without it")
    places = {label_column(token) for token in tokens}
    return [int(place in places) for place in range(len(LABELS))]


def _parse_years(text: str) -> float:
    """Return an age such as 58, 058Y, 011M or 005D in years, NaN for an empty cell."""
    parts = re.fullmatch(r"([0-9]+)([YMD]?)", text)
    if text and not parts:
        raise ValueError(f"found {text!r}, expected an age such as 58, 058Y or 011M")
    return int(parts[1]) / _UNITS[parts[2]] if parts else np.nan


def _with_truth(
    facts: dict[str, np.ndarray], root: Path, image: Shaped[np.ndarray, " n"]
) -> pd.DataFrame:
    """Add the columns of a phantom's truth.csv, joined by image name."""
    table = pd.DataFrame(facts)
    if not (root / TRUTH_FILE).is_file():
        return table
    truth = pd.read_csv(root / TRUTH_FILE).set_index("Image Index").reindex(image)
    truth.columns = [name.lower().replace(" ", "_") for name in truth.columns]
    return pd.concat([table, truth.reset_index(drop=True)], axis=1)


def _read_boxes(
    root: Path, image: Shaped[np.ndarray, " n"], findings: tuple[str, ...]
) -> pd.DataFrame:
    """Return the boxes of these films and findings, in 0..1 of the film."""
    file = next((f for f in (root / BOX_FILE, root / f"{BOX_FILE}.gz") if f.is_file()), None)
    if file is None:
        return empty_boxes()
    columns = read_columns(file)
    require_columns(columns, _BOX_NUMBERS, file)
    number = [parse_column(columns, name, parse_number, file) for name in _BOX_NUMBERS]
    where = parse_column(columns, "Finding Label", _parse_box_finding, file)
    wanted = np.isin(columns["Image Index"], image) & np.isin(where, findings)
    fields = (columns["Image Index"], where, *(one / BOX_FRAME for one in number))
    return pd.DataFrame({n: f[wanted] for n, f in zip(BOX_COLUMNS, fields, strict=True)})


def _parse_box_finding(text: str) -> str:
    return FINDINGS[label_column("Infiltration" if text == "Infiltrate" else text)]


def _version(
    columns: Columns, patient: Int64[np.ndarray, " n"], label: Float32[np.ndarray, "n k"]
) -> str:
    """Name the published version whose every count agrees."""
    counts = dict(zip(LABELS, label.sum(axis=0).astype(int).tolist(), strict=True))
    pairs = zip(columns["Image Index"].tolist(), columns["Follow-up #"].tolist(), strict=True)
    renumbered = sum(name[9:12] != follow_up.zfill(3) for name, follow_up in pairs)
    found = (len(patient), len(np.unique(patient)), renumbered, counts)
    return next((name for name, known in _VERSIONS.items() if known == found), UNPUBLISHED)


_UNITS = {"": 1.0, "Y": 1.0, "M": 12.0, "D": 365.25}  # in a year
_FACTS = {
    "Patient Age": ("age", _parse_years),
    "Patient Gender": ("sex", str),
    "View Position": ("view", str),
    "Follow-up #": ("follow_up", parse_whole),
    "OriginalImage[Width": ("width", parse_whole),
    "Height]": ("height", parse_whole),
    "OriginalImagePixelSpacing[x": ("spacing_x", parse_number),
    "y]": ("spacing_y", parse_number),
}
_BOX_NUMBERS = ("Bbox [x", "y", "w", "h]")
_COUNTS_2020 = {
    "Atelectasis": 11_559, "Cardiomegaly": 2_776, "Effusion": 13_317, "Infiltration": 19_894,
    "Mass": 5_782, "Nodule": 6_331, "Pneumonia": 1_431, "Pneumothorax": 5_302,
    "Consolidation": 4_667, "Edema": 2_303, "Emphysema": 2_516, "Fibrosis": 1_686,
    "Pleural_Thickening": 3_385, "Hernia": 227, NO_FINDING: 60_361,
}  # fmt: skip
_COUNTS_2017 = _COUNTS_2020 | {
    "Atelectasis": 11_535, "Cardiomegaly": 2_772, "Effusion": 13_307, "Infiltration": 19_870,
    "Mass": 5_746, "Nodule": 6_323, "Pneumonia": 1_353, "Pneumothorax": 5_298, NO_FINDING: 60_412,
}  # fmt: skip
# films, patients, films whose follow-up number is not the one in their name, films per label
_VERSIONS = {
    "NIH's label file of November 2017": (112_120, 30_805, 0, _COUNTS_2017),
    "NIH's later label file, as on Kaggle": (112_120, 30_805, 0, _COUNTS_2020),
    "NIH v2020 label file": (112_120, 30_805, 24_106, _COUNTS_2020),
}
