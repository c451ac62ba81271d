"""Where films come from: SOURCES names the readers, each from a protocol's `data` to a Manifest.

The readers read labels, not pictures, and of an archive of DICOM films headers; `read_films` looks
for the pictures too.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.config.protocol import PLACES, chosen_labels
from lucency.config.sections import Source
from lucency.core.files import write_table
from lucency.core.manifest import (
    FINDINGS,
    UNKNOWN_PATIENT,
    Manifest,
    counted,
    listed,
    load_manifest,
    nearest,
    save_manifest,
)
from lucency.core.plan import COPY_MARK
from lucency.core.progress import progress, say
from lucency.core.saved_files import fingerprint_file
from lucency.core.stage import produce
from lucency.core.stores import resolved_place
from lucency.core.tables import match_films
from lucency.data.absent_films import files_below, what_is_there, why_absent
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_columns import say_absent
from lucency.data.csv_tables import (
    USUAL,
    CsvTable,
    columns_meant,
    plain_name,
    read_csv,
    read_names,
    read_text,
)
from lucency.data.dicom_source import (
    IMAGE,
    PATIENT,
    link_again,
    link_films,
    links_folder,
    make_keys,
    name_films,
    names_of_films,
    with_headers,
)
from lucency.data.film_archives import recall_archives, save_archives
from lucency.data.film_files import film_exists
from lucency.data.film_names import below_folder, places_below
from lucency.data.finding_columns import LABEL_COLUMN
from lucency.data.images import found_films, locate_films
from lucency.data.label_choices import (
    OR,
    choose_films,
    choose_labels,
    left_out,
    names_known,
    own_names,
    parts_of,
    targets_of,
    with_steps,
)
from lucency.data.labels import (
    LABEL_FILES,
    LABELS,
    films_of_table,
    label_column,
    label_file,
    read_label_table,
    read_nih_tables,
)
from lucency.data.pseudonyms import key_file, read_key
from lucency.data.stored_tables import tables_folder
from lucency.phantom.dataset import list_phantom, write_phantom

KNOBS = {"films", "size", "seed", "label_noise", "shortcut", "hospital"}  # of phantoms
SAMPLED = 100  # films of many, by which it is seen whether they lie where they were
Check = Callable[[Manifest], None]  # raises ValueError for films that a run cannot go on with
NO_ROOT = "data.root is {!r}, which is no folder"
NIH_TABLES = ("Data_Entry_2017*", "BBox_List_2017*", "train_val_list.txt", "test_list.txt")


def draw_source(choices: Source, *, findings: tuple[str, ...], out: Path, workers: int) -> Source:
    """Return where the films are: as the protocol has it, or in `out`, where phantoms are drawn.

    Phantoms that lie in a `root` are not drawn again.
    Raises ValueError for a finding that phantoms do not have, before any is drawn.
    """
    if choices.source != "phantom" or choices.root:
        return choices
    _refuse_unknown(choices, findings)
    knobs = choices.model_dump(include=KNOBS)
    drawn = produce(out, inputs=knobs, write=partial(draw_phantom, knobs, workers))
    return choices.model_copy(update={"root": str(drawn)})


def read_films(
    place: Source, *, findings: tuple[str, ...], out: Path, check: Check = lambda films: None
) -> Manifest:
    """Return the films that lie on disk, with their labels; missing.csv in `out` lists the others.

    The stage. Raises ValueError when films are missing and the protocol does not allow it, and what
    `check` raises for the films found; then nothing is written.
    """
    _root(place)
    place = place.model_copy(update={"root": resolved_place(place.root)})
    make_keys(place, out=out)
    inputs = film_inputs(place, findings=findings)
    write = partial(find_films, place, findings, check=check)
    films = films_found(place, produce(out, inputs=inputs, write=write))
    return replace(films, facts=films.facts.assign(path=where_films_lie(films, place)))


def where_films_lie(films: Manifest, place: Source) -> list[str]:
    """Return the files of films, found again where they have moved below the root."""
    path = films.facts["path"].tolist()
    if all(film_exists(file) for file in path[:: -(-len(path) // SAMPLED) or 1]):
        return path
    if place.source == "dicom":
        link_again(films, source=place)
        return path
    found = locate_films(films, Path(place.root)).facts["path"].tolist()
    return [new or old for new, old in zip(found, path, strict=True)]


def film_inputs(place: Source, *, findings: tuple[str, ...]) -> dict[str, object]:
    """Return what the films and labels of a source are made of, wherever they lie.

    That is the content of its tables and lists. Raises ValueError where one is not there.
    """
    for text in absent_places(place).values():
        raise ValueError(text)
    root = tables_folder(place)
    labels, chosen = root / place.labels, chosen_labels(place)
    found = set[Path]()
    if place.source in COLLECTIONS:
        found |= COLLECTIONS[place.source].files(root, place.labels)
    elif place.root:  # phantoms may not be drawn yet
        found |= {file for pattern in NIH_TABLES for file in root.glob(pattern) if file.is_file()}
    if place.labels and labels.is_dir():  # reports or tables, a file each
        found |= {file for file in labels.rglob("*") if file.is_file()}
    tables = sorted(found)
    return {
        "data": place.model_dump(exclude={*PLACES}),
        "findings": list(findings),
        "tables": {
            Path(os.path.relpath(file, root)).as_posix(): fingerprint_file(file) for file in tables
        },
        "labels": fingerprint_file(labels) if labels.is_file() else "none named",
        "exclude": fingerprint_file(Path(place.exclude)) if place.exclude else "no list",
        **({"chosen labels": chosen} if chosen else {}),
        **_key_inputs(place),
    }


def _key_inputs(place: Source) -> dict[str, str]:
    """Return what names the key of pseudonyms, where there are any: another gives other ones."""
    if place.source != "dicom":
        return {}
    return {"key of pseudonyms": read_key(key_file(place.key)).fingerprint}


def films_found(place: Source, out: Path) -> Manifest:
    """Return the films that `read_films` has found, their paths below the root as it is now."""
    films = load_manifest(out)
    recall_archives(out, root=Path(place.root))
    path = places_below(films_folder(place), films.facts["path"].tolist())
    return replace(films, facts=films.facts.assign(path=path))


def films_folder(place: Source) -> Path:
    """Return the folder that the paths of a manifest's films begin in.

    Where the key of pseudonyms is gone nobody finds the films: their paths stay as they are stored.
    """
    if place.source != "dicom":
        return Path(place.root)
    return links_folder(place) if key_file(place.key).exists() else Path()


def absent_places(place: Source) -> dict[str, str]:
    """Return which of a source's PLACES are not there, each with the sentence that says so.

    A folder without a label table counts as absent: it may be a disk that is not mounted.
    """
    absent = dict[str, str]()
    if place.source == "phantom" and not place.root:
        return absent
    try:
        root = tables_folder(place)
    except ValueError as error:
        return {"root": str(error)}
    table = place.source in ("csv", "dicom")
    if not place.root or not root.is_dir():
        absent["root"] = NO_ROOT.format(place.root)
    elif place.source in COLLECTIONS:
        patterns = COLLECTIONS[place.source].tables
        named = place.labels and (root / place.labels).exists()
        if not named and not any(file for pattern in patterns for file in root.glob(pattern)):
            title = COLLECTIONS[place.source].title
            there = sorted(file.name for file in root.iterdir())
            absent["root"] = (
                f"no label file of {title} in {root}: expected {patterns[0]}, found "
                f"{listed(there, most=6) or 'nothing'}; check data.root and data.source"
            )
    else:
        try:
            label_file(root, place.labels, usual=() if table else LABEL_FILES)
        except ValueError as error:
            absent["labels" if place.labels or table else "root"] = str(error)
    if place.exclude and not Path(place.exclude).is_file():
        absent["exclude"] = f"data.exclude: {place.exclude}: no such file; expected a list of names"
    return absent


def list_films(
    place: Source, *, findings: tuple[str, ...], split: Callable[[Manifest, Path], np.ndarray]
) -> tuple[Manifest, np.ndarray]:
    """Return all films that the label table lists, and their parts; no picture is looked for.

    `split` gets the films and the folder of the official lists. Phantoms need not be drawn. Raises
    ValueError where there is no label table.
    """
    if place.source != "phantom" or place.root:
        films = _listed(place, findings)
        return films, split(films, tables_folder(place))
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
    """Return the folder of a source's tables; ValueError where it is none."""
    root = tables_folder(place)
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


