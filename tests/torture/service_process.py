"""A served model in a process of its own, its memory and its descriptors; Linux alone."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from served import Reply, parsed, served_model

READY = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+) serves")
START_SECONDS = 600.0  # on cores that other programs take
MEBIBYTE = 2**20


class Served(NamedTuple):
    """A service that runs: its process, its port and the token."""

    pid: int
    port: int
    token: str
    log: int

    @property
    def logged(self) -> str:
        """What it has written so far."""
        return os.pread(self.log, 2**24, 0).decode(errors="replace")


@contextmanager
def served_process(place: Path, *, files: int = 0) -> Iterator[Served]:
    """Lend `lucency serve` of a folder; `files` limits its descriptors. It is to end by SIGTERM."""

    def limit() -> None:
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    words = [sys.executable, "-m", "lucency", "serve", str(place), "--port", "0"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stderr=log, stdout=log, preexec_fn=limit)
        try:
            yield _ready(process, log.fileno())
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        if status:
            raise RuntimeError(f"the service ended with status {status}")


def _ready(process: subprocess.Popen[bytes], log: int) -> Served:
    """Return the service when it has written its address."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if found := READY.search(os.pread(log, 2**16, 0).decode(errors="replace")):
            return Served(process.pid, int(found[1]), found[2], log)
        time.sleep(0.05)
    raise RuntimeError(f"no service: {os.pread(log, 2**16, 0).decode(errors='replace')}")


def small_model(scratch: str | Path) -> Path:
    """Return the folder of an untrained network of the tests."""
    served_model(Path(scratch) / "model")
    return Path(scratch) / "model"


def request(
    service: Served,
    target: str,
    *headers: str,
    body: bytes | None = None,
    kind: str = "image/png",
    keep: bool = False,
) -> bytes:
    """Return a good request as it goes over the wire, a POST where it has a body."""
    lines = [
        f"{'GET' if body is None else 'POST'} {target} HTTP/1.1",
        f"Host: 127.0.0.1:{service.port}", f"Authorization: Bearer {service.token}", *headers,
    ]  # fmt: skip
    lines += [] if body is None else [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [] if keep else ["Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def answered(service: Served, sent: bytes, *, patience: float = 30.0) -> Reply:
    """Return the answer to a request on a connection of its own; status 0 where none came."""
    found = b""
    try:
        with socket.create_connection(("127.0.0.1", service.port), timeout=patience) as line:
            line.sendall(sent)
            while piece := line.recv(2**16):
                found += piece
    except OSError:  # it was refused, reset or not answered in time
        return parsed(found)
    return parsed(found)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, such as decoders."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found


def resident(pid: int) -> int:
    """Return the bytes that a process and its children hold in memory."""
    total = 0
    for one in (pid, *children(pid)):
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except FileNotFoundError:  # a child that has ended since
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
