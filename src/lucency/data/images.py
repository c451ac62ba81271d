"""Film files: found on disk and in archives by name, and decoded to eight bits of grey.

Letters in shapes: n films, m found ones, h and w pixels of the film.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Int64, Shaped, UInt, UInt8

from lucency.core.manifest import Manifest, counted
from lucency.core.progress import say
from lucency.core.stores import list_objects, named_place, place_text, url_of
from lucency.core.tables import fitting_films, join_films
from lucency.data.dicom import GreyFilm, decode_dicom, is_dicom
from lucency.data.film_archives import DICOM_START
from lucency.data.film_files import FilmFile, film_content, film_exists, films_in
from lucency.data.film_names import (
    ARCHIVE_SUFFIXES,
    EXPECTED_FILMS,
    is_hidden,
    kind_of_member,
    kind_of_name,
    member_of,
    name_below,
)
from lucency.data.film_size import refuse_absurd, refuse_scans

LEFT_OUT = {  # fields of `Walk`, in words
    "hidden": ("hidden or system file", ""),
    "hidden_folders": ("hidden or system folder", ""),
    "other_formats": ("picture", " in another format"),
    "fragments": ("half-downloaded file", ""),
    "dicomdirs": ("DICOMDIR file", ""),
    "unreadable_folders": ("folder", " that cannot be read"),
    "others": ("file", " without the name or first bytes of a film"),
}
BESIDE = tuple(LEFT_OUT)[:-1]  # what is odd beside films that a table names
BIT_DEPTHS = (8, 10, 12, 14, 16)
DEEPEST, MOST_SATURATED = 2**16 - 1, 0.01
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
JPEG_SCAN, JPEG_FILL = 0xDA, 0xFF
EXIF = b"Exif\0\0"  # may say that a JPEG is to be turned, which OpenCV does
PNG_NEEDED = {b"eXIf"}  # of the chunks that a picture can be shown without
PNG_CHUNKS = re.compile(rb"IHDR(PLTE)?(IDAT)+IEND")  # of those that it cannot be shown without
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour
PNG_NUMBERED = 3  # the colours of a palette


class Walk(NamedTuple):
    """The films below a folder, in order of their paths, and what else is there, by its kind."""

    films: tuple[Path, ...]
    hidden: tuple[Path, ...]  # or a system's: files
    hidden_folders: tuple[Path, ...]
    other_formats: tuple[Path, ...]
    fragments: tuple[Path, ...]  # of downloads
    dicomdirs: tuple[Path, ...]
    unreadable_folders: tuple[Path, ...]
    archives: tuple[Path, ...]  # whose films are not listed here
    others: tuple[Path, ...]  # files that are no pictures by their names


def walk_films(root: Path) -> Walk:
    """Return what lies below `root`: PNG, JPEG and DICOM files, what is left out, and others.

    Files are known by their names, and DICOM files of other names by their first bytes. Left out is
    what is hidden (its name begins with a dot), what systems and broken downloads leave beside
    films, and pictures of other formats. Links are followed. A folder that is reached on several
    ways is read once, by its own path where it has one below `root`; a link to a folder above leads
    nowhere. In a store, files are known by their names alone, archives are among the others, and
    all files of a hidden folder are hidden.
    """
    if url_of(root):
        return _walk_store(root)
    own, linked = [root], list[Path]()
    seen = {_identity(place) for place in root.resolve().parents}
    kinds = {name: list[Path]() for name in Walk._fields}
    while own or linked:
        folder = own.pop() if own else linked.pop(0)
        try:
            if (place := _identity(folder)) in seen:
                continue
            seen.add(place)
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            kinds["unreadable_folders"].append(folder)
            continue
        for entry in inside:
            kind, file = _kind(entry), Path(entry.path)
            if kind == "folder":
                (linked if entry.is_symlink() else own).append(file)
            else:
                kinds[kind].append(file)
    return Walk(**{name: tuple(sorted(files)) for name, files in kinds.items()})


def _walk_store(root: Path) -> Walk:
    kinds = {name: list[Path]() for name in Walk._fields}
    for name in list_objects(str(root)):
        kinds[kind_of_member(name) or "others"].append(root / name)
    kinds["others"] += kinds.pop("archives")
    return Walk(**{name: tuple(sorted(kinds.get(name, ()))) for name in Walk._fields})


def film_files(root: Path) -> tuple[Path, ...]:
    """Return the films below `root` as `walk_films` does, then those in archives below it.

    Lines say what is left out: every file that is no film, and of an archive, its films that lie
    beside it, unpacked.
    """
    found = _walk_aloud(root, kinds=tuple(LEFT_OUT))
    there = {str(file) for file in found.films}
    packed = films_in(found.archives)
    left = tuple(film for film in packed if there.isdisjoint(_unpacked(film)))
    if len(left) < len(packed):
        films = counted(len(packed) - len(left), "film", "lies/lie", of=len(packed))
        say(f"{films} in archives below {root} beside them, too, unpacked: the files are taken")
    return (*found.films, *left)


def films_below(places: Iterable[Path]) -> list[Path]:
    """Return the films at these places, each once, folders searched to the bottom as above.

    An archive gives its films; another file that is named is taken as it is, and so is an object of
    a store. Raises ValueError for a folder or archive without films, and for an archive or a store
    that cannot be opened.
    """
    files = dict[Path, None]()
    for place in places:
        place = Path(named_place(str(place)))  # of file:// the path
        found = (place,)
        if url_of(place):
            found = (place,) if film_exists(place) else film_files(place)
        elif place.is_dir():
            found = film_files(place)
        elif place.is_file() and place.name.lower().endswith(ARCHIVE_SUFFIXES):
            found = films_in([place], named=True)
        if not found:
            raise ValueError(f"{place} holds no film; expected {EXPECTED_FILMS}")
        files |= dict.fromkeys(found)
    return list(files)


def _walk_aloud(root: Path, *, kinds: Sequence[str] = BESIDE) -> Walk:
    """Return what lies below `root`; a line says what of these kinds is left out."""
    found = walk_films(root)
    packed = [file for file in found.others if kind_of_name(file.name.lower()) == "archives"]
    if packed:  # only in a store
        found = found._replace(others=tuple(file for file in found.others if file not in packed))
        archives = counted(len(packed), "archive", "is/are")
        say(f"{archives} not read below {url_of(root)}: films in a store are read unpacked")
    if remark := _left_out(found, root, kinds=kinds):
        say(remark)
    return found


def _unpacked(film: Path) -> tuple[str, str]:
    """Return where a film of an archive would lie, had that been unpacked where it lies."""
    found = member_of(film)
    assert found is not None, "a film of an archive"
    archive, name = found
    folder = name_below(film, archive.parent)  # below a folder called like the archive
    return str(archive.parent / name), str(archive.parent / folder)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", or the field of Walk that an entry belongs to.

    A link that leads nowhere is a film by its name, or a folder where that has no suffix.
    """
    name, lost = entry.name.lower(), False
    try:
        holds = Path(entry.path).stat() and entry.is_dir() if entry.is_symlink() else entry.is_dir()
    except OSError:
        holds, lost = False, not Path(name).suffix
    if holds and is_hidden(name):
        return "hidden_folders"
    kind = kind_of_name(name)
    if holds or (lost and kind != "hidden"):
        return "unreadable_folders" if lost else "folder"
    return kind or ("films" if entry.is_file() and _is_dicom_file(entry.path) else "others")


