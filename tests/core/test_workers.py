"""Worker processes: results in order, bounded memory, one line when a worker dies, none left."""

import multiprocessing
import multiprocessing.util
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lucency.core.parallel import QUEUE, in_workers, shut_out_working_folder
from tasks import DIES, FAILS, square


def counted(tasks: range, taken: list[int]) -> Iterator[int]:
    for task in tasks:
        taken.append(task)
        yield task


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_tasks(workers: int):
    tasks = [task for task in range(26) if task not in (DIES, FAILS)]
    found = list(in_workers(square, iter(tasks), workers=workers))
    assert [value for value, _ in found] == [task * task for task in tasks]
    at_work = {process for _, process in found}
    assert (at_work == {os.getpid()}) == (workers < 2)
    assert 1 <= len(at_work) <= max(1, workers)
    assert not multiprocessing.active_children()


def test_workers_run_no_code_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pickle.py").write_text("raise SystemExit('code that came with films')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    shut_out_working_folder()
    assert [value for value, _ in in_workers(square, iter([2, 3]), workers=2)] == [4, 9]


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_to_do_is_done(workers: int):
    assert list(in_workers(square, iter([]), workers=workers)) == []


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 2 * QUEUE + 1)])
def test_tasks_are_taken_as_results_are_and_not_all_at_once(workers: int, ahead: int):
    taken: list[int] = []
    tasks = counted(range(20, 1000), taken)
    results = in_workers(square, tasks, workers=workers)
    assert taken == []
    for done in range(1, 4):
        next(results)
        assert done <= len(taken) < done + ahead
    results.close()
    assert len(taken) < 3 + ahead
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_one_line_and_leaves_no_process():
    with pytest.raises(ValueError, match="a worker process died") as refusal:
        list(in_workers(square, iter(range(DIES + 1)), workers=2))
    assert "run again with fewer than 2 workers" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__suppress_context__, "its traceback would be twice as long"
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_itself_is_passed_on(workers: int):
    results = in_workers(square, iter(range(DIES + 1, 99)), workers=workers)
    for task in range(DIES + 1, FAILS):
        assert next(results)[0] == task * task
    with pytest.raises(ValueError, match=f"^film {FAILS} is broken$"):
        next(results)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_worker_starts_waits_until_it_has(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: signal.Signals
):
    def stopped(*words: Any, **more: Any) -> int:
        process = start(*words, **more)
        if "spawn_main" in str(words):  # else what tracks semaphores
            begun.append(process)
            signal.raise_signal(number)
        return process

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    begun, start = list[int](), multiprocessing.util.spawnv_passfds
    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", stopped)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt, match=str(int(number))):
            list(in_workers(square, iter(range(9)), workers=2))
    finally:
        signal.signal(number, before)
    for process in begun:
        with suppress(ChildProcessError):  # those of the pool are awaited
            os.waitpid(process, 0)
    assert begun
    assert "Traceback" not in capfd.readouterr().err
