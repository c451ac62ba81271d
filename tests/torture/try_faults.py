"""The n-th open, write, fsync, rename, mkdir and link of every command fails, for every n.

Each try: a command on a tiny workplace with one fault, then the same command without. The first
must end in one line that names the file and with status 2, or do its work all the same, or leave
out by name a film that it could not read or a chapter of the report. It must leave no half file
under a final name. The second must end in the bytes of an unbroken call, and redo nothing; where a
film was left out, which stays so in that run, there is none. Each call fails with one of EIO,
ENOSPC, EINTR, EACCES and EDQUOT, which take turns. `--times` tries no more calls of each kind.
"""

import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from torture.fault_layer import ERRORS, KINDS, Ended, Fault, start_again_with_layer
from torture.tally import Tally, script, tally
from torture.tiny_commands import COMMANDS, INCOMPLETE, UNFINISHED, Bench, wrong_end

ALL = 10_000  # more calls than a command makes
REFUSED, DONE = "one line and status 2", "done all the same"
FILM, CHAPTER = "a film left out by name", "a chapter left out by name and status 3"
RIGHT = (REFUSED, DONE, FILM, CHAPTER)


def tries(times: int) -> Iterator[Tally]:
    """Yield a tally of each command and kind of call, at most so many calls of each."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        bench = Bench(Path(folder) / "bench", *COMMANDS)
        for name in COMMANDS:
            for kind, bit in KINDS.items():
                if found := outcomes(bench, name, bit, times):
                    yield tally(f"{name}: {kind} fails", found, right=RIGHT.__contains__)
        bench.close()


def outcomes(bench: Bench, name: str, bit: int, times: int) -> list[str]:
    """Return what comes of each call that fails, with one error after the other."""
    bench.reset(name)
    calls = len(bench.do(name, Fault(bit)).calls)
    tried = min(calls, times)
    found = [
        outcome(bench, name, Fault(bit, 1 + number * calls // tried, error))
        for number, error in zip(range(tried), cycle(ERRORS), strict=False)
    ]
    return [one for one in found if one]


def outcome(bench: Bench, name: str, fault: Fault) -> str:
    """Try a command with a fault, then without; return what came of it, "" if it did not come.

    Calls of threads are not always as many.
    """
    bench.reset(name)
    ended = bench.do(name, fault)
    if not ended.failed:
        return ""
    film = Path(ended.failed).name
    if wrong := wrong_end(ended) or _unnamed(ended, film):
        return wrong
    if ended.status == 0 and film.endswith(".png") and film in _left_out(bench.place, ended):
        return FILM
    if ended.status == INCOMPLETE:
        return bench.wrong_again(name) or CHAPTER
    wrong = bench.wrong_between(name) or bench.wrong_again(name)
    return wrong or (REFUSED if ended.status else DONE)


def _left_out(place: Path, ended: Ended) -> str:
    """Return what names the films that a command could not read."""
    rejected = place / "run" / "prepared" / "rejected.csv"
    return ended.out + ended.err + (rejected.read_text() if rejected.is_file() else "")


def _unnamed(ended: Ended, failed: str) -> str:
    """Return what is wrong with the last line of a command with a fault, "" where nothing is."""
    name = UNFINISHED.sub("", failed.removesuffix(" (deleted)"))
    last = ended.err.splitlines()[-1] if ended.err else ""
    return f"not named: {failed} in {last!r}" if ended.status == 2 and name not in last else ""


if __name__ == "__main__":
    start_again_with_layer()
    script("faults", tries, times=ALL, doc=__doc__)
