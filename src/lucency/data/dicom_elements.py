"""Elements of a DICOM header as words and numbers, however they are written in the file."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class _Quiet:
    """How many threads are in `quiet_pydicom`, and what ends it."""

    def __init__(self) -> None:
        self.lock, self.threads, self.end = threading.Lock(), 0, ExitStack()


_QUIET = _Quiet()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let pydicom neither check values nor warn: its words hold values of elements.

    Both are states of the whole process: the last thread that leaves restores them.
    """
    from pydicom.config import disable_value_validation

    with _QUIET.lock:
        if not _QUIET.threads:
            _QUIET.end.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            _QUIET.end.enter_context(disable_value_validation())
        _QUIET.threads += 1
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.threads -= 1
            if not _QUIET.threads:
                _QUIET.end.close()


def words(header: Dataset, name: str) -> list[str]:
    """Return the words of an element's values, without padding; [] where it is absent or empty."""
    held = header[name].value if name in header else None
    several = [] if held is None else [held] if isinstance(held, str) else np.atleast_1d(held)
    return [str(part).strip() for one in several for part in str(one).split("\\")]


def text(header: Dataset, name: str) -> str:
    """Return the first of an element's words, "" where there is none."""
    return next(iter(words(header, name)), "")


def numbers(header: Dataset, name: str) -> tuple[float, ...]:
    """Return an element's numbers, however they are written; () where one of them is none."""
    try:
        found = tuple(float(word) for word in words(header, name))
    except ValueError:
        return ()
    return found if np.isfinite(found).all() else ()


def number(header: Dataset, name: str, otherwise: float) -> float:
    """Return the first of an element's numbers."""
    return next(iter(numbers(header, name)), otherwise)


def items(header: Dataset, name: str) -> list[Dataset]:
    """Return the items of a sequence; [] where it is absent, or an element of another VR."""
    from pydicom.sequence import Sequence

    held = header[name].value if name in header else None
    return list(held) if isinstance(held, Sequence) else []
