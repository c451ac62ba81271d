"""Engines: the bytes are those of one process, whoever does the work, dies or comes twice."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.core import engines
from lucency.core.engines import choose_engine, on_engine
from lucency.core.manifest import Manifest, Preparation
from lucency.data.film_cache import prepare
from toys import manifest_of

SMALL = Preparation(size=64, clahe_tiles=4)
FILMS = 480


@pytest.fixture(autouse=True)
def local() -> Iterator[None]:
    yield
    choose_engine("local")


def refuse_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number * number


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("ray", "--engine ray: expected local, dask://HOST:PORT or slurm"),
        ("dask", "expected dask://HOST:PORT of a scheduler"),
        ("dask://", "expected dask://HOST:PORT of a scheduler"),
        ("slurm://cpu?hours=3", "found hours=3, expected numbers of minutes, memory, cpus, array"),
        ("slurm?minutes=", "--engine slurm\\?minutes=: expected local"),
        ("slurm://?array=0", "found array=0, expected numbers"),
    ],
)
def test_an_engine_that_cannot_be_had_is_refused(engine: str, message: str):
    with pytest.raises(ValueError, match=message):
        choose_engine(engine)


def test_an_engine_whose_package_is_absent_says_which(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"submitit is not installed: pip install 'lucency\[slurm"):
        choose_engine("slurm")
    with pytest.raises(ValueError, match=r"distributed is not installed: .*lucency\[dask\]"):
        choose_engine("dask://localhost:8786")


def test_the_local_engine_is_usual():
    assert list(on_engine(refuse_odd, iter([2, 4]), workers=1)) == [4, 16]


def test_a_scheduler_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "SECONDS", 0.5)
    choose_engine(f"dask://localhost:{free_port()}")
    with pytest.raises(ValueError, match="no Dask scheduler answers at localhost:"):
        list(on_engine(refuse_odd, iter([2]), workers=1))


# --- several machines, as processes of this one

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Films enough for some seconds of work, each of 120 under four names."""
    folder = tmp_path_factory.mktemp("films")
    paths = [folder / f"{number:05d}.png" for number in range(FILMS)]
    for number, path in enumerate(paths):
        if number < FILMS // 4:
            noise = np.random.default_rng(number).integers(0, 256, (512, 512), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.GaussianBlur(noise, (5, 5), 0))
        else:
            path.hardlink_to(paths[number % (FILMS // 4)])
    paths[77].unlink()
    paths[77].write_bytes(b"broken")
    return manifest_of(paths)


def read_folder(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(films: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of the films."""
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(films, preparation=SMALL, out=out, workers=1)
    return read_folder(out)


class Cluster:
    """A scheduler and two workers of Dask, processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start("scheduler", "scheduler", "--port", str(self.port), "--no-dashboard")
        for name in ("one", "two"):
            self.worker(name)

    def start(self, name: str, *words: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        self.processes[name] = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
        )

    def worker(self, name: str) -> None:
        address = f"tcp://localhost:{self.port}"
        self.start(name, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def kill(self, name: str) -> None:
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes.pop(name).wait()

    def ready(self) -> str:
        from distributed import Client

        with Client(f"localhost:{self.port}", timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        return f"dask://localhost:{self.port}"

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_dask_makes_the_bytes_of_one_process_though_a_worker_is_killed(
    cluster: Cluster, films: Manifest, whole: dict[str, bytes], tmp_path: Path
):
    choose_engine(cluster.ready())
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if 0 < done < total // 2 and not killed:
            killed.append(done)
            cluster.kill("one")

    prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1, progress=progress)
    assert killed
    assert read_folder(tmp_path / "out") == whole


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line_and_what_is_done_is_kept(
    cluster: Cluster,
    films: Manifest,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(engines, "SECONDS", 2)
    choose_engine(cluster.ready())
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if 0 < done < total // 2 and "scheduler" in cluster.processes:
            cluster.kill("scheduler")

    about = {"preparation": SMALL, "out": tmp_path / "out", "workers": 1}
    with pytest.raises(ValueError, match=r"Dask: .*gone; what is done is kept"):
        prepare(films, progress=progress, **about)
    assert not (tmp_path / "out").exists()
    for name in ("one", "two"):
        cluster.kill(name)
    again = Cluster(tmp_path)
    try:
        choose_engine(again.ready())
        before = len(seen)
        prepare(films, progress=lambda done, total: seen.append(done), **about)
    finally:
        again.close()
    assert seen[before] > 0
    assert read_folder(tmp_path / "out") == whole


@pytest.mark.slow
def test_slurm_makes_the_bytes_of_one_process(
    films: Manifest, whole: dict[str, bytes], tmp_path: Path
):
    """By submitit's own executor for one machine: the arrays are processes here."""
    logs = tmp_path / "logs"
    choose_engine(f"slurm://?cluster=local&logs={logs}&array=2&shards=6&minutes=5")
    prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert read_folder(tmp_path / "out") == whole
    assert len(list(logs.glob("*_submitted.pkl"))) == -(-(FILMS // 16) // 6)
