"""Snapshots: weights kept at the end of every cycle of the learning rate, in one training.

Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017. Letters in shapes: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from lucency.choices import Training
from lucency.learn.predict import Progress, predict
from lucency.learn.schedule import cycle_ends
from lucency.learn.zoo import FilmNetwork, load_classifier
from lucency.plan import Plan
from lucency.predictions import Predictions
from lucency.values import Prepared


def keep_snapshot(network: FilmNetwork, *, training: Training, epoch: int, folder: Path) -> None:
    """Write snapshot-N.safetensors when `epoch`, counted from 1, ends the N-th cycle."""
    ends = cycle_ends(training)
    if training.snapshots and epoch in ends:
        state = network.body.state_dict()
        file = folder / f"snapshot-{ends.index(epoch) + 1}.safetensors"
        save_file({key: value.contiguous().cpu() for key, value in state.items()}, file)


def predict_snapshots(
    folder: Path, *, prepared: Prepared, plan: Plan, progress: Progress
) -> list[Predictions]:
    """Return what every snapshot of a trained network says of the plan's entries.

    Nothing is calibrated, and no features are kept. Raises ValueError where there is no snapshot.
    """
    files = sorted(folder.glob("snapshot-*.safetensors"), key=_number)
    if not files:
        raise ValueError(f"{folder} holds no snapshot: expected training.snapshots of 2 or more")
    return list(_said(folder, files, prepared=prepared, plan=plan, progress=progress))


def _said(
    folder: Path, files: list[Path], *, prepared: Prepared, plan: Plan, progress: Progress
) -> Iterator[Predictions]:
    classifier = load_classifier(folder)
    for turn, file in enumerate(files):
        classifier.network.body.load_state_dict(load_file(file), strict=True)
        said = predict(
            classifier,
            prepared=prepared,
            plan=plan,
            progress=lambda at, total, note, turn=turn: progress(
                turn * total + at, len(files) * total, note
            ),
        )
        nothing = np.empty((len(said), 0), dtype=np.float32)
        name = f"{classifier.name} snapshot {_number(file)}"
        yield replace(said.uncalibrated(), network=name, feature=nothing)


def _number(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])
