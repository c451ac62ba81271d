"""Losses: what a batch of logits costs, given its labels.

A label is any number from 0 (absent) to 1 (present); one that is not stated (NaN) costs nothing and
moves nothing. CELL_LOSSES cost each cell of film and finding: y times the cost of a positive label
plus 1 - y times that of a negative one, in nats. BATCH_LOSSES compare cells with one another.
Letters in shapes: n films of training, b of a process's share of the batch, g of the global batch
over all processes, k findings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel
from timm.loss.distribution_balanced_loss import DistributionBalancedLoss
from timm.loss.poly_loss import PolyBinaryCrossEntropy
from timm.loss.two_way_loss import TwoWayLoss
from timm.loss.zlpr_loss import ZlprLoss
from torch import Tensor
from torch.nn import functional

FOCAL_GAMMA = 2.0  # Lin et al. 2017
FOCAL_ALPHA = 0.25
ASYMMETRIC_GAMMA_POSITIVE = 0.0  # Ridnik et al. 2021
ASYMMETRIC_GAMMA_NEGATIVE = 4.0
ASYMMETRIC_MARGIN = 0.05
LARGEST_MARGIN = 0.5  # Cao et al. 2019, as their code has it
EFFECTIVE_BETA = 0.9999  # Cui et al. 2019
AUC_MARGIN = 1.0  # Yuan et al. 2021
MASKED = -1e4  # the logit by which TwoWayLoss leaves a cell out
TINY = torch.finfo(torch.float32).tiny


class Context(NamedTuple):
    """What a loss may know beside the cells of its share.

    `among` are the labels of the global batch; `counts` are all training entries' stated negatives
    (row 0) and positives (row 1), on the CPU; `reweigh` is whether deferred weights have begun.
    """

    among: Float32[Tensor, "g k"]
    counts: Float32[Tensor, "2 k"]
    reweigh: bool = False


def count_labels(label: Float32[np.ndarray, "n k"]) -> Float32[Tensor, "2 k"]:
    """Return how many labels are stated negative (row 0) and positive (row 1), soft ones shared."""
    positives, stated = np.nansum(label, axis=0), (~np.isnan(label)).sum(axis=0)
    return torch.from_numpy(np.stack([stated - positives, positives]).astype(np.float32))


def batch_loss(
    loss: str,
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    context: Context,
) -> Float32[Tensor, ""]:
    """Return what this process's share adds to the loss of the global batch.

    `loss` is a key of LOSSES. A loss by cell is the sum of its cells, each times its weight in the
    plan, over the number of stated labels of the global batch, so that the sum over processes is
    the single process's loss. BATCH_LOSSES say how theirs is shared; they read no weights.
    """
    if loss in BATCH_LOSSES:
        return BATCH_LOSSES[loss](logit.float(), label, context)
    stated = (~context.among.isnan()).sum().clamp(min=1)
    return cell_costs(loss, logit, label=label, weight=weight, context=context).sum() / stated


def cell_costs(
    loss: str,
    logit: Float[Tensor, "b k"],
    *,
    label: Float32[Tensor, "b k"],
    weight: Float32[Tensor, "b k"],
    context: Context,
) -> Float32[Tensor, "b k"]:
    """Return the cost of every cell, times its weight; `loss` is a key of CELL_LOSSES."""
    cells = CELL_LOSSES[loss](logit.float(), label.nan_to_num(0), context)
    return torch.where(label.isnan(), torch.zeros_like(cells), weight * cells)


def mean_cross_entropy(
    logit: Float32[Tensor, "b k"], *, label: Float32[Tensor, "b k"]
) -> Float32[Tensor, ""]:
    """Return the cross-entropy, averaged over the stated labels; 0 where none is."""
    context = Context(among=label, counts=torch.zeros(2, label.shape[1]))
    return batch_loss("bce", logit, label=label, weight=torch.ones_like(label), context=context)


def binary_cross_entropy(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], _: Context
) -> Float32[Tensor, "b k"]:
    """Return the cross-entropy: -log p and -log(1 - p)."""
    return functional.binary_cross_entropy_with_logits(logit, label, reduction="none")


def weighted_cross_entropy(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], context: Context
) -> Float32[Tensor, "b k"]:
    """Return W-CEL: cross-entropy with factors by which both classes of a batch weigh the same.

    A positive label counts (|P| + |N|) / |P| times, a negative one (|P| + |N|) / |N| times; |P| and
    |N| count the stated labels of the global batch, all findings together, soft ones by their
    shares. Wang, Peng, Lu, Lu, Bagheri and Summers, CVPR (2017), equation 1.
    """
    stated, positives = (~context.among.isnan()).sum(), context.among.nansum()
    # A class that is absent has no cell to weigh: any finite factor will do.
    of_positive, of_negative = (
        stated / torch.where(count > 0, count, 1.0) for count in (positives, stated - positives)
    )
    positive, negative = functional.softplus(-logit), functional.softplus(logit)
    return _by_label(label, of_positive * positive, of_negative * negative)


def focal(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], _: Context
) -> Float32[Tensor, "b k"]:
    """Return the focal loss: cross-entropy that fades where the network is right already.

    -alpha (1 - p)^gamma log p and -(1 - alpha) p^gamma log(1 - p). Lin, Goyal, Girshick, He and
    Dollar, ICCV (2017), equation 5.
    """
    positive = torch.sigmoid(-logit) ** FOCAL_GAMMA * functional.softplus(-logit)
    negative = torch.sigmoid(logit) ** FOCAL_GAMMA * functional.softplus(logit)
    return _by_label(label, FOCAL_ALPHA * positive, (1 - FOCAL_ALPHA) * negative)


def asymmetric(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], _: Context
) -> Float32[Tensor, "b k"]:
    """Return the asymmetric loss: negatives fade faster than positives, and easy ones vanish.

    -(1 - p)^gamma_positive log p, and -q^gamma_negative log(1 - q) where q = max(p - margin, 0):
    below the margin a negative costs nothing. Ridnik, Ben-Baruch, Zamir, Noy, Friedman, Protter and
    Zelnik-Manor, ICCV (2021), as timm has it: a positive below p = 1e-8 costs no more than there.
    """
    cost = AsymmetricLossMultiLabel(
        gamma_pos=ASYMMETRIC_GAMMA_POSITIVE,
        gamma_neg=ASYMMETRIC_GAMMA_NEGATIVE,
        clip=ASYMMETRIC_MARGIN,
        reduction="none",
    )
    ones = torch.ones_like(logit)
    return _by_label(label, cost(logit, ones), cost(logit, torch.zeros_like(logit)))


def poly(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], _: Context
) -> Float32[Tensor, "b k"]:
    """Return Poly-1: cross-entropy plus epsilon (1 - p) for a positive, epsilon p for a negative.

    Epsilon is timm's, 2. Leng, Tan, Liu, Cubuk, Shi, Cheng and Anguelov, ICLR (2022).
    """
    return PolyBinaryCrossEntropy(reduction="none")(logit, label)


def distribution_balanced(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], context: Context
) -> Float32[Tensor, "b k"]:
    """Return the distribution-balanced loss, focal term included, with timm's constants.

    A cell is weighed by how rare its finding is among those that its film carries, logits are
    shifted by the finding's prevalence, and negatives fade. Wu, Huang, Liu, Wang and Lin, ECCV
    (2020). Prevalence is the share of positives among a finding's stated training labels.
    """
    stated = context.counts.sum(dim=0)
    films = max(2, round(stated.max().item()))
    share = context.counts[1] / stated.clamp(min=TINY)
    cost = DistributionBalancedLoss(share * films, num_samples=films, reduction="none")
    return cost.to(logit.device)(logit, label)


def ldam(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], context: Context
) -> Float32[Tensor, "b k"]:
    """Return LDAM: cross-entropy that wants a margin, larger for a class with fewer labels.

    Cao, Wei, Gaidon, Arechiga and Ma, NeurIPS (2019), section 3.2: -log of the softmax after C /
    n^(1/4) is taken from the logit of the true class. Here each finding is a softmax of two
    classes, of logits z (positive) and 0 (negative): log(1 + e^(margin - z)) and
    log(1 + e^(margin + z)). The n are stated training labels; one C for all findings makes the
    largest margin .5, as in the authors' code, whose last layer is normalised and whose logits are
    multiplied by 30, while logits here are neither.
    Deferred re-weighting (section 3.3): once `reweigh`, a class weighs (1 - beta) / (1 - beta^n),
    the two of a finding 2 together, as in that code. Cui, Jia, Lin, Song and Belongie, CVPR (2019).
    """
    count = context.counts.clamp(min=1)
    margin = (LARGEST_MARGIN * (count / count.min()) ** -0.25).to(logit.device)
    cells = (functional.softplus(margin[0] + logit), functional.softplus(margin[1] - logit))
    if context.reweigh:
        inverse = -1 / torch.expm1(count * math.log(EFFECTIVE_BETA))
        weight = (2 * inverse / inverse.sum(dim=0)).to(logit.device)
        cells = (weight[0] * cells[0], weight[1] * cells[1])
    return _by_label(label, cells[1], cells[0])


def zlpr(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], context: Context
) -> Float32[Tensor, ""]:
    """Return ZLPR: of a film, log(1 + sum (1 - y) e^z) + log(1 + sum y e^-z) over its findings.

    Su, Zhu, Murtadha, Pan, Wen and Liu, arXiv 2208.02955; averaged over the films of the global
    batch that have a stated label, so that the sum over processes is the single process's loss.
    timm's takes labels of 0 and 1: each cell is given as a positive of logit z - log y and a
    negative of logit z + log(1 - y), which weighs it by a soft label and leaves it out at NaN.
    """
    present, absent = _shares(label)
    pairs = torch.cat([logit - present.log(), logit + absent.log()], dim=1)
    target = torch.cat([torch.ones_like(logit), torch.zeros_like(logit)], dim=1)
    films = (~context.among.isnan()).any(dim=1).sum().clamp(min=1)
    return ZlprLoss()(pairs, target) * len(logit) / films


def two_way(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], context: Context
) -> Float32[Tensor, ""]:
    """Return the two-way loss: soft extremes of positives and negatives compared.

    Once among the findings of a film, once among the films of a finding. Kobayashi, CVPR (2023).
    Labels above .5 are positive, all other stated ones negative. Its value depends on the whole
    batch: every process forms it over its own share, and the shares' values are averaged.
    """
    shown = logit.masked_fill(label.isnan(), MASKED)
    return TwoWayLoss()(shown, label) * len(logit) / len(context.among)


def auc_margin(
    logit: Float32[Tensor, "b k"], label: Float32[Tensor, "b k"], context: Context
) -> Float32[Tensor, ""]:
    """Return the AUC-margin loss of the probabilities, averaged over findings.

    Of a finding with a share p of positives it is p (1 - p) times: the variance of the positives'
    probabilities, that of the negatives', and max(0, margin + b - a)^2, with a and b their means.
    That is the objective of Yuan, Yan, Sonka and Yang, ICCV (2021), with its inner variables a, b
    and alpha at their optimum over the batch instead of learnt. A finding without both classes
    costs nothing. Soft labels count by their shares in either class. Its value depends on the
    whole batch: every process forms it over its own share, and the shares' values are averaged.
    """
    probability = torch.sigmoid(logit)
    share = torch.stack(_shares(label))  # 2 b k: positives, negatives
    count = share.sum(dim=1)
    of_class = share / count.clamp(min=TINY)[:, None]
    mean = (of_class * probability).sum(dim=1)
    variance = (of_class * (probability - mean[:, None]) ** 2).sum(dim=1)
    hinge = functional.relu(AUC_MARGIN + mean[1] - mean[0]) ** 2
    balance = count.prod(dim=0) / (count.sum(dim=0) ** 2).clamp(min=TINY)
    costs = balance * (variance.sum(dim=0) + hinge)
    return costs.mean() * len(logit) / len(context.among)


def _by_label(
    label: Float32[Tensor, "b k"],
    positive: Float32[Tensor, "b k"],
    negative: Float32[Tensor, "b k"],
) -> Float32[Tensor, "b k"]:
    return label * positive + (1 - label) * negative


def _shares(label: Float32[Tensor, "b k"]) -> tuple[Tensor, Tensor]:
    """Return how far each cell is positive and how far negative: both 0 where not stated."""
    return label.nan_to_num(0), (1 - label).nan_to_num(0)


CELL_LOSSES: dict[str, Callable[[Tensor, Tensor, Context], Tensor]] = {
    "bce": binary_cross_entropy,
    "w-cel": weighted_cross_entropy,
    "focal": focal,
    "asymmetric": asymmetric,
    "poly": poly,
    "distribution-balanced": distribution_balanced,
    "ldam": ldam,
}
BATCH_LOSSES: dict[str, Callable[[Tensor, Tensor, Context], Tensor]] = {
    "zlpr": zlpr,
    "two-way": two_way,
    "auc-margin": auc_margin,
}
LOSSES = CELL_LOSSES | BATCH_LOSSES
