"""Weights: what each finding's positives and negatives weigh in sum, and how often films come."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import chisquare
from sklearn.utils.class_weight import compute_class_weight

from lucency.balance.resampling import class_aware, partial, positive_weights, weighted_sampler
from lucency.core.plan import RECIPES, Plan

LABELS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.sampled_from([0, 0, 0, 1, np.nan]),
)


def columns(*findings: tuple[int, int]) -> np.ndarray:
    """Return labels of so many positives and negatives a finding, not stated for the rest."""
    label = np.full((max(sum(pair) for pair in findings), len(findings)), np.nan)
    for finding, (positives, negatives) in enumerate(findings):
        label[:positives, finding] = 1
        label[positives : positives + negatives, finding] = 0
    return label.astype(np.float32)


def weighted(label: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return what each finding's positives and negatives weigh in sum."""
    weight = plan.weight.astype(np.float64)
    return (weight * (label == 1)).sum(axis=0), (weight * (label == 0)).sum(axis=0)


def films_as_they_are(label: np.ndarray, plan: Plan) -> None:
    assert plan.row.tolist() == list(range(len(label)))
    assert not plan.copy.any()
    np.testing.assert_array_equal(plan.label, label)


def test_partial_by_hand():
    """The four cases at ratio 3 and weight 2; of the last, 10 negatives are 5 positives' due."""
    label = columns((10, 100), (10, 45), (10, 30), (0, 80), (10, 0), (10, 60), (10, 61))
    plan = partial(label, ratio=3.0, positive_weight=2.0, seed=0)
    positives, negatives = weighted(label, plan)
    assert positives.tolist() == [20, 15, 10, 0, 10, 20, 20]
    assert negatives.tolist() == [60, 45, 30, 80, 0, 60, 60]
    light = partial(label, ratio=2.0, positive_weight=0.5, seed=0)
    positives, negatives = weighted(label, light)
    assert positives.tolist() == [5, 5, 5, 0, 10, 5, 5]
    assert negatives.tolist() == [10, 10, 10, 80, 0, 10, 10]


@settings(max_examples=100, deadline=None)
@given(
    label=LABELS,
    ratio=st.floats(0.05, 30),
    positive_weight=st.floats(0.1, 20),
    seed=st.integers(0, 99),
)
def test_partial_is_exactly_as_asked(
    label: np.ndarray, ratio: float, positive_weight: float, seed: int
):
    plan = partial(label, ratio=ratio, positive_weight=positive_weight, seed=seed)
    films_as_they_are(label, plan)
    assert (plan.weight[np.isnan(label)] == 1).all()
    assert np.isin(plan.weight[label == 0], (0, 1)).all()
    positives, negatives = weighted(label, plan)
    for finding, value in enumerate(label.T):
        ones, zeros = int((value == 1).sum()), int((value == 0).sum())
        heavy = plan.weight[value == 1, finding]
        if not ones or zeros <= ratio * ones:
            assert (plan.weight[:, finding] == 1).all()
            continue
        assert len(set(heavy.tolist())) == 1
        assert heavy[0] <= np.float32(positive_weight)
        assert negatives[finding] == pytest.approx(ratio * positives[finding], abs=0.501, rel=1e-6)
        if zeros >= ratio * positive_weight * ones + 1:
            assert heavy[0] == np.float32(positive_weight)
        else:
            assert negatives[finding] == pytest.approx(zeros, abs=1)


@settings(max_examples=60, deadline=None)
@given(label=LABELS, seed=st.integers(0, 99), draw=st.data())
def test_no_other_finding_s_weights_move(label: np.ndarray, seed: int, draw: st.DataObject):
    finding = draw.draw(st.integers(0, label.shape[1] - 1))
    changed = label.copy()
    changed[:, finding] = np.random.default_rng(seed).permutation(label[:, 0] != 1)
    assume((changed[:, finding] != label[:, finding]).any())
    for plan, again in (
        [partial(shown, ratio=1.5, positive_weight=2.0, seed=seed) for shown in (label, changed)],
        [positive_weights(shown) for shown in (label, changed)],
    ):
        others = np.arange(label.shape[1]) != finding
        np.testing.assert_array_equal(plan.weight[:, others], again.weight[:, others])


