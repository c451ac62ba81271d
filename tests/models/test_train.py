"""Training: it learns, and resumes at the exact step. Of two processes: test_processes.py."""

import errno
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from lucency.config.sections import Training
from lucency.models import checkpoint
from lucency.models import training as train_module
from lucency.models.checkpoint import CHECKPOINT
from lucency.models.optimisation import cycle_ends, learning_rate
from toys import KilledError, learn, toy_protocol

GOLDEN = Path(__file__).parents[1] / "golden" / "toy_steps.csv"
ABOVE = (str(Path(__file__).parent), str(Path(__file__).parents[1]))
PLACES = os.pathsep.join(filter(None, (*ABOVE, os.environ.get("PYTHONPATH"))))


def weights(out: Path) -> dict[str, np.ndarray]:
    return load_file(out / "weights.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_learns_what_can_be_seen(tmp_path: Path) -> None:
    learn(tmp_path / "net", toy_protocol(epochs=12, learning_rate=3e-3))
    history = pd.read_csv(tmp_path / "net" / "history.csv")
    assert history["val_auc"].max() > 0.9
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]


def dies_at_call(number: int) -> Callable[..., None]:
    """A progress that ends the process at its call of this number."""
    calls = itertools.count(1)

    def progress(done: int, total: int, note: str = "") -> None:
        if next(calls) == number:
            raise KilledError

    return progress


