"""Does the look at pictures stay linear, and how much faster is it than comparing all pairs?

Usage: python benchmarks/audit.py [FOLDER] (default ../shared/nih/images-320: 1,297 real films).
Films beyond the real ones are random crops of them, so that few are near duplicates. They lie in a
memory-mapped cache of 224 x 224 pixels, as a run's do. Beside it stands what one would write for
duplicates alone: the correlation of every pair of thumbnails, whose cost grows with the square.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lucency.audit.image_quality import inspect, quality_table
from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film, thumbnails

ROOT = Path(__file__).resolve().parents[1]
FILMS, ALL_PAIRS = (2_000, 8_000, 32_000), 8_000
WHOLE = 112_120
SMALLEST = 0.8  # side of a crop
ALIKE = 0.99


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    sample = ROOT.parent / "shared" / "nih" / "images-320"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else sample
    grey = [read_grey(file) for file in sorted(folder.glob("*.png"))]
    if not grey:
        raise SystemExit(f"{folder} holds no PNG films: name a folder that does")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for films in FILMS:
            cached = cache(grey, films, Path(scratch) / "pixels")
            started = time.perf_counter()
            quality_table(inspect(cached, progress=lambda done, total: None))
            ours = time.perf_counter() - started
            pairs = compare_all(cached) if films <= ALL_PAIRS else float("nan")
            rows.append((films, ours, films / ours, WHOLE * ours / films / 60, pairs))
    columns = ["films", "seconds", "films_per_second", "minutes_of_112120", "all_pairs_seconds"]
    table = pd.DataFrame(rows, columns=columns).round(2)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"audit-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def cache(grey: list[np.ndarray], films: int, file: Path) -> Prepared:
    """Return so many films in a memory-mapped cache: the real ones, then crops of them."""
    generator = np.random.default_rng(0)
    side = Preparation().size
    pixels = np.memmap(file, dtype=np.uint8, mode="w+", shape=(films, side, side))
    whole = [prepare_film(film, preparation=Preparation()) for film in grey[:films]]
    pixels[: len(whole)] = np.stack(whole)
    for row in range(len(whole), films):
        film = whole[generator.integers(len(whole))]
        length = int(side * generator.uniform(SMALLEST, 1))
        top, left = generator.integers(0, side - length + 1, 2)
        crop = film[top : top + length, left : left + length]
        pixels[row] = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
    manifest = Manifest(
        findings=(),
        image=np.arange(films).astype(str),
        patient=np.arange(films) // 4,
        label=np.zeros((films, 0), np.float32),
        facts=pd.DataFrame(index=range(films)),
        boxes=empty_boxes(),
        origin="benchmark",
    )
    none = pd.DataFrame({"image": [], "reason": []})
    return Prepared(manifest=manifest, preparation=Preparation(), pixels=pixels, rejected=none)


def compare_all(prepared: Prepared) -> float:
    """Return the seconds that finding duplicates takes by the correlation of all pairs."""
    started = time.perf_counter()
    small = thumbnails(prepared, rows=np.arange(len(prepared.manifest)))
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    for start in range(0, len(small), 1_000):
        np.argwhere(small[start : start + 1_000] @ small.T >= ALIKE)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
