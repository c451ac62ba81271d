"""Are the tables of today those that were recorded, to the last digit?

`python dev/same_tables.py SHARED` compares, with `dev/recorded-tables.json`, the numbers of
`lucency evaluate` of one and of two tables, `audit labels`, `audit errors`, `check` of lists and
`data imbalance`, on the real samples in the folder SHARED.

Names of files, columns and words may change; numbers, their order and their text may not. Times are
left out. `--record` writes the file anew, after a change that means to change numbers: which, and
why, stands in dev/log.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

RECORD = Path(__file__).with_name("recorded-tables.json")
TIMES = {"seconds", "films_per_second", "minutes", "milliseconds"}
SETS = ("birds", "emotions", "enron", "genbase", "scene", "yeast")
Digests = dict[str, list[object]]  # table -> how many numbers, and their SHA-256


def of_csv(file: Path) -> list[object]:
    """Return how many numbers a table holds, and their digest, row by row."""
    with file.open(encoding="utf-8", newline="") as lines:
        head, *rows = csv.reader(lines)
    left_out = {place for place, name in enumerate(head) if name in TIMES}
    return _digest(c for row in rows for place, c in enumerate(row) if place not in left_out)


def of_json(text: str) -> list[object]:
    """Return how many numbers an answer holds, and their digest, in order."""
    return _digest(_numbers(json.loads(text)))


def tables_of(folder: Path, *, name: str) -> Digests:
    """Return the digest of every table below a folder."""
    files = sorted(folder.rglob("*.csv"))
    return {f"{name}/{file.relative_to(folder).as_posix()}": of_csv(file) for file in files}


def answers(shared: Path, place: Path) -> Digests:
    """Return the digests of what the commands answer on the real samples."""
    nih = shared / "nih"
    labels, zech = nih / "Data_Entry_2017_v2020.csv", nih / "zech" / "preds.csv"
    second = _second(zech, place / "second.csv")
    lists, theirs = nih, nih / "community"
    calls = {
        "evaluate": ["evaluate", zech, "--labels", labels],
        "evaluate-2017": ["evaluate", zech, "--labels", nih / "Data_Entry_2017.csv"],
        "compare": ["evaluate", zech, second, "--labels", labels],
        "audit-labels": [
            "audit", "labels", "--labels", labels, "--expert", nih / "expert",
            "--predictions", zech,
        ],
        "audit-errors": ["audit", "errors", zech, "--labels", labels],
    }  # fmt: skip
    found: Digests = {}
    for name, words in calls.items():
        found[f"{name}.json"] = of_json(_call([*words, "--out", place / name, "--json"]))
        found |= tables_of(place / name, name=name)
    official = ["--train", lists / "train_val_list.txt", "--test", lists / "test_list.txt"]
    community = [f"--{part}={theirs / part}.txt" for part in ("train", "val", "test")]
    for name, words in (("official", official), ("community", community)):
        found[f"check-{name}.json"] = of_json(
            _call(["check", *words, "--labels", labels, "--json"])
        )
    found["check-zech.json"] = of_json(_call(["check", zech, "--labels", labels, "--json"]))
    files = {"nih": labels} | {one: _labels(shared, one, place) for one in SETS}
    for name, file in files.items():
        found[f"imbalance-{name}.json"] = of_json(_call(["data", "imbalance", file, "--json"]))
    return found


def _numbers(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield repr(value)


def _digest(cells: Iterator[str]) -> list[object]:
    numbers = [cell for cell in cells if _is_number(cell)]
    return [len(numbers), hashlib.sha256("\n".join(numbers).encode()).hexdigest()[:16]]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _second(zech: Path, file: Path) -> Path:
    """Write a second network's predictions: the first's, with seeded noise."""
    table, generator = pd.read_csv(zech), np.random.default_rng(0)
    for name in [name for name in table.columns if name.startswith("prob_")]:
        noise = 0.2 * generator.random(len(table)) * table[name].mean()
        table[name] = 0.8 * table[name] + noise
    table.to_csv(file, index=False)
    return file


def _labels(shared: Path, name: str, place: Path) -> Path:
    label = np.load(shared / "multilabel" / f"{name}.npz")["label"].astype(int)
    table = pd.DataFrame(label, columns=[f"label{k}" for k in range(label.shape[1])])
    table.insert(0, "patient", range(len(label)))
    table.insert(0, "image", [f"{row:05d}.png" for row in range(len(label))])
    table.to_csv(place / f"{name}.csv", index=False)
    return place / f"{name}.csv"


def _call(words: list[object]) -> str:
    command = [sys.executable, "-m", "lucency", *map(str, words)]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # sums in one order, on any machine
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    if done.returncode not in (0, 1):  # 1: `check` found something serious
        raise ValueError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    """Compare, or record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = answers(chosen.shared, Path(place))
    if chosen.record:
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    known: Digests = json.loads(RECORD.read_text(encoding="utf-8"))
    differ = sorted(name for name in known if found.get(name) != known[name])
    for name in differ:
        print(f"{name}: {known[name]} then, {found.get(name, 'absent')} now")  # noqa: T201
    print(f"{len(known) - len(differ)} of {len(known)} tables are equal")  # noqa: T201
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
