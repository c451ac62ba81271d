"""Sets of other labels for films of ChestX-ray14: RSNA 2018, SIIM-ACR 2019, NIH-CXR-LT, PruneCXR.

RSNA and SIIM give films new names, one each, that say nothing of patients: these are known only by
a mapping to NIH's names. Shih et al., Radiology: AI 2019 (RSNA); Holste et al., DALI 2022 and
MICCAI 2023 (NIH-CXR-LT, PruneCXR). Letters in shapes: n films, k findings, r rows, s runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from lucency.core.manifest import (
    BOX_COLUMNS,
    FINDINGS,
    NO_FINDING,
    UNKNOWN_PATIENT,
    Manifest,
    counted,
    empty_boxes,
)
from lucency.core.tables import NIH_NAME
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import grouped, parse_binary
from lucency.data.collections.label_columns import (
    find_table,
    first_file,
    known_ages,
    origin_of,
    reading_of,
    say_short,
    step_of_absent,
)
from lucency.data.csv_tables import CsvTable, parse_number, plain_name

MAPPINGS = ("*mapping*.json", "*mapping*.csv*")
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"  # RSNA's own, of all 30,000 films
FILM_KEYS = ("subset_img_id", "patientId", "SOPInstanceUID", "ImageId", "image")
NIH_KEYS = ("img_id", "Image Index", "nih")
FRAME = 1024  # boxes and masks are in pixels of 1024 x 1024 films

RSNA_TITLE = "RSNA pneumonia 2018"
RSNA_TABLES = ("stage_2_train_labels.csv*", "kaggle_stage_2_train_labels.csv*")
RSNA_CLASSES = ("stage_2_detailed_class_info.csv*",)
RSNA_HEADERS = ("*stage_2_train_images_dicom_headers.csv*",)
LUNG_OPACITY, CLASS_NORMAL = "Lung Opacity", "Normal"
CLASSES = (LUNG_OPACITY, "No Lung Opacity / Not Normal", CLASS_NORMAL)
BOX_NUMBERS = ("x", "y", "width", "height")

SIIM_TITLE = "SIIM-ACR pneumothorax"
SIIM_TABLES = ("train-rle.csv*", "siim-pneumothorax-train-rle.csv*")
PNEUMOTHORAX, NO_MASK = "Pneumothorax", "-1"
RUNS = re.compile(r"[0-9]{1,7} +[0-9]{1,7}(?: +[0-9]{1,7} +[0-9]{1,7})*")

LT_TITLE = "NIH-CXR-LT"
PRUNED, SINGLE = "miccai2023_nih-cxr-lt_labels_", "nih-cxr-lt_single-label_"
LT_FOLDERS = ("PruneCXR", "LongTailCXR", ".")  # in which lists lie; the first is the usual
LT_PARTS = {  # of files, by the end of their names; a film of several files is of the first
    "train": "train", "val": "val", "balanced-val": "val", "test": "test", "balanced-test": "test",
}  # fmt: skip
FINDINGS_OF_LT = (
    *(name.replace("_", " ") for name in FINDINGS), "Calcification of the Aorta",
    "Tortuous Aorta", "Subcutaneous Emphysema", "Pneumomediastinum", "Pneumoperitoneum", NO_FINDING,
)  # fmt: skip


def read_rsna(root: Path, labels: str) -> Manifest:
    """Return RSNA's films, findings Lung Opacity and Normal, as `PublicCollection.read` does.

    Normal is NaN without the class file. Facts: class, and where the tables lie in `root`: nih (its
    film of ChestX-ray14), age, sex, view. Patients are those of ChestX-ray14 by a mapping file,
    else UNKNOWN_PATIENT. Raises ValueError for a Target that contradicts its boxes.
    """
    file = find_table(root, labels, title=RSNA_TITLE, usual=RSNA_TABLES)
    table = read_columns(file, "patientId", *BOX_NUMBERS, "Target", title=RSNA_TITLE)
    rows = table.columns["patientId"]
    target = table.parse("Target", parse_binary)
    number = np.stack([table.parse(name, parse_number) for name in BOX_NUMBERS], axis=1)
    _refuse_unlike(table, target == 1, np.logical_not(np.isnan(number).any(axis=1)))
    film, first = grouped(rows)
    say_short(file.name, len(rows), published=0 if labels else PUBLISHED_RSNA_ROWS)
    image = rows[first].astype(str)
    label = np.full((len(image), 2), np.nan, dtype=np.float32)
    label[:, 0] = target[first]
    kind, lacking = _classes(root, image)
    label[kind != "", 1] = kind[kind != ""] == CLASS_NORMAL
    facts, steps = _header_facts(root, image)
    boxed = target == 1
    boxes = (image[film[boxed]], np.full(boxed.sum(), LUNG_OPACITY), *(number[boxed] / FRAME).T)
    films = Manifest(
        findings=(LUNG_OPACITY, CLASS_NORMAL),
        image=image,
        patient=np.full(len(image), UNKNOWN_PATIENT),
        label=label,
        facts=pd.DataFrame({**facts, "class": kind, "path": np.full(len(image), "")}),
        boxes=pd.DataFrame(dict(zip(BOX_COLUMNS, boxes, strict=True))),
        origin="",
        reading=reading_of(*lacking, *steps),
    )
    return _with_nih(films, root, file=file, title=RSNA_TITLE)


def read_siim(root: Path, labels: str) -> Manifest:
    """Return SIIM-ACR's films, finding Pneumothorax, as `PublicCollection.read` does.

    A mask, of which a film may have several, gives a box: the smallest that holds it; `read_mask`
    gives the pixels. Patients are as of `read_rsna`, by the same mapping or another.
    """
    file = find_table(root, labels, title=SIIM_TITLE, usual=SIIM_TABLES)
    table = read_columns(file, "ImageId", "EncodedPixels", title=SIIM_TITLE)
    film, first = grouped(table.columns["ImageId"])
    say_short(file.name, len(film), published=0 if labels else PUBLISHED_SIIM_ROWS)
    image = table.columns["ImageId"][first].astype(str)
    masked = table.columns["EncodedPixels"] != NO_MASK
    label = np.zeros((len(image), 1), dtype=np.float32)
    label[film[masked]] = 1
    columns = {name: cells[masked] for name, cells in table.columns.items()}
    masks = replace(table, columns=columns, line=table.line[masked])
    box = masks.parse("EncodedPixels", _box_of_runs).reshape(-1, 4)
    boxes = (image[film[masked]], np.full(len(box), PNEUMOTHORAX), *box.T)
    both = np.unique(film[~masked & (label[film, 0] == 1)])
    films = Manifest(
        findings=(PNEUMOTHORAX,),
        image=image,
        patient=np.full(len(image), UNKNOWN_PATIENT),
        label=label,
        facts=pd.DataFrame({"path": np.full(len(image), "")}),
        boxes=pd.DataFrame(dict(zip(BOX_COLUMNS, boxes, strict=True))),
        origin="",
        reading=reading_of(("contradiction: -1 beside a mask", PNEUMOTHORAX, len(both))),
    )
    return _with_nih(films, root, file=file, title=SIIM_TITLE)


def read_mask(file: Path, image: str) -> Bool[np.ndarray, "1024 1024"]:
    """Return a film's pneumothorax in SIIM's label file: the union of its masks, rows by columns.

    Raises ValueError for a film that the file does not list.
    """
    table = read_columns(file, "ImageId", "EncodedPixels", title=SIIM_TITLE)
    rows = table.columns["ImageId"] == image.removesuffix(".dcm")
    if not rows.any():
        raise ValueError(f"{file}: no film {image!r}; expected one of its column ImageId")
    mask = np.zeros((FRAME, FRAME), dtype=np.bool_)
    for text in table.columns["EncodedPixels"][rows & (table.columns["EncodedPixels"] != NO_MASK)]:
        mask |= decode_runs(text)
    return mask


def decode_runs(text: str) -> Bool[np.ndarray, "1024 1024"]:
    """Return the mask of a text such as "557374 2 1015 8": pairs of a gap and a length.

    Gaps are counted from the end of the run before; pixels run down the columns.
    """
    begin, end = _runs(text)
    change = np.zeros(FRAME * FRAME + 1, dtype=np.int32)
    change[begin] += 1
    np.add.at(change, end, -1)
    return (change[:-1].cumsum() > 0).reshape(FRAME, FRAME).T


def read_nih_lt(root: Path, labels: str) -> Manifest:
    """Return the films of NIH-CXR-LT or PruneCXR with 20 findings, as `PublicCollection.read` does.

    `labels` is the folder, "PruneCXR" or "LongTailCXR"; "" is the first of these that is there.
    Facts: nih, split (train, val, test), file (of which list: balanced-test, …). Patients are in
    the films' names. A film that is on several lists is of the first, and counted.
    Raises ValueError for a name that is not NIH's, and for a class that is not 0 or 1.
    """
    files = _lists(root, labels)
    tables = {part: read_columns(file, "id", title=LT_TITLE) for part, file in files.items()}
    patients = np.concatenate([table.parse("id", _nih_patient) for table in tables.values()])
    image = np.concatenate([table.columns["id"] for table in tables.values()]).astype(str)
    label = np.concatenate([_one_hot(file) for file in files.values()])
    part = np.repeat([*files], [len(table.line) for table in tables.values()])
    first = grouped(image)[1]
    patient = patients[first].astype(np.int64)
    films = Manifest(
        findings=FINDINGS_OF_LT,
        image=image[first],
        patient=patient,
        label=label[first],
        facts=pd.DataFrame(
            {
                "split": [LT_PARTS[one] for one in part[first].tolist()],
                "file": part[first],
                "nih": image[first],
                "path": np.full(len(first), ""),
            }
        ),
        boxes=empty_boxes(),
        origin="",
        reading=reading_of(("on several lists", "", len(image) - len(first))),
    )
    file = next(iter(files.values()))
    published = {"films": 112_120} if file.name.startswith(PRUNED) else {}
    say_short(LT_TITLE, len(image), published=published.get("films", 0))
    return replace(films, origin=origin_of(films, file=file, title=LT_TITLE, published=published))


def _refuse_unlike(
    table: CsvTable, target: Bool[np.ndarray, " r"], boxed: Bool[np.ndarray, " r"]
) -> None:
    """Raise ValueError for a row whose target is 1 without a box, or 0 with one."""
    if (target != boxed).any():
        row = int(np.argmax(target != boxed))
        raise ValueError(
            f"{table.file}, line {table.line[row]}: Target is {int(target[row])}, "
            f"{'with' if boxed[row] else 'without'} a box; expected a box where it is 1"
        )


def _classes(
    root: Path, image: Shaped[np.ndarray, " n"]
) -> tuple[Shaped[np.ndarray, " n"], list[tuple[str, str, int]]]:
    """Return the class of each film by RSNA's class file, "" without, and films that it lacks."""
    file = first_file(root, *RSNA_CLASSES)
    if not file:
        return np.full(len(image), "", dtype=object), []
    table = read_columns(file, "patientId", "class", title=RSNA_TITLE)
    table.parse("class", _parse_class_name)
    kind = _by_film(table, "patientId", "class", image)
    return kind, [step_of_absent(file, np.asarray(kind != ""))]


