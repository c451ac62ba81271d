"""Requests drawn from the service's own description, and the check of an answer against it."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import jsonschema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from lucency.deploy.guard import SECURITY_HEADERS
from lucency.deploy.problems import PROBLEM_TYPE, PROBLEMS
from served import TOKEN, Reply, film_file, multipart, request_bytes

FILMS = (film_file(), film_file(1, suffix=".jpg"), film_file(2, size=33))
KINDS = (
    "image/png", "image/jpeg", "application/dicom", "application/octet-stream", "text/html",
    "multipart/form-data", "multipart/form-data; boundary=b0undary; charset=utf-7", "*/*", "",
)  # fmt: skip
TEXTS = st.text(max_size=12)
PLAIN = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
Document = Mapping[str, Any]
Answered = Callable[[bytes], Reply]


class Drawn(NamedTuple):
    """A request: method, path, query, headers and body."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    def wired(self, port: int) -> bytes:
        """Return the request as it goes over the wire."""
        query = f"?{urlencode(self.query, errors='surrogatepass')}" if self.query else ""
        return request_bytes(port, self.method, self.path + query, {**self.headers}, self.body)


def send_drawn(
    requests: st.SearchStrategy[Drawn], times: int, do: Callable[[Drawn], None], *, seed: int = 0
) -> None:
    """Call `do` with so many requests, the same for the same seed."""

    @seeded(seed)
    @settings(
        max_examples=times, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests)
    def each(drawn: Drawn) -> None:
        do(drawn)

    each()


def service_requests(document: Document) -> st.SearchStrategy[Drawn]:
    """Return requests to the operations of a description, well and ill."""
    operations = [
        (path, method.upper(), about)
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    ]
    return st.sampled_from(operations).flatmap(lambda one: _requests_to(*one))


def _requests_to(path: str, method: str, about: Document) -> st.SearchStrategy[Drawn]:
    """Return requests to one operation."""
    one = st.one_of([_pairs(parameter) for parameter in about["parameters"]] or [_strange()])
    other = st.sampled_from(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"))
    holds = "requestBody" in about
    return st.builds(
        Drawn,
        st.integers(0, 19).flatmap(lambda n: other if n == 0 else st.just(method)),
        st.integers(0, 29).flatmap(lambda n: _paths(path) if n == 0 else st.just(path)),
        _queries(about["parameters"], one),
        _headers(),
        _bodies() if holds else st.sampled_from((b"", b"", b"", b"x")),
    ).flatmap(_with_kind if holds else st.just)


def _queries(
    parameters: list[Document], one: st.SearchStrategy[tuple[str, str]]
) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Return mostly the parameters that are described, each once."""
    good = st.tuples(*(_pairs(parameter) for parameter in parameters)).map(list)
    needed = st.tuples(*(_pairs(each) for each in parameters if each["required"])).map(list)
    ill = st.lists(st.one_of(one, _strange()), max_size=3)
    return st.one_of(good, needed, needed, ill)


def _pairs(parameter: Document) -> st.SearchStrategy[tuple[str, str]]:
    """Return a parameter with a value that its schema takes, or seldom another."""
    schema = parameter["schema"]
    if "enum" in schema:
        fit: st.SearchStrategy[str] = st.sampled_from(schema["enum"])
    elif schema.get("type") == "integer":
        fit = st.integers(schema["minimum"], schema["maximum"]).map(str)
    else:
        fit = st.just(TOKEN)
    value = st.integers(0, 7).flatmap(lambda n: TEXTS if n == 0 else fit)
    return st.tuples(st.just(parameter["name"]), value)


def _strange() -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(TEXTS, TEXTS)


def _paths(path: str) -> st.SearchStrategy[str]:
    """Return paths near one, and any others."""
    near = st.sampled_from((path + "/", path.upper(), path[:-1] or "/", "/" + path, path + "%00"))
    return st.one_of(near, TEXTS.map(lambda text: "/" + quote(text, errors="surrogatepass")))


def _headers() -> st.SearchStrategy[dict[str, str]]:
    """Return headers beside those of a good request, mostly none."""
    ill = st.dictionaries(
        st.sampled_from((
            "Authorization", "Origin", "Accept", "Cookie", "Content-Encoding", "Range", "X-Film",
            "If-None-Match", "Accept-Encoding", "Expect", "Referer", "X-HTTP-Method-Override",
        )), PLAIN, max_size=3,
    )  # fmt: skip
    return st.integers(0, 3).flatmap(lambda n: ill if n == 0 else st.just({}))


def _bodies() -> st.SearchStrategy[bytes]:
    """Return films, damaged films, and other bytes."""
    film = st.sampled_from(FILMS)
    return st.one_of(film, film, _damaged(), st.binary(max_size=200), st.just(b""))


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """Return a film that is cut, or of which one byte is another."""
    film = draw(st.sampled_from(FILMS))
    place = draw(st.integers(0, len(film) - 1))
    if draw(st.booleans()):
        return film[:place]
    return film[:place] + bytes([draw(st.integers(0, 255))]) + film[place + 1 :]


def _with_kind(drawn: Drawn) -> st.SearchStrategy[Drawn]:
    """Return a request whose body is a film of some type, or parts."""
    raw = st.sampled_from(KINDS).map(lambda kind: _as_kind(drawn, kind))
    name = st.text(st.characters(exclude_characters='"\r\n', exclude_categories=["Cs"]), max_size=9)
    several = st.lists(st.tuples(name, st.sampled_from([drawn.body, *FILMS])), max_size=4)
    end = st.sampled_from(("--\r\n", "--\r\n", "--\r\n", "", "-"))
    parts = st.builds(lambda pairs, end: _as_parts(drawn, pairs, end), several, end)
    good = st.just(_as_kind(drawn, KINDS[0]))
    return st.one_of(good, raw, parts)


def _as_kind(drawn: Drawn, kind: str) -> Drawn:
    return drawn._replace(headers={**drawn.headers, "Content-Type": kind})


def _as_parts(drawn: Drawn, pairs: list[tuple[str, bytes]], end: str) -> Drawn:
    kind, body = multipart(*pairs, end=end)
    return drawn._replace(headers={**drawn.headers, **kind}, body=body)


# --- answers ---------------------------------------------------------------------------------


def fault_of(reply: Reply, drawn: Drawn, document: Document) -> str:
    """Return what of an answer is not as described, "" where all is."""
    if any(reply.headers.get(name) != value for name, value in SECURITY_HEADERS.items()):
        return "no security headers"
    if reply.status >= 500 and reply.code not in ("busy", "stopping"):
        return "a failure"
    about = document["paths"].get(drawn.path, {}).get(drawn.method.lower())
    if about is None:
        return _fault_of_problem(reply, drawn, document)
    described = about["responses"].get(str(reply.status))
    if described is None:
        return f"undescribed {reply.status} {reply.code}"
    return _fault_of_content(reply, described, document)


def _fault_of_problem(reply: Reply, drawn: Drawn, document: Document) -> str:
    """Return what is wrong with an answer to what is not described; HEAD is as GET."""
    if drawn.method == "HEAD":
        return "a body for HEAD" if reply.body else ""
    if reply.status < 400:
        return f"undescribed {reply.status}"
    content = {"content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return _fault_of_content(reply, content, document)


def _fault_of_content(reply: Reply, described: Document, document: Document) -> str:
    """Return whether type and content of an answer are among those that are described."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if kind not in described["content"]:
        return f"undescribed type {kind!r} of {reply.status}"
    if not kind.endswith("json"):
        return "" if reply.body else "no body"
    schema = {"components": document["components"], **described["content"][kind]["schema"]}
    answer = json.loads(reply.body)
    wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(answer), None)
    if wrong is not None:
        return f"schema: {wrong.message[:200]}"
    if reply.code and PROBLEMS[reply.code][0] != reply.status:
        return f"{reply.code} with {reply.status}"
    return ""


