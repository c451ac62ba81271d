"""Phantoms: NIH's layout, real frequencies, known truth, the same bytes from the same seed."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.phantom.cohort import (
    FINDINGS,
    Film,
    Patient,
    draw_population,
    equip,
    misstate,
    split_patients,
)
from lucency.phantom.dataset import phantom_film, write_phantom
from lucency.phantom.findings import SIGNS

# Films of the 112,120 with each finding: ../shared/facts/chestxray14.md, v2020 counts.
COUNTS = {
    "Atelectasis": 11559,
    "Cardiomegaly": 2776,
    "Effusion": 13317,
    "Infiltration": 19894,
    "Mass": 5782,
    "Nodule": 6331,
    "Pneumonia": 1431,
    "Pneumothorax": 5302,
    "Consolidation": 4667,
    "Edema": 2303,
    "Emphysema": 2516,
    "Fibrosis": 1686,
    "Pleural_Thickening": 3385,
    "Hernia": 227,
}
ALL, NO_FINDING, AP = 112120, 60361, 44810
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
TABLES = ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "truth.csv")
LISTS = ("train_val_list.txt", "test_list.txt")


def a_film(*findings: str, number: int = 0, view: str = "PA", drain: bool = False) -> Film:
    return Film(number=number, age=50, view=view, findings=findings, stated=findings, drain=drain)


def a_patient(number: int = 1, sex: str = "M") -> Patient:
    return Patient(seed=5, number=number, sex=sex, age=50)


@cache
def well(patient: Patient, view: str) -> np.ndarray:
    """Return the patient's film without a finding."""
    return phantom_film(patient, a_film(view=view), size=64).pixels


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "new" / "nih"
    write_phantom(folder, films=48, size=64, seed=3)
    return folder


@pytest.fixture(scope="module")
def many() -> list[Film]:
    return [film for _, films in draw_population(films=20_000, seed=0) for film in films]


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path):
    reports = []
    for workers in (1, 2):
        write_phantom(
            tmp_path / str(workers),
            films=20,
            size=32,
            seed=4,
            label_noise=0.1,
            shortcut=0.5,
            workers=workers,
            progress=lambda done, total: reports.append((done, total)),
        )
    write_phantom(tmp_path / "other", films=20, size=32, seed=5)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert contents(tmp_path / "1") != contents(tmp_path / "other")
    assert reports == [(16, 20), (20, 20)] * 2


