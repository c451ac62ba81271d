"""Memory that runs out: each library says so in errors of its own; people read one line."""

from __future__ import annotations

import errno
import re
import sys

KINDS = (("cv2", "error"),)  # errors of libraries that are neither MemoryError nor RuntimeError
SIGNS = re.compile(
    r"bad[ _]alloc|(can.?t|cannot|could not|unable to) allocate|(out of|insufficient) memory|"
    r"can't start new thread|could not create a (primitive|memory)",  # threads: of their stack
    re.IGNORECASE,
)
REMEDY = (
    "free some, or take fewer --workers or a smaller training.batch; what is done is kept: the "
    "same command goes on"
)


def errors_of_memory() -> tuple[type[BaseException], ...]:
    """Return the types among whose errors are those that say that memory ran out."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in KINDS)
    return (MemoryError, RuntimeError, *(one for one in found if one))


def says_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return bool(SIGNS.search(str(error)))


def out_of_memory(error: BaseException) -> str:
    """Return a line for people."""
    return f"not enough memory ({str(error) or type(error).__name__}): {REMEDY}"