def _parse_class_name(text: str) -> str:
    if text not in CLASSES:
        raise ValueError(f"found {text!r}, expected one of {', '.join(CLASSES)}")
    return text


def _by_film(
    table: CsvTable, key: str, column: str, image: Shaped[np.ndarray, " n"]
) -> Shaped[np.ndarray, " n"]:
    """Return a column of a table for these films, "" for those that it lacks."""
    held = dict(zip(table.columns[key].tolist(), table.columns[column].tolist(), strict=True))
    return np.array([held.get(name, "") for name in image.tolist()], dtype=object)


def _header_facts(
    root: Path, image: Shaped[np.ndarray, " n"]
) -> tuple[dict[str, np.ndarray], list[tuple[str, str, int]]]:
    """Return age, sex and view by a table of DICOM headers, if it is there, and its steps."""
    file = first_file(root, *RSNA_HEADERS)
    if not file:
        return {}, []
    names = ("PatientAge", "PatientSex", "ViewPosition")
    table = read_columns(file, "PatientID", *names, title=f"{RSNA_TITLE}'s headers")
    table.parse("PatientAge", parse_number)  # names the line of another cell
    age, sex, view = (_by_film(table, "PatientID", name, image) for name in names)
    years, absurd = known_ages(np.array([parse_number(text) for text in age]))
    steps = [
        ("age: impossible", "", absurd),
        step_of_absent(file, np.isin(image, table.columns["PatientID"].astype(str))),
    ]
    return {"age": years, "sex": sex, "view": view}, steps


