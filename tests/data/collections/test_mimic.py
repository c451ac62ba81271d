"""MIMIC-CXR-JPG and CXR-LT: trees of phantoms in their layouts, joined table by table."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts import (
    CXR_LT_2023,
    CXR_LT_ADDED,
    MIMIC,
    NAMES,
    Phantom,
    mimic_ids,
    mimic_path,
    phantoms,
    write_chexpert,
    write_cxr_lt,
    write_gz,
    write_mimic_cxr,
)
from lucency.config.sections import Source, Split
from lucency.core.manifest import FINDINGS, Manifest, load_manifest
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.collections.cxr_lt import read_cxr_lt
from lucency.data.collections.mimic import read_mimic_cxr
from lucency.data.label_choices import choose_labels
from lucency.data.sources import absent_places, film_inputs, read_films
from lucency.data.split import split

FILMS = 24
CHEXPERT, METADATA = MIMIC.format("chexpert"), MIMIC.format("metadata")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the films, MIMIC-IV's patients, and both versions of CXR-LT."""
    root = write_mimic_cxr(tmp_path_factory.mktemp("mimic"), films=FILMS)
    for version in ("2023", "2024"):
        write_cxr_lt(root, version=version, films=FILMS)
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A root of the test's own, to change."""
    return write_mimic_cxr(tmp_path / "mimic")


