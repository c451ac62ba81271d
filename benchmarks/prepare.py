"""How fast are films prepared? Ours against the reference study's chain and torchxrayvision's.

Usage: python benchmarks/prepare.py [FOLDER] (default ../shared/nih/images: 103 films of 1024 px).
All chains run in turn in each of several rounds, so that what else the machine does falls on all;
a rate is the median over rounds, a ratio the median of the rounds' ratios. Where other programs
hold the cores the two-worker stage cannot show its speed: then compare the processor time.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from lucency.core.manifest import Manifest, Preparation, empty_boxes
from lucency.data.film_cache import prepare
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
REPEATS = 60  # the stage prepares each film so often: its workers start once, in about a second
REFERENCE, OURS = "reference study, 1 core", "lucency, 1 core"
STAGES = {"lucency's stage, 1 worker": 1, "lucency's stage, 2 workers": 2}

Chain = Callable[[list[Path], Path], None]


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "nih" / "images"
    films = sorted(folder.glob("*.png"))
    if not films:
        raise SystemExit(f"{folder} holds no PNG films: name a folder that does")
    cv2.setNumThreads(0)
    chains: dict[str, Chain] = {REFERENCE: reference_study, OURS: ours}
    chains |= {name: partial(stage, workers=workers) for name, workers in STAGES.items()}
    if importlib.util.find_spec("torchxrayvision"):
        chains["torchxrayvision, 1 core"] = torchxrayvision
    else:
        print("torchxrayvision is not installed: its reader is left out")
    measured = [measure(chains, films) for _ in range(ROUNDS)]
    rate, effort = (pd.DataFrame([pair[which] for pair in measured]) for which in (0, 1))
    table = summarise(rate, effort, films=len(films))
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"prepare-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def measure(
    chains: dict[str, Chain], films: list[Path]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return films per second, and milliseconds of processor time a film, of each chain."""
    rate, effort = {}, {}
    for name, chain in chains.items():
        count = len(films) * (REPEATS if name in STAGES else 1)
        with tempfile.TemporaryDirectory() as scratch:
            started, spent = time.perf_counter(), sum(os.times()[:4])
            chain(films, Path(scratch))
            rate[name] = count / (time.perf_counter() - started)
            effort[name] = 1000 * (sum(os.times()[:4]) - spent) / count
    return rate, effort


def reference_study(films: list[Path], scratch: Path) -> None:
    """The notebooks' chain: both PNG files are written, as there (facts/reference-study.md)."""
    for film in films:
        grey = cv2.cvtColor(np.asarray(cv2.imread(str(film))), cv2.COLOR_BGR2GRAY)
        brighter = cv2.add(cv2.createCLAHE(3, (10, 10)).apply(grey), np.array([5.0]))
        cv2.imwrite(str(scratch / film.name), brighter)
        with Image.open(scratch / film.name) as picture:
            picture.resize((224, 224)).save(scratch / f"224-{film.name}")


def ours(films: list[Path], scratch: Path) -> None:
    """The two functions that the stage calls for each film, one after the other."""
    del scratch
    for film in films:
        prepare_film(read_grey(film), preparation=Preparation())


def stage(films: list[Path], scratch: Path, *, workers: int) -> None:
    """The whole stage, from the start of its workers to the last table written."""
    several = [(f"{number}-{film.name}", film) for number in range(REPEATS) for film in films]
    manifest = Manifest(
        findings=(),
        image=np.array([name for name, _ in several]),
        patient=np.arange(len(several)),
        label=np.zeros((len(several), 0), np.float32),
        facts=pd.DataFrame({"path": [str(film) for _, film in several]}),
        boxes=empty_boxes(),
        origin="benchmark",
    )
    prepare(manifest, preparation=Preparation(), out=scratch / "cache", workers=workers)


def torchxrayvision(films: list[Path], scratch: Path) -> None:
    """Its documented reader: scikit-image's decoder, its scaling, centre crop and resizer."""
    del scratch
    library: Any = importlib.import_module("torchxrayvision")
    decode: Any = importlib.import_module("skimage.io").imread
    crop, resize = library.datasets.XRayCenterCrop(), library.datasets.XRayResizer(224)
    for film in films:
        picture = library.datasets.normalize(decode(film), 255)
        picture = picture[..., 0] if picture.ndim == 3 else picture
        resize(crop(picture[None]))


def summarise(rate: pd.DataFrame, effort: pd.DataFrame, *, films: int) -> pd.DataFrame:
    """Return a row a chain: its rate, and how many times the reference's and our own it is."""
    rows = []
    for name in rate.columns:
        count = films * (REPEATS if name in STAGES else 1)
        rows.append(
            {
                "chain": name,
                "films": count,
                "rounds": len(rate),
                "films_per_second": round(rate[name].median(), 1),
                "slowest_round": round(rate[name].min(), 1),
                "fastest_round": round(rate[name].max(), 1),
                "processor_ms_per_film": round(effort[name].median(), 1),
                "times_reference": round((rate[name] / rate[REFERENCE]).median(), 2),
                "times_1_worker": round((rate[name] / rate[next(iter(STAGES))]).median(), 2),
                "times_ours_1_core": round((rate[name] / rate[OURS]).median(), 2),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
