"""Receptive fields: where in the film the centres of a network's feature cells lie.

Heat maps are commonly stretched over the film as if cells divided it evenly. Where convolutions of
stride 2 pad by half their kernel, as in ResNet, MobileNet and EfficientNet, each centre lies half
a cell further up and left than that. Araujo, Norris and Sim, Computing Receptive Fields of
Convolutional Neural Networks, Distill (2019), give the arithmetic.
Letters in shapes: b films, c channels, h and w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.explain.heatmaps import Centres
from lucency.explain.methods.network_split import body_of, undisturbed


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


def feature_centres(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, evenly: Centres
) -> Centres:
    """Return the centres of the features' receptive fields, in shares of the picture.

    `evenly` is the answer where layers do something else than convolve and pool, as networks of
    patches do, whose cells divide the picture.
    """
    trace = _Trace(axes=[_Axis(size=size) for size in pixels.shape[2:]])
    layers = [layer for layer in network.modules() if isinstance(layer, WINDOWS)]
    hooks = [layer.register_forward_hook(trace.follow) for layer in layers]
    try:
        with undisturbed(network), torch.no_grad():
            body_of(network).forward_features(pixels[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if tuple(axis.size for axis in trace.axes) != tuple(map(len, evenly)):
        return evenly
    found = zip(trace.axes, pixels.shape[2:], strict=True)
    return Centres(
        *((axis.first + axis.step * np.arange(axis.size) + 0.5) / size for axis, size in found)
    )


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


WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
