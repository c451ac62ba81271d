"""Where films come from: SOURCES names the readers, each from a protocol's `data` to a Manifest.

The readers read labels, not pictures; `read_films` looks for the pictures too.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.config.protocol import PLACES
from lucency.config.sections import Source
from lucency.core.files import write_table
from lucency.core.manifest import (
    FINDINGS,
    UNKNOWN_PATIENT,
    Manifest,
    counted,
    load_manifest,
    nearest,
    save_manifest,
)
from lucency.core.plan import COPY_MARK
from lucency.core.progress import progress, say
from lucency.core.stage import fingerprint_file, produce
from lucency.core.tables import match_films
from lucency.data.absent_films import files_below, what_is_there, why_absent
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.csv_tables import USUAL, plain_name, read_csv, read_names, read_text
from lucency.data.film_files import film_exists, recall_archives, save_archives
from lucency.data.images import found_films, locate_films
from lucency.data.label_choices import choose_labels
from lucency.data.labels import (
    LABEL_COLUMN,
    LABEL_FILES,
    films_of_table,
    label_column,
    label_file,
    read_label_table,
    read_nih_tables,
)
from lucency.phantom.dataset import list_phantom, write_phantom

KNOBS = {"films", "size", "seed", "label_noise", "shortcut", "hospital"}  # of phantoms
SAMPLED = 100  # films of many, by which it is seen whether they lie where they were
NO_ROOT = "data.root is {!r}, which is no folder"
NIH_TABLES = ("Data_Entry_2017*", "BBox_List_2017*", "train_val_list.txt", "test_list.txt")


def draw_source(choices: Source, *, findings: tuple[str, ...], out: Path, workers: int) -> Source:
    """Return where the films are: as the protocol has it, or in `out`, where phantoms are drawn.

    Phantoms that lie in a `root` are not drawn again.
    Raises ValueError for a finding that phantoms do not have, before any is drawn.
    """
    if choices.source != "phantom" or choices.root:
        return choices
    for name in findings:
        label_column(name)
    knobs = choices.model_dump(include=KNOBS)
    drawn = produce(out, inputs=knobs, write=partial(draw_phantom, knobs, workers))
    return choices.model_copy(update={"root": str(drawn)})


def read_films(place: Source, *, findings: tuple[str, ...], out: Path) -> Manifest:
    """Return the films that lie on disk, with their labels; missing.csv in `out` lists the others.

    The stage. Raises ValueError when films are missing and the protocol does not allow it.
    """
    root = _root(place)
    place = place.model_copy(update={"root": str(root.resolve())})
    inputs = film_inputs(place, findings=findings)
    films = films_found(
        place, produce(out, inputs=inputs, write=partial(find_films, place, findings))
    )
    return replace(films, facts=films.facts.assign(path=where_films_lie(films, root)))


def where_films_lie(films: Manifest, root: Path) -> list[str]:
    """Return the files of films, found again where they have moved below the root."""
    path = films.facts["path"].tolist()
    if all(film_exists(file) for file in path[:: -(-len(path) // SAMPLED) or 1]):
        return path
    found = locate_films(films, root).facts["path"].tolist()
    return [new or old for new, old in zip(found, path, strict=True)]


def film_inputs(place: Source, *, findings: tuple[str, ...]) -> dict[str, object]:
    """Return what the films and labels of a source are made of, wherever they lie.

    That is the content of its tables and lists. Raises ValueError where one is not there.
    """
    for text in absent_places(place).values():
        raise ValueError(text)
    root = Path(place.root)
    known = COLLECTIONS[place.source].tables if place.source in COLLECTIONS else NIH_TABLES
    patterns = known if place.root else ()  # phantoms may not be drawn yet
    tables = sorted(file for pattern in patterns for file in root.glob(pattern) if file.is_file())
    labels = root / place.labels
    return {
        "data": place.model_dump(exclude={*PLACES}),
        "findings": list(findings),
        "tables": {file.relative_to(root).as_posix(): fingerprint_file(file) for file in tables},
        "labels": fingerprint_file(labels) if labels.is_file() else "none named",
        "exclude": fingerprint_file(Path(place.exclude)) if place.exclude else "no list",
    }


def films_found(place: Source, out: Path) -> Manifest:
    """Return the films that `read_films` has found, their paths below the root as it is now."""
    films = load_manifest(out)
    recall_archives(out, root=Path(place.root))
    path = [str(Path(place.root) / below) for below in films.facts["path"].tolist()]
    return replace(films, facts=films.facts.assign(path=path))


def absent_places(place: Source) -> dict[str, str]:
    """Return which of a source's PLACES are not there, each with the sentence that says so.

    A folder without a label table counts as absent: it may be a disk that is not mounted.
    """
    absent, root = dict[str, str](), Path(place.root)
    if place.source == "phantom" and not place.root:
        return absent
    table = place.source == "csv"
    if not place.root or not root.is_dir():
        absent["root"] = NO_ROOT.format(place.root)
    elif place.source in COLLECTIONS:
        patterns = COLLECTIONS[place.source].tables
        if not any(file for pattern in patterns for file in root.glob(pattern)):
            title = COLLECTIONS[place.source].title
            absent["root"] = f"no label file of {title} in {root}: expected {patterns[0]}"
    else:
        try:
            label_file(root, place.labels, usual=() if table else LABEL_FILES)
        except ValueError as error:
            absent["labels" if place.labels or table else "root"] = str(error)
    if place.exclude and not Path(place.exclude).is_file():
        absent["exclude"] = f"data.exclude: {place.exclude}: no such file; expected a list of names"
    return absent


def stated_findings(place: Source, *, findings: tuple[str, ...]) -> tuple[str, ...]:
    """Return the findings that a source can state: those of a csv table that has a column of each.

    Raises ValueError where it has none of them.
    """
    if place.source != "csv":
        return findings
    file = label_file(Path(place.root), place.labels)
    columns = read_csv(file).columns
    known = {plain_name(name) for name in columns}
    stated = tuple(name for name in findings if plain_name(name) in known)
    if not stated:
        raise ValueError(
            f"{file}: no column of a finding of the protocol, {', '.join(findings)}: found "
            f"{', '.join(columns)}"
        )
    return stated


def list_films(
    place: Source, *, findings: tuple[str, ...], split: Callable[[Manifest, Path], np.ndarray]
) -> tuple[Manifest, np.ndarray]:
    """Return all films that the label table lists, and their parts; no picture is looked for.

    `split` gets the films and the folder of the official lists. Phantoms need not be drawn. Raises
    ValueError where there is no label table.
    """
    if place.source != "phantom" or place.root:
        films = _listed(place, findings)
        return films, split(films, Path(place.root))
    with tempfile.TemporaryDirectory() as name:
        list_phantom(Path(name), **place.model_dump(include=KNOBS - {"size", "shortcut"}))
        films = _listed(place.model_copy(update={"root": name}), findings)
        return films, split(films, Path(name))


def place_of_labels(place: Source, labels: Path) -> Source:
    """Return where `list_films` finds the films of a label file: NIH's, or a table of 0 and 1.

    The keys of such a table's columns, and the list of films to exclude, are those of `place`.
    """
    nih = LABEL_COLUMN in read_label_table(labels).columns
    found = {"source": "nih" if nih else "csv", "labels": labels.name, "also": ()}
    return place.model_copy(update={**found, "root": str(labels.parent)})


def _root(place: Source) -> Path:
    root = Path(place.root)
    if not place.root or not root.is_dir():
        raise ValueError(
            f"{NO_ROOT.format(place.root)}: set it to where the label table and the films lie "
            "(`lucency data balance` takes labels alone, by --labels FILE)"
        )
    return root


def draw_phantom(knobs: dict[str, Any], workers: int, folder: Path) -> None:
    """Draw the phantoms that `knobs` describe into `folder`."""
    with progress("Drawing phantoms", unit="films") as advance:
        write_phantom(folder, **knobs, workers=workers, progress=advance)


def find_films(place: Source, findings: tuple[str, ...], folder: Path) -> None:
    """Look for the films of the label table below the root; write those found, list the others.

    Paths that are written begin below the root.
    """
    root = Path(place.root)
    everything = locate_films(_listed(place, findings), root)
    rows, films = found_films(everything), len(everything)
    absent = np.delete(everything.image, rows)
    why = ""
    if len(absent):
        there = files_below(root)
        why = why_absent(absent, there, root)
        if len(absent) == films:
            why = why or f"{what_is_there(str(absent[0]), there, root)}; check data.root"
            raise ValueError(f"none of the {films:,} films lies below {place.root}: {why}")
    if len(absent) and not place.allow_missing:
        raise ValueError(
            f"{counted(len(absent), 'film', 'is/are', of=films)} not below {place.root} "
            f"({absent[0]}, …): {f'{why}; ' if why else ''}expected all; add them, or set "
            "data.allow_missing = true to go on without them"
        )
    write_table(pd.DataFrame({"image": absent}), folder / "missing.csv")
    found = everything.take(rows)
    # Below the root, so that a folder moved as a whole is found again.
    below = [str(Path(file).relative_to(root)) for file in found.facts["path"].tolist()]
    save_manifest(replace(found, facts=found.facts.assign(path=below)), folder)
    save_archives(found.facts["path"].tolist(), root=root, folder=folder)
    say(f"Films: {everything.origin}; {len(absent):,} of them not on disk")
    if why:
        say(f"Films not on disk: {why}")


def _listed(place: Source, findings: tuple[str, ...]) -> Manifest:
    """Return the films of the label table but those that the protocol excludes."""
    if not Path(place.labels).is_absolute():
        _root(place)
    films = SOURCES[place.source](place, findings=findings)
    names = enumerate(films.image.tolist(), start=1)
    if marked := [(row, name) for row, name in names if COPY_MARK in name]:
        row, name = marked[0]
        raise ValueError(
            f"{Path(place.root) / place.labels}, row {row} below the heading: film {name!r}: "
            f"{COPY_MARK!r} marks the copies of a film: expected names without; rename "
            f"{counted(len(marked), 'film')}, in the table and on disk"
        )
    films = _without_excluded(films, place)
    refuse_unknown_patients(films)
    return films


def refuse_unknown_patients(films: Manifest) -> None:
    """Raise ValueError where it is not known of some films whose they are.

    Such films of one patient might train and test, and a test on them might not be external.
    """
    if unknown := int((films.patient == UNKNOWN_PATIENT).sum()):
        raise ValueError(
            f"{films.origin}: {counted(unknown, 'film', 'has/have', of=len(films))} no known "
            "patient: films can neither be split nor be an external test without; put the "
            "collection's mapping to NIH's names beside its labels, or exclude such films"
        )


def _without_excluded(films: Manifest, place: Source) -> Manifest:
    """Return the films that the list `data.exclude` does not name; report how many it names."""
    if not place.exclude:
        return films
    if _has_no_rows(Path(place.exclude)):
        say(f"Excluded by {place.exclude}: no film, for the table has no rows below its heading")
        return films
    names = read_names(Path(place.exclude))
    row = match_films(names, films.image, source=place.exclude)
    named, strange = np.isin(np.arange(len(films)), row), names[row < 0]
    if len(strange):
        raise ValueError(
            f"data.exclude: {len(strange):,} of {len(names):,} names in {place.exclude} are no "
            f"film of the label table, such as {str(strange[0])!r}: expected its image names"
        )
    say(f"Excluded by {place.exclude}: {counted(named.sum(), 'film', of=len(films))}")
    if named.all() or not named.any():
        raise ValueError(
            f"data.exclude: {place.exclude} names {named.sum():,} of {len(films):,} films; "
            "expected some, not all: name the list of films to leave out"
        )
    kept = films.take(np.flatnonzero(~named))
    return replace(kept, origin=f"{films.origin}, {named.sum():,} excluded by a list")


def _has_no_rows(file: Path) -> bool:
    """Return whether a list is a table of a heading alone, as of an audit that found nothing."""
    if not {".csv", ".tsv"} & {suffix.lower() for suffix in file.suffixes[-2:]}:
        return False
    lines = read_text(file, expected="a list of image names")[0].split("\n")
    filled = [line for line in lines if line.strip()]
    return len(filled) == 1 and any(
        plain_name(cell) in USUAL["image"] for cell in re.split(r"[,;\t|]", filled[0])
    )


def _read_nih(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    return read_nih_tables(Path(source.root), labels=source.labels, findings=findings)


def _read_csv(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    file = label_file(Path(source.root), source.labels)
    columns = {"image_column": source.image_column, "patient_column": source.patient_column}
    table = read_csv(file)
    near = {plain_name(name) for name in table.columns}
    if findings == FINDINGS and (lost := [one for one in findings if plain_name(one) not in near]):
        raise ValueError(
            f"{file}: no column {lost[0]!r}, one of the {len(findings)} that a protocol without "
            f"`findings` expects: found {', '.join(table.columns)}"
            f"{nearest(lost[0], table.columns)}; "
            'list the table\'s in the protocol: findings = ["…"]'
        )
    return films_of_table(table, findings=findings, **columns)


def _read_phantom(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    """Read a phantom that `write_phantom` has written to the source's root."""
    films = read_nih_tables(Path(source.root), findings=findings)
    patients = len(np.unique(films.patient))
    origin = f"Phantoms: {len(films):,} invented films of {patients:,} invented patients"
    return replace(films, origin=origin)


def _read_collection(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    collection = COLLECTIONS[source.source]
    films = collection.read(Path(source.root), source.labels)
    return choose_labels(films, source=source, findings=findings, collection=collection)


SOURCES: dict[str, Callable[..., Manifest]] = {
    "nih": _read_nih,
    "csv": _read_csv,
    "phantom": _read_phantom,
    **dict.fromkeys(COLLECTIONS, _read_collection),
}
