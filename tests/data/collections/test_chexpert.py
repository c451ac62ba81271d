"""CheXpert's real training labels to the last count; trees of phantoms in its layout and Plus's."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts import (
    CHEXPERT_HEADING,
    NAMES,
    phantoms,
    write_chexpert,
    write_chexpert_plus,
    write_label_lines,
)
from layouts_other import oracle_labels
from lucency.config.sections import Source
from lucency.core.manifest import FINDINGS, Manifest, load_manifest
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.collections.chexpert import read_chexpert
from lucency.data.collections.chexpert_plus import read_chexpert_plus
from lucency.data.label_choices import choose_labels
from lucency.data.sources import absent_places, film_inputs, read_films

REAL = "chexpert_train.csv.gz"
COUNTS = {  # of train.csv: 1, 0, -1, empty (the facts file, section 1)
    "No Finding": (22_381, 0, 0, 201_033),
    "Enlarged Cardiomediastinum": (10_798, 21_638, 12_403, 178_575),
    "Cardiomegaly": (27_000, 11_116, 8_087, 177_211),
    "Lung Opacity": (105_581, 6_599, 5_598, 105_636),
    "Lung Lesion": (9_186, 1_270, 1_488, 211_470),
    "Edema": (52_246, 20_726, 12_984, 137_458),
    "Consolidation": (14_783, 28_097, 27_742, 152_792),
    "Pneumonia": (6_039, 2_799, 18_770, 195_806),
    "Atelectasis": (33_376, 1_328, 33_739, 154_971),
    "Pneumothorax": (19_448, 56_341, 3_145, 144_480),
    "Pleural Effusion": (86_187, 35_396, 11_628, 90_203),
    "Pleural Other": (3_523, 316, 2_653, 216_922),
    "Fracture": (9_040, 2_512, 642, 211_220),
    "Support Devices": (116_001, 6_137, 1_079, 100_197),
}
ALIGNED = tuple({"Pleural Effusion": "Effusion"}.get(name, name) for name in COUNTS)[1:]
SHARED = {"Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumonia",
          "Pneumothorax"}  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The films of the real training labels, read once."""
    root = oracle_labels(REAL, root=tmp_path_factory.mktemp("real"))
    return read_chexpert(root, REAL)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chexpert(tmp_path_factory.mktemp("chexpert"), films=24, test=True)


@pytest.fixture(scope="module")
def plus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chexpert_plus(tmp_path_factory.mktemp("plus"), films=24)


@pytest.mark.parametrize("finding", COUNTS)
def test_the_real_labels_are_counted(real: Manifest, finding: str):
    column = real.findings.index(finding)
    label = real.label[:, column]
    uncertain = int((real.uncertain["finding"] == finding).sum())
    empty = int(np.isnan(label).sum()) - uncertain
    assert (int((label == 1).sum()), int((label == 0).sum()), uncertain, empty) == COUNTS[finding]


def test_the_real_films_patients_and_studies_are_counted(real: Manifest):
    assert (len(real), len(np.unique(real.patient))) == (223_414, 64_540)
    assert real.facts["study"].nunique() == 187_641
    assert real.facts["patient_id"].nunique() == 64_540
    assert real.facts["split"].unique().tolist() == ["train"]
    assert real.origin == (
        "chexpert_train.csv.gz: CheXpert, as published, 223,414 films of 64,540 patients"
    )


def test_the_real_views_sexes_and_ages_are_counted(real: Manifest):
    view = real.facts["view"].value_counts().to_dict()
    assert view == {"AP": 161_590, "LATERAL": 32_387, "PA": 29_420, "LL": 16, "RL": 1}
    assert real.facts["sex"].value_counts().to_dict() == {"M": 132_636, "F": 90_777, "": 1}
    age = real.facts["age"]
    assert (age.min(), age.max()) == (0, 90)
    assert ((age == 0).sum(), (age == 90).sum()) == (3, 7_579)


