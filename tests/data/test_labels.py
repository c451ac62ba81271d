"""Labels of any label file: NIH's, a manifest, a table; what is none is one line that names it."""

import gzip
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.balance.imbalance import measure
from lucency.cli.output import describe_imbalance
from lucency.core.manifest import FINDINGS, Manifest, empty_boxes, save_manifest
from lucency.data.labels import Labels, read_labelled, read_labels

TABLE = b"image,patient,Mass,age,Edema,view\na,1,0,55,1,PA\nb,1,,61,1.0,AP\nc,2,1,,0.0,PA\n"
NIH = b"Image Index,Finding Labels,Follow-up #\na,Mass|Edema,0\nb,No Finding,1\nc,Hernia,0\n"
TOLD = [[0, 1], [np.nan, 1], [1, 0]]
# Facts: imbalance.md, ChestX-ray14 v2020; chestxray14.md, films per finding
MEASURES = {
    "instances": "112120", "labels": "14", "cardinality": "0.724010", "labelsets": "801",
    "max_ir": "87.6388", "mean_ir": "11.553007", "cvir": "1.924682", "scumble": "0.025946",
    "scumble_cv": "3.010641",
}  # fmt: skip
PUBLISHED = [
    11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227,
]  # fmt: skip
MINORITY = {"Pneumonia", "Fibrosis", "Hernia"}


def read(folder: Path, content: bytes, *, name: str = "labels.csv") -> Labels:
    (folder / name).write_bytes(content)
    return read_labels(folder / name)


def test_chestxray14_measures_as_published(shared: Path):
    read = read_labels(shared / "nih" / "Data_Entry_2017_v2020.csv")
    assert (read.findings, read.left_out) == (FINDINGS, ())
    assert read.label.sum(axis=0).tolist() == PUBLISHED
    found = measure(read.label, names=read.findings)
    for name, printed in MEASURES.items():  # rounded or cut off there
        last = 10.0 ** -len(printed.partition(".")[2]) if "." in printed else 0
        assert found.summary[name] == pytest.approx(float(printed), abs=last), name
    minority = found.per_finding.loc[found.per_finding["minority"], "finding"]
    assert set(minority) == MINORITY


@pytest.mark.parametrize(("name", "ending"), [("labels.csv", ""), ("labels.csv.gz", ".gz")])
def test_a_table_is_read_by_its_columns_of_0_1_and_nothing(tmp_path: Path, name: str, ending: str):
    found = read(tmp_path, gzip.compress(TABLE) if ending else TABLE, name=name)
    assert found.findings == ("Mass", "Edema")
    assert found.left_out == ("image", "patient", "age", "view")
    assert found.label.dtype == np.float32
    np.testing.assert_array_equal(found.label, TOLD)


@pytest.mark.parametrize("column", [b"image", b"patient", b"Patient"])
def test_images_and_patients_called_0_and_1_are_no_findings(tmp_path: Path, column: bytes):
    rows = column + b",Mass\n0,1\n1,0\n"
    assert read(tmp_path, rows).findings == ("Mass",)
    assert read(tmp_path, rows.replace(column, b"Edema")).findings == ("Edema", "Mass")


@pytest.mark.parametrize("cell", [b"2", b"-2", b"0.5", b"yes", b"u", b"WAHR", b"+", b"100%"])
def test_an_odd_code_in_a_finding_s_column_is_refused(tmp_path: Path, cell: bytes):
    table = TABLE.replace(b"a,1,0,", b"a,1," + cell + b",")
    todo = "leave" if cell in (b"2", b"-2", b"0.5") else "write 1 and 0"
    message = f"line 2, Mass: found '{cell.decode()}', expected 0, 1, -1 (uncertain) or nothing: "
    message += todo
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, table)


@pytest.mark.parametrize(("yes", "no"), [("WAHR", "FALSCH"), ("x", ""), ("+", "-"), ("100%", "0%")])
def test_columns_of_words_are_no_labels_and_named_by_cell(tmp_path: Path, capsys, yes, no):
    table = f"image,Edema,Mass\na,0,\nb,1,{yes}\nc,1,{no}\nd,1,{yes}\n"
    assert read(tmp_path, table.encode()).findings == ("Edema",)
    assert f"line 3, Mass: found {yes!r}, no label: write 1 and 0" in capsys.readouterr().err


