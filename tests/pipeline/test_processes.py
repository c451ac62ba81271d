"""Several processes: who this one is, how launchers call the program, and that two equal one."""

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import types
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.machinery import ModuleSpec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accelerate.commands import launch as accelerate_launch
from accelerate.utils import PrepareForLaunch, is_torch_xla_available
from accelerate.utils.launch import prepare_simple_launcher_cmd_env
from safetensors.numpy import load_file
from torch.distributed import TCPStore

import lucency
from lucency.cli import app as cli
from lucency.config.protocol import parse_protocol
from lucency.config.sections import Training
from lucency.core import stage as receipt
from lucency.core.parallel import local_rank, rank, set_ranks, world_size
from lucency.core.stage import discard_outdated, produce
from lucency.models import device
from lucency.pipeline.run import open_run

TINY = """
name = "tiny"
[data]
films = 80
size = 64
[preparation]
size = 32
[training]
epochs = 2
batch = 16
learning_rate = 3e-3
precision = "float32"
clip_norm = 1.0
mixup = 0.4
probe = true
unfreeze_epochs = 1
layer_decay = 0.9
ema = 0.5
[[network]]
name = "test_convnext"  # layer norm: batch norm would see half of each batch in each process
"""
WATCHED = """
import os, sys
from lucency.cli.app import main

def watch(event, args):
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
    if event == "open":
        changes = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if changes and str(args[0]).startswith(OUT):
        with FILE.open("a") as log:
            print(event, args[0], file=log)

if __name__ == "__main__":
    from pathlib import Path
    OUT = sys.argv[sys.argv.index("--out") + 1]
    FILE = Path(f"writes-{os.environ['RANK']}.txt")
    FILE.touch()
    sys.addaudithook(watch)
    main()
"""
CALLED = """
import sys
from accelerate import debug_launcher
import lucency

if __name__ == "__main__":
    debug_launcher(lucency.main, num_processes=2)
"""
DIES = """
import os, signal, sys
from pathlib import Path
from lucency.core.stage import produce

def write(folder):
    while len(list(Path().glob("here-*"))) < 2:
        pass
    os.kill(os.getpid(), signal.SIGKILL)

Path("here-" + os.environ["RANK"]).write_text(str(os.getpid()))
produce(Path("out"), inputs={"size": 3}, write=write)
"""
KILLED_ONCE = """
import os, signal
from pathlib import Path
from lucency.cli.app import main
from lucency.models import checkpoint

def save(state, tensors, *, folder):
    write(state, tensors, folder=folder)
    with Path("steps.txt").open("a") as log:
        print(state.step, file=log)
    if state.step == 4 and not Path("died").exists():
        Path("died").touch()
        os.kill(int(Path("process-1").read_text()), signal.SIGKILL)

if __name__ == "__main__":
    Path("process-" + os.environ["RANK"]).write_text(str(os.getpid()))
    write, checkpoint.save_checkpoint = checkpoint.save_checkpoint, save
    checkpoint.Pace.is_due = lambda *_: True
    main()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny.toml, to work in."""
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found_by_accelerate(number: int, *, of: int) -> Callable[..., Namespace]:
    """What accelerate's PartialState would be for one of several processes."""
    state = Namespace(process_index=number, local_process_index=number % 4, num_processes=of)
    return lambda **_: state


def install_stand_in(monkeypatch: pytest.MonkeyPatch, spawn: Callable[..., None]) -> None:
    """Put modules in torch_xla's places that hold nothing but `xmp.spawn`."""
    names = ("torch_xla", "torch_xla.distributed", "torch_xla.distributed.xla_multiprocessing")
    package, distributed, multiprocessing = (types.ModuleType(name) for name in names)
    vars(package)["distributed"] = distributed
    vars(distributed)["xla_multiprocessing"] = multiprocessing
    vars(multiprocessing)["spawn"] = spawn
    for name, module in zip(names, (package, distributed, multiprocessing), strict=True):
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)


