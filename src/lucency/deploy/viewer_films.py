"""The viewer's films, of a run, named or dropped, and what the model makes of them.

Films are decoded in the service's decoder processes, and the network works in the service's thread,
one request at a time. Letters in shapes: h and w pixels.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from lucency.core.manifest import NO_FINDING, Prepared
from lucency.core.progress import say
from lucency.core.stage import inputs_of
from lucency.data.film_files import film_content, film_exists, why_no_film
from lucency.data.images import films_below
from lucency.deploy import film_list, verdicts
from lucency.deploy.batching import NamedFilm, run_alone
from lucency.deploy.decoding import (
    Decoders,
    FilmError,
    decode_enhanced_film,
    decode_film,
    decode_native_film,
)
from lucency.deploy.film_list import FilmList
from lucency.deploy.native_film import NativeFilm
from lucency.deploy.problems import Problem
from lucency.deploy.service import Service, prepared_films, resembling
from lucency.explain.heatmap_results import read_heatmap_fields
from lucency.explain.heatmaps import Heatmaps, MethodError, load_heatmaps
from lucency.pipeline.library import Model
from lucency.pipeline.run import Run, load_films, open_run_folder, require_prepared
from lucency.pipeline.similar_films import entry_of

MOST_DROPPED = 50  # films that are kept in memory; the oldest go
MOST_BYTES = 512 * 2**20  # of their files together
MOST_KEPT = 256  # predictions, heat maps and lists of similar films
SIMILAR = 8
VERDICTS = "verdicts"  # the folder of a run that holds them
RUN_ONLY = (
    "No run: this model was exported alone. Films that you name or drop can be predicted; lists, "
    "labels, calibration, prior and similar films and verdicts need a run."
)
Made = TypeVar("Made")


class AddedFilm(NamedTuple):
    """A film that was named on the command line, then with its path, or dropped, with its file."""

    name: str
    path: Path | None
    content: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """What the pages show: a model, and where there is one its run; `added` and below change.

    `known` holds what the model has made. Both are changed in the event loop alone.
    """

    model: Model
    run: Run | None
    films: FilmList | None
    prepared: Prepared | None
    added: OrderedDict[str, AddedFilm] = field(default_factory=OrderedDict)
    known: dict[tuple[str, ...], Any] = field(default_factory=dict)


def open_viewer(model: Model, *, run: Path | None, films: Sequence[Path] = ()) -> Viewer:
    """Return what to show of a model: the films of the run that it is of, if any, and `films`.

    Raises ValueError for a film that is not there, and for a run whose films are not prepared.
    """
    viewer = Viewer(model=model, run=None, films=None, prepared=None)
    if run is not None:
        viewer = _open_run(model, run)
    for file in films_below(films) if films else ():
        if not (film_exists(file) or file.exists()):
            raise ValueError(f"{file}: {why_no_film(file)}; expected films or folders of them")
        add_film(viewer, AddedFilm(file.name, file, b""))
    return viewer


def _open_run(model: Model, folder: Path) -> Viewer:
    run = open_run_folder(folder)
    require_prepared(run)
    prepared, fitted = load_films(run), model.predictor.home.fitted.get(model.name)
    films = film_list.list_films(
        run,
        manifest=prepared.manifest,
        predicted=run.out / "ensemble" / fitted.name
        if fitted
        else run.out / "predictions" / model.name,
        threshold=model.threshold,
    )
    verdicts.read_verdicts(run.out / VERDICTS)  # refuses another review that lies there
    return Viewer(model=model, run=run, films=films, prepared=prepared)


def add_film(viewer: Viewer, film: AddedFilm) -> str:
    """Add a film and return its key; the oldest that were dropped go where there are too many."""
    last = next(reversed(viewer.added), "a0")
    viewer.added[key := f"a{int(last[1:]) + 1}"] = film
    if film.path is None:
        _drop_oldest(viewer)
    return key


def _drop_oldest(viewer: Viewer) -> None:
    dropped = [key for key, one in viewer.added.items() if one.path is None]
    held = sum(len(viewer.added[key].content) for key in dropped)
    while len(dropped) > MOST_DROPPED or (held > MOST_BYTES and len(dropped) > 1):
        held -= len(viewer.added.pop(dropped.pop(0)).content)


def short_film(viewer: Viewer, key: str) -> dict[str, Any]:
    """Return a film as a row of the list."""
    if key in viewer.added:
        return {"key": key, "image": viewer.added[key].name, "added": True}
    films, row = film_row(viewer, key)
    manifest = films.manifest
    present = np.flatnonzero(manifest.label[row] == 1)
    turn = manifest.facts["follow_up"].iloc[row] if "follow_up" in manifest.facts else None
    return {
        "key": key,
        "image": str(manifest.image[row]),
        "added": False,
        "patient": str(manifest.patient_id[row]),
        "part": str(films.part[row]),
        "view": str(films.view[row]),
        "follow_up": turn,
        "findings": [manifest.findings[k] for k in present] or [NO_FINDING],
    }


def film_row(viewer: Viewer, key: str) -> tuple[FilmList, int]:
    """Return the run's films and the row of one; Problem for a key that is of none."""
    films = viewer.films
    if (
        films is None
        or not (key.isascii() and key.isdigit())
        or len(key) > 9
        or int(key) >= len(films)
    ):
        expected = "expected the key of a film of the list"
        raise Problem("parameter-invalid", f"film: found {key[:40]!r}, {expected}")
    return films, int(key)


