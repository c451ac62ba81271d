"""The viewer: pages of the service that show a run's films, predictions and heat maps.

The page is plain HTML and JavaScript below `viewer_page`. Films go to the browser raw, at their
native size and depth, and are windowed there. What a run holds is read from its files; the model
is needed only for films and heat maps that the run has not made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from lucency.core.files import BusyError
from lucency.core.predictions import Predictions
from lucency.deploy import film_list, verdicts
from lucency.deploy.batching import Admission
from lucency.deploy.film_list import FilmList
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.native_film import thumbnail
from lucency.deploy.problems import AsciiJSONResponse, Problem
from lucency.deploy.service import Service
from lucency.deploy.start import Pages, run_of
from lucency.deploy.verdicts import Verdict
from lucency.deploy.viewer_films import (
    RUN_ONLY,
    VERDICTS,
    Viewer,
    enhanced_film,
    explained_film,
    film_for_model,
    film_row,
    native_film,
    open_viewer,
    predicted_film,
    run_films,
    short_film,
    similar_films,
    take_film,
)
from lucency.evaluation.calibration import reliability_table
from lucency.pipeline.library import Model

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
PIECE = 2**18  # bytes of pixels that are sent at once
NOT_KEPT = {"Cache-Control": "no-store"}
Answer = Response | dict[str, Any]


def viewer_pages(place: Path, *, films: Sequence[Path]) -> Pages:
    """Return the viewer's routes, as `lucency.deploy.start.serve_model` takes pages."""

    def pages(model: Model, settings: ServiceSettings) -> Sequence[BaseRoute]:
        del settings
        return viewer_routes(open_viewer(model, run=run_of(place), films=films))

    return pages


def viewer_routes(viewer: Viewer) -> list[Route]:
    """Return the routes of the page, for `lucency.deploy.service.create_app`."""
    read: dict[str, Callable[[Viewer, Request], Answer]] = {
        "model": _model,
        "films": _films,
        "film/{key}": _film,
        "calibration": _calibration,
    }
    made: dict[str, Callable[[Viewer, Request], Awaitable[Answer]]] = {
        "film/{key}/prediction": _prediction,
        "film/{key}/heatmap": _heatmap,
        "film/{key}/similar": _similar,
        "film/{key}/pixels": _pixels,
        "film/{key}/thumbnail": _thumbnail,
    }
    taken: dict[str, Callable[[Viewer, Request], Awaitable[Answer]]] = {
        "films": _take_film,
        "verdicts": _take_verdict,
    }
    api = f"{PAGE}api/"
    return [
        Route("/", _index),
        Route(f"{PAGE}{{name}}", _file),
        *(Route(f"{api}{at}", _reading(partial(do, viewer))) for at, do in read.items()),
        *(Route(f"{api}{at}", _making(partial(do, viewer))) for at, do in made.items()),
        *(
            Route(f"{api}{at}", _making(partial(do, viewer)), methods=["POST"])
            for at, do in taken.items()
        ),
    ]


# --- what pages read -------------------------------------------------------------------------


def _model(viewer: Viewer, request: Request) -> Answer:
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
        "added": [short_film(viewer, key) for key in list(viewer.added)],
        "remark": "" if films else RUN_ONLY,
    }  # fmt: skip


def _films(viewer: Viewer, request: Request) -> Answer:
    """Return some rows of the filtered list, from `offset` on, and how many there are in all."""
    films = run_films(viewer)
    words = request.query_params
    with _naming_parameter():
        chosen = film_list.read_filter(words, films)
    offset, limit = (_whole(words.get(name, ""), name) for name in ("offset", "limit"))
    rows = film_list.select_films(films, chosen)
    value = film_list.highest(films, chosen.finding)
    shown = rows[offset : offset + min(limit or 100, MOST_ROWS)].tolist()
    return {
        "total": len(rows),
        "offset": offset,
        "films": [short_film(viewer, str(row)) | {"probability": value[row]} for row in shown],
    }


