"""Engines: where work on films is done, by processes here or on other machines.

`on_engine` is the seam: what is parallel over films goes through it, and no other code knows which
engine does it. Films, and the folder that is written, must be where all machines see them, and all
need this version of Lucency.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from lucency.core.manifest import counted
from lucency.core.parallel import QUEUE, in_workers
from lucency.core.progress import say

LOCAL = "local"
SECONDS = 10  # to find a scheduler, and between looks whether it is still there
RETRIES = 3  # of work whose worker died
SLURM = {"minutes": 60, "memory": 4, "cpus": 1, "array": 50, "shards": 8}  # GB; tasks a job
KEPT = "what is done is kept: run the same command again"
Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Task], Result]

_CHOSEN: ContextVar[str] = ContextVar("engine", default=LOCAL)


def on_engine(work: Work[Task, Result], tasks: Iterator[Task], *, workers: int) -> Iterator[Result]:
    """Yield `work(task)` of each task in order, done by the engine that `choose_engine` chose.

    `workers` are the processes of the local engine; others have their own. `work` must be a
    function that can be pickled, and may be done twice. Raises ValueError where the engine fails,
    and what `work` raises.
    """
    chosen = _CHOSEN.get()
    return ENGINES[_kind(chosen)](chosen, work, tasks, workers)


def choose_engine(engine: str) -> str:
    """Let `on_engine` use this engine from here on; return it.

    `local` are processes, `dask://HOST:PORT` the workers of a Dask scheduler, `slurm` job arrays,
    with choices as `slurm://PARTITION?minutes=60&memory=4&array=50`. Raises ValueError for another
    engine or choice, and where what it needs is not installed.
    """
    kind = _kind(engine)
    if kind not in ENGINES:
        raise ValueError(f"--engine {engine}: expected local, dask://HOST:PORT or slurm")
    needed = {"dask": "distributed", "slurm": "submitit"}.get(kind, "")
    if needed and find_spec(needed) is None:
        raise ValueError(f"{needed} is not installed: pip install 'lucency[{kind}]'")
    if kind == "dask" and not urlsplit(engine).netloc:
        raise ValueError(f"--engine {engine}: expected dask://HOST:PORT of a scheduler")
    if kind == "slurm":
        _slurm_choices(engine)
    _CHOSEN.set(engine)
    return engine


def _kind(engine: str) -> str:
    return engine.partition("://")[0]


def _locally(
    engine: str, work: Work[Task, Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    del engine
    return in_workers(work, tasks, workers=workers)


def _on_dask(
    engine: str, work: Work[Task, Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    """Yield what the workers of a Dask scheduler make; the work of one that dies is done again."""
    del workers
    with _dask_client(urlsplit(engine).netloc) as client:
        executor = client.get_executor(pure=False, retries=RETRIES)
        width = QUEUE * sum(client.nthreads().values())
        first = islice(tasks, width)
        waiting: deque[Future[Result]] = deque(executor.submit(work, task) for task in first)
        try:
            while waiting:
                result = _dask_result(waiting.popleft(), client)
                waiting.extend(executor.submit(work, task) for task in islice(tasks, 1))
                yield result
        finally:
            executor.shutdown(wait=False)


@contextmanager
def _dask_client(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client: Any = Client(address, timeout=SECONDS, set_as_default=False)
    except OSError as error:
        raise ValueError(
            f"no Dask scheduler answers at {address} ({error}): start one, `dask scheduler`"
        ) from error
    try:
        found = client.run(_version)
        if not found:
            raise ValueError(
                f"the Dask scheduler at {address} has no workers: start some, `dask worker "
                f"{address} --nthreads 1`"
            )
        own = _version()
        if others := {there for there in found.values() if there != own}:
            raise ValueError(
                f"workers of the Dask scheduler at {address} have Lucency "
                f"{', '.join(sorted(others))}, this is {own}: expected one version everywhere"
            )
        threads = sum(client.nthreads().values())
        say(f"Engine: Dask at {address}, {counted(threads, 'thread')}")
        yield client
    finally:
        client.close(timeout=SECONDS)


def _dask_result(future: Future[Result], client: Any) -> Result:
    from distributed import KilledWorker

    while True:
        try:
            return future.result(timeout=SECONDS)
        except TimeoutError:
            if client.status == "running":
                continue
            reason = "the scheduler is gone"
        except CancelledError:
            reason = "the scheduler is gone"
        except KilledWorker as error:
            reason = f"workers die of the same films (out of memory?): {error}"
        raise ValueError(f"Dask: {reason}; {KEPT}") from None


def _version() -> str:
    return version("lucency")


def _on_slurm(
    engine: str, work: Work[Task, Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    """Yield what jobs of arrays make, each of several tasks; the next array waits beside one."""
    del workers
    executor, (jobs, together), logs = _slurm_executor(engine)
    several, waiting = partial(_do_several, work), deque[Any]()

    def submit() -> None:
        groups = [list(islice(tasks, together)) for _ in range(jobs)]
        if groups[0]:
            waiting.extend(executor.map_array(several, [group for group in groups if group]))

    submit()
    try:
        while waiting:
            if len(waiting) <= jobs:
                submit()
            yield from _slurm_results(waiting.popleft(), logs)
    finally:
        for job in waiting:
            job.cancel()


def _slurm_executor(engine: str) -> tuple[Any, tuple[int, int], Path]:
    """Return submitit's executor, the jobs of an array and the tasks of a job, and its logs."""
    from submitit import AutoExecutor

    partition, cluster, logs, number = _slurm_choices(engine)
    executor = AutoExecutor(folder=logs, cluster=cluster)
    about: dict[str, Any] = {"slurm_partition": partition} if partition else {}
    executor.update_parameters(
        name="lucency",
        timeout_min=number["minutes"],
        mem_gb=number["memory"],
        cpus_per_task=number["cpus"],
        slurm_array_parallelism=number["array"],
        **about,
    )
    say(f"Engine: SLURM, arrays of {counted(number['array'], 'job')}; logs: {logs}")
    return executor, (number["array"], number["shards"]), logs


