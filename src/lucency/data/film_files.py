"""The content of films, wherever it lies: in a file of its own, or in an archive that stays packed.

A place is that of a file, or of a member of an archive (`lucency.data.film_names`). A compressed
tar is read from its start, so that many films of it are read together, in its order
(`in_reading_order`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lucency.core.manifest import counted
from lucency.core.memory import thread_pool
from lucency.core.parallel import usable_cores
from lucency.core.progress import progress, say, silent
from lucency.core.stores import StoredObject, find_object, read_object, url_of
from lucency.data.film_archives import (
    DAMAGE,
    HEADER,
    NOUNS,
    PASSING,
    PNG_START,
    SIXTEEN_BIT_PNG,
    FilmArchive,
    FilmStat,
    LoadedFilm,
    archive_of,
    is_streamed,
    load_member,
    modified_of,
    must_be_inflated,
    read_member,
    stat_of,
    stream_members,
)
from lucency.data.film_names import member_of, place_in
from lucency.data.film_size import LARGEST_FILE

PAUSE = 0.1  # seconds before a film is read once more
AHEAD = 8  # films that are fetched from a store before they are needed
STARTS, BATCH = 32, 4096  # films of a store whose first bytes are fetched at once, and of a turn


class StoredFilm(NamedTuple):
    """A film in a store, as it was listed: what a worker gets that may not see the listing."""

    place: str
    size: int
    modified: int


FilmFile = str | Path | LoadedFilm | StoredFilm


def film_exists(place: str | Path) -> bool:
    """Return whether a film is there; of an archive that is streamed, whether that is there."""
    if url_of(place):
        return find_object(place) is not None
    found = member_of(place)
    if found is None:
        return os.path.isfile(place)  # noqa: PTH113 - of many files
    archive, name = found
    try:
        return must_be_inflated(archive) or name in archive_of(archive).members
    except (OSError, ValueError):
        return False


def why_no_film(place: str | Path) -> str:
    """Return why there is no film at a place.

    Where a link leads is not stated: links to films of a DICOM archive hide the names of folders.
    """
    absent = "no such file"
    return "a link that leads to no file" if os.path.islink(place) else absent  # noqa: PTH114


def stat_film(place: str | Path) -> FilmStat | None:
    """Return a film's size and the sign of its content; None where it is not there."""
    if url_of(place):
        stored = find_object(place)
        return FilmStat(*stored) if stored else None
    found = member_of(place)
    try:
        if found is None:
            return stat_of(place)
        archive = archive_of(found[0])
    except (OSError, ValueError):
        return None
    member = archive.members.get(found[1])
    return FilmStat(member.size, modified_of(archive, member)) if member else None