def test_columns_of_uncertain_codes_are_findings_however_few_are_stated(tmp_path: Path, capsys):
    rows = "".join(f"{n}.png,{n},{1 if n == 7 else ''},{-1 if n else 0}\n" for n in range(40))
    found = read(tmp_path, ("image,patient,Mass,Edema\n" + rows).encode())
    assert found.findings == ("Mass", "Edema")
    assert (~np.isnan(found.label)).sum(axis=0).tolist() == [1, 1]
    assert "labels.csv: 39 labels are -1, uncertain: Edema 39" in capsys.readouterr().err
    found = read(tmp_path, ("image,patient,Mass,Edema\n" + rows.replace("-1", "")).encode())
    assert found.findings == ("Mass", "Edema")


@pytest.mark.parametrize(
    ("cells", "label"),
    [
        ("TRUE False", [1, 0]),
        ("1.00 NA", [1, np.nan]),
        ("1,0 0,0", [1, 0]),
        ("nan 1", [np.nan, 1]),
        ("N/A 0.", [np.nan, 0]),
    ],
)
def test_labels_of_other_programs_are_read(tmp_path: Path, cells: str, label: list[float]):
    rows = "\n".join(f"{place};{cell}" for place, cell in enumerate(cells.split()))
    found = read(tmp_path, f"image;Mass\n{rows}\n9;1\n".encode())
    np.testing.assert_array_equal(found.label[:2, 0], label)


def test_columns_in_words_are_named(tmp_path: Path, capsys):
    assert read(tmp_path, b"image,Mass,Smoker\na,1,Yes\nb,0,No\n").findings == ("Mass",)
    assert "Smoker: found 'Yes', no label: write 1 and 0" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["image", "Path", "Image Index", "DICOM_ID"])
def test_repeated_rows_and_several_readers_are_refused(tmp_path: Path, column: str):
    rows = "".join(f"{film}.png,R{reader},1\n" for film in "ab" for reader in range(3))
    message = r"line 3: image 'a.png' is listed 3 times; expected each film once: .*readers"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, f"{column},reader,Mass\n{rows}".encode())
    nih = NIH.replace(b"b,No", b"a,No")
    with pytest.raises(ValueError, match="line 3: image 'a' is listed 2 times"):
        read(tmp_path, nih)


def test_films_without_names_cannot_be_compared_and_that_is_said(tmp_path: Path, capsys):
    assert len(read(tmp_path, b"study,Mass\n7,1\n7,1\n").label) == 2
    assert "no column of image names is evident" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["No Finding", "no_finding"])
def test_no_finding_beside_a_finding_is_refused(tmp_path: Path, column: str):
    table = f"image,Mass,{column},Support Devices\na,0,1,1\nb,1,0,0\nc,1,1,0\nd,1,1,1\n"
    message = f"line 4: {column} is 1 beside Mass; expected one of them .2 rows so"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, table.encode())
    right = table.replace("1,1,0", "1,0,0").replace("1,1,1", "1,,1")
    assert len(read(tmp_path, right.encode()).label) == 4


@pytest.mark.parametrize("column", ["No Finding", "no_finding"])
def test_films_of_no_finding_with_empty_findings_are_told(tmp_path: Path, capsys, column: str):
    table = f"image,Mass,{column},Support Devices\na,,1,1\nb,1,,0\nc,,1,\nd,0,1,\n"
    assert np.isnan(read(tmp_path, table.encode()).label[[0, 2], 0]).all()
    told = capsys.readouterr().err
    assert f"2 films are marked {column} with empty findings" in told
    assert "count as not stated; write 0" in told
    read(tmp_path, table.replace(",,1,", ",0,1,").encode())
    assert "marked" not in capsys.readouterr().err


def test_findings_that_no_film_has_are_named(tmp_path: Path, capsys):
    read(tmp_path, b"image,Mass,Edema,Hernia\na,0,1,0\nb,0,0,\n")
    assert "no film has Mass, Hernia: such findings" in capsys.readouterr().err
    read(tmp_path, b"image,Mass\na,0\nb,0\n")
    assert "no label is 1" in capsys.readouterr().err


