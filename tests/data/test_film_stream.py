"""Films from threads: those of one thread in their order, no more than a few blocks at once."""

import errno
import threading
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom.config
import pytest
from pydicom.config import settings

from lucency.core.manifest import Preparation
from lucency.data import film_files, film_stream
from lucency.data.dicom_elements import quiet_pydicom
from lucency.data.film_files import load_film
from lucency.data.film_stream import AHEAD, stream_films
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film

SMALL = Preparation(size=64, clahe_tiles=4)
FILMS, BROKEN = 11, (3, 7)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Films of noise, two of which cannot be read: one is cut short, one is absent."""
    folder = tmp_path_factory.mktemp("films")
    paths = [folder / f"{number:02d}.png" for number in range(FILMS)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (96, 96), dtype=np.uint8)
        cv2.imwrite(str(path), noise)
    paths[BROKEN[0]].write_bytes(paths[0].read_bytes()[:500])
    paths[BROKEN[1]].unlink()
    return paths


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("block", [1, 4, 50])
def test_films_come_in_order_with_the_reasons_of_those_that_cannot_be_read(
    files: list[Path], block: int, threads: int
) -> None:
    before = cv2.getNumThreads()
    blocks = [*stream_films(files, preparation=SMALL, block=block, threads=threads)]
    assert cv2.getNumThreads() == before
    assert [len(one.names) + len(one.rejected) for one in blocks[:-1]] == [block] * (
        (FILMS - 1) // block
    )
    whole = [path for number, path in enumerate(files) if number not in BROKEN]
    assert [name for one in blocks for name in one.names] == [str(path) for path in whole]
    alone = [prepare_film(read_grey(path), preparation=SMALL) for path in whole]
    assert np.array_equal(np.concatenate([one.pixels for one in blocks]), np.stack(alone))
    lost = dict(pair for one in blocks for pair in one.rejected)
    assert [*lost] == [str(files[number]) for number in BROKEN]
    assert ["truncated" in lost[str(files[3])], "no such file" in lost[str(files[7])]] == [True] * 2


def test_threads_leave_warnings_as_they_were() -> None:
    """Both are of the process, and threads that overlap would restore each other's."""
    before, inside = [*warnings.filters], threading.Barrier(2)

    def first() -> None:
        with quiet_pydicom():
            inside.wait(5)
            inside.wait(5)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(5)
    with quiet_pydicom():
        inside.wait(5)
        thread.join(5)
        assert settings.reading_validation_mode == pydicom.config.IGNORE
        assert warnings.filters[0][0] == "ignore"
    assert warnings.filters == before
    assert settings.reading_validation_mode == pydicom.config.WARN


@pytest.mark.parametrize(("fails", "code", "read"), [
    (1, errno.EIO, True), (1, errno.ESTALE, True), (2, errno.EIO, False), (1, errno.EACCES, False),
])  # fmt: skip
def test_a_film_whose_disk_fails_is_read_once_more(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, fails: int, code: int, read: bool
) -> None:
    content, left = files[0].read_bytes(), [code] * fails

    def read_bytes(_: Path) -> bytes:
        if left:
            raise OSError(left.pop(), "a reason of the system")
        return content

    monkeypatch.setattr(film_files, "PAUSE", 0)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    loaded = load_film(files[0])
    assert (loaded.content, bool(loaded.reason)) == (content if read else b"", not read)


def test_no_film_is_no_block() -> None:
    assert [*stream_films([], preparation=SMALL)] == []


def test_no_more_than_a_few_blocks_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def prepared(file: str, *, preparation: Preparation) -> np.ndarray:
        begun.append(file)
        return np.zeros((preparation.size, preparation.size), np.uint8)

    monkeypatch.setattr(film_stream, "prepare_file", prepared)
    blocks = stream_films([str(n) for n in range(1_000)], preparation=SMALL, block=10, threads=2)
    for used in range(1, 4):
        next(blocks)
        time.sleep(0.02)
        assert len(begun) == (used + AHEAD) * 10
    blocks.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("films")]
    assert len(begun) == (3 + AHEAD) * 10


def test_films_are_prepared_while_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = threading.Event()

    def prepared(file: str, *, preparation: Preparation) -> np.ndarray:
        if file == "1":
            ready.set()
        return np.zeros((preparation.size, preparation.size), np.uint8)

    monkeypatch.setattr(film_stream, "prepare_file", prepared)
    blocks = stream_films(["0", "1"], preparation=SMALL, block=1, threads=1)
    next(blocks)
    assert ready.wait(5)
    assert len([*blocks]) == 1


def test_an_error_of_our_own_is_passed_on_and_ends_the_threads(monkeypatch) -> None:
    def broken(file: str, *, preparation: Preparation) -> np.ndarray:
        raise ZeroDivisionError(file)

    monkeypatch.setattr(film_stream, "prepare_file", broken)
    with pytest.raises(ZeroDivisionError):
        [*stream_films(["a", "b"], preparation=SMALL)]
    assert not [one for one in threading.enumerate() if one.name.startswith("films")]
