"""The cache of prepared films: shards made by worker processes, resumable, always the same bytes.

Letters in shapes: n films, m films of a shard, s pixels of the prepared side.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64, Shaped

from lucency.core.engines import on_engine
from lucency.core.files import write_table
from lucency.core.film_shards import (
    REMEDY,
    SHARDS,
    FilmShards,
    Receipt,
    Rows,
    absent_shards,
    films_a_shard,
    finish_shards,
    index_of,
    read_receipt,
    read_receipts,
    remove_receipts,
    shard_name,
    write_shard,
)
from lucency.core.locks import locked
from lucency.core.manifest import (
    Manifest,
    Preparation,
    Prepared,
    counted,
    load_preparation,
    load_prepared,
    read_table,
    save_prepared_tables,
)
from lucency.core.parallel import rank
from lucency.core.progress import say, silent
from lucency.core.saved_files import naming_damage
from lucency.core.stage import produce
from lucency.core.stores import is_own, url_of
from lucency.data.bit_depth import with_bits
from lucency.data.film_archives import FilmStat, LoadedFilm, archive_of, member_of
from lucency.data.film_files import (
    FilmFile,
    StoredFilm,
    fingerprint_film,
    in_reading_order,
    load_films,
    reading_order,
    stat_film,
)
from lucency.data.preprocess import prepare_file
from lucency.data.shared_shards import (
    fetch_shard,
    keep_shard,
    open_shared,
    share_shard,
    shared_place,
)

MOST_SENT, BYTES_SENT = 32, 1 << 23  # films of a streamed archive that are sent to a worker at once
MOST_REJECTED, ALWAYS_BEARABLE = 0.05, 10  # a share of the films; a number that stops nothing
NOT_YET, ABSENT = -2, -1  # in place of the bytes of a film's file
SOURCE = np.dtype([("bytes", np.int64), ("modified", np.int64), ("sha256", "S16")])
HAD = {"fetched": "fetched", "prepared": "prepared", "mended": "damaged there and made anew"}
SOURCES = "sources.csv"  # the file that each film was made from: image and the fields of SOURCE

Film = tuple[int, FilmFile]  # row, place
Shard = tuple[int, list[Film]]
Sources = Shaped[np.ndarray, " n"]  # of SOURCE
Rejects = dict[int, str]  # row, reason


class Made(NamedTuple):
    """How many films a shard has, which of them cannot be decoded, and how it was had.

    That is "prepared", "fetched" from the shared place, or "mended" there, where it was damaged.
    """

    films: int
    rejects: Rejects
    how: str = "prepared"


def prepare(
    manifest: Manifest,
    *,
    preparation: Preparation,
    out: Path,
    workers: int,
    progress: Callable[[int, int], None] = silent,
    inputs: Mapping[str, object] = MappingProxyType({}),
) -> Prepared:
    """Return the films of `manifest` as the network sees them, from `out` or prepared into it.

    A call that was killed is continued by the same call, also after broken films were mended. The
    bytes do not depend on `workers` or on interruptions, nor on the shared place that shards may
    come from (`lucency.data.shared_shards`). The films' bit depth is found first, where
    the preparation states none, and stands in that of what is returned. `progress(done, films)` is
    called as films get done. Films that cannot be decoded leave the manifest and are listed in
    rejected.csv; SOURCES has size, time and hash of the others' files. Raises ValueError when a
    film has no path, when `out` was made from other inputs, when a file has changed since, when a
    worker process dies, when the disk is too full, and when more than 5 % of the films (and more
    than 10) cannot be decoded; what is done stays done.
    """
    path = manifest.facts["path"].to_numpy(dtype=str)
    if len(manifest) == 0 or (path == "").any():
        raise ValueError(
            f"{counted((path == '').sum(), 'film', 'has/have', of=len(manifest))} no file: "
            "find them, or leave those rows out (found_films) before preparing"
        )
    workers = 1 if any(map(is_own, path.tolist())) else workers
    source = np.array([_source_of(stat_film(file)) for file in path.tolist()], dtype=SOURCE)
    _refuse_changed(out, manifest, source)
    known = out / "preparation.json"  # of films that are prepared: they need not be read again
    if known.is_file() and not preparation.bits:
        preparation = preparation.model_copy(update={"bits": load_preparation(out).bits})
    preparation = with_bits(preparation, path.tolist())
    inputs = {
        **inputs,
        "preparation": preparation.model_dump(),
        "films": _digest(manifest),
        "film_bytes": hashlib.sha256(source["bytes"].tobytes()).hexdigest()[:16],
    }

    def write(folder: Path) -> None:
        _write(folder, manifest, preparation, source, workers=workers, progress=progress)

    # Each film's receipt remembers the file it was made from: replaced films are made anew.
    produce(out, inputs=inputs, write=write, may_change=("film_bytes",))
    prepared = load_prepared(out)
    if isinstance(prepared.pixels, FilmShards):
        _mend(prepared.pixels, manifest, preparation, workers=workers)
    return prepared


def _source_of(found: FilmStat | None, sha256: str = "") -> tuple[int, int, str]:
    """Return the fields of SOURCE; of an absent film, which decoding will reject with the reason.

    `modified` is a time in nanoseconds, or a checksum (`lucency.data.film_archives.FilmStat`).
    """
    return (found.size, found.modified, sha256) if found else (ABSENT, 0, "")


def _refuse_changed(out: Path, manifest: Manifest, source: Sources) -> None:
    """Raise ValueError when the file of a film that is prepared has other content now."""
    if not (out / SOURCES).is_file():
        return
    then = read_table(
        out / SOURCES, text=("image", "sha256"), columns=("image", *(SOURCE.names or ()))
    )
    row = pd.Index(manifest.image).get_indexer(pd.Index(then["image"]))
    was = np.zeros(len(then), dtype=SOURCE)
    with naming_damage(out / SOURCES):
        for name in SOURCE.names or ():
            was[name] = then[name]
    path = manifest.facts["path"].to_numpy(dtype=str)[row]
    changed = path[_changed(was, source[row], path) & (row >= 0)]
    if len(changed):
        films = counted(len(changed), "film", "has/have", of=len(manifest))
        raise ValueError(
            f"{films} changed since they were prepared, such as {changed[0]}: bring the files "
            "back, or choose another folder"
        )


def _changed(was: Sources, now: Sources, path: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which files have other content; those as large and as old as then are not read."""
    changed = was["bytes"] != now["bytes"]
    doubtful = np.flatnonzero(~changed & (was["modified"] != now["modified"]))
    for number, file in in_reading_order(path[doubtful].tolist()):
        row = doubtful[number]
        changed[row] = fingerprint_film(file).encode() != was["sha256"][row]
    return changed


