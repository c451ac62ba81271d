"""The layers of a network in their order: each at a learning rate of its own, or thawed in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.models import group_parameters
from torch import nn

from lucency.models.heads import head_names, trunk_of
from lucency.models.networks import FilmNetwork

TENSORS = 2  # of a layer, where timm knows no layers of a network: weight and bias


def layer_numbers(body: nn.Module) -> dict[str, int]:
    """Return the number of the layer that each parameter of `body` belongs to, by its name.

    Layers are those of timm, counted from the input; the head is the last.
    """
    trunk: Any = trunk_of(body)
    if hasattr(trunk, "group_matcher"):
        matcher = trunk.group_matcher(coarse=False)
        found = cast("dict[str, int]", group_parameters(trunk, matcher, reverse=True))
    else:
        found = _pairs(trunk)
    if trunk is body:
        return found
    inside = {f"body.{name}": number for name, number in found.items()}
    head = 1 + max(found.values())
    return {name: inside.get(name, head) for name, _ in body.named_parameters()}


def _pairs(trunk: nn.Module) -> dict[str, int]:
    """Return layers of so many TENSORS each, the network's own head as the last."""
    names, own = [name for name, _ in trunk.named_parameters()], head_names(trunk)
    before = [name for name in names if not name.startswith(own)]
    number = {name: place // TENSORS for place, name in enumerate(before)}
    return {name: number.get(name, 1 + max(number.values())) for name in names}


def groups_of(network: FilmNetwork, *, decay: float) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups, each with its share `lr_scale` of the rate.

    A layer's share is `decay` times that of the next one towards the head, whose share is 1 (Clark
    et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022).
    """
    trained = {n: p for n, p in network.body.named_parameters() if p.requires_grad}
    if decay == 1:
        return [{"params": [*trained.values()], "lr_scale": 1.0}]
    number = layer_numbers(network.body)
    last = max(number.values())
    return [
        {
            "params": [p for n, p in trained.items() if number[n] == layer],
            "lr_scale": decay ** (last - layer),
        }
        for layer in sorted({number[name] for name in trained})
    ]


def thaw(network: FilmNetwork, share: float, *, among: Sequence[nn.Parameter]) -> None:
    """Let the head and the last `share` (0 to 1) of the layers before it be trained, none else.

    Parameters that are not `among` those that training may change stay as they are. Gradual
    unfreezing: Howard and Ruder, "ULMFiT", ACL 2018, section 3.3. Batch norms of frozen layers
    stay in evaluation mode.
    """
    allowed = {id(parameter) for parameter in among}
    number = layer_numbers(network.body)
    first = max(number.values()) * (1 - share)
    for name, parameter in network.body.named_parameters():
        parameter.requires_grad_(id(parameter) in allowed and number[name] >= first)
    network.frozen = tuple(
        module
        for module in network.body.modules()
        if (own := [*module.parameters(recurse=False)]) and not any(p.requires_grad for p in own)
    )