def test_the_real_no_finding_stands_beside_devices_alone(real: Manifest):
    normal = real.label[:, real.findings.index("No Finding")] == 1
    ones, unsure = (real.label[normal] == 1).sum(axis=0), real.is_uncertain[normal].sum(axis=0)
    beside = {name: (int(one), int(not_sure)) for name, one, not_sure in
              zip(real.findings, ones, unsure, strict=True) if one or not_sure}  # fmt: skip
    assert beside == {"No Finding": (22_381, 0), "Support Devices": (8_808, 110)}


def test_no_finding_makes_22_381_negatives_of_each_finding(real: Manifest):
    about = {"findings": ALIGNED, "collection": COLLECTIONS["chexpert"]}
    made, plain = (
        choose_labels(real, source=Source(source="chexpert", no_finding_negates=on), **about)
        for on in (True, False)
    )
    assert ((made.label == 1) == (plain.label == 1)).all()
    normal = real.label[:, real.findings.index("No Finding")] == 1
    negative = dict(zip(ALIGNED, (made.label[normal] == 0).sum(axis=0).tolist(), strict=True))
    devices = negative.pop("Support Devices")
    assert set(negative.values()) == {22_381}
    assert devices == (plain.label[normal, -1] == 0).sum()
    gained = ((made.label == 0).sum(axis=0) - (plain.label == 0).sum(axis=0)).tolist()
    counted = made.reading[made.reading["step"] == "No Finding: 0"]["films"]
    assert counted.tolist() == [films for films in gained if films]


def test_the_published_counts_are_those_of_train_and_valid():
    published = COLLECTIONS["chexpert"].published
    assert (published["films"], published["patients"]) == (223_648, 64_740)
    assert published["Fracture"] == COUNTS["Fracture"][0]  # no positive in valid


def test_seven_findings_are_shared_with_chestxray14():
    films = Manifest(
        findings=NAMES, image=np.array(["a"]), patient=np.array([1]),
        label=np.ones((1, 14), np.float32), facts=pd.DataFrame({"path": [""]}),
        boxes=read_nih_boxes(), origin="",
    )  # fmt: skip
    made = choose_labels(
        films, source=Source(source="chexpert"), findings=FINDINGS,
        collection=COLLECTIONS["chexpert"],
    )  # fmt: skip
    stated = {name for name, label in zip(FINDINGS, made.label[0], strict=True) if label == 1}
    assert stated == SHARED


def read_nih_boxes() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in ("image", "finding", "x", "y", "w", "h")})


def test_a_tree_is_read_with_its_oddities(tree: Path):
    films = read_chexpert(tree, "")
    drawn = phantoms(24)
    assert (len(films), len(np.unique(films.patient))) == (
        len(drawn),
        len({film.patient for film in drawn}),
    )
    facts = films.facts.set_axis(films.image)
    first = facts.loc["patient00001/study1/view1_frontal.jpg"]
    assert (first["sex"], first["split"], first["study"]) == ("", "train", "patient00001/study1")
    aside = facts.loc["patient00001/study1/view2_lateral.jpg"]
    assert (aside["view"], aside["age"]) == ("LATERAL", 90)
    assert set(films.facts["split"]) == {"train", "val", "test"}
    test = facts[facts["split"] == "test"]
    assert set(test["view"]) <= {"FRONTAL", "LATERAL"}
    assert test["age"].isna().all()
    assert set(test["sex"]) == {""}
    assert "not as published (films " in films.origin


