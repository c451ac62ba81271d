"""What strangers may send: every request of a table, over a socket, with its status and code."""

import gzip
import io
import json
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_films import dicom_bytes, phantom_grey
from lucency.deploy.guard import SECURITY_HEADERS
from lucency.deploy.problems import PROBLEMS
from served import (
    TOKEN,
    Reply,
    Running,
    ask,
    film_file,
    multipart,
    request_bytes,
    running_service,
    served_model,
    wait_for,
)

LIMIT = 300_000
PNG = {"Content-Type": "image/png"}
RAW = {"Content-Type": "application/octet-stream"}
GOOD, JPEG = film_file(), film_file(suffix=".jpg")
LARGE = 32 * 2**20
SCRIPT = "<script>alert(1)</script>.png"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = {
        "body_bytes": LIMIT, "body_seconds": 1.0, "header_seconds": 0.7, "answer_seconds": 0.7,
        "films": 3, "decoders": 1, "decoder_seconds": 20.0,
    }  # fmt: skip
    routes = (Route("/large", _large), Route("/fails", _fails))
    model = served_model(tmp_path_factory.mktemp("model"))
    with running_service(model, routes=routes, **limits) as service:
        yield service


def _large(_: Request) -> Response:
    return Response(bytes(LARGE))


def _fails(_: Request) -> Response:
    raise RuntimeError("no room for Doe^Jane.png")


