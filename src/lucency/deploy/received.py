"""Films and parameters of a request, read strictly; films are held in memory, never on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from lucency.deploy.problems import Problem

RAW = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")
MULTIPART = "multipart/form-data"
LONGEST_NAME = 255
LARGEST_FIELD = 2**16  # bytes of a part that is no file


class ReceivedFilm(NamedTuple):
    """The name that a client gives to a film, and the content of its file."""

    name: str
    content: bytes


class FilmParser(MultiPartParser):
    """A parser that keeps files in memory and knows whether the closing boundary came.

    Names are UTF-8: a charset that a client chooses could make texts that no answer can hold.
    """

    ended = False

    def on_end(self) -> None:
        """Take note of the closing boundary."""
        self.ended = True

    async def parse(self) -> FormData:
        """Return the parts; MultiPartException for a charset, and without a closing boundary."""
        stated = parse_options_header(self.headers["content-type"])[1]
        if stated.get(b"charset", b"utf-8").lower() != b"utf-8":
            raise MultiPartException("found a charset; expected none, or utf-8")
        form = await super().parse()
        if self.ended:
            return form
        for file in self._files_to_close_on_error:
            file.close()
        raise MultiPartException("the closing boundary is missing")


async def received_films(request: Request, *, most: int, largest: int) -> list[ReceivedFilm]:
    """Return the films of a body, at most `most`; its size was limited to `largest` bytes before.

    The body is multipart/form-data with a file part a film, or one film of a type in RAW; what a
    film is follows from its content. Raises Problem.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem("media-type", "expected a body without Content-Encoding")
    if kind in RAW:
        return [ReceivedFilm("film", await request.body())]
    if kind != MULTIPART:
        raise Problem("media-type", f"expected {', '.join((MULTIPART, *RAW))}")
    parser = FilmParser(
        request.headers, request.stream(), max_files=most, max_fields=most,
        max_part_size=LARGEST_FIELD,
    )  # fmt: skip
    parser.spool_max_size = largest + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        many = error.message.startswith("Too many")
        raise Problem("too-many-films" if many else "multipart-invalid", error.message) from error
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if not files:
            raise Problem("no-film", "expected a part with a filename for each film")
        return [
            ReceivedFilm(_name_of(file, place), await file.read())
            for place, file in enumerate(files, start=1)
        ]
    finally:
        await form.close()


def _name_of(file: UploadFile, place: int) -> str:
    """Return what a client calls a film; arrays of names would lose a NUL at its end."""
    return (file.filename or f"film {place}")[:LONGEST_NAME].replace(
        "\0", "\N{REPLACEMENT CHARACTER}"
    )


def parameters(request: Request, known: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a request, those that are absent by their defaults in `known`.

    Raises Problem for an unknown one and for one that is given twice.
    """
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    for name in names:
        if name not in known:
            expected = f"expected {', '.join(known)}" if known else "expected none"
            raise Problem("parameter-invalid", f"found a parameter of another name; {expected}")
        if names.count(name) > 1:
            raise Problem("parameter-invalid", f"{name} is given twice: expected it once")
    return {**known, **dict(given)}


def chosen(name: str, value: str, choices: Sequence[str]) -> str:
    """Return a value that is among the choices of a parameter; Problem for another."""
    if value not in choices:
        raise Problem("parameter-invalid", f"{name}: expected one of {', '.join(choices)}")
    return value


def whole_number(name: str, value: str, *, most: int) -> int:
    """Return a number from 1 to `most`; Problem for other values."""
    plain = value.isascii() and value.isdigit() and len(value) <= len(str(most))
    if not plain or not 1 <= int(value) <= most:
        raise Problem("parameter-invalid", f"{name}: expected a whole number from 1 to {most}")
    return int(value)
