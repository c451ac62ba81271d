"""Ctrl-C and SIGTERM at random moments: one line, no traceback, and the same command goes on.

Commands are children of a process that has imported all; some are started as Python starts them.
After each, the same command is given again: it must end well, with the bytes of an unbroken call.
"""

import hashlib
import json
import os
import pkgutil
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import lucency
from lucency.cli.stopping import STOPPED
from lucency.core.saved_files import CHECKSUM
from lucency.core.written import WRITTEN
from torture.range_server import download_from, start_server
from torture.tally import Tally, script, tally

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LABELS = "chestxray14/Data_Entry_2017_v2020.csv"
RIGHT = "one line, then whole"
READY = "ended well, being ready"  # of the service
COMMANDS = {  # what makes `new`
    "run": "run protocols/quick.toml --out new --workers 1",
    "run with worker processes": "run protocols/quick.toml --out new --workers 2 --until prepare",
    "predict": "predict runs/demo films --csv new/table.csv",
    "explain": "explain runs/demo films/00000001_000.png --out new/maps",
    "evaluate": f"evaluate scores.csv --labels {LABELS} --out new",
    "study": "study ablation protocols/ablation-balance.toml --out new --workers 1",
    "data download": "data download nih --out new",
    "data phantom": "data phantom --films 40 --size 128 --out new/set --workers 1",
    "audit errors": f"audit errors scores.csv --labels {LABELS} --out new",
    "audit review": "audit review runs/demo --out new --films 6",
    "export": "export runs/demo --out new/model",
}
SERVE = "serve runs/demo --port 0"
COLD = "check protocols/quick.toml"
PAUSE = 0.05  # seconds after each block of an archive
NOT_COMPARED = {  # of tables: columns that two unbroken calls write differently
    "history.csv": ["seconds", "films_per_second"],
    "costs.csv": ["minutes"],
    "sources.csv": ["modified"],  # each try draws its phantoms, which are then newer files
}
PAGE = "report.html"  # is there, but states how long trainings took


class Ended(NamedTuple):
    """How a command ended: status, seconds, what it wrote to standard error."""

    status: int
    seconds: float
    text: str


