"""Class activation maps: heat maps from the last features, all findings from one forward pass.

Strength is raw: nothing is scaled by film or finding, so maps of one method can be compared.
Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lucency.explain.class_activation import CamHead
from lucency.explain.heatmaps import MethodError, even_centres
from lucency.explain.methods.network_split import (
    body_of,
    chosen,
    feature_centres,
    gradients,
    split,
    undisturbed,
)
from lucency.models.heads import HeadedNetwork, ResidualAttention
from lucency.models.networks import FilmNetwork

PLUS_PLUS_EPSILON = 1e-6  # as in the package grad-cam, whose maps these are to equal
AXIOM_EPSILON = 1e-7
POOLING_SLACK = 1e-4


def cam(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, findings: Sequence[int] | None = None
) -> Float[Tensor, "b k gh gw"]:
    """Return the head's weights applied to the maps, signed; their pooled value is the logit.

    Zhou et al., CVPR 2016. The logit is so up to its bias where the head pools by the mean.
    Of residual attention these are the scores of the class, its heads added up, whose mean is the
    logit but for what is attended.
    Raises ValueError unless the head pools each map by itself and a linear layer follows at once.
    """
    with undisturbed(network), torch.no_grad():
        maps, weight = _linear_after_pooling(network, pixels)
        weight = weight[chosen(findings, len(weight))]
        return torch.einsum("kc,bcyx->bkyx", weight, maps)


def cam_head(
    network: FilmNetwork, films: UInt8[Tensor, "b h w"], *, findings: tuple[str, ...]
) -> CamHead:
    """Return what makes `cam` of a network's exported maps, without torch, by one of its films.

    Raises ValueError where `cam` is not defined for the network.
    """
    with undisturbed(network), torch.no_grad():
        pictures = network.pictures(films[:1].to(network.mean.device))
        maps, weight = _linear_after_pooling(network.body, pictures)
        evenly = even_centres((maps.shape[2], maps.shape[3]))
        centres = feature_centres(network.body, pictures, evenly=evenly)
        return CamHead(findings, weight.float().cpu().numpy(), centres)


def weigh_features(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    findings: Sequence[int] | None = None,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "b k gh gw"]:
    """Return what `weigh` makes of the last features and the gradients of each logit there."""
    with undisturbed(network):
        parts = split(network, pixels)
        maps = parts.grid(parts.feature).detach()
        return torch.stack([weigh(maps, slope) for slope in gradients(parts, findings)], dim=1)


def _linear_after_pooling(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last maps, and the weights of the one layer that follows their pooling."""
    parts, body = split(network, pixels), body_of(network)
    maps, last = parts.grid(parts.feature), body.get_classifier()
    if isinstance(last, ResidualAttention):
        return maps, last.class_weights().sum(0)
    shallow = not (isinstance(network, HeadedNetwork) and len(network.dense))
    if (
        shallow
        and parts.is_last
        and isinstance(last, nn.Linear)
        and last.in_features == maps.shape[1]
    ):
        pooled = body.forward_head(parts.feature, pre_logits=True)
        slack = POOLING_SLACK * maps.abs().amax((2, 3))
        above, below = maps.amin((2, 3)) - slack, maps.amax((2, 3)) + slack
        if pooled.shape == above.shape and ((above <= pooled) & (pooled <= below)).all():
            return maps, last.weight
    raise MethodError(
        f"the head of {type(network).__name__} is not pooling and one linear layer: cam is not "
        "defined for it; use grad-cam or hires-cam"
    )


def _by_mean_gradient(maps: Tensor, slope: Tensor) -> Tensor:
    """Return maps weighted by their mean gradients, above zero (Selvaraju et al., ICCV 2017)."""
    return _weighted(maps, slope.mean((2, 3)))


def _by_three_orders(maps: Tensor, slope: Tensor) -> Tensor:
    """Return maps weighted by gradients of three orders, above zero (Chattopadhay, WACV 2018).

    The derivatives are those of exp(logit), without that common factor.
    """
    square, total = slope.square(), maps.sum((2, 3), keepdim=True)
    share = square / (2 * square + total * square * slope + PLUS_PLUS_EPSILON)
    return _weighted(maps, (share * slope.relu()).sum((2, 3)))


def _by_each_gradient(maps: Tensor, slope: Tensor) -> Tensor:
    """Return maps times their gradients, signed (Draelos and Carin, arXiv:2011.08891, 2020).

    Where the head is linear the cells sum to the logit less its bias.
    """
    return (maps * slope).sum(1)


def _by_positive_gradient(maps: Tensor, slope: Tensor) -> Tensor:
    """Return maps times their positive gradients, above zero (Jiang et al., IEEE TIP 2021)."""
    return (maps * slope.relu()).sum(1).relu()


def _by_axiom(maps: Tensor, slope: Tensor) -> Tensor:
    """Return maps weighted by gradients in proportion to the map (Fu et al., BMVC 2020)."""
    total = maps.sum((2, 3)) + AXIOM_EPSILON
    return _weighted(maps, (maps * slope).sum((2, 3)) / total)


def _weighted(maps: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("bc,bcyx->byx", weight, maps).relu()


CAMS: dict[str, Callable[..., Tensor]] = {
    "cam": cam,
    "grad-cam": partial(weigh_features, weigh=_by_mean_gradient),
    "grad-cam++": partial(weigh_features, weigh=_by_three_orders),
    "hires-cam": partial(weigh_features, weigh=_by_each_gradient),
    "layer-cam": partial(weigh_features, weigh=_by_positive_gradient),
    "x-grad-cam": partial(weigh_features, weigh=_by_axiom),
}