def test_states_of_a_tree_are_those_of_its_cells(tree: Path):
    films = read_chexpert(tree, "")
    cells = pd.concat([
        pd.read_csv(tree / name, dtype=str, keep_default_na=False)
        for name in ("train.csv", "valid.csv", "test_labels.csv")
    ])[list(NAMES)].to_numpy()  # fmt: skip
    assert ((films.label == 1) == (cells == "1.0")).all()
    assert ((films.label == 0) == (cells == "0.0")).all()
    assert (films.is_uncertain == (cells == "-1.0")).all()
    assert films.is_uncertain.any()
    assert np.isnan(films.label[films.is_uncertain]).all()


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("prefix", ["CheXpert-v1.0", "", "data\\CheXpert-v1.0-small"])
def test_films_are_found_whatever_the_prefix(tmp_path: Path, above: bool, prefix: str):
    folder = write_chexpert(tmp_path / "CheXpert-v1.0-small", prefix=prefix or "x")
    if not prefix:
        for name in ("train.csv", "valid.csv"):
            (folder / name).write_text((folder / name).read_text().replace("\nx/", "\n"))
    place = Source(source="chexpert", root=str(tmp_path if above else folder))
    assert absent_places(place) == {}
    films = read_films(place, findings=("Effusion", "Edema"), out=tmp_path / "out")
    assert all(Path(path).is_file() for path in films.facts["path"])
    assert len(film_inputs(place, findings=("Effusion",))["tables"]) == 2


def test_films_of_batches_are_found(tmp_path: Path):
    """Folders train and valid may be called otherwise, as where a download comes in batches."""
    write_chexpert(tmp_path)
    (tmp_path / "train").rename(tmp_path / "CheXpert-v1.0 batch 2 (train 1)")
    place = Source(source="chexpert", root=str(tmp_path))
    assert len(read_films(place, findings=("Effusion",), out=tmp_path / "out")) == len(phantoms(12))


def test_a_named_file_is_read_alone(tree: Path):
    films = read_chexpert(tree, "valid.csv")
    assert set(films.facts["split"]) == {"val"}
    assert set(read_chexpert(tree, str(tree / "test_labels.csv")).facts["split"]) == {"test"}


def test_one_patient_s_films_of_several_files_have_one_number(tree: Path):
    films = read_chexpert(tree, "")
    pairs = pd.DataFrame({"number": films.patient, "name": films.facts["patient_id"]})
    assert len(pairs.drop_duplicates()) == pairs["name"].nunique() == pairs["number"].nunique()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "train.csv",
            ",1.0,",
            ",2.0,",
            r"train\.csv, line \d+, .*: found '2\.0', expected 1, 0, -1",
        ),
        ("train.csv", ",Frontal,", ",Oblique,", r"line \d+, Frontal/Lateral: found 'Oblique'"),
        ("train.csv", "Male", "Mann", r"line \d+, Sex: found 'Mann', expected Male, Female"),
        ("valid.csv", "patient00004/", "p4/", r"valid\.csv, line 2, Path: found '.*/p4/study1"),
        ("train.csv", "Pleural Other", "Other", r"no column 'Pleural Other'.*documentation page"),
        ("train.csv", "Pleural Other", "Edema", r"column 'Edema' is there twice"),
        ("train.csv", "study1/view2_lateral", "study1/view1_frontal", r"line 3: film .* twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, file: str, old: str, new: str, message: str
):
    root = write_chexpert(tmp_path)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_chexpert(root, "")


@pytest.mark.parametrize("cut", [9, 40, 70])
def test_a_table_that_is_cut_short_is_noticed(tmp_path: Path, cut: int):
    """pandas would fill the last row with empty cells, which state nothing."""
    root = write_chexpert(tmp_path)
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text[:-cut])
    with pytest.raises(ValueError, match=r"train\.csv, line \d+.*(cut short|found '.*expected)"):
        read_chexpert(root, "")
    (root / "train.csv.gz").write_bytes(gzip.compress(text.encode())[:-cut])
    (root / "train.csv").unlink()
    with pytest.raises(ValueError, match=r"train\.csv\.gz: found no whole table"):
        read_chexpert(root, "")


def test_a_row_with_a_cell_too_many_is_noticed(tmp_path: Path):
    root = write_chexpert(tmp_path)
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace(",Frontal,", ",Frontal,AP,", 1))
    with pytest.raises(ValueError, match=r"train\.csv, line 2: found 20 cells, expected 19"):
        read_chexpert(root, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty first line, expected the heading of the label file of CheXpert: "),
        (f"{','.join(CHEXPERT_HEADING)}\n", "found no rows below the heading, expected the label "),
    ],
)
def test_an_empty_label_file_is_named(tmp_path: Path, text: str, message: str):
    (write_chexpert(tmp_path) / "train.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.csv: {message}.*fetch it again"):
        read_chexpert(tmp_path, "")


