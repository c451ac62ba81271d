"""Files written whole: beside, flushed, renamed; what was there before stays until then.

Every command's files go through here. On a full disk the error names the file and the space needed.
"""

from __future__ import annotations

import csv
import ctypes
import errno
import gzip
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from lucency.core.progress import say

BYTES = "surrogateescape"  # how file names, and tables of them, hold what is no UTF-8
NEW = ".lucency-new"  # ends the name of a file while it is written; one that a kill leaves, too
FULL = (errno.ENOSPC, errno.EDQUOT)
LOCKLESS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems without locks
UNFLUSHABLE = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
WITHOUT_LINKS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # others may put one there
LINUX = sys.platform.startswith("linux")
MANY = 64  # files, from which on one flush of the disk is cheaper
POLL_SECONDS, SILENT_SECONDS, WAIT_SECONDS = 0.05, 5.0, 600.0  # while another writes a file


def write_whole(file: Path, content: str | bytes | memoryview) -> None:
    """Write `file` so that it holds all of `content` (text as UTF-8) or what it held before.

    Bytes of file names that are no UTF-8 are written as they are. A link is followed; a pipe or
    device is written to as it is. Raises ValueError where the disk or the quota is full, and
    OSError with the file's name otherwise.
    """
    encoded = content.encode(errors=BYTES) if isinstance(content, str) else content
    with whole_file(file, needed=len(encoded)) as stream:
        stream.write(encoded)


@contextmanager
def whole_file(file: Path, *, needed: int = 0) -> Iterator[BinaryIO]:
    """Lend a stream to write `file` by, for what memory should not hold twice; see `write_whole`.

    `needed` is the number of bytes, 0 where it is not known.
    """
    try:
        if file.exists() and not file.is_file():
            with file.open("wb") as stream:
                yield stream
            return
        place = real_place(file)
        beside = place.with_name(place.name + NEW)
        with _opened_alone(beside) as stream, ExitStack() as undo:
            undo.callback(_discard, beside, stream)
            _keep_mode(place, beside)  # before there is anything to read
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            _close_for_others(stream)
            beside.replace(place)
            undo.pop_all()
        flush_folder(place.parent)
    except OSError as error:
        refuse_full_disk(error, file, needed=needed)
        raise named_error(error, file) from error


def real_place(file: Path) -> Path:
    """Return where the links of a path lead; OSError where they lead in a circle."""
    place = Path(os.path.realpath(file))
    if place.is_symlink():
        raise OSError(errno.ELOOP, "a circle of links", str(file))
    return place


def check_writable(folder: Path) -> None:
    """Raise ValueError unless files can be made in a folder: one is, for a moment.

    Its mode does not tell: of a disk that is read only, of another machine's, of /proc.
    """
    import tempfile

    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        refuse_full_disk(error, folder)
        why = (error.strerror or str(error)).lower()
        raise ValueError(f"{folder}: no file can be made there ({why}): choose another") from error


