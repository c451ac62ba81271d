"""What files are by their names: films, archives, others; and the places of films in archives.

A place is text or a path: that of a file, or ARCHIVE::/MEMBER, such as
`images_001.tar.gz::/images/00000001_000.png`. A member's name is only ever compared with names; it
never becomes a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from lucency.core.stores import place_text

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


def member_of(place: str | Path) -> tuple[Path, str] | None:
    """Return the archive and the member's name of a place; None for a file of its own.

    >>> member_of("a/films.zip::/b/1.png"), member_of("a/films.zip")
    ((PosixPath('a/films.zip'), 'b/1.png'), None)
    """
    text = str(place)
    found = PLACE.fullmatch(text) if "::" in text else None  # of many places few have one
    return (Path(found[1]), found[2].replace("\\", "/")) if found else None


def place_in(archive: Path, name: str) -> Path:
    """Return the place of a member of an archive."""
    return Path(f"{archive}{MARK}{name}")


def places_below(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the places of names below a folder, as `str(folder / name)` is of each.

    The names are as `Path` writes them. A path for each of a million films takes 14 s.

    >>> places_below(Path("films"), ["a/1.png"]), places_below(Path(), ["a/1.png"])
    (['films/a/1.png'], ['a/1.png'])
    """
    start = place_text(folder / "_")[:-1]
    return [name if os.path.isabs(name) else start + name for name in names]  # noqa: PTH117


def below_folder(place: str, folder: Path) -> str:
    """Return a place by its name below a folder, as `str(Path(place).relative_to(folder))`.

    The place is as `Path` writes it. Raises ValueError where it is not below.
    """
    whole = str(folder)
    start = "" if whole == "." else whole if whole.endswith(os.sep) else whole + os.sep
    if not place.startswith(start) or os.path.isabs(place) > bool(start):  # noqa: PTH117
        return str(Path(place).relative_to(folder))
    return place[len(start) :]


def name_below(place: str | Path, root: Path) -> str:
    """Return a place below `root` by the name it would have in an archive that were unpacked.

    >>> name_below("films/images_001.tar.gz::/images/1.png", Path("films"))
    'images_001/images/1.png'
    """
    return PACKED.sub("", below_folder(str(place), root).replace(os.sep, "/"), count=1)


def folder_of(place: str | Path) -> str:
    """Return the name of the folder that a film lies in, of the archive where there is none."""
    return Path(PACKED.sub("", Path(place).as_posix(), count=1)).parent.name


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


def member_name(name: str) -> str:
    """Return a member's name as plain text with slashes, without parts that lead elsewhere.

    Bytes that are no UTF-8 are read as Latin-1, so that every name can be written in a table.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = name.encode("utf-8", "surrogateescape").decode("latin-1")
    parts = UNPRINTABLE.sub("?", name.replace("\\", "/")).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def kind_of_member(name: str) -> str:
    """Return the kind of a member by its name; "hidden" below a hidden folder, too."""
    *folders, file = name.lower().split("/")
    if any(is_hidden(one) for one in folders):
        return "hidden"
    return kind_of_name(file)
