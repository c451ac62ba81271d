"""Progress: plain lines where nobody watches, a bar on a terminal, silence from other ranks."""

import io
import re
import sys

import pytest

from lucency.core import progress as module
from lucency.core.progress import progress, say, shortened


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_plain_lines_are_few_and_say_rate_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
):
    with progress("Preparing", unit="films") as advance:
        for done in range(0, 1001, 10):
            advance(done, 1000, "loss 0.5")
            clock.now += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Preparing: 150 of 1,000 films, 10.0 a second, 1 min 25 s left, loss 0.5"
    assert lines[-1] == "Preparing: 1,000 of 1,000 films, 10.0 a second, loss 0.5"
    assert len(lines) == 7


def test_work_that_was_found_done_does_not_count_as_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
):
    with progress("Preparing", unit="films") as advance:
        advance(900, 1000)
        clock.now += 20
        advance(940, 1000)
    line = "Preparing: 940 of 1,000 films, 2.0 a second, 30 s left\n"
    assert capsys.readouterr().err == line


def test_a_first_part_states_no_rate_that_is_not_known(
    clock: Clock, capsys: pytest.CaptureFixture[str]
):
    with progress("Predicting", unit="films") as advance:
        clock.now += 35
        advance(32, 480)
    assert capsys.readouterr().err == "Predicting: 32 of 480 films\n"


def test_slow_work_states_the_time_of_one(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with progress("Explaining", unit="films") as advance:
        advance(0, 141)
        clock.now += 100
        advance(8, 141)
    line = "Explaining: 8 of 141 films, 12 s a film, 27 min 42 s left\n"
    assert capsys.readouterr().err == line


def test_other_ranks_are_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with progress("Preparing", unit="films") as advance:
        advance(1, 1)
    say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("Preparing", unit="films") as advance:
        advance(0, 20)
        advance(20, 20, "loss 0.5")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "Preparing" in shown
    assert "20/20 films" in shown
    assert "a second" in shown
    assert "loss 0.5" in shown


def test_what_goes_wrong_inside_comes_out():
    with pytest.raises(KeyError, match="inside"), progress("Preparing", unit="films"):
        raise KeyError("inside")


def test_no_name_of_a_file_commands_the_terminal(capsys: pytest.CaptureFixture[str]):
    say("Left out is \x1b[2J\x9b31m\u202egnp.1\r\n\x07caf\udce9.png: 胸部　é")
    assert capsys.readouterr().err == (
        "Left out is \\x1b[2J\\x9b31m\\u202egnp.1\\r\\n\\x07caf\\udce9.png: 胸部　é\n"
    )


def test_what_is_long_keeps_its_beginning_and_what_is_expected():
    choices = ", ".join(f"finding {number}" for number in range(40))
    message = f"labels: found {'x' * 5_000}; expected one of {choices}; nearest is 'finding 3'"
    kept = shortened(message, most=300)
    assert kept.startswith("labels: found xxx")
    assert kept.endswith(f" … expected one of {choices}; nearest is 'finding 3'")
    assert shortened(message[:300], most=300) == message[:300]
    assert len(shortened("expected " + "x" * 5_000, most=300)) <= 303
    assert len(shortened("x" * 5_000, most=300)) <= 303
