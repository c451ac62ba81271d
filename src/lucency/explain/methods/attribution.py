"""Heat maps by gradients at the pixels, by occlusion, and by attention.

Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.explain.heatmaps import MethodError
from lucency.explain.methods.network_split import (
    blank,
    chosen,
    logits,
    patch_grid,
    split,
    undisturbed,
)

PATH_POINTS = 24
NOISY_COPIES = 16
NOISE = 0.15  # of a film's range; the authors advise 0.1 to 0.2


def integrated_gradients(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, findings: Sequence[int] | None = None
) -> Float[Tensor, "b k h w"]:
    """Return what each pixel adds to the logit on the way from a blank film, signed.

    Sundararajan et al., ICML 2017; the integral is by Gauss and Legendre. Pixels sum to the logit
    of the film less that of the blank one.
    """
    node, weight = np.polynomial.legendre.leggauss(PATH_POINTS)
    with undisturbed(network):
        empty = blank(pixels)
        way = pixels - empty
        slopes = (
            float(share) * _slopes(network, empty + float(place) * way, findings)
            for place, share in zip((node + 1) / 2, weight / 2, strict=True)
        )
        return (sum(slopes, torch.zeros(()).to(pixels)) * way.unsqueeze(1)).sum(2)


def smooth_grad(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    findings: Sequence[int] | None = None,
    seed: int = 0,
) -> Float[Tensor, "b k h w"]:
    """Return the size of the logit's mean gradient under noise (Smilkov et al., arXiv 2017).

    Every film gets the same draws of noise, in proportion to its range.
    """
    generator = np.random.default_rng(seed)
    with undisturbed(network):
        reach = NOISE * (pixels.amax((1, 2, 3), True) - pixels.amin((1, 2, 3), True))
        total = torch.zeros(()).to(pixels)
        for _ in range(NOISY_COPIES):
            noise = generator.standard_normal(pixels.shape[2:], dtype=np.float32)
            noisy = pixels + reach * torch.from_numpy(noise).to(pixels)
            total = total + _slopes(network, noisy, findings)
        return (total / NOISY_COPIES).sum(2).abs()


def occlusion(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, findings: Sequence[int] | None = None
) -> Float[Tensor, "b k gh gw"]:
    """Return by how much each logit falls when one cell of the grid is blank, signed.

    Zeiler and Fergus, ECCV 2014; one forward pass a cell of the network's own grid.
    """
    with undisturbed(network), torch.no_grad():
        parts = split(network, pixels)
        rows, columns = parts.grid(parts.feature).shape[2:]
        whole, empty = logits(network, pixels), blank(pixels)
        falls = []
        for top, bottom in _edges(pixels.shape[2], rows):
            for left, right in _edges(pixels.shape[3], columns):
                covered = pixels.clone()
                covered[..., top:bottom, left:right] = empty[..., top:bottom, left:right]
                falls.append(whole - logits(network, covered))
        grid = torch.stack(falls, dim=2).unflatten(2, (rows, columns))
        return grid[:, chosen(findings, whole.shape[1])]


def attention_rollout(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, findings: Sequence[int] | None = None
) -> Float[Tensor, "b k gh gw"]:
    """Return how much of each patch reaches the class token, or the mean patch where none is.

    Abnar and Zuidema, ACL 2020: layers' attention, half of it the token itself, multiplied. It
    does not depend on the finding, so the map is the same for all of them.
    Raises ValueError for a network without attention from every token to every other.
    """
    patches, layers = patch_grid(network, pixels), _attentions(network)
    if patches is None or not layers:
        raise MethodError(
            f"{type(network).__name__} has no attention between all patches: expected a vision "
            "transformer of timm; use grad-cam"
        )
    with undisturbed(network), torch.no_grad(), _watched(layers) as seen:
        logit = logits(network, pixels)
    prefix = getattr(network, "num_prefix_tokens", 0)
    flow = _rollout(seen)
    source = flow[:, 0] if prefix else flow.mean(1)
    grid = source[:, prefix:].unflatten(1, patches)
    return grid.unsqueeze(1).repeat(1, len(chosen(findings, logit.shape[1])), 1, 1)


def _slopes(network: nn.Module, pixels: Tensor, findings: Sequence[int] | None) -> Tensor:
    """Return the gradients (b k c h w) of the logits with respect to the pixels."""
    pixels = pixels.detach().requires_grad_()
    logit = logits(network, pixels)
    slopes = [
        torch.autograd.grad(logit[:, finding].sum(), pixels, retain_graph=True)[0]
        for finding in chosen(findings, logit.shape[1])
    ]
    return torch.stack(slopes, dim=1)


def _edges(length: int, cells: int) -> list[tuple[int, int]]:
    """Return where each of `cells` equal cells begins and ends, in whole pixels."""
    edge = [round(cell * length / cells) for cell in range(cells + 1)]
    return list(pairwise(edge))


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
    with ExitStack() as undo:
        for layer in layers:
            undo.callback(setattr, layer, "fused_attn", bool(layer.fused_attn))
            setattr(layer, "fused_attn", False)  # noqa: B010 (Final in timm)
            drop = layer.get_submodule("attn_drop")
            undo.enter_context(drop.register_forward_hook(lambda *given: seen.append(given[-1])))
        yield seen


def _rollout(layers: list[Tensor]) -> Tensor:
    """Return (b, to, from): the product of the layers' attention, first layer rightmost."""
    itself = torch.eye(layers[0].shape[-1]).to(layers[0])
    flow = itself
    for layer in layers:
        shares = (layer.mean(1) + itself) / 2
        flow = shares / shares.sum(-1, keepdim=True) @ flow
    return flow


ATTRIBUTIONS: dict[str, Callable[..., Tensor]] = {
    "occlusion": occlusion,
    "integrated-gradients": integrated_gradients,
    "smooth-grad": smooth_grad,
    "attention-rollout": attention_rollout,
}
