"""Films that are not found: the error tells why, with an example of what lies there."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.config.sections import Source
from lucency.core.manifest import Manifest
from lucency.data.absent_films import files_below
from lucency.data.sources import read_films

# names in the table, files below the root, what the error says
CAUSES = {
    "another suffix": (
        ("f0.jpg", "f1.jpg"),
        ("f0.png", "f1.png"),
        "f0.png lies there for 'f0.jpg'",
    ),
    "in a folder": (("a/f0.png", "b/f0.png"), ("a/f0.jpeg", "b/f0.jpeg"), "a/f0.jpeg lies there"),
    "lost zeros": (("12", "7"), ("00012.png", "00007.png"), "00012.png .* lost leading zeros"),
    "a float": (("12.0", "7.0"), ("0012.png", "0007.png"), "lost leading zeros: save that column"),
    "zeros, of two": (("001.png", "7.png"), ("1.png", "01.png"), "1.png .* lost leading zeros"),
    "a stem thrice": (("9.png", "8.png"), ("9.jpg", "9.txt", "9.dcm"), "9.dcm lies there"),
    "zeros inside": (("p1_2.png", "p1_3.png"), ("p001_2.png", "p001_3.png"), "lost leading zeros"),
    "rounded": (("1.2E+14", "1.3E+14"), ("120000000000001.png",), "a number that was rounded"),
    "TIFF": (("f0.png", "f1.png"), ("f0.tif", "f1.tif"), "f0.tif .* which is TIFF: expected PNG"),
    "DICOM": (("f0.png", "f1.png"), ("scans/f0.dcm", "scans/f1.dcm"), "scans/f0.dcm lies there"),
    "DICOM without suffix": (
        ("f0.png", "f1.png"),
        ("1.2.84",),
        "1 film lies there, such as 1.2.84",
    ),
    "packed": (("f0.png", "f1.png"), ("images_001.7z",), "images_001.7z: unpack it"),
    "no film packed": (("f0.png", "f1.png"), ("a.tar.gz",), "but a.tar.gz, without a film"),
    "a typing error": (("film-01.png", "x.png"), ("flim-01.png",), "nearest is 'flim-01.png'"),
    "nothing": (
        ("f0.png", "f1.png"),
        ("readme.txt", "__MACOSX/f0.tif", "._f0.png"),
        "no film lies there; expected PNG, JPEG or DICOM films",
    ),
}
SPELLED = {
    "backslashes": (r"images\f0.png", "images/f0.png"),
    "capitals": ("f0.png", "f0.PNG"),
    "Unicode": ("f\u00e9.png", "fe\u0301.png"),
}


def read(
    tmp_path: Path, names: tuple[str, ...], files: tuple[str, ...], **changes: object
) -> Manifest:
    root = tmp_path / "films"
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"\0" * 128 + b"DICM")
        if file.lower().endswith(("png", "jpeg")):
            whole = cv2.imencode(".png", np.zeros((40, 40), np.uint8))[1]
            (root / file).write_bytes(whole.tobytes())
    rows = "".join(f"{name},{row},{row % 2}\n" for row, name in enumerate(names))
    (root / "labels.csv").write_text(f"image,patient,Mass\n{rows}", encoding="utf-8")
    choices = {"source": "csv", "root": str(root), "labels": "labels.csv", **changes}
    return read_films(Source.model_validate(choices), findings=("Mass",), out=tmp_path / "made")


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_of_films_that_are_all_absent_is_told(tmp_path: Path, cause: str):
    names, files, message = CAUSES[cause]
    with pytest.raises(ValueError, match=rf"none of the 2 films lies below \S+films: .*{message}"):
        read(tmp_path, names, files)


@pytest.mark.parametrize("cause", ["another suffix", "lost zeros", "DICOM"])
def test_the_cause_of_some_absent_films_is_told_too(
    tmp_path: Path, cause: str, capsys: pytest.CaptureFixture[str]
):
    names, files, message = CAUSES[cause]
    with pytest.raises(ValueError, match=rf"2 of 3 films are not below .*{message}.* expected all"):
        read(tmp_path, (*names, "there.png"), (*files, "there.png"))
    assert (
        len(read(tmp_path, (*names, "there.png"), (*files, "there.png"), allow_missing=True)) == 1
    )
    assert "Films not on disk: " in capsys.readouterr().err


@pytest.mark.parametrize("way", SPELLED)
def test_films_that_are_spelled_otherwise_are_found_and_it_is_said(
    tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
):
    name, file = SPELLED[way]
    films = read(tmp_path, (name, "g.png"), (file, "g.png"))
    assert Path(films.facts["path"][0]) == tmp_path / "films" / file
    assert f"films: 1 name differs in {'the Unicode' if way == 'Unicode' else way}" in (
        capsys.readouterr().err
    )


def test_files_below_are_found_through_links_and_hidden_ones_are_not(tmp_path: Path):
    for name in (
        "store/a.dcm",
        "films/readme",
        "films/b.png",
        "films/.c.png",
        "films/@eaDir/d.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    (tmp_path / "films" / "more").symlink_to("../store", target_is_directory=True)
    assert files_below(tmp_path / "films").tolist() == ["b.png", "more/a.dcm", "readme"]
