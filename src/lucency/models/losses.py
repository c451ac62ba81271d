"""Losses: what a batch of logits costs, given its labels.

Losses are of logits, a cell a film and finding, in nats. Each gives a cell two costs: one if its
label is positive and one if it is negative. A label that is not stated (NaN) costs nothing and
moves nothing.
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
Costs = tuple[Float32[Tensor, "b k"], Float32[Tensor, "b k"]]  # positive, negative


def loss_cells(
    loss: str,
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    among: Float32[Tensor, "g k"],
) -> Float32[Tensor, "b k"]:
    """Return the cost of every cell by its label, multiplied by its weight in the plan.

    `loss` is a key of LOSSES; `among` are the labels of the global batch.
    """
    positive, negative = LOSSES[loss](logit.float())
    if loss in BALANCED:
        weight = weight * class_balance(label, among=among)
    none = torch.zeros_like(positive)
    return weight * torch.where(label == 1, positive, torch.where(label == 0, negative, none))


def mean_over_stated(cells: Float[Tensor, "b k"], *, stated: int) -> Float[Tensor, ""]:
    """Return the loss of a batch: the sum of its cells over the number of stated labels.

    `stated` counts the global batch, so that the sum over processes is the single process's loss.
    """
    return cells.sum() / max(stated, 1)


def class_balance(
    label: Float32[Tensor, "b k"], *, among: Float32[Tensor, "g k"]
) -> Float32[Tensor, "b k"]:
    """Return the factors with which both classes of a batch weigh the same in all.

    They make W-CEL of cross-entropy. A positive label counts (|P| + |N|) / |P| times, a negative
    one (|P| + |N|) / |N| times; |P| and |N| count the stated labels of the global batch, all
    findings together. Wang, Peng, Lu, Lu, Bagheri and Summers, CVPR (2017), equation 1.
    """
    positives, negatives = (among == 1).sum(), (among == 0).sum()
    stated = positives + negatives
    # A class that is absent has no cell to weigh: any finite factor will do.
    of_positive, of_negative = (stated / count.clamp(min=1) for count in (positives, negatives))
    return torch.where(label == 1, of_positive, of_negative)


def binary_cross_entropy(logit: Float32[Tensor, "b k"]) -> Costs:
    """Return the cross-entropy: -log p and -log(1 - p)."""
    positive, negative = (
        functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
        for target in (torch.ones_like(logit), torch.zeros_like(logit))
    )
    return positive, negative


def focal(logit: Float32[Tensor, "b k"]) -> Costs:
    """Return the focal loss: cross-entropy that fades where the network is right already.

    -alpha (1 - p)^gamma log p and -(1 - alpha) p^gamma log(1 - p). Lin, Goyal, Girshick, He and
    Dollar, ICCV (2017), equation 5.
    """
    positive = torch.sigmoid(-logit) ** FOCAL_GAMMA * functional.softplus(-logit)
    negative = torch.sigmoid(logit) ** FOCAL_GAMMA * functional.softplus(logit)
    return FOCAL_ALPHA * positive, (1 - FOCAL_ALPHA) * negative


def asymmetric(logit: Float32[Tensor, "b k"]) -> Costs:
    """Return the asymmetric loss: negatives fade faster than positives, and easy ones vanish.

    -(1 - p)^gamma_positive log p, and -q^gamma_negative log(1 - q) where q = max(p - margin, 0):
    below the margin a negative costs nothing. Ridnik, Ben-Baruch, Zamir, Noy, Friedman, Protter
    and Zelnik-Manor, ICCV (2021).
    """
    beyond = (torch.sigmoid(logit) - ASYMMETRIC_MARGIN).clamp(min=0)
    positive = torch.sigmoid(-logit) ** ASYMMETRIC_GAMMA_POSITIVE * functional.softplus(-logit)
    return positive, -(beyond**ASYMMETRIC_GAMMA_NEGATIVE) * torch.log1p(-beyond)


LOSSES: dict[str, Callable[[Tensor], Costs]] = {
    "bce": binary_cross_entropy,
    "w-cel": binary_cross_entropy,
    "focal": focal,
    "asymmetric": asymmetric,
}
BALANCED = {"w-cel"}