def content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def run_python(*words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Python here with this package, one thread a process."""
    source = str(Path(lucency.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words],
        env=environment, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def test_alone_there_is_one_process():
    assert (rank(), local_rank(), world_size()) == (0, 0, 1)


@pytest.mark.parametrize(
    ("one", "here", "all_of_them"),
    [
        ("RANK", "LOCAL_RANK", "WORLD_SIZE"),  # torchrun, accelerate launch
        ("PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"),  # MPICH, Intel MPI
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    ],
)
def test_launchers_that_start_programs_state_the_rank_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, one: str, here: str, all_of_them: str
):
    for name, value in ((one, "5"), (here, "1"), (all_of_them, "8")):
        monkeypatch.setenv(name, value)
    assert (rank(), local_rank(), world_size()) == (5, 1, 8)


def test_a_rank_that_another_launcher_has_left_is_that_of_one_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    assert (rank(), local_rank(), world_size()) == (0, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "0")
    assert (rank(), world_size()) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (rank(), local_rank(), world_size()) == (1, 1, 2)


@pytest.mark.parametrize("stated", [{"WORLD_SIZE": "x"}, {"RANK": "-1"}, {"RANK": "9" * 5000}])
def test_a_number_of_processes_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stated: dict[str, str]
):
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["lucency", "protocols"])
    assert cli.call() == 2
    (name, value), err = next(iter(stated.items())), capsys.readouterr().err
    assert err == (
        f"lucency: the environment's {name} is {value[:40]!r}: expected a whole number, as "
        "launchers of several processes set it; without a launcher unset it\n"
    )


def test_who_has_joined_has_the_rank_that_accelerate_says(monkeypatch: pytest.MonkeyPatch):
    """On a TPU no RANK is set; under accelerate's debug_launcher RANK is 0 in every process."""
    monkeypatch.setattr("accelerate.PartialState", found_by_accelerate(6, of=8))
    device.join()
    assert (rank(), local_rank(), world_size()) == (6, 2, 8)
    monkeypatch.setenv("RANK", "0")
    assert rank() == 6


def test_processes_that_accelerate_does_not_find_are_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr("accelerate.PartialState", found_by_accelerate(0, of=1))
    with pytest.raises(ValueError, match="finds 1 processes, but 4 were started"):
        device.join()


def test_processes_that_nobody_started_are_refused(monkeypatch: pytest.MonkeyPatch):
    """A plain program on a TPU host: accelerate counts all cores, and would wait for them."""
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: Namespace(num_processes=8))
    with pytest.raises(ValueError, match=r"finds 8 processes, but 1 were.*lucency\.main"):
        device.accelerator_for(Training())


