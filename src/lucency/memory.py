"""A process's memory: told to keep what it has freed."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, which it would hand back and fault in again at every use.

    Pictures and tensors are large enough for that to cost more than the work on them: see
    docs/performance.md. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
