"""Losses on logits: a label that is not stated (NaN) costs nothing and moves nothing.

Letters in shapes: b films of a batch, k findings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional


def binary_cross_entropy(
    logit: Float[Tensor, "b k"], *, label: Float32[Tensor, "b k"], weight: Float32[Tensor, "b k"]
) -> Float[Tensor, "b k"]:
    """Return the weighted cross-entropy in nats of every film and finding, 0 where not stated."""
    stated = ~torch.isnan(label)
    target = torch.where(stated, label, torch.zeros_like(label))
    cells = functional.binary_cross_entropy_with_logits(logit.float(), target, reduction="none")
    return torch.where(stated, cells * weight, torch.zeros_like(cells))


def mean_over_stated(cells: Float[Tensor, "b k"], *, stated: int) -> Float[Tensor, ""]:
    """Return the loss of a batch: the sum of its cells over the number of stated labels.

    `stated` counts the global batch, so that the sum over processes is the single process's loss.
    """
    return cells.sum() / max(stated, 1)


LOSSES: dict[str, Callable[..., Tensor]] = {"bce": binary_cross_entropy}
