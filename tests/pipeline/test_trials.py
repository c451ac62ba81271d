"""Trials: processes that are killed share a journal, and no trial is lost, doubled or changed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lucency.config.search_space import Span, Sweep

optuna = pytest.importorskip("optuna", reason="optuna is absent: pip install 'lucency[sweep]'")
from lucency.pipeline.trials import DEATHS, REASON, STARTUP, FlockedJournal, Trials  # noqa: E402

SPACE = {
    "training.learning_rate": Span(low=1e-5, high=1e-2, log=True),
    "training.epochs": Span(low=2, high=6, step=2),
    "training.dropout": Span(low=0.0, high=0.3, step=0.1),
    "training.augment": ("none", "gentle"),
    "balance": ({"method": "none"}, {"method": "ml-ros", "percent": 20}),
}
WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_trials import opened, score

trials = opened(Path(sys.argv[1]), trials=30)
for trial, values in trials.each():
    with (trials.folder / "done.txt").open("a") as done:
        done.write(f"{trial.number}\\n")
    time.sleep(0.05)
    trials.finish(trial, score(values))
"""


def opened(folder: Path, *, trials: int, pruning: str = "none", seed: int = 0) -> Trials:
    sweep = Sweep.model_validate(
        {"trials": trials, "pruning": pruning, "seed": seed, "space": SPACE}
    )
    return Trials(folder=folder, sweep=sweep, epochs=6)


def score(values: dict) -> float:
    return 0.5 + values["training.dropout"] / 2 + values["training.learning_rate"]


def run(trials: Trials) -> list[dict]:
    found = []
    with closing(trials.each()) as several:
        for trial, values in several:
            found.append(values)
            trials.finish(trial, score(values))
    return found


def test_values_come_from_the_space_and_are_what_the_journal_has(tmp_path: Path):
    trials = opened(tmp_path, trials=14)
    found = run(trials)
    assert len(found) == 14
    for values in found:
        assert 1e-5 <= values["training.learning_rate"] <= 1e-2
        assert values["training.epochs"] in (2, 4, 6)
        assert values["training.dropout"] in (0.0, 0.1, 0.2, 0.3)
        assert values["balance"] in SPACE["balance"]
    again = opened(tmp_path, trials=14)
    assert [again.shown(one) for one in again.every()] == found
    assert again.shown(again.best()) == max(found, key=score)
    assert run(again) == []


def test_a_seed_may_be_as_large_as_a_date(tmp_path: Path):
    assert len(run(opened(tmp_path, trials=2, seed=20_261_130))) == 2


def test_one_process_gives_the_same_order_and_so_do_several_one_after_the_other(tmp_path: Path):
    whole = run(opened(tmp_path / "whole", trials=14))
    for number in (5, 9, 14):
        run(opened(tmp_path / "parts", trials=number))
    parts = opened(tmp_path / "parts", trials=14)
    assert [parts.shown(one) for one in parts.every()] == whole
    assert run(opened(tmp_path / "other", trials=14, seed=1)) != whole


def test_a_trial_at_work_is_nobody_else_s_and_a_dead_one_is_the_next_s(tmp_path: Path):
    one, other = opened(tmp_path, trials=2), opened(tmp_path, trials=2)
    mine, theirs = one.claim(), other.claim()
    assert mine
    assert theirs
    assert (mine[0].number, theirs[0].number) == (0, 1)
    assert one.claim() is None
    assert not one.is_finished()
    values = other.candidate(theirs[0])
    theirs[1].release()  # as the system does when a process dies
    adopted = one.claim()
    assert adopted
    assert adopted[0].number == 1
    assert one.candidate(adopted[0]) == values
    for trial, lock in (mine, adopted):
        one.finish(trial, 0.5)
        lock.release()
    assert one.claim() is None
    assert other.is_finished()


def test_a_trial_whose_processes_keep_dying_is_given_up_and_the_next_one_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trials = opened(tmp_path, trials=2)

    def dies() -> int:
        claimed = opened(tmp_path, trials=2).claim()
        assert claimed
        claimed[1].release()
        return claimed[0].number

    assert [dies() for _ in range(DEATHS)] == [0] * DEATHS
    trials.watching(trials._begun(0), epochs=6)([{"epoch": 1, "val_auc": 0.5}])
    assert [dies() for _ in range(DEATHS - 1)] == [0] * (DEATHS - 1)  # it came on: counted anew
    trials.forgive(trials._begun(0))
    assert [dies() for _ in range(DEATHS - 1)] == [0] * (DEATHS - 1)
    assert dies() == 1
    given_up = trials.every()[0]
    assert given_up.state.name == "PRUNED"
    assert given_up.user_attrs[REASON].startswith("given up: 5 processes ended in epoch 2, killed")
    assert "Trial 0: given up" in capsys.readouterr().err
    trials.forgive(trials._begun(0))  # of a finished one: nothing
    assert len(run(trials)) == 1
    assert trials.is_finished()