def tries(times: int) -> Iterator[Tally]:
    """Yield a tally of each command and signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is ignored in the background
    with tempfile.TemporaryDirectory(prefix="signals-") as folder:
        place = Path(folder).resolve()
        ended = in_child(lambda: make_place(place), place / "made.txt")
        assert ended.status == 0, ended.text
        server, port = start_server(pause=PAUSE)
        import_all()
        for name, words in COMMANDS.items():
            yield from of_command(name, words, place, port, times)
        server.communicate()
        yield from of_service(place, times)
        yield from of_start(place, times)


def of_command(name: str, words: str, place: Path, port: int, times: int) -> Iterator[Tally]:
    """Yield how a command took each signal, so many times at moments of its whole duration."""
    do = partial(command, words, port)
    whole, unbroken = again(do, place)
    assert whole.status == 0, whole.text
    moments = np.random.default_rng([*name.encode()])
    for number in SIGNALS:
        found = list[str]()
        while len(found) < times:
            fresh(place)
            after = moments.uniform(0, whole.seconds)
            ended = in_child(do, place / "err.txt", at=place, kill=(after, number))
            if ended.status != 0:  # else it was faster
                outcome = of_stop(ended, number)
                found.append(outcome or of_again(again(do, place, new=False), unbroken))
        yield tally(f"{name}: {number.name}", found, right=RIGHT.__eq__)


def of_stop(ended: Ended, number: signal.Signals) -> str:
    """Return what is wrong with the way a command ended; nothing where nothing is."""
    lines = ended.text.splitlines()
    if ended.status == -number:
        return "" if not lines or STOPPED not in lines else "a line, then killed"
    if ended.status != 128 + number:
        return f"status {ended.status}: {lines[-1] if lines else ''}"
    odd = [line for line in lines if line.startswith(("Traceback", "Exception", "lucency: "))]
    return "" if odd == [STOPPED] else f"wrote {odd}"


def of_again(done: tuple[Ended, dict[str, str]], unbroken: dict[str, str]) -> str:
    ended, made = done
    if ended.status:
        return f"again: status {ended.status}: {ended.text.splitlines()[-1:]}"
    other = sorted(one for one in {**made, **unbroken} if made.get(one) != unbroken.get(one))
    return f"again: other bytes: {', '.join(other[:5])}" if other else RIGHT


def of_service(place: Path, times: int) -> Iterator[Tally]:
    """Yield how the service took each signal, before it was ready and after."""
    moments = np.random.default_rng(0)
    for number in SIGNALS:
        found = []
        for _ in range(times):
            kill = (moments.uniform(0, 4.0), number)
            ended = in_child(partial(command, SERVE, 0), place / "err.txt", at=place, kill=kill)
            found.append(READY if ended.status == 0 else of_stop(ended, number) or RIGHT)
        yield tally(f"serve: {number.name}", found, right=lambda one: one in (RIGHT, READY))


def of_start(place: Path, times: int) -> Iterator[Tally]:
    """Yield how a command took each signal that Python has just been started for."""
    moments = np.random.default_rng(1)
    words = [sys.executable, "-m", "lucency", *shlex.split(COLD)]
    unbroken = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    for number in SIGNALS:
        found = []
        for _ in range(times):
            started = subprocess.Popen(
                words, cwd=place, stderr=subprocess.PIPE, stdout=-3, text=True
            )
            time.sleep(moments.uniform(0, 2.0))
            started.send_signal(number)
            text = started.communicate()[1]
            if (started.returncode, text) != (unbroken.returncode, unbroken.stderr):
                found.append(of_start_stop(Ended(started.returncode, 0.0, text), number))
        yield tally(f"start of Python: {number.name}", found, right=lambda one: one in EARLY)


BEFORE = "before the program's first line"
BY_ITSELF = "one line, then killed by it"  # a shell reports 130 as well
EARLY = (RIGHT, BEFORE, BY_ITSELF)


def of_start_stop(ended: Ended, number: signal.Signals) -> str:
    """Return how a start ended.

    With `python -m`, Python ends itself by SIGINT, after the program's own end, where the signal
    came while it executed source from a string, as dataclasses have it do.
    """
    if "lucency" not in ended.text:
        return BEFORE
    if ended.status == -signal.SIGINT and ended.text.splitlines() == [STOPPED]:
        return BY_ITSELF
    return of_stop(ended, number) or RIGHT


def command(words: str, port: int) -> int:
    """Do a command in this process, the archives of NIH being those of a port here."""
    from lucency.cli.stopping import main

    download_from(port)
    sys.argv = ["lucency", *shlex.split(words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def in_child(
    do: Callable[[], int | None],
    err: Path,
    *,
    at: Path | None = None,
    kill: tuple[float, signal.Signals] | None = None,
) -> Ended:
    """Do something in a child of this process, which a signal may interrupt after some seconds."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        become(do, err, at)
    if kill:
        time.sleep(kill[0])
        os.kill(child, kill[1])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(status, time.monotonic() - began, err.read_text(errors="replace"))


def become(do: Callable[[], int | None], err: Path, at: Path | None) -> None:
    """Do something with the streams of a command, and end this process."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.chdir(at or Path.cwd())
        status = do() or 0
    finally:
        if error := sys.exc_info()[1]:
            traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(status)


def again(do: Callable[[], int], place: Path, *, new: bool = True) -> tuple[Ended, dict[str, str]]:
    """Do a command to its end; return how it ended, and the digest of each file that it made."""
    if new:
        fresh(place)
    ended = in_child(do, place / "err.txt", at=place)
    files = [one for one in sorted((place / "new").rglob("*")) if one.is_file()]
    return ended, {str(one.relative_to(place / "new")): digest(one) for one in files}


def digest(file: Path) -> str:
    """Return the digest of what is compared of a file."""
    if file.name == PAGE:
        return ""
    held = file.read_bytes()
    if file.name == WRITTEN:
        noted = json.loads(held)
        kept = {name: noted[name] for name in noted if name not in (*NOT_COMPARED, CHECKSUM)}
        held = json.dumps(kept).encode()
    if file.name in NOT_COMPARED:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        held = table.drop(columns=NOT_COMPARED[file.name]).to_csv().encode()
    return hashlib.sha256(held).hexdigest()


def fresh(place: Path) -> None:
    shutil.rmtree(place / "new", ignore_errors=True)
    (place / "new").mkdir()


def import_all() -> None:
    """Import all modules, so that children need not."""
    for one in pkgutil.walk_packages(lucency.__path__, "lucency."):
        if not one.name.endswith("__main__"):
            import_module(one.name)


def make_place(place: Path) -> None:
    """Write films, tables, protocols and a run, whose best network has predicted once."""
    from workplace import build_workplace, train_run

    build_workplace(place)
    os.chdir(place)
    train_run()
    command("predict runs/demo films/00000001_000.png", 0)


if __name__ == "__main__":
    script("signals", tries, times=2, doc=__doc__)
