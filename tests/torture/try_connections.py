"""Connections that want nothing good, thousands at once, against a served model.

A fifth each sends nothing, half a head, half a body with the token, requests whose answers it does
not read, or ends at once. All are held open. A good film is sent every hundredth connection and
must be answered as before, or refused where all connections are at work; memory and descriptors
must return. Where no whole head or body comes, all connections must be closed within the limits of
the service (`ServiceSettings`), and good films be answered until then. The second service may open
300 files only, and may refuse films while connections come.
"""

import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from lucency.deploy.guard import ServiceSettings
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
AT_ONCE = "closed at once"
STATED = ServiceSettings()
CLOSED_WITHIN = {  # seconds from the last connection of a kind, as the service states them
    "nothing sent": STATED.header_seconds,
    "half a head": STATED.header_seconds,
    WORKING: STATED.body_seconds,
}
SLACK = 5.0  # seconds more, beside other work
MEANWHILE = 1.0  # seconds between two good requests until then
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
        AT_ONCE: lambda _: b"GET",
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


def held_open(
    stack: ExitStack, service: Served, kind: str, times: int, *, meanwhile: Callable[[], object]
) -> list[socket.socket]:
    """Return connections of a kind, open until `stack` is left, none where they end at once.

    `meanwhile` is called after each EVERY of them.
    """
    lines, sent = list[socket.socket](), kinds(service)[kind]
    for number in range(times):
        lines.append(stack.enter_context(opened(service, sent(number))))
        if kind == AT_ONCE:
            lines.pop().close()
        if number % EVERY == 0:
            meanwhile()
    return lines


OPEN = "open"
CLOSED = {"dropped", "closed", "answered 200", "answered 408", "answered 503"}


def fate(line: socket.socket) -> str:
    """Return what has become of a connection, without waiting."""
    try:
        found = line.recv(64)
    except BlockingIOError:
        return OPEN
    except OSError:
        return "dropped"
    return f"answered {found[9:12].decode()}" if found else "dropped"


def fates(
    lines: list[socket.socket], *, within: float, meanwhile: Callable[[], object]
) -> list[str]:
    """Return what has become of connections once all are closed, or so many seconds are over.

    `meanwhile` is called again and again until then.
    """
    until, closed, left = time.monotonic() + within, list[str](), lines
    while left:
        over = time.monotonic() >= until
        found = [(line, fate(line)) for line in left]
        closed += [one for _, one in found if one != OPEN]
        left = [line for line, one in found if one == OPEN]
        if over:
            break
        meanwhile()
        time.sleep(max(min(MEANWHILE, until - time.monotonic()), 0))
    return closed + [OPEN] * len(left)


def good(service: Served, film: bytes, *, expected: list[object]) -> str:
    """Return the status of a good request, or that its predictions are not the first one's."""
    reply = answered(service, request(service, "/v1/predict", body=film))
    if reply.status != 200:
        return str(reply.status)
    found = json.loads(reply.body)
    expected[:] = expected or [found]
    return "200" if [found] == expected else "another answer"


def flood(service: Served, times: int, *, label: str, full: str = "200") -> Iterator[Tally]:
    """Hold `times` connections of each kind open, and count what becomes of all requests.

    `full` is a further status that a good film may have while connections come.
    """
    film, expected = film_file(), list[object]()
    assert good(service, film, expected=expected) == "200"
    before, files = resident(service.pid), descriptors(service.pid)
    during: dict[str, list[str]] = {}
    opens = [files]
    for kind in kinds(service):
        answers = during.setdefault(kind, [])

        def send_good(answers: list[str] = answers) -> None:
            answers.append(good(service, film, expected=expected))
            opens.append(descriptors(service.pid))

        with ExitStack() as stack:
            lines = held_open(stack, service, kind, times, meanwhile=send_good)
            within = CLOSED_WITHIN[kind] + SLACK if kind in CLOSED_WITHIN else 0.0
            found = fates(lines, within=within, meanwhile=send_good)
        found += ["closed"] * (times - len(found))
        may = CLOSED if kind in CLOSED_WITHIN else {*CLOSED, OPEN}
        yield tally(f"{label}: {kind}", found, right=may.__contains__)
    for kind, statuses in during.items():
        known = {"200", "503"} if kind == WORKING else {"200", full}
        yield tally(f"{label}: a good film, {kind}", statuses, right=known.__contains__)
    await_descriptors(service, files + MORE_FILES)
    after = [good(service, film, expected=expected) for _ in range(10)]
    yield tally(f"{label}: a good film after", after, right=lambda one: one == "200")
    more = resident(service.pid) - before
    left = descriptors(service.pid) - files
    yield Tally(
        f"{label}: memory and descriptors return", 2,
        (more <= MORE_BYTES) + (left <= MORE_FILES),
        f"memory + {more / MEBIBYTE:.0f} MiB, descriptors + {left} of {max(opens)} at most",
    )  # fmt: skip
    failures = service.logged.count("Traceback") + service.logged.count("out of system resource")
    yield Tally(f"{label}: log without failures", 1, int(not failures), f"failures {failures}")


def await_descriptors(service: Served, most: int) -> None:
    """Wait until a service has so few open, or BACK_SECONDS are over."""
    until = time.monotonic() + BACK_SECONDS
    while descriptors(service.pid) > most and time.monotonic() < until:
        time.sleep(0.5)


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
    script("connections", tries, times=10_000, doc=__doc__ or "")
