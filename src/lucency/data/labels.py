"""Label files: ChestX-ray14's as NIH publishes it, a manifest, or any table of 0 and 1.

ChestX-ray14 is of Wang et al., CVPR 2017 (arXiv 1705.02315); every published version is known.
Readers never filter: a row of the file is a row of the manifest. Labels are read without pictures;
`read_nih` alone looks for those too. Letters in shapes: n films, k findings, t and u listed names.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped

from lucency.core.manifest import (
    BOX_COLUMNS,
    FINDINGS,
    NO_FINDING,
    PATIENT_ID,
    Manifest,
    cells_where,
    counted,
    empty_boxes,
    listed,
    load_manifest,
    nearest,
    read_table,
)
from lucency.core.progress import say
from lucency.data.csv_tables import (
    MISSING,
    CsvTable,
    clean_id,
    columns_meant,
    find_columns,
    parse_number,
    parse_whole,
    plain_name,
    read_csv,
    read_names,
)
from lucency.data.finding_columns import (
    LABEL_COLUMN,
    UNCERTAIN,
    finding_columns,
    is_manifest,
    label_code,
    say_left_out,
)
from lucency.data.images import locate_films

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOX_FILE, TRUTH_FILE = "BBox_List_2017.csv", "truth.csv"
OFFICIAL_LISTS = ("train_val_list.txt", "test_list.txt")
BOX_FRAME = 1024  # boxes are in pixels of the published 1024 x 1024 films
LABELS = (*FINDINGS, NO_FINDING)
REQUIRED = ("Image Index", LABEL_COLUMN, "Patient ID")
FOLLOW_UP = "Follow-up #"
UNPUBLISHED = "not a published version"
PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
SHORTENED = re.compile(r"[0-9](?:[.,][0-9]+)?[Ee]\+[0-9]+")  # by a spreadsheet: 1.23E+11
LED_BY_ZEROS = re.compile(r"[+-]?0[0-9]")
DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212_", "-"))
Columns = Mapping[str, str]  # image_column and patient_column, as `data` of a protocol has them
USUAL_COLUMNS: Columns = {"image_column": "image", "patient_column": "patient"}
UNKNOWN = {  # in tables: words, and errors of spreadsheets
    "-", "--", "?", "unknown", "unk", "n.a.", "not known", "missing", "anonymous", "anonymized",
    "anonymised", "#ref!", "#value!", "#name?", "#num!", "#null!", "#div/0!",
}  # fmt: skip
NOT_A_PATHOLOGY = "supportdevices"  # which CheXpert states beside No Finding
AGE = re.compile(
    r"(>=?|\u2265)?\s*(-?[0-9]+(?:\.[0-9]+)?)\s*(y|m|w|d|years?|yrs?|months?|weeks?|days?|)(\+?)",
    re.IGNORECASE,
)
RESERVED_FACTS = {"image", "patient", "path", PATIENT_ID}  # columns of a manifest with other uses


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The labels of a file: 1, 0 or NaN; the names of columns that are no findings.

    NaN is not stated, or uncertain.
    """

    findings: tuple[str, ...]
    label: Float32[np.ndarray, "n k"]
    left_out: tuple[str, ...]


def read_labels(file: Path) -> Labels:
    """Read the labels of NIH's file (14 findings), of a manifest, or of a table's 0/1 columns.

    Plain or .gz; uncertain labels, -1, are counted aloud. Raises ValueError when there is no such
    file, or no column of 0, 1 and empty.
    """
    table = read_label_table(file)
    _refuse_images(table)
    if LABEL_COLUMN in table.columns:
        label = _parse_labels(table)[:, : len(FINDINGS)]
        return Labels(findings=FINDINGS, label=label, left_out=())
    findings = finding_columns(table)
    label, _ = _stated(table, dict(zip(findings, findings, strict=True)))
    say_left_out(table, findings, named=())
    return Labels(
        findings=findings,
        label=label,
        left_out=tuple(name for name in table.columns if name not in findings),
    )


