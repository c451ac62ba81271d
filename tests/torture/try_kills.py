"""kill -9 at random moments of every command, and before each of its calls of files.

After a kill no half file may stand under a final name, and the same command must end in the bytes
of an unbroken call, redo no finished stage, and leave nothing behind. Trainings write a checkpoint
after every epoch here.
"""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from torture.fault_layer import (
    ALL,
    KILL,
    UNHINDERED,
    Ended,
    Fault,
    killed_after,
    start_again_with_layer,
)
from torture.tally import Tally, script, tally
from torture.tiny_commands import COMMANDS, Bench, called

SHARES = {"draw": 50, "prepare": 250, "train": 200, "finish": 22}  # of 600; of the others REST
REST = 13
WHOLE = 600
RIGHT = "whole again"
LATER = 1.3  # of the seconds of an unbroken call: the end of those in which kills fall


def tries(times: int) -> Iterator[Tally]:
    """Yield a tally of each command: kills at random moments, and at calls of files."""
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        bench = Bench(Path(folder) / "bench", *COMMANDS)
        for name in COMMANDS:
            wanted = max(1, SHARES.get(name, REST) * times // WHOLE)
            found = at_moments(bench, name, wanted)
            yield tally(f"{name}: killed at a random moment", found, right=RIGHT.__eq__)
            found = at_calls(bench, name, max(1, wanted // 2))
            yield tally(f"{name}: killed before a call of a file", found, right=RIGHT.__eq__)
        bench.close()


def at_moments(bench: Bench, name: str, wanted: int) -> list[str]:
    """Kill a command so many times; calls that were faster than the kill do not count."""
    moments, found = np.random.default_rng([*name.encode()]), list[str]()
    bench.reset(name)
    seconds = bench.do(name, UNHINDERED).seconds
    while len(found) < wanted:
        bench.reset(name)
        after = moments.uniform(0, LATER * seconds)
        ended = killed_after(after, called(name), place=bench.place, notes=bench.notes)
        if ended.status == -signal.SIGKILL:
            found.append(_outcome(bench, name, ended))
    return found


def at_calls(bench: Bench, name: str, wanted: int) -> list[str]:
    """Kill a command before so many of its calls, evenly spread from the first to the last."""
    bench.reset(name)
    calls = len(bench.do(name, Fault(ALL)).calls)
    found = list[str]()
    for number in range(min(wanted, calls)):
        bench.reset(name)
        ended = bench.do(name, Fault(ALL, 1 + number * calls // min(wanted, calls), KILL))
        found.append(_outcome(bench, name, ended))
    return found


def _outcome(bench: Bench, name: str, ended: Ended) -> str:
    if ended.status != -signal.SIGKILL:
        return f"not killed: status {ended.status}"
    return bench.wrong_between(name) or bench.wrong_again(name) or RIGHT


if __name__ == "__main__":
    start_again_with_layer()
    script("kills", tries, times=WHOLE, doc=__doc__)