def test_dropping_films_for_one_finding_does_move_the_others(chestxray14: np.ndarray):
    """Films without weight for Infiltration, if dropped, would cost every finding a fifth."""
    label = chestxray14
    plan = partial(label, ratio=2.0, positive_weight=1.0, seed=0)
    positives, negatives = weighted(label, plan)
    count = (label == 1).sum(axis=0)
    assert positives.tolist() == count.tolist()
    assert negatives.tolist() == (2 * count).tolist()
    kept = plan.weight[:, 3] > 0
    others = np.arange(label.shape[1]) != 3
    assert ((label[kept] == 1).sum(axis=0) < 0.8 * count)[others].all()


def test_partial_on_chestxray14_at_its_defaults(chestxray14: np.ndarray):
    count = (chestxray14 == 1).sum(axis=0)
    plan = partial(chestxray14, ratio=10.0, positive_weight=2.0, seed=0)
    positives, negatives = weighted(chestxray14, plan)
    hernia, infiltration = 13, 3
    assert count[[hernia, infiltration]].tolist() == [227, 19_894]
    assert (positives[hernia], negatives[hernia]) == (454, 4540)
    # 92,226 negatives to 19,894 positives are below 10 to 1: left as they are.
    assert (plan.weight[:, infiltration] == 1).all()
    np.testing.assert_allclose(negatives, np.minimum(10 * positives, len(chestxray14) - count))


def test_every_negative_has_the_same_chance():
    label = columns((5, 25))
    zero = np.zeros(30)
    for seed in range(400):
        zero += partial(label, ratio=2.0, positive_weight=1.0, seed=seed).weight[:, 0] == 0
    assert zero[:5].sum() == 0
    assert chisquare(zero[5:]).pvalue > 0.01
    assert chisquare(zero).pvalue < 1e-6


def test_positives_weigh_what_scikit_learn_says(chestxray14: np.ndarray):
    label = chestxray14
    plan = positive_weights(label)
    films_as_they_are(label, plan)
    assert (plan.weight[label == 0] == 1).all()
    for finding, value in enumerate(label.T):
        light, heavy = compute_class_weight("balanced", classes=np.array([0, 1]), y=value)
        ours = plan.weight[value == 1, finding]
        np.testing.assert_allclose(ours, heavy / light, rtol=1e-6)


def test_a_finding_with_one_kind_of_film_weighs_1():
    label = columns((0, 9), (6, 0), (2, 6), (0, 0))
    weight = positive_weights(label).weight
    assert weight[label == 1].tolist() == [1, 3] * 2 + [1] * 4
    assert (weight[label != 1] == 1).all()


def chances(label: np.ndarray) -> np.ndarray:
    """Return each film's chance by a slow loop over its findings."""
    count = {finding: sum(label[:, finding] == 1) for finding in range(label.shape[1])}
    none = sum(not (row == 1).any() for row in label)
    weight = []
    for row in label:
        carried = [1 / count[finding] for finding in count if row[finding] == 1]
        weight.append(sum(carried) / len(carried) if carried else 1 / none)
    return np.array(weight) / sum(weight)


def invented(films: int = 60) -> np.ndarray:
    generator = np.random.default_rng(0)
    label = (generator.random((films, 4)) < (0.5, 0.3, 0.1, 0.05)).astype(np.float32)
    label[generator.random(label.shape) < 0.1] = np.nan
    return label


def test_films_come_as_often_as_their_rarity_says():
    label = invented()
    times = np.zeros(len(label))
    for seed in range(300):
        plan = weighted_sampler(label, copies="exact", seed=seed)
        assert len(plan) == len(label)
        times += np.bincount(plan.row, minlength=len(label))
    expected = chances(label) * times.sum()
    assert expected.min() > 20
    assert chisquare(times, expected).pvalue > 0.01
    assert chisquare(times).pvalue < 1e-6
    assert chisquare(times, np.roll(expected, 1)).pvalue < 1e-6


