"""One picture under two names: hashes against a cosine sum, all pairs against brute force."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.data.duplicates import ALIKE_COLUMNS, near_identical, near_pairs, perceptual_hash
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film, thumbnails

SIDE = 64


def _prepared(pixels: np.ndarray, names: list[str]) -> Prepared:
    manifest = Manifest(
        findings=("Mass",),
        image=np.array(names),
        patient=np.arange(len(names)),
        label=np.zeros((len(names), 1), dtype=np.float32),
        facts=pd.DataFrame({"path": [""] * len(names)}),
        boxes=empty_boxes(),
        origin="made up",
    )
    nothing = pd.DataFrame({"image": [], "reason": []})
    preparation = Preparation(size=pixels.shape[1])
    return Prepared(manifest=manifest, preparation=preparation, pixels=pixels, rejected=nothing)


def _clouds(films: int, seed: int = 0) -> np.ndarray:
    """Return soft pictures without two alike."""
    noise = np.random.default_rng(seed).normal(size=(films, SIDE, SIDE))
    soft = np.stack([cv2.GaussianBlur(one, (0, 0), 4) for one in noise])
    return (128 + 40 * soft / soft.std()).clip(0, 255).astype(np.uint8)


def _saved_again(film: np.ndarray) -> dict[str, np.ndarray]:
    smaller = cv2.resize(film, (50, 50), interpolation=cv2.INTER_AREA)
    return {
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", film, [1, 60])[1], 0),
        "scaled": cv2.resize(smaller, (SIDE, SIDE)),
        "darker": (film * 0.8).astype(np.uint8),
        "exact": film.copy(),
    }


def test_bits_are_those_of_the_cosine_sum_written_out():
    films = thumbnails(_prepared(_clouds(3), ["a", "b", "c"]), rows=np.arange(3))
    for film, code in zip(films.reshape(-1, 32, 32), perceptual_hash(films), strict=True):
        wave = np.zeros((8, 8))
        for u in range(1, 9):
            for v in range(1, 9):
                down = [np.cos(np.pi * u * (2 * y + 1) / 64) for y in range(32)]
                across = [np.cos(np.pi * v * (2 * x + 1) / 64) for x in range(32)]
                wave[u - 1, v - 1] = sum(
                    film[y, x] * down[y] * across[x] for y in range(32) for x in range(32)
                )
        middle = sorted(wave.ravel())
        bits = "".join(str(int(one > (middle[31] + middle[32]) / 2)) for one in wave.ravel())
        assert int(code) == int(bits, 2)
        assert bits.count("1") == 32


def test_exposure_and_contrast_change_no_bit():
    film = _clouds(5).reshape(5, -1)[:, :1024].astype(np.float32)
    assert (perceptual_hash(film) == perceptual_hash(film * 0.5 + 30)).all()
    assert len(set(perceptual_hash(film).tolist())) == 5


@settings(max_examples=40, deadline=None)
@given(
    films=st.integers(0, 60),
    distance=st.integers(0, 6),
    sides=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_finds_the_pairs_that_brute_force_finds(films: int, distance: int, sides: int, seed: int):
    generator = np.random.default_rng(seed)
    code = generator.integers(0, 2**64, max(films, 1), dtype=np.uint64)[:films]
    for film in range(films // 2):  # half of the films are others with a few bits turned
        flipped = generator.choice(64, size=generator.integers(0, 9), replace=False)
        code[film] = code[films - 1 - film] ^ np.uint64(sum(1 << int(bit) for bit in flipped))
    side = generator.integers(0, sides, films)
    expected = [
        [a, b]
        for a in range(films)
        for b in range(a + 1, films)
        if side[a] != side[b] and bin(int(code[a]) ^ int(code[b])).count("1") <= distance
    ]
    assert near_pairs(code, side=side, distance=distance).tolist() == expected


def test_an_impossible_distance_is_refused():
    with pytest.raises(ValueError, match="16 bits: expected 0 to 15"):
        near_pairs(np.zeros(2, np.uint64), side=np.arange(2), distance=16)


def test_a_film_saved_again_is_found_on_the_other_side_and_only_there():
    clouds = _clouds(40)
    again = _saved_again(clouds[7])
    pixels = np.concatenate([clouds, np.stack(list(again.values()))])
    names = [*(f"{film:02d}" for film in range(40)), *again]
    side = np.array(["train"] * 40 + ["test"] * len(again))
    table = near_identical(_prepared(pixels, names), side=side)
    assert tuple(table.columns) == ALIKE_COLUMNS
    assert table["image"].tolist() == ["07"] * len(again)
    assert table["other"].tolist() == list(again)
    assert table["correlation"].to_numpy()[-1] == pytest.approx(1)
    assert table["distance"].tolist()[-1] == 0
    assert near_identical(_prepared(pixels, names), side=np.full(len(names), "train")).empty


def test_equal_bits_of_unlike_pictures_are_not_enough(monkeypatch: pytest.MonkeyPatch):
    prepared = _prepared(_clouds(6), list("abcdef"))
    monkeypatch.setattr(
        "lucency.data.duplicates.perceptual_hash", lambda small: np.zeros(len(small), np.uint64)
    )
    assert near_identical(prepared, side=np.arange(6)).empty
    twice = replace(prepared, pixels=prepared.pixels[[0, 1, 2, 3, 4, 4]])
    monkeypatch.setattr("lucency.data.duplicates.AT_ONCE", 4)  # pieces change nothing
    table = near_identical(twice, side=np.arange(6))
    assert table[["image", "other"]].to_numpy().tolist() == [["e", "f"]]


def test_black_films_are_no_picture():
    flat = np.stack([np.full((SIDE, SIDE), grey, np.uint8) for grey in (0, 0, 255, 90)])
    flat[3, 0, 0] = 91
    assert near_identical(_prepared(flat, list("abcd")), side=np.arange(4)).empty


def test_as_many_hashes_as_chestxray14_take_seconds():
    """112,120 of them, 2,000 alike in a block and more: the time does not grow with all pairs."""
    code = np.random.default_rng(0).integers(0, 2**64, 112_120, dtype=np.uint64)
    code[:2_000] = (code[:2_000] >> 13) << 13
    code[111_000:] = code[:1_120] ^ np.uint64(0b1001)
    side = np.repeat([0, 1], [111_000, 1_120])
    start = time.perf_counter()
    found = near_pairs(code, side=side, distance=4)
    assert time.perf_counter() - start < 10
    planted = np.stack([np.arange(1_120), np.arange(111_000, 112_120)], axis=1)
    assert found.tolist() == planted.tolist()


@pytest.mark.slow
def test_the_one_picture_that_the_sample_holds_twice(shared):
    """Of 1,297 real films two are one: 00002658_001 and 00002658_002, correlation 1.0000."""
    files = sorted((shared / "nih" / "images-320").glob("*.png"))
    preparation = Preparation(size=SIDE)
    pixels = np.stack([prepare_film(read_grey(f), preparation=preparation) for f in files])
    table = near_identical(
        _prepared(pixels, [f.stem for f in files]), side=np.arange(len(files)), distance=6
    )
    assert table[["image", "other"]].to_numpy().tolist() == [["00002658_001", "00002658_002"]]
    assert table["correlation"].item() > 0.9999
