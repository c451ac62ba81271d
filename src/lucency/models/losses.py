"""Losses on logits: a label that is not stated (NaN) costs nothing and moves nothing.

Every loss returns a cell a film and finding, in nats, multiplied by its weight in the plan.

Letters in shapes: b films of a process's share of the batch, g films of the global batch over all
processes, k findings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

FOCAL_GAMMA = 2.0  # Lin et al. 2017
FOCAL_ALPHA = 0.25
ASYMMETRIC_GAMMA_POSITIVE = 0.0  # Ridnik et al. 2021
ASYMMETRIC_GAMMA_NEGATIVE = 4.0
ASYMMETRIC_MARGIN = 0.05


def binary_cross_entropy(
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    among: Float32[Tensor, "g k"],
) -> Float[Tensor, "b k"]:
    """Return the cross-entropy, -log p of a positive label and -log(1 - p) of a negative one."""
    stated = ~torch.isnan(label)
    target = torch.where(stated, label, torch.zeros_like(label))
    cells = functional.binary_cross_entropy_with_logits(logit.float(), target, reduction="none")
    return torch.where(stated, cells * weight, torch.zeros_like(cells))


def weighted_cross_entropy(
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    among: Float32[Tensor, "g k"],
) -> Float[Tensor, "b k"]:
    """Return W-CEL: cross-entropy in which both classes of a batch weigh the same in all.

    A positive label counts (|P| + |N|) / |P| times, a negative one (|P| + |N|) / |N| times; |P| and
    |N| count the stated labels of the global batch, all findings together. Wang, Peng, Lu, Lu,
    Bagheri and Summers, CVPR (2017), equation 1.
    """
    positives, negatives = (among == 1).sum(), (among == 0).sum()
    stated = positives + negatives
    # A class that is absent has no cell to weigh: any finite factor will do.
    of_positive, of_negative = (stated / count.clamp(min=1) for count in (positives, negatives))
    factor = torch.where(label == 1, of_positive, of_negative)
    return binary_cross_entropy(logit, label=label, weight=weight * factor, among=among)


def focal(
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    among: Float32[Tensor, "g k"],
) -> Float[Tensor, "b k"]:
    """Return the focal loss: cross-entropy that fades where the network is right already.

    -alpha (1 - p)^gamma log p of a positive label, -(1 - alpha) p^gamma log(1 - p) of a negative
    one. Lin, Goyal, Girshick, He and Dollar, ICCV (2017), equation 5.
    """
    wide = logit.float()
    positive = torch.sigmoid(-wide) ** FOCAL_GAMMA * functional.softplus(-wide)
    negative = torch.sigmoid(wide) ** FOCAL_GAMMA * functional.softplus(wide)
    return _cells(FOCAL_ALPHA * positive, (1 - FOCAL_ALPHA) * negative, label, weight)


def asymmetric(
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    among: Float32[Tensor, "g k"],
) -> Float[Tensor, "b k"]:
    """Return the asymmetric loss: negatives fade faster than positives, and easy ones vanish.

    -(1 - p)^gamma_positive log p of a positive label, -q^gamma_negative log(1 - q) of a negative
    one, where q = max(p - margin, 0): below the margin a negative costs nothing. Ridnik,
    Ben-Baruch, Zamir, Noy, Friedman, Protter and Zelnik-Manor, ICCV (2021).
    """
    wide = logit.float()
    beyond = (torch.sigmoid(wide) - ASYMMETRIC_MARGIN).clamp(min=0)
    positive = torch.sigmoid(-wide) ** ASYMMETRIC_GAMMA_POSITIVE * functional.softplus(-wide)
    negative = -(beyond**ASYMMETRIC_GAMMA_NEGATIVE) * torch.log1p(-beyond)
    return _cells(positive, negative, label, weight)


def mean_over_stated(cells: Float[Tensor, "b k"], *, stated: int) -> Float[Tensor, ""]:
    """Return the loss of a batch: the sum of its cells over the number of stated labels.

    `stated` counts the global batch, so that the sum over processes is the single process's loss.
    """
    return cells.sum() / max(stated, 1)


def _cells(
    positive: Float32[Tensor, "b k"],
    negative: Float32[Tensor, "b k"],
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
) -> Float32[Tensor, "b k"]:
    """Return each cell's cost by its label, weighted; 0 where not stated."""
    none = torch.zeros_like(positive)
    return weight * torch.where(label == 1, positive, torch.where(label == 0, negative, none))


LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": binary_cross_entropy,
    "w-cel": weighted_cross_entropy,
    "focal": focal,
    "asymmetric": asymmetric,
}