def _keep_mode(file: Path, beside: Path) -> None:
    """Let who may read a file be as before; its owner may write to the one beside it."""
    if not file.exists():
        return
    mode = stat.S_IMODE(file.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR
    if stat.S_IMODE(beside.stat().st_mode) != mode:
        beside.chmod(mode)


def _discard(file: Path, stream: BinaryIO) -> None:
    _close_for_others(stream)
    file.unlink(missing_ok=True)


def _close_for_others(stream: BinaryIO) -> None:
    """Close a file where the system renames and removes none that is open."""
    if os.name != "posix":
        stream.close()


@contextmanager
def _opened_alone(file: Path) -> Iterator[BinaryIO]:
    """Open a file for writing, empty; wait while another process writes it, where locks are.

    Raises BusyError where it is not free after WAIT_SECONDS.
    """
    if _locks() is None:
        with file.open("wb") as stream:
            yield stream
        return
    started = time.monotonic()
    while True:
        with os.fdopen(os.open(file, WITHOUT_LINKS, 0o666), "r+b") as stream:
            _lock(stream, file, started=started)
            if _is_at(file, stream):  # and not the one before, which has its name by now
                stream.truncate()
                yield stream
                return


def _locks() -> Any:
    """Return the module by which files are locked, None where the system has none, as Windows."""
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl


def _lock(stream: BinaryIO, file: Path, *, started: float) -> None:
    """Lock an open file, where the file system can; say so while another process has it."""
    fcntl, silent = _locks(), True
    while True:
        try:
            return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - started
        except OSError as error:
            if error.errno in LOCKLESS:
                return None
            raise
        if waited > WAIT_SECONDS:
            raise BusyError(f"{file} is being written by another process: wait for it")
        if silent and waited > SILENT_SECONDS:
            say(f"{file}: another process writes it; waiting")
            silent = False
        time.sleep(POLL_SECONDS)


def _is_at(file: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def write_part(file: Path, content: bytes) -> None:
    """Write one of thousands of files of a folder that `flush_tree` and a rename make whole.

    Raises ValueError where the disk or the quota is full, and OSError with the file's name else.
    """
    try:
        file.write_bytes(content)
    except OSError as error:
        refuse_full_disk(error, file, needed=len(content))
        raise named_error(error, file) from error


def replace_file(beside: Path, file: Path) -> None:
    """Give a file that is whole and flushed its name, in a way that a loss of power keeps.

    Raises errors as `write_whole` does.
    """
    try:
        beside.replace(file)
        flush_folder(file.parent)
    except OSError as error:
        refuse_full_disk(error, file)
        raise named_error(error, file) from error


def make_folders(folder: Path) -> None:
    """Make a folder, and those above it, in a way that a loss of power keeps."""
    made = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in made:
        flush_folder(place.parent)


def flush_tree(folder: Path) -> None:
    """Let everything in a folder reach the disk: file by file, or by one call where they are many.

    That call, Linux's syncfs, waits for other programs' files of the disk too. Raises OSError with
    the name of the file, or of the folder.
    """
    places = [Path(name) for name, _, _ in os.walk(folder)]
    files = {place: [file for file in place.iterdir() if file.is_file()] for place in places}
    if sum(map(len, files.values())) > MANY and _flush_disk(folder):
        return
    for place, several in files.items():
        for file in several:
            if not file.is_symlink():
                flush_file(file)
        flush_folder(place)


def _flush_disk(folder: Path) -> bool:
    """Let all files of a folder's disk reach it; return whether the system has such a call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if LINUX else None
    if call is None:
        return False
    opened = os.open(folder, os.O_RDONLY)
    try:
        if call(opened):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(opened)
    return True


def flush_file(file: Path) -> None:
    """Let the content of a file reach the disk; raises OSError with its name."""
    _flush(file, os.O_RDONLY if os.name == "posix" else os.O_RDWR)


def flush_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, where the system can: Windows does so by itself.

    A folder that may be written to but not read stays as it is.
    """
    if os.name == "posix":
        with suppress(PermissionError):
            _flush(folder, os.O_RDONLY)


def _flush(place: Path, flags: int) -> None:
    """Flush a file or folder; where its file system cannot, as some of networks, it stays as is."""
    opened = os.open(place, flags)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in UNFLUSHABLE:
            raise named_error(error, place) from error
    finally:
        os.close(opened)


def why_no_file(place: Path) -> str:
    """Return what stands at a place where a file is expected, or that nothing does."""
    if not place.exists():
        if place.is_symlink():
            return f"is a link to {place.readlink()}, which is absent"
        return "no such file"
    if place.is_dir():
        return "is a folder"
    return "is a pipe, no file" if place.is_fifo() else "is a device or socket, no file"


def named_error(error: OSError, file: Path) -> OSError:
    """Return an error of the system with the name of the file it is about."""
    return OSError(error.errno, error.strerror or str(error), str(file))


@contextmanager
def lent_stream(file: Path) -> Iterator[BinaryIO]:
    """Lend a stream in memory, whose content is written to `file` in the end, whole."""
    stream = BytesIO()
    yield stream
    write_whole(file, stream.getbuffer())


def write_table(table: pd.DataFrame, file: Path, **choices: Any) -> None:
    """Write a table as CSV without its index, whole, packed where the name ends in .gz.

    `choices` are those of `to_csv`.
    """
    content = csv_text(table, **choices).encode(errors=BYTES)
    write_whole(file, gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)


def csv_text(table: pd.DataFrame, **choices: Any) -> str:
    """Return a table as CSV without its index; `choices` are those of `to_csv`."""
    choices = {"index": False, "lineterminator": "\n", **choices}
    text = table.to_csv(**choices)
    if "\r" in text:  # which Python up to 3.12 does not quote, and which ends a line
        text = table.to_csv(quoting=csv.QUOTE_NONNUMERIC, **choices)
    return text


def write_array(array: Shaped[np.ndarray, ...], file: Path) -> None:
    """Write an array as .npy, whole, without Python objects."""
    write_whole(file, npy_content(array))


def npy_content(array: Shaped[np.ndarray, ...]) -> bytes:
    """Return the content of an array's .npy file, without Python objects."""
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def write_arrays(arrays: Mapping[str, Shaped[np.ndarray, ...]], file: Path) -> None:
    """Write arrays by name as one compressed .npz, whole, without Python objects."""
    with whole_file(file) as stream:  # straight to the disk: they may be large
        np.savez_compressed(stream, allow_pickle=False, **arrays)


class BusyError(ValueError):
    """A folder that another process is writing: nothing is wrong with it."""


@contextmanager
def no_leftovers(folder: Path, *, notes: tuple[str, ...]) -> Iterator[None]:
    """Remove `folder` and those above it again if they are made here for nothing: on an error.

    Nothing is a folder that holds no file, or none but `notes`. On BusyError all stays: what is
    there is another process's.
    """
    made = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    with ExitStack() as stack:
        stack.push(partial(_remove_if_refused, made, notes))
        yield


def _remove_if_refused(
    made: list[Path], notes: tuple[str, ...], kind: type[BaseException] | None, *_: object
) -> None:
    """Remove the folders that were made for nothing, where the context ends by such an error."""
    if kind is None or not issubclass(kind, Exception) or issubclass(kind, BusyError):
        return
    with suppress(OSError):
        for place in (place for place in made if place.exists()):
            if {one.name for one in place.iterdir()} - {*notes}:
                break
            for note in notes:
                (place / note).unlink(missing_ok=True)
            place.rmdir()


def refuse_full_disk(error: OSError, file: Path, *, needed: int = 0) -> None:
    """Raise ValueError where an error says that the disk or the quota is full."""
    if error.errno not in FULL:
        return
    place = next(one for one in (file, *file.absolute().parents) if one.exists())
    wanted = f"needs {_size(needed)}" if needed else "needs more"
    free = _size(shutil.disk_usage(place).free)
    raise ValueError(
        f"{file}: the disk or its quota is full: {wanted}, free: {free}; what was there before is "
        "kept: make room, or write elsewhere"
    ) from error


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{-(-count // 1000):,} kB"
