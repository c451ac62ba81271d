"""The viewer: a page of the service that shows a run's films, predictions and heat maps.

The page is plain HTML and JavaScript below `viewer_page`. Films go to the browser raw, at their
native size and depth, and are windowed there. What a run holds is read from its files; the model
is needed only for films and heat maps that the run has not made. Letters in shapes: h and w pixels.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
import webbrowser
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial, wraps
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pandas as pd
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lucency.core.manifest import NO_FINDING, Prepared, load_prepared
from lucency.core.predictions import Predictions
from lucency.core.stage import RECEIPT
from lucency.data.images import films_below
from lucency.deploy import film_list, verdicts
from lucency.deploy.film_list import FilmList
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.native_film import (
    NativeFilm,
    decode_native,
    enhanced,
    in_eight_bits,
    read_native,
    thumbnail,
)
from lucency.deploy.start import Pages, run_of, service_address
from lucency.deploy.verdicts import Verdict
from lucency.evaluation.calibration import reliability_table
from lucency.explain.heatmaps import Heatmaps, load_heatmaps
from lucency.pipeline.film_inference import network_folder
from lucency.pipeline.library import Model
from lucency.pipeline.run import Run, open_run_folder
from lucency.pipeline.similar_films import (
    find_similar,
    open_collection,
    search_collection,
    similar_to,
)

PAGE = "/viewer/"
FILES = {  # of the page, by name: nothing else is sent
    "viewer.css": "text/css",
    "viewer.js": "text/javascript",
    "film.js": "text/javascript",
    "overlay.js": "text/javascript",
    "list.js": "text/javascript",
    "findings.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
MOST_ROWS = 500  # of the list in one answer
MOST_ADDED = 50  # films that are kept in memory; the oldest go
LARGEST_FILM = 256 * 2**20  # bytes of a file that is dropped
SIMILAR = 8
READY_SECONDS = 60.0  # until a browser is opened
METHODS = ("grad-cam", "cam")  # the first that the model has
REVIEW = "review"  # the folder of a run that holds verdicts
RUN_ONLY = (
    "No run: this model was exported alone. Films that you name or drop can be predicted; lists, "
    "labels, calibration, prior and similar films and verdicts need a run."
)


class AddedFilm(NamedTuple):
    """A film that was named on the command line (then with its path), or dropped on the page."""

    name: str
    path: Path | None
    native: NativeFilm


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """What the pages show: a model, and where there is one its run; `added` and below change.

    `reviews` holds verdicts by film, finding and reviewer, `known` what the model has made;
    `working` is held while it makes more.
    """

    model: Model
    run: Run | None
    films: FilmList | None
    prepared: Prepared | None
    added: OrderedDict[str, AddedFilm] = field(default_factory=OrderedDict)
    reviews: dict[tuple[str, str, str], Verdict] = field(default_factory=dict)
    known: dict[tuple[object, ...], Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    working: threading.RLock = field(default_factory=threading.RLock)


def open_viewer(model: Model, *, run: Path | None, films: Sequence[Path] = ()) -> Viewer:
    """Return what to show of a model: the films of the run that it is of, if any, and `films`.

    Raises ValueError for a film that cannot be read, and for a run whose films are not prepared.
    """
    viewer = Viewer(model=model, run=None, films=None, prepared=None)
    if run is not None:
        viewer = _open_run(model, run)
    for file in films_below(films) if films else ():
        _add(viewer, file.name, file, read_native(file))
    return viewer


def viewer_pages(place: Path, *, films: Sequence[Path]) -> Pages:
    """Return the viewer's routes, as `lucency.deploy.start.serve_model` takes pages."""

    def pages(model: Model, settings: ServiceSettings) -> Sequence[BaseRoute]:
        del settings
        return viewer_routes(open_viewer(model, run=run_of(place), films=films))

    return pages


def opening_browser(pages: Pages) -> Pages:
    """Return the same pages, which open in the browser as soon as the service answers."""

    def opened(model: Model, settings: ServiceSettings) -> Sequence[BaseRoute]:
        made = pages(model, settings)
        threading.Thread(target=_open_browser, args=(settings,), daemon=True).start()
        return made

    return opened


