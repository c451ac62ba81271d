"""Trees of phantom films in the layouts of PadChest, VinDr-CXR, OpenI, RSNA, SIIM and NIH-CXR-LT.

Each function writes a root as a user has it, with the columns, spellings and oddities of the real
label files, and returns it. Every film is a phantom of 64 pixels.
"""

import importlib.util
import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from dicom_films import dicom_bytes, phantom_grey

SIDE = 64
PADCHEST_HEADING = (  # of the real file, in its order; the first has no name
    "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
    "PatientSex_DICOM", "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric",
    "Modality_DICOM", "Manufacturer_DICOM", "PhotometricInterpretation_DICOM",
    "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM", "SpatialResolution_DICOM",
    "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM", "Columns_DICOM",
    "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime",
    "RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS",
)  # fmt: skip
PADCHEST_FILE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
PADCHEST_FILMS = (  # labels, patient, birth, sex, projection, method
    ("['cardiomegaly', ' pleural effusion ', '']", "1", "1930.0", "F", "PA", "Physician"),
    ("['normal']", "1", "1930.0", "F", "L", "RNN_model"),
    ("['pseudonodule', 'subcutaneous emphysema']", "2", "1950.0", "M", "AP", "RNN_model"),
    ("['hydropneumothorax']", "3", "1700.0", "O", "AP_horizontal", "Physician"),
    ("['unchanged']", "4", "nan", "nan", "PA", "RNN_model"),
    ("['exclude']", "5", "1960.0", "M", "UNK", "RNN_model"),
    ("['']", "6", "1970.0", "M", "COSTAL", "RNN_model"),
    ("nan", "7", "1980.0", "F", "EXCLUDE", "RNN_model"),
    ("['normal', 'nodule']", "8", "2010.0", "F", "PA", "Physician"),
    ("['unchanged', 'suboptimal study']", "9", "1940.0", "M", "PA", "RNN_model"),
)
PATIENT_OF_PADCHEST = "83986048869429233163798823568146098{}"  # of as many digits as the real ones
VINDR_COLUMNS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "{}", "No finding",
)  # fmt: skip
VINDR_READINGS = {  # film -> what each of its readers states
    "a" * 32: (("R1", "Nodule/Mass"), ("R2", "Nodule/Mass"), ("R3", "No finding")),
    "b" * 32: (("R8", "No finding"), ("R9", "No finding"), ("R10", "No finding")),
    "c" * 32: (("R8", "Cardiomegaly"), ("R9", "No finding"), ("R10", "Other diseases")),
    "d" * 32: (("R8", "Other diseases"), ("R9", "Other diseases"), ("R10", "Other diseases")),
}
VINDR_TEST = {"e" * 32: "Other disease", "f" * 32: "No finding"}
OPENI_REPORTS = {  # number -> headings, films
    1: (("normal",), ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")),
    2: (("Cardiomegaly/mild", "Thickening/pleura/apex/left"), ("CXR2_IM-0652-1001",)),
    3: (("Thickening/bronchovascular", "Pulmonary Atelectasis/base/left"), ("CXR3_IM-1384-1001",)),
    4: (("No Indexing",), ("CXR4_IM-2050-1001",)),
    5: (
        ("Technical Quality of Image Unsatisfactory ", "Pleural Effusion/left"),
        ("CXR5_IM-2117-1003002",),
    ),
    6: (("Fibrosis/lung",), ()),
}
RSNA_FILMS = {  # film -> target, class, NIH's name
    "0004cfab-14fd-4e49-80ba-63a80b6bddd6": (0, "No Lung Opacity / Not Normal", "00000013_008.png"),
    "00436515-870c-4b36-a041-de91049b9ab4": (2, "Lung Opacity", "00000013_026.png"),
    "00704310-78a8-4b38-8475-49f4573b2dbb": (1, "Lung Opacity", "00000071_000.png"),
    "003d8fa0-6bf1-40ed-b54c-ac657f8495c5": (0, "Normal", "00000099_000.png"),
}
SIIM_STEM = "1.2.276.0.7230010.3.1.4.8323329.{}"
SIIM_MASKS = {  # film -> masks, whose runs go down the columns
    SIIM_STEM.format(6904): ("-1",),
    SIIM_STEM.format(13666): ("557374 2 1015 8 1009 14", "100 5"),
    SIIM_STEM.format(11557): ("1020 10",),  # from one column into the next
}
LT_COLUMNS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural Thickening", "Pneumonia", "Pneumothorax",
    "Pneumoperitoneum", "Pneumomediastinum", "Subcutaneous Emphysema", "Tortuous Aorta",
    "Calcification of the Aorta", "No Finding",
)  # fmt: skip


