"""Memory that runs out: libraries say so each in its own errors, people read one line.

What cannot bear it begins only where there is room.
"""

from __future__ import annotations

import errno
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ONNX_RUNTIME = "onnxruntime.capi.onnxruntime_pybind11_state"
KINDS = (  # errors of libraries that are neither MemoryError nor RuntimeError
    ("cv2", "error"),
    (ONNX_RUNTIME, "Fail"),
    (ONNX_RUNTIME, "RuntimeException"),
)
SIGNS = re.compile(  # threads cannot start where there is no memory for their stack
    r"bad[ _]alloc|(can.?t|cannot|could not|unable to|failed to) allocate|"
    r"(out of|insufficient) memory|can't start new thread|could not create a (primitive|memory)|"
    r"failed to map segment",  # of a library that is loaded
    re.IGNORECASE,
)
REMEDY = (
    "free some, and give the same command again: it goes on from what is done; a run wants less "
    "with fewer --workers, or a smaller training.batch, which is another protocol (another --out)"
)

ROOM = 64 << 20  # bytes of addresses in which nothing that cannot bear their lack should run out
STATM = Path("/proc/self/statm")  # of Linux; begins with the pages of addresses, then of memory
LIBRARIES = 768 << 20  # in which NumPy, pandas and OpenCV are loaded
THREAD = 16 << 20  # beside them for each thread: its stack, and what it begins with


def check_room(*, room: int = ROOM, threads: int = 0) -> None:
    """Raise MemoryError where little is left of the addresses that `ulimit -v` allows.

    Where they end, most libraries raise errors, but not all, nor always: Python waits for ever for
    a thread that has no memory to begin; oneDNN, in torch, runs code for gradients that it could
    not write, a segmentation fault; OpenBLAS, in NumPy, tries for ever to begin, or crashes.
    """
    left, wanted = max(0.0, _room()), room + threads * THREAD
    if left < wanted:
        raise MemoryError(
            f"{left / 2**20:.0f} MiB are left of what ulimit -v allows, expected {wanted >> 20}"
        )


def thread_pool(count: int, *, name: str = "") -> ThreadPoolExecutor:
    """Return a pool of threads; raises MemoryError where there is no room for them."""
    check_room(threads=count)
    return ThreadPoolExecutor(count, thread_name_prefix=name)


def _room() -> float:
    """Return how many bytes of addresses this process may have beside those that it has."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or not STATM.exists():
        return math.inf
    return float(limit - int(STATM.read_text().split()[0]) * resource.getpagesize())


def held_bytes() -> int:
    """Return how many bytes this process holds in memory, 0 where the system does not say."""
    if not STATM.exists():
        return 0
    import resource

    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def errors_of_memory() -> tuple[type[BaseException], ...]:
    """Return the types among whose errors are those that say that memory ran out."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in KINDS)
    return (MemoryError, RuntimeError, ImportError, *(one for one in found if one))


def says_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out.

    The program's own words may be about memory or hold a file's name: of its errors that counts
    which they were raised from. Of the system's the number counts.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    if type(error) is ValueError or type(error).__module__.startswith("lucency."):
        return error.__cause__ is not None and says_out_of_memory(error.__cause__)
    return bool(SIGNS.search(str(error)))


def out_of_memory(error: BaseException) -> str:
    """Return a line for people."""
    return f"not enough memory ({str(error) or type(error).__name__}): {REMEDY}"
