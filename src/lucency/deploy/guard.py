"""The guard before every route of the service: Host, Origin, token, body, security headers.

It is ASGI middleware, so that pages and static files that are mounted beside the service are
behind it as well.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucency.core.parallel import hand_back_memory
from lucency.deploy.problems import Problem, problem_response

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DEFAULT_PORT = 80  # browsers leave it out
EVERY_ADDRESS = ("0.0.0.0", "::")
OPEN_PATHS = ("/health",)  # without a token
ENTRANCE = """<!doctype html>
<html lang="en"><meta http-equiv="refresh" content="0;url=/"><title>Lucency</title>
<link rel="icon" href="data:,">
<p><a href="/">Lucency</a></p></html>
"""  # after a redirect from a page elsewhere a browser would keep the strict cookie back
LONGEST_HEAD = 16 * 2**10  # bytes of a request's target and headers
METHODS = ("GET", "HEAD", "POST")
FORBIDDEN_IN_PATHS = ("\\", "%2e", "%2f", "%5c", "%00")  # after one decoding
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
Observe = Callable[[Scope, int, float], None]  # of a request its scope, status and seconds
Allowed = Callable[[str], Iterable[str]]  # the methods that a path takes


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Where the service listens, who may use it, and its limits.

    `token` "" lets everybody in who reaches it; `names` are further names of the host, with which
    requests may address it. Sizes are bytes, times seconds.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    names: tuple[str, ...] = ()
    body_bytes: int = 64 * 2**20
    bodies_bytes: int = 512 * 2**20  # of all requests together
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    answer_seconds: float = 30.0  # in which a client reads on; see `listening.LEAST_READ`
    films: int = 64  # of one request
    waiting: int = 256  # films of all requests that are not answered yet
    shown_bytes: int = 512 * 2**20  # of files that the viewer decodes, and of pixels not read yet
    batch: int = 32
    batch_seconds: float = 0.004
    decoders: int = 2
    decoder_bytes: int = 2 * 2**30
    decoder_seconds: float = 10.0
    connections: int = 512
    stop_seconds: int = 30
    run: Path | None = None  # the run's folder, whose films can be searched

    @property
    def authorities(self) -> frozenset[str]:
        """The values of a Host header that name this service.

        Further names stand without a port too, as a reverse proxy passes them.
        """
        own = {*LOOPBACK, self.host, *self.names} - set(EVERY_ADDRESS)
        shown = {f"[{name}]" if ":" in name else name for name in own}
        bare = shown if self.port == DEFAULT_PORT else shown & set(self.names)
        return frozenset({f"{name}:{self.port}" for name in shown} | bare)

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token: browsers give cookies to every port."""
        return f"lucency_token_{self.port}"


KEPT = 32 << 20  # bytes of a body, whose memory is kept for the next


class BodyTally(NamedTuple):
    """The bytes of bodies that are held now, in a list of one."""

    held: list[int]


@dataclass
class Exchange:
    """One request under way: what of its body has come, and what was answered."""

    started: float = field(default_factory=time.perf_counter)
    received: int = 0
    whole: bool = False
    status: int = 0


