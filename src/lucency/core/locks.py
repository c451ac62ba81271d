"""Locks between processes: a file of the system's, or where it has none, a file that exists.

The system releases its own when their process dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lucency.core.files import LOCKLESS, SILENT_SECONDS, BusyError, named_error
from lucency.core.progress import say

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"  # the end of a lock file's name; it lies beside the folder that is being written


@contextmanager
def locked(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder, a file beside it.

    Raises BusyError where another process holds it after `wait` seconds, and OSError, which names
    the file, where the system fails.
    """
    from filelock import Timeout

    file = folder.with_name(folder.name + LOCK)
    with ExitStack() as held:
        try:
            held.enter_context(held_lock(file, wait=wait))
        except Timeout:
            raise BusyError(_busy(folder, _beside(file))) from None
        held.callback(_remove_lock, file)
        yield


def _busy(folder: Path, soft: Path) -> str:
    """Return that a folder is being written, and what may be left of a machine that died."""
    line = f"{folder} is being written by another process: wait for it"
    return f"{line}, or remove {soft} if there is none on any machine" if soft.exists() else line


def _beside(file: Path) -> Path:
    """Return the file whose existence is the lock where the file system has no locks."""
    return file.with_name(f"held-{file.name}")


def _remove_lock(file: Path) -> None:
    with suppress(PermissionError):  # Windows, which removes the file on release
        file.unlink(missing_ok=True)


@contextmanager
def held_lock(file: Path, *, wait: float) -> Iterator[None]:
    """Hold the lock of a file; a line says so where another process holds it for seconds.

    Where the file system has no locks, the existence of a second file is one; of a process that
    died on this machine it is overcome. Raises filelock.Timeout where another process holds it
    after `wait` seconds, and OSError, which names the file, where the system fails.
    """
    from filelock import Timeout

    try:
        lock = _acquired_or_said(file, wait=wait)
    except Timeout:
        raise
    except OSError as error:
        raise named_error(error, file) from error
    try:
        yield
    finally:
        try:
            lock.release()
        except OSError as error:
            raise named_error(error, file) from error


def _acquired_or_said(file: Path, *, wait: float) -> BaseFileLock:
    from filelock import Timeout

    try:
        return _acquired(file, wait=min(wait, SILENT_SECONDS))
    except Timeout:
        if wait <= SILENT_SECONDS:
            raise
    say(f"{file}: another process holds it; waiting")
    return _acquired(file, wait=wait - SILENT_SECONDS)


def _acquired(file: Path, *, wait: float) -> BaseFileLock:
    from filelock import FileLock, SoftFileLock

    try:
        return FileLock(file, fallback_to_soft=False).acquire(timeout=wait).lock
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
    return SoftFileLock(_beside(file)).acquire(timeout=wait).lock
