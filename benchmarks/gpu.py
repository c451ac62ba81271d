"""How fast does training run on one CUDA device, and how much of that is the loader's?

Ends within eight minutes and needs nothing but the environment: films are random, weights too. For
each network and precision: films a second of steps on a batch that lies on the device, the same fed
by the loader, the loader alone, its share of a fed step and the largest memory. Then the tests that
need CUDA. Card and date go into the name and the rows of benchmarks/results/gpu-*.csv.
Run: python benchmarks/gpu.py [--size 224] [--batch 64] [--seconds 8]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.core.plan import originals
from lucency.models.device import laid_out
from lucency.models.film_loader import Feeder, Films
from lucency.models.networks import build

NETWORKS = ("alexnet", "densenet121", "inceptionresnetv2", "mobilenetv2")
PRECISIONS = ("float32", "bfloat16")
FINDINGS, FILMS, WARM_UP = 14, 4096, 3
LIMIT, TESTS = 480.0, 120.0  # seconds for all, of which for the tests
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEADER = (
    "card", "date", "torch", "network", "precision", "size", "batch", "films_per_second",
    "films_per_second_loaded", "films_per_second_loader_alone", "loader_share", "memory_gb",
)  # fmt: skip


def random_films(size: int) -> Films:
    """Return films of noise, augmented as in a training."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, (FILMS, FINDINGS)).astype(np.float32)
    manifest = Manifest(
        findings=tuple(f"F{number}" for number in range(FINDINGS)),
        image=np.array([f"{film}.png" for film in range(FILMS)]),
        patient=np.arange(FILMS),
        label=label,
        facts=pd.DataFrame({"path": [""] * FILMS}),
        boxes=empty_boxes(),
        origin="noise",
    )
    prepared = Prepared(
        manifest=manifest,
        preparation=Preparation(size=size),
        pixels=generator.integers(0, 256, (FILMS, size, size), dtype=np.uint8),
        rejected=pd.DataFrame({"image": [], "reason": []}),
    )
    return Films(prepared=prepared, plan=originals(label), copies=0, recipe="gentle@1")


def rate_of(step: Callable[[], None], *, batch: int, seconds: float) -> float:
    """Return films a second of `step`, which sees a batch, over about `seconds`."""
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
        if steps % 10 == 0:
            torch.cuda.synchronize()  # else the queue runs ahead of the clock
    torch.cuda.synchronize()
    return batch * steps / (time.perf_counter() - started)


def measure(name: str, precision: str, *, films: Films, batch: int, seconds: float) -> list[float]:
    """Return the rates without loader, with it and of it alone, its share, and gigabytes."""
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    network = laid_out(build(name, findings=FINDINGS).to(device)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    label = torch.randint(0, 2, (batch, FINDINGS), device=device).float()
    still = torch.randint(0, 256, (batch, *films.prepared.pixels.shape[1:]), dtype=torch.uint8)
    still = still.to(device)

    def learn(pictures: torch.Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logit = network(pictures)  # mixed precision as accelerate has it
        torch.nn.functional.binary_cross_entropy_with_logits(logit.float(), label).backward()
        optimizer.step()

    plain = rate_of(lambda: learn(still), batch=batch, seconds=seconds)
    order = np.arange(FILMS, dtype=np.int64)
    batches = [np.roll(order, -turn * batch)[:batch] for turn in range(400_000 // batch)]
    feeder = Feeder(films, device=device)
    with closing(feeder.feed(batches, epoch=0)) as pictured:
        loaded = rate_of(lambda: learn(next(pictured)), batch=batch, seconds=seconds)
    with closing(feeder.feed(batches, epoch=1)) as pictured:
        alone = rate_of(lambda: void(next(pictured)), batch=batch, seconds=seconds / 2)
    share = max(0.0, 1 - loaded / plain)
    return [plain, loaded, alone, share, torch.cuda.max_memory_allocated() / 1e9]


def void(_: torch.Tensor) -> None:
    """Do nothing with a batch."""


def run_tests(seconds: float) -> str:
    """Run the tests that need CUDA, and return pytest's last line."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "tests/models",
    ]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished within {seconds:.0f} s"
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


def main() -> None:
    """Measure every network in both precisions, write one table, run the tests of CUDA."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0)
    choices = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    begun, card = time.monotonic(), torch.cuda.get_device_name(0)
    today, films = datetime.date.today().isoformat(), random_films(choices.size)
    file = RESULTS / f"gpu-{choices.size}px-{re.sub('[^A-Za-z0-9]+', '-', card)}-{today}.csv"
    cells = [(name, precision) for name in NETWORKS for precision in PRECISIONS]
    with file.open("w", newline="") as target:
        table = csv.writer(target)
        table.writerow(HEADER)
        for name, precision in cells:
            if time.monotonic() - begun > LIMIT - TESTS - 5 * choices.seconds:
                print(f"{name} {precision}: not measured, the time is up", flush=True)
                continue
            common = {"films": films, "batch": choices.batch, "seconds": choices.seconds}
            found = [f"{value:.3g}" for value in measure(name, precision, **common)]
            about = [card, today, torch.__version__, name, precision, choices.size, choices.batch]
            table.writerow([*about, *found])
            target.flush()
            print(name, precision, *found, flush=True)
    print(f"{file.relative_to(ROOT)} on {card}, {os.cpu_count()} cores")
    print(f"CUDA tests: {run_tests(LIMIT - 10 - (time.monotonic() - begun))}")


if __name__ == "__main__":
    main()
