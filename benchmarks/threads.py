"""How fast is training beside a busy process, by how long OpenMP's threads spin while they wait?

Each cell is a fresh process, since GOMP_SPINCOUNT is read when torch is loaded; "default" leaves it
alone, "chosen" is Lucency's. Rates of an idle machine come from an idle machine only. Results go to
benchmarks/results/. Run: python benchmarks/threads.py [--network densenet121] [--steps 8]
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

from lucency.core.parallel import SPINS, keep_freed_memory

RESULTS = Path(__file__).parent / "results"
SPIN_COUNTS = {"default": "", "0": "0", "chosen": str(SPINS), "5000": "5000", "20000": "20000"}
BATCH, SIDE, FINDINGS = 32, 80, 14


def films_per_second(name: str, *, steps: int) -> tuple[float, float]:
    """Return how many films a second `name` trains on, and predicts."""
    keep_freed_memory()
    import torch

    from lucency.models.device import laid_out
    from lucency.models.networks import build

    network = laid_out(build(name, findings=FINDINGS))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    films = torch.randint(0, 256, (BATCH, SIDE, SIDE), dtype=torch.uint8)
    label = torch.randint(0, 2, (BATCH, FINDINGS)).float()

    def learn() -> None:
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(films), label).backward()
        optimizer.step()

    def predict() -> None:
        with torch.inference_mode():
            network(films)

    rates = []
    for work in (learn, predict):
        network.train(work is learn)
        work()
        started = time.perf_counter()
        for _ in range(steps):
            work()
        rates.append(BATCH * steps / (time.perf_counter() - started))
    return rates[0], rates[1]


def main() -> None:
    """Measure every spin count, alone and beside a busy process, and write one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="densenet121")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.cell:
        print(*films_per_second(choices.network, steps=choices.steps))
        return
    rows = []
    for name, count in SPIN_COUNTS.items():
        alone = _in_a_process(choices.network, choices.steps, count)
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            beside = _in_a_process(choices.network, choices.steps, count)
            busy.kill()
        for work, one, other in zip(("training", "inference"), alone, beside, strict=True):
            rows.append([choices.network, work, name, f"{one:.1f}", f"{other:.1f}"])
            print(f"{work:<10} {name:<8} {one:6.1f} films/s alone, {other:6.1f} beside", flush=True)
    label = f"{platform.machine()}-{os.cpu_count()}cores-{datetime.date.today()}"
    file = RESULTS / f"threads-{choices.network}-{label}.csv"
    with file.open("w", newline="") as target:
        header = ["network", "work", "spins", "alone", "beside"]
        csv.writer(target).writerows([header, *rows])


def _in_a_process(network: str, steps: int, count: str) -> tuple[float, ...]:
    command = [sys.executable, __file__, "--cell", "--network", network, "--steps", str(steps)]
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    if count:
        environment["GOMP_SPINCOUNT"] = count
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return tuple(float(rate) for rate in done.stdout.split())


if __name__ == "__main__":
    main()