def png_of(width: int, height: int, pixels: bytes) -> bytes:
    """Return a PNG whose header states a size, whatever its pixels are."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))
        for kind, held in chunks
    )


def zipped() -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("film.png", b"\0" * 10**6)
    return stream.getvalue()


def post(target: str, headers: dict[str, str | None], body: bytes) -> tuple[object, ...]:
    return "POST", target, headers, body


def film(body: bytes, kind: dict[str, str] = RAW) -> tuple[object, ...]:
    return post("/v1/predict", {**kind}, body)


def parts(*several: tuple[str, bytes], **choices: str) -> tuple[object, ...]:
    kind, body = multipart(*several, **choices)
    return post("/v1/predict", {**kind}, body)


def explain(query: str) -> tuple[object, ...]:
    return post(f"/v1/explain?{query}", {**PNG}, GOOD)


def get(**headers: str | None) -> tuple[object, ...]:
    return "GET", "/v1/model", {key.replace("_", "-"): value for key, value in headers.items()}


TRAVERSAL = (
    "/../../etc/passwd", "/v1/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2fetc%2fpasswd", "/.%2e/.%2e/etc/passwd", "/%252e%252e%252fetc%252fpasswd",
    "/..\\..\\etc\\passwd", "/..%5c..%5cetc%5cpasswd", "/..%255c..%255cetc/passwd",
    "/%c0%ae%c0%ae/etc/passwd", "/....//....//etc/passwd", "/..;/..;/etc/passwd",
    "/etc/passwd%00.png", "//etc/passwd", "/v1/model/%2e%2e/%2e%2e/x", "file:///etc/passwd",
)  # fmt: skip

# name -> (request, status, code); HOST stands for the service's own name and port.
TABLE: dict[str, tuple[tuple[object, ...], int, str]] = {
    "good": (film(GOOD, PNG), 200, ""),
    "foreign Host": (get(Host="evil.example"), 421, "host-foreign"),
    "Host with another port": (get(Host="127.0.0.1:1"), 421, "host-foreign"),
    "Host without port": (get(Host="127.0.0.1"), 421, "host-foreign"),
    "Host by its other name": (get(Host="LOCALHOST:{port}"), 200, ""),
    "look-alike Host": (get(Host="127.0.0.1.evil.example:{port}"), 421, "host-foreign"),
    "look-alike Host with a dot": (get(Host="localhost.:{port}"), 421, "host-foreign"),
    "Host with a user": (get(Host="evil@127.0.0.1:{port}"), 421, "host-foreign"),
    "Host with a tail": (get(Host="127.0.0.1:{port}.evil.example"), 421, "host-foreign"),
    "Host in another notation": (get(Host="2130706433:{port}"), 421, "host-foreign"),
    "Host absent": (get(Host=None), 400, "malformed-request"),
    "Host empty": (get(Host=""), 400, "host-absent"),
    "Origin absent": (get(), 200, ""),
    "Origin own": (get(Origin="http://127.0.0.1:{port}"), 200, ""),
    "Origin foreign": (get(Origin="https://evil.example"), 403, "origin-foreign"),
    "Origin foreign, to predict": (
        post("/v1/predict", {**PNG, "Origin": "https://evil.example"}, GOOD),
        403,
        "origin-foreign",
    ),
    "Origin null": (get(Origin="null"), 403, "origin-foreign"),
    "Origin of another port": (get(Origin="http://127.0.0.1:1"), 403, "origin-foreign"),
    "Origin look-alike": (get(Origin="http://127.0.0.1:{port}.evil"), 403, "origin-foreign"),
    "no token": (get(Authorization=None), 401, "token-absent"),
    "wrong token": (get(Authorization="Bearer wrong"), 401, "token-wrong"),
    "token not ASCII": (get(Authorization="Bearer t\xf6ken"), 401, "token-wrong"),
    "token empty": (get(Authorization="Bearer "), 401, "token-wrong"),
    "token as a password": (get(Authorization=f"Basic {TOKEN}"), 401, "token-absent"),
    "token too long": (get(Authorization=f"Bearer {TOKEN}x"), 401, "token-wrong"),
    "token in a cookie": (
        get(Authorization=None, Cookie=f"lucency_token_{{port}}={TOKEN}"), 200, "",
    ),
    "cookie of another port": (
        get(Authorization=None, Cookie=f"lucency_token_1={TOKEN}"), 401, "token-absent",
    ),
    "wrong cookie": (get(Authorization=None, Cookie="lucency_token_{port}=x"), 401, "token-wrong"),
    "token in a query": (
        ("GET", f"/v1/model?token={TOKEN}", {"Authorization": None}), 401, "token-absent",
    ),
    "wrong token at the door": (
        ("GET", "/?token=wrong", {"Authorization": None}), 401, "token-wrong",
    ),
    "health without token": (("GET", "/health", {"Authorization": None}), 200, ""),
    "metrics without token": (("GET", "/metrics", {"Authorization": None}), 401, "token-absent"),
    "TRACE": (("TRACE", "/v1/model", {}), 405, "method-not-allowed"),
    "OPTIONS": (("OPTIONS", "/v1/model", {}), 405, "method-not-allowed"),
    "PUT": (("PUT", "/v1/model", {}), 405, "method-not-allowed"),
    "DELETE": (("DELETE", "/v1/model", {}), 405, "method-not-allowed"),
    "CONNECT": (("CONNECT", "evil.example:443", {}), 405, "method-not-allowed"),
    "a method of nobody": (("BREW", "/v1/model", {}), 405, "method-not-allowed"),
    "GET of what is posted": (("GET", "/v1/predict", {}), 405, "method-not-allowed"),
    "POST of what is read": (post("/v1/model", {}, b""), 405, "method-not-allowed"),
    "websocket": (
        get(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13"),
        400,
        "upgrade-refused",
    ),
    "upgrade to HTTP/2": (get(Connection="Upgrade", Upgrade="h2c"), 400, "upgrade-refused"),
    "another server's address": (
        ("GET", "http://evil.example/v1/model", {}), 404, "not-found",
    ),
    "nothing there": (("GET", "/v2/predict", {}), 404, "not-found"),
    "script in a path": (("GET", "/%3Cscript%3E", {}), 404, "not-found"),
    "line break in a path": (("GET", "/v1%0d%0aSet-Cookie:x", {}), 400, "bad-path"),
    "a header of 600 kB": (get(X="a" * 600_000), 400, "malformed-request"),
    "length that is no number": (get(Content_Length="many"), 400, "malformed-request"),
    "negative length": (get(Content_Length="-1"), 400, "malformed-request"),
    "length above the limit": (
        post("/v1/predict", {**PNG, "Content-Length": "99999999999"}, b""), 413, "body-too-large",
    ),
    "length above the limit, to be allowed": (
        post("/v1/predict", {**PNG, "Content-Length": str(10**9), "Expect": "100-continue"}, b""),
        413,
        "body-too-large",
    ),
    "length shorter than the body": (
        post("/v1/predict", {**PNG, "Content-Length": "100"}, GOOD), 422, "film-truncated",
    ),
    "length longer than the body": (
        post("/v1/predict", {**PNG, "Content-Length": str(len(GOOD) + 9)}, GOOD),
        408,
        "body-slow",
    ),
    "chunks that are none": (
        post("/v1/predict", {**PNG, "Content-Length": None, "Transfer-Encoding": "chunked"},
             b"zzz\r\n"),
        400,
        "malformed-request",
    ),
    "an unknown transfer coding": (
        post("/v1/predict", {**PNG, "Content-Length": None, "Transfer-Encoding": "gzip"}, b""),
        400,
        "malformed-request",
    ),
    "oversized multipart": (parts(("a.png", b"\0" * LIMIT)), 413, "body-too-large"),
    "too many films": (parts(*[("a.png", GOOD)] * 4), 413, "too-many-films"),
    "multipart without boundary": (
        post("/v1/predict", {"Content-Type": "multipart/form-data"}, GOOD),
        400,
        "multipart-invalid",
    ),
    "multipart of something else": (
        post("/v1/predict", {"Content-Type": "multipart/form-data; boundary=x"}, GOOD),
        400,
        "multipart-invalid",
    ),
    "multipart that ends early": (parts(("a.png", GOOD), end=""), 400, "multipart-invalid"),
    "multipart without a film": (parts(), 400, "no-film"),
    "script in a film's name": (parts((SCRIPT, b"no film")), 422, "film-unknown-format"),
    "path in a film's name": (parts(("../../etc/passwd", GOOD)), 200, ""),
    "JPEG as PNG": (film(JPEG, PNG), 200, ""),
    "PNG as DICOM": (film(GOOD, {"Content-Type": "application/dicom"}), 200, ""),
    "text": (film(b"hello", {"Content-Type": "text/plain"}), 415, "media-type"),
    "JSON": (film(b"{}", {"Content-Type": "application/json"}), 415, "media-type"),
    "a form": (
        film(b"film=x", {"Content-Type": "application/x-www-form-urlencoded"}), 415, "media-type",
    ),
    "packed body": (
        post("/v1/predict", {**PNG, "Content-Encoding": "gzip"}, gzip.compress(GOOD)),
        415,
        "media-type",
    ),
    "gzip bomb": (film(gzip.compress(b"\0" * 10**7)), 422, "film-unknown-format"),
    "zip": (film(zipped()), 422, "film-unknown-format"),
    "HTML": (film(b"<html><script>"), 422, "film-unknown-format"),
    "SVG": (film(b"<svg onload='alert(1)'/>", PNG), 422, "film-unknown-format"),
    "zero bytes": (film(b""), 422, "film-empty"),
    "truncated PNG": (film(GOOD[:-20]), 422, "film-truncated"),
    "truncated JPEG": (film(JPEG[: len(JPEG) // 2]), 422, "film-truncated"),
    "damaged PNG": (film(GOOD[:60] + b"\xff" + GOOD[61:]), 422, "film-damaged"),
    "PNG of 65535 x 65535": (film(png_of(65535, 65535, b"")), 422, "film-absurd-size"),
    "PNG of one line": (film(png_of(16000, 1, b"")), 422, "film-absurd-size"),
    "PNG that inflates to 50 MB": (
        film(png_of(64, 64, b"\0" * 50_000_000)), 200, "",
    ),
    "PNG without pixels": (film(png_of(64, 64, b"")), 422, "film-damaged"),
    "DICOM of zeros": (film(b"\0" * 128 + b"DICM" + b"\0" * 400), 422, "film-truncated"),
    "finding unknown": (explain("finding=Broken_heart"), 400, "parameter-invalid"),
    "finding with script": (explain("finding=%3Cscript%3E"), 400, "parameter-invalid"),
    "finding absent": (explain(""), 400, "parameter-invalid"),
    "finding twice": (explain("finding=Mass&finding=Effusion"), 400, "parameter-invalid"),
    "method unknown": (explain("finding=Mass&method=occlusion"), 400, "parameter-invalid"),
    "form unknown": (explain("finding=Mass&as=html"), 400, "parameter-invalid"),
    "parameter unknown": (explain("finding=Mass&callback=alert"), 400, "parameter-invalid"),
    "two films to explain": (
        post("/v1/explain?finding=Mass", *multipart(("a.png", GOOD), ("b.png", GOOD))),
        413,
        "too-many-films",
    ),
    **{
        f"top={value}": (
            post(f"/v1/similar?top={value}", {**PNG}, GOOD), 400, "parameter-invalid",
        )
        for value in ("NaN", "0", "-1", "1e9", "101", "%D9%A1", "", "9" * 5000)
    },
    "similar without a run": (post("/v1/similar", {**PNG}, GOOD), 404, "no-index"),
    **{
        f"traversal {path}": (
            ("GET", path, {}),
            *((404, "not-found") if path in ("/....//....//etc/passwd", "//etc/passwd",
              "/%c0%ae%c0%ae/etc/passwd", "/..;/..;/etc/passwd", "file:///etc/passwd")
              else (400, "bad-path")),
        )
        for path in TRAVERSAL
    },
}  # fmt: skip


def wired(port: int, request: tuple[object, ...]) -> bytes:
    method, target, headers, body = (*request, b"")[:4]
    assert isinstance(headers, dict)
    named = {k: v.replace("{port}", str(port)) if v else v for k, v in headers.items()}
    assert isinstance(body, bytes)
    return request_bytes(port, str(method), str(target), named, body)


def test_the_table_is_long_enough():
    assert len(TABLE) >= 40
    assert len(TRAVERSAL) >= 12


@pytest.mark.parametrize("name", TABLE)
def test_a_request_has_its_answer(name: str, running: Running):
    request, status, code = TABLE[name]
    reply = ask(running.port, wired(running.port, request))
    assert (reply.status, reply.code) == (status, code), reply.body[:500]
    assert_guarded(reply)
    assert b"passwd" not in reply.body or name == "path in a film's name"


def assert_guarded(reply: Reply) -> None:
    """An answer has the headers that keep a browser from running or showing it elsewhere."""
    assert {key: reply.headers.get(key) for key in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "access-control-allow-origin" not in reply.headers
    if reply.code:
        assert PROBLEMS[reply.code][0] == reply.status


@pytest.mark.parametrize(
    "sent", [b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0", b"G\0T / HTTP/1.1\r\n\r\n"],
    ids=["garbage", "TLS", "a zero in the method"],
)  # fmt: skip
def test_what_is_not_http_is_refused(sent: bytes, running: Running):
    reply = ask(running.port, sent + b"\r\n\r\n")
    assert (reply.status, reply.code) == (400, "malformed-request")
    assert_guarded(reply)


def test_the_start_of_http_2_is_refused(running: Running):
    assert ask(running.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").code == "host-absent"


def test_two_hosts_are_refused(running: Running):
    sent = wired(running.port, get()).replace(b"\r\n\r\n", b"\r\nHost: evil.example\r\n\r\n")
    assert ask(running.port, sent).code == "malformed-request"


def test_a_body_that_does_not_end_is_cut_off(running: Running):
    headers = {**PNG, "Content-Length": None, "Transfer-Encoding": "chunked"}
    sent = request_bytes(running.port, "POST", "/v1/predict", headers)
    reply = ask(running.port, sent, endless=b"2710\r\n" + b"\0" * 10_000 + b"\r\n")
    assert (reply.status, reply.code) == (413, "body-too-large")


def test_without_token_a_body_that_does_not_end_is_not_read(running: Running):
    headers = {**PNG, "Authorization": None, "Content-Length": None, "Transfer-Encoding": "chunked"}
    sent = request_bytes(running.port, "POST", "/v1/predict", headers)
    reply = ask(running.port, sent, endless=b"1\r\n0\r\n")
    assert reply.status in (401, 0)  # 0: reset before the answer was read


def test_headers_that_do_not_end_drop_the_connection(running: Running):
    before = time.monotonic()
    assert ask(running.port, b"GET / HTTP/1.1\r\nHost: x\r\nX: ").status == 0
    assert time.monotonic() - before < 10


def test_an_answer_that_is_not_read_drops_the_connection(running: Running):
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", running.port))
        sent = request_bytes(running.port, target="/openapi.json", headers={"Connection": None})
        line.settimeout(20)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
            while True:
                line.sendall(sent * 50)
    assert ask(running.port, wired(running.port, get())).status == 200


def test_an_answer_that_is_read_slowly_comes_whole(running: Running):
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        line.connect(("127.0.0.1", running.port))
        line.sendall(request_bytes(running.port, target="/large"))
        line.settimeout(20)
        read = 0
        for _ in range(6):  # longer than the 0.7 s in which a client is to read on
            until = read + 2**19
            while read < until:
                read += len(line.recv(2**18))
            time.sleep(0.2)
        while piece := line.recv(2**20):
            read += len(piece)
    assert read > LARGE


def test_clients_that_stall_keep_nobody_waiting(running: Running):
    stalled = []
    for sent in (b"", b"GET", request_bytes(running.port, "POST", "/v1/predict", {
        **PNG, "Content-Length": "1000"})) * 10:  # fmt: skip
        line = socket.create_connection(("127.0.0.1", running.port))
        line.sendall(sent)
        stalled.append(line)
    reply = ask(running.port, wired(running.port, film(GOOD, PNG)))
    assert reply.status == 200
    for line in stalled:
        line.close()


def test_a_dicom_film_is_read(running: Running):
    reply = ask(running.port, wired(running.port, film(dicom_bytes(phantom_grey()))))
    assert reply.status == 200, reply.body


def test_no_film_s_name_or_header_is_logged(running: Running):
    for sent in (parts((SCRIPT, GOOD)), get(X_Patient="Doe^Jane"),
                 ("GET", f"/?token={TOKEN}", {}), ("GET", "/secret-name.png", {})):  # fmt: skip
        ask(running.port, wired(running.port, sent))
    wait_for(lambda: any(" other " in line for line in running.log), seconds=10)
    log = "\n".join(running.log)
    assert "POST /v1/predict 200" in log
    for word in ("script", TOKEN, "Doe", "secret", "?"):
        assert word not in log


def test_a_failure_is_logged_without_its_text(running: Running, caplog: pytest.LogCaptureFixture):
    reply = ask(running.port, wired(running.port, ("GET", "/fails", {})))
    assert (reply.status, reply.code) == (500, "internal")
    wait_for(lambda: any("RuntimeError" in line for line in running.log), seconds=10)
    (line,) = [line for line in running.log if "RuntimeError" in line]
    assert line.startswith("RuntimeError in test_hostile.py, line ")
    assert "Doe" not in "\n".join([*running.log, caplog.text])


def test_whoever_wants_it_reads_the_text_of_a_failure(
    running: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LUCENCY_TRACEBACK", "1")
    ask(running.port, wired(running.port, ("GET", "/fails", {})))
    wait_for(
        lambda: any("RuntimeError in" in line and "Doe" in line for line in running.log), seconds=10
    )


def test_script_in_a_name_comes_back_as_json(running: Running):
    reply = ask(running.port, wired(running.port, parts((SCRIPT, GOOD))))
    assert reply.headers["content-type"] == "application/json"
    assert json.loads(reply.body)["films"][0]["film"] == SCRIPT