def read_labelled(
    file: Path, *, image_column: str = "image", patient_column: str = "patient"
) -> Manifest:
    """Read a label file with its images' and patients' names, boxes and facts.

    NIH's file, a manifest, or a table with the columns image and patient, or as they are called
    there. Pictures are not looked for; raises ValueError as `read_labels` does, and where another
    column is named than the one that NIH's file or a manifest has.
    """
    table, named = read_label_table(file), {"image": image_column, "patient": patient_column}
    if LABEL_COLUMN in table.columns:
        _refuse_named(file, named, own={"image": "Image Index", "patient": "Patient ID"})
        return _films_of_nih(table, root=file.parent, findings=FINDINGS)
    findings = finding_columns(table)
    if is_manifest(file):
        _refuse_named(file, named, own={"image": "image", "patient": "patient"})
        return load_manifest(file.parent)
    films = films_of_table(
        table, findings=findings, image_column=image_column, patient_column=patient_column
    )
    say_left_out(table, findings, named=(image_column, patient_column))
    return films


def read_nih(
    root: str | Path, *, labels: str = "", findings: tuple[str, ...] = FINDINGS
) -> Manifest:
    """Read a folder in NIH's layout: one row a film, in the label file's order, none left out.

    `labels` names the label file (relative to `root` or absolute, .csv or .csv.gz), by default the
    newest in `root`. `findings` are the outputs; "No Finding" may be one. Facts: age in years as
    published, impossible ones included, sex, view, follow_up, width, height and spacing_x,
    spacing_y of the original film, path below `root` ("" when missing), and the columns of a
    phantom's truth.csv. Boxes of other films or findings are left out.
    Raises ValueError for a label that is unknown or contradicts another, naming its row.
    """
    root = Path(root)
    return locate_films(read_nih_tables(root, labels=labels, findings=findings), root)


def read_nih_tables(
    root: Path, *, labels: str = "", findings: tuple[str, ...] = FINDINGS
) -> Manifest:
    """Read what `read_nih` reads but the pictures, which need not be there: every path is ""."""
    file = label_file(root, labels, usual=LABEL_FILES)
    return _films_of_nih(read_csv(file), root=root, findings=findings)


def label_file(root: Path, labels: str, *, usual: tuple[str, ...] = ()) -> Path:
    """Return the label file that is named, else the first usual one, which may end in .gz too.

    Raises ValueError where there is none.
    """
    names, endings = (labels,) if labels else usual, ("", ".gz") if usual else ("",)
    for file in (root / (name + ending) for name in names for ending in endings):
        if file.is_file():
            return file
    expected = " or ".join(names) or "the name of a table there (data.labels)"
    raise ValueError(
        f"no label file in {root}: expected {expected}{', plain or .gz' if usual else ''}"
    )


def films_of_table(
    table: CsvTable,
    *,
    findings: tuple[str, ...],
    image_column: str = "image",
    patient_column: str = "patient",
    columns: tuple[str, ...] = (),
) -> Manifest:
    """Return the films of a table of labels: one a row, none left out.

    Columns are found as `find_columns` does. An empty label is NaN, not stated, and -1 too, which
    is uncertain. Facts: the columns age (years), sex (M, F, or as it is written) and view (in
    capitals) where the table has them; the further `columns`, as numbers where all their cells are
    numbers, else as text; path, which is empty.
    Raises ValueError for an absent column, for a label that is not 0, 1, -1 or empty or contradicts
    No Finding, for an image that is listed twice, for one of `columns` that has another use, and
    where images, patients and findings are not different columns.
    """
    for name in columns:
        if name in (*findings, *RESERVED_FACTS):
            raise ValueError(f"data.columns: {name!r} is no fact but has a use of its own")
    names = (image_column, patient_column, *findings, *columns)
    where = find_columns(table, *names, optional=("age", "sex", "view"))
    _refuse_shared(
        table,
        {"image": where[image_column], "patient": where[patient_column]},
        [where[name] for name in findings],
    )
    image = table.columns[where[image_column]]
    films = len(image)
    _refuse_images(table, where[image_column])
    patient, facts = patients_of(table, where[patient_column])
    facts |= {
        name: table.parse(where[name], fold)
        for name, fold in {"sex": _parse_sex, "view": str.upper}.items()
        if name in where
    }
    if "age" in where:
        facts["age"] = table.parse_numbers(where["age"], _parse_years)
    facts |= {name: _fact(table, where[name]) for name in columns if name not in facts}
    label, uncertain = _stated(table, {name: where[name] for name in findings})
    return Manifest(
        findings=findings,
        image=image,
        patient=patient,
        label=label,
        facts=pd.DataFrame({**facts, "path": np.full(films, "")}),
        boxes=empty_boxes(),
        origin=f"{table.file.name}: {counted(films, 'film')}",
        uncertain=cells_where(uncertain, image=image, findings=findings),
    )


