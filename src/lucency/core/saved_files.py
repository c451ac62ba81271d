"""What the program has written and reads again: damage is one ValueError, which names the file."""

from __future__ import annotations

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from jaxtyping import Shaped
from pydantic import ValidationError

ANEW = "expected it whole: write it again, or delete its folder, and a run makes it anew"
LONGEST = 200  # signs of what a library says
DAMAGE = (  # what readers of JSON, arrays and archives raise for files that are not as written
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError,
    RuntimeError, SyntaxError, TypeError, UnpicklingError, ValueError, struct.error,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def naming_damage(file: Path, *, remedy: str = ANEW) -> Iterator[None]:
    """Raise ValueError, in one line with the file and the remedy, where reading it fails.

    Errors that name a file pass: OSError of one that is not there, ValueError of a file within.
    """
    try:
        yield
    except DAMAGE as error:
        named = isinstance(error, OSError) and error.filename is not None
        if named or (type(error) is ValueError and str(file) in str(error)):
            raise
        raise ValueError(f"{file} cannot be read ({why_damaged(error)}); {remedy}") from error


def why_damaged(error: BaseException) -> str:
    """Return what an error says, in one line and in LONGEST signs.

    >>> why_damaged(KeyError("findings"))
    "'findings' is absent"
    """
    if isinstance(error, KeyError):
        return f"{error} is absent"
    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"


def read_json(file: Path, *, remedy: str = ANEW) -> dict[str, Any]:
    """Return the object that a JSON file holds; an empty file is damaged too."""
    with naming_damage(file, remedy=remedy):
        held = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise TypeError(f"found a {type(held).__name__}, expected an object")
        return held


def read_array(file: Path) -> Shaped[np.ndarray, ...]:
    """Return the array of a .npy file without Python objects."""
    with naming_damage(file):
        return np.load(file, allow_pickle=False)
