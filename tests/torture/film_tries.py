"""Films through `lucency predict` in this process: what it writes, what it takes, what is lost."""

import io
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lucency.cli.app import call
from lucency.core.manifest import Preparation
from lucency.evaluation.calibration import no_recalibration
from lucency.models.classifier import Classifier, save_classifier
from lucency.models.networks import build
from torture.hostile_pictures import whole
from torture.weigh import SIDE, weighed

MOST_SECONDS, MOST_BYTES, SMALL = 20, int(1.5 * 2**30), 1 << 20
GOOD = "a-good-film.png"
REASONS = {  # how the reasons begin for which a film is left out -> code
    "zero bytes": "empty", "not an image": "unknown-format", "truncated": "truncated",
    "damaged": "damaged", "absurd size": "absurd-size", "cannot be read": "unreadable",
    "encrypted in its archive": "encrypted", "compressed by method": "compression",
    "a DICOMDIR": "dicomdir", "raw data of a detector": "for-processing",
    "no plain film": "not-plain", "not of the chest": "not-chest", "no pixels": "no-pixels",
    "several frames": "frames", "in colour": "colour", "of another depth": "depth",
    "no decoder of": "no-decoder",
}  # fmt: skip
UNNAMED = "without-code"


class Ran(NamedTuple):
    """What a command wrote, with which status it ended."""

    status: int
    out: str
    err: str


class Tried(NamedTuple):
    """Outcomes of films, one a film, what was wrong, and the lines on standard error.

    `places` are those of the films, in the order of their outcomes.
    """

    outcomes: list[str]
    wrong: list[str]
    lines: list[str]
    places: tuple[str, ...] = ()


def small_model(folder: Path) -> Path:
    """Write the smallest network that predicts two findings."""
    import torch

    torch.manual_seed(0)
    scaling = ((0.5,) * 3, (0.5,) * 3)
    classifier = Classifier(
        network=build("test_efficientnet", findings=2, mean_std=scaling).eval(),
        name="small", architecture="test_efficientnet", findings=("Left", "Right"),
        preparation=Preparation(size=SIDE), mean=scaling[0], std=scaling[1], protocol={},
        provenance="none", split="none", device="cpu", epoch=1,
        recalibration=no_recalibration(2), threshold=np.full(2, 0.5),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_classifier(classifier, folder)
    return folder


def ran(*words: str | Path) -> Ran:
    """Run a command as the terminal does, in this process; a traceback goes through."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with ExitStack() as stack:
        stack.callback(_put_back, sys.argv, sys.stdout, sys.stderr)
        sys.argv = ["lucency", *map(str, words)]
        sys.stdout, sys.stderr = out, err
        status = call()
    for stream in (out, err):
        stream.flush()
    return Ran(status, *(one.buffer.getvalue().decode() for one in (out, err)))  # type: ignore[attr-defined]


def _put_back(argv: list[str], out: Any, err: Any) -> None:
    sys.argv, sys.stdout, sys.stderr = argv, out, err


def write_films(folder: Path, contents: Iterable[bytes], *, suffix: str) -> None:
    """Write files of these contents, and one film that can be read."""
    folder.mkdir(parents=True)
    (folder / GOOD).write_bytes(whole()["PNG"])
    for number, content in enumerate(contents):
        (folder / f"film-{number:05d}{suffix}").write_bytes(content)


def try_films(
    model: Path, folder: Path, *, expected: int | None = None, engine: str = "onnx"
) -> Tried:
    """Predict all films of a folder that holds GOOD; each is `read`, or left out with a code.

    Wrong is a status but 0, a count of films but the expected one, a film twice, GOOD lost, a line
    with raw control characters, a reason of several lines or of no known code.
    """
    answer = ran("predict", model, folder, "--json", "--engine", engine)
    wrong = raw_lines(answer.err)
    if answer.status or not answer.out:
        wrong.append(f"status {answer.status}: {answer.err[-300:]}")
        return Tried(["stopped"], wrong, answer.err.splitlines())
    found = json.loads(answer.out)
    names = [one["film"] for one in found["films"]] + [one["film"] for one in found["rejected"]]
    codes = [code_of(one["reason"]) for one in found["rejected"]]
    wrong += [one["reason"] for one in found["rejected"] if code_of(one["reason"]) == UNNAMED]
    if len(set(names)) != len(names):
        wrong.append("a film twice")
    if expected is not None and len(names) != expected:
        wrong.append(f"{len(names)} films, expected {expected}")
    if not any(str(one["film"]).endswith(GOOD) for one in found["films"]):
        wrong.append("the good film is lost")
    outcomes = ["read"] * len(found["films"]) + codes
    return Tried(outcomes, wrong, answer.err.splitlines(), tuple(map(str, names)))


def code_of(reason: str) -> str:
    """Return the code of a reason; of one that is not one printable line, UNNAMED."""
    if not reason.isprintable():
        return UNNAMED
    return next((code for start, code in REASONS.items() if reason.startswith(start)), UNNAMED)


def raw_lines(written: str) -> list[str]:
    """Return what a terminal should not be sent: control characters, tracebacks."""
    lines = written.split("\n")
    return [repr(one) for one in lines if not one.isprintable() or one.startswith("Traceback")]


def heavy(folder: Path) -> list[str]:
    """Decode each file of a folder by itself; name what is too heavy, and what ends the decoder.

    Too heavy is a file below 1 MiB that takes more than MOST_SECONDS or MOST_BYTES.
    """
    files = sorted(file for file in folder.iterdir() if _is_small(file))
    found, status = weighed(files)
    named = [
        f"{Path(one.name).name}: {one.seconds:.0f} s, {one.peak >> 20} MiB"
        for one in found
        if one.seconds > MOST_SECONDS or one.peak > MOST_BYTES
    ]
    if status or len(found) != len(files):
        named.append(
            f"status {status} after {len(found)} of {len(files)} files: {files[len(found) :][:1]}"
        )
    return named


def _is_small(file: Path) -> bool:
    return not file.exists() or (not file.is_dir() and file.stat().st_size < SMALL)
