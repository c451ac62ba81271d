"""A server of invented archives on loopback, a process of its own, that can go on in the middle."""

import hashlib
import re
import subprocess
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, cast

import numpy as np

NAMES = ("images_001.tar.gz", "images_002.tar.gz")
SIZE = 300_000
BLOCK = 60_000  # bytes that are read at once


def archive(name: str) -> bytes:
    """Return the content of an archive."""
    return np.random.default_rng(NAMES.index(name)).bytes(SIZE)


class RangeHandler(BaseHTTPRequestHandler):
    """Answers with an archive, or with the part of it from a byte on; `pause` after each block."""

    pause = 0.0  # seconds

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        content = archive(self.path.removeprefix("/"))
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{SIZE - 1}/{SIZE}")
        self.send_header("Content-Length", str(SIZE - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        for place in range(start, SIZE, BLOCK):
            self.wfile.write(content[place : place + BLOCK])
            time.sleep(self.pause)


def start_server(*, pause: float = 0.0) -> tuple[subprocess.Popen[str], int]:
    """Start the server, which waits some seconds after each block of an archive.

    Returns its process, which ends with this one, and its port.
    """
    words = [sys.executable, "-m", "torture.range_server", str(pause)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, text=True, **pipes)
    return process, int(cast("IO[str]", process.stdout).readline())


def download_from(port: int) -> None:
    """Let `lucency data download nih` of this process fetch this server's archives."""
    from lucency.data import download

    archives = [
        download.Archive(name, f"http://127.0.0.1:{port}/{name}", SIZE, _md5(archive(name)))
        for name in NAMES
    ]
    download.BLOCK = BLOCK
    choices = {"archives": archives, "pauses": (0.01,) * 5}
    download.download = partial(download.download, **choices)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    import threading

    RangeHandler.pause = float(sys.argv[1])
    serving = ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    print(serving.server_address[1], flush=True)
    sys.stdin.read()  # ends with the process that started this one