VARIED = toy_protocol(dropout=0.3, augment="gentle", clip_norm=1.0, warmup_epochs=0.5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken training with dropout, augmentation, clipping and warm-up."""
    folder = tmp_path_factory.mktemp("unbroken") / "whole"
    learn(folder, VARIED)
    return folder


@pytest.mark.parametrize("dies_at", [1, 5, 7, 9])
def test_resumed_is_unbroken(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Dropout, augmentation, momentum and the kept best weights all go on where they were."""
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    monkeypatch.setattr(train_module, "SETTLE_STEPS", 1)
    with pytest.raises(KilledError):
        learn(tmp_path / "broken", VARIED, dies_at_call(dies_at))
    assert not (tmp_path / "broken").exists()
    learn(tmp_path / "broken", VARIED)
    assert_same_weights(whole, tmp_path / "broken")
    for table in ("steps.csv", "history.csv"):
        first, second = (pd.read_csv(run / table) for run in (whole, tmp_path / "broken"))
        timed = ["films_per_second", "seconds"]
        pd.testing.assert_frame_equal(
            first.drop(columns=timed, errors="ignore"), second.drop(columns=timed, errors="ignore")
        )


def test_killed_after_the_last_checkpoint_no_epoch_is_missing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history is written before the checkpoint from which a killed training goes on."""
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    save, epochs = checkpoint.save_checkpoint, VARIED.training.epochs

    def save_and_die(state: checkpoint.TrainingState, tensors: Any, *, folder: Path) -> None:
        save(state, tensors, folder=folder)
        if state.epoch == epochs:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", save_and_die)
        with pytest.raises(KilledError):
            learn(tmp_path / "broken", VARIED)
    learn(tmp_path / "broken", VARIED)
    assert_same_weights(whole, tmp_path / "broken")
    assert len(pd.read_csv(tmp_path / "broken" / "history.csv")) == epochs


class FullDisk(io.BytesIO):
    """A file whose disk is full from its second write on."""

    def write(self, content: Any) -> int:
        if self.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_without_room_for_gradients_training_ends_before_them_and_goes_on_with_room(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "check_room", refuse)
        with pytest.raises(MemoryError, match="no room"):
            learn(tmp_path / "net", VARIED)
    learn(tmp_path / "net", VARIED)
    assert_same_weights(tmp_path / "net", whole)


def test_a_full_disk_is_named_though_torch_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def full(file: Path) -> Iterator[FullDisk]:
        yield FullDisk()

    monkeypatch.setattr(checkpoint, "whole_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_checkpoint(
            checkpoint.TrainingState(), {"network": {"one": torch.ones(9)}}, folder=tmp_path
        )


def test_a_short_training_writes_no_checkpoint_and_resumes_from_its_start(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint weighs four times the network, so none is written sooner than it is worth."""
    written = []
    save = checkpoint.save_checkpoint
    monkeypatch.setattr(
        checkpoint,
        "save_checkpoint",
        lambda *given, **named: written.append(save(*given, **named)),
    )

    def die(done: int, total: int, note: str = "") -> None:
        if done > 0.9 * total:
            raise KilledError

    with pytest.raises(KilledError):
        learn(tmp_path / "broken", VARIED, die)
    assert (tmp_path / "broken.partial" / "history.csv").exists()
    learn(tmp_path / "broken", VARIED)
    assert_same_weights(whole, tmp_path / "broken")
    assert not written


@pytest.mark.parametrize("disk", [2e9, 2e7, 1e6])
@pytest.mark.parametrize("size", [1e6, 4e8, 3e9])
def test_checkpoints_cost_no_more_than_stated(disk: float, size: float) -> None:
    """By a fake clock, over two days of steps of a second and disks of 2 GB to 1 MB a second.

    The first on a disk slower than believed may be dearer; it is paid back before the next.
    """
    clock, written, pace = 1000.0, [], checkpoint.Pace(begun=1000.0)
    while clock < 1000.0 + 2 * 86400:
        clock += 1.0
        if pace.is_due(clock, lambda: int(size)):
            pace.wrote(size=int(size), started=clock, ended=clock + size / disk)
            clock += size / disk
            written.append(clock)
            spent = len(written) * size / disk
            assert spent <= 0.0501 * (clock - 1000) or (len(written) == 1 and disk < 50e6)
    between = np.diff(written, prepend=1000.0)
    assert between.min() >= 60
    assert (size / between).max() * 3600 <= 20e9
    dearest = max(60, size / 20e9 * 3600, 20 * size / disk)
    assert len(written) >= 2 * 86400 / (1.1 * dearest + size / disk + 2) - 1  # no idler than needed


def test_a_training_keeps_the_pace_of_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves 40 seconds at every reading, within epochs and at their ends."""
    clock, written = itertools.count(step=40), []
    monkeypatch.setattr(train_module.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *_, **__: written.append(next(clock)))
    monkeypatch.setattr(train_module, "SETTLE_STEPS", 1)
    monkeypatch.setattr(checkpoint, "SHARE", 1.0)
    learn(tmp_path / "often", toy_protocol(epochs=4))
    often = list(written)
    assert len(often) > 2
    assert min(np.diff(often)) > 60
    written.clear()
    monkeypatch.setattr(checkpoint, "SHARE", 0.2)  # of which each takes 80 seconds
    learn(tmp_path / "seldom", toy_protocol(epochs=4))
    assert 1 <= len(written) < len(often)


def test_the_size_of_a_checkpoint_is_known_before_it_is_written(tmp_path: Path) -> None:
    """Within a twentieth of the file's, with an average and Adam's two moments."""
    network = torch.nn.Linear(300, 200)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    tensors = checkpoint.tensors_of(
        network=network, optimizer=optimizer, average=torch.nn.Linear(300, 200), best={}
    )
    checkpoint.save_checkpoint(checkpoint.TrainingState(), tensors, folder=tmp_path)
    expected = (tmp_path / CHECKPOINT).stat().st_size
    assert checkpoint.size_of(tensors) == pytest.approx(expected, rel=0.05)


def test_another_seed_gives_other_weights(whole: Path, tmp_path: Path) -> None:
    """The guard of the tests above: it can fail."""
    training = VARIED.training.model_copy(update={"seed": 1})
    learn(tmp_path / "other", VARIED.model_copy(update={"training": training}))
    with pytest.raises(AssertionError):
        assert_same_weights(whole, tmp_path / "other")


@pytest.mark.slow
def test_killed_for_good_and_resumed(tmp_path: Path) -> None:
    """Another process is killed; this one resumes, and trains unbroken for comparison."""
    script = (
        "import sys, test_train\nfrom pathlib import Path\n"
        "test_train.checkpoint.Pace.is_due = lambda *_: True\n"
        "test_train.train_module.SETTLE_STEPS = 1\n"
        "def tell(done, total, note=''): print(done, flush=True)\n"
        "test_train.learn(Path(sys.argv[1]), test_train.toy_protocol(epochs=3), tell)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "net")]
    environment = {**os.environ, "PYTHONPATH": PLACES}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as killed:
        assert killed.stdout is not None
        for _ in range(7):
            killed.stdout.readline()
        time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert not (tmp_path / "net").exists()
    assert (tmp_path / "net.partial" / CHECKPOINT).exists()
    for place in ("net", "whole"):
        learn(tmp_path / place, toy_protocol(epochs=3))
    assert_same_weights(tmp_path / "net", tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_freeze_as_one_does(tmp_path: Path) -> None:
    """On a network without batch statistics, at the same global batch.

    Processes start with what torchrun sets; torchrun itself is seen in test_processes.py.
    """
    choices = {"frozen": 0.5, "frozen_epochs": 1, "clip_norm": 1.0}
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, test_train\nfrom pathlib import Path\n"
        f"test_train.learn(Path(sys.argv[1]), test_train.toy_protocol(**{choices}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": PLACES, "OMP_NUM_THREADS": "1"}
    learn(tmp_path / "one", toy_protocol(**choices))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(script), str(tmp_path / "two")]
    ranks = [
        subprocess.Popen(command, env={**environment, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [rank.wait(timeout=600) for rank in ranks] == [0, 0]
    one, two = (pd.read_csv(tmp_path / run / "steps.csv")["loss"] for run in ("one", "two"))
    assert len(one) == len(two) > 8
    np.testing.assert_allclose(two, one, rtol=1e-4)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in first.items():
        np.testing.assert_allclose(second[key], value, atol=2e-4)


def test_twenty_steps_are_golden(tmp_path: Path) -> None:
    """The losses of a toy training, kept in the repository; LUCENCY_GOLDEN=write renews them."""
    learn(tmp_path / "net", toy_protocol(epochs=4))
    steps = pd.read_csv(tmp_path / "net" / "steps.csv")
    if os.environ.get("LUCENCY_GOLDEN") == "write":
        steps.to_csv(GOLDEN, index=False)
    expected = pd.read_csv(GOLDEN)
    np.testing.assert_allclose(steps["loss"], expected["loss"], rtol=2e-3)


def test_a_frozen_body_keeps_its_weights_and_its_statistics(tmp_path: Path) -> None:
    learn(tmp_path / "short", toy_protocol("test_resnet", epochs=1, frozen_epochs=1))
    learn(tmp_path / "long", toy_protocol("test_resnet", epochs=2, frozen_epochs=2, keep="last"))
    short, long = weights(tmp_path / "short"), weights(tmp_path / "long")
    changed = {key for key in short if not np.array_equal(short[key], long[key])}
    assert changed == {"fc.weight", "fc.bias"}


def test_patience_stops_early_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    protocol = toy_protocol(epochs=30, learning_rate=0.3, patience=2, schedule="constant")
    try:
        learn(tmp_path / "net", protocol)
    except ValueError as error:
        assert "no longer finite" in str(error)  # noqa: PT017  # such a rate may diverge instead
        return
    history = pd.read_csv(tmp_path / "net" / "history.csv")
    best = int(history["val_auc"].idxmax())
    assert len(history) == best + 1 + 2 or len(history) == 30


def test_a_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no longer finite"):
        learn(tmp_path / "net", toy_protocol(epochs=20, optimizer="sgd", learning_rate=10.0))


def test_a_finished_training_is_found_and_another_one_refused(tmp_path: Path) -> None:
    """Its classifier says where it comes from, and no checkpoint is left."""
    learn(tmp_path / "net", toy_protocol(epochs=1))
    about = json.loads((tmp_path / "net" / "classifier.json").read_text())
    assert about["provenance"].startswith("none")
    assert about["findings"] == ["Left", "Right"]
    assert about["preparation"]["size"] == 32
    assert not (tmp_path / "net" / CHECKPOINT).exists()

    def fail(done: int, total: int, note: str = "") -> None:
        raise AssertionError("trained again")

    (tmp_path / "net" / CHECKPOINT).touch()  # as a kill at the very end leaves it
    learn(tmp_path / "net", toy_protocol(epochs=1), fail)
    assert not (tmp_path / "net" / CHECKPOINT).exists()
    with pytest.raises(ValueError, match=r"training\.epochs: was 1, now 2"):
        learn(tmp_path / "net", toy_protocol(epochs=2))


def test_schedules() -> None:
    cosine = Training(epochs=10, schedule="cosine", warmup_epochs=1, learning_rate=1.0)
    rates = [learning_rate(cosine, step=s, steps_an_epoch=10, val_loss=()) for s in range(100)]
    assert np.argmax(rates) in (10, 11)
    assert rates[55] == pytest.approx(0.5, abs=1e-6)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    plateau = Training(schedule="plateau", learning_rate=1.0)
    stuck = learning_rate(plateau, step=0, steps_an_epoch=1, val_loss=[1.0, 2.0, 2.0, 2.0])
    falling = learning_rate(plateau, step=0, steps_an_epoch=1, val_loss=[4.0, 3.0, 2.0, 1.0])
    assert (stuck, falling) == (pytest.approx(0.3), 1.0)


def test_the_rate_falls_anew_in_every_cycle() -> None:
    """By hand: Huang et al. (2017), equation 2, cycles of 2, 2 and 3 epochs."""
    cyclic = Training(epochs=7, schedule="cyclic", snapshots=3, learning_rate=1.0)
    assert cycle_ends(cyclic) == [2, 4, 7]
    rates = [learning_rate(cyclic, step=s, steps_an_epoch=10, val_loss=()) for s in range(70)]
    by_hand = [
        0.5 * (np.cos(np.pi * step / length) + 1)
        for length in (20, 20, 30)
        for step in range(length)
    ]
    np.testing.assert_allclose(rates, by_hand)
    with pytest.raises(ValueError, match="`snapshots` are 0; or 2 to `epochs`"):
        Training(epochs=7, snapshots=3)
    for wrong in ({"snapshots": 1}, {"snapshots": 8}, {"snapshots": 2, "patience": 1}, {}):
        with pytest.raises(ValueError, match="`snapshots` are 0; or 2 to `epochs`"):
            Training.model_validate({"epochs": 7, "schedule": "cyclic", **wrong})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: run it on one")
def test_learns_on_a_gpu_in_mixed_precision(tmp_path: Path) -> None:
    learn(tmp_path / "net", toy_protocol(epochs=12, learning_rate=3e-3, precision="auto"))
    assert pd.read_csv(tmp_path / "net" / "history.csv")["val_auc"].max() > 0.9
