"""What strangers may do with the wire, to the service and to the viewer: every row with its answer.

Framing, pipelines, floods, names of the host, paths, uploads that state what they are not, clients
that send or read slowly. After each row the service answers a good request.
"""

import itertools
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lucency.deploy import listening
from lucency.deploy.batching import Admission
from lucency.deploy.guard import SECURITY_HEADERS, ServiceSettings
from lucency.deploy.listening import room_for_connections
from lucency.deploy.viewer import Pixels, viewer_routes
from lucency.deploy.viewer_films import open_viewer
from lucency.pipeline.library import Model
from served import (
    TOKEN,
    Reply,
    Running,
    ask,
    film_file,
    multipart,
    parsed,
    request_bytes,
    running_service,
    served_model,
    wait_for,
)

GOOD = film_file()
LIMIT = 300_000
MODEL, PREDICT, FILMS = "/v1/model", "/v1/predict", "/viewer/api/films"
MALFORMED = (400, "malformed-request")
DROPPED = (0, "")
RAW = "Content-Type: application/octet-stream"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return served_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def running(model: Model) -> Iterator[Running]:
    routes: list[Route] = viewer_routes(open_viewer(model, run=None))
    limits = {
        "body_bytes": LIMIT, "body_seconds": 0.6, "header_seconds": 0.6, "answer_seconds": 0.6,
        "films": 3, "decoders": 1, "decoder_seconds": 20.0,
    }  # fmt: skip
    with running_service(model, routes=routes, **limits) as service:
        yield service


@pytest.fixture(autouse=True)
def _alive_after(running: Running) -> Iterator[None]:
    before = len(running.log)
    yield
    assert ask(running.port, request_bytes(running.port)).status == 200
    assert not [line for line in running.log[before:] if " in " in line], "the service failed"