def test_layout_is_nihs(written):
    lines = (written / "Data_Entry_2017_v2020.csv").read_text().split("\n")
    assert lines[0] == HEADER
    assert lines[-1] == ""
    assert {len(line.split(",")) for line in lines[1:-1]} == {11}
    assert (
        (written / "BBox_List_2017.csv")
        .read_text()
        .startswith("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    )
    names = sorted(p.name for p in (written / "images").iterdir())
    assert names == [line.split(",")[0] for line in lines[1:-1]]
    assert names[0] == "00000001_000.png"
    assert len(names) == 48
    film = cv2.imread(str(written / "images" / names[0]), cv2.IMREAD_UNCHANGED)
    assert film is not None
    assert film.shape == (64, 64)
    assert film.dtype == np.uint8
    assert {p.name for p in written.iterdir()} == {"images", *TABLES, *LISTS}


def test_lists_share_no_patient_and_miss_no_film(written):
    train, test = ((written / name).read_text().split("\n") for name in LISTS)
    assert sorted(train + test) == sorted(p.name for p in (written / "images").iterdir())
    assert not {name[:8] for name in train} & {name[:8] for name in test}


def test_split_gives_training_the_official_share():
    films_of = [len(films) for _, films in draw_population(films=4000, seed=1)]
    train = split_patients(films_of, seed=1)
    share = sum(n for n, on in zip(films_of, train, strict=True) if on) / sum(films_of)
    assert share == pytest.approx(0.772, abs=0.01)


def test_boxes_lie_in_the_frame_and_belong_to_true_findings(written):
    boxes = pd.read_csv(written / "BBox_List_2017.csv", skiprows=1, names=list("ifxywh"))
    truth = pd.read_csv(written / "truth.csv").set_index("Image Index")["True Labels"]
    assert len(boxes) > 20
    assert (boxes[["x", "y", "w", "h"]] >= 0).all(axis=None)
    assert (boxes["x"] + boxes["w"]).max() <= 1024.001
    assert (boxes["y"] + boxes["h"]).max() <= 1024.001
    named = boxes["f"].replace("Infiltrate", "Infiltration")
    for image, finding in zip(boxes["i"], named, strict=True):
        assert finding in str(truth[image]).split("|")
    boxed = set(zip(boxes["i"], named, strict=True))
    assert boxed == {(i, f) for i, s in truth.items() for f in str(s).split("|") if f in FINDINGS}


def test_frequencies_are_chestxray14s(many):
    for finding, count in COUNTS.items():
        share = sum(finding in film.findings for film in many) / len(many)
        real = count / ALL
        assert share == pytest.approx(real, abs=6 * np.sqrt(real / len(many)))
    assert np.mean([not film.findings for film in many]) == pytest.approx(
        NO_FINDING / ALL, abs=0.02
    )
    assert np.mean([film.view == "AP" for film in many]) == pytest.approx(AP / ALL, abs=0.02)
    edema = [film.view == "AP" for film in many if "Edema" in film.findings]
    assert np.mean(edema) == pytest.approx(0.88, abs=0.05)


def test_films_of_a_patient_are_alike():
    people = draw_population(films=1500, seed=2)
    pairs = [(a, b) for _, films in people for a, b in pairwise(films)]
    assert np.mean([a.findings == b.findings for a, b in pairs]) > 0.5
    assert all(0 <= b.age - a.age <= 1 for a, b in pairs)
    assert all([f.number for f in films] == list(range(len(films))) for _, films in people)
    first, second = (phantom_film(a_patient(), a_film(number=k), size=64) for k in (0, 1))
    other = phantom_film(a_patient(9), a_film(), size=64)
    assert (first.pixels != second.pixels).any()
    assert (first.pixels != other.pixels).any()


def test_label_noise_flips_at_the_rate_asked(many):
    noisy = misstate(many, label_noise=0.2, seed=0)
    true = np.array([[f in film.findings for f in FINDINGS] for film in noisy])
    stated = np.array([[f in film.stated for f in FINDINGS] for film in noisy])
    assert (true & ~stated).sum() / true.sum() == pytest.approx(0.2, abs=0.02)
    assert stated.sum() == pytest.approx(true.sum(), rel=0.03)
    assert [film.findings for film in noisy] == [film.findings for film in many]
    assert misstate(many[:2000], label_noise=0.0, seed=0) == many[:2000]


def test_truth_is_the_same_under_label_noise(written, tmp_path):
    write_phantom(tmp_path, films=48, size=32, seed=3, label_noise=0.3)
    noisy, clean = (
        pd.read_csv(d / "Data_Entry_2017_v2020.csv", index_col=False)["Finding Labels"]
        for d in (tmp_path, written)
    )
    truth = pd.read_csv(tmp_path / "truth.csv")
    assert truth["True Labels"].tolist() == clean.tolist()
    assert noisy.tolist() != clean.tolist()
    assert (truth["Difficulty"].isna() == (truth["True Labels"] == "No Finding")).all()


def test_shortcut_equips_the_share_asked(many):
    films = equip(many, shortcut=0.8, seed=0)
    drained = [film.drain for film in films if "Pneumothorax" in film.findings]
    stray = [film.drain for film in films if "Pneumothorax" not in film.findings]
    assert np.mean(drained) == pytest.approx(0.8, abs=0.03)
    assert 0 < np.mean(stray) < 0.015
    assert np.mean([f.marker for f in films if f.view == "AP"]) == pytest.approx(0.8, abs=0.02)
    assert not any(film.marker for film in films if film.view == "PA")
    bare = equip(many[:2000], shortcut=0.0, seed=0)
    assert not any(film.drain or film.marker for film in bare)


def test_drain_is_seen_on_the_side_of_the_pneumothorax():
    for number in range(1, 7):
        film = a_film("Pneumothorax")
        without = phantom_film(a_patient(number), film, size=128)
        drained = phantom_film(a_patient(number), a_film("Pneumothorax", drain=True), size=128)
        change = np.abs(drained.pixels.astype(float) - without.pixels)
        assert (change > 15).sum() > 20
        on_left = without.boxes[0].x + without.boxes[0].width / 2 > 512
        assert (change[:, 64:].sum() > change[:, :64].sum()) == on_left


def test_every_finding_has_a_sign():
    assert tuple(SIGNS) == FINDINGS


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_a_sign_changes_its_box_more_than_the_rest(finding, view):
    inside, outside = [], []
    for number in range(1, 5):
        patient = a_patient(number, sex="MF"[number % 2])
        ill = phantom_film(patient, a_film(finding, view=view), size=64)
        change = np.abs(ill.pixels.astype(float) - well(patient, view))
        mask = np.zeros((64, 64), bool)
        assert ill.boxes
        for box in ill.boxes:
            rows = slice(int(box.y / 16), int(np.ceil((box.y + box.height) / 16)))
            mask[rows, int(box.x / 16) : int(np.ceil((box.x + box.width) / 16))] = True
        inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
        assert 0 <= ill.difficulty[finding] <= 1
    assert np.mean(inside) > 1.5 * np.mean(outside)
    assert np.mean(inside) > 3


def test_no_finding_no_box():
    picture = phantom_film(a_patient(), a_film(), size=64)
    assert picture.boxes == ()
    assert picture.difficulty == {}


@pytest.mark.parametrize(
    "knobs",
    [
        {"films": 0},
        {"films": 4, "size": 8},
        {"films": 4, "seed": -1},
        {"films": 4, "workers": 0},
        {"films": 4, "label_noise": 1.5},
        {"films": 4, "shortcut": -0.1},
        {"films": 4, "shortcut": float("nan")},
    ],
)
def test_impossible_knobs_are_refused(tmp_path, knobs):
    with pytest.raises(ValueError, match=f"phantom: {list(knobs)[-1]} is .* change"):
        write_phantom(tmp_path / "none", **knobs)
    assert not (tmp_path / "none").exists()
