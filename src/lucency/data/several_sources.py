"""Several sources as one: each is read by its own reader, then all films stand in one Manifest.

A protocol whose `data` has no `also` is one source, and goes to `lucency.data.sources` as it is.
Films have the fact `source`: the reader's name, with a number where it reads several.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from lucency.config.sections import Source
from lucency.core.files import BusyError, write_table
from lucency.core.manifest import (
    PATIENT_ID,
    READING_COLUMNS,
    SOURCE,
    Manifest,
    Prepared,
    counted,
    load_manifest,
    read_table,
    save_manifest,
)
from lucency.core.progress import progress, say
from lucency.core.stage import produce
from lucency.core.stores import resolved_place
from lucency.core.tables import NIH_NAME, film_names
from lucency.data.collections.overlaps import overlap
from lucency.data.dicom_source import make_keys
from lucency.data.duplicates import twice_in_sources
from lucency.data.film_archives import ARCHIVES, recall_archives
from lucency.data.film_files import identify_films
from lucency.data.film_names import places_below
from lucency.data.sources import (
    Check,
    absent_places,
    draw_source,
    film_inputs,
    films_folder,
    films_found,
    find_films,
    list_films,
    read_films,
    stated_findings,
    where_films_lie,
)
from lucency.data.stored_tables import tables_folder

TEXT = ("sex", "view", PATIENT_ID, "path")  # facts of which "" is not known
TABLES = ("csv", "dicom")  # of these a patient's name is one patient, in whichever source


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFilms:
    """The films of one of several sources, and the names of those without a file."""

    source: Source
    films: Manifest
    missing: Shaped[np.ndarray, " m"]


def name_sources(place: Source) -> dict[str, Source]:
    """Return a source and its others by name: csv, csv-2, phantom, in the protocol's order."""
    named = dict[str, Source]()
    for one in place.every:
        count = sum(one.source == other.source for other in named.values())
        named[f"{one.source}-{count + 1}" if count else one.source] = one
    return named


def draw_sources(place: Source, *, findings: tuple[str, ...], out: Path, workers: int) -> Source:
    """Return where all films are; phantoms are drawn into `out`, those of others in `out`-2, ….

    Raises ValueError as `draw_source` does, and for sources that share films.
    """
    if not place.also:
        return draw_source(place, findings=findings, out=out, workers=workers)
    _refuse_shared(place)
    drawn = []
    for index, one in enumerate(place.every):
        with own_keys(section_of(index)):
            folder = _phantom_folder(out, index)
            stated = (
                stated_findings(one, findings=findings) if one.source == "phantom" else findings
            )
            drawn.append(draw_source(one, findings=stated, out=folder, workers=workers))
    return drawn[0].model_copy(update={"also": tuple(drawn[1:])})


def as_drawn(place: Source, *, out: Path) -> Source:
    """Return one or several sources as `draw_sources` does, where phantoms have been drawn."""
    first, *others = (
        one.model_copy(update={"root": str(folder)})
        if one.source == "phantom" and not one.root and folder.is_dir()
        else one
        for index, one in enumerate(place.every)
        for folder in [_phantom_folder(out, index)]
    )
    return first.model_copy(update={"also": tuple(others)})


def read_sources(
    place: Source, *, findings: tuple[str, ...], out: Path, check: Check = lambda films: None
) -> Manifest:
    """Return the films of all sources that lie on disk; missing.csv in `out` lists the others.

    The stage. Raises ValueError as `read_films` does, and for sources that share films.
    """
    if not place.also:
        return read_films(place, findings=findings, out=out, check=check)
    make_keys(place, out=out)
    inputs = inputs_of_sources(place, findings=findings)
    place = _resolved(place)
    films = films_of_sources(
        place, produce(out, inputs=inputs, write=partial(_read, place, findings, check))
    )
    path = films.facts["path"].to_numpy(dtype=object).copy()
    for name, one in name_sources(place).items():
        rows = _rows_of(films, name)
        mine = films.take(rows)
        own = np.array([str(image).removeprefix(f"{name}/") for image in mine.image])
        path[rows] = where_films_lie(replace(mine, image=own), one)
    return replace(films, facts=films.facts.assign(path=path))