def _digest(manifest: Manifest) -> str:
    """Return 16 hexadecimal digits of everything but the films' paths."""
    digest = hashlib.sha256(json.dumps([manifest.findings, manifest.origin]).encode())
    digest.update(json.dumps(manifest.image.tolist()).encode())
    digest.update(manifest.patient.tobytes() + manifest.label.tobytes())
    for table in (manifest.facts.drop(columns="path"), manifest.boxes):
        digest.update(table.to_csv(index=False).encode())
    return digest.hexdigest()[:16]


def _write(
    folder: Path,
    manifest: Manifest,
    preparation: Preparation,
    source: Sources,
    *,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write the films in shards, and the tables; what an earlier call left there is used."""
    place, path = (folder / SHARDS).absolute(), manifest.facts["path"].to_numpy(dtype=str)
    place.mkdir(exist_ok=True)
    for name in ("pixels.npy", "rows.npy", "done.npy"):  # of a version without shards
        (folder / name).unlink(missing_ok=True)
    shards = plan_shards(path, source["bytes"], side=preparation.size)
    columns = (*(SOURCE.names or ()), "reason")
    known = [receipt_of(place, number, rows, columns=columns) for number, rows in enumerate(shards)]
    changed = _changed(_sources_of(known, films=len(manifest)), source, path)
    todo = {number: rows for number, rows in enumerate(shards) if changed[rows].any()}
    _refuse_full(folder, sum(map(len, todo.values())) * preparation.size**2)
    rejects = {
        row: why
        for number, one in enumerate(known)
        if number not in todo
        for row, why in _rejects(one)
    }
    left = sum(map(len, todo.values()))
    progress(len(manifest) - left, len(manifest))
    shared, had = shared_place(preparation, manifest.image), Counter[str]()
    if shared and todo:
        open_shared(shared)
    work = partial(_obtain_shard, place, preparation, shared)
    workers = 1 if is_own(shared) else min(workers, len(todo))
    for made in on_engine(work, load_shards(todo, path), workers=workers):
        rejects |= made.rejects
        left -= made.films
        had[made.how] += 1
        progress(len(manifest) - left, len(manifest))
        _refuse_too_many(rejects, manifest)
    if shared and todo:
        say(f"Cache {shared}: {', '.join(f'{had[one]} {text}' for one, text in HAD.items())}")
    _finish(folder, manifest, preparation, shards)


def plan_shards(
    path: Shaped[np.ndarray, " n"], size_of: Int64[np.ndarray, " n"], *, side: int
) -> list[Rows]:
    """Return the rows of each shard, by the films' order and places alone.

    Films of an archive that is read from its start are in its order, and few together: they are
    sent to a worker as they come.
    """
    plain, streamed = reading_order(path.tolist())
    size = films_a_shard(len(path), side=side)
    shards = [plain[start : start + size] for start in range(0, len(plain), size)]
    held = 0
    for number, row in enumerate(streamed):
        if not number or held >= BYTES_SENT or len(shards[-1]) == min(size, MOST_SENT):
            shards.append([])
            held = 0
        shards[-1].append(row)
        held += max(0, int(size_of[row]))
    return [np.array(rows, dtype=np.int64) for rows in shards]


def load_shards(shards: Mapping[int, Rows], path: Shaped[np.ndarray, " n"]) -> Iterator[Shard]:
    """Yield the films of each shard; those of archives that are streamed have their content."""
    if not shards:
        return
    rows = np.concatenate(list(shards.values())).tolist()
    shard_of = {row: number for number, films in shards.items() for row in films.tolist()}
    waiting: dict[int, list[Film]] = {}
    for place, file in in_reading_order(path[rows].tolist()):
        number = shard_of[rows[place]]
        waiting.setdefault(number, []).append((rows[place], file))
        if len(waiting[number]) == len(shards[number]):
            yield number, waiting.pop(number)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let OpenCV start no threads of its own within: a worker has one core."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _obtain_shard(folder: Path, preparation: Preparation, shared: str, shard: Shard) -> Made:
    """Write a shard: from the shared place where it has one of these very films, else prepared.

    A shard with films that cannot be decoded is neither shared nor taken: another machine may be
    able to decode them.
    """
    if not shared:
        return _prepare_shard(folder, preparation, shard)
    number, films = shard
    found = fetch_shard(shared, number)
    if not found.state and not any(_rejects(found.receipt)) and _is_made_of(found.receipt, films):
        keep_shard(folder, number, found)
        return Made(len(films), Rejects(), "fetched")
    made = _prepare_shard(folder, preparation, shard)
    if not made.rejects:
        share_shard(shared, folder, number)
    return made._replace(how="mended") if found.state == "damaged" else made


def _is_made_of(receipt: Receipt, films: Sequence[Film]) -> bool:
    """Return whether a shard holds these films, made from files of this content."""
    if receipt["row"] != sorted(row for row, _ in films):
        return False
    place = {row: number for number, row in enumerate(receipt["row"])}
    for row, file in films:
        size, modified, sha256 = (receipt[name][place[row]] for name in SOURCE.names or ())
        now = _stat_of(file)
        if now is None or now.size != size:
            return False
        known = now.modified == modified and _states_content(file)
        if not known and fingerprint_film(file) != sha256:
            return False
    return True


def _states_content(file: FilmFile) -> bool:
    """Return whether a film's `modified` is a sign of its content: an ETag, or a zip's checksum.

    A time is not: other films of the same names may be as large and as old.
    """
    if isinstance(file, StoredFilm):
        return True
    place = file.place if isinstance(file, LoadedFilm) else file
    inside = member_of(place)
    return bool(url_of(place)) or (inside is not None and archive_of(inside[0]).kind == "zip")


def _stat_of(file: FilmFile) -> FilmStat | None:
    if isinstance(file, StoredFilm):
        return FilmStat(file.size, file.modified)
    if isinstance(file, LoadedFilm):
        return None if file.reason else FilmStat(len(file.content), file.modified)
    return stat_film(file)


def _prepare_shard(folder: Path, preparation: Preparation, shard: Shard) -> Made:
    """Write a shard; return the number of its films and those that cannot be decoded."""
    number, films = shard
    rows = sorted(row for row, _ in films)
    place, rejects = {row: film for film, row in enumerate(rows)}, Rejects()
    pixels = np.empty((len(films), preparation.size, preparation.size), dtype=np.uint8)
    source = np.empty(len(films), dtype=SOURCE)
    with one_thread():
        loading = load_films([file for _, file in films])
        for (row, _), loaded in zip(films, loading, strict=True):
            film = prepare_file(loaded, preparation=preparation)
            if isinstance(film, str):
                rejects[row] = film
            else:
                pixels[place[row]] = film
            found = None if loaded.reason else FilmStat(len(loaded.content), loaded.modified)
            source[place[row]] = _source_of(found, fingerprint_film(loaded))
    kept = [row not in rejects for row in rows]
    write_shard(
        folder,
        number,
        pixels[np.array(kept)] if rejects else pixels,
        kept=kept,
        films={
            "row": rows,
            "bytes": source["bytes"].tolist(),
            "modified": source["modified"].tolist(),
            "sha256": source["sha256"].astype(str).tolist(),
            "reason": [rejects.get(row, "") for row in rows],
        },
    )
    return Made(len(films), rejects)


def receipt_of(
    folder: Path, number: int, rows: Rows, *, columns: tuple[str, ...] = ()
) -> Receipt | None:
    """Return the receipt of a complete shard, None where it holds other films than it should.

    None too where it lacks one of `columns`.
    """
    receipt = read_receipt(folder, number)
    if receipt is None or not receipt.keys() >= {*columns}:
        return None
    return receipt if receipt["row"] == sorted(rows.tolist()) else None


def _sources_of(receipts: Sequence[Receipt | None], *, films: int) -> Sources:
    """Return, for each film, the SOURCE that it was made from; its bytes may be NOT_YET."""
    source = np.full(films, np.array((NOT_YET, 0, ""), dtype=SOURCE))
    for receipt in filter(None, receipts):
        for name in SOURCE.names or ():
            source[name][receipt["row"]] = receipt[name]
    return source


def _rejects(receipt: Receipt | None) -> Iterator[tuple[int, str]]:
    if receipt:
        pairs = zip(receipt["row"], receipt["reason"], strict=True)
        yield from ((row, reason) for row, reason in pairs if reason)


def _refuse_full(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free, the prepared films need "
            f"{needed / 1e9:.1f} GB: make room, or choose another place"
        )


def _refuse_too_many(rejects: Rejects, manifest: Manifest) -> None:
    bearable = max(ALWAYS_BEARABLE, MOST_REJECTED * len(manifest))
    if len(rejects) > bearable or len(rejects) == len(manifest):
        first = [f"{manifest.image[row]} ({rejects[row]})" for row in sorted(rejects)[:3]]
        raise ValueError(
            f"{counted(len(rejects), 'film', of=len(manifest))} cannot be decoded, more than is "
            f"bearable: {'; '.join(first)}; … mend or replace them and run again: what is done is "
            "kept"
        )


def _finish(
    folder: Path, manifest: Manifest, preparation: Preparation, shards: Sequence[Rows]
) -> None:
    """Write the tables and the index of complete shards."""
    receipts = read_receipts(folder / SHARDS, len(shards))
    index = index_of(receipts, films=len(manifest))
    rejects = {row: why for receipt in receipts for row, why in _rejects(receipt)}
    lost = sorted(rejects)
    _refuse_too_many(rejects, manifest)
    kept = np.delete(np.arange(len(manifest)), lost)
    films = manifest.take(kept)
    reasons = [rejects[row] for row in lost]
    prepared = Prepared(
        manifest=films,
        preparation=preparation,
        pixels=FilmShards(folder / SHARDS, index[kept], films.image, preparation.size, REMEDY),
        rejected=pd.DataFrame({"image": manifest.image[lost], "reason": reasons}),
    )
    save_prepared_tables(prepared, folder)
    source = _sources_of(receipts, films=len(manifest))[kept]
    write_table(_source_table(films.image, source), folder / SOURCES)
    finish_shards(folder / SHARDS, index[kept], receipts)


def _mend(
    shards: FilmShards, manifest: Manifest, preparation: Preparation, *, workers: int
) -> None:
    """Make the shards anew whose files are gone; ValueError where other films come out.

    The first process does; others wait for it.
    """
    if rank() > 0:
        while absent_shards(shards.folder, shards.index):
            time.sleep(0.5)
        return
    if any(shards.folder.glob("*.json")):
        remove_receipts(shards.folder)
    if absent_shards(shards.folder, shards.index):
        with locked(shards.folder):
            _make_lost(shards, manifest, preparation, workers=workers)


def _make_lost(
    shards: FilmShards, manifest: Manifest, preparation: Preparation, *, workers: int
) -> None:
    lost = absent_shards(shards.folder, shards.index)
    say(f"{counted(len(lost), 'shard', 'is/are')} not in {shards.folder}: made anew")
    row = pd.Index(manifest.image).get_indexer(pd.Index(shards.image))
    path = manifest.facts["path"].to_numpy(dtype=str)[row]
    shared = shared_place(preparation, manifest.image)
    work = partial(_obtain_shard, shards.folder.absolute(), preparation, shared)
    workers = 1 if is_own(shared) else workers
    for _ in on_engine(work, load_shards(lost, path), workers=min(workers, len(lost))):
        pass
    remove_receipts(shards.folder)
    try:
        for rows in lost.values():
            shards[rows]  # compares checksums
    except ValueError:
        for number in lost:
            (shards.folder / shard_name(number)).unlink(missing_ok=True)
        raise ValueError(
            f"films of {counted(len(lost), 'shard')} that {shards.folder} lacks come out otherwise "
            "than they did (files absent or changed, another version of OpenCV): bring the files "
            f"back, or delete {shards.folder.parent} to prepare all films anew"
        ) from None


def _source_table(image: Shaped[np.ndarray, " n"], source: Sources) -> pd.DataFrame:
    fields = {name: source[name] for name in ("bytes", "modified")}
    return pd.DataFrame({"image": image, **fields, "sha256": source["sha256"].astype(str)})
