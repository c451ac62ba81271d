"""Tables of a source in an object store: copied once a process, and read from there as any other.

Films stay in the store (`lucency.data.film_files`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath

from lucency.config.sections import Source
from lucency.core.files import write_whole
from lucency.core.memory import thread_pool
from lucency.core.stores import list_objects, named_place, read_object, url_of
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.film_names import kind_of_member

KINDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".xlsx")
TABLES = tuple(kind + packed for kind in KINDS for packed in ("", ".gz"))
DEEPEST = 2  # folders below the root, of tables that no pattern and no key names
AT_ONCE = 8


def tables_folder(place: Source) -> Path:
    """Return the folder of a source's tables: its root, or a copy of those of a store.

    Copied are tables in the root and DEEPEST folders below it, what `labels` names, and what the
    collection's patterns fit; all, or none. Raises ValueError in one line where they cannot be had.
    """
    url = url_of(place.root)
    if not url:
        return Path(place.root)
    known = COLLECTIONS.get(place.source)
    try:
        return _copied(url, place.labels, known.tables if known else (), os.getpid())
    except ValueError as error:
        raise ValueError(f"data.root: {error}") from None


def local_table(file: Path) -> Path:
    """Return a label file, or a copy of one in a store, with the tables beside it.

    Raises ValueError in one line where that is not there.
    """
    if not url_of(file):
        return file
    root, _, name = named_place(str(file)).rpartition("/")
    found = _copied(root, name, (), os.getpid()) / name
    if not found.is_file():
        raise ValueError(f"{root}/{name}: is not there; expected a label file (.csv or .csv.gz)")
    return found


@cache
def _copied(url: str, labels: str, patterns: tuple[str, ...], process: int) -> Path:
    root = Path(tempfile.mkdtemp(prefix="lucency-"))
    atexit.register(_remove, root, process)
    folder = root.joinpath(*url.replace("://", "/").split("/"))
    names = [name for name in list_objects(url) if _is_wanted(name, labels, patterns)]
    folder.mkdir(parents=True)

    def fetch(name: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(folder / name, read_object(f"{url}/{name}"))
        except FileNotFoundError:
            raise ValueError(f"{url}/{name}: was there a moment ago: run again") from None

    with thread_pool(AT_ONCE) as pool:
        for _ in pool.map(fetch, names):
            pass
    return folder


def _is_wanted(name: str, labels: str, patterns: tuple[str, ...]) -> bool:
    path, small = PurePosixPath(name), name.lower()
    if kind_of_member(name) == "hidden":
        return False
    if labels and (name == labels or name.startswith(labels.rstrip("/") + "/")):
        return True
    if any(path.match(pattern) for pattern in patterns):
        return True
    return small.endswith(TABLES) and len(path.parts) <= 1 + DEEPEST


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not a forked one
        shutil.rmtree(folder, ignore_errors=True)
