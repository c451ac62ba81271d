"""The service: a model behind HTTP, for films that are sent to it."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lucency.core.manifest import Prepared, nearest, unlabelled
from lucency.core.predictions import Predictions
from lucency.core.progress import say
from lucency.deploy.batching import (
    Admission,
    Batches,
    NamedFilm,
    predict_film,
    run_alone,
    run_batches,
)
from lucency.deploy.decoding import (
    DecodedFilm,
    Decoders,
    FilmError,
    decode_film,
    start_decoders,
    stop_decoders,
)
from lucency.deploy.film_answers import (
    NOTICE,
    ModelAbout,
    about_model,
    described_model,
    explained_finding,
    film_unfamiliarity,
    overlay_png,
    predicted_findings,
)
from lucency.deploy.guard import METHODS, ServiceSettings, guarded
from lucency.deploy.meters import SECONDS, SIZES, TEXT_FORMAT, Meters, count, exposition, measure
from lucency.deploy.openapi import AUTO, EXPLAIN_METHODS, MOST_SIMILAR, openapi_document
from lucency.deploy.problems import AsciiJSONResponse, Problem, problem_response
from lucency.deploy.received import (
    ReceivedFilm,
    chosen,
    parameters,
    received_films,
    whole_number,
)
from lucency.explain.heatmaps import MethodError
from lucency.models.metadata import read_metadata
from lucency.pipeline.similar_films import (
    PATIENTS,
    Collection,
    Resemblance,
    entry_of,
    open_collection,
    search_collection,
    searchable,
)

if TYPE_CHECKING:
    from lucency.pipeline.library import Model

OTHER = "other"  # of paths and methods, in metrics and log
Handler = Callable[["Service", Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A model that answers requests, with what decodes, collects, counts and admits films.

    What the network does, it does in the thread of `batches`.
    """

    model: Model
    settings: ServiceSettings
    about: ModelAbout
    decoders: Decoders
    batches: Batches
    admission: Admission
    shown: Admission  # bytes that the viewer holds
    meters: Meters
    collection: list[Collection]  # none until it is needed


def create_app(
    model: Model,
    *,
    settings: ServiceSettings,
    routes: Sequence[BaseRoute] = (),
    log: Callable[[str], None] = say,
) -> ASGIApp:
    """Return the service of a model as an ASGI application, behind the guard.

    `routes` are further routes and mounts, such as a viewer's: they come before the service's own
    and are behind the same guard. Handlers find what runs in `request.state.service`. `log` is
    called with a line a request, which names neither films nor header values.
    """
    meters = Meters()
    every = [*routes, *(_route(path, methods, do) for path, methods, do in ROUTES)]
    inner = Starlette(
        routes=every,
        exception_handlers={
            Problem: _answer_problem,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_disconnect,
            500: _answer_failure,
        },
        lifespan=partial(_running, model=model, settings=settings, meters=meters),
    )
    inner.router.redirect_slashes = False  # what is not described is not there
    known = [one for one in every if isinstance(one, Route | Mount)]
    name, allowed = partial(_name_of_route, known), partial(_methods_of_route, known)

    def observe(scope: Scope, status: int, seconds: float) -> None:
        route, method = name(scope["path"], scope["method"]), scope["method"]
        method = method if method in METHODS else OTHER
        count(meters, "lucency_requests_total", route=route, method=method, status=str(status))
        measure(meters, "lucency_request_seconds", seconds, bounds=SECONDS, route=route)
        log(f"{method} {route} {status} {seconds * 1000:.0f} ms")

    return guarded(_discreet(inner, log), settings=settings, observe=observe, allowed=allowed)


def _discreet(app: ASGIApp, log: Callable[[str], None]) -> ASGIApp:
    """Return an application whose failures are logged by kind and place alone.

    Their texts, which the server would write, may hold films' names: LUCENCY_TRACEBACK adds them.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        try:
            await app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - it was answered, and is logged here
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{PurePath(place.filename).name}, line {place.lineno}"
            why = f": {error}" if os.environ.get("LUCENCY_TRACEBACK") else ""
            log(f"{type(error).__name__} in {where}{why}")
        return None

    return handle


@asynccontextmanager
async def _running(
    app: Starlette, *, model: Model, settings: ServiceSettings, meters: Meters
) -> AsyncIterator[Mapping[str, Any]]:
    """Run decoders and the network's thread while the service runs."""
    del app
    decoders = await start_decoders(
        model.preparation,
        count=settings.decoders,
        memory=settings.decoder_bytes,
        seconds=settings.decoder_seconds,
    )
    batches = Batches(
        predict=partial(predict_named, model), most=settings.batch, seconds=settings.batch_seconds
    )
    admission = Admission(settings.waiting)
    size = partial(measure, meters, "lucency_batch_films", bounds=SIZES)
    task = asyncio.create_task(run_batches(batches, observe=size))
    task.add_done_callback(partial(_stop_without_batches, admission))
    service = Service(
        model=model,
        settings=settings,
        about=about_model(model),
        decoders=decoders,
        batches=batches,
        admission=admission,
        shown=Admission(settings.shown_bytes),
        meters=meters,
        collection=[],
    )
    yield {"service": service}
    admission.stopping = True
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await stop_decoders(decoders)
    batches.thread.shutdown()


