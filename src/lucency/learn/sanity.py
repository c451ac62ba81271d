"""Does a map depend on what was learnt, and does it stay on the same tissue?

Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from lucency.learn.features import Body

FLAT = 1e-6


def randomised(
    network: nn.Module, *, seed: int, copies: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies whose weights are drawn anew from the head down, each with its deepest block.

    One a block, or `copies` of these evenly apart, the first and the last among them.

    Adebayo et al., NeurIPS 2018, cascading: the first copy has a new head (both of a distilled
    transformer), the last is new throughout, positions and class tokens with it. A tensor is
    redrawn from a normal distribution about zero with its own root mean square, so that logits
    keep their scale; running statistics stay.
    """
    generator = np.random.default_rng(seed)
    changed = copy.deepcopy(network)
    steps = _steps(changed)
    wanted = np.linspace(0, len(steps) - 1, copies or len(steps)).round()
    for place, (name, parameters) in enumerate(steps.items()):
        _redraw(parameters, generator)
        if place in wanted:
            yield name, copy.deepcopy(changed)


def redraw_head(network: nn.Module, *, seed: int) -> None:
    """Draw the head of a network anew in its place, as the first copy of `randomised` has it."""
    _redraw(next(iter(_steps(network).values())), np.random.default_rng(seed))


def stability(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    method: Callable[..., Tensor],
    shift: int,
    findings: Sequence[int] | None = None,
) -> Float[Tensor, "b k"]:
    """Return the mean correlation of maps with those of films moved by `shift` pixels, moved back.

    Films move up, down, left and right; the border is repeated and not compared. NaN where a map
    is the same everywhere, as there is nothing to correlate.
    """
    size = (pixels.shape[2], pixels.shape[3])
    if not 0 < shift < min(size) // 2:
        raise ValueError(f"shift is {shift}: expected 1 to {min(size) // 2 - 1} pixels")
    inner = slice(shift, -shift)

    def scaled(films: Tensor) -> Tensor:
        found = method(network, films, findings=findings)
        return functional.interpolate(found, size, mode="bilinear")

    still = scaled(pixels)[..., inner, inner]
    padded = functional.pad(pixels, (shift,) * 4, mode="replicate")
    found = []
    for down, right in ((0, shift), (2 * shift, shift), (shift, 0), (shift, 2 * shift)):
        moved = scaled(padded[..., down : down + size[0], right : right + size[1]])
        back = moved.roll((down - shift, right - shift), (2, 3))[..., inner, inner]
        found.append(_correlation(still, back))
    return torch.stack(found).mean(0)


def is_flat(maps: Float[Tensor, "*b gh gw"]) -> Bool[Tensor, "*b"]:
    """Say which maps are the same everywhere, but for rounding."""
    return maps.amax((-2, -1)) - maps.amin((-2, -1)) <= FLAT * maps.abs().amax((-2, -1))


def _steps(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return what is drawn anew in each step by its block's name: the head first, together."""
    blocks = dict(reversed(list(_blocks(network, ""))))
    last = network.get_classifier() if isinstance(network, Body) else nn.Identity()
    heads = set(last if isinstance(last, tuple) else (last,))
    own = [name for name, block in blocks.items() if heads & set(block.modules())]
    first = own or [next(iter(blocks))]
    steps = {first[0]: [one for name in first for one in blocks[name].parameters()]}
    steps |= {n: list(block.parameters()) for n, block in blocks.items() if n not in first}
    inside = {id(one) for parameters in steps.values() for one in parameters}
    steps[list(steps)[-1]] += [one for one in network.parameters() if id(one) not in inside]
    return steps


def _blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts with weights in their order; plain lists of layers are opened."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _blocks(child, f"{path}.")
        elif any(True for _ in child.parameters()):
            yield path, child


def _redraw(parameters: Sequence[Tensor], generator: np.random.Generator) -> None:
    with torch.no_grad():
        for parameter in parameters:
            draw = torch.from_numpy(generator.standard_normal(tuple(parameter.shape)))
            parameter.copy_(draw.to(parameter) * parameter.square().mean().sqrt())


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation over the last two axes."""
    flat = is_flat(one) | is_flat(other)
    one, other = one.flatten(2), other.flatten(2)
    one, other = one - one.mean(2, keepdim=True), other - other.mean(2, keepdim=True)
    cosine = functional.cosine_similarity(one, other, dim=2, eps=torch.finfo(one.dtype).tiny)
    return cosine.masked_fill(flat, torch.nan)
