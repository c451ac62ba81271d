"""Elements of a DICOM header as words and numbers, however they are written in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


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
