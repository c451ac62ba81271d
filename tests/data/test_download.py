import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from lucency.config.sections import SourceName
from lucency.data.download import BY_HAND, NIH, Archive, download

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path, with the faults of `faults`, one a request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag = '"one"'
        self.faults: list[str] = []
        self.always = ""
        self.seen: list[tuple[str, str | None, str | None]] = []

    def archives(self, *names: str, size: int = len(CONTENT), md5: str = MD5) -> list[Archive]:
        """Return archives of this server."""
        base = f"http://127.0.0.1:{self.server_address[1]}"
        return [Archive(name, f"{base}/{name}", size, md5) for name in names]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with the content, or the part of it that is asked for, and the next fault."""
        server = self.server
        server.seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = server.faults.pop(0) if server.faults else server.always
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if fault == "change":
            server.content, server.etag = CONTENT, '"two"'
        self._send(self._head(fault), fault)

    def _head(self, fault: str) -> bytes:
        """Send the head of an answer; return its body."""
        server, asked = self.server, self.headers.get("Range")
        content, start = server.content, 0
        same = self.headers.get("If-Range") in (None, server.etag)
        if asked and same and fault != "whole":
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            self.send_response(206)
            last = len(content) - 1
            shift = 1 if fault == "shifted" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{last}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f"W/{server.etag}" if "weak" in fault else server.etag)
        self.send_header("Connection", "close")
        self.end_headers()
        return body

    def _send(self, body: bytes, fault: str) -> None:
        part = (
            body[: len(body) // 3] if fault in ("drop", "stall", "no length", "weak drop") else body
        )
        for place in range(0, len(part), 20_000):
            self.wfile.write(part[place : place + 20_000])
            if fault == "slow":
                time.sleep(0.01)
        if fault == "stall":
            time.sleep(1.0)
        self.close_connection = True


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def fetched(server: Server, out: Path, *names: str) -> list[bytes]:
    files = download(
        "nih", out, archives=server.archives(*(names or ("a",))), patience=0.3, pauses=(0.0,)
    )
    return [file.read_bytes() for file in files]


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))


def test_published_list():
    assert [one.name for one in NIH] == [f"images_{n:03d}.tar.gz" for n in range(1, 13)]
    assert sum(one.size for one in NIH) == 45_079_862_784
    assert len({one.md5 for one in NIH}) == len({one.address for one in NIH}) == 12
    assert all(re.fullmatch("[0-9a-f]{32}", one.md5) for one in NIH)


def test_several_files_and_again_without_a_request(server, tmp_path):
    names = ("a", "b", "c", "d", "e")
    assert fetched(server, tmp_path, *names) == [CONTENT] * 5
    assert left(tmp_path) == [*names]
    server.seen.clear()
    (tmp_path / "a.part.etag").touch()  # as a kill after the last rename leaves it
    assert fetched(server, tmp_path, *names) == [CONTENT] * 5
    assert server.seen == []
    assert left(tmp_path) == [*names]


@pytest.mark.parametrize("fault", ["drop", "stall", "no length", "503", "429"])
def test_faults_are_survived(server, tmp_path, fault):
    server.faults = [fault, fault, "drop"]
    assert fetched(server, tmp_path) == [CONTENT]
    assert left(tmp_path) == ["a"]


def test_goes_on_where_it_stopped(server, tmp_path):
    server.faults = ["drop"]
    fetched(server, tmp_path)
    assert server.seen == [("/a", None, None), ("/a", f"bytes={len(CONTENT) // 3}-", '"one"')]


def test_a_weak_etag_vouches_for_nothing(server, tmp_path):
    server.faults = ["weak drop"]
    assert fetched(server, tmp_path) == [CONTENT]
    assert server.seen[1] == ("/a", f"bytes={len(CONTENT) // 3}-", None)


def test_part_that_is_too_long_begins_anew(server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    assert fetched(server, tmp_path) == [CONTENT]
    assert server.seen == [("/a", None, None)]


def test_full_disk_is_named_at_once(server, tmp_path, monkeypatch):
    def full(file: Path, content: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lucency.data.download.write_whole", full)
    with pytest.raises(ValueError, match=r"a\.part.*full"):
        fetched(server, tmp_path)
    assert len(server.seen) == 1


def test_range_answered_with_the_whole(server, tmp_path):
    server.faults = ["drop", "whole"]
    assert fetched(server, tmp_path) == [CONTENT]


def test_changed_etag_begins_anew(server, tmp_path):
    server.content, server.etag = CONTENT[::-1], '"old"'
    server.faults = ["drop", "change"]
    assert fetched(server, tmp_path) == [CONTENT]
    assert server.seen[1:] == [("/a", f"bytes={len(CONTENT) // 3}-", '"old"')]


def test_part_of_another_file_is_fetched_anew(server, tmp_path, capsys):
    (tmp_path / "a.part").write_bytes(b"x" * 100_000)
    assert fetched(server, tmp_path) == [CONTENT]
    assert "not as published, fetched anew" in capsys.readouterr().err


def test_damaged_file_is_replaced(server, tmp_path):
    (tmp_path / "a").write_bytes(CONTENT[:-1] + b"?")
    assert fetched(server, tmp_path) == [CONTENT]


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("404", "the server answered 404"),
        ("500", "6 connections brought nothing: the server answered 500"),
    ],
)
def test_refusals(server, tmp_path, fault, line):
    server.always = fault
    with pytest.raises(ValueError, match=line):
        fetched(server, tmp_path)


def test_wrong_place_in_the_file(server, tmp_path):
    server.faults = ["drop", "shifted"]
    with pytest.raises(ValueError, match="another file"):
        fetched(server, tmp_path)


def test_another_size_and_another_content(server, tmp_path):
    with pytest.raises(ValueError, match=r"found 300,000 bytes .* expected 300,001 bytes"):
        download("nih", tmp_path, archives=server.archives("a", size=300_001), pauses=(0.0,))
    server.content = CONTENT[::-1]
    with pytest.raises(ValueError, match="the server has another file; the same command goes on"):
        fetched(server, tmp_path)
    assert left(tmp_path) == []


def test_one_failure_leaves_the_others(server, tmp_path):
    good, bad = server.archives("good"), server.archives("bad", md5="0" * 32)
    with pytest.raises(ValueError, match="1 of 2 files could not be had: bad"):
        download("nih", tmp_path, archives=[*bad, *good], pauses=(0.0,))
    assert (tmp_path / "good").read_bytes() == CONTENT


def test_disk_space_first(server, tmp_path):
    archives = server.archives("a", size=10**18)
    with pytest.raises(ValueError, match=r"1000000000\.0 GB are still to come"):
        download("nih", tmp_path, archives=archives)
    assert server.seen == []


def test_one_process_at_a_time(server, tmp_path):
    server.always = "slow"
    thread = threading.Thread(target=fetched, args=(server, tmp_path))
    thread.start()
    while not server.seen:
        time.sleep(0.005)
    with pytest.raises(ValueError, match="another process downloads into it"):
        fetched(server, tmp_path)
    thread.join()
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("name", [*BY_HAND])
def test_sets_that_people_fetch(tmp_path, name):
    with pytest.raises(
        ValueError, match=rf"{name} is not fetched by this program; it needs .*https://"
    ):
        download(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_other_source_has_its_line():
    assert {"nih", *BY_HAND} == {*get_args(SourceName)} - {"csv", "phantom", "dicom"}


def test_unknown_set(tmp_path):
    with pytest.raises(ValueError, match=r"'padches' is unknown.*nearest is 'padchest'"):
        download("padches", tmp_path / "out")


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_bytes(server, tmp_path):
    server.always = "slow"
    archives = [tuple(one) for one in server.archives("a", "b", "c", "d")]
    code = (
        "from pathlib import Path; from lucency.data.download import Archive, download; "
        f"download('nih', Path({str(tmp_path)!r}), archives=[Archive(*a) for a in {archives!r}])"
    )
    generator, kills = np.random.default_rng(1), 0
    for _ in range(60):
        child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        while not server.seen and child.poll() is None:
            time.sleep(0.005)
        try:
            assert child.wait(timeout=float(generator.uniform(0.02, 0.12))) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            kills += bool(server.seen)
            server.seen.clear()
    assert kills >= 2
    assert [(tmp_path / name).read_bytes() for name in "abcd"] == [CONTENT] * 4
    assert left(tmp_path) == ["a", "b", "c", "d"]
