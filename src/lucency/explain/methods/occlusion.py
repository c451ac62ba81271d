"""Occlusion maps, and the deletion and insertion curves of any map.

Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid,
s shares of the film.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from lucency.explain.methods.network_split import blank, chosen, logits, split, undisturbed

BLUR_PIXELS, BLUR_SIGMA = 11, 5.0


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


def deletion_curve(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    heatmap: Float[Tensor, "b gh gw"],
    findings: Sequence[int],
    steps: int,
) -> Float[Tensor, "b s"]:
    """Return the probability after 0, 1, … `steps` equal shares of pixels are blank, best first.

    Of one finding a film; a map of fewer pixels than the film is laid evenly over it. Petsiuk et
    al., BMVC 2018. The lower the curve, the truer the map; s is steps + 1.
    """
    return _curve(network, pixels, blank(pixels), _ranks(heatmap, pixels), (findings, steps))


def insertion_curve(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    heatmap: Float[Tensor, "b gh gw"],
    findings: Sequence[int],
    steps: int,
) -> Float[Tensor, "b s"]:
    """Return the probability after 0, 1, … `steps` equal shares are put into the blurred film.

    Of one finding a film. Petsiuk et al., BMVC 2018, blurred as there. The higher the curve, the
    truer the map.
    """
    blurred = gaussian_blur(pixels, [BLUR_PIXELS, BLUR_PIXELS], [BLUR_SIGMA, BLUR_SIGMA])
    return _curve(network, blurred, pixels, _ranks(heatmap, pixels), (findings, steps))


def _edges(length: int, cells: int) -> list[tuple[int, int]]:
    """Return where each of `cells` equal cells begins and ends, in whole pixels."""
    edge = [round(cell * length / cells) for cell in range(cells + 1)]
    return list(pairwise(edge))


def _ranks(heatmap: Tensor, pixels: Tensor) -> Tensor:
    """Return the rank (b 1 h w) of each pixel in 0..1, 0 the strongest of its film."""
    size = (pixels.shape[2], pixels.shape[3])
    fine = functional.interpolate(heatmap.unsqueeze(1), size, mode="bilinear").flatten(1)
    order = fine.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).to(pixels.dtype) / order.shape[1]
    return rank.view(-1, 1, *size)


def _curve(
    network: nn.Module, before: Tensor, after: Tensor, rank: Tensor, what: tuple[Sequence[int], int]
) -> Tensor:
    findings, steps = what
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected at least 1 share of the film")
    points = []
    with undisturbed(network), torch.no_grad():
        for step in range(steps + 1):
            logit = logits(network, torch.where(rank < step / steps, after, before))
            column = chosen(findings, logit.shape[1])
            points.append(logit[range(len(logit)), column].sigmoid())
    return torch.stack(points, dim=1)
