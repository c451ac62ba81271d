"""Decodes films and archives one by one, in a process of its own, and prints what each took.

`weighed` starts the process; a decoder that ends it is seen by what is not printed.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lucency.core.manifest import Preparation
from lucency.data.film_files import in_reading_order
from lucency.data.images import films_below
from lucency.data.preprocess import prepare_file

SIDE = 32
HANGS = 600.0  # seconds until the process is ended


class Weight(NamedTuple):
    """What a place took: seconds of processor time, and most memory of the process in bytes."""

    name: str
    seconds: float
    peak: int
    reason: str


def weighed(places: Sequence[Path]) -> tuple[list[Weight], int]:
    """Return the weight of each film or archive, and the exit status of who decoded them."""
    words = [sys.executable, "-m", "torture.weigh"]
    tests, package = Path(__file__).parents[1], Path(sys.modules["lucency"].__path__[0]).parent
    about = {**os.environ, "PYTHONPATH": f"{package}:{tests}", "OMP_NUM_THREADS": "1"}
    named = b"\0".join(map(os.fsencode, places))
    done = subprocess.run(
        words, input=named, env=about, capture_output=True, timeout=HANGS, check=False
    )
    lines = [one for one in done.stdout.decode().splitlines() if one.startswith("[")]
    return [Weight(*json.loads(one)) for one in lines], done.returncode


def main() -> None:
    preparation = Preparation(size=SIDE)
    for line in sys.stdin.buffer.read().split(b"\0"):
        place, reason = Path(os.fsdecode(line)), ""
        _forget_peak()
        started = time.process_time()
        try:
            for _, film in in_reading_order(films_below([place])):
                made = prepare_file(film, preparation=preparation)
                reason = made if isinstance(made, str) else reason
        except ValueError as error:
            reason = str(error)
        seconds = time.process_time() - started
        print(json.dumps(Weight(str(place), seconds, _peak(), reason)), flush=True)


def _forget_peak() -> None:
    """Measure the largest memory anew from here on, where the system can; else it only grows."""
    door = Path("/proc/self/clear_refs")
    if os.access(door, os.W_OK):
        door.write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
