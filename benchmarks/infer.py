"""How many films a second does a network predict on a CPU: PyTorch, ONNX Runtime and OpenVINO?

The three take turns on the same batches of one process, so that what else the machine does falls
on all; a rate is the median over rounds, a ratio the median of the rounds' ratios. Then, on ONNX
Runtime: one film from the prompt (a process of `lucency predict` on the network's folder), and a
folder of native films, predicted as that command does (decoded, prepared, looked at for what is odd
about them, beside the network), against preparation and the network alone. With --run one row more
holds one film from the prompt by that run or exported folder.
Where both stages can use all cores, they share them: `shared` is 1 / (1 / a + 1 / b) of their own
rates, which no overlap can exceed on cores that are never idle.
Results go to benchmarks/results/.
Run: python benchmarks/infer.py [--films FOLDER] [--quick]
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
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lucency.core.manifest import Preparation
from lucency.core.parallel import keep_freed_memory, share_cores, usable_cores
from lucency.data.film_stream import stream_films
from lucency.models.onnx_runtime import BATCH, OnnxNetwork, open_onnx, run

if TYPE_CHECKING:
    from lucency.models.classifier import Classifier
    from lucency.pipeline.film_predictors import FilmPredictor

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NETWORKS = ("densenet121", "mobilenetv2", "inceptionresnetv2", "alexnet")
TARGETS = {"densenet121": 1.4, "mobilenetv2": 2.0, "inceptionresnetv2": 1.3}
PYTORCH, ONNX, OPENVINO = "pytorch", "onnxruntime", "openvino"
FINDINGS = 14
HEADER: tuple[str, ...] = (
    "network", "size", "batch", "rounds", PYTORCH, ONNX, OPENVINO, "ratio", "target",
    "one_film_seconds", "films", "prepare", "predict", "shared", "folder", "of_slower",
    "of_shared", "load",
)  # fmt: skip
Predict = Callable[[np.ndarray], object]


def main() -> None:
    """Measure every network and write one table."""
    choices = stated()
    share_cores()
    keep_freed_memory()
    films = sorted(choices.films.glob("*.png"))
    if not films:
        raise SystemExit(f"{choices.films} holds no PNG films: name a folder that does")
    rows = list[dict[str, object]]()
    with tempfile.TemporaryDirectory() as scratch:
        for name in choices.networks:
            rows.append(measure(name, films, choices, Path(scratch)))
        if choices.run:
            seconds = f"{one_film(choices.run, films[0]):.2f}"
            rows.append({"network": choices.run.name, "one_film_seconds": seconds, "load": load()})
    label = f"{platform.machine()}-{os.cpu_count()}cores-{datetime.date.today()}"
    file = RESULTS / f"infer{'-quick' * choices.quick}-{choices.size}px-{label}.csv"
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, HEADER)
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
    parser.add_argument("--run", type=Path, help="a run or export for one row more")
    parser.add_argument("--quick", action="store_true", help="a small network, few films")
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

    classifier, opened = made(name, choices, scratch)
    network, place = classifier.network, scratch / name
    laid_out(network)

    def with_torch(pixels: np.ndarray) -> None:
        with torch.inference_mode():
            network.embed(torch.from_numpy(pixels))

    ways: dict[str, Predict] = {PYTORCH: with_torch, ONNX: lambda pixels: run(opened, pixels)}
    if importlib.util.find_spec("openvino"):
        ways[OPENVINO] = with_openvino(place / "model.onnx", size=choices.size)
    rate = rates(ways, size=choices.size, rounds=choices.rounds)
    row: dict[str, object] = {"network": name, "size": choices.size, "batch": BATCH}
    row |= {"rounds": choices.rounds, "target": TARGETS.get(name, "")}
    row |= {way: f"{np.median(rate[way]):.1f}" if way in rate else "" for way in (*ways, OPENVINO)}
    row["ratio"] = f"{np.median(rate[ONNX] / rate[PYTORCH]):.2f}"
    row["one_film_seconds"] = f"{one_film(place, films[0]):.2f}"
    row |= folder(around(classifier, opened), opened, repeated(films, choices.count, place))
    row["load"] = load()
    print(", ".join(f"{key} {row[key]}" for key in HEADER if row[key] != ""), flush=True)
    return row


def made(name: str, choices: argparse.Namespace, scratch: Path) -> tuple[Classifier, OnnxNetwork]:
    """Return a network that nothing was trained of, in a folder of its name, and its ONNX file."""
    from lucency.evaluation.calibration import no_recalibration
    from lucency.models.classifier import Classifier, save_classifier
    from lucency.models.networks import build
    from lucency.models.onnx_export import write_onnx

    network, place = build(name, findings=FINDINGS).eval(), scratch / name
    classifier = Classifier(
        name=name,
        architecture=name,
        findings=tuple(f"finding {number}" for number in range(FINDINGS)),
        preparation=Preparation(size=choices.size),
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        provenance="random",
        split="",
        device="",
        epoch=0,
        recalibration=no_recalibration(FINDINGS),
        threshold=np.full(FINDINGS, 0.5),
        protocol={},
        network=network,
    )
    place.mkdir()
    save_classifier(classifier, place)
    write_onnx(network, place / "model.onnx", size=choices.size, metadata={})
    return classifier, open_onnx(place / "model.onnx")


def around(classifier: Classifier, opened: OnnxNetwork) -> FilmPredictor:
    """Return what `lucency predict` predicts films with, on an opened ONNX file."""
    from lucency.pipeline.film_predictors import NetworkOutput, OpenNetwork, of_classifier

    predictor = of_classifier(classifier)
    ready = OpenNetwork(lambda pixels: NetworkOutput(*run(opened, pixels)), opened)
    return replace(predictor, home=replace(predictor.home, opened={classifier.name: ready}))


def repeated(films: list[Path], count: int, place: Path) -> list[Path]:
    """Return so many files, which are films again and again under names of their own."""
    links = []
    for number, film in enumerate(islice(cycle(films), count)):
        links.append(place / f"{number}-{film.name}")
        links[-1].symlink_to(film.resolve())
    return links


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


def one_film(model: Path, film: Path) -> float:
    """Return the median seconds of `lucency predict MODEL FILM`, of three after a first."""
    command = [sys.executable, "-m", "lucency", "predict", str(model), str(film)]
    command += ["--engine", "onnx"]
    seconds = []
    for _ in range(1 + 3):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def folder(predictor: FilmPredictor, opened: OnnxNetwork, several: list[Path]) -> dict[str, object]:
    """Return the rates of preparing native films, of predicting them, and of the whole command."""
    count = len(several)
    started = time.perf_counter()
    stream = stream_films(several, preparation=predictor.preparation)
    blocks = [block.pixels for block in stream]
    prepare = count / (time.perf_counter() - started)
    started = time.perf_counter()
    for block in blocks:
        run(opened, block)
    predict = count / (time.perf_counter() - started)
    both = together(predictor, several)
    shared = 1 / (1 / prepare + 1 / predict)
    found = {"prepare": prepare, "predict": predict, "shared": shared, "folder": both}
    shares = {"of_slower": both / min(prepare, predict), "of_shared": both / shared}
    return {
        "films": count,
        **{key: f"{value:.1f}" for key, value in found.items()},
        **{key: f"{value:.2f}" for key, value in shares.items()},
    }


def together(predictor: FilmPredictor, several: list[Path]) -> float:
    """Return how many native films a second are predicted as `lucency predict` does."""
    from lucency.pipeline.film_inference import predict_files

    started = time.perf_counter()
    table, lost = predict_files(predictor, files=several)
    spent = time.perf_counter() - started
    if len(table) < len(several):
        raise SystemExit(f"{len(lost)} films cannot be read, the first: {lost.iloc[0].to_dict()}")
    return len(several) / spent


def load() -> str:
    """Return the machine's load over the last minute, "" where it is not known."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


if __name__ == "__main__":
    main()
