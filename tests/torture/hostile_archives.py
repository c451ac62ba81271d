"""Zip and tar files that are cut, damaged, that lie, that hold bombs, or that name other places."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from functools import cache

from torture.damage import cut, flipped, replaced, zeroed
from torture.hostile_pictures import deflated, whole

FILMS = 4
PACKERS = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress,
           ".tar.xz": lzma.compress}  # fmt: skip
ODD_NAMES = (
    "../../outside.png", "/etc/outside.png", "a/../../outside.png", "C:\\outside.png", "a\nb.png",
    "\x1b[2J\x1b[31mred.png", "\u202egnp.exe.png", "." * 200 + ".png", "a" * 250 + ".png", " .png",
    "a//b.png", "./c.png", "nul.png", "film.png::/other.png", "x.zip::/y.png",
)  # fmt: skip
Packed = tuple[str, bytes]  # a suffix and a file's content


@cache
def archives() -> tuple[Packed, ...]:
    """Return a whole archive of each kind, of a few films each."""
    films = [(f"films/{n}.png", whole()["PNG"]) for n in range(FILMS)]
    tar = tar_of(films)
    packed = [(suffix, packer(tar)) for suffix, packer in PACKERS.items()]
    return (*packed, (".zip", zip_of(films)), (".zip", zip_of(films, zipfile.ZIP_STORED)))


def damaged(times: int) -> Iterator[tuple[str, list[Packed]]]:
    """Yield a kind of damage and its archives, `times` of each kind, 64 where it is cut."""
    each = list(enumerate(archives()))
    yield "cut at every 64th", [(end, one) for _, (end, file) in each for one in cut(file)]
    for what, ways in {
        "bits flipped": flipped, "a block zeroed": zeroed,
        "a piece gone, doubled or random": replaced,
    }.items():  # fmt: skip
        yield (
            what,
            [(end, one) for n, (end, file) in each for one in ways(file, times=times, seed=n)],
        )
    yield (
        "bits flipped in a tar's headers",
        [
            (suffix, packer(one))
            for suffix, packer in PACKERS.items()
            for one in flipped(tar_of([("1.png", b"")] * 9), times=times, seed=7)
        ],
    )


def bombs() -> list[Packed]:
    """Return archives below 1 MiB whose members, or whose number, are beyond all measure."""
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("1.png", "2.dcm", "3"):
            archive.writestr(name, bytes(200 << 20))
    large = tarfile.TarInfo("1.png")
    large.size = 400 << 20
    tar = large.tobuf() + bytes(400 << 20) + bytes(1024)
    pax = tarfile.TarInfo("2.png")
    pax.pax_headers = {"comment": "x" * (64 << 20)}
    lying = tarfile.TarInfo("3.png")
    lying.size = 8**11 - 1
    many = tar_of([(f"{n}.png", b"") for n in range(40_000)])
    return [
        (".zip", zeros.getvalue()), (".zip", overlapping()), (".zip", quoting(200)),
        (".zip", many_members(9_000)),
        (".tar.gz", gzip.compress(tar)), (".tar.bz2", bz2.compress(tar)),
        (".tar.xz", lzma.compress(tar)), (".tar.gz", gzip.compress(gzip.compress(tar))),
        (".tar.gz", gzip.compress(pax.tobuf(tarfile.PAX_FORMAT) + bytes(1024))),
        (".tar", lying.tobuf() + bytes(2048)), (".tar.gz", gzip.compress(lying.tobuf())),
        (".tar.gz", gzip.compress(many)), (".tar.gz", gzip.compress(bytes(900 << 20))),
        (".tar.gz", b"".join([gzip.compress(b"")] * 40_000)),
    ]  # fmt: skip


def overlapping() -> bytes:
    """Return a zip of which a thousand entries share one deflated member."""
    packed = deflated(64 << 20)
    stripped, crc = packed[2:-4], 0
    name = b"0000.png"
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, crc, len(stripped), 64 << 20,
                        len(name), 0) + name  # fmt: skip
    entries = b"".join(
        struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, crc, len(stripped),
                    64 << 20, 8, 0, 0, 0, 0, 0, 0) + f"{n:04d}.png".encode()
        for n in range(1000)
    )  # fmt: skip
    start = len(local) + len(stripped)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1000, 1000, len(entries), start, 0)
    return local + stripped + entries + end


def quoting(members: int, *, inner: int = 64 << 20) -> bytes:
    """Return a zip whose members all inflate to the last one's zeros, each by way of the next.

    A member's data is a stored block that quotes the next one's header, then that one's data.
    """
    data, size = deflated(inner)[2:-4], inner
    file, entries = data, list[tuple[bytes, bytes, int]]()  # name, sizes, place from the end
    for number in reversed(range(members)):
        name = f"{number:04d}.png".encode()
        sizes = struct.pack("<III", 0, len(data), size)
        header = struct.pack("<IHHHHH", 0x04034B50, 20, 0, 8, 0, 0) + sizes
        header += struct.pack("<HH", len(name), 0) + name
        entries.insert(0, (name, sizes, len(file) + len(header)))
        quote = b"\0" + struct.pack("<HH", len(header), len(header) ^ 0xFFFF)
        data, size, file = quote + header + data, size + len(header), quote + header + file
    file = file[5:]  # before the first nothing is quoted
    listing = b"".join(
        struct.pack("<IHHHHHH", 0x02014B50, 20, 20, 0, 8, 0, 0) + sizes
        + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, len(file) - place) + name
        for name, sizes, place in entries
    )  # fmt: skip
    ends = struct.pack("<HHIIH", members, members, len(listing), len(file), 0)
    return file + listing + b"PK\5\6" + bytes(4) + ends


def many_members(count: int) -> bytes:
    return zip_of([(f"{n}.png", b"") for n in range(count)])


def odd() -> list[Packed]:
    """Return archives with odd names, links, devices, encryption, methods, and what is none."""
    picture = whole()["PNG"]
    named = [(name, picture) for name in ODD_NAMES]
    encrypted = bytearray(zip_of([("1.png", picture)]))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(mark) + at] |= 1
    unknown = bytearray(zip_of([("1.png", picture)]))
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        unknown[unknown.index(mark) + at] = 93
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
             tarfile.GNUTYPE_SPARSE, b"V", b"Z"]  # fmt: skip
    packed = tar_of([("1.png", picture)])
    looping = packed[: packed.rindex(picture[-9:]) // 512 * 512 + 512] + extended_size(-1536)
    return [
        (".tar", looping), (".tar.gz", gzip.compress(looping)),
        (".zip", zip_of(named)), (".tar", tar_of(named)), (".tar.gz", gzip.compress(tar_of(named))),
        (".zip", bytes(encrypted)), (".zip", bytes(unknown)),
        (".tar", b"".join(_special(kind) for kind in kinds) + tar_of([("1.png", picture)])),
        (".tar", tar_of([("1.png", picture), ("1.png", picture[:50])])),
        (".zip", zip_of([("in.zip", zip_of([("1.png", picture)])), ("2.png", picture)])),
        (".zip", zip_of([])), (".tar", tar_of([])), (".tar.gz", gzip.compress(tar_of([]))),
        *((suffix, content) for suffix in (".zip", *PACKERS)
          for content in (b"", b"PK", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", bytes(10_240), picture)),
    ]  # fmt: skip


def zip_of(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def extended_size(size: int) -> bytes:
    """Return a member whose extended header states a size, and the end of a tar."""
    record = f" size={size}\n"
    length = next(n for n in range(99) if n == len(f"{n}{record}"))
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, length
    body = f"{length}{record}".encode().ljust(512, b"\0")
    return header.tobuf() + body + tarfile.TarInfo("2.png").tobuf() + bytes(1024)


def _special(kind: bytes) -> bytes:
    entry = tarfile.TarInfo(f"special-{kind.hex()}.png")
    entry.type, entry.linkname = kind, "/etc/passwd"
    return entry.tobuf()
