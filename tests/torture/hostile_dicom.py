"""DICOM files that are cut, damaged, that lie, nest, or inflate to more than any film."""

import struct
from collections.abc import Iterator
from functools import cache

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from archives import deflate_bomb
from dicom_films import dicom_bytes, header, phantom_grey, stored_for
from torture.damage import cut, flipped, replaced, zeroed
from torture.hostile_pictures import blank_jpeg, many_scans

SYNTAXES = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless,
    DeflatedExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
ENDLESS, PIXELS = struct.pack("<I", 0xFFFFFFFF), b"\xe0\x7f\x10\x00OW"
PREAMBLE = 132
TAGS = ((0x28, 0x3010), (0x28, 0x3000), (0x29, 0x1010), (0x40, 0x275))
SEQUENCES = ((0x28, 0x3010), (0x28, 0x3000), (0x54, 0x220), (0x54, 0x410))  # that are read
NUMBERS = {b"US": struct.pack("<H", 5), b"FD": struct.pack("<d", 1.5)}  # VR -> a value


@cache
def films() -> tuple[bytes, ...]:
    """Return a whole film in each transfer syntax that can be written here."""
    stored = stored_for(phantom_grey())
    return tuple(dicom_bytes(stored, syntax=syntax) for syntax in SYNTAXES)