def guarded(
    app: ASGIApp, *, settings: ServiceSettings, observe: Observe, allowed: Allowed
) -> ASGIApp:
    """Return an application behind the guard; `observe` is called when a request was answered."""
    tally = BodyTally([0])

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await exchange(scope, receive, send)

    async def exchange(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        one = Exchange(whole=not _has_body(headers))
        answer = _answering(send, one)
        limited = _limiting(receive, one, settings=settings, tally=tally)
        try:
            refused = _refused(scope, headers, settings, allowed)
            one.whole = one.whole and refused is None  # so that the connection is closed
            await (refused or app)(scope, limited, answer)
        finally:
            tally.held[0] -= one.received
            if one.received > KEPT:
                hand_back_memory()
            observe(scope, one.status, time.perf_counter() - one.started)

    return handle


def _refused(
    scope: Scope, headers: Headers, settings: ServiceSettings, allowed: Allowed
) -> Response | None:
    """Return the answer to a request that does not reach the application, None for others."""
    try:
        _check_framing(scope, headers)
        _check_place(scope, headers, settings, allowed)
        _check_origin(headers)
        return _admitted(scope, headers, settings)
    except Problem as problem:
        return problem_response(problem)


def _check_framing(scope: Scope, headers: Headers) -> None:
    """Raise Problem for a long head, and a body that a proxy before the service sees end elsewhere.

    RFC 9112, section 6.1: the latter smuggles a second request past the proxy.
    """
    path = scope.get("raw_path") or scope["path"].encode()  # servers may leave the former out
    pieces = [path, scope["query_string"], *(b for pair in headers.raw for b in pair)]
    if sum(map(len, pieces)) > LONGEST_HEAD:
        raise Problem("malformed-request", f"expected headers of {LONGEST_HEAD:,} bytes at most")
    if "transfer-encoding" not in headers:
        return
    if "content-length" in headers:
        raise Problem("malformed-request", "found Content-Length beside Transfer-Encoding")
    if scope["http_version"] < "1.1":
        raise Problem("malformed-request", "found Transfer-Encoding in a request of HTTP/1.0")


def _check_place(
    scope: Scope, headers: Headers, settings: ServiceSettings, allowed: Allowed
) -> None:
    """Raise Problem for a foreign Host, a method, path or upgrade that nothing here takes."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not hosts[0]:
        raise Problem("host-absent")
    if hosts[0].lower() not in settings.authorities:
        raise Problem("host-foreign")
    if "upgrade" in headers.get("connection", "").lower() and "upgrade" in headers:
        raise Problem("upgrade-refused")
    if scope["method"] not in METHODS:
        allow = ", ".join(sorted(allowed(scope["path"])))
        raise Problem("method-not-allowed", headers={"allow": allow})
    path = scope["path"]
    escaped = any(piece in path.lower() for piece in FORBIDDEN_IN_PATHS)
    if escaped or ".." in path.split("/") or not path.isprintable():
        raise Problem("bad-path")


def _check_origin(headers: Headers) -> None:
    """Raise Problem unless Origin is absent or that of this service, by the name of its Host."""
    origins, host = headers.getlist("origin"), headers["host"].lower()
    if any(one.lower() not in (f"http://{host}", f"https://{host}") for one in origins):
        raise Problem("origin-foreign")


def _admitted(scope: Scope, headers: Headers, settings: ServiceSettings) -> Response | None:
    """Return what sets the cookie, None for who has the token; Problem for others, and for size."""
    token, path = settings.token, scope["path"]
    entering = path == "/" and scope["method"] != "POST"
    query = parse_qs(scope["query_string"].decode("latin-1")) if entering else {}
    if token and path not in OPEN_PATHS:
        named = [*query.get("token", ()), *_tokens(headers, settings.cookie)]
        if not named:
            raise Problem("token-absent")
        if not any(hmac.compare_digest(one.encode(), token.encode()) for one in named):
            raise Problem("token-wrong")
    if token and "token" in query:
        entrance = HTMLResponse(ENTRANCE)
        entrance.set_cookie(settings.cookie, token, httponly=True, samesite="strict")
        return entrance
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > settings.body_bytes:
        raise _too_large(settings)
    return None


def _tokens(headers: Headers, name: str) -> list[str]:
    """Return the tokens that a request names, as Authorization or in the cookie of a name."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    cookie = cookie_parser(headers.get("cookie", "")).get(name)
    return [*([value.strip()] if kind.lower() == "bearer" else []), *([cookie] if cookie else [])]


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _too_large(settings: ServiceSettings) -> Problem:
    return Problem("body-too-large", f"expected {settings.body_bytes:,} bytes at most")


def _limiting(
    receive: Receive, one: Exchange, *, settings: ServiceSettings, tally: BodyTally
) -> Receive:
    """Return `receive` that raises Problem for a body that is too large, too slow or one too many.

    The time runs from the first call, for the whole body.
    """
    deadline = 0.0

    async def counted() -> Message:
        nonlocal deadline
        if one.whole:
            return await receive()
        deadline = deadline or asyncio.get_running_loop().time() + settings.body_seconds
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise Problem(
                "body-slow", f"expected the body within {settings.body_seconds:g} s"
            ) from None
        if message["type"] != "http.request":
            return message
        arrived = len(message.get("body", b""))
        one.received += arrived
        tally.held[0] += arrived
        if one.received > settings.body_bytes:
            raise _too_large(settings)
        if tally.held[0] > settings.bodies_bytes:
            raise Problem("busy")
        one.whole = not message.get("more_body", False)
        return message

    return counted


def _answering(send: Send, one: Exchange) -> Send:
    """Return `send` that adds the security headers and closes where a body was not read."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            one.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(SECURITY_HEADERS)
            headers.setdefault("cache-control", "no-store")
            if not one.whole:
                headers["connection"] = "close"
        await send(message)

    return answer
