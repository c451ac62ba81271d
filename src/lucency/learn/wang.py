"""The head of Wang et al. (CVPR 2017): transition, pooling from mean to maximum, linear layer.

Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.learn.features import Body

CHANNELS = 1024
SHARPNESS = 10.0  # the paper's best r


def average_pool(maps: Float[Tensor, "b c gh gw"]) -> Float[Tensor, "b c"]:
    """Return the mean of each map."""
    return maps.mean((2, 3))


def max_pool(maps: Float[Tensor, "b c gh gw"]) -> Float[Tensor, "b c"]:
    """Return the maximum of each map."""
    return maps.amax((2, 3))


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


class WangNetwork(nn.Module):
    """A body without its head, then Wang's: 1 × 1 convolution, pooling, linear layer.

    The transition has batch norm and ReLU, so that its maps are evidence above zero.
    """

    num_features = CHANNELS

    def __init__(
        self,
        body: nn.Module,
        *,
        num_classes: int,
        drop_rate: float,
        pool: Callable[[Tensor], Tensor] = lse_pool,
    ) -> None:
        super().__init__()
        about: Any = body
        self.pretrained_cfg: dict[str, Any] = {**about.pretrained_cfg, "classifier": "classifier"}
        self.body, self.pool = body, pool
        self.transition = nn.Sequential(
            nn.Conv2d(about.num_features, CHANNELS, 1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(CHANNELS, num_classes)

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of pictures."""
        return self.forward_head(self.forward_features(pixels))

    def forward_features(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1024 gh gw"]:
        """Return the transition's maps."""
        return self.transition(cast(Body, self.body).forward_features(pixels))

    def forward_head(
        self, maps: Float[Tensor, "b 1024 gh gw"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """Return logits, or the pooled maps before them."""
        pooled = self.dropout(self.pool(maps))
        return pooled if pre_logits else self.classifier(pooled)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.classifier


def wang(name: str, *, pooling: str = "lse") -> Callable[..., WangNetwork]:
    """Return what builds the timm network `name` with Wang's head, as the zoo asks for it."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}: expected one of {', '.join(POOLINGS)}")
    return partial(_build, name, POOLINGS[pooling])


def _build(
    name: str, pool: Callable[[Tensor], Tensor], *, num_classes: int, drop_rate: float
) -> WangNetwork:
    body = timm.create_model(name, num_classes=0)
    return WangNetwork(body, num_classes=num_classes, drop_rate=drop_rate, pool=pool)


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "lse": lse_pool,
    "max": max_pool,
    "average": average_pool,
}
