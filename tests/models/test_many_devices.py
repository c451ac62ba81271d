"""Training on many devices, or at the limit of one, gives what one process and batch give."""

import copy
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from timm.layers.norm_act import BatchNormAct2d
from torch import distributed, nn
from torch._C._distributed_c10d import HashStore

from lucency.config.sections import Training
from lucency.core.parallel import set_ranks
from lucency.core.plan import originals
from lucency.models import training as train_module
from lucency.models.batch_norm import SynchronisedBatchNorm
from lucency.models.checkpoint import CHECKPOINT
from lucency.models.device import laid_out
from lucency.models.film_loader import (
    Feeder,
    Films,
    batches_in_order,
    feed,
    in_pieces,
    one_ahead,
    share_of_process,
)
from lucency.models.losses import LOSSES
from lucency.models.networks import FilmNetwork, build
from lucency.models.validation import validate_here
from toys import learn, toy_films, toy_protocol

DEPENDENT = {"two-way", "auc-margin"}  # on which films they see together
WHOLE = {"batch": 18, "optimizer": "sgd", "clip_norm": 1.0, "ema": 0.5}

DOUBLE = """
from lucency.models import training
laid_out = training.laid_out
training.laid_out = lambda network: laid_out(network.double())
"""
VALIDATE = """
import json, torch
from lucency.models import validation
from lucency.models.device import join
from lucency.core.parallel import rank
from test_many_devices import validated
join()
network, films, other = validated(rank())
made = {"films": 0}
over_batches = validation.over_batches
def counted(network, make, *, films, batches):
    made["films"] += sum(map(len, batches))
    return over_batches(network, make, films=films, batches=batches)
validation.over_batches = counted
made["figures"] = validation.validate(network, films)
try:
    validation.validate(network, other)
except ValueError as error:
    made["error"] = str(error)
(out / f"{rank()}.json").write_text(json.dumps(made))
"""
KILLED = """
from lucency.core.parallel import rank
from lucency.models import checkpoint, training
checkpoint.Pace.is_due = lambda *_: True
training.SETTLE_STEPS = 1
def tell(done, total, note=""):
    with Path(f"{out}-{rank()}.txt").open("a") as log:
        print(done, file=log, flush=True)
toys.learn(out, toys.toy_protocol(epochs=EPOCHS, dropout=0.0), tell)
"""
PLACES = os.pathsep.join(str(Path(__file__).parents[level]) for level in (0, 1))


def losses_of(out: Path) -> np.ndarray:
    return pd.read_csv(out / "steps.csv")["loss"].to_numpy()


def distance(one: Path, other: Path) -> float:
    """The largest difference of two trainings' weights."""
    first, second = (load_file(out / "weights.safetensors") for out in (one, other))
    return max(float(np.abs(first[key] - second[key]).max()) for key in first)