def _stop_without_batches(admission: Admission, task: asyncio.Task[None]) -> None:
    """Refuse films, and say why, where the task that predicts them has failed."""
    admission.stopping = True
    if not task.cancelled():
        say(f"The service predicts no more: {type(task.exception()).__name__}")


async def index(service: Service, request: Request) -> Response:
    """Return what the service is and where its routes are."""
    parameters(request, {"token": ""})
    routes = [path for path, _, _ in ROUTES]
    return JSONResponse({"model": service.about._asdict(), "routes": routes, "notice": NOTICE})


async def health(service: Service, request: Request) -> Response:
    """Return that the service works; Problem where it is stopping."""
    parameters(request, {})
    if service.admission.stopping:
        raise Problem("stopping")
    return JSONResponse({"status": "ok", "notice": NOTICE})


async def metrics(service: Service, request: Request) -> Response:
    """Return what was counted, for Prometheus."""
    parameters(request, {})
    text = exposition(service.meters, waiting=service.admission.waiting)
    return Response(text, headers={"content-type": TEXT_FORMAT})


async def openapi(service: Service, request: Request) -> Response:
    """Return the description of the service."""
    parameters(request, {})
    text = _openapi_text(service.settings, service.model.findings)
    return Response(text, media_type="application/json")


@lru_cache(maxsize=2)
def _openapi_text(settings: ServiceSettings, findings: tuple[str, ...]) -> bytes:
    """Return the description as it is sent, made once: each costs the time of some films."""
    return bytes(JSONResponse(openapi_document(settings, findings)).body)


async def describe(service: Service, request: Request) -> Response:
    """Return the model's findings, thresholds, preparation and card."""
    parameters(request, {})
    return AsciiJSONResponse(described_model(service.model, service.about))


async def predict(service: Service, request: Request) -> Response:
    """Return the predictions of the films that were sent."""
    parameters(request, {})
    films = await _films(service, request, most=service.settings.films)
    with service.admission.admitted(len(films)):
        found = await asyncio.gather(*(_predicted(service, film) for film in films))
    lost = [one for one in found if isinstance(one, FilmError)]
    if lost and len(films) == 1:
        return _unreadable(lost[0], films[0])
    entries = [_entry(service, *pair) for pair in zip(films, found, strict=True)]
    return _answered(service, films=entries)


async def explain(service: Service, request: Request) -> Response:
    """Return the heat map of one finding of the film that was sent."""
    known = {"finding": "", "method": AUTO, "as": "png"}
    given, findings = parameters(request, known), service.model.findings
    if given["finding"] not in findings:
        near = nearest(given["finding"], findings)
        raise Problem("parameter-invalid", f"finding: expected one of {', '.join(findings)}{near}")
    method = chosen("method", given["method"], (AUTO, *EXPLAIN_METHODS))
    form = chosen("as", given["as"], ("png", "array"))
    film = (await _films(service, request, most=1))[0]
    with service.admission.admitted(1):
        decoded = await _decoded(service, film)
        if isinstance(decoded, FilmError):
            return _unreadable(decoded, film)
        shown = prepared_films(service.model, [NamedFilm(film.name, decoded.pixels)])
        about = {"method": "" if method == AUTO else method, "findings": [given["finding"]]}
        work = partial(service.model.explain, shown, **about)
        try:
            explanation = await run_alone(service.batches, work)
        except MethodError as error:
            raise Problem("parameter-invalid", str(error)) from error
    if form == "png":
        picture = await asyncio.to_thread(overlay_png, explanation)
        return Response(picture, media_type="image/png", headers={"x-lucency-notice": NOTICE})
    about = {"film": film.name, "network": service.model.explained}
    return _answered(service, **about, **explained_finding(explanation))


async def similar(service: Service, request: Request) -> Response:
    """Return the films of the model's run that look most like the film that was sent."""
    given = parameters(request, {"top": "10", "patients": PATIENTS[0]})
    top = whole_number("top", given["top"], most=MOST_SIMILAR)
    patients = chosen("patients", given["patients"], PATIENTS)
    film = (await _films(service, request, most=1))[0]
    with service.admission.admitted(1):
        decoded = await _decoded(service, film)
        if isinstance(decoded, FilmError):
            return _unreadable(decoded, film)
        queries = prepared_films(service.model, [NamedFilm(film.name, decoded.pixels)])
        work = partial(resembling, service, queries, top=top, patients=patients)
        found = await run_alone(service.batches, work)
    about = {"film": film.name, "network": found.network, "patients": patients}
    return _answered(service, **about, **entry_of(found, 0))


def resembling(service: Service, queries: Prepared, *, top: int, patients: str) -> Resemblance:
    """Return the run's films that look most like the queries, to the network of the index.

    It is called in the network's thread. Raises Problem where the model is of no run.
    """
    collection = _collection(service)
    network = service.model.predictor.home.network(collection.network)
    feature = network.outputs(np.asarray(queries.pixels)).feature
    return search_collection(
        collection, queries, feature, top=top, patients=patients, remark=lambda _: None
    )


