"""No Finding beside a finding is counted, in every layout that can state it; labels stay."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts import (
    BRAX_TABLE,
    MIMIC,
    NAMES,
    write_brax,
    write_chexpert,
    write_chexpert_plus,
    write_cxr_lt,
    write_mimic_cxr,
)
from layouts_other import vindr, vindr_kaggle
from lucency.core.manifest import Manifest
from lucency.data.collections.catalogue import COLLECTIONS

STEP = "contradiction: beside other findings"
NORMAL, DEVICES = "No Finding", "Support Devices"


def spoil_table(file: Path) -> None:
    """State No Finding in every row of a label file."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    normal = NORMAL if NORMAL in table else "Normal"
    table.assign(**{normal: "1.0"}).to_csv(file, index=False)


def spoil_lines(file: Path) -> None:
    lines = [json.loads(line) | {NORMAL: 1.0} for line in file.read_text().splitlines()]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def plus(root: Path) -> Path:
    return write_chexpert_plus(root, packed=False)


def cxr_lt(root: Path) -> Path:
    return write_cxr_lt(root, version="2024")


TREES: dict[str, tuple[Callable[..., Path], str, Callable[[Path], None]]] = {
    "chexpert": (write_chexpert, "train.csv", spoil_table),
    "chexpert-plus": (plus, "chexbert_labels/impression_fixed.json", spoil_lines),
    "mimic-cxr": (write_mimic_cxr, MIMIC.format("chexpert"), spoil_table),
    "cxr-lt": (cxr_lt, "cxr-lt-2024/labels.csv", spoil_table),
    "brax": (write_brax, BRAX_TABLE, spoil_table),
}


def counted(films: Manifest) -> dict[str, int]:
    steps = films.reading[films.reading["step"] == STEP]
    return dict(zip(steps["finding"], steps["films"], strict=True))


def test_every_collection_of_chexpert_s_findings_is_tried():
    alike = {name for name, one in COLLECTIONS.items() if {*NAMES} <= {*one.findings}}
    assert alike | {"cxr-lt"} == {*TREES}


@pytest.mark.parametrize("source", TREES)
def test_no_finding_beside_a_finding_is_counted(source: str, tmp_path: Path):
    write, name, spoil = TREES[source]
    root = write(tmp_path)
    assert counted(COLLECTIONS[source].read(root, "")) == {}
    spoil(root / name)
    films = COLLECTIONS[source].read(root, "")
    one = films.label == 1
    normal, devices = (films.findings.index(name) for name in (NORMAL, DEVICES))
    both = np.delete(one, [normal, devices], axis=1).any(axis=1) & one[:, normal]
    assert both.sum() >= 2
    assert (one[:, normal] & one[:, devices] & ~both).any()  # which is no contradiction
    assert counted(films) == {NORMAL: int(both.sum())}


def test_a_reader_of_vindr_who_contradicts_himself_is_counted(tmp_path: Path):
    file = vindr(tmp_path) / "annotations" / "image_labels_train.csv"
    assert counted(COLLECTIONS["vindr-cxr"].read(tmp_path, "")) == {}  # readers differ there
    table = pd.read_csv(file)
    table.loc[:1, "No finding"] = 1  # two readers of one film, who state Nodule/Mass
    table.to_csv(file, index=False)
    films = COLLECTIONS["vindr-cxr"].read(tmp_path, "")
    assert counted(films) == {"No finding": 1}
    place = [films.findings.index(name) for name in ("Nodule/Mass", "No finding")]
    assert films.label[0, place].tolist() == [1, 1]


def test_a_reader_of_kaggle_s_table_who_contradicts_himself_is_counted(tmp_path: Path):
    file = vindr_kaggle(tmp_path) / "train.csv"
    assert counted(COLLECTIONS["vindr-cxr"].read(tmp_path, "")) == {}
    file.write_text(file.read_text() + f"{'a' * 32},No finding,14,R1,,,,\n")
    assert counted(COLLECTIONS["vindr-cxr"].read(tmp_path, "")) == {"No finding": 1}
