"""A real S3 server on loopback (moto's), and a proxy in front of it that fails as stores do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "films"
KINDS = ("slow", "internal", "dropped", "cut")  # before an answer, and in the middle of it
ERRORS = {
    "slow": (503, b"<Error><Code>SlowDown</Code><Message>Please slow down.</Message></Error>"),
    "internal": (500, b"<Error><Code>InternalError</Code><Message>Try again.</Message></Error>"),
}


@contextmanager
def s3_server() -> Iterator[str]:
    """Lend the address of an S3 server that has an empty bucket, and the environment for it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "testing")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            client().create_bucket(Bucket=BUCKET)
            yield f"{host}:{port}"
    finally:
        server.stop()


def client() -> Any:
    """Return boto3's client of the environment's server."""
    return boto3.client("s3")


def upload(folder: Path, prefix: str) -> None:
    """Put the files of a folder into the bucket, below a prefix."""
    s3 = client()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder).as_posix()}"
            s3.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    s3.close()


def stored(prefix: str) -> dict[str, bytes]:
    """Return the objects below a prefix by name."""
    s3, found = client(), dict[str, bytes]()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        for one in page.get("Contents", []):
            body = s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
            found[one["Key"].removeprefix(f"{prefix}/")] = body
    s3.close()
    return found


class Trouble(ThreadingHTTPServer):
    """A proxy for a server: of its requests every so-manyth fails, of KINDS in turn."""

    def __init__(self, upstream: str, every: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.every, self.lock = upstream, every, threading.Lock()
        self.done = dict.fromkeys((*KINDS, "passed"), 0)

    def next_kind(self) -> str:
        """Return what becomes of the next request."""
        with self.lock:
            count = sum(self.done.values()) + 1
            failure = KINDS[count // self.every % len(KINDS)]
            kind = "passed" if count % self.every else failure
            self.done[kind] += 1
        return kind

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that is gone."""


class Handler(BaseHTTPRequestHandler):
    """One connection to the proxy."""

    protocol_version = "HTTP/1.1"
    server: Trouble

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def pass_on(self) -> None:
        """Answer as the server does, or fail."""
        body, kind = self.read_body(), self.server.next_kind()
        if kind == "dropped":
            self.close_connection = True
        elif kind in ERRORS:
            status, text = ERRORS[kind]
            self.answer(status, {"Content-Type": "application/xml"}, text, len(text))
        else:
            upstream = HTTPConnection(self.server.upstream, timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            found = upstream.getresponse()
            text, stated = found.read(), int(found.headers.get("Content-Length") or 0)
            upstream.close()
            if kind == "cut":
                text, self.close_connection = text[: len(text) // 2], True
            self.answer(found.status, dict(found.headers), text, stated)

    def read_body(self) -> bytes:
        """Return the content of a request, and forget that it came in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = list[bytes]()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        del self.headers["Transfer-Encoding"]
        return b"".join(parts)

    def answer(self, status: int, headers: dict[str, str], text: bytes, stated: int) -> None:
        """Send an answer that states a length, which may be more than there is."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(max(stated, len(text))))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def troubled(upstream: str, *, every: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Lend the URL of a proxy that fails now and then, and what it has done so far, by kind."""
    server = Trouble(upstream, every)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.done
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