def _film(viewer: Viewer, request: Request) -> Answer:
    """Return all that is known of one film without the model."""
    key = request.path_params["key"]
    about = short_film(viewer, key) | {"facts": {}, "boxes": [], "patient_films": []}
    if key in viewer.added:
        return about | {"verdicts": [], "label": None, "probability": None}
    films, row = film_row(viewer, key)
    manifest = films.manifest
    known = manifest.facts.iloc[row].drop(labels=["path"], errors="ignore")
    boxes = manifest.boxes.loc[manifest.boxes["image"] == manifest.image[row]]
    held = verdicts.read_verdicts(viewer.run.out / VERDICTS) if viewer.run else []
    probability = films.probability[row]
    return about | {
        "facts": {
            str(name): value for name, value in known.items() if str(value) not in ("", "nan")
        },
        "boxes": boxes.drop(columns="image").to_dict("records"),
        "patient_films": [
            short_film(viewer, str(one)) for one in film_list.films_of_patient(films, row)
        ],
        "verdicts": [one._asdict() for one in held if one.image == manifest.image[row]],
        "label": manifest.label[row].tolist(),
        "probability": None if np.isnan(probability).any() else probability.tolist(),
    }


def _calibration(viewer: Viewer, request: Request) -> Answer:
    """Return the reliability tables of a part: shares of positives by bin, with 95 % intervals."""
    films, part = run_films(viewer), request.query_params.get("part", "test")
    if part not in ("test", "val"):
        raise Problem("parameter-invalid", f"part: found {part!r}, expected test or val")
    return {"part": part, "bins": _bins(films, part)}


@lru_cache(maxsize=4)
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


# --- what is made when pages ask for it --------------------------------------------------------


async def _prediction(viewer: Viewer, request: Request) -> Answer:
    """Return the model's probabilities of one film."""
    key = request.path_params["key"]
    return {"probability": await predicted_film(viewer, _service(request), key)}


async def _heatmap(viewer: Viewer, request: Request) -> Answer:
    """Return the heat map of one film and finding on its grid, and the network that it is of."""
    key, finding = request.path_params["key"], request.query_params.get("finding", "")
    if finding not in viewer.model.findings:
        known = ", ".join(viewer.model.findings)
        raise Problem("parameter-invalid", f"finding: found {finding!r}, expected one of {known}")
    return await explained_film(viewer, _service(request), key, finding)


async def _similar(viewer: Viewer, request: Request) -> Answer:
    """Return the run's films that look most alike, the network and the patient left out."""
    return await similar_films(viewer, _service(request), request.path_params["key"])


async def _pixels(viewer: Viewer, request: Request) -> Answer:
    """Send a film's pixels, row by row, a byte or two (the low one first) each.

    With `clahe=1`: eight bits, with the contrast enhancement of the model's preparation.
    """
    enhanced = request.query_params.get("clahe") == "1"
    made = enhanced_film if enhanced else native_film
    film = await made(viewer, _service(request), request.path_params["key"])
    grey = film.grey
    head = {
        "Height": grey.shape[0],
        "Width": grey.shape[1],
        "Bytes": grey.itemsize,
        "Bits": film.bits,
        "Low": film.low,
        "High": film.high,
    }
    named = {f"X-Film-{name}": f"{value:.12g}" for name, value in head.items()}
    raw = grey.astype(grey.dtype.newbyteorder("<"), copy=False).tobytes()
    return Pixels(raw, headers=named | NOT_KEPT, held=_service(request).shown)


async def _thumbnail(viewer: Viewer, request: Request) -> Answer:
    """Send a small PNG of a film as the model sees it."""
    film = await film_for_model(viewer, _service(request), request.path_params["key"])
    small = thumbnail(np.asarray(film.pixels[0]))
    return Response(small, media_type="image/png", headers=NOT_KEPT)