def _with_nih(films: Manifest, root: Path, *, file: Path, title: str) -> Manifest:
    """Return the films with their names and patients of ChestX-ray14, where a mapping is there."""
    known = _mapping(root)
    nih = np.array([known.get(name, "") for name in films.image.tolist()], dtype=object)
    patient = np.array(
        [_nih_patient(name) if name else UNKNOWN_PATIENT for name in nih.tolist()], dtype=np.int64
    )
    films = replace(films, patient=patient, facts=films.facts.assign(nih=nih))
    published = PUBLISHED_RSNA if title == RSNA_TITLE else PUBLISHED_SIIM
    origin = origin_of(films, file=file, title=title, published=published)
    if lost := int((patient == UNKNOWN_PATIENT).sum()):
        origin += f", {counted(lost, 'film')} without a mapping to NIH's names"
    return replace(films, origin=origin)


def _mapping(root: Path) -> dict[str, str]:
    """Return NIH's name of each film that a mapping file below `root` has, by all of its keys."""
    file = first_file(root, *MAPPINGS)
    if not file:
        return {}
    rows = _rows_of_json(file) if file.suffix == ".json" else _rows_of_csv(file)
    known = dict[str, str]()
    for row in rows:
        nih = next((row[key] for key in NIH_KEYS if key in row), "")
        _nih_patient(nih, where=f"{file}: ")
        for film in {str(row[key]).removesuffix(".dcm") for key in FILM_KEYS if key in row}:
            if known.setdefault(film, nih) != nih:
                raise ValueError(
                    f"{file}: {film} is {known[film]} and {nih}; expected one film of NIH"
                )
    return known


