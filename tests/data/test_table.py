"""Any CSV table of films, with and without its pictures, and the contract of all sources."""

import re
from itertools import permutations
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.config.sections import Source
from lucency.core.manifest import Manifest, load_manifest, name_patients, save_manifest
from lucency.data import csv_tables
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.images import locate_films
from lucency.data.labels import read_labelled, read_labels, refuse_alike
from lucency.data.sources import SOURCES
from lucency.phantom.dataset import write_phantom

TABLE = """image,patient,Mass,Edema,sex,age,view
a/1.png,Anna,1,0,F,61.5,PA
b/1,Bert,0.0,,M,,AP
2,Anna,,1.0,F,62,AP
gone.png,17,0,0,M,3,PA
"""


def read(root: Path, text: str, **changes: str) -> Manifest:
    (root / "labels.csv").write_text(text)
    choices = {"source": "csv", "root": str(root), "labels": "labels.csv"}
    source = Source.model_validate(choices | changes)
    return SOURCES["csv"](source, findings=("Edema", "Mass"))


def write_films(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((40, 40), 9, np.uint8))


def test_reads_labels_facts_and_films(tmp_path: Path):
    write_films(tmp_path, "a/1.png", "b/1.png", "deep/er/2.jpg")
    films = locate_films(read(tmp_path, TABLE), tmp_path)
    np.testing.assert_array_equal(films.label, [[0, 1], [np.nan, 0], [1, np.nan], [0, 0]])
    assert films.image.tolist() == ["a/1.png", "b/1", "2", "gone.png"]
    paths = [str(tmp_path / name) for name in ("a/1.png", "b/1.png", "deep/er/2.jpg")]
    assert films.facts["path"].tolist() == [*paths, ""]
    assert films.facts["sex"].tolist() == ["F", "M", "F", "M"]
    np.testing.assert_array_equal(films.facts["age"], [61.5, np.nan, 62, 3])
    assert len(films.boxes) == 0


def test_patients_keep_their_number_whatever_the_rows(tmp_path: Path):
    lines = TABLE.splitlines()
    films = read(tmp_path, TABLE)
    turned = read(tmp_path, "\n".join([lines[0], *reversed(lines[1:])]))
    assert films.patient[0] == films.patient[2] != films.patient[1]
    assert films.patient[3] == 17
    assert (films.patient == turned.patient[::-1]).all()
    assert (films.patient >= 0).all()


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("058Y", 58), ("006M", 0.5), ("90+", 90), (">89", 90), (">=90", 90), ("58 years", 58),
        ("61,5", 61.5), ("7 d", 7 / 365.25), ("NA", np.nan), ("90Y+", 90),
        ("-5", -5), ("148", 148), ("unknown", np.nan), ("n/a", np.nan), ("\u2013", np.nan),
    ],
)  # fmt: skip
def test_ages_are_read_as_programs_write_them(tmp_path: Path, text: str, years: float):
    films = read(tmp_path, TABLE.replace("61.5", f'"{text}"'))
    assert films.facts["age"][0] == pytest.approx(years, nan_ok=True)


def test_sex_and_view_are_one_group_however_they_are_spelled(tmp_path: Path):
    rows = ["M,PA", "male,pa", "m,Pa", "FEMALE,ap", "f,AP", "O,Lateral", ",", "weiblich,LL"]
    table = "".join(f"{k}.png,{k},1,0,{row}\n" for k, row in enumerate(rows))
    facts = read(tmp_path, f"image,patient,Mass,Edema,Gender,View\n{table}").facts
    assert facts["sex"].tolist() == ["M", "M", "M", "F", "F", "O", "", "weiblich"]
    assert facts["view"].tolist() == ["PA", "PA", "PA", "AP", "AP", "LATERAL", "", "LL"]


