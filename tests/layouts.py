"""Trees of phantom films in the layouts of CheXpert, CheXpert Plus, MIMIC-CXR-JPG, CXR-LT and BRAX.

Each function writes a root as a user has it, with the columns, spellings and oddities of the real
label files (the facts file, sections 1, 2, 4, 7 and 9), and returns it.
"""

import gzip
import hashlib
import json
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from dicom_films import dicom_bytes
from lucency.phantom.cohort import draw_population
from lucency.phantom.dataset import phantom_film

SIDE = 64
CHEXPERT_HEADING = (
    "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum",
    "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
NAMES = CHEXPERT_HEADING[5:]
OURS = {  # own names that phantoms show, and what they are called there
    "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly", "Consolidation": "Consolidation",
    "Edema": "Edema", "Pleural Effusion": "Effusion", "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}  # fmt: skip
CXR_LT_2023 = (
    "Atelectasis", "Calcification of the Aorta", "Cardiomegaly", "Consolidation", "Edema",
    "Emphysema", "Enlarged Cardiomediastinum", "Fibrosis", "Fracture", "Hernia", "Infiltration",
    "Lung Lesion", "Lung Opacity", "Mass", "No Finding", "Nodule", "Pleural Effusion",
    "Pleural Other", "Pleural Thickening", "Pneumomediastinum", "Pneumonia", "Pneumoperitoneum",
    "Pneumothorax", "Subcutaneous Emphysema", "Support Devices", "Tortuous Aorta",
)  # fmt: skip
CXR_LT_ADDED = (  # by 2024: 14 of the first task, 5 of the third
    "Adenopathy", "Azygos Lobe", "Clavicle Fracture", "Fissure", "Granuloma", "Hydropneumothorax",
    "Infarction", "Kyphosis", "Lobar Atelectasis", "Pulmonary Embolism", "Pulmonary Hypertension",
    "Rib Fracture", "Round(ed) Atelectasis", "Tuberculosis", "Bulla", "Cardiomyopathy", "Hilum",
    "Osteopenia", "Scoliosis",
)  # fmt: skip
MIMIC = "mimic-cxr-2.0.0-{}.csv.gz"
BRAX_TABLE = "master_spreadsheet_update.csv"
CAP = 90  # years, of CheXpert


class Phantom(NamedTuple):
    """A film, its patient (from 1), study (from 1 in the patient), and what a report states."""

    patient: int
    study: int
    view: str  # PA, AP or LATERAL
    age: int
    sex: str
    state: dict[str, str]  # by own name: "1.0", "0.0", "-1.0" or ""
    pixels: np.ndarray

    @property
    def lateral(self) -> bool:
        return self.view == "LATERAL"


@cache
def phantoms(films: int, *, seed: int = 0, size: int = SIDE, hospital: int = 2) -> list[Phantom]:
    """Return drawn films of one patient after the other; every fourth has a lateral beside it.

    Each study states what the phantom shows; a third states nothing of other findings, and every
    fifth has an uncertain one. Where it shows nothing, No Finding is 1, beside a device.
    """
    drawn = list[Phantom]()
    people = draw_population(films=films, seed=seed, hospital=hospital)
    for number, (patient, theirs) in enumerate(people, start=1):
        for study, film in enumerate(theirs, start=1):
            row = len(drawn)
            pixels = phantom_film(patient, film, size=size).pixels
            about = (number, study)
            state = stated(film.findings, row)
            drawn.append(Phantom(*about, film.view, film.age, patient.sex, state, pixels))
            if row % 4 == 0:
                aside = np.ascontiguousarray(pixels[:, ::-1])
                drawn.append(Phantom(*about, "LATERAL", film.age, patient.sex, state, aside))
    return drawn


def stated(shown: tuple[str, ...], row: int) -> dict[str, str]:
    """Return what the report of a study states of each own name."""
    state = dict.fromkeys(NAMES, "")
    if not shown:
        return state | {"No Finding": "1.0", "Support Devices": "1.0"}
    for name, ours in OURS.items():
        state[name] = "1.0" if ours in shown else ("" if row % 3 == 0 else "0.0")
    state["Lung Lesion"] = "1.0" if {"Mass", "Nodule"} & {*shown} else ""
    if row % 5 == 1 and "Pneumonia" not in shown:
        state["Pneumonia"] = "-1.0"
    return state


def write_chexpert(
    root: Path, *, films: int = 12, prefix: str = "CheXpert-v1.0-small", test: bool = False,
    **drawn: int,
) -> Path:  # fmt: skip
    """Write CheXpert: train and valid; with `test` the last patient's films and test_labels.csv."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    made = phantoms(films, **drawn)
    last = made[-1].patient
    for number, film in enumerate(made):
        split = "test" if test and film.patient == last else "train"
        split = "valid" if split == "train" and film.patient % 4 == 0 else split
        below = f"{split}/{chexpert_path(film)}.jpg"
        write_picture(root / below, film.pixels)
        side = "Lateral" if film.lateral else "Frontal"
        rows[split].append(
            {
                "Path": f"{prefix}/{below}" if split != "test" else below,
                "Sex": "Unknown" if number == 0 else {"M": "Male", "F": "Female"}[film.sex],
                "Age": CAP if number == 1 else min(film.age, CAP),
                "Frontal/Lateral": side,
                "AP/PA": "" if film.lateral else ("LL" if number == 2 else film.view),
                **film.state,
            }
        )
    for split in ("train", "valid"):
        pd.DataFrame(rows[split], columns=CHEXPERT_HEADING).to_csv(
            root / f"{split}.csv", index=False
        )
    if test:
        table = pd.DataFrame(rows["test"])[["Path", *NAMES]]
        table.to_csv(root / "test_labels.csv", index=False)
    return root


def chexpert_path(film: Phantom) -> str:
    """Return a film's path without the part before its patient, and without suffix."""
    side = "view2_lateral" if film.lateral else "view1_frontal"
    return f"patient{film.patient:05d}/study{film.study}/{side}"


def write_chexpert_plus(root: Path, *, films: int = 12, packed: bool = True, **drawn: int) -> Path:
    """Write CheXpert Plus: PNG files, the table of reports, labels as JSON lines in an archive.

    The last film has no line of labels, a fragment of a download lies among the films.
    """
    made = phantoms(films, **drawn)
    rows, lines = [], list[dict[str, Any]]()
    for number, film in enumerate(made):
        split = "valid" if film.patient % 4 == 0 else "train"
        below = f"{split}/{chexpert_path(film)}"
        write_picture(root / "PNG" / f"{below}.png", film.pixels)
        rows.append(
            {
                "path_to_image": f"{below}.jpg",
                "path_to_dcm": f"{below}.dcm",
                "frontal_lateral": "Lateral" if film.lateral else "Frontal",
                "ap_pa": "" if film.lateral else film.view,
                "deid_patient_id": f"patient{film.patient:05d}",
                "patient_report_date_order": film.study,
                "report": f'NARRATIVE: "{number}",\nIMPRESSION:\n1. no change',
                "section_impression": "1. no change,\nas before",
                "age": min(film.age, CAP),
                "sex": {"M": "Male", "F": "Female"}[film.sex],
                "race": "Unknown",
                "ethnicity": "Unknown",
                "split": split,
            }
        )
        state = {name: float(text) if text else None for name, text in film.state.items()}
        lines.append({"path_to_image": f"{below}.jpg", **state})
    pd.DataFrame(rows).to_csv(root / "df_chexpert_plus_240401.csv", index=False)
    write_label_lines(root, {"impression": lines[:-1], "report": lines}, packed=packed)
    (root / "PNG" / "train" / ".azDownload-9f-view1_frontal.dcm").write_bytes(b"\0" * 10)
    return root


def write_label_lines(root: Path, kinds: dict[str, list[dict[str, Any]]], *, packed: bool) -> None:
    """Write labels by section, one JSON object a line: in chexbert_labels.zip, or in its folder."""
    texts = {
        f"{kind}_fixed.json": "".join(json.dumps(line) + "\n" for line in lines)
        for kind, lines in kinds.items()
    }
    if packed:
        with zipfile.ZipFile(root / "chexbert_labels.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(f"chexbert_labels/{name}", text)
        return
    (root / "chexbert_labels").mkdir()
    for name, text in texts.items():
        (root / "chexbert_labels" / name).write_text(text)


def mimic_ids(film: Phantom) -> dict[str, str]:
    """Return the ids that MIMIC-CXR gives a film."""
    code = hashlib.sha256(f"{film.patient} {film.study} {film.view}".encode()).hexdigest()
    return {
        "dicom_id": "-".join(code[start : start + 8] for start in range(0, 40, 8)),
        "subject_id": str(10_000_000 + film.patient),
        "study_id": str(50_000_000 + 100 * film.patient + film.study),
    }


def mimic_path(film: Phantom) -> str:
    """Return a film's path in MIMIC-CXR-JPG."""
    film_id, subject, study = mimic_ids(film).values()
    return f"files/p{subject[:2]}/p{subject}/s{study}/{film_id}.jpg"


def mimic_split(film: Phantom) -> str:
    return {0: "test", 1: "validate"}.get(film.patient % 4, "train")


def write_mimic_cxr(root: Path, *, films: int = 12, people: bool = True, **drawn: int) -> Path:
    """Write MIMIC-CXR-JPG: films, metadata, split and labels of studies in alphabetical columns.

    The last study has no row of labels, the first film no view position but a code. `people` adds
    MIMIC-IV's table of patients, without the last one.
    """
    made = phantoms(films, **drawn)
    films_of, studies = [], dict[str, dict[str, str]]()
    for number, film in enumerate(made):
        ids = mimic_ids(film)
        write_picture(root / mimic_path(film), film.pixels)
        code = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}[film.view]
        films_of.append(
            {
                **ids,
                "PerformedProcedureStepDescription": "CHEST (PA AND LAT), portable",
                "ViewPosition": "" if number == 0 else film.view,
                "Rows": SIDE,
                "Columns": SIDE,
                "StudyDate": f"{2180 + film.patient}0506",
                "StudyTime": "213014.531",
                "ProcedureCodeSequence_CodeMeaning": "CHEST (PA AND LAT)",
                "ViewCodeSequence_CodeMeaning": code,
                "PatientOrientationCodeSequence_CodeMeaning": "Erect",
                "split": mimic_split(film),
                "age": film.age,
                "sex": film.sex,
            }
        )
        key = {name: ids[name] for name in ("subject_id", "study_id")}
        studies[ids["study_id"]] = {**key, **{name: film.state[name] for name in sorted(NAMES)}}
    table = pd.DataFrame(films_of)
    write_gz(table.drop(columns=["split", "age", "sex"]), root / MIMIC.format("metadata"))
    split = table[["dicom_id", "study_id", "subject_id", "split"]]
    write_gz(split, root / MIMIC.format("split"))
    labels = pd.DataFrame(list(studies.values())[:-1])
    for labeller in ("chexpert", "negbio"):
        write_gz(labels, root / MIMIC.format(labeller))
    read = labels.drop(columns="subject_id").rename(columns={"Lung Opacity": "Airspace Opacity"})
    read = read[["study_id", *("Airspace Opacity" if n == "Lung Opacity" else n for n in NAMES)]]
    read.iloc[:2].to_csv(root / "mimic-cxr-2.1.0-test-set-labeled.csv", index=False)
    if people:
        once = table.drop_duplicates("subject_id").iloc[:-1]
        known = pd.DataFrame(
            {
                "subject_id": once["subject_id"],
                "gender": once["sex"],
                "anchor_age": once["age"] - 3,
                "anchor_year": once["StudyDate"].str[:4].astype(int) - 3,
                "anchor_year_group": "2014 - 2016",
                "dod": "",
            }
        )
        write_gz(known, root / "mimic-iv" / "hosp" / "patients.csv.gz")
    return root


def write_cxr_lt(root: Path, *, version: str = "2023", films: int = 12, **drawn: int) -> Path:
    """Write CXR-LT's label files of a version, of the films that `write_mimic_cxr` writes."""
    folder = root / f"cxr-lt-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    newer = version == "2024"
    rows = []
    for film in phantoms(films, **drawn):
        carried = {name for name, text in film.state.items() if text == "1.0"}
        names = (*CXR_LT_2023, *CXR_LT_ADDED) if newer else CXR_LT_2023
        path = {"fpath" if newer else "path": mimic_path(film)}
        about = {**mimic_ids(film), "ViewPosition": film.view, "ViewCodeSequence_CodeMeaning": ""}
        row = {**about, **path, **{name: str(int(name in carried)) for name in sorted(names)}}
        rows.append(row | {"split": {"validate": "dev"}.get(mimic_split(film), mimic_split(film))})
    table = pd.DataFrame(rows)
    if newer:
        table.rename(columns={"No Finding": "Normal"}).to_csv(folder / "labels.csv", index=False)
        return root
    for name, part in {"train": "train", "development": "dev", "test": "test"}.items():
        chosen = table[table["split"] == part].drop(columns="split")
        chosen.to_csv(folder / f"{name}.csv", index=False)
    return root


def write_brax(
    root: Path, *, films: int = 12, dicom: bool = False, name: str = BRAX_TABLE, **drawn: int
) -> Path:
    """Write BRAX, as PNG or, with `dicom`, as DICOM; one accession number for several patients."""
    rows = []
    for number, film in enumerate(phantoms(films, **drawn)):
        below = f"id_{film.patient:04d}/Study_1.{film.study}.3/Series_2.{number}.5/image-7.{number}"
        paths = (f"images/{below}.png", f"Anonymized_DICOMs/{below}.dcm")
        if dicom:
            (root / paths[1]).parent.mkdir(parents=True, exist_ok=True)
            (root / paths[1]).write_bytes(dicom_bytes(film.pixels.astype(np.uint16) << 4))
        else:
            write_picture(root / paths[0], film.pixels)
        rows.append(
            {
                "": number,
                "DicomPath": paths[1],
                "PngPath": paths[0],
                "PatientID": f"{film.patient:04d}",
                "PatientSex": "O" if number == 0 else film.sex,
                "PatientAge": "85 or more" if number == 1 else str(film.age // 5 * 5),
                "AccessionNumber": f"{film.study:05d}",
                "StudyDate": "20110412",
                **film.state,
                "ViewPosition": "LL" if film.lateral else film.view,
                "Rows": SIDE,
                "Columns": SIDE,
                "Manufacturer": "2",
            }
        )
    pd.DataFrame(rows).to_csv(root / name, index=False)
    return root


def write_picture(file: Path, pixels: np.ndarray) -> None:
    """Write a film as its suffix says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)


def write_gz(table: pd.DataFrame, file: Path) -> None:
    """Write a table as .csv.gz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(table.to_csv(index=False).encode(), mtime=0))
