"""The sweep: candidates on the same films, validation alone, fresh seeds, and what the page has."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import types
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

pytest.importorskip("optuna", reason="optuna is absent: pip install 'lucency[sweep]'")
from lucency.cli import app as cli
from lucency.cli.app import app
from lucency.config.protocol import BASE, Protocol, parse_protocol, read_protocol
from lucency.core.files import BusyError
from lucency.core.locks import locked
from lucency.core.predictions import load_predictions
from lucency.evaluation.sweep_optimism import conclude_sweep, optimism_table
from lucency.models import training as train_module
from lucency.pipeline import stages, sweep_study
from lucency.pipeline.run import Run, how_to_move, open_run_folder
from lucency.pipeline.sweep_study import open_sweep, report, results, search
from lucency.pipeline.trials import DEATHS
from toys import FINDINGS, KilledError, toy_films

NETWORK = "test_convnext"
PROTOCOL = """
name = "tiny"
findings = ["Left", "Right"]

[data]
source = "csv"
root = "films"
labels = "toys.csv"

[preparation]
size = 32

[training]
epochs = 2
batch = 16
precision = "float32"

[[network]]
name = "test_convnext"

[evaluation]
resamples = 40

[sweep]
trials = 5
seeds = [1, 2]

[sweep.space]
training.learning_rate = { low = 1e-5, high = 3e-3, log = true }
training.batch = [16, 32]
"""


def protocol(folder: Path, **sweep: Any) -> Protocol:
    choices = tomllib.loads(PROTOCOL)
    choices["data"]["root"] = str(folder / "films")
    choices["sweep"] |= sweep
    return parse_protocol(choices, name="tiny.toml")


def opened(folder: Path, out: str = "out", **sweep: Any) -> Run:
    """Return the sweep as a new process opens it: nothing is remembered."""
    return open_sweep(protocol(folder, **sweep), out=folder / out, workers=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, toys = tmp_path_factory.mktemp("sweep"), toy_films(96)
    (folder / "films").mkdir()
    for name, film in zip(toys.manifest.image, toys.pixels, strict=True):
        cv2.imwrite(str(folder / "films" / name), film)
    table = pd.DataFrame(toys.manifest.label, columns=list(FINDINGS))
    about = {"image": toys.manifest.image, "patient": toys.manifest.patient}
    table.assign(**about).to_csv(folder / "films" / "toys.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def whole(films: Path) -> Path:
    report(opened(films))
    return films


def times(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_trials_share_films_and_parts_and_keep_no_weights(whole: Path):
    trials = search(opened(whole))
    assert trials["trial"].tolist() == [*range(5)]
    for number in range(5):
        home = whole / "out" / "trials" / f"trial-{number:04d}"
        assert {one.name for one in home.iterdir()} <= {"protocol.toml", "networks"}
        assert not [*home.rglob("*.safetensors"), *home.rglob("*.pt")]
        made, row = read_protocol(home / "protocol.toml"), trials.iloc[number]
        assert made.training.learning_rate == json.loads(row["training.learning_rate"])
        assert made.training.batch == json.loads(row["training.batch"])
        history = pd.read_csv(next(home.glob("networks/*/history.csv")))
        best = history["val_auc"].max() if row["state"] == "finished" else row["val_auc"]
        assert row["val_auc"] == best
    assert {one.parent.name for one in whole.rglob("prepared")} == {"out"}
    finished = trials.loc[trials["state"] == "finished"]
    assert trials["best"].iloc[-1] == finished["val_auc"].max()


def test_the_search_sees_no_test_film(whole: Path):
    """Nothing is predicted before the best is chosen, and its score is that of validation films."""
    assert not [*(whole / "out" / "trials").rglob("predictions*")]
    found = results(opened(whole))
    best = found.trials.iloc[found.best]
    assert (
        found.optimism.set_index(["candidate", "part"]).loc[("best trial", "val"), "value"]
        == (best["val_auc"])
    )


def test_the_optimism_is_that_of_the_predictions_on_disk(whole: Path):
    found = results(opened(whole))
    rows = found.optimism.set_index(["candidate", "part"])["value"]
    means: dict[tuple[str, str], float] = {}
    for name, where in (("found", f"trial-{found.best:04d}"), ("as it stands", BASE)):
        for part in ("val", "test"):
            scores = []
            for seed in (1, 2):
                home = whole / "out" / "finals" / where / f"seed-{seed}"
                place = home / "predictions" / NETWORK / "predictions.npz"
                mine = load_predictions(place).of(part)
                scores.append(roc_auc_score(mine.label, mine.logit, average="macro"))
                assert read_protocol(home / "protocol.toml").training.seed == seed
            means[name, part] = float(np.mean(scores))
            assert rows[(name, part)] == pytest.approx(means[name, part], abs=1e-9)
    for part in ("val", "test"):
        expected = means["found", part] - means["as it stands", part]
        assert rows[("difference", part)] == pytest.approx(expected, abs=1e-9)


def test_the_page_names_the_optimism(whole: Path):
    found = results(opened(whole))
    rows = found.optimism.set_index(["candidate", "part"])["value"]
    optimism = rows[("best trial", "val")] - rows[("found", "val")]
    assert f"the optimism of choosing the best is {optimism:+.3f}" in found.conclusion
    assert found.conclusion.startswith("The best of 5 trials has macro AUC ")
    page = unescape(report(opened(whole)).read_text())
    assert found.conclusion in page
    for words in ("Importance of keys", "Found protocol", "best so far", "training.learning_rate"):
        assert words in page


def test_the_found_protocol_is_ready_to_run(whole: Path):
    found = results(opened(whole))
    best = read_protocol(whole / "out" / "evaluation" / "best.toml")
    row = found.trials.iloc[found.best]
    assert best.name == "tiny-best"
    assert not best.sweep.space
    assert best.training.learning_rate == json.loads(row["training.learning_rate"])
    assert best.training.seed == protocol(whole).training.seed


def test_one_of_the_finals_is_a_run_that_sees_the_sweep_s_films(whole: Path):
    member = open_run_folder(whole / "out" / "finals" / BASE / "seed-1")
    assert member.cache == member.source == member.shared == (whole / "out").resolve()
    assert len(stages.predictions(member)) == 1
    with pytest.raises(ValueError, match="holds a sweep: name the folder of one, finals/NAME"):
        open_run_folder(whole / "out")
    assert "lucency study sweep" in how_to_move(member)
    assert "--until" not in how_to_move(member)


def test_a_finished_sweep_does_nothing_again(whole: Path):
    before = times(whole)
    report(opened(whole))
    assert times(whole) == before
    assert not [name for name in before if ".partial" in name]


def test_a_report_of_a_sweep_is_refused_and_nothing_goes(whole: Path, monkeypatch, capsys):
    before = times(whole)
    monkeypatch.setattr("sys.argv", ["lucency", "report", str(whole / "out")])
    assert cli.call() == 2
    assert "holds a sweep: lucency study sweep" in capsys.readouterr().err
    assert times(whole) == before


def test_more_trials_go_on_and_other_choices_are_refused(whole: Path):
    shutil.copytree(whole / "out", whole / "more")
    before = pd.read_csv(whole / "out" / "evaluation" / "trials.csv")
    found = search(opened(whole, "more", trials=6))
    assert found["trial"].tolist() == [*range(6)]
    assert found["val_auc"].iloc[:5].tolist() == before["val_auc"].tolist()
    with pytest.raises(ValueError, match=r"another protocol \(sweep.seed: was 0, now 1\)"):
        opened(whole, "more", trials=6, seed=1)
    with pytest.raises(ValueError, match=r"sweep.trials is 5, but 6 trials were begun here"):
        search(opened(whole, "more", trials=5))


def test_a_killed_trial_goes_on_from_its_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    shutil.copytree(whole / "films", tmp_path / "films")
    show, learnt = train_module._show_epochs, []

    def shown_then_dies(job: Any, watch: Any) -> None:
        if job.state.epochs:
            raise KilledError
        show(job, watch)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "_show_epochs", shown_then_dies)
        with pytest.raises(KilledError):
            search(opened(tmp_path, trials=1))
    begin = train_module._learn_epoch
    monkeypatch.setattr(
        train_module, "_learn_epoch", lambda job, *rest: (learnt.append(1), begin(job, *rest))
    )
    found = search(opened(tmp_path, trials=1))
    expected = search(opened(whole)).iloc[:1]
    assert len(learnt) == 1  # of two epochs
    columns = ["trial", "training.learning_rate", "training.batch", "epochs", "val_auc"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])


def test_a_kill_while_a_protocol_is_written_leaves_no_trial_stuck(films: Path):
    home = films / "torn" / "trials" / "trial-0000"
    home.mkdir(parents=True)
    (home / "protocol.toml.lucency-new").write_text("name = ")
    member = sweep_study._member(opened(films), protocol(films).candidate({}), home)
    assert read_protocol(home / "protocol.toml").training == member.protocol.training
    assert not (home / "protocol.toml.lucency-new").exists()


def test_a_loss_that_is_not_finite_ends_a_trial_and_not_the_sweep(
    whole: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(whole / "out", whole / "diverged")
    settle = train_module._settle

    def diverged(job: Any, losses: Any, counts: Any) -> None:
        losses[0] = losses[0] * float("nan")
        settle(job, losses, counts)

    monkeypatch.setattr(train_module, "_settle", diverged)
    last = search(opened(whole, "diverged", trials=6)).iloc[-1]
    assert last["state"] == "pruned"
    assert np.isnan(last["val_auc"])
    assert "the loss is no longer finite before step" in last["reason"]


def test_what_a_candidate_alone_cannot_be_ends_its_trial_and_not_the_sweep(whole: Path):
    shutil.copytree(whole / "out", whole / "refusing")
    run = opened(whole, "refusing", trials=6)
    one: Any = types.SimpleNamespace(number=5)
    many = {"method": "cap-and-copy", "copy_plan": [{"finding": "Left", "films": 999, "copies": 2}]}
    for values, reason in (
        ({"training.batch": 0}, "sweep.space (training.batch = 0): training.batch: found 0"),
        ({"training.frozen": "trunk"}, "training.frozen"),
        ({"balance": many}, "balance.copy_plan wants 999 films of Left, but only"),
    ):
        value, found = sweep_study._score(run, None, one, values)
        assert value is None
        assert reason in found
        assert str(whole) not in found


def test_what_is_wrong_with_the_environment_ends_the_sweep_and_no_trial(
    whole: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its line, with places in it, is in no file; the same command goes on as if it had not been"""
    shutil.copytree(whole / "out", whole / "gone")

    def refuses(*_: Any) -> None:
        raise ValueError("/secret/weights.pth: no such file")

    for _ in range(DEATHS + 1):
        with monkeypatch.context() as patch:
            patch.setattr(stages, "split_name", refuses)
            with pytest.raises(ValueError, match="no such file"):
                search(opened(whole, "gone", trials=6))
    assert "secret" not in (whole / "gone" / "trials" / "journal.log").read_text()
    last = search(opened(whole, "gone", trials=6)).iloc[-1]
    assert last["val_auc"] > 0
    assert "given up" not in last["reason"]


