"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lucency.core.parallel import rank

PLAIN_SECONDS = 15.0
Advance = Callable[..., None]


def say(line: str) -> None:
    """Write one line for people, to standard error, from the first process only."""
    if rank() == 0:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@contextmanager
def progress(title: str, *, unit: str) -> Iterator[Advance]:
    """Lend a function `advance(done, total, note="")` that shows how far `title` is."""
    if rank() > 0:
        yield silent
    elif sys.stderr.isatty():
        yield from _bar(title, unit)
    else:
        yield _Lines(title, unit)


def duration(seconds: float) -> str:
    """Return a duration for people.

    >>> duration(3725.0), duration(65.0), duration(9.2)
    ('1 h 02 min', '1 min 05 s', '9 s')
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def silent(done: int, total: int, note: str = "") -> None:
    """Show no progress."""
    del done, total, note


def _bar(title: str, unit: str) -> Iterator[Advance]:
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
        pace = _Pace()

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, visible=True)
            rate = f"{pace.rate(done):,.1f} {unit}/s"
            bar.update(task, completed=done, total=total, rate=rate, note=note)

        yield advance


class _Pace:
    def __init__(self) -> None:
        self.started, self.first = time.monotonic(), -1

    def rate(self, done: int) -> float:
        """Return units a second since the first call; work found done does not count."""
        if self.first < 0:
            self.first = done
        elapsed = time.monotonic() - self.started
        return max(done - self.first, 1) / max(elapsed, 1e-3)


class _Lines:
    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit, self.pace, self.written = title, unit, _Pace(), time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        rate, now = self.pace.rate(done), time.monotonic()
        if done < total and now - self.written < PLAIN_SECONDS:
            return
        self.written = now
        left = f", {duration((total - done) / rate)} left" if done < total else ""
        tail = f", {note}" if note else ""
        say(f"{self.title}: {done:,} of {total:,} {self.unit}, {rate:,.1f} a second{left}{tail}")
