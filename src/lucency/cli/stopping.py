"""The program's entry: Ctrl-C and SIGTERM are one line, from the first import to the last answer."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = "lucency: stopped; the same command goes on from here"
BY_SIGNAL = 128  # and the signal's number: the exit status
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
    """Let SIGTERM interrupt as Ctrl-C does; either ends the program with a line and its status.

    An interruption that falls into a finaliser, where Python drops it, is raised again.
    """
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        raise KeyboardInterrupt

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(AGAIN_SECONDS, signal.raise_signal, came[-1:]).start()
        else:
            sys.__unraisablehook__(dropped)

    signals = [one for one in (signal.SIGINT, signal.SIGTERM) if _is_heard(one)]
    for one in signals:
        signal.signal(one, interrupt)
    sys.unraisablehook = raise_again
    try:
        yield
    except BaseException as error:  # also what a library has made of the interruption
        status = error.code if isinstance(error, SystemExit) else None
        if not came or (isinstance(error, SystemExit) and status != BY_SIGNAL + signal.SIGINT):
            raise
        if not isinstance(error, SystemExit):
            sys.stderr.write(STOPPED + "\n")
        sys.exit(BY_SIGNAL + came[0])
    finally:
        for one in signals:  # nothing is left to be kept
            signal.signal(one, signal.SIG_DFL)


def _is_heard(number: signal.Signals) -> bool:
    """Return whether a signal is not ignored, as Ctrl-C is in the background."""
    return signal.getsignal(number) is not signal.SIG_IGN
