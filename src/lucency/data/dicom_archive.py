"""An archive of DICOM films: one pass over its headers, and what it holds in numbers.

Letters in shapes: n files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.core.parallel import in_workers, usable_cores
from lucency.core.progress import progress
from lucency.core.tables import Answer
from lucency.data.dicom_facts import NOT_DICOM, FilmHeader, read_header
from lucency.data.images import walk_films
from lucency.data.pseudonyms import PseudonymKey, fleeting_key

CHUNK = 256  # files a task: about a fifth of a second of work
FEW = 4_000  # files that one process has read before others have started
SKIPPED = {  # fields of Walk -> why their files are not opened
    "fragments": "a part of a download: fetch the file again",
    "dicomdirs": "a DICOMDIR: an index of films, not a film",
    "archives": "a packed archive (.zip, .tar, …): unpack it",
    "hidden": "hidden, or of a system",
    "hidden_folders": "a hidden folder, or of a system",
    "unreadable_folders": "a folder that cannot be read",
}
NOT_STATED = "not stated"
COUNTED = (  # of FilmHeader, in the answer
    "modality", "kind", "view", "photometric", "transfer_syntax", "bits_stored", "body_part",
    "manufacturer", "sex", "posture", "burned_in", "deidentified",
)  # fmt: skip
PICTURES, TABLES = (".png", ".jpg", ".jpeg"), (".csv", ".tsv", ".gz", ".xlsx")


class DicomArchive(NamedTuple):
    """The DICOM files below a folder in the order of their paths; `header` has a row of each.

    Its columns are the fields of FilmHeader. `skipped` counts what was not opened, by reason;
    `others` are files that are no DICOM.
    """

    file: tuple[Path, ...]
    header: pd.DataFrame
    skipped: Counter[str]
    others: tuple[Path, ...]

    @property
    def films(self) -> pd.DataFrame:
        """The headers of films that a network may see, each film once, by their row."""
        whole = (self.header["reason"] == "").to_numpy()
        return self.header.loc[whole & ~self.header["image"].where(whole).duplicated().to_numpy()]


def read_archive(root: Path, *, key: PseudonymKey) -> DicomArchive:
    """Return what the headers of all files below `root` state, whatever their suffix.

    Large archives are read by as many processes of this machine as there are cores, whatever
    engine is chosen: the key stays here. No pixels are read.
    Raises ValueError where pydicom is absent.
    """
    found = walk_films(root)
    skipped = Counter({why: len(getattr(found, name)) for name, why in SKIPPED.items()})
    header = pd.DataFrame(_headers(found.films, key), columns=list(FilmHeader._fields))
    is_dicom = (header["reason"] != NOT_DICOM).to_numpy()
    no_dicom = [file for file, kept in zip(found.films, is_dicom, strict=True) if not kept]
    return DicomArchive(
        file=tuple(file for file, kept in zip(found.films, is_dicom, strict=True) if kept),
        header=header.loc[is_dicom].reset_index(drop=True),
        skipped=+skipped,
        others=(*no_dicom, *found.other_formats, *found.others),
    )


def _headers(files: Sequence[Path], key: PseudonymKey) -> Iterator[FilmHeader]:
    workers = usable_cores() if len(files) > FEW else 1
    read, done = partial(_read_chunk, key), 0
    with progress("Reading headers", unit="files") as advance:
        advance(0, len(files))
        for chunk in in_workers(read, _chunks(files), workers=workers):
            yield from chunk
            done += len(chunk)
            advance(done, len(files))


def _chunks(files: Sequence[Path]) -> Iterator[Sequence[Path]]:
    return (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))


def _read_chunk(key: PseudonymKey, files: Sequence[Path]) -> list[FilmHeader]:
    return [read_header(file, key=key) for file in files]


def describe_archive(root: Path) -> Answer:
    """Return what a folder of DICOM files holds, in counts and in listed words alone.

    `films` are those that a run may be made of, each once; the counts by modality and so on are
    of all DICOM files. Raises ValueError for a folder without DICOM.
    """
    archive = read_archive(root, key=fleeting_key())
    header, films = archive.header, archive.films
    reason = header["reason"].to_numpy(dtype=str)
    others = _others(archive.others)
    if not archive.file:
        raise ValueError(_no_dicom(root, others, archive.skipped))
    readable = header.loc[header["kind"].to_numpy() != ""]
    return {
        "files": len(header) + archive.skipped.total() + len(archive.others),
        "dicom": len(header),
        "films": len(films),
        "patients": len({*films["patient"]} - {""}),
        "studies": len({*films["study"]} - {""}),
        "without_patient_id": (films["patient"] == "").sum(),
        "duplicates": (reason == "").sum() - len(films),
        "left_out": _by_number(Counter(reason[reason != ""].tolist()) + archive.skipped),
        "other_files": _by_number(others),
        **{name: _counts(readable[name].tolist()) for name in COUNTED},
        "age": _decades(readable["age"].to_numpy(dtype=np.float64)),
        "doubtful_age": readable["doubtful_age"].sum(),
    }


def _no_dicom(root: Path, others: Counter[str], skipped: Counter[str]) -> str:
    found = ", ".join(f"{films:,} {kind}" for kind, films in (others + skipped).most_common())
    return (
        f"{root} holds no DICOM file: found {found or 'nothing'}; expected an archive of DICOM "
        "files; of PNG or JPEG films name the label table, a file, which has their facts"
    )


def _others(files: Sequence[Path]) -> Counter[str]:
    """Count files that are no DICOM by what their suffix says."""
    kinds = Counter[str]()
    for file in files:
        suffix = file.suffix.lower()
        named = "PNG or JPEG" if suffix in PICTURES else "table" if suffix in TABLES else "other"
        kinds[named] += 1
    return kinds


def _counts(values: Sequence[object]) -> dict[str, int]:
    """Return how many files state each value, the most frequent first."""
    return _by_number(Counter(str(value) if value else NOT_STATED for value in values))


def _by_number(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _decades(age: Float64[np.ndarray, " n"]) -> dict[str, int]:
    """Return how many files are of patients of each decade of age, those without last."""
    decades = sorted((age[~np.isnan(age)] // 10).astype(int).tolist())
    counts = Counter(f"{ten}0-{ten}9" if ten else "0-9" for ten in decades)
    counts[NOT_STATED] = int(np.isnan(age).sum())
    return dict(+counts)
