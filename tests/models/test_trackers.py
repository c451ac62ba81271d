"""Trackers: what they hold is read back, a killed training goes on in them, and nothing leaks."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lucency.config.protocol import parse_protocol
from lucency.core.stage import RECEIPT
from lucency.models import trackers
from lucency.models import training as train_module
from lucency.models.training import check_choice
from toys import KilledError, learn, toy_protocol

FEW = {"epochs": 3, "retrain": "natural"}
NAMES = ("000.png", "toys.csv")  # of films, and of their table


def killed_then_finished(out: Path, monkeypatch: pytest.MonkeyPatch, **training: Any) -> Path:
    """Train with a kill after the second epoch's figures, go on from the first's checkpoint."""
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    monkeypatch.setattr(train_module, "SETTLE_STEPS", 99)
    protocol = toy_protocol(**{**FEW, **training})
    save = train_module.checkpoint.save_checkpoint

    def only_the_first(state: Any, *args: Any, **named: Any) -> None:
        if state.epoch == 1:
            save(state, *args, **named)

    monkeypatch.setattr("lucency.models.checkpoint.save_checkpoint", only_the_first)

    show = train_module._show_epochs

    def shown_then_dies(job: Any, watch: Any) -> None:
        show(job, watch)
        if len(job.state.epochs) == 2:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "_show_epochs", shown_then_dies)
        with pytest.raises(KilledError):
            learn(out, protocol)
    learn(out, protocol)
    return out


def history(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "history.csv")


def test_events_of_tensorboard_hold_every_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = killed_then_finished(tmp_path / "net", monkeypatch, tracker="tensorboard")
    events = EventAccumulator(str(out / "events")).Reload()
    expected = history(out)
    assert set(events.Tags()["scalars"]) == set(expected.columns)
    for name in ("val_auc", "train_loss", "step"):
        rows = expected.dropna(subset=[name])
        found = events.Scalars(name)
        assert [one.step for one in found] == rows["epoch"].tolist()
        np.testing.assert_allclose([one.value for one in found], rows[name], rtol=1e-6)
    assert expected["epoch"].tolist() == [1, 2, 3, 4]  # the last is the head that was found anew
    written = b"".join(file.read_bytes() for file in (out / "events").rglob("*") if file.is_file())
    assert b"training.learning_rate" in written
    refuse_names(written, tmp_path)


def refuse_names(written: bytes, folder: Path) -> None:
    for name in (*NAMES, str(folder), str(Path.home())):
        assert len(name) < 6 or name.encode() not in written


def check_mlflow(out: Path, store: str, *, protocol: str = "toy") -> None:
    from mlflow import MlflowClient

    client, expected = MlflowClient(store), history(out)
    experiment = client.get_experiment_by_name(protocol)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1
    assert runs[0].info.run_name == "test_convnext"
    assert runs[0].info.status == "FINISHED"
    assert runs[0].data.params["training.epochs"] == "3"
    assert runs[0].data.params["network.architecture"] == ""
    assert {*runs[0].data.tags} <= {*trackers.ANONYMOUS, "mlflow.runName"}
    for name in ("val_auc", "train_loss"):
        rows = expected.dropna(subset=[name])
        found = client.get_metric_history(runs[0].info.run_id, name)
        assert [one.step for one in found] == rows["epoch"].tolist()
        np.testing.assert_allclose([one.value for one in found], rows[name], rtol=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_store_of_mlflow_that_the_environment_names_holds_every_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of files, which is made faster than a data base."""
    pytest.importorskip("mlflow", reason="mlflow is absent: pip install 'lucency[mlflow]'")
    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    out = killed_then_finished(tmp_path / "net", monkeypatch, tracker="mlflow")
    check_mlflow(out, store)
    assert os.environ["MLFLOW_TRACKING_URI"] == store
    assert not (out / trackers.STORE).exists()