# --- the viewer ------------------------------------------------------------------------------


def viewer_requests(findings: tuple[str, ...]) -> st.SearchStrategy[Drawn]:
    """Return requests to the viewer's routes, well and ill."""
    key = st.one_of(st.integers(0, 70).map(str), st.integers(0, 4).map(lambda n: f"a{n}"), TEXTS)
    word = st.one_of(
        st.sampled_from(("", "0", "1", "0.5", "nan", "-1", "test", "missed")),
        TEXTS,
        st.sampled_from(findings),
    )
    name = st.sampled_from((
        "finding", "part", "error", "view", "order", "low", "high", "text", "offset", "limit",
        "clahe",
    ))  # fmt: skip
    query = st.lists(st.tuples(name, word), max_size=3)
    made = st.sampled_from(("", "/prediction", "/heatmap", "/similar", "/pixels", "/thumbnail"))
    film = st.builds(
        lambda key, made: f"film/{quote(key, safe='', errors='surrogatepass')}{made}", key, made
    )
    place = st.one_of(
        film,
        st.sampled_from(("model", "films", "calibration", "none", "")),
    )
    read = st.builds(_viewed, place, query, _headers())
    dropped = st.builds(
        _dropped,
        _bodies(),
        st.one_of(PLAIN, TEXTS.map(lambda text: quote(text, errors="surrogatepass"))),
    )
    return st.one_of(read, read, read, dropped, _verdicts(findings))


def _viewed(place: str, query: list[tuple[str, str]], headers: dict[str, str]) -> Drawn:
    return Drawn("GET", f"/viewer/api/{place}", query, headers, b"")


def _dropped(body: bytes, name: str) -> Drawn:
    return Drawn("POST", "/viewer/api/films", [], {"X-Film-Name": name}, body)


def _verdicts(findings: tuple[str, ...]) -> st.SearchStrategy[Drawn]:
    """Return verdicts, and JSON and bytes that are none."""
    text = st.one_of(TEXTS, st.just("A. B."))
    good = st.fixed_dictionaries({
        "film": st.integers(0, 70).map(str), "finding": st.sampled_from(findings),
        "verdict": st.sampled_from(("right", "wrong", "unsure", "", "maybe")), "reviewer": text,
        "note": text,
    })  # fmt: skip
    leaf = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), TEXTS)
    any_json = st.recursive(leaf, lambda few: st.lists(few) | st.dictionaries(TEXTS, few))
    body = st.one_of(
        good.map(json.dumps).map(str.encode), good.map(json.dumps).map(str.encode),
        any_json.map(json.dumps).map(str.encode), st.binary(max_size=50),
    )  # fmt: skip
    return body.map(lambda one: Drawn("POST", "/viewer/api/verdicts", [], {}, one))


def fault_of_viewer(reply: Reply) -> str:
    """Return what of a viewer's answer is not as all answers are, "" where all is."""
    if any(reply.headers.get(name) != value for name, value in SECURITY_HEADERS.items()):
        return "no security headers"
    if reply.status >= 500 and reply.code not in ("busy", "stopping"):
        return "a failure"
    if reply.status != 200 and not reply.code:
        return f"{reply.status} without a code"
    if reply.code and PROBLEMS[reply.code][0] != reply.status:
        return f"{reply.code} with {reply.status}"
    if reply.headers.get("content-type") == "application/json":
        json.loads(reply.body)
    return ""
