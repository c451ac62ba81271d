"""Losses against scikit-learn, torchvision, timm, LibAUC and sums by hand; the contract of all."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logsumexp
from sklearn.metrics import log_loss
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from lucency.config.protocol import parse_protocol
from lucency.config.sections import UNWEIGHTED, Training
from lucency.core.progress import silent
from lucency.models.film_loader import Films
from lucency.models.losses import (
    BATCH_LOSSES,
    CELL_LOSSES,
    LOSSES,
    Context,
    batch_loss,
    cell_costs,
    count_labels,
    mean_cross_entropy,
)
from lucency.models.training import train
from toys import toy_films, toy_plan, toy_protocol

PROBABILITIES = (0.001, 0.04, 0.06, 0.3, 0.5, 0.9, 0.999)
NAN = float("nan")
PLAIN = set(LOSSES) - {"two-way"}  # whose value does not depend on the number of films
COUNTS = torch.tensor([[900.0, 960.0, 10.0], [100.0, 40.0, 990.0]])  # negatives, positives


def batch(films: int = 6, findings: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(films, findings, generator=generator)
    label = torch.randint(0, 2, (films, findings), generator=generator).float()
    label[0, 0] = NAN
    return logit, label, torch.ones(films, findings)


def context(among: torch.Tensor, *, reweigh: bool = False) -> Context:
    counts = COUNTS.repeat(1, 1 + among.shape[1] // 3)[:, : among.shape[1]]
    return Context(among=among, counts=counts, reweigh=reweigh)


def cells(name: str, logit: torch.Tensor, label: torch.Tensor, weight: float = 1) -> torch.Tensor:
    """The cells of a batch that is the whole batch, all of one weight."""
    weights = torch.full_like(label, weight)
    return cell_costs(name, logit, label=label, weight=weights, context=context(label))


def value(name: str, logit: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The loss of a batch that is the whole batch."""
    ones = torch.ones_like(label)
    return batch_loss(name, logit, label=label, weight=ones, context=context(label))


def cell(name: str, probability: float, label: float) -> float:
    """The loss of one cell at a probability, among one positive and one negative label."""
    logit = torch.tensor([[math.log(probability / (1 - probability))]])
    about = Context(torch.tensor([[0.0], [1.0]]), torch.tensor([[90.0], [10.0]]))
    given = {"label": torch.tensor([[float(label)]]), "weight": torch.ones(1, 1)}
    return float(cell_costs(name, logit, **given, context=about))


def test_no_loss_is_forgotten() -> None:
    assert set(LOSSES) == set(get_args(Training.model_fields["loss"].annotation))
    assert set(BATCH_LOSSES) == UNWEIGHTED
    assert set(CELL_LOSSES).isdisjoint(BATCH_LOSSES)


