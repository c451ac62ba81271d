"""Decoder processes: films that strangers send are decoded and prepared apart from the service.

Each process has limits on memory and time. One that dies or hangs is replaced, and only its film
fails. What comes back are lengths, JSON and pixels, never pickle: a decoder that a film has taken
over cannot run code in the service. A decoder imports no torch.

Letters in shapes: s pixels of a side of a prepared film, h and w pixels of a film's file.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from lucency.core.manifest import Preparation
from lucency.core.memory import held_bytes
from lucency.core.parallel import hand_back_memory, keep_freed_memory
from lucency.data.film_size import LONGEST_SIDE
from lucency.deploy.native_film import NativeFilm, decode_native, enhance_native

Square = UInt8[np.ndarray, "s s"]
REQUEST = struct.Struct(">cI")  # what is wanted, bytes of the film's file
PREPARED, NATIVE, ENHANCED = b"p", b"n", b"e"
HEADER = struct.Struct(">cII")  # kind, bytes of JSON, bytes of pixels
READY, DECODED, REFUSED = b"!", b"+", b"-"
PIPED = 2**20  # bytes that a pipe's reader holds
START_SECONDS = 60.0  # to import what decodes
GRACE_SECONDS = 2.0  # of the clock beyond the processor's time
KEPT = 32 << 20  # bytes of freed memory that a decoder keeps for its next film
DICOM_MARK, DICOM_PLACE = b"DICM", 128
REASONS = {  # how the reasons of `lucency.data.images.decode` begin -> code
    "zero bytes": "film-empty",
    "not an image": "film-unknown-format",
    "truncated": "film-truncated",
    "damaged": "film-damaged",
    "absurd size": "film-absurd-size",
    "a DICOM film: reading it needs": "dicom-unsupported",
}
UNANSWERED = (  # RuntimeError of a decoder that does not start, or was ended as it did
    ConnectionError, asyncio.IncompleteReadError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
ENDED, SLOW = "film-decoder-ended", "film-decoder-slow"
REFUSED_DICOM, OTHER = "dicom-refused", "film-unreadable"


class FilmError(ValueError):
    """A film that cannot be read, with a stable code."""

    def __init__(self, code: str, reason: str):
        super().__init__(reason)
        self.code = code


class DecodedFilm(NamedTuple):
    """A film as the network sees it, and what is odd about its picture."""

    pixels: Square
    quality: list[str]


class Decoders(NamedTuple):
    """The processes that wait for a film, None for one that is to be started anew."""

    command: tuple[str, ...]
    seconds: float
    side: int
    idle: asyncio.Queue[Process | None]


async def start_decoders(
    preparation: Preparation, *, count: int, memory: int, seconds: float
) -> Decoders:
    """Start `count` decoders, each with `memory` bytes of addresses and `seconds` a film.

    A lower limit that this process has is theirs too. Raises ValueError where they do not start.
    """
    limits = json.dumps({"memory": memory, "seconds": seconds})
    command = (
        sys.executable, "-P", "-m", "lucency.deploy.decoding",  # -P: not from the working folder
        preparation.model_dump_json(), limits,
    )  # fmt: skip
    decoders = Decoders(command, seconds, preparation.size, asyncio.Queue())
    several = (_started(decoders) for _ in range(count))
    lost: list[BaseException] = []
    for one in await asyncio.gather(*several, return_exceptions=True):
        if isinstance(one, BaseException):
            lost.append(one)
        else:
            decoders.idle.put_nowait(one)
    if lost:
        await stop_decoders(decoders)
        try:
            raise lost[0]
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{error}; expected room for {count} of them: memory, addresses (ulimit -v), "
                "processes (ulimit -u) and files (ulimit -n)"
            ) from error
    return decoders


async def stop_decoders(decoders: Decoders) -> None:
    """End the decoders that wait for a film."""
    while not decoders.idle.empty():
        if process := decoders.idle.get_nowait():
            await _ended(process)


async def decode_film(decoders: Decoders, content: bytes) -> DecodedFilm:
    """Return a film from its file's content; raises FilmError for one that cannot be read."""
    about, pixels = await _decoded(decoders, PREPARED, content)
    side = decoders.side
    film = np.frombuffer(pixels, dtype=np.uint8).reshape(side, side)
    return DecodedFilm(film, [str(one) for one in about["quality"]])


