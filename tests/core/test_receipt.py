"""Receipts: a folder is complete or absent, knows its origin, and nothing is ever lost."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lucency.core.files import LOCKLESS, BusyError
from lucency.core.locks import locked
from lucency.core.saved_files import fingerprint_file
from lucency.core.stage import (
    RECEIPT,
    differences,
    fingerprint,
    fingerprint_of,
    is_complete,
    produce,
    produce_answer,
)

INPUTS = {"training": {"epochs": 3, "rate": 1e-3}, "split": "abc"}
KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from lucency.core.stage import produce

def write(folder):
    (folder / "half").write_text("first half")
    os.kill(os.getpid(), signal.SIGKILL)

produce(Path(sys.argv[1]), inputs={"size": 3}, write=write)
"""
HOLDS = """
import sys, time
from pathlib import Path
from typing import Any
from lucency.core.stage import produce

def write(folder):
    (folder / "begun").touch()
    while not (folder / "enough").exists():
        time.sleep(0.01)

produce(Path(sys.argv[1]), inputs={"size": 3}, write=write)
"""


def writes(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "work").write_text(text)

    return write


def never(folder: Path) -> None:
    pytest.fail(f"{folder} was written again")


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return a folder that a killed process has left in the making."""
    made = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    assert made.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    return tmp_path / "out"


def test_work_is_made_once_and_found_again(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    assert produce(out, inputs=INPUTS, write=writes("done")) == out
    made = content(out)
    assert set(made) == {"work", RECEIPT}
    assert produce(out, inputs=INPUTS, write=never) == out
    assert content(out) == made
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({**INPUTS, "split": "abd"}, "split: was abc, now abd"),
        ({**INPUTS, "training": {"epochs": 4, "rate": 1e-3}}, "training.epochs: was 3, now 4"),
        ({"training": INPUTS["training"]}, "split: was abc, now absent"),
        ({**INPUTS, "new": [{"name": 1}]}, "new.0.name: was absent, now 1"),
        ({**INPUTS, "training": {}}, "training.epochs: was 3, now absent"),
    ],
)
def test_other_inputs_are_refused_and_the_difference_named(
    tmp_path: Path, now: dict[str, Any], named: str
):
    out = produce(tmp_path / "out", inputs=INPUTS, write=writes("done"))
    made = content(tmp_path)
    with pytest.raises(ValueError, match=named) as refusal:
        produce(out, inputs=now, write=never)
    assert "delete that folder" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert content(tmp_path) == made


@pytest.mark.parametrize(
    ("was", "now"), [({"a": {}}, {}), ({"a": {}}, {"a": {"b": 1}}), ({"a": [{"b": 1}]}, {"a": []})]
)
def test_inputs_that_differ_have_a_difference(was: dict[str, Any], now: dict[str, Any]):
    assert differences(was, now)
    assert differences(now, was)
    assert not differences(was, was)
    assert fingerprint(was) != fingerprint(now)


def test_without_room_for_work_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lucency.core.memory._room", lambda: 0.0)
    with pytest.raises(MemoryError, match="0 MiB are left"):
        produce(tmp_path / "stage", inputs=INPUTS, write=lambda _: None)
    assert not any(tmp_path.iterdir())


def test_a_killed_stage_goes_on_from_what_it_left(killed: Path):
    def finish(folder: Path) -> None:
        assert (folder / "half").read_text() == "first half"
        (folder / "rest").write_text("second half")

    produce(killed, inputs={"size": 3}, write=finish)
    assert set(content(killed)) == {"half", "rest", RECEIPT}
    assert list(killed.parent.iterdir()) == [killed]


def test_a_killed_stage_of_other_inputs_is_refused_and_kept(killed: Path):
    left = content(killed.parent)
    del left["out.partial.lock"]  # which nobody holds any more
    with pytest.raises(ValueError, match="size: was 3, now 4"):
        produce(killed, inputs={"size": 4}, write=never)
    assert content(killed.parent) == left


def test_killed_before_the_last_step_the_receipt_still_tells(tmp_path: Path):
    partial = tmp_path / "out.partial"
    produce(tmp_path / "out", inputs={"size": 3}, write=writes("done")).rename(partial)
    with pytest.raises(ValueError, match="size: was 3, now 4"):
        produce(tmp_path / "out", inputs={"size": 4}, write=never)
    produce(tmp_path / "out", inputs={"size": 3}, write=writes("done"))
    assert not partial.exists()


def test_an_exception_leaves_no_complete_folder(tmp_path: Path):
    def fail(folder: Path) -> None:
        (folder / "work").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        produce(tmp_path / "out", inputs=INPUTS, write=fail)
    assert not (tmp_path / "out").exists()
    produce(tmp_path / "out", inputs=INPUTS, write=writes("done"))


def test_a_stage_that_failed_before_any_work_may_be_put_right(tmp_path: Path):
    def fail(folder: Path) -> None:
        raise ValueError(f"no labels for {folder.name}")

    with pytest.raises(ValueError, match="no labels"):
        produce(tmp_path / "out", inputs={"labels": ""}, write=fail)
    produce(tmp_path / "out", inputs={"labels": "labels.csv"}, write=writes("done"))


def test_a_folder_without_receipt_is_refused_and_an_empty_one_used(tmp_path: Path):
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(ValueError, match=r"has no receipt.*choose another place"):
        produce(tmp_path, inputs=INPUTS, write=never)
    assert content(tmp_path) == {"letters": b"mine"}
    (tmp_path / "empty").mkdir()
    produce(tmp_path / "empty", inputs=INPUTS, write=writes("done"))
    assert is_complete(tmp_path / "empty", inputs=INPUTS)


def test_a_second_writer_at_the_same_time_is_refused(tmp_path: Path):
    out = tmp_path / "out"
    first = subprocess.Popen([sys.executable, "-c", HOLDS, str(out)])
    begun = tmp_path / "out.partial" / "begun"
    try:
        await_file(begun)
        with pytest.raises(ValueError, match="being written by another process"):
            produce(out, inputs={"size": 3}, write=never)
        (begun.with_name("enough")).touch()
        assert first.wait(20) == 0
    finally:
        first.kill()
    produce(out, inputs={"size": 3}, write=never)


def test_finished_work_is_never_written_over(tmp_path: Path):
    """Another process finishes `out` while this one, which saw none, is still writing."""
    out = tmp_path / "out"

    def overtaken(folder: Path) -> None:
        produce(tmp_path / "other", inputs={"size": 4}, write=writes("theirs")).rename(out)
        (folder / "work").write_text("ours")

    with pytest.raises(ValueError, match=r"was made from other inputs \(size: was 4, now 3"):
        produce(out, inputs={"size": 3}, write=overtaken)
    assert content(out)["work"] == b"theirs"
    for made in (out, out.with_name("out.partial")):
        shutil.rmtree(made)
    assert produce(out, inputs={"size": 4}, write=overtaken) == out
    assert content(out)["work"] == b"theirs"
    assert not out.with_name("out.partial").exists()


def test_other_ranks_wait_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    often = SimpleNamespace(sleep=lambda _: time.sleep(0.01), monotonic=time.monotonic)
    monkeypatch.setattr("lucency.core.stage.time", often)
    out = tmp_path / "out"
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(produce(out, inputs=INPUTS, write=never)), daemon=True
    )
    waiting.start()
    time.sleep(0.1)
    assert waiting.is_alive()
    monkeypatch.setenv("RANK", "0")
    produce(out, inputs=INPUTS, write=writes("done"))
    waiting.join(10)
    assert found == [out]


def test_work_that_is_finished_while_it_is_looked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, whole = tmp_path / "out", produce(tmp_path / "whole", inputs=INPUTS, write=writes("done"))

    def comes_after(look: Callable[[Path], Any], absent: Callable[[], Any]) -> Callable[..., Any]:
        def looks(path: Path) -> Any:
            if not whole.is_dir():
                return look(path)
            whole.rename(out)
            return absent()

        return looks

    monkeypatch.setattr(Path, "exists", comes_after(Path.exists, lambda: False))
    monkeypatch.setattr(Path, "iterdir", comes_after(Path.iterdir, lambda: iter(())))
    assert is_complete(out, inputs=INPUTS)


@pytest.mark.parametrize("name", ["half", "below/rest"])
@pytest.mark.parametrize("is_left", [True, False])
def test_of_an_answer_every_file_must_be_as_it_was_written(
    tmp_path: Path, name: str, is_left: bool
):
    def write(folder: Path) -> None:
        (folder / "half").write_text("first half")
        (folder / "below").mkdir()
        (folder / "below" / "rest").write_text("second half")
        for passing in (".DS_Store", "rest.lucency-new"):  # of a desktop, of a call that failed
            (folder / "below" / passing).write_text("passes")

    out = tmp_path / "out"
    produce_answer(out, inputs=INPUTS, write=write)
    (out / "of mine").write_text("kept")
    (out / "below" / ".DS_Store").write_text("another")
    (out / "below" / "rest.lucency-new").unlink()
    assert produce_answer(out, inputs=INPUTS, write=never) == out
    (out / name).unlink()
    if is_left:
        (out / name).touch()
    found = "was changed after it was written" if is_left else "is absent"
    with pytest.raises(ValueError, match=f"{name} {found}: delete {out}, "):
        produce_answer(out, inputs=INPUTS, write=never)


def test_fingerprints_name_inputs_folders_and_files(tmp_path: Path):
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
    out = produce(tmp_path / "out", inputs=INPUTS, write=writes("done"))
    assert fingerprint_of(out) == fingerprint(INPUTS)
    (tmp_path / "abc").write_text("abc")  # the digest is FIPS 180-4's first example
    assert fingerprint_file(tmp_path / "abc") == "ba7816bf8f01cfea"


def await_file(file: Path) -> None:
    ends = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < ends, f"{file} did not come"
        time.sleep(0.01)


def test_the_note_of_the_process_that_holds_the_lock_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    note = tmp_path / "runs" / "out.partial" / "inputs.json"

    @contextmanager
    def held(folder: Path) -> Iterator[None]:
        folder.mkdir(exist_ok=True)
        note.write_text("{}")  # by the other process, meanwhile
        if folder:
            raise BusyError("is being written by another process")
        yield

    monkeypatch.setattr("lucency.core.stage.locked", held)
    with pytest.raises(BusyError):
        produce(tmp_path / "runs" / "out", inputs={}, write=lambda folder: None)
    assert note.is_file()


def no_flock(number: int) -> Callable[..., None]:
    """What fcntl.flock is on a file system without locks."""

    def flock(opened: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", LOCKLESS)
def test_without_locks_in_the_file_system_a_second_writer_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    monkeypatch.setattr("fcntl.flock", no_flock(number))
    with (
        locked(tmp_path / "run"),
        pytest.raises(BusyError, match="is being written by another process"),
        locked(tmp_path / "run"),
    ):
        pytest.fail("held twice")
    assert not any(tmp_path.iterdir())
    dies = multiprocessing.get_context("fork").Process(
        target=hold_and_die, args=(tmp_path / "run",)
    )
    dies.start()
    dies.join()
    with locked(tmp_path / "run"):  # of a process that died: overcome
        pass
    assert not any(tmp_path.iterdir())


def hold_and_die(folder: Path) -> None:
    with locked(folder):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_lock_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fcntl.flock", no_flock(errno.EIO))
    with pytest.raises(OSError, match=r"run\.lock") as found, locked(tmp_path / "run"):
        pytest.fail("held")
    assert found.value.filename == str(tmp_path / "run.lock")