def _is_dicom_file(file: str) -> bool:
    try:
        with open(file, "rb", buffering=0) as content:  # noqa: PTH123 - of many files
            return is_dicom(content.read(DICOM_START))
    except OSError:
        return False


def _left_out(found: Walk, root: Path, *, kinds: Sequence[str]) -> str:
    """Return the line that says what a walk left out, "" for nothing."""
    several = {kind: getattr(found, kind) for kind in kinds}
    parts = [
        f"{counted(len(files), noun)}{why} ({files[0].relative_to(root)}"
        f"{', …' if len(files) > 1 else ''})"
        for files, (noun, why) in ((files, LEFT_OUT[kind]) for kind, files in several.items())
        if files
    ]
    return f"Left out below {root}: {', '.join(parts)}" if parts else ""


def locate_films(films: Manifest, root: Path) -> Manifest:
    """Return the films with their places below `root` as the fact `path`, "" without a file.

    A film is named by its path below `root` as `core.tables.match_films` has it; files are those of
    `walk_films`. What is found among them is not looked for in archives: these are only opened for
    films that lie nowhere else. Raises ValueError when two files fit one name, and two names one
    file.
    """
    found = _walk_aloud(root)
    path = _matched(films.image, found.films, root)
    absent = np.flatnonzero(path == "")
    if found.archives and len(absent):
        packed = films_in(found.archives)
        path[absent] = _matched(films.image[absent], packed, root)
        _say_twice(np.delete(films.image, absent), packed, root)
    elif found.archives:
        first = found.archives[0].relative_to(root)
        more = ", …" if len(found.archives) > 1 else ""
        say(f"All films lie unpacked below {root}: its archives are not read ({first}{more})")
    return replace(films, facts=films.facts.assign(path=path))


