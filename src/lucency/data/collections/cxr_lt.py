"""CXR-LT 2023 and 2024: films of MIMIC-CXR-JPG with 26 to 45 findings, rare ones among them.

Holste et al., 2024 (arXiv 2310.16112 for 2023). Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from lucency.core.manifest import Manifest, listed
from lucency.core.tables import film_stem
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.chexpert import DEVICES, EFFUSION, normal_beside
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import parse_part, rows_of, stated_cells
from lucency.data.collections.label_columns import (
    find_table,
    first_file,
    joined,
    origin_of,
    reading_of,
    say_short,
    step_of_absent,
    table_patterns,
)
from lucency.data.collections.mimic import (
    DATE,
    FILM,
    IDS,
    METADATA,
    MIMIC_CXR,
    PATIENTS,
    VIEW,
    VIEW_CODE,
    films_of_studies,
    parse_year,
    people,
    views_of_positions,
)
from lucency.data.csv_tables import CsvTable

TITLE = "CXR-LT"
NORMAL = "No Finding"
SHARED = (  # of 2023, and of 2024's second task
    "Atelectasis", "Calcification of the Aorta", "Cardiomegaly", "Consolidation", "Edema",
    "Emphysema", "Enlarged Cardiomediastinum", "Fibrosis", "Fracture", "Hernia", "Infiltration",
    "Lung Lesion", "Lung Opacity", "Mass", NORMAL, "Nodule", "Pleural Effusion", "Pleural Other",
    "Pleural Thickening", "Pneumomediastinum", "Pneumonia", "Pneumoperitoneum", "Pneumothorax",
    "Subcutaneous Emphysema", "Support Devices", "Tortuous Aorta",
)  # fmt: skip
ADDED = (  # by 2024's first task
    "Adenopathy", "Azygos Lobe", "Clavicle Fracture", "Fissure", "Granuloma", "Hydropneumothorax",
    "Infarction", "Kyphosis", "Lobar Atelectasis", "Pulmonary Embolism", "Pulmonary Hypertension",
    "Rib Fracture", "Round(ed) Atelectasis", "Tuberculosis",
)  # fmt: skip
UNSEEN = ("Bulla", "Cardiomyopathy", "Hilum", "Osteopenia", "Scoliosis")  # of its third task
ALL = (*SHARED, *ADDED, *UNSEEN)
OTHERWISE = {  # how tables spell some of them
    NORMAL: ("Normal",),
    "Round(ed) Atelectasis": ("Rounded Atelectasis", "Round Atelectasis"),
}
KNOWN = tuple({*one} for one in (SHARED, (*SHARED, *ADDED), ALL, UNSEEN))
PATHS = ("path", "fpath")  # columns of 2023 and 2024
FILES: Mapping[str, tuple[str, ...]] = {  # of a version, the newest first
    "2024": ("labels.csv",),
    "2023": ("train.csv", "development.csv", "test.csv"),
}
SPLIT_OF = {
    "train": "train", "development": "val", "dev": "val", "val": "val", "validate": "val",
    "test": "test",
}  # fmt: skip
FILMS = 377_110
PUBLISHED = {  # by version
    "2024": {"films": FILMS, "train": 258_871, "val": 39_293, "test": 78_946},
    "2023": {"films": FILMS},
}


def read_cxr_lt(root: Path, labels: str) -> Manifest:
    """Read the label files of 2024 or 2023, or one file.

    `labels` is 2024 or 2023, "" for the newest that is there, or names a file. Films are called as
    those of MIMIC-CXR are. Findings are those that the file has, "Normal" as No Finding. Facts:
    study, split, view where it is stated, and age and sex as MIMIC-CXR's reader has them, age where
    its metadata lies below `root` too. Raises ValueError for a file with other findings than one of
    the published sets, and where a version's file is absent.
    """
    first, version = _first_file(root, labels)
    films = joined([_films_of(file) for file in _files_of_version(first, version)])
    say_short(f"{TITLE} {version}", len(films), published=FILMS if version else 0)
    subject = films.patient.astype(str)
    year, steps = _years(root, films)
    known = people(root, subject, year=year)
    if "age" in known and np.isnan(known["age"]).all():
        del known["age"]
    films = replace(films, facts=films.facts.assign(**known))
    published, title = PUBLISHED.get(version, {}), f"{TITLE} {version}".strip()
    origin = origin_of(films, file=first, title=title, published=published)
    return replace(films, origin=origin, reading=reading_of(*steps, normal_beside(films)))


def _first_file(root: Path, labels: str) -> tuple[Path, str]:
    """Return the first label file, and which version it is of, "" where a file is named."""
    if labels and labels not in FILES:
        return find_table(root, labels, title=TITLE, usual=()), ""
    versions = (labels,) if labels else tuple(FILES)
    for version in versions:
        if found := first_file(root, *_places(version, FILES[version][0])):
            return found, version
    usual = _places(versions[0], FILES[versions[0]][0])
    return find_table(root, "", title=TITLE, usual=usual), versions[0]


def _files_of_version(first: Path, version: str) -> Iterator[Path]:
    """Yield the label files; that another is absent is noticed after the first was read."""
    yield first
    for name in FILES[version][1:] if version else ():
        place = first_file(first.parent, *table_patterns(name)[:2])
        if place is None:
            raise ValueError(
                f"{first.parent}: found {first.name} without {name}, a part of {TITLE} {version}: "
                "fetch the other, or name one label file by data.labels"
            )
        yield place


def _places(version: str, name: str) -> tuple[str, ...]:
    """Return the patterns of a version's file: in its folder, or in a root that is that folder."""
    folder = f"cxr-lt-{version}/{name}"
    return (*table_patterns(folder), f"*/{folder}", *table_patterns(name)[:2])


