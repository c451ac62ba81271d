"""A sample of `try_pictures`: hostile films and odd names give a line each, and the run goes on."""

import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from dicom_films import dicom_bytes
from lucency.data.film_archives import archive_of
from lucency.data.images import decode_film
from time_limit import within
from torture import hostile_archives, hostile_dicom, hostile_folders, hostile_pictures
from torture.film_tries import (
    GOOD,
    UNNAMED,
    Tried,
    code_of,
    heavy,
    ran,
    raw_lines,
    small_model,
    try_films,
    write_films,
)
from torture.hostile_dicom import encapsulated
from torture.hostile_pictures import (
    chunk,
    deflated,
    endless_scans,
    many_scans,
    png_header,
    png_of,
    whole,
)
from torture.tally import Tally, tally
from torture.try_pictures import counted, tried_archives, wrong_films

SECONDS = 20.0  # in which an archive is listed, and a film decoded, beside other work
EVERY = 8  # of the files of a kind


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


def test_a_sample_of_every_kind(model: Path, tmp_path: Path):
    films = [one for _, several in hostile_pictures.damaged(1) for one in several[::EVERY]]
    films += [one for _, several in hostile_dicom.damaged(1) for one in several[::EVERY]]
    films += hostile_pictures.lying()[::EVERY] + hostile_dicom.lying()[::EVERY]
    films += hostile_dicom.lying_streams()[:: 2 * EVERY] + hostile_pictures.foreign()[::EVERY]
    write_films(tmp_path / "films", films, suffix=".png")
    tried = try_films(model, tmp_path / "films", expected=len(films) + 1, engine="torch")
    assert tried.wrong == []
    assert {"read", "truncated", "damaged", "absurd-size", "unknown-format"} <= {*tried.outcomes}


def test_odd_names_and_kinds_of_files(model: Path, tmp_path: Path):
    (tmp_path / GOOD).write_bytes(whole()["PNG"])
    count = hostile_folders.write_names(tmp_path)
    tried = try_films(model, tmp_path, expected=count + 1, engine="torch")
    assert tried.wrong == []
    assert tried.outcomes.count("read") == count // 2 + 1
    hostile_folders.write_kinds(tmp_path)
    answer = ran("predict", model, tmp_path, "--csv", tmp_path / "out.csv", "--engine", "torch")
    assert answer.status == 0
    assert raw_lines(answer.err) == []
    table = pd.read_csv(tmp_path / "out.csv", encoding_errors="surrogateescape")
    assert str(tmp_path / "good" / "new\nline.png") in table["film"].tolist()
    reasons = table.set_index("film")["reason"]
    assert reasons[str(tmp_path / "sparse.png")].startswith("absurd size: a file of 1,099,511,627")


def test_archives_that_cannot_be_opened_are_named(model: Path, tmp_path: Path):
    (tmp_path / GOOD).write_bytes(whole()["PNG"])
    for number, (suffix, content) in enumerate(hostile_archives.odd()):
        archive = tmp_path / f"{number}{suffix}"
        archive.write_bytes(content)
        with within(SECONDS), suppress(ValueError):
            archive_of(archive)  # in this thread, which the limit can stop
    tried = try_films(model, tmp_path, engine="torch")
    assert tried.wrong == []
    assert {"read", "encrypted", "compression"} <= {*tried.outcomes}
    assert sum(line.startswith("An archive is left out") for line in tried.lines) > 20
    assert any(line.endswith(": 2 links, 1 sparse file") for line in tried.lines)


def test_films_of_archives_are_those_that_python_lists(model: Path, tmp_path: Path):
    archives = [one for _, several in hostile_archives.damaged(2) for one in several[::3]]
    tried, _ = tried_archives(model, tmp_path / "films", archives)
    assert tried.wrong == []
    assert {"opened", "not opened"} == {*tried.outcomes}


def test_films_that_an_archive_loses_are_seen():
    names = ["a/1.png", "./b/../2.PNG", "3.png", "a/1.png", ".hidden/4.png", "notes.txt"]
    tar = hostile_archives.tar_of([(name, whole()["PNG"]) for name in names])
    cut = tar[: tar.rindex(b"notes.txt")]
    every = dict.fromkeys(("a/1.png", "b/2.PNG", "3.png"), "read")
    twice = ["Left out of f.tar: 1 hidden or system file, 1 earlier film of the same name"]
    damage = ["f.tar is damaged or cut short (it has no end mark): 3 films are listed"]

    def wrong(archive: bytes, found: dict[str, str], remarks: list[str]) -> list[str]:
        return wrong_films(archive, found, remarks, unopened=False)

    for archive in (tar, gzip.compress(tar)):
        assert wrong(archive, every, twice) == []
        assert wrong(archive, every, []) == ["1 films of one name without a remark"]
        assert wrong(archive, {**every, "4.png": "read"}, twice) == ["in no listing: '4.png'"]
        assert wrong(archive, {**every, "3.png": "damaged"}, twice) == [
            "damaged, but intact: '3.png'"
        ]
        few = {name: "read" for name in every if name != "b/2.PNG"}
        assert wrong(archive, few, twice) == ["lost: 'b/2.PNG'"]
        assert wrong_films(archive, {}, [], unopened=True) == ["not opened, but 4 films are listed"]
    assert wrong(cut, every, damage) == []
    assert wrong(cut, every, twice) == ["no remark on the damage"]
    assert wrong_films(b"no archive", {}, [], unopened=True) == []


def test_what_is_wrong_is_seen(tmp_path: Path):
    assert code_of("of a new kind") == code_of("damaged: in\ntwo lines") == UNNAMED
    assert code_of("damaged: in one line") == "damaged"
    assert raw_lines("fine\n\x1b[31mred\n") == ["'\\x1b[31mred'"]
    assert raw_lines("Traceback (most recent call last):") != []
    (tmp_path / GOOD).write_bytes(b"no film")
    answer = ran("predict", tmp_path / "nothing", tmp_path)
    assert answer.status == 2
    lost = counted("films", Tried(["read"], ["a film twice"], []), ["f.png: 21 s, 9 MiB"])
    assert lost == Tally(
        "films", 3, 1, "read 1, wrong: a film twice 1, wrong: f.png: 21 s, 9 MiB 1"
    )
    assert tally("films", ["read"], right=bool).held == 1


def test_a_jpeg_without_an_end_is_read_once():
    """Each scan would else look for the end itself, which takes minutes."""
    with within(SECONDS), pytest.raises(ValueError, match="truncated: the JPEG has no end"):
        decode_film(endless_scans(4_000_000))


@pytest.mark.slow
def test_bombs_are_light(model: Path, tmp_path: Path):
    """What is as large as may be; decoded in a process of its own."""
    side = 6_300
    deep = png_header(side, side, bits=16)
    films = [png_of(deep, chunk(b"IDAT", deflated((1 + 2 * side) * side)))]
    films += [many_scans(4_096, 90), encapsulated(many_scans(4_096, 90), 4_096)]
    films += [
        dicom_bytes(np.zeros((side, side), np.uint16), syntax=syntax)
        for syntax in (JPEG2000Lossless, JPEGLSLossless)
    ]
    write_films(tmp_path / "films", films, suffix=".dcm")
    assert heavy(tmp_path / "films") == []