def test_columns_of_other_names_are_read_where_evident_and_reported(tmp_path: Path, capsys):
    head = "Path,Patient ID,MASS,edema,Gender,AGE,View Position"
    films = read(tmp_path, "\n".join([head, *TABLE.splitlines()[1:]]))
    own = read(tmp_path, TABLE)
    np.testing.assert_array_equal(films.label, own.label)
    assert (films.patient == own.patient).all()
    pd.testing.assert_frame_equal(films.facts, own.facts)
    line = capsys.readouterr().err
    assert "read are the columns 'Path' as image, 'Patient ID' as patient" in line
    assert "'edema' as Edema" in line
    with pytest.raises(ValueError, match="columns 'MASS' and 'mass' may both be 'Mass'"):
        read(tmp_path, TABLE.replace("Mass", "MASS").replace("sex", "mass"))
    with pytest.raises(ValueError, match="no column 'scan'"):
        read(tmp_path, TABLE, image_column="scan")


@pytest.mark.parametrize(
    ("head", "column"),
    [
        ("image,PatientID,Mass,Edema,MRN,age,view", "patient"),
        ("image,subject_id,Mass,Edema,pid,age,view", "patient"),
        ("filename,patient,Mass,Edema,path,age,view", "image"),
    ],
)
def test_two_columns_of_usual_names_are_refused_unless_one_is_named(
    tmp_path: Path, head: str, column: str
):
    text = "\n".join([head, *TABLE.splitlines()[1:]])
    first, second = (head.split(",")[place] for place in ((0, 4) if column == "image" else (1, 4)))
    message = f"columns '{first}' and '{second}' may both be '{column}'.*--{column}-column, or data"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)
    own = read(tmp_path, TABLE)
    named = read(tmp_path, text, **{f"{column}_column": first})
    np.testing.assert_array_equal(named.patient, own.patient)
    exact = read(tmp_path, text.replace(first, column, 1))
    np.testing.assert_array_equal(exact.patient, own.patient)
    assert read_labels(tmp_path / "labels.csv").findings == ("Mass", "Edema")


def test_two_columns_of_usual_names_that_hold_the_same_are_one(tmp_path: Path):
    lines = [f"{line},{line.split(',')[1]}" for line in TABLE.splitlines()[1:]]
    head = "image,MRN,Mass,Edema,sex,age,view,PatientID"
    twice = read(tmp_path, "\n".join([head, *lines]))
    np.testing.assert_array_equal(twice.patient, read(tmp_path, TABLE).patient)


@pytest.mark.parametrize("spelling", [" Zoë", "Zoë\u00a0", "\u200bZoë", "Zoe\u0308", "\ufeffZoë "])
def test_patients_are_compared_in_nfc_without_blanks(tmp_path: Path, spelling: str):
    text = TABLE.replace("1.png,Anna", "1.png,Zoë").replace("2,Anna", f"2,{spelling}")
    films = read(tmp_path, text)
    assert films.patient[0] == films.patient[2]
    assert films.patient_id.tolist() == ["Zoë", "Bert", "Zoë", "17"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("p1", "P1"),
        ("p1", "p01"),
        ("7", "007"),
        ("7", "7.0"),
        ("a-7", "a\u20137"),
        ("a 7", "a7"),
        ("P_000", "P-000"),
        ("'p1", "p1"),
    ],
)
def test_patients_that_differ_by_a_way_of_writing_are_refused(tmp_path: Path, one: str, other: str):
    text = TABLE.replace("1.png,Anna", f"1.png,{one}").replace("2,Anna", f"2,{other}")
    message = re.escape(f"labels.csv, patient: found patients {one!r} and {other!r}, which differ")
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)
    nih = "Image Index,Finding Labels,Follow-up #,Patient ID\na.png,Mass,0,{}\nb.png,Mass,0,{}\n"
    (tmp_path / "nih.csv").write_text(nih.format(one, other))
    with pytest.raises(ValueError, match=r"nih.csv, Patient ID: found patients"):
        read_labelled(tmp_path / "nih.csv")


