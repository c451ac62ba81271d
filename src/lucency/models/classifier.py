"""A trained network with its findings, preparation, recalibration and thresholds; its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lucency.core.files import why_no_file, write_whole
from lucency.core.manifest import counted
from lucency.core.memory import says_out_of_memory
from lucency.core.saved_files import (
    fingerprint_content,
    fingerprint_file,
    naming_damage,
    why_damaged,
)
from lucency.models.metadata import (
    WEIGHTS,
    Metadata,
    TrainedNetwork,
    how_to_replace,
    read_metadata,
    write_metadata,
)
from lucency.models.networks import FilmNetwork, build

LOWER = "lower training.learning_rate or set training.clip_norm = 1, into another folder (--out)"


class DivergedError(ValueError):
    """A training whose loss or weights are no longer finite."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier(TrainedNetwork):
    """A trained network and what is known of it."""

    network: FilmNetwork

    def __repr__(self) -> str:
        findings = counted(len(self.findings), "finding")
        return f"<Classifier {self.name} ({self.architecture}): {findings}>"


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights.safetensors and classifier.json into `folder`.

    Raises DivergedError for weights that are no numbers.
    """
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
    """Write the weights of `body` as a CPU's, so that every device can read them.

    Raises DivergedError for weights that are no numbers.
    """
    state = body.state_dict()
    if unfit := _no_numbers(state):
        raise DivergedError(f"{file.parent.name}: {unfit} holds NaN or infinity: {LOWER}")
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
    about = {"of": metadata.architecture, "known": metadata.weights}
    load_weights(network.body, folder / WEIGHTS, **about)
    known = {field.name: getattr(metadata, field.name) for field in fields(TrainedNetwork)}
    return Classifier(network=network.eval(), **known)


def load_weights(body: nn.Module, file: Path, *, of: str, known: str = "") -> None:
    """Set the weights of `body`, built as `of`, to those of a file, strictly.

    `known` is the fingerprint of the file, "" where there is none.
    Raises ValueError for weights that are absent, damaged, of another network, or no numbers, by
    name.
    """
    again = how_to_replace(file.parent)
    if not file.is_file():
        raise ValueError(f"{file}: {why_no_file(file)}: {again}")
    with naming_damage(file, remedy=again):
        content = file.read_bytes()
    whole = known == fingerprint_content(content)
    try:
        state = load(content)
        body.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError) as error:
        if says_out_of_memory(error):
            raise
        raise ValueError(
            f"{file} does not hold the weights of {of} ({why_damaged(error)}): {again}"
        ) from error
    if unfit := _no_numbers(state):
        remedy = f"its training diverged: {LOWER}" if whole else again
        raise ValueError(f"{file}: {unfit} holds NaN or infinity: {remedy}")
    if known and not whole:
        raise ValueError(f"{file} is damaged, or of another network: {again}")


def _no_numbers(state: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor that holds NaN or infinity, "" where there is none."""
    return next((name for name, one in state.items() if not one.isfinite().all()), "")