def test_class_aware_draws_classes_and_then_films_equally_often():
    """Four findings and the films without any: 12 draws of 60 each, shared by a class's films."""
    label = invented()
    active = np.column_stack([label == 1, ~(label == 1).any(axis=1)])
    share = (active / active.sum(axis=0)).sum(axis=1) * 12
    times = np.zeros(len(label))
    for seed in range(100):
        plan = class_aware(label, copies="exact", seed=seed)
        drawn = np.bincount(plan.row, minlength=len(label))
        assert len(plan) == len(label)
        assert (np.abs(drawn - share) < active.sum(axis=1)).all()
        times += drawn
    np.testing.assert_allclose(times / 100, share, atol=0.25)
    alone = active[:, 0] & (active.sum(axis=1) == 1)
    assert np.ptp(drawn[alone]) <= 1


def test_class_aware_has_no_class_that_no_film_has():
    """A film of the first finding, three without any, none of the second: two draws of each."""
    label = np.array([[1, 0], [0, 0], [0, np.nan], [0, 0]], dtype=np.float32)
    plan = class_aware(label, copies="exact", seed=0)
    assert (plan.row == 0).sum() == 2
    assert len(plan) == 4
    everywhere = np.ones((3, 1), dtype=np.float32)
    assert class_aware(everywhere, copies="exact", seed=0).row.tolist() == [0, 1, 2]


def test_class_aware_of_chestxray14(chestxray14: np.ndarray):
    """Fifteen classes of 112,120 / 15 draws; a finding has those of its class at least."""
    plan = class_aware(chestxray14, copies="gentle", seed=0)
    assert (plan.label.sum(axis=0) >= len(chestxray14) // 15).all()
    without = (plan.label == 0).all(axis=1).sum()
    assert without in (len(chestxray14) // 15, len(chestxray14) // 15 + 1)
    hernia = chestxray14.sum(axis=0).argmin()
    times = np.bincount(plan.row, minlength=len(chestxray14))[chestxray14[:, hernia] == 1]
    assert times.min() >= len(chestxray14) // 15 // 227


@pytest.mark.parametrize("sampler", [weighted_sampler, class_aware])
def test_the_first_draw_is_the_film_and_further_ones_are_copies(sampler: Callable[..., Plan]):
    label = invented()
    for copies, recipe in RECIPES.items():
        plan = sampler(label, copies=copies, seed=0)
        kept = plan.row[plan.copy == 0]
        assert (plan.copy[: len(kept)] == 0).all()
        assert (np.diff(kept) > 0).all()
        assert 0 < len(kept) < len(label)
        assert {*plan.row} == {*kept}
        for film in kept:
            copy = plan.copy[plan.row == film]
            assert copy.tolist() == list(range(len(copy)))
        made = plan.copy > 0
        expected = [f"{recipe}#{number}" for number in plan.copy[made]]
        assert plan.transform[made].tolist() == expected
        np.testing.assert_array_equal(plan.label, label[plan.row])
        assert (plan.weight == 1).all()


def test_findings_come_about_equally_often_on_chestxray14(chestxray14: np.ndarray):
    """Each finding within 5 deviations of what the sum of its films' chances promises."""
    label = chestxray14.astype(np.float64)
    count = label.sum(axis=0)
    carried = label.sum(axis=1)
    rows = [(1 / count[row == 1]).mean() if row.any() else 0 for row in label[carried > 0]]
    share = np.array(rows) / (sum(rows) + 1)
    expected = len(label) * share @ label[carried > 0]
    plan = weighted_sampler(chestxray14, copies="gentle", seed=0)
    found = plan.label.sum(axis=0)
    assert (np.abs(found - expected) < 5 * np.sqrt(expected)).all()
    assert found.max() / found.min() < 5 < count.max() / count.min()


@pytest.mark.parametrize("draw", ["partial", "weighted-sampler", "class-aware"])
def test_the_seed_decides(draw: str):
    method: dict[str, Callable[[int], Plan]] = {
        "partial": lambda seed: partial(invented(), ratio=1.0, positive_weight=1.0, seed=seed),
        "weighted-sampler": lambda seed: weighted_sampler(invented(), copies="exact", seed=seed),
        "class-aware": lambda seed: class_aware(invented(), copies="exact", seed=seed),
    }
    one, same, other = (method[draw](seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.weight, same.weight)
    np.testing.assert_array_equal(one.row, same.row)
    assert (one.weight != other.weight).any() or (one.row != other.row).any()
