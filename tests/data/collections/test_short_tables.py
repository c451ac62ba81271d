"""Tables that are shorter than published, or than those they are joined to, are reported.

Published rows: the facts file, sections 1, 4 to 9.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from layouts import (
    BRAX_TABLE,
    MIMIC,
    write_brax,
    write_chexpert,
    write_chexpert_plus,
    write_cxr_lt,
    write_mimic_cxr,
)
from layouts_other import PADCHEST_FILE, nih_lt, openi, padchest, rsna, siim, vindr, vindr_kaggle
from lucency.config.sections import Source
from lucency.core.manifest import FINDINGS
from lucency.data.sources import SOURCES

OURS = (*FINDINGS, "No Finding", "Lung Opacity")


def both(root: Path) -> Path:
    """Return MIMIC-CXR-JPG with CXR-LT's labels."""
    return write_cxr_lt(write_mimic_cxr(root), version="2024")


def read(source: str, root: Path, labels: str = "") -> pd.DataFrame:
    """Read a source as a protocol does; return what became of films."""
    place = Source.model_validate({"source": source, "root": str(root), "labels": labels})
    return SOURCES[source](place, findings=OURS).reading


def shorten(file: Path) -> str:
    """Leave the last row of a table out; return the key of that row."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.iloc[:-1].to_csv(file, index=False)
    return str(table.iloc[-1, 0])


def steps(reading: pd.DataFrame) -> dict[str, int]:
    return dict(zip(reading["step"], reading["films"], strict=True))


PUBLISHED: dict[str, tuple[str, Callable[[Path], Path], tuple[str, ...]]] = {
    "chexpert": (
        "chexpert", write_chexpert,
        ("train.csv: found 12 of 223,414 published rows", "valid.csv: found 4 of 234 published"),
    ),
    "mimic-cxr": (
        "mimic-cxr", write_mimic_cxr,
        (
            f"{MIMIC.format('metadata')}: found 16 of 377,110 published rows",
            f"{MIMIC.format('split')}: found 16 of 377,110 published rows",
            f"{MIMIC.format('chexpert')}: found 11 of 227,827 published rows",
        ),
    ),
    "cxr-lt": ("cxr-lt", both, ("CXR-LT 2024: found 16 of 377,110 published rows",)),
    "brax": ("brax", write_brax, (f"{BRAX_TABLE}: found 16 of 40,967 published rows",)),
    "padchest": (
        "padchest", padchest, (f"{PADCHEST_FILE}: found 10 of 160,861 published rows",),
    ),
    "vindr": (
        "vindr-cxr", vindr,
        (
            "image_labels_train.csv: found 12 of 45,000 published readings",
            "image_labels_test.csv: found 2 of 3,000 published readings",
        ),
    ),
    "kaggle": ("vindr-cxr", vindr_kaggle, ("train.csv: found 6 of 45,000 published readings",)),
    "openi": ("openi", openi, ("ecgen-radiology: found 6 of 3,955 published reports",)),
    "rsna": ("rsna", rsna, ("stage_2_train_labels.csv: found 5 of 30,227 published rows",)),
    "siim": ("siim", siim, ("train-rle.csv: found 4 of 12,954 published rows",)),
    "nih-lt": ("nih-lt", nih_lt, ("NIH-CXR-LT: found 3 of 112,120 published rows",)),
}  # fmt: skip


@pytest.mark.parametrize("tree", PUBLISHED)
def test_a_table_with_fewer_rows_than_published_is_reported(
    tree: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, write, messages = PUBLISHED[tree]
    read(source, write(tmp_path))
    said = capsys.readouterr().err
    for message in messages:
        assert message in said


def test_a_label_file_that_is_named_may_be_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    read("padchest", padchest(tmp_path), PADCHEST_FILE)
    assert "published rows" not in capsys.readouterr().err


JOINED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mimic-cxr": (write_mimic_cxr, MIMIC.format("split")),
    "cxr-lt": (both, MIMIC.format("metadata")),
    "rsna": (rsna, "stage_2_train_images_dicom_headers.csv"),
}


@pytest.mark.parametrize("source", JOINED)
def test_films_that_a_joined_table_lacks_are_counted_and_reported(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write, name = JOINED[source]
    root = write(tmp_path)
    assert f"no row in {name}" not in steps(read(source, root))
    capsys.readouterr()
    shorten(root / name)
    assert steps(read(source, root))[f"no row in {name}"] == 1
    assert f"films has no row in {name}: what it states" in capsys.readouterr().err


def test_films_of_no_class_of_rsna_are_counted(tmp_path: Path):
    root = rsna(tmp_path)
    shorten(root / "stage_2_detailed_class_info.csv")
    assert steps(read("rsna", root))["no row in stage_2_detailed_class_info.csv"] == 1


def test_labels_that_lack_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    read("mimic-cxr", write_mimic_cxr(tmp_path / "mimic"))
    read("chexpert-plus", write_chexpert_plus(tmp_path / "plus"))
    said = capsys.readouterr().err
    assert f"MIMIC-CXR-JPG: 1 of 16 films has no row in {MIMIC.format('chexpert')}" in said
    assert "CheXpert Plus: 1 of 16 films has no row in impression_fixed.json" in said


def test_films_of_mimic_that_the_metadata_lacks_are_counted_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_mimic_cxr(tmp_path)
    metadata = MIMIC.format("metadata")
    shorten(root / metadata)
    assert steps(read("mimic-cxr", root))[f"left out: no row in {metadata}"] == 1
    assert f"1 of 16 films has no row in {metadata}, and no view: left out" in (
        capsys.readouterr().err
    )
