"""The reader of ChestX-ray14, against the publisher's own numbers and against broken copies."""

import gzip
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest
from lucency.data.images import found_films
from lucency.data.labels import read_nih, read_official_lists

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
LABELS = (*FINDINGS, NO_FINDING)
PUBLISHED_2020 = {
    "Atelectasis": 11559, "Cardiomegaly": 2776, "Effusion": 13317, "Infiltration": 19894,
    "Mass": 5782, "Nodule": 6331, "Pneumonia": 1431, "Pneumothorax": 5302, "Consolidation": 4667,
    "Edema": 2303, "Emphysema": 2516, "Fibrosis": 1686, "Pleural_Thickening": 3385, "Hernia": 227,
    NO_FINDING: 60361,
}  # fmt: skip
ADDED_IN_2020 = {
    "Pneumonia": 78, "Mass": 36, "Infiltration": 24, "Atelectasis": 24, "Effusion": 10,
    "Nodule": 8, "Pneumothorax": 4, "Cardiomegaly": 4, NO_FINDING: -51,
}  # fmt: skip


@pytest.fixture(scope="module")
def v2020(nih_films: Manifest) -> Manifest:
    return nih_films


@pytest.fixture(scope="module")
def v2017(shared: Path) -> Manifest:
    return read_nih(shared / "nih", labels="Data_Entry_2017.csv", findings=LABELS)


def write_root(root: Path, *rows: str) -> Path:
    lines = [HEADER, *(f"{row},M,PA,2000,2500,0.14,0.14" for row in rows)]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    return root


def write_film(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((40, 40), 9, np.uint8))


def test_published_counts(v2020: Manifest, v2017: Manifest):
    for films in (v2020, v2017):
        assert len(films) == 112_120
        assert len(np.unique(films.patient)) == 30_805
        assert films.facts["sex"].value_counts().to_dict() == {"M": 63_340, "F": 48_780}
        assert films.facts["view"].value_counts().to_dict() == {"PA": 67_310, "AP": 44_810}
    assert dict(zip(LABELS, v2020.label.sum(axis=0), strict=True)) == PUBLISHED_2020
    older = {name: n - ADDED_IN_2020.get(name, 0) for name, n in PUBLISHED_2020.items()}
    assert dict(zip(LABELS, v2017.label.sum(axis=0), strict=True)) == older
    assert v2020.origin == (
        "Data_Entry_2017_v2020.csv: NIH v2020 label file, 112,120 films of 30,805 patients"
    )
    assert "NIH's label file of November 2017" in v2017.origin
    per_film = np.bincount(v2020.label[:, :14].sum(axis=1).astype(int))
    assert per_film.tolist() == [60361, 30963, 14306, 4856, 1247, 301, 67, 16, 1, 2]


def test_2020_changes_181_films_of_the_official_test_set(
    shared: Path, v2020: Manifest, v2017: Manifest
):
    row = pd.Index(v2017.image).get_indexer(pd.Index(v2020.image))
    change = v2020.label - v2017.label[row]
    changed = change.any(axis=1)
    assert changed.sum() == 181
    assert (change == 1).sum() == 188
    assert (change == -1).sum() == 51
    net = {name: int(n) for name, n in zip(LABELS, change.sum(axis=0), strict=True) if n}
    assert net == ADDED_IN_2020
    _, test = read_official_lists(shared / "nih")
    assert np.isin(v2020.image[changed], test).all()
    assert v2020.boxes["image"].isin(v2020.image[changed]).any()


@pytest.mark.slow
def test_the_later_file_of_kaggle_is_told_from_both(shared: Path, tmp_path: Path, v2020: Manifest):
    table = pd.read_csv(shared / "nih" / "Data_Entry_2017.csv", dtype=str, keep_default_na=False)
    newer = pd.read_csv(shared / "nih" / "Data_Entry_2017_v2020.csv", dtype=str)
    table["Finding Labels"] = table["Image Index"].map(
        newer.set_index("Image Index")["Finding Labels"]
    )
    table["Patient Age"] = table["Patient Age"].str.extract(r"(\d+)")[0].astype(int)
    table.to_csv(tmp_path / "Data_Entry_2017.csv", index=False)
    films = read_nih(tmp_path)
    assert "NIH's later label file, as on Kaggle, 112,120 films" in films.origin
    assert films.facts["age"].max() == 414