def _fact(table: CsvTable, column: str) -> Shaped[np.ndarray, " n"]:
    """Return a column as numbers, NaN where it is empty, or as text where it is not all numbers.

    Numbers with leading zeros are text: they name something.
    """
    cells = table.columns[column]
    if any(LED_BY_ZEROS.match(text) for text in np.unique(cells).tolist()):
        return cells
    try:
        return table.parse_numbers(column, parse_number)
    except ValueError:
        return cells


def read_label_table(file: Path) -> CsvTable:
    """Return the cells of a label file as text; raises ValueError where there is no such file."""
    return read_csv(file, expected="a label file (.csv or .csv.gz)")


def read_official_lists(root: Path) -> tuple[Shaped[np.ndarray, " t"], Shaped[np.ndarray, " u"]]:
    """Return the names on train_val_list.txt and on test_list.txt.

    Raises ValueError when a list is absent.
    """
    for name in OFFICIAL_LISTS:
        if not (root / name).is_file():
            raise ValueError(f"{root / name} is absent: the official split needs both lists there")
    train_val, test = (read_names(root / name) for name in OFFICIAL_LISTS)
    return train_val, test


def label_column(name: str) -> int:
    """Return the place of a finding among LABELS; raises ValueError for an unknown one."""
    if name not in LABELS:
        known = f"expected one of {', '.join(LABELS)}"
        raise ValueError(f"finding {name!r} is unknown: {known}{nearest(name, LABELS)}")
    return LABELS.index(name)


def _films_of_nih(table: CsvTable, *, root: Path, findings: tuple[str, ...]) -> Manifest:
    """Return the films of NIH's label file; boxes and a phantom's truth lie in `root`."""
    places = [label_column(name) for name in findings]
    table.require(*REQUIRED)
    image = table.columns["Image Index"]
    _refuse_images(table, "Image Index")
    patient, named = patients_of(table, "Patient ID")
    label = _parse_labels(table)
    facts = named | {
        name: table.parse(column, parse)
        for column, (name, parse) in _FACTS.items()
        if column in table.columns
    }
    return Manifest(
        findings=findings,
        image=image,
        patient=patient,
        label=label[:, places],
        facts=_with_truth({**facts, "path": np.full(len(image), "")}, root, image),
        boxes=_read_boxes(root, image, findings),
        origin=f"{table.file.name}: {_version(table, patient, label)}, "
        f"{counted(len(image), 'film')} of {counted(len(np.unique(patient)), 'patient')}",
    )


def _parse_labels(table: CsvTable) -> Float32[np.ndarray, "n 15"]:
    """Return 0 or 1 for each of LABELS in each row of NIH's file."""
    return table.parse(LABEL_COLUMN, _parse_tokens).astype(np.float32)


def _parse_tokens(text: str) -> list[int]:
    """Return 0 or 1 for each of LABELS from a text such as "Mass|Nodule"."""
    tokens = text.split("|")
    if NO_FINDING in tokens and len(tokens) > 1:
        raise ValueError(f"found {text!r}, expected {NO_FINDING} alone or findings without it")
    places = {label_column(token) for token in tokens}
    return [int(place in places) for place in range(len(LABELS))]


