"""Memory that runs out is one line, whichever library says so."""

import sys

import cv2
import pytest

from lucency.cli import app as cli
from lucency.core.memory import errors_of_memory, says_out_of_memory

ERRORS = (
    MemoryError(),
    cv2.error("std::bad_alloc"),
    RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 663552 bytes"
    ),
    RuntimeError("could not create a primitive"),
    RuntimeError("can't start new thread"),
    OSError(12, "Cannot allocate memory"),
    ValueError("Error tokenizing data. C error: out of memory"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: str(one) or type(one).__name__)
def test_memory_that_runs_out_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["lucency", "protocols"])
    monkeypatch.setattr(cli, "app", fail)
    assert cli.call() == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("lucency: not enough memory (")


def test_other_errors_of_those_kinds_are_none(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(sys, "argv", ["lucency", "protocols"])
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli.call()
    assert cv2.error in errors_of_memory()
    assert not says_out_of_memory(cv2.error("an assertion failed"))