def find_films(
    place: Source, findings: tuple[str, ...], folder: Path, *, check: Check = lambda films: None
) -> None:
    """Look for the films of the label table below the root; write those found, list the others.

    Paths that are written begin below the root. What `check` raises for the films found goes
    through before anything is written.
    """
    root = Path(place.root)
    everything = _located(_listed(place, findings), place)
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
    reading = with_steps(everything.reading, {"not on disk": len(absent)})
    found = replace(everything.take(rows), reading=reading)
    check(found)
    write_table(pd.DataFrame({"image": absent}), folder / "missing.csv")
    # Below the root, so that a folder moved as a whole is found again.
    folder_of_films = films_folder(place)
    below = [below_folder(file, folder_of_films) for file in found.facts["path"].tolist()]
    save_manifest(replace(found, facts=found.facts.assign(path=below)), folder)
    save_archives(found.facts["path"].tolist(), root=root, folder=folder)
    say(f"Films: {everything.origin}; {len(absent):,} of them not on disk")
    if why:
        say(f"Films not on disk: {why}")


def _located(films: Manifest, place: Source) -> Manifest:
    """Return the films with their files' paths, "" without a file."""
    if place.source == "dicom":
        return link_films(films, source=place)
    return locate_films(films, Path(place.root))


def _listed(place: Source, findings: tuple[str, ...]) -> Manifest:
    """Return the films of the label table that the protocol takes: not excluded, of its views."""
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
    films = choose_films(_without_excluded(films, place), source=place)
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
    names = names_of_films(read_names(Path(place.exclude)), films, place=place)
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
    return left_out(films, np.flatnonzero(~named), step="excluded by a list")


