"""A parser with thousands of inputs that hypothesis makes: what came of each, and whether it may.

A parser may read what it is given, or raise a ValueError of its own in at most three lines.
"""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torture.damage import cut, flipped, replaced, zeroed
from torture.hostile_files import Parser

MOST_LINES = 3
READ, REFUSED, WRONG = "read", "refused", "wrong"
PIECES = (
    b"", b"\0", b"\n", b"\r\n", b'"', b"'", b",", b";", b"\t", b"|", b"#", b"=", b"[", b"]", b"{",
    b"}", b"\\", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[31m", "\u202e".encode(), b"nan",
    b"inf", b"-1", b"1e999", b"null", b"true", b"9" * 5_000, b"[" * 2_000, b"\xed\xa0\x80",
)  # fmt: skip
Outcome = Callable[[], Any]


def try_files(parser: Parser, home: Path, *, times: int) -> tuple[Counter[str], dict[str, str]]:
    """Return what came of a parser's files, each damaged in turn, and an example of each wrong."""
    whole = {name: (home / name).read_bytes() for name in parser.files}
    found, examples = Counter[str](), dict[str, str]()
    if (kind := outcome(lambda: parser.read(home))) != READ:
        found[f"{WRONG} whole: {kind}"] += 1

    def attempt(name: str, content: bytes) -> None:
        (home / name).write_bytes(content)
        try:
            kind = outcome(lambda: parser.read(home))
        finally:
            (home / name).write_bytes(whole[name])
        found[kind] += 1
        if kind.startswith(WRONG):
            examples.setdefault(kind, f"{name}: {content[:200]!r}")

    names = st.sampled_from(parser.files)
    _many(attempt, names.flatmap(lambda one: st.tuples(st.just(one), damaged(whole[one]))), times)
    return found, examples


def try_words(
    known: tuple[str, ...], parse: Callable[[str], Any], *, times: int
) -> tuple[Counter[str], dict[str, str]]:
    """Return what came of words like the known ones, and an example of each wrong."""
    found, examples = Counter[str](), dict[str, str]()
    for word in known:
        outcome(lambda word=word: parse(word))

    def attempt(word: str) -> None:
        kind = outcome(lambda: parse(word))
        found[kind] += 1
        if kind.startswith(WRONG):
            examples.setdefault(kind, repr(word[:200]))

    like = st.sampled_from([word.encode() for word in known]).flatmap(damaged)
    words = st.one_of(like.map(lambda one: one.decode(errors="replace")), st.text())
    _many(attempt, st.tuples(words), times)
    return found, examples


def outcome(act: Callable[[], Any]) -> str:
    """Return READ, REFUSED, or WRONG with the error's kind or what is wrong with its message."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error")
            act()
    except (Exception, Warning) as error:  # noqa: BLE001 - which kind came is what is counted
        if type(error) is not ValueError and not _is_ours(error):
            return f"{WRONG} {type(error).__name__}"
        lines = len(str(error).splitlines())
        return f"{WRONG} message of {lines} lines" if lines > MOST_LINES else REFUSED
    return READ


def _is_ours(error: BaseException) -> bool:
    return isinstance(error, ValueError) and type(error).__module__.startswith("lucency")


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw a file like a whole one, with something cut, changed, put in, or all of it random."""
    way = draw(st.integers(0, 9))
    if way == 0:
        return draw(st.binary(max_size=200))
    if way == 1:
        return draw(st.text(max_size=200)).encode(errors="surrogatepass")
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    if way == 2:
        return list(cut(whole))[int(generator.integers(0, 64))]
    if way < 6:
        ways = {3: flipped, 4: zeroed, 5: replaced}
        return next(iter(ways[way](whole or b"\0", times=1, seed=seed)))
    place = int(generator.integers(0, len(whole) + 1))
    gone = int(generator.integers(0, 12)) if way > 7 else 0
    return whole[:place] + draw(st.sampled_from(PIECES)) + whole[place + gone :]


def _many(attempt: Callable[..., None], inputs: st.SearchStrategy[Any], times: int) -> None:
    """Call `attempt` with so many inputs, always the same ones."""

    @settings(
        max_examples=times, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs)
    def trial(values: tuple[Any, ...]) -> None:
        attempt(*values)

    trial()