def _matched(
    image: Shaped[np.ndarray, " n"], files: Sequence[Path], root: Path
) -> Shaped[np.ndarray, " n"]:
    """Return the place of each film among `files`, "" where it is at none."""
    below = np.array([name_below(file, root) for file in files], dtype=object)
    shown = [str(file.relative_to(root)) for file in files]
    row = join_films(image, below, source=str(root), shown=shown).tolist()
    return np.array([place_text(files[one]) if one >= 0 else "" for one in row], dtype=object)


def _say_twice(image: Shaped[np.ndarray, " m"], packed: Sequence[Path], root: Path) -> None:
    """Say how many of the films that lie in files of their own lie in archives as well."""
    below = np.array([name_below(film, root) for film in packed], dtype=object)
    twice = sum(bool(rows) for rows in fitting_films(image, below)) if len(image) else 0
    if twice:
        films = counted(twice, "film", "lies/lie", of=len(image))
        say(f"{films} unpacked below {root} and in an archive: the files are taken")


def found_films(films: Manifest) -> Int64[np.ndarray, " m"]:
    """Return the rows whose film was found on disk."""
    return np.flatnonzero(films.facts["path"].to_numpy(dtype=str) != "").astype(np.int64)


def read_grey(file: FilmFile, *, bits: int = 0) -> UInt8[np.ndarray, "h w"]:
    """Decode a PNG or JPEG of any kind to eight bits of grey, exactly as OpenCV does.

    The file may lie in an archive (`lucency.data.film_files`). Colour becomes luma, transparency is
    ignored. A DICOM film, whatever its suffix, is what a display shows (`lucency.data.dicom`). Of
    more than eight bits the top eight are kept, counted from `bits`, the depth of its data set
    (`lucency.data.bit_depth`; 0: what holds all but a hundredth of its own pixels); brighter pixels
    are white.
    Raises ValueError with the reason for a film that cannot be had whole: unreadable, empty, no
    picture, truncated, damaged (PNG checksums; whatever libjpeg warns of, in its words), or of an
    absurd size, which is never allocated.
    """
    return read_film(file, bits=bits).grey


def read_film(file: FilmFile, *, bits: int = 0) -> GreyFilm:
    """Return a film's grey as `read_grey` does, and which of its pixels are padding."""
    return decode_film(film_content(file), bits=bits)


def decode_film(content: bytes, *, bits: int = 0) -> GreyFilm:
    """Return the film that a file's content holds, in eight bits, as `read_film` does."""
    if is_dicom(content):
        return decode_dicom(content)
    grey = decode(content)
    if grey.dtype == np.uint8:
        return GreyFilm(grey)
    bits = bits or bits_that_hold([grey])
    return GreyFilm(np.right_shift(np.minimum(grey, 2**bits - 1), bits - 8).astype(np.uint8))


def bits_that_hold(greys: Sequence[UInt[np.ndarray, ...]], *, least: int = 0) -> int:
    """Return the smallest of `least` and more BIT_DEPTHS that holds the pixels of films, 8 of none.

    It holds all but a share of MOST_SATURATED, films counting alike. Pixels at the end of 16 bits
    do not count: they are markers, borders and defects; of a film of 16 bits they are few.
    """
    for bits in sorted({least or BIT_DEPTHS[0], *BIT_DEPTHS}):
        above = [((grey >> bits != 0) & (grey != DEEPEST)).mean() for grey in greys if bits < 16]
        if bits >= least and (not above or np.mean(above) <= MOST_SATURATED):
            return bits
    return BIT_DEPTHS[-1]


