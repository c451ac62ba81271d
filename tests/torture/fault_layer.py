"""The fault layer: faults.c compiled and preloaded, then armed in children that are forked warm.

The process that forks has imported all that a command needs, so that a case costs only the command.
It must run no command itself and start no thread.
"""

import ctypes
import errno
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("faults.c")
KINDS = {"open": 1, "write": 2, "fsync": 4, "rename": 8, "mkdir": 16, "link": 32, "lock": 64}
ALL = sum(KINDS.values())
ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR, errno.EACCES, errno.EDQUOT)
KILL = -1  # in place of an error: the process dies by SIGKILL at this call
LAYER = "LUCENCY_FAULT_LAYER"  # the environment's name of the compiled layer
BROKEN = 70  # exit status of a child that ends by an exception


class Fault(NamedTuple):
    """The call number `at` of `kinds` (of KINDS, added up) fails with `error`; 0: none does."""

    kinds: int = ALL
    at: int = 0
    error: int = 0
    lasting: bool = False


UNHINDERED = Fault(0)


class Ended(NamedTuple):
    """How a child ended: exit status, or less than 0 the signal; what it wrote; what failed.

    `calls` are those that the fault counted, (kind, path); `failed` is the path, "" for none.
    """

    status: int
    out: str
    err: str
    failed: str
    calls: tuple[tuple[int, str], ...]
    seconds: float


def why_absent() -> str:
    """Return why there can be no fault layer here, "" where there can."""
    if platform.libc_ver()[0] != "glibc":
        return "the C library is not glibc, whose calls the fault layer takes the place of"
    return (
        ""
        if shutil.which("cc")
        else "there is no cc to compile the fault layer with: apt-get install gcc"
    )


def is_loaded() -> bool:
    """Return whether this process runs with the layer."""
    return hasattr(ctypes.CDLL(None), "faults_arm")


def with_layer(folder: Path) -> dict[str, str]:
    """Compile the layer into `folder`; return an environment whose programs have it."""
    library = folder / "faults.so"
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True)
    return {
        **os.environ, "LD_PRELOAD": str(library), LAYER: str(library), "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1",
    }  # fmt: skip


def start_again_with_layer() -> None:
    """Start this very program anew, with the layer; returns at once where it has it already."""
    if is_loaded():
        return
    if reason := why_absent():
        sys.exit(f"not tried: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        done = subprocess.run(sys.orig_argv, env=with_layer(folder), check=False)
    finally:
        shutil.rmtree(folder)
    sys.exit(done.returncode)


def begin(act: Callable[[], int], *, place: Path, notes: Path, fault: Fault) -> int:
    """Fork a child that does `act` in the folder `place`, with faults below it; return its number.

    What it writes to its terminal, and the calls that are counted, go to files in `notes`.
    """
    notes.mkdir(exist_ok=True)
    process = os.fork()
    if process:
        return process
    status = BROKEN
    try:
        os.setsid()
        os.chdir(place)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(notes / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        log = os.open(notes / "calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        _arm(place, fault, log)
        status = act()
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        failed = ctypes.CDLL(None).faults_fired
        failed.restype = ctypes.c_char_p
        path = failed()
        ctypes.CDLL(None).faults_arm(b"/nowhere", 0, ctypes.c_long(0), 0, 0, -1)
        (notes / "failed").write_bytes(path)
        os._exit(status)


def _arm(place: Path, fault: Fault, log: int) -> None:
    root = str(place.resolve()).encode()
    about = (fault.kinds, ctypes.c_long(fault.at), fault.error, int(fault.lasting), log)
    ctypes.CDLL(None).faults_arm(root, *about)


def end(process: int, *, notes: Path, began: float = 0.0) -> Ended:
    """Wait for a child and return how it ended."""
    _, status = os.waitpid(process, 0)
    seconds = time.monotonic() - began
    lines = (notes / "calls").read_text(errors="replace").splitlines()
    calls = tuple((int(kind), path) for kind, _, path in (line.partition(" ") for line in lines))
    killed = os.WIFSIGNALED(status)
    code = -os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
    texts = [(notes / name).read_text(errors="replace") for name in ("out", "err")]
    failed = notes / "failed"
    path = "" if killed or not failed.exists() else failed.read_text(errors="replace")
    return Ended(code, *texts, path, calls, seconds)


def in_child(act: Callable[[], int], *, place: Path, notes: Path, fault: Fault) -> Ended:
    """Do `act` in a forked child to its end."""
    began = time.monotonic()
    return end(begin(act, place=place, notes=notes, fault=fault), notes=notes, began=began)


def killed_after(seconds: float, act: Callable[[], int], *, place: Path, notes: Path) -> Ended:
    """Do `act` in a forked child, which is killed with all its processes after `seconds`."""
    began = time.monotonic()
    process = begin(act, place=place, notes=notes, fault=UNHINDERED)
    time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(process, signal.SIGKILL)  # before it had a group of its own
    return end(process, notes=notes, began=began)


def warm(act: Callable[[], int], *, place: Path, notes: Path) -> Ended:
    """Do `act` in a child and import here all that it has imported; return how it ended.

    Raises ValueError where it fails.
    """

    def listed() -> int:
        status = act()
        names = [name for name, one in sys.modules.items() if getattr(one, "__spec__", None)]
        (notes / "modules").write_text("\n".join(names))
        return status

    ended = in_child(listed, place=place, notes=notes, fault=Fault())
    if ended.status:
        raise ValueError(f"not even the unbroken call succeeds: {ended.err}")
    for name in (notes / "modules").read_text().split():
        if name != "__main__" and name not in sys.modules:
            try:
                importlib.import_module(name)
            except (ImportError, ValueError):  # of modules that others put there by hand
                continue
    return ended