def _collection(service: Service) -> Collection:
    """Return the films of the model's run, opened once; Problem where it is of none.

    Of what is no network, the run's best network says what is alike.
    """
    if not service.collection:
        place, model = service.settings.run, service.model
        if place is None:
            raise Problem("no-index", "start the service with the folder of a run")
        name = model.name if model.kind == "network" else ""
        try:
            _, network = searchable(place, network=name)
        except ValueError as error:
            raise Problem("no-index") from error
        collection, home = open_collection(place, network=name), model.predictor.home
        if read_metadata(network).weights != home.metadata(collection.network).weights:
            raise Problem("no-index", "its run was trained again: start the service again")
        service.collection.append(collection)
    return service.collection[0]


async def _films(service: Service, request: Request, *, most: int) -> list[ReceivedFilm]:
    return await received_films(request, most=most, largest=service.settings.body_bytes)


async def _decoded(service: Service, film: ReceivedFilm) -> DecodedFilm | FilmError:
    try:
        decoded = await decode_film(service.decoders, film.content)
    except FilmError as error:
        count(service.meters, "lucency_films_total", outcome=error.code)
        return error
    count(service.meters, "lucency_films_total", outcome="decoded")
    return decoded


async def _predicted(
    service: Service, film: ReceivedFilm
) -> tuple[DecodedFilm, Predictions] | FilmError:
    decoded = await _decoded(service, film)
    if isinstance(decoded, FilmError):
        return decoded
    named = NamedFilm(film.name, decoded.pixels)
    return decoded, await predict_film(service.batches, named)


def _entry(
    service: Service, film: ReceivedFilm, found: tuple[DecodedFilm, Predictions] | FilmError
) -> dict[str, Any]:
    if isinstance(found, FilmError):
        return {"film": film.name, "code": found.code, "reason": str(found)}
    decoded, predicted = found
    findings = predicted_findings(service.model, predicted)
    about = film_unfamiliarity(service.model, predicted)
    return {"film": film.name, "findings": findings, "quality": decoded.quality, **about}


def _unreadable(error: FilmError, film: ReceivedFilm) -> Response:
    return problem_response(Problem(error.code, str(error)), film=film.name)


def _answered(service: Service, **more: Any) -> Response:
    return AsciiJSONResponse({"model": service.about._asdict(), **more, "notice": NOTICE})


def prepared_films(model: Model, films: Sequence[NamedFilm]) -> Prepared:
    """Return films that were decoded; each is called by its file name, as one on disk is.

    Of several of one name the second is /NAME, the third //NAME: names are unique, and each fits
    the films of a run that NAME does (`lucency.core.tables.fitting_films`).
    """
    seen, names = Counter[str](), list[str]()
    for film in films:
        name = PurePath(film.name).name or "film"
        names.append("/" * seen[name] + name)
        seen[name] += 1
    pixels = np.stack([film.pixels for film in films])
    return unlabelled(names, pixels, findings=model.findings, preparation=model.preparation)


def predict_named(model: Model, films: Sequence[NamedFilm]) -> Predictions:
    """Return the predictions of films that were decoded, in their order."""
    return model.predict(prepared_films(model, films))


def _route(path: str, methods: Sequence[str], do: Handler) -> Route:
    async def handle(request: Request) -> Response:
        return await do(request.state.service, request)

    return Route(path, handle, methods=list(methods))


def _name_of_route(routes: Sequence[Route | Mount], path: str, method: str) -> str:
    """Return the route that a path belongs to, one of few names for any path."""
    scope = {"type": "http", "path": path, "method": method}
    found = (route.path for route in routes if route.matches(scope)[0] is not Match.NONE)
    return next(found, OTHER)


def _methods_of_route(routes: Sequence[Route | Mount], path: str) -> set[str]:
    """Return the methods that a path takes; a mount takes what the guard lets through."""
    scope = {"type": "http", "path": path, "method": ""}
    found = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    several = (route.methods if isinstance(route, Route) else METHODS for route in found)
    return {method for methods in several for method in methods or ()}


def _answer_problem(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, Problem)
    return problem_response(error)


def _answer_http_error(request: Request, error: Exception) -> Response:
    """Return Starlette's own refusals as problems."""
    assert isinstance(error, HTTPException)
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed-request")
    return _answer_problem(request, Problem(code, headers=error.headers))


def _answer_disconnect(request: Request, error: Exception) -> Response:
    del error
    return _answer_problem(request, Problem("body-incomplete"))


def _answer_failure(request: Request, error: Exception) -> Response:
    del error
    return _answer_problem(request, Problem("internal"))


ROUTES: tuple[tuple[str, tuple[str, ...], Handler], ...] = (
    ("/", ("GET",), index),
    ("/health", ("GET",), health),
    ("/metrics", ("GET",), metrics),
    ("/openapi.json", ("GET",), openapi),
    ("/v1/model", ("GET",), describe),
    ("/v1/predict", ("POST",), predict),
    ("/v1/explain", ("POST",), explain),
    ("/v1/similar", ("POST",), similar),
)
