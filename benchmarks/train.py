"""How many films a second does training see, against the plain loop a notebook would run?

Each cell is a fresh process, since an allocator cannot be changed twice. Results go to
benchmarks/results/. Run: python benchmarks/train.py [--size 224] [--steps 3]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

NETWORKS = ("alexnet", "densenet121", "inceptionresnetv2", "mobilenetv2")
PLAIN, KEPT, LAST, FUSED = "plain", "memory kept", "and channels last", "and fused optimiser"
MODES = (PLAIN, KEPT, LAST, FUSED)  # each with all before it; the last is how Lucency trains
RESULTS = Path(__file__).parent / "results"


def films_per_second(name: str, *, mode: str, size: int, batch: int, steps: int) -> float:
    """Return the median rate of `steps` training steps on random films."""
    from lucency.core.parallel import keep_freed_memory
    from lucency.models.device import laid_out

    if mode != PLAIN:
        keep_freed_memory()
    import torch

    from lucency.models.networks import build

    network = build(name, findings=14, dropout=0.0, mean_std=None)
    if mode in (LAST, FUSED):
        laid_out(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=mode == FUSED)
    films = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8)
    label = torch.randint(0, 2, (batch, 14)).float()
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        logit = network(films)
        torch.nn.functional.binary_cross_entropy_with_logits(logit, label).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return batch / sorted(seconds[1:])[steps // 2]


def main() -> None:
    """Measure every network in every mode and write one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    choices = parser.parse_args()
    common = {"size": choices.size, "batch": choices.batch, "steps": choices.steps}
    if choices.cell:
        print(films_per_second(choices.cell[0], mode=choices.cell[1], **common))
        return
    rows = []
    for name in choices.networks:
        rates = [_in_a_process(name, mode, common) for mode in MODES]
        ratios = [rate / rates[0] for rate in rates]
        rows.append([name, *common.values(), *(f"{v:.2f}" for v in (*rates, ratios[-1]))])
        shown = ", ".join(f"{m} {r:.1f}" for m, r in zip(MODES, rates, strict=True))
        print(f"{name:<20} films/s: {shown}; ratio {ratios[-1]:.2f}", flush=True)
    header = ["network", *common, *MODES, "ratio"]
    label = f"{platform.machine()}-{os.cpu_count()}cores-{datetime.date.today()}"
    file = RESULTS / f"train-{choices.size}px-{label}.csv"
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([header, *rows])
    print(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


def _in_a_process(name: str, mode: str, common: dict[str, int]) -> float:
    options = [word for key, value in common.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, __file__, "--cell", name, mode, *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
