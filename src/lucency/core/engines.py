"""Engines: where work on films is done, by processes here or on other machines.

`on_engine` is the seam: what is parallel over films goes through it, and no other code knows which
engine does it. Films, and the folder that is written, must be where all machines see them, and all
need this version of Lucency: the sources of Dask's workers are compared.
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path, PurePath
from shutil import which
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from lucency.core.manifest import counted
from lucency.core.parallel import QUEUE, in_workers
from lucency.core.progress import printable, say

LOCAL = "local"
SECONDS = 10  # to find a scheduler, and between looks whether it is still there
WITHOUT_WORKERS = 60  # seconds that work waits for a worker
SLURM = {"minutes": 60, "memory": 4, "cpus": 1, "array": 50, "shards": 8}  # GB; tasks a job
CLUSTERS = ("slurm", "local", "debug")  # of submitit: jobs, processes here, this process
EXPECTED = "expected local, dask://HOST:PORT or slurm"
FORM = re.compile(r"local|dask://[^/?#\s]+:\d+|slurm(://[^/?#\s]*(\?[^#]*)?)?")
FAULT = re.compile(r"error\b|exception\b|killed|cancelled|state: ", re.IGNORECASE)
AROUND = ("-", "You can check", "or at paths", "Error stream", "No error stream")
NO_SCHEDULER = "no Dask scheduler answers at {} ({}): start one, `dask scheduler`"
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
    engine or choice, and where what it needs is not there, a scheduler too.
    """
    engine = printable(engine)  # messages show it
    try:
        urlsplit(engine)
    except ValueError as error:  # of addresses of IPv6, which stand in brackets
        raise ValueError(f"--engine {engine}: found no address ({error}), {EXPECTED}") from error
    kind = _kind(engine)
    if kind not in ENGINES:
        raise ValueError(f"--engine {engine}: {EXPECTED}")
    needed = {"dask": "distributed", "slurm": "submitit"}.get(kind, "")
    if needed and find_spec(needed) is None:
        raise ValueError(f"{needed} is not installed: pip install 'lucency[{kind}]'")
    if kind == "dask" and not FORM.fullmatch(engine):
        raise ValueError(f"--engine {engine}: expected dask://HOST:PORT of a scheduler")
    if not FORM.fullmatch(engine):
        raise ValueError(
            f"--engine {engine}: expected local, or slurm://PARTITION?minutes=60&memory=4"
        )
    if kind == "slurm":
        _require_slurm(engine)
    elif kind == "dask":
        _require_scheduler(engine)
    _CHOSEN.set(engine)
    return engine


def reaches_others() -> bool:
    """Say whether `on_engine` sends work, with the content of films, to other machines."""
    return _kind(_CHOSEN.get()) in SENT


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
        executor = client.get_executor(pure=False)  # the scheduler does again what a death cost
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


def _require_scheduler(engine: str) -> None:
    """Raise ValueError where nothing listens, before other work is done, and for no address."""
    try:
        address = urlsplit(engine)
        place = (address.hostname or "", address.port or 0)
        socket.create_connection(place, SECONDS).close()
    except OSError as error:
        raise ValueError(NO_SCHEDULER.format(engine.partition("://")[2], error)) from error
    except ValueError as error:  # of a port, a bracket or a name that is too long
        raise ValueError(
            f"--engine {engine}: expected dask://HOST:PORT of a scheduler, such as "
            f"dask://localhost:8786 ({error})"
        ) from None