def table_of(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def labelled(drawn: list[Phantom]) -> list[Phantom]:
    """Return the films whose study has a row of labels: all but those of the last one."""
    last = (drawn[-1].patient, drawn[-1].study)
    return [film for film in drawn if (film.patient, film.study) != last]


def test_columns_in_alphabetical_order_are_read_by_name(tree: Path):
    assert table_of(tree / CHEXPERT).columns[2:].tolist() == sorted(NAMES)
    films, drawn = read_mimic_cxr(tree, ""), labelled(phantoms(FILMS))
    assert films.findings == NAMES
    text = np.array([[film.state[name] for name in NAMES] for film in drawn])
    assert ((films.label[: len(drawn)] == 1) == (text == "1.0")).all()
    assert ((films.label[: len(drawn)] == 0) == (text == "0.0")).all()
    assert (films.is_uncertain[: len(drawn)] == (text == "-1.0")).all()
    assert films.is_uncertain.any()


def test_labels_of_a_study_are_those_of_all_its_films(tree: Path):
    films = read_mimic_cxr(tree, "negbio")
    rows = pd.DataFrame(films.label).fillna(-9).assign(study=films.facts["study"])
    assert (films.facts["study"].value_counts() > 1).any()
    assert (rows.groupby("study").nunique() == 1).all(axis=None)


def test_films_of_a_study_without_a_row_have_no_label_and_are_counted(tree: Path):
    films, drawn = read_mimic_cxr(tree, ""), phantoms(FILMS)
    without = len(drawn) - len(labelled(drawn))
    assert without
    assert np.isnan(films.label[-without:]).all()
    assert films.reading.to_dict("list") == {
        "step": [f"no row in {CHEXPERT}"], "finding": [""], "films": [without],
    }  # fmt: skip
    made = choose_labels(
        films, source=Source(source="mimic-cxr"), findings=FINDINGS,
        collection=COLLECTIONS["mimic-cxr"],
    )  # fmt: skip
    assert made.reading["step"].tolist()[0] == films.reading["step"].tolist()[0]


@pytest.mark.parametrize(("kind", "column"), [("chexpert", "study_id"), ("split", "dicom_id")])
def test_a_table_of_no_film_is_refused(own: Path, kind: str, column: str):
    file = own / MIMIC.format(kind)
    table = table_of(file)
    write_gz(table.assign(**{column: "9" + table[column]}), file)
    with pytest.raises(ValueError, match=rf"{kind}.csv.gz: none of its \d+ rows is of a film"):
        read_mimic_cxr(own, "")


def test_facts_are_those_of_metadata_split_and_patients(tree: Path):
    films, drawn = read_mimic_cxr(tree, ""), phantoms(FILMS)
    facts = films.facts
    assert films.patient.tolist() == [10_000_000 + film.patient for film in drawn]
    assert "date" not in facts
    assert facts["view"].tolist() == [film.view for film in drawn]  # one by its code
    assert table_of(tree / METADATA)["ViewPosition"][0] == ""
    assert set(facts["split"]) == {"train", "val", "test"}
    known = [film.patient != drawn[-1].patient for film in drawn]
    first = {film.patient: film.age for film in reversed(drawn)}
    ages = [first[film.patient] for film in drawn]
    assert facts["age"][known].tolist() == [age for age, on in zip(ages, known, strict=True) if on]
    assert facts["age"][~np.array(known)].isna().all()
    assert facts["sex"].tolist() == [
        film.sex if on else "" for film, on in zip(drawn, known, strict=True)
    ]


def test_an_age_is_at_most_91(own: Path):
    file = own / "mimic-iv" / "hosp" / "patients.csv.gz"
    write_gz(table_of(file).assign(anchor_age="91"), file)
    assert read_mimic_cxr(own, "").facts["age"].max() == 91


def test_without_patients_there_is_no_age_and_a_line_says_so(tmp_path: Path, capsys):
    films = read_mimic_cxr(write_mimic_cxr(tmp_path, people=False), "")
    assert {"age", "sex"}.isdisjoint(films.facts.columns)
    assert "without MIMIC-IV's hosp/patients.csv.gz no film has age and sex" in (
        capsys.readouterr().err
    )


def test_films_with_labels_of_one_labeller_are_not_those_of_another(own: Path, tmp_path: Path):
    place = Source(source="mimic-cxr", root=str(own), labels="chexpert")
    read_films(place, findings=("Effusion",), out=tmp_path / "out")
    other = place.model_copy(update={"labels": "negbio"})
    with pytest.raises(ValueError, match="chosen labels: was chexpert, now negbio"):
        read_films(other, findings=("Effusion",), out=tmp_path / "out")


@pytest.mark.parametrize("above", [False, True])
def test_films_are_found_and_survive_being_saved(own: Path, tmp_path: Path, above: bool):
    place = Source(source="mimic-cxr", root=str(own.parent if above else own))
    assert absent_places(place) == {}
    films = read_films(place, findings=("Effusion",), out=tmp_path / "out")
    drawn = phantoms(12)
    assert films.facts["path"].tolist() == [str(own / mimic_path(film)) for film in drawn]
    saved = load_manifest(tmp_path / "out")
    assert saved.facts["study"].tolist() == [mimic_ids(film)["study_id"] for film in drawn]
    tables = film_inputs(place, findings=("Effusion",))["tables"]
    names = {Path(name).name for name in tables}  # pyright: ignore[reportGeneralTypeIssues]
    assert {METADATA, CHEXPERT, MIMIC.format("split"), "patients.csv.gz"} <= names


def test_airspace_opacity_of_the_read_studies_is_lung_opacity(tree: Path):
    films = read_mimic_cxr(tree, "test-set-labeled")
    table = table_of(tree / "mimic-cxr-2.1.0-test-set-labeled.csv").set_index("study_id")
    assert "Lung Opacity" not in table.columns
    assert set(films.facts["study"]) == set(table.index)
    opacity = films.label[:, films.findings.index("Lung Opacity")]
    stated = table["Airspace Opacity"].reindex(films.facts["study"]).tolist()
    assert ["" if np.isnan(one) else f"{one:.1f}" for one in opacity] == stated
    assert "not as published (studies 2, not 687)" in films.origin
    named = read_mimic_cxr(tree, "mimic-cxr-2.1.0-test-set-labeled.csv")
    assert named.image.tolist() == films.image.tolist()


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("chexpert", r"no label file of MIMIC-CXR-JPG in .*: expected mimic-cxr-2\.\*-chexpert\.c"),
        ("split", r"no label file of MIMIC-CXR-JPG in .*: expected mimic-cxr-2\.\*-split\.csv"),
        ("metadata", r"no label file of MIMIC-CXR-JPG in .*: expected mimic-cxr-2\.\*-metadata"),
    ],
)
def test_half_a_download_is_refused(own: Path, absent: str, message: str):
    (own / MIMIC.format(absent)).unlink()
    with pytest.raises(ValueError, match=message):
        read_mimic_cxr(own, "")