def damaged(times: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield a kind of damage and its files, `times` of each syntax, 64 where it is cut."""
    each = list(enumerate(films()))
    yield "cut at every 64th", [one for _, film in each for one in cut(film)]
    for what, ways in (("bits flipped", flipped), ("a block zeroed", zeroed)):
        yield (
            what,
            [one for n, film in each for one in ways(film, times=times, seed=n, first=PREAMBLE)],
        )
    yield (
        "a piece gone, doubled or random",
        [one for n, film in each for one in replaced(film, times=times, seed=n)],
    )
    yield (
        "bits flipped in the header",
        [
            head + film[len(head) :]
            for n, film in each
            for head in flipped(film[:900], times=times, seed=n, first=PREAMBLE)
        ],
    )


def lying() -> list[bytes]:
    """Return films whose rows, depths, frames and look-up tables are not what the pixels are."""
    stored, made = stored_for(phantom_grey()), list[bytes]()
    wrong = (0, 1, 31, 95, 97, 4_096, 16_384, 65_535)
    for syntax in SYNTAXES[1:]:
        made += [_lie(syntax, Rows=rows, Columns=rows) for rows in wrong]
    for name, values in {
        "BitsStored": (1, 8, 16), "NumberOfFrames": ("2", "-1", "9999999"),
        "SamplesPerPixel": (3, 0), "PixelRepresentation": (1, 7), "WindowWidth": ("0", "1e308"),
        "RescaleSlope": ("1e308", "-1", "0"), "PixelPaddingValue": (0, 65_535),
        "BodyPartExamined": ("HAND", "\x1b[31mCHEST\n"), "PhotometricInterpretation": ("RGB", ""),
    }.items():  # fmt: skip
        with disable_value_validation():
            made += [dicom_bytes(stored, **{name: value}) for value in values]
    return [*made, *(of_another_kind(tag, vr) for tag in SEQUENCES for vr in NUMBERS)]


def of_another_kind(tag: tuple[int, int], vr: bytes) -> bytes:
    """Return a film with a sequence's element that holds a number."""
    held = struct.pack("<HH", *tag) + vr + struct.pack("<H", len(NUMBERS[vr])) + NUMBERS[vr]
    return _before_pixels(films()[1], held)


def _lie(syntax: str, **elements: int) -> bytes:
    """Return a film with other numbers in its header than its pixels have."""
    content = dicom_bytes(stored_for(phantom_grey()), syntax=syntax)
    big = syntax == ExplicitVRBigEndian
    for name, value in elements.items():
        number = {"Rows": 0x10, "Columns": 0x11}[name]
        tag = struct.pack(">HH" if big else "<HH", 0x28, number) + b"US"
        place = content.find(tag)
        if place > 0:
            held = struct.pack(">H" if big else "<H", value)
            content = content[: place + 8] + held + content[place + 10 :]
    return content


def nested() -> list[bytes]:
    """Return films with sequences a thousand and more deep, or of a hundred thousand items."""
    plain, made = films()[1], list[bytes]()
    for tag in TAGS:
        for endless in (True, False):
            made += [
                _before_pixels(plain, _deep(tag, depth, endless)) for depth in (60, 1000, 9000)
            ]
            made.append(_before_pixels(plain, _sequence(tag, (ITEM + bytes(4)) * 100_000, endless)))
    many = b"".join(
        struct.pack("<HH", 0x29 + 2 * (n >> 12), 0x1000 + n % 4096) + b"LO\0\0"
        for n in range(110_000)
    )
    return [*made, _before_pixels(plain, many)]


def bombs() -> list[bytes]:
    """Return files below 1 MiB that inflate or decode to hundreds of MiB, or in many scans."""
    made = [deflate_bomb(beyond) for beyond in (64, 512, 900)]
    for side in (4_096, 16_320):
        for progressive in (False, True):
            made.append(encapsulated(blank_jpeg(side, progressive=progressive), side))
    made.append(encapsulated(many_scans(4_096, 20_000), 4_096))
    for side in (4_096, 16_384):
        made += [
            dicom_bytes(np.zeros((side, side), np.uint16), syntax=syntax)
            for syntax in (JPEG2000Lossless, JPEGLSLossless, RLELossless)
        ]
    return [one for one in made if len(one) < 1 << 20]


def encapsulated(frame: bytes, side: int) -> bytes:
    """Return a film of eight bits that holds a JPEG."""
    from dicom_films import written

    made = header(BitsAllocated=8, BitsStored=8)
    made.Rows = made.Columns = side
    made.HighBit, made.PixelData = 7, bytes(2)
    made["PixelData"].VR = "OW"
    whole = written(made, ExplicitVRLittleEndian)
    start = whole[: whole.index(PIXELS)]
    was, new = (str(one).encode() for one in (ExplicitVRLittleEndian, JPEGBaseline8Bit))
    padded = [one.ljust(len(one) + len(one) % 2, b"\0") for one in (was, new)]
    place = start.index(padded[0], PREAMBLE)
    grown = len(padded[1]) - len(padded[0])
    start = (
        start[: place - 2] + struct.pack("<H", len(padded[1])) + padded[1]
        + start[place + len(padded[0]) :]
    )  # fmt: skip
    length = struct.unpack_from("<I", start, 140)[0] + grown
    start = start[:140] + struct.pack("<I", length) + start[144:]
    held = encapsulate([frame], has_bot=True)
    return start + b"\xe0\x7f\x10\x00OB\0\0" + ENDLESS + held + SEQUENCE_END + bytes(4)


def _before_pixels(content: bytes, inserted: bytes) -> bytes:
    place = content.index(PIXELS)
    return content[:place] + inserted + content[place:]


def _sequence(tag: tuple[int, int], items: bytes, endless: bool) -> bytes:
    start = struct.pack("<HH", *tag) + b"SQ\0\0"
    if endless:
        return start + ENDLESS + items + SEQUENCE_END + bytes(4)
    return start + struct.pack("<I", len(items)) + items


def _deep(tag: tuple[int, int], depth: int, endless: bool) -> bytes:
    inner = b""
    for _ in range(depth):
        length, end = (ENDLESS, ITEM_END + bytes(4)) if endless else (None, b"")
        item = ITEM + (length or struct.pack("<I", len(inner))) + inner + end
        inner = _sequence(tag, item, endless)
    return inner


def lying_streams() -> list[bytes]:
    """Return films of JPEG 2000 whose stream states other tiles, offsets, components and depths."""
    film = dicom_bytes(stored_for(phantom_grey()), syntax=JPEG2000Lossless)
    start, made = film.index(b"\xff\x4f\xff\x51"), list[bytes]()
    places = {"side": (8, 12), "offset": (16, 20), "tile": (24, 28), "tile offset": (32, 36)}
    for place in places.values():
        for value in (0, 1, 2, 95, 97, 16_384, 2**31 - 1, 2**32 - 1):
            changed = bytearray(film)
            for at in place:
                struct.pack_into(">I", changed, start + at, value)
            made.append(bytes(changed))
    for components in (0, 2, 255, 16_384, 65_535):
        changed = bytearray(film)
        struct.pack_into(">H", changed, start + 40, components)
        made.append(bytes(changed))
    for at in range(42, 110):  # depth, sampling, coding style, levels, code blocks, quantisation
        for value in (0, 255):
            made.append(film[: start + at] + bytes([value]) + film[start + at + 1 :])
    return made
