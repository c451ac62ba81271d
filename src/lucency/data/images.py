"""Film files: found on disk by name, and decoded to eight bits of grey.

Letters in shapes: n films, m found ones, h and w pixels of the film.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int64, UInt8

from lucency.core.manifest import Manifest
from lucency.core.tables import join_films

SUFFIXES = (".png", ".jpg", ".jpeg")
SHORTEST_SIDE, LONGEST_SIDE, WIDEST_RATIO = 32, 16_384, 4
BIT_DEPTHS = (8, 10, 12, 14, 16)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
JPEG_SCAN, JPEG_FILL = 0xDA, 0xFF


def locate_films(films: Manifest, root: Path) -> Manifest:
    """Return the films with their files' paths below `root` as the fact `path`, "" without a file.

    A film is named by its path below `root` as `core.tables.match_films` has it. One walk, links
    followed once. Raises ValueError when two files fit one name, and two names one file.
    """
    files = np.array(list(_pictures(root)), dtype=object)
    below = np.array([Path(file).relative_to(root).as_posix() for file in files], dtype=object)
    row = join_films(films.image, below, source=str(root))
    path = [str(files[place]) if place >= 0 else "" for place in row.tolist()]
    return replace(films, facts=films.facts.assign(path=path))


def found_films(films: Manifest) -> Int64[np.ndarray, " m"]:
    """Return the rows whose film was found on disk."""
    return np.flatnonzero(films.facts["path"].to_numpy(dtype=str) != "").astype(np.int64)


def read_grey(file: str | Path) -> UInt8[np.ndarray, "h w"]:
    """Decode a PNG or JPEG of any kind to eight bits of grey, exactly as OpenCV does.

    Colour becomes luma, transparency is ignored. Of more than eight bits the top eight are kept,
    counted from the smallest of 10, 12, 14 and 16 bits that holds the film's brightest pixel.
    Raises ValueError with the reason for a film that cannot be had whole: unreadable, empty, no
    picture, truncated, damaged (PNG checksums), or of an absurd size, which is never allocated.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    width, height = _checked_size(content)
    short, long = sorted((width, height))
    if short < SHORTEST_SIDE or long > LONGEST_SIDE or long > WIDEST_RATIO * short:
        raise ValueError(
            f"absurd size: {width} x {height} pixels, expected sides of {SHORTEST_SIDE} to "
            f"{LONGEST_SIDE} and at most {WIDEST_RATIO} : 1"
        )
    encoded = np.frombuffer(content, dtype=np.uint8)
    grey = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if grey is None:
        raise ValueError("damaged: its header is whole, its pixels cannot be decoded")
    if grey.dtype == np.uint8:
        return grey
    depth = next(depth for depth in BIT_DEPTHS if int(grey.max()) < 2**depth)
    return np.right_shift(grey, depth - 8).astype(np.uint8)


def _pictures(root: Path) -> Iterator[str]:
    """Yield the path of every picture file below `root`; folders reached twice are read once."""
    folders, seen = [str(root)], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    yield entry.path


def _checked_size(content: bytes) -> tuple[int, int]:
    if not content:
        raise ValueError("zero bytes")
    if content.startswith(PNG_SIGNATURE):
        return _png_size(content)
    if content.startswith(JPEG_SIGNATURE):
        return _jpeg_size(content)
    raise ValueError("not an image: neither PNG nor JPEG")


def _png_size(content: bytes) -> tuple[int, int]:
    """Return width and height; all chunks up to IEND must be there, the critical ones whole."""
    place, kind, view = len(PNG_SIGNATURE), b"", memoryview(content)
    while kind != b"IEND":
        if place + 12 > len(content):
            raise ValueError("truncated: the PNG has no end")
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            raise ValueError("truncated: the PNG has no end")
        checksum = struct.unpack_from(">I", content, end)[0]
        if kind[:1].isupper() and zlib.crc32(view[place + 4 : end]) != checksum:
            raise ValueError(f"damaged: wrong checksum in the PNG's {kind.decode('latin-1')}")
        place = end + 4
    if content[12:16] != b"IHDR":
        raise ValueError("damaged: the PNG does not begin with its header")
    width, height = struct.unpack_from(">II", content, len(PNG_SIGNATURE) + 8)
    return width, height


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Return width and height from the frame header; an end marker must follow the first scan."""
    place, size = 2, (0, 0)
    while place + 9 <= len(content):
        marker, length = struct.unpack_from(">xBH", content, place)
        if marker == JPEG_FILL:
            place += 1
            continue
        if marker in JPEG_SIZES:
            height, width = struct.unpack_from(">HH", content, place + 5)
            size = (width, height)
        if marker == JPEG_SCAN and content.find(JPEG_END, place) > 0:
            return size
        place += 2 + length
    raise ValueError("truncated: the JPEG has no end")
