"""Does it cost anything to put features onto the disk, resumably, while a network predicts?

Usage: python benchmarks/extract.py
Invented films through MobileNetV2 at 224 px: logits and features in memory (`predict`), and the
same onto the disk (`extract`), in turns. Prints and saves films a second and their ratio.
"""

from __future__ import annotations

import datetime
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.core.plan import originals
from lucency.evaluation.calibration import no_recalibration
from lucency.models.classifier import Classifier
from lucency.models.features import extract
from lucency.models.inference import predict
from lucency.models.networks import build

ROOT = Path(__file__).resolve().parents[1]
FILMS, SIZE, ROUNDS = 320, 224, 3
FINDINGS = ("Mass", "Nodule")


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    prepared, plan = _films(), originals(np.zeros((FILMS, len(FINDINGS)), dtype=np.float32))
    classifier, rows = _classifier(), []
    predict(classifier, prepared=prepared, plan=plan.take(np.arange(32)))
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as place:
            started = time.perf_counter()
            predict(classifier, prepared=prepared, plan=plan)
            between = time.perf_counter()
            given = {"plan": plan, "folder": Path(place), "progress": lambda *_: None}
            extract(classifier, prepared=prepared, **given)
            ended = time.perf_counter()
        rows.append((FILMS / (between - started), FILMS / (ended - between)))
    table = (
        pd.DataFrame(rows, columns=["in memory", "onto the disk"]).median().round(1).to_frame().T
    )
    table["ratio"] = (table["onto the disk"] / table["in memory"]).round(3)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"extract-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _classifier() -> Classifier:
    network = build("mobilenetv2", findings=len(FINDINGS))
    return Classifier(
        network=network.eval(), name="mobilenetv2", architecture="mobilenetv2",
        findings=FINDINGS,
        preparation=Preparation(size=SIZE), mean=(0.5,) * 3, std=(0.5,) * 3, protocol={},
        provenance="none", split="none", device="cpu", epoch=0,
        recalibration=no_recalibration(len(FINDINGS)), threshold=np.full(len(FINDINGS), 0.5),
    )  # fmt: skip


def _films() -> Prepared:
    random = np.random.default_rng(0)
    manifest = Manifest(
        findings=FINDINGS, image=np.array([f"{film}.png" for film in range(FILMS)]),
        patient=np.arange(FILMS), label=np.zeros((FILMS, len(FINDINGS)), dtype=np.float32),
        facts=pd.DataFrame(index=range(FILMS)), boxes=empty_boxes(), origin="invented",
    )  # fmt: skip
    return Prepared(
        manifest=manifest, preparation=Preparation(size=SIZE),
        pixels=random.integers(0, 256, (FILMS, SIZE, SIZE), dtype=np.uint8),
        rejected=pd.DataFrame({"image": [], "reason": []}),
    )  # fmt: skip


if __name__ == "__main__":
    main()
