"""Small films with a finding one can see: a bright disc on the left or on the right."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from lucency.config.protocol import Protocol, parse_protocol
from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.core.plan import Plan, originals
from lucency.core.progress import silent as quiet

if TYPE_CHECKING:
    from lucency.models.classifier import Classifier

FINDINGS = ("Left", "Right")


def toy_films(count: int = 48, *, size: int = 32, seed: int = 0) -> Prepared:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, (count, 2)).astype(np.float32)
    pixels = generator.normal(90, 20, (count, size, size)).clip(0, 255).astype(np.uint8)
    for film, truth in zip(pixels, label, strict=True):
        for side in np.flatnonzero(truth):
            centre = (size // 4 + int(side) * size // 2, size // 2)
            cv2.circle(film, centre, size // 8, 230, -1)
    manifest = Manifest(
        findings=FINDINGS,
        image=np.array([f"{film:03d}.png" for film in range(count)]),
        patient=np.arange(count) // 2,
        label=label,
        facts=pd.DataFrame({"path": [""] * count}),
        boxes=empty_boxes(),
        origin="toys",
    )
    nothing = pd.DataFrame({"image": [], "reason": []})
    preparation = Preparation(size=size)
    return Prepared(manifest=manifest, preparation=preparation, pixels=pixels, rejected=nothing)


def manifest_of(paths: list[Path]) -> Manifest:
    """Return films at these paths, a patient each, without their finding."""
    return Manifest(
        findings=("Mass",),
        image=np.array([path.name for path in paths]),
        patient=np.arange(len(paths)),
        label=np.zeros((len(paths), 1), np.float32),
        facts=pd.DataFrame({"path": [str(path) for path in paths]}),
        boxes=empty_boxes(),
        origin="films",
    )


def toy_plan(prepared: Prepared) -> Plan:
    """Three quarters train, the rest validate and test."""
    count = len(prepared.manifest)
    part = np.full(count, "train", dtype="<U5")
    part[3::8], part[7::8] = "val", "test"
    return replace(originals(prepared.manifest.label), part=part)


def toy_protocol(network: str = "test_convnext", **training: object) -> Protocol:
    """A protocol for the toys: two epochs of batches of eight."""
    choices = {"epochs": 2, "batch": 8, "learning_rate": 1e-3, "precision": "float32", **training}
    return parse_protocol(
        {
            "name": "toy",
            "findings": FINDINGS,
            "data": {"source": "csv", "root": ".", "labels": "toys.csv"},
            "preparation": {"size": 32},
            "training": choices,
            "network": [{"name": network}],
        },
        name="toy",
    )


def learn(out: Path, protocol: Protocol, progress: Callable[..., None] = quiet) -> "Classifier":
    """Return the classifier that a protocol's first network becomes on the toys, kept in `out`."""
    from lucency.models.classifier import load_classifier
    from lucency.models.training import train

    films = toy_films()
    folder = train(
        films,
        plan=toy_plan(films),
        protocol=protocol,
        choice=protocol.network[0],
        upstream={"split": "toys"},
        out=out,
        progress=progress,
    )
    return load_classifier(folder)


class KilledError(Exception):
    """A process that ends here."""


def silent(done: int, total: int, note: str = "") -> None:
    assert 0 < done <= total


def dies_beyond(films: int) -> Callable[..., None]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done > films:
            raise KilledError

    return progress
