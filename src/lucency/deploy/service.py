"""The service: a model behind HTTP, for films that are sent to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Scope

from lucency.deploy.guard import ServiceSettings, guarded
from lucency.deploy.problems import Problem, problem_response

if TYPE_CHECKING:
    from lucency.pipeline.library import Model

NOTICE = "For research only, not a medical device."


def create_app(
    model: Model, *, settings: ServiceSettings, routes: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """Return the service of a model as an ASGI application, behind the guard.

    `routes` are further routes and mounts, such as a viewer's: they come before the service's own
    and are behind the same guard. Handlers find the model in `request.app.state.model`.
    """
    inner = Starlette(
        routes=[*routes, Route("/health", health)],
        exception_handlers={
            Problem: _answer_problem,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_disconnect,
            500: _answer_failure,
        },
        lifespan=_lifespan,
    )
    inner.state.model = model
    inner.state.settings = settings

    def observe(scope: Scope, status: int, seconds: float) -> None:
        del scope, status, seconds

    return guarded(inner, settings=settings, observe=observe)


async def health(request: Request) -> Response:
    """Return that the service works."""
    del request
    return JSONResponse({"status": "ok", "notice": NOTICE})


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    del app
    yield


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
