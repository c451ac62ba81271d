"""Networks by name, all with one contract: grey films in, logits out; which layers are frozen.

A network takes grey films (uint8, b h w) and gives logits (b k); `embed` gives pooled features
too. NETWORKS holds the names of the house: AlexNet twice, with timm's contract, and networks of
timm, some under a stated head. Every other name of timm will do as well, `hf-hub:OWNER/NAME` and
`local-dir:FOLDER` among them. What comes before the head is a network's body; a stated head
(transition, dense and last layers) is no part of it.
Letters in shapes: b films, k findings, d feature dimensions, h and w pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, get_args

import cv2
import numpy as np
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from lucency.config.sections import PLACES_OF_NETWORKS, Colour, Head, Network
from lucency.core.manifest import nearest
from lucency.core.progress import say
from lucency.models import heads
from lucency.models.foundation import FOUNDATIONS

OWN = Head()
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
UNSCALED = ((0.0,) * 3, (1.0,) * 3)  # mean and deviation of red, green, blue
OF_SIZE = re.compile(  # what torch and timm write of pictures of a size that layers cannot take
    "[Oo]utput size is too small|[Kk]ernel size can't be greater|non-zero size|divisible by patch"
)
GREYS = np.arange(256, dtype=np.uint8)
GREEN_FIRE_BLUE = ((0, 0, 0), (0, 85, 170), (0, 255, 0), (255, 255, 0), (255, 255, 255))
IMAGENET: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "classifier": "classifier.6",
}


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
        return self.body.forward_head(self.features(self.pictures(films)))

    def embed(
        self, films: UInt8[Tensor, "b h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Return pooled features and logits of `films` from one pass."""
        maps = self.features(self.pictures(films))
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
        shape = (self.size, self.size)
        if self.size and shown.shape[2:] != shape:
            shown = functional.interpolate(shown, shape, mode="bilinear", antialias=True)
        return (shown - self.mean) / self.std

    def features(self, pictures: Float[Tensor, "b 3 side side"]) -> Tensor:
        """Return the last features of pictures, maps or tokens, which the head pools."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_body):
            feature = heads.trunk_features(self.body, pictures)
        headed = isinstance(self.body, heads.HeadedNetwork)
        return self.body.carry_on(feature) if headed else feature

    def _still(self) -> Iterator[nn.Module]:
        """Yield the batch norms that a training must leave as they are."""
        body = heads.trunk_of(self.body)
        still = (body if body is not self.body else self).modules() if self.frozen_body else ()
        yield from (one for one in (*still, *self.frozen) if isinstance(one, BATCH_NORMS))


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

    `mean_std` of None takes the scaling (of grey from 0 to 1) that the body's published weights
    were trained with. A body of one input size, such as a vision transformer, gets films of that
    size where `size` is 0, and position embeddings for any other. Raises ValueError for a `size`
    that the body cannot take.
    """
    body: Any = build_body(name, findings=findings, dropout=dropout, head=head)
    mean, std = mean_std or (tuple(body.pretrained_cfg[key]) for key in ("mean", "std"))
    side = _fit_side(heads.trunk_of(body), name=name, size=size)
    return FilmNetwork(body, mean=mean, std=std, size=side, colour=colour, head=head)


def build_chosen(
    choice: Network,
    *,
    findings: int,
    dropout: float = 0.0,
    mean_std: tuple[tuple[float, ...], ...] | None = None,
) -> FilmNetwork:
    """Return a protocol's network, randomly initialised, with scaling and size for its weights.

    Those of FOUNDATIONS, where `match` names one of its layouts, as far as nothing else is stated;
    a line names a size that the protocol does not state.
    """
    if published := FOUNDATIONS.get(choice.match):
        mean_std = mean_std or (published.mean, published.std)
    network = build(
        choice.built,
        findings=findings,
        dropout=dropout,
        size=_size_of(choice),
        mean_std=mean_std,
        colour=choice.colour,
        head=choice.head,
    )
    if network.size != choice.size:
        say(f"{choice.name} sees films at its own size: {network.size} x {network.size} pixels")
    return network


def _size_of(choice: Network) -> int:
    """Return the size at which a network sees films, 0 for that of its body or of the films."""
    published = FOUNDATIONS.get(choice.match)
    return choice.size or (published.size if published else 0)


def build_body(
    name: str, *, findings: int = 1, dropout: float = 0.0, head: Head = OWN
) -> nn.Module:
    """Return a randomly initialised network that takes scaled pictures, without the films' part."""
    return _builder(name, head)(num_classes=findings, drop_rate=dropout)


def check_name(name: str, *, head: Head = OWN) -> None:
    """Raise ValueError, with the nearest name, unless the zoo can build `name` with this head."""
    build_plain = _builder(name, OWN if name.startswith(PLACES_OF_NETWORKS) else head)
    if name.startswith(PLACES_OF_NETWORKS):
        with torch.device("meta"):
            build_plain(num_classes=1, drop_rate=0.0)
    if head != OWN:
        heads.layout_of_maps(TIMM_NAMES.get(name, name), head)