def test_the_label_file_of_nih_gives_its_14_findings(tmp_path: Path):
    found = read(tmp_path, NIH)
    assert (found.findings, found.left_out) == (FINDINGS, ())
    carried = [{FINDINGS[k] for k in np.flatnonzero(row)} for row in found.label]
    assert carried == [{"Mass", "Edema"}, set(), {"Hernia"}]
    np.testing.assert_array_equal(
        read(tmp_path, gzip.compress(NIH), name="n.gz").label, found.label
    )


def test_a_manifest_names_its_findings_itself(tmp_path: Path):
    """The fact follow_up is 0 and 1 here, and no finding by its name alone."""
    manifest = Manifest(
        findings=("Mass", "Edema"),
        image=np.array(["a", "b", "c"]),
        patient=np.array([1, 1, 2]),
        label=np.array(TOLD, dtype=np.float32),
        facts=pd.DataFrame({"follow_up": [0, 1, 0]}),
        boxes=empty_boxes(),
        origin="invented",
    )
    save_manifest(manifest, tmp_path)
    found = read_labels(tmp_path / "manifest.csv")
    assert (found.findings, found.left_out) == (
        ("Mass", "Edema"),
        ("image", "patient", "follow_up"),
    )
    np.testing.assert_array_equal(found.label, TOLD)
    (tmp_path / "manifest.json").unlink()
    assert read_labels(tmp_path / "manifest.csv").findings == ("Mass", "Edema")


PNG = cv2.imencode(".png", np.zeros((40, 40), np.uint8))[1].tobytes()
GZ = gzip.compress(TABLE)
NONE = {
    "gzip cut in its header": ("t.csv.gz", GZ[:5], "found a damaged file"),
    "gzip cut in its middle": ("t.csv.gz", GZ[:-20], "found a damaged file"),
    "gzip cut in its checksum": ("t.csv.gz", GZ[:-4], "found a damaged file"),
    "a film": ("film.png", PNG, "found a picture"),
    "text cut in a letter": ("t.csv", TABLE + "é".encode()[:1], "found a damaged file"),
    "nothing": ("t.csv", b"", "found no CSV table"),
    "a quote without end": ("t.csv", b'image,Mass\na,"1\nb,0\n', "line 2: found no CSV table"),
    "a header alone": ("t.csv", b"image,Mass\n", "found no rows"),
    "no finding": (
        "t.csv",
        b"image,age\na,55\n",
        "found the columns image, age; expected 'Finding",
    ),
    "prose": ("notes.md", b"no\ntable\n", "found the columns no; expected 'Finding Labels'"),
    "unknown finding": ("t.csv", NIH.replace(b"Hernia", b"Hernai"), "line 4, .* is 'Hernia'"),
    "contradiction": ("t.csv", NIH.replace(b"Mass|Edema", b"Mass|No Finding"), "line 2, .*alone"),
}


@pytest.mark.parametrize("what", NONE)
def test_what_is_no_label_file_is_one_line_that_names_it(tmp_path: Path, what: str):
    name, content, message = NONE[what]
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path, content, name=name)
    assert str(refusal.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["absent.csv", "."])
def test_no_file_is_said(tmp_path: Path, name: str):
    with pytest.raises(
        ValueError, match=r"(no such file|is a folder); expected a label file"
    ) as refusal:
        read_labels(tmp_path / name)
    assert str(refusal.value).startswith(str(tmp_path / name))


def broken_gzip() -> bytes:
    """Return a gzip file whose checksum is not that of its content."""
    content = bytearray(GZ)
    content[-6] ^= 255
    return bytes(content)


OPEN = {
    "a wrong checksum": ("t.csv.gz", broken_gzip()),
    "a row too long": ("t.csv", b"image,Mass\na,1\nb,1,0\n"),
    "rows too long": ("t.csv", b"image,Mass,Edema\na,1,0,1\nb,1,0,1\n"),
    "a manifest without its column": ("manifest.csv", TABLE),
}


