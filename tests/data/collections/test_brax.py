"""BRAX: trees of phantoms in its layout, as PNG and as DICOM."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts import BRAX_TABLE, NAMES, phantoms, write_brax, write_chexpert
from lucency.config.sections import Source
from lucency.data.collections.brax import read_brax
from lucency.data.sources import read_films

FILMS = 24


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brax(tmp_path_factory.mktemp("brax"), films=FILMS)


def test_labels_and_facts_are_those_of_the_table(tree: Path):
    films, drawn = read_brax(tree, ""), phantoms(FILMS)
    text = np.array([[film.state[name] for name in NAMES] for film in drawn])
    assert ((films.label == 1) == (text == "1.0")).all()
    assert ((films.label == 0) == (text == "0.0")).all()
    assert (films.is_uncertain == (text == "-1.0")).all()
    assert films.patient.tolist() == [film.patient for film in drawn]
    facts = films.facts
    assert facts["sex"].tolist() == ["O", *(film.sex for film in drawn[1:])]
    ages = [film.age // 5 * 5 for film in drawn]
    assert facts["age"].tolist() == [ages[0], 85, *ages[2:]]  # "85 or more"
    assert set(facts["view"]) == {"PA", "AP", "LL"}
    assert set(facts["device"]) == {"2"}
    assert {"date", "split"}.isdisjoint(facts.columns)
    assert films.origin.startswith(f"{BRAX_TABLE}: BRAX, not as published (films {len(films)}, not")


def test_a_study_is_a_patient_and_an_accession_number(tree: Path):
    films = read_brax(tree, "")
    table = pd.read_csv(tree / BRAX_TABLE, dtype=str)
    by_number = films.facts.groupby(table["AccessionNumber"].to_numpy())["study"].nunique()
    assert by_number.max() > 1
    owners = pd.Series(films.patient).groupby(films.facts["study"]).nunique()
    assert owners.max() == 1


@pytest.mark.parametrize("dicom", [False, True])
@pytest.mark.parametrize("above", [False, True])
def test_films_are_found_as_png_and_as_dicom(tmp_path: Path, dicom: bool, above: bool):
    root = write_brax(tmp_path / "brax", dicom=dicom)
    place = Source(source="brax", root=str(tmp_path if above else root))
    films = read_films(place, findings=("Effusion",), out=tmp_path / "out")
    assert {Path(path).suffix for path in films.facts["path"]} == {".dcm" if dicom else ".png"}


def test_png_are_taken_where_both_lie_there(tmp_path: Path):
    root = write_brax(write_brax(tmp_path, dicom=True))
    films = read_films(
        Source(source="brax", root=str(root)), findings=("Effusion",), out=tmp_path / "out"
    )
    assert {Path(path).suffix for path in films.facts["path"]} == {".png"}


def test_the_older_table_is_read_where_the_newer_is_not_there(tmp_path: Path):
    root = write_brax(tmp_path, name="master_spreadsheet.csv")
    assert read_brax(root, "").origin.startswith("master_spreadsheet.csv: BRAX")
    write_brax(tmp_path)
    assert read_brax(root, "").origin.startswith(f"{BRAX_TABLE}: BRAX")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Edema", "2", "line 2, Edema: found '2', expected 1, 0, -1"),
        ("PatientAge", "old", "line 2, PatientAge: found 'old', expected a number"),
        ("PatientID", "", "line 2, PatientID: found nothing, expected a patient"),
        ("PngPath", None, "line 3: PngPath '.*' is listed twice"),
    ],
)
def test_what_is_wrong_in_the_table_is_named(
    tmp_path: Path, column: str, value: str | None, message: str
):
    root = write_brax(tmp_path)
    table = pd.read_csv(root / BRAX_TABLE, dtype=str, keep_default_na=False)
    table.loc[0, column] = table.loc[1, column] if value is None else value
    table.to_csv(root / BRAX_TABLE, index=False)
    with pytest.raises(ValueError, match=message):
        read_brax(root, "")


def test_another_root_and_another_version_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no label file of BRAX in .*: expected master_spread"):
        read_brax(write_chexpert(tmp_path / "chexpert"), "")
    root = write_brax(tmp_path / "brax")
    table = pd.read_csv(root / BRAX_TABLE, dtype=str)
    table.rename(columns={"PngPath": "ImagePath"}).to_csv(root / BRAX_TABLE, index=False)
    with pytest.raises(ValueError, match="no column 'PngPath'"):
        read_brax(root, "")
