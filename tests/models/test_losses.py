"""Losses against scikit-learn, torchvision, timm and sums by hand, and the contract of all."""

import math

import pytest
import torch
from sklearn.metrics import log_loss
from timm.loss import AsymmetricLossMultiLabel
from torchvision.ops import sigmoid_focal_loss

from lucency.models.losses import LOSSES, loss_cells, mean_over_stated

PROBABILITIES = (0.001, 0.04, 0.06, 0.3, 0.5, 0.9, 0.999)
NAN = float("nan")


def batch(films: int = 6, findings: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(films, findings, generator=generator)
    label = torch.randint(0, 2, (films, findings), generator=generator).float()
    label[0, 0] = NAN
    return logit, label, torch.ones(films, findings)


def stated(label: torch.Tensor) -> int:
    return int((~label.isnan()).sum())


def cells(name: str, logit: torch.Tensor, label: torch.Tensor, weight: float = 1) -> torch.Tensor:
    """The cells of a batch that is the whole batch, all of one weight."""
    weights = torch.full_like(label, weight)
    return loss_cells(name, logit, label=label, weight=weights, among=label)


def cell(name: str, probability: float, label: float) -> float:
    """The loss of one cell at a probability, among one positive and one negative label."""
    logit = torch.tensor([[math.log(probability / (1 - probability))]])
    target = torch.tensor([[float(label)]])
    among = torch.tensor([[0.0], [1.0]])
    return float(loss_cells(name, logit, label=target, weight=torch.ones(1, 1), among=among))


def test_no_loss_is_forgotten() -> None:
    assert set(LOSSES) == {"bce", "w-cel", "focal", "asymmetric"}


def test_equals_scikit_learn() -> None:
    logit, label, _ = batch()
    found = cells("bce", logit, label)
    there = ~label.isnan()
    probability = torch.sigmoid(logit.detach().double())[there].numpy()
    expected = log_loss(label[there].numpy(), probability)
    assert float(mean_over_stated(found, stated=stated(label))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_a_cell_is_what_the_papers_say(p: float) -> None:
    shifted = max(p - 0.05, 0)
    expected = {
        "bce": (-math.log(p), -math.log(1 - p)),
        "w-cel": (-2 * math.log(p), -2 * math.log(1 - p)),
        "focal": (-0.25 * (1 - p) ** 2 * math.log(p), -0.75 * p**2 * math.log(1 - p)),
        "asymmetric": (-math.log(p), -(shifted**4) * math.log(1 - shifted)),
    }
    assert set(expected) == set(LOSSES)
    for name, (positive, negative) in expected.items():
        assert cell(name, p, 1) == pytest.approx(positive, rel=2e-4, abs=1e-9), name
        assert cell(name, p, 0) == pytest.approx(negative, rel=2e-4, abs=1e-9), name


def test_cells_by_hand() -> None:
    """At p = .5 and .8, with ln 2 = .693147 and ln 5 = 1.609438."""
    assert cell("focal", 0.5, 1) == pytest.approx(0.25 * 0.25 * 0.693147, abs=1e-6)
    assert cell("focal", 0.8, 0) == pytest.approx(0.75 * 0.64 * 1.609438, abs=1e-6)
    # q = .75: .75 ** 4 = .31640625, -ln .25 = 1.386294.
    assert cell("asymmetric", 0.8, 0) == pytest.approx(0.438632, abs=1e-6)
    assert cell("asymmetric", 0.049, 0) == 0
    assert cell("asymmetric", 0.8, 1) == pytest.approx(0.223144, abs=1e-6)


def test_focal_equals_torchvision() -> None:
    logit, label, _ = batch(50)
    label = label.nan_to_num(0)
    expected = sigmoid_focal_loss(logit, label, alpha=0.25, gamma=2)
    torch.testing.assert_close(cells("focal", logit, label), expected)


def test_asymmetric_equals_timm() -> None:
    logit, label, _ = batch(50)
    logit, label = 3 * logit, label.nan_to_num(0)
    logit.requires_grad_()
    oracle = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0.05, reduction="none")
    theirs, ours = oracle(logit, label), cells("asymmetric", logit, label)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    pushes = [torch.autograd.grad(found.sum(), logit)[0] for found in (ours, theirs)]
    torch.testing.assert_close(*pushes, rtol=1e-4, atol=1e-6)


def test_w_cel_weighs_both_classes_of_the_batch_alike() -> None:
    """Two positives and six negatives: factors 8 / 2 and 8 / 6, over all findings together."""
    label = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, NAN]])
    found = cells("w-cel", torch.zeros(3, 3), label) / math.log(2)
    expected = torch.tensor([[4, 4 / 3, 4 / 3], [4 / 3, 4 / 3, 4], [4 / 3, 4 / 3, 0]])
    torch.testing.assert_close(found, expected)
    assert float(found[label == 1].sum()) == pytest.approx(float(found[label == 0].sum()))


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_w_cel_of_one_class_is_cross_entropy(only: float) -> None:
    logit, label, _ = batch()
    label = torch.full_like(label, only)
    logit.requires_grad_()
    found = cells("w-cel", logit, label)
    torch.testing.assert_close(found, cells("bce", logit, label))
    (push,) = torch.autograd.grad(found.sum(), logit)
    assert push.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_counts_a_cell_that_many_times(name: str) -> None:
    logit, label, weight = batch()
    weight[1, 1] = 3.0
    heavy = loss_cells(name, logit, label=label, weight=weight, among=label)
    plain = cells(name, logit, label)
    assert float(heavy.sum() - plain.sum()) == pytest.approx(2 * float(plain[1, 1]), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_not_stated_moves_nothing(name: str) -> None:
    logit, label, _ = batch()
    logit.requires_grad_()
    found = cells(name, logit, label)
    mean_over_stated(found, stated=stated(label)).backward()
    assert found[0, 0] == 0
    assert (found.flatten()[1:] > 0).all()
    assert logit.grad is not None
    assert float(logit.grad[0, 0]) == 0
    assert int(logit.grad.count_nonzero()) == stated(label)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_stated_labels_costs_nothing(name: str) -> None:
    logit = torch.randn(2, 3, requires_grad=True)
    found = cells(name, logit, torch.full((2, 3), NAN))
    loss = mean_over_stated(found, stated=0)
    loss.backward()
    assert logit.grad is not None
    assert loss == 0
    assert not logit.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_weight_0_silences(name: str) -> None:
    logit, label, _ = batch()
    logit.requires_grad_()
    found = cells(name, logit, label, weight=0)
    (push,) = torch.autograd.grad(found.sum(), logit)
    assert not found.any()
    assert not push.any()


@pytest.mark.parametrize("name", LOSSES)
def test_doubling_the_batch_keeps_the_value(name: str) -> None:
    logit, label, _ = batch()
    value = mean_over_stated(cells(name, logit, label), stated=stated(label))
    twice = cells(name, torch.cat([logit, logit]), torch.cat([label, label]))
    assert float(mean_over_stated(twice, stated=2 * stated(label))) == pytest.approx(float(value))


@pytest.mark.parametrize("name", LOSSES)
def test_shares_of_processes_add_up_to_the_batch(name: str) -> None:
    logit, label, weight = batch()
    shares = [
        loss_cells(name, logit[rows], label=label[rows], weight=weight[rows], among=label)
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.cat(shares), cells(name, logit, label))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_have_finite_losses_and_gradients(name: str, dtype: torch.dtype) -> None:
    logit = torch.tensor([[-80.0, 80.0, 0.0, -300.0, 300.0]] * 3, dtype=dtype).requires_grad_()
    label = torch.tensor([[0.0] * 5, [1.0] * 5, [NAN] * 5])
    found = cells(name, logit, label)
    (push,) = torch.autograd.grad(found.sum(), logit)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert push.isfinite().all()
    wrong = {"bce": (80, 80), "w-cel": (160, 160), "focal": (20, 60), "asymmetric": (80, 2.440043)}
    value = found.detach()  # asymmetric: -.95 ** 4 * ln .05
    assert (float(value[1, 0]), float(value[0, 1])) == pytest.approx(wrong[name], rel=1e-6)
    assert float(value[0, 0]) == pytest.approx(0, abs=1e-9)
    assert float(value[1, 1]) == pytest.approx(0, abs=1e-9)
    assert float(push[1, 0]) < 0
