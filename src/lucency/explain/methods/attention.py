"""Attention rollout: from which patches a transformer's tokens come, through all its layers.

Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.explain.methods.network_split import chosen, logits, undisturbed


def attention_rollout(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, findings: Sequence[int] | None = None
) -> Float[Tensor, "b k gh gw"]:
    """Return how much of each patch reaches the class token, or the mean patch where none is.

    Abnar and Zuidema, ACL 2020: layers' attention, half of it the token itself, multiplied. It
    does not depend on the finding, so the map is the same for all of them.
    Raises ValueError for a network without attention from every token to every other.
    """
    patches = getattr(getattr(network, "patch_embed", None), "dynamic_feat_size", None)
    layers = _attentions(network)
    if patches is None or not layers:
        raise ValueError(
            f"{type(network).__name__} has no attention between all patches: expected a vision "
            "transformer of timm; use grad-cam"
        )
    with undisturbed(network), torch.no_grad(), _watched(layers) as seen:
        logit = logits(network, pixels)
    prefix = getattr(network, "num_prefix_tokens", 0)
    flow = _rollout(seen)
    source = flow[:, 0] if prefix else flow.mean(1)
    grid = source[:, prefix:].unflatten(1, patches((pixels.shape[2], pixels.shape[3])))
    return grid.unsqueeze(1).repeat(1, len(chosen(findings, logit.shape[1])), 1, 1)


def _attentions(network: nn.Module) -> list[nn.Module]:
    """Return the attention of every block, or none unless all blocks have one like timm's."""
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return []
    layers = [getattr(block, "attn", None) for block in blocks]
    alike = (hasattr(layer, "attn_drop") and hasattr(layer, "fused_attn") for layer in layers)
    return [layer for layer in layers if isinstance(layer, nn.Module)] if all(alike) else []


@contextmanager
def _watched(layers: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect each layer's attention (b, heads, to, from) while inside; put all back after."""
    seen: list[Tensor] = []
    fused = [bool(layer.fused_attn) for layer in layers]
    drops = [layer.get_submodule("attn_drop") for layer in layers]

    def remember(_: nn.Module, args: tuple[Tensor, ...], shares: Tensor) -> None:
        seen.append(shares)

    handles = [drop.register_forward_hook(remember) for drop in drops]
    for layer in layers:
        setattr(layer, "fused_attn", False)  # noqa: B010 (Final in timm)
    try:
        yield seen
    finally:
        for layer, handle, was in zip(layers, handles, fused, strict=True):
            handle.remove()
            setattr(layer, "fused_attn", was)  # noqa: B010


def _rollout(layers: list[Tensor]) -> Tensor:
    """Return (b, to, from): the product of the layers' attention, first layer rightmost."""
    itself = torch.eye(layers[0].shape[-1]).to(layers[0])
    flow = itself
    for layer in layers:
        shares = (layer.mean(1) + itself) / 2
        flow = shares / shares.sum(-1, keepdim=True) @ flow
    return flow
