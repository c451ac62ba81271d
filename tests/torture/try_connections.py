"""Connections that want nothing good, thousands at once, against a served model.

A fifth each sends nothing, half a head, half a body with the token, requests whose answers it does
not read, or ends at once. All are held open. A good film is sent every hundredth connection and
must be answered, or refused where all connections are at work; memory and descriptors must return.
The second service may open 300 files only, and may refuse films while connections come.
"""

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from served import film_file
from torture.service_process import (
    MEBIBYTE,
    Served,
    answered,
    descriptors,
    request,
    resident,
    served_process,
    small_model,
)
from torture.tally import Tally, script, tally

FEW_FILES = 300
WORKING = "half a body"  # all connections have a request that is let in: one more is refused
EVERY = 100  # connections between two good requests
BACK_SECONDS = 60.0  # within which descriptors return
MORE_BYTES = 48 * MEBIBYTE  # that a service may keep, as allocators do
MORE_FILES = 8


def kinds(service: Served) -> dict[str, Callable[[int], bytes]]:
    """Return by kind what the connection of a number sends."""
    half = request(service, "/v1/predict", body=b"\0" * 1_000)[:-500]
    unread = request(service, "/openapi.json", keep=True) * 6
    return {
        "nothing sent": lambda _: b"",
        "half a head": lambda number: b"GET /v1/model HTTP/1.1\r\nX: "[: 3 + number % 20],
        WORKING: lambda _: half,
        "answers unread": lambda _: unread,
        "closed at once": lambda _: b"GET",
    }


def opened(service: Served, sent: bytes) -> socket.socket:
    """Return a connection with a small buffer on which something was sent and nothing is read."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(20)
    line.connect(("127.0.0.1", service.port))
    line.setblocking(False)
    with suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
        line.send(sent)
    return line


FATES = {"open", "dropped", "closed", "answered 200", "answered 503"}


def fate(line: socket.socket) -> str:
    """Return what has become of a connection, without waiting."""
    try:
        found = line.recv(64)
    except BlockingIOError:
        return "open"
    except OSError:
        return "dropped"
    return f"answered {found[9:12].decode()}" if found else "dropped"


def good(service: Served, film: bytes) -> str:
    """Return the status of a good request."""
    return str(answered(service, request(service, "/v1/predict", body=film)).status)


def flood(service: Served, times: int, *, label: str, full: str = "200") -> Iterator[Tally]:
    """Hold `times` connections of each kind open, and count what becomes of all requests.

    `full` is a further status that a good film may have while connections come.
    """
    film = film_file()
    assert good(service, film) == "200"
    before, files = resident(service.pid), descriptors(service.pid)
    during: dict[str, list[str]] = {}
    peak = 0
    for kind, sent in kinds(service).items():
        with ExitStack() as stack:
            lines = []
            for number in range(times):
                line = stack.enter_context(opened(service, sent(number)))
                lines.append(line)
                if kind == "closed at once":
                    line.close()
                if number % EVERY == 0:
                    during.setdefault(kind, []).append(good(service, film))
                    peak = max(peak, descriptors(service.pid))
            during.setdefault(kind, []).append(good(service, film))
            fates = ["closed"] * times if kind == "closed at once" else map(fate, lines)
            yield tally(f"{label}: {kind}", fates, right=FATES.__contains__)
    for kind, statuses in during.items():
        known = {"200", "503"} if kind == WORKING else {"200", full}
        yield tally(f"{label}: a good film, {kind}", statuses, right=known.__contains__)
    until = time.monotonic() + BACK_SECONDS
    while descriptors(service.pid) > files + MORE_FILES and time.monotonic() < until:
        time.sleep(0.5)
    after = [good(service, film) for _ in range(10)]
    yield tally(f"{label}: a good film after", after, right=lambda one: one == "200")
    more = resident(service.pid) - before
    left = descriptors(service.pid) - files
    yield Tally(
        f"{label}: memory and descriptors return", 2,
        (more <= MORE_BYTES) + (left <= MORE_FILES),
        f"memory + {more / MEBIBYTE:.0f} MiB, descriptors + {left} of {peak} at most",
    )  # fmt: skip
    failures = service.logged.count("Traceback") + service.logged.count("out of system resource")
    yield Tally(f"{label}: log without failures", 1, int(not failures), f"failures {failures}")


def tries(times: int) -> Iterator[Tally]:
    """Yield the tallies of both services, `times` connections each."""
    each = max(times // 5, 1)
    with tempfile.TemporaryDirectory() as scratch:
        place = small_model(scratch)
        with served_process(place) as service:
            yield from flood(service, each, label="service")
        with served_process(place, files=FEW_FILES) as service:
            yield from flood(service, each, label=f"{FEW_FILES} files", full="503")


if __name__ == "__main__":
    if not sys.platform.startswith("linux"):
        sys.exit("connections are counted on Linux alone: they are read from /proc")
    script("connections", tries, times=10_000, doc=__doc__)