async def decode_native_film(decoders: Decoders, content: bytes) -> NativeFilm:
    """Return a film as its file has it; FilmError as `decode_film`."""
    return _native_film(*await _decoded(decoders, NATIVE, content))


async def decode_enhanced_film(decoders: Decoders, content: bytes) -> NativeFilm:
    """Return a film with the CLAHE of the preparation, at its own size; FilmError as before."""
    return _native_film(*await _decoded(decoders, ENHANCED, content))


def _native_film(about: dict[str, Any], pixels: bytes) -> NativeFilm:
    grey = np.frombuffer(pixels, dtype=_dtype(about)).reshape(about["height"], about["width"])
    return NativeFilm(grey, int(about["bits"]), float(about["low"]), float(about["high"]))


def _dtype(about: dict[str, Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8 if about["bits"] == 8 else "<u2")


async def _decoded(
    decoders: Decoders, wanted: bytes, content: bytes
) -> tuple[dict[str, Any], bytes]:
    """Return what a decoder states of a film, and its pixels; FilmError for one that it refuses."""
    process, whole = await decoders.idle.get(), False
    try:
        if process is None or process.returncode is not None:  # it ended while it waited
            process = await _started(decoders)
        async with asyncio.timeout(decoders.seconds + GRACE_SECONDS):
            await _send_film(process, wanted, content)
            kind, about, pixels = await _received(process, wanted, side=decoders.side)
        whole = True
    except TimeoutError:
        raise FilmError(SLOW, f"not decoded within {decoders.seconds:g} s") from None
    except UNANSWERED:
        raise FilmError(ENDED, "its decoder failed, or used up its memory or its time") from None
    finally:
        if process and not whole:
            await _ended(process)
        decoders.idle.put_nowait(process if whole else None)
    if kind == REFUSED:
        raise FilmError(str(about["code"]), str(about["reason"]))
    return about, pixels


async def _started(decoders: Decoders) -> Process:
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        *decoders.command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=None if os.environ.get("LUCENCY_TRACEBACK") else DEVNULL,
        limit=PIPED,
        env={**os.environ, **alone},
    )
    assert process.stdout is not None, "it is a pipe"
    try:
        async with asyncio.timeout(START_SECONDS):
            await process.stdout.readexactly(len(READY))
    except (TimeoutError, asyncio.IncompleteReadError):
        await _ended(process)
        status = process.returncode
        raise RuntimeError(f"a decoder process does not start (status {status})") from None
    return process


async def _send_film(process: Process, wanted: bytes, content: bytes) -> None:
    assert process.stdin is not None, "it is a pipe"
    process.stdin.write(REQUEST.pack(wanted, len(content)))
    process.stdin.write(content)
    await process.stdin.drain()


async def _received(
    process: Process, wanted: bytes, *, side: int
) -> tuple[bytes, dict[str, Any], bytes]:
    """Return kind, JSON and pixels of an answer; ValueError for one of another form."""
    assert process.stdout is not None, "it is a pipe"
    kind, described, size = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
    if kind not in (DECODED, REFUSED) or described > 2**16:
        raise ValueError("a decoder's answer has another form")
    about = json.loads(await process.stdout.readexactly(described))
    expected = 0 if kind == REFUSED else side * side if wanted == PREPARED else _bytes_of(about)
    if size != expected:
        raise ValueError("a decoder's answer has another form")
    return kind, about, await process.stdout.readexactly(size)


def _bytes_of(about: dict[str, Any]) -> int:
    """Return the bytes of a native film's pixels; ValueError for sides and depths that none has."""
    height, width, bits = (int(about[name]) for name in ("height", "width", "bits"))
    if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE and 8 <= bits <= 16):
        raise ValueError("a decoder's answer has another form")
    return height * width * _dtype(about).itemsize


async def _ended(process: Process) -> None:
    """End a decoder; what it had begun to answer is read, since `wait` waits for its pipe's end.

    One whose pipe has ended is given time to end by itself: `kill` would take away its status.
    """
    assert process.stdout is not None, "it is a pipe"
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS if process.stdout.at_eof() else 0):
            await process.wait()
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