def inputs_of_sources(place: Source, *, findings: tuple[str, ...]) -> dict[str, object]:
    """Return what the films and labels of all sources are made of, as `film_inputs` does."""
    if not place.also:
        return film_inputs(place, findings=findings)
    _refuse_shared(place)
    inputs = dict[str, object]()
    for index, (name, one) in enumerate(name_sources(place).items()):
        with own_keys(section_of(index)):
            inputs[name] = film_inputs(one, findings=findings)
    return inputs


def films_of_sources(place: Source, out: Path) -> Manifest:
    """Return the films that `read_sources` has found, their paths below the roots as they are."""
    if not place.also:
        return films_found(place, out)
    films = load_manifest(out)
    path = films.facts["path"].to_numpy(dtype=object).copy()
    for name, one in name_sources(place).items():
        recall_archives(out / name, root=Path(one.root))
        rows = _rows_of(films, name)
        path[rows] = places_below(films_folder(one), path[rows].tolist())
    return replace(films, facts=films.facts.assign(path=path))


def places_absent(place: Source) -> dict[str, str]:
    """Return which places are not there, as `absent_places` does; of others: "also.0.root"."""
    absent = absent_places(place.every[0])
    for index, one in enumerate(place.also):
        where = section_of(index + 1)
        prefix = where.removeprefix("data.")
        absent |= {f"{prefix}.{k}": in_keys(v, where) for k, v in absent_places(one).items()}
    return absent


def list_sources(
    place: Source, *, findings: tuple[str, ...], split: Callable[[Manifest, Path], np.ndarray]
) -> tuple[Manifest, np.ndarray]:
    """Return all films that the label tables list, and their parts, as `list_films` does."""
    if not place.also:
        return list_films(place, findings=findings, split=split)
    _refuse_shared(place)
    listed = dict[str, SourceFilms]()
    for index, (name, one) in enumerate(name_sources(place).items()):
        with own_keys(section_of(index)):
            stated = stated_findings(one, findings=findings)
            films, _ = list_films(one, findings=stated, split=lambda films, _: films.patient)
        listed[name] = SourceFilms(source=one, films=films, missing=films.image[:0])
    films, _ = join_sources(listed, findings=findings)
    return films, split(films, tables_folder(place))


def join_sources(
    several: Mapping[str, SourceFilms], *, findings: tuple[str, ...]
) -> tuple[Manifest, pd.DataFrame]:
    """Return the films of all sources as one, and a table of those without a file: image, source.

    What a source does not state is NaN. Where a name stands in two sources, all names of these
    begin with their source's and a slash. Patients keep their numbers unless two people have one;
    then all are numbered anew, and the fact `patient_id` names them as their source does. In two
    tables one name is one patient. Raises ValueError where two sources list a film of ChestX-ray14.
    """
    clash = _clashing(several)
    films, absent = list[Manifest](), list[pd.DataFrame]()
    for name, one in several.items():
        prefix = f"{name}/" if name in clash else ""
        films.append(_as_one_of_several(one.films, name, prefix, findings))
        missing = [prefix + str(image) for image in one.missing]
        absent.append(pd.DataFrame({"image": missing, SOURCE: name}))
    if clash:
        say(f"Names of films stand in several sources: they begin with {', '.join(sorted(clash))}")
    patient, patient_id = _patients(several)
    facts = pd.concat([one.facts for one in films], ignore_index=True)
    known = {name: facts[name].fillna("") for name in TEXT if name in facts}
    joined = Manifest(
        findings=findings,
        image=np.concatenate([one.image for one in films]),
        patient=patient,
        label=np.concatenate([one.label for one in films]),
        facts=facts.assign(**known | patient_id),
        origin="; ".join(one.origin for one in films),
        **{
            name: _stacked([getattr(one, name) for one in films])
            for name in ("boxes", "uncertain", "soft", "reading")
        },
    )
    return joined, pd.concat(absent, ignore_index=True)


@contextmanager
def own_keys(where: str) -> Iterator[None]:
    """Let an error of a source name the keys of its own section, `where`, in place of `data`'s."""
    try:
        yield
    except BusyError:
        raise
    except ValueError as error:
        raise ValueError(in_keys(str(error), where)) from error


