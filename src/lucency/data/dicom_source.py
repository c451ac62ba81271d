"""The source "dicom": films of a hospital's archive, labelled by a table, under pseudonyms.

The table may name films, studies and patients as the hospital does: its names are compared, and are
in nothing that is returned. A run knows where a film lies by a link that bears its pseudonym, in a
folder beside the key that no other user can enter. Letters in shapes: n rows of the table, m films.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64, Shaped

from lucency.config.sections import Source
from lucency.core.manifest import Manifest, counted
from lucency.core.progress import say
from lucency.core.stage import RECEIPT
from lucency.core.tables import fitting_films
from lucency.data.csv_tables import USUAL, CsvTable, find_columns, plain_name
from lucency.data.dicom_archive import DicomArchive, read_archive
from lucency.data.dicom_facts import NOT_DICOM
from lucency.data.label_choices import Steps
from lucency.data.pseudonyms import PseudonymKey, key_file, make_key, read_key

STUDY, FILM = "studyinstanceuid", "sopinstanceuid"  # columns, by their plain names
SUFFIX = ".dcm"  # of an image's name, whatever its file is called
LINKS = ".links"  # of the folder of links, beside the key, behind its name
PROTOCOL, DEPTH = "protocol.toml", 3  # a run's file; how far above it: run/external/NAME/manifest
IMAGE, PATIENT, DAYS = "image", "patient", "days"
NAMING = {STUDY, FILM, *(name for names in USUAL.values() for name in names)}  # not kept
ALIKE = "of a PatientID that is another's but for its issuer, leading zeros or capitals"
SHOWN = 3  # lines of a table that are named
FACTS = (  # of FilmHeader, kept in a manifest
    "study", "view", "age", "sex", "posture", "device", "body_part", "kind", "burned_in",
    "deidentified", "photometric", "transfer_syntax", "width", "height", "pixel_spacing",
)  # fmt: skip


class NamedFilms(NamedTuple):
    """A label table that names films by pseudonyms, their facts, and what became of the archive.

    `facts` has a row a row of the table, `path` among them; `reading` is as `Manifest.reading`.
    """

    table: CsvTable
    facts: pd.DataFrame
    reading: pd.DataFrame


def make_keys(place: Source, *, out: Path) -> None:
    """Make the keys of a source and of those beside it, unless the stage `out` was made with them.

    Raises ValueError where a key lies within the stage's run, in another run or below a `root`,
    where it is not there for a stage that was made with it, and as `read_key` does.
    """
    run = next((one for one in out.parents[:DEPTH] if (one / PROTOCOL).is_file()), out.parent)
    for file in {key_file(one.key) for one in place.every if one.source == "dicom"}:
        _refuse_place(file, place, runs=(run,))
        if (out / RECEIPT).is_file():
            read_key(file)
        else:
            make_key(file)


def _refuse_place(file: Path, place: Source, *, runs: tuple[Path, ...] = ()) -> None:
    """Raise ValueError for a key that would be kept, or its links, with a run or with films."""
    for folder in {file.parent.resolve(), file.resolve().parent, _all_links(file).resolve()}:
        above = (folder, *folder.parents)
        stages = [one for one in above if (one / "manifest" / RECEIPT).is_file()]
        if stages or any(one.resolve() in above for one in runs):
            raise ValueError(f"data.key: {file} lies within the run: expected a file outside of it")
        for root in (Path(one.root) for one in place.every if one.root):
            if root.resolve() in above:
                raise ValueError(
                    f"data.key: {file} lies below data.root, {root}: expected a file outside of "
                    "it, for links to the films are made beside the key"
                )


def name_films(table: CsvTable, *, source: Source) -> NamedFilms:
    """Return a label table with a row a film of an archive, under pseudonyms, and their facts.

    A row of the table names a film by its SOPInstanceUID or its path below `source.root`, or in a
    column StudyInstanceUID all films of a study. Raises ValueError where a row fits no film and
    `allow_missing` is not set, where two rows label one film, where a film has no PatientID and
    `group_by_study` is not set, and where one of `columns` is a fact of headers. No value of the
    table's names is in a message.
    """
    if taken := {*FACTS, DAYS}.intersection(source.columns):
        raise ValueError(f"data.columns: {min(taken)!r} is a fact of headers: rename the column")
    _refuse_place(key_file(source.key), source)
    key, steps = make_key(key_file(source.key)), Steps()
    archive = read_archive(Path(source.root), key=key)
    films = archive.films
    _count_left_out(archive, steps)
    row, place = _labelled(table, archive, source=source, key=key, steps=steps)
    steps.add("without a row in the label table", len(films) - len(place))
    steps.add(ALIKE, _count_alike(films))
    header = archive.header.loc[place].reset_index(drop=True)
    if source.group_by_study:
        header = header.assign(patient=_patients_of_studies(header, films))
    steps.add("age impossible: not stated", np.count_nonzero(header["doubtful_age"]))
    names = {
        IMAGE: np.array([f"{name}{SUFFIX}" for name in header["image"].tolist()]),
        PATIENT: _patients(header, table, row, source),
    }
    kept = {n: cells[row] for n, cells in table.columns.items() if plain_name(n) not in NAMING}
    facts = {name: header[name].to_numpy() for name in FACTS}
    if source.cap_age:
        facts["age"] = np.minimum(facts["age"], source.cap_age)
    path = [str(archive.file[file]) for file in place.tolist()]
    return NamedFilms(
        table=replace(table, columns={**kept, **names}, line=table.line[row]),
        facts=pd.DataFrame({**facts, DAYS: _days(films, header), "path": path}),
        reading=steps.table(),
    )


def with_headers(films: Manifest, named: NamedFilms) -> Manifest:
    """Return labelled films with the facts of their headers, and say what of the archive they are.

    `path` is where a film lies: not to be written into a run (`link_films`).
    """
    steps = zip(named.reading["step"].tolist(), named.reading["films"].tolist(), strict=True)
    listed = "; ".join(f"{step}: {count:,}" for step, count in steps)
    say(f"Archive: {counted(len(films), 'labelled film')}; {listed}")
    facts = films.facts.drop(columns="path")
    return replace(
        films,
        facts=facts.assign(**{name: named.facts[name] for name in named.facts}),
        reading=pd.concat([named.reading, films.reading], ignore_index=True),
    )


def link_films(films: Manifest, *, source: Source) -> Manifest:
    """Return the films with links in place of their paths, which are made or made anew.

    Raises ValueError where no links can be made.
    """
    folder = links_folder(source)
    for made in (folder.parent, folder):
        made.mkdir(parents=True, exist_ok=True, mode=0o700)
    links = [folder / name for name in films.image.tolist()]
    for link, file in zip(links, films.facts["path"].tolist(), strict=True):
        _link(link, Path(file).resolve())
    return replace(films, facts=films.facts.assign(path=[str(link) for link in links]))


def links_folder(source: Source) -> Path:
    """Return the folder of the links to the films below a source's root."""
    file = key_file(source.key)
    root = read_key(file).pseudonym("root", str(Path(source.root).resolve()))
    return _all_links(file) / root


