"""LP-RUS and LP-ROS against the paper's pseudo-code, run slowly in fractions, on published sets."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import chisquare

from lucency.balance.resampling import lp_ros, lp_rus
from lucency.core.plan import RECIPES, Plan

SETS = ("birds", "emotions", "enron", "genbase", "scene", "yeast", "chestxray14")
LABELS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=25),
    elements=st.sampled_from([0, 0, 1, np.nan]),
)


@pytest.fixture(scope="module")
def label_of(shared: Path, chestxray14: np.ndarray) -> Callable[[str], np.ndarray]:
    def read(name: str) -> np.ndarray:
        if name == "chestxray14":
            return chestxray14
        return np.load(shared / "multilabel" / f"{name}.npz")["label"].astype(np.float32)

    return read


def bags(label: np.ndarray) -> Counter[bytes]:
    """Return the number of films of every labelset."""
    return Counter(row.tobytes() for row in label == 1)


def sizes_after(size: list[int], *, percent: float, sign: int) -> list[tuple[int, int]]:
    """Return every bag's size before and after, by Algorithm 1 of Charte et al. (2015).

    `sign` is 1 for LP-RUS, which visits bags above the mean from the smallest up, and -1 for
    LP-ROS, which visits those below it from the largest down. A bag changes by whole films.
    """
    mean = Fraction(sum(size), len(size))
    visited = sorted((n for n in size if sign * (n - mean) > 0), key=lambda n: sign * n)
    change = Fraction(sum(size) * percent) / 100 / max(1, len(visited))
    after = [(n, n) for n in size if sign * (n - mean) <= 0]
    for place, n in enumerate(visited):
        moved = floor(min(abs(n - mean), change))
        after.append((n, n - sign * moved))
        change += (change - moved) / max(1, len(visited) - place - 1)
    return sorted(after)


def films_moved(label: np.ndarray, plan: Plan) -> list[tuple[int, int]]:
    """Return every bag's size before and after, as the plan has it."""
    before, after = bags(label), bags(plan.label)
    assert set(after) <= set(before)
    return sorted((number, after[key]) for key, number in before.items())


def resampled(label: np.ndarray, *, percent: float, sign: int, seed: int = 0) -> Plan:
    if sign > 0:
        return lp_rus(label, percent=percent, seed=seed)
    return lp_ros(label, percent=percent, copies="gentle", seed=seed)


def test_the_bags_of_chestxray14(label_of: Callable[[str], np.ndarray]):
    """The numbers derived in imbalance.md, and what the plans make of them."""
    label = label_of("chestxray14")
    size = np.array(list(bags(label).values()))
    mean = len(label) / len(size)
    assert round(mean, 3) == 139.975
    assert (size > mean).sum() == 44
    assert size[size > mean].sum() == 104_036
    assert (size < mean).sum() == 757
    fewer = np.array(films_moved(label, lp_rus(label, percent=25.0, seed=0)))
    more = np.array(films_moved(label, lp_ros(label, percent=25.0, copies="gentle", seed=0)))
    assert (fewer[:, 0] - fewer[:, 1]).sum() == (more[:, 1] - more[:, 0]).sum() == 28_030
    assert round(28_030 / (fewer[:, 0] > mean).sum(), 2) == 637.05
    assert (more[:, 1] - more[:, 0]).max() == 38  # 28,030 / 757 = 37.03, and the rest to the last
    # Without the mean as the floor, 637 films would be asked of bags that have no more than 140.
    assert size[size > mean].min() < 637.05 + mean
    assert fewer[fewer[:, 0] > mean][:, 1].min() == 140


@pytest.mark.parametrize("percent", [1.0, 25.0, 100.0])
@pytest.mark.parametrize("sign", [1, -1], ids=["lp-rus", "lp-ros"])
@pytest.mark.parametrize("name", SETS)
def test_every_bag_is_as_large_as_the_paper_says(
    name: str, sign: int, percent: float, label_of: Callable[[str], np.ndarray]
):
    label = label_of(name)
    expected = sizes_after(list(bags(label).values()), percent=percent, sign=sign)
    plan = resampled(label, percent=percent, sign=sign)
    assert films_moved(label, plan) == expected
    assert len(plan) == sum(after for _, after in expected)


