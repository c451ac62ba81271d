"""A limit on the time of tests: what would wait or compute for ever fails instead."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ALARMS = hasattr(signal, "SIGALRM")  # Windows has none


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail the test whose block takes longer, again and again until the block is left.

    The main thread alone is stopped: another that goes on keeps the tests from ending. A limit
    around this one goes on afterwards where it was. Without alarms of the system nothing is done.
    """
    if not ALARMS:
        yield
        return

    def fail(*_: object) -> None:
        pytest.fail(f"it took longer than {seconds:g} s")  # which no `except Exception` catches

    before = signal.signal(signal.SIGALRM, fail)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)