def _all_links(file: Path) -> Path:
    """Return the folder of the links that lie beside a key."""
    return file.with_name(f"{file.name}{LINKS}")


def link_again(films: Manifest, *, source: Source) -> None:
    """Make the links of films anew that have moved below the root, or with it."""
    archive = read_archive(Path(source.root), key=read_key(key_file(source.key)))
    there = archive.films
    file = dict(zip((there["image"] + SUFFIX).tolist(), there.index.tolist(), strict=True))
    rows = np.array([row for row, name in enumerate(films.image.tolist()) if name in file], int)
    found = films.take(rows.astype(np.int64))
    path = [str(archive.file[file[name]]) for name in found.image.tolist()]
    link_films(replace(found, facts=found.facts.assign(path=path)), source=source)


def names_of_films(
    names: Shaped[np.ndarray, " k"], films: Manifest, *, place: Source
) -> Shaped[np.ndarray, " k"]:
    """Return the k names of a list as the films' own: of an archive's they may be UIDs or paths.

    A SOPInstanceUID, and the end of a film's path, becomes its pseudonym. What is no film becomes
    its number in the list, so that no message shows it. Lists of other sources stay as they are.
    """
    files = {key_file(one.key) for one in place.every if one.source == "dicom"}
    keys = [read_key(file) for file in sorted(files) if file.exists()]
    if not keys:
        return names
    image, path = films.image.tolist(), [_target(Path(one)) for one in films.facts["path"]]
    fits = fitting_films(names, films.image)
    by_path = fitting_films(names, np.array(path, dtype=object))
    by_film = {name.removesuffix(SUFFIX).rpartition("/")[2]: name for name in image}
    found = list[str]()
    for number, name in enumerate(names.tolist(), start=1):
        uids = [key.pseudonym("film", name) for key in keys]
        meant = [by_film[one] for one in uids if one in by_film]
        meant += [image[row] for row in by_path[number - 1]]
        one = name if fits[number - 1] else meant[0] if len({*meant}) == 1 else ""
        found.append(one or f"name {number} of the list")
    return np.array(found)


