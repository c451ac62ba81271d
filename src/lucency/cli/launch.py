"""The function that launchers call which import a program instead of starting it.

`accelerate launch --tpu`, `notebook_launcher` and `xmp.spawn` start processes of their own, set no
rank in the environment, and call `lucency.main` in each; the command is in `sys.argv`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from contextlib import ExitStack
from types import TracebackType

from lucency.cli.app import call
from lucency.cli.stopping import INTERRUPTED, say_stopped


def main(*index: int) -> None:
    """Join the other processes and do the command in `sys.argv`; returns when that went well.

    The rank comes from accelerate, not from the `index` that some launchers pass. On failure this
    process ends with status 2 (1 for a mistake of ours): a launcher that sees one of its processes
    end stops the others, which would otherwise wait for it. Where the launcher has started no
    process (a notebook, one device), SystemExit or the error is raised.
    """
    del index
    with ExitStack() as ending:
        ending.push(_end_this_process)
        if status := call(before=_join):
            if status == INTERRUPTED:
                say_stopped()
            sys.exit(status)


def _join() -> None:
    from lucency.models.device import join

    join()


def _end_this_process(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """End a child process on any error: a pool would keep the error until all others are done."""
    del kind, trace
    if error is None or multiprocessing.parent_process() is None:
        return
    status = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)