def _parse_stated(text: str) -> float:
    """Return 0, 1, UNCERTAIN or, for an empty cell, NaN."""
    code = label_code(text)
    if code not in (0, 1, UNCERTAIN) and not np.isnan(code):
        advice = "" if np.isfinite(code) else "write 1 and 0 for words and signs, and "
        raise ValueError(
            f"found {text!r}, expected 0, 1, -1 (uncertain) or nothing: {advice}leave the cell "
            "empty where it is not known"
        )
    return code


def _parse_years(text: str) -> float:
    """Return an age such as 58, 058Y, 011M, 005D or 90+ in years, NaN where it is unknown."""
    text = text.translate(DASHES)
    if is_unknown(text):
        return np.nan
    parts = AGE.fullmatch(text)
    if not parts:
        raise ValueError(f"found {text!r}, expected an age such as 58, 058Y, 011M or 90+")
    years = float(parts[2]) / _UNITS[parts[3][:1].casefold()]
    return years + (parts[1] == ">")  # of whole years: above 89 is 90


def _parse_sex(text: str) -> str:
    """Return M or F for m, male, f and female in any letters, other text as it is."""
    return {"m": "M", "male": "M", "f": "F", "female": "F"}.get(text.casefold(), text)


def _refuse_shared(table: CsvTable, named: Columns, findings: Sequence[str]) -> None:
    """Raise ValueError where a column is named for images or patients that holds something else."""
    for what, column in named.items():
        other = "that of images" if what == "patient" and column == named["image"] else ""
        other = "a finding's" if column in findings else other
        if other:
            raise ValueError(
                f"{table.file}: column {column!r} is named as that of {what}s and is {other}; "
                f"expected a column of its own: --{what}-column, or data.{what}_column of a "
                "protocol, names it"
            )


def _refuse_named(file: Path, named: Columns, *, own: Columns) -> None:
    """Raise ValueError where another column is named than the table's own."""
    for what, column in own.items():
        if plain_name(named[what]) not in (what, plain_name(column)):
            raise ValueError(
                f"{file}: --{what}-column {named[what]}: such a file has its own column "
                f"{column!r}: leave the option out"
            )


def _refuse_images(table: CsvTable, column: str = "") -> None:
    """Raise ValueError where an image has no name, or is listed twice.

    Without a column that of images is meant, if there is one.
    """
    if not column and ("image" in table.columns or len(columns_meant(table, "image")) == 1):
        column = find_columns(table, optional=("image",))["image"]
    if not column:
        say(f"{table.file}: no column of image names is evident: repeated films are not seen")
        return
    row, names = pd.factorize(table.columns[column].astype(object))
    if (nameless := np.flatnonzero(names == "")).size:
        line = table.line[np.argmax(row == nameless[0])]
        raise ValueError(
            f"{table.file}, line {line}: found no name of an image in column {column!r}; expected "
            "one in each row: remove the rows that have none"
        )
    count = np.bincount(row)
    if (again := np.flatnonzero(count > 1)).size:
        line = table.line[np.flatnonzero(row == again[0])[1]]
        raise ValueError(
            f"{table.file}, line {line}: image {names[again[0]]!r} is listed {count[again[0]]} "
            "times; expected each film once: remove the repeated rows, or combine several readers' "
            "labels first, by majority for instance"
        )