@contextmanager
def _dask_client(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client: Any = Client(address, timeout=SECONDS, set_as_default=False)
    except OSError as error:
        raise ValueError(NO_SCHEDULER.format(address, error)) from error
    try:
        _check_versions(client, address)
        threads = sum(client.nthreads().values())
        say(f"Engine: Dask at {address}, {counted(threads, 'thread')}")
        yield client
    finally:
        client.close(timeout=SECONDS)


def _check_versions(client: Any, address: str) -> None:
    """Raise ValueError unless the scheduler and its workers have the sources of this Lucency."""
    found: dict[str, str | Exception] = client.run(_version, on_error="return")
    if not found:
        raise ValueError(
            f"the Dask scheduler at {address} has no workers: start some, `dask worker "
            f"{address} --nthreads 1`"
        )
    try:
        found["the scheduler"] = client.run_on_scheduler(_version)
    except (ImportError, AttributeError) as error:
        found["the scheduler"] = error
    own = _version()
    others = {who: there for who, there in found.items() if there != own}
    if others:
        who, there = next(iter(others.items()))
        what = "Lucency " + there if isinstance(there, str) else f"no such Lucency ({there})"
        raise ValueError(
            f"{len(others)} of {len(found)} processes of Dask at {address} "
            f"are not of this Lucency, {own}: {who} has {what}; install one version everywhere"
        )


def _dask_result(future: Future[Result], client: Any) -> Result:
    from distributed import KilledWorker

    _await_dask(future, client)
    try:
        return future.result()
    except CancelledError:
        reason = "the scheduler is gone"
    except KilledWorker as error:
        reason = f"workers die of the same films (out of memory?): {error}"
    raise ValueError(f"Dask: {reason}; {KEPT}")


def _await_dask(future: Future[Any], client: Any) -> None:
    """Wait until the work is done; ValueError once no scheduler, or for long no worker, is left."""
    alone_since = 0.0
    while not wait([future], timeout=SECONDS).done:
        if not _dask_workers(client):
            if not alone_since:
                say(f"Dask: no workers are left; waiting {WITHOUT_WORKERS} s for others")
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > WITHOUT_WORKERS:
                raise ValueError(f"Dask: no workers are left; {KEPT}")
        else:
            alone_since = 0.0


def _dask_workers(client: Any) -> Mapping[str, int]:
    """Return the threads of each worker that a scheduler has; ValueError where it is gone."""
    if client.status == "running":
        try:
            return client.nthreads()
        except OSError:
            pass
    raise ValueError(f"Dask: the scheduler is gone; {KEPT}")


@cache
def _version() -> str:
    """Return Lucency's version and what its sources are, in eight characters."""
    folder, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return f"{version('lucency')} ({digest.hexdigest()[:8]})"


def _on_slurm(
    engine: str, work: Work[Task, Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    """Yield what jobs of arrays make; processes here do the tasks from the first with content on.

    A job's tasks are written into a file, which is kept: names of films may be, their content not.
    """
    loaded = list[Task]()
    named = _named(tasks, loaded)
    for first in named:
        yield from _in_jobs(engine, work, chain([first], named))
    if loaded:
        say("Engine: processes of this machine, for work that is sent with the films' content")
        yield from in_workers(work, chain(loaded, tasks), workers=workers)


def _named(tasks: Iterator[Task], loaded: list[Task]) -> Iterator[Task]:
    """Yield tasks until one is more than names and numbers, which is put into `loaded`."""
    for task in tasks:
        if not _is_named(task):
            loaded.append(task)
            return
        yield task


def _is_named(task: object) -> bool:
    if isinstance(task, (tuple, list)):
        return all(map(_is_named, cast("Sequence[object]", task)))
    return isinstance(task, (str, PurePath, int, float))


def _in_jobs(engine: str, work: Work[Task, Result], tasks: Iterator[Task]) -> Iterator[Result]:
    """Yield what jobs of arrays make, each of several tasks; the next array waits beside one."""
    executor, (jobs, together), logs = _slurm_executor(engine)
    several, waiting = partial(_do_several, work), deque[Any]()

    def submit() -> None:
        groups = [list(islice(tasks, together)) for _ in range(jobs)]
        if groups[0]:
            try:
                waiting.extend(executor.map_array(several, [group for group in groups if group]))
            except RuntimeError as error:
                raise ValueError(f"SLURM takes no jobs: {_reason(str(error))}; {KEPT}") from None

    try:
        submit()
        while waiting:
            if len(waiting) <= jobs:
                submit()
            yield from _slurm_results(waiting[0], logs)
            waiting.popleft()
    finally:
        for job in waiting:
            job.cancel(check=False)


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


def _require_slurm(engine: str) -> None:
    """Raise ValueError for choices that SLURM does not have, and where jobs cannot be submitted."""
    _, cluster, _, _ = _slurm_choices(engine)
    if cluster not in CLUSTERS:
        raise ValueError(f"--engine {engine}: found cluster={cluster}, expected local")
    if cluster == "slurm" and (lost := [name for name in ("sbatch", "srun") if not which(name)]):
        raise ValueError(
            f"--engine {engine}: {lost[0]} is not on PATH: expected a machine that may submit jobs "
            "of SLURM, or slurm://?cluster=local to try it"
        )


def _slurm_choices(engine: str) -> tuple[str, str, Path, dict[str, int]]:
    """Return partition, submitit's cluster, the folder of logs, and the numbers.

    >>> partition, _, logs, number = _slurm_choices("slurm://cpu?minutes=30")
    >>> partition, str(logs), number["minutes"], number["array"]
    ('cpu', 'slurm-logs', 30, 50)
    """
    address = urlsplit(engine)
    chosen = dict(parse_qsl(address.query, keep_blank_values=True))
    cluster, logs = chosen.pop("cluster", "slurm"), Path(chosen.pop("logs", "slurm-logs"))
    for name, value in chosen.items():
        if name not in SLURM or not re.fullmatch("[1-9][0-9]{0,8}", value):
            raise ValueError(
                f"--engine {engine}: found {name}={value}, expected numbers of "
                f"{', '.join(SLURM)}, or cluster and logs"
            )
    number = SLURM | {name: int(value) for name, value in chosen.items()}
    return address.netloc, cluster, logs, number


def _do_several(work: Work[Task, Result], tasks: list[Task]) -> list[Result | ValueError | OSError]:
    """Do several tasks; an error of one of them is its result, that it arrives in one line."""
    found = list[Result | ValueError | OSError]()
    for task in tasks:
        try:
            found.append(work(task))
        except ValueError as error:
            found.append(ValueError(str(error)))
        except OSError as error:
            about = (error.errno, error.strerror, error.filename) if error.errno else (str(error),)
            found.append(OSError(*about))
    return found


def _slurm_results(job: Any, logs: Path) -> Iterator[Any]:
    from submitit.core.utils import UncompletedJobError

    try:
        found = job.result()
    except UncompletedJobError as error:
        raise ValueError(
            f"a job of SLURM failed ({job.job_id}: {_reason(str(error))}): its logs are in {logs}; "
            f"{KEPT}"
        ) from None
    for one in found:
        if isinstance(one, (ValueError, OSError)):
            raise one
        yield one


def _reason(message: str) -> str:
    """Return the line of submitit's message that states the error.

    >>> _reason("Job failed with trace:\\n---\\nKeyError: 'x'\\n---\\nor at paths:\\n  - /1.err")
    "KeyError: 'x'"
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(AROUND)] or ["no reason is stated"]
    return ([line for line in lines if FAULT.search(line)] or lines)[-1]


SENT = ("dask",)  # engines that take content; SLURM's would write it into files
ENGINES: dict[str, Callable[..., Iterator[Any]]] = {
    LOCAL: _locally,
    "dask": _on_dask,
    "slurm": _on_slurm,
}
