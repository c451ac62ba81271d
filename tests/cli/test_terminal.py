"""What commands print for people on a terminal: short tables, few decimals, every lost film."""

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.audit.checks.issue import Issue, issue_table
from lucency.cli.answers import SHOWN_METRICS, evaluation_in_words, write_csv_out, write_out
from lucency.cli.app import app, call
from lucency.cli.output import issues_in_words
from lucency.cli.run_commands import BEFORE, _set_aside
from lucency.core.files import BusyError
from lucency.core.locks import locked
from lucency.core.progress import say
from lucency.deploy.listening import announce
from lucency.pipeline.film_inference import MOST_NAMED

PREDICTIONS = "runs/demo/predictions/test_resnet/predictions.npz"


@pytest.fixture
def at_work(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def typed(*words: str) -> tuple[int, str, str]:
    """Run a command and return its status, standard output and standard error."""
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def test_an_evaluation_is_a_table_of_the_main_metrics(at_work: Path, tmp_path: Path):
    _, out, _ = typed("evaluate", PREDICTIONS, "--out", str(tmp_path / "out"))
    first, heads, *rows, bare, where = out.splitlines()
    assert first.startswith("test_resnet: macro AUC .")
    assert " of 3 findings" in first
    assert "without interval: fewer than" in bare
    assert all(title in heads for title in SHOWN_METRICS.values())
    assert [row.split()[0] for row in rows][-2:] == ["macro", "micro"]
    assert len(rows) == 3 + 2
    assert where == f"all metrics: {tmp_path / 'out'}/metrics.csv"
    assert len(pd.read_csv(tmp_path / "out" / "metrics.csv")) > len(rows)


def test_numbers_of_an_evaluation_are_short_and_what_is_not_computable_is_a_dash():
    score = {"value": 0.8264, "low": 0.5, "high": 1.0, "note": "mean over 2 of 3 findings"}
    counts = {"films": 1, "patients": 1, "positives": 1}
    nothing = {**dict.fromkeys(("value", "low", "high")), "note": "not computable"}
    macro = {**counts, **dict.fromkeys(SHOWN_METRICS, score), "recall": {**score, "low": None}}
    empty = {**counts, **dict.fromkeys(SHOWN_METRICS, nothing)}
    text = evaluation_in_words({"network": "net", "Mass": empty, "macro": macro})
    assert "net: macro AUC .826 (.500-1.000), 95 % confidence" in text
    assert "; mean over 2 of 3 findings; 1 film of 1 patient\n" in text
    assert "\n1 number without interval\n" in text
    assert next(line for line in text.splitlines() if "Mass" in line).split()[2:] == ["-"] * 6
    compared = evaluation_in_words({"ranking": {"a": {"rank": 1}}, "conclusion": "tied"})
    assert "conclusion: tied" in compared


def test_probabilities_have_four_decimals_and_six_in_a_file(at_work: Path, tmp_path: Path):
    _, out, _ = typed("predict", "runs/demo", "films/00000001_000.png")
    assert {len(text) for text in out.splitlines()[1].split(",")[2:5]} == {6}
    file = tmp_path / "probabilities.csv"
    typed("predict", "runs/demo", "films/00000001_000.png", "--csv", str(file))
    assert {len(text) for text in file.read_text().splitlines()[1].split(",")[2:5]} == {8}


@pytest.mark.parametrize("option", ["--csv", "--out"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
):
    monkeypatch.chdir(tmp_path)
    Path("loop.csv").symlink_to("loop.csv")
    command = {"--csv": ("predict", "run", "films"), "--out": ("evaluate", "a.csv")}[option]

    def refusal(place: str) -> str:
        monkeypatch.setattr("sys.argv", ["lucency", *command, option, place])
        assert call() == 2
        return capsys.readouterr().err

    assert refusal("loop.csv").startswith("lucency: loop.csv: a circle of links; expected")
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", read_only)
        found = f"lucency: {tmp_path}: no file can be made there (read-only file system): choose"
        assert refusal("a.csv").startswith(found)
    assert "no such folder" in refusal("a.csv") or "no such file" in refusal("a.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["loop.csv"]


def read_only(**_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_films_that_cannot_be_read_are_named_on_standard_error(at_work: Path, tmp_path: Path):
    film = (at_work / "films" / "00000001_000.png").read_bytes()
    (tmp_path / "good.png").write_bytes(film)
    for number in range(MOST_NAMED + 2):
        (tmp_path / f"broken-{number:02d}.png").write_bytes(b"no picture")
    status, out, err = typed("predict", "runs/demo", str(tmp_path))
    assert status == 0
    assert len(out.splitlines()) == 1 + 1 + MOST_NAMED + 2
    named = [line for line in err.splitlines() if line.startswith("Left out is")]
    assert len(named) == MOST_NAMED
    assert "broken-00.png" in named[0]
    assert "and 2 more" in err.splitlines()
    (tmp_path / "good.png").unlink()
    with pytest.raises(ValueError, match=r"^none of 12 films can be read"):
        typed("predict", "runs/demo", str(tmp_path))


def test_a_list_of_errors_that_was_saved_without_its_last_end_is_not_to_be_deleted(
    at_work: Path, tmp_path: Path
):
    errors = tmp_path / "errors.csv"
    errors.write_text("finding,direction,image,reason\nMass,missed,a.png,")
    words = ("audit", "review", "runs/demo", "--errors", str(errors), "--out", str(tmp_path / "x"))
    with pytest.raises(ValueError, match=r"errors\.csv.*each line with its end: save it so$"):
        typed(*words)


def test_the_leak_doctor_takes_saved_predictions_alone(at_work: Path):
    status, out, _ = typed("check", PREDICTIONS)
    assert status in (0, 1)
    assert "test_resnet: " in out
    assert "few_positives" in out
    with pytest.raises(ValueError, match="brings its own films"):
        typed("check", PREDICTIONS, "--labels", "chestxray14/Data_Entry_2017_v2020.csv")
    with pytest.raises(ValueError, match="--set changes a protocol"):
        typed("check", PREDICTIONS, "--set", "split.seed=1")


def test_issues_name_each_example_once_and_count_what_is_several():
    about = {"severity": "note", "check": "random_weights", "remedy": "weights = ..."}
    one = Issue(**about, message="from random numbers: a", count=1, examples=("a",))
    two = Issue(**about, message="from random numbers: a", count=2, examples=("a", "xyz"))
    lines = issues_in_words(issue_table([one, two]), checks=3).splitlines()
    assert lines[:2] == ["note: from random numbers: a", "  random_weights: weights = ..."]
    assert lines[2] == "note: from random numbers: a (such as xyz)"
    assert lines[3] == "  random_weights, 2 cases: weights = ..."
    none = Issue(**about, message="m", count=1, examples=())
    assert issues_in_words(issue_table([none]), checks=1).splitlines()[0] == "note: m"


def test_a_table_on_a_terminal_holds_no_commands_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    text = "film,reason\n\x1b[2Jred.png,zero bytes\n"
    write_out(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    write_out(text)
    assert capsys.readouterr().out == "film,reason\n\\x1b[2Jred.png,zero bytes\n"


def test_an_error_on_a_terminal_holds_no_commands_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["lucency", "predict", "\x1b[2J", "\u202e.png"])
    assert call() == 2
    assert capsys.readouterr().err.startswith("lucency: \\x1b[2J")


NAMES = pd.DataFrame(
    {"film": ["a\nb.png", "\udcff.png", "c.png"], "score": [0.5, 0.25, float("nan")]}
)


def test_names_in_a_piped_table_are_as_they_are_and_can_be_traced(
    capsys: pytest.CaptureFixture[str],
):
    write_csv_out(NAMES)
    out = capsys.readouterr().out
    assert out == 'film,score\n"a\nb.png",0.5\n\\udcff.png,0.25\nc.png,\n'
    assert pd.read_csv(io.StringIO(out))["film"][0] == "a\nb.png"


@pytest.mark.parametrize(
    ("terminal", "shown"), [(False, "胸1.png,胸2.png\n".encode()), (True, b"?1.png,?2.png\n")]
)
def test_what_is_piped_is_utf_8_whatever_the_system_writes(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: bytes
):
    out = io.TextIOWrapper(content := io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.argv", ["lucency"])
    monkeypatch.setattr("lucency.cli.app.app", lambda **_: write_out("胸1.png,胸2.png\n"))
    assert call() == 0
    assert content.getvalue() == shown


def test_a_name_on_a_terminal_is_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    write_csv_out(NAMES)
    assert capsys.readouterr().out == "film,score\na\\nb.png,0.5\n\\udcff.png,0.25\nc.png,\n"
    about = {"severity": "note", "check": "c", "remedy": "r", "count": 1}
    issue = Issue(**about, message="a\nb.png is odd", examples=())
    assert (
        issues_in_words(issue_table([issue]), checks=1).splitlines()[0] == "note: a\\nb.png is odd"
    )


@pytest.fixture
def into(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let standard output be a file that is open for writing."""
    opened = list[TextIO]()

    def write_into(number: int) -> None:
        opened.append(os.fdopen(number, "w"))
        for name in ("stdout", "__stdout__"):
            monkeypatch.setattr(sys, name, opened[0])

    yield write_into
    opened[0].close()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["protocols"]])
def test_output_that_nobody_reads_ends_the_command_in_silence(
    words: list[str],
    into: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("sys.argv", ["lucency", *words])
    reader, writer = os.pipe()
    os.close(reader)
    into(writer)
    assert call() == 141
    assert capfd.readouterr().err == ""


def test_another_pipe_that_breaks_is_an_error(
    monkeypatch: pytest.MonkeyPatch, into: Callable[[int], None], capfd: pytest.CaptureFixture[str]
):
    def broken() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    reader, writer = os.pipe()
    into(writer)
    monkeypatch.setattr("sys.argv", ["lucency", "protocols"])
    monkeypatch.setattr("lucency.config.protocol.list_protocols", broken)
    assert call() == 2
    os.close(reader)
    assert "Broken pipe" in capfd.readouterr().err


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="the system has no /dev/full: run it on Linux"
)
@pytest.mark.parametrize("words", [["--version"], ["protocols"], ["run", "--help"]])
def test_standard_output_without_space_is_named(
    words: list[str],
    into: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("sys.argv", ["lucency", *words])
    into(os.open("/dev/full", os.O_WRONLY))
    assert call() == 2
    line = "lucency: standard output: no space left on device; expected a place to read or write\n"
    assert capfd.readouterr().err == line


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_is_closed_costs_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["lucency", "protocols"])
    monkeypatch.setattr(sys, name, None)
    assert call() == 0
    getattr(sys, name).close()


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="the system has no /dev/full: run it on Linux"
)
def test_lines_that_cannot_be_written_cost_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    full = [open("/dev/full", "w") for _ in "oe"]  # noqa: SIM115, PTH123 - as the system does
    monkeypatch.setattr("sys.argv", ["lucency", "check", "absent"])
    monkeypatch.setattr(sys, "stderr", full[0])
    assert call() == 2
    say("a line")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdout", full[1])
    announce("an address")
    monkeypatch.undo()
    assert capsys.readouterr().err == "an address\n"
    for stream in full:
        with suppress(OSError):
            stream.close()


def test_a_page_that_another_process_writes_is_left_alone(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = finished / "runs" / "demo"
    page = run / "report" / "report.html"
    before = page.stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", ["lucency", "report", str(run)])
    with locked(run / "report"):
        assert call() == 2
    assert "is being written by another process" in capsys.readouterr().err
    assert page.stat().st_mtime_ns == before


def test_a_page_that_cannot_be_written_again_stays(tmp_path: Path):
    page = tmp_path / "report"
    page.mkdir()
    for name in ("receipt.json", "report.html"):
        (page / name).write_text("{}")
    with suppress(ValueError), _set_aside(page):
        assert not page.exists()
        raise ValueError("a network is damaged")
    assert (page / "report.html").read_text() == "{}"
    with _set_aside(page):
        page.mkdir()
        (page / "receipt.json").write_text("{}")
    assert {*tmp_path.iterdir()} == {page, tmp_path / BEFORE}  # which the command removes
    assert [*page.iterdir()] == [page / "receipt.json"]


def test_a_page_that_another_process_makes_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between the look for a page and the return of the one of before another appears."""
    page = tmp_path / "report"
    page.mkdir()
    (page / "receipt.json").write_text("{}")
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        page.mkdir()
        (page / "receipt.json").write_text('{"made": "meanwhile"}')
        return rename(self, target)

    with suppress(BusyError), _set_aside(page):
        monkeypatch.setattr(Path, "rename", overtaken)
        raise BusyError("another process is at work")
    assert {*tmp_path.iterdir()} == {page}
    assert "meanwhile" in (page / "receipt.json").read_text()