def test_equals_scikit_learn() -> None:
    logit, label, _ = batch()
    there = ~label.isnan()
    probability = torch.sigmoid(logit.double())[there].numpy()
    expected = log_loss(label[there].numpy(), probability)
    assert float(value("bce", logit, label)) == pytest.approx(expected, abs=1e-6)
    assert float(mean_cross_entropy(logit, label=label)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_a_cell_is_what_the_papers_say(p: float) -> None:
    """Ten positives among a hundred films, for the two losses that count training labels."""
    shifted = max(p - 0.05, 0)
    z = math.log(p / (1 - p))
    to_positive, to_negative = 0.5, 0.5 * (10 / 90) ** 0.25
    shift = z - math.log(9) * 0.05 / 2  # distribution-balanced: kappa .05, lambda 2
    balanced = [1 / (1 + math.exp(-10 * (ratio - 0.2))) + 0.1 for ratio in (1, math.inf)]
    expected = {
        "bce": (-math.log(p), -math.log(1 - p)),
        "w-cel": (-2 * math.log(p), -2 * math.log(1 - p)),
        "focal": (-0.25 * (1 - p) ** 2 * math.log(p), -0.75 * p**2 * math.log(1 - p)),
        "asymmetric": (-math.log(p), -(shifted**4) * math.log(1 - shifted)),
        "poly": (-math.log(p) + 2 * (1 - p), -math.log(1 - p) + 2 * p),
        "distribution-balanced": (
            balanced[0] * 2 * expit(-shift) ** 2 * -math.log(expit(shift)),
            balanced[1] * 2 * expit(2 * shift) ** 2 * -math.log(expit(-2 * shift)) / 2,
        ),
        "ldam": (-math.log(expit(z - to_positive)), -math.log(expit(-z - to_negative))),
    }
    assert set(expected) == set(CELL_LOSSES)
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
    assert cell("poly", 0.8, 1) == pytest.approx(0.623144, abs=1e-6)


def test_focal_equals_torchvision() -> None:
    logit, label, _ = batch(50)
    label = label.nan_to_num(0)
    expected = sigmoid_focal_loss(logit, label, alpha=0.25, gamma=2)
    torch.testing.assert_close(cells("focal", logit, label), expected)


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


def test_distribution_balanced_by_hand() -> None:
    """Wu et al. 2020, of a film with two findings of three, in numpy."""
    logit, label = np.array([0.3, -0.2, 0.8]), np.array([1.0, 1.0, 0.0])
    frequency = COUNTS[1].numpy() / 1000
    repeat = (label / frequency).sum()
    rate = expit(10 * (1 / frequency / repeat - 0.2)) + 0.1
    shifted = logit - 0.05 * np.log(1 / frequency - 1) / 2
    wrong = np.where(label == 1, expit(-shifted), expit(2 * shifted))
    cost = np.where(label == 1, np.logaddexp(0, -shifted), np.logaddexp(0, 2 * shifted) / 2)
    expected = rate * 2 * wrong**2 * cost
    found = cells("distribution-balanced", tensor([logit]), tensor([label]))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_counts_are_of_stated_labels() -> None:
    label = np.array([[1, 0, NAN], [0.25, NAN, NAN], [0, 1, 0]], dtype=np.float32)
    assert count_labels(label).tolist() == [[1.75, 1, 1], [1.25, 1, 0]]


@pytest.mark.parametrize("reweigh", [False, True])
def test_ldam_is_the_authors_of_two_classes(reweigh: bool) -> None:
    """The authors' LDAMLoss (github.com/kaidic/LDAM-DRW) of scale 1, for logits (0, z)."""
    logit, label, weight = batch(40)
    label = label.nan_to_num(0)
    counts = COUNTS.double().numpy()
    margin = counts**-0.25
    margin *= 0.5 / margin.max()
    effective = (1 - 0.9999) / (1 - 0.9999**counts)
    rates = effective / effective.sum(axis=0) * 2 if reweigh else np.ones((2, 3))
    expected = []
    for finding in range(3):
        target = label[:, finding].long()
        two = torch.stack([torch.zeros(40), logit[:, finding]], dim=1)
        two = two - functional.one_hot(target, 2) * tensor(margin[:, finding])
        rate = tensor(rates[:, finding])
        expected.append(functional.cross_entropy(two, target, weight=rate, reduction="none"))
    about = context(label, reweigh=reweigh)
    found = cell_costs("ldam", logit, label=label, weight=weight, context=about)
    torch.testing.assert_close(found, torch.stack(expected, dim=1))
    assert float(found[label == 1].mean()) != float(found[label == 0].mean())


def test_zlpr_and_two_way_by_hand() -> None:
    """Su et al. 2022, and Kobayashi 2023 with temperatures 4 (positives) and 1, in numpy."""
    logit, label, _ = batch()
    z, y = logit.double().numpy(), label.numpy()
    film = [
        np.log1p(np.exp(row[of == 0]).sum()) + np.log1p(np.exp(-row[of == 1]).sum())
        for row, of in zip(z, y, strict=True)
    ]
    assert float(value("zlpr", logit, label)) == pytest.approx(np.mean(film), rel=1e-5)
    expected = 0.0
    for rows, labels in ((z, y), (z.T, y.T)):
        rows = [
            np.logaddexp(0, logsumexp(row[of == 0]) + 4 * logsumexp(-row[of == 1] / 4))
            if (of == 0).any()
            else 0.0
            for row, of in zip(rows, labels, strict=True)
            if (of == 1).any()
        ]
        expected += np.mean(rows)
    assert float(value("two-way", logit, label)) == pytest.approx(expected, rel=1e-5)


def test_auc_margin_equals_libauc_with_its_variables_at_their_optimum() -> None:
    reason = "libauc is the oracle: pip install --no-deps libauc==2.0.1"
    oracle = pytest.importorskip("libauc.losses.auc", reason=reason)
    logit, label, _ = batch(50)
    label = label.nan_to_num(0)
    label[:, 1] = 0  # one finding without positives
    logit[:25, 0] -= 20 * label[:25, 0] - 10  # one finding ranked the wrong way round
    logit.requires_grad_()
    score = torch.sigmoid(logit)
    theirs = oracle.MultiLabelAUCMLoss(num_labels=3, device="cpu")
    means = [(score * of).sum(0) / of.sum(0).clamp(min=1) for of in (label, 1 - label)]
    theirs.a, theirs.b = (mean.detach() for mean in means)
    theirs.alpha = (1 + theirs.b - theirs.a).clamp(min=0)
    expected, found = theirs(score, label), value("auc-margin", logit, label)
    torch.testing.assert_close(found, expected)
    pushes = [torch.autograd.grad(loss, logit)[0] for loss in (found, expected)]
    torch.testing.assert_close(*pushes)
    assert not pushes[0][:, 1].any()


def test_auc_margin_by_hand() -> None:
    """Positives .9 and .5, negatives .2 and .4: 1/4 (.04 + .01 + (1 + .3 - .7)^2), and NaN out."""
    p = torch.tensor([[0.9], [0.5], [0.2], [0.4], [0.99]])
    label = torch.tensor([[1.0], [1.0], [0.0], [0.0], [NAN]])
    assert float(value("auc-margin", torch.logit(p), label)) == pytest.approx(0.25 * 0.41)


@pytest.mark.parametrize("name", sorted({*CELL_LOSSES, "zlpr"} - {"distribution-balanced"}))
def test_a_soft_label_costs_its_shares_of_both(name: str) -> None:
    """Of a cell; of ZLPR, the two sums of a film, each cell by its share."""
    generator = torch.Generator().manual_seed(1)
    logit = torch.randn(4, 3, generator=generator)
    soft = torch.rand(4, 3, generator=generator)
    if name == "zlpr":
        sums = [(soft * torch.exp(-logit)).sum(1), ((1 - soft) * torch.exp(logit)).sum(1)]
        expected = sum(torch.log1p(one) for one in sums).mean()
        torch.testing.assert_close(value(name, logit, soft), expected)
        return
    among = context(soft)
    both = [
        cell_costs(
            name, logit, label=torch.full_like(soft, of), weight=torch.ones(4, 3), context=among
        )
        for of in (1.0, 0.0)
    ]
    torch.testing.assert_close(cells(name, logit, soft), soft * both[0] + (1 - soft) * both[1])


def test_a_batch_of_half_labels_weighs_half_in_w_cel() -> None:
    """Labels .5 and 0: |P| is .5 and |N| 1.5 of 2."""
    label = torch.tensor([[0.5, 0.0]])
    found = cells("w-cel", torch.zeros(1, 2), label) / math.log(2)
    torch.testing.assert_close(found, torch.tensor([[0.5 * 4 + 0.5 * 4 / 3, 4 / 3]]))


@pytest.mark.parametrize("name", CELL_LOSSES)
def test_a_weight_counts_a_cell_that_many_times(name: str) -> None:
    logit, label, weight = batch()
    weight[1, 1] = 3.0
    heavy = cell_costs(name, logit, label=label, weight=weight, context=context(label))
    plain = cells(name, logit, label)
    assert float(heavy.sum() - plain.sum()) == pytest.approx(2 * float(plain[1, 1]), abs=1e-5)


@pytest.mark.parametrize("name", CELL_LOSSES)
def test_weight_0_silences(name: str) -> None:
    logit, label, _ = batch()
    logit.requires_grad_()
    found = cells(name, logit, label, weight=0)
    (push,) = torch.autograd.grad(found.sum(), logit)
    assert not found.any()
    assert not push.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_not_stated_moves_nothing(name: str) -> None:
    logit, label, _ = batch()
    logit.requires_grad_()
    found = value(name, logit, label)
    found.backward()
    assert found > 0
    assert logit.grad is not None
    assert float(logit.grad[0, 0]) == 0
    assert int(logit.grad.count_nonzero()) == int((~label.isnan()).sum())
    moved = logit.detach().clone()
    moved[0, 0] = 50
    torch.testing.assert_close(value(name, moved, label), found.detach())


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_stated_labels_costs_nothing(name: str) -> None:
    logit = torch.randn(2, 3, requires_grad=True)
    loss = value(name, logit, torch.full((2, 3), NAN))
    loss.backward()
    assert logit.grad is not None
    assert loss == 0
    assert not logit.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_film_of_unstated_labels_changes_nothing(name: str) -> None:
    logit, label, _ = batch()
    more = torch.cat([logit, torch.ones(1, 3)]), torch.cat([label, torch.full((1, 3), NAN)])
    torch.testing.assert_close(value(name, *more), value(name, logit, label))


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_films_changes_nothing(name: str) -> None:
    logit, label, _ = batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(value(name, logit[order], label[order]), value(name, logit, label))


@pytest.mark.parametrize("name", LOSSES)
def test_right_answers_cost_less(name: str) -> None:
    _, label, _ = batch()
    right = 3 * (2 * label.nan_to_num(0) - 1)
    costs = [float(value(name, sign * right, label)) for sign in (1, 0, -1)]
    assert costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize("name", LOSSES)
def test_doubling_the_batch_keeps_the_value(name: str) -> None:
    """Two-way compares soft extremes over films, which grow with their number."""
    logit, label, _ = batch()
    once = float(value(name, logit, label))
    twice = float(value(name, torch.cat([logit, logit]), torch.cat([label, label])))
    if name in PLAIN:
        assert twice == pytest.approx(once)
    else:
        assert twice > once


@pytest.mark.parametrize("name", LOSSES)
def test_shares_of_processes_add_up_to_the_batch(name: str) -> None:
    """Two-way and AUC margin depend on the whole batch: theirs is the mean over the shares."""
    logit, label, weight = batch()
    parts = (slice(0, 2), slice(2, 6))
    shares = [
        batch_loss(
            name, logit[rows], label=label[rows], weight=weight[rows], context=context(label)
        )
        for rows in parts
    ]
    if name in ("two-way", "auc-margin"):
        of_parts = [value(name, logit[rows], label[rows]) for rows in parts]
        expected = (2 * of_parts[0] + 4 * of_parts[1]) / 6
    else:
        expected = value(name, logit, label)
    torch.testing.assert_close(shares[0] + shares[1], expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_have_finite_losses_and_gradients(name: str, dtype: torch.dtype) -> None:
    logit = torch.tensor([[-80.0, 80.0, 0.0, -300.0, 300.0]] * 3, dtype=dtype).requires_grad_()
    label = torch.tensor([[0.0] * 5, [1.0] * 5, [NAN] * 5])
    found = value(name, logit, label)
    (push,) = torch.autograd.grad(found, logit)
    assert found.dtype == torch.float32
    assert found.isfinite()
    assert push.isfinite().all()


def test_extreme_cells_are_what_they_should_be() -> None:
    logit = torch.tensor([[-80.0, 80.0]] * 2).requires_grad_()
    label = torch.tensor([[0.0] * 2, [1.0] * 2])
    # asymmetric: timm's -ln 1e-8, and -.95 ** 4 * ln .05
    wrong = {
        "bce": (80, 80),
        "w-cel": (160, 160),
        "focal": (20, 60),
        "asymmetric": (18.420681, 2.440043),
        "poly": (82, 82),
    }
    for name, expected in wrong.items():
        costs = cells(name, logit, label)
        (push,) = torch.autograd.grad(costs.sum(), logit)
        found = costs.detach()
        assert (float(found[1, 0]), float(found[0, 1])) == pytest.approx(expected, rel=1e-6)
        assert float(found[0, 0]) == pytest.approx(0, abs=1e-9)
        assert float(found[1, 1]) == pytest.approx(0, abs=1e-9)
        assert float(push[1, 0]) < 0 or name == "asymmetric"


def test_a_loss_without_weights_and_a_balance_that_weighs_are_refused() -> None:
    def protocol(loss: str, **balance: object) -> object:
        choices = {"training": {"loss": loss}, "network": [{"name": "alexnet"}], "name": "p"}
        return parse_protocol({**choices, "balance": balance}, name="p")

    protocol("focal", method="partial")
    protocol("zlpr", method="ml-ros")
    with pytest.raises(ValueError, match=r"'zlpr' of alexnet .* which balance 'partial' makes"):
        protocol("zlpr", method="partial")
    with pytest.raises(ValueError, match=r"'two-way' of alexnet .* balance 'positive-weights'"):
        protocol("two-way", method="ml-ros", then="positive-weights")
    with pytest.raises(ValueError, match="reweigh_after means nothing to loss 'bce'; it belongs"):
        Training(reweigh_after=0.5)
    assert Training(loss="ldam", reweigh_after=0.5).reweigh_after == 0.5


def test_a_training_counts_its_labels_and_weighs_classes_late(tmp_path: Path) -> None:
    """LDAM whose weights begin after half of two epochs departs from the one without them then."""
    films, losses = toy_films(24), []
    label = films.manifest.label
    label[6:, 0] = 0  # a rare finding, whose classes weigh differently
    for share in (1.0, 0.5):
        protocol = toy_protocol(loss="ldam", reweigh_after=share)
        choice, out = protocol.network[0], tmp_path / f"{share}"
        given = {"plan": toy_plan(films), "upstream": {"split": "toys"}, "progress": silent}
        train(films, protocol=protocol, choice=choice, out=out, **given)
        losses.append(pd.read_csv(out / "steps.csv")["loss"].to_numpy())
    late, half = losses[0], len(losses[0]) // 2
    np.testing.assert_array_equal(losses[0][:half], losses[1][:half])
    assert abs(losses[1][half] / late[half] - 1) > 0.02


def tensor(values: object) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def test_soft_targets_are_what_a_loss_sees_and_nothing_else() -> None:
    """The cross-entropy of one uncertain cell of target .7, from scikit-learn's definition."""
    toys = toy_films(8)
    image = toys.manifest.image[:1]
    label = toys.manifest.label.copy()
    label[0, 0] = NAN
    soft = pd.DataFrame({"image": image, "finding": "Left", "share": 0.7})
    manifest = replace(toys.manifest, label=label, soft=soft)
    plan = toy_plan(replace(toys, manifest=manifest))
    films = Films(prepared=replace(toys, manifest=manifest), plan=plan, copies=0)
    seen = torch.from_numpy(films.targets(np.array([0])).label)
    assert seen[0, 0] == pytest.approx(0.7)
    logit = torch.tensor([[0.4, -0.3]])
    cells = [log_loss([1, 0], [expit(0.4)] * 2, sample_weight=[0.7, 0.3])]
    cells.append(log_loss([int(label[0, 1])], [expit(-0.3)], labels=[0, 1]))
    assert float(value("bce", logit, seen)) == pytest.approx(np.mean(cells), rel=1e-6)
    assert np.isnan(films.plan.label[0, 0])  # what thresholds, metrics and probes are shown
    stated = count_labels(films.aims).sum(dim=0)
    assert stated.tolist() == [8, 8]
