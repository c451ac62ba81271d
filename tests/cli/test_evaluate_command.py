"""`lucency evaluate`: one network is evaluated, several are compared too; tables, files, runs."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.cli.app import app
from lucency.core.written import RECEIPT

LABELS = ("--labels", "chestxray14/Data_Entry_2017_v2020.csv")


def evaluated(*words: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["evaluate", *words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def at_work(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_one_network_of_a_file_is_evaluated_as_in_its_run(at_work: Path, tmp_path: Path):
    file = "runs/demo/predictions/test_resnet/predictions.npz"
    answer = evaluated(file, "--out", str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    run = pd.read_csv("runs/demo/evaluation/metrics.csv")
    mine, own = (
        one.loc[(one["network"] == "test_resnet") & (one["metric"] == "auc")].set_index("finding")
        for one in (table, run)
    )
    pd.testing.assert_series_equal(mine["value"], own["value"])
    assert answer["tables"] == str(tmp_path / "out")
    page = evaluated(file, *LABELS, "--out", str(tmp_path / "page"))
    assert Path(str(page["report"])).is_file()
    assert page["macro"] == answer["macro"]


def test_files_that_are_in_the_folder_are_kept(at_work: Path, tmp_path: Path):
    mine = tmp_path / "metrics.csv"
    mine.write_text("my own")
    words = ["evaluate", "mine.csv", *LABELS, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert "metrics.csv is there, and no written.json beside it names it" in str(done.exception)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(mine.name, "my own")]
    mine.unlink()
    for _ in range(2):
        evaluated(*words[1:])


def test_tables_may_go_to_the_folder_where_one_is_and_never_into_a_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = finished / "runs/demo/predictions/test_resnet/predictions.npz"
    (tmp_path / "out" / "below").mkdir(parents=True)
    for place, word in (("out", "."), ("out/below", "..")):
        monkeypatch.chdir(tmp_path / place)
        answer = evaluated(str(file), "--out", word)
        assert answer["tables"] == str(tmp_path / "out")
        assert (tmp_path / "out" / "metrics.csv").is_file()
    run = finished / "runs/demo"
    for place, word in ((run, "."), (run / "split", "."), (run / "split", "..")):
        monkeypatch.chdir(place)
        done = CliRunner().invoke(app, ["evaluate", str(file), "--out", word])
        assert isinstance(done.exception, ValueError)
        assert str(done.exception) == f"{run} holds a run: choose another --out"


def test_a_run_without_predictions_of_one_of_its_networks_is_refused(at_work: Path, tmp_path: Path):
    run = Path(shutil.copytree("runs/demo", tmp_path / "run"))
    (run / "predictions" / "test_convnext" / RECEIPT).unlink()
    done = CliRunner().invoke(app, ["evaluate", str(run)])
    assert "has no predictions of test_convnext: go on with lucency run" in str(done.exception)
    shutil.rmtree(run / "predictions" / "test_convnext")
    done = CliRunner().invoke(app, ["evaluate", str(run)])
    assert "has no predictions of test_convnext: go on with lucency run" in str(done.exception)
    evaluated(str(run / "predictions" / "test_resnet" / "predictions.npz"))


def test_a_stage_that_was_copied_takes_no_other_tables(at_work: Path, tmp_path: Path):
    stage = Path(shutil.copytree("runs/demo/evaluation", tmp_path / "stage"))
    before = {one.name: one.read_bytes() for one in stage.iterdir()}
    done = CliRunner().invoke(app, ["evaluate", "runs/demo", "--out", str(stage)])
    assert "stage holds finished work: choose another folder" in str(done.exception)
    assert before == {one.name: one.read_bytes() for one in stage.iterdir()}


def test_networks_of_a_run_are_compared_too(at_work: Path, tmp_path: Path):
    answer = evaluated("runs/demo", "--out", str(tmp_path / "out"))
    assert set(answer["ranking"]) == {"demo/test_resnet", "demo/test_convnext"}
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"metrics.csv", "comparison.csv", "ranking.csv"} <= names


def test_columns_of_a_table_that_are_no_finding_of_the_labels_are_named(
    at_work: Path, tmp_path: Path
):
    labels = tmp_path / "labels.csv"
    nih = pd.read_csv(LABELS[1], index_col=False)
    effusion = nih["Finding Labels"].str.contains("Effusion").astype(int)
    few = {"image": nih["Image Index"], "patient": nih["Patient ID"], "Effusion": effusion}
    pd.DataFrame(few).to_csv(labels, index=False)
    table = pd.read_csv("mine.csv")
    others = [name for name in table.columns[1:] if name != "Effusion"]
    done = CliRunner().invoke(app, ["evaluate", "mine.csv", "--labels", str(labels)])
    line = f"mine.csv: left out, no finding of the labels: {', '.join(others)}"
    assert line in done.stderr.splitlines()


def test_one_table_is_evaluated_and_two_are_compared(at_work: Path):
    assert evaluated("mine.csv", *LABELS)["network"] == "mine"
    both = evaluated("mine.csv", "theirs.csv", *LABELS)
    assert set(both["ranking"]) == {"mine", "theirs"}
