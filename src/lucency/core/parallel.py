"""Processes: freed memory is kept, the rank among launched processes, worker processes for films.

Neither torch nor accelerate is imported to know the rank. Once a process has joined the others
(`lucency.models.device.join`), its rank and the number of processes are those of accelerate's
state. Before that they are what a launcher has set in the environment: torchrun and accelerate
launch, or MPI. A launcher that calls a function, as those for TPU do, sets nothing there: its
processes join first (`lucency.cli.launch`).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = 2**31 - 1
SPINS = 1_000  # turns of an empty loop
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
LOCAL = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
QUEUE = 4  # tasks per worker under way at once, so memory does not grow with their number
Task = TypeVar("Task")
Result = TypeVar("Result")

_joined = threading.local()  # the ranks from accelerate: on TPU v2 and v3 two share a process


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, which it would hand back and fault in again at every use.

    Pictures and tensors are large enough for that to cost more than the work on them: see
    docs/performance.md. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def hand_back_memory() -> None:
    """Give the system what glibc keeps of freed memory; does nothing with another C library."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def share_cores() -> None:
    """Let OpenMP threads sleep soon while they wait for each other; call it before torch is there.

    GNU's OpenMP, which torch brings, lets them spin for several milliseconds, on cores that the
    threads they wait for may need when another process is busy: see docs/performance.md. What the
    environment states already is kept. Results do not depend on it.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def shut_out_working_folder() -> None:
    """Let Python processes that this one starts find no modules in the working folder.

    They look there first, also for modules of Python's own, and a folder of films that came from
    elsewhere may hold any. Workers get the paths of this process as soon as they run.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def usable_cores() -> int:
    """Return how many cores this process may use: OMP_NUM_THREADS, where the environment states it.

    Otherwise its share, among the processes that were launched together, of those that the system
    lets it run on.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdecimal() and int(stated):
        return int(stated)
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, cores // world_size())


def rank() -> int:
    """Return this process's number among all, 0 for the first and for one that is alone.

    Raises ValueError, as the two below do, where the environment states something else.
    """
    return _number_among_all("rank", RANKS)


def local_rank() -> int:
    """Return this process's number among those of its machine, counted from 0."""
    return _number_among_all("local_rank", LOCAL)


def world_size() -> int:
    """Return the number of processes that work together, over all machines."""
    return max(1, _first_number("world_size", SIZES, otherwise=1))


def left_alone() -> bool:
    """Say whether accelerate launch was to start several processes on this machine but started one.

    It does so, without a word, for `--num_processes 2` where there are no two accelerators.
    """
    wanted = {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys()
    return wanted and not any(name in os.environ for name in SIZES)


def set_ranks(*, rank: int | None, local_rank: int | None, world_size: int | None) -> None:
    """Fix what the three functions above return in this thread; None means the environment's."""
    _joined.rank, _joined.local_rank, _joined.world_size = rank, local_rank, world_size


def _first_number(kind: str, names: tuple[str, ...], *, otherwise: int) -> int:
    if (known := getattr(_joined, kind, None)) is not None:
        return known
    name = next((name for name in names if os.environ.get(name)), "")
    stated = os.environ.get(name, str(otherwise))
    if not re.fullmatch("[0-9]{1,9}", stated):
        raise ValueError(
            f"the environment's {name} is {stated[:40]!r}: expected a whole number, "
            "as launchers of several processes set it; without a launcher unset it"
        )
    return int(stated)


def _number_among_all(kind: str, names: tuple[str, ...]) -> int:
    """Return a rank; one that is left of another launcher, with fewer processes here, is 0."""
    number = _first_number(kind, names, otherwise=0)
    return number if number < world_size() else 0


def in_workers(
    work: Callable[[Task], Result], tasks: Iterator[Task], *, workers: int
) -> Iterator[Result]:
    """Yield `work(task)` of each task in order, done here or in that many worker processes.

    Memory is bounded, and no worker outlives its parent. Workers are "spawn"ed, so `work` must be a
    function that can be pickled. Raises ValueError when a worker process dies.
    """
    if workers <= 1:
        keep_freed_memory()
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        first = islice(tasks, QUEUE * workers)
        waiting: deque[Future[Result]] = deque(_submitted(pool, work, task) for task in first)
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(_submitted(pool, work, task) for task in islice(tasks, 1))
            yield result
    except BrokenProcessPool:
        raise ValueError(
            "a worker process died (out of memory? a script without `if __name__ == '__main__'`?): "
            f"run again with fewer than {workers} workers; the films done so far are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[Task], Result], task: Task
) -> Future[Result]:
    """Submit a task; a worker may start, which would write a traceback where that is broken off."""
    with _signals_later():
        return pool.submit(work, task)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of the block; in other threads they do not come."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    held = {one: handler for one, handler in before.items() if callable(handler)}
    for one in held:
        signal.signal(one, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for one, handler in held.items():
            signal.signal(one, handler)
        for number in came[:1]:
            signal.raise_signal(number)


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
