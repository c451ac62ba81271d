"""Where a film's bytes lie: in a file of its own, or in a zip or tar archive that stays packed.

A place is text or a path: that of a file, or ARCHIVE::/MEMBER, such as
`images_001.tar.gz::/images/00000001_000.png`. A member's name is only ever compared with names; it
never becomes a path. Members of zip and of plain tar are read wherever they lie. A compressed tar
is read from its start, so that many films of it are read together, in its order
(`in_reading_order`). What an archive holds is listed once a process.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from lucency.core.files import write_whole
from lucency.core.manifest import counted
from lucency.core.parallel import usable_cores
from lucency.core.progress import progress, say, silent
from lucency.data.dicom import is_dicom
from lucency.data.film_size import LARGEST_FILE

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
EXPECTED_FILMS = "PNG, JPEG or DICOM films, or archives of them (.zip, .tar, .tar.gz)"
SYSTEM_NAMES = {  # of files and folders that systems leave beside films, in lower case
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
    "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip
OTHER_FORMATS = (
    ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".jpe", ".jfif", ".heic",
)  # fmt: skip
NO_FILMS = (  # files that need not be opened to see that they are no DICOM
    ".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".html", ".md", ".pdf", ".xls", ".xlsx",
    ".parquet", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".npy", ".npz", ".pt", ".pth", ".pkl",
    ".onnx", ".safetensors", ".nii", ".py", ".ipynb", ".toml", ".yaml", ".yml", ".log",
)  # fmt: skip
FRAGMENT, FRAGMENT_ENDS = ".azdownload-", (".part", ".crdownload")  # of downloads cut short
DICOM_DIRECTORY = "dicomdir"
ARCHIVE_SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
)  # fmt: skip
MARK = "::/"  # between an archive and a member
_ENDS = "|".join(map(re.escape, sorted(ARCHIVE_SUFFIXES, key=len, reverse=True)))
PLACE = re.compile(rf"(.+?(?:{_ENDS}))::[/\\](.+)", re.IGNORECASE | re.DOTALL)
PACKED = re.compile(rf"(?:{_ENDS})::(?=/)", re.IGNORECASE)
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
INFLATE: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open,
}  # fmt: skip
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ENCRYPTED, UTF8 = 0x1, 0x800  # flags of a zip's member
DAMAGE = (
    EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    struct.error, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
FREE, MOST_RATIO = 1 << 26, 100  # bytes that may inflate from nothing; of more, from one byte
BLOCK, PART = 1 << 18, 1 << 14  # bytes that are skipped, and inflated, at once
SIXTEEN_BIT_PNG = re.compile(rb"\x89PNG\r\n\x1a\n.{16}\x10", re.DOTALL)
DICOM_START = 132  # bytes of a file, by which it is known as DICOM
PNG_START = 26  # bytes of a PNG up to its colour type
HEADER = 16_384  # bytes of a film before its pixels, at most
CHUNK_BYTES = 1 << 23  # of loaded films that are handed over together
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


FilmFile = str | Path | LoadedFilm


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


# --- places ----------------------------------------------------------------------------------


def member_of(place: str | Path) -> tuple[Path, str] | None:
    """Return the archive and the member's name of a place; None for a file of its own.

    >>> member_of("a/films.zip::/b/1.png"), member_of("a/films.zip")
    ((PosixPath('a/films.zip'), 'b/1.png'), None)
    """
    found = PLACE.fullmatch(str(place))
    return (Path(found[1]), found[2].replace("\\", "/")) if found else None


def place_in(archive: Path, name: str) -> Path:
    """Return the place of a member of an archive."""
    return Path(f"{archive}{MARK}{name}")


def name_below(place: str | Path, root: Path) -> str:
    """Return a place below `root` by the name it would have in an archive that were unpacked.

    >>> name_below("films/images_001.tar.gz::/images/1.png", Path("films"))
    'images_001/images/1.png'
    """
    return PACKED.sub("", Path(place).relative_to(root).as_posix(), count=1)


def folder_of(place: str | Path) -> str:
    """Return the name of the folder that a film lies in, of the archive where there is none."""
    return Path(PACKED.sub("", Path(place).as_posix(), count=1)).parent.name


def film_exists(place: str | Path) -> bool:
    """Return whether a film is there; of an archive that is streamed, whether that is there."""
    found = member_of(place)
    if found is None:
        return Path(place).is_file()
    archive, name = found
    try:
        known = _LISTED.get(str(archive))
        if (known is None or known.stat != _stat_of(archive)) and _inflater(archive):
            return True
        return name in archive_of(archive).members
    except (OSError, ValueError):
        return False


def stat_film(place: str | Path) -> FilmStat | None:
    """Return a film's size and the sign of its content; None where it is not there."""
    found = member_of(place)
    try:
        if found is None:
            return _stat_of(Path(place))
        archive = archive_of(found[0])
    except (OSError, ValueError):
        return None
    member = archive.members.get(found[1])
    return FilmStat(member.size, _modified(archive, member)) if member else None


