"""The zoo: networks by name, all with one contract, and the Classifier that is saved and loaded.

A network takes grey films (uint8, b h w) and gives logits (b k); `embed` gives pooled features
too. Any name of timm will do beside those of NETWORKS.
Letters in shapes: b films, k findings, d feature dimensions, h and w pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from jaxtyping import Float, Float64, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from lucency.choices import Head
from lucency.judge.recalibrate import Recalibration
from lucency.learn.alexnet import AlexNet, AlexNetReference
from lucency.learn.colour import colour_table
from lucency.learn.features import Body
from lucency.learn.heads import HEADS, HeadedNetwork, headed, layout_of_maps, trunk_of
from lucency.predictions import no_knots
from lucency.values import Preparation, nearest

OWN = Head()


class FilmNetwork(nn.Module):
    """A body of the zoo behind the film's own scaling: grey in three channels, standardised.

    `size` is the side in pixels that the body sees; 0 leaves the films as they come. `colour`
    names the table that makes colours of grey; "none" repeats it thrice. `head` is the stated one.
    """

    body: Any  # an nn.Module with timm's forward_features and forward_head
    mean: Tensor
    std: Tensor
    table: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: int,
        colour: str = "none",
        head: Head = OWN,
    ) -> None:
        super().__init__()
        self.body, self.size, self.colour, self.head = body, size, colour, head
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)
        self.register_buffer("table", torch.from_numpy(colour_table(colour)), persistent=False)
        self.frozen_body = False
        self.frozen: tuple[nn.Module, ...] = ()

    def forward(self, films: UInt8[Tensor, "b h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of `films`."""
        return self.body.forward_head(self._maps(films))

    def embed(
        self, films: UInt8[Tensor, "b h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Return pooled features and logits of `films` from one pass."""
        maps = self._maps(films)
        return self.body.forward_head(maps, pre_logits=True), self.body.forward_head(maps)

    def train(self, mode: bool = True) -> FilmNetwork:
        """Set training mode; a frozen body, or its frozen layers, keep their batch statistics."""
        super().train(mode)
        for norm in self._still():
            norm.eval()
        return self

    def pictures(self, films: UInt8[Tensor, "b h w"]) -> Float[Tensor, "b 3 side side"]:
        """Return films as the body sees them: in three channels, resized, standardised."""
        if self.colour == "none":
            shown = films.unsqueeze(1).to(self.mean.dtype) / 255
        else:
            shown = self.table[films.long()].permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        if self.size:
            shape = (self.size, self.size)
            shown = functional.interpolate(shown, shape, mode="bilinear", antialias=True)
        return (shown - self.mean) / self.std

    def _still(self) -> Iterator[nn.Module]:
        """Yield the batch norms that a training must leave as they are."""
        body = trunk_of(self.body)
        still = (body if body is not self.body else self).modules() if self.frozen_body else ()
        yield from (one for one in (*still, *self.frozen) if isinstance(one, BATCH_NORMS))

    def _maps(self, films: UInt8[Tensor, "b h w"]) -> Tensor:
        picture = self.pictures(films)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_body):
            feature = cast(Body, trunk_of(self.body)).forward_features(picture)
        return self.body.carry_on(feature) if isinstance(self.body, HeadedNetwork) else feature


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A trained network and all that its weights are meaningless without.

    `name` is what a protocol calls it, `architecture` the name by which the zoo builds it.

    `protocol` is the whole experiment as plain data; `provenance` says what pre-trained weights
    have seen; `split` is the fingerprint of the parts it was trained under, `device`
    where; `epoch`, from 1, is the one whose weights these are. A film has a finding where the
    recalibrated probability reaches its `threshold`; both were fitted on validation films.
    """

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


def build(
    name: str,
    *,
    findings: int,
    dropout: float = 0.0,
    size: int = 0,
    mean_std: tuple[tuple[float, ...], ...] | None = None,
    colour: str = "none",
    head: Head = OWN,
) -> FilmNetwork:
    """Return a randomly initialised network with a head for `findings`.

    `mean_std` of None takes the scaling that the body's published weights were trained with.
    """
    body = build_body(name, findings=findings, dropout=dropout, head=head)
    mean, std = mean_std or published_scaling(body)
    return FilmNetwork(body, mean=mean, std=std, size=size, colour=colour, head=head)


def build_body(
    name: str, *, findings: int = 1, dropout: float = 0.0, head: Head = OWN
) -> nn.Module:
    """Return a randomly initialised network that takes scaled pictures, without the films' part."""
    return _builder(name, head)(num_classes=findings, drop_rate=dropout)


def published_scaling(body: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation (0..1 grey) that a body's weights expect."""
    about: Any = body.pretrained_cfg
    return tuple(about["mean"]), tuple(about["std"])


def check_name(name: str, *, head: Head = OWN) -> None:
    """Raise ValueError, with the nearest name, unless the zoo can build `name` with this head."""
    _builder(name, head)
    if head != OWN:
        layout_of_maps(TIMM_NAMES.get(name, name), head)


def parameters_of(network: FilmNetwork) -> int:
    """Return the number of weights of a network, frozen ones among them."""
    return sum(p.numel() for p in network.parameters())


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights.safetensors and classifier.json into `folder`."""
    state = classifier.network.body.state_dict()
    save_file({key: value.contiguous().cpu() for key, value in state.items()}, folder / WEIGHTS)
    line = classifier.recalibration
    about = {
        "name": classifier.name,
        "architecture": classifier.architecture,
        "findings": classifier.findings,
        "preparation": classifier.preparation.model_dump(),
        "size": classifier.network.size,
        "colour": classifier.network.colour,
        "head": classifier.network.head.model_dump(),
        "mean": classifier.mean,
        "std": classifier.std,
        "provenance": classifier.provenance,
        "split": classifier.split,
        "parameters": parameters_of(classifier.network),
        "device": classifier.device,
        "epoch": classifier.epoch,
        "recalibration": {
            "method": line.method,
            "slope": line.slope.tolist(),
            "offset": line.offset.tolist(),
            "knot": line.knot.tolist(),
            "note": line.note,
        },
        "threshold": classifier.threshold.tolist(),
        "protocol": classifier.protocol,
    }
    (folder / "classifier.json").write_text(json.dumps(about, indent=1))


def load_classifier(folder: Path) -> Classifier:
    """Read what `save_classifier` wrote, strictly, ready to predict."""
    if not (folder / "classifier.json").is_file():
        raise ValueError(f"{folder} holds no classifier.json: expected a trained network's folder")
    about = json.loads((folder / "classifier.json").read_text())
    scaling = (tuple(about["mean"]), tuple(about["std"]))
    architecture = about.get("architecture", about["name"])
    network = build(
        architecture,
        findings=len(about["findings"]),
        size=about["size"],
        mean_std=scaling,
        colour=about.get("colour", "none"),  # absent: of before colours and heads
        head=Head.model_validate(about.get("head", {})),
    )
    try:
        network.body.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} does not hold the weights of {architecture} "
            f"({str(error).splitlines()[0]}): expected the file that training wrote; train anew"
        ) from error
    return Classifier(
        network=network.eval(),
        name=about["name"],
        architecture=architecture,
        findings=tuple(about["findings"]),
        preparation=Preparation.model_validate(about["preparation"]),
        mean=scaling[0],
        std=scaling[1],
        protocol=about["protocol"],
        provenance=about["provenance"],
        split=about["split"],
        device=about["device"],
        epoch=about["epoch"],
        recalibration=_line(about["recalibration"]),
        threshold=np.array(about["threshold"], dtype=np.float64),
    )


def _line(about: dict[str, Any]) -> Recalibration:
    return Recalibration(
        method=about["method"],
        slope=np.array(about["slope"], dtype=np.float64),
        offset=np.array(about["offset"], dtype=np.float64),
        knot=np.array(about.get("knot") or no_knots(), dtype=np.float64),  # none: of before curves
        note=tuple(about["note"]),
    )


def _builder(name: str, head: Head) -> Callable[..., nn.Module]:
    if name not in NETWORKS and name not in timm.list_models():
        hint = nearest(name, [*NETWORKS, *timm.list_models()])
        raise ValueError(
            f"network {name!r} is unknown: expected {', '.join(NETWORKS)} or a timm name{hint}"
        )
    if head == OWN:
        return NETWORKS[name] if name in NETWORKS else _timm(name)
    if name in NETWORKS and name not in TIMM_NAMES:
        raise ValueError(f"{name} keeps the head that it was published with: leave `head` out")
    return partial(headed, TIMM_NAMES.get(name, name), head)


def _timm(name: str) -> Callable[..., nn.Module]:
    def build_body(*, num_classes: int, drop_rate: float) -> nn.Module:
        return timm.create_model(name, num_classes=num_classes, drop_rate=drop_rate)

    return build_body


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
WEIGHTS = "weights.safetensors"
TIMM_NAMES = {
    "densenet121": "densenet121",
    "inceptionresnetv2": "inception_resnet_v2",
    "mobilenetv2": "mobilenetv2_100",
}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet-reference": AlexNetReference,
    **{name: _timm(published) for name, published in TIMM_NAMES.items()},
    "resnet50-wang": partial(headed, "resnet50", HEADS["wang"]),
    "resnet50-wang-average": partial(headed, "resnet50", HEADS["wang-average"]),
    "resnet50-wang-max": partial(headed, "resnet50", HEADS["wang-max"]),
}
