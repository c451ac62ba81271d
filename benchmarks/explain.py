"""How many forward passes does a method take for the maps of 14 findings of one batch?

The allowance is 3 passes for cam and 4 for the other methods that need one pass; those that need
many are measured where asked for. Results go to benchmarks/results/.
Run: python benchmarks/explain.py [--size 224] [--batch 8] [--repeats 5] [--methods cam grad-cam]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lucency.core.parallel import keep_freed_memory
from lucency.explain.methods.network_split import logits
from lucency.explain.methods.registry import HEATMAPS
from lucency.models.networks import build

NETWORKS = ("densenet121", "mobilenetv2", "inceptionresnetv2", "alexnet", "vit_tiny_patch16_224")
ONE_PASS = ("cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "x-grad-cam")
FINDINGS = 14
ALLOWED = {method: 3.0 if method == "cam" else 4.0 for method in ONE_PASS}
RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], object], *, repeats: int) -> float:
    """Return the median time of `work`, after one run that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))


def measure(name: str, choices: argparse.Namespace) -> list[list[object]]:
    """Return one row a method that the network allows: seconds and passes."""
    network = build(name, findings=FINDINGS).body.eval()
    shape = (choices.batch, 3, choices.size, choices.size)
    draw = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    films = torch.from_numpy(draw)
    with torch.no_grad():
        once = seconds(lambda: logits(network, films), repeats=choices.repeats)
    rows = []
    for method in choices.methods:
        try:
            taken = seconds(lambda m=method: HEATMAPS[m](network, films), repeats=choices.repeats)
        except ValueError as refusal:
            print(f"{name:<22} {method:<20} {refusal}", flush=True)
            continue
        ratio, allowed = taken / once, ALLOWED.get(method, float("nan"))
        rows.append([name, method, f"{once:.3f}", f"{taken:.3f}", f"{ratio:.2f}", allowed])
        verdict = "  TOO SLOW" if ratio > allowed else ""
        print(f"{name:<22} {method:<20} {ratio:6.2f} passes{verdict}", flush=True)
    return rows


def main() -> None:
    """Measure every method on every network and write one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--methods", nargs="+", choices=HEATMAPS, default=ONE_PASS)
    choices = parser.parse_args()
    keep_freed_memory()
    rows = [row for name in choices.networks for row in measure(name, choices)]
    label = f"{platform.machine()}-{os.cpu_count()}cores-{datetime.date.today()}"
    file = RESULTS / f"explain-{choices.size}px-{label}.csv"
    header = ["network", "method", "seconds_a_pass", "seconds", "passes", "allowed"]
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([header, *rows])
    print(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


if __name__ == "__main__":
    main()
