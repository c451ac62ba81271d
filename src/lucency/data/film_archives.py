"""Archives of films, zip and tar, that stay packed: what they hold, and the content of members.

Members of zip and of plain tar are read wherever they lie; a compressed tar is read from its start.
What an archive holds is listed once a process.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from lucency.core.files import write_whole
from lucency.core.progress import say
from lucency.core.saved_files import naming_damage, read_json
from lucency.data.dicom import is_dicom
from lucency.data.film_names import kind_of_member, member_name, member_of
from lucency.data.film_size import LARGEST_FILE, MOST_RATIO, inflates_too_far

INFLATE: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open,
}  # fmt: skip
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL_HEADER = 30  # bytes before a member of a zip, and its name
ENCRYPTED, UTF8 = 0x1, 0x800  # flags of a zip's member
DAMAGE = (
    EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    struct.error, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}  # a disk fails, perhaps not for long
BLOCK, PART = 1 << 18, 1 << 14  # bytes that are skipped, and inflated, at once
SIXTEEN_BIT_PNG = re.compile(rb"\x89PNG\r\n\x1a\n.{16}\x10", re.DOTALL)
DICOM_START = 132  # bytes of a file, by which it is known as DICOM
PNG_START = 26  # bytes of a PNG up to its colour type
HEADER = 16_384  # bytes of a film before its pixels, at most
OPEN_ZIPS = 64
ARCHIVES = "archives.json"  # what archives that are streamed hold, kept beside a manifest


class FilmStat(NamedTuple):
    """A film's size in bytes, and what is another number when its content has changed.

    That is the time of the file or of the tar archive, in nanoseconds, or a zip member's CRC.
    """

    size: int
    modified: int


class LoadedFilm(NamedTuple):
    """The content of a film's file; or the reason why it cannot be had, then without content."""

    place: str
    content: bytes
    modified: int
    reason: str = ""


class Member(NamedTuple):
    """A film in an archive: where it begins (of a zip: its number there), size, checksum in a zip.

    `start` are its first bytes where the archive is streamed; `reason` says why it cannot be read.
    """

    offset: int
    size: int
    crc: int = 0
    start: bytes = b""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmArchive:
    """What an archive holds: its films by name, in its order, and what else is there, counted.

    `damage` says why it could not be listed to its end, "" where it could.
    """

    path: Path
    stat: FilmStat
    kind: Literal["zip", "tar", "compressed tar"]
    members: Mapping[str, Member]
    left_out: Mapping[str, int]
    damage: str

    @property
    def streamed(self) -> bool:
        """Whether it can only be read from its start."""
        return self.kind == "compressed tar"


_LISTED: dict[str, FilmArchive] = {}  # of this process, by path; void once size or time differ


def archive_of(path: Path) -> FilmArchive:
    """Return what an archive holds, listed at most once while it is the same file.

    Raises ValueError, which names it, where it cannot be opened.
    """
    try:
        now = stat_of(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror}") from error
    known = _LISTED.get(str(path))
    if known is None or known.stat != now:
        known = _LISTED[str(path)] = _listed(path, now)
    return known


def save_archives(places: Iterable[str], *, root: Path, folder: Path) -> None:
    """Write what the streamed archives of these places hold, so that none is read again for it."""
    paths = dict.fromkeys(found[0] for place in places if (found := member_of(place)))
    kept = {
        path.relative_to(root).as_posix(): {
            "stat": archive.stat,
            "left_out": dict(archive.left_out),
            "damage": archive.damage,
            "members": [
                [name, one.offset, one.size, one.start.hex(), one.reason]
                for name, one in archive.members.items()
            ],
        }
        for path in paths
        if (archive := archive_of(path)).streamed
    }
    if kept:
        write_whole(folder / ARCHIVES, json.dumps(kept))


def recall_archives(folder: Path, *, root: Path) -> None:
    """Take what `save_archives` wrote as known, of archives that have the same size and time.

    Raises ValueError where it is damaged.
    """
    if not (folder / ARCHIVES).is_file():
        return
    held = read_json(folder / ARCHIVES)
    with naming_damage(folder / ARCHIVES, kinds=(ValueError, TypeError, LookupError)):
        for below, kept in held.items():
            _LISTED.setdefault(str(root / below), _recalled(root / below, kept))


