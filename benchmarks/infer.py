"""How many films a second does a network predict on a CPU: PyTorch, ONNX Runtime and OpenVINO?

The three take turns on the same batches of one process, so that what else the machine does falls
on all; a rate is the median over rounds, a ratio the median of the rounds' ratios. Then, on ONNX
Runtime: one film from the prompt (a process is started; with --run it is `lucency predict RUN`),
and a folder of native films, decoded and prepared beside the network, against either stage alone.
Where both stages can use all cores, they share them: `shared` is 1 / (1 / a + 1 / b) of their own
rates, which no overlap can exceed on cores that are never idle.
With --spins: ONNX Runtime by how long its threads wait awake, alone, beside a busy process, and
beside the preparation of films.
Results go to benchmarks/results/.
Run: python benchmarks/infer.py [--films FOLDER] [--quick] [--spins]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from lucency.core.manifest import Preparation
from lucency.core.parallel import keep_freed_memory, share_cores, usable_cores
from lucency.data.film_stream import stream_films
from lucency.models.onnx_runtime import BATCH, OnnxNetwork, open_onnx, run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NETWORKS = ("densenet121", "mobilenetv2", "inceptionresnetv2", "alexnet")
TARGETS = {"densenet121": 1.4, "mobilenetv2": 2.0, "inceptionresnetv2": 1.3}
PYTORCH, ONNX, OPENVINO = "pytorch", "onnxruntime", "openvino"
FINDINGS = 14
SPINS = (0, 50, 100, 200, 500, 1_000)  # microseconds; the last is ONNX Runtime's own
HEADER: tuple[str, ...] = (
    "network", "size", "batch", "rounds", PYTORCH, ONNX, OPENVINO, "ratio", "target",
    "one_film_seconds", "films", "prepare", "predict", "shared", "folder", "of_slower",
    "of_shared", "load",
)  # fmt: skip
SPIN_HEADER = ("network", "spin", "alone", "beside", "folder", "load")
Predict = Callable[[np.ndarray], object]


def main() -> None:
    """Measure every network and write one table."""
    choices = stated()
    if choices.one:
        predict_one(Path(choices.one[0]), Path(choices.one[1]), size=int(choices.one[2]))
        return
    share_cores()
    keep_freed_memory()
    films = sorted(choices.films.glob("*.png"))
    if not films:
        raise SystemExit(f"{choices.films} holds no PNG films: name a folder that does")
    kind, header, rows = "infer", HEADER, list[dict[str, object]]()
    if choices.spins:
        kind, header = "infer-spins", SPIN_HEADER
    with tempfile.TemporaryDirectory() as scratch:
        for name in choices.networks:
            if choices.spins:
                rows += by_spin(name, films, choices, Path(scratch))
            else:
                rows.append(measure(name, films, choices, Path(scratch)))
    label = f"{platform.machine()}-{os.cpu_count()}cores-{datetime.date.today()}"
    file = RESULTS / f"{kind}{'-quick' * choices.quick}-{choices.size}px-{label}.csv"
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, header)
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


def stated() -> argparse.Namespace:
    """Return the choices of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--films", type=Path, default=ROOT.parent / "shared" / "nih" / "images")
    parser.add_argument("--count", type=int, default=1_000, help="films of the folder, repeated")
    parser.add_argument("--run", type=Path, help="a run or export for the film from the prompt")
    parser.add_argument("--quick", action="store_true", help="a small network, few films")
    parser.add_argument("--spins", action="store_true", help="how long threads wait awake")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.quick:
        choices.networks, choices.size, choices.rounds, choices.count = ("test_resnet",), 64, 2, 40
    return choices


def measure(
    name: str, films: list[Path], choices: argparse.Namespace, scratch: Path
) -> dict[str, object]:
    """Return the row of one network."""
    import torch

    from lucency.models.device import laid_out
    from lucency.models.networks import build
    from lucency.models.onnx_export import write_onnx

    network, file = build(name, findings=FINDINGS).eval(), scratch / f"{name}.onnx"
    write_onnx(network, file, size=choices.size, metadata={})
    laid_out(network)
    opened = open_onnx(file)

    def with_torch(pixels: np.ndarray) -> None:
        with torch.inference_mode():
            network.embed(torch.from_numpy(pixels))

    ways: dict[str, Predict] = {PYTORCH: with_torch, ONNX: lambda pixels: run(opened, pixels)}
    if importlib.util.find_spec("openvino"):
        ways[OPENVINO] = with_openvino(file, size=choices.size)
    rate = rates(ways, size=choices.size, rounds=choices.rounds)
    row: dict[str, object] = {"network": name, "size": choices.size, "batch": BATCH}
    row |= {"rounds": choices.rounds, "target": TARGETS.get(name, "")}
    row |= {way: f"{np.median(rate[way]):.1f}" if way in rate else "" for way in (*ways, OPENVINO)}
    row["ratio"] = f"{np.median(rate[ONNX] / rate[PYTORCH]):.2f}"
    row["one_film_seconds"] = f"{one_film(file, films[0], choices):.2f}"
    row |= folder(opened, films, count=choices.count)
    row["load"] = load()
    print(", ".join(f"{key} {row[key]}" for key in HEADER if row[key] != ""), flush=True)
    return row