def viewer_routes(viewer: Viewer) -> list[Route]:
    """Return the routes of the page, for `lucency.deploy.service.create_app`."""
    answered: dict[str, Callable[..., Any]] = {
        "model": _model,
        "films": _films,
        "film/{key}": _film,
        "film/{key}/prediction": _prediction,
        "film/{key}/heatmap": _heatmap,
        "film/{key}/similar": _similar,
        "calibration": _calibration,
    }
    sent: dict[str, Callable[..., Any]] = {
        "film/{key}/pixels": _pixels,
        "film/{key}/thumbnail": _thumbnail,
    }
    taken: dict[str, Callable[..., Any]] = {"films": _take_film, "verdicts": _take_verdict}
    return [
        Route("/", _index),
        Route(f"{PAGE}{{name}}", _file),
        *(
            Route(f"{PAGE}api/{at}", _refusing(partial(_answer, do, viewer)))
            for at, do in answered.items()
        ),
        *(Route(f"{PAGE}api/{at}", _refusing(partial(do, viewer))) for at, do in sent.items()),
        *(
            Route(f"{PAGE}api/{at}", _taking(partial(do, viewer)), methods=["POST"])
            for at, do in taken.items()
        ),
    ]


def _open_run(model: Model, folder: Path) -> Viewer:
    run = open_run_folder(folder)
    place = run.cache / "prepared"
    if not (place / RECEIPT).is_file():
        raise ValueError(f"{folder} has no prepared films: go on with lucency run")
    prepared = load_prepared(place)
    films = film_list.list_films(
        run, manifest=prepared.manifest, model=model.name, threshold=model.threshold
    )
    kept = verdicts.read_verdicts(run.out / REVIEW)
    reviews = {(one.image, one.finding, one.reviewer): one for one in kept}
    return Viewer(model=model, run=run, films=films, prepared=prepared, reviews=reviews)


def _open_browser(settings: ServiceSettings) -> None:
    """Open the page as soon as the port answers."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection((settings.host, settings.port), 1):
            webbrowser.open(service_address(settings))
            return
        time.sleep(0.1)


# --- what pages ask -------------------------------------------------------------------------


def _model(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return what the page shows from its start."""
    del request
    model, films = viewer.model, viewer.films
    return {
        "name": model.name,
        "findings": model.findings,
        "threshold": model.threshold.tolist(),
        "size": model.preparation.size,
        "clahe": {
            "clip": model.preparation.clahe_clip, "tiles": model.preparation.clahe_tiles,
        },
        "run": viewer.run.out.name if viewer.run else "",
        "origin": films.manifest.origin if films else "",
        "films": len(films) if films else 0,
        "parts": film_list.parts_of(films) if films else [],
        "views": film_list.views_of(films) if films else [],
        "errors": film_list.ERRORS,
        "orders": film_list.ORDERS,
        "verdicts": verdicts.VERDICTS,
        "methods": METHODS,
        "added": [_short(viewer, key) for key in viewer.added],
        "remark": "" if films else RUN_ONLY,
    }  # fmt: skip


