"""A network cut in two for explanation: its last features, and the cheap head after them.

A network here is a body with timm's forward_features and forward_head, which takes scaled pictures.
`feature_centres` tells where in the film the cells of its features look. Heat maps are commonly
stretched over the film as if cells divided it evenly. Where convolutions of stride 2 pad by half
their kernel, as in ResNet, MobileNet and EfficientNet, each centre lies half a cell further up and
left than that. Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks,
Distill (2019), give the arithmetic.
Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.explain.heatmaps import Centres, MethodError
from lucency.models.heads import Body, channels_first

AGREEMENT = 1e-4
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitNetwork:
    """Features of a batch as the network has them, the head after them, and their maps.

    `head` turns features into logits (b k), `grid` lays anything of their shape out as b c gh gw.
    `is_last` says that nothing but pooling and the last layers follows.
    """

    feature: Tensor
    head: Callable[[Tensor], Tensor]
    grid: Callable[[Tensor], Tensor]
    is_last: bool


def split(network: nn.Module, pixels: Float[Tensor, "b c h w"]) -> SplitNetwork:
    """Cut a network where its logits still depend on every place of the picture.

    A convolutional network is cut before its pooling. A transformer is cut at its last block's
    first norm: the tokens after that block no longer reach the logits where a class token is read.
    Raises ValueError for a network that can be cut at neither.
    """
    body = body_of(network)
    blocks = getattr(network, "blocks", None)
    last = blocks[-1] if isinstance(blocks, nn.Sequential | nn.ModuleList) and blocks else None
    with torch.no_grad():
        if hasattr(last, "norm1") and hasattr(network, "patch_embed"):
            return _split_tokens(network, cast(nn.Module, last), pixels)
        feature = body.forward_features(pixels)
    if feature.ndim != 4:
        raise _not_cut(network, f"its features have the shape {tuple(feature.shape)}")
    grid = partial(channels_first, network)
    return SplitNetwork(feature=feature, head=body.forward_head, grid=grid, is_last=True)


def gradients(
    parts: SplitNetwork, findings: Sequence[int] | None
) -> Iterator[Float[Tensor, "b c gh gw"]]:
    """Yield the gradient of each finding's logit with respect to the maps.

    The head runs once, and back once for all findings together.
    """
    feature = parts.feature.detach().requires_grad_()
    logit = parts.head(feature)
    films, count = logit.shape
    wanted = torch.eye(count).to(logit)[chosen(findings, count)]
    wanted = wanted.unsqueeze(1).expand(-1, films, -1)
    (slopes,) = torch.autograd.grad(logit, feature, wanted, is_grads_batched=True)
    yield from map(parts.grid, slopes)


def logits(network: nn.Module, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
    """Return the logits of pictures."""
    body = body_of(network)
    return body.forward_head(body.forward_features(pixels))


def chosen(findings: Sequence[int] | None, count: int) -> list[int]:
    """Return the requested columns, None for all; ValueError for one that the network has not."""
    columns = list(range(count)) if findings is None else list(findings)
    unknown = [column for column in columns if not 0 <= column < count]
    if unknown or not columns:
        raise ValueError(
            f"finding {unknown[0] if unknown else 'nothing'} is not among the network's {count}: "
            f"expected columns 0 to {count - 1}"
        )
    return columns


def patch_grid(network: nn.Module, pixels: Tensor) -> tuple[int, int] | None:
    """Return the rows and columns of a transformer's patches, None where they are not known."""
    size_of = getattr(getattr(network, "patch_embed", None), "dynamic_feat_size", None)
    return size_of((pixels.shape[2], pixels.shape[3])) if size_of else None


