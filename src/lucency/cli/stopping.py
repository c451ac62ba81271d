"""The program's entry: Ctrl-C and SIGTERM are one line, from the first import to the answer."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = "lucency: stopped; the same command goes on from here"
BY_SIGNAL = 128  # and the signal's number: the exit status
INTERRUPTED = BY_SIGNAL + signal.SIGINT  # also typer's, after Ctrl-C
AGAIN_SECONDS = 0.05


def main() -> None:
    """Load and do the command in `sys.argv`, and end the program with its status."""
    with stopped_in_one_line():
        from lucency.cli.app import main as do
        from lucency.core.parallel import world_size

        if world_size() > 1:  # who waits for another process would not hear of it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        do()


@contextmanager
def stopped_in_one_line() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does; either ends the program with a line and its status."""
    came: list[int] = []
    signals = _hear(came)
    try:
        yield
    except SystemExit as end:
        if not came or end.code != INTERRUPTED:
            raise
        _end(came[0])
    except BaseException:
        if not came:
            raise
        _end(came[0])  # whatever a library has made of the interruption
    finally:
        for one in signals:  # nothing is left to be kept
            signal.signal(one, signal.SIG_DFL)


def say_stopped() -> None:
    """Write the line of a stopped command, from the first process only."""
    from lucency.core.parallel import rank

    if rank() == 0:
        sys.stderr.write(STOPPED + "\n")


def _end(number: int) -> None:
    say_stopped()
    sys.exit(BY_SIGNAL + number)


def _hear(came: list[int]) -> list[signal.Signals]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt and be noted; return those not ignored.

    One that falls into a finaliser, where Python drops errors, is raised again.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        raise KeyboardInterrupt

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt) and came:
            threading.Timer(AGAIN_SECONDS, signal.raise_signal, came[-1:]).start()
        else:
            sys.__unraisablehook__(dropped)

    both = (signal.SIGINT, signal.SIGTERM)
    heard = [one for one in both if signal.getsignal(one) is not signal.SIG_IGN]
    for one in heard:
        signal.signal(one, interrupt)
    sys.unraisablehook = raise_again
    return heard
