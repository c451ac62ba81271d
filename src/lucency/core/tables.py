"""Result tables, saved and loaded; names of films joined across files.

Letters in shapes: n films or names, t known films.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from posixpath import commonpath
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, Shaped

from lucency.core.files import write_table, write_whole
from lucency.core.manifest import counted, read_table
from lucency.core.plan import COPY_MARK
from lucency.core.progress import say
from lucency.core.saved_files import ANEW, JSON_DAMAGE, naming_damage
from lucency.core.written import refuse_changed, stated_of, writing_into

Value = TypeVar("Value")
Answer = dict[str, Any]  # of a command, for people or for JSON
Rows = dict[str, tuple[int, ...]]  # the first two rows of each key
NIH_NAME = re.compile(r"(?:.*[/\\])?([0-9]{8}_[0-9]{3})(?:\.\w+)?")
PICTURE = r"\.(?:png|jpe?g|jp2|bmp|gif|webp|tiff?|dcm|dicom|npy)"
FILM_SUFFIX = re.compile(f"{PICTURE}$", re.IGNORECASE)
INVISIBLE = r"[\s\u00ad\u200b-\u200f\u2060\ufeff]+"  # blanks, and what no one sees
BLANKS = re.compile(f"^{INVISIBLE}|{INVISIBLE}$")  # around a text
AROUND = "".join(filter(BLANKS.fullmatch, map(chr, (*range(0x3001), 0xFEFF))))  # what they may be
NO_SUFFIX = "\0"  # ends a path that has lost its suffix
CONCLUSION = "conclusion.txt"
NOWHERE = -1  # the row of a film that fits none
MOST_FOLDERS = 64  # of a common path, in place of which another may stand


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """An audit's tables by name, the names of those shown on a terminal, remarks and conclusion."""

    tables: Mapping[str, pd.DataFrame]
    shown: tuple[str, ...]
    remarks: tuple[str, ...]
    conclusion: str


def write_audit(audit: Audit, folder: Path) -> None:
    """Write each table as NAME.csv, and conclusion.txt.

    Raises ValueError where other tables are, or these were changed since they were written.
    """
    names = {f"{name}.csv" for name in audit.tables}
    others = sorted({file.name for file in folder.glob("*.csv")} - names)
    if others:
        raise ValueError(
            f"{folder} holds {others[0]} of something else: choose another folder (--out)"
        )
    lines = "\n".join([*audit.remarks, audit.conclusion])
    with writing_into(folder, {*names, CONCLUSION}):
        for name, table in audit.tables.items():
            write_table(table, folder / f"{name}.csv")
        write_whole(folder / CONCLUSION, f"{lines}\n")


def files_of(value: object) -> dict[str, object]:
    """Return what `save_tables` writes by the names of its files."""
    held = {name: one for name, one in vars(value).items() if not _is_empty(one)}
    return {f"{name}{_suffix(one)}": one for name, one in held.items()}


def _is_empty(held: object) -> bool:
    return isinstance(held, pd.DataFrame) and not len(held.columns)


def _suffix(held: object) -> str:
    if isinstance(held, pd.DataFrame):
        return ".csv"
    return ".txt" if isinstance(held, str) else ".json"


def save_tables(value: object, folder: Path) -> None:
    """Write each field of a dataclass: a table as NAME.csv, a text as NAME.txt, else NAME.json.

    A table without columns, which CSV cannot state, has no file.
    """
    for name, held in files_of(value).items():
        if isinstance(held, pd.DataFrame):
            write_table(held, folder / name)
        else:
            text = held + "\n" if isinstance(held, str) else json.dumps(held, indent=1)
            write_whole(folder / name, text)


def load_tables(kind: type[Value], folder: Path, *, text: tuple[str, ...]) -> Value:
    """Return the dataclass that `save_tables` wrote; a field without a file keeps its default.

    `text` are the columns of text, as of `read_table`. Raises ValueError for a file that is
    damaged, or absent and without a default.
    """
    held: dict[str, object] = {}
    for name in kind.__annotations__:
        place = folder / name
        if (file := place.with_suffix(".csv")).is_file():
            held[name] = read_table(file, text=text)
        elif (file := place.with_suffix(".txt")).is_file():
            with naming_damage(file):
                held[name] = _read_whole(file).decode().strip()
        elif (file := place.with_suffix(".json")).is_file():
            with naming_damage(file, kinds=JSON_DAMAGE):
                held[name] = json.loads(_read_whole(file))
    needed = [name for name, one in signature(kind).parameters.items() if one.default is one.empty]
    files = [*(f"{name}.csv" for name in needed), *stated_of(folder)]
    absent = {*kind.__annotations__} - {*held}
    for name in (name for name in files if Path(name).stem in absent):
        raise ValueError(f"{folder}: its table {name} is absent; {ANEW}")
    return kind(**held)


