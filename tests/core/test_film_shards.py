"""Films in shards: read as one array; no flipped bit and no lost shard goes unnoticed."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lucency.core import film_shards
from lucency.core.film_shards import (
    FilmShards,
    absent_shards,
    films_a_shard,
    finish_shards,
    index_of,
    open_shards,
    read_receipt,
    read_receipts,
    remove_receipts,
    shard_name,
    write_shard,
)

SIDE, FILMS, LOST = 12, 40, 21  # film LOST could not be decoded


def films() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (FILMS, SIDE, SIDE), dtype=np.uint8)


def write(folder: Path, number: int) -> None:
    """Write a shard of 16 films."""
    rows = list(range(FILMS))[number * 16 : number * 16 + 16]
    kept = [row != LOST for row in rows]
    pixels = films()[[row for row in rows if row != LOST]]
    write_shard(folder, number, pixels, films={"row": rows}, kept=kept)


def finish(folder: Path) -> None:
    receipts = read_receipts(folder, 3)
    index = index_of(receipts, films=FILMS)
    finish_shards(folder, np.delete(index, LOST), receipts)
    remove_receipts(folder)


def read(folder: Path) -> FilmShards:
    names = np.array([f"{row}.png" for row in range(FILMS) if row != LOST])
    return open_shards(folder, image=names, side=SIDE)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        write(folder, number)
    finish(folder)
    return folder


def test_shards_are_read_as_one_array(shards: Path):
    found, truth = read(shards), np.delete(films(), LOST, axis=0)
    assert found.shape == truth.shape == (len(found), SIDE, SIDE)
    np.testing.assert_array_equal(found, truth)
    mask = np.arange(len(truth)) % 3 == 0
    for key in (0, 38, -1, np.int64(17), slice(5, 30, 4), slice(None), np.array([30, 2, 2]), mask):
        np.testing.assert_array_equal(found[key], truth[key])
    np.testing.assert_array_equal(list(found), truth)
    assert found[np.array([], dtype=np.int64)].shape == (0, SIDE, SIDE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found))[7], truth[7])
    with pytest.raises(IndexError):
        found[39]
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 1


def test_one_film_is_read_without_a_list_of_all(shards: Path, monkeypatch: pytest.MonkeyPatch):
    """Which an epoch would pay for every film: its time would grow with the square of them."""
    found, truth = read(shards), np.delete(films(), LOST, axis=0)
    monkeypatch.setattr("lucency.core.film_shards.np.arange", None)
    for row in (0, -1, np.int64(17), np.array(5)):
        np.testing.assert_array_equal(found[row], truth[row])
    with pytest.raises(TypeError):
        found[np.array([1])]


def test_bytes_depend_on_the_films_alone(shards: Path, tmp_path: Path):
    """Not on the order of shards, nor on how many write one, nor on what a killed one left."""
    (tmp_path / "00001.npy.0123").write_bytes(b"half a sh")
    (tmp_path / "00007.npy").write_bytes(b"of another plan")
    (tmp_path / "00002.json").write_text('{"row": [1, ')
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write(tmp_path, number), [2, 0, 0, 0, 1, 2, 2, 1]))
    finish(tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["00000.npy", "00001.npy", "00002.npy", "SHA256SUMS", "index.npy"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (shards / name).read_bytes(), name


def refusal(folder: Path, rows: slice, truth: np.ndarray) -> str:
    """Return why films are refused, "" where they are read and are the `truth`."""
    try:
        np.testing.assert_array_equal(read(folder)[rows], truth)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("flips", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_reaches_a_network(shards: Path, tmp_path: Path, flips: int):
    """In films, headers and index, each is refused by name or changes no film."""
    shutil.copytree(shards, tmp_path / "shards")
    files = [
        tmp_path / "shards" / name for name in ("00000.npy", "00001.npy", "00002.npy", "index.npy")
    ]
    content = {file: file.read_bytes() for file in files}
    size = np.cumsum([len(one) for one in content.values()])
    generator, truth = np.random.default_rng(5), np.delete(films(), LOST, axis=0)
    refused = 0
    for place in generator.integers(0, size[-1], flips).tolist():
        number = int(np.searchsorted(size, place, side="right"))
        file, offset = files[number], place - (size[number - 1] if number else 0)
        bad = bytearray(content[file])
        bad[offset] ^= 1 << int(generator.integers(8))
        file.write_bytes(bad)
        rows = slice(None) if number == 3 else slice(max(0, number * 16 - 1), number * 16 + 16)
        message = refusal(tmp_path / "shards", rows, truth[rows])
        assert not message or number == 3 or file.name in message
        refused += bool(message)
        file.write_bytes(content[file])
    assert refused > 0.9 * flips  # the others lie in the blanks of headers


def test_a_shard_that_is_cut_or_gone_is_named(shards: Path, tmp_path: Path):
    shutil.copytree(shards, tmp_path / "shards")
    file = tmp_path / "shards" / shard_name(1)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        ValueError,
        match=r"film 18\.png in .*00001\.npy is damaged.*remove that",
    ):
        read(tmp_path / "shards")[18]
    file.unlink()
    with pytest.raises(ValueError, match=r"film 18\.png in .*00001\.npy is not there"):
        read(tmp_path / "shards")[18]
    lost = absent_shards(tmp_path / "shards", read(tmp_path / "shards").index)
    assert {number: rows.tolist() for number, rows in lost.items()} == {1: list(range(16, 31))}
    place, index = tmp_path / "shards" / "index.npy", read(shards).index
    np.save(place, index[:3])
    with pytest.raises(ValueError, match=r"index\.npy: found that of 3 films, or damaged, exp"):
        read(tmp_path / "shards")
    np.save(place, np.zeros(39))
    with pytest.raises(ValueError, match=r"index\.npy: found no sound index, expected an index of"):
        read(tmp_path / "shards")
    index["shard"][38] = -16_777_098
    np.save(place, index)
    with pytest.raises(ValueError, match=r"found that of 39 films, or damaged, .* delete .*"):
        read(tmp_path / "shards")


def test_a_shard_that_cannot_be_opened_is_not_called_damaged(
    shards: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "00000.npy")

    found = read(shards)
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):
        found[0]


def test_many_shards_are_not_all_held_open(shards: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(film_shards, "MAPPED", 2)
    found = read(shards)
    np.testing.assert_array_equal(found, np.delete(films(), LOST, axis=0))
    assert len(found._mapped) == 2


def test_shards_are_files_of_numpy(shards: Path):
    np.testing.assert_array_equal(np.load(shards / "00000.npy"), films()[:16])
    assert len(np.load(shards / "index.npy")) == FILMS - 1


@pytest.mark.parametrize("damage", ["[1]", "{", '{"row": [0]}', '"a"', "whole, but one film less"])
def test_a_receipt_that_is_none_is_that_of_a_shard_to_make(tmp_path: Path, damage: str):
    write(tmp_path, 0)
    file, receipt = tmp_path / "00000.json", read_receipt(tmp_path, 0)
    assert receipt
    file.write_text(damage if len(damage) < 20 else json.dumps(receipt | {"crc": [1]}))
    assert read_receipt(tmp_path, 0) is None


def test_films_in_no_shard_and_shards_that_do_not_appear_are_named(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(film_shards, "VISIBLE", 0.3)
    write(tmp_path, 0)
    with pytest.raises(ValueError, match=r"00001\.npy is not complete here"):
        read_receipts(tmp_path, 2)
    with pytest.raises(ValueError, match="24 films are in no shard"):
        index_of(read_receipts(tmp_path, 1), films=FILMS)


def test_the_size_of_shards_depends_on_the_films_alone():
    numbers = (1, 4095, 8192, 112_120, 1_000_000, 10**8)
    assert [films_a_shard(films, side=64) for films in numbers] == [32, 32, 32, 256, 2048, 4096]
    assert [films_a_shard(10**8, side=side) for side in (224, 320, 1024, 4096)] == [
        1024, 512, 64, 16,
    ]  # fmt: skip
