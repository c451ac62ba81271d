"""Engines: the bytes are those of one process, whoever does the work, dies or comes twice."""

import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lucency.core import engines
from lucency.core.engines import choose_engine, on_engine, reaches_others
from lucency.core.manifest import Manifest, Preparation
from lucency.data.film_archives import LoadedFilm
from lucency.data.film_cache import prepare
from toys import learn, manifest_of, toy_films, toy_plan, toy_protocol

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
        ("slurm://?cluster=moon", "found cluster=moon, expected local"),
        (f"slurm://cpu?memory={'9' * 5000}", "found memory=999"),
        ("slurm://cpu/x", "--engine slurm://cpu/x: expected local, or slurm://PARTITION"),
        ("local://nonsense", "--engine local://nonsense: expected local, or slurm"),
        ("dask://localhost:8786/x", "expected dask://HOST:PORT of a scheduler"),
        ("dask://localhost", "expected dask://HOST:PORT of a scheduler"),
        ("dask://h:99999999", "--engine dask://h:99999999: expected dask://HOST:PORT .*Port out"),
        ("dask://[::1:8786", r"found no address .Invalid IPv6 URL., expected local"),
        (f"dask://{'h' * 70}:1", "--engine dask://h+:1: expected dask://HOST:PORT of a scheduler"),
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
    with pytest.raises(ValueError, match="no Dask scheduler answers at localhost:"):
        choose_engine(f"dask://localhost:{free_port()}")


# --- what goes wrong on Dask, by stand-ins for its client


class Client:
    """What the engine uses of a Dask client: work is `future`; the last of `threads` stays."""

    def __init__(
        self,
        *threads: dict[str, int] | Exception,
        future: Future[int] | None = None,
        versions: dict[str, Any] | None = None,
    ) -> None:
        self.threads, self.looks, self.status = list(threads), 0, "running"
        self.future = future or Future[int]()
        self.versions = {"one": "", "scheduler": ""} if versions is None else versions

    def __call__(self, address: str, **about: object) -> "Client":
        return self

    def nthreads(self) -> dict[str, int]:
        self.looks += 1
        assert self.looks < 1_000, "waits for ever"
        first = self.threads.pop(0) if len(self.threads) > 1 else self.threads[0]
        if isinstance(first, Exception):
            raise first
        return first

    def run(self, version: Callable[[], str], *, on_error: str) -> dict[str, Any]:
        assert on_error == "return"
        found = self.versions.items()
        return {who: there or version() for who, there in found if who != "scheduler"}

    def run_on_scheduler(self, version: Callable[[], str]) -> str:
        there = self.versions["scheduler"] or version()
        if isinstance(there, Exception):
            raise there
        return there

    def get_executor(self, *, pure: bool) -> "Client":
        return self

    def submit(self, work: Callable[[int], int], task: int) -> Future[int]:
        return self.future

    def shutdown(self, *, wait: bool) -> None:
        assert not wait

    def close(self, *, timeout: float) -> None:
        assert timeout


@pytest.fixture
def done_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], list[int]]:
    """Return a function that does one task with a stand-in."""
    monkeypatch.setattr(engines, "SECONDS", 0.01)
    monkeypatch.setattr(engines, "WITHOUT_WORKERS", 0.03)

    def done(client: Client) -> list[int]:
        monkeypatch.setattr("distributed.Client", client)
        with socket.create_server(("127.0.0.1", 0)) as scheduler:
            choose_engine(f"dask://127.0.0.1:{scheduler.getsockname()[1]}")
        return list(on_engine(refuse_odd, iter([2]), workers=1))

    return done


ONE: dict[str, int] = {"one": 1}


def test_a_timeout_of_the_work_itself_is_its_error(done_by: Callable[[Client], list[int]]):
    future, error = Future[int](), TimeoutError(errno.ETIMEDOUT, "late", "film.png")
    threading.Timer(0.05, future.set_exception, [error]).start()
    with pytest.raises(TimeoutError, match="late"):
        done_by(Client(ONE, future=future))


def test_work_that_no_worker_is_left_for_ends(
    done_by: Callable[[Client], list[int]], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ValueError, match="Dask: no workers are left; what is done is kept"):
        done_by(Client(ONE, ONE, {}))
    assert capsys.readouterr().err.count("no workers are left; waiting") == 1


def test_workers_that_come_back_go_on(done_by: Callable[[Client], list[int]]):
    future = Future[int]()
    threading.Timer(0.2, future.set_result, [7]).start()
    assert done_by(Client(ONE, ONE, {}, ONE, {}, ONE, {}, ONE, {}, ONE, future=future)) == [7]


