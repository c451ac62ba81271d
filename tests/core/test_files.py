"""Files are whole or as before; a full disk is named with the space needed; one room writes."""

import errno
import gzip
import io
import os
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.core import files
from lucency.core.files import (
    NEW,
    BusyError,
    no_leftovers,
    replace_file,
    whole_file,
    write_array,
    write_arrays,
    write_part,
    write_table,
    write_whole,
)
from lucency.core.manifest import read_table
from lucency.core.stage import produce

SOURCE = Path(__file__).parents[2] / "src" / "lucency"
WRITES = re.compile(
    r"write_text\(|write_bytes\(|\.to_csv\((?!index=)|savez|imwrite|np\.save\(|save_file"
)


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT])
def full(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.usefixtures("full")
def test_a_full_disk_keeps_what_was_there_and_names_file_and_space(tmp_path: Path):
    table, big = pd.DataFrame({"a": ["x" * 100_000]}), np.zeros(100_000, np.uint8)
    writers = {
        "a.csv": lambda file: write_table(table, file),
        "a.txt": lambda file: write_whole(file, "é" * 50_000),
        "a.npy": lambda file: write_array(big, file),
    }
    for name, write in writers.items():
        (tmp_path / name).write_text("before")
        with pytest.raises(
            ValueError, match=rf"{name}: the disk or its quota is full: needs 10\d kB"
        ):
            write(tmp_path / name)
        assert (tmp_path / name).read_text() == "before"
    with pytest.raises(ValueError, match=r"new\.npz: the disk or its quota is full"):
        write_arrays({"a": big}, tmp_path / "new.npz")
    assert {file.name for file in tmp_path.iterdir()} == {*writers}


def test_a_full_disk_in_a_stage_is_named_and_goes_on_later(tmp_path: Path):
    def write(folder: Path) -> None:
        (folder / "part").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        ValueError, match=r"out\.partial: the disk or its quota is full: needs more"
    ):
        produce(tmp_path / "out", inputs={}, write=write)
    assert not (tmp_path / "out").exists()
    assert (produce(tmp_path / "out", inputs={}, write=lambda folder: None) / "part").exists()


def test_a_link_beside_a_file_is_not_followed(tmp_path: Path):
    """Whoever may write into the folder could have another file overwritten."""
    other, file = tmp_path / "other", tmp_path / "table.csv"
    other.write_text("mine")
    (tmp_path / f"table.csv{NEW}").symlink_to(other)
    with pytest.raises(OSError, match=r"table\.csv"):
        write_whole(file, "content")
    assert other.read_text() == "mine"
    assert not file.exists()


def test_what_is_written_is_there_links_are_followed_and_failures_leave_nothing(tmp_path: Path):
    (tmp_path / "store").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "store" / "table.csv")
    write_table(pd.DataFrame({"a": [1.25]}), tmp_path / "link.csv", float_format="%.1f")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "store" / "table.csv").read_text() == "a\n1.2\n"
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "a.csv.gz")
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"a\n1\n"
    write_whole(Path(os.devnull), "nothing")
    write_arrays({"a": np.arange(3)}, tmp_path / "a.npz")
    assert np.load(tmp_path / "a.npz")["a"].tolist() == [0, 1, 2]
    np.savez_compressed(memory := io.BytesIO(), a=np.arange(3))
    assert (tmp_path / "a.npz").read_bytes() == memory.getvalue()
    with pytest.raises(RuntimeError), whole_file(tmp_path / "b.txt") as stream:  # noqa: PT012
        stream.write(b"half")
        raise RuntimeError
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"a circle of links: '.*loop'"):
        write_whole(tmp_path / "loop", "a")
    (tmp_path / "loop").unlink()
    with pytest.raises(FileNotFoundError, match=r"none/a\.txt'"):
        write_whole(tmp_path / "none" / "a.txt", "a")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "a.csv.gz", "a.npz", "link.csv", "store",
    ]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX: nothing to do")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_who_may_read_a_file_stays_when_it_is_written_again(tmp_path: Path, mode: int):
    file = tmp_path / "patients.csv"
    file.touch()
    file.chmod(mode)
    with whole_file(file) as stream:
        beside = next(one for one in tmp_path.iterdir() if one != file)
        assert stat.S_IMODE(beside.stat().st_mode) == mode
        stream.write(b"new")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", mode)


def test_a_user_s_own_new_file_stays(tmp_path: Path):
    (tmp_path / "a.csv.new").write_text("mine")
    write_whole(tmp_path / "a.csv", "whole")
    assert (tmp_path / "a.csv.new").read_text() == "mine"
    (tmp_path / "a.csv.lucency-new").write_text("what a kill has left, longer than what is written")
    write_whole(tmp_path / "a.csv", "again")
    assert {one.name for one in tmp_path.iterdir()} == {"a.csv", "a.csv.new"}
    assert (tmp_path / "a.csv").read_text() == "again"


def test_a_table_of_any_file_names_is_read_as_it_was_written(tmp_path: Path):
    names = ["a\rb.png", "two\r\nlines", "caf\udce9.png", "胸.png", "NA"]
    table = pd.DataFrame({"film": names, "score": [0.5, float("nan"), 1, 0, 2]})
    for name in ("a.csv", "a.csv.gz"):
        write_table(table, tmp_path / name, float_format="%.2f")
    content = (tmp_path / "a.csv").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == content
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv", text=("film",)), table)
    write_table(table[2:], tmp_path / "a.csv")
    assert b'"' not in (tmp_path / "a.csv").read_bytes()


