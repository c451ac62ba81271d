"""A served model under load for half an hour, with faults, each answer compared with `predict`'s.

The load is 80 % of what the service does for some seconds at first, by arrivals at even times.
Beside it come dropped connections, broken pictures, bodies above the limit, bodies that fill their
limit, and decoders that are killed. What is held: no wrong answer, memory within 5 % of that after
the sixth part of the time. Times are those of good requests from their arrival.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

import lucency as lu
from lucency.deploy.guard import ServiceSettings
from served import film_file, parsed
from torture.service_process import (
    MEBIBYTE,
    Served,
    children,
    descriptors,
    request,
    resident,
    served_process,
    small_model,
)
from torture.tally import Tally, script, tally

MINUTES = 30
MEASURED_SECONDS = 15.0
CLIENTS = 8  # while the rate is measured
UNDER_WAY = 128  # good films at once; the service takes 256
LOAD = 0.8
FLAT = 0.05  # of memory, from the sixth part of the time on
TOLERANCE = 1e-6  # of a probability; batches are of other sizes
FILMS = 64
PATIENCE, SOON = 60.0, 20.0
LARGEST = ServiceSettings.body_bytes
FAULT_SECONDS = {  # between two of a kind
    "connection dropped in a body": 1.0,
    "connection dropped before its answer": 2.0,
    "broken picture": 2.0,
    "body above the limit": 5.0,
    "body that fills the limit": 20.0,
    "decoder killed": 60.0,
}
KILLED = "film-decoder-ended"  # the code of a film whose decoder was killed


class Film(NamedTuple):
    """A film's file and the probability of each finding by `lucency predict`."""

    content: bytes
    probability: dict[str, float]


class Timed(NamedTuple):
    """What came of one good request, and its seconds."""

    outcome: str
    seconds: float


class Memory(NamedTuple):
    """Seconds since the load began, bytes of the service and its decoders, its open files."""

    seconds: float
    held: int
    files: int