def test_a_scheduler_that_ends_between_two_looks_is_one_line(
    done_by: Callable[[Client], list[int]],
):
    with pytest.raises(ValueError, match="Dask: the scheduler is gone"):
        done_by(Client(ONE, ONE, OSError("closed")))


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"scheduler": ""}, "has no workers: start some"),
        (
            {"one": ModuleNotFoundError("No module named 'lucency'"), "scheduler": ""},
            r"1 of 2 processes of Dask at [0-9.:]+ are not of this Lucency, .*: one has no such "
            r"Lucency \(No module named 'lucency'\); install one version",
        ),
        ({"one": "0.1.0 (abcdef01)", "scheduler": ""}, r"one has Lucency 0\.1\.0 \(abcdef01\)"),
        ({"one": "", "scheduler": AttributeError("no name")}, "the scheduler has no such Lucency"),
    ],
)
def test_another_lucency_is_refused(
    done_by: Callable[[Client], list[int]], versions: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        done_by(Client(ONE, versions=versions))


def test_sources_that_differ_are_another_lucency(
    done_by: Callable[[Client], list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of the same version, which all commits between two releases have."""

    class Other(Client):
        def run(self, version: Any, *, on_error: str) -> dict[str, Any]:
            with monkeypatch.context() as there:
                there.setattr(engines, "__file__", str(tmp_path / "core" / "engines.py"))
                return {"one": version.__wrapped__()}

    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "engines.py").write_text("other")
    with pytest.raises(ValueError, match=r"of this Lucency, 0.*: one has Lucency 0"):
        done_by(Other(ONE))


# --- what goes wrong on SLURM


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **script: str) -> None:
    """Put programs on PATH, alone."""
    folder.mkdir()
    for name, lines in script.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_slurm_without_slurm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    programs(tmp_path / "bin", monkeypatch, srun="exit 0")
    for engine in ("slurm", "slurm://?cluster=slurm"):
        with pytest.raises(ValueError, match="sbatch is not on PATH: expected a machine that may"):
            choose_engine(engine)
    choose_engine("slurm://?cluster=local")


def test_jobs_that_sbatch_refuses_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = "sbatch: error: invalid partition specified: nope"
    programs(
        tmp_path / "bin",
        monkeypatch,
        srun="exit 0",
        sbatch=f"echo '{said}' >&2; echo 'sbatch: gives up' >&2; exit 1",
    )
    choose_engine(f"slurm://nope?logs={tmp_path / 'logs'}&array=1")
    with pytest.raises(ValueError, match=f"SLURM takes no jobs: {said}; what is done is kept"):
        list(on_engine(refuse_odd, iter([2]), workers=1))


class Job:
    """A job of submitit that ends when its result is asked for, as submitit's do."""

    job_id = "7_0"

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work, self.cancelled = work, False

    def result(self) -> Any:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return pickle.loads(pickle.dumps(self.work()))
        except UncompletedJobError:
            raise
        except Exception as error:  # noqa: BLE001 - submitit's
            raise FailedJobError(f"failed with trace:\n{error!r}") from None

    def cancel(self, check: bool = True) -> None:
        assert not check, "a job that has ended cannot be cancelled"
        self.cancelled = True


class Executor:
    """Keeps the jobs of its arrays."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.fail: Callable[[], Any] | None = None

    def map_array(self, work: Callable[[Any], Any], groups: list[Any]) -> list[Job]:
        made = [Job(self.fail or (lambda group=group: work(group))) for group in groups]
        self.jobs += made
        return made


@pytest.fixture
def array(monkeypatch: pytest.MonkeyPatch) -> Executor:
    """Arrays of two jobs, of two tasks each."""
    made = Executor()
    monkeypatch.setattr(engines, "_slurm_executor", lambda engine: (made, (2, 2), Path("logs")))
    choose_engine("slurm://?cluster=local")
    return made


def test_arrays_do_all_tasks_in_order(array: Executor):
    done = on_engine(refuse_odd, iter(range(0, 26, 2)), workers=1)
    assert list(done) == [number * number for number in range(0, 26, 2)]
    assert len(array.jobs) == 7
    assert not any(job.cancelled for job in array.jobs)


def interrupted(number: int) -> int:
    raise KeyboardInterrupt


def test_ctrl_c_ends_the_job_that_is_waited_for(array: Executor):
    with pytest.raises(KeyboardInterrupt):
        list(on_engine(interrupted, iter(range(8)), workers=1))
    assert [job.cancelled for job in array.jobs] == [True] * 4


def fill(path: str) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", path)


def test_an_error_of_the_system_keeps_its_place(array: Executor):
    """So that the command line writes one line."""
    with pytest.raises(OSError, match="No space left") as caught:
        list(on_engine(fill, iter(["/x/00001.npy"]), workers=1))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/x/00001.npy")


@pytest.mark.parametrize(
    "content", [b"film", np.zeros(4), LoadedFilm("a.tar/b.png", b"film", 0, "")], ids=type
)
def test_tasks_with_content_are_done_here(
    array: Executor, content: object, capsys: pytest.CaptureFixture[str]
):
    """From the first on, in order; jobs would keep the content in files."""
    named, loaded = (1, [(7, Path("a.png")), (8, "b")]), (2, [(9, content)])
    tasks = [named, named, loaded, named]
    assert list(on_engine(len, iter(tasks), workers=1)) == [2] * 4
    assert len(array.jobs) == 1
    assert capsys.readouterr().err.count("processes of this machine") == 1
    array.jobs.clear()
    assert list(on_engine(len, iter(tasks[2:]), workers=1)) == [2] * 2
    assert not array.jobs


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "Job 7 (task: 0) with path /l/7_0_result.pkl\nhas not produced any output (state: "
            "TIMEOUT)\nNo error stream produced. Look at stdout: /l/error.out\n---\nstarted",
            "has not produced any output (state: TIMEOUT)",
        ),
        (
            "Job 7 (task: 0) with path /l/7_0_result.pkl\nhas not produced any output (state: "
            "OUT_OF_MEMORY)\nError stream produced:\n---\nslurmstepd: error: Detected 1 oom_kill "
            "event in StepId=7.0.\n",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.",
        ),
        ("Job failed during processing with trace:\n---\nBoom\n---\n", "Boom"),
        ("", "no reason is stated"),
    ],
)
def test_the_reason_of_a_failed_job_is_its_error(array: Executor, message: str, reason: str):
    """Messages as of submitit.core.core, `exception` and `_get_outcome_and_result`."""
    from submitit.core.utils import UncompletedJobError

    def fail() -> None:
        raise UncompletedJobError(message)

    array.fail = fail
    with pytest.raises(ValueError, match="a job of SLURM failed") as caught:
        list(on_engine(refuse_odd, iter([2]), workers=1))
    assert f"(7_0: {reason}): its logs are in logs; what is done is kept" in str(caught.value)


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
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # for work of this module
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        self.processes[name] = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, env=env
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
def test_dask_predicts_what_one_process_does(cluster: Cluster, tmp_path: Path):
    from lucency.models.inference import predict, predict_on_engine

    films = toy_films()
    classifier = learn(tmp_path / "network", toy_protocol(epochs=1))
    assert not reaches_others()
    choose_engine(cluster.ready())
    assert reaches_others()
    sent = predict_on_engine(tmp_path / "network", prepared=films, plan=toy_plan(films))
    here = predict(classifier, prepared=films, plan=toy_plan(films))
    np.testing.assert_allclose(sent.logit, here.logit, atol=1e-6)  # one thread there, more here
    np.testing.assert_array_equal(sent.image, here.image)


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
    choose_engine(f"slurm://?cluster=local&logs={logs}&array=2&shards=3&minutes=5")
    prepare(films, preparation=SMALL, out=tmp_path / "out", workers=1)
    assert read_folder(tmp_path / "out") == whole
    assert len(list(logs.glob("*_submitted.pkl"))) == -(-(FILMS // 32) // 3)


def count_and_fail(file: str) -> None:
    with Path(file).open("a") as calls:
        calls.write("x")
    raise TimeoutError(errno.ETIMEDOUT, "Connection timed out", file)


def stay(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.mark.slow
def test_dask_does_failed_work_once_and_ends_without_workers(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "SECONDS", 1)
    monkeypatch.setattr(engines, "WITHOUT_WORKERS", 2)
    choose_engine(cluster.ready())
    calls = tmp_path / "calls"
    with pytest.raises(TimeoutError, match="Connection timed out"):
        list(on_engine(count_and_fail, iter([str(calls)]), workers=1))
    assert calls.read_text() == "x"
    for name in ("one", "two"):
        threading.Timer(1, cluster.kill, [name]).start()
    with pytest.raises(ValueError, match="Dask: no workers are left"):
        list(on_engine(stay, iter([30.0, 30.0]), workers=1))


def lose(name: str) -> None:
    raise KeyError(name)


@pytest.mark.slow
def test_the_reason_of_a_job_is_that_of_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    choose_engine(f"slurm://?cluster=local&logs={tmp_path / 'logs'}&array=1")
    with pytest.raises(ValueError, match=r"a job of SLURM failed \(\d+: KeyError: 'film'\)"):
        list(on_engine(lose, iter(["film"]), workers=1))
    with pytest.raises(OSError, match=r"No space left on device: '/x/00001\.npy'"):
        list(on_engine(fill, iter(["/x/00001.npy"]), workers=1))
