"""Which of several processes this one is; neither torch nor accelerate is imported to know it.

Once a process has joined the others (`lucency.learn.device.join`), its rank and the number of
processes are those of accelerate's state. Before that they are what a launcher has set in the
environment: torchrun and accelerate launch, or MPI. A launcher that calls a function, as those
for TPU do, sets nothing there: its processes join first (`lucency.launch`).
"""

from __future__ import annotations

import os
import threading

RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
LOCAL = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")


class _Joined(threading.local):
    """What accelerate said, thread by thread: on TPU v2 and v3 two ranks share a process."""

    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None


_joined = _Joined()


def rank() -> int:
    """Return this process's number among all, 0 for the first and for one that is alone."""
    return _first_number(_joined.rank, RANKS, otherwise=0)


def local_rank() -> int:
    """Return this process's number among those of its machine, counted from 0."""
    return _first_number(_joined.local_rank, LOCAL, otherwise=0)


def world_size() -> int:
    """Return the number of processes that work together, over all machines."""
    return _first_number(_joined.world_size, SIZES, otherwise=1)


def left_alone() -> bool:
    """Say whether accelerate launch was to start several processes on this machine but started one.

    It does so, without a word, for `--num_processes 2` where there are no two accelerators.
    """
    asked = {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys()
    return asked and not any(name in os.environ for name in SIZES)


def set_ranks(*, rank: int | None, local_rank: int | None, world_size: int | None) -> None:
    """Fix what the three functions above return in this thread; None asks the environment again."""
    _joined.rank, _joined.local_rank, _joined.world_size = rank, local_rank, world_size


def _first_number(known: int | None, names: tuple[str, ...], *, otherwise: int) -> int:
    if known is not None:
        return known
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), otherwise)