def by_spin(
    name: str, films: list[Path], choices: argparse.Namespace, scratch: Path
) -> list[dict[str, object]]:
    """Return a row for each of SPINS: films a second alone, beside a busy process, of a folder."""
    from lucency.models.networks import build
    from lucency.models.onnx_export import write_onnx

    file, common = scratch / f"{name}.onnx", {"size": choices.size, "rounds": choices.rounds}
    write_onnx(build(name, findings=FINDINGS), file, size=choices.size, metadata={})
    opened = {spin: open_onnx(file, spin=spin) for spin in SPINS}
    ways: dict[str, Predict] = {
        str(spin): partial(run, network) for spin, network in opened.items()
    }
    alone = rates(ways, **common)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        beside = rates(ways, **common)
        busy.kill()
    rows = []
    for spin, network in opened.items():
        found = [float(np.median(each[str(spin)])) for each in (alone, beside)]
        found.append(together(network, films, count=choices.count))
        row: dict[str, object] = {"network": name, "spin": spin, "load": load()}
        shown = zip(("alone", "beside", "folder"), found, strict=True)
        row |= {key: f"{value:.1f}" for key, value in shown}
        rows.append(row)
        print(", ".join(f"{key} {row[key]}" for key in SPIN_HEADER), flush=True)
    return rows


def with_openvino(file: Path, *, size: int) -> Predict:
    """Return inference by OpenVINO, in float32, on as many threads as the others have."""
    library: Any = importlib.import_module("openvino")
    core = library.Core()
    model = core.read_model(file)
    model.reshape([BATCH, size, size])
    settings = {
        "INFERENCE_NUM_THREADS": usable_cores(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(model, "CPU", settings)
    return lambda pixels: compiled([pixels])


def rates(ways: dict[str, Predict], *, size: int, rounds: int) -> dict[str, np.ndarray]:
    """Return films a second of every way in every round, after one round that does not count."""
    draw = np.random.default_rng(0).integers(0, 256, (BATCH, size, size), dtype=np.uint8)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + rounds):
        for way, predict in ways.items():
            started = time.perf_counter()
            predict(draw)
            found[way].append(BATCH / (time.perf_counter() - started))
    return {way: np.array(each[1:]) for way, each in found.items()}


def one_film(file: Path, film: Path, choices: argparse.Namespace) -> float:
    """Return the median seconds of a process that predicts one film, of three after a first."""
    command = [sys.executable, __file__, "--one", str(file), str(film), str(choices.size)]
    if choices.run:
        command = [sys.executable, "-m", "lucency", "predict", str(choices.run), str(film)]
    seconds = []
    for _ in range(1 + 3):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def predict_one(file: Path, film: Path, *, size: int) -> None:
    """Predict one film with the network of an ONNX file, as a process of its own."""
    for block in stream_films([film], preparation=Preparation(size=size)):
        print(run(open_onnx(file), block.pixels)[0].tolist())


def folder(opened: OnnxNetwork, films: list[Path], *, count: int) -> dict[str, object]:
    """Return the rates of preparing native films, of predicting them, and of both together."""
    several = [*islice(cycle(films), count)]
    preparation = Preparation(size=opened.size)
    started = time.perf_counter()
    blocks = [block.pixels for block in stream_films(several, preparation=preparation)]
    prepare = count / (time.perf_counter() - started)
    started = time.perf_counter()
    for block in blocks:
        run(opened, block)
    predict = count / (time.perf_counter() - started)
    both = together(opened, films, count=count)
    shared = 1 / (1 / prepare + 1 / predict)
    found = {"prepare": prepare, "predict": predict, "shared": shared, "folder": both}
    shares = {"of_slower": both / min(prepare, predict), "of_shared": both / shared}
    return {
        "films": count,
        **{key: f"{value:.1f}" for key, value in found.items()},
        **{key: f"{value:.2f}" for key, value in shares.items()},
    }


def together(opened: OnnxNetwork, films: list[Path], *, count: int) -> float:
    """Return how many native films a second are prepared and predicted side by side."""
    several, preparation = [*islice(cycle(films), count)], Preparation(size=opened.size)
    started = time.perf_counter()
    for block in stream_films(several, preparation=preparation):
        run(opened, block.pixels)
    return count / (time.perf_counter() - started)


def load() -> str:
    """Return the machine's load over the last minute, "" where it is not known."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


if __name__ == "__main__":
    main()
