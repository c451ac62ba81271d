"""The start of the service: who may use it, by what address, and the model that it loads.

Letters in shapes: s pixels of a side.
"""

from __future__ import annotations

import atexit
import html
import ipaddress
import os
import re
import secrets
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from jaxtyping import UInt8
from starlette.routing import BaseRoute

from lucency.core.parallel import usable_cores
from lucency.deploy.film_answers import NOTICE
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.listening import bind, run_server
from lucency.deploy.service import create_app

if TYPE_CHECKING:
    from lucency.pipeline.library import Model

SHORTEST_TOKEN = 16
MOST_DECODERS = 16  # each holds NumPy and OpenCV in memory before its first film
READY_SECONDS = 60.0  # until a browser is opened
LEADING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={address}">
<title>Lucency</title><p><a href="{address}">Lucency</a></p></html>
"""
HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]+")
Pages = Callable[["Model", ServiceSettings], Sequence[BaseRoute]]


def service_settings(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    names: Sequence[str] = (),
    token_file: Path | None = None,
    no_token: bool = False,
) -> ServiceSettings:
    """Return the settings of a service; ValueError for what would let in others than was meant.

    `names` are those by which other machines call this one, without a port.
    """
    if not (names or _is_loopback(host)):
        raise ValueError(
            f"--host {host} can be reached from other machines: expected --expose NAME beside it, "
            "by which they call this one, or --host 127.0.0.1"
        )
    if wrong := [name for name in names if not HOST_NAME.fullmatch(name)]:
        raise ValueError(f"--expose {wrong[0]}: expected a host name or an address, without a port")
    if no_token and token_file:
        raise ValueError("--no-token and --token-file: expected one of them")
    token = _token(token_file) if token_file else secrets.token_urlsafe(24)
    return ServiceSettings(
        host=host,
        port=port,
        names=tuple(name.lower() for name in names),
        token="" if no_token else token,
        decoders=min(usable_cores(), MOST_DECODERS),
    )


def serve_model(
    place: Path,
    *,
    name: str,
    settings: ServiceSettings,
    pages: Pages = lambda model, settings: (),
) -> None:
    """Load a model and serve it until the process is stopped.

    `pages` returns further routes, such as a viewer's. Raises ValueError for a port in use and for
    a place without a model.
    """
    from lucency.pipeline.library import load

    with bind(settings.host, settings.port) as listening:
        settings = replace(settings, port=listening.getsockname()[1], run=run_of(place))
        model = load(place, model=name)
        model.predict(_ramp(model.preparation.size))  # so that the first film finds all in memory
        app = create_app(model, settings=settings, routes=pages(model, settings))
        line = f"{service_address(settings)} serves {model.name}. {NOTICE}"
        run_server(app, settings=settings, listening=listening, line=line)


def opening_browser(pages: Pages) -> Pages:
    """Return the same pages, which open in the browser as soon as the service answers."""

    def opened(model: Model, settings: ServiceSettings) -> Sequence[BaseRoute]:
        made = pages(model, settings)
        threading.Thread(target=_open_browser, args=(settings,), daemon=True).start()
        return made

    return opened


def _open_browser(settings: ServiceSettings) -> None:
    """Open the page as soon as the port answers."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection((settings.host, settings.port), 1):
            webbrowser.open(leading_page(settings).as_uri())
            return
        time.sleep(0.1)


def leading_page(settings: ServiceSettings) -> Path:
    """Return a page, which this user alone can read, that leads to the service's address.

    The browser gets its name in place of the address: a command line shows everybody the token.
    """
    handle, name = tempfile.mkstemp(prefix="lucency-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as page:
        page.write(LEADING.format(address=html.escape(service_address(settings))))
    atexit.register(Path(name).unlink, missing_ok=True)
    return Path(name)


def service_address(settings: ServiceSettings) -> str:
    """Return the address that a person opens, with the token."""
    host = settings.names[0] if settings.names else settings.host
    shown = f"[{host}]" if ":" in host else host
    query = f"?token={quote(settings.token, safe='')}" if settings.token else ""
    return f"http://{shown}:{settings.port}/{query}"


def run_of(place: Path) -> Path | None:
    """Return the run that a model's place is, or is in."""
    inside = place.absolute().parent
    several = (place, inside.parent) if inside.name == "networks" else (place,)
    return next((one for one in several if (one / "protocol.toml").is_file()), None)


def _ramp(side: int) -> UInt8[np.ndarray, "s s"]:
    """Return a picture with every grey."""
    return (np.add.outer(np.arange(side), np.arange(side)) % 256).astype(np.uint8)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(file: Path) -> str:
    token = file.read_text(encoding="utf-8").strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{file}: expected a token of {SHORTEST_TOKEN} or more printable ASCII characters"
        )
    return token