def main() -> None:
    """Decode films from standard input to standard output until it ends: a decoder process."""
    preparation = Preparation.model_validate_json(sys.argv[1])
    limits = json.loads(sys.argv[2])
    for one in (signal.SIGINT, signal.SIGTERM):  # the service ends its decoders by itself
        signal.signal(one, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libpng and libjpeg write there themselves
        os.dup2(silence, stream)
    load_decoders()
    _limit_memory(int(limits["memory"]))
    _send(answers, READY)
    most = held_bytes() + KEPT
    while head := sys.stdin.buffer.read(REQUEST.size):
        wanted, length = REQUEST.unpack(head)
        content = sys.stdin.buffer.read(length)
        _limit_seconds(float(limits["seconds"]))
        _send(answers, _answer(wanted, content, preparation))
        del content
        if held_bytes() > most:
            hand_back_memory()
            most = held_bytes() + KEPT  # a first film of another kind loads what reads it


def load_decoders() -> None:
    """Import what decodes, before there are limits; one thread a decoder."""
    import cv2

    import lucency.audit.image_quality
    import lucency.data.preprocess  # noqa: F401

    cv2.setNumThreads(1)
    keep_freed_memory()


def _answer(wanted: bytes, content: bytes, preparation: Preparation) -> bytes:
    try:
        if wanted == PREPARED:
            film = prepare_content(content, preparation=preparation)
            return _packed(film.pixels.tobytes(), quality=film.quality)
        return _packed_native(_native_content(wanted, content, preparation))
    except FilmError as error:
        about = json.dumps({"code": error.code, "reason": str(error)}).encode()
        return HEADER.pack(REFUSED, len(about), 0) + about


def _packed(pixels: bytes, **about: Any) -> bytes:
    text = json.dumps(about).encode()
    return HEADER.pack(DECODED, len(text), len(pixels)) + text + pixels


def _packed_native(film: NativeFilm) -> bytes:
    height, width = film.grey.shape
    about = {"height": height, "width": width, **film._asdict()}
    del about["grey"]
    return _packed(film.grey.astype(_dtype(about)).tobytes(), **about)


def _native_content(wanted: bytes, content: bytes, preparation: Preparation) -> NativeFilm:
    try:
        if wanted == ENHANCED:
            return enhance_native(content, preparation=preparation)
        return decode_native(content)
    except ValueError as error:
        raise FilmError(_code(str(error), content), str(error)) from error


def prepare_content(content: bytes, *, preparation: Preparation) -> DecodedFilm:
    """Return the film that a file's content holds, as a network of this preparation sees it.

    It is read as `lucency.data.bit_depth.bits_for_network` has it. Raises FilmError.
    """
    from lucency.audit.image_quality import look_at, problems_of
    from lucency.data.images import decode_film
    from lucency.data.preprocess import prepare_film

    bits = preparation.bits if preparation.bits > 8 else 0
    try:
        film = decode_film(content, bits=bits)
    except ValueError as error:
        raise FilmError(_code(str(error), content), str(error)) from error
    pixels = prepare_film(film.grey, padded=film.padded, preparation=preparation)
    problems, _ = problems_of(*look_at(pixels[None]), known=None)
    return DecodedFilm(pixels, problems[0].split("|") if problems[0] else [])


def _code(reason: str, content: bytes) -> str:
    """Return the code of the reason why a film cannot be read."""
    dicom = content[DICOM_PLACE : DICOM_PLACE + len(DICOM_MARK)] == DICOM_MARK
    rest = REFUSED_DICOM if dicom else OTHER
    return next((REASONS[start] for start in REASONS if reason.startswith(start)), rest)


def _send(stream: IO[bytes], answer: bytes) -> None:
    stream.write(answer)
    stream.flush()


def _limit_memory(size: int) -> None:
    """Limit this process's addresses, files and core, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {resource.RLIMIT_AS: size, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
    for kind, wanted in limits.items():
        most = _allowed(wanted, resource.getrlimit(kind)[1])
        resource.setrlimit(kind, (most, most))


def _limit_seconds(seconds: float) -> None:
    """Limit the processor time from now on, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (_allowed(math.ceil(used + seconds), hard), hard))


def _allowed(wanted: int, hard: int) -> int:
    """Return a limit that is not above the hard one, which this process may not raise."""
    import resource

    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


if __name__ == "__main__":
    main()
