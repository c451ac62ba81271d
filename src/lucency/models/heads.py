"""Heads: what follows a network's last maps, as a protocol states it; Wang's is one of them.

A body without its head, whole or cut short at a stage, then a 1 x 1 transition, pooling, hidden
layers and a linear one; each but pooling and the last may be absent. The head of Wang et al.
(CVPR 2017) is a transition, log-sum-exp pooling and the linear layer. Attention by class (CSRA,
ML-Decoder) leads from the maps to the logits at once, in place of all after the transition.
Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import timm
import torch
from jaxtyping import Float
from timm.layers.ml_decoder import MLDecoder
from torch import Tensor, nn
from torch.nn import functional

from lucency.config.sections import Head


@runtime_checkable
class Body(Protocol):
    """What a network must offer to be explained; every network of timm does."""

    def forward_features(self, pixels: Tensor, /) -> Tensor:
        """Return the last maps or tokens."""
        ...

    def forward_head(self, feature: Tensor, /, *, pre_logits: bool = False) -> Tensor:
        """Return logits, or what the last linear layer sees."""
        ...

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        ...


SHARPNESS = 10.0  # the best r of Wang et al.
MAXIMUM = 99.0  # the temperature that stands for the maximum in Zhu and Wu's tables
TEMPERATURES = {  # of their heads, by how many there are
    2: (1.0, MAXIMUM),
    4: (1.0, 2.0, 4.0, MAXIMUM),
    6: (1.0, 2.0, 3.0, 4.0, 5.0, MAXIMUM),
    8: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, MAXIMUM),
}
GRID = 3  # cells along each side of a chest
SIDE = 224  # pixels of a picture, where a network states no size of its own


class Layout(NamedTuple):
    """What a network's last features are like, and which of its parts are only used after them.

    `stage`, counted from 0, is the one that the network is cut short at; None where it is whole.
    """

    shape: tuple[int, ...]
    channels: int
    channels_last: bool
    behind: tuple[str, ...]
    stage: int | None = None


def lse_pool(
    maps: Float[Tensor, "b c gh gw"], *, sharpness: float = SHARPNESS
) -> Float[Tensor, "b c"]:
    """Return log-sum-exp pooling x* + ln(mean exp(r (x − x*))) / r of each map, r > 0.

    Wang et al. 2017, equation 3; the mean as r goes to 0, the maximum as r grows.
    """
    if not (sharpness > 0 and math.isfinite(sharpness)):
        raise ValueError(f"sharpness is {sharpness}: expected a number above 0, such as 10")
    peak = maps.detach().amax((2, 3), keepdim=True)
    mean = torch.exp(sharpness * (maps - peak)).mean((2, 3))
    return peak.flatten(1) + mean.log() / sharpness


def grid_pool(maps: Float[Tensor, "b c gh gw"]) -> Float[Tensor, "b d"]:
    """Return the means of each map in 3 x 3 cells, map by map, row by row: d = 9 c features.

    Cells are those of adaptive average pooling: they overlap where 3 does not divide the map.
    """
    return functional.adaptive_avg_pool2d(maps, GRID).flatten(1)


class ResidualAttention(nn.Module):
    """Class-specific residual attention: from maps to logits (Zhu and Wu, ICCV 2021, equation 8).

    A class scores every position by its weights, of length one as in the authors' code, without
    bias. Its logit is the mean score and `head.attention_weight` times the attended one: the mean
    under a softmax over positions of temperature x score, or the maximum at temperature 99. Heads
    of several temperatures (section 3.4) have weights of their own and are added up.
    """

    def __init__(self, channels: int, num_classes: int, *, head: Head) -> None:
        super().__init__()
        self.share = head.attention_weight
        self.temperatures = TEMPERATURES.get(head.attention_heads, (head.temperature,))
        drawn = torch.empty(len(self.temperatures), num_classes, channels)
        self.weight = nn.Parameter(nn.init.uniform_(drawn, -1, 1))

    def class_weights(self) -> Float[Tensor, "a k c"]:
        """Return the weights of each head and class, of length one."""
        return functional.normalize(self.weight, dim=2)

    def forward(self, maps: Float[Tensor, "b c gh gw"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        score = torch.einsum("akc,bcn->bakn", self.class_weights(), maps.flatten(2))
        attended = [
            one.amax(2) if heat == MAXIMUM else (one * torch.softmax(one * heat, 2)).sum(2)
            for one, heat in zip(score.unbind(1), self.temperatures, strict=True)
        ]
        return (score.mean(3) + self.share * torch.stack(attended, dim=1)).sum(1)


class HeadedNetwork(nn.Module):
    """A body without its head, then the stated one, with timm's contract.

    The transition has batch norm and ReLU, so that its maps are evidence above zero. Features
    before the last layer are those of the last hidden layer, or else the pooled maps; under
    attention by class the maps' means, which its logits do not see. `uncut` builds the whole
    network of a body that is cut short.
    """

    classifier: Any  # a linear layer, or the attention

    def __init__(
        self,
        body: nn.Module,
        *,
        head: Head,
        layout: Layout,
        uncut: Callable[[], nn.Module],
        num_classes: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        about: Any = body
        self.pretrained_cfg: dict[str, Any] = {**about.pretrained_cfg, "classifier": "classifier"}
        self.body, self.channels_last = body, layout.channels_last
        self.stage, self.uncut = layout.stage, uncut
        self.attends = head.pooling in ATTENTIONS
        self.pool = POOLINGS["average" if self.attends else head.pooling]
        self.map_channels = head.transition or layout.channels
        self.transition = nn.Sequential(*_transition(layout.channels, head.transition))
        self.dropout = nn.Dropout(drop_rate)
        pooled = self.pool(torch.zeros(1, self.map_channels, GRID, GRID)).shape[1]
        self.dense = nn.Sequential(*_dense(pooled, head))
        self.num_features = head.dense[-1] if head.dense else pooled
        last = partial(ATTENTIONS[head.pooling], head=head) if self.attends else nn.Linear
        self.classifier = last(self.num_features, num_classes)

    def forward_features(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _ gh gw"]:
        """Return the maps that are pooled."""
        return self.carry_on(self.trunk_features(pixels))

    def trunk_features(self, pixels: Float[Tensor, "b c h w"]) -> Tensor:
        """Return the body's last features, or those of the stage that it is cut short at."""
        return _features(self.body, pixels, self.stage)

    def carry_on(self, feature: Tensor) -> Float[Tensor, "b _ gh gw"]:
        """Return the maps that are pooled, from the body's last features."""
        return self.transition(feature.permute(0, 3, 1, 2) if self.channels_last else feature)

    def forward_head(
        self, maps: Float[Tensor, "b _ gh gw"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """Return logits, or what the last layer sees."""
        if self.attends and not pre_logits:
            return self.classifier(self.dropout(maps))
        feature = self.dense(self.dropout(self.pool(maps)))
        return feature if pre_logits else self.classifier(feature)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer, or the attention."""
        return self.classifier

    def whole(self) -> nn.Module:
        """Return the body that published weights fill: this one, or a new one that is not cut."""
        return self.body if self.stage is None else self.uncut()

    def take_from(self, whole: nn.Module) -> None:
        """Take what this body has of a whole one, tensor by tensor."""
        state = whole.state_dict()
        self.body.load_state_dict({key: state[key] for key in self.body.state_dict()})


def headed(name: str, head: Head, *, num_classes: int, drop_rate: float) -> HeadedNetwork:
    """Return the timm network `name` with a stated head, randomly initialised.

    Parts of the network that only its own head uses, or that come after a stated stage, are left
    out. Raises ValueError for a network whose last features are not maps.
    """
    layout = layout_of_maps(name, head)
    uncut = partial(timm.create_model, name, num_classes=0)
    body: Any = uncut()
    if layout.stage is not None:
        body.prune_intermediate_layers([layout.stage], prune_norm=True)
    left_out = (*head_names(body), *layout.behind)
    body.pretrained_cfg = {**body.pretrained_cfg, "classifier": left_out}
    for part in layout.behind:
        setattr(body, part, nn.Identity())
    return HeadedNetwork(
        body, head=head, layout=layout, uncut=uncut, num_classes=num_classes, drop_rate=drop_rate
    )


def head_names(body: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that a network's published weights hold for its own head."""
    about: Any = body.pretrained_cfg
    own = about["classifier"]
    return (own,) if isinstance(own, str) else tuple(own)


def layout_of_maps(name: str, head: Head) -> Layout:
    """Return the layout of the timm network `name`; ValueError where the head finds no maps."""
    if head.stage is not None:
        return _layout_of_stage(name, head.stage)
    layout = layout_of(partial(timm.create_model, name, num_classes=0))
    if len(layout.shape) != 4:
        shape = f"the shape {layout.shape}" if layout.shape else "several kinds"
        raise ValueError(
            f"{name}: its last features have {shape}, which are no maps that "
            f'head.pooling = "{head.pooling}" could pool: leave `head` out, or name a network of '
            "convolutions"
        )
    return layout


def trunk_of(body: nn.Module) -> nn.Module:
    """Return a network without a stated head: all of it, where it has its own."""
    return body.body if isinstance(body, HeadedNetwork) else body


def has_linear_classifier(body: nn.Module) -> bool:
    """Return whether logits are `get_classifier()`, a linear layer, applied to `pre_logits`.

    They are not under attention by class, nor in VOLO, which adds those of a second head.
    """
    last, second = cast(Body, body).get_classifier(), getattr(body, "aux_head", None)
    return isinstance(last, nn.Linear) and second is None


def trunk_features(body: nn.Module, pixels: Float[Tensor, "b c h w"]) -> Tensor:
    """Return the last features of a network before its head, stated or own."""
    headed = isinstance(body, HeadedNetwork)
    return body.trunk_features(pixels) if headed else cast(Body, body).forward_features(pixels)


def channels_first(body: nn.Module, feature: Tensor) -> Tensor:
    """Return a network's last features, or anything of their shape, as b c gh gw."""
    width = getattr(body, "map_channels", getattr(body, "num_features", None))
    last = feature.shape[1] != width and feature.shape[3] == width
    return feature.permute(0, 3, 1, 2) if last else feature


def layout_of(build: Callable[[], nn.Module]) -> Layout:
    """Return a network's layout from one pass without numbers, which takes no memory."""
    called: set[str] = set()
    with torch.device("meta"), torch.no_grad():
        body: Any = build().eval()
        for name, module in body.named_modules():
            module.register_forward_hook(lambda *_, name=name: called.add(name))
        size = body.pretrained_cfg.get("input_size", (3, SIDE, SIDE))
        feature = body.forward_features(torch.zeros(1, *size))
    shape = tuple(feature.shape) if isinstance(feature, Tensor) else ()
    used = {name.partition(".")[0] for name in called}
    behind = tuple(name for name, _ in body.named_children() if name not in used)
    last = len(shape) == 4 and shape[1] != body.num_features and shape[3] == body.num_features
    return Layout(shape, shape[3 if last else 1] if shape else 0, last, behind)


def _layout_of_stage(name: str, stage: int) -> Layout:
    """Return the layout of the timm network `name` that is cut short at a stage.

    Raises ValueError where it has no such stage, or keeps parameters that the stage does not use.
    """
    with torch.device("meta"), torch.enable_grad():
        body: Any = timm.create_model(name, num_classes=0).eval()
        if not hasattr(body, "forward_intermediates"):
            raise ValueError(
                f"{name} has no stages (timm's forward_intermediates), which head.stage = {stage} "
                "names: leave `stage` out"
            )
        film = torch.zeros(1, *body.pretrained_cfg.get("input_size", (3, SIDE, SIDE)))
        count = len(body.forward_intermediates(film, intermediates_only=True))
        if not -count <= stage < count:
            raise ValueError(
                f"{name} has {count} stages: head.stage is {stage}, expected 0 to {count - 1}, or "
                f"-{count} to -1 counted from the last"
            )
        body.prune_intermediate_layers([stage % count], prune_norm=True)
        maps, kept = _features(body, film, stage % count), dict(body.named_parameters())
        slopes: tuple[Any, ...] = torch.autograd.grad(
            maps.sum(), [*kept.values()], allow_unused=True
        )
    unused = [key for key, slope in zip(kept, slopes, strict=True) if slope is None]
    if unused:
        raise ValueError(
            f"{name} cannot be cut at stage {stage}: {len(unused)} of its layers' parameters, as "
            f"{unused[0]}, would be left without a use: name another stage, or leave `stage` out"
        )
    return Layout(tuple(maps.shape), maps.shape[1], False, (), stage % count)


def _features(body: Any, pixels: Tensor, stage: int | None) -> Tensor:
    """Return the last features, or the maps of a stage (b c gh gw)."""
    if stage is None:
        return body.forward_features(pixels)
    options = {"stop_early": True, "intermediates_only": True, "output_fmt": "NCHW"}
    return body.forward_intermediates(pixels, indices=[stage], **options)[0]


def _ml_decoder(channels: int, num_classes: int, *, head: Head) -> MLDecoder:
    """Return timm's ML-Decoder (Ridnik et al., WACV 2023): a query for each class up to 100.

    Its queries are random and stay so. Its one layer stands in place of torch's TransformerDecoder
    around it, which today calls layers in a way that timm's does not know.
    """
    decoder: Any = MLDecoder(num_classes, initial_num_features=channels)
    decoder.decoder = decoder.decoder.layers[0]
    return decoder


def _transition(channels: int, maps: int) -> Iterator[nn.Module]:
    if maps:
        yield nn.Conv2d(channels, maps, 1, bias=False)
        yield nn.BatchNorm2d(maps)
        yield nn.ReLU()


def _dense(features: int, head: Head) -> Iterator[nn.Module]:
    for width in head.dense:
        yield nn.Linear(features, width)
        yield nn.ReLU()
        yield nn.Dropout(head.dropout)
        features = width


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": partial(torch.mean, dim=(2, 3)),
    "max": partial(torch.amax, dim=(2, 3)),
    "lse": lse_pool,
    "grid": grid_pool,
}
ATTENTIONS: dict[str, Callable[..., nn.Module]] = {
    "csra": ResidualAttention,
    "ml-decoder": _ml_decoder,
}
HEADS: dict[str, Head] = {
    "wang": Head(pooling="lse", transition=1024),
    "wang-average": Head(pooling="average", transition=1024),
    "wang-max": Head(pooling="max", transition=1024),
}
