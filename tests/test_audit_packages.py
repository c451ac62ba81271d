"""The list of known vulnerabilities, read from a stand-in for PyPI's JSON interface."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import audit_packages

KNOWN = {"id": "PYSEC-0000-1", "fixed_in": ["1.1"], "withdrawn": None}


class Index(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name = self.path.split("/")[1]
        listed = {"odd": [KNOWN, {**KNOWN, "withdrawn": "2026-01-01"}], "sound": []}
        if name == "cut":
            self.wfile.write(b"no HTTP\r\n")
        elif name not in listed:
            self.send_error(404)
        else:
            self._answer(listed[name])

    def _answer(self, listed: list[object]) -> None:
        body = json.dumps({"vulnerabilities": listed}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    (tmp_path / "constraints.txt").write_text("sound==1.0\nodd==1.0\nlost==1.0\ncut==1.0\n")
    monkeypatch.setattr(audit_packages, "LOCKED", tmp_path / "constraints.txt")
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield address
    server.shutdown()
    server.server_close()


def test_what_is_known_is_listed(index: str, capsys):
    assert audit_packages.main([], index=index) == audit_packages.FOUND
    assert capsys.readouterr().out.splitlines() == [
        "lost 1.0: no metadata (HTTP Error 404: Not Found)",
        "cut 1.0: no metadata (no HTTP)",
        "odd 1.0: PYSEC-0000-1, mended in 1.1",
        "1 known vulnerabilities of 2 of 4 packages",
    ]
    assert audit_packages.main(["sound"], index=index) == 0


def test_an_index_that_is_not_there_is_a_reason(index: str, capsys):
    assert audit_packages.main(["lost"], index=index) == audit_packages.UNREACHABLE
    assert "not done" in capsys.readouterr().out


def test_what_was_read_in_part_is_not_sound(index: str, capsys):
    assert audit_packages.main(["sound", "lost"], index=index) == audit_packages.UNREACHABLE
    assert "0 known vulnerabilities of 1 of 2 packages" in capsys.readouterr().out


def test_a_name_that_is_not_locked_is_named(index: str, capsys):
    assert audit_packages.main(["sound", "numpi"], index=index) == audit_packages.WRONG
    assert "numpi: not in constraints.txt" in capsys.readouterr().out


def test_all_of_ours_are_locked():
    assert len(audit_packages.locked(audit_packages.LOCKED.read_text())) > 100
