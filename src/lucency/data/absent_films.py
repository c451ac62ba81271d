"""Why films are not found, below a folder or among labels: what is there in their place.

Letters in shapes: n films, m files.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lucency.core.manifest import counted, nearest
from lucency.core.tables import film_stem, fitting_films
from lucency.data.film_archives import archive_of
from lucency.data.film_names import ARCHIVE_SUFFIXES, EXPECTED_FILMS, SUFFIXES, name_below, place_in
from lucency.data.images import walk_films

EXPECTED = "expected PNG, JPEG or DICOM; convert the films"
FORMATS = {
    ".tif": "TIFF", ".tiff": "TIFF",
    ".bmp": "BMP", ".gif": "GIF", ".webp": "WebP", ".heic": "HEIC", ".jp2": "JPEG 2000",
    ".npy": "NumPy", ".nii": "NIfTI", ".mha": "MetaImage",
}  # fmt: skip
ARCHIVES = (*ARCHIVE_SUFFIXES, ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
DICOM_MARK, MARK_AT = b"DICM", 128  # of a DICOM file, whatever its name
PADDING = re.compile(r"(?<![0-9])0+(?=[0-9])")  # the zeros before a number
FRACTION = re.compile(r"\.0+$")  # behind a name that was taken for a number
ROUNDED = re.compile(r"[0-9](\.[0-9]+)?E\+[0-9]+", re.IGNORECASE)
MOST_COMPARED = 5_000  # files among which the nearest name is looked for
LOOKED_AT = 1_000  # films whose absence is explained, of however many

Files = Shaped[np.ndarray, " m"]


def files_below(root: Path) -> Files:
    """Return the paths below `root` of its files but hidden ones, as `walk_films` finds them.

    Films of archives are among them, by the paths that they would have unpacked.
    """
    found = walk_films(root)
    shown = [*found.films, *found.other_formats, *found.archives, *found.others]
    for archive in found.archives:
        with suppress(ValueError):  # `locate_films` has named those that cannot be opened
            shown += [place_in(archive, name) for name in archive_of(archive).members]
    return np.array(sorted(name_below(file, root) for file in shown), dtype=object)


def why_absent(image: Shaped[np.ndarray, " n"], files: Files, root: Path) -> str:
    """Return why most of these films are not among the `files` below `root`, with an example.

    "" where no file is like one of them. Suffix, format, leading zeros and rounded numbers are
    distinguished; of many films LOOKED_AT count. Of the files, only the first bytes of those
    without a suffix are read.
    """
    image = image[:: -(-len(image) // LOOKED_AT)]
    causes = _of_numbers(image, files) | _of_another_kind(image, files, root)
    return _most(causes, image)


def why_unlabelled(image: Shaped[np.ndarray, " n"], labelled: Shaped[np.ndarray, " m"]) -> str:
    """Return how most of these names differ from those of labelled films, with an example.

    "" where no labelled film is like one of them. Suffix, leading zeros and rounded numbers are
    distinguished; of many names LOOKED_AT count.
    """
    image = image[:: -(-len(image) // LOOKED_AT)]
    causes = _of_numbers(image, labelled, there="is labelled, not", table="the label file")
    stems = np.array([_without_suffix(str(name)) for name in labelled.tolist()], dtype=object)
    plain = np.array([_without_suffix(str(name)) for name in image.tolist()], dtype=object)
    for name, fit in zip(image.tolist(), fitting_films(plain, stems), strict=True):
        if fit:
            remedy = "write names without suffix, or with that of the labels"
            causes[name] = ("suffix", f"{labelled[fit[0]]} is labelled, not {name!r}: {remedy}")
    return _most(causes, image)


def what_is_there(name: str, files: Files, root: Path) -> str:
    """Return what lies there in place of films that are called like `name`."""
    pictures = [file for file in files.tolist() if _kind(file, root) in SUFFIXES]
    if pictures:
        near = nearest(name, pictures) if len(pictures) <= MOST_COMPARED else ""
        there = counted(len(pictures), "film", "lies/lie")
        return f"{there} there, such as {pictures[0]}, and the table names {name!r}{near}"
    others = [(file, kind) for file in files.tolist() if (kind := _kind(file, root))]
    for file, kind in others[:1]:
        return f"no film lies there, but {file}, which is {kind}: {EXPECTED}"
    packed = [file for file in files.tolist() if file.lower().endswith(ARCHIVES)]
    for file in [file for file in packed if ".csv" not in file][:1]:
        known = file.lower().endswith(ARCHIVE_SUFFIXES)
        return f"no film lies there, but {file}{', without a film' if known else ': unpack it'}"
    return f"no film lies there; expected {EXPECTED_FILMS}"


def _most(causes: dict[str, tuple[str, str]], image: Shaped[np.ndarray, " n"]) -> str:
    """Return the sentence of the commonest kind, and how many films are of it."""
    kinds = Counter(kind for kind, _ in causes.values())
    for kind, count in kinds.most_common(1):
        first = next(text for one, text in causes.values() if one == kind)
        return f"{first}; the same with {count:,} of {counted(len(image), 'film')} looked at"
    return ""


def _of_another_kind(
    image: Shaped[np.ndarray, " n"], files: Files, root: Path
) -> dict[str, tuple[str, str]]:
    """Return film -> kind and sentence, of the films that are there but for their suffix."""
    kinds = [_kind(file, root) for file in files.tolist()]
    rows = np.flatnonzero(np.array(kinds) != "")
    stems = [_without_suffix(file) for file in files[rows].tolist()]
    fits = fitting_films(_stems(image), np.array(stems, dtype=object)) if stems else []
    causes = {}
    for name, fit in zip(image.tolist(), fits, strict=False):
        if fit:
            file, kind = files[rows[fit[0]]], kinds[rows[fit[0]]]
            remedy = "write names without suffix, or with that of the files"
            about = f": {remedy}" if kind in SUFFIXES else f", which is {kind}: {EXPECTED}"
            causes[name] = (kind, f"{file} lies there for {name!r}{about}")
    return causes


def _of_numbers(
    image: Shaped[np.ndarray, " n"], files: Files, *, there: str = "lies there for", table: str = ""
) -> dict[str, tuple[str, str]]:
    """Return film -> kind and sentence, of films whose names were taken for numbers.

    `files` may be names of a `table`, which has lost the zeros where it has fewer.
    """
    remedy = "save that column as text"
    plain, stems = (
        np.array([PADDING.sub("", FRACTION.sub("", name)) for name in names], dtype=object)
        for names in (_stems(image).tolist(), _stems(files).tolist())
    )
    causes = {}
    for name, fit in zip(image.tolist(), fitting_films(plain, stems), strict=True):
        if ROUNDED.fullmatch(film_stem(name)):
            causes[name] = ("rounded", f"{name!r} is a number that was rounded: {remedy}")
        elif fit:
            file = files[fit[0]]
            is_shorter = len(FRACTION.sub("", film_stem(file))) < len(film_stem(name))
            who = f": {table}" if table and is_shorter else ", which"
            text = f"{file} {there} {name!r}{who} has lost leading zeros: {remedy}"
            causes[name] = ("zeros", text)
    return causes


def _stems(names: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    return np.array([film_stem(str(name)) for name in names.tolist()], dtype=object)


def _without_suffix(file: str) -> str:
    known = Path(file).suffix.lower() in {*SUFFIXES, *FORMATS}
    return Path(file).with_suffix("").as_posix() if known else file


def _kind(file: str, root: Path) -> str:
    """Return a film's suffix, the format of another picture, or "" for what is neither."""
    suffix = Path(file).suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    if suffix.strip(".0123456789"):
        return FORMATS.get(suffix, "")
    with suppress(OSError), (root / file).open("rb") as content:
        content.seek(MARK_AT)
        return SUFFIXES[-1] if content.read(len(DICOM_MARK)) == DICOM_MARK else ""
    return ""
