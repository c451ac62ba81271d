"""What a service answers under load, beside the rate at which `lucency predict` works on a folder.

Usage: python benchmarks/serve.py MODEL [FOLDER] [--model NAME] [--clients N] [--seconds S]
[--hostile] [--quick]. FOLDER holds PNG films (default ../shared/nih/images). The rate of a folder
is that between two numbers of films, so that the start of the program does not count. With
--hostile as many clients again send bodies that do not end, or read no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
LUCENCY = (sys.executable, "-m", "lucency")
FEW = 16  # films of the shorter of two runs of `lucency predict`
MANY = 1_000  # films of the folder
START_SECONDS = 300
READY = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+) serves")


class Address(NamedTuple):
    """Where the service listens, and its token."""

    port: int
    token: str


class Answer(NamedTuple):
    """One request: its status, 0 where there was no answer, and its seconds."""

    status: int
    seconds: float


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    chosen = arguments()
    films = sorted(chosen.folder.glob("*.png"))
    if chosen.quick:
        films = films[: 4 * FEW]
    if len(films) <= FEW:
        raise SystemExit(f"{chosen.folder} holds {len(films)} PNG films: expected more than {FEW}")
    batch = folder_rate(chosen.place, films, model=chosen.model)
    contents = [film.read_bytes() for film in films]
    with served(chosen.place, model=chosen.model) as address:
        load = loaded(
            address, contents, clients=chosen.clients, seconds=chosen.seconds,
            hostile=chosen.clients if chosen.hostile else 0,
        )  # fmt: skip
        answers, seconds = asyncio.run(load)
    seen = np.array([one.seconds for one in answers if one.status == 200])
    p50, p95, p99 = np.percentile(seen, (50, 95, 99)).round(3) if len(seen) else (np.nan,) * 3
    row = {
        "model": chosen.model or chosen.place.name,
        "clients": chosen.clients,
        "hostile": chosen.clients if chosen.hostile else 0,
        "seconds": round(seconds, 1),
        "requests": len(answers),
        "errors": len(answers) - len(seen),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "films_per_second": round(len(seen) / seconds, 2),
        "folder_films_per_second": round(batch, 2),
        "ratio": round(len(seen) / seconds / batch, 3),
    }
    table = pd.DataFrame([row])
    print(table.T.to_string(header=False))
    if not chosen.quick:
        cores = f"{platform.machine()}-{os.cpu_count()}core"
        file = ROOT / "benchmarks" / "results" / f"serve-{cores}-{datetime.date.today()}.csv"
        table.to_csv(file, mode="a", header=not file.exists(), index=False)
        print(f"written to {file.relative_to(ROOT)}")


def arguments() -> argparse.Namespace:
    """Return what was typed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("place", type=Path, metavar="MODEL")
    sample = ROOT.parent / "shared" / "nih" / "images"
    parser.add_argument("folder", type=Path, nargs="?", default=sample, metavar="FOLDER")
    parser.add_argument("--model", default="", metavar="NAME")
    parser.add_argument("--clients", type=int, default=32, metavar="N")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--quick", action="store_true", help="three seconds, few films, no file")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds = 3.0
    return chosen


def folder_rate(place: Path, films: Sequence[Path], *, model: str) -> float:
    """Return the films a second that `lucency predict` makes of MANY films once it works."""
    named = ["--model", model] if model else []

    def taken(several: Sequence[Path]) -> float:
        started = time.perf_counter()
        words = [*LUCENCY, "predict", str(place), *map(str, several), *named]
        subprocess.run(words, check=True, capture_output=True)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as scratch:
        links = [Path(scratch) / f"{number}.png" for number in range(MANY)]
        for link, film in zip(links, cycle(films), strict=False):
            link.symlink_to(film.resolve())
        taken(links[:FEW])  # which writes what is made once, and warms the disk's cache
        longer = taken(links) - taken(links[:FEW])
    return (MANY - FEW) / longer if longer > 0 else float("nan")  # on a busy machine


@contextmanager
def served(place: Path, *, model: str) -> Iterator[Address]:
    """Lend the address of a service of its own process, which is stopped in the end."""
    named = ["--model", model] if model else []
    with tempfile.TemporaryFile("w+") as log:
        words = [*LUCENCY, "serve", str(place), "--port", "0", *named]
        process = subprocess.Popen(words, stderr=log, stdout=log)
        try:
            yield ready(process, log.fileno())
        finally:
            process.send_signal(signal.SIGTERM)
            print(f"the service ended with status {process.wait(timeout=60)}")


def ready(process: subprocess.Popen[bytes], log: int) -> Address:
    """Return the address that a service writes when it is ready."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if found := READY.search(os.pread(log, 2**16, 0).decode(errors="replace")):
            return Address(int(found[1]), found[2])
        time.sleep(0.1)
    raise SystemExit(f"no service: {os.pread(log, 2**16, 0).decode(errors='replace')}")


async def loaded(
    address: Address, contents: Sequence[bytes], *, clients: int, seconds: float, hostile: int
) -> tuple[list[Answer], float]:
    """Return the requests of all clients, and the seconds that they took together."""
    strangers = [asyncio.create_task(stranger(address, number)) for number in range(hostile)]
    await asyncio.gather(*(visit(address, contents, number, 0.0) for number in range(clients)))
    started = time.perf_counter()
    until = started + seconds
    visits = (visit(address, contents, number, until) for number in range(clients))
    answers = [one for several in await asyncio.gather(*visits) for one in several]
    took = time.perf_counter() - started
    for task in strangers:
        task.cancel()
    await asyncio.gather(*strangers, return_exceptions=True)
    return answers, took


async def visit(
    address: Address, contents: Sequence[bytes], number: int, until: float
) -> list[Answer]:
    """Send a film after the other on one connection until then, one at least."""
    answers, line = [], await asyncio.open_connection("127.0.0.1", address.port)
    for content in cycle([*contents[number:], *contents[:number]]):
        started = time.perf_counter()
        try:
            status = await exchange(*line, predict_request(address, content))
        except (ConnectionError, asyncio.IncompleteReadError):
            status, line = 0, await asyncio.open_connection("127.0.0.1", address.port)
        answers.append(Answer(status, time.perf_counter() - started))
        if time.perf_counter() >= until:
            break
    line[1].close()
    return answers


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> int:
    """Send a request and return the status of its answer, which is read."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split()[1])


async def stranger(address: Address, number: int) -> None:
    """Send a body that does not end, slowly, or requests whose answers are not read, for ever."""
    endless = head(address, "POST /v1/predict", "Transfer-Encoding: chunked")
    unread = head(address, "GET /openapi.json")
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", address.port)
            writer.write(endless if number % 2 else b"")
            while not writer.is_closing():
                writer.write(b"1\r\n0\r\n" if number % 2 else unread)
                await writer.drain()
                await asyncio.sleep(0.2)
            writer.close()


def predict_request(address: Address, content: bytes) -> bytes:
    """Return the request that sends a film."""
    return head(address, "POST /v1/predict", f"Content-Length: {len(content)}") + content


def head(address: Address, line: str, *more: str) -> bytes:
    """Return the head of a request."""
    lines = [
        f"{line} HTTP/1.1",
        f"Host: 127.0.0.1:{address.port}",
        f"Authorization: Bearer {address.token}",
        "Content-Type: image/png",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


if __name__ == "__main__":
    main()