def check_size(choice: Network, *, side: int) -> None:
    """Raise ValueError where a protocol's network cannot take films of so many pixels a side.

    Found without computing, on torch's meta device; what that cannot do is left to training.
    """
    with torch.device("meta"):
        films = torch.empty((1, side, side), dtype=torch.uint8)
        try:
            about = {"size": _size_of(choice), "colour": choice.colour, "head": choice.head}
            build(choice.built, findings=1, mean_std=UNSCALED, **about).eval()(films)
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            if OF_SIZE.search(str(error)):
                shown, why = choice.size or side, str(error).rstrip(".")
                raise ValueError(
                    f"network {choice.name!r} cannot take films of {shown} x {shown} pixels "
                    f"({why}): expected a larger preparation.size, or another size of the network"
                ) from error


def freeze(network: FilmNetwork, *, name: str, frozen: float | str) -> None:
    """Freeze layers of the network `name` for good: they get no gradient, their norms no batch.

    A share counts layers that hold parameters, in the order in which the network lists them,
    rounded to whole layers, to one at least; a name freezes that layer with all inside it and
    before it. Batch norms among them stay in evaluation mode. Raises ValueError for an unknown
    name.
    """
    if not frozen:
        return
    network.frozen = _frozen_layers(network.body, name=name, frozen=frozen)
    for layer in network.frozen:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
    network.train(network.training)


def check_frozen(name: str, *, head: Head, frozen: float | str) -> None:
    """Raise ValueError, with the nearest name, unless the network has the layer `frozen`."""
    if frozen:
        with torch.device("meta"):
            body = build_body(name, head=head)
        _frozen_layers(body, name=name, frozen=frozen)


def colour_table(name: str) -> UInt8[np.ndarray, "256 3"]:
    """Return red, green and blue of every grey: those of OpenCV's `applyColorMap`, or ImageJ's.

    "none" is grey itself. ImageJ's Green Fire Blue is drawn here from its five colours, which lie
    evenly apart and are joined by straight lines. Raises ValueError for an unknown name.
    """
    if name == "none":
        return np.repeat(GREYS[:, None], 3, axis=1)
    if name == "green-fire-blue":
        at, colours = np.linspace(0, 255, len(GREEN_FIRE_BLUE)), np.array(GREEN_FIRE_BLUE).T
        lines = [np.interp(GREYS, at, line).round() for line in colours]
        return np.stack(lines, axis=1).astype(np.uint8)
    if name not in OPENCV:
        known = ("none", "green-fire-blue", *OPENCV)
        raise ValueError(
            f"colour {name!r} is unknown: expected {', '.join(known)}{nearest(name, known)}"
        )
    blue_first = cv2.applyColorMap(GREYS[:, None], OPENCV[name])[:, 0]
    return np.ascontiguousarray(blue_first[:, ::-1])