def decode(content: bytes) -> UInt[np.ndarray, "h w"]:
    """Return the grey of a PNG or JPEG file's content as stored, in 8 or 16 bits; of DICOM, shown.

    Raises ValueError as `read_grey` does.
    """
    if not content:
        raise ValueError("zero bytes")
    if content.startswith(PNG_SIGNATURE):
        size, shown = _checked_png(content)
        refuse_absurd(*size, held=len(content))
        return _decoded_by_opencv(shown)
    if content.startswith(JPEG_SIGNATURE):
        refuse_absurd(*_jpeg_size(content), held=len(content))
        refuse_scans(content)
        return _decoded_jpeg(content)
    if is_dicom(content):
        return decode_dicom(content).grey
    raise ValueError("not an image: neither PNG, JPEG nor DICOM")


def _decoded_by_opencv(content: bytes) -> UInt[np.ndarray, "h w"]:
    encoded = np.frombuffer(content, dtype=np.uint8)
    grey = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if grey is None:
        raise ValueError("damaged: its header is whole, its pixels cannot be decoded")
    return grey


def _decoded_jpeg(content: bytes) -> UInt8[np.ndarray, "h w"]:
    """Return a JPEG's grey; ValueError with the words of libjpeg for what it warns of.

    OpenCV writes such warnings to the terminal and goes on. simplejpeg raises them, and its luma is
    OpenCV's bit for bit: both are of libjpeg-turbo.
    """
    try:
        inks = simplejpeg.decode_jpeg_header(content)[2] in ("CMYK", "YCCK")
        grey = simplejpeg.decode_jpeg(content, "CMYK" if inks else "GRAY")
    except ValueError as error:
        raise ValueError(f"damaged: {error}") from error
    return _decoded_by_opencv(content) if inks or EXIF in content else grey[:, :, 0]


def _checked_png(content: bytes) -> tuple[tuple[int, int], bytes]:
    """Return width and height, and the file without chunks that its picture does not need.

    All chunks up to IEND must be there, the critical ones whole, in order, under a header that PNG
    knows. Of others (colour profiles, texts), and of what is refused, OpenCV would write to the
    terminal.
    """
    place, kind, view = len(PNG_SIGNATURE), b"", memoryview(content)
    shown, critical = [view[:place]], list[bytes]()
    while kind != b"IEND":
        if place + 12 > len(content):
            raise ValueError("truncated: the PNG has no end")
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            raise ValueError("truncated: the PNG has no end")
        checksum = struct.unpack_from(">I", content, end)[0]
        whole = zlib.crc32(view[place + 4 : end]) == checksum
        if kind[:1].isupper():
            _refuse_checksum(kind, whole=whole)
            critical.append(kind)
        if kind[:1].isupper() or (kind in PNG_NEEDED and whole):
            shown.append(view[place : end + 4])
        place = end + 4
    return _png_size(content, b"".join(critical)), b"".join(shown)


def _refuse_checksum(kind: bytes, *, whole: bool) -> None:
    if not whole:
        named = kind.decode("latin-1") if kind.isalpha() else f"chunk of type {kind.hex()}"
        raise ValueError(f"damaged: wrong checksum in the PNG's {named}")


def _png_size(content: bytes, critical: bytes) -> tuple[int, int]:
    """Return width and height of a PNG; ValueError where header and chunks are not as in PNG."""
    if content[8:16] != b"\0\0\0\rIHDR":
        raise ValueError("damaged: the PNG does not begin with its header")
    width, height, bits, colour, *ways = struct.unpack_from(">IIBBBBB", content, 16)
    if bits not in PNG_DEPTHS.get(colour, ()) or max(ways[:2]) > 0 or ways[2] > 1:
        raise ValueError(
            f"damaged: the PNG's header states {bits} bits of colour type {colour}, compression "
            f"{ways[0]}, filter {ways[1]}, interlacing {ways[2]}: there is no such PNG"
        )
    found = PNG_CHUNKS.fullmatch(critical)
    if not found or (colour == PNG_NUMBERED and not found[1]):
        raise ValueError("damaged: the PNG lacks its palette or pixels, or has them out of order")
    return width, height


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Return width and height from the frame header; an end marker must follow the first scan."""
    place, size, last = 2, (0, 0), content.rfind(JPEG_END)
    while place + 9 <= len(content):
        marker, length = struct.unpack_from(">xBH", content, place)
        if marker == JPEG_FILL:
            place += 1
            continue
        if marker in JPEG_SIZES:
            height, width = struct.unpack_from(">HH", content, place + 5)
            size = (width, height)
        if marker == JPEG_SCAN and last >= place:
            return size
        place += 2 + length
    raise ValueError("truncated: the JPEG has no end")