def run_films(viewer: Viewer) -> FilmList:
    """Return the run's films; Problem where there is no run."""
    if viewer.films is None:
        raise Problem("not-found", RUN_ONLY)
    return viewer.films


# --- films -----------------------------------------------------------------------------------


async def native_film(viewer: Viewer, service: Service, key: str) -> NativeFilm:
    """Return a film as its file has it; Problem for one that cannot be read."""
    name, content = await asyncio.to_thread(_content, viewer, key)
    return await _decoded(service, name, decode_native_film, content)


async def enhanced_film(viewer: Viewer, service: Service, key: str) -> NativeFilm:
    """Return a film with the CLAHE of the model's preparation, at its own size."""
    name, content = await asyncio.to_thread(_content, viewer, key)
    return await _decoded(service, name, decode_enhanced_film, content)


async def take_film(viewer: Viewer, service: Service, name: str, content: bytes) -> str:
    """Add a film that was dropped and return its key; Problem for one that cannot be read.

    Its file is held in memory and written nowhere.
    """
    film = await _decoded(service, name, decode_film, content)
    key = add_film(viewer, AddedFilm(name, None, content))
    _keep(viewer, ("film", key), prepared_films(viewer.model, [NamedFilm(name, film.pixels)]))
    return key


async def film_for_model(viewer: Viewer, service: Service, key: str) -> Prepared:
    """Return a film as the model sees it: prepared by the run, else by a decoder."""
    if key in viewer.added:
        return await _once(viewer, ("film", key), partial(_prepared_film, viewer, service, key))
    row, prepared = film_row(viewer, key)[1], viewer.prepared
    assert prepared is not None, "a run's films are prepared"
    pixels = np.asarray(prepared.pixels[row : row + 1])
    return replace(prepared, manifest=prepared.manifest.take(np.array([row])), pixels=pixels)


async def _prepared_film(viewer: Viewer, service: Service, key: str) -> Prepared:
    name, content = await asyncio.to_thread(_content, viewer, key)
    film = await _decoded(service, name, decode_film, content)
    return prepared_films(viewer.model, [NamedFilm(name, film.pixels)])


def _content(viewer: Viewer, key: str) -> tuple[str, bytes]:
    """Return the name and the file's content of a film."""
    if key in viewer.added:
        name, path, content = viewer.added[key]
    else:
        films, row = film_row(viewer, key)
        path, content = Path(str(films.manifest.facts["path"].iloc[row])), b""
        name = path.name
    if path is None:
        return name, content
    try:
        return name, film_content(path)
    except ValueError as error:
        raise Problem("film-unreadable", f"{name}: {error}") from error


async def _decoded(
    service: Service,
    name: str,
    decode: Callable[[Decoders, bytes], Awaitable[Made]],
    content: bytes,
) -> Made:
    """Return what a decoder makes of a film; Problem, with its name, where it fails."""
    try:
        with service.admission.admitted(1), service.shown.admitted(len(content)):
            return await decode(service.decoders, content)
    except FilmError as error:
        raise Problem(error.code, f"{name}: {error}") from error


# --- model -----------------------------------------------------------------------------------


