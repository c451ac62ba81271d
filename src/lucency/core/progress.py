"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from lucency.core.parallel import rank

PLAIN_SECONDS = 15.0
Advance = Callable[..., None]
Figures = Sequence[Mapping[str, int | float]]  # of every epoch so far
# Is called with the figures of all epochs so far; may raise an error, which ends the training.
AfterEpoch = Callable[[Figures], None]
Show = Callable[[int, int, str, float], None]  # done, total, note, units a second or 0


def say(line: str) -> None:
    """Write one `printable` line for people, to standard error, from the first process only.

    A line that cannot be written is dropped: it must not cost the work that it is about.
    """
    if rank() == 0:
        with suppress(OSError):
            sys.stderr.write(printable(line) + "\n")
            sys.stderr.flush()


def printable(text: str) -> str:
    r"""Return text in one line that commands no terminal, whatever files are called.

    Control characters, ends of lines, marks of direction and bytes that are no UTF-8 are escaped.

    >>> print(printable("Left out is \x1b[31m\u202egnp.1\n.png"), printable("胸部 Ｘ線.png"))
    Left out is \x1b[31m\u202egnp.1\n.png 胸部 Ｘ線.png
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs"
        else sign.encode("unicode_escape").decode()
        for sign in text
    )  # fmt: skip


def shortened(text: str, *, most: int) -> str:
    """Return text as it is, or without its middle where that makes it longer than `most` signs.

    What is expected stays, since names are what may be of any length: from the last "expected" on
    nothing is left out, unless that alone is longer than four times `most`.

    >>> shortened("found " + "x" * 99 + ": expected Mass or Edema", most=30)
    'found xxxxxxxxxxxxxx … expected Mass or Edema'
    """
    if len(text) <= most:
        return text
    place = text.rfind("expected")
    last = len(text) - place if place >= 0 else 0
    last = last if most // 3 <= last <= 4 * most else most // 3
    first = most * 2 // 3
    return text if first + last >= len(text) else f"{text[:first]} … {text[-last:]}"


@contextmanager
def progress(title: str, *, unit: str) -> Iterator[Advance]:
    """Lend a function `advance(done, total, note="")` that shows how far `title` is.

    The rate is that since the first call, where it is not known yet: work found done does not
    count.
    """
    if rank() > 0:
        yield silent
        return
    started, first = time.monotonic(), -1
    with (_bar if sys.stderr.isatty() else _lines)(title, unit) as show:

        def advance(done: int, total: int, note: str = "") -> None:
            nonlocal first
            first = done if first < 0 else first
            elapsed = time.monotonic() - started
            show(done, total, note, (done - first) / max(elapsed, 1e-3))

        yield advance


def duration(seconds: float) -> str:
    """Return a duration for people.

    >>> duration(3725.0), duration(65.0), duration(9.2)
    ('1 h 02 min', '1 min 05 s', '9 s')
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def pace(rate: float, unit: str) -> str:
    """Return how fast work is, below one a second as the time that one takes.

    >>> pace(59_000.4, "films"), pace(25.04, "films"), pace(0.4, "films"), pace(0.085, "films")
    ('59,000 a second', '25.0 a second', '2.5 s a film', '12 s a film')
    """
    if rate >= 1:
        return f"{rate:,.{0 if rate >= 99.95 else 1}f} a second"
    seconds = 1 / rate
    taken = f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
    return f"{taken} a {unit.removesuffix('s')}"


def silent(done: int, total: int, note: str = "") -> None:
    """Show no progress."""
    del done, total, note


def unwatched(epochs: Sequence[Mapping[str, int | float]]) -> None:
    """Let a training go on, whatever its epochs gave."""


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, visible=False, rate="", note="")

        def show(done: int, total: int, note: str, rate: float) -> None:
            bar.update(task, visible=True)
            bar.update(task, completed=done, total=total, note=note)
            if rate:
                bar.update(task, rate=pace(rate, unit))

        yield show


@contextmanager
def _lines(title: str, unit: str) -> Iterator[Show]:
    written = time.monotonic()

    def show(done: int, total: int, note: str, rate: float) -> None:
        nonlocal written
        if done < total and time.monotonic() - written < PLAIN_SECONDS:
            return
        written = time.monotonic()
        speed = f", {pace(rate, unit)}" if rate else ""
        left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
        tail = f", {note}" if note else ""
        say(f"{title}: {done:,} of {total:,} {unit}{speed}{left}{tail}")

    yield show