def test_half_a_download_and_other_roots_are_refused(tmp_path: Path, plus: Path):
    root = write_chexpert(tmp_path / "half")
    (root / "valid.csv").unlink()
    with pytest.raises(ValueError, match=r"found train\.csv without valid\.csv, half of CheXpert"):
        read_chexpert(root, "")
    assert len(read_chexpert(root, "train.csv"))
    with pytest.raises(ValueError, match=r"no label file of CheXpert in .*plus.*df_chexpert_plus"):
        read_chexpert(plus, "")
    with pytest.raises(ValueError, match=r"no label file of CheXpert Plus in .*train\.csv"):
        read_chexpert_plus(root, "")
    other = tmp_path / "vinbigdata"
    other.mkdir()
    (other / "train.csv").write_text("image_id,class_name\nab,No finding\n")
    with pytest.raises(ValueError, match=r"no column 'Path'.*found image_id, class_name"):
        read_chexpert(other, "")
    (other / "train.csv").write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(ValueError, match="found a web page or XML"):
        read_chexpert(other, "")
    (other / "train.csv").rename(other / "train.csv.part")
    with pytest.raises(ValueError, match=r"train\.csv\.part of a download that is not finished"):
        read_chexpert(other, "")


def test_plus_has_the_labels_of_the_section_that_is_named(plus: Path):
    films = read_chexpert_plus(plus, "")
    whole = read_chexpert_plus(plus, "report")
    drawn = phantoms(24)
    assert films.origin.startswith("impression_fixed.json: CheXpert Plus, not as published")
    assert films.reading.to_dict("list") == {
        "step": ["no row in impression_fixed.json"], "finding": [""], "films": [1],
    }  # fmt: skip
    assert len(whole.reading) == 0
    assert np.isnan(films.label[-1]).all()
    text = np.array([[film.state[name] for name in NAMES] for film in drawn])
    assert ((whole.label == 1) == (text == "1.0")).all()
    assert ((whole.label == 0) == (text == "0.0")).all()
    assert (whole.is_uncertain == (text == "-1.0")).all()


def test_plus_names_films_and_patients_as_chexpert_does(plus: Path, tree: Path):
    films, others = read_chexpert_plus(plus, ""), read_chexpert(tree, "")
    theirs = pd.Series(others.patient, [name.partition(".")[0] for name in others.image])
    mine = pd.Series(films.patient, films.image)
    assert theirs.reindex(mine.index).tolist() == mine.tolist()
    assert set(films.facts["split"]) == {"train", "val"}
    assert films.facts["race"].unique().tolist() == ["Unknown"]


def test_films_of_plus_are_found_whatever_their_suffix(plus: Path, tmp_path: Path, capsys):
    place = Source(source="chexpert-plus", root=str(plus))
    films = read_films(place, findings=("Effusion",), out=tmp_path / "out")
    assert {Path(path).suffix for path in films.facts["path"]} == {".png"}
    assert ".azDownload-9f-view1_frontal.dcm" in capsys.readouterr().err
    saved = load_manifest(tmp_path / "out")
    assert saved.facts["study"].tolist() == films.facts["study"].tolist()