@pytest.mark.slow  # MLflow takes some seconds to make its data base
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_s_store_lies_in_the_network_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is absent: pip install 'lucency[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    out = killed_then_finished(tmp_path / "net", monkeypatch, tracker="mlflow")
    check_mlflow(out, f"sqlite:///{out / trackers.STORE}")
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert {one.name for one in tmp_path.iterdir()} == {"net"}
    refuse_names((out / trackers.STORE).read_bytes(), tmp_path)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    protocol = toy_protocol(tracker=name)
    with pytest.raises(
        ValueError, match=f"package {name} is not installed: pip install"
    ) as refusal:
        check_choice(protocol.network[0], root=Path(), training=protocol.training)
    assert "\n" not in str(refusal.value)
    check_choice(protocol.network[0], root=Path(), training=toy_protocol().training)


class StandIn(types.ModuleType):
    """In place of wandb or trackio, which are not installed: it keeps what it is given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.config: dict[str, Any] = {}
        self.config = types.SimpleNamespace(update=lambda *_, **__: None)  # pyright: ignore
        self.seen: dict[str, str] = {}

    def init(self, **about: Any) -> "StandIn":
        self.began.append(about)
        self.seen = {k: v for k, v in os.environ.items() if k.startswith(("WANDB", "TRACKIO"))}
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        assert all(np.isfinite(list(values.values())))
        self.steps.append(step)

    def finish(self) -> None:
        pass


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_others_are_begun_offline_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of a stand-in: the packages themselves were never tried."""
    stand_in = StandIn(name)
    monkeypatch.setitem(sys.modules, name, stand_in)
    killed_then_finished(tmp_path / "net", monkeypatch, tracker=name)
    assert stand_in.steps == [1, 2, 3, 4]
    first, second = stand_in.began
    assert first == second
    assert (first["project"], first["resume"]) == ("toy", "allow")
    if name == "wandb":
        assert stand_in.seen["WANDB_MODE"] == "offline"
    else:
        assert stand_in.seen["TRACKIO_DIR"].startswith(str(tmp_path))
    assert not {"WANDB_MODE", "TRACKIO_DIR"} & {*os.environ}


def test_no_file_is_named_to_a_tracker() -> None:
    choices = {"name": "mine", "architecture": "local-dir:/films/net", "weights": "/films/w.pth"}
    protocol = parse_protocol(
        {
            "name": "toy",
            "data": {"root": "/films"},
            "network": [choices | {"provenance": "films of /films"}],
            "balance": {"method": "mltl", "features": {"name": "thumbnail"}},
        },
        name="toy",
    )
    made = trackers.parameters_of(protocol, choice=protocol.network[0])
    assert made["network.architecture"] == "local-dir"
    assert made["network.weights"] == "a file"
    assert "/films" not in str(made)


TRAINING_BEFORE = {  # the receipt's `training` as it was before there were other trackers
    "epochs": 2, "batch": 8, "micro_batch": 0, "sync_batch_norm": False, "optimizer": "adam",
    "learning_rate": 1e-3, "schedule": "cosine", "snapshots": 0, "warmup_epochs": 0.0,
    "weight_decay": 0.0, "clip_norm": 0.0, "frozen_epochs": 0, "frozen": 0.0,
    "unfreeze_epochs": 0, "layer_decay": 1.0, "probe": False, "retrain": "none", "ema": 0.0,
    "swa_epochs": 0, "swa_rate": 0.1, "patience": 0, "keep": "best", "dropout": 0.0,
    "augment": "none", "augment_strength": 1.0, "mixup": 0.0, "smoothing": 0.0,
    "normalise": "network", "precision": "float32", "loss": "bce", "reweigh_after": 0.8, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_network_of_before_trackers_is_not_made_from_other_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, tensorboard: bool
) -> None:
    out = tmp_path / "net"
    learn(out, toy_protocol())
    inputs = json.loads((out / RECEIPT).read_text())
    before = TRAINING_BEFORE | {"tensorboard": tensorboard}
    assert inputs["training"] == TRAINING_BEFORE | {"tensorboard": False}
    assert inputs["evaluation"] == {"recalibration": "platt", "threshold": "f1", "recall": 0.9}
    (out / RECEIPT).write_text(json.dumps(inputs | {"training": before}))
    monkeypatch.setattr(train_module, "_learn", lambda *_, **__: pytest.fail("trained anew"))
    learn(out, toy_protocol(tensorboard=tensorboard))
    learn(out, toy_protocol(tracker="mlflow"))
    with pytest.raises(ValueError, match=r"other inputs \(training.epochs: was 2, now 3\)"):
        learn(out, toy_protocol(epochs=3))