def in_keys(message: str, where: str) -> str:
    """Return a message about keys of `data` with those of another section.

    >>> in_keys("data.root is '', which is no folder", "data.also.0")
    "data.also.0.root is '', which is no folder"
    """
    keys = "|".join(key for key in Source.model_fields if key != "also")
    return re.sub(rf"\bdata\.({keys})\b", rf"{where}.\1", message)


def section_of(index: int) -> str:
    """Return the section of a protocol in which a source of `Source.every` stands."""
    return f"data.also.{index - 1}" if index else "data"


def _phantom_folder(out: Path, index: int) -> Path:
    return out.with_name(f"{out.name}-{index + 1}") if index else out


def _resolved(place: Source) -> Source:
    """Return sources whose roots are whole paths without links."""
    first, *others = (
        one.model_copy(update={"root": resolved_place(one.root)}) for one in place.every
    )
    return first.model_copy(update={"also": tuple(others)})


def _refuse_shared(place: Source) -> None:
    """Raise ValueError where films or patients of one source are also in another."""
    for (one, mine), (other, theirs) in combinations(enumerate(place.every), 2):
        if why := overlap(mine, theirs):
            raise ValueError(
                f"{section_of(one)} and {section_of(other)} share films or patients: "
                f"{why}; expected each film in one source: leave one of them out"
            )


def _read(place: Source, findings: tuple[str, ...], check: Check, folder: Path) -> None:
    """Look for the films of every source; write those found as one manifest, list the others."""
    read = dict[str, SourceFilms]()
    with tempfile.TemporaryDirectory() as temporary:
        for index, (name, one) in enumerate(name_sources(place).items()):
            out = Path(temporary) / name
            out.mkdir()
            with own_keys(section_of(index)):
                find_films(one, stated_findings(one, findings=findings), out)
            if (out / ARCHIVES).is_file():
                (folder / name).mkdir()
                shutil.copy(out / ARCHIVES, folder / name / ARCHIVES)
            missing = read_table(out / "missing.csv", text=("image",))["image"]
            read[name] = SourceFilms(
                source=one, films=load_manifest(out), missing=missing.to_numpy(dtype=object)
            )
    _refuse_one_file(read)
    films, absent = join_sources(read, findings=findings)
    check(films)
    write_table(absent, folder / "missing.csv")
    save_manifest(films, folder)
    parts = [f"{counted(len(one.films), 'film')} of {name}" for name, one in read.items()]
    say(f"Sources: {', '.join(parts)}")


def _refuse_one_file(several: Mapping[str, SourceFilms]) -> None:
    """Raise ValueError where two sources read one file, or one member of one archive."""
    known = dict[tuple[int, int, str], int]()
    for index, one in enumerate(several.values()):
        files = places_below(films_folder(one.source), one.films.facts["path"].tolist())
        own = identify_films(files)
        twice = [
            (known[film], file) for film, file in zip(own, files, strict=True) if film in known
        ]
        if twice:
            count = counted(len(twice), "film", "is/are", of=len(files))
            raise ValueError(
                f"{section_of(index)}: {count} read by {section_of(twice[0][0])} too "
                f"({twice[0][1]}, …): expected each film in one source; leave one source out, or "
                "name these films in a list, as `exclude` of one of the two"
            )
        known |= dict.fromkeys(own, index)


def refuse_same_pictures(prepared: Prepared, place: Source, *, out: Path) -> None:
    """Raise ValueError where prepared films of two sources are one picture, to the pixel.

    They are listed in `out`, a table for each source that has them again, by the source's names.
    """
    if not place.also:
        return
    with progress("Comparing films of several sources", unit="films") as advance:
        twice = twice_in_sources(prepared, progress=advance)
    files = list[Path]()
    for name, films in twice.groupby(SOURCE):
        files.append(out / f"twice-{name}.csv")
        write_table(films.assign(image=films["image"].str.removeprefix(f"{name}/")), files[-1])
    if files:
        first, names = twice.iloc[0], list(name_sources(place))
        mine, theirs = (section_of(names.index(first[one])) for one in (SOURCE, "other_source"))
        count = counted(len(twice), "film", "shows/show", of=len(prepared.manifest))
        raise ValueError(
            f"{count} what a film of another source does, to the pixel ({first['image']} of {mine} "
            f"= {first['other']} of {theirs}, …): expected each film in one source; leave one "
            f"source out, or name {' and '.join(map(str, files))}, as its `exclude` in another run"
        )