@contextmanager
def alone_in_a_group() -> Iterator[None]:
    """A gloo group of this process alone."""
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def start(number: int, script: str, out: Path) -> list[subprocess.Popen[bytes]]:
    """Start that many processes, which have joined when `script` runs; they know `out`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = os.pathsep.join(filter(None, (PLACES, os.environ.get("PYTHONPATH"))))
    common = {
        **os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    lines = ("import sys", "from pathlib import Path", "import toys", "out = Path(sys.argv[1])")
    command = [sys.executable, "-c", "\n".join((*lines, script)), str(out)]
    return [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(number)
    ]


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_batch_in_pieces_is_the_whole_batch(loss: str, tmp_path: Path):
    """18 films at once or in pieces of 4, 4, 4, 3 and 3; guard: it fails for losses that differ."""
    soft = {} if loss in ("ldam", "two-way") else {"mixup": 0.4}
    whole = {**WHOLE, **soft, "loss": loss}
    learn(tmp_path / "whole", toy_protocol(**whole))
    learn(tmp_path / "pieces", toy_protocol(**whole, micro_batch=4))
    apart = np.abs(losses_of(tmp_path / "whole") - losses_of(tmp_path / "pieces")).max()
    if loss in DEPENDENT:
        assert apart > 1e-4
        return
    assert apart < 1e-6
    assert distance(tmp_path / "whole", tmp_path / "pieces") < 1e-6


def test_batch_norm_sees_a_piece_at_a_time(tmp_path: Path):
    """Pieces of a network with batch statistics are another training, as documented."""
    for folder, pieces in (("whole", {}), ("pieces", {"micro_batch": 4})):
        learn(tmp_path / folder, toy_protocol("test_resnet", **WHOLE, **pieces))
    assert np.abs(losses_of(tmp_path / "whole") - losses_of(tmp_path / "pieces")).max() > 1e-4


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_pieces_hold_every_entry_once_and_never_more_than_stated(processes: int):
    """And from two films on every process has a share of every piece."""
    for entries in range(2 * processes, 60):
        batch = np.random.default_rng(entries).permutation(entries)
        for films in (0, 2, 3, 16):
            set_ranks(rank=0, local_rank=0, world_size=processes)
            pieces = in_pieces(batch, films=films)
            np.testing.assert_array_equal(np.concatenate(pieces), batch)
            for rank in range(processes):
                set_ranks(rank=rank, local_rank=rank, world_size=processes)
                shares = [len(share_of_process(piece)) for piece in pieces]
                assert min(shares) > 0
                assert max(shares) <= (films or entries)


def test_a_micro_batch_of_one_film_is_refused():
    with pytest.raises(ValueError, match="micro_batch is 1: expected 0"):
        Training(micro_batch=1)


def test_batch_norm_of_one_process_is_torchs():
    """Values, gradients and running statistics, in two and four dimensions, by a group of one."""
    torch.manual_seed(0)
    with alone_in_a_group():
        for shape in ((6, 3), (4, 3, 5, 2)):
            film = (3 + 2 * torch.randn(shape)).requires_grad_()
            other = film.detach().clone().requires_grad_()
            norm = nn.BatchNorm1d(3) if len(shape) == 2 else BatchNormAct2d(3)
            for one in norm.parameters():
                nn.init.normal_(one)
            twin, target = copy.deepcopy(norm), torch.randn(shape)
            expected = norm(film)
            with SynchronisedBatchNorm():
                found = twin(other)
            (expected * target).sum().backward()
            (found * target).sum().backward()
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(other.grad, film.grad)
            torch.testing.assert_close(twin.state_dict(), norm.state_dict())
            for one, two in zip(norm.parameters(), twin.parameters(), strict=True):
                torch.testing.assert_close(two.grad, one.grad, atol=1e-5, rtol=1e-5)
            with SynchronisedBatchNorm():
                assert torch.equal(twin.eval()(film), twin(film))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "number", "choices"),
    [
        ("test_convnext", 2, {"micro_batch": 4, "mixup": 0.4, "ema": 0.5}),
        ("test_convnext", 4, {"frozen_epochs": 1, "clip_norm": 1.0}),
        ("densenet121", 2, {"sync_batch_norm": True}),
        ("densenet121", 4, {"sync_batch_norm": True}),
    ],
)
def test_several_processes_train_as_one_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    number: int,
    choices: dict[str, object],
):
    """By gloo, at the same global batch of 18.

    DenseNet121 in float64: in float32 rounding alone moves its third loss by 0.2 %.
    """
    choices = {"batch": 18, "optimizer": "sgd", **choices}
    script = f"toys.learn(out, toys.toy_protocol({network!r}, **{choices}))"
    if network == "densenet121":
        monkeypatch.setattr(train_module, "laid_out", lambda net: laid_out(net.double()))
        script = DOUBLE + script
    ranks = start(number, script, tmp_path / "many")
    learn(tmp_path / "one", toy_protocol(network, **choices))
    assert [rank.wait(timeout=600) for rank in ranks] == [0] * number
    np.testing.assert_allclose(losses_of(tmp_path / "many"), losses_of(tmp_path / "one"), rtol=1e-5)
    first, second = (pd.read_csv(tmp_path / run / "history.csv") for run in ("one", "many"))
    assert second["val_auc"].tolist() == first["val_auc"].tolist()
    np.testing.assert_allclose(second["val_loss"], first["val_loss"], rtol=1e-4)
    assert distance(tmp_path / "one", tmp_path / "many") < 1e-4


def validated(rank: int) -> tuple[FilmNetwork, Films, Films]:
    """A network whose batch statistics depend on the rank, 150 films, and others than the first's.

    Its weights do not depend on it.
    """
    torch.manual_seed(0)
    network = build("test_resnet", findings=2)
    norm = next(one for one in network.modules() if isinstance(one, nn.BatchNorm2d))
    norm.running_mean = torch.full_like(norm.bias, float(rank))
    films = toy_films(150)
    plan = originals(films.manifest.label)
    moved = plan.take(np.roll(np.arange(150), rank))
    made = Films(prepared=films, plan=plan, copies=0)
    return network, made, replace(made, plan=moved)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_processes_validate_their_shares_to_the_figures_of_one(tmp_path: Path, number: int):
    """To the bit, with the first process's batch statistics; other films are refused by name."""
    ranks = start(number, VALIDATE, tmp_path)
    network, films, _ = validated(0)
    expected = validate_here(network, films)
    assert validate_here(validated(1)[0], films) != expected
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * number
    made = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(number)]
    assert [one["figures"] for one in made] == [expected] * number
    assert sum(one["films"] for one in made) == 2 * 150
    assert max(one["films"] for one in made) <= 2 * 30 * -(-5 // number)
    assert all("processes have different films in place of" in one["error"] for one in made)


class Worker(Films):
    """Films whose pictures end with a row that holds the number of the process that made them."""

    def __getitem__(self, entry: int) -> torch.Tensor:
        row = np.frombuffer(os.getpid().to_bytes(32, "little"), dtype=np.uint8).copy()
        return torch.cat([super().__getitem__(entry), torch.from_numpy(row)[None]])


def test_workers_live_through_all_epochs_and_make_the_pictures_of_each():
    """Two workers give, in two epochs, the pictures that this process makes, and these differ."""
    films = toy_films(12)
    plan = originals(films.manifest.label)
    changed = Worker(prepared=films, plan=plan, copies=0, recipe="gentle", seed=3)
    batches, cpu = [np.array([3, 1]), np.array([7]), np.array([0, 2, 4])], torch.device("cpu")
    feeder = Feeder(changed, device=cpu, workers=2)
    seen, made = [], []
    for epoch in (0, 1):
        fed = torch.cat(list(feeder.feed(batches, epoch=epoch)))
        rows = fed[:, -1].numpy()
        seen.append({int.from_bytes(row.tobytes(), "little") for row in rows})
        made.append(fed[:, :-1])
        here = torch.cat(list(feed(replace(changed, epoch=epoch), batches=batches, device=cpu)))
        assert torch.equal(fed[:, :-1], here[:, :-1])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2
    assert os.getpid() not in seen[0]
    assert not torch.equal(*made)
    feeder.feed(batches, epoch=0).close()


def test_an_epoch_that_breaks_off_does_not_reach_the_next():
    films = toy_films(12)
    whole = Films(prepared=films, plan=originals(films.manifest.label), copies=0, recipe="gentle")
    batches = [np.array([entry]) for entry in range(12)]
    for workers in (0, 2):
        feeder = Feeder(whole, device=torch.device("cpu"), workers=workers)
        broken = feeder.feed(batches, epoch=0)
        next(broken)
        broken.close()
        found = list(feeder.feed(batches[5:8], epoch=1))
        expected = [replace(whole, epoch=1)[entry] for entry in (5, 6, 7)]
        assert torch.equal(torch.cat(found), torch.stack(expected))


def test_the_next_batch_is_taken_before_the_one_at_hand_is_used():
    taken = []
    items = one_ahead(taken.append(item) or item for item in range(3))
    assert [(item, len(taken)) for item in items] == [(0, 2), (1, 3), (2, 3)]
    assert list(one_ahead([])) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: run it on one")
def test_pictures_sent_ahead_are_those_of_a_cpu():
    films = toy_films(48)
    whole = Films(prepared=films, plan=originals(films.manifest.label), copies=0, recipe="gentle")
    batches = batches_in_order(48, batch=5)
    made = [
        list(Feeder(whole, device=torch.device(name)).feed(batches, epoch=1))
        for name in ("cpu", "cuda")
    ]
    assert all(torch.equal(one, other.cpu()) for one, other in zip(*made, strict=True))


@pytest.mark.slow
def test_one_of_two_processes_killed_they_go_on_at_the_exact_step(tmp_path: Path):
    """The second is killed in mid-epoch; the first ends with it, and both are started anew."""
    script, out = KILLED.replace("EPOCHS", "12"), tmp_path / "two"
    first, second = start(2, script, out)
    log = tmp_path / "two-0.txt"
    while not log.exists() or len(log.read_text().splitlines()) < 8:
        assert first.poll() is None
        time.sleep(0.01)
    second.kill()
    assert first.wait(timeout=120) != 0
    second.wait()
    saved = torch.load(tmp_path / "two.partial" / CHECKPOINT, weights_only=True)
    step = json.loads(saved["state"])["step"]
    assert not out.exists()
    before = len(log.read_text().splitlines())
    assert [rank.wait(timeout=300) for rank in start(2, script, out)] == [0, 0]
    resumed = int(log.read_text().splitlines()[before])
    assert resumed == step * 36 // 5 > 0  # 36 films, five batches an epoch
    learn(tmp_path / "one", toy_protocol(epochs=12))
    np.testing.assert_allclose(losses_of(out), losses_of(tmp_path / "one"), rtol=1e-4)
    assert len(losses_of(out)) == len(losses_of(tmp_path / "one")) == 60


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="a CUDA device is here: CUDA_VISIBLE_DEVICES= hides it"
)
def test_the_benchmark_of_a_gpu_measures_nothing_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    file = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    monkeypatch.setattr(sys, "argv", [str(file)])
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out == "no CUDA device here: nothing is measured\n"