def test_processes_started_again_do_not_find_the_addresses_of_those_that_died(
    monkeypatch: pytest.MonkeyPatch,
):
    """As two starts of one torchrun, whose store lives on: its own flag lets the process be one."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("address", "died")
    for name, value in {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "RANK": "0", "WORLD_SIZE": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for restarts, machines, knows in (("0", "1", None), ("1", "2", None), ("1", "1", False)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        monkeypatch.setenv("GROUP_WORLD_SIZE", machines)
        found = device._meeting_place().get("store")
        assert (found and found.check(["address"])) is knows
    assert store.check(["address"])


@pytest.mark.skipif(is_torch_xla_available(), reason="torch_xla is here: run it without")
def test_a_tpu_without_torch_xla_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PJRT_DEVICE", "TPU")
    for wants_a_device in (device.join, device.device_here):
        with pytest.raises(ValueError, match=r"torch_xla is not there.*pip install 'lucency\[tpu"):
            wants_a_device()
    monkeypatch.setenv("USE_TORCH_XLA", "0")
    assert device.device_here().type != "xla"


def test_other_ranks_write_nothing(place: Path, monkeypatch: pytest.MonkeyPatch):
    def write(folder: Path) -> None:
        (folder / "work").write_text("done")

    produce(place / "out" / "made", inputs={"size": 3}, write=write)
    produce(place / "out" / "old", inputs={"size": 3}, write=write)
    before = content(place)
    protocol = parse_protocol({"name": "x", "network": [{"name": "test_convnext"}]}, name="x")
    set_ranks(rank=1, local_rank=1, world_size=2)
    open_run(protocol, out=place / "run")
    discard_outdated(place / "out" / "old", inputs={"size": 4})
    produce(place / "out" / "made", inputs={"size": 3}, write=write)
    assert content(place) == before
    set_ranks(rank=0, local_rank=0, world_size=2)
    open_run(protocol, out=place / "run")
    discard_outdated(place / "out" / "old", inputs={"size": 4})
    assert {*before} - {*content(place)} == {"out/old/work", "out/old/receipt.json"}
    assert (place / "run" / "protocol.toml").is_file()


@pytest.mark.parametrize("number_here", [0, 1])
def test_a_long_wait_for_another_machine_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number_here: int,
):
    """The first process of a machine says once what it waits for, the others do not."""
    monkeypatch.setattr(receipt, "SILENT_SECONDS", -1.0)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 20))

    def wait() -> None:
        set_ranks(rank=8 + number_here, local_rank=number_here, world_size=16)
        produce(tmp_path / "out", inputs={}, write=lambda _: pytest.fail("written"))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    time.sleep(0.8)
    produce(tmp_path / "out", inputs={}, write=lambda _: None)
    waiting.join(10)
    assert not waiting.is_alive()
    lines = capsys.readouterr().err.splitlines()
    assert [line[:34] for line in lines] == ["process 8 waits for " + str(tmp_path)[:14]][
        number_here:
    ]


@pytest.mark.parametrize("command", ["run", "report", "evaluate", "audit"])
def test_several_processes_may_only_train(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["lucency", command, "tiny.toml", "--out", "out"])
    assert cli.call() == 2
    assert capsys.readouterr().err == (
        f"lucency: 2 processes were started for `lucency {command}`: start several for `lucency "
        "train` alone, then give this command without a launcher\n"
    )
    assert not (place / "out").exists()
    monkeypatch.setattr(sys, "argv", ["lucency", "--version"])
    assert cli.call() == 0


def test_the_first_process_tells_what_all_find_wrong(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The others give the launcher time to end them, then speak as well."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(sys, "argv", ["lucency", "run", "tiny.toml", "--out", "out"])
    for number, begins in ((0, "lucency: 2 "), (1, "lucency: process 1 of 2: 2 processes")):
        set_ranks(rank=number, local_rank=number, world_size=2)
        assert cli.call() == 2
        assert capsys.readouterr().err.startswith(begins)
        assert len(waited) == number


@pytest.mark.parametrize("several", [True, False])
def test_a_launcher_that_starts_one_of_several_is_refused(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    several: bool,
):
    """`accelerate launch --num_processes 2` on a machine without two GPUs starts one process."""
    words = ["--cpu", "--num_processes", str(1 + several), "-m", "lucency", "train", "absent.toml"]
    asked = accelerate_launch.launch_command_parser().parse_args([*words, "--out", "out"])
    asked, _, _ = accelerate_launch._validate_launch_command(asked)
    command, environment = prepare_simple_launcher_cmd_env(asked)
    assert command[1:4] == ["-m", "lucency", "train"]
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(sys, "argv", command[2:])
    assert cli.call() == 2
    line = capsys.readouterr().err
    assert ("has started one" if several else "absent.toml: no such protocol") in line


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_launcher_for_tpu_finds_and_calls_the_program(
    place: Path, monkeypatch: pytest.MonkeyPatch, how: str
):
    """accelerate's own launcher, over a stand-in for torch_xla: no TPU and no torch_xla is here.

    As on TPU v3, two ranks are threads of one process, and no rank is in the environment.
    """
    called, ordinal = [], threading.local()

    def spawn(fn: Callable[..., None], args: tuple[object, ...]) -> None:
        def one(index: int) -> None:
            ordinal.index = index
            fn(index, *args)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(one, (6, 7)))

    def do(name: str, *_: object) -> None:
        called.append((rank(), world_size(), local_rank(), name, sys.argv[1:]))

    install_stand_in(monkeypatch, spawn)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["accelerate", "launch"])
    monkeypatch.setattr(
        "accelerate.PartialState", lambda **_: found_by_accelerate(ordinal.index, of=8)()
    )
    monkeypatch.setattr("lucency.cli.run_commands.do", do)
    (place / "on_tpu.py").write_text("from lucency import main\n")
    program = {"module": ["-m", "lucency"], "script": ["on_tpu.py"]}[how]
    asked = ["--tpu", "--main_training_function", "main", *program, "train", "tiny.toml"]
    asked = accelerate_launch.launch_command_parser().parse_args([*asked, "--out", "out"])
    accelerate_launch.tpu_launcher(asked)
    words = ["train", "tiny.toml", "--out", "out"]
    assert sorted(called) == [(6, 8, 2, "train", words), (7, 8, 3, "train", words)]
    sys.modules.pop("on_tpu", None)  # which the launcher has imported


def test_launchers_can_send_the_function_to_other_processes():
    launched = pickle.loads(pickle.dumps(PrepareForLaunch(lucency.main)))
    assert launched.launcher is lucency.main


def test_called_where_no_process_was_started_a_failure_is_raised(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["notebook", "train", "absent.toml", "--out", "out"])
    with pytest.raises(SystemExit) as end:
        lucency.main(0)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("lucency: absent.toml: no such protocol")
    monkeypatch.setattr(sys, "argv", ["notebook", "--version"])
    assert lucency.main(0) is None


@pytest.mark.slow
def test_a_failed_process_breaks_the_pool_it_stands_in(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    """torch_xla keeps its processes in such a pool, which tells an error when all have ended."""
    monkeypatch.setattr(sys, "argv", ["lucency", "train", "absent.toml", "--out", "out"])
    begun = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(time.sleep, (0.1, 0.1)))  # both are there, and the pool watches them
        failing, waiting = pool.submit(lucency.main, 0), pool.submit(time.sleep, 90)
        for future in (failing, waiting):
            with pytest.raises(BrokenProcessPool):
                future.result()
    assert time.monotonic() - begun < 80


@pytest.mark.slow
def test_a_process_that_dies_ends_the_one_that_waits_for_it(place: Path):
    (place / "dies.py").write_text(DIES)
    done = run_python(*TORCHRUN, "dies.py")
    assert done.returncode == 1
    assert "rank      : 0 (local_rank: 0)\n  exitcode  : -9" in done.stderr
    assert "rank      : 1 (local_rank: 1)\n  exitcode  : -15" in done.stderr
    for process in (int(file.read_text()) for file in place.glob("here-*")):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert not (place / "out").exists()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process has trained of tiny.toml."""
    place = tmp_path_factory.mktemp("one")
    (place / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        words = ["lucency", "train", str(place / "tiny.toml"), "--out", str(place / "run")]
        patch.setattr(sys, "argv", words)
        assert cli.call() == 0
    return place / "run"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "a function"])