def _as_one_of_several(
    films: Manifest, name: str, prefix: str, findings: tuple[str, ...]
) -> Manifest:
    """Return a source's films with the fact `source`, all findings, and names that are unique."""
    if SOURCE in films.facts:
        raise ValueError(
            f"data.columns: {SOURCE!r} is what names the source of a film: expected another column"
        )
    column = [films.findings.index(one) if one in films.findings else -1 for one in findings]
    unstated = np.full((len(films), 1), np.nan, dtype=np.float32)
    label = np.concatenate([films.label, unstated], axis=1)[:, column]
    silent = [("not stated", one, len(films)) for one in findings if one not in films.findings]
    reading = _stacked([films.reading, pd.DataFrame(silent, columns=list(READING_COLUMNS))])
    image = np.array([prefix + str(one) for one in films.image])
    return replace(
        films,
        findings=findings,
        label=label,
        image=image,
        facts=films.facts.assign(**{SOURCE: name}),
        reading=reading.assign(step=f"{name}: " + reading["step"]),
        **{
            table: held.assign(image=prefix + held["image"].astype(str)) if len(held) else held
            for table in ("boxes", "uncertain", "soft")
            for held in [getattr(films, table)]
        },
    )


def _clashing(several: Mapping[str, SourceFilms]) -> set[str]:
    """Return the sources that have a name of a film in common with another."""
    names = {
        name: set(film_names(np.array([*one.films.image, *one.missing], dtype=object)).tolist())
        for name, one in several.items()
    }
    clash = set[str]()
    for one, other in combinations(names, 2):
        same = sorted(names[one] & names[other])
        if twice := [image for image in same if NIH_NAME.fullmatch(image)]:
            raise ValueError(
                f"{one} and {other} share {counted(len(twice), 'film')} by name, such as "
                f"{twice[0]!r}: a name of ChestX-ray14 is one film; expected each film in one "
                "source (of phantoms: set `hospital` = 2 for one of them)"
            )
        clash |= {one, other} if same else set()
    return clash


def _patients(
    several: Mapping[str, SourceFilms],
) -> tuple[Int64[np.ndarray, " n"], dict[str, Shaped[np.ndarray, " n"]]]:
    """Return whose films these are, in order, and their names where numbers do not say it."""
    number = np.concatenate([one.films.patient for one in several.values()])
    named = [one.films.patient_id.astype(str) for one in several.values()]
    table = next((name for name, one in several.items() if one.source.source in TABLES), "")
    kind = [table if one.source.source in TABLES else name for name, one in several.items()]
    of_film = np.repeat(kind, [len(one.films) for one in several.values()])
    who = pd.DataFrame({"kind": of_film, "number": number, "named": np.concatenate(named)})
    people = who.drop_duplicates(["kind", "number"])
    if not people["number"].duplicated().any():
        has_names = any(PATIENT_ID in one.films.facts for one in several.values())
        return number, {PATIENT_ID: who["named"].to_numpy(dtype=object)} if has_names else {}
    anew = who.groupby(["kind", "number"], sort=False).ngroup().to_numpy(dtype=np.int64) + 1
    alike = people.loc[people["named"].duplicated(keep=False), "named"]
    plain = who["named"].where(~who["named"].isin(alike), who["kind"] + ":" + who["named"])
    several_times = counted(alike.nunique(), "name", "stands/stand")
    say(f"Patients are numbered anew: {several_times} for patients of several sources")
    return anew, {PATIENT_ID: plain.to_numpy(dtype=object)}


def _rows_of(films: Manifest, name: str) -> Int64[np.ndarray, " m"]:
    return np.flatnonzero(films.facts[SOURCE].to_numpy(dtype=str) == name)


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of the same columns after each other; those without a row have no types."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]
