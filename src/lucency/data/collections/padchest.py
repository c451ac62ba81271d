"""PadChest: one table of 160,861 films, their findings as lists of names.

Bustos et al., Medical Image Analysis 2020 (arXiv 1901.07441). Letters in shapes: n films, k names.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32

from lucency.core.manifest import (
    NO_FINDING,
    Manifest,
    counted,
    empty_boxes,
    listed,
    nearest,
)
from lucency.core.progress import say
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_columns import (
    find_table,
    known_ages,
    origin_of,
    reading_of,
    say_short,
)
from lucency.data.csv_tables import CsvTable, parse_number, parse_whole
from lucency.data.labels import patients_of

TITLE = "PadChest"
TABLES = ("PADCHEST_chest_x_ray_images_labels_160K*.csv*",)
NORMAL = "normal"
NO_LABELS = "unchanged", "exclude", "suboptimal study"  # names that say nothing of findings
METHODS = {"Physician": "physician", "RNN_model": "RNN"}
VIEWS = {  # by Projection: all that the published file has
    "PA": "PA", "L": "LATERAL", "AP_horizontal": "AP", "AP": "AP", "COSTAL": "COSTAL",
    "EXCLUDE": "EXCLUDE", "UNK": "",
}  # fmt: skip
LONGEST_LIST = 10_000  # characters of a cell of names; the longest published has 600
COLUMNS = (
    "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
    "PatientSex_DICOM", "Projection", "Manufacturer_DICOM", "BitsStored_DICOM", "MethodLabel",
    "Labels",
)  # fmt: skip


def read_padchest(root: Path, labels: str) -> Manifest:
    """Return PadChest's films with its 193 names as findings, as `PublicCollection.read` does.

    A name is 1 where the report has it. Others are 0, but NaN where nothing but NO_LABELS is named:
    there the report does not say that they are absent. Facts beside the usual: posture (supine or
    ""), method (physician or RNN: who read the report), bits (stored).
    Raises ValueError for a name that PadChest does not have.
    """
    table = read_columns(find_table(root, labels, title=TITLE, usual=TABLES), *COLUMNS, title=TITLE)
    if not labels:
        say_short(table.file.name, len(table.line), published=PUBLISHED_PADCHEST["films"])
    label = table.parse("Labels", _parse_names).astype(np.float32)
    patient, named = patients_of(table, "PatientID")
    folders, names = table.columns["ImageDir"].tolist(), table.columns["ImageID"].tolist()
    facts, absurd = _facts(table)
    strange = ~np.isin(table.columns["Projection"].astype(str), ["", *VIEWS])
    films = Manifest(
        findings=FINDINGS_OF_PADCHEST,
        image=np.array([f"{folder}/{name}" for folder, name in zip(folders, names, strict=True)]),
        patient=patient,
        label=label,
        facts=pd.DataFrame({**named, **facts, "path": np.full(len(label), "")}),
        boxes=empty_boxes(),
        origin="",
        reading=pd.concat(
            [
                _reading(label),
                reading_of(
                    ("age: impossible", "", absurd),
                    ("view: an unknown Projection", "", int(strange.sum())),
                ),
            ]
        ),
    )
    _say_methods(films)
    if strange.any():
        names = listed(sorted({*table.columns["Projection"][strange].tolist()}), most=3)
        have = counted(strange.sum(), "film", "has/have", of=len(films))
        say(f"{table.file.name}: {have} an unknown Projection ({names}): no view")
    about = {"file": table.file, "title": TITLE, "published": PUBLISHED_PADCHEST}
    return replace(films, origin=origin_of(films, **about))


def _parse_names(text: str) -> np.ndarray:
    """Return the labels that a cell such as "['nodule', 'pleural effusion ']" states."""
    names = _listed_names(text)
    label = np.full(len(PLACE), np.nan if names <= {*NO_LABELS} else 0, dtype=np.float32)
    for name in names:
        if name not in PLACE:
            raise ValueError(
                f"found {name!r}, no name of {TITLE}{nearest(name, PLACE)}: expected its label "
                "file of 2019"
            )
        label[PLACE[name]] = 1
    return label


def _listed_names(text: str) -> set[str]:
    """Return the names of a list as Python writes it, without blanks and empty ones."""
    if text in ("", "nan"):
        return set()
    try:
        names = ast.literal_eval(text) if len(text) <= LONGEST_LIST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"found {text[:40]!r}, expected a list such as ['nodule', 'kyphosis']")
    return {name.strip() for name in names} - {""}


def _facts(table: CsvTable) -> tuple[dict[str, np.ndarray], int]:
    """Return facts by name, and the films whose age is impossible."""
    columns = table.columns
    date = table.parse("StudyDate_DICOM", _parse_date)
    age, absurd = known_ages(date // 10_000 - table.parse("PatientBirth", parse_number))
    facts = {
        "age": age,
        "sex": table.parse("PatientSex_DICOM", lambda sex: sex if sex in ("M", "F") else ""),
        "view": table.parse("Projection", lambda view: VIEWS.get(view, "")),
        "posture": table.parse("Projection", lambda v: "supine" if v == "AP_horizontal" else ""),
        "study": columns["StudyID"],
        "date": date,
        "device": columns["Manufacturer_DICOM"],
        "method": table.parse("MethodLabel", _parse_method),
        "bits": table.parse("BitsStored_DICOM", parse_whole),
    }
    return facts, absurd


def _parse_date(text: str) -> int:
    if len(text) != 8:
        raise ValueError(f"found {text!r}, expected a date such as 20140915")
    return parse_whole(text)


def _parse_method(text: str) -> str:
    if text not in METHODS:
        raise ValueError(f"found {text!r}, expected {' or '.join(METHODS)}")
    return METHODS[text]


def _reading(label: Float32[np.ndarray, "n k"]) -> pd.DataFrame:
    """Return counts of the films of which little is known, and of those that contradict."""
    one = label == 1
    unknown, named = np.isnan(label).any(axis=1), one.sum(axis=1)
    lone = [(name, unknown & (named == 1) & one[:, PLACE[name]]) for name in NO_LABELS]
    return reading_of(
        ("not stated: no name at all", "", int((named == 0).sum())),
        *((f"not stated: {name} alone", "", int(films.sum())) for name, films in lone),
        (f"not stated: several of {', '.join(NO_LABELS)}", "", int((unknown & (named > 1)).sum())),
        (
            "contradiction: beside other names",
            NORMAL,
            int((one[:, PLACE[NORMAL]] & (named > 1)).sum()),
        ),
    )


def _say_methods(films: Manifest) -> None:
    """Report patients whose films were read by both methods."""
    by = pd.DataFrame({"patient": films.patient, "method": films.facts["method"]})
    if both := int(by.drop_duplicates()["patient"].duplicated().sum()):
        say(
            f"{TITLE}: {counted(both, 'patient', 'has/have')} films whose reports a physician read "
            "and films whose reports a network read: split by patient, not by the fact method"
        )


FINDINGS_OF_PADCHEST = (
    "abnormal foreign body", "abscess", "adenopathy", "air bronchogram", "air fluid level",
    "air trapping", "alveolar pattern", "aortic aneurysm", "aortic atheromatosis",
    "aortic button enlargement", "aortic elongation", "aortic endoprosthesis",
    "apical pleural thickening", "artificial aortic heart valve", "artificial heart valve",
    "artificial mitral heart valve", "asbestosis signs", "ascendent aortic elongation",
    "atelectasis", "atelectasis basal", "atypical pneumonia", "axial hyperostosis",
    "azygoesophageal recess shift", "azygos lobe", "blastic bone lesion", "bone cement",
    "bone metastasis", "breast mass", "bronchiectasis", "bronchovascular markings", "bullas",
    "calcified adenopathy", "calcified densities", "calcified fibroadenoma", "calcified granuloma",
    "calcified mediastinal adenopathy", "calcified pleural plaques", "calcified pleural thickening",
    "callus rib fracture", "cardiomegaly", "catheter", "cavitation",
    "central vascular redistribution", "central venous catheter",
    "central venous catheter via jugular vein", "central venous catheter via subclavian vein",
    "central venous catheter via umbilical vein", "cervical rib", "chest drain tube",
    "Chilaiditi sign", "chronic changes", "clavicle fracture", "consolidation", "COPD signs",
    "costochondral junction hypertrophy", "costophrenic angle blunting", "cyst", "dai",
    "descendent aortic elongation", "dextrocardia", "diaphragmatic eventration", "double J stent",
    "dual chamber device", "electrical device", "emphysema", "empyema", "end on vessel",
    "endoprosthesis", "endotracheal tube", "esophagic dilatation", "exclude",
    "external foreign body", "fibrotic band", "fissure thickening", "flattened diaphragm",
    "fracture", "gastrostomy tube", "goiter", "granuloma", "ground glass pattern", "gynecomastia",
    "heart insufficiency", "heart valve calcified", "hemidiaphragm elevation", "hiatal hernia",
    "hilar congestion", "hilar enlargement", "humeral fracture", "humeral prosthesis",
    "hydropneumothorax", "hyperinflated lung", "hypoexpansion", "hypoexpansion basal",
    "increased density", "infiltrates", "interstitial pattern", "kerley lines", "kyphosis",
    "laminar atelectasis", "lepidic adenocarcinoma", "lipomatosis", "lobar atelectasis",
    "loculated fissural effusion", "loculated pleural effusion", "lung metastasis",
    "lung vascular paucity", "lymphangitis carcinomatosa", "lytic bone lesion",
    "major fissure thickening", "mammary prosthesis", "mass", "mastectomy",
    "mediastinal enlargement", "mediastinal mass", "mediastinal shift", "mediastinic lipomatosis",
    "metal", "miliary opacities", "minor fissure thickening", "multiple nodules",
    "nephrostomy tube", "nipple shadow", "nodule", "non axial articular degenerative changes",
    "normal", "NSG tube", "obesity", "osteopenia", "osteoporosis", "osteosynthesis material",
    "pacemaker", "pectum carinatum", "pectum excavatum", "pericardial effusion", "pleural effusion",
    "pleural mass", "pleural plaques", "pleural thickening", "pneumomediastinum", "pneumonia",
    "pneumoperitoneo", "pneumothorax", "post radiotherapy changes", "prosthesis", "pseudonodule",
    "pulmonary artery enlargement", "pulmonary artery hypertension", "pulmonary edema",
    "pulmonary fibrosis", "pulmonary hypertension", "pulmonary mass",
    "pulmonary venous hypertension", "reservoir central venous catheter", "respiratory distress",
    "reticular interstitial pattern", "reticulonodular interstitial pattern", "rib fracture",
    "right sided aortic arch", "round atelectasis", "sclerotic bone lesion", "scoliosis",
    "segmental atelectasis", "single chamber device", "soft tissue mass",
    "sternoclavicular junction hypertrophy", "sternotomy", "subacromial space narrowing",
    "subcutaneous emphysema", "suboptimal study", "superior mediastinal enlargement",
    "supra aortic elongation", "surgery", "surgery breast", "surgery heart", "surgery humeral",
    "surgery lung", "surgery neck", "suture material", "thoracic cage deformation",
    "total atelectasis", "tracheal shift", "tracheostomy tube", "tuberculosis",
    "tuberculosis sequelae", "unchanged", "vascular hilar enlargement", "vascular redistribution",
    "ventriculoperitoneal drain tube", "vertebral anterior compression", "vertebral compression",
    "vertebral degenerative changes", "vertebral fracture", "volume loss",
)  # fmt: skip
PLACE = {name: place for place, name in enumerate(FINDINGS_OF_PADCHEST)}
OUR_NAMES: dict[str, tuple[str, ...]] = {  # never by parts of names
    "Atelectasis": (
        "atelectasis", "laminar atelectasis", "lobar atelectasis", "segmental atelectasis",
        "round atelectasis", "total atelectasis", "atelectasis basal",
    ),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": (
        "pleural effusion", "loculated pleural effusion", "loculated fissural effusion",
        "hydropneumothorax", "empyema",
    ),
    "Infiltration": ("infiltrates",),
    "Mass": ("pulmonary mass", "mass"),
    "Nodule": ("nodule", "multiple nodules"),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Edema": ("pulmonary edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis",),
    "Pleural_Thickening": (
        "pleural thickening", "apical pleural thickening", "calcified pleural thickening",
    ),
    "Hernia": ("hiatal hernia",),
    NO_FINDING: (NORMAL,),
}  # fmt: skip
PUBLISHED_PADCHEST = {
    "films": 160_861, "patients": 67_625, "studies": 109_931, "normal": 50_616,
    "COPD signs": 23_280, "cardiomegaly": 15_022, "unchanged": 14_334, "aortic elongation": 10_824,
    "pleural effusion": 9_853, "scoliosis": 8_333, "pneumonia": 7_953,
    "interstitial pattern": 7_799, "chronic changes": 7_337, "infiltrates": 7_089,
    "costophrenic angle blunting": 6_784, "air trapping": 6_147, "alveolar pattern": 5_738,
    "NSG tube": 5_390, "kyphosis": 5_215, "laminar atelectasis": 5_190,
    "vertebral degenerative changes": 4_878, "vascular hilar enlargement": 4_517, "nodule": 3_748,
    "fibrotic band": 3_713, "apical pleural thickening": 3_625, "pacemaker": 3_508,
    "central venous catheter via jugular vein": 3_204, "calcified granuloma": 3_194,
    "callus rib fracture": 2_967, "atelectasis": 2_905, "sternotomy": 2_849, "volume loss": 2_757,
    "bronchiectasis": 2_698, "aortic atheromatosis": 2_546, "consolidation": 2_497,
    "increased density": 2_497, "hemidiaphragm elevation": 2_466, "heart insufficiency": 2_461,
    "endotracheal tube": 2_429, "hiatal hernia": 2_363, "pseudonodule": 2_241,
    "suture material": 2_202, "vertebral anterior compression": 2_132, "suboptimal study": 1_839,
    "tracheostomy tube": 1_825, "central venous catheter via subclavian vein": 1_654,
    "metal": 1_634, "supra aortic elongation": 1_599, "hilar enlargement": 1_541,
    "emphysema": 1_538, "pulmonary edema": 1_456, "bronchovascular markings": 1_398,
    "dual chamber device": 1_352, "exclude": 1_312, "hypoexpansion": 1_297, "nipple shadow": 1_247,
    "descendent aortic elongation": 1_238, "pulmonary fibrosis": 1_228,
    "calcified densities": 1_221, "diaphragmatic eventration": 1_191, "hilar congestion": 1_133,
    "tuberculosis sequelae": 1_070, "pleural thickening": 1_055, "pulmonary mass": 1_039,
}  # fmt: skip
PADCHEST = PublicCollection(
    title=TITLE,
    read=read_padchest,
    findings=FINDINGS_OF_PADCHEST,
    align={
        name: tuple(ours for ours, names in OUR_NAMES.items() if name in names)
        for name in FINDINGS_OF_PADCHEST
        if any(name in names for names in OUR_NAMES.values())
    },
    no_finding=NORMAL,
    beside_no_finding=NO_LABELS,
    tables=TABLES,
    published=PUBLISHED_PADCHEST,
    traps=(
        "a name that is absent is not reported; films of no name, or of nothing but unchanged, "
        "exclude or suboptimal study, are not stated",
        "names are matched exactly: pseudonodule is no Nodule, subcutaneous emphysema no Emphysema",
        "patients have films labelled by physicians and films labelled by a network",
        "pixels are stored values of 10 or 12 bits in PNG of 16 bits; no window is applied",
        "21 pictures are absent or damaged",
    ),
)