class AlexNet(models.AlexNet):
    """torchvision's AlexNet ("One weird trick", Krizhevsky 2014) with a head for our findings.

    Its parameters keep torchvision's names, so published weights load strictly.
    """

    num_features = 4096
    pretrained_cfg = IMAGENET

    def __init__(self, *, num_classes: int, drop_rate: float) -> None:
        super().__init__(num_classes=num_classes, dropout=drop_rate)

    def forward_features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 256 y x"]:
        """Return the last convolution's maps."""
        return self.features(pictures)

    def forward_head(
        self, maps: Float[Tensor, "b 256 y x"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """Return logits, or the 4,096 features before them."""
        feature = self.classifier[:-1](torch.flatten(self.avgpool(maps), 1))
        return feature if pre_logits else self.classifier[-1](feature)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.classifier[-1]


class AlexNetReference(nn.Module):
    """The reference study's AlexNet: batch norm after every layer, dense 4096–4096–1000, dropout.

    Layer sizes are inferred: this is the arrangement that has the 50,901,295 parameters which the
    study's notebook prints (15 outputs, running statistics counted, at 224 × 224).
    """

    num_features = 1000
    pretrained_cfg: ClassVar = {**IMAGENET, "classifier": "classifier"}

    def __init__(self, *, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 96, size=11, stride=4, padding=0),
            nn.MaxPool2d(3, 2),
            *_convolution(96, 256, size=5, stride=1, padding=2),
            nn.MaxPool2d(3, 2),
            *_convolution(256, 384, size=3, stride=1, padding=1),
            *_convolution(384, 384, size=3, stride=1, padding=1),
            *_convolution(384, 256, size=3, stride=1, padding=1),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(5)
        self.dense = nn.Sequential(
            *_dense(256 * 5 * 5, 4096, drop_rate),
            *_dense(4096, 4096, drop_rate),
            *_dense(4096, 1000, drop_rate),
        )
        self.classifier = nn.Linear(1000, num_classes)

    def forward_features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 256 y x"]:
        """Return the last pooled maps."""
        return self.features(pictures)

    def forward_head(
        self, maps: Float[Tensor, "b 256 y x"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """Return logits, or the 1,000 features before them."""
        feature = self.dense(torch.flatten(self.avgpool(maps), 1))
        return feature if pre_logits else self.classifier(feature)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.classifier


def _frozen_layers(body: nn.Module, *, name: str, frozen: float | str) -> tuple[nn.Module, ...]:
    """Return the frozen layers and what holds them, of a network with or without a stated head."""
    headed = isinstance(body, heads.HeadedNetwork)
    behind = () if headed else heads.layout_of(partial(build_body, name)).behind
    listed = {
        layer: module
        for layer, module in heads.trunk_of(body).named_modules()
        if layer.partition(".")[0] not in behind
    }
    modules = tuple(listed.values())
    if isinstance(frozen, str):
        inside = [at for at, layer in enumerate(listed) if f"{layer}.".startswith(f"{frozen}.")]
        if not inside:
            parts = ", ".join(layer for layer in listed if layer and "." not in layer)
            raise ValueError(
                f"training.frozen: {name} has no layer {frozen!r} before its head: expected a "
                f"share from 0 to 1, or one of {parts} or of the layers inside them"
                f"{nearest(frozen, listed)}"
            )
        return modules[: inside[-1] + 1]
    held = [at for at, one in enumerate(modules) if [*one.parameters(recurse=False)]]
    count = max(1, round(frozen * len(held)))
    return modules if count == len(held) else modules[: held[count - 1] + 1]


def _fit_side(trunk: nn.Module, *, name: str, size: int) -> int:
    """Return the side of the pictures that a body is given, having fitted it to them; 0 is any."""
    body: Any = trunk
    patches: Any = getattr(body, "patch_embed", None)
    about = body.pretrained_cfg
    if not hasattr(patches, "strict_img_size"):
        return size or (about["input_size"][-1] if about.get("fixed_input_size", False) else 0)
    own = patches.img_size[0] if patches.strict_img_size else 0
    if size in (0, own):
        return own
    patch = patches.patch_size[0]
    if size % patch and not patches.dynamic_img_pad:
        raise ValueError(
            f"size is {size}: {name} cuts pictures into patches of {patch} pixels: expected a "
            f"multiple, such as {size // patch * patch or patch}"
        )
    if own and not hasattr(body, "set_input_size"):
        raise ValueError(f"size is {size}: {name} takes pictures of {own} pixels: set size = 0")
    if own:
        body.set_input_size(img_size=(size, size))
    return size


def _convolution(
    inputs: int, outputs: int, *, size: int, stride: int, padding: int
) -> tuple[nn.Module, ...]:
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding)
    return layer, nn.BatchNorm2d(outputs), nn.ReLU()


def _dense(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout)


def _eva_x(size: str, **options: Any) -> nn.Module:
    """Return timm's EVA-02 with EVA-X's patches of 16 pixels and its scaling.

    As `eva_x.py` of github.com/hustvl/EVA-X builds it.
    """
    body: Any = timm.create_model(
        f"eva02_{size}_patch14_224", patch_size=16, ref_feat_shape=(14, 14), **options
    )
    published = FOUNDATIONS["eva-x"]
    about = {"architecture": f"eva-x-{size}", "mean": published.mean, "std": published.std}
    body.pretrained_cfg = {**body.pretrained_cfg, **about}
    return body


def _from_its_place(name: str, **options: Any) -> nn.Module:
    """Return the network of a folder or of the hub; ValueError where its configuration fails."""
    try:
        return timm.create_model(name, **options)
    except (HfHubHTTPError, OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        local = name.startswith("local-dir:")
        remedy = "name the folder that holds it" if local else "connect, or name a local-dir:FOLDER"
        raise ValueError(
            f"network {name!r} cannot be built ({type(error).__name__}): expected timm's "
            f"config.json, which names the architecture; {remedy}"
        ) from error


def _builder(name: str, head: Head) -> Callable[..., nn.Module]:
    if name.startswith(PLACES_OF_NETWORKS):
        plain = partial(_from_its_place, name)
        return plain if head == OWN else partial(heads.headed, name, head)
    if name not in NETWORKS and name not in timm.list_models():
        hint = nearest(name, [*NETWORKS, *timm.list_models()])
        raise ValueError(
            f"network {name!r} is unknown: expected {', '.join(NETWORKS)} or a timm name{hint}"
        )
    if head == OWN:
        return NETWORKS[name] if name in NETWORKS else partial(timm.create_model, name)
    if name in NETWORKS and name not in TIMM_NAMES:
        raise ValueError(f"{name} keeps the head that it was published with: leave `head` out")
    return partial(heads.headed, TIMM_NAMES.get(name, name), head)


OPENCV = {
    name: getattr(cv2, f"COLORMAP_{name.replace('-', '_').upper()}")
    for name in get_args(Colour)
    if name not in ("none", "green-fire-blue")
}
TIMM_NAMES = {
    "densenet121": "densenet121",
    "inceptionresnetv2": "inception_resnet_v2",
    "mobilenetv2": "mobilenetv2_100",
}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet-reference": AlexNetReference,
    **{name: partial(timm.create_model, published) for name, published in TIMM_NAMES.items()},
    **{f"eva-x-{size}": partial(_eva_x, size) for size in ("tiny", "small", "base")},
    **{
        f"resnet50-{name}": partial(heads.headed, "resnet50", head)
        for name, head in heads.HEADS.items()
    },
}
