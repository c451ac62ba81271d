"""The program's entry: Ctrl-C and SIGTERM are one line, from the first import to the answer."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPPED = "lucency: stopped; the same command goes on from here"
BY_SIGNAL = 128  # and the signal's number: the exit status
INTERRUPTED = BY_SIGNAL + signal.SIGINT  # also typer's, after Ctrl-C
AGAIN_SECONDS = 0.05
BOTH = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Load and do the command in `sys.argv`, and end the program with its status.

    Signals before and after, when nothing is left to be kept, end the program at once.
    """
    for one in BOTH:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, signal.SIG_DFL)
    with stopped_in_one_line():
        from lucency.cli.app import main as do
        from lucency.core.parallel import shut_out_working_folder, world_size

        shut_out_working_folder()
        with suppress(ValueError):  # of the environment: the command ends by it, in a line
            if world_size() > 1:  # who waits for another process would not note it
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        do()


@contextmanager
def stopped_in_one_line() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does; either ends the program with a line and its status.

    A second one, while the line is written, is dropped. After it signals are as they were before.
    """
    noted: list[int] = []
    with _noting(noted):
        try:
            yield
        except SystemExit as end:
            if not noted or end.code != INTERRUPTED:
                raise
            _end(noted[0])
        except BaseException:
            if not noted:
                raise
            _end(noted[0])  # whatever a library has made of the interruption


def say_stopped() -> None:
    """Write the line of a stopped command, from the first process only."""
    from lucency.core.parallel import rank

    if rank() == 0:
        sys.stderr.write(STOPPED + "\n")


def _end(number: int) -> None:
    for one in BOTH:
        signal.signal(one, signal.SIG_IGN)
    say_stopped()
    sys.exit(BY_SIGNAL + number)


@contextmanager
def _noting(noted: list[int]) -> Iterator[None]:
    """Let SIGINT and SIGTERM, unless ignored, be noted and raise KeyboardInterrupt.

    One that falls into a finaliser, where Python drops errors, is raised again.
    """
    again: list[threading.Timer] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        noted.append(number)
        raise KeyboardInterrupt

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        if not (issubclass(dropped.exc_type, KeyboardInterrupt) and noted):
            hook(dropped)
            return
        again.append(threading.Timer(AGAIN_SECONDS, signal.raise_signal, noted[-1:]))
        again[-1].daemon = True
        again[-1].start()

    hook, before = sys.unraisablehook, {one: signal.getsignal(one) for one in BOTH}
    for one in BOTH:
        if before[one] is not signal.SIG_IGN:
            signal.signal(one, interrupt)
    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        sys.unraisablehook = hook
        for one, handler in before.items():
            signal.signal(one, handler)