def test_labels_of_plus_lie_in_a_folder_or_are_named(tmp_path: Path):
    root = write_chexpert_plus(tmp_path, packed=False)
    films = read_chexpert_plus(root, "")
    named = read_chexpert_plus(root, "chexbert_labels/impression_fixed.json")
    assert np.array_equal(films.label, named.label, equal_nan=True)
    with pytest.raises(ValueError, match=r"no findings_fixed\.json and no chexbert_labels\.zip"):
        read_chexpert_plus(root, "findings")
    with pytest.raises(ValueError, match="no such file; expected a label file of CheXpert Plus"):
        read_chexpert_plus(root, "conclusion")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path_to_image": "train/', "line 1: found no JSON object"),
        ("[1, 2]\n", "line 1: found no JSON object"),
        ('{"path_to_image": "a"}\n', "line 1: found no 'No Finding', expected path_to_image and"),
        (json.dumps({"path_to_image": "a", **dict.fromkeys(NAMES, 3.0)}), "found 3, expected 1, 0"),
        (json.dumps({"path_to_image": "a", **dict.fromkeys(NAMES, "x")}), "no number"),
        (json.dumps({"path_to_image": "a", **dict.fromkeys(NAMES)}), "none of its 1 lines is a"),
        (" " * 2_000_000, "line 1: found no JSON object"),
        ("[" * 60_000, "line 1: found no JSON object"),
        (json.dumps({"path_to_image": "a", **dict.fromkeys(NAMES, 10**400)}), "no number"),
        ("", "found no line"),
    ],
)
def test_what_is_wrong_in_lines_of_labels_is_named(tmp_path: Path, line: str, message: str):
    root = write_chexpert_plus(tmp_path, packed=False)
    (root / "chexbert_labels" / "impression_fixed.json").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_chexpert_plus(root, "")


def test_a_film_of_two_lines_of_labels_is_refused(tmp_path: Path):
    root = write_chexpert_plus(tmp_path, packed=False)
    file = root / "chexbert_labels" / "impression_fixed.json"
    lines = file.read_text().splitlines()
    write = [json.loads(line) for line in [*lines, lines[0]]]
    file.unlink()
    (root / "chexbert_labels" / "report_fixed.json").unlink()
    (root / "chexbert_labels").rmdir()
    write_label_lines(root, {"impression": write}, packed=False)
    with pytest.raises(ValueError, match=rf"json, line {len(write)}: path_to_image .* twice"):
        read_chexpert_plus(root, "")


def test_a_damaged_archive_of_labels_is_named(tmp_path: Path):
    root = write_chexpert_plus(tmp_path)
    archive = root / "chexbert_labels.zip"
    whole = archive.read_bytes()
    encrypted = re.sub(rb"(PK\x01\x02.{4}|PK\x03\x04.{2})\0", rb"\g<1>\01", whole, flags=re.DOTALL)
    for content, why in ((whole[:-60], ""), (encrypted, ".*encrypted, password required")):
        archive.write_bytes(content)
        with pytest.raises(ValueError, match=rf"_labels\.zip: found a damaged archive \({why}"):
            read_chexpert_plus(root, "")


def test_a_line_with_quoted_breaks_is_counted_as_editors_do(tmp_path: Path):
    root = write_chexpert_plus(tmp_path)
    file = root / "df_chexpert_plus_240401.csv"
    lines = file.read_text().splitlines(keepends=True)
    place = max(n for n, line in enumerate(lines) if ",valid" in line)
    lines[place] = lines[place].replace(",valid", ",held out")
    file.write_text("".join(lines))
    begin = max(n for n in range(place + 1) if lines[n].startswith(("train/", "valid/")))
    with pytest.raises(ValueError, match=rf"csv, line {begin + 1}, split: found 'held out'"):
        read_chexpert_plus(root, "")


def test_a_patient_of_another_name_than_the_path_s_is_reported(tmp_path: Path, capsys):
    root = write_chexpert_plus(tmp_path)
    file = root / "df_chexpert_plus_240401.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[0, "deid_patient_id"] = "patient77777"
    table.to_csv(file, index=False)
    assert len(read_chexpert_plus(root, ""))
    assert "1 films of another deid_patient_id than their path names" in capsys.readouterr().err


def test_the_heading_of_the_layout_is_the_real_one(real: Manifest, tmp_path: Path):
    del real
    root = oracle_labels(REAL, root=tmp_path)
    with gzip.open(root / REAL, "rt") as stream:
        assert stream.readline().rstrip("\n").split(",") == list(CHEXPERT_HEADING)


def test_a_named_label_file_is_enough(tmp_path: Path):
    place = Source(source="chexpert", root=str(tmp_path), labels="val_labels.csv")
    assert "root" in absent_places(place)
    (tmp_path / "val_labels.csv").touch()
    assert absent_places(place) == {}