def blank(pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return films without a picture: every pixel the film's own mean."""
    return pixels.mean((2, 3), keepdim=True).expand_as(pixels)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Run what is inside in evaluation mode and with gradients; leave the network as it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def body_of(network: nn.Module) -> Body:
    """Return the network as what can be explained, or raise ValueError naming what it lacks."""
    if isinstance(network, Body):
        return network
    raise ValueError(
        f"{type(network).__name__} lacks forward_features, forward_head or get_classifier: "
        "expected a body with timm's methods, such as `classifier.network.body`"
    )


def feature_centres(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, evenly: Centres
) -> Centres:
    """Return the centres of the features' receptive fields, in shares of the picture.

    `evenly` is the answer where layers do something else than convolve and pool, as networks of
    patches do, whose cells divide the picture.
    """
    trace = _Trace(axes=[_Axis(size=size) for size in pixels.shape[2:]])
    with undisturbed(network), torch.no_grad(), ExitStack() as hooks:
        for layer in network.modules():
            if isinstance(layer, WINDOWS):
                hooks.enter_context(layer.register_forward_hook(trace.follow))
        body_of(network).forward_features(pixels[:1])
    if tuple(axis.size for axis in trace.axes) != tuple(map(len, evenly)):
        return evenly
    found = zip(trace.axes, pixels.shape[2:], strict=True)
    return Centres(
        *((axis.first + axis.step * np.arange(axis.size) + 0.5) / size for axis, size in found)
    )


def _split_tokens(network: nn.Module, block: nn.Module, pixels: Tensor) -> SplitNetwork:
    body, norm = body_of(network), cast(nn.Module, block.norm1)
    entered: list[tuple[tuple[Tensor, ...], dict[str, Tensor]]] = []
    with block.register_forward_pre_hook(
        lambda _, args, kwargs: entered.append((args, kwargs)), with_kwargs=True
    ):
        expected = logits(network, pixels)
    args, kwargs = entered[0]

    def head(tokens: Tensor) -> Tensor:
        with norm.register_forward_hook(lambda *_: tokens):
            after = block(*args, **kwargs)
        return body.forward_head(cast(nn.Module, network.norm)(after))

    cells, prefix = patch_grid(network, pixels), getattr(network, "num_prefix_tokens", 0)
    if cells is None:
        raise _not_cut(network, "the layout of its patches is unknown")

    def grid(tokens: Tensor) -> Tensor:
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, cells)

    feature = norm(args[0])
    if not torch.allclose(head(feature), expected, rtol=AGREEMENT, atol=AGREEMENT):
        raise _not_cut(network, "more than a norm follows its last block")
    return SplitNetwork(feature=feature, head=head, grid=grid, is_last=False)


def _not_cut(network: nn.Module, reason: str) -> MethodError:
    return MethodError(
        f"{type(network).__name__} has no maps of features to explain ({reason}): use "
        "integrated-gradients or smooth-grad"
    )


@dataclass(kw_only=True)
class _Axis:
    """Cells along one axis so far: how many, centre of the first, distance between them."""

    size: int
    first: float = 0.0
    step: float = 1.0


@dataclass(kw_only=True)
class _Trace:
    """What the layers of one pass have made of both axes: the last ones, and all by their size.

    A branch that leads aside, as the reduced keys of PVT's attention, is forgotten when a layer
    goes on from what was there before it. Of parallel branches the last one counts.
    """

    axes: list[_Axis]
    known: dict[tuple[int, ...], list[_Axis]] = field(default_factory=dict)

    def follow(self, layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        """Take a layer into account that changes the size."""
        before, after = tuple(given[0].shape[2:]), tuple(made.shape[2:])
        self.known[tuple(axis.size for axis in self.axes)] = self.axes
        if before not in self.known or before == after:
            return
        self.axes = [replace(axis) for axis in self.known[before]]
        for place, axis in enumerate(self.axes):
            kernel, stride, dilation = (
                _along(getattr(layer, name, 1), place)
                for name in ("kernel_size", "stride", "dilation")
            )
            reach = dilation * (kernel - 1)
            lacking = (after[place] - 1) * stride + reach + 1 - axis.size
            axis.first += (reach / 2 - _padding(layer, place, reach, lacking)) * axis.step
            axis.step *= stride
            axis.size = after[place]


def _padding(layer: nn.Module, place: int, reach: int, lacking: int) -> int:
    """Return the pixels put before the first, of those that the layer's kind needs."""
    if type(layer).__name__.endswith("Same"):  # timm's, after TensorFlow: the odd one goes behind
        return max(lacking, 0) // 2
    padding = getattr(layer, "padding", 0)
    if isinstance(padding, str):
        return reach // 2 if padding == "same" else 0
    return _along(padding, place)


def _along(value: int | tuple[int, ...], place: int) -> int:
    return value[place] if isinstance(value, tuple) else value