def _recalled(path: Path, kept: Mapping[str, Any]) -> FilmArchive:
    return FilmArchive(
        path=path,
        stat=FilmStat(*kept["stat"]),
        kind="compressed tar",
        members={
            name: Member(offset, size, start=bytes.fromhex(start), reason=reason)
            for name, offset, size, start, reason in kept["members"]
        },
        left_out=kept["left_out"],
        damage=kept["damage"],
    )


def must_be_inflated(path: Path) -> bool:
    """Return whether listing an archive would inflate it whole: it is compressed, and not known."""
    known = _LISTED.get(str(path))
    return (known is None or known.stat != stat_of(path)) and _inflater(path) is not None


class _Listing:
    """The films and what is left out of an archive, as it is listed."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.left_out: Counter[str] = Counter()

    def add(self, name: str, member: Member, *, start: Callable[[], bytes]) -> None:
        """Take a member in, by its name, or by its `start` where the name does not tell."""
        name = member_name(name)
        kind = kind_of_member(name) or ("films" if is_dicom(start()) else "others")
        if kind == "films":
            if self.members.pop(name, None):  # as unpacking has it
                self.left_out[TWICE] += 1
            self.members[name] = member
        elif kind in NOUNS:
            self.left_out[kind] += 1


def _listed(path: Path, now: FilmStat) -> FilmArchive:
    """Return what an archive holds; ValueError where not one header of it can be read."""
    listing, damage, kind = _Listing(), "", "zip"
    try:
        kind = _kind_of_archive(path)
        if kind == "zip":
            _list_zip(path, now, listing)
        else:
            _list_tar(path, listing, streamed=kind != "tar")
    except DAMAGE as error:
        damage = " ".join(str(error).split()) or type(error).__name__
        if kind == "zip" or not (listing.members or listing.left_out):
            raise ValueError(
                f"{path} cannot be opened: {damage}; expected a whole zip or tar archive: fetch "
                "it again"
            ) from error
    return FilmArchive(
        path=path, stat=now, kind=kind, members=listing.members, left_out=listing.left_out,
        damage=damage,
    )  # fmt: skip


def _kind_of_archive(path: Path) -> Literal["zip", "tar", "compressed tar"]:
    """Return what an archive is by its first bytes, whatever its name says."""
    if _start_of_file(path, 2) == b"PK":
        return "zip"
    return "compressed tar" if _inflater(path) else "tar"


def _list_zip(path: Path, now: FilmStat, listing: _Listing) -> None:
    archive = _open_zip(str(path), now)
    overlapping = _overlapping(archive.infolist())
    for number, entry in enumerate(archive.infolist()):
        if entry.is_dir():
            continue
        if stat.S_ISLNK(entry.external_attr >> 16):
            listing.left_out[LINK] += 1
            continue
        reason = OVERLAPS if entry.header_offset in overlapping else _zip_refusal(entry)
        member = Member(number, entry.file_size, entry.CRC, reason=reason)

        def start(entry: zipfile.ZipInfo = entry, reason: str = member.reason) -> bytes:
            try:
                with archive.open(entry) as content:
                    return b"" if reason else content.read(DICOM_START)
            except DAMAGE:
                return b""

        listing.add(_zip_name(entry), member, start=start)


def _overlapping(entries: Iterable[zipfile.ZipInfo]) -> set[int]:
    """Return where members begin that reach past the next one's header.

    So a few bytes inflate again and again (D. Fifield, A better zip bomb, 2019).
    """
    by_place = sorted(entries, key=lambda one: one.header_offset)
    return {
        one.header_offset
        for one, following in pairwise(by_place)
        if one.header_offset + LOCAL_HEADER + one.compress_size > following.header_offset
    }


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """Return a member's name; as UTF-8 where it is that without the flag, as some systems write."""
    if entry.flag_bits & UTF8:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _zip_refusal(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & ENCRYPTED:
        return "encrypted in its archive: expected an archive without a password"
    if entry.compress_type not in ZIP_METHODS:
        return (
            f"compressed by method {entry.compress_type} of zip, expected stored, deflated, bzip2 "
            "or LZMA: pack the archive anew, or unpack it"
        )
    return _size_refusal(entry.file_size, packed=entry.compress_size)


def _size_refusal(size: int, *, packed: int) -> str:
    """Return why a member of this size, declared, is no film; "" where it may be one."""
    if size > LARGEST_FILE or inflates_too_far(size, packed=packed):
        return f"absurd size: {size:,} bytes in its archive, which holds them in {packed:,}"
    return ""


class _StrictHeader(tarfile.TarInfo):
    """A tar header that is refused where it is damaged; the library takes that for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictHeader:
        """Return the header of 512 bytes; ReadError for others than it and the end's zeros."""
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(str(error) if buf else "it has no end mark") from error
        if found.size < 0:
            raise tarfile.ReadError("a member of negative size")
        return found


def _list_tar(path: Path, listing: _Listing, *, streamed: bool) -> None:
    about: Any = {"tarinfo": _StrictHeader, "encoding": "utf-8", "errors": "surrogateescape"}
    if not streamed:
        with tarfile.open(path, "r:", **about) as archive:
            _list_members(archive, listing, streamed=False)
        return
    with _Inflated(path) as content:
        with tarfile.open(fileobj=cast(Any, content), mode="r|", bufsize=BLOCK, **about) as archive:
            _list_members(archive, listing, streamed=True)
        while content.read(BLOCK):  # to the checksum behind it
            pass


def _list_members(archive: tarfile.TarFile, listing: _Listing, *, streamed: bool) -> None:
    last = -1
    for entry in iter(archive.next, None):
        if entry.size < 0 or entry.offset <= last:  # by an extended header: it would come again
            raise tarfile.ReadError("a member of negative size")
        last = entry.offset
        vars(archive)["members"].clear()  # the library would keep them all
        if entry.issym() or entry.islnk():
            listing.left_out[LINK] += 1
        if entry.issparse():
            listing.left_out[SPARSE] += 1
        if not entry.isreg() or entry.issparse():
            continue
        start = b""
        if streamed or not kind_of_member(member_name(entry.name)):
            start = _start_of_entry(archive, entry)
        refusal = _size_refusal(entry.size, packed=entry.size)
        member = Member(entry.offset_data, entry.size, reason=refusal)
        if streamed:
            member = member._replace(start=start)
        listing.add(entry.name, member, start=lambda start=start: start)


def _start_of_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """Return the bytes of a member by which its kind and its bit depth are known."""
    held = archive.extractfile(entry)
    assert held is not None, "a regular member has content"
    try:
        start = held.read(DICOM_START)
        if SIXTEEN_BIT_PNG.match(start):
            start += held.read(HEADER - len(start))
            pixels = start.find(b"IDAT")
            return start[: pixels + 8 if pixels > 0 else HEADER]
    except DAMAGE:  # which the next header will meet
        return b""
    return start if is_dicom(start) else start[:PNG_START]


class _Inflated:
    """A compressed file, read from its start to its end; what precedes damage is read whole.

    Raises ValueError where it inflates to more than any archive of films.
    """

    def __init__(self, path: Path) -> None:
        inflater = _inflater(path)
        assert inflater is not None, "a compressed file"
        self._packed: BinaryIO = path.open("rb")
        self._plain = inflater(self._packed)
        self._damage: Exception | None = None
        self.place = 0

    def __enter__(self) -> _Inflated:
        return self

    def __exit__(self, *_: object) -> None:
        self._plain.close()
        self._packed.close()

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end, and before damage, which is raised then."""
        if self._damage is not None:
            raise self._damage
        parts, left = [], count
        while left:
            try:
                part = self._plain.read1(min(left, PART))
            except DAMAGE as error:
                self._damage = error
                break
            if not part:
                break
            parts.append(part)
            left -= len(part)
            self.place += len(part)
            if inflates_too_far(self.place, packed=self._packed.tell()):
                raise ValueError(f"it inflates to more than {MOST_RATIO} times its size")
        if left == count and self._damage is not None:
            raise self._damage
        return b"".join(parts)

    def take(self, offset: int, size: int) -> bytes:
        """Return the bytes at an offset, which must not lie behind; EOFError where some lack."""
        while self.place < offset:
            if not self.read(min(BLOCK, offset - self.place)):
                raise EOFError("it ends early")
        content = self.read(size)
        if len(content) < size:
            raise self._damage or EOFError("it ends within the film")
        return content


def stream_members(
    archive: FilmArchive, wanted: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, LoadedFilm]]:
    """Yield the numbered members of an archive, in its order; those behind damage with a reason."""
    modified, spans = archive.stat.modified, list[tuple[int, Member]]()
    for number, name in wanted:
        if (member := archive.members.get(name)) is None or member.reason:
            reason = member.reason if member else ABSENT_MEMBER.format(archive.path.name)
            yield number, LoadedFilm("", b"", 0, reason)
        else:
            spans.append((number, member))
    damage, content, last = "", b"", -1
    with _Inflated(archive.path) as stream:
        for number, member in sorted(spans, key=lambda one: one[1].offset):
            try:
                if not damage and member.offset != last:  # one film may be wanted several times
                    content, last = stream.take(member.offset, member.size), member.offset
            except DAMAGE as error:
                damage = _damaged(archive.path, error)
            film = LoadedFilm("", content, modified)
            yield number, LoadedFilm("", b"", 0, damage) if damage else film


def load_member(place: str, path: Path, name: str) -> LoadedFilm:
    """Return the content of an archive's member, called `place`; ValueError with the reason.

    Raises OSError (PASSING) where the disk fails, unless the archive is streamed.
    """
    archive = archive_of(path)
    member = archive.members.get(name)
    if member is None:
        raise ValueError(ABSENT_MEMBER.format(path.name))
    if archive.streamed:
        _warn_slow(str(path))
        return next(stream_members(archive, [(0, name)]))[1]._replace(place=place)
    if member.reason:
        raise ValueError(member.reason)
    try:
        content = read_member(archive, member, member.size)
        if len(content) < member.size:
            raise EOFError("it ends within the film")
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            raise
        raise ValueError(_damaged(path, error)) from error
    return LoadedFilm(place, content, modified_of(archive, member))


def read_member(archive: FilmArchive, member: Member, count: int) -> bytes:
    """Return the first bytes of a member that is read wherever it lies."""
    if archive.kind == "zip":
        opened = _open_zip(str(archive.path), archive.stat)
        with opened.open(opened.infolist()[member.offset]) as content:
            return content.read(count)
    with archive.path.open("rb") as content:
        content.seek(member.offset)
        return content.read(min(count, member.size))


def modified_of(archive: FilmArchive, member: Member) -> int:
    """Return what is another number when a member's content has changed."""
    return member.crc if archive.kind == "zip" else archive.stat.modified


def _damaged(path: Path, error: Exception) -> str:
    why = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be read from {path.name}: {why}"


@lru_cache(maxsize=OPEN_ZIPS)
def _open_zip(path: str, now: FilmStat) -> zipfile.ZipFile:
    """Return an open zip, which several threads may read; `now` keeps it from growing stale."""
    del now
    return zipfile.ZipFile(path)


@lru_cache
def _warn_slow(path: str) -> None:
    say(
        f"{path} can only be read from its start: each single film takes seconds a gigabyte; "
        "unpack it where that is too slow"
    )


def _inflater(path: Path) -> Callable[..., Any] | None:
    """Return what opens a compressed file, by its first bytes; None for one that is not."""
    start = _start_of_file(path, max(map(len, INFLATE)))
    return next((way for magic, way in INFLATE.items() if start.startswith(magic)), None)


def _start_of_file(path: Path, count: int) -> bytes:
    """Return a file's first bytes; ValueError for a pipe, which would wait for its other end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError("a pipe or a device, no file")
    with path.open("rb") as content:
        return content.read(count)


def is_streamed(path: Path) -> bool:
    """Return whether an archive can only be read from its start."""
    try:
        return archive_of(path).streamed
    except ValueError:
        return False


def stat_of(path: str | Path) -> FilmStat:
    """Return the size and time of a file; OSError where it is not there."""
    found = os.stat(path)  # noqa: PTH116 - of many files
    return FilmStat(found.st_size, found.st_mtime_ns)


OVERLAPS = "damaged: in its archive it reaches into the next file"
ABSENT_MEMBER = "cannot be read: not in {}"
LINK, SPARSE, TWICE = "links", "sparse", "twice"
NOUNS = {  # of what is left out of an archive
    "hidden": "hidden or system file",
    "fragments": "half-downloaded file",
    "dicomdirs": "DICOMDIR file",
    "archives": "archive in the archive",
    "other_formats": "picture in another format",
    LINK: "link",
    SPARSE: "sparse file",
    TWICE: "earlier film of the same name",
}
