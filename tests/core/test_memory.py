"""Memory that runs out is one line, whichever library says so."""

import resource
import sys

import cv2
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException
from pandas.errors import ParserError

from lucency.cli import app as cli
from lucency.core import memory
from lucency.core.files import BusyError
from lucency.core.memory import check_room, errors_of_memory, says_out_of_memory, thread_pool

ERRORS = (
    MemoryError(),
    cv2.error("std::bad_alloc"),
    RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 663552 bytes"
    ),
    RuntimeError("could not create a primitive"),
    RuntimeError("can't start new thread"),
    OSError(12, "Cannot allocate memory"),
    ParserError("Error tokenizing data. C error: out of memory"),
    Fail("Failed to allocate memory for requested buffer of size 1"),
    RuntimeException("std::bad_alloc"),
)
OTHERS = (
    ValueError("a worker process died (out of memory? a script?)"),
    ValueError("out of memory.csv: found no table"),
    BusyError("out of memory is being written by another process"),
    OSError(2, "No such file or directory", "out of memory.png"),
    cv2.error("an assertion failed"),
    Fail("no such operator"),
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
    assert {cv2.error, Fail, RuntimeException} < {*errors_of_memory()}


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_words_about_memory_and_names_of_files_are_no_lack_of_it(error: Exception):
    assert not says_out_of_memory(error)


def test_a_library_that_finds_no_room_as_it_is_loaded_says_so():
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert says_out_of_memory(error)
    assert isinstance(error, errors_of_memory())
    assert not says_out_of_memory(ImportError("No module named 'torch'"))


def test_of_the_program_s_own_errors_that_counts_which_they_were_raised_from():
    error = ValueError("the films could not be read")
    error.__cause__ = MemoryError()
    assert says_out_of_memory(error)
    error.__cause__ = OSError(5, "Input/output error")
    assert not says_out_of_memory(error)


def test_a_command_begins_only_where_the_libraries_can_be_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    taken = int(memory.STATM.read_text().split()[0]) * resource.getpagesize()
    for mebibytes, loaded, words, status in (
        (700, False, ["protocols"], 2),
        (700, True, ["protocols"], 0),
        (700, False, ["protocols", "--help"], 0),
        (900, False, ["protocols"], 0),
    ):
        with monkeypatch.context() as patch:
            size = taken + (mebibytes << 20)
            patch.setattr(resource, "getrlimit", lambda _, size=size: (size, size))
            patch.setattr(sys, "argv", ["lucency", *words])
            if not loaded:
                patch.delitem(sys.modules, "numpy")
            assert cli.call() == status, (mebibytes, words)
    assert "left of what ulimit -v allows, expected 768" in capsys.readouterr().err


def test_training_and_threads_begin_only_where_there_is_room(monkeypatch: pytest.MonkeyPatch):
    taken = int(memory.STATM.read_text().split()[0]) * resource.getpagesize()

    def limit_to(size: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (size, size))

    limit_to(resource.RLIM_INFINITY)
    check_room()
    limit_to(taken + (1 << 30))
    check_room()
    with thread_pool(2) as pool:
        assert pool.submit(len, "two").result() == 3
    limit_to(taken + (1 << 20))
    with pytest.raises(MemoryError, match="left of what ulimit -v allows, expected 64"):
        check_room()
    with pytest.raises(MemoryError, match="expected 96"):
        thread_pool(2)