def test_a_trial_that_died_before_its_values_were_written_gets_them(tmp_path: Path):
    trials = opened(tmp_path, trials=1)
    claimed = trials.claim()
    assert claimed
    claimed[1].release()
    journal = tmp_path / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["op_code"] != 5]  # no value at all
    journal.write_text("".join(kept))
    again = opened(tmp_path, trials=1)
    assert again.shown(again.every()[0]) == {}
    assert run(again) == [trials.candidate(claimed[0])]


def test_a_torn_line_is_cut_off(tmp_path: Path):
    trials = opened(tmp_path, trials=3)
    run(trials)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    lock = FlockedJournal(journal)
    lock.acquire()
    lock.release()
    assert journal.read_bytes() == whole
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    assert len(run(opened(tmp_path, trials=4))) == 1


def test_what_is_behind_is_pruned_but_not_in_its_last_epoch(tmp_path: Path):
    trials = opened(tmp_path, trials=STARTUP + 2, pruning="median")
    with closing(trials.each()) as several:
        for trial, _ in several:
            epochs = [{"epoch": n, "val_auc": 0.7 - trial.number / 10} for n in (1, 2)]
            watch = trials.watching(trial, epochs=2)
            if trial.number < STARTUP:
                watch(epochs[:1])
                watch(epochs)
                trials.finish(trial, 0.7)
            elif trial.number == STARTUP:
                with pytest.raises(optuna.TrialPruned):
                    watch(epochs[:1])
                with pytest.raises(optuna.TrialPruned):  # also when it goes on after a kill
                    trials.watching(trial, epochs=2)(epochs[:1])
                trials.finish(trial, None, reason="pruned")
            else:
                watch(epochs)
                trials.finish(trial, 0.1)
    last = trials.every()[-2:]
    assert [one.state.name for one in last] == ["PRUNED", "COMPLETE"]
    assert last[0].user_attrs[REASON] == "pruned"
    assert last[0].intermediate_values == {1: pytest.approx(0.2)}
    assert trials.best().number == 0


@pytest.mark.parametrize("epochs", [1, 9])
def test_hyperband_prunes_what_is_behind_in_its_bracket(tmp_path: Path, epochs: int):
    trials = replace(opened(tmp_path, trials=24, pruning="hyperband"), epochs=epochs)
    with closing(trials.each()) as several:
        for trial, _ in several:
            watch = trials.watching(trial, epochs=epochs)
            figures = [{"epoch": n + 1, "val_auc": 1 - trial.number / 50} for n in range(epochs)]
            try:
                for n in range(epochs):
                    watch(figures[: n + 1])
            except optuna.TrialPruned:
                trials.finish(trial, None)
            else:
                trials.finish(trial, figures[-1]["val_auc"])
    states = [one.state.name for one in trials.every()]
    assert len(states) == 24
    assert ("PRUNED" in states) == (epochs > 1)
    assert trials.best().number == 0


def test_without_a_trial_trained_to_its_end_there_is_no_best(tmp_path: Path):
    trials = opened(tmp_path, trials=1)
    with closing(trials.each()) as several:
        for trial, _ in several:
            trials.finish(trial, None, reason="the loss is no longer finite")
    with pytest.raises(ValueError, match="none of 1 trials was trained to its end"):
        trials.best()


def started(folder: Path) -> subprocess.Popen[bytes]:
    places = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *sys.path]))
    command = [sys.executable, "-c", WORKER, str(folder), str(Path(__file__).parent)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": places})


def wait_for_lines(file: Path, count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if file.exists() and len(file.read_text().splitlines()) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"{file} has no {count} lines after a minute")


def test_two_processes_one_of_them_killed_three_times_do_each_trial(tmp_path: Path):
    """A trial that a kill ended is begun twice, under its number, and entered once."""
    steady, done = started(tmp_path), tmp_path / "done.txt"
    for kills in (4, 10, 16):
        worker = started(tmp_path)
        wait_for_lines(done, kills)
        time.sleep(1)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    last = started(tmp_path)
    assert steady.wait(timeout=120) == last.wait(timeout=120) == 0
    trials = opened(tmp_path, trials=30)
    assert [one.number for one in trials.every()] == [*range(30)]
    assert {one.state.name for one in trials.every()} == {"COMPLETE"}
    assert [one.value for one in trials.every()] == [
        pytest.approx(score(trials.shown(one))) for one in trials.every()
    ]
    begun = [int(line) for line in done.read_text().splitlines()]
    assert {*begun} == {*range(30)}
    assert len(begun) <= 30 + 3
