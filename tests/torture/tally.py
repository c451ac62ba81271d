"""What was tried and what held, by kind: one CSV a script, shown by docs/reliability.md."""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lucency.core.progress import printable

RESULTS = Path(__file__).parent / "results"


class Tally(NamedTuple):
    """A door or fault by a plain name, how often it was tried, and how often what came was right.

    `held` is `tried` where nothing broke; `outcomes` names what came, with counts.
    """

    what: str
    tried: int
    held: int
    outcomes: str


def tally(what: str, outcomes: Iterable[str], *, right: Callable[[str], bool]) -> Tally:
    """Count the outcomes of tries at one door; `right` says of each kind whether it may be."""
    counted = pd.Series(list(outcomes), dtype=str).value_counts().sort_index()
    held = sum(int(count) for kind, count in counted.items() if right(str(kind)))
    text = ", ".join(f"{printable(str(kind))} {count}" for kind, count in counted.items())
    return Tally(what, int(counted.sum()), held, text)


def script(name: str, tries: Callable[[int], Iterable[Tally]], *, times: int, doc: str) -> None:
    """Run a script of tries: prints each tally as it comes and saves all to results/NAME.csv.

    NAME is that of the module, try_NAME.py. `tries` takes how often each kind is tried; `--times`
    replaces it, and then nothing is saved.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--times", type=int, help=f"tries of each kind, in place of {times}")
    fewer = parser.parse_args().times
    rows, start = [], time.monotonic()
    for row in tries(fewer or times):
        rows.append(row)
        print(f"{row.what}: {row.held} of {row.tried} held ({row.outcomes})", flush=True)
    seconds = time.monotonic() - start
    print(f"{name}: {seconds:.0f} s")
    if fewer is None:
        save(name, rows, seconds=seconds)


def save(name: str, rows: Iterable[Tally], *, seconds: float) -> None:
    """Write the tallies of a script with its command, date, machine and seconds."""
    table = pd.DataFrame(rows, columns=list(Tally._fields))
    table["command"] = f"make torture ONLY={name}"
    table["date"] = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    table["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    table["seconds"] = round(seconds)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"{name}.csv", index=False)


def as_table(file: Path) -> str:
    """Return a script's saved tallies as a table of the docs, under the command that counts."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    first = table.iloc[0]
    about = f"`{first['command']}`, {first['date']}, {first['machine']}, {first['seconds']} s:"
    rows = table.loc[:, list(Tally._fields)].to_numpy().tolist()
    head = ["what", "tried", "held", "outcomes"]
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join([about, "", *(f"| {' | '.join(row)} |" for row in cells)])
