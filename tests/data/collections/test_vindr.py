"""VinDr-CXR: readers by majority and as shares, boxes, both layouts; Kaggle's real table."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts_other import oracle_labels, vindr, vindr_kaggle
from lucency.config.sections import Source
from lucency.core.manifest import Manifest
from lucency.data.collections.vindr import FINDINGS_OF_VINDR, PUBLISHED_VINDR, VINDR
from lucency.data.label_choices import choose_labels
from lucency.data.sources import read_films

KAGGLE = "vinbigdata-train.csv.gz"
CLASSES = {  # rows and films by class, as counted in Kaggle's table
    "Aortic enlargement": (7_162, 3_067), "Atelectasis": (279, 186), "Calcification": (960, 452),
    "Cardiomegaly": (5_427, 2_300), "Consolidation": (556, 353), "ILD": (1_000, 386),
    "Infiltration": (1_247, 613), "Lung Opacity": (2_483, 1_322), "Nodule/Mass": (2_580, 826),
    "Other lesion": (2_203, 1_134), "Pleural effusion": (2_476, 1_032),
    "Pleural thickening": (4_842, 1_981), "Pneumothorax": (226, 96),
    "Pulmonary fibrosis": (4_655, 1_617), "No finding": (31_818, 10_606),
}  # fmt: skip
LABELS_TRAIN = "annotations/image_labels_train.csv"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vindr(tmp_path_factory.mktemp("vindr") / "films", sizes=True)


@pytest.fixture(scope="module")
def films(root: Path) -> Manifest:
    return VINDR.read(root, "")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = oracle_labels(KAGGLE, root=tmp_path_factory.mktemp("real") / "vindr")
    return VINDR.read(folder, "")


def stated(films: Manifest, name: str) -> list[float]:
    return films.label[:, films.findings.index(name)].tolist()


def test_a_label_is_what_most_readers_state(films: Manifest):
    assert films.image[[0, 5]].tolist() == ["train/" + "a" * 32, "test/" + "f" * 32]
    assert stated(films, "Nodule/Mass") == [1, 0, 0, 0, 0, 0]
    assert stated(films, "Cardiomegaly") == [0, 0, 0, 0, 0, 0]
    assert stated(films, "No finding") == [0, 1, 0, 0, 0, 1]
    assert not np.isnan(films.label).any()


def test_both_spellings_of_other_diseases_are_one_name(films: Manifest):
    assert stated(films, "Other disease") == [0, 0, 0, 1, 1, 0]
    assert "Other diseases" not in films.findings


def test_readers_who_disagree_give_a_share(films: Manifest):
    share = {(image[:8], name): round(float(one), 3) for image, name, one in films.soft.to_numpy()}
    assert share == {
        ("train/aa", "Nodule/Mass"): 0.667, ("train/aa", "No finding"): 0.333,
        ("train/cc", "Cardiomegaly"): 0.333, ("train/cc", "No finding"): 0.333,
        ("train/cc", "Other disease"): 0.333,
    }  # fmt: skip
    assert films.facts["readers"].tolist()[::4] == ["R1 R2 R3", "consensus"]


@pytest.mark.parametrize(
    ("readers", "expected"),
    [("majority", [1, 0]), ("any", [1, 1]), ("all", [0, 0]), ("soft", [1, 0])],
)
def test_a_protocol_chooses_how_readers_are_combined(
    films: Manifest, readers: str, expected: list[int]
):
    source = Source.model_validate({"source": "vindr-cxr", "readers": readers})
    findings = ("Nodule or Mass", "Cardiomegaly")
    made = choose_labels(films, source=source, findings=findings, collection=VINDR)
    assert [made.label[0, 0], made.label[2, 1]] == expected
    assert len(made.soft) == (2 if readers == "soft" else 0)
    of_minority = made.boxes[made.boxes["finding"] == "Cardiomegaly"]
    assert of_minority["image"].tolist() == (["train/" + "c" * 32] if readers == "any" else [])
    assert ("Nodule or Mass" in set(made.boxes["finding"])) == (readers != "all")
    left = made.reading[made.reading["step"] == "boxes left out: the label is not 1"]
    assert left["films"].sum() == {"any": 0, "all": 3}.get(readers, 1)


def test_each_film_is_a_patient_of_its_own(films: Manifest):
    assert len(np.unique(films.patient)) == len(films) == 6
    assert "each film is taken for a patient" in films.origin
    assert films.facts["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert set(films.facts["view"]) == {"PA"}


def test_boxes_are_shares_of_the_native_film_where_its_size_is_known(films: Manifest, root: Path):
    box = films.boxes[films.boxes["finding"] == "Nodule/Mass"]
    assert box.drop_duplicates().to_numpy().tolist() == [
        ["train/" + "a" * 32, "Nodule/Mass", 0.25, 0.0625, 0.25, 0.125]
    ]
    assert len(box) == 2  # one a reader
    unsized = VINDR.read(vindr(root.parent / "unsized"), "")
    steps = dict(zip(unsized.reading["step"], unsized.reading["films"], strict=True))
    assert steps["boxes left out: the film's size is in no table"] == 3
    assert len(unsized.boxes) == 0


def test_kaggle_s_table_states_15_of_28_findings(tmp_path: Path):
    films = VINDR.read(vindr_kaggle(tmp_path), "")
    assert films.image.tolist() == ["train/" + "a" * 32, "train/" + "b" * 32]
    assert stated(films, "Nodule/Mass") == [1, 0]
    assert stated(films, "No finding") == [0, 1]
    silent = np.isnan(films.label).all(axis=0)
    assert silent.sum() == 13
    assert {"Edema", "Tuberculosis", "Other disease"} <= set(np.array(films.findings)[silent])
    assert films.soft["share"].tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",1,", ",2,", 1), "found '2', expected 0 or 1"),
        (lambda text: text.replace("R2", "R1", 1), "image_id 'a{32}', rad_id 'R1' is listed twice"),
        (lambda text: text.replace("Other diseases", "Others"), "no column 'Other disease'"),
        (lambda text: text.replace("Tuberculosis", "TB"), "no column 'Tuberculosis'"),
    ],
)
def test_another_label_file_is_refused(tmp_path: Path, change: Callable[[str], str], message: str):
    file = vindr(tmp_path) / LABELS_TRAIN
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=message):
        VINDR.read(tmp_path, "")


def test_a_class_that_kaggle_does_not_have_is_refused(tmp_path: Path):
    file = vindr_kaggle(tmp_path) / "train.csv"
    file.write_text(file.read_text().replace("Nodule/Mass", "Nodule"))
    with pytest.raises(ValueError, match=r"line 2, class_name: found 'Nodule'.*'Nodule/Mass'"):
        VINDR.read(tmp_path, "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no label file of VinDr-CXR in .*found nothing"):
        VINDR.read(tmp_path / "empty", "")


def test_the_real_table_is_as_published(real: Manifest, tmp_path: Path):
    assert real.origin.startswith(f"{KAGGLE}: VinDr-CXR, as published, 15,000 films of 15,000 pat")
    folder = oracle_labels(KAGGLE, root=tmp_path / "kaggle")
    with gzip.open(folder / KAGGLE) as packed:
        table = pd.read_csv(packed)
    assert len(table) == 67_914
    grouped = table.groupby("class_name")["image_id"]
    assert {n: (len(g), g.nunique()) for n, g in grouped} == CLASSES
    any_reader = np.nansum(real.targets > 0, axis=0)
    films = dict(zip(real.findings, any_reader.tolist(), strict=True))
    assert {name: films[name] for name in CLASSES} == {n: c[1] for n, c in CLASSES.items()}


def test_three_readers_read_each_real_film(real: Manifest):
    readers = real.facts["readers"].str.split()
    assert set(readers.map(len)) == {3}
    assert len({one for three in readers for one in three}) == 17
    assert (real.facts["readers"] == "R10 R8 R9").sum() == 5_501
    steps = real.reading.set_index("step")["films"]
    assert steps["read by 3"] == 15_000
    assert steps["boxes left out: the film's size is in no table"] == 67_914 - 31_818  # rows


def test_the_published_majority_has_28_findings():
    assert set(PUBLISHED_VINDR) == {"films", *FINDINGS_OF_VINDR}
    assert PUBLISHED_VINDR["No finding"] == 10_601 + 2_051


@pytest.mark.parametrize("write", [vindr, vindr_kaggle])
def test_films_that_end_in_dicom_are_found(write: Callable[..., Path], tmp_path: Path):
    root = write(tmp_path / "films")
    source = Source(source="vindr-cxr", root=str(root))
    found = read_films(source, findings=("Cardiomegaly",), out=tmp_path / "manifest")
    assert found.facts["path"][0] == str(root / "train" / ("a" * 32 + ".dicom"))