def _slurm_choices(engine: str) -> tuple[str, str | None, Path, dict[str, int]]:
    """Return partition, submitit's cluster (None: found), the folder of logs, and the numbers.

    >>> partition, _, logs, number = _slurm_choices("slurm://cpu?minutes=30")
    >>> partition, str(logs), number["minutes"], number["array"]
    ('cpu', 'slurm-logs', 30, 50)
    """
    address = urlsplit(engine)
    chosen = dict(parse_qsl(address.query, keep_blank_values=True))
    cluster, logs = chosen.pop("cluster", None), Path(chosen.pop("logs", "slurm-logs"))
    for name, value in chosen.items():
        if name not in SLURM or not (value.isdecimal() and int(value)):
            raise ValueError(
                f"--engine {engine}: found {name}={value}, expected numbers of "
                f"{', '.join(SLURM)}, or cluster and logs"
            )
    number = SLURM | {name: int(value) for name, value in chosen.items()}
    return address.netloc, cluster, logs, number


def _do_several(work: Work[Task, Result], tasks: list[Task]) -> list[Result | ValueError]:
    """Do several tasks; an error of one of them is its result, that it arrives in one line."""
    found = list[Result | ValueError]()
    for task in tasks:
        try:
            found.append(work(task))
        except ValueError as error:
            found.append(ValueError(str(error)))
    return found


def _slurm_results(job: Any, logs: Path) -> Iterator[Any]:
    from submitit.core.utils import UncompletedJobError

    try:
        found = job.result()
    except UncompletedJobError as error:
        last = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"a job of SLURM failed ({job.job_id}: {last}): its logs are in {logs}; {KEPT}"
        ) from None
    for one in found:
        if isinstance(one, ValueError):
            raise one
        yield one


ENGINES: dict[str, Callable[..., Iterator[Any]]] = {
    LOCAL: _locally,
    "dask": _on_dask,
    "slurm": _on_slurm,
}
