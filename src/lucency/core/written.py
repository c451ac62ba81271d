"""Files that the program wrote into a folder: changed tables are noticed, other files are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lucency.core.files import NEW, WAIT_SECONDS
from lucency.core.locks import LOCK, locked
from lucency.core.saved_files import (
    ANEW,
    CHECKSUM,
    Fields,
    fingerprint_content,
    fingerprint_file,
    read_fields,
    read_json,
    write_json,
)

RECEIPT = "receipt.json"  # in the folder of a stage
WRITTEN = "written.json"  # name -> fingerprint of a file's content, "" while it is written
NOTE = "inputs.json"  # in a stage that is not finished
OWN = {RECEIPT, NOTE, WRITTEN}
PASSING = re.compile(rf"^\.|^Thumbs\.db$|^desktop\.ini$|{re.escape(NEW)}$|{re.escape(LOCK)}$")
KINDS = (".csv", ".json", ".npy", ".npz", ".txt")  # that stages note; weights are not
SUMS = "shards/SHA256SUMS"  # in a folder of films: what holds the checksums of its shards
SEALED = (".csv", ".npy", ".npz")  # a stage without any of these has no note


def note_written(folder: Path) -> None:
    """State what tables and arrays of a stage hold, and texts beside them.

    Of folders below nothing is noted but the checksums of films.
    """
    names = [file.name for file in folder.iterdir() if file.suffix in KINDS and file.is_file()]
    names += [SUMS] if (folder / SUMS).is_file() else []
    if any(name.endswith(SEALED) for name in names):
        _note(folder, sorted({*names} - OWN))


def note_all(folder: Path) -> None:
    """State what all files in and below a folder hold.

    But for those that desktops leave there, and what is left of a file that was begun.
    """
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    kept = {file.as_posix() for file in files if not re.search(PASSING, file.name)}
    _note(folder, sorted(kept - OWN))


def refuse_changed(file: Path, content: bytes, *, remedy: str = ANEW) -> None:
    """Raise ValueError where a file's folder is a stage, and states another content of it."""
    _compare(file, lambda: fingerprint_content(content), remedy)


def refuse_damaged(folder: Path) -> None:
    """Raise ValueError where a file that a folder states is absent, or was changed."""
    for name, known in stated_of(folder).items():
        file = folder / name
        if not file.is_file() or known != fingerprint_file(file):
            found = "was changed after it was written" if file.exists() else "is absent"
            raise ValueError(
                f"{file} {found}: delete {folder}, then the same command makes it anew"
            )


def refuse_other_shards(folder: Path) -> None:
    """Raise ValueError where the films of a stage are not those that it wrote."""
    known = stated_of(folder).get(SUMS)
    if known and known != fingerprint_file(folder / SUMS):
        raise ValueError(
            f"{(folder / SUMS).parent} was changed or replaced after it was written; delete "
            f"{folder}, and its run makes it anew"
        )


def refuse_changed_file(file: Path, *, remedy: str = ANEW) -> None:
    """Raise ValueError as `refuse_changed` does, of what a file holds now."""
    _compare(file, lambda: fingerprint_file(file), remedy)


def read_stage_json(file: Path, *, remedy: str = ANEW) -> dict[str, Any]:
    """Return what `read_json` does of a file with a checksum; ValueError for another stage's too.

    A checksum that was taken out means that the file is to be used as it is.
    """
    held = read_json(file, remedy=remedy)
    if f'"{CHECKSUM}"' in file.read_text(encoding="utf-8"):
        refuse_changed_file(file, remedy=remedy)
    return held


def read_stage_fields(file: Path, fields: type[Fields]) -> Fields:
    """Return what `read_fields` does; ValueError too for what a stage did not write so."""
    held = read_fields(file, fields)
    refuse_changed_file(file)
    return held


def stated_of(folder: Path) -> dict[str, object]:
    """Return the fingerprints that a stage states of its files, none for other folders."""
    return _stated(folder) if (folder / RECEIPT).is_file() else {}


def _compare(file: Path, found: Callable[[], str], remedy: str) -> None:
    known = stated_of(file.parent).get(file.name)
    if known and known != found():
        raise ValueError(f"{file} was changed or replaced after it was written; {remedy}")


@contextmanager
def writing_into(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Let files of these names be written in a folder, which is made, and state what they hold.

    Another process that writes there is waited for. Raises ValueError as `refuse_others` does, and
    BusyError where the other one does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / WRITTEN, wait=WAIT_SECONDS):
        refuse_others(folder, names)
        write_json(folder / WRITTEN, {**_stated(folder), **dict.fromkeys(sorted(names), "")})
        try:
            yield
        finally:
            _note(folder, names)


def refuse_others(folder: Path, names: Collection[str]) -> None:
    """Raise ValueError unless files of these names, and no others, may be written in a folder.

    A file that is there must be as the program wrote it; what it wrote by other names there is
    another answer. A stage takes none.
    """
    if (folder / RECEIPT).is_file():
        raise ValueError(f"{folder} holds finished work: choose another folder (--out)")
    stated = _stated(folder)
    for file in (folder / name for name in names):
        if file.exists() and not _is_own(file, stated):
            found = "was changed since it was written"
            if file.name not in stated:
                found = f"is there, and no {WRITTEN} beside it names it"
            raise ValueError(f"{file} {found}: choose another folder (--out), or rename the file")
    for other in (one for one in stated if one not in names and _is_own(folder / one, stated)):
        raise ValueError(f"{folder} holds {other} of another answer: choose another folder (--out)")


def _is_own(file: Path, stated: dict[str, object]) -> bool:
    held = stated.get(file.name)
    return held is not None and file.is_file() and held in ("", fingerprint_file(file))


def _note(folder: Path, names: Iterable[str]) -> None:
    held = {name: fingerprint_file(folder / name) for name in names if (folder / name).is_file()}
    kept = {one: held for one, held in _stated(folder).items() if (folder / one).is_file()}
    write_json(folder / WRITTEN, dict(sorted({**kept, **held}.items())))


def _stated(folder: Path) -> dict[str, object]:
    note = folder / WRITTEN
    return read_json(note) if note.is_file() else {}
