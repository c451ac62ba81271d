"""Preparation: OpenCV's own bytes, whatever the workers, the interruptions and the broken films."""

import hashlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lucency.core.files import BusyError
from lucency.core.film_shards import read_receipt
from lucency.core.manifest import Manifest, Preparation, load_prepared, save_manifest
from lucency.data import film_cache
from lucency.data.film_cache import prepare
from lucency.data.images import decode, read_grey
from lucency.data.preprocess import DENOISERS, prepare_film
from torture.hostile_pictures import chunk, png_header, png_of
from toys import manifest_of

SMALL = Preparation(size=64, clahe_tiles=4)
OPENCV = {
    "median": lambda film: cv2.medianBlur(film, 3),
    "gaussian": lambda film: cv2.GaussianBlur(film, (3, 3), 0),
    "bilateral": lambda film: cv2.bilateralFilter(film, 5, 50, 50),
}


def write_films(folder: Path, films: int, *, side: int = 96) -> Manifest:
    """Write noise films and return their manifest: film number n is a function of n."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(films)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (side, side), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (5, 5), 0))
    return manifest_of(paths)


def read_folder(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def png(width: int, height: int, pixels: bytes) -> bytes:
    """Return a PNG file of eight-bit grey whose checksums are right, whatever its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def a_film(side: int = 200) -> np.ndarray:
    noise = np.random.default_rng(7).integers(0, 256, (side, side + 40), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (9, 9), 0)


# --- decoding


def test_every_kind_of_png_and_jpeg(tmp_path: Path):
    grey = a_film()
    picture, alpha = Image.fromarray(grey), Image.new("L", grey.shape[::-1], 3)
    kinds = {
        "grey.png": picture,
        "grey-alpha.png": Image.merge("LA", (picture, alpha)),
        "rgb.png": Image.merge("RGB", (picture,) * 3),
        "rgba.png": Image.merge("RGBA", (picture,) * 3 + (alpha,)),
        "palette.png": picture.convert("P"),
    }
    for name, kind in kinds.items():
        kind.save(tmp_path / name)
        np.testing.assert_array_equal(read_grey(tmp_path / name), grey, err_msg=name)
    picture.convert("1").save(tmp_path / "one-bit.png")
    black_and_white = np.asarray(picture.convert("1")).astype(np.uint8) * 255
    np.testing.assert_array_equal(read_grey(tmp_path / "one-bit.png"), black_and_white)
    for name, options in {"plain.jpg": {}, "progressive.jpg": {"progressive": True}}.items():
        picture.save(tmp_path / name, quality=95, **options)
        decoded = np.asarray(Image.open(tmp_path / name))
        assert np.abs(read_grey(tmp_path / name).astype(int) - decoded).max() <= 1, name