# --- what pages give -------------------------------------------------------------------------


async def _take_film(viewer: Viewer, request: Request) -> Answer:
    """Take a film that was dropped, and return it as a row of the list."""
    name = unquote(request.headers.get("x-film-name", "")) or "film"
    key = await take_film(viewer, _service(request), name, await request.body())
    return short_film(viewer, key)


async def _take_verdict(viewer: Viewer, request: Request) -> Answer:
    """Take a reviewer's verdict on a label, or its withdrawal, and write it to the run."""
    body = await request.body()
    with _naming_parameter():
        verdict = _read_verdict(viewer, body)
    assert viewer.run is not None, "films are of a run"
    try:
        await run_in_threadpool(verdicts.keep_verdict, verdict, viewer.run.out / VERDICTS)
    except BusyError as error:
        raise Problem("busy", "another program is writing verdicts: try again") from error
    return verdict._asdict()


def _read_verdict(viewer: Viewer, body: bytes) -> Verdict:
    """Return the verdict that a body states; ValueError, or Problem, for what is none."""
    films = run_films(viewer)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:  # the latter of brackets by the thousand
        raise ValueError(f"body: found no JSON ({error}); expected a verdict") from error
    texts = ("film", "finding", "verdict", "reviewer", "note")
    if not isinstance(given, dict) or not all(isinstance(given.get(one), str) for one in texts):
        raise ValueError(f"body: expected an object with the texts {', '.join(texts)}")
    _, row = film_row(viewer, given["film"])
    if given["finding"] not in films.manifest.findings:
        raise ValueError(f"finding: found {given['finding']!r}, expected one of the model's")
    label = films.manifest.label[row, films.manifest.findings.index(given["finding"])]
    if np.isnan(label):
        raise ValueError("verdict: this label is not stated; expected a finding with a label")
    about = (given["reviewer"], given["verdict"], given["note"])
    image = str(films.manifest.image[row])
    return verdicts.check_verdict(Verdict(image, given["finding"], int(label), *about))


class Pixels(Response):
    """Pixels that are sent as the client reads them, and held until it has; Problem for too many.

    A server takes the whole of an answer at once, and would keep that of each slow client.
    """

    media_type = "application/octet-stream"

    def __init__(self, raw: bytes, *, headers: Mapping[str, str], held: Admission) -> None:
        super().__init__(raw, headers=headers)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pixels piece by piece; the empty one waits for the last that has any."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        size = len(self.body)
        with self.held.admitted(size):
            await send(start)
            for at in range(0, size + PIECE, PIECE):
                piece, more = bytes(self.body[at : at + PIECE]), at < size
                await send({"type": "http.response.body", "body": piece, "more_body": more})


# --- answers ---------------------------------------------------------------------------------


def _service(request: Request) -> Service:
    return request.state.service


def _whole(text: str, name: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        found = f"{name}: found {text[:40]!r}, expected a whole number"
        raise Problem("parameter-invalid", found)
    return int(text or 0)


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


def _reading(do: Callable[[Request], Answer]) -> Callable[[Request], Response]:
    """Return an endpoint that runs in a thread of its own."""

    def answered(request: Request) -> Response:
        return _sent(do(request))

    return answered


def _making(do: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that waits for decoders and the network."""

    async def answered(request: Request) -> Response:
        return _sent(await do(request))

    return answered


@contextmanager
def _naming_parameter() -> Iterator[None]:
    """Let a ValueError, while what the client has sent is read, be the problem of a parameter."""
    try:
        yield
    except ValueError as error:
        raise Problem("parameter-invalid", str(error)) from error


def _sent(answer: Answer) -> Response:
    if isinstance(answer, Response):
        return answer
    return AsciiJSONResponse(_plain(answer), headers=NOT_KEPT)


def _plain(value: Any) -> Any:
    """Return a value for JSON: NaN becomes null, numbers of numpy plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