def _target(file: Path) -> str:
    """Return the film that a link leads to; a film that is no link is itself."""
    return os.readlink(file) if file.is_symlink() else str(file)  # noqa: PTH115


def _link(link: Path, file: Path) -> None:
    if link.is_symlink() and os.readlink(link) == str(file):  # noqa: PTH115
        return
    beside = link.with_name(f"{link.name}.{uuid.uuid4().hex}")  # as another run may link it, too
    try:
        beside.symlink_to(file)
        beside.replace(link)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ValueError(
            f"{link.parent}: no links to films can be made there ({error.strerror}): expected a "
            "folder on a disk with symbolic links (on Windows: in developer mode); data.key names "
            "another place for the key and the links beside it"
        ) from error


def _count_left_out(archive: DicomArchive, steps: Steps) -> None:
    reason = archive.header["reason"]
    skipped = archive.skipped.total() + len(archive.others)
    steps.add("files below the root", len(archive.header) + skipped)
    steps.add(NOT_DICOM, len(archive.others))
    for why, files in (Counter(reason[reason != ""].tolist()) + archive.skipped).most_common():
        steps.add(f"left out: {why}", files)
    again = int(np.count_nonzero(reason == "")) - len(archive.films)
    steps.add("left out: the same SOPInstanceUID (0008,0018) again", again)


