"""Memory that runs out: each library says so in errors of its own; people read one line."""

from __future__ import annotations

import errno
import re
import sys

ONNX_RUNTIME = "onnxruntime.capi.onnxruntime_pybind11_state"
KINDS = (  # errors of libraries that are neither MemoryError nor RuntimeError
    ("cv2", "error"),
    (ONNX_RUNTIME, "Fail"),
    (ONNX_RUNTIME, "RuntimeException"),
)
SIGNS = re.compile(  # threads cannot start where there is no memory for their stack
    r"bad[ _]alloc|(can.?t|cannot|could not|unable to|failed to) allocate|"
    r"(out of|insufficient) memory|can't start new thread|could not create a (primitive|memory)",
    re.IGNORECASE,
)
REMEDY = (
    "free some, or take fewer --workers: what is done is kept, and the same command goes on; or "
    "take a smaller training.batch, which is another protocol, into another folder (--out)"
)


def errors_of_memory() -> tuple[type[BaseException], ...]:
    """Return the types among whose errors are those that say that memory ran out."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in KINDS)
    return (MemoryError, RuntimeError, *(one for one in found if one))


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