def load_film(file: FilmFile) -> LoadedFilm:
    """Return the content of a film's file, or the reason why it cannot be had."""
    if isinstance(file, LoadedFilm):
        return file
    found = member_of(file)
    try:
        return _of_file(Path(file)) if found is None else _of_member(str(file), *found)
    except OSError as error:
        return LoadedFilm(str(file), b"", 0, f"cannot be read: {error.strerror}")
    except ValueError as error:
        return LoadedFilm(str(file), b"", 0, str(error))


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
        start = _read_member(archive, member, PNG_START)
        return _read_member(archive, member, HEADER) if SIXTEEN_BIT_PNG.match(start) else start
    except (*DAMAGE, KeyError):
        return b""


def in_reading_order(places: Sequence[str | Path]) -> Iterator[tuple[int, FilmFile]]:
    """Yield each place with its number among `places`, as files are best read.

    Those that can be read wherever they lie come first, in their order, as they are. Then each
    archive that is streamed is read once, and its films come loaded, in its order. One film is held
    at a time.
    """
    streamed: dict[Path, list[tuple[int, str]]] = {}
    for number, place in enumerate(places):
        found = member_of(place)
        if found and _is_streamed(found[0]):
            streamed.setdefault(found[0], []).append((number, found[1]))
        else:
            yield number, place
    for path, wanted in streamed.items():
        for number, loaded in _streamed(archive_of(path), wanted):
            yield number, loaded._replace(place=str(places[number]))


def in_chunks(places: Sequence[str | Path], *, films: int) -> Iterator[list[tuple[int, FilmFile]]]:
    """Yield so many films of `in_reading_order` at once; fewer where loaded ones are large."""
    chunk, held = list[tuple[int, FilmFile]](), 0
    for number, file in in_reading_order(places):
        chunk.append((number, file))
        held += len(file.content) if isinstance(file, LoadedFilm) else 0
        if len(chunk) == films or held > CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def fingerprint_film(file: FilmFile) -> str:
    """Return 16 hexadecimal digits of a film's content (SHA-256), as `fingerprint_file` does."""
    return hashlib.sha256(load_film(file).content).hexdigest()[:16]


# --- archives --------------------------------------------------------------------------------


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
    with ThreadPoolExecutor(usable_cores()) as pool, _advancing(archives) as advance:
        for done, one in enumerate(pool.map(listed, archives), start=1):
            found.append(one)
            advance(done, len(archives))
    for archive in found:
        if isinstance(archive, str):
            if named:
                raise ValueError(archive)
            say(f"Left out is an archive: {archive}")
            continue
        films += [place_in(archive.path, name) for name in archive.members]
        for remark in _remarks(archive):
            say(remark)
    return films


def archive_of(path: Path) -> FilmArchive:
    """Return what an archive holds, listed at most once while it is the same file.

    Raises ValueError, which names it, where it cannot be opened.
    """
    try:
        now = _stat_of(path)
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
    """Take what `save_archives` wrote as known, of archives that have the same size and time."""
    if not (folder / ARCHIVES).is_file():
        return
    for below, kept in json.loads((folder / ARCHIVES).read_text(encoding="utf-8")).items():
        _LISTED.setdefault(
            str(root / below),
            FilmArchive(
                path=root / below,
                stat=FilmStat(*kept["stat"]),
                kind="compressed tar",
                members={
                    name: Member(offset, size, start=bytes.fromhex(start), reason=reason)
                    for name, offset, size, start, reason in kept["members"]
                },
                left_out=kept["left_out"],
                damage=kept["damage"],
            ),
        )


# --- names -----------------------------------------------------------------------------------


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or a system's, by its name in lower case."""
    return name.startswith(".") or name in SYSTEM_NAMES


def kind_of_name(name: str) -> str:
    """Return what a file is by its name in lower case; "" where only its first bytes can tell.

    The kinds are the fields of `lucency.data.images.Walk`.
    """
    if name.endswith(SUFFIXES[0]) and not name.startswith("."):  # most files of most folders
        return "films"
    if name.startswith(FRAGMENT) or name.endswith(FRAGMENT_ENDS):
        return "fragments"
    if is_hidden(name):
        return "hidden"
    for kind, ends in KINDS.items():
        if name.endswith(ends):
            return kind
    return "dicomdirs" if name == DICOM_DIRECTORY else ""


KINDS = {
    "films": SUFFIXES,
    "archives": ARCHIVE_SUFFIXES,
    "other_formats": OTHER_FORMATS,
    "others": NO_FILMS,
}