def _labelled(
    table: CsvTable, archive: DicomArchive, *, source: Source, key: PseudonymKey, steps: Steps
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return which rows of the table label films, and the films' places in the archive."""
    column = _naming_column(table, source.image_column)
    if plain_name(column) == STUDY:
        row, place = _rows_of_studies(table, column, archive.films, key)
        lost = np.setdiff1d(np.arange(len(table.line)), row)
    else:
        named = _named_files(table, column, archive, root=Path(source.root), key=key)
        lost = np.flatnonzero(named < 0)
        row, place = _usable(named, archive, steps)
    where, rows = f"{table.file}, column {column!r}", len(table.line)
    if len(lost) and not (source.allow_missing and len(row)):
        raise ValueError(
            f"{where}: {counted(len(lost), 'row', 'fits/fit', of=rows)} no film below "
            f"{source.root} ({_lines(table, lost)}): expected SOPInstanceUIDs, paths below it, or "
            "StudyInstanceUIDs in a column of that name; data.image_column names the column, and "
            "data.allow_missing = true leaves such rows out"
        )
    if not len(row):
        raise ValueError(f"{where}: all films that it names are left out: {_reasons(steps)}")
    steps.add("rows of the label table without a film", len(lost))
    twice = row[pd.Series(place).duplicated(keep=False).to_numpy()]
    if len(twice):
        raise ValueError(
            f"{where}: several rows label one film ({_lines(table, twice)}): expected one a film"
        )
    return row, place


def _naming_column(table: CsvTable, wanted: str) -> str:
    """Return the column that names films: the wanted one, one of UIDs, or one of a usual name."""
    for name in (plain_name(wanted), FILM, STUDY):
        for column in table.columns:
            if column == wanted or plain_name(column) == name:
                return column
    return find_columns(table, "image")["image"]


def _rows_of_studies(
    table: CsvTable, column: str, films: pd.DataFrame, key: PseudonymKey
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    named = [key.pseudonym("study", one) for one in table.columns[column].tolist()]
    rows = pd.DataFrame({"study": named, "row": np.arange(len(named))})
    again = np.flatnonzero(rows["study"].duplicated(keep=False).to_numpy())
    if len(again):
        raise ValueError(
            f"{table.file}, column {column!r}: a study is listed several times "
            f"({_lines(table, again)}): expected each once"
        )
    of_films = pd.DataFrame({"study": films["study"], "place": films.index})
    met = rows.merge(of_films, on="study").sort_values(["row", "place"])
    return met["row"].to_numpy(dtype=np.int64), met["place"].to_numpy(dtype=np.int64)


def _named_files(
    table: CsvTable, column: str, archive: DicomArchive, *, root: Path, key: PseudonymKey
) -> Int64[np.ndarray, " n"]:
    """Return the file that each row names by SOPInstanceUID or path, -1 where there is none."""
    names, header = table.columns[column], archive.header
    whole, named = archive.films.index.tolist(), np.flatnonzero(header["image"] != "").tolist()
    by_film = dict[str, int]()
    for place, image in zip([*whole, *named], header["image"][[*whole, *named]], strict=True):
        by_film.setdefault(image, place)  # a whole film before its broken copies
    fitting = [by_film.get(key.pseudonym("film", name), -1) for name in names.tolist()]
    found = np.array(fitting, dtype=np.int64)
    others = np.flatnonzero((found < 0) & (names != ""))
    if not len(others):
        return found
    below = [file.relative_to(root).as_posix() for file in archive.file]
    for row, fits in zip(
        others.tolist(),
        fitting_films(names[others].astype(object), np.array(below, dtype=object)),
        strict=True,
    ):
        if len(fits) > 1:
            raise ValueError(
                f"{table.file}, line {table.line[row]}, {column}: fits several films below {root}: "
                "expected more of the film's path, or its SOPInstanceUID"
            )
        found[row] = fits[0] if fits else -1
    return found


def _usable(
    named: Int64[np.ndarray, " n"], archive: DicomArchive, steps: Steps
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Return rows and films of the rows that name a film which a network may see."""
    films, header = archive.films, archive.header
    first = dict(zip(films["image"].tolist(), films.index.tolist(), strict=True))
    image, reason = header["image"].tolist(), header["reason"].tolist()
    row = np.flatnonzero(named >= 0)
    left_out = [place for place in named[row].tolist() if reason[place]]
    for why, rows in Counter(reason[place] for place in left_out).most_common():
        steps.add(f"labelled, and left out: {why}", rows)
    kept = row[~np.isin(named[row], left_out)]
    place = [first[image[one]] for one in named[kept].tolist()]
    return kept.astype(np.int64), np.array(place, dtype=np.int64)


def _patients(
    header: pd.DataFrame, table: CsvTable, row: Int64[np.ndarray, " m"], source: Source
) -> Shaped[np.ndarray, " m"]:
    """Return whose films they are: p and a pseudonym; s and that of a study where it must do."""
    patient, study = header["patient"].to_numpy(dtype=str), header["study"].to_numpy(dtype=str)
    named = np.char.add("p", patient)
    lost: Bool[np.ndarray, " m"] = patient == ""
    if source.group_by_study:
        named = np.where(lost, np.char.add("s", study), named)
        lost = lost & (study == "")
    if lost.any():
        missing = counted(lost.sum(), "labelled film", "has/have", of=len(lost))
        unless = "nor StudyInstanceUID (0020,000D)" if source.group_by_study else ""
        remedy = (
            "" if unless else "set data.group_by_study = true, which takes a study for one, or "
        )
        raise ValueError(
            f"{source.root}: {missing} no PatientID (0010,0020) {unless}{' ' if unless else ''}"
            f"({_lines(table, row[lost])} of {table.file}): films of one patient belong together; "
            f"{remedy}take their rows out of the table"
        )
    return named


def _patients_of_studies(header: pd.DataFrame, films: pd.DataFrame) -> list[str]:
    """Return the films' patients; where a film states none, that of other films of its study."""
    stated = films.loc[((films["patient"] != "") & (films["study"] != "")).to_numpy()]
    known = dict(zip(stated["study"].tolist(), stated["patient"].tolist(), strict=True))
    pairs = zip(header["patient"].tolist(), header["study"].tolist(), strict=True)
    return [patient or known.get(study, "") for patient, study in pairs]


def _count_alike(films: pd.DataFrame) -> int:
    """Count films whose patient may be another as well: one plain PatientID, two pseudonyms."""
    known = films.loc[(films["patient"] != "").to_numpy()]
    return int((known.groupby("alike")["patient"].transform("nunique") > 1).sum())


def _days(films: pd.DataFrame, header: pd.DataFrame) -> Float64[np.ndarray, " m"]:
    """Return the days since the patient's first study in the archive; NaN where it is unknown."""
    dated = films.loc[((films["day"] > 0) & (films["patient"] != "")).to_numpy()]
    first = dated.groupby("patient")["day"].min()
    day = header["day"].where(header["day"] > 0)
    return (day - header["patient"].map(first)).to_numpy(dtype=np.float64)


def _lines(table: CsvTable, rows: Int64[np.ndarray, " r"]) -> str:
    """Return the lines of a table that rows stand in, the first of many."""
    lines = sorted({int(line) for line in table.line[rows]})
    more = ", …" if len(lines) > SHOWN else ""
    noun = "line" if len(lines) == 1 else "lines"
    return f"{noun} {', '.join(str(line) for line in lines[:SHOWN])}{more}"


def _reasons(steps: Steps) -> str:
    return "; ".join(f"{films:,} {step}" for step, _, films in steps.rows)