def test_sections_that_a_sweep_leaves_alone_are_named(
    films: Path, capsys: pytest.CaptureFixture[str]
):
    chosen = protocol(films)
    late = {"ensemble": {"neighbours": 3}, "explanation": {"films": 1}}
    changed = parse_protocol(chosen.model_dump() | late, name="late.toml")
    open_sweep(changed, out=films / "late")
    said = capsys.readouterr().err
    assert "No part of a sweep, kept for lucency run in best.toml: explanation, ensemble" in said
    open_sweep(chosen, out=films / "plain")
    assert "No part of a sweep" not in capsys.readouterr().err


def test_what_another_process_makes_is_waited_for(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    seen = iter((True, True, False))

    def busy() -> int:
        if next(seen):
            raise BusyError("films are being written by another process: wait for it")
        return 7

    monkeypatch.setattr(sweep_study, "WAIT", 0.0)
    assert sweep_study._patiently(busy) == 7
    assert capsys.readouterr().err.count("this process waits") == 1
    run = opened(whole)
    member = sweep_study.finals(run)[BASE][1]
    shutil.copytree(whole / "out", whole / "busy")
    other = sweep_study.finals(opened(whole, "busy"))[BASE][1]
    place = other.out / "predictions" / NETWORK
    shutil.rmtree(place)
    with locked(place.with_name(NETWORK + ".partial")):
        assert not sweep_study._is_predicted(other)
    assert sweep_study._is_predicted(member)


REFUSED = {
    "no space": ({"space": {}}, "tiny has no sweep.space: expected keys to search"),
    "no such network": (
        {"space": {"network.0.architecture": ["resnet18", "resnet81"]}},
        "resnet81",
    ),
    "no such layer": ({"space": {"training.frozen": ["stem", "trunk"]}}, "trunk|stem"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_written(films: Path, what: str):
    changes, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        opened(films, "refused", **changes)
    assert not (films / "refused").exists()


def test_without_optuna_a_line_says_what_to_install(films: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_study, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"optuna is not installed: pip install 'lucency.sweep.'"):
        opened(films, "refused")


def test_a_protocol_with_a_sweep_is_not_run_by_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(PROTOCOL)
    done = CliRunner().invoke(app, ["run", "tiny.toml", "--out", "out"])
    assert isinstance(done.exception, ValueError)
    assert "tiny has a sweep: use lucency study sweep, or add --set sweep.space={}" in str(
        done.exception
    )


# --- words


def test_one_seed_has_no_interval_and_the_words_say_so(whole: Path):
    found = results(opened(whole))
    several = {
        name: [
            load_predictions(whole / "out" / "finals" / where / "seed-1" / "predictions" / NETWORK
                             / "predictions.npz")
        ]
        for name, where in (("found", f"trial-{found.best:04d}"), ("default", BASE))
    }  # fmt: skip
    table = optimism_table(0.9, **several, resamples=20, seed=0)
    assert table["low"].isna().all()
    words = conclude_sweep(table, trials=30)
    assert "there at one fresh seed: the optimism" in words
    assert "one seed does not show whether that is more than chance" in words


def test_the_words_say_what_the_numbers_are():
    rows = [
        ("best trial", "val", 0.85, np.nan, np.nan, np.nan, 1),
        ("found", "val", 0.82, 0.80, 0.84, np.nan, 3),
        ("found", "test", 0.80, 0.78, 0.82, np.nan, 3),
        ("as it stands", "test", 0.75, 0.73, 0.77, np.nan, 3),
        ("difference", "test", 0.05, 0.02, 0.08, 0.004, 3),
    ]
    columns = ["candidate", "part", "value", "low", "high", "p", "seeds"]
    words = conclude_sweep(pd.DataFrame(rows, columns=columns), trials=30)
    assert words == (
        "The best of 30 trials has macro AUC 0.850 on validation films. Its choices reach 0.820 "
        "(0.800 to 0.840) there at 3 fresh seeds, on average: the optimism of choosing the best is "
        "+0.030. On test films they reach 0.800 (0.780 to 0.820), which is -0.050 from the best "
        "trial's; the protocol as it stands reaches 0.750 (0.730 to 0.770) at the same seeds. The "
        "search changes macro AUC on test films by +0.050 (+0.020 to +0.080): significantly higher "
        "(p 0.004)."
    )
    rows[-1] = ("difference", "test", 0.05, -0.02, 0.12, 0.2, 3)
    words = conclude_sweep(pd.DataFrame(rows, columns=columns), trials=30)
    assert words.endswith("by +0.050 (-0.020 to +0.120): not significantly different (p 0.2).")


# --- the whole, killed


class Started:
    """A process of the command, with a log of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        places = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *sys.path]))
        self.log = folder / f"{name}.txt"
        words = ["study", "sweep", "tiny.toml", "--out", "out", "--workers", "1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lucency", *words],
                cwd=folder, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def kill_at_work(self, *, trials: int) -> int:
        """Kill the process while it is at its trial of this number; return the trial."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            begun = re.findall(r"^Trial (\d+) \(\d+ of", self.log.read_text(), re.MULTILINE)
            if len(begun) >= trials:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                return int(begun[-1])
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())


def entered(folder: Path) -> list[int]:
    """Return the trials of the journal that have ended, as often as they have."""
    lines = map(json.loads, (folder / "out" / "trials" / "journal.log").read_text().splitlines())
    return [one["trial_id"] for one in lines if one["op_code"] == 6 and one["state"] != 0]


@pytest.mark.slow
def test_thirty_trials_killed_three_times_by_two_processes(films: Path, tmp_path: Path):
    shutil.copytree(films / "films", tmp_path / "films")
    text = PROTOCOL.replace("trials = 5", "trials = 30").replace("epochs = 2", "epochs = 4")
    (tmp_path / "tiny.toml").write_text(text)
    one, other, third = (Started(tmp_path, name) for name in ("first", "second", "third"))
    killed = [one.kill_at_work(trials=3)]
    killed += [third.kill_at_work(trials=1), other.kill_at_work(trials=1)]
    last = [Started(tmp_path, name) for name in ("fourth", "fifth")]
    for process in last:
        assert process.process.wait(timeout=300) == 0, process.log.read_text()
    assert sorted(entered(tmp_path)) == [*range(30)]
    trials = pd.read_csv(tmp_path / "out" / "evaluation" / "trials.csv")
    assert trials["trial"].tolist() == [*range(30)]
    assert {*trials["state"]} <= {"finished", "pruned"}
    run = open_sweep(read_protocol(tmp_path / "tiny.toml"), out=tmp_path / "out")
    assert [one.number for one in sweep_study._trials(run).every()] == [*range(30)]
    went_on = re.findall(
        r"Trial (\d+) goes on", "".join(one.read_text() for one in tmp_path.glob("*.txt"))
    )
    assert {*map(int, went_on)} <= {*killed}  # a kill may come just after a trial was entered
    assert went_on
    words = (tmp_path / "out" / "evaluation" / "conclusion.txt").read_text()
    assert "the optimism of choosing the best is" in words


def test_a_trial_says_its_number_and_which_of_how_many_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trials: Any = types.SimpleNamespace(
        sweep=types.SimpleNamespace(trials=3), finish=lambda *_, **__: None
    )
    trial: Any = types.SimpleNamespace(number=0, set_user_attr=lambda *_: None)
    home, quick = Path("out"), Path(__file__).parents[2] / "protocols" / "quick.toml"
    places = dict.fromkeys(("out", "source", "cache", "shared"), home)
    run = Run(protocol=read_protocol(quick), workers=1, **places)
    for name, does in {
        "_score": lambda *_: (0.5, ""),
        "_minutes": lambda _: 1.0,
        "_discard_weights": lambda _: None,
    }.items():
        monkeypatch.setattr(sweep_study, name, does)
    sweep_study._do_trial(run, trials, trial, {"training.epochs": 2})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Trial 0 (1 of 3): training.epochs = 2", "Trial 0: val AUC 0.500"]