def _has_no_rows(file: Path) -> bool:
    """Return whether a list is a table of a heading alone, as of an audit that found nothing."""
    if not {".csv", ".tsv"} & {suffix.lower() for suffix in file.suffixes[-2:]}:
        return False
    lines = read_text(file, expected="a list of image names")[0].split("\n")
    filled = [line for line in lines if line.strip()]
    return len(filled) == 1 and any(
        plain_name(cell) in USUAL["image"] for cell in re.split(r"[,;\t|]", filled[0])
    )


def stated_findings(place: Source, *, findings: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the findings that a source can state, by its labels' names and `place.align`.

    Raises ValueError where it can state none, or `place.align` names what it has not.
    """
    if place.source in COLLECTIONS:
        collection = COLLECTIONS[place.source]
        about = {"source": place, "findings": findings, "collection": collection}
        made = own_names(collection.findings, **about)
        return tuple(finding for finding, names in made.items() if names)
    known = () if place.source in ("csv", "dicom") else LABELS
    file = None if known else label_file(tables_folder(place), place.labels)
    table = None if file is None else read_csv(file)
    stated = tuple(one for one in findings if _is_stated(one, place, known, table))
    if not stated:
        names = LABELS if table is None else table.columns
        raise ValueError(
            f"{file or f'data.source: {place.source}'} states none of {', '.join(findings)}: found "
            f"{', '.join(names)}; [data.align] maps names that are spelt otherwise"
        )
    return stated


def refuse_unstated(place: Source, *, findings: tuple[str, ...]) -> None:
    """Raise ValueError where none of several sources, or a collection, can state a finding.

    A single source of another kind refuses such findings when it is read.
    """
    if place.source not in COLLECTIONS and not place.also:
        return
    known = {name for one in place.every for name in stated_findings(one, findings=findings)}
    if lost := [name for name in findings if name not in known]:
        sources = ", ".join(one.source for one in place.every)
        stated = ", ".join(f'"{name}"' for name in findings if name in known)
        collections = [COLLECTIONS[one.source] for one in place.every if one.source in COLLECTIONS]
        known_names = [name for one in collections for name in names_known(one)]
        hint = nearest(lost[0], [*known_names, *known], most=3)
        raise ValueError(
            f"findings: {listed(lost)}: stated by no source ({sources}){hint}: leave them out, "
            f"findings = [{stated}], or map a source's own names to them by [data.align]"
        )


def with_both_labels(films: Manifest) -> Manifest:
    """Return the films; ValueError where no finding has films with it and films without it."""
    present, absent = (films.label == 1).sum(axis=0), (films.label == 0).sum(axis=0)
    if not ((present > 0) & (absent > 0)).any():
        raise ValueError(
            f"{films.origin}: of {listed(films.findings)} none has films with it and films without "
            f"it (found {counted(present.sum(), 'label')} of 1 and {absent.sum():,} of 0): nothing "
            "can be learned; see that data.labels and findings are those of these films"
        )
    for label, known, lost in (("0", absent, present), ("1", present, absent)):
        alike = (known > 0) & (lost == 0)
        if names := [
            name for name, is_alike in zip(films.findings, alike, strict=True) if is_alike
        ]:
            say(f"Every stated label is {label}: {listed(names)}; cannot be evaluated")
    return films


def _is_stated(finding: str, place: Source, known: tuple[str, ...], table: CsvTable | None) -> bool:
    """Return whether a label, or labels of all parts of a group, are those of a finding."""
    aligned = _aligned(place)
    if parts_of(finding) in aligned or finding in known:
        return True
    parts = parts_of(finding)
    if table is not None and columns_meant(table, finding):
        return True
    if len(parts) == 1:
        return False
    return all(_is_stated(part, place, known, table) for part in parts)


def _aligned(place: Source) -> set[frozenset[str]]:
    """Return the findings that the protocol itself maps names to, as `parts_of` has them."""
    return {parts_of(one) for name in place.align for one in targets_of(name, place.align)}


def _as_collection(films: Manifest, title: str) -> PublicCollection:
    """Return labels that are findings by their own names as a collection."""
    return PublicCollection(
        title=title, read=lambda root, labels: films, findings=films.findings, tables=()
    )


def _refuse_unknown(source: Source, findings: tuple[str, ...]) -> None:
    """Raise ValueError for a finding that NIH does not state, and the protocol maps nothing to."""
    for finding in findings:
        if not _is_stated(finding, source, LABELS, None):
            for part in sorted(parts_of(finding)):
                label_column(part)


def _read_nih(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    _refuse_unknown(source, findings)
    films = read_nih_tables(tables_folder(source), labels=source.labels, findings=LABELS)
    collection = _as_collection(films, "ChestX-ray14")
    return choose_labels(films, source=source, findings=findings, collection=collection)


def _read_csv(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    return _read_table(read_csv(label_file(tables_folder(source), source.labels)), source, findings)


def _read_dicom(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    named = name_films(read_csv(label_file(Path(source.root), source.labels)), source=source)
    renamed = source.model_copy(update={"image_column": IMAGE, "patient_column": PATIENT})
    return with_headers(_read_table(named.table, renamed, findings), named)


def _read_table(table: CsvTable, source: Source, findings: tuple[str, ...]) -> Manifest:
    """Return the films of a table with columns of 0 and 1."""
    file = table.file
    lost = [one for one in findings if not _is_stated(one, source, (), table)]
    if findings == FINDINGS and lost:
        raise ValueError(
            f"{file}: no column {lost[0]!r}, one of the {len(findings)} that a protocol without "
            f"`findings` expects: found {', '.join(table.columns)}"
            f"{nearest(lost[0], table.columns)}; "
            'list the table\'s in the protocol: findings = ["…"]'
        )
    films = films_of_table(
        table,
        findings=_own_columns(table, source, findings),
        image_column=source.image_column,
        patient_column=source.patient_column,
        columns=source.columns,
    )
    collection = _as_collection(films, table.file.name)
    return choose_labels(films, source=source, findings=findings, collection=collection)


def _own_columns(table: CsvTable, source: Source, findings: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of columns that findings are made of, whether the table has them or not."""
    aligned, own = _aligned(source), list[str]()
    for finding in findings:
        if columns_meant(table, finding):
            own.append(finding)
        elif parts_of(finding) not in aligned:
            own += [part for part in finding.split(OR) if frozenset([part]) not in aligned]
    return tuple(dict.fromkeys([*own, *source.align]))


def _read_phantom(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    """Read a phantom that `write_phantom` has written to the source's root."""
    films = _read_nih(source.model_copy(update={"labels": ""}), findings=findings)
    patients = len(np.unique(films.patient))
    origin = f"Phantoms: {len(films):,} invented films of {patients:,} invented patients"
    return replace(films, origin=origin)


def _read_collection(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    collection = COLLECTIONS[source.source]
    films = collection.read(tables_folder(source), source.labels)
    say_absent(films, title=collection.title)
    return choose_labels(films, source=source, findings=findings, collection=collection)


SOURCES: dict[str, Callable[..., Manifest]] = {
    "nih": _read_nih,
    "csv": _read_csv,
    "dicom": _read_dicom,
    "phantom": _read_phantom,
    **dict.fromkeys(COLLECTIONS, _read_collection),
}