@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_sixteen_bit_files_keep_the_top_bits_of_their_depth(tmp_path: Path, depth: int):
    deep = np.arange(64 * 64).reshape(64, 64) * (2**depth - 1) // (64 * 64 - 1)
    cv2.imwrite(str(tmp_path / "deep.png"), deep.astype(np.uint16))
    grey = read_grey(tmp_path / "deep.png")
    np.testing.assert_array_equal(grey, deep // 2 ** (depth - 8))
    assert grey.max() == 255


def test_broken_films_are_refused_with_their_reason(tmp_path: Path, capfd: pytest.CaptureFixture):
    whole = cv2.imencode(".png", a_film())[1].tobytes()
    photo = cv2.imencode(".jpg", a_film())[1].tobytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    empty_row = zlib.compress(b"")
    broken = {
        "zero bytes": b"",
        "not an image": b"<html>404</html>" * 9,
        "truncated: the PNG": whole[: len(whole) // 2],
        "truncated: the PNG has no end": whole[:-12],
        "truncated: the PNG has": whole[:10],
        "truncated: the JPEG": photo[: len(photo) // 2],
        "truncated: the JPEG has no end": photo[:-2],
        "wrong checksum in the PNG's IDAT": bytes(flipped),
        "does not begin with its header": whole[:8] + whole[-12:],
        "absurd size: 40000 x 40000": png(40_000, 40_000, empty_row),
        "absurd size: 8 x 8": png(8, 8, empty_row),
        "absurd size: 1000 x 100": png(1000, 100, empty_row),
    }
    for reason, content in broken.items():
        (tmp_path / "film.png").write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read_grey(tmp_path / "film.png")
    with pytest.raises(ValueError, match="cannot be read: no such file"):
        read_grey(tmp_path / "absent.png")
    assert capfd.readouterr().err == ""  # found before a decoder could issues_of
    (tmp_path / "film.png").write_bytes(png(64, 64, b"these are not pixels"))
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_grey(tmp_path / "film.png")
    for name, content in {
        "whole.png": whole,
        "whole.jpg": photo,
        "tail.jpg": photo + b"\0",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert read_grey(tmp_path / name).shape == a_film().shape


def test_a_png_that_libpng_would_complain_of_is_refused_before(capfd: pytest.CaptureFixture):
    rows = chunk(b"IDAT", zlib.compress(bytes(65 * 64)))
    palette, plain = chunk(b"PLTE", bytes(768)), png_header(64, 64)
    refused = {
        "states 8 bits of colour type 9": (png_header(64, 64, colour=9), rows),
        "states 3 bits of colour type 0": (png_header(64, 64, bits=3), rows),
        "filter 5, interlacing 0": (chunk(b"IHDR", plain[8:19] + b"\5\0"), rows),
        "filter 0, interlacing 2": (chunk(b"IHDR", plain[8:20] + b"\2"), rows),
        "does not begin with its header": (chunk(b"IHDR", plain[8:-4] + b"\0"), rows),
        "lacks its palette or pixels": (plain,),
        "lacks its palette": (png_header(64, 64, colour=3), rows),
        "out of order": (png_header(64, 64, colour=3), rows, palette),
        "has them out": (plain, rows, chunk(b"NONE", b"")),
    }
    for reason, chunks in refused.items():
        with pytest.raises(ValueError, match=f"damaged: the PNG.*{reason}"):
            decode(png_of(*chunks))
    beyond = chunk(b"tRNS", b"\1\0")  # more than eight bits
    assert decode(png_of(plain, beyond, rows)).shape == (64, 64)
    assert decode(png_of(png_header(64, 64, colour=3), palette, rows)).shape == (64, 64)
    assert capfd.readouterr().err == ""


def damaged_jpegs() -> dict[str, bytes]:
    """Return JPEGs with an end, whose data libjpeg warns of, by its words."""
    photo = cv2.imencode(".jpg", a_film())[1].tobytes()
    progressive = io.BytesIO()
    Image.fromarray(a_film()).save(progressive, "JPEG", progressive=True)
    scan = photo.index(b"\xff\xda") + 12
    middle = (scan + len(photo)) // 2
    lost = progressive.getvalue()
    return {
        "extraneous bytes before marker 0xd9": photo[:middle] + photo[scan:middle] + photo[middle:],
        "premature end of data segment": photo[:middle] + b"\xff\xd9",
        "premature end|extraneous|bad Huffman": lost[: len(lost) // 2] + lost[-40:],
    }


def test_whatever_libjpeg_warns_of_rejects_the_film_in_its_words(
    tmp_path: Path, capfd: pytest.CaptureFixture
):
    for words, content in damaged_jpegs().items():
        (tmp_path / "film.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=f"damaged: Corrupt JPEG data: .*({words})"):
            read_grey(tmp_path / "film.jpg")
    assert capfd.readouterr().err == ""


def test_jpegs_of_every_kind_are_opencvs_own(tmp_path: Path):
    grey, turned = Image.fromarray(a_film()), Image.Exif()
    colour = Image.merge("RGB", (grey, grey.rotate(180), grey))
    turned[0x0112] = 6  # a quarter
    kinds = (
        (grey, {}),
        (grey, {"exif": turned}),
        (grey, {"progressive": True}),
        (colour, {"subsampling": "4:2:0"}),
        (colour, {"keep_rgb": True, "restart_marker_rows": 1}),
        (colour.convert("CMYK"), {}),
    )
    for picture, options in kinds:
        picture.save(tmp_path / "film.jpg", **options)
        plain = cv2.imread(str(tmp_path / "film.jpg"), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(read_grey(tmp_path / "film.jpg"), plain, err_msg=str(options))


def test_needless_parts_of_a_png_are_not_decoded(tmp_path: Path, capfd: pytest.CaptureFixture):
    plain = cv2.imencode(".png", a_film())[1].tobytes()
    profile = b"iCCPx\0\0rubbish"
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    (tmp_path / "film.png").write_bytes(plain[:33] + chunk + chunk[:-1] + b"?" + plain[33:])
    np.testing.assert_array_equal(read_grey(tmp_path / "film.png"), a_film())
    assert capfd.readouterr().err == ""


# --- one film


def test_every_order_is_opencvs_own_chain():
    film = a_film(300)
    clahe, square = cv2.createCLAHE(3, (10, 10)), (224, 224)

    def area(film: np.ndarray) -> np.ndarray:
        return cv2.resize(film, square, interpolation=cv2.INTER_AREA)

    wanted = {
        "clahe-first": area(clahe.apply(film)),
        "resize-first": clahe.apply(area(film)),
        "no-clahe": area(film),
    }
    for order, picture in wanted.items():
        preparation = Preparation.model_validate({"order": order})
        np.testing.assert_array_equal(prepare_film(film, preparation=preparation), picture)


def test_the_reference_studys_chain():
    """Kaggle notebooks of the study: CLAHE, +5 saturating, Pillow's bicubic last."""
    film = cv2.normalize(a_film(300), None, 0, 255, cv2.NORM_MINMAX)
    brighter = cv2.add(cv2.createCLAHE(3, (10, 10)).apply(film), 5)
    wanted = Image.fromarray(brighter).resize((224, 224), Image.Resampling.BICUBIC)
    preparation = Preparation(brightness=5, interpolation="bicubic")
    np.testing.assert_array_equal(prepare_film(film, preparation=preparation), np.asarray(wanted))


def test_brightness_saturates_and_denoisers_are_opencvs():
    film = cv2.resize(a_film(), (64, 64))
    plain = {"size": 64, "order": "no-clahe"}
    for brightness in (-200, -5, 0, 5, 200):
        preparation = Preparation.model_validate(plain | {"brightness": brightness})
        clipped = np.clip(film.astype(int) + brightness, 0, 255)
        np.testing.assert_array_equal(prepare_film(film, preparation=preparation), clipped)
    wanted = {"none": film} | {name: filtered(film) for name, filtered in OPENCV.items()}
    for denoise, picture in wanted.items():
        preparation = Preparation.model_validate(plain | {"denoise": denoise})
        np.testing.assert_array_equal(prepare_film(film, preparation=preparation), picture)


def test_denoisers_in_a_chain_are_opencvs_one_after_the_other():
    film = a_film(120)
    square = cv2.createCLAHE(3, (10, 10)).apply(
        cv2.resize(film, (64, 64), interpolation=cv2.INTER_AREA)
    )
    assert set(OPENCV) == set(DENOISERS)
    seen = []
    for chain in (*permutations(OPENCV, 2), *permutations(OPENCV, 3), ("median", "median")):
        preparation = Preparation(size=64, order="resize-first", denoise=chain)
        wanted = square
        for name in chain:
            wanted = OPENCV[name](wanted)
        found = prepare_film(film, preparation=preparation)
        np.testing.assert_array_equal(found, wanted, err_msg=" ".join(chain))
        seen.append(found.tobytes())
    assert len(set(seen)) == len(seen)  # the order matters
    with pytest.raises(ValueError, match="Input should be 'median', 'gaussian' or 'bilateral'"):
        Preparation.model_validate({"denoise": ["median", "none"]})


@pytest.mark.parametrize(
    ("written", "chain"),
    [
        ("none", ()),
        ("median", ("median",)),
        (["median", "bilateral"], ("median", "bilateral")),
    ],
)
def test_short_chains_are_written_as_they_were_before_chains(written: object, chain: tuple):
    """Receipts and classifiers of before chains hold one name, and must still be found equal."""
    preparation = Preparation.model_validate({"denoise": written})
    assert preparation.denoise == chain
    assert preparation.model_dump()["denoise"] == written
    assert Preparation.model_validate_json(preparation.model_dump_json()) == preparation


def test_small_films_are_enlarged_linearly_and_the_film_is_left_alone():
    film = a_film(100)
    before = film.copy()
    picture = prepare_film(film, preparation=Preparation(order="no-clahe"))
    linear = cv2.resize(film, (224, 224), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(picture, linear)
    prepare_film(film, preparation=Preparation(brightness=9, denoise=("median",)))
    np.testing.assert_array_equal(film, before)


# --- the cache


def test_real_films_are_the_bytes_of_the_plain_chain(shared: Path, tmp_path: Path):
    files = sorted((shared / "nih" / "images").glob("*.png"))
    kind = np.array([file.read_bytes()[25] for file in files])
    assert (np.sum(kind == 0), np.sum(kind == 6)) == (95, 8)  # PNG's numbers for grey and RGBA
    chosen = [*np.flatnonzero(kind == 6), *np.flatnonzero(kind == 0)[::4]]
    films = manifest_of([files[row] for row in chosen])
    prepared = prepare(films, preparation=Preparation(), out=tmp_path / "cache", workers=1)
    assert len(prepared.manifest) == 8 + 24
    clahe = cv2.createCLAHE(3, (10, 10))
    for path, pixels in zip(films.facts["path"], prepared.pixels, strict=True):
        plain = clahe.apply(cv2.imread(path, cv2.IMREAD_GRAYSCALE))
        plain = cv2.resize(plain, (224, 224), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(pixels, plain, err_msg=path)


def test_workers_change_nothing_and_a_finished_folder_is_found_again(tmp_path: Path):
    films = write_films(tmp_path / "films", 100)
    (tmp_path / "films" / "00003.png").write_bytes(b"")
    (tmp_path / "films" / "00017.png").unlink()
    told: list[tuple[int, int]] = []
    for workers in (1, 2):
        prepare(
            films,
            preparation=SMALL,
            out=tmp_path / f"by-{workers}",
            workers=workers,
            progress=lambda done, total: told.append((done, total)),
        )
    assert read_folder(tmp_path / "by-1") == read_folder(tmp_path / "by-2")
    assert told[0] == (0, 100)
    assert told[-1] == (100, 100)
    shard = tmp_path / "by-1" / "shards" / "00000.npy"
    stamp = shard.stat().st_mtime_ns
    prepared = prepare(films, preparation=SMALL, out=tmp_path / "by-1", workers=1)
    assert shard.stat().st_mtime_ns == stamp
    assert not prepared.pixels[0].flags.writeable
    with pytest.raises(ValueError, match=r"preparation.size: was 64, now 32"):
        prepare(films, preparation=Preparation(size=32), out=tmp_path / "by-1", workers=1)
    other = films.take(np.arange(99))
    with pytest.raises(ValueError, match=r"films: was .*, now"):
        prepare(other, preparation=SMALL, out=tmp_path / "by-1", workers=1)


SCRIPT = """
import sys
from pathlib import Path
from lucency.data.film_cache import prepare
from lucency.core.manifest import Preparation, load_manifest
if __name__ == "__main__":
    folder, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    preparation = Preparation(size=64, clahe_tiles=4)
    prepare(load_manifest(folder), preparation=preparation, out=out, workers=workers)
"""


@pytest.fixture(scope="module")
def large_films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Films enough to keep two workers busy for a second: 150, each under four names."""
    folder = tmp_path_factory.mktemp("films")
    write_films(folder, 150, side=512)
    paths = [folder / f"{number:05d}.png" for number in range(600)]
    for number in range(150, 600):
        paths[number].hardlink_to(paths[number % 150])
    return manifest_of(paths)


def start(tmp_path: Path, films: Manifest, out: Path) -> subprocess.Popen[bytes]:
    (tmp_path / "manifest").mkdir(exist_ok=True)
    save_manifest(films, tmp_path / "manifest")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "manifest", out, "2"]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def marked(shards: Path) -> int:
    """Return the films of the shards that are complete."""
    numbers = range(len(list(shards.glob("*.json"))) + 8)
    found = [read_receipt(shards, number) for number in numbers]
    return sum(len(receipt["row"]) for receipt in found if receipt)


def ends(group: int) -> bool:
    """Say whether every process of a group is gone within five seconds; end them if not."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return False


def wait_until(process: subprocess.Popen[bytes], done: Path, *, films: int) -> None:
    """Wait until so many films are marked as done in the partial folder."""
    while marked(done) < films:
        assert process.poll() is None, "finished before it could be stopped"
        time.sleep(0.005)


def one_broken(films: Manifest, folder: Path) -> Manifest:
    """Return the films, one of them replaced by a broken file in `folder`."""
    (folder / "broken.png").write_bytes(b"broken")
    path = films.facts["path"].tolist()
    path[300] = str(folder / "broken.png")
    return replace(films, facts=films.facts.assign(path=path))


@pytest.fixture(scope="module")
def whole(large_films: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a call that nobody killed makes of the films, one of them broken."""
    place = tmp_path_factory.mktemp("whole")
    films = one_broken(large_films, place)
    prepare(films, preparation=SMALL, out=place / "cache", workers=1)
    return read_folder(place / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 137, 390])
def test_killed_and_resumed_gives_the_same_bytes(
    tmp_path: Path, large_films: Manifest, whole: dict[str, bytes], moment: int
):
    films = one_broken(large_films, tmp_path)
    process = start(tmp_path, films, tmp_path / "killed")
    work = tmp_path / "killed.partial" / "shards"
    wait_until(process, work, films=moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()
    assert 0 < marked(work) < 600
    assert not (tmp_path / "killed").exists()
    first: list[int] = []
    prepare(
        films,
        preparation=SMALL,
        out=tmp_path / "killed",
        workers=1,
        progress=lambda done, total: first.append(done),
    )
    assert moment <= first[0] < 600
    killed = read_folder(tmp_path / "killed")
    shards = [name for name in whole if name.startswith("shards/")]
    assert len(shards) == 600 // 32 + 1 + 2
    assert {name: killed[name] for name in shards} == {name: whole[name] for name in shards}
    assert killed.keys() == whole.keys()


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_at_once_and_keeps_the_work(tmp_path: Path, large_films: Manifest):
    process = start(tmp_path, large_films, tmp_path / "out")
    wait_until(process, tmp_path / "out.partial" / "shards", films=20)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=5) != 0
    process.communicate()
    assert ends(process.pid)
    assert 20 <= marked(tmp_path / "out.partial" / "shards") < 600


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path: Path, large_films: Manifest):
    process = start(tmp_path, large_films, tmp_path / "out")
    wait_until(process, tmp_path / "out.partial" / "shards", films=20)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert ends(process.pid)


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_and_not_a_hang(tmp_path: Path, large_films: Manifest):
    process = start(tmp_path, large_films, tmp_path / "out")
    wait_until(process, tmp_path / "out.partial" / "shards", films=20)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
    message = process.communicate(timeout=20)[1].decode()
    assert process.returncode != 0
    assert "ValueError: a worker process died (out of memory?" in message


def test_a_film_of_other_content_and_the_same_size_is_noticed(tmp_path: Path):
    films = write_films(tmp_path / "films", 12)
    again = partial(prepare, films, preparation=SMALL, out=tmp_path / "out", workers=1)
    again()
    recorded = pd.read_csv(tmp_path / "out" / "sources.csv").set_index("image")
    file = tmp_path / "films" / "00007.png"
    content = file.read_bytes()
    assert recorded.loc["00007.png", "bytes"] == len(content)
    assert recorded.loc["00007.png", "sha256"] == hashlib.sha256(content).hexdigest()[:16]
    os.utime(file, ns=(0, 0))
    again()  # a copy of the same content is the same film
    other = tmp_path / "films" / "00008.png"
    was = other.read_bytes()
    other.write_bytes(was[:-1] + bytes([was[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"1 of 12 films has changed since .*00008\.png: bring"):
        again()


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [
        ("sources.csv", "bytes,", "size,"),
        ("sources.csv", "00007.png,", "00007.png,x"),
        ("preparation.json", "}", ""),
    ],
)
def test_a_file_of_a_cache_that_is_damaged_is_named(tmp_path: Path, name: str, was: str, now: str):
    films = write_films(tmp_path / "films", 12)
    again = partial(prepare, films, preparation=SMALL, out=tmp_path / "out", workers=1)
    again()
    file = tmp_path / "out" / name
    file.write_text(file.read_text().replace(was, now))
    with pytest.raises(ValueError, match=rf"{name}.*; expected it whole"):
        again()


def test_a_receipt_of_another_kind_is_that_of_a_shard_to_make(tmp_path: Path):
    films = write_films(tmp_path / "films", 12)
    prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    whole, rows = read_folder(tmp_path / "out"), list(range(12))
    (tmp_path / "out").rename(partial_folder := tmp_path / "out.partial")
    receipt = {"row": rows, "place": rows, "crc": rows, "sha256 of shard": ""}
    (partial_folder / "shards" / "00000.json").write_text(json.dumps(receipt))
    prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert read_folder(tmp_path / "out") == whole


def test_broken_films_leave_the_cache_with_their_reason(tmp_path: Path):
    films = write_films(tmp_path / "films", 30)
    (tmp_path / "films" / "00003.png").write_bytes(b"")
    (tmp_path / "films" / "00017.png").unlink()
    prepared = prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert prepared.rejected.to_numpy().tolist() == [
        ["00003.png", "zero bytes"],
        ["00017.png", "cannot be read: no such file"],
    ]
    assert len(prepared.manifest) == 28
    assert "00003.png" not in prepared.manifest.image
    for name, pixels in zip(prepared.manifest.image, prepared.pixels, strict=True):
        film = cv2.imread(str(tmp_path / "films" / name), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(pixels, prepare_film(film, preparation=SMALL))
    assert sorted(read_folder(tmp_path / "out")) == [
        "boxes.csv", "manifest.csv", "manifest.json", "preparation.json", "reading.csv",
        "receipt.json", "rejected.csv", "shards/00000.npy", "shards/SHA256SUMS", "shards/index.npy",
        "soft.csv", "sources.csv", "uncertain.csv", "written.json",
    ]  # fmt: skip


def test_too_many_broken_films_stop_it_and_mending_goes_on(tmp_path: Path):
    films = write_films(tmp_path / "films", 60)
    whole = prepare(films, preparation=SMALL, out=tmp_path / "whole", workers=1)
    for number in range(40, 52):
        (tmp_path / "films" / f"{number:05d}.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"1\d of 60 films .*00040.png \(not an image.* is kept"):
        prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    write_films(tmp_path / "films", 60)
    first: list[int] = []
    prepared = prepare(
        films,
        preparation=SMALL,
        out=tmp_path / "out",
        workers=1,
        progress=lambda done, total: first.append(done),
    )
    assert first[0] == 32  # two shards of 16 hold no broken film
    np.testing.assert_array_equal(prepared.pixels, whole.pixels)
    assert len(prepared.rejected) == 0


def test_a_film_replaced_while_unfinished_is_made_anew_and_other_choices_are_refused(
    tmp_path: Path,
):
    films = write_films(tmp_path / "films", 60)
    for number in range(40, 52):
        (tmp_path / "films" / f"{number:05d}.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="cannot be decoded"):
        prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    brighter = Preparation(size=64, clahe_tiles=4, brightness=5)
    with pytest.raises(ValueError, match=r"preparation.brightness: was 0, now 5"):
        prepare(films, preparation=brighter, out=tmp_path / "out", workers=1)
    write_films(tmp_path / "films", 60)
    shutil.copy(tmp_path / "films" / "00001.png", tmp_path / "films" / "00000.png")
    prepared = prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    np.testing.assert_array_equal(prepared.pixels[0], prepared.pixels[1])


def test_films_without_a_path_and_a_full_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    films = write_films(tmp_path / "films", 3)
    films.facts.loc[1, "path"] = ""
    with pytest.raises(ValueError, match="1 of 3 films has no file: find them, or leave"):
        prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"has 0.0 GB free, the prepared films need 0.0 GB"):
        prepare(films.take(np.array([0, 2])), preparation=SMALL, out=tmp_path / "out", workers=1)


def test_the_cache_is_loaded_as_it_was_returned(tmp_path: Path):
    films = write_films(tmp_path / "films", 5)
    prepared = prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    again = load_prepared(tmp_path / "out")
    np.testing.assert_array_equal(again.pixels, prepared.pixels)
    np.testing.assert_array_equal(again.manifest.image, films.image)
    assert again.preparation == prepared.preparation == SMALL.model_copy(update={"bits": 8})


def test_a_shard_that_is_gone_is_made_anew_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    films = write_films(tmp_path / "films", 60)
    (tmp_path / "films" / "00003.png").write_bytes(b"")
    again = partial(prepare, films, preparation=SMALL, out=tmp_path / "out", workers=1)
    again()
    was = read_folder(tmp_path / "out")
    shard = tmp_path / "out" / "shards" / "00000.npy"
    shard.unlink()
    again()
    assert read_folder(tmp_path / "out") == was
    assert "1 shard is not in" in capsys.readouterr().err
    shard.unlink()
    film = tmp_path / "films" / "00007.png"
    content = film.read_bytes()
    film.unlink()
    with pytest.raises(ValueError, match=r"changed since they were prepared, .*00007\.png"):
        again()
    film.write_bytes(content)
    with monkeypatch.context() as other:  # as another version of OpenCV might
        other.setattr(film_cache, "prepare_file", lambda *_, **__: np.zeros((64, 64), np.uint8))
        with pytest.raises(ValueError, match=r"films of 1 shard that .* lacks come out otherwise"):
            again()
    assert not shard.exists()
    again()
    assert read_folder(tmp_path / "out") == was


def test_three_that_find_a_shard_gone_make_it_once_or_say_so(tmp_path: Path):
    films = write_films(tmp_path / "films", 80)
    again = partial(prepare, films, preparation=SMALL, out=tmp_path / "out", workers=1)
    again()
    was = read_folder(tmp_path / "out")

    def once(_: int) -> str:
        try:
            again()
        except BusyError as error:
            return str(error)
        return ""

    for shard in ("00000.npy", "00002.npy", "00001.npy"):
        (tmp_path / "out" / "shards" / shard).unlink()
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(once, range(3)))
        assert "" in found
        assert all("is being written by another" in line for line in found if line)
    assert read_folder(tmp_path / "out") == was


def test_what_a_version_without_shards_left_is_not_read(tmp_path: Path):
    films = write_films(tmp_path / "films", 20)
    prepare(films, preparation=SMALL, out=tmp_path / "whole", workers=1)
    (tmp_path / "films" / "00003.png").rename(tmp_path / "films" / "hidden")
    broken = [f"{number:05d}.png" for number in range(4, 20)]
    for name in broken:
        (tmp_path / "films" / name).rename(tmp_path / "films" / f"{name}.hidden")
    with pytest.raises(ValueError, match="cannot be decoded"):
        prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    for name in ("pixels.npy", "rows.npy", "done.npy"):
        np.save(tmp_path / "out.partial" / name, np.zeros((20, 64, 64), dtype=np.uint8))
    (tmp_path / "films" / "hidden").rename(tmp_path / "films" / "00003.png")
    for name in broken:
        (tmp_path / "films" / f"{name}.hidden").rename(tmp_path / "films" / name)
    prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert read_folder(tmp_path / "out") == read_folder(tmp_path / "whole")


def test_shards_of_any_order_of_work_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever engine does them, twice or the last first."""
    films = write_films(tmp_path / "films", 60)
    prepare(films, preparation=SMALL, out=tmp_path / "whole", workers=1)

    def backwards(work: Any, tasks: Any, *, workers: int) -> Iterator[Any]:
        several = list(tasks)
        for task in [*several[::-1], *several[:2]]:
            made = work(task)
            if task in several:
                yield made
                several.remove(task)

    monkeypatch.setattr(film_cache, "on_engine", backwards)
    prepare(films, preparation=SMALL, out=tmp_path / "other", workers=4)
    assert read_folder(tmp_path / "other") == read_folder(tmp_path / "whole")
