"""The server of the service: one socket, connections that are limited in number and time."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lucency.core.progress import printable, say
from lucency.deploy.guard import LONGEST_HEAD, SECURITY_HEADERS, ServiceSettings
from lucency.deploy.problems import PROBLEM_TYPE, Problem, problem_document, problem_response

KEEP_ALIVE_SECONDS = 15
ACCEPTED_AT_ONCE = 16  # connections, in a turn of the loop
TURNS = 4  # from the acceptance of a connection to the first look at what it has sent, or its end
FRESH_SECONDS = 0.1  # in which the first request of a connection is awaited, whoever comes
QUEUE = 1024  # connections that the system holds until they are accepted
FILES = 64  # that the service opens beside connections and decoders
DECODER_FILES = 8  # of each decoder, while it is started anew too
SILENT = logging.Logger("lucency.deploy.listening", logging.CRITICAL)
LEAST_READ = 2**16  # bytes of an answer that a client reads in `answer_seconds`, or the rest


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is a free one. Raises ValueError for one in use.

    It listens at once, though the service answers later: two that are bound alone can share a port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(QUEUE)
    except (OSError, OverflowError) as error:
        listening.close()
        why = (isinstance(error, OSError) and error.strerror) or error
        raise ValueError(
            f"--host {host} --port {port}: {why}; expected a free port, or --port 0 for any"
        ) from error
    return listening


def room_for_connections(settings: ServiceSettings) -> int:
    """Return how many connections the service holds: all of its settings, or what files allow.

    The soft limit on open files is raised to what is needed, where the hard one allows that. Raises
    ValueError where too few files are left for any connection.
    """
    try:
        import resource
    except ImportError:  # Windows, where sockets are no files
        return settings.connections
    others = FILES + DECODER_FILES * settings.decoders + 2 * TURNS * ACCEPTED_AT_ONCE
    wanted = settings.connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < wanted:
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # systems have limits of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
    room = settings.connections if soft == resource.RLIM_INFINITY else soft - others
    if room < 1:
        raise ValueError(
            f"the service may open {soft} files; expected {others + 1} or more (ulimit -n)"
        )
    return min(room, settings.connections)


def run_server(
    app: ASGIApp, *, settings: ServiceSettings, listening: socket.socket, line: str
) -> None:
    """Serve until SIGTERM or SIGINT: what runs is finished, what is new refused.

    `line` is written when the service is ready. Raises ValueError where it cannot start.
    """
    for one in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped
        signal.signal(one, _stopped)
    server = StoppableServer(server_config(app, settings))
    server.line = line
    server.run(sockets=[listening])


def announce(line: str) -> None:
    """Write a line at once: who started the service reads the address on standard output."""
    try:
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    except OSError:  # it takes no more, and the service can still be used
        say(line)


def server_config(app: ASGIApp, settings: ServiceSettings) -> uvicorn.Config:
    """Return how uvicorn runs the service."""

    class Limited(LimitedProtocol):
        limits = settings
        most = room_for_connections(settings)

    return uvicorn.Config(
        _keeping_failure(app),
        http=Limited,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.stop_seconds,
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )


def _keeping_failure(app: ASGIApp) -> ASGIApp:
    """Return an application that keeps, in the state of its server, why it does not start."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan":
                scope["state"]["failure"] = error
            raise

    return handle


class StoppableServer(uvicorn.Server):
    """A server that writes a line when it is ready, and whose service learns when it is to stop."""

    line = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and write the line; raises what keeps the service from starting.

        Uvicorn would log it as a traceback, and end the program.
        """
        loud, self.lifespan.logger = self.lifespan.logger, SILENT
        try:
            await super().startup(sockets)
        except SystemExit:
            raise self.lifespan.state["failure"] from None
        self.lifespan.logger = loud
        for one in sockets or ():
            one.listen(QUEUE)  # uvicorn has one number for this and for ACCEPTED_AT_ONCE
        if self.line:
            announce(self.line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new films, then stop as uvicorn does."""
        if service := self.lifespan.state.get("service"):
            service.admission.stopping = True
        super().handle_exit(sig, frame)


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 that drops who does not send a request's headers in time, or stops to read.

    Where there are too many connections a new one takes the place of the one that has had no
    request for longest, else of one that does not read. With all at work it is refused.
    """

    limits = ServiceSettings()
    most = limits.connections
    rested = 0.0  # when the connection, or its last answer, was complete
    refused = False
    waiting: asyncio.TimerHandle | None = None
    stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Give the client some time for its first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that all that is not read is known
        self.waiting = self.loop.call_later(self.limits.header_seconds, transport.abort)
        self.rested = self.loop.time()
        if len(self.connections) > self.most:
            self._make_room()

    def _make_room(self) -> None:
        """Drop a connection that can be dropped; this one is refused where there is none."""
        known = [one for one in self.connections if isinstance(one, LimitedProtocol)]
        before = self.loop.time() - FRESH_SECONDS
        idle = [one for one in known if one.at_rest and one.rested < before and not one.refused]
        if found := idle or [one for one in known if one.stalled]:
            return self._drop_longest(found)
        self.app, self.refused = refuse_connection, True
        if len(refused := [one for one in known if one.refused]) > TURNS * ACCEPTED_AT_ONCE:
            self._drop_longest(refused)
        return None

    def _drop_longest(self, several: Sequence[LimitedProtocol]) -> None:
        """Drop the connection that has had no request for longest."""
        longest = min(several, key=lambda one: one.rested)
        self.connections.discard(longest)  # now, for the next connection may come before its end
        longest.transport.abort()

    @property
    def at_rest(self) -> bool:
        """Whether no request is under way."""
        return not self.cycle or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Take what has come; the time for headers ends with them, and begins with the next."""
        super().data_received(data)
        if self.waiting and not self.at_rest:
            self.waiting.cancel()
            self.waiting = None
        elif self.at_rest and not self.waiting:
            seconds = self.limits.header_seconds
            self.waiting = self.loop.call_later(seconds, self.transport.abort)

    def on_response_complete(self) -> None:
        """Go on with the next request; a new one has its own time."""
        if self.waiting:
            self.waiting.cancel()
            self.waiting = None
        self.rested = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the times of a connection that has ended."""
        for timer in filter(None, (self.waiting, self.stalled)):
            timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the client some time to read what was sent, and more for as long as it reads."""
        super().pause_writing()
        self._await_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on with a client that has read."""
        super().resume_writing()
        if self.stalled:
            self.stalled.cancel()
            self.stalled = None

    def _await_reading(self, unread: int) -> None:
        seconds = self.limits.answer_seconds
        self.stalled = self.loop.call_later(seconds, self._drop_unless_read, unread)

    def _drop_unless_read(self, before: int) -> None:
        """Drop a client that has read less than LEAST_READ of the bytes that were unread before."""
        unread = self.transport.get_write_buffer_size()
        if before - unread < LEAST_READ:
            self.transport.abort()
        else:
            self._await_reading(unread)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP with a problem document."""
        body = json.dumps(problem_document("malformed-request", msg)).encode()
        headers = {
            **SECURITY_HEADERS,
            "content-type": PROBLEM_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
        }
        events = (
            h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        with suppress(h11.LocalProtocolError):  # where an answer has begun already
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


async def refuse_connection(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse each request on a connection that is one too many."""
    response = problem_response(Problem("busy", "all connections are at work"))
    response.headers.update({**SECURITY_HEADERS, "connection": "close"})
    await response(scope, receive, send)


def _stopped(sig: int, frame: FrameType | None) -> None:
    """Let the program end by itself, with status 0, once the server has stopped."""
    del sig, frame
