"""Worker processes for films: bounded memory, results in order, and no worker outlives its parent.

The work is done in "spawn"ed processes, so it must be a function that can be pickled.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from lucency.memory import keep_freed_memory

QUEUE = 4  # tasks per worker under way at once, so memory does not grow with their number
Task = TypeVar("Task")
Result = TypeVar("Result")


def in_workers(
    work: Callable[[Task], Result], tasks: Iterator[Task], *, workers: int
) -> Iterator[Result]:
    """Yield `work(task)` of each task in order, done here or in that many worker processes.

    Raises ValueError when a worker process dies.
    """
    if workers <= 1:
        keep_freed_memory()
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        first = islice(tasks, QUEUE * workers)
        waiting: deque[Future[Result]] = deque(pool.submit(work, task) for task in first)
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, task) for task in islice(tasks, 1))
            yield result
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process died (out of memory? a script without `if __name__ == '__main__'`?): "
            f"run again with fewer than {workers} workers; the films done so far are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, end with it, and keep decoders' chatter off the screen."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libpng and libjpeg write there themselves


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)