def predicted_films(place: Path, scratch: Path) -> list[Film]:
    """Return films with what a batch of all of them predicts."""
    contents = [film_file(seed) for seed in range(FILMS)]
    files = [scratch / f"{number}.png" for number in range(FILMS)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    found = lu.load(place).predict(files)
    rows = [dict(zip(found.findings, row, strict=True)) for row in found.probability.tolist()]
    return [Film(*pair) for pair in zip(contents, rows, strict=True)]


async def exchange(service: Served, sent: bytes) -> bytes:
    """Return all that comes back for what is sent, "" where the connection ends without."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            try:
                writer.write(sent)
                with suppress(ConnectionError):  # the answer may have come before all was sent
                    await writer.drain()
                return await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


async def outcome_of(service: Served, film: Film) -> str:
    """Return what comes of a good film: right, wrong, or the code of a refusal."""
    reply = parsed(await exchange(service, request(service, "/v1/predict", body=film.content)))
    if reply.status != 200:
        return reply.code or f"status {reply.status}"
    findings = json.loads(reply.body)["films"][0]["findings"]
    same = findings.keys() == film.probability.keys() and all(
        abs(findings[name]["probability"] - value) <= TOLERANCE
        for name, value in film.probability.items()
    )
    return "right" if same else "wrong"


async def measured_rate(service: Served, films: list[Film]) -> float:
    """Return the films a second that the service predicts for CLIENTS at once."""
    until, done = time.monotonic() + MEASURED_SECONDS, []

    async def visit(first: int) -> None:
        for number in count(first):
            done.append(await outcome_of(service, films[number % len(films)]))
            if time.monotonic() >= until:
                return

    await asyncio.gather(*(visit(number) for number in range(CLIENTS)))
    if set(done) != {"right"}:
        raise RuntimeError(f"before any fault: {Counter(done)}")
    return len(done) / MEASURED_SECONDS


def faults(service: Served, films: list[Film]) -> dict[str, Callable[[], Awaitable[str]]]:
    """Return by name what causes a fault once, and returns what came of it."""
    whole = request(service, "/v1/predict", body=films[0].content)
    broken = request(service, "/v1/predict", body=films[0].content[:-20])
    above = request(service, "/v1/predict", "Expect: 100-continue", body=b"")
    above = above.replace(b"Content-Length: 0", b"Content-Length: %d" % (LARGEST + 1))
    filling = request(service, "/v1/predict", body=b"\0" * LARGEST)

    async def dropped(sent: bytes) -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()
        return "dropped"

    async def refused(sent: bytes) -> str:
        reply = parsed(await exchange(service, sent))
        return reply.code or f"status {reply.status}"

    async def killed() -> str:
        first = next(iter(children(service.pid)), 0)
        if first:
            os.kill(first, signal.SIGKILL)
        return "killed" if first else "none was there"

    return {
        "connection dropped in a body": lambda: dropped(whole[:-30]),
        "connection dropped before its answer": lambda: dropped(whole),
        "broken picture": lambda: refused(broken),
        "body above the limit": lambda: refused(above),
        "body that fills the limit": lambda: refused(filling),
        "decoder killed": killed,
    }


RIGHT = {  # what may come of a fault
    "connection dropped in a body": {"dropped"},
    "connection dropped before its answer": {"dropped"},
    "broken picture": {"film-truncated", KILLED},
    "body above the limit": {"body-too-large"},
    "body that fills the limit": {"film-unknown-format", KILLED},
    "decoder killed": {"killed"},
}


@dataclass
class Load:
    """A service under load until a time of the clock, and what has come of it so far."""

    service: Served
    films: list[Film]
    rate: float
    until: float
    started: float = field(default_factory=time.monotonic)
    under_way: int = 0
    kept_back: int = 0
    timed: list[Timed] = field(default_factory=list)
    caused: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in RIGHT})
    memory: list[Memory] = field(default_factory=list)


async def soak(service: Served, films: list[Film], *, rate: float, seconds: float) -> Load:
    """Return what came of good requests and of faults, and the memory meanwhile."""
    load = Load(service, films, rate, until=time.monotonic() + seconds)
    async with asyncio.TaskGroup() as group:
        group.create_task(arrive(load))
        group.create_task(watch(load))
        for name, cause in faults(service, films).items():
            group.create_task(disturb(load, name, cause))
    return load


async def arrive(load: Load) -> None:
    """Send good films at even times; one that finds too many under way is kept back."""
    async with asyncio.TaskGroup() as visits:
        for number in count():
            due = load.started + number / load.rate
            if due >= load.until:
                return
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if load.under_way >= UNDER_WAY:
                load.kept_back += 1
            else:
                visits.create_task(visit(load, number, due))


async def visit(load: Load, number: int, due: float) -> None:
    """Send a good film and keep what comes of it."""
    load.under_way += 1
    outcome = await outcome_of(load.service, load.films[number % len(load.films)])
    load.under_way -= 1
    load.timed.append(Timed(outcome, time.monotonic() - due))


async def disturb(load: Load, name: str, cause: Callable[[], Awaitable[str]]) -> None:
    """Cause a fault again and again."""
    while time.monotonic() + FAULT_SECONDS[name] < load.until:
        await asyncio.sleep(FAULT_SECONDS[name])
        load.caused[name].append(await cause())


async def watch(load: Load) -> None:
    """Keep the memory of every second."""
    while time.monotonic() < load.until:
        passed, pid = time.monotonic() - load.started, load.service.pid
        load.memory.append(Memory(passed, resident(pid), descriptors(pid)))
        await asyncio.sleep(1.0)


def memory_tally(memory: list[Memory], *, seconds: float) -> Tally:
    """Return whether each sixth of the time from the third on holds the memory of the second.

    Of each its median: a body of the limit's size is in memory for a moment.
    """
    spans = [
        float(np.median([one.held for one in memory if low <= one.seconds < low + seconds / 6]))
        for low in (seconds / 6 * part for part in range(1, 6))
    ]
    flat = [abs(span / spans[0] - 1) <= FLAT for span in spans[1:]]
    shown = "; ".join(f"{span / MEBIBYTE:.0f}" for span in spans)
    peak = max(one.held for one in memory) / MEBIBYTE
    files = max(one.files for one in memory)
    text = f"MiB by median of each sixth from the second: {shown}; peak {peak:.0f}; files {files}"
    return Tally("memory is flat", len(flat), sum(flat), text)


def tries(times: int) -> Iterator[Tally]:
    """Yield the tallies of a soak of `times` minutes."""
    seconds = times * 60.0
    with tempfile.TemporaryDirectory() as scratch:
        place = small_model(scratch)
        films = predicted_films(place, Path(scratch))
        with served_process(place) as service:
            rate = LOAD * asyncio.run(measured_rate(service, films))
            load = asyncio.run(soak(service, films, rate=rate, seconds=seconds))
            failures = service.logged.count(" in ")
    yield tally(
        f"good film at {rate:.1f} a second, 80 % of the rate, {times} minutes",
        [one.outcome for one in load.timed],
        right=lambda outcome: outcome in ("right", KILLED),
    )
    yield time_tally(load)
    yield decoder_tally(load)
    for name, outcomes in load.caused.items():
        yield tally(name, outcomes, right=lambda outcome, name=name: outcome in RIGHT[name])
    yield memory_tally(load.memory, seconds=seconds)
    yield Tally("log without failures", 1, int(not failures), f"failures {failures}")


def time_tally(load: Load) -> Tally:
    """Return the times of right answers."""
    seconds = [one.seconds for one in load.timed if one.outcome == "right"]
    p50, p99 = np.percentile(seconds, (50, 99)) * 1_000
    others = f"load of the machine {os.getloadavg()[0]:.0f}; not sent {load.kept_back}"
    text = f"p50 {p50:.0f} ms; p99 {p99:.0f} ms; {others}"
    soon = sum(one <= SOON for one in seconds)
    return Tally(f"a right answer within {SOON:g} s", len(seconds), soon, text)


def decoder_tally(load: Load) -> Tally:
    """Return whether no more films were lost than decoders were killed."""
    killed = len(load.caused["decoder killed"])
    broken = sum(outcomes.count(KILLED) for outcomes in load.caused.values())
    lost = broken + sum(one.outcome == KILLED for one in load.timed)
    text = f"{lost} films lost, of {killed} decoders killed"
    return Tally(
        "a killed decoder costs its film alone", killed, killed - max(0, lost - killed), text
    )


if __name__ == "__main__":
    if not sys.platform.startswith("linux"):
        sys.exit("memory is counted on Linux alone: it is read from /proc")
    script("soak", tries, times=MINUTES, doc=__doc__)
