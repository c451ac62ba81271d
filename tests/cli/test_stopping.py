"""Ctrl-C and SIGTERM: one line and the status of the signal, whatever they fall into."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lucency.cli import stopping
from lucency.cli.app import app, call
from lucency.cli.stopping import STOPPED, main, stopped_in_one_line
from lucency.report import review_page

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the handlers and the environment of this process as they were."""
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    before, hook = {one: signal.getsignal(one) for one in SIGNALS}, sys.unraisablehook
    yield
    for one, handler in before.items():
        signal.signal(one, handler)
    sys.unraisablehook = hook


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_one_line_and_its_status(number: signal.Signals, capsys):
    before, hook = signal.getsignal(number), sys.unraisablehook
    with pytest.raises(SystemExit) as end, stopped_in_one_line():
        signal.raise_signal(number)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == STOPPED + "\n"
    assert signal.getsignal(number) is before
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_while_the_line_is_written_changes_nothing(
    number: signal.Signals, capsys, monkeypatch: pytest.MonkeyPatch
):
    def say_slowly() -> None:
        signal.raise_signal(number)
        sys.stderr.write(STOPPED + "\n")

    monkeypatch.setattr(stopping, "say_stopped", say_slowly)
    with pytest.raises(SystemExit) as end, stopped_in_one_line():
        signal.raise_signal(number)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == STOPPED + "\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_that_is_stopped_writes_no_second_line(
    number: signal.Signals, capsys, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("lucency.config.protocol.list_protocols", stop)
    monkeypatch.setattr(sys, "argv", ["lucency", "protocols"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == STOPPED + "\n"
    assert os.environ["PYTHONSAFEPATH"] == "1"  # for processes that the command starts


def test_what_a_library_makes_of_a_signal_is_the_same_line(capsys):
    def load() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("half of it") from error

    with pytest.raises(SystemExit) as end, stopped_in_one_line():
        load()
    assert end.value.code == 130
    assert capsys.readouterr().err == STOPPED + "\n"


def test_a_signal_that_falls_into_a_finaliser_comes_again(capsys):
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        Finalised()
        for _ in range(2000):
            time.sleep(0.01)

    with pytest.raises(SystemExit) as end, stopped_in_one_line():
        work()
    assert end.value.code == 143
    assert capsys.readouterr().err == STOPPED + "\n"


def test_a_signal_is_not_raised_again_after_the_end(monkeypatch: pytest.MonkeyPatch):
    raised = []
    raise_signal = signal.raise_signal
    monkeypatch.setattr(stopping, "AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    with stopped_in_one_line():

        class Finalised:
            def __del__(self) -> None:
                raise_signal(signal.SIGTERM)

        Finalised()
    waiting = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    for one in waiting:
        one.join()
    assert all(one.daemon for one in waiting)
    assert raised == []


def test_other_ends_stay_as_they_are(capsys):
    with pytest.raises(ZeroDivisionError), stopped_in_one_line():
        _ = 1 / 0
    with pytest.raises(SystemExit, match=r"^2$"), stopped_in_one_line():
        sys.exit(2)
    assert capsys.readouterr().err == ""


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopped_in_one_line():
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_processes_that_were_launched_together_end_at_once(monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("lucency.cli.app.main", lambda: seen.append(signal.getsignal(SIGNALS[1])))
    main()
    assert seen == [signal.SIG_DFL]
    monkeypatch.setenv("WORLD_SIZE", "x")  # by which the command ends
    main()
    assert len(seen) == 2


def test_a_review_that_is_stopped_may_be_written_again(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(finished)
    words = ["audit", "review", "runs/demo", "--films", "2", "--out", str(tmp_path / "review")]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    mine = tmp_path / "review" / "sample.csv"
    mine.parent.mkdir()
    mine.write_text("mine")
    refused = CliRunner().invoke(app, words).exception
    assert "sample.csv is there, and no written.json beside it names it" in str(refused)
    assert mine.read_text() == "mine"
    mine.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(review_page, "review_page", stop)
        assert CliRunner().invoke(app, words).exit_code == 130
    assert (tmp_path / "review" / "sample.csv").is_file()
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    form = tmp_path / "review" / "form.csv"
    empty = form.read_text()
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0  # at its very end
    assert form.read_text() == empty
    form.write_text(empty.replace(",,\n", ",yes,\n", 1))
    monkeypatch.setattr("sys.argv", ["lucency", *words])
    assert call() == 2
    assert "holds a review of other films, or with answers" in capsys.readouterr().err
    assert ",yes," in form.read_text()
    form.write_text(empty)
    monkeypatch.setattr("sys.argv", ["lucency", *words, "--seed", "1"])
    assert call() == 2