def test_ages_in_years(v2020: Manifest, v2017: Manifest):
    age = pd.Series(v2017.facts["age"].to_numpy(), index=v2017.image)
    assert age["00000001_000.png"] == 58
    assert age["00013378_000.png"] == pytest.approx(11 / 12)
    assert ((age > 0) & (age < 1 / 12)).sum() == 1  # the one age in days
    assert (age >= 148).sum() == 16
    assert age.max() == 414
    assert (v2020.facts["age"].min(), v2020.facts["age"].max()) == (0, 95)


def test_boxes_lists_and_films(shared: Path, v2020: Manifest):
    boxes = v2020.boxes
    assert (len(boxes), boxes["image"].nunique()) == (984, 880)
    assert boxes["finding"].value_counts().to_dict() == {
        "Atelectasis": 180, "Effusion": 153, "Cardiomegaly": 146, "Infiltration": 123,
        "Pneumonia": 120, "Pneumothorax": 98, "Mass": 85, "Nodule": 79,
    }  # fmt: skip
    first = boxes.iloc[0]
    assert first["image"] == "00013118_008.png"
    assert first["x"] == pytest.approx(225.084745762712 / 1024)
    assert (boxes["x"] + boxes["w"]).max() <= 1
    train_val, test = read_official_lists(shared / "nih")
    assert (len(train_val), len(test)) == (86_524, 25_596)
    assert len(np.intersect1d(boxes["image"], test)) == 880
    assert len(found_films(v2020)) == 1_400
    assert v2020.facts["path"].eq("").sum() == 112_120 - 1_400
    assert all(Path(path).is_file() for path in v2020.facts["path"].iloc[found_films(v2020)])


def test_only_the_findings_asked_for_in_their_order(tmp_path: Path):
    write_root(tmp_path, "a_000.png,Mass|Hernia,0,1,50", "a_001.png,Mass|Edema,1,1,50")
    assert read_nih(tmp_path, findings=("Hernia", "Mass")).label.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "a_000.png,Mass|Noduel,0,1,50",
            "line 3, Finding Labels: finding 'Noduel' is unknown: expected ",
        ),
        ("a_000.png,Mas,0,1,50", "nearest is 'Mass'"),
        ("a_000.png,,0,1,50", "finding '' is unknown"),
        ("a_000.png,mass,0,1,50", "finding 'mass' is unknown"),
        ("a_000.png,Mass|No Finding,0,1,50", "No Finding alone"),
        ("a_000.png,Mass,0,,50", "line 3, Patient ID: found nothing, expected a patient"),
        ("a_000.png,Mass,0,1,58Z", "line 3, Patient Age: found '58Z'"),
        ("00000009_000.png,Mass,0,1,58", "listed 2 times"),
    ],
)
def test_a_bad_row_is_an_error_that_names_it(tmp_path: Path, row: str, message: str):
    write_root(tmp_path, "00000009_000.png,No Finding,0,9,50", row)
    with pytest.raises(ValueError, match=message):
        read_nih(tmp_path)


def test_unknown_outputs_absent_files_and_columns_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no label file in .* Data_Entry_2017_v2020.csv or"):
        read_nih(tmp_path)
    write_root(tmp_path, "a_000.png,Mass,0,1,50")
    with pytest.raises(ValueError, match=r"'Effusions' is unknown: .* nearest is 'Effusion'"):
        read_nih(tmp_path, findings=("Effusions",))
    with pytest.raises(ValueError, match=r"no label file in .*: expected labels.csv"):
        read_nih(tmp_path, labels="labels.csv")
    (tmp_path / "labels.csv").write_text("Image,Finding Labels,Patient ID\na,Mass,1\n")
    with pytest.raises(ValueError, match="no column 'Image Index'"):
        read_nih(tmp_path, labels="labels.csv")
    with pytest.raises(ValueError, match=r"train_val_list.txt is absent"):
        read_official_lists(tmp_path)


