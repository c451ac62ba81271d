"""A small model to be served, films to send to it, and requests as bytes on a socket."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from starlette.routing import BaseRoute

from lucency.core.manifest import Preparation
from lucency.core.predictions import Recalibration
from lucency.deploy.decoding import START_SECONDS
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.listening import StoppableServer, bind, server_config
from lucency.deploy.service import create_app
from lucency.models.classifier import Classifier, save_classifier
from lucency.models.networks import build
from lucency.pipeline.library import Model, load

TOKEN = "a-token-of-the-tests"
SERVED = ("Effusion", "Mass")
SIDE = 48


class Reply(NamedTuple):
    """What came back on a socket; status 0 where the connection was dropped without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of a problem, "" for other answers."""
        kind = self.headers.get("content-type", "")
        return str(json.loads(self.body)["code"]) if "problem" in kind else ""


def served_model(folder: Path) -> Model:
    """Return an untrained network, saved and loaded as a trained one is."""
    torch.manual_seed(0)
    network = build("test_resnet", findings=len(SERVED), size=SIDE).eval()
    line = Recalibration(
        method="platt", slope=np.array([0.8, 1.2]), offset=np.array([0.1, -0.2]), note=("", "")
    )
    classifier = Classifier(
        network=network, name="test_resnet", architecture="test_resnet", findings=SERVED,
        preparation=Preparation(size=SIDE), mean=(0.5,) * 3, std=(0.2,) * 3, provenance="random",
        split="none", device="cpu", epoch=1, recalibration=line, threshold=np.array([0.4, 0.6]),
        protocol={},
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_classifier(classifier, folder)
    return load(folder, engine="torch")


class Running(NamedTuple):
    """A server in a thread: its port and the lines of its log."""

    port: int
    log: list[str]


@contextmanager
def running_service(
    model: Model, *, routes: Sequence[BaseRoute] = (), **limits: Any
) -> Iterator[Running]:
    """Lend a service in a thread, which is to stop in the end whatever its clients do."""
    log: list[str] = []
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        settings = ServiceSettings(port=port, token=TOKEN, **limits)
        app = create_app(model, settings=settings, routes=routes, log=log.append)
        server = StoppableServer(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started, seconds=START_SECONDS)
        yield Running(port, log)
        server.should_exit = True
        thread.join(timeout=60)
        assert not thread.is_alive(), "a client keeps the service from stopping"


def wait_for(true: Callable[[], bool], *, seconds: float) -> bool:
    """Wait until something is true, for so long at most, and return whether it is."""
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    return true()


def film_pixels(seed: int = 0, *, size: int = 96) -> np.ndarray:
    """Return a film with smooth shapes, so that no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def film_file(seed: int = 0, *, suffix: str = ".png", size: int = 96) -> bytes:
    """Return the content of a film's file."""
    return cv2.imencode(suffix, film_pixels(seed, size=size))[1].tobytes()


def multipart(
    *parts: tuple[str, bytes], boundary: str = "b0undary", field: str = "film", end: str = "--\r\n"
) -> tuple[dict[str, str], bytes]:
    """Return content type and body of files with these names."""
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in parts
    ]
    body = b"".join(pieces) + f"--{boundary}{end}".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


def request_bytes(
    port: int,
    method: str = "GET",
    target: str = "/v1/model",
    headers: dict[str, str | None] | None = None,
    body: bytes = b"",
) -> bytes:
    """Return a request as it goes over the wire; a header that is None is left out."""
    usual: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}", "Authorization": f"Bearer {TOKEN}", "Connection": "close",
    }  # fmt: skip
    if body or method == "POST":
        usual["Content-Length"] = str(len(body))
    chosen = {**usual, **(headers or {})}
    lines = [f"{key}: {value}" for key, value in chosen.items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


def ask(port: int, sent: bytes, *, endless: bytes = b"", patience: float = 20.0) -> Reply:
    """Send bytes, then `endless` until the service has had enough, and return its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as line:
        received = b""
        try:
            line.sendall(sent)
            while endless:
                line.sendall(endless)
        except (ConnectionResetError, BrokenPipeError):
            pass
        try:
            while piece := line.recv(2**16):
                received += piece
        except ConnectionResetError:
            pass
    return parsed(received)


def parsed(received: bytes) -> Reply:
    """Return the first answer among what was received."""
    if not received:
        return Reply(0, {}, b"")
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", len(body)))
    return Reply(int(first.split()[1]), headers, body[:length])
