"""Every command that reads a label file takes its columns by option, or those that are evident."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.cli.app import app

FILMS = 40
NAMED = ("--image-column", "scan", "--patient-column", "person")
COMMANDS = {
    "evaluate": ("evaluate", "scores.csv", "--labels"),
    "compare": ("evaluate", "scores.csv", "others.csv", "--labels"),
    "ensemble": ("ensemble", "test.csv", "test2.csv", "--val", "val.csv", "--val", "val2.csv",
                 "--method", "mean-logit", "--labels"),
    "check": ("check", "scores.csv", "--labels"),
    "check lists": ("check", "--train", "train.txt", "--test", "test.txt", "--labels"),
    "audit errors": ("audit", "errors", "scores.csv", "--labels"),
    "audit versions": ("audit", "versions"),
    "data describe": ("data", "describe"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(0)
    image = [f"{n:02d}.png" for n in range(FILMS)]
    label = random.integers(0, 2, FILMS)
    table = pd.DataFrame({"image": image, "patient": np.arange(FILMS) // 2, "Mass": label})
    table.to_csv(folder / "labels.csv", index=False)
    table.rename(columns={"image": "scan", "patient": "person"}).to_csv(folder / "own.csv")
    table.rename(columns={"image": "Path", "patient": "PatientID"}).to_csv(folder / "evident.csv")
    for name in ("scores", "others"):
        score = np.round(0.4 * label + 0.6 * random.random(FILMS), 4)
        scores = pd.DataFrame({"image": image, "Mass": score})
        scores.to_csv(folder / f"{name}.csv", index=False)
        end = "" if name == "scores" else "2"
        scores[:20].to_csv(folder / f"val{end}.csv", index=False)
        scores[20:].to_csv(folder / f"test{end}.csv", index=False)
    (folder / "train.txt").write_text("\n".join(image[:20]))
    (folder / "test.txt").write_text("\n".join(image[20:]))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_columns_are_named_by_option_or_evident(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.chdir(place)
    times = 2 if command == "audit versions" else 1

    def answer(file: str, *options: str) -> str:
        words = [*COMMANDS[command], *[file] * times, *options, "--json"]
        return CliRunner().invoke(app, words).stdout.replace(file, "labels.csv")

    usual = answer("labels.csv")
    assert usual.startswith("{")
    assert answer("evident.csv") == usual
    assert answer("own.csv", *NAMED) == usual
    with pytest.raises(ValueError, match="no column 'image'"):
        CliRunner().invoke(app, [*COMMANDS[command], *["own.csv"] * times], catch_exceptions=False)


@pytest.mark.parametrize("words", [("--out=~/made",), ("--out", "~/made")])
def test_a_place_may_begin_with_the_home_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.csv").write_bytes(Path("labels.csv").read_bytes())
    given = ["evaluate", "scores.csv", "--labels=~/own.csv", *words]
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "made" / "metrics.csv").is_file()
    assert not Path("~").exists()


SCORED = {
    "evaluate": ("evaluate", "labels.csv"),
    "validation": ("evaluate", "scores.csv", "--val", "labels.csv"),
    "compare": ("evaluate", "scores.csv", "copy.csv"),
    "ensemble": ("ensemble", "test.csv", "copy.csv", "--val", "val.csv", "--val", "val2.csv"),
    "check": ("check", "copy.csv"),
    "audit errors": ("audit", "errors", "copy.csv"),
}


@pytest.mark.parametrize("command", SCORED)
def test_the_label_file_is_no_table_of_predictions(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.chdir(place)
    Path("copy.csv").write_bytes(Path("labels.csv").read_bytes())
    words = [*SCORED[command], "--labels", "labels.csv"]
    message = r"\.csv (is|holds what) the label file.*expected a table"
    with pytest.raises(ValueError, match=message):
        CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize(("scale", "one"), [("probability", "1"), ("percent", "100")])
def test_scores_that_are_hard_labels_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, scale: str, one: str
):
    monkeypatch.chdir(place)
    table = pd.read_csv("labels.csv", dtype=str)
    flipped = table["Mass"].replace({"0": "1", "1": "0"})
    line = "hard.csv: all scores of Mass are 0 or 1, hard labels and no probabilities: AUC is that"
    for mass, end in ((table["Mass"], "; those of Mass are the labels"), (flipped, "")):
        scores = pd.DataFrame({"image": table["image"], "Mass": mass.replace("1", one)})
        scores.to_csv("hard.csv", index=False)
        words = ["evaluate", "hard.csv", "--labels", "labels.csv", "--scale", scale]
        shown = CliRunner().invoke(app, words, catch_exceptions=False).stderr
        assert f"{line} of one threshold{end}\n" in shown
    table.assign(Mass="").to_csv("unstated.csv", index=False)
    words[words.index("labels.csv")] = "unstated.csv"
    assert "are the labels" not in CliRunner().invoke(app, words).stderr


def test_a_column_of_words_is_named_once(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    labels = pd.read_csv("labels.csv", dtype=str)
    labels.assign(Edema="yes").to_csv("worded.csv", index=False)
    for command in ("describe", "imbalance"):
        shown = CliRunner().invoke(app, ["data", command, "worded.csv"]).stderr
        assert [line.count("Edema") for line in shown.splitlines() if "Edema" in line] == [2], shown


@pytest.mark.parametrize("others", [(), ("scores.csv",)])
def test_a_pipe_in_place_of_a_table_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
):
    monkeypatch.chdir(place)
    os.mkfifo(tmp_path / "pipe")
    words = ["evaluate", str(tmp_path / "pipe"), *others, "--labels", "labels.csv"]
    with pytest.raises(ValueError, match=r"pipe: is a pipe, no file; expected a table, .*: save"):
        CliRunner().invoke(app, words, catch_exceptions=False)