def test_films_are_found_in_several_folders_and_twice_is_an_error(tmp_path: Path):
    names = [f"0000000{n}_000.png" for n in range(4)]
    write_root(tmp_path, *(f"{name},Mass,0,{n + 1},50" for n, name in enumerate(names)))
    write_film(tmp_path / "images" / names[0])
    write_film(tmp_path / "images_001" / "images" / names[1])
    write_film(tmp_path / names[2])
    write_film(tmp_path / "images" / "not-listed.png")
    write_film(tmp_path / "images_001" / "not-listed.png")
    (tmp_path / "again").symlink_to(tmp_path / "images", target_is_directory=True)
    films = read_nih(tmp_path)
    assert found_films(films).tolist() == [0, 1, 2]
    assert Path(films.facts["path"][1]) == tmp_path / "images_001" / "images" / names[1]
    assert films.origin.endswith("not a published version, 4 films of 4 patients")
    write_film(tmp_path / "images_002" / names[1])
    with pytest.raises(ValueError, match=rf"'{names[1]}' fits both .*images_00(1.*_002|2.*_001)"):
        read_nih(tmp_path)


def test_compressed_tables_boxes_and_truth(tmp_path: Path):
    rows = ["a_000.png,Mass,0,1,057Y", "a_001.png,No Finding,1,1,", "b_000.png,Hernia,0,2,57"]
    file = write_root(tmp_path, *rows) / "Data_Entry_2017_v2020.csv"
    with gzip.open(f"{file}.gz", "wb") as packed:
        packed.write(file.read_bytes())
    file.unlink()
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "a_000.png,Infiltrate,512,256,128,64\na_000.png,Mass,0,0,1024,1024\n"
        "elsewhere.png,Mass,1,2,3,4\n"
    )
    (tmp_path / "truth.csv").write_text(
        "Image Index,True Labels,Drain\n"
        "b_000.png,Mass,1\na_001.png,No Finding,0\na_000.png,Mass,0\n"
    )
    films = read_nih(tmp_path, findings=("Infiltration", NO_FINDING))
    assert films.label.tolist() == [[0, 0], [0, 1], [0, 0]]
    assert films.boxes.values.tolist() == [["a_000.png", "Infiltration", 0.5, 0.25, 0.125, 0.0625]]
    assert films.facts["true_labels"].tolist() == ["Mass", "No Finding", "Mass"]
    assert films.facts["drain"].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(films.facts["age"], [57, np.nan, 57])
    boxes = tmp_path / "BBox_List_2017.csv"
    boxes.write_text(boxes.read_text().replace("Finding Label", "Finding"))
    with pytest.raises(ValueError, match=r"BBox_List_2017.csv: no column 'Finding Label'"):
        read_nih(tmp_path)
    boxes.unlink()
    truth = tmp_path / "truth.csv"
    truth.write_text(f"{truth.read_text()}a_001.png,Mass,1\n")
    with pytest.raises(ValueError, match=r"truth.csv: film 'a_001.png' is there twice; expected"):
        read_nih(tmp_path)
    (tmp_path / "truth.csv").write_text("")
    with pytest.raises(ValueError, match=r"truth.csv: found no table \(No columns to parse"):
        read_nih(tmp_path)


@pytest.mark.slow
def test_all_films_on_disk_are_found_in_seconds(shared: Path, tmp_path: Path, v2020: Manifest):
    shutil.copy(shared / "nih" / "Data_Entry_2017_v2020.csv", tmp_path)
    for number in range(1, 13):
        (tmp_path / f"images_{number:03d}" / "images").mkdir(parents=True)
    some = v2020.image[::4]
    for number, name in enumerate(some):
        (tmp_path / f"images_{number % 12 + 1:03d}" / "images" / name).touch()
    assert v2020.image[found_films(read_nih(tmp_path))].tolist() == some.tolist()
