"""PNG and JPEG files that are cut, damaged, that lie, or that are made to use up memory or time."""

import struct
import zlib
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np

from torture.damage import cut, flipped, replaced, zeroed

PNG, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd9"
GREY, COLOUR, PALETTE, COLOUR_ALPHA = 0, 2, 3, 6  # colour types of PNG
CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, COLOUR_ALPHA: 4}
SIDES = ((65_535, 65_535), (2**31 - 1, 2**31 - 1), (16_384, 16_384), (16_384, 4_096), (0, 96),
         (96, 0), (1, 1), (31, 96), (97, 96), (95, 96), (96, 4_000))  # fmt: skip


@cache
def grey(side: int = 96) -> np.ndarray:
    """Return a picture with edges, slopes and noise, always the same."""
    generator = np.random.default_rng(1)
    slope = np.linspace(20, 200, side)[:, None] + np.linspace(0, 40, side)
    picture = (slope + generator.normal(0, 4, (side, side))).clip(0, 255).astype(np.uint8)
    return cv2.circle(picture, (side // 3, side // 2), side // 6, 240, -1)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def png_header(
    width: int, height: int, *, bits: int = 8, colour: int = GREY, adam7: bool = False
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, adam7))


def png_of(*chunks: bytes) -> bytes:
    return PNG + b"".join(chunks) + chunk(b"IEND", b"")


@cache
def whole() -> dict[str, bytes]:
    """Return one whole picture of each kind that films come in, by name and suffix."""
    picture = grey()
    deep = picture.astype(np.uint16) * 256 + 7
    colour = cv2.merge([picture, 255 - picture, picture // 2])
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    palette = b"".join(bytes((one, one, one)) for one in range(256))
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    return {
        "PNG": _encoded(".png", picture),
        "PNG of 16 bits": _encoded(".png", deep),
        "PNG in colour": _encoded(".png", colour),
        "PNG with palette": png_of(
            png_header(96, 96, colour=PALETTE), chunk(b"PLTE", palette),
            chunk(b"tRNS", bytes(256)), chunk(b"IDAT", zlib.compress(rows)),
        ),
        "JPEG": _encoded(".jpg", picture),
        "JPEG in colour": _encoded(".jpg", colour, progressive),
    }  # fmt: skip


def damaged(times: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield a kind of damage and its files: `times` of each picture, 64 where it is cut."""
    pictures = whole().values()
    yield "cut at every 64th", [one for each in pictures for one in cut(each)]
    yield (
        "bits flipped",
        [one for n, each in enumerate(pictures) for one in flipped(each, times=times, seed=n)],
    )
    yield (
        "a block zeroed",
        [one for n, each in enumerate(pictures) for one in zeroed(each, times=times, seed=n)],
    )
    yield (
        "a piece gone, doubled or random",
        [one for n, each in enumerate(pictures) for one in replaced(each, times=times, seed=n)],
    )
    yield (
        "bits flipped, PNG checksums right",
        [
            with_checksums(one)
            for n, (name, each) in enumerate(whole().items())
            if name.startswith("PNG")
            for one in flipped(each, times=times, seed=100 + n, first=16)
        ],
    )


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have, as far as they can be found."""
    made, place = [content[:8]], 8
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if place + 12 + length > len(content):
            break
        made.append(chunk(kind, content[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join([*made, content[place:]])


def lying() -> list[bytes]:
    """Return pictures whose headers state other sizes, depths or channels than there are."""
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in grey()))
    made = [
        png_of(png_header(width, height, bits=bits, colour=colour), chunk(b"IDAT", rows))
        for width, height in SIDES
        for bits, colour in ((8, GREY), (16, GREY), (8, COLOUR), (16, COLOUR_ALPHA), (3, PALETTE))
    ]
    for jpeg in (whole()["JPEG"], whole()["JPEG in colour"]):
        place = next(at for at in map(jpeg.find, (b"\xff\xc0", b"\xff\xc2")) if at > 0)
        for width, height in SIDES:
            size = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
            made.append(jpeg[: place + 5] + size + jpeg[place + 9 :])
        for channels in (0, 1, 2, 3, 4, 255):
            made.append(jpeg[: place + 9] + bytes([channels]) + jpeg[place + 10 :])
        made += [jpeg[: place + 4] + bytes([bits]) + jpeg[place + 5 :] for bits in (0, 1, 12, 16)]
    return made


def chatty() -> list[bytes]:
    """Return pictures with texts, profiles and comments that are huge, or inflate to be."""
    rows = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in grey())))
    head, bomb = png_header(96, 96), deflated(1 << 29)
    texts = [
        chunk(b"tEXt", b"Comment\0" + b"x" * 900_000),
        chunk(b"zTXt", b"Comment\0\0" + bomb),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"profile\0\0" + bomb),
        chunk(b"eXIf", b"MM\0*" + b"\xff" * 900_000),
        chunk(b"sPLT", b"p\0\x08" + b"x" * 900_000),
        b"".join(chunk(b"tEXt", b"a\0b") for _ in range(60_000)),
    ]
    made = [png_of(head, text, rows) for text in texts] + [png_of(head, rows, texts[1])]
    made.append(png_of(head, *(chunk(b"IDAT", b"") for _ in range(70_000)), rows))
    jpeg = whole()["JPEG"]
    for marker in (b"\xff\xe1", b"\xff\xe2", b"\xff\xfe", b"\xff\xed"):
        segment = marker + struct.pack(">H", 65_535) + b"Exif\0\0" + b"\xff" * 65_527
        made.append(jpeg[:2] + segment * 15 + jpeg[2:])
    return made