def test_what_a_bag_cannot_give_the_bigger_ones_give():
    """Bags of 1, 1, 6 and 16 films, mean 6: LP-RUS gives all of its 12 from the last two."""
    label = np.zeros((24, 2), dtype=np.float32)
    label[1:2] = (1, 1)
    label[2:8] = (0, 1)
    label[8:] = (1, 0)
    plan = lp_rus(label, percent=40.0, seed=0)
    assert films_moved(label, plan) == [(1, 1), (1, 1), (6, 6), (16, 7)]
    plan = lp_rus(label, percent=50.0, seed=0)
    assert films_moved(label, plan) == [(1, 1), (1, 1), (6, 6), (16, 6)]
    plan = lp_ros(label, percent=25.0, copies="exact", seed=0)
    assert films_moved(label, plan) == [(1, 4), (1, 4), (6, 6), (16, 16)]
    plan = lp_ros(label, percent=1000.0, copies="exact", seed=0)
    assert films_moved(label, plan) == [(1, 6), (1, 6), (6, 6), (16, 16)]


@settings(max_examples=60, deadline=None)
@given(label=LABELS, percent=st.floats(0.1, 300), seed=st.integers(0, 99))
def test_no_bag_passes_the_mean_and_the_total_is_as_asked(
    label: np.ndarray, percent: float, seed: int
):
    number = len(bags(label))
    for sign in (1, -1):
        plan = resampled(label, percent=percent, sign=sign, seed=seed)
        room = moved = 0
        for before, after in films_moved(label, plan):
            above = sign * (before * number - len(label))
            room += max(0, above // number)
            moved += abs(after - before)
            assert above > 0 or after == before
            assert after == before or sign * (after * number - len(label)) >= 0
        assert moved == min(room, floor(len(label) * percent / 100))
        np.testing.assert_array_equal(plan.label, label[plan.row])
        kept = plan.row[plan.copy == 0]
        assert (np.diff(kept) > 0).all()
        assert (plan.copy[: len(kept)] == 0).all()
        assert len({*zip(plan.row, plan.copy, strict=True)}) == len(plan)
        assert (plan.weight == 1).all()


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (7, 3)])
def test_where_all_films_are_alike_nothing_moves(shape: tuple[int, int]):
    label = np.zeros(shape, dtype=np.float32)
    for sign in (1, -1):
        plan = resampled(label, percent=50.0, sign=sign)
        assert plan.row.tolist() == list(range(len(label)))
        assert not plan.copy.any()


def test_the_seed_decides_which_films_never_how_many(label_of: Callable[[str], np.ndarray]):
    label = label_of("yeast")
    for sign in (1, -1):
        one, same, other = (resampled(label, percent=25.0, sign=sign, seed=s) for s in (3, 3, 4))
        assert one.row.tolist() == same.row.tolist() != other.row.tolist()
        assert films_moved(label, one) == films_moved(label, other)


def test_every_film_of_a_bag_has_the_same_chance():
    label = np.zeros((30, 1), dtype=np.float32)
    label[20:] = 1
    gone, copied = np.zeros(30), np.zeros(30)
    for seed in range(200):
        gone += 1 - np.isin(np.arange(30), lp_rus(label, percent=10.0, seed=seed).row)
        plan = lp_ros(label, percent=10.0, copies="exact", seed=seed)
        copied += np.bincount(plan.row[plan.copy > 0], minlength=30)
    assert gone[:20].sum() == copied[20:].sum() == 600
    assert chisquare(gone[:20]).pvalue > 0.01
    assert chisquare(copied[20:]).pvalue > 0.01
    assert chisquare(np.arange(20) * 600 / 190).pvalue < 1e-6  # the test does tell them apart


def test_copies_follow_the_recipe(label_of: Callable[[str], np.ndarray]):
    label = label_of("emotions")
    for copies, recipe in RECIPES.items():
        plan = lp_ros(label, percent=25.0, copies=copies, seed=0)
        made = plan.copy > 0
        expected = [f"{recipe}#{number}" for number in plan.copy[made]]
        assert plan.transform[made].tolist() == expected