def identify_films(places: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return what tells films apart whatever their paths: device, number of the file, and member.

    Links lead to one film, and so do two names of one file. In a store it is the URL. Raises
    OSError for a file that is not there.
    """
    found, archives = list[tuple[int, int, str]](), dict[Path, os.stat_result]()
    for place in places:
        if url := url_of(place):
            found.append((-1, -1, url))
            continue
        archive, name = member_of(place) or (Path(place), "")
        if name and archive not in archives:
            archives[archive] = archive.stat()
        status = archives[archive] if name else archive.stat()
        found.append((status.st_dev, status.st_ino, name))
    return found


def load_film(file: FilmFile) -> LoadedFilm:
    """Return the content of a film's file, or the reason why it cannot be had.

    Where a disk fails (PASSING) it is read once more, unless it lies in a compressed tar. Raises
    ValueError where a store fails: the film may be sound.
    """
    if isinstance(file, LoadedFilm):
        return file
    if isinstance(file, StoredFilm) or url_of(file):
        return _of_store(file if isinstance(file, StoredFilm) else _listed(file))
    found = member_of(file)
    read = partial(load_member, str(file), *found) if found else partial(_of_file, Path(file))
    try:
        return _patiently(read)
    except FileNotFoundError:
        return LoadedFilm(str(file), b"", 0, f"cannot be read: {why_no_film(file)}")
    except OSError as error:
        return LoadedFilm(str(file), b"", 0, f"cannot be read: {error.strerror}")
    except ValueError as error:
        return LoadedFilm(str(file), b"", 0, str(error))


def _patiently(read: Callable[[], LoadedFilm]) -> LoadedFilm:
    """Return what `read` does, tried once more where a disk fails."""
    try:
        return read()
    except OSError as error:
        if error.errno not in PASSING:
            raise
    time.sleep(PAUSE)
    return read()


def load_films(files: Sequence[FilmFile]) -> Iterator[LoadedFilm]:
    """Yield the content of films as `load_film` does; of a store, AHEAD are fetched meanwhile."""
    if not any(isinstance(file, StoredFilm) for file in files):
        yield from map(load_film, files)
        return
    with thread_pool(AHEAD) as pool:
        waiting = deque(pool.submit(load_film, file) for file in files[:AHEAD])
        try:
            for later in (*files[AHEAD:], *[None] * len(waiting)):
                loaded = waiting.popleft().result()
                if later is not None:
                    waiting.append(pool.submit(load_film, later))
                yield loaded
        finally:
            pool.shutdown(cancel_futures=True)


def film_content(file: FilmFile) -> bytes:
    """Return the content of a film's file; ValueError with the reason where it cannot be had."""
    loaded = load_film(file)
    if loaded.reason:
        raise ValueError(loaded.reason)
    return loaded.content


def film_start(place: str | Path) -> bytes:
    """Return the first bytes of a film, as many as state its bit depth, HEADER at most.

    No bytes for a film that cannot be read.
    """
    if url_of(place):
        return _start_in_store(place)
    found = member_of(place)
    try:
        if found is None:
            if not Path(place).is_file():
                return b""
            with Path(place).open("rb") as content:
                start = content.read(PNG_START)
                return start + content.read(HEADER) if SIXTEEN_BIT_PNG.match(start) else start
        archive = archive_of(found[0])
        member = archive.members[found[1]]
        if archive.streamed or member.reason:
            return member.start
        start = read_member(archive, member, PNG_START)
        return read_member(archive, member, HEADER) if SIXTEEN_BIT_PNG.match(start) else start
    except (*DAMAGE, KeyError):
        return b""


def film_starts(places: Sequence[str | Path]) -> Iterator[bytes]:
    """Yield what `film_start` does of each film; in a store, of STARTS at once."""
    if not any(map(url_of, places)):
        yield from map(film_start, places)
        return
    with thread_pool(STARTS) as pool:
        for first in range(0, len(places), BATCH):
            some = places[first : first + BATCH]
            stored = pool.map(film_start, [place for place in some if url_of(place)])
            yield from (next(stored) if url_of(place) else film_start(place) for place in some)


def in_reading_order(places: Sequence[str | Path]) -> Iterator[tuple[int, FilmFile]]:
    """Yield each place with its number among `places`, as files are best read.

    Those that can be read wherever they lie come first, in their order, as they are, in a store
    with what the listing states. Then each archive that is streamed is read once, and its films
    come loaded, in its order. One film is held at a time.
    """
    plain, streamed = _apart(places)
    yield from ((number, _listed(places[number])) for number in plain)
    for path, wanted in streamed.items():
        for number, loaded in stream_members(archive_of(path), wanted):
            yield number, loaded._replace(place=str(places[number]))


def reading_order(places: Sequence[str | Path]) -> tuple[list[int], list[int]]:
    """Return the numbers of the places that `in_reading_order` yields first, and of the others."""
    plain, streamed = _apart(places)
    later = list[int]()
    for path, wanted in streamed.items():
        members = archive_of(path).members
        offset = {name: member.offset for name, member in members.items() if not member.reason}
        later += [number for number, name in sorted(wanted, key=lambda one: offset.get(one[1], -1))]
    return plain, later


def _apart(
    places: Sequence[str | Path],
) -> tuple[list[int], dict[Path, list[tuple[int, str]]]]:
    """Return the films that can be read wherever they lie, and those of each streamed archive."""
    plain, streamed = list[int](), dict[Path, list[tuple[int, str]]]()
    for number, place in enumerate(places):
        found = member_of(place)
        if found and is_streamed(found[0]):
            streamed.setdefault(found[0], []).append((number, found[1]))
        else:
            plain.append(number)
    return plain, streamed


def fingerprint_film(file: FilmFile) -> str:
    """Return 16 hexadecimal digits of a film's content (SHA-256), as `fingerprint_file` does."""
    return hashlib.sha256(load_film(file).content).hexdigest()[:16]


def films_in(archives: Sequence[Path], *, named: bool = False) -> list[Path]:
    """Return the places of the films in these archives, in their order; lines say what is odd.

    Archives are listed side by side, a thread a core. One that cannot be opened is left out aloud,
    and where it is `named` ValueError is raised.
    """

    def listed(path: Path) -> FilmArchive | str:
        try:
            return archive_of(path)
        except (OSError, ValueError) as error:
            return str(error)

    found, films = [], list[Path]()
    with thread_pool(usable_cores()) as pool, _advancing(archives) as advance:
        for done, one in enumerate(pool.map(listed, archives), start=1):
            found.append(one)
            advance(done, len(archives))
    for archive in found:
        if isinstance(archive, str):
            if named:
                raise ValueError(archive)
            say(f"An archive is left out: {archive}")
            continue
        films += [place_in(archive.path, name) for name in archive.members]
        for remark in _remarks(archive):
            say(remark)
    return films


def _listed(place: str | Path) -> str | Path | StoredFilm:
    """Return a film in a store as it was listed, another as it is."""
    if not (url := url_of(place)):
        return place
    found = find_object(url)
    return StoredFilm(url, *(found or StoredObject(0, 0)))


def _start_in_store(place: str | Path) -> bytes:
    found = find_object(place)
    if not found or not found.size:
        return b""
    try:
        start = read_object(place, end=PNG_START)
        return read_object(place, end=HEADER) if SIXTEEN_BIT_PNG.match(start) else start
    except FileNotFoundError:
        return b""


def _of_store(film: str | Path | StoredFilm) -> LoadedFilm:
    assert isinstance(film, StoredFilm), "a film in a store"
    if reason := _too_large(film.size):
        return LoadedFilm(film.place, b"", 0, reason)
    try:
        return LoadedFilm(film.place, read_object(film.place), film.modified)
    except FileNotFoundError:
        return LoadedFilm(film.place, b"", 0, "cannot be read: not in the store")


def _of_file(path: Path) -> LoadedFilm:
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ValueError("cannot be read: a pipe or a device, expected a file")
    if reason := _too_large(found.st_size):
        raise ValueError(reason)
    return LoadedFilm(str(path), path.read_bytes(), found.st_mtime_ns)


def _too_large(size: int) -> str:
    """Return why a file of so many bytes is not read, "" for one that may be a film."""
    if size > LARGEST_FILE:
        return f"absurd size: a file of {size:,} bytes, expected at most {LARGEST_FILE:,}"
    return ""


def _remarks(archive: FilmArchive) -> Iterator[str]:
    """Yield a line on what was left out of an archive, and one on its damage."""
    if archive.left_out:
        parts = [f"{counted(number, NOUNS[kind])}" for kind, number in archive.left_out.items()]
        yield f"Left out of {archive.path}: {', '.join(parts)}"
    if archive.damage:
        films = counted(len(archive.members), "film", "is/are")
        yield (
            f"{archive.path} is damaged or cut short ({archive.damage}): {films} listed, what is "
            "behind the damage is not"
        )


@contextmanager
def _advancing(archives: Sequence[Path]) -> Iterator[Callable[..., None]]:
    """Lend what shows how many archives are listed, where one of them is read to its end for it."""
    if any(one.name.lower().endswith((".zip", ".tar")) is False for one in archives):
        with progress("Listing archives", unit="archives") as advance:
            yield advance
    else:
        yield silent