async def predicted_film(viewer: Viewer, service: Service, key: str) -> list[float]:
    """Return the model's probabilities of one film, of every finding."""

    async def predict() -> list[float]:
        film = await film_for_model(viewer, service, key)
        predicted = await _alone(service, partial(viewer.model.predict, film))
        return predicted.probability[0].tolist()

    return await _once(viewer, ("prediction", key), predict)


async def explained_film(
    viewer: Viewer, service: Service, key: str, finding: str
) -> dict[str, Any]:
    """Return the heat map of one film and finding on its grid, kept by the run or made now."""

    async def explain() -> tuple[Heatmaps, int]:
        film = await film_for_model(viewer, service, key)
        return await _alone(service, partial(_map_of, viewer, key, film, finding))

    maps, row = await _once(viewer, ("heat map", key, finding), explain)
    return {
        "finding": finding,
        "network": viewer.model.explained,
        "method": maps.method,
        "grid": maps.grid[row, maps.findings.index(finding)].tolist(),
        "down": maps.centres.down.tolist(),
        "across": maps.centres.across.tolist(),
    }


async def similar_films(viewer: Viewer, service: Service, key: str) -> dict[str, Any]:
    """Return the films of other patients in the run that look most alike to a network.

    `left_out` is the film's patient, None where that is not known: then its own may be among them.
    """

    async def find() -> dict[str, Any]:
        film = await film_for_model(viewer, service, key)
        choices = {"top": SIMILAR, "patients": "others"}
        found = await _alone(service, partial(resembling, service, film, **choices))
        return {"network": found.network, **entry_of(found, 0)}

    films = run_films(viewer)
    found = await _once(viewer, ("similar", key), find)
    row = pd.Index(films.manifest.image)
    return {
        "network": found["network"],
        "left_out": found["left_out"],
        "films": [
            short_film(viewer, str(row.get_loc(one["image"]))) | {"similarity": one["similarity"]}
            for one in found["similar"]
        ],
    }


async def _alone(service: Service, work: Callable[[], Made]) -> Made:
    """Return what `work` returns, done in the network's thread; a film is admitted for it."""
    with service.admission.admitted(1):
        return await run_alone(service.batches, work)


def _map_of(viewer: Viewer, key: str, film: Prepared, finding: str) -> tuple[Heatmaps, int]:
    """Return heat maps and the row of a film in them."""
    try:
        network = viewer.model.explained
    except MethodError as error:
        raise Problem("parameter-invalid", f"no heat map: {error}") from error
    if viewer.run is not None and key not in viewer.added:
        weights = viewer.model.predictor.home.metadata(network).weights
        for maps in _kept_maps(viewer.run.out, network, weights):
            found = np.flatnonzero(maps.image == film.manifest.image[0])
            if len(found) and finding in maps.findings:
                return maps, int(found[0])
    try:
        return viewer.model.explain(film, findings=[finding]).maps, 0
    except MethodError as error:
        raise Problem("parameter-invalid", f"no heat map of {network}: {error}") from error


@lru_cache(maxsize=2)
def _kept_maps(folder: Path, network: str, weights: str) -> tuple[Heatmaps, ...]:
    """Return the heat maps of a run's test films, where they are of a network and these weights.

    Of maps that were damaged or exchanged it says so, and returns none.
    """
    about = folder / "explanation" / "heatmaps.json"
    if not about.is_file() or (inputs_of(about.parent) or {}).get("weights", weights) != weights:
        return ()
    try:
        kept = read_heatmap_fields(about.parent)
        files = [about.parent / f"maps-{place}.npz" for place in range(kept.maps)]
        return tuple(map(load_heatmaps, files)) if kept.network == network else ()
    except ValueError as error:
        say(f"heat maps of the run are left out, others are made: {error}")
        return ()


async def _once(viewer: Viewer, what: tuple[str, ...], make: Callable[[], Awaitable[Made]]) -> Made:
    """Return what `make` makes, kept under a name."""
    if what not in viewer.known:
        return _keep(viewer, what, await make())
    return viewer.known[what]


def _keep(viewer: Viewer, what: tuple[str, ...], made: Made) -> Made:
    while len(viewer.known) >= MOST_KEPT:
        viewer.known.pop(next(iter(viewer.known)))
    viewer.known[what] = made
    return made