def _films_of(file: Path) -> Manifest:
    """Return the films of one label file."""
    others = [other for several in OTHERWISE.values() for other in several]
    optional = (*ALL, *others, *PATHS, "split", VIEW, VIEW_CODE)
    table = read_columns(file, *IDS, title=TITLE, optional=optional)
    _refuse_other_paths(table)
    column = _columns_of_findings(table)
    facts = {"split": _splits(table)}
    if VIEW in table.columns and VIEW_CODE in table.columns:
        facts["view"] = views_of_positions(table)
    return films_of_studies(
        table, cells=stated_cells(table, column), findings=tuple(column), facts=facts
    )


def _columns_of_findings(table: CsvTable) -> dict[str, str]:
    """Return the column of each finding; ValueError where they are none of the published sets."""
    column = dict[str, str]()
    for finding in ALL:
        for name in (finding, *OTHERWISE.get(finding, ())):
            if name in table.columns:
                column[finding] = name
    if {*column} not in KNOWN:
        least = min(KNOWN, key=lambda known: len(known ^ {*column}))
        lacking = listed(sorted(least - {*column}), most=6) or "none"
        raise ValueError(
            f"{table.file}: found {len(column)} findings of {TITLE}, without {lacking}; expected "
            f"{listed([str(len(known)) for known in KNOWN])}, as its releases of 2023 and 2024 have"
        )
    return column


def _splits(table: CsvTable) -> Shaped[np.ndarray, " n"]:
    """Return the official part of each film, by the column split, else by the file's name."""
    if "split" in table.columns:
        return table.parse("split", parse_part(SPLIT_OF))
    part = SPLIT_OF.get(table.file.name.partition(".")[0].partition("_")[0], "")
    return np.full(len(table.line), part)


def _refuse_other_paths(table: CsvTable) -> None:
    """Raise ValueError where there are no paths, or one is not that of the film in its row."""
    name = next((one for one in PATHS if one in table.columns), "")
    if not name:
        raise ValueError(
            f"{table.file}: no column 'path' or 'fpath'; expected a label file of {TITLE}"
        )
    pairs = zip(table.columns[name].tolist(), table.columns[FILM].tolist(), strict=True)
    for row, (path, film) in enumerate(pairs):
        if film_stem(path.rpartition("/")[2]) != film:
            raise ValueError(
                f"{table.file}, line {table.line[row]}: found {name} {path!r}, expected that of "
                f"the film {film}"
            )


def _years(
    root: Path, films: Manifest
) -> tuple[Float64[np.ndarray, " n"], list[tuple[str, str, int]]]:
    """Return the year of each film's study by MIMIC-CXR's metadata, NaN without; films it lacks."""
    file = first_file(root, *table_patterns(METADATA))
    if file is None:
        return np.full(len(films), np.nan), []
    table = read_columns(file, FILM, DATE, title=MIMIC_CXR.title)
    film = pd.Series(films.image).str.rpartition("/")[2].to_numpy(dtype=object)
    row = rows_of(film, table, FILM)
    return np.append(table.parse(DATE, parse_year), np.nan)[row], [step_of_absent(file, row >= 0)]


CXR_LT = PublicCollection(
    title=TITLE,
    read=read_cxr_lt,
    findings=ALL,
    align={**EFFUSION, "Pleural Thickening": "Pleural_Thickening"},
    no_finding=NORMAL,
    beside_no_finding=(DEVICES,),
    tables=(
        *(place for version, names in FILES.items() for name in names
          for place in _places(version, name)),
        *table_patterns("*_labeled*.csv", METADATA),
        *PATIENTS,
    ),
    published=PUBLISHED["2024"],
    traps=(
        "The films are those of MIMIC-CXR: a network that has seen one has seen the other.",
        "Labels are mined from reports, those of the test films of 2023 and of 2024's first two "
        "tasks too.",
        "2023 and 2024 have other official parts and other findings; Normal of 2024 is No Finding.",
        "2024's third task has five findings that its training part does not label.",
    ),
)  # fmt: skip
