"""The walk that finds films for every command: links, cycles, hidden files, what is left out."""

import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from dicom_films import dicom_bytes, stored_for
from lucency.core.manifest import Manifest, Preparation, empty_boxes
from lucency.data import images
from lucency.data.bit_depth import find_bits
from lucency.data.film_files import load_film, why_no_film
from lucency.data.images import film_files, films_below, locate_films, read_grey, walk_films
from lucency.pipeline.film_inference import read_films


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0")


def found(root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in walk_films(root).films]


def test_links_are_followed_once_and_cycles_end(tmp_path: Path):
    root = tmp_path / "films"
    touch(root, "b/1.png", "b/deep/2.JPG")
    touch(tmp_path / "store", "3.jpeg")
    (root / "a").symlink_to("b", target_is_directory=True)  # sorts before what it leads to
    (root / "more").symlink_to("../store", target_is_directory=True)
    (root / "most").symlink_to("../store", target_is_directory=True)
    (root / "b" / "up").symlink_to("..", target_is_directory=True)
    (root / "above").symlink_to("../..", target_is_directory=True)
    (root / "self").symlink_to("self")
    (root / "4.png").symlink_to("b/1.png")
    assert found(root) == ["4.png", "b/1.png", "b/deep/2.JPG", "more/3.jpeg"]
    assert [place.name for place in walk_films(root).unreadable_folders] == ["self"]


def test_what_is_left_out_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    touch(tmp_path, "1.png", "._1.png", ".DS_Store", "Thumbs.db", "labels.csv", "2.tif", "3.BMP")
    touch(tmp_path, "DICOMDIR", ".azDownload-0af3-4.png", "images_003.tar.gz.part")
    touch(tmp_path, "__MACOSX/._1.png", ".trash/1.png", "@eaDir/1.png", "locked/4.png")
    (tmp_path / "unmounted").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [file.name for file in film_files(tmp_path)] == ["1.png"]
    assert capsys.readouterr().err == (
        f"Left out below {tmp_path}: 3 hidden or system files (.DS_Store, …), 3 hidden or system "
        "folders (.trash, …), 2 pictures in another format (2.tif, …), 2 half-downloaded files "
        "(.azDownload-0af3-4.png, …), 1 DICOMDIR file (DICOMDIR), 2 folders that cannot be read "
        "(locked, …), 1 file without the name or first bytes of a film (labels.csv)\n"
    )
    assert film_files(tmp_path / "__MACOSX" / "..")[0].name == "1.png"


def test_a_folder_and_a_film_of_it_are_one_film_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    touch(tmp_path, "1.png", "2.png", "none/labels.csv")
    named = [tmp_path / "2.png", tmp_path, tmp_path / "._x.png"]
    assert [file.name for file in films_below(named)] == ["2.png", "1.png", "._x.png"]
    with pytest.raises(ValueError, match="none holds no film; expected PNG, JPEG or DICOM films"):
        films_below([tmp_path / "none"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        "1 file without the name or first bytes of a film (none/labels.csv)",
        "1 file without the name or first bytes of a film (labels.csv)",
    ]


def test_the_url_of_a_local_place_is_that_place(tmp_path: Path):
    folder = tmp_path / "a b"
    touch(folder, "1.png", "2.png")
    packed = Path(shutil.make_archive(str(tmp_path / "films"), "zip", folder))
    for place in (folder, folder / "1.png", packed):
        assert films_below([Path(place.as_uri())]) == films_below([place])
    assert len(films_below([Path(packed.as_uri())])) == 2


def test_dicom_films_are_found_by_suffix_or_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = dicom_bytes(stored_for(np.tile(np.arange(64, dtype=np.uint8), (64, 1))))
    films = ["1.dcm", "2.DICOM", "IM0003", "1.2.840.5", "scan.ima", "1.dat"]
    for name in (*films, "labels.csv", ".hidden", "DICOMDIR"):
        (tmp_path / name).write_bytes(content)
    touch(tmp_path, "readme", "short")
    os.mkfifo(tmp_path / "pipe")
    opened = list[str]()
    sniff = images._is_dicom_file
    monkeypatch.setattr(images, "_is_dicom_file", lambda f: opened.append(f) or sniff(f))
    assert [file.name for file in film_files(tmp_path)] == sorted(films)
    assert {Path(file).name for file in opened} == {
        "IM0003", "1.2.840.5", "scan.ima", "1.dat", "readme", "short",
    }  # fmt: skip
    read = read_films(films_below([tmp_path]), findings=(), preparation=Preparation(size=32))
    assert len(read.manifest) == len(films)
    names = np.array(["1", "2", "IM0003", "1.2.840.5"])
    named = Manifest(
        findings=(), image=names, patient=np.arange(4), label=np.zeros((4, 0), np.float32),
        facts=pd.DataFrame(index=range(4)), boxes=empty_boxes(), origin="",
    )  # fmt: skip
    located = locate_films(named, tmp_path).facts["path"]
    assert [Path(place).name for place in located] == films[:4]


def test_preparing_and_predicting_find_the_same_films(tmp_path: Path):
    names = np.array(["1.png", "2.png", "3.png"])
    root, store = tmp_path / "films", tmp_path / "store"
    touch(store, "._2.png")
    touch(root, "labels.csv")
    for file in (root / names[0], store / names[1], store / names[2]):
        cv2.imwrite(str(file), np.full((40, 40), 9, np.uint8))
    (root / "more").symlink_to(store, target_is_directory=True)
    films = Manifest(
        findings=("Mass",),
        image=names,
        patient=np.arange(3),
        label=np.zeros((3, 1), np.float32),
        facts=pd.DataFrame(index=range(3)),
        boxes=empty_boxes(),
        origin="",
    )
    located = locate_films(films, root).facts["path"].tolist()
    read = read_films(films_below([root]), findings=(), preparation=Preparation(size=32))
    assert read.manifest.image.tolist() == located
    assert not len(read.rejected)


def test_a_pipe_is_refused_unread(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="a pipe or a device, expected a file"):
        read_grey(tmp_path / "pipe.png")
    assert find_bits([tmp_path / "pipe.png"]).bits


def test_files_of_a_folder_are_films_or_left_out_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    touch(tmp_path, "1.png", "2.png", "notes", "table.csv", "3.tif", ".hidden")
    films = film_files(tmp_path)
    line = capsys.readouterr().err
    counts = [int(count) for count in re.findall(r"(\d+) (?:file|picture|hidden)", line)]
    assert len(films) + sum(counts) == 6
    assert "2 files without the name or first bytes of a film (notes, …)" in line


def test_a_link_to_nowhere_is_named_and_hides_where_it_leads(tmp_path: Path):
    (tmp_path / "1.png").symlink_to("/archive/DOE^JANE/1.png")
    _, rejected = read_films_of(tmp_path)
    assert rejected == ["cannot be read: a link that leads to no file"]
    assert why_no_film(tmp_path / "2.png") == "no such file"


def read_films_of(folder: Path) -> tuple[list[str], list[str]]:
    loaded = [load_film(file) for file in films_below([folder])]
    return [one.place for one in loaded], [one.reason for one in loaded]