def bombs() -> list[bytes]:
    """Return files below 1 MiB that decode to hundreds of MiB, or take scan after scan."""
    side, made = 16_384, []
    for bits, colour in ((8, GREY), (16, GREY), (8, COLOUR), (16, COLOUR_ALPHA), (1, GREY)):
        row = 1 + side * CHANNELS[colour] * bits // 8
        for adam7 in (False, True):
            head = png_header(side, side, bits=bits, colour=colour, adam7=adam7)
            made.append(png_of(head, chunk(b"IDAT", deflated(row * side))))
    made.append(png_of(png_header(64, 64), chunk(b"IDAT", deflated(1 << 30))))
    made += [blank_jpeg(16_320), blank_jpeg(16_320, progressive=True)]
    made += [many_scans(side, count) for side, count in ((96, 20_000), (4_096, 20_000))]
    made.append(endless_scans(1_000_000))
    return [one for one in made if len(one) < 1 << 20]


@cache
def deflated(size: int) -> bytes:
    """Return so many zeros, deflated to a thousandth."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.compress(bytes(size % (1 << 20))), packer.flush()])


@cache
def blank_jpeg(side: int, *, progressive: bool = False) -> bytes:
    choices = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return _encoded(".jpg", np.zeros((side, side), np.uint8), choices)


def many_scans(side: int, count: int) -> bytes:
    """Return a progressive JPEG of one grey, whose last scan is repeated up to `count` times."""
    made = blank_jpeg(side, progressive=True)
    scan = made[made.rindex(b"\xff\xda") : -len(JPEG_END)]
    return made[: -len(JPEG_END)] + scan * min(count, 900_000 // len(scan)) + JPEG_END


def endless_scans(size: int) -> bytes:
    """Return a JPEG of so many bytes that is nothing but beginnings of scans, without an end."""
    return b"\xff\xd8" + b"\xff\xda\x00\x02" * (size // 4)


def foreign() -> list[bytes]:
    """Return what is no PNG and no JPEG, and what only begins like one."""
    generator, picture = np.random.default_rng(2), grey()
    others = [_encoded(suffix, picture) for suffix in (".bmp", ".tiff", ".webp", ".jp2", ".pgm")]
    starts = (b"", b"\0", PNG, PNG[:4], b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9",
              b"GIF89a", b"<html>", b"\x80\x04.", b"PK\x03\x04", b"\x1f\x8b", b"%PDF")  # fmt: skip
    noise = [generator.bytes(4_096) for _ in range(10)]
    return [*others, *starts, *(start + one for start in starts for one in noise), bytes(1 << 20)]


def _encoded(suffix: str, picture: np.ndarray, choices: list[int] | None = None) -> bytes:
    done, content = cv2.imencode(suffix, picture, choices or [])
    assert done, suffix
    return content.tobytes()
