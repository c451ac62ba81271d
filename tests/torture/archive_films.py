"""The films that archives hold, as Python's own zipfile and tarfile list them."""

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

FILM_ENDS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
INFLATERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
MOST = 1 << 25  # bytes to which an archive is inflated here
PIECE = 1 << 14  # bytes that are inflated at once: of fewer before damage nothing is known
ERRORS = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError,
          zipfile.BadZipFile, NotImplementedError, RuntimeError)  # fmt: skip
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ArchiveFilms(NamedTuple):
    """The names of an archive's films in its order, which of these hold what they should.

    `whole` is whether the archive was listed to its end, without damage.
    """

    names: list[str]
    intact: set[str]
    whole: bool


def films_of(archive: bytes, *, intact: bytes) -> ArchiveFilms:
    """Return the films of an archive's readable part; those that hold `intact` are intact.

    Films are known by their names. Links, sparse files and what is hidden are none. Raises one of
    ERRORS where nothing can be listed.
    """
    names, held, whole = list[str](), dict[str, bytes](), True
    try:
        for name, content in _members(archive):
            if is_film(plain := plain_name(name)):
                names.append(plain)
                held[plain] = content  # of several the last, as unpacking has it
    except ERRORS:
        if not names:
            raise
        whole = False
    return ArchiveFilms(names, {name for name, one in held.items() if one == intact}, whole)


def plain_name(name: str) -> str:
    """Return a member's name with slashes and without parts that lead elsewhere, printable."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = name.encode(errors="surrogateescape").decode("latin-1")
    parts = CONTROL.sub("?", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def is_film(name: str) -> bool:
    """Return whether a member is a film by its name, and not hidden."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name.lower().endswith(FILM_ENDS) and not hidden


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each regular file; no content where it cannot be read."""
    if archive.startswith(b"PK"):
        yield from _zip_members(archive)
        return
    inflater = next((one for start, one in INFLATERS.items() if archive.startswith(start)), None)
    tar, error = _inflated(inflater(io.BytesIO(archive))) if inflater else (archive, None)
    with tarfile.open(
        fileobj=io.BytesIO(tar), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as opened:
        for entry in iter(opened.next, None):
            if entry.size < 0:
                raise tarfile.ReadError("a negative size")
            if entry.isreg() and not entry.issparse():
                yield entry.name, tar[entry.offset_data : entry.offset_data + entry.size]
        end = tar[opened.offset :][: tarfile.BLOCKSIZE]
        if end != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end mark")
    if error:
        raise error


def _zip_members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for entry in opened.infolist():
            if entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16):
                continue
            name = entry.filename
            if not entry.flag_bits & 0x800:  # UTF-8 without its flag, as some systems write
                try:
                    name = name.encode("cp437").decode()
                except UnicodeError:
                    name = entry.filename
            yield name, _zip_content(opened, entry)


def _zip_content(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return a member's first bytes; none where it cannot be read, or another begins within it."""
    first, last = entry.header_offset, entry.header_offset + entry.compress_size
    if any(first < one.header_offset <= last for one in opened.infolist()):
        return b""
    try:
        with opened.open(entry) as content:
            return content.read(PIECE)
    except ERRORS:
        return b""


def _inflated(packed: io.BufferedIOBase) -> tuple[bytes, Exception | None]:
    """Return what a compressed file holds before its damage, MOST bytes at most, and the error."""
    held = io.BytesIO()
    try:
        while held.tell() < MOST:
            if not (piece := packed.read1(PIECE)):
                return held.getvalue(), None
            held.write(piece)
    except ERRORS as error:
        return held.getvalue(), error
    return held.getvalue(), ValueError("it inflates to more than is read here")