def sent(line: str, *headers: str, body: bytes = b"", host: str = "127.0.0.1:{port}") -> bytes:
    """Return a request with these lines, as they are; {port} stands for the service's own."""
    lines = [line, f"Host: {host}", f"Authorization: Bearer {TOKEN}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def get(*headers: str, target: str = MODEL, method: str = "GET", **named: str) -> bytes:
    return sent(f"{method} {target} HTTP/1.1", *headers, "Connection: close", **named)


def post(*headers: str, body: bytes = GOOD, target: str = PREDICT, kind: str = RAW) -> bytes:
    lines = [*([kind] if kind else []), *headers]
    if not any(one.lower().startswith(("content-length", "transfer-enc")) for one in lines):
        lines.append(f"Content-Length: {len(body)}")
    return sent(f"POST {target} HTTP/1.1", *lines, "Connection: close", body=body)


def chunked(*headers: str, body: bytes, kind: str = RAW) -> bytes:
    return post("Transfer-Encoding: chunked", *headers, body=body, kind=kind)


def parts(body: bytes, *, charset: str = "", boundary: str = "b0undary", **named: str) -> bytes:
    kind = f"Content-Type: multipart/form-data; boundary={boundary}{charset}"
    return post(body=body, kind=kind, **named)


def film_parts(*several: tuple[str, bytes], **choices: str) -> bytes:
    return multipart(*several, **choices)[1]


def part(*lines: str, content: bytes = GOOD, times: int = 1) -> bytes:
    """Return a body of equal parts with these headers, as they are."""
    one = "\r\n".join(["--b0undary", *lines, "", ""]).encode("latin-1") + content + b"\r\n"
    return one * times + b"--b0undary--\r\n"


NAMED = 'Content-Disposition: form-data; name="film"; filename="a.png"'
OVERSIZED = part(NAMED, content=b"\0" * LIMIT)
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
FLOODED = b"5;" + b"x" * 300_000 + b"\r\nhello\r\n0\r\n\r\n"

# name -> (what is sent, status, code)
FRAMING = {
    "chunks": (chunked(body=CHUNKS), 200, ""),
    "length and chunks": (chunked(f"Content-Length: {len(CHUNKS)}", body=CHUNKS), *MALFORMED),
    "length, then chunks": (
        post(f"Content-Length: {len(CHUNKS)}", "Transfer-Encoding: chunked", body=CHUNKS),
        *MALFORMED,
    ),
    "a shorter length and chunks": (chunked("Content-Length: 4", body=CHUNKS), *MALFORMED),
    "length and chunks to what is read": (
        get("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n", *MALFORMED,
    ),
    "two lengths": (post("Content-Length: 1", "Content-Length: 2"), *MALFORMED),
    "two lengths in one": (post("Content-Length: 1, 2"), *MALFORMED),
    "two lengths that are equal": (
        post(f"Content-Length: {len(GOOD)}", f"Content-Length: {len(GOOD)}"), 200, "",
    ),
    **{
        f"length of {length!r}": (post(f"Content-Length: {length}"), *MALFORMED)
        for length in ("+5", "0x5", "5.0", "5e2", "", "\xb2", "-0", "1_0", "9" * 30)
    },
    **{
        f"coding {coding!r}": (
            post(f"Transfer-Encoding: {coding}", body=CHUNKS), *MALFORMED,
        )
        for coding in (
            "identity", "xchunked", "chunked, identity", "gzip, chunked", "chunked, chunked",
            "chunked\x0b", "\x0bchunked", "chunked;q=1", '"chunked"', "chunked,", "",
        )
    },
    "two codings": (
        post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=CHUNKS), *MALFORMED,
    ),
    "coding on a second line": (post("Transfer-Encoding:", " chunked", body=CHUNKS), 200, ""),
    "space before a colon": (post("Transfer-Encoding : chunked", body=CHUNKS), *MALFORMED),
    "space before a name": (get("X: 1", " Host: evil"), 200, ""),
    "chunks of HTTP/1.0": (
        sent("POST /v1/predict HTTP/1.0", RAW, "Transfer-Encoding: chunked", body=CHUNKS),
        *MALFORMED,
    ),
    "a chunk longer than any": (chunked(body=b"F" * 30 + b"\r\nhello"), *MALFORMED),
    "a chunk of a negative size": (chunked(body=b"-5\r\nhello\r\n0\r\n\r\n"), *MALFORMED),
    "a chunk of 0x5": (chunked(body=b"0x5\r\nhello\r\n0\r\n\r\n"), *MALFORMED),
    "a chunk that goes on": (chunked(body=b"2\r\nhello\r\n0\r\n\r\n"), *MALFORMED),
    "a chunk with a lone line feed": (chunked(body=b"5\r\nhello\n0\r\n\r\n"), *MALFORMED),
    "a flood in a chunk's extension": (chunked(body=FLOODED), *MALFORMED),
    "a flood of trailers": (chunked(body=b"0\r\n" + b"X: 1\r\n" * 9_000), *MALFORMED),
    "lines that end in line feeds": (get().replace(b"\r\n", b"\n"), 200, ""),
    "a carriage return in a header": (get("X: a\rHost: evil"), *MALFORMED),
    "a zero in a header": (get("X: a\0b"), *MALFORMED),
    "a header without a name": (get(": x"), *MALFORMED),
    "a header without a colon": (get("Host"), *MALFORMED),
    "a header that is not ASCII": (get("X-\xe9: x"), *MALFORMED),
    "HTTP/0.9": (b"GET /v1/model\r\n\r\n", *MALFORMED),
    "HTTP/1.0 without Host": (b"GET /v1/model HTTP/1.0\r\n\r\n", 400, "host-absent"),
    "HTTP/3.7": (sent("GET /v1/model HTTP/3.7", "Connection: close"), 200, ""),
    "two spaces": (sent("GET  /v1/model HTTP/1.1"), *MALFORMED),
    "line breaks first": (b"\r\n" * 3 + get(), *MALFORMED),
    "websocket of a foreign page": (
        sent(
            "GET /v1/model HTTP/1.1", "Origin: http://evil.example", "Upgrade: websocket",
            "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ),
        400,
        "upgrade-refused",
    ),
    "websocket without token": (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n", 400, "upgrade-refused",
    ),
    "an upgrade without its connection": (get("Upgrade: websocket"), 200, ""),
}  # fmt: skip

REBINDING = {
    **{
        f"Host {host!r}": (get(host=host), 421, "host-foreign")
        for host in (
            "evil.example:{port}", "127.0.0.1.nip.io:{port}", "localhost.evil:{port}",
            "127.0.0.1:{port},evil", "127.0.0.1:0{port}", "127.1:{port}", "0x7f000001:{port}",
            "0177.0.0.1:{port}", "[::ffff:127.0.0.1]:{port}", "[::1%25lo]:{port}", "0.0.0.0:{port}",
            "127.0.0.2:{port}", "127.0.0.1:{port} evil", "http://127.0.0.1:{port}", "*", "null",
            "127.0.0.1:{port}/", "127.0.0.1:{port}#", "loc\xe1lhost:{port}", "xn--localhost:{port}",
        )
    },
    "Host in IPv6": (get(host="[::1]:{port}"), 200, ""),
    "Host twice": (get("Host: 127.0.0.1:{port}"), *MALFORMED),
    "Host on two lines": (get(host="evil\r\n 127.0.0.1:{port}"), 421, "host-foreign"),
    "foreign, forwarded as own": (
        get("X-Forwarded-Host: 127.0.0.1:{port}", host="evil.example"), 421, "host-foreign",
    ),
    "own, forwarded as foreign": (
        get("X-Forwarded-Host: evil.example", "Forwarded: host=evil", "X-Original-URL: /x"), 200,
        "",
    ),
    "a rebound name's own page": (
        get("Origin: http://evil.example:{port}", host="evil.example:{port}"), 421, "host-foreign",
    ),
    "health by a foreign name": (get(target="/health", host="evil.example"), 421, "host-foreign"),
    "the door by a foreign name": (
        get(target=f"/?token={TOKEN}", host="evil.example"), 421, "host-foreign",
    ),
    "the viewer by a foreign name": (get(target="/viewer/viewer.js", host="evil"), 421,
                                     "host-foreign"),
}  # fmt: skip

TARGETS = {
    **{
        f"method {method}": (get(method=method), 405, "method-not-allowed")
        for method in ("get", "PATCH", "PROPFIND", "LOCK", "PURGE", "M-SEARCH", "A" * 8_000)
    },
    "POST to the door": (post(target=f"/?token={TOKEN}"), 405, "method-not-allowed"),
    "HEAD": (get(method="HEAD"), 200, ""),
    "HEAD of what is posted": (get(method="HEAD", target=PREDICT), 405, ""),
    "any target": (get(target="*", method="OPTIONS"), 405, "method-not-allowed"),
    "its own whole address": (get(target="http://127.0.0.1:{port}/v1/model"), 404, "not-found"),
    "another's whole address": (get(target="https://evil.example/"), 404, "not-found"),
    "a name and port": (get(target="127.0.0.1:{port}"), 404, "not-found"),
    "another scheme": (get(target="gopher://127.0.0.1/_x"), 404, "not-found"),
    **{
        f"path {path}": (get(target=path), *answer)
        for path, answer in {
            "/v1/%6dodel": (200, ""), "/v1/model?": (200, ""),
            "/v1/model/": (404, "not-found"), "//v1/model": (404, "not-found"),
            "/v1//model": (404, "not-found"), "/V1/MODEL": (404, "not-found"),
            "/v1/model%20": (404, "not-found"), "/v1/model;x=1": (404, "not-found"),
            "/v1/model%3Ftoken": (404, "not-found"), "/v1/model%23x": (404, "not-found"),
            "/%ff%fe": (404, "not-found"), "/v1/model%zz": (404, "not-found"),
            "/v1/model%": (404, "not-found"), "/{port}": (404, "not-found"),
            "/v1/model%0a": (400, "bad-path"), "/v1/model%00": (400, "bad-path"),
            "/v1/model%e2%80%ae": (400, "bad-path"), "/v1/model%e2%80%a8": (400, "bad-path"),
            "/v1/model%1b%5b31m": (400, "bad-path"), "/v1/%2e%2e/health": (400, "bad-path"),
            "/v1/model?x=1": (400, "parameter-invalid"), "/v1/model?%00": (400,
            "parameter-invalid"), "/v1/model?%ff=%ff": (400, "parameter-invalid"),
            "/v1/model?" + "a&" * 5_000: (400, "parameter-invalid"),
        }.items()
    },
    "a path of 20 kB": (get(target="/" + "a" * 20_000), *MALFORMED),
    "a path that is not ASCII": (get(target="/v1/\xe9"), *MALFORMED),
}  # fmt: skip

FLOODS = {
    "a thousand short headers": (get(*("X: 1" for _ in range(1_000))), 200, ""),
    "headers of 17 kB": (get(*("X: " + "1" * 96 for _ in range(170))), *MALFORMED),
    "a header of 17 kB": (get("X: " + "1" * 17_000), *MALFORMED),
    "a name of 17 kB": (get("X" * 17_000 + ": 1"), *MALFORMED),
    "two thousand cookies": (get("Cookie: " + "a=1; " * 2_000), 200, ""),
    "the token's cookie many times": (
        get("Cookie: " + "lucency_token_{port}=x; " * 300), 200, "",
    ),
    "a header on a thousand lines": (get("X: 1" + "\r\n 1" * 1_000), 200, ""),
    "a query of 1,900 tokens": (get(target="/?" + "token=x&" * 1_900), 200, ""),
}  # fmt: skip

UPLOADS = {
    "film as HTML": (post(kind="Content-Type: text/html"), 415, "media-type"),
    "film as SVG": (post(kind="Content-Type: image/svg+xml"), 415, "media-type"),
    "film as two types": (post(kind="Content-Type: image/png, text/html"), 415, "media-type"),
    "film as any type": (post(kind="Content-Type: */*"), 415, "media-type"),
    "film of no type": (post(kind=""), 415, "media-type"),
    "film of an empty type": (post(kind="Content-Type:"), 415, "media-type"),
    "film in capitals": (post(kind="Content-Type: IMAGE/PNG"), 200, ""),
    "film with a charset": (post(kind="Content-Type: image/png; charset=utf-7"), 200, ""),
    "film of two kinds": (post("Content-Type: text/html", kind=RAW), 200, ""),
    "multipart as a film": (post(body=film_parts(("a.png", GOOD))), 422, "film-unknown-format"),
    "film as multipart": (parts(GOOD), 400, "multipart-invalid"),
    "film packed twice": (post("Content-Encoding: gzip, gzip"), 415, "media-type"),
    "text in a film's part": (parts(part(NAMED, "Content-Type: image/png", content=b"hello")),
                              422, "film-unknown-format"),
    "a part in base64": (parts(part(NAMED, "Content-Transfer-Encoding: base64", content=b"aGk=")),
                         422, "film-unknown-format"),
    "parts within a part": (
        parts(part(NAMED, "Content-Type: multipart/mixed; boundary=in", content=b"--in--")), 422,
        "film-unknown-format",
    ),
    **{
        f"names in {charset}": (
            parts(part(NAMED.replace("a.png", name), content=b"no film"),
                  charset=f"; charset={charset}"),
            *answer,
        )
        for charset, name, answer in (
            ("utf-8", "\xc3\xa9", (422, "film-unknown-format")),
            ("latin-1", "\xe9", (400, "multipart-invalid")),
            ("utf-7", "+2AA-.png", (400, "multipart-invalid")),
            ("unicode_escape", "\\ud800.png", (400, "multipart-invalid")),
            ("undefined", "a.png", (400, "multipart-invalid")),
            ("idna", "a" * 80, (400, "multipart-invalid")),
            ("punycode", "\xe9", (400, "multipart-invalid")),
            ("hex", "a.png", (400, "multipart-invalid")),
            ("none-such", "a.png", (400, "multipart-invalid")),
        )
    },
    "a name that is no UTF-8": (
        parts(part(NAMED.replace("a.png", "\xff\xfe.png"))), 200, "",
    ),
    "a name with line ends": (parts(part(NAMED.replace("a.png", "a%0d%0ab\x1b[31m"))), 200, ""),
    "a name of 4 kB": (parts(part(NAMED.replace("a.png", "a" * 3_900))), 200, ""),
    "a name of 5 kB": (parts(part(NAMED.replace("a.png", "a" * 5_000))), 400, "multipart-invalid"),
    "a part with a flood of headers": (parts(part(NAMED, *(["X: 1"] * 5_000))), 400,
                                       "multipart-invalid"),
    "a part without headers": (parts(part()), 400, "multipart-invalid"),
    "a part without a name": (parts(part("Content-Disposition: form-data")), 400,
                              "multipart-invalid"),
    "ten thousand parts": (parts(part(NAMED, content=b"", times=3_000)), 413, "too-many-films"),
    "ten thousand fields": (
        parts(part('Content-Disposition: form-data; name="x"', content=b"", times=3_000)), 413,
        "too-many-films",
    ),
    "a field of 100 kB": (
        parts(part('Content-Disposition: form-data; name="x"', content=b"x" * 100_000)), 400,
        "multipart-invalid",
    ),
    "an empty film": (parts(part(NAMED, content=b"")), 422, "film-empty"),
    "a boundary of 5 kB": (parts(b"", boundary="x" * 5_000), 400, "multipart-invalid"),
    "a boundary of no letters": (parts(b"", boundary=""), 400, "multipart-invalid"),
    "another boundary": (parts(film_parts(("a.png", GOOD)), boundary="other"), 400,
                         "multipart-invalid"),
    "what stands before the parts": (parts(b"x" * 1_000 + part(NAMED)), 400, "multipart-invalid"),
    "what stands after the parts": (parts(part(NAMED) + b"x" * 100_000), 200, ""),
    "parts above the limit, of no length": (
        chunked(body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(OVERSIZED), OVERSIZED),
                kind="Content-Type: multipart/form-data; boundary=b0undary"),
        413, "body-too-large",
    ),
    "a length above the limit for what is read": (
        get(f"Content-Length: {LIMIT + 1}"), 413, "body-too-large",
    ),
}  # fmt: skip

VIEWER = {
    "a film": (post(target=FILMS), 200, ""),
    "text": (post(target=FILMS, body=b"hello"), 422, "film-unknown-format"),
    "no film": (post(target=FILMS, body=b""), 422, "film-empty"),
    "a film above the limit": (
        post(f"Content-Length: {LIMIT + 1}", target=FILMS), 413, "body-too-large",
    ),
    "a film of a foreign page": (
        post("Origin: http://evil.example", target=FILMS), 403, "origin-foreign",
    ),
    "length and chunks to the viewer": (
        post(f"Content-Length: {len(CHUNKS)}", "Transfer-Encoding: chunked", body=CHUNKS,
             target=FILMS), *MALFORMED,
    ),
    "a name that is no text": (post("X-Film-Name: %ed%a0%80%00%1b\xff", target=FILMS), 200, ""),
    "a name of 10 kB": (post("X-Film-Name: " + "a" * 10_000, target=FILMS), 200, ""),
    "a verdict without a run": (
        post(target="/viewer/api/verdicts", body=b"{}"), 404, "not-found",
    ),
    "the list without a run": (get(target=FILMS), 404, "not-found"),
    "websocket to the viewer": (
        sent(f"GET {FILMS} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"), 400,
        "upgrade-refused",
    ),
    "PUT to the viewer": (get(target=FILMS, method="PUT"), 405, "method-not-allowed"),
    **{
        f"film {key}": (get(target=f"/viewer/api/film/{key}/{made}"), 400, "parameter-invalid")
        for key in ("x", "-1", "0", "a0", "a999999", "99999999999999999999", "%D9%A1", "a%20")
        for made in ("pixels", "prediction", "thumbnail")
    },
    "film above": (get(target="/viewer/api/film/%2e%2e/pixels"), 400, "bad-path"),
    "a page of the viewer that is none": (get(target="/viewer/x.js"), 404, "not-found"),
    "a folder above the viewer's": (get(target="/viewer/..%2fviewer.py"), 400, "bad-path"),
    "the viewer's folder": (get(target="/viewer/"), 404, "not-found"),
    "a heat map of no finding": (get(target="/viewer/api/film/a1/heatmap?finding=%00"), 400,
                                 "parameter-invalid"),
}  # fmt: skip
TABLE = {
    f"{topic}: {name}": row
    for topic, rows in {
        "framing": FRAMING, "host": REBINDING, "target": TARGETS, "flood": FLOODS,
        "upload": UPLOADS, "viewer": VIEWER,
    }.items()
    for name, row in rows.items()
}  # fmt: skip


def wired(port: int, request: bytes) -> bytes:
    return request.replace(b"{port}", str(port).encode())


@pytest.mark.parametrize("name", TABLE)
def test_a_request_has_its_answer(name: str, running: Running):
    request, status, code = TABLE[name]
    reply = ask(running.port, wired(running.port, request))
    assert (reply.status, reply.code if reply.body else "") == (status, code), reply.body[:500]
    assert {key: reply.headers.get(key) for key in SECURITY_HEADERS} == SECURITY_HEADERS


def answers(port: int, *pieces: bytes, pause: float = 0.0) -> list[Reply]:
    """Send pieces one after the other on one connection and return every answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        for piece in pieces:
            line.sendall(wired(port, piece))
            time.sleep(pause)
        return [parsed(one) for one in split_answers(received(line))]


def received(line: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    found = b""
    try:
        while piece := line.recv(2**16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def split_answers(found: bytes) -> list[bytes]:
    """Return each answer among what was received on a connection."""
    starts = [*(one.start() for one in re.finditer(rb"HTTP/1\.1 \d{3} ", found)), len(found)]
    return [found[start:end] for start, end in itertools.pairwise(starts)]


KEPT = sent("GET /v1/model HTTP/1.1")  # on a connection that goes on


def test_a_pipeline_is_answered_in_its_order(running: Running):
    film = post().replace(b"Connection: close\r\n", b"")
    found = answers(running.port, KEPT * 40 + film + KEPT * 40 + get(target="/none"))
    assert [one.status for one in found] == [200] * 81 + [404]
    assert b"Effusion" in found[40].body


def test_garbage_in_a_pipeline_ends_it(running: Running):
    found = answers(running.port, KEPT + b"GARBAGE\r\n\r\n" + KEPT)
    assert [one.status for one in found] == [200, 400]


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (sent("GET /v1/model HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 4"), 400),
        (sent("GET /v1/model HTTP/1.1", host="evil.example"), 421),
        (sent("DELETE /v1/model HTTP/1.1"), 405),
        (sent("POST /v1/predict HTTP/1.1", RAW, f"Content-Length: {LIMIT + 1}"), 413),
        (sent("GET /v1/model HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"), 400),
    ],
    ids=["length and chunks", "a foreign Host", "a method", "a length", "an upgrade"],
)  # fmt: skip
def test_what_comes_behind_a_refused_request_has_no_answer(
    first: bytes, status: int, running: Running
):
    found = answers(running.port, first + KEPT)
    assert [one.status for one in found] == [status]


def test_a_request_in_the_body_of_another_has_no_answer(running: Running):
    hidden = KEPT
    found = answers(
        running.port, sent("GET /v1/model HTTP/1.1", f"Content-Length: {len(hidden)}", body=hidden)
    )
    assert [one.status for one in found] == [200]


def test_a_request_cut_into_single_bytes_is_answered(running: Running):
    whole = wired(running.port, get())
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(whole)):
            line.sendall(whole[at : at + 1])
        assert parsed(received(line)).status == 200


@pytest.mark.parametrize(
    ("request_head", "piece", "status"),
    [
        (post("Content-Length: 1000", body=b""), b"\0", 408),
        (chunked(body=b""), b"1\r\n\0\r\n", 408),
        (parts(b"", target=FILMS).replace(b"Content-Length: 0", b"Content-Length: 999"), b"-", 408),
        (post("Content-Length: 1000", body=b"", target=FILMS), b"\0", 408),
        (b"GET /v1/model HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX: ", b"x", 0),
        (b"G", b"E", 0),
    ],
    ids=["a length", "chunks", "a form for the viewer", "a film for the viewer", "a header",
         "a method"],
)  # fmt: skip
def test_who_sends_slowly_is_cut_off(
    request_head: bytes, piece: bytes, status: int, running: Running
):
    before = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=0.1) as line:
        line.sendall(wired(running.port, request_head))
        reply = b""
        while not reply:
            try:
                line.sendall(piece)
                reply = line.recv(2**16)
                break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert parsed(reply).status == status
    assert time.monotonic() - before < 5


def test_a_pipeline_whose_answers_are_not_read_is_cut_off(running: Running):
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", running.port))
        line.settimeout(20)
        page = wired(running.port, sent("GET /viewer/viewer.js HTTP/1.1"))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
            while True:
                line.sendall(page * 50)


def test_clients_that_vanish_leave_nothing(running: Running):
    for piece in (b"", b"GET", wired(running.port, get()), wired(running.port, post()[:-50])) * 20:
        with socket.create_connection(("127.0.0.1", running.port)) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.sendall(piece)  # and the connection is reset
    assert ask(running.port, wired(running.port, post())).status == 200
    gauge = request_bytes(running.port, target="/metrics")
    assert wait_for(lambda: b"lucency_films_waiting 0" in ask(running.port, gauge).body, seconds=10)


@pytest.fixture(scope="module")
def narrow(model: Model) -> Iterator[Running]:
    """A service that holds four connections, and sends pixels to one client at a time."""
    limits = {"connections": 4, "answer_seconds": 20.0, "decoders": 1, "decoder_seconds": 20.0}
    with running_service(model, routes=(Route("/large", _large),), **limits) as service:
        yield service


HELD = Admission(32 * 2**20)


def _large(_: Request) -> Response:
    return Pixels(bytes(HELD.most), headers={}, held=HELD)


def test_pixels_that_are_not_read_are_limited(narrow: Running):
    whole = wired(narrow.port, get(target="/large"))
    with held(narrow.port, sent("GET /large HTTP/1.1")) as (unread,):
        assert unread.recv(12) == b"HTTP/1.1 200"
        assert HELD.waiting == HELD.most
        reply = ask(narrow.port, whole)
        assert (reply.status, reply.code) == (503, "busy")
    assert wait_for(lambda: HELD.waiting == 0, seconds=10)  # the client has left
    reply = ask(narrow.port, whole)
    assert (reply.status, len(reply.body), HELD.waiting) == (200, HELD.most, 0)


@contextmanager
def held(port: int, *pieces: bytes) -> Iterator[list[socket.socket]]:
    """Hold connections open on each of which a piece was sent."""
    with ExitStack() as stack:
        lines = []
        for piece in pieces:
            line = socket.socket()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.settimeout(20)
            line.connect(("127.0.0.1", port))
            line.sendall(wired(port, piece))
            lines.append(stack.enter_context(line))
        yield lines


HALF = post(f"Content-Length: {len(GOOD) + 1}")


def test_a_new_connection_takes_the_place_of_one_at_rest(narrow: Running):
    good = wired(narrow.port, post())
    with held(narrow.port, b"", b"GET", KEPT, b"") as lines:
        assert lines[2].recv(2**16).startswith(b"HTTP/1.1 200")
        time.sleep(2 * listening.FRESH_SECONDS)
        assert [ask(narrow.port, good).status for _ in range(3)] == [200] * 3
        assert lines[0].recv(1) == b""  # the first was dropped for them


def test_who_is_at_work_keeps_his_connection(narrow: Running):
    with held(narrow.port, *[HALF] * 4) as lines:
        time.sleep(0.2)
        with held(narrow.port, b"", b"", wired(narrow.port, get())) as more:
            assert parsed(received(more[2])).code == "busy"
        reply = ask(narrow.port, wired(narrow.port, get()))
        assert (reply.status, reply.code) == (503, "busy")
        assert {key: reply.headers.get(key) for key in SECURITY_HEADERS} == SECURITY_HEADERS
        lines[0].sendall(b"\0")
        assert lines[0].recv(2**16).startswith(b"HTTP/1.1 200")
    assert wait_for(lambda: ask(narrow.port, wired(narrow.port, get())).status == 200, seconds=10)


def test_a_new_connection_takes_the_place_of_one_that_does_not_read(narrow: Running):
    unread = sent("GET /openapi.json HTTP/1.1") * 60
    with held(narrow.port, *[unread] * 4):
        assert wait_for(
            lambda: ask(narrow.port, wired(narrow.port, post())).status == 200, seconds=10
        )


@pytest.mark.parametrize(
    ("files", "room"),
    [((1024, 4096), 512), ((256, 4096), 512), ((256, -1), 512), ((-1, -1), 512), ((256, 300), 92)],
)
def test_connections_fit_the_files_that_may_be_open(
    files: tuple[int, int], room: int, monkeypatch: pytest.MonkeyPatch
):
    resource = pytest.importorskip(
        "resource", reason="Windows has no limit on open files: nothing to do"
    )
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: files)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: raised.append(both))
    assert room_for_connections(ServiceSettings(decoders=2)) == room
    assert all(soft >= room + listening.FILES for soft, _ in raised)


def test_too_few_files_are_refused(monkeypatch: pytest.MonkeyPatch):
    resource = pytest.importorskip(
        "resource", reason="Windows has no limit on open files: nothing to do"
    )
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(ValueError, match=r"may open 64 files; expected 209 or more \(ulimit -n\)"):
        room_for_connections(ServiceSettings(decoders=2))


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        (MODEL, "GET, HEAD"), (PREDICT, "POST"), (FILMS, "GET, HEAD, POST"), ("/none", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["OPTIONS", "DELETE"])
def test_a_method_is_refused_with_those_of_its_path(
    method: str, target: str, allow: str, running: Running
):
    reply = ask(running.port, wired(running.port, get(method=method, target=target)))
    assert (reply.status, reply.headers["allow"]) == (405, allow)