def _stated(
    table: CsvTable, where: Mapping[str, str]
) -> tuple[Float32[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
    """Return the labels in the columns of findings, and which of them are uncertain.

    Uncertain labels, and findings that no film has, are reported.
    """
    columns = [table.parse_numbers(name, _parse_stated) for name in where.values()]
    label = np.stack(columns, axis=1).astype(np.float32)
    uncertain = label == UNCERTAIN
    label[uncertain] = np.nan
    if uncertain.any():
        pairs = zip(where, uncertain.sum(axis=0).tolist(), strict=True)
        counts = listed([f"{name} {count:,}" for name, count in pairs if count])
        say(f"{table.file}: {counted(uncertain.sum(), 'label', 'is/are')} -1, uncertain: {counts}")
    _refuse_contradiction(table, where, label)
    if never := [
        name for name, carried in zip(where, (label == 1).T, strict=True) if not carried.any()
    ]:
        what = "no label is 1" if len(never) == len(where) else f"no film has {', '.join(never)}"
        say(f"{table.file}: {what}: such findings can neither be learned nor evaluated")
    return label, uncertain


def _refuse_contradiction(table: CsvTable, where: Mapping[str, str], label: np.ndarray) -> None:
    """Raise ValueError where a film has a finding, and No Finding by its own column.

    Films of No Finding whose findings are empty are reported: they count as not stated.
    """
    normal = next((name for name in table.columns if plain_name(name) == "nofinding"), "")
    if not normal:
        return
    findings = [plain_name(name) not in ("nofinding", NOT_A_PATHOLOGY) for name in where]
    without = table.parse(normal, label_code) == 1
    both = (label == 1) & np.array(findings) & without[:, None]
    if both.any():
        row, place = np.argwhere(both)[0]
        raise ValueError(
            f"{table.file}, line {table.line[row]}: {normal} is 1 beside {list(where)[place]}; "
            f"expected one of them ({counted(both.any(axis=1).sum(), 'row')} so)"
        )
    empty = np.isnan(label[:, findings]).any(axis=1) & without
    if empty.any() and NO_FINDING not in where:
        say(
            f"{table.file}: {counted(empty.sum(), 'film', 'is/are')} marked {normal} with empty "
            "findings: these, and No Finding of such films, count as not stated; write 0 where a "
            "finding is absent"
        )


def _with_truth(facts: dict[str, np.ndarray], root: Path, image: np.ndarray) -> pd.DataFrame:
    """Add the columns of a phantom's truth.csv, joined by image name."""
    table = pd.DataFrame(facts)
    file, key = root / TRUTH_FILE, "Image Index"
    if not file.is_file():
        return table
    truth = read_table(file, text=(key,), columns=(key,)).set_index(key)
    for name in truth.index[truth.index.duplicated()][:1]:
        raise ValueError(f"{file}: film {name!r} is there twice; expected each once: remove a row")
    truth = truth.reindex(image)
    truth.columns = [name.lower().replace(" ", "_") for name in truth.columns]
    return pd.concat([table, truth.reset_index(drop=True)], axis=1)


def _read_boxes(root: Path, image: np.ndarray, findings: tuple[str, ...]) -> pd.DataFrame:
    """Return the boxes of these films and findings, in 0..1 of the film."""
    file = next((f for f in (root / BOX_FILE, root / f"{BOX_FILE}.gz") if f.is_file()), None)
    if file is None:
        return empty_boxes()
    table = read_csv(file)
    table.require("Image Index", "Finding Label", *_BOX_NUMBERS)
    number = [table.parse(name, parse_number) for name in _BOX_NUMBERS]
    where, boxed = table.parse("Finding Label", _parse_box_finding), table.columns["Image Index"]
    wanted = np.isin(boxed, image) & np.isin(where, findings)
    fields = (boxed, where, *(one / BOX_FRAME for one in number))
    return pd.DataFrame({n: f[wanted] for n, f in zip(BOX_COLUMNS, fields, strict=True)})


def _parse_box_finding(text: str) -> str:
    return FINDINGS[label_column("Infiltration" if text == "Infiltrate" else text)]


def _version(table: CsvTable, patient: np.ndarray, label: np.ndarray) -> str:
    """Name the published version whose every count agrees; two without the follow-up numbers."""
    counts = dict(zip(LABELS, label.sum(axis=0).astype(int).tolist(), strict=True))
    films, patients = len(patient), len(np.unique(patient))
    if FOLLOW_UP in table.columns:
        columns = (table.columns[name].tolist() for name in ("Image Index", FOLLOW_UP))
        renumbered = sum(name[9:12] != time.zfill(3) for name, time in zip(*columns, strict=True))
        found = [(films, patients, renumbered, counts)]
    else:
        say(f"{table.file}: no column {FOLLOW_UP!r}: films are not compared by visit")
        found = [(films, patients, one, counts) for _, _, one, _ in _VERSIONS.values()]
    fitting = [name for name, known in _VERSIONS.items() if known in found]
    return " or ".join(fitting) or UNPUBLISHED


def patients_of(
    table: CsvTable, column: str
) -> tuple[Int64[np.ndarray, " n"], dict[str, Shaped[np.ndarray, " n"]]]:
    """Return each film's patient as a number; as a fact, their names where any is no number."""
    name = table.parse(column, _parse_patient)
    row, names = pd.factorize(name.astype(object))
    refuse_alike(names, where=f"{table.file}, {column}")
    number = np.array([_number_patient(one) for one in names], dtype=np.int64)[row]
    plain = all(map(PLAIN_NUMBER.fullmatch, names))
    return number, {} if plain else {PATIENT_ID: name}


def is_unknown(text: str) -> bool:
    """Return whether a cell states no age or patient: it is empty, a dash or a word such as NA."""
    return text.translate(DASHES).casefold() in MISSING | UNKNOWN


def refuse_alike(patients: Iterable[str], *, where: str) -> None:
    """Raise ValueError where two of these patients' names differ in a way of writing alone.

    That is capital letters, leading zeros, .0 at the end, kinds of dash (an underscore is one), an
    apostrophe before it, and blanks: two patients of one such name would train and test on one
    patient's films. Names of one length, such as
    hexadecimal digits, have lost no zeros.
    """
    names = list(patients)
    if all(map(PLAIN_NUMBER.fullmatch, names)):
        return  # most often, and faster
    if _of_one_length(names) and len({*map(str.casefold, names)}) == len({*names}):
        return
    seen = dict[str, str]()  # plain form -> name
    lengths = dict[str, dict[int, str]]()  # plain form without zeros -> length -> name
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold().translate(DASHES)
        plain = re.sub(r"\s|^'", "", plain)
        key = re.sub(r"^([0-9]+)[.,]0+$", r"\1", plain)
        key = re.sub(r"(?<![0-9])0+(?=[0-9])", "", key)
        alike = lengths.setdefault(key, {})
        longer = [other for length, other in alike.items() if length != len(plain)]
        for other in [seen.get(plain, name), *longer]:
            if other != name:
                raise ValueError(
                    f"{where}: found patients {other!r} and {name!r}, which differ in capital "
                    "letters, leading zeros, .0, apostrophe, dash, underscore or blanks alone; "
                    "expected one way of writing for each patient: films of one patient belong "
                    "together"
                )
        seen[plain] = alike[len(plain)] = name


def _of_one_length(names: Sequence[str]) -> bool:
    """Return whether names are of as many letters and digits: they may differ in capitals alone."""
    plain = all(name.isascii() and name.isalnum() for name in names)
    return plain and len({len(name) for name in names}) == 1


def _parse_patient(text: str) -> str:
    name = clean_id(text)
    if is_unknown(name):
        raise ValueError(
            f"found {name or 'nothing'}, expected a patient: films of one patient belong together; "
            "leave the film out, or give each patient an id"
        )
    if SHORTENED.fullmatch(name):
        raise ValueError(
            f"found {name!r}, a number that a spreadsheet has shortened; expected the whole one: "
            "format the column as text and save the table again"
        )
    return name


def _number_patient(name: str) -> int:
    """Keep a number, also with leading zeros or .0; of any other name take 63 bits of SHA-256."""
    number = re.sub(r"[.,]0+$", "", name).lstrip("0") or "0"
    if name[0].isdigit() and PLAIN_NUMBER.fullmatch(number):
        return int(number)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


_UNITS = {"": 1.0, "y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # in a year
_FACTS = {
    "Patient Age": ("age", _parse_years),
    "Patient Gender": ("sex", _parse_sex),
    "View Position": ("view", str.upper),
    FOLLOW_UP: ("follow_up", parse_whole),
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