@pytest.mark.parametrize("marked", ["'003", '="003"', '"=""003"""', '" =""\'003 """'])
def test_excels_marks_of_text_are_no_part_of_a_patient(tmp_path: Path, marked: str):
    text = TABLE.replace("1.png,Anna", f"1.png,{marked}").replace("2,Anna", "2,003")
    films = read(tmp_path, text)
    assert films.patient[0] == films.patient[2]
    assert films.patient_id[0] == "003"


def test_hexadecimal_patients_of_one_length_are_other_patients(tmp_path: Path):
    films = read(tmp_path, TABLE.replace("Anna", "a07b7c").replace("Bert", "a7b07c"))
    assert len(set(films.patient.tolist())) == 3


@pytest.mark.parametrize("order", list(permutations(["a01b2", "a1b02", "A1B02"])))
def test_the_order_of_patients_does_not_matter(order: tuple[str, ...]):
    with pytest.raises(ValueError, match="differ in capital letters"):
        refuse_alike(order, where="patient")
    refuse_alike([*order[:1], *order[:1]], where="patient")


def test_a_column_that_is_named_in_vain_is_refused(tmp_path: Path):
    nih = tmp_path / "nih.csv"
    nih.write_text("Image Index,Finding Labels,Follow-up #,Patient ID\n2.png,Mass,0,1\n")
    save_manifest(read(tmp_path, TABLE), tmp_path)
    for file, own in ((nih, "Image Index"), (tmp_path / "manifest.csv", "image")):
        with pytest.raises(ValueError, match=f"--image-column nonsense: .* own column '{own}'"):
            read_labelled(file, image_column="nonsense")
        with pytest.raises(ValueError, match="--patient-column who: "):
            read_labelled(file, patient_column="who")
    assert len(read_labelled(nih, image_column="image index", patient_column="Patient ID")) == 1


@pytest.mark.parametrize(
    ("what", "column", "other"),
    [
        ("patient", "Mass", "a finding's"),
        ("patient", "image", "that of images"),
        ("image", "Mass", "a finding's"),
    ],
)
def test_a_column_of_another_use_is_no_patient_and_no_image(
    tmp_path: Path, what: str, column: str, other: str
):
    message = f"'{column}' is named as that of {what}s and is {other}; expected .* --{what}-column"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, TABLE, **{f"{what}_column": column})
    with pytest.raises(ValueError, match=message):
        read_labelled(tmp_path / "labels.csv", **{f"{what}_column": column})


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        (
            "manifest.json",
            '"Mass"',
            '"Masse"',
            r"manifest\.csv: no column 'Masse', which manifest.js",
        ),
        ("manifest.csv", ",0,1,", ",0,7,", r"manifest\.csv cannot be read .labels must be 0, 1"),
        ("uncertain.csv", "finding", "finding,more", r"uncertain\.csv cannot be read .columns: fo"),
        ("boxes.csv", "finding", "finding,more", r"boxes\.csv cannot be read .columns: found"),
    ],
)
def test_a_manifest_s_file_that_does_not_fit_is_named(
    tmp_path: Path, file: str, old: str, new: str, named: str
):
    save_manifest(read(tmp_path, TABLE), tmp_path)
    place = tmp_path / file
    text = place.read_text()
    assert old in text
    place.write_text(re.sub(r'\n "checksum": "\w+",?', "", text.replace(old, new, 1)))
    with pytest.raises(ValueError, match=named):
        load_manifest(tmp_path)