def test_a_heading_longer_than_a_field_may_be_is_no_table(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x" * 140_000 + ",b\n1,2\n")
    with pytest.raises(ValueError, match=r"a\.csv: found no table \(field larger than"):
        read_table(tmp_path / "a.csv", text=())


def test_what_was_made_for_nothing_is_removed_and_work_is_kept(tmp_path: Path):
    out = tmp_path / "runs" / "one"

    def refuse(folder: Path) -> None:
        raise ValueError("no films")

    notes = ("protocol.toml",)
    with pytest.raises(ValueError, match="no films"), no_leftovers(out, notes=notes):  # noqa: PT012
        out.mkdir(parents=True)
        write_whole(out / "protocol.toml", "")
        produce(out / "manifest", inputs={}, write=refuse)
    assert not any(tmp_path.iterdir())

    def killed(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("killed")

    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="killed"), no_leftovers(out, notes=("protocol.toml",)):
        produce(out / "manifest", inputs={}, write=killed)
    assert (out / "manifest.partial" / "half").exists()


def test_errors_of_the_system_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.new").touch()
    writers = {"write_bytes": lambda file: write_part(file, b"a"), "replace": replaced}
    for name, write in writers.items():
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, fail)
            with pytest.raises(OSError, match=r"Input/output error: .*a'") as found:
                write(tmp_path / "a")
        assert found.value.filename == str(tmp_path / "a")


def replaced(file: Path) -> None:
    replace_file(file.with_name("a.new"), file)


def test_a_stage_flushes_all_before_its_receipt_and_folders_after_a_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a loss of power leaves is whole or absent: the order of flushes and renames."""
    order, flush, rename = list[str](), os.fsync, Path.rename

    def flushed(number: int) -> None:
        order.append(f"flush {Path(f'/proc/self/fd/{number}').readlink().relative_to(tmp_path)}")
        flush(number)

    def renamed(file: Path, target: Path) -> Path:
        order.append(f"rename {target.relative_to(tmp_path)}")
        return rename(file, target)

    def write(folder: Path) -> None:
        (folder / "films").mkdir()
        write_part(folder / "films" / "1.png", b"a film")
        (folder / "link").symlink_to("nowhere")

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("what is flushed is named by /proc/self/fd: run it on Linux")
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(Path, "replace", renamed)
    produce(tmp_path / "run" / "made", inputs={"a": 1}, write=write)
    partial = "run/made.partial"
    assert order == [
        "flush .",  # the run's folder is there to stay
        f"flush {partial}/inputs.json.lucency-new",
        f"rename {partial}/inputs.json", f"flush {partial}",
        f"flush {partial}/inputs.json", f"flush {partial}",
        f"flush {partial}/films/1.png", f"flush {partial}/films",
        f"flush {partial}/receipt.json.lucency-new",
        f"rename {partial}/receipt.json", f"flush {partial}",
        "rename run/made", "flush run",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_where_folders_cannot_be_flushed_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(opened: int) -> None:
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    if number == errno.EIO:
        with pytest.raises(OSError, match=r"a\.txt"):
            write_whole(tmp_path / "a.txt", "a")
    else:
        write_whole(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").read_text() == "a"


def test_several_may_write_one_file_at_once(tmp_path: Path):
    """Each waits for the one before: the file is one of theirs, whole, at any time."""
    contents, file = [bytes([65 + one]) * 40_000 * (1 + one) for one in range(6)], tmp_path / "a"
    write_whole(file, contents[0])

    def write(content: bytes) -> bool:
        for _ in range(20):
            write_whole(file, content)
            if file.read_bytes() not in contents:
                return False
        return True

    with ThreadPoolExecutor(len(contents)) as pool:
        assert all(pool.map(write, contents))
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_one_room_writes_files():
    others = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if WRITES.search(file.read_text(encoding="utf-8"))
    }
    assert others == {"core/files.py"}


def test_what_another_process_writes_stays(tmp_path: Path):
    out = tmp_path / "runs" / "new"
    with pytest.raises(BusyError), no_leftovers(out, notes=("protocol.toml",)):  # noqa: PT012
        out.mkdir(parents=True)
        (out / "protocol.toml").write_text("another's")
        raise BusyError("another process writes here")
    assert (out / "protocol.toml").is_file()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="syncfs is a call of Linux: run it there"
)
def test_many_files_are_flushed_by_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed = list[Path]()
    monkeypatch.setattr(files, "_flush", lambda place, flags: flushed.append(place))
    monkeypatch.setattr(files, "MANY", 2)
    os.mkfifo(tmp_path / "pipe")  # which would wait for a writer
    for number in range(2):
        (tmp_path / str(number)).write_bytes(b"")
    files.flush_tree(tmp_path)
    assert sorted(flushed) == [tmp_path, tmp_path / "0", tmp_path / "1"]
    flushed.clear()
    (tmp_path / "2").write_bytes(b"")
    files.flush_tree(tmp_path)
    assert not flushed
    with pytest.raises(FileNotFoundError):
        files._flush_disk(tmp_path / "absent")


@pytest.mark.skipif(os.name != "posix", reason="the system has no flock: nothing to do")
def test_a_file_that_another_writes_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(files, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.2)
    file = tmp_path / "one"
    with whole_file(file) as stream:
        stream.write(b"first")
        with pytest.raises(
            BusyError, match=r"one\.lucency-new is being written by another process"
        ):
            write_whole(file, b"second")
    assert capsys.readouterr().err.count("another process writes it; waiting") == 1
    assert file.read_bytes() == b"first"
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
