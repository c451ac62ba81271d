"""What the program has written and reads again: damage is one ValueError, which names the file.

Only damage is: an error of the system, and memory that runs out, go through as they are, since they
pass and what is written is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, ValidationError

from lucency.core.files import named_error, why_no_file, write_whole
from lucency.core.memory import says_out_of_memory
from lucency.core.progress import shortened

CHECKSUM = "checksum"  # the last field of a JSON file that must not change by accident
ANEW = "expected it whole: write it again, or delete its folder; its command makes it anew"
LONGEST = 200  # signs of what a library says
JSON_DAMAGE = (ValueError, TypeError, RecursionError)
ARRAY_DAMAGE = (  # what NumPy and zipfile raise for files that are not as written
    EOFError, LookupError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError,
    lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
TENSOR_DAMAGE = (  # what torch.load raises for files that are not as written
    AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, UnpicklingError,
    ValueError, struct.error,
)  # fmt: skip
SEEKING = (None, errno.EINVAL)  # OSError of a damaged archive: of no system, or of a place below 0
TEXT, WHOLE, NUMBER = "U", "iu", "fiub"  # kinds of arrays
Arrays = dict[str, Shaped[np.ndarray, "..."]]


class SavedFields(BaseModel):
    """The fields of a JSON file that are read, by their types; others are left out."""

    model_config = ConfigDict(strict=True, frozen=True)


Fields = TypeVar("Fields", bound=SavedFields)


@contextmanager
def naming_damage(
    file: Path, *, kinds: tuple[type[Exception], ...] = (ValueError,), remedy: str = ANEW
) -> Iterator[None]:
    """Raise ValueError, in one line with the file and the remedy, where errors of `kinds` come.

    A ValueError that names the file passes, and so does memory that runs out. An error of the
    system is no damage: it passes too, with the name of the file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno not in SEEKING:
            raise named_error(error, file) from error
        raise _damage(file, error, remedy) from error
    except kinds as error:
        if says_out_of_memory(error) or (type(error) is ValueError and str(file) in str(error)):
            raise
        raise _damage(file, error, remedy) from error


def _damage(file: Path, error: Exception, remedy: str) -> ValueError:
    return ValueError(f"{file} cannot be read ({why_damaged(error)}); {remedy}")


def why_damaged(error: BaseException) -> str:
    """Return what an error says, in one line and in about LONGEST signs.

    >>> why_damaged(KeyError("findings"))
    "'findings' is absent"
    """
    if isinstance(error, KeyError):
        return f"{error} is absent"
    text = str(error)
    if "PyTorch" in text:  # its words advise options of its own
        return type(error).__name__
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "missing":
            return f"{first['loc'][-1]!r} is absent"
        place, found = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        text = f"{place}: {found}" if place else found
    return shortened(" ".join(text.split()) or type(error).__name__, most=LONGEST)


def write_json(
    file: Path,
    fields: Mapping[str, Any],
    *,
    plain: Callable[[Any], Any] | None = None,
    finite: bool = False,
) -> None:
    """Write a JSON object with a checksum of its fields, which `read_json` compares.

    `plain` returns what JSON holds of a value that it does not know. With `finite` numbers that
    are not raise ValueError: other programs do not read them.
    """
    assert CHECKSUM not in fields, "the checksum is added here"
    held = json.loads(json.dumps(fields, default=plain, allow_nan=not finite))
    write_whole(file, json.dumps({**held, CHECKSUM: _checksum(held)}, indent=1))


def read_json(file: Path, *, remedy: str = ANEW) -> dict[str, Any]:
    """Return the object that a JSON file holds; an empty file is damaged too.

    Its checksum is compared where it has one, and left out. Raises ValueError for a file that is
    damaged, was changed or is no file, and OSError for one that the system does not read.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} {why_no_file(file)}; {remedy}")
    with naming_damage(file, kinds=JSON_DAMAGE, remedy=remedy):
        held = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise TypeError(f"found a {type(held).__name__}, expected an object")
        if CHECKSUM in held and held.pop(CHECKSUM) != _checksum(held):
            raise ValueError(
                f"{file} was changed after it was written (its checksum is that of something "
                f'else): {remedy}; to use it as it is, take "{CHECKSUM}" out of it'
            )
        return held


def _checksum(held: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of the fields, however they are ordered and laid out."""
    return fingerprint_content(json.dumps(held, sort_keys=True).encode())


def read_fields(file: Path, fields: type[Fields], *, remedy: str = ANEW) -> Fields:
    """Return the fields that a JSON file holds; raises errors as `read_json` does."""
    held = read_json(file, remedy=remedy)
    with naming_damage(file, remedy=remedy):
        return fields.model_validate(held)


def read_array(file: Path) -> Shaped[np.ndarray, ...]:
    """Return the array of a .npy file without Python objects; raises errors as `read_json` does."""
    with warnings.catch_warnings(), naming_damage(file, kinds=(*ARRAY_DAMAGE, UserWarning)):
        warnings.simplefilter("error", UserWarning)  # a header that another program wrote
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise TypeError("found an archive, expected one array")
        return found


def read_arrays(
    file: Path,
    forms: Mapping[str, tuple[str, int]],
    *,
    otherwise: Mapping[str, Any] | None = None,
    remedy: str = ANEW,
) -> Arrays:
    """Return arrays of a .npz file by name, without Python objects.

    `forms` are the kinds that each may be of and its most dimensions, `otherwise` what stands for
    those that older files lack. Raises errors as `read_json` does.
    """
    held: Arrays = {**(otherwise or {})}
    with naming_damage(file, kinds=ARRAY_DAMAGE, remedy=remedy):
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if lacking := sorted({*forms} - {*archive.files, *held}):
                raise ValueError(f"no array {lacking[0]!r}")
            held |= {name: archive[name] for name in forms if name in archive.files}
        for name, (kinds, most) in forms.items():
            found = held[name]
            if found.ndim > most or (found.size and found.dtype.kind not in kinds):
                raise ValueError(f"{name} is of {found.dtype} with {found.ndim} dimensions")
        return held


def fingerprint_content(content: bytes) -> str:
    """Return 16 hexadecimal digits of a file's content, as `fingerprint_file` does."""
    return hashlib.sha256(content).hexdigest()[:16]


def fingerprint_file(file: Path) -> str:
    """Return 16 hexadecimal digits of a file's content (SHA-256)."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]