def oracle_labels(*names: str, root: Path) -> Path:
    """Return `root` with links to real label files, which the package torchxrayvision holds.

    Skips the test, with the reason, where the package is not installed.
    """
    found = importlib.util.find_spec("torchxrayvision")
    if found is None or not found.submodule_search_locations:
        pytest.skip(
            "torchxrayvision, which holds the real label files, is absent: pip install --no-deps "
            "torchxrayvision"
        )
    folder = Path(found.submodule_search_locations[0]) / "data"
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).symlink_to(folder / name)
    return root


def grey(number: int) -> np.ndarray:
    """Return the pixels of a film: a phantom, moved so that each film is another."""
    return np.roll(phantom_grey(SIDE), number, axis=1)


def write_png(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), pixels)


def write_dicom(file: Path, number: int, **elements: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(dicom_bytes(grey(number).astype(np.uint16) << 4, **elements))


def padchest(root: Path) -> Path:
    """Write PadChest: one table; pictures of 12 bits in PNG of 16, in numbered folders."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (labels, patient, birth, sex, projection, method) in enumerate(PADCHEST_FILMS):
        row = dict.fromkeys(PADCHEST_HEADING, "None") | {
            "": str(number), "ImageID": f"film_{number}.png", "ImageDir": str(number % 3),
            "StudyDate_DICOM": "20140915", "StudyID": f"2053668664013634823614867989145588{number}",
            "PatientID": PATIENT_OF_PADCHEST.format(patient), "PatientBirth": birth,
            "PatientSex_DICOM": sex, "Projection": projection, "MethodLabel": method,
            "Manufacturer_DICOM": "ImagingDynamicsCompanyLtd", "BitsStored_DICOM": "12",
            "Report": 'sin hallazg , "patolog"', "Labels": labels,
        }  # fmt: skip
        rows.append(row)
        write_png(root / row["ImageDir"] / row["ImageID"], grey(number).astype(np.uint16) << 4)
    pd.DataFrame(rows).to_csv(root / PADCHEST_FILE, index=False)
    return root


def vindr(root: Path, *, sizes: bool = False) -> Path:
    """Write VinDr-CXR as PhysioNet has it; `sizes` adds the community's tables of film sizes."""
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    train = [
        {"image_id": film, "rad_id": reader, **_vindr_row("Other diseases", stated)}
        for film, readings in VINDR_READINGS.items()
        for reader, stated in readings
    ]
    test = [
        {"image_id": film, **_vindr_row("Other disease", stated)}
        for film, stated in VINDR_TEST.items()
    ]
    pd.DataFrame(train).to_csv(folder / "image_labels_train.csv", index=False)
    pd.DataFrame(test).to_csv(folder / "image_labels_test.csv", index=False)
    box = {"image_id": "a" * 32, "class_name": "Nodule/Mass"}
    edges = {"x_min": 16.0, "y_min": 8.0, "x_max": 32.0, "y_max": 24.0}
    boxes = [
        {**box, "rad_id": "R1", **edges},
        {**box, "rad_id": "R2", **edges},
        {"image_id": "c" * 32, "class_name": "Cardiomegaly", "rad_id": "R8", **edges},
        {"image_id": "b" * 32, "class_name": "No finding", "rad_id": "R8"},
    ]
    pd.DataFrame(boxes).to_csv(folder / "annotations_train.csv", index=False)
    none = pd.DataFrame([], columns=["image_id", "class_name", *edges])
    none.loc[0] = ["f" * 32, "No finding", *[np.nan] * 4]
    none.to_csv(folder / "annotations_test.csv", index=False)
    for number, film in enumerate([*VINDR_READINGS, *VINDR_TEST]):
        part = "test" if film in VINDR_TEST else "train"
        inverted = {"PhotometricInterpretation": "MONOCHROME1"} if number % 2 else {}
        write_dicom(root / part / f"{film}.dicom", number, **inverted)
    if sizes:
        films = [*VINDR_READINGS]
        table = {"image_id": films, "dim0": [2 * SIDE] * 4, "dim1": [SIDE] * 4}
        pd.DataFrame(table).to_csv(root / "train_meta.csv", index=False)
    return root


def _vindr_row(other: str, stated: str) -> dict[str, int]:
    return {name.format(other): int(name.format(other) == stated) for name in VINDR_COLUMNS}


def vindr_kaggle(root: Path) -> Path:
    """Write VinBigData as Kaggle has it: a row a box, or a row of class 14 without one."""
    root.mkdir(parents=True, exist_ok=True)
    columns = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
    edges, none = (1, 2, 11, 22), (np.nan,) * 4
    rows = [
        ("a" * 32, "Nodule/Mass", 8, "R1", *edges), ("a" * 32, "Nodule/Mass", 8, "R1", *edges),
        ("a" * 32, "Nodule/Mass", 8, "R2", *edges), ("a" * 32, "No finding", 14, "R3", *none),
        *(("b" * 32, "No finding", 14, reader, *none) for reader in ("R8", "R9", "R10")),
    ]  # fmt: skip
    pd.DataFrame(rows, columns=columns).to_csv(root / "train.csv", index=False)
    for number, film in enumerate("ab"):
        write_dicom(root / "train" / f"{film * 32}.dicom", number)
    return root


def openi(root: Path, *, archive: bool = False, dicom: bool = False) -> Path:
    """Write OpenI: reports in a .tgz or a folder, films as PNG in one folder or as DICOM."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (_, films) in OPENI_REPORTS.items():
        for film in films:
            name = film.removeprefix(f"CXR{number}_").removeprefix(f"{number}_")
            if dicom:
                write_dicom(root / str(number) / f"{number}_{name}.dcm", number)
            else:
                write_png(root / f"{film}.png", grey(number))
    reports = {f"{number}.xml": openi_report(number) for number in OPENI_REPORTS}
    if archive:
        with tarfile.open(root / "NLMCXR_reports.tgz", "w:gz") as packed:
            for name, content in reports.items():
                member = tarfile.TarInfo(f"ecgen-radiology/{name}")
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
        return root
    (root / "ecgen-radiology").mkdir()
    for name, content in reports.items():
        (root / "ecgen-radiology" / name).write_bytes(content)
    return root


def openi_report(number: int) -> bytes:
    """Return a report's XML, its headings and films as the real ones have them."""
    headings, films = OPENI_REPORTS[number]
    major = "".join(f"<major>{heading}</major>\n" for heading in headings)
    pictures = "".join(
        f'<parentImage id="{film}"><figureId>F</figureId></parentImage>' for film in films
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><uId id="CXR{number}"/>'
        f"<MeSH>{major}<automatic>Pneumothorax</automatic></MeSH>{pictures}</eCitation>"
    ).encode()


def rsna(root: Path, *, mapped: str = "json") -> Path:
    """Write RSNA's stage 2; `mapped` adds the mapping to NIH's names, "json" or "csv"."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for film, (boxes, _, _) in RSNA_FILMS.items():
        corners = [(264.0, 152.0, 213.0, 379.0), (562.0, 152.0, 256.0, 453.0)][:boxes] or [
            ("",) * 4
        ]
        rows += [(film, *corner, min(boxes, 1)) for corner in corners]
    columns = ("patientId", "x", "y", "width", "height", "Target")
    pd.DataFrame(rows, columns=columns).to_csv(root / "stage_2_train_labels.csv", index=False)
    kinds = [(row[0], RSNA_FILMS[row[0]][1]) for row in rows]
    classes = pd.DataFrame(kinds, columns=["patientId", "class"])
    classes.to_csv(root / "stage_2_detailed_class_info.csv", index=False)
    headers = pd.DataFrame({"PatientID": [*RSNA_FILMS], "PatientAge": [58, 61, 150, 33]})
    headers = headers.assign(PatientSex=["M", "M", "F", "F"], ViewPosition=["PA", "AP", "PA", "PA"])
    headers.to_csv(root / "stage_2_train_images_dicom_headers.csv")
    for number, film in enumerate(RSNA_FILMS):
        write_dicom(root / "stage_2_train_images" / f"{film}.dcm", number)
    write_mapping(root, {film: about[2] for film, about in RSNA_FILMS.items()}, kind=mapped)
    return root


def write_mapping(root: Path, known: dict[str, str], *, kind: str) -> None:
    """Write which film of NIH each film is, as RSNA's JSON or as a table."""
    if kind == "json":
        rows = [
            {"subset_img_id": film, "img_id": nih, "SOPInstanceUID": film, "orig_labels": []}
            for film, nih in known.items()
        ]
        file = root / "pneumonia-challenge-dataset-mappings_2018.json"
        file.write_text(json.dumps(rows))
    if kind == "csv":
        table = pd.DataFrame({"image": [*known], "nih": [*known.values()]})
        table.to_csv(root / "mapping.csv", index=False)


def siim(root: Path, *, mapped: str = "") -> Path:
    """Write SIIM-ACR: run-length masks, whose column's name begins with a blank."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [(film, f" {mask}") for film, masks in SIIM_MASKS.items() for mask in masks]
    table = pd.DataFrame(rows, columns=["ImageId", " EncodedPixels"])
    table.to_csv(root / "train-rle.csv", index=False)
    for number, film in enumerate(SIIM_MASKS):
        write_dicom(
            root / "dicom-images-train" / f"{number}.1" / f"{number}.2" / f"{film}.dcm", number
        )
    nih = (f"{number:08d}_000.png" for number in (1, 2, 2))
    write_mapping(root, dict(zip(SIIM_MASKS, nih, strict=True)), kind=mapped)
    return root


def nih_lt(root: Path) -> Path:
    """Write NIH-CXR-LT and PruneCXR beside NIH's films."""
    lists = {
        "LongTailCXR/nih-cxr-lt_single-label_train.csv": ((1, 0, "Mass"), (1, 1, "No Finding")),
        "LongTailCXR/nih-cxr-lt_single-label_test.csv": ((2, 0, "Pneumoperitoneum"),),
        "LongTailCXR/nih-cxr-lt_single-label_balanced-test.csv": ((2, 0, "Pneumoperitoneum"),),
        "PruneCXR/miccai2023_nih-cxr-lt_labels_train.csv": ((1, 0, "Mass|Pleural Thickening"),),
        "PruneCXR/miccai2023_nih-cxr-lt_labels_val.csv": ((1, 1, "No Finding"),),
        "PruneCXR/miccai2023_nih-cxr-lt_labels_test.csv": ((2, 0, "Mass"),),
    }
    for name, films in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for patient, follow_up, labels in films:
            stated = {one: int(one in labels.split("|")) for one in LT_COLUMNS}
            film = f"{patient:08d}_{follow_up:03d}.png"
            rows.append({"id": film, "subj_id": patient, **stated})
            write_png(root / "images" / film, grey(patient + follow_up))
        pd.DataFrame(rows).to_csv(root / name, index=False)
    return root
