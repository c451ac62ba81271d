"""Names of films are joined by one rule: the path, then the longest end, whatever the spelling."""

import unicodedata
from posixpath import commonpath

import numpy as np
import pytest

from lucency.core.tables import MOST_FOLDERS, join_films, match_films, spelling

STUDIES = [
    f"train/patient{patient:05d}/study{study}/view1_frontal.jpg"
    for patient in range(3)
    for study in (1, 2)
]
BELOW = [f"CheXpert-v1.0-small/{name}" for name in STUDIES]
MIXED = ["f1.png", "old/f1.png", "deep/er/f2.jpg", "g"]
SPELLED_OTHERWISE = {
    r"images\f1.png": "images/f1.png",
    " f1.png ": "f1.png",
    "\u200bf1.png": "f1.png",
    "images/f1.png": "\ufeff images/f1.png\u00ad",
    "F1.PNG": "f1.png",
    unicodedata.normalize("NFC", "Zoë.png"): unicodedata.normalize("NFD", "Zoë.png"),
    "C:/anna/films/f1.png": "/mnt/other/f1.png",
}


def rows(names: list[str], known: list[str]) -> list[int]:
    return match_films(np.array(names), np.array(known), source="scores.csv").tolist()


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (STUDIES, BELOW),
        (BELOW, STUDIES),
        ([f"/data/{name}" for name in BELOW], STUDIES),
        ([f"C:\\{name}".replace("/", "\\") for name in BELOW], STUDIES),
        ([name.removesuffix(".jpg") for name in STUDIES], BELOW),
        (BELOW, [name.removesuffix(".jpg") for name in STUDIES]),
        ([f"mine/{name}" for name in STUDIES], [f"yours/{name}" for name in STUDIES]),
        (
            [f"D/films/{name}".upper() for name in STUDIES],
            [f"C:\\Users\\Eva\\Films\\{name}".replace("/", "\\") for name in STUDIES],
        ),
    ],
)
def test_files_of_one_name_in_folders_of_patients_are_joined(names: list[str], known: list[str]):
    assert rows(names[::-1], known) == [5, 4, 3, 2, 1, 0]


def test_another_folder_stands_before_films_in_place_of_64_at_most():
    known = [f"yours/{name}" for name in STUDIES]
    for above, expected in ((MOST_FOLDERS - 2, range(6)), (MOST_FOLDERS - 1, [-1] * 6)):
        names = [f"{'d/' * above}mine/{name}" for name in STUDIES]
        assert commonpath(names).count("/") + 1 == above + 2  # those, `mine` and `train`
        assert rows(names, known) == list(expected)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("f1.png", 0),  # the whole path comes before another that ends so
        ("old/f1", 1),
        ("a/old/f1.png", 1),
        ("f2", 2),
        ("er/f2.jpg", 2),
        ("g.png", 3),
        ("f2.png", -1),  # another suffix is another file
        ("r/f2.jpg", -1),  # ends are whole names
        ("1.2.840", -1),
    ],
)
def test_the_path_comes_before_its_longest_end(name: str, row: int):
    assert rows([name, "g"], MIXED) == [row, 3]


@pytest.mark.parametrize("name", SPELLED_OTHERWISE)
def test_another_spelling_is_accepted_and_said(name: str, capsys: pytest.CaptureFixture[str]):
    film = SPELLED_OTHERWISE[name]
    assert rows([name], [film, film.replace("1", "2").replace("Z", "J")]) == [0]
    said = capsys.readouterr().err
    assert said.startswith("scores.csv: 1 name differs in ")
    assert f"such as {name!r} for {film!r}" in said


def test_a_film_of_an_unknown_patient_fits_none(capsys: pytest.CaptureFixture[str]):
    stranger = "CheXpert-v1.0-small/train/patient00009/study1/view1_frontal.jpg"
    assert rows([stranger], BELOW) == [-1]
    assert rows([stranger], STUDIES) == [-1]
    assert rows(["other/" + stranger], BELOW) == [-1]
    assert rows([], STUDIES) == rows([], []) == []
    assert capsys.readouterr().err == ""


def test_what_fits_several_films_is_refused_with_both():
    both = f"'view1_frontal.jpg' fits both {BELOW[0]} and {BELOW[5]}: expected one"
    with pytest.raises(ValueError, match=f"scores.csv: film {both}"):
        rows(["view1_frontal.jpg"], [BELOW[0], BELOW[5]])
    assert rows(["F1.PNG", "f1.png"], ["F1.PNG", "f1.png"]) == [0, 1]
    with pytest.raises(ValueError, match=r"fits both F1.PNG and f1.PNG"):
        rows(["f1.png"], ["F1.PNG", "f1.PNG"])


def test_two_names_of_one_film_are_refused_and_one_name_twice_is_not():
    known = np.array(["f1.png", "f2.png"])
    twice = np.array(["f2", "f1", "f2"])
    assert join_films(twice, known, source="list.txt").tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"list.txt: 'a/f1.png' and 'f1.png' both name .*'f1.png'"):
        join_films(np.array(["f1.png", "a/f1.png"]), known, source="list.txt")


def test_spelling_names_the_last_thing_that_differs():
    assert spelling("images/f1", "f1.png") == ""
    assert spelling(r"images\F1.png", "images/f1.png") == "capitals"
    assert spelling("a/f1.png", "b/f1.png") == "the folder"
