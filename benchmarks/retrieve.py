"""How fast are similar films found among 112,120, in how much memory, beside scikit-learn?

Usage: OMP_NUM_THREADS=2 python benchmarks/retrieve.py [--films N]
Invented features, in 1,024 dimensions, around as many centres as ChestX-ray14 has patients, lie on
disk as an index; each way is a process of its own that opens them, finds the ten nearest films of
queries one at a time and 1,024 at once, and says its own peak of resident memory. Ours leaves out
the query's patient and is checked against all products in double precision; scikit-learn's
brute force does neither. `load` is the machine's load average before a way began: others' work
counts as ours where it is high.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.predictions import Features
from lucency.ensemble.retrieval import (
    FEATURE,
    ROWS,
    Index,
    load_index,
    pieces,
    save_index,
    search,
)

ROOT = Path(__file__).resolve().parents[1]
DIMENSIONS, PATIENTS, TOP, SEED = 1_024, 30_805, 10, 0
ALONE, TOGETHER, CHECKED = 31, 1_024, 128  # queries

Found = np.ndarray  # rows of films, q x t
Ask = Callable[[np.ndarray], Found]


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Search for similar films.")
    parser.add_argument("--films", type=int, default=112_120)
    parser.add_argument("--way", choices=list(WAYS), help="inside: measure one way only")
    parser.add_argument("--folder", type=Path, help="inside: where the index lies")
    given = parser.parse_args()
    if given.way:
        print(json.dumps(WAYS[given.way](given.folder, given.films)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [_inside(name, folder, given.films) for name in WAYS]
    table = pd.DataFrame(rows[1:])
    ours = table.iloc[0]
    table["times_ours_alone"] = (table["milliseconds_a_query"] / ours.iloc[2]).round(2)
    table["times_ours_together"] = (ours.iloc[3] / table["queries_a_second"]).round(2)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"retrieve-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _inside(name: str, folder: str, films: int) -> dict[str, object]:
    load = os.getloadavg()[0]
    asked = ["--way", name, "--folder", folder, "--films", str(films)]
    done = subprocess.run(
        [sys.executable, __file__, *asked], check=True, capture_output=True, text=True
    )
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    row = {"way": name, **json.loads(done.stdout), "threads": threads, "load": round(load, 2)}
    print(row, flush=True)
    return row


def _make(folder: Path, films: int) -> dict[str, float]:
    generator = np.random.default_rng(SEED)
    patient = np.sort(generator.integers(PATIENTS, size=films))
    centre = generator.standard_normal((PATIENTS, DIMENSIONS), dtype=np.float32)
    feature = np.empty((films, DIMENSIONS), dtype=np.float32)
    for rows in pieces(films, ROWS):
        noise = generator.standard_normal(feature[rows].shape, dtype=np.float32)
        feature[rows] = centre[patient[rows]] + noise
    about = Features(
        source="invented", split="", findings=(), feature=feature, patient=patient,
        image=np.char.add(np.arange(films).astype(str), ".png"), part=np.full(films, "train"),
        label=np.empty((films, 0), dtype=np.float32),
    )  # fmt: skip
    save_index(about, folder=folder)
    return {}


def _ours(folder: Path, films: int) -> dict[str, float]:
    began = time.perf_counter()
    index = load_index(folder)
    opened = time.perf_counter() - began
    feature, patient = _queries(index.direction, index.patient)

    def ask(query: np.ndarray) -> Found:
        return search(index, feature[query], patient=patient[query], top=TOP).row

    row = _row(ask, opened)
    some = np.arange(CHECKED)
    row["unlike_brute_force"] = int((ask(some) != _brute(index, feature[some], patient)).sum())
    return row


def _brute(index: Index, feature: np.ndarray, patient: np.ndarray) -> Found:
    wide = feature.astype(np.float64)
    wide = (wide / np.linalg.norm(wide, axis=1)[:, None]).astype(np.float32).astype(np.float64)
    said = [wide @ index.direction[rows].T.astype(np.float64) for rows in pieces(len(index), ROWS)]
    product = np.concatenate(said, axis=1)
    product[patient[: len(wide), None] == index.patient] = -np.inf
    return np.argsort(-product, axis=1, kind="stable")[:, :TOP]


def _cosine(folder: Path, films: int) -> dict[str, float]:
    return _neighbours(folder, "cosine")


def _euclidean(folder: Path, films: int) -> dict[str, float]:
    return _neighbours(folder, "euclidean")


def _neighbours(folder: Path, metric: str) -> dict[str, float]:
    from sklearn.neighbors import NearestNeighbors

    began = time.perf_counter()
    known = np.load(folder / FEATURE).astype(np.float32)
    model = NearestNeighbors(n_neighbors=TOP, metric=metric, algorithm="brute").fit(known)
    opened = time.perf_counter() - began
    feature, _ = _queries(known, np.zeros(len(known), dtype=np.int64))
    return _row(lambda query: model.kneighbors(feature[query])[1], opened)


def _queries(known: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return new films of patients of the index."""
    generator = np.random.default_rng(SEED + 1)
    row = generator.integers(len(known), size=TOGETHER)
    noise = generator.standard_normal((TOGETHER, known.shape[1]), dtype=np.float32)
    return known[row] + noise / np.sqrt(known.shape[1]).astype(np.float32), patient[row]


def _row(ask: Ask, opened: float) -> dict[str, float]:
    ask(np.arange(1))
    alone = [_seconds(ask, np.array([query])) for query in range(ALONE)]
    together = min(_seconds(ask, np.arange(TOGETHER)) for _ in range(3))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "opened_seconds": round(opened, 2),
        "milliseconds_a_query": round(1000 * statistics.median(alone), 1),
        "queries_a_second": round(TOGETHER / together, 1),
        "peak_memory_gib": round(peak, 2),
    }


def _seconds(ask: Ask, query: np.ndarray) -> float:
    began = time.perf_counter()
    ask(query)
    return time.perf_counter() - began


WAYS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "make": _make,
    "lucency": _ours,
    "scikit-learn, cosine": _cosine,
    "scikit-learn, euclidean at length 1": _euclidean,
}


if __name__ == "__main__":
    main()
