"""Heat maps of evidence pixel by pixel, from gradients through the whole network.

Letters in shapes: b films, k findings, c channels, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.explain.methods.network_split import blank, chosen, logits, undisturbed

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
        total = torch.zeros(())
        for place, share in zip((node + 1) / 2, weight / 2, strict=True):
            slope = _slopes(network, empty + float(place) * way, findings)
            total = total.to(slope) + float(share) * slope
        return (total * way.unsqueeze(1)).sum(2)


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
        total = torch.zeros(())
        for _ in range(NOISY_COPIES):
            noise = generator.standard_normal(pixels.shape[2:], dtype=np.float32)
            slope = _slopes(network, pixels + reach * torch.from_numpy(noise).to(pixels), findings)
            total = total.to(slope) + slope
        return (total / NOISY_COPIES).sum(2).abs()


def _slopes(network: nn.Module, pixels: Tensor, findings: Sequence[int] | None) -> Tensor:
    """Return the gradients (b k c h w) of the logits with respect to the pixels."""
    pixels = pixels.detach().requires_grad_()
    logit = logits(network, pixels)
    slopes = [
        torch.autograd.grad(logit[:, finding].sum(), pixels, retain_graph=True)[0]
        for finding in chosen(findings, logit.shape[1])
    ]
    return torch.stack(slopes, dim=1)