def _read_whole(file: Path) -> bytes:
    content = file.read_bytes()
    refuse_changed(file, content)
    return content


def refuse_same_files(files: Sequence[Path]) -> None:
    """Raise ValueError where a file or folder is named twice, in whatever spelling."""
    seen: set[str] = set()
    for file in files:
        place = os.path.realpath(file)  # unlike Path.resolve, also of a link to itself
        if place in seen:
            raise ValueError(f"{file} is named twice: expected each file and run once")
        seen.add(place)


def refuse_label_file(files: Sequence[Path], labels: Path | None) -> None:
    """Raise ValueError where a table of predictions is the label file, or a copy of it."""
    if labels is None or not labels.is_file():
        return
    for file in files:
        same = os.path.realpath(file) == os.path.realpath(labels)
        if same or (file.is_file() and filecmp.cmp(file, labels, shallow=False)):
            found = "is the label file" if same else f"holds what the label file {labels} does"
            raise ValueError(
                f"{file} {found}: its AUC would be 1 whatever the network; expected a table of "
                "predictions"
            )


def film_names(image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Return the film behind each name; those of ChestX-ray14 without folder and suffix."""
    plain = [str(name).partition(COPY_MARK)[0] for name in image]
    known = ((NIH_NAME.fullmatch(name), name) for name in plain)
    return np.array([match[1] if match else name for match, name in known], dtype=object)


def within(
    film: Shaped[np.ndarray, " n"], known: Shaped[np.ndarray, " t"]
) -> Bool[np.ndarray, " n"]:
    """Return which films are among the known ones, both as `film_names` gives them."""
    return pd.Index(film).isin(known)


def join_films(
    image: Shaped[np.ndarray, " n"],
    known: Shaped[np.ndarray, " t"],
    *,
    source: str,
    shown: Sequence[str] = (),
) -> Int64[np.ndarray, " n"]:
    """Return the row among `known` of each film, as `match_films` does.

    Raises ValueError where two different names are one film's, too.
    """
    row = match_films(image, known, source=source, shown=shown)
    once = np.unique(image.astype(str), return_index=True)[1]
    rows, count = np.unique(row[once][row[once] >= 0], return_counts=True)
    for twice in rows[count > 1][:1].tolist():
        one, other = np.unique(image[row == twice].astype(str)).tolist()[:2]
        raise ValueError(
            f"{source}: {one!r} and {other!r} both name the film "
            f"{str((shown or known)[twice])!r}; expected each film once: write more of the paths, "
            "or remove one"
        )
    return row


def match_films(
    image: Shaped[np.ndarray, " n"],
    known: Shaped[np.ndarray, " t"],
    *,
    source: str,
    shown: Sequence[str] = (),
) -> Int64[np.ndarray, " n"]:
    """Return the row among `known` of each film, -1 where there is none: the rule of all files.

    A film is named by its path. The same path comes first, else the film with the longest end in
    common: one path must be the end of the other. A suffix may be absent from either. Letters count
    as they are, then in any case. The kind of slash, the Unicode form, and blanks and invisible
    characters around a name never count. Where nothing fits, all films may lie below another folder
    than the known ones. A match in spite of the spelling is reported; `source` is what names the
    films. Raises ValueError where a name fits several films and none better; it names the known
    films as `shown` does, where that is given.
    """
    fits = fitting_films(image, known)
    for name, rows in zip(image.tolist(), fits, strict=True):
        if len(rows) > 1:
            one, other = (str((shown or known)[row]) for row in rows)
            raise ValueError(
                f"{source}: film {str(name)!r} fits both {one} and {other}: expected one; write "
                "more of its path, or remove one"
            )
    row = np.array([rows[0] if rows else NOWHERE for rows in fits], dtype=np.int64)
    if (row < 0).all():
        row = _below_another_folder(image, known)
    _say_spelling(image[row >= 0], known[row[row >= 0]], source)
    return row


def fitting_films(
    image: Shaped[np.ndarray, " n"], known: Shaped[np.ndarray, " t"]
) -> list[tuple[int, ...]]:
    """Return for each film the row among `known` that fits it; the first two of several, or none.

    The rule is that of `match_films`, of which ends of paths and spelling belong to this.
    """
    first = {name: row for row, name in reversed(list(enumerate(known.tolist())))}
    found: list[tuple[int, ...]] = [(first[one],) if one in first else () for one in image.tolist()]
    others = [place for place, rows in enumerate(found) if not rows]
    tails = {film_tail(name) for name in known.tolist()} if others else set()
    others = [place for place in others if film_tail(image[place]) in tails]  # the rest fit nothing
    for fold in (str, str.casefold):
        if not others:
            break
        paths = [fold(_path_of(name)) for name in known.tolist()]
        whole = _rows([[path] for path in paths])
        for place in others:
            found[place] = _of(fold(_path_of(image[place])), whole)
        others = [place for place in others if not found[place]]
        depths = {_path_of(image[place]).count("/") for place in others}
        ends = _rows(_ends_of_depths(path, depths) for path in paths) if others else {}
        for place in others:
            found[place] = _best(fold(_path_of(image[place])), whole, ends)
        others = [place for place in others if not found[place]]
    return found


def spelling(name: str, film: str) -> str:
    """Return in what a name differs from the film that it names, "" where one ends like the other.

    A suffix that one of them lacks is no difference.
    """
    for way, change in SPELLINGS.items():
        name, film = change(name), change(film)
        if _is_end(name, film):
            return way
    return "the folder"


def film_stem(name: str) -> str:
    """Return a film's name without the suffix of a picture, if it has one."""
    return FILM_SUFFIX.sub("", name)


def _path_of(name: object) -> str:
    path = unicodedata.normalize("NFC", str(name)).strip(AROUND).replace("\\", "/")
    return path.removeprefix("./").lstrip("/")


def film_tail(name: object) -> str:
    """Return the last part of a film's path, in any case and without suffix."""
    return film_stem(_path_of(name).rpartition("/")[2].casefold())


def _is_end(name: str, film: str) -> bool:
    if film_stem(name) == name or film_stem(film) == film:
        name, film = film_stem(name), film_stem(film)
    short, long = sorted(
        (f"/{path.removeprefix('./').lstrip('/')}" for path in (name, film)), key=len
    )
    return long.endswith(short)


def _shorter_ends(path: str) -> Iterator[str]:
    """Yield all ends of a path but itself, the longest first."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _ends_of_depths(path: str, depths: set[int]) -> Iterator[str]:
    """Yield the ends of a path but itself that have so many slashes."""
    parts = path.split("/")
    for depth in depths:
        if depth + 1 < len(parts):
            yield "/".join(parts[-1 - depth :])


def _rows(paths: Iterable[Iterable[str]]) -> Rows:
    """Return by path which films have it, at most two; without a suffix it is marked."""
    found: Rows = {}
    for row, several in enumerate(paths):
        for path in several:
            stem = film_stem(path)
            for key in {path, path if stem == path else stem + NO_SUFFIX}:
                found[key] = (*found.get(key, ())[:1], row)
    return found


def _of(path: str, rows: Rows) -> tuple[int, ...]:
    """Return which films have a path; then without its suffix, or with any where it has none."""
    stem = film_stem(path)
    return rows.get(path) or rows.get(path + NO_SUFFIX if stem == path else stem, ())


def _best(path: str, whole: Rows, ends: Rows) -> tuple[int, ...]:
    """Return which films have this path, else those that end with it, else that it ends with."""
    own = (rows for end in _shorter_ends(path) if (rows := _of(end, whole)))
    return _of(path, whole) or _of(path, ends) or next(own, ())


def _below_another_folder(
    image: Shaped[np.ndarray, " n"], known: Shaped[np.ndarray, " t"]
) -> Int64[np.ndarray, " n"]:
    """Return the rows where all films fit once another folder stands before them, else nowhere."""
    nowhere = np.full(len(image), NOWHERE, dtype=np.int64)
    if len(known) < 2 or not len(image):
        return nowhere
    for fold in (str, str.casefold):
        paths = [[fold(_path_of(name)) for name in names] for names in (image, known)]
        own, other = (commonpath([path.rpartition("/")[0] for path in each]) for each in paths)
        whole = _rows([[path.removeprefix(f"{other}/")] for path in paths[1]])
        folders = own.count("/") + 1
        for drop in range(1, folders + 1) if own and other and folders <= MOST_FOLDERS else ():
            rows = [_of(path.split("/", drop)[-1], whole) for path in paths[0]]
            if {len(one) for one in rows} == {1} and len(set(rows)) == len(set(image.tolist())):
                return np.array(rows, dtype=np.int64)[:, 0]
    return nowhere


def _say_spelling(
    image: Shaped[np.ndarray, " n"], film: Shaped[np.ndarray, " n"], source: str
) -> None:
    """Say how many films are spelled otherwise than the known ones, with an example of each way."""
    ways: dict[str, list[str]] = {}
    for name, other in zip(image.tolist(), film.tolist(), strict=True):
        if name != other and (way := spelling(name, other)):
            ways.setdefault(way, []).append(f"{name!r} for {other!r}")
    for way, examples in ways.items():
        names = counted(len(examples), "name", "differs/differ")
        say(f"{source}: {names} in {way}, such as {examples[0]}: taken for the same films")


SPELLINGS: dict[str, Callable[[str], str]] = {  # what does not count in a name, one after another
    "": str,
    "backslashes": lambda name: name.replace("\\", "/"),
    "blanks": lambda name: BLANKS.sub("", name),
    "the Unicode form (NFC, NFD)": lambda name: unicodedata.normalize("NFC", name),
    "capitals": str.casefold,
}