def _films(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return some rows of the filtered list, from `offset` on, and how many there are in all."""
    films = _run_films(viewer)
    words = request.query_params
    chosen = film_list.read_filter(words, films)
    offset, limit = (_whole(words.get(name, ""), name) for name in ("offset", "limit"))
    rows = film_list.select_films(films, chosen)
    value = film_list.highest(films, chosen.finding)
    shown = rows[offset : offset + min(limit or 100, MOST_ROWS)].tolist()
    return {
        "total": len(rows),
        "offset": offset,
        "films": [_short(viewer, str(row)) | {"probability": value[row]} for row in shown],
    }


def _film(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return all that is known of one film without the model."""
    key = request.path_params["key"]
    about = _short(viewer, key) | {"facts": {}, "boxes": [], "patient_films": [], "verdicts": []}
    if key in viewer.added:
        return about | {"label": None, "probability": None}
    films, row = _row(viewer, key)
    manifest = films.manifest
    known = manifest.facts.iloc[row].drop(labels=["path"], errors="ignore")
    boxes = manifest.boxes.loc[manifest.boxes["image"] == manifest.image[row]]
    held = viewer.reviews.values()
    reviews = [one._asdict() for one in held if one.image == manifest.image[row]]
    probability = films.probability[row]
    return about | {
        "facts": {
            str(name): value for name, value in known.items() if str(value) not in ("", "nan")
        },
        "boxes": boxes.drop(columns="image").to_dict("records"),
        "patient_films": [
            _short(viewer, str(one)) for one in film_list.films_of_patient(films, row)
        ],
        "verdicts": reviews,
        "label": manifest.label[row].tolist(),
        "probability": None if np.isnan(probability).any() else probability.tolist(),
    }


def _prediction(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the model's probabilities of one film, computed now."""
    key = request.path_params["key"]

    def predict() -> list[float]:
        return viewer.model.predict(_film_for_model(viewer, key)).probability[0].tolist()

    return {"probability": _once(viewer, ("prediction", key), predict)}


def _heatmap(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the heat map of one film and finding on its grid, kept by the run or computed now."""
    key, finding = request.path_params["key"], request.query_params.get("finding", "")
    if finding not in viewer.model.findings:
        known = ", ".join(viewer.model.findings)
        raise ValueError(f"finding: found {finding!r}, expected one of {known}")
    maps, row = _once(viewer, ("heat map", key, finding), partial(_map_of, viewer, key, finding))
    grid = maps.grid[row, maps.findings.index(finding)]
    return {
        "finding": finding,
        "method": maps.method,
        "grid": grid.tolist(),
        "down": maps.centres.down.tolist(),
        "across": maps.centres.across.tolist(),
    }


def _similar(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the films of other patients in the run that look most alike to the model's network."""
    films, key = _run_films(viewer), request.path_params["key"]
    find = partial(_alike, viewer, key)
    row = pd.Index(films.manifest.image)
    return {
        "films": [
            _short(viewer, str(row.get_loc(one["image"]))) | {"similarity": one["similarity"]}
            for one in _once(viewer, ("similar", key), find)
        ]
    }


def _alike(viewer: Viewer, key: str) -> list[dict[str, Any]]:
    """Return the answers about a film: of the run's films from their features in its index."""
    assert viewer.run is not None, "an index is of a run"
    folder, choices = viewer.run.out, {"top": SIMILAR, "patients": "others"}
    if key in viewer.added:
        path = viewer.added[key].path
        if path is None:
            raise ValueError("a film that was dropped: POST it to /v1/similar")
        network = _network_of(viewer)
        return similar_to(find_similar(folder, [path], network=network, **choices), 0)
    collection = _once(
        viewer, ("collection",), partial(open_collection, folder, network=_network_of(viewer))
    )
    film = _film_for_model(viewer, key)
    assert isinstance(film, Prepared), "the run's films are prepared"
    own = np.flatnonzero(collection.embeddings.image == film.manifest.image[0])
    if not len(own):
        raise ValueError("this film is in no part of the run, so its index does not hold it")
    feature = collection.embeddings.direction[own[:1]]
    return similar_to(search_collection(collection, film, feature, **choices), 0)


def _calibration(viewer: Viewer, request: Request) -> dict[str, Any]:
    """Return the reliability tables of a part: shares of positives by bin, with 95 % intervals."""
    films, part = _run_films(viewer), request.query_params.get("part", "test")
    if part not in ("test", "val"):
        raise ValueError(f"part: found {part!r}, expected test or val")
    return {"part": part, "bins": _once(viewer, ("bins", part), partial(_bins, films, part))}


# --- what is sent as it is -------------------------------------------------------------------


def _pixels(viewer: Viewer, request: Request) -> Response:
    """Send a film's pixels, row by row, a byte or two (the low one first) each.

    With `clahe=1`: eight bits, with the contrast enhancement of the model's preparation.
    """
    key = request.path_params["key"]
    film = _native(viewer, key)
    if request.query_params.get("clahe") == "1":
        preparation = viewer.model.preparation
        film = enhanced(film, path=_path(viewer, key), preparation=preparation)
    grey = film.grey
    head = {
        "Height": grey.shape[0],
        "Width": grey.shape[1],
        "Bytes": grey.itemsize,
        "Bits": film.bits,
        "Low": film.low,
        "High": film.high,
    }
    named = {f"X-Film-{name}": f"{value:g}" for name, value in head.items()}
    raw = grey.astype(grey.dtype.newbyteorder("<"), copy=False).tobytes()
    return Response(raw, media_type="application/octet-stream", headers=named | NOT_KEPT)


def _thumbnail(viewer: Viewer, request: Request) -> Response:
    """Send a small PNG of a film."""
    key = request.path_params["key"]
    if key in viewer.added:
        grey = in_eight_bits(viewer.added[key].native)
    else:
        row = _row(viewer, key)[1]
        assert viewer.prepared is not None, "a run's films are prepared"
        grey = np.asarray(viewer.prepared.pixels[row])
    return Response(thumbnail(grey), media_type="image/png", headers=NOT_KEPT)


# --- what pages give -------------------------------------------------------------------------


def _take_film(viewer: Viewer, request: Request, body: bytes) -> dict[str, Any]:
    """Take a film that was dropped: decoded, held in memory, written nowhere."""
    name = unquote(request.headers.get("x-film-name", "")) or "film"
    return _short(viewer, _add(viewer, name, None, decode_native(body, name=name)))


def _take_verdict(viewer: Viewer, request: Request, body: bytes) -> dict[str, Any]:
    """Take a reviewer's verdict on a label and write all verdicts to the run."""
    del request
    films = _run_films(viewer)
    try:
        given = json.loads(body)
    except ValueError as error:
        raise ValueError(f"body: found no JSON ({error}); expected a verdict") from error
    texts = ("film", "finding", "verdict", "reviewer", "note")
    if not isinstance(given, dict) or not all(isinstance(given.get(one), str) for one in texts):
        raise ValueError(f"body: expected an object with the texts {', '.join(texts)}")
    _, row = _row(viewer, given["film"])
    if given["finding"] not in films.manifest.findings:
        raise ValueError(f"finding: found {given['finding']!r}, expected one of the model's")
    label = films.manifest.label[row, films.manifest.findings.index(given["finding"])]
    if np.isnan(label):
        raise ValueError("verdict: this label is not stated; expected a finding with a label")
    about = (given["reviewer"], given["verdict"], given["note"])
    verdict = verdicts.check_verdict(
        Verdict(_image(films, row), given["finding"], int(label), *about)
    )
    with viewer.lock:
        assert viewer.run is not None, "films are of a run"
        viewer.reviews[verdict.image, verdict.finding, verdict.reviewer] = verdict
        verdicts.save_verdicts(viewer.reviews.values(), viewer.run.out / REVIEW)
    return verdict._asdict()


# --- films -----------------------------------------------------------------------------------


def _short(viewer: Viewer, key: str) -> dict[str, Any]:
    """Return a film as a row of the list."""
    if key in viewer.added:
        return {"key": key, "image": viewer.added[key].name, "added": True}
    films, row = _row(viewer, key)
    manifest = films.manifest
    present = np.flatnonzero(manifest.label[row] == 1)
    turn = manifest.facts["follow_up"].iloc[row] if "follow_up" in manifest.facts else None
    return {
        "key": key,
        "image": _image(films, row),
        "added": False,
        "patient": str(manifest.patient_id[row]),
        "part": str(films.part[row]),
        "view": str(films.view[row]),
        "follow_up": turn,
        "findings": [manifest.findings[k] for k in present] or [NO_FINDING],
    }


def _row(viewer: Viewer, key: str) -> tuple[FilmList, int]:
    """Return the run's films and the row of one; ValueError for a key that is of none."""
    films = viewer.films
    if (
        films is None
        or not (key.isascii() and key.isdigit())
        or len(key) > 9
        or int(key) >= len(films)
    ):
        raise ValueError(f"film: found {key[:40]!r}, expected the key of a film of the list")
    return films, int(key)


def _whole(text: str, name: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name}: found {text[:40]!r}, expected a whole number")
    return int(text or 0)


def _image(films: FilmList, row: int) -> str:
    return str(films.manifest.image[row])


def _run_films(viewer: Viewer) -> FilmList:
    if viewer.films is None:
        raise ValueError(RUN_ONLY)
    return viewer.films


def _native(viewer: Viewer, key: str) -> NativeFilm:
    """Return a film as its file has it."""
    if key in viewer.added:
        return viewer.added[key].native
    films, row = _row(viewer, key)
    return read_native(Path(str(films.manifest.facts["path"].iloc[row])))


def _path(viewer: Viewer, key: str) -> Path | None:
    """Return the file of a film; None for one that was dropped."""
    if key in viewer.added:
        return viewer.added[key].path
    films, row = _row(viewer, key)
    return Path(str(films.manifest.facts["path"].iloc[row]))


def _add(viewer: Viewer, name: str, path: Path | None, native: NativeFilm) -> str:
    with viewer.lock:
        number = 1 + max((int(key[1:]) for key in viewer.added), default=0)
        viewer.added[f"a{number}"] = AddedFilm(name, path, native)
        while len(viewer.added) > MOST_ADDED:
            viewer.added.popitem(last=False)
    return f"a{number}"


# --- model -----------------------------------------------------------------------------------


def _film_for_model(viewer: Viewer, key: str) -> Path | Prepared | np.ndarray:
    """Return a film as `Model.predict` takes it: prepared by the run, else its file or pixels."""
    if key in viewer.added:
        film = viewer.added[key]
        return film.path if film.path is not None else in_eight_bits(film.native)
    row, prepared = _row(viewer, key)[1], viewer.prepared
    assert prepared is not None, "a run's films are prepared"
    pixels = np.asarray(prepared.pixels[row : row + 1])
    return replace(prepared, manifest=prepared.manifest.take(np.array([row])), pixels=pixels)


def _once(viewer: Viewer, what: tuple[object, ...], make: Callable[[], Any]) -> Any:
    """Return what `make` makes, kept under a name; the model works for one page at a time."""
    with viewer.working:
        if what not in viewer.known:
            while len(viewer.known) >= MOST_KEPT:
                viewer.known.pop(next(iter(viewer.known)))
            viewer.known[what] = make()
        return viewer.known[what]


def _map_of(viewer: Viewer, key: str, finding: str) -> tuple[Heatmaps, int]:
    """Return heat maps and the row of a film in them."""
    if viewer.run is not None and key not in viewer.added:
        image = _image(*_row(viewer, key))
        for maps in _kept_maps(viewer.run.out, _network_of(viewer)):
            found = np.flatnonzero(maps.image == image)
            if len(found) and finding in maps.findings:
                return maps, int(found[0])
    film, refused = _film_for_model(viewer, key), list[str]()
    for method in METHODS:
        try:
            return viewer.model.explain(film, method=method, findings=[finding]).maps, 0
        except ValueError as error:
            refused.append(str(error))
    raise ValueError(f"no heat map of {viewer.model.name}: {refused[0]}")


@lru_cache(maxsize=2)
def _kept_maps(folder: Path, network: str) -> tuple[Heatmaps, ...]:
    """Return the heat maps that a run has made of its test films, where they are of a network."""
    about = folder / "explanation" / "heatmaps.json"
    if not about.is_file():
        return ()
    kept = json.loads(about.read_text(encoding="utf-8"))
    if kept["network"] != network:
        return ()
    return tuple(load_heatmaps(about.parent / f"maps-{place}.npz") for place in range(kept["maps"]))


def _network_of(viewer: Viewer) -> str:
    """Return the network of heat maps and index: the model itself, the best for an ensemble."""
    assert viewer.run is not None, "heat maps and index are of a run"
    names = [network.name for network in viewer.run.protocol.network]
    name = viewer.model.name
    return name if name in names else network_folder(viewer.run.out, "").name


def _bins(films: FilmList, part: str) -> dict[str, list[dict[str, Any]]]:
    """Return the bins of the reliability table by finding."""
    predictions: Predictions | None = films.predictions
    if predictions is None or not (predictions.part == part).any():
        return {}
    table = reliability_table(predictions.of(part)).drop(columns="network")
    table = table.loc[table["films"].to_numpy() > 0]
    return {
        str(name): mine.to_dict("records") for name, mine in table.groupby("finding", sort=False)
    }


# --- answers ---------------------------------------------------------------------------------


def _index(request: Request) -> Response:
    return _file_of("index.html", "text/html")


def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES:
        raise HTTPException(404)
    return _file_of(name, FILES[name])


def _file_of(name: str, kind: str) -> Response:
    content = resources.files("lucency.deploy").joinpath("viewer_page", name).read_bytes()
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


def _answer(
    do: Callable[[Viewer, Request], dict[str, Any]], viewer: Viewer, request: Request
) -> Response:
    return _json(do(viewer, request))


def _json(value: Any, *, status: int = 200, kind: str = "application/json") -> Response:
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    return Response(text, status_code=status, media_type=kind, headers=NOT_KEPT)


def _plain(value: Any) -> Any:
    """Return a value for JSON: NaN becomes null, numbers of numpy plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refusing(do: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Let an endpoint answer a ValueError with its message, status 422."""

    @wraps(do)
    def answered(request: Request) -> Response:
        try:
            return do(request)
        except ValueError as error:
            return _refused(str(error), status=422)

    return answered


def _taking(do: Callable[[Request, bytes], dict[str, Any]]) -> Callable[[Request], Any]:
    """Let an endpoint take a body of at most LARGEST_FILM bytes, counted while it streams."""

    async def answered(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_FILM:
                return _refused(f"body: found more than {LARGEST_FILM:,} bytes", status=413)
        try:
            return _json(await run_in_threadpool(do, request, bytes(body)))
        except ValueError as error:
            return _refused(str(error), status=422)

    return answered


def _refused(why: str, *, status: int) -> Response:
    kind = "application/problem+json"
    about = {"type": "about:blank", "title": "Refused", "status": status, "detail": why}
    return _json(about, status=status, kind=kind)


MOST_KEPT = 256  # predictions, heat maps and lists of similar films
NOT_KEPT = {"Cache-Control": "no-store"}