def test_patients_are_shown_as_they_are_written(tmp_path: Path):
    films = read(tmp_path, TABLE.replace("17", "007"))
    assert films.patient_id.tolist() == ["Anna", "Bert", "Anna", "007"]
    save_manifest(films, tmp_path)
    loaded = load_manifest(tmp_path).take(np.array([3, 0]))
    assert loaded.patient_id.tolist() == ["007", "Anna"]
    assert loaded.patient.tolist() == [7, films.patient[0]]
    table = pd.DataFrame({"image": ["a/1.png"], "patient": films.patient[:1]})
    assert name_patients(table, films)["patient"].tolist() == ["Anna"]
    numbers = TABLE.replace("Anna", "4").replace("Bert", "5")
    assert read(tmp_path, numbers).patient_id.tolist() == [4, 5, 4, 17]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Anna,1,0", "Anna,1,-2", "line 2, Edema: found '-2', expected 0, 1, -1 .uncertain."),
        ("Anna,1,0", "Anna,yes,0", "line 2, Mass: found 'yes'"),
        ("61.5", "old", "line 2, age: found 'old', expected an age such as 58"),
        ("Bert", "", "line 3, patient: found nothing, expected a patient"),
        ("Bert", "NaN", "line 3, patient: found NaN, expected a patient"),
        ("Bert", "unknown", "line 3, patient: found unknown, expected a patient: .*leave the film"),
        ("Bert", "N/A", "line 3, patient: found N/A, expected a patient"),
        ("Bert", "-", "line 3, patient: found -, expected a patient"),
        ("Bert", "?", "line 3, patient: found ., expected a patient"),
        ("17", "1.70E+11", "line 5, patient: found '1.70E.11', a number that a spreadsheet"),
        ("gone.png", "2", "image .*'2'.* is listed 2 times"),
        ("Edema", "Oedema", "no column 'Edema': .*nearest is 'Oedema'"),
        ("image,", "picture,", "no column 'image'"),
        ("sex,age", "Mass ,age", "column 'Mass' is there twice"),
        ("patient,", "pation,", "no column 'patient': .*nearest is 'pation'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, TABLE.replace(old, new, 1))


def test_an_absent_table_an_empty_one_and_a_film_found_twice(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no label file in \S+: expected lables.csv$"):
        read(tmp_path, TABLE, labels="lables.csv")
    with pytest.raises(ValueError, match="found no rows"):
        read(tmp_path, TABLE.splitlines()[0])
    write_films(tmp_path, "a/2.png", "b/2.png")
    films = read(tmp_path, TABLE)
    with pytest.raises(ValueError, match=r"film '2' fits both a/2.png and b/2.png"):
        locate_films(films, tmp_path)


def test_labels_are_read_without_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two pictures of one name below the label file's folder do not matter to its labels."""
    opened: list[Path] = []
    read_text = csv_tables.read_text

    def count(file: Path, *, expected: str) -> tuple[str, str]:
        opened.append(file)
        return read_text(file, expected=expected)

    monkeypatch.setattr(csv_tables, "read_text", count)
    write_films(tmp_path, "2.png", "b/2.png")
    assert read(tmp_path, TABLE).facts["path"].tolist() == [""] * 4
    assert read_labelled(tmp_path / "labels.csv").facts["path"].tolist() == [""] * 4
    nih = tmp_path / "nih.csv"
    nih.write_text("Image Index,Finding Labels,Follow-up #,Patient ID\n2.png,Mass,0,1\n")
    assert read_labelled(nih).label.sum() == 1
    assert opened == [tmp_path / "labels.csv"] * 2 + [nih]


def test_every_source_of_a_protocol_has_a_reader_and_none_filters(tmp_path: Path):
    assert {*SOURCES, "dicom"} == set(get_args(Source.model_fields["source"].annotation))
    write_phantom(tmp_path / "phantom", films=20, size=64, seed=1)
    (tmp_path / "labels.csv").write_text(TABLE)
    sources = {
        "phantom": (Source(root=str(tmp_path / "phantom")), 20),
        "nih": (Source(source="nih", root=str(tmp_path / "phantom")), 20),
        "csv": (Source(source="csv", root=str(tmp_path), labels="labels.csv"), 4),
    }
    assert set(sources) == set(SOURCES) - {"dicom", *COLLECTIONS}  # which have tests of their own
    for name, (source, films) in sources.items():
        assert len(SOURCES[name](source, findings=("Mass", "Edema"))) == films
