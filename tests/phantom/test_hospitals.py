"""The second hospital of phantoms: other films, frequencies and people; the first as it was."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.core.manifest import FINDINGS
from lucency.data.labels import read_nih_tables
from lucency.phantom.cohort import Film, Patient, draw_population
from lucency.phantom.dataset import ENTRIES, list_phantom, write_phantom
from lucency.phantom.hospitals import HOSPITALS
from lucency.phantom.render import phantom_film

# SHA-256 over names and content of all files, measured before there was a second hospital.
FIRST = "6a82b5eb9384af075e5ac155c598a7febc80f0cccb1b42c363e698141a339b52"
DRAWN = {"films": 40, "size": 64, "seed": 0, "label_noise": 0.2, "shortcut": 0.6}


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    content = [str(file.relative_to(folder)).encode() + file.read_bytes() for file in files]
    return hashlib.sha256(b"".join(content)).hexdigest()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    home = tmp_path_factory.mktemp("hospitals")
    for hospital in HOSPITALS:
        write_phantom(home / str(hospital), **DRAWN, hospital=hospital)
    return {hospital: home / str(hospital) for hospital in HOSPITALS}


def films_of(hospital: int, *, films: int = 20_000) -> list[Film]:
    people = draw_population(films=films, seed=0, hospital=hospital)
    return [film for _, theirs in people for film in theirs]


def appearance(hospital: int) -> np.ndarray:
    """Return mean, deviation and noise (of neighbours) of well people's PA films, a row each."""
    rows = []
    for number in range(1, 7):
        patient = Patient(
            seed=0, number=HOSPITALS[hospital].before + number, sex="M", age=50, hospital=hospital
        )
        film = Film(number=0, age=50, view="PA", findings=(), stated=())
        pixels = phantom_film(patient, film, size=384).pixels.astype(float)
        corner = pixels[-60:, 130:250]  # below the diaphragm: hardly anything but noise
        rough = np.abs(corner[:, 2:] - 2 * corner[:, 1:-1] + corner[:, :-2]).mean()
        rows.append((pixels.mean(), pixels.std(), rough / pixels.std()))
    return np.array(rows)


def test_the_first_hospital_keeps_its_bytes(both):
    assert digest(both[1]) == FIRST


def test_the_second_is_the_same_from_the_same_seed_alone(both, tmp_path):
    write_phantom(tmp_path / "again", **DRAWN, hospital=2)
    write_phantom(tmp_path / "other", **{**DRAWN, "seed": 1}, hospital=2)
    assert digest(tmp_path / "again") == digest(both[2])
    assert digest(tmp_path / "other") != digest(both[2])


def test_hospitals_share_no_name_and_no_patient(both):
    one, two = (read_nih_tables(folder, findings=FINDINGS) for folder in both.values())
    assert not set(one.image) & set(two.image)
    assert not set(one.patient) & set(two.patient)
    assert (two.patient > HOSPITALS[2].before).all()
    people = [draw_population(films=40, seed=0, hospital=hospital) for hospital in HOSPITALS]
    assert [len(films) for _, films in people[0]] != [len(films) for _, films in people[1]]


def test_the_second_is_laid_out_like_the_first(both):
    one, two = (
        {file.name for file in folder.iterdir() if file.name != "images"}
        for folder in both.values()
    )
    assert one == two
    truth = pd.read_csv(both[2] / "truth.csv")
    lists = [
        (both[2] / f"{name}_list.txt").read_text().split("\n") for name in ("train_val", "test")
    ]
    assert sorted(lists[0] + lists[1]) == sorted(truth["Image Index"])
    assert len(lists[0]) > len(lists[1]) > 0


def test_listed_labels_are_those_that_are_drawn(both, tmp_path):
    list_phantom(tmp_path, films=40, seed=0, label_noise=0.2, hospital=2)
    listed, drawn = (
        pd.read_csv(folder / ENTRIES, index_col=False)["Finding Labels"].tolist()
        for folder in (tmp_path, both[2])
    )
    assert listed == drawn


def test_views_and_prevalences_shift():
    one, two = (films_of(hospital) for hospital in HOSPITALS)
    ap = [np.mean([film.view == "AP" for film in films]) for films in (one, two)]
    assert ap == pytest.approx([0.40, 0.63], abs=0.03)
    share = pd.DataFrame(
        {
            n: [np.mean([n in film.findings for film in films]) for films in (one, two)]
            for n in FINDINGS
        }
    )
    times = share.iloc[1] / share.iloc[0]
    assert (times[["Cardiomegaly", "Pneumonia", "Edema"]] > 1.8).all()
    assert (times[["Infiltration", "Mass", "Nodule", "Pneumothorax", "Fibrosis"]] < 0.7).all()


def test_films_are_darker_flatter_and_noisier():
    one, two = (appearance(hospital) for hospital in HOSPITALS)
    shift = two.mean(axis=0) - one.mean(axis=0)
    apart = shift / np.sqrt((one.var(axis=0) + two.var(axis=0)) / 2)  # in standard deviations
    assert shift[0] < 0
    assert shift[1] < 0
    assert apart[2] > 1
    assert np.abs(apart).max() > 1.5


def test_formats_are_others():
    size = {
        hospital: {original[:2] for view in one.formats.values() for original in view}
        for hospital, one in HOSPITALS.items()
    }
    assert not size[1] & size[2]
    for one in HOSPITALS.values():
        for formats in one.formats.values():
            assert sum(original[3] for original in formats) == pytest.approx(1)


def test_markers_lie_elsewhere():
    film = Film(number=0, age=50, view="AP", findings=(), stated=(), marker=True)
    bare = Film(number=0, age=50, view="AP", findings=(), stated=())
    across = {}
    for hospital, one in HOSPITALS.items():
        patient = Patient(seed=0, number=one.before + 1, sex="F", age=50, hospital=hospital)
        marked, unmarked = (phantom_film(patient, f, size=128).pixels for f in (film, bare))
        across[hospital] = np.flatnonzero((marked != unmarked).any(axis=0)).mean() / 128
    assert across[1] < 0.3
    assert across[2] > 0.6


def test_there_is_no_third(tmp_path):
    with pytest.raises(ValueError, match="phantom: hospital is 3, expected 1 to 2: change it"):
        write_phantom(tmp_path / "none", films=20, hospital=3)
