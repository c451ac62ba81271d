"""A trained network with all that its weights are meaningless without, and its folder on disk.

Letters in shapes: k findings.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lucency.core.manifest import Preparation
from lucency.evaluation.calibration import Recalibration
from lucency.models.metadata import Metadata, read_metadata, write_metadata
from lucency.models.networks import FilmNetwork, build, parameters_of

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A trained network; `lucency.models.metadata.Metadata` says what the other fields are."""

    network: FilmNetwork
    name: str
    architecture: str
    findings: tuple[str, ...]
    preparation: Preparation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    protocol: dict[str, Any]
    provenance: str
    split: str
    device: str
    epoch: int
    recalibration: Recalibration
    threshold: Float64[np.ndarray, " k"]

    def __repr__(self) -> str:
        return f"<Classifier {self.name} ({self.architecture}): {len(self.findings)} findings>"


SHARED = tuple(field.name for field in fields(Classifier) if field.name != "network")


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights.safetensors and classifier.json into `folder`."""
    network = classifier.network
    save_weights(network.body, folder / WEIGHTS)
    metadata = Metadata(
        **{name: getattr(classifier, name) for name in SHARED},
        size=network.size,
        colour=network.colour,
        head=network.head,
        parameters=parameters_of(network),
    )
    write_metadata(metadata, folder)


def save_weights(body: nn.Module, file: Path) -> None:
    """Write the weights of `body` as a CPU's, so that every device can read them."""
    state = body.state_dict()
    save_file({key: value.contiguous().cpu() for key, value in state.items()}, file)


def load_classifier(folder: str | Path) -> Classifier:
    """Read what `save_classifier` wrote, strictly, ready to predict."""
    folder = Path(folder)
    metadata = read_metadata(folder)
    network = build(
        metadata.architecture,
        findings=len(metadata.findings),
        size=metadata.size,
        mean_std=(metadata.mean, metadata.std),
        colour=metadata.colour,
        head=metadata.head,
    )
    try:
        network.body.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} does not hold the weights of {metadata.architecture} "
            f"({str(error).splitlines()[0]}): expected the file that training wrote; train anew"
        ) from error
    shared = {name: getattr(metadata, name) for name in SHARED}
    return Classifier(network=network.eval(), **shared)
