"""Preprocessing: CLAHE, brightness, denoising and resizing of a film; the cache of prepared films.

The cache is filled by worker processes and resumable; its bytes are always the same. Letters in
shapes: n films, m kept or chosen films, h and w pixels of the film, s pixels of the prepared side.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from PIL import Image

from lucency.core.files import write_array, write_table
from lucency.core.manifest import (
    Manifest,
    Preparation,
    Prepared,
    counted,
    load_prepared,
    read_table,
    save_prepared_tables,
)
from lucency.core.parallel import in_workers
from lucency.core.progress import silent
from lucency.core.stage import produce
from lucency.data.bit_depth import with_bits
from lucency.data.clahe import NOT_PADDED, Padded, equalise
from lucency.data.film_archives import FilmStat
from lucency.data.film_files import (
    FilmFile,
    fingerprint_film,
    in_chunks,
    in_reading_order,
    load_film,
    stat_film,
)
from lucency.data.images import read_film

CHUNK = 16  # films a task: about a third of a second of work
MOST_REJECTED, ALWAYS_BEARABLE = 0.05, 10  # a share of the films; a number that stops nothing
NOT_YET, ABSENT = -2, -1  # in place of the bytes of a film's file
SOURCE = np.dtype([("bytes", np.int64), ("modified", np.int64), ("sha256", "S16")])
THUMBNAIL_SIDE = 32
ROWS, DONE, PIXELS = "rows.npy", "done.npy", "pixels.npy"
SOURCES = "sources.csv"  # the file that each film was made from: image and the fields of SOURCE

Grey = UInt8[np.ndarray, "h w"]
Square = UInt8[np.ndarray, "s s"]
Film = tuple[int, FilmFile]  # row, place
Sources = Shaped[np.ndarray, " n"]  # of SOURCE
Rejects = dict[int, str]  # row, reason


def prepare_film(
    grey: Grey,
    *,
    preparation: Preparation,
    padded: Padded = NOT_PADDED,
    change: Callable[[Grey], Grey] = np.asarray,
) -> Square:
    """Return the film as a network sees it: contrast, brightness, denoising, size.

    Pure, and OpenCV's own CLAHE bit for bit. `clahe-first` works at the film's native size (as the
    reference study does), `resize-first` on the square (LungNet22, Shamrat 2022). `padded` pixels
    take no part in CLAHE and are black. `change` is done to the film at its native size, last
    before it is resized: what makes a copy of it.
    """
    if preparation.order == "resize-first":
        square, outside = _resize(change(grey), preparation), NOT_PADDED
        if padded.any():  # the film is changed, so its mask is, as a picture of black and white
            inside = _resize(change(np.where(padded, 0, 255).astype(np.uint8)), preparation)
            outside = inside < 128
        return _enhance(square, outside, preparation)
    return _resize(change(_enhance(grey, padded, preparation)), preparation)


def prepare_file(file: FilmFile, *, preparation: Preparation) -> Square | str:
    """Return the film of a file as `prepare_film` does, or the reason why it cannot be decoded."""
    try:
        film = read_film(file, bits=preparation.bits)
    except ValueError as error:
        return str(error)
    return prepare_film(film.grey, padded=film.padded, preparation=preparation)


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
    bytes do not depend on `workers` or on interruptions. The films' bit depth is found first, where
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
    source = np.array([_source_of(stat_film(file)) for file in path.tolist()], dtype=SOURCE)
    _refuse_changed(out, manifest, source)
    known = out / "preparation.json"  # of films that are prepared: they need not be read again
    if known.is_file() and not preparation.bits:
        bits = Preparation.model_validate_json(known.read_text(encoding="utf-8")).bits
        preparation = preparation.model_copy(update={"bits": bits})
    preparation = with_bits(preparation, path.tolist())
    inputs = {
        **inputs,
        "preparation": preparation.model_dump(),
        "films": _digest(manifest),
        "film_bytes": hashlib.sha256(source["bytes"].tobytes()).hexdigest()[:16],
    }

    def write(folder: Path) -> None:
        done = _open_work(folder, films=len(manifest), side=preparation.size)
        todo = np.flatnonzero(_changed(done, source, path))
        chunks = (
            [(int(todo[number]), file) for number, file in chunk]
            for chunk in in_chunks(path[todo].tolist(), films=CHUNK)
        )
        work = partial(_prepare_chunk, folder, preparation)
        rejects, left = Rejects(), len(todo)
        progress(len(manifest) - left, len(manifest))
        for count, broken in in_workers(work, chunks, workers=min(workers, -(-left // CHUNK))):
            rejects |= broken
            left -= count
            progress(len(manifest) - left, len(manifest))
            _refuse_too_many(rejects, manifest)
        _finish(folder, manifest, preparation, rejects)

    # Each row remembers the file it was made from: replaced films are made anew.
    return load_prepared(produce(out, inputs=inputs, write=write, may_change=("film_bytes",)))


def thumbnails(
    prepared: Prepared, *, rows: Int64[np.ndarray, " m"]
) -> Float32[np.ndarray, "m 1024"]:
    """Return the films at `rows` as 32 x 32 grey values in 0..1, area-averaged, one after another.

    A film's mean is taken off, so that exposure does not make films alike.
    """
    small = np.empty((len(rows), THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.float32)
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    for place, row in enumerate(rows.tolist()):
        small[place] = cv2.resize(prepared.pixels[row], side, interpolation=cv2.INTER_AREA)
    flat = small.reshape(len(rows), -1) / 255
    return flat - flat.mean(axis=1, keepdims=True)


def _enhance(film: Grey, padded: Padded, preparation: Preparation) -> Grey:
    if preparation.order != "no-clahe":
        about = {"clip": preparation.clahe_clip, "tiles": preparation.clahe_tiles}
        film = equalise(film, padded=padded, **about)
    if preparation.brightness:
        film = cv2.add(film, np.array([float(preparation.brightness)]))
    for name in preparation.denoise:
        film = DENOISERS[name](film)
    return np.where(padded, np.uint8(0), film) if padded.any() else film


def _resize(film: Grey, preparation: Preparation) -> Square:
    square = (preparation.size, preparation.size)
    if preparation.interpolation == "bicubic":
        return np.asarray(Image.fromarray(film).resize(square, Image.Resampling.BICUBIC))
    shrinks = min(film.shape) >= preparation.size
    return cv2.resize(film, square, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _source_of(found: FilmStat | None, sha256: str = "") -> tuple[int, int, str]:
    """Return the fields of SOURCE; of an absent film, which decoding will reject with the reason.

    `modified` is a time in nanoseconds, or a checksum (`lucency.data.film_archives.FilmStat`).
    """
    return (found.size, found.modified, sha256) if found else (ABSENT, 0, "")


def _refuse_changed(out: Path, manifest: Manifest, source: Sources) -> None:
    """Raise ValueError when the file of a film that is prepared has other content now."""
    if not (out / SOURCES).is_file():
        return
    then = read_table(out / SOURCES, text=("image", "sha256"))
    row = pd.Index(manifest.image).get_indexer(pd.Index(then["image"]))
    was = np.zeros(len(then), dtype=SOURCE)
    for name in SOURCE.fields or ():
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


def _open_work(folder: Path, *, films: int, side: int) -> Sources:
    """Return, for each film, the SOURCE that its row was made from; its bytes may be NOT_YET."""
    if not (folder / ROWS).exists() or not (folder / DONE).exists():
        free, needed = shutil.disk_usage(folder).free, films * side * side
        if free < needed:
            raise ValueError(
                f"{folder} has {free / 1e9:.1f} GB free, the prepared films need "
                f"{needed / 1e9:.1f} GB: make room, or choose another place"
            )
        np.lib.format.open_memmap(folder / ROWS, "w+", np.uint8, (films, side, side))
        write_array(np.full(films, np.array((NOT_YET, 0, ""), dtype=SOURCE)), folder / DONE)
    return np.load(folder / DONE)


def _prepare_chunk(
    folder: Path, preparation: Preparation, films: list[Film]
) -> tuple[int, Rejects]:
    """Write the films at their rows; return their number and those that cannot be decoded."""
    rows = np.load(folder / ROWS, mmap_mode="r+")
    done = np.load(folder / DONE, mmap_mode="r+")
    rejects, threads = Rejects(), cv2.getNumThreads()
    cv2.setNumThreads(0)
    for row, file in films:
        loaded = load_film(file)
        film = prepare_file(loaded, preparation=preparation)
        if isinstance(film, str):
            rejects[row] = film
            continue
        rows[row] = film
        found = FilmStat(len(loaded.content), loaded.modified)
        done[row] = np.array(
            _source_of(found, fingerprint_film(loaded)), dtype=SOURCE
        )  # after the pixels, so that a kill between the two loses nothing
    cv2.setNumThreads(threads)
    return len(films), rejects


def _refuse_too_many(rejects: Rejects, manifest: Manifest) -> None:
    bearable = max(ALWAYS_BEARABLE, MOST_REJECTED * len(manifest))
    if len(rejects) > bearable or len(rejects) == len(manifest):
        first = [f"{manifest.image[row]} ({rejects[row]})" for row in sorted(rejects)[:3]]
        raise ValueError(
            f"{counted(len(rejects), 'film', of=len(manifest))} cannot be decoded, more than is "
            f"bearable: {'; '.join(first)}; … mend or replace them and run again: what is done is "
            "kept"
        )


def _finish(folder: Path, manifest: Manifest, preparation: Preparation, rejects: Rejects) -> None:
    """Write the tables, and pixels.npy without the rejects' rows; the work files go last."""
    pixels, lost = np.load(folder / ROWS, mmap_mode="r"), sorted(rejects)
    kept = np.delete(np.arange(len(manifest)), lost)
    rows = pixels
    if lost:
        shape = (len(kept), *rows.shape[1:])
        pixels = np.lib.format.open_memmap(folder / PIXELS, "w+", np.uint8, shape)
        for start in range(0, len(kept), CHUNK):
            pixels[start : start + CHUNK] = rows[kept[start : start + CHUNK]]
    prepared = Prepared(
        manifest=manifest.take(kept),
        preparation=preparation,
        pixels=pixels,
        rejected=pd.DataFrame(
            {"image": manifest.image[lost], "reason": [rejects[row] for row in lost]}
        ),
    )
    save_prepared_tables(prepared, folder)
    write_table(_sources(prepared, np.load(folder / DONE)[kept]), folder / SOURCES)
    rows = pixels = prepared = None  # Windows renames and removes no file that is mapped
    if lost:
        (folder / ROWS).unlink()
    else:
        (folder / ROWS).replace(folder / PIXELS)
    (folder / DONE).unlink()


def _sources(prepared: Prepared, done: Sources) -> pd.DataFrame:
    fields = {name: done[name] for name in ("bytes", "modified")}
    hashes = done["sha256"].astype(str)
    return pd.DataFrame({"image": prepared.manifest.image, **fields, "sha256": hashes})


DENOISERS = {
    "median": lambda film: cv2.medianBlur(film, 3),
    "gaussian": lambda film: cv2.GaussianBlur(film, (3, 3), 0),
    "bilateral": lambda film: cv2.bilateralFilter(film, 5, 50, 50),
}
