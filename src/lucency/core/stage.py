"""Stages on disk: a stage's folder is complete, with its receipt, or absent.

A receipt records what a folder was made from. The same inputs find the work done; other inputs are
refused, and the difference named; a killed stage leaves `NAME.partial`, which the same inputs
continue. Under a launcher of several processes only rank 0 writes, the others wait for it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lucency.core.files import (
    BusyError,
    flush_folder,
    flush_tree,
    make_folders,
    no_leftovers,
    refuse_full_disk,
    write_whole,
)
from lucency.core.locks import locked
from lucency.core.memory import check_room
from lucency.core.parallel import local_rank, rank
from lucency.core.progress import say
from lucency.core.saved_files import read_json
from lucency.core.written import NOTE, RECEIPT, WRITTEN, note_all, note_written, refuse_damaged

Inputs = Mapping[str, object]
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)  # errors of a rename to a folder that holds something
SILENT_SECONDS = 60.0  # how long a process waits for the first before it says so


def produce(
    out: Path,
    *,
    inputs: Inputs,
    write: Callable[[Path], None],
    may_change: tuple[str, ...] = (),
    note: Callable[[Path], None] = note_written,
) -> Path:
    """Return `out`, complete: as it is when its receipt fits, else made by `write(partial)`.

    `write` finds in the partial folder what an earlier, killed call with the same inputs left;
    of those inputs, `may_change` names what it can cope with when they are others now. `note`
    states in the folder what its files hold, before its receipt is written.
    Raises ValueError when `out` was made from other inputs or is being made by another process.
    """
    if is_complete(out, inputs=inputs):
        return out
    if rank() > 0:
        return _wait(out, inputs)
    with partial_folder(out, inputs=inputs, may_change=may_change, note=note) as folder:
        write(folder)
    return out


def produce_answer(out: Path, *, inputs: Inputs, write: Callable[[Path], None]) -> Path:
    """Return what `produce` does, for a folder that a user named for the answer of a command.

    All its files are noted. Raises ValueError as `produce` does, and for a finished folder of which
    a noted file is absent or was changed.
    """
    if is_complete(out, inputs=inputs):
        refuse_damaged(out)
        return out
    return produce(out, inputs=inputs, write=write, note=note_all)


@contextmanager
def partial_folder(
    out: Path,
    *,
    inputs: Inputs,
    may_change: tuple[str, ...] = (),
    note: Callable[[Path], None] = note_written,
) -> Iterator[Path]:
    """Lend `out`.partial to write in; on success add the receipt and rename it to `out`.

    A partial folder of other inputs is refused when anything has been written there, unless only
    those of `may_change` differ. What another process has finished meanwhile stays: of the same
    inputs this one's is removed, others are refused. Raises MemoryError where there is no room for
    work.
    """
    check_room()
    folder = out.with_name(out.name + ".partial")
    with no_leftovers(folder.parent, notes=()):
        make_folders(folder.parent)
        with locked(folder), no_leftovers(folder, notes=(NOTE,)):
            yield from _lend(folder, out, inputs=inputs, may_change=may_change, note=note)


def _lend(
    folder: Path,
    out: Path,
    *,
    inputs: Inputs,
    may_change: tuple[str, ...],
    note: Callable[[Path], None],
) -> Iterator[Path]:
    """Lend the folder, whose lock is held."""
    if (out / RECEIPT).exists():
        raise BusyError(f"{out} has just been finished by another process: try again")
    folder.mkdir(exist_ok=True)
    (folder / WRITTEN).unlink(missing_ok=True)  # of a stage that was killed as it ended
    begun = folder / NOTE
    if any(file.name != NOTE for file in folder.iterdir()):
        for file in (begun, folder / RECEIPT):
            if file.exists() and file.stat().st_size:
                was = read_json(file)
                _refuse_difference(folder, {**was, **{k: inputs[k] for k in may_change}}, inputs)
    write_whole(begun, _text(inputs))
    try:
        yield folder
    except OSError as error:
        written = error.filename2 or error.filename  # a copy names what it reads first
        named = isinstance(written, str | bytes)
        refuse_full_disk(error, Path(os.fsdecode(written)) if named else folder)
        raise
    flush_tree(folder)  # before the receipt, which says that all is there
    note(folder)
    write_whole(folder / RECEIPT, _text(inputs))
    begun.unlink()
    _finish(folder, out, inputs=inputs)


def _finish(folder: Path, out: Path, *, inputs: Inputs) -> None:
    """Rename a whole folder, or remove it where another process has finished it meanwhile."""
    try:
        if out.exists():
            out.rmdir()  # is empty, or it would have been refused
        folder.rename(out)
    except OSError as error:
        if error.errno not in TAKEN or not is_complete(out, inputs=inputs):
            raise
        shutil.rmtree(folder)
    flush_folder(out.parent)


def is_complete(out: Path, *, inputs: Inputs) -> bool:
    """Say whether `out` holds the finished work of `inputs`; other finished work is refused."""
    file = out / RECEIPT
    if not file.exists() and _holds_something(out) and not file.exists():  # it may have come
        raise ValueError(
            f"{out} has no receipt, so it is not whole, or was not made by this program: "
            "choose another place; an unfinished run's may be deleted"
        )
    if not file.exists():
        return False
    _refuse_difference(out, read_json(file), inputs)
    return True


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False


def discard_outdated(out: Path, *, inputs: Inputs) -> None:
    """Remove what was made from other inputs, finished or not: for what is soon made anew."""
    if rank() > 0:
        return
    for folder in (out, out.with_name(out.name + ".partial")):
        notes = [note for note in (folder / RECEIPT, folder / NOTE) if note.is_file()]
        if notes and differences(_inputs_in(notes[0]), inputs):
            shutil.rmtree(folder)


def inputs_of(folder: Path) -> dict[str, Any] | None:
    """Return the inputs of a stage, finished or not; None where it has left nothing."""
    notes = (folder / RECEIPT, folder.with_name(f"{folder.name}.partial") / NOTE)
    there = next((note for note in notes if note.is_file()), None)
    return _inputs_in(there) if there else None


def _inputs_in(note: Path) -> dict[str, Any]:
    return read_json(note) if note.stat().st_size else {}


def fingerprint(inputs: Inputs) -> str:
    """Return 16 hexadecimal digits that name these inputs."""
    return hashlib.sha256(_text(inputs).encode()).hexdigest()[:16]


def fingerprint_of(folder: Path) -> str:
    """Return the fingerprint of what a finished folder was made from."""
    return fingerprint(read_json(folder / RECEIPT))


def differences(was: Inputs, now: Inputs) -> list[str]:
    """Return one `key: was A, now B` per leaf that differs."""
    old, new = _leaves("", json.loads(_text(was))), _leaves("", json.loads(_text(now)))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key}: was {old.get(key, 'absent')}, now {new.get(key, 'absent')}" for key in keys]


def _refuse_difference(folder: Path, was: Inputs, now: Inputs) -> None:
    if found := differences(was, now):
        raise ValueError(
            f"{folder} was made from other inputs ({'; '.join(found[:3])}"
            f"{f'; and {len(found) - 3} more' if len(found) > 3 else ''}): "
            "choose another folder (--out), or delete that folder to make it anew"
        )


def _leaves(prefix: str, value: object) -> dict[str, object]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {str(place): entry for place, entry in enumerate(value)}
    if isinstance(value, dict) and value:
        pairs = [_leaves(f"{prefix}.{key}" if prefix else key, value[key]) for key in value]
        return {key: leaf for pair in pairs for key, leaf in pair.items()}
    return {prefix: value} if prefix else {}


def _text(inputs: Inputs) -> str:
    return json.dumps(inputs, sort_keys=True, indent=1)


def _wait(out: Path, inputs: Inputs) -> Path:
    """Return `out` when the first process has made it; the launcher ends this one if that died.

    Where the first process is on another machine, a line says after a while what is waited for.
    """
    silent_until = time.monotonic() + SILENT_SECONDS
    while not is_complete(out, inputs=inputs):
        time.sleep(0.5)
        if local_rank() == 0 and time.monotonic() > silent_until:
            silent_until = float("inf")
            sys.stderr.write(
                f"process {rank()} waits for {out}, which process 0 makes: all machines must see "
                "the same folder; stop this if process 0 has ended\n"
            )
    return out


Made = TypeVar("Made")


@dataclass(frozen=True)
class Failures:
    """The chapters of a report that failed, a text file each in `folder`: reason, then traceback.

    A report stands at the end of hours of work: a chapter that fails is left out of it by name. The
    stages that lead to the report must succeed.
    """

    folder: Path

    def attempt(self, chapter: str, make: Callable[[], Made]) -> Made | None:
        """Return what `make` makes, or None where it raises; Ctrl-C and BusyError go through."""
        try:
            return make()
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - no error of a chapter may cost the report
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"{chapter}.txt"
            write_whole(file, f"{reason}\n\n{traceback.format_exc()}")
            say(f"The chapter {chapter!r} could not be made ({reason}); see {file}")
            return None

    def reasons(self) -> dict[str, str]:
        """Return chapter -> reason, of all that failed since the last `clear`."""
        files = sorted(self.folder.glob("*.txt")) if self.folder.is_dir() else []
        return {file.stem: file.read_text(encoding="utf-8").splitlines()[0] for file in files}

    def clear(self) -> None:
        """Forget all failures, before everything is tried anew."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
