"""Snapshots: the weights at the ends of cycles, the same when training was killed between."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lucency.config.sections import Network, Training
from lucency.core.manifest import Prepared
from lucency.core.plan import Plan
from lucency.models import training as training
from lucency.models.classifier import load_classifier
from lucency.models.inference import predict, predict_snapshots
from lucency.models.training import train
from toys import KilledError, dies_beyond, silent, toy_films, toy_plan, toy_protocol

FILMS, TRAINED = 40, 30  # all, and those of train
SNAPSHOTS = {"schedule": "cyclic", "snapshots": 2, "epochs": 4, "keep": "last"}


def learn(out: Path, progress: Callable[..., None] = lambda *_: None, **choices: object) -> Path:
    films = toy_films(FILMS)
    return train(
        films,
        plan=toy_plan(films),
        protocol=toy_protocol(**choices),
        choice=Network(name="test_convnext"),
        upstream={"split": "0123"},
        out=out,
        progress=progress,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learn(tmp_path_factory.mktemp("snapshots") / "net", **SNAPSHOTS)


@pytest.fixture
def films() -> Prepared:
    return toy_films(FILMS)


@pytest.fixture
def plan(films: Prepared) -> Plan:
    return toy_plan(films)


def test_snapshots_are_the_weights_at_the_ends_of_cycles(trained, films, plan):
    first, last = (load_file(trained / f"snapshot-{n}.safetensors") for n in (1, 2))
    kept = load_file(trained / "weights.safetensors")
    assert json.loads((trained / "classifier.json").read_text())["epoch"] == 4
    for key, value in kept.items():
        np.testing.assert_array_equal(last[key], value)
    assert any((first[key] != last[key]).any() for key in kept)
    predicted = predict_snapshots(trained, prepared=films, plan=plan, progress=silent)
    assert [one.network for one in predicted] == [f"test_convnext snapshot {n}" for n in (1, 2)]
    plain = predict(load_classifier(trained), prepared=films, plan=plan).uncalibrated()
    np.testing.assert_allclose(predicted[1].logit, plain.logit, atol=1e-6)
    assert np.abs(predicted[0].logit - plain.logit).max() > 1e-4


@pytest.mark.parametrize("dies_at", [TRAINED + 6, 2 * TRAINED])
def test_resumed_training_has_the_snapshots_of_an_unbroken_one(
    trained, tmp_path, monkeypatch, dies_at
):
    """Killed in the second epoch, before the first snapshot, and just after it was kept."""
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    monkeypatch.setattr(training, "SETTLE_STEPS", 1)
    with pytest.raises(KilledError):
        learn(tmp_path / "net", dies_beyond(dies_at - 1), **SNAPSHOTS)
    broken = list(tmp_path.glob("net.partial/snapshot-*"))
    assert len(broken) == (dies_at == 2 * TRAINED)
    learn(tmp_path / "net", **SNAPSHOTS)
    names = ["snapshot-1.safetensors", "snapshot-2.safetensors", "weights.safetensors"]
    assert sorted(file.name for file in (tmp_path / "net").glob("*.safetensors")) == names
    for name in names:
        assert (tmp_path / "net" / name).read_bytes() == (trained / name).read_bytes()


def test_a_warm_up_as_long_as_a_cycle_is_refused():
    cyclic = {"schedule": "cyclic", "snapshots": 2, "epochs": 5}
    assert Training.model_validate({**cyclic, "warmup_epochs": 1.9}).warmup_epochs == 1.9
    with pytest.raises(ValueError, match="`warmup_epochs` last a cycle"):
        Training.model_validate({**cyclic, "warmup_epochs": 2})


def test_a_network_without_snapshots_is_refused(tmp_path, films, plan):
    with pytest.raises(ValueError, match="holds no snapshot"):
        predict_snapshots(tmp_path, prepared=films, plan=plan, progress=silent)


def test_training_without_cycles_keeps_no_snapshot(tmp_path):
    assert not list(learn(tmp_path / "net", epochs=1).glob("snapshot-*"))
