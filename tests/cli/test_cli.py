"""The command line: one clear line and status 2 for what people can mend, and help that stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from commanded import named_commands
from lucency.cli.app import app, call, main
from lucency.cli.output import ANSWERS
from lucency.cli.run_commands import StageName
from lucency.config.protocol import protocol_text, read_protocol

GOLDEN = Path(__file__).parents[1] / "golden" / "help"
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
PROTOCOL = """
name = "tiny"
[data]
films = 20
size = 64
[preparation]
size = 32
[[network]]
name = "test_resnet"
"""
COMMANDS = named_commands()
Typed = Callable[..., "Said"]


class Said(NamedTuple):
    status: int
    out: str
    err: list[str]


@pytest.fixture
def lucency(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Typed:
    """Return a function that types `lucency …` in a folder that holds tiny.toml."""
    (tmp_path / "tiny.toml").write_text(PROTOCOL)
    monkeypatch.chdir(tmp_path)

    def typed(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["lucency", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Said(int(end.value.code or 0), out, err.splitlines())

    return typed


RUN = ("run", "tiny.toml", "--out", "out", "--until", "prepare")
TRAIN = ("train", "tiny.toml", "--out", "out")
VARIANT = 'variant=[{name="more", training={epochs=3}}]'
MISTAKES = {
    "misspelt key": ((*RUN, "--set", "training.epoch=3"), "unknown key; nearest is 'epochs'"),
    "impossible value": (
        (*RUN, "--set", "training.batch=0"),
        "training.batch: found 0, expected 1 or more",
    ),
    "wrong type": (
        (*RUN, "--set", "training.batch=[1]"),
        "training.batch: found [1], expected a whole",
    ),
    "no whole number": (
        (*RUN, "--set", "training.epochs=abc"),
        'training.epochs: found "abc", expected a whole number',
    ),
    "single brackets": (
        (*RUN, "--set", 'network={name="x"}'),
        'network: found {"name": "x"}, expected a list: write [[network]]',
    ),
    "name of two words": (
        (*RUN, "--set", "name=A b"),
        'name: found "A b", expected small letters, digits and hyphens alone',
    ),
    "no such loss": ((*RUN, "--set", "training.loss=bcee"), "nearest is 'bce'"),
    "too fast": (
        (*RUN, "--set", "training.learning_rate=99"),
        "training.learning_rate: found 99, expected 10 or less",
    ),
    "network's key": ((*RUN, "--set", "network.0.training.epoch=3"), "nearest is 'epochs'"),
    "no such entry": ((*RUN, "--set", "network.1.name=x"), "found a list of 1, counted from 0"),
    "below a word": ((*RUN, "--set", "name.x=y"), "no such key, found tiny"),
    "no value": ((*RUN, "--set", "name"), "expected key=value"),
    "no protocol": (("run", "tinny.toml", "--out", "out"), "tinny.toml: no such protocol"),
    "no such name": (("run", "quik", "--out", "out"), "nearest is 'quick'"),
    "folder as protocol": (("run", ".", "--out", "out"), ". is a folder; expected a protocol"),
    "unknown finding": ((*RUN, "--set", 'findings=["Massa"]'), "nearest is 'Mass'"),
    "no root": ((*RUN, "--set", "data.source=nih"), "data.root is '', which is no folder"),
    "no csv labels": (
        (*RUN, "--set", "data.source=csv", "--set", "data.root=."),
        "expected the name of a table there (data.labels)",
    ),
    "no label file": (
        (*RUN, "--set", "data.source=nih", "--set", "data.root=."),
        "expected Data_Entry_2017_v2020.csv",
    ),
    "no stage": (
        ("run", "tiny.toml", "--out", "out", "--until", "bake"),
        "--until': 'bake' is not",
    ),
    "variants run": ((*RUN, "--set", VARIANT), "has variants: use lucency study ablation"),
    "variants of folds": (
        ("study", "cross-validation", *RUN[1:4], "--set", VARIANT),
        "has variants: use lucency study ablation",
    ),
    "no variants": (("study", "ablation", *RUN[1:4]), "has no variants: use lucency run"),
    "no run": (("report", "absent"), "absent holds no run: expected the --out folder"),
    "no run to export": (("data", "export", "absent", "--out", "x"), "absent holds no run"),
    "no network": (("predict", ".", "a.png"), ". holds no trained network"),
    "no film": (("predict", "."), "expected either films (FILM…) or a source of films"),
    "film and source": (("predict", ".", "a.png", "--source", "chexpert"), "expected either films"),
    "root without source": (("predict", ".", "a.png", "--root", "."), "are about --source"),
    "no table": (
        ("evaluate", "a.csv", "--labels", "b.csv"),
        "a.csv: no such file; expected a table",
    ),
    "no table to compare": (("evaluate", "tiny.toml", "b.csv"), "b.csv: no such file"),
    "no named protocol to check": (("check", "demoo"), "nearest is 'demo'"),
    "no labels": (("evaluate", "tiny.toml"), "expected --labels FILE"),
    "one table twice": (("evaluate", "tiny.toml", "./tiny.toml"), "tiny.toml is named twice"),
    "one member twice": (("ensemble", "tiny.toml", "./tiny.toml"), "tiny.toml is named twice"),
    "validation of two": (("evaluate", "tiny.toml", "b.csv", "--val", "c.csv"), "one TABLE.csv"),
    "place taken": (("run", "tiny.toml", "--out", "."), "is not empty and holds no run"),
    "out is a file": (("run", "tiny.toml", "--out", "tiny.toml"), "tiny.toml"),
    "small phantom": (
        ("data", "phantom", "--out", "out", "--size", "3"),
        "size is 3, expected 32 to 4096",
    ),
    "share of phantoms": (("data", "phantom", "--out", "out", "--shortcut", "2"), "shortcut is 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(lucency: Typed, mistake: str):
    words, message = MISTAKES[mistake]
    found = lucency(*words)
    assert found.status == 2
    assert found.out == ""
    assert len(found.err) == 1, found.err
    assert found.err[0].startswith("lucency: ")
    assert message in found.err[0]


@pytest.mark.slow  # it imports torch and timm
@pytest.mark.parametrize("command", ["train", "run"])
def test_an_unknown_network_is_refused_before_any_work(lucency: Typed, command: str):
    found = lucency(command, *TRAIN[1:], "--set", "network.0.name=densnet121")
    assert found.status == 2
    assert len(found.err) == 1
    assert found.err[0].endswith("nearest is 'densenet121'")
    assert not Path("out").exists()


def test_a_mistake_before_any_work_may_be_put_right_in_the_same_folder(lucency: Typed):
    csv = ("--set", "data.source=csv", "--set", "data.root=.")
    split = ("run", "tiny.toml", "--out", "out", "--until", "split")
    assert lucency(*split, "--set", "data.source=nih").status == 2
    assert lucency(*split, *csv).status == 2
    assert not Path("out").exists()
    found = lucency(*RUN, "--workers", "1", "--json")
    assert found.status == 0, found.err
    assert json.loads(found.out) == {"films": 20, "rejected": 0, "folder": "out/prepared"}


def test_a_finished_run_refuses_another_protocol_and_loses_nothing(lucency: Typed, tmp_path: Path):
    out = tmp_path / "out"
    (out / "report").mkdir(parents=True)
    (out / "report" / "report.html").write_text("done")
    (out / "protocol.toml").write_text(protocol_text(read_protocol(tmp_path / "tiny.toml")))
    before = {file: file.read_bytes() for file in out.rglob("*.*")}
    changes = ("--set", "training.epochs=9", "--set", "network.0.name=alexnet")
    found = lucency("run", *TRAIN[1:], *changes)
    assert (found.status, len(found.err)) == (2, 1)
    assert "training.epochs: was 10, now 9" in found.err[0]
    assert "network.0.name: was test_resnet, now alexnet" in found.err[0]
    assert before == {file: file.read_bytes() for file in out.rglob("*.*")}


@pytest.mark.parametrize(("words", "message"), [
    (["check", "--train", "a.csv", "--train", "b.csv"], "--train is given twice"),
    (["check", "--train=a.csv", "--train", "b.csv"], "--train is given twice"),
    (["predict", "run", ""], "found an empty word"),
    (["data", "phantom", "--films", "3", "--films", "4"], "Missing option '--out'"),
    (["run", "quick", "--out", ""], "found an empty word"),
    (["predict", "run", "a.png", "--labels", "t.csv", "--csv", "t.csv"], "t.csv would replace"),
    (["predict", "run", "a.png", "--labels=t.csv", "--csv=./t.csv"], "would replace a file"),
    (["similar", "run", "a.svg", "--figure", "a.svg"], "a.svg would replace"),
    (["data", "balance", "p", "--table", "done/new.csv"], "done holds finished work"),
    (["run", "quick", "--set", "a=1", "--set", "b=2"], "Missing option '--out'"),
    (["run", "quick", "--out"], "requires an argument; see lucency run --help"),
    (["data", "phantom", "--out"], "requires an argument; see lucency data phantom --help"),
    (["run", "quick", "--out", "done/inside"], "done holds a run: choose another --out"),
    (["data", "phantom", "--out", "done/inside"], "done holds a run: choose another --out"),
    (["data", "phantom", "--films", "1000001", "--out", "x"], "less than or equal to 1000000"),
    (["predict", "run", "a.png", "--image-column", "b"], "are about --source"),
    (["predict", "run", "a.png", "--csv", "other.csv"], "other.csv is there, and is no such table"),
    (["predict", "run", "a.png", "--csv", "other.csv.gz"], "is there, and is no such table"),
    (["data", "balance", "demo", "--table", "other.csv"], "--table other.csv is there, and is no"),
    (["data", "balance", "demo", "--table", "notes.txt"], "expected a file name that ends in .csv"),
    (["data", "download", "nih", "--out", "done/x"], "done holds a run: choose another --out"),
    (["evaluate", "t.npz", "--image-column", "b"], "are about --labels: expected it beside them"),
    (["ensemble", "t.npz", "--image-column", "b"], "are about --labels: expected it beside them"),
    (["evaluate", "t.npz", "--out", "--json"], "requires an argument, found the option --json"),
    (["evaluate", "t.npz", "--out", "stage/sub"], "stage holds finished work: choose"),
    (["predict", "run", "a.png", "--patient-column", "b"], "are about --source"),
    (["similar", "run", "b.dcm", "--figure", "film.png"], "film.png is there, and is no figure"),
    (["similar", "run", "b.dcm", "--figure", "own.svg"], "own.svg is there, and is no figure"),
    (["data", "balance", "demo", "--figure", "own.svg"], "own.svg is there, and is no figure"),
    (["run", "quick", "--out", "x", "--set", "=3"], "--set =3: expected key=value"),
    (["run", "quick", "--out", "x", "--set", "foo.bar=3"], "foo: unknown section; expected one of"),
])  # fmt: skip
def test_words_that_clash_are_refused(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done" / "manifest").mkdir(parents=True)
    (tmp_path / "stage").mkdir()
    for name in (
        "t.csv", "a.svg", "film.png", "done/receipt.json", "done/protocol.toml", "done/x.csv",
        "other.csv", "other.csv.gz", "stage/receipt.json", "own.svg",
    ):  # fmt: skip
        (tmp_path / name).write_text("mine")
    monkeypatch.setattr("sys.argv", ["lucency", *words])
    assert call() == 2
    assert message in capsys.readouterr().err
    assert {one.read_text() for one in tmp_path.rglob("*") if one.is_file()} == {"mine"}


def test_usage_errors_have_status_2_and_name_the_word_in_one_line(lucency: Typed):
    for words in (
        ("run", "tiny.toml"),
        ("rnu",),
        ("data", "phantom", "--films", "x", "--out", "y"),
    ):
        found = lucency(*words)
        assert found.status == 2
        assert len(found.err) == 1
        assert any(word in found.err[0] for word in ("--out", "rnu", "--films"))
    assert lucency("rnu").err[0].endswith("see lucency --help")


def test_a_call_without_a_command_shows_the_help_and_version_is_told(lucency: Typed):
    bare = lucency()
    assert bare.status == 2
    assert not any(line.startswith("lucency:") for line in bare.err)
    found = lucency("--version")
    assert (found.status, found.out) == (0, version("lucency") + "\n")


def test_several_lines_become_one_and_a_traceback_is_there_for_who_wants_it(
    lucency: Typed, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("first line\n  second line\n")

    monkeypatch.setattr("lucency.config.protocol.read_protocol", fail)
    assert lucency(*RUN).err == ["lucency: first line second line"]
    monkeypatch.setenv("LUCENCY_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["lucency", *RUN])
    with pytest.raises(ValueError, match="second line"):
        main()


def test_our_own_mistakes_are_not_dressed_up(lucency: Typed, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("lucency.config.protocol.read_protocol", fail)
    monkeypatch.setattr(sys, "argv", ["lucency", *RUN])
    with pytest.raises(AssertionError, match="ours"):
        main()


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path: Path):
    words = [sys.executable, "-m", "lucency", "data", "phantom", "--films", "2000", "--size", "512"]
    process = subprocess.Popen(
        [*words, "--workers", "1", "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    images = tmp_path / "out.partial" / "images"
    ends = time.monotonic() + 60
    while not images.exists() or not any(images.iterdir()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines() == ["lucency: stopped; the same command goes on from here"]
    assert not (tmp_path / "out").exists()


def test_every_stage_has_a_name_and_an_answer():
    from lucency.pipeline.stages import STAGES

    assert [*STAGES] == [*ANSWERS] == [*map(str, StageName)]


def test_the_commands_are_these():
    assert set(COMMANDS) == {
        "run", "train", "report", "protocols", "predict", "explain", "similar", "evaluate",
        "ensemble", "check", "export", "results", "serve", "view",
        "data", "data phantom", "data describe", "data imbalance", "data balance", "data quality",
        "data export", "data download",
        "audit", "audit labels", "audit versions", "audit errors", "audit review",
        "audit score-review",
        "study", "study ablation", "study sweep", "study leakage", "study cross-validation",
        "study heatmaps", "study preparation",
    }  # fmt: skip


@pytest.mark.parametrize("command", ["lucency", *COMMANDS])
def test_help_is_as_agreed(command: str):
    """LUCENCY_GOLDEN=write pytest tests/cli/test_cli.py writes the files; read the difference."""
    words = ["--help"] if command == "lucency" else [*command.split(), "--help"]
    found = CliRunner().invoke(app, words, prog_name="lucency", env=PLAIN)
    assert found.exit_code == 0
    text = "\n".join(line.rstrip() for line in found.output.strip().splitlines()) + "\n"
    file = GOLDEN / f"{command.replace(' ', '-')}.txt"
    if os.environ.get("LUCENCY_GOLDEN") == "write":
        GOLDEN.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_no_help_is_kept_of_a_command_that_is_gone():
    kept = {name.replace(" ", "-") for name in COMMANDS}
    assert {file.stem for file in GOLDEN.glob("*.txt")} == {"lucency", *kept}