def test_two_processes_train_as_one_does(place: Path, one: Path, launcher: str):
    """The same losses and validation AUC, by gloo; test_convnext has no batch statistics."""
    words = ("train", "tiny.toml", "--out")
    (place / "watched.py").write_text(WATCHED)
    (place / "called.py").write_text(CALLED)
    if launcher == "torchrun":
        done = run_python(*TORCHRUN, "watched.py", *words, "two")
        written = [(place / f"writes-{number}.txt").read_text() for number in (0, 1)]
        assert "two/prepared.partial" in written[0]
        assert written[1] == ""
    else:
        shutil.copytree(one, "two", ignore=shutil.ignore_patterns("networks"))
        done = run_python("called.py", *words, "two")
    assert done.returncode == 0, done.stderr
    several = [run / "networks" / "test_convnext" for run in (one, place / "two")]
    losses = [pd.read_csv(net / "steps.csv")["loss"] for net in several]
    assert len(losses[0]) == len(losses[1]) >= 6
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    epochs = [pd.read_csv(net / "history.csv") for net in several]
    np.testing.assert_allclose(epochs[1]["val_auc"], epochs[0]["val_auc"], atol=1e-6)
    np.testing.assert_allclose(epochs[1]["val_loss"], epochs[0]["val_loss"], rtol=1e-5)
    weights = [load_file(net / "weights.safetensors") for net in several]
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key], value, atol=2e-4)


@pytest.mark.slow
def test_the_launcher_starts_killed_processes_again_at_the_exact_step(place: Path, one: Path):
    """One of two is killed; torchrun ends the other, and starts both anew by itself."""
    (place / "killed.py").write_text(KILLED_ONCE)
    words = ("killed.py", "train", "tiny.toml", "--out", "two")
    done = run_python(*TORCHRUN, "--max-restarts=1", *words, seconds=240)
    assert done.returncode == 0, done.stderr
    assert (place / "steps.txt").read_text() == "4\n8\n"  # after each epoch, the first one once
    losses = [
        pd.read_csv(run / "networks" / "test_convnext" / "steps.csv")["loss"]
        for run in (one, place / "two")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
