"""A parser with thousands of inputs that hypothesis makes: what came of each, and whether it may.

A parser may read what it is given, or raise a ValueError of its own, in at most three lines, that
names the damaged file, or the word.
"""

import contextlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lucency.core.progress import printable
from torture.damage import cut, flipped, replaced, zeroed
from torture.hostile_files import Parser

MOST_LINES, SHOWN = 3, 40  # lines of a message, and letters of a long word that stand in it
SUMS = "SHA256SUMS"  # where it is damaged, a file that it lists may be named
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
            error = error_of(lambda: parser.read(home))
        finally:
            (home / name).write_bytes(whole[name])
        kind = outcome_of(error, names=_names_of(name, parser.files))
        if kind == READ and parser.noted and content != whole[name]:
            kind = f"{WRONG} read though it was changed"
        found[kind] += 1
        if kind.startswith(WRONG):
            examples.setdefault(kind, f"{name}: {content[:200]!r}: {str(error)[:300]}")

    names = st.sampled_from(parser.files)
    _many(attempt, names.flatmap(lambda one: st.tuples(st.just(one), damaged(whole[one]))), times)
    return found, examples


def try_words(
    known: tuple[str, ...], parse: Callable[[str], Any], *, times: int
) -> tuple[Counter[str], dict[str, str]]:
    """Return what came of words like the known ones, and an example of each wrong."""
    found, examples = Counter[str](), dict[str, str]()
    for word in known:
        error_of(lambda word=word: parse(word))

    def attempt(word: str) -> None:
        error = error_of(lambda: parse(word))
        kind = outcome_of(error, names=forms_of(word), what="the word")
        found[kind] += 1
        if kind.startswith(WRONG):
            examples.setdefault(kind, f"{word[:200]!r}: {str(error)[:300]}")

    like = st.sampled_from([word.encode() for word in known]).flatmap(damaged)
    words = st.one_of(like.map(lambda one: one.decode(errors="replace")), st.text())
    _many(attempt, st.tuples(words), times)
    return found, examples


def error_of(act: Callable[[], Any]) -> Exception | None:
    """Return the error or the warning that comes of an act, None where none does."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error")
            act()
    except Exception as error:  # noqa: BLE001 - which kind came is what is counted
        return error
    return None


def outcome(act: Callable[[], Any]) -> str:
    """Return what came of an act, whatever its message names."""
    return outcome_of(error_of(act))


def outcome_of(error: Exception | None, *, names: tuple[str, ...] = (), what: str = "") -> str:
    """Return READ, REFUSED, or WRONG with the error's kind or what is wrong with its message.

    A message must hold one of `names`, where there are any: those of what was damaged, which the
    outcome calls `what`, else by the first of them.
    """
    if error is None:
        return READ
    if type(error) is not ValueError and not _is_ours(error):
        return f"{WRONG} {type(error).__name__}"
    message = str(error)
    lines = len(message.splitlines())
    if lines > MOST_LINES:
        return f"{WRONG} message of {lines} lines"
    if names and not any(name in message for name in names):
        return f"{WRONG} message without {what or names[0]}"
    return REFUSED


def _names_of(file: str, files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the name of a file, and of others by one of which it may be named, without folders."""
    own = Path(file).name
    return (own, *(Path(one).name for one in files)) if own == SUMS else (own,)


def forms_of(word: str) -> tuple[str, ...]:
    """Return how a message may name a word: as it is or with escapes, a long one by its start.

    Of KEY=VALUE the first part of the key, or the value, will do, of a URL what it addresses. A URL
    that a path made one slash shorter is whole again.
    """
    key, equals, value = word.partition("=")
    pieces = [word, *([key.strip().split(".")[0], value.strip()] if equals else [])]
    pieces += [word.partition("://")[2], re.sub(r":/(?!/)", "://", word, count=1)]
    escaped = [form for one in pieces for form in (one, printable(one), repr(one)[1:-1])]
    return tuple({form[:SHOWN] for form in escaped} - {""}) or ("",)


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
