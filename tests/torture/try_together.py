"""Two of any commands at once on one run, ten predictions at once, file systems without locks.

Each must do its work, or end in one line with status 2, which says that another is at it. Then the
same commands, one after the other, must end in the bytes of unbroken calls.
"""

import errno
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

from torture.fault_layer import KINDS, UNHINDERED, Ended, Fault, begin, end, start_again_with_layer
from torture.tally import Tally, script, tally
from torture.tiny_commands import COMMANDS, Bench, called, content, wrong_end

STAGES = ("prepare", "train", "finish")  # of which each does those before it, too
WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # what a file system without locks answers
BOTH, ONE, NONE = "both did their work", "one did, the other wrote why in a line", "both wrote why"
RIGHT = (BOTH, ONE, "the same bytes")
MANY = 10


def tries(times: int) -> Iterator[Tally]:
    """Yield a tally of each pair of commands, of many predictions, and of each missing lock."""
    with tempfile.TemporaryDirectory(prefix="together-") as folder:
        bench = Bench(Path(folder) / "bench", *COMMANDS)
        for pair in combinations_with_replacement(COMMANDS, 2):
            found = [together(bench, pair, UNHINDERED) for _ in range(times)]
            yield tally(f"{' and '.join(pair)} at once", found, right=RIGHT.__contains__)
        found = [together(bench, ("predict",) * MANY, UNHINDERED) for _ in range(times)]
        yield tally(f"{MANY} predictions at once", found, right=RIGHT.__contains__)
        for number in WITHOUT:
            lockless = Fault(KINDS["lock"] | KINDS["link"], 1, number, lasting=True)
            what = f"no locks and links ({errno.errorcode[number]})"
            found = [_alone(bench, name, lockless) for name in COMMANDS]
            yield tally(f"{what}: each command", found, right=RIGHT.__contains__)
            found = [together(bench, (name, name), lockless) for name in STAGES]
            yield tally(f"{what}: two at once", found, right=RIGHT.__contains__)
        bench.close()


def together(bench: Bench, names: tuple[str, ...], fault: Fault) -> str:
    """Do commands at once, then one after the other; return what came of it."""
    latest = max(names, key=[*COMMANDS].index)
    bench.reset("prepare" if {*names} <= {*STAGES} else latest)
    notes = [bench.notes / str(number) for number in range(len(names))]
    began = time.monotonic()
    running = [
        begin(called(name), place=bench.place, notes=note, fault=fault)
        for name, note in zip(names, notes, strict=True)
    ]
    pairs = zip(running, notes, strict=True)
    ended = [end(process, notes=note, began=began) for process, note in pairs]
    if wrong := next(filter(None, map(_wrong, ended)), ""):
        return wrong
    for name in dict.fromkeys(names):
        again = bench.do(name, UNHINDERED)
        if again.status:
            return f"not mended by {name}: {again.err[-200:]}"
    if wrong := _other_bytes(bench, latest):
        return wrong
    done = sum(one.status == 0 for one in ended)
    return BOTH if done == len(names) else ONE if done else NONE


def _alone(bench: Bench, name: str, fault: Fault) -> str:
    bench.reset(name)
    ended = bench.do(name, fault)
    if ended.status:
        return f"status {ended.status}: {ended.err[-200:]}"
    return wrong_end(ended) or _other_bytes(bench, name) or "the same bytes"


def _wrong(ended: Ended) -> str:
    wrong = wrong_end(ended)
    if not wrong and ended.status == 2 and "another process" not in ended.err:
        return f"no word of another: {ended.err.splitlines()[-1]}"
    return wrong


def _other_bytes(bench: Bench, name: str) -> str:
    now, whole = content(bench.place), bench.wholes[name]
    other = [file for file in {**now, **whole} if now.get(file) != whole.get(file)]
    other = [file for file in other if file != "run/report/report.html"]  # has times of training
    return f"other bytes: {', '.join(sorted(other)[:5])}" if other else ""


if __name__ == "__main__":
    start_again_with_layer()
    script("together", tries, times=3, doc=__doc__)
