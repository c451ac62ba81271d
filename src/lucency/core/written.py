"""Files that the program wrote into a folder: changed tables are noticed, other files are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lucency.core.saved_files import (
    ANEW,
    fingerprint_content,
    fingerprint_file,
    read_json,
    write_json,
)

WRITTEN = "written.json"  # name -> fingerprint of a file's content, "" while it is written
KINDS = (".csv", ".json", ".txt")  # files of a stage that are small and read again


def note_written(folder: Path, *, besides: tuple[str, ...]) -> None:
    """State what the tables of a folder hold, and texts beside them, but for some names."""
    names = [file.name for file in folder.iterdir() if file.suffix in KINDS and file.is_file()]
    if any(name.endswith(".csv") for name in names):
        _note(folder, sorted({*names} - {*besides, WRITTEN}))


@contextmanager
def writing_into(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Let files of these names be written in a folder, which is made, and state what they hold.

    Raises ValueError where one of them is there that the program did not write, or that somebody
    changed since, and where others of another answer are.
    """
    names, stated = sorted(names), _stated(folder)
    for other in (one for one in stated if one not in names and (folder / one).exists()):
        raise ValueError(f"{folder} holds {other} of another answer: choose another folder (--out)")
    for file in (folder / name for name in names):
        held = stated.get(file.name)
        if file.exists() and (held is None or (held and held != fingerprint_file(file))):
            found = "was changed since it was written" if held else "is there, by somebody else"
            raise ValueError(f"{file} {found}: choose another folder (--out), or rename the file")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / WRITTEN, {**stated, **dict.fromkeys(names, "")})
    yield
    _note(folder, names)


def refuse_changed(file: Path, content: bytes, *, remedy: str = ANEW) -> None:
    """Raise ValueError where a file's folder states another content of it."""
    if _stated(file.parent).get(file.name, "") not in ("", fingerprint_content(content)):
        raise ValueError(f"{file} was changed or replaced after it was written; {remedy}")


def _note(folder: Path, names: Iterable[str]) -> None:
    held = {name: fingerprint_file(folder / name) for name in names if (folder / name).is_file()}
    write_json(folder / WRITTEN, {**_stated(folder), **held})


def _stated(folder: Path) -> dict[str, object]:
    note = folder / WRITTEN
    return read_json(note) if note.is_file() else {}