def test_other_roots_are_refused(tmp_path: Path):
    other = write_chexpert(tmp_path / "chexpert")
    for read in (read_mimic_cxr, read_cxr_lt):
        with pytest.raises(ValueError, match=r"no label file of .* in .*chexpert|no column"):
            read(other, "")


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("chexpert", "Edema", "yes", "line 2, Edema: found 'yes', expected 1, 0, -1"),
        ("chexpert", "subject_id", "1", "expected 10000001 as in .*: the tables are of different"),
        ("split", "subject_id", "1", "expected 10000001 as in .*: the tables are of different"),
        ("split", "split", "held out", "found 'held out', expected train, validate, test"),
        ("metadata", "StudyDate", "2180-05-06", "found '2180-05-06', expected a date such as"),
        ("metadata", "study_id", "s50", "found 's50', expected a whole number"),
        ("metadata", "dicom_id", None, "dicom_id '.*' is listed twice"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(
    own: Path, table: str, column: str, value: str | None, message: str
):
    file = own / MIMIC.format(table)
    changed = table_of(file)
    changed.loc[0, column] = changed.loc[1, column] if value is None else value
    write_gz(changed, file)
    with pytest.raises(ValueError, match=rf"{file.name}.*{message}"):
        read_mimic_cxr(own, "")


def test_a_column_of_another_version_is_named(own: Path):
    file = own / CHEXPERT
    write_gz(table_of(file).rename(columns={"Fracture": "Fractures"}), file)
    with pytest.raises(ValueError, match=r"no column 'Fracture'; nearest is 'Fractures'"):
        read_mimic_cxr(own, "")
    write_gz(table_of(own / MIMIC.format("negbio")).drop(columns="Lung Opacity"), file)
    with pytest.raises(ValueError, match="neither 'Lung Opacity' nor 'Airspace Opacity'"):
        read_mimic_cxr(own, "")
    file.write_bytes(gzip.compress(b"no table")[:-4])
    with pytest.raises(ValueError, match=r"chexpert\.csv\.gz: found no whole table"):
        read_mimic_cxr(own, "")


@pytest.mark.parametrize("version", ["2023", "2024"])
def test_cxr_lt_labels_the_films_of_mimic_by_their_names(tree: Path, version: str):
    films, theirs = read_cxr_lt(tree, version), read_mimic_cxr(tree, "")
    assert sorted(films.image) == sorted(theirs.image)
    by_name = pd.Series(theirs.patient, theirs.image)
    assert by_name.reindex(films.image).tolist() == films.patient.tolist()
    split = theirs.facts.set_axis(theirs.image)["split"]
    assert split.reindex(films.image).tolist() == films.facts["split"].tolist()
    age = theirs.facts.set_axis(theirs.image)["age"]
    assert age.reindex(films.image).fillna(-1).tolist() == films.facts["age"].fillna(-1).tolist()


def test_cxr_lt_s_normal_is_no_finding_and_its_names_are_kept(tree: Path):
    new, old = read_cxr_lt(tree, ""), read_cxr_lt(tree, "2023")
    assert new.origin.startswith("labels.csv: CXR-LT 2024, not as published (films ")
    assert set(new.findings) == {*CXR_LT_2023, *CXR_LT_ADDED}
    assert old.findings == CXR_LT_2023
    assert COLLECTIONS["cxr-lt"].findings == new.findings
    order = pd.Index(old.image).get_indexer(pd.Index(new.image))
    place = [new.findings.index(name) for name in old.findings]
    assert (new.label[:, place] == old.label[order]).all()
    normal = new.label[:, new.findings.index("No Finding")]
    assert 0 < normal.sum() < len(normal)


def test_cxr_lt_has_most_findings_of_chestxray14(tree: Path):
    made = stated_by_cxr_lt(read_cxr_lt(tree, "2023"))
    assert set(made) == set(FINDINGS)


def stated_by_cxr_lt(films: Manifest) -> list[str]:
    made = choose_labels(
        films, source=Source(source="cxr-lt"), findings=FINDINGS, collection=COLLECTIONS["cxr-lt"]
    )
    stated = ~np.isnan(made.label).all(axis=0)
    return [name for name, on in zip(FINDINGS, stated, strict=True) if on]


def test_a_part_of_cxr_lt_is_read_by_its_name(tree: Path, tmp_path: Path):
    films = read_cxr_lt(tree, "cxr-lt-2023/development.csv")
    assert set(films.facts["split"]) == {"val"}
    assert "published" not in films.origin
    labels = table_of(tree / "cxr-lt-2024" / "labels.csv")
    unseen = [*CXR_LT_ADDED[-5:]]
    third = labels[["dicom_id", "subject_id", "study_id", "fpath", *unseen]]
    third.to_csv(tmp_path / "test_labeled_task3.csv", index=False)
    films = read_cxr_lt(tmp_path, "test_labeled_task3.csv")
    assert films.findings == tuple(unseen)
    assert set(films.facts["split"]) == {"test"}
    assert "view" not in films.facts


def test_root_of_cxr_lt_may_be_the_folder_of_a_version(tree: Path):
    films = read_cxr_lt(tree / "cxr-lt-2023", "")
    assert films.image.tolist() == read_cxr_lt(tree, "2023").image.tolist()
    assert len(read_cxr_lt(tree / "cxr-lt-2024", "")) == len(films)


def test_what_is_wrong_in_cxr_lt_is_named(tmp_path: Path):
    root = write_cxr_lt(tmp_path)
    file = root / "cxr-lt-2023" / "train.csv"
    table = table_of(file)
    for changed, message in (
        (table.drop(columns="Hernia"), "found 25 findings of CXR-LT, without Hernia; expected 26"),
        (table.drop(columns="path"), "no column 'path' or 'fpath'"),
        (table.assign(path="files/x.jpg"), r"line 2: found path 'files/x\.jpg', expected that of"),
        (table.assign(split="fourth"), "split: found 'fourth', expected train, development"),
    ):
        changed.to_csv(file, index=False)
        with pytest.raises(ValueError, match=message):
            read_cxr_lt(root, "")
    table.to_csv(file, index=False)
    (root / "cxr-lt-2023" / "test.csv").unlink()
    with pytest.raises(ValueError, match=r"found train\.csv without test\.csv, a part of CXR-LT 2"):
        read_cxr_lt(root, "")
    with pytest.raises(ValueError, match=r"no label file of CXR-LT in .*expected cxr-lt-2024/lab"):
        read_cxr_lt(root, "2024")


def test_films_of_cxr_lt_are_found_below_its_root(tree: Path, tmp_path: Path):
    place = Source(source="cxr-lt", root=str(tree), labels="2023")
    assert absent_places(place) == {}
    films = read_films(place, findings=("Pleural_Thickening", "Hernia"), out=tmp_path / "out")
    assert len(films) == len(phantoms(FILMS))


@pytest.mark.parametrize("source", ["mimic-cxr", "cxr-lt"])
def test_the_official_split_is_the_publisher_s(tree: Path, source: str):
    films = COLLECTIONS[source].read(tree, "")
    part = split(films, choices=Split(method="official"), root=tree)
    assert part.tolist() == films.facts["split"].tolist()
