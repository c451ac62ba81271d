"""How fast are DICOM films decoded and prepared? Ours, torchxrayvision's reader, a pydicom loop.

Usage: python benchmarks/dicom.py [FILMS] (default 24 phantom films of 2,000 x 2,000 pixels, 12
bits, MONOCHROME1 with a window, written to a temporary folder). Each chain ends with the same CLAHE
and 224 pixels. All run in turn in each of several rounds, so that what else the machine does falls
on all; a rate is the median over rounds, a ratio the median of the rounds' ratios. One process and
two of each are compared. Where other programs hold the cores, compare the processor time.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.pixels.processing import apply_voi_lut

from lucency.core.manifest import Manifest, Preparation, empty_boxes
from lucency.data.film_cache import prepare
from lucency.data.preprocess import prepare_file

ROOT = Path(__file__).resolve().parents[1]
FILMS, SIDE, ROUNDS = 24, 2000, 3
REPEATS = 20  # of each film, where two processes work: they start once, in about a second
PREPARATION = Preparation()
ONE, TWO = "lucency, 1 process", "lucency's stage, 2 processes"

Chain = Callable[[list[Path], Path], None]


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else FILMS
    readers = {"pydicom": by_pydicom}
    if importlib.util.find_spec("torchxrayvision"):
        readers["torchxrayvision"] = by_torchxrayvision
    else:
        print("torchxrayvision is not installed: its reader is left out")
    chains: dict[str, Chain] = {ONE: partial(alone, ours), TWO: stage}
    for name, reader in readers.items():
        chains[f"{name}, 1 process"] = partial(alone, reader)
        chains[f"{name}, 2 processes"] = partial(in_two, reader)
    with tempfile.TemporaryDirectory() as folder:
        films = write_films(Path(folder), count)
        measured = [measure(chains, films) for _ in range(ROUNDS)]
    rate, effort = (pd.DataFrame([pair[which] for pair in measured]) for which in (0, 1))
    table = summarise(rate, effort, films=count)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"dicom-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def write_films(folder: Path, count: int) -> list[Path]:
    """Write films that differ, with the tests' writer."""
    sys.path.insert(0, str(ROOT / "tests"))
    maker: Any = importlib.import_module("dicom_films")
    about = {"WindowCenter": 1800, "WindowWidth": 3000, "PhotometricInterpretation": "MONOCHROME1"}
    size, files = (SIDE, SIDE), []
    grey = cv2.resize(maker.phantom_grey(1024), size, interpolation=cv2.INTER_CUBIC)
    for number in range(count):
        stored = maker.stored_for(np.roll(grey, 7 * number, axis=1), **about)
        stored += np.random.default_rng(number).integers(
            -8, 9, stored.shape
        )  # the detector's noise
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(maker.dicom_bytes(np.clip(stored, 0, 4095), **about))
    return files


def measure(
    chains: dict[str, Chain], films: list[Path]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return films per second, and milliseconds of processor time a film, of each chain."""
    rate, effort = {}, {}
    for name, chain in chains.items():
        several = films if name.endswith("1 process") else films * REPEATS
        with tempfile.TemporaryDirectory() as scratch:
            started, spent = time.perf_counter(), sum(os.times()[:4])
            chain(several, Path(scratch))
            rate[name] = len(several) / (time.perf_counter() - started)
            effort[name] = 1000 * (sum(os.times()[:4]) - spent) / len(several)
    return rate, effort


def alone(reader: Callable[[Path], object], films: list[Path], scratch: Path) -> None:
    """Read films one after the other in this process, with one thread."""
    del scratch
    cv2.setNumThreads(0)
    for film in films:
        reader(film)


def in_two(reader: Callable[[Path], object], films: list[Path], scratch: Path) -> None:
    """Read films in two processes."""
    del scratch
    with ProcessPoolExecutor(2, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        list(pool.map(reader, films, chunksize=4))


def ours(film: Path) -> object:
    """The function that the stage calls for each film."""
    return prepare_file(film, preparation=PREPARATION)


def stage(films: list[Path], scratch: Path) -> None:
    """The whole stage, from the start of its workers to the last table written."""
    manifest = Manifest(
        findings=(),
        image=np.array([f"{number}.dcm" for number in range(len(films))]),
        patient=np.arange(len(films)),
        label=np.zeros((len(films), 0), np.float32),
        facts=pd.DataFrame({"path": [str(film) for film in films]}),
        boxes=empty_boxes(),
        origin="benchmark",
    )
    prepare(manifest, preparation=PREPARATION, out=scratch / "cache", workers=2)


def by_pydicom(film: Path) -> object:
    """What a user writes: pydicom's steps, MONOCHROME1 inverted, eight bits."""
    dataset = pydicom.dcmread(film)
    shown = apply_voi_lut(dataset.pixel_array, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 2**dataset.BitsStored - 1 - shown
    return enhanced((shown / (2**dataset.BitsStored - 1) * 255).round().astype(np.uint8))


def by_torchxrayvision(film: Path) -> object:
    """Its reader with the film's window; its range of -1024 to 1024 in eight bits."""
    library: Any = importlib.import_module("torchxrayvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one a film that it inverts
        shown = library.utils.read_xray_dcm(film, voi_lut=True)
    return enhanced(((shown + 1024) / 2048 * 255).round().astype(np.uint8))


def enhanced(grey: np.ndarray) -> np.ndarray:
    """The default preparation's CLAHE, brightness and size, as OpenCV has them."""
    tiles, side = (PREPARATION.clahe_tiles,) * 2, (PREPARATION.size,) * 2
    brighter = cv2.createCLAHE(PREPARATION.clahe_clip, tiles).apply(grey)
    brighter = cv2.add(brighter, np.array([float(PREPARATION.brightness)]))
    return cv2.resize(brighter, side, interpolation=cv2.INTER_AREA)


def summarise(rate: pd.DataFrame, effort: pd.DataFrame, *, films: int) -> pd.DataFrame:
    """Return a row a chain: its rate, and how many times of it ours with as many processes is."""
    rows = []
    for name in rate.columns:
        one = name.endswith("1 process")
        rows.append(
            {
                "chain": name,
                "films": films if one else films * REPEATS,
                "rounds": len(rate),
                "films_per_second": round(rate[name].median(), 1),
                "slowest_round": round(rate[name].min(), 1),
                "fastest_round": round(rate[name].max(), 1),
                "processor_ms_per_film": round(effort[name].median(), 1),
                "ours_with_as_many": round((rate[ONE if one else TWO] / rate[name]).median(), 2),
                "ours_with_two": round((rate[TWO] / rate[name]).median(), 2),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