@pytest.mark.parametrize("what", OPEN)
def test_these_too_should_be_one_line_that_names_the_file(tmp_path: Path, what: str):
    name, content = OPEN[what]
    (tmp_path / "manifest.json").write_text(json.dumps({"findings": ["Mass", "Hernia"]}))
    with pytest.raises(ValueError, match=name) as refusal:
        read(tmp_path, content, name=name)
    assert str(refusal.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refusal.value)


def test_no_finding_is_no_finding_of_a_table(tmp_path: Path):
    file = tmp_path / "labels.csv"
    file.write_text("image,patient,Mass,No Finding\na.png,1,1,0\nb.png,2,0,1\n")
    read = read_labels(file)
    assert read.findings == ("Mass",)
    assert "No Finding" in read.left_out


def test_the_command_says_how_many_have_no_finding_and_their_share(shared: Path, tmp_path: Path):
    published = shared / "nih" / "Data_Entry_2017_v2020.csv"
    found = describe_imbalance(published, figure=None)["no_finding"]
    assert found == {"films": 60_361, "share": pytest.approx(0.53836, abs=1e-5), "not_stated": 0}
    (tmp_path / "labels.csv").write_bytes(TABLE)
    own = describe_imbalance(tmp_path / "labels.csv", figure=None)["no_finding"]
    assert own == {"films": 0, "share": 0.0, "not_stated": 0}
    (tmp_path / "few.csv").write_text("image,Mass,Edema\na,,0\nb,0,0\nc,1,\nd,0,0\n")
    own = describe_imbalance(tmp_path / "few.csv", figure=None)["no_finding"]
    assert own == {"films": 2, "share": 0.5, "not_stated": 1}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("Mass|Hernya", r"labels\.csv, line 3, Finding Labels: finding 'Hernya' .*'Mass\|Hernya'"),
        ("Mass||Edema", r"line 3, Finding Labels: finding '' .*\(the cell: 'Mass\|\|Edema'\)"),
        ("Mass|No Finding", r"line 3, Finding Labels: found 'Mass\|No Finding', expected [^(]*$"),
    ],
)
def test_an_error_in_a_cell_shows_the_cell(tmp_path: Path, cell: str, message: str):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, NIH.replace(b"No Finding", cell.encode()))


def test_a_table_of_nih_without_follow_up_numbers_is_read(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = pd.read_csv(shared / "nih" / "Data_Entry_2017.csv", index_col=False)
    whole.drop(columns="Follow-up #").to_csv(tmp_path / "labels.csv", index=False)
    films = read_labelled(tmp_path / "labels.csv")
    assert "NIH's label file of November 2017, 112,120 films" in films.origin
    assert "follow_up" not in films.facts
    assert "no column 'Follow-up #': films are not compared by visit" in capsys.readouterr().err


def test_versions_that_follow_up_numbers_alone_tell_apart_are_both_named(
    shared: Path, tmp_path: Path
):
    whole = pd.read_csv(shared / "nih" / "Data_Entry_2017_v2020.csv", index_col=False)
    whole.drop(columns="Follow-up #").to_csv(tmp_path / "labels.csv", index=False)
    origin = read_labelled(tmp_path / "labels.csv").origin
    assert "NIH's later label file, as on Kaggle or NIH v2020 label file" in origin


def test_a_column_of_mostly_odd_cells_is_named_as_left_out(tmp_path: Path, capsys):
    rows = "".join(f"{n}.png,{n},{n % 2},{'2' if n else '1'},west\n" for n in range(6))
    file = tmp_path / "labels.csv"
    file.write_text("image,person,Mass,Edema,ward\n" + rows)
    assert read_labelled(file, patient_column="person").findings == ("Mass",)
    line = f"{file}: left out are Edema ('2' in line 3), ward; read are Mass"
    assert line in capsys.readouterr().err.splitlines()


def test_a_table_of_words_alone_is_refused_in_one_line(tmp_path: Path, capsys):
    message = (
        r"line 2, Mass: found 'yes', no label: write 1 and 0 where Mass, Edema are findings; ex"
    )
    with pytest.raises(ValueError, match=message):
        read(tmp_path, b"image,Mass,Edema\na,yes,no\nb,no,yes\n")
    assert capsys.readouterr().err == ""
