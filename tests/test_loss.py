"""Losses against scikit-learn's log loss, and the contract of every member."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from lucency.learn.loss import LOSSES, binary_cross_entropy, mean_over_stated


def batch(films: int = 6, findings: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(films, findings, generator=generator)
    label = torch.randint(0, 2, (films, findings), generator=generator).float()
    label[0, 0] = float("nan")
    return logit, label, torch.ones(films, findings)


def stated(label: torch.Tensor) -> int:
    return int((~label.isnan()).sum())


def test_equals_scikit_learn() -> None:
    logit, label, weight = batch()
    cells = binary_cross_entropy(logit, label=label, weight=weight)
    there = ~label.isnan()
    probability = torch.sigmoid(logit.detach().double())[there].numpy()
    expected = log_loss(label[there].numpy(), probability)
    assert float(mean_over_stated(cells, stated=stated(label))) == pytest.approx(expected, abs=1e-6)


def test_a_weight_counts_a_cell_that_many_times() -> None:
    logit, label, weight = batch()
    weight[1, 1] = 3.0
    cells = binary_cross_entropy(logit, label=label, weight=weight).detach()
    plain = binary_cross_entropy(logit, label=label, weight=torch.ones(6, 3)).detach()
    assert float(cells.sum() - plain.sum()) == pytest.approx(2 * float(plain[1, 1]), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_not_stated_moves_nothing(name: str) -> None:
    logit, label, weight = batch()
    logit.requires_grad_()
    cells = LOSSES[name](logit, label=label, weight=weight)
    mean_over_stated(cells, stated=stated(label)).backward()
    assert logit.grad is not None
    assert float(logit.grad[0, 0]) == 0
    assert np.count_nonzero(logit.grad.numpy()) == stated(label)


@pytest.mark.parametrize("name", LOSSES)
def test_doubling_the_batch_keeps_the_value(name: str) -> None:
    logit, label, weight = batch()
    once = LOSSES[name](logit, label=label, weight=weight)
    doubled = [torch.cat([part, part]) for part in (logit, label, weight)]
    twice = LOSSES[name](doubled[0], label=doubled[1], weight=doubled[2])
    value = mean_over_stated(once, stated=stated(label))
    assert float(mean_over_stated(twice, stated=2 * stated(label))) == pytest.approx(float(value))
