"""Half the memory, another clock, zone, locale, home, number of cores, hash seed: the same bytes.

Places are tried with a whole run, from films to report: it must end in the bytes of a run in a
plain place. Memory is tried with each command: it must do its work or end in one line with status
2, and then, with all its memory, in the bytes of an unbroken call.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from torture.fault_layer import (
    ALL,
    LAYER,
    UNHINDERED,
    Ended,
    Fault,
    in_child,
    start_again_with_layer,
)
from torture.tally import Tally, script, tally
from torture.tiny_commands import COMMANDS, INCOMPLETE, RUN, Bench, called, content, wrong_end

DONE, REFUSED, SAME = "done all the same", "one line and status 2", "the same bytes"
CHAPTER = "a chapter left out by name and status 3"
RIGHT = (DONE, REFUSED, SAME, CHAPTER)
YEARS = 365 * 86_400
PATIENCE = 60  # seconds, after which a command with less memory counts as hung
SHARES = 4  # of the memory that a command takes beside what it began with; half is one of them
LOCALE = "tr_TR.UTF-8"
DEVICE = re.compile(rb'"(?:device|checksum|classifier\.json)": "[^"]*"')  # and what notes it
PLACES = {
    "another hash seed": {"PYTHONHASHSEED": "1"},
    "time zone Pacific/Kiritimati": {"TZ": "Pacific/Kiritimati"},
    "time zone America/St_Johns": {"TZ": "America/St_Johns"},
    "locale C, no UTF-8": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    f"locale {LOCALE}": {"LC_ALL": LOCALE},
    "clock 20 years back": {"FAULTS_CLOCK": str(-20 * YEARS)},
    "clock before 1970": {"FAULTS_CLOCK": str(-60 * YEARS)},
    "clock that runs backwards": {"FAULTS_BACKWARDS": "1"},
    "no home": dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), "/dev/null"),
    "no temporary folder": {"ODD_PLACE": "no-temporary-folder"},
    "1 core": {"ODD_PLACE": "cores-1"},
    "64 cores": {"ODD_PLACE": "cores-64"},
}


def tries(times: int) -> Iterator[Tally]:
    """Yield a tally of each place, and of each command with shares of its memory."""
    with tempfile.TemporaryDirectory(prefix="places-") as folder:
        bench = Bench(Path(folder) / "bench", *COMMANDS)
        locales = make_locale(Path(folder))
        for place, oddities in list(PLACES.items())[: times if times < SHARES else None]:
            found = _in_place(bench, {**oddities, "LOCPATH": str(locales)})
            yield tally(f"a whole run: {place}", [found], right=RIGHT.__contains__)
        for name in COMMANDS:
            found = list(with_less_memory(bench, name, times))
            yield tally(f"{name}: too little memory", found, right=RIGHT.__contains__)
        bench.close()


def make_locale(folder: Path) -> Path:
    """Make the Turkish locale in a folder for LOCPATH; the reason is printed where that fails."""
    place = folder / "locales"
    place.mkdir()
    words = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(place / LOCALE)]
    if not shutil.which("localedef") or subprocess.run(words, check=False).returncode:
        print(f"{LOCALE} is only named, not there: no localedef, or without its sources")
    return place


def _in_place(bench: Bench, oddities: dict[str, str]) -> str:
    """Do a whole run in a program of its own; return what came of it."""
    bench.reset("prepare")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    done = subprocess.run(
        [sys.executable, "-m", "torture.odd_place", *RUN],
        env={**plain, **oddities, "LD_PRELOAD": os.environ[LAYER]},
        cwd=bench.place, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        return f"status {done.returncode}: {done.stderr[-300:]}"
    if "Warning" in done.stderr or "Traceback" in done.stderr:
        return f"a warning: {done.stderr[-300:]}"
    now, whole = content(bench.place), bench.wholes["finish"]
    other = [file for file in {**now, **whole} if not _same(file, now, whole)]
    return f"other bytes: {', '.join(sorted(other)[:5])}" if other else SAME


def _same(file: str, now: dict[str, bytes], whole: dict[str, bytes]) -> bool:
    """Return whether a file is as it should be.

    The page holds times that work took, and classifier.json the machine with its cores.
    """
    if file == "run/report/report.html":
        return file in now
    held = [DEVICE.sub(b"", one.get(file, b"")) for one in (now, whole)]
    return file in now and file in whole and held[0] == held[1]


def with_less_memory(bench: Bench, name: str, times: int) -> Iterator[str]:
    bench.reset(name)
    sizes = in_child(
        _measured(called(name)), place=bench.place, notes=bench.notes, fault=UNHINDERED
    )
    first, most = (int(line) for line in sizes.out.splitlines()[-2:])
    for share in range(min(times, SHARES)):
        bench.reset(name)
        limit = first + (most - first) * share // SHARES
        ended = in_child(
            _limited(called(name), limit), place=bench.place, notes=bench.notes, fault=Fault(ALL)
        )
        yield _end_of(bench, name, ended)


def _end_of(bench: Bench, name: str, ended: Ended) -> str:
    if wrong := wrong_end(ended):
        return wrong
    if ended.status == INCOMPLETE:  # beside the page are notes why
        return bench.wrong_again(name) or CHAPTER
    wrong = bench.wrong_between(name) or bench.wrong_again(name)
    return wrong or {0: DONE, 2: REFUSED}[ended.status]


def _measured(act: Callable[[], int]) -> Callable[[], int]:
    """Return a call that writes how many bytes of addresses it began with, and its most."""

    def measured() -> int:
        first = _addresses("VmSize")
        status = act()
        print(f"\n{first}\n{_addresses('VmPeak')}")
        return status

    return measured


def _addresses(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _limited(act: Callable[[], int], size: int) -> Callable[[], int]:
    def limited() -> int:
        signal.alarm(PATIENCE)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        return act()

    return limited


if __name__ == "__main__":
    start_again_with_layer()
    script("places", tries, times=SHARES, doc=__doc__)
