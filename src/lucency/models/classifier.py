"""A trained network with its findings, preparation, recalibration and thresholds; its folder."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from lucency.core.files import write_whole
from lucency.core.manifest import counted
from lucency.core.saved_files import why_damaged
from lucency.core.stage import fingerprint_file
from lucency.models.metadata import (
    WEIGHTS,
    Metadata,
    TrainedNetwork,
    read_metadata,
    write_metadata,
)
from lucency.models.networks import FilmNetwork, build

AS_TRAINED = "expected the file that training wrote; train anew"


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier(TrainedNetwork):
    """A trained network and what is known of it."""

    network: FilmNetwork

    def __repr__(self) -> str:
        findings = counted(len(self.findings), "finding")
        return f"<Classifier {self.name} ({self.architecture}): {findings}>"


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights.safetensors and classifier.json into `folder`."""
    network = classifier.network
    save_weights(network.body, folder / WEIGHTS)
    metadata = Metadata(
        **{field.name: getattr(classifier, field.name) for field in fields(TrainedNetwork)},
        size=network.size,
        colour=network.colour,
        head=network.head,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights=fingerprint_file(folder / WEIGHTS),
    )
    write_metadata(metadata, folder)


def save_weights(body: nn.Module, file: Path) -> None:
    """Write the weights of `body` as a CPU's, so that every device can read them."""
    state = body.state_dict()
    write_whole(file, save({key: value.contiguous().cpu() for key, value in state.items()}))


def load_classifier(folder: str | Path) -> Classifier:
    """Read what `save_classifier` wrote, strictly, ready to predict.

    Raises ValueError for weights that are damaged, of another network, or no numbers, by name.
    """
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
    _load_weights(network.body, folder / WEIGHTS, metadata)
    known = {field.name: getattr(metadata, field.name) for field in fields(TrainedNetwork)}
    return Classifier(network=network.eval(), **known)


def _load_weights(body: nn.Module, file: Path, metadata: Metadata) -> None:
    try:
        state = load_file(file)
        body.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{file} does not hold the weights of {metadata.architecture} "
            f"({why_damaged(error)}): {AS_TRAINED}"
        ) from error
    if unfit := [name for name, one in state.items() if not one.isfinite().all()]:
        raise ValueError(f"{file}: {unfit[0]} holds NaN or infinity: {AS_TRAINED}")
    if metadata.weights not in ("", fingerprint_file(file)):
        raise ValueError(f"{file} is damaged, or of another network: {AS_TRAINED}")
