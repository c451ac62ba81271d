"""How long do the measures and the resamplers take, and does the time grow with the films?

Usage: python benchmarks/balance.py [LABELS] (default ../shared/nih/Data_Entry_2017_v2020.csv).
Each method runs on the label file and, for those that need no neighbours, on a tenth of its films:
a ratio of about 10 means that time grows with the films and not faster. Neighbour-based methods
see invented float32 features, and as many films as --films says. Beside the measures stands a
plain loop over the films, as the definitions read.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.balance.imbalance import followed, imbalance_ratio, measure
from lucency.balance.methods import needs_features, resample_steps
from lucency.config.sections import BALANCE_KEYS, Balance
from lucency.data.labels import Labels, read_labels

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, DIMENSIONS, FILMS = 3, 1024, 20_000


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Time the measures and the resamplers.")
    default = ROOT.parent / "shared" / "nih" / "Data_Entry_2017_v2020.csv"
    parser.add_argument("labels", nargs="?", type=Path, default=default)
    parser.add_argument("--films", type=int, default=FILMS, help="for neighbour-based methods")
    given = parser.parse_args()
    read = read_labels(given.labels)
    order = np.random.default_rng(0).permutation(len(read.label))
    table = pd.DataFrame([*_measures(read, order), *_resamplers(read, order, given.films)])
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"balance-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _measures(read: Labels, order: np.ndarray) -> list[dict[str, object]]:
    whole, tenth = read.label, read.label[order[: len(order) // 10]]
    ours = [_seconds(partial(measure, part, names=read.findings)) for part in (whole, tenth)]
    loop = _seconds(partial(_scumble_by_loop, whole), rounds=1)
    return [
        _row("measures", len(whole), *ours),
        _row("SCUMBLE by a loop over films", len(whole), loop, float("nan")),
    ]


def _scumble_by_loop(label: np.ndarray) -> float:
    """The definition, film by film, as it is mostly programmed."""
    ratio, total = imbalance_ratio(label), 0.0
    for row in label:
        mine = ratio[row == 1]
        if len(mine):
            total += 1 - np.prod(mine) ** (1 / len(mine)) / np.mean(mine)
    return total / len(label)


def _resamplers(read: Labels, order: np.ndarray, films: int) -> list[dict[str, object]]:
    generator, rows = np.random.default_rng(0), []
    for method in BALANCE_KEYS:
        choices = Balance.model_validate({"method": method})
        wide = DIMENSIONS if needs_features(choices) else 0
        sizes = (films, films // 10) if wide else (len(order), len(order) // 10)
        seconds = []
        for size in sizes:
            label = read.label[order[:size]]
            feature = generator.normal(size=(size, wide)).astype(np.float32)
            about = {"findings": read.findings, "choices": choices, "feature": feature}
            work = partial(_resample, label, **about)
            seconds.append(_seconds(work, rounds=1 if wide else ROUNDS))
        rows.append(_row(method, sizes[0], *seconds))
    return rows


def _resample(label: np.ndarray, *, findings: tuple[str, ...], **about: Any) -> None:
    followed(label, resample_steps(label, findings=findings, **about), findings=findings)


def _row(name: str, films: int, whole: float, tenth: float) -> dict[str, object]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "what": name,
        "films": films,
        "seconds": round(whole, 3),
        "tenth_of_the_films": round(tenth, 4),
        "ratio": round(whole / tenth, 1),
        "peak_memory_so_far_gb": round(peak, 2),
    }


def _seconds(work: Callable[[], object], *, rounds: int = ROUNDS) -> float:
    """Return the median time of a call."""
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


if __name__ == "__main__":
    main()