def _member_name(name: str) -> str:
    """Return a member's name as plain text with slashes, without parts that lead elsewhere.

    Bytes that are no UTF-8 are read as Latin-1, so that every name can be written in a table.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = name.encode("utf-8", "surrogateescape").decode("latin-1")
    parts = UNPRINTABLE.sub("?", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _kind_of_member(name: str) -> str:
    """Return the kind of a member by its name; "hidden" below a hidden folder, too."""
    *folders, file = name.lower().split("/")
    if any(is_hidden(one) for one in folders):
        return "hidden"
    return kind_of_name(file)


# --- listing ---------------------------------------------------------------------------------


class _Listing:
    """The films and what is left out of an archive, as it is listed."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.left_out: Counter[str] = Counter()

    def add(self, name: str, member: Member, *, start: Callable[[], bytes]) -> None:
        """Take a member in, by its name, or by its `start` where the name does not tell."""
        name = _member_name(name)
        kind = _kind_of_member(name) or ("films" if is_dicom(start()) else "others")
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
    with path.open("rb") as content:
        start = content.read(2)
    if start == b"PK":
        return "zip"
    return "compressed tar" if _inflater(path) else "tar"


def _list_zip(path: Path, now: FilmStat, listing: _Listing) -> None:
    archive = _open_zip(str(path), now)
    for number, entry in enumerate(archive.infolist()):
        if entry.is_dir():
            continue
        if stat.S_ISLNK(entry.external_attr >> 16):
            listing.left_out[LINK] += 1
            continue
        member = Member(number, entry.file_size, entry.CRC, reason=_zip_refusal(entry))

        def start(entry: zipfile.ZipInfo = entry, reason: str = member.reason) -> bytes:
            try:
                with archive.open(entry) as content:
                    return b"" if reason else content.read(DICOM_START)
            except DAMAGE:
                return b""

        listing.add(_zip_name(entry), member, start=start)


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
    if size > LARGEST_FILE or size > FREE + MOST_RATIO * packed:
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
    for entry in iter(archive.next, None):
        vars(archive)["members"].clear()  # the library would keep them all
        if entry.issym() or entry.islnk():
            listing.left_out[LINK] += 1
        if not entry.isreg() or entry.issparse():
            continue
        start = b""
        if streamed or not _kind_of_member(_member_name(entry.name)):
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


# --- reading ---------------------------------------------------------------------------------


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
            if self.place > FREE + MOST_RATIO * self._packed.tell():
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


def _streamed(
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


def _of_file(path: Path) -> LoadedFilm:
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ValueError("cannot be read: a pipe or a device, expected a file")
    return LoadedFilm(str(path), path.read_bytes(), found.st_mtime_ns)


def _of_member(place: str, path: Path, name: str) -> LoadedFilm:
    archive = archive_of(path)
    member = archive.members.get(name)
    if member is None:
        raise ValueError(ABSENT_MEMBER.format(path.name))
    if archive.streamed:
        _warn_slow(str(path))
        return next(_streamed(archive, [(0, name)]))[1]._replace(place=place)
    if member.reason:
        raise ValueError(member.reason)
    try:
        content = _read_member(archive, member, member.size)
        if len(content) < member.size:
            raise EOFError("it ends within the film")
    except DAMAGE as error:
        raise ValueError(_damaged(path, error)) from error
    return LoadedFilm(place, content, _modified(archive, member))


def _read_member(archive: FilmArchive, member: Member, count: int) -> bytes:
    """Return the first bytes of a member that is read wherever it lies."""
    if archive.kind == "zip":
        opened = _open_zip(str(archive.path), archive.stat)
        with opened.open(opened.infolist()[member.offset]) as content:
            return content.read(count)
    with archive.path.open("rb") as content:
        content.seek(member.offset)
        return content.read(min(count, member.size))


def _modified(archive: FilmArchive, member: Member) -> int:
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
    with path.open("rb") as content:
        start = content.read(max(map(len, INFLATE)))
    return next((way for magic, way in INFLATE.items() if start.startswith(magic)), None)


def _is_streamed(path: Path) -> bool:
    try:
        return archive_of(path).streamed
    except ValueError:
        return False


def _stat_of(path: Path) -> FilmStat:
    found = path.stat()
    return FilmStat(found.st_size, found.st_mtime_ns)


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


ABSENT_MEMBER = "cannot be read: not in {}"
LINK, TWICE = "links", "twice"
NOUNS = {  # of what is left out of an archive
    "hidden": "hidden or system file",
    "fragments": "half-downloaded file",
    "dicomdirs": "DICOMDIR file",
    "archives": "archive in the archive",
    "other_formats": "picture in another format",
    LINK: "link",
    TWICE: "earlier film of the same name",
}
