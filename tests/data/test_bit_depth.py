"""Bit depth: one for a data set, by header or by what holds the films, whatever is burnt in."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.core.manifest import Preparation, load_prepared
from lucency.data.bit_depth import bits_for_network, find_bits, with_bits
from lucency.data.film_cache import prepare
from lucency.data.images import read_grey
from lucency.pipeline.film_inference import read_films
from toys import manifest_of

SMALL = Preparation(size=32, order="no-clahe")


def ramp(bits: int, seed: int = 0) -> np.ndarray:
    film = np.random.default_rng(seed).integers(0, 2**bits, (64, 64))
    return film.astype(np.uint8 if bits == 8 else np.uint16)


def write(file: Path, film: np.ndarray, *, sbit: int = 0) -> Path:
    content = cv2.imencode(".png", film)[1].tobytes()
    if sbit:
        chunk = b"sBIT" + bytes([sbit])
        packed = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
        content = content[:33] + packed + content[33:]
    file.write_bytes(content)
    return file


def test_burnt_in_pixels_do_not_change_the_depth(tmp_path: Path):
    marked, films = ramp(12), []
    marked[4:14, 4:14] = 65535
    for number in range(8):
        film = ramp(12, number)
        film[0, 0] = 65535 if number % 2 else film[0, 0]
        film[:3, :3] = 60000 if number == 4 else film[:3, :3]
        films.append(write(tmp_path / f"{number}.png", marked if number == 0 else film))
    assert find_bits(films) == (12, 8, 8)
    plain = ramp(12, 1)
    grey = read_grey(films[1], bits=12)
    np.testing.assert_array_equal(grey.ravel()[1:], plain.ravel()[1:] >> 4)
    assert grey[0, 0] == 255
    np.testing.assert_array_equal(read_grey(films[1]), grey)  # alone, too


@pytest.mark.parametrize(
    ("bits", "shift", "sbit", "found"),
    [
        (12, 0, 12, 12),
        (9, 0, 12, 12),  # dark films keep what the header states
        (12, 4, 12, 16),  # scaled, as the specification has it
        (11, 0, 11, 11),
        (10, 0, 0, 10),
        (16, 0, 0, 16),
        (9, 0, 0, 10),
    ],
)
def test_headers_state_the_depth_unless_pixels_are_scaled(
    tmp_path: Path, bits: int, shift: int, sbit: int, found: int
):
    film = write(tmp_path / "film.png", ramp(bits) << shift, sbit=sbit)
    assert find_bits([film]).bits == found


def test_eight_bits_and_what_cannot_be_read(tmp_path: Path):
    plain = write(tmp_path / "plain.png", ramp(8), sbit=5)
    (tmp_path / "half.png").write_bytes(write(tmp_path / "x.png", ramp(12)).read_bytes()[:900])
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), ramp(8))
    assert find_bits([plain, photo, tmp_path / "absent.png"]) == (8, 0, 3)
    assert find_bits([tmp_path / "half.png"]).bits == 16
    np.testing.assert_array_equal(read_grey(plain, bits=12), ramp(8))


def test_the_depth_stands_in_what_is_prepared_and_a_key_overrides_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    films = manifest_of([write(tmp_path / f"{n}.png", ramp(12, n)) for n in range(3)])
    made = prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert "3 of 3 films have more than eight bits, read as 12" in capsys.readouterr().err
    assert made.preparation.bits == load_prepared(tmp_path / "out").preparation.bits == 12
    assert '"bits": 12' in (tmp_path / "out" / "receipt.json").read_text()
    again = prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert again.preparation.bits == 12
    assert capsys.readouterr().err == ""
    wide = SMALL.model_copy(update={"bits": 14})
    other = prepare(films, preparation=wide, out=tmp_path / "wide", workers=1)
    assert np.asarray(other.pixels).max() < 70 < np.asarray(made.pixels).max()
    with pytest.raises(ValueError, match=r"expected 0 \(found"):
        Preparation(bits=7)


def test_other_depths_than_the_training_films_are_read_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = write(tmp_path / "plain.png", ramp(8))
    deep, deeper = (write(tmp_path / f"{bits}.png", ramp(bits)) for bits in (12, 16))
    eight, twelve = (SMALL.model_copy(update={"bits": bits}) for bits in (8, 12))
    assert bits_for_network(eight, [plain]) == eight
    assert bits_for_network(twelve, [deep]) == twelve
    assert capsys.readouterr().err == ""
    assert bits_for_network(eight, [plain, deep]).bits == 0
    assert "1 of 2 films has more than eight bits, each read by its own depth; the network's" in (
        capsys.readouterr().err
    )
    assert bits_for_network(twelve, [deeper]) == twelve
    assert "seem to have 16: read as 12, brighter pixels white" in capsys.readouterr().err
    assert bits_for_network(twelve, [plain]) == twelve
    assert "1 film has eight; the network's training films had 12" in capsys.readouterr().err
    shown = read_films([plain, deep], findings=(), preparation=eight)
    assert shown.preparation == eight
    assert abs(float(shown.pixels[0].mean()) - float(shown.pixels[1].mean())) < 5
    assert with_bits(SMALL, [deep]).bits == 12


@pytest.mark.parametrize(("bits", "block"), [(12, 20_000), (8, 255)])
def test_a_film_is_the_same_alone_in_a_folder_and_in_the_cache(
    tmp_path: Path, bits: int, block: int
):
    films = []
    for number in range(6):
        film = ramp(bits, number)
        film[:9, :9] = block if number == 0 else film[:9, :9]  # 2 % of its pixels
        films.append(write(tmp_path / f"{number}.png", film))
    deep = write(tmp_path / "deep.png", ramp(16))
    made = prepare(manifest_of(films), preparation=SMALL, out=tmp_path / "out", workers=1)
    assert made.preparation.bits == bits
    for others in ([], films[1:], [deep]):
        read = read_films([films[0], *others], findings=(), preparation=made.preparation)
        np.testing.assert_array_equal(read.pixels[0], made.pixels[0])
    alone = read_films([deep], findings=(), preparation=made.preparation)
    beside = read_films([*films, deep], findings=(), preparation=made.preparation)
    np.testing.assert_array_equal(alone.pixels[0], beside.pixels[-1])
