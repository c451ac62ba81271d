"""Layers that never learn: from the input to a share of the body's, or to one that is named.

The body is what comes before the head: all that makes a network's last features. A stated head
(transition, dense and last layers) is no part of it. Letters in shapes: none.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from lucency.config.sections import Head
from lucency.core.manifest import nearest
from lucency.models.heads import HeadedNetwork, layout_of, trunk_of
from lucency.models.networks import FilmNetwork, build_body

Frozen = float | str


def freeze(network: FilmNetwork, *, name: str, frozen: Frozen) -> None:
    """Freeze layers of the network `name` for good: they get no gradient, their norms no batch.

    A share counts layers that hold parameters, in the order in which the network lists them,
    rounded to whole layers, to one at least; a name freezes that layer with all inside it and
    before it. Batch norms among them stay in evaluation mode. Raises ValueError for an unknown
    name.
    """
    if not frozen:
        return
    network.frozen = _up_to(network.body, name=name, frozen=frozen)
    for layer in network.frozen:
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
    network.train(network.training)


def check_frozen(name: str, *, head: Head, frozen: Frozen) -> None:
    """Raise ValueError, with the nearest name, unless the network has the layer `frozen`."""
    if frozen:
        with torch.device("meta"):
            body = build_body(name, findings=1, head=head)
        _up_to(body, name=name, frozen=frozen)


def _up_to(body: nn.Module, *, name: str, frozen: Frozen) -> tuple[nn.Module, ...]:
    """Return the frozen layers and what holds them, of a network with or without a stated head."""
    behind = () if isinstance(body, HeadedNetwork) else layout_of(partial(build_body, name)).behind
    listed = {
        layer: module
        for layer, module in trunk_of(body).named_modules()
        if layer.partition(".")[0] not in behind
    }
    if isinstance(frozen, str):
        last = [at for at, layer in enumerate(listed) if f"{layer}.".startswith(f"{frozen}.")]
        if not last:
            parts = ", ".join(layer for layer in listed if layer and "." not in layer)
            raise ValueError(
                f"training.frozen: {name} has no layer {frozen!r} before its head: expected a "
                f"share from 0 to 1, or one of {parts} or of the layers inside them"
                f"{nearest(frozen, listed)}"
            )
        return tuple(listed.values())[: last[-1] + 1]
    modules = tuple(listed.values())
    held = [
        at for at, one in enumerate(modules) if any(True for _ in one.parameters(recurse=False))
    ]
    count = max(1, round(frozen * len(held)))
    return modules if count == len(held) else modules[: held[count - 1] + 1]