def _rows_of_json(file: Path) -> list[dict[str, str]]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: found no JSON ({error}); expected {MAPPING}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file}: found no list of films; expected {MAPPING}")
    return rows


def _rows_of_csv(file: Path) -> list[dict[str, str]]:
    table = read_columns(file, title="a mapping to NIH's films", optional=(*FILM_KEYS, *NIH_KEYS))
    if not any(key in table.columns for key in NIH_KEYS):
        raise ValueError(f"{file}: found no column {' or '.join(NIH_KEYS)}: expected NIH's names")
    names = [*table.columns]
    cells = zip(*(table.columns[name].tolist() for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in cells]


def _nih_patient(name: str, *, where: str = "") -> int:
    """Return the patient that a name such as 00000013_008.png states."""
    known = NIH_NAME.fullmatch(name) if isinstance(name, str) else None
    if not known:
        raise ValueError(f"{where}found {name!r}, expected a name of NIH such as 00000013_008.png")
    return int(known[1][:8])


def _runs(text: str) -> tuple[Int64[np.ndarray, " s"], Int64[np.ndarray, " s"]]:
    """Return the first pixel of each run, and the one after its last, down the columns."""
    if not RUNS.fullmatch(text):
        raise ValueError(f"found {text[:40]!r}, expected -1 or pairs of a gap and a length")
    pairs = np.array(text.split()).astype(np.int64).reshape(-1, 2)
    end = pairs.sum(axis=1).cumsum()
    if end[-1] > FRAME * FRAME or (pairs[:, 1] == 0).any():
        raise ValueError(f"found {text[:40]!r}, runs beyond {FRAME} x {FRAME} pixels or empty")
    return end - pairs[:, 1], end


def _box_of_runs(text: str) -> Float64[np.ndarray, " 4"]:
    """Return left, top, width and height of the smallest box of runs, in 0..1 of the film."""
    begin, end = _runs(text)
    left, right = begin.min() // FRAME, (end.max() - 1) // FRAME
    top, bottom = (begin % FRAME).min(), ((end - 1) % FRAME).max()
    if (begin // FRAME != (end - 1) // FRAME).any():  # a run that goes on in the next column
        top, bottom = 0, FRAME - 1
    return np.array([left, top, right - left + 1, bottom - top + 1]) / FRAME


def _lists(root: Path, labels: str) -> dict[str, Path]:
    """Return the lists of films by their part: PruneCXR's where they are there, else the others."""
    folders = (labels,) if labels else LT_FOLDERS
    for folder in (root / name for name in folders):
        for stem in (PRUNED, SINGLE):
            found = {part: first_file(folder, f"{stem}{part}.csv*") for part in LT_PARTS}
            if lists := {part: file for part, file in found.items() if file}:
                return lists
    usual = [f"{folder}/{PRUNED}train.csv" for folder in folders]
    return {"train": find_table(root, "", title=LT_TITLE, usual=usual)}


def _one_hot(file: Path) -> Float32[np.ndarray, "n k"]:
    """Return the labels of a list; blanks and underscores of its headings do not count."""
    wanted = {plain_name(name): name for name in FINDINGS_OF_LT}
    spelt = [name for one in FINDINGS_OF_LT for name in (one, one.replace(" ", "_"))]
    table = read_columns(file, "id", title=LT_TITLE, optional=spelt)
    where = {plain_name(name): name for name in table.columns}
    for plain, name in wanted.items():
        if plain not in where:
            table.require(name)
    columns = [table.parse(where[plain], parse_binary) for plain in wanted]
    return np.stack(columns, axis=1).astype(np.float32)


PUBLISHED_RSNA_ROWS, PUBLISHED_SIIM_ROWS = 30_227, 12_954
PUBLISHED_RSNA = {"films": 26_684, LUNG_OPACITY: 6_012}
PUBLISHED_SIIM = {"films": 12_047, PNEUMOTHORAX: 2_669}
NIH_TRAP = (
    "the films are of ChestX-ray14, under other names: no external test for a network that is "
    "trained on it"
)
MAPPED_TRAP = f"patients are known only by a mapping to NIH's names, such as {MAPPING}"
RSNA = PublicCollection(
    title=RSNA_TITLE,
    read=read_rsna,
    findings=(LUNG_OPACITY, CLASS_NORMAL),
    tables=(*RSNA_TABLES, *RSNA_CLASSES, *RSNA_HEADERS, *MAPPINGS),
    published=PUBLISHED_RSNA,
    traps=(NIH_TRAP, MAPPED_TRAP, "patientId is a film", "five ages are above 147 years"),
)
SIIM = PublicCollection(
    title=SIIM_TITLE,
    read=read_siim,
    findings=(PNEUMOTHORAX,),
    tables=(*SIIM_TABLES, *MAPPINGS),
    published=PUBLISHED_SIIM,
    traps=(
        NIH_TRAP,
        MAPPED_TRAP,
        "the column of masks is called ' EncodedPixels', with a blank before it",
        "masks are runs down the columns, each counted from the end of the one before",
    ),
)
NIH_LT = PublicCollection(
    title=LT_TITLE,
    read=read_nih_lt,
    findings=FINDINGS_OF_LT,
    align={"Pleural Thickening": "Pleural_Thickening"},
    no_finding=NO_FINDING,
    tables=tuple(f"{folder}/{stem}*.csv*" for folder in LT_FOLDERS for stem in (PRUNED, SINGLE)),
    published={"films": 112_120},
    traps=(
        NIH_TRAP,
        "NIH-CXR-LT has one label a film, PruneCXR several",
        "No Finding is none of 19, not of NIH's 14",
    ),
)
