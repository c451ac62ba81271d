"""Synthetic films: by eye on a line, against the papers' rules, and on published label tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lucency.balance.neighbourhood import (
    BORDERLINE,
    MAJORITY,
    OUTLIER,
    RARE,
    SAFE,
    difficulty,
    kinds,
    local_imbalance,
    mlsmote,
    mlsol,
)
from lucency.core.plan import FIELDS, Plan

MINORITIES = {"emotions": 4, "birds": 7, "scene": 2, "yeast": 2, "genbase": 8, "enron": 12}  # facts
CUTS = {SAFE: 0.5, BORDERLINE: 0.75, RARE: 2.0, OUTLIER: -1.0}


def table(text: str) -> np.ndarray:
    """Return labels from rows such as "10?"; "?" is not stated."""
    value = {"1": 1.0, "0": 0.0, "?": np.nan}
    return np.array([[value[cell] for cell in row] for row in text.split()], dtype=np.float32)


def line(*place: float) -> np.ndarray:
    return np.array(place, dtype=np.float32)[:, np.newaxis]


def like(label: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return features that tell of the labels, though not all."""
    rng = np.random.default_rng(seed)
    seen = np.nan_to_num(label) @ rng.normal(size=(label.shape[1], 8))
    return (seen + rng.normal(size=seen.shape)).astype(np.float32)


def smote(label: np.ndarray, feature: np.ndarray, neighbours: int = 0, seed: int = 0) -> Plan:
    return mlsmote(label, feature=feature, neighbours=neighbours, labels="ranking", seed=seed)


def sol(label: np.ndarray, feature: np.ndarray, neighbours: int = 0, seed: int = 0) -> Plan:
    return mlsol(label, feature=feature, percent=100.0, neighbours=neighbours, seed=seed)


def made(plan: Plan, label: np.ndarray) -> Plan:
    """Return the synthetic films of a plan, once the originals are seen to be as they were."""
    films = np.arange(len(label))
    own = plan.take(films)
    assert own.row.tolist() == own.mate.tolist() == films.tolist()
    np.testing.assert_array_equal(own.label, label)
    assert not own.copy.any()
    assert not own.mix.any()
    synthetic = plan.take(np.arange(len(label), len(plan)))
    assert (synthetic.copy > 0).all()
    assert (synthetic.mate != synthetic.row).all()
    return synthetic


def same(one: Plan, other: Plan) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in FIELDS]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def minority_bags(label: np.ndarray) -> list[np.ndarray]:
    """Return the films of each finding whose IRLbl is above MeanIR, by the definition."""
    count = (label == 1).sum(axis=0)
    ratio = {k: count.max() / count[k] for k in range(len(count)) if count[k]}
    mean = sum(ratio.values()) / len(ratio)
    return [np.flatnonzero(label[:, k] == 1) for k in ratio if ratio[k] > mean]


def nearest(feature: np.ndarray, count: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=count).fit(feature).kneighbors(return_distance=False)


def published(name: str, shared: Path) -> np.ndarray:
    return np.load(shared / "multilabel" / f"{name}.npz")["label"].astype(np.float32)


# A rare finding's films at 0, 1 and 5; those of a common one lie nearer, but are not asked.
BAG = table("10 10 10 01 01 01 01 01 01 01"), line(0, 1, 5, 0.1, 1.1, 5.1, 7, 8, 9, 10)


def test_mlsmote_mixes_with_the_nearest_film_of_the_same_bag():
    label, place = BAG
    assert [bag.tolist() for bag in minority_bags(label)] == [[0, 1, 2]]
    new = made(smote(label, place, neighbours=1), label)
    assert new.row.tolist() == [0, 1, 2]
    assert new.mate.tolist() == [1, 0, 1]
    assert new.copy.tolist() == [1, 1, 1]
    assert new.transform.tolist() == ["none@1#1"] * 3
    assert new.mix.dtype == np.float32
    assert len(set(new.mix.tolist())) == 3


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("ranking", "1100 1100 1100"),
        ("union", "1111 1111 1111"),
        ("intersection", "1000 1000 1000"),
    ],
)
def test_mlsmote_labels_by_vote_of_the_film_and_its_neighbours(labels: str, told: str):
    """All three films of the bag vote each time: 3, 2, 1 and 1 of them have the findings."""
    label = table("1110 1100 1001" + " 0111" * 9)
    place = line(0, 1, 5, *range(10, 19))
    plan = mlsmote(label, feature=place, neighbours=2, labels=labels, seed=0)
    np.testing.assert_array_equal(made(plan, label).label, table(told))


def test_half_of_the_votes_is_not_a_majority():
    label = table("11 10" + " 01" * 9)
    place = line(0, 1, *range(10, 19))
    assert made(smote(label, place), label).label.tolist() == [[1, 0], [1, 0]]


def test_mlsmote_leaves_open_what_nobody_states():
    """The second finding is open in all voters, the third in all but one, which denies it."""
    label = table("1??1 1?0? 1???" + " 0111" * 9)
    place = line(0, 1, 5, *range(10, 19))
    new = made(smote(label, place, neighbours=2), label)
    np.testing.assert_array_equal(new.label, table("1?00 1?00 1?00"))


def test_a_film_of_two_rare_findings_is_mixed_twice_and_a_lone_film_never():
    """The first two findings share the film at 0, the third has that at 30."""
    label = table("110000 100000 010000 001000" + " 000111" * 13)
    place = line(0, 1, -1, 30, *range(10, 23))
    assert [bag.tolist() for bag in minority_bags(label)] == [[0, 1], [0, 2], [3]]
    new = made(smote(label, place), label)
    assert new.row.tolist() == [0, 1, 0, 2]
    assert new.mate.tolist() == [1, 0, 2, 0]
    assert new.copy.tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize("text", ["1", "10 01", "00 00", "1? ?1", "11 10 10"])
def test_without_a_bag_of_two_there_are_only_the_originals(text: str):
    label = table(text)
    assert not len(made(smote(label, line(*range(len(label)))), label))


@pytest.mark.parametrize("name", MINORITIES)
def test_mlsmote_makes_one_film_for_each_of_a_bag_with_a_neighbour_there(name: str, shared: Path):
    label = published(name, shared)
    feature = like(label)
    new = made(smote(label, feature), label)
    bags = minority_bags(label)
    assert len(bags) == MINORITIES[name]
    bags = [bag for bag in bags if len(bag) > 1]
    assert new.row.tolist() == np.concatenate(bags).tolist()
    start = 0
    for bag in bags:
        near = bag[nearest(feature[bag], min(5, len(bag) - 1))]
        mate = new.mate[start : start + len(bag)]
        assert (mate[:, np.newaxis] == near).any(axis=1).all()
        votes = label[np.column_stack([bag, near])]
        told = new.label[start : start + len(bag)]
        np.testing.assert_array_equal(told, votes.mean(axis=1) > 0.5)
        start += len(bag)


@pytest.mark.parametrize(("labels", "rule"), [("union", np.maximum), ("intersection", np.minimum)])
def test_with_one_neighbour_the_parents_explain_every_label(
    labels: str, rule: Callable[[np.ndarray, np.ndarray], np.ndarray], shared: Path
):
    label = published("enron", shared)
    plan = mlsmote(label, feature=like(label), neighbours=1, labels=labels, seed=0)
    new = made(plan, label)
    np.testing.assert_array_equal(new.label, rule(label[new.row], label[new.mate]))


def test_mlsmote_of_chestxray14(chestxray14: np.ndarray):
    """Its minority findings: Pneumonia, Fibrosis and Hernia, of 1,431, 1,686 and 227 films."""
    new = made(smote(chestxray14, like(chestxray14)), chestxray14)
    assert len(new) == 1431 + 1686 + 227
    assert new.mix.mean() == pytest.approx(0.5, abs=0.03)
    assert new.mix.std() == pytest.approx(np.sqrt(1 / 12), abs=0.02)
    assert len(set(new.names(np.arange(len(chestxray14)).astype(str)).tolist())) == len(new)


def test_another_word_for_the_labels_is_refused():
    label, place = BAG
    with pytest.raises(ValueError, match="'majority', expected one of ranking, union, intersec"):
        mlsmote(label, feature=place, neighbours=0, labels="majority", seed=0)


def test_local_imbalance_is_the_share_of_neighbours_with_the_other_value():
    """Finding 0 is rarely present, finding 1 rarely absent; what is not stated is absent."""
    label = table("11 1? 01 01 01 ?1")
    near = np.array([[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [4, 5, 2, 0], [3, 5, 2, 0], [0] * 4])
    expected = np.full((6, 2), np.nan)
    expected[:2, 0], expected[1, 1] = 0.75, 1
    np.testing.assert_array_equal(local_imbalance(label, near=near), expected)
    half = local_imbalance(table("1 1 0 0"), near=np.array([[1], [2], [3], [0]]))
    np.testing.assert_array_equal(half[:, 0], [0, 1, np.nan, np.nan])


def test_difficulty_shares_out_the_local_imbalance_of_each_finding():
    imbalance = np.array([[0.2, 1], [0.6, 1], [1, np.nan], [0, np.nan], [np.nan, np.nan]])
    expected = [[0.25, 0], [0.75, 0], [0, 0], [0, 0], [0, 0]]
    assert difficulty(imbalance) == pytest.approx(np.array(expected))


def test_kinds_go_by_the_local_imbalance():
    column = np.array([0, 0.2, 0.3, 0.6, 0.7, 0.8, 1, np.nan])[:, np.newaxis]
    alone = np.full((8, 1), 7)
    found = kinds(column, near=alone)[:, 0].tolist()
    expected = [SAFE, SAFE, BORDERLINE, BORDERLINE, RARE, RARE, OUTLIER, MAJORITY]
    assert found == expected


def test_a_rare_film_beside_a_safer_one_is_borderline_and_so_on_along_the_chain():
    """Film 0 is safe; 1, 2 and 3 see the one before, 4 sees 5 and 5 sees 4; 6 sees an outlier."""
    column = np.array([0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 1])[:, np.newaxis]
    near = np.array([[1], [0], [1], [2], [5], [4], [7], [0]])
    found = kinds(column, near=near)[:, 0].tolist()
    assert found == [SAFE, *[BORDERLINE] * 3, *[RARE] * 3, OUTLIER]
    backwards = kinds(column[::-1], near=7 - near[::-1])[::-1, 0].tolist()
    assert backwards == found


# Three A's, of which the third has only films without A beside it: with 3 neighbours the first two
# are borderline (1/3) and equally difficult, the third is an outlier.
ON_A_LINE = table("1 1 1 0 0 0"), line(0.05, 1, 1.9, 2.0, 2.1, 2.2)


def test_mlsol_by_eye():
    """Only the two A's are mixed; with a film without A, A lasts for three quarters of the way."""
    label, place = ON_A_LINE
    new = made(mlsol(label, feature=place, percent=1000.0, neighbours=3, seed=0), label)
    assert len(new) == 60
    assert set(zip(new.row.tolist(), new.mate.tolist(), strict=True)) == {
        (0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)
    }  # fmt: skip
    expected = (new.mate != 3) | (new.mix <= 0.75)
    assert new.label[:, 0].tolist() == expected.tolist()
    assert set(expected.tolist()) == {True, False}
    assert sorted(new.copy[new.row == 0].tolist()) == list(range(1, (new.row == 0).sum() + 1))


def label_by_rule(plan: Plan, label: np.ndarray, near: np.ndarray) -> list[list[float]]:
    """Return MLSOL's labels cell by cell, by the parent of the rarer value."""
    kind = kinds(local_imbalance(label, near=near), near=near)
    entries = zip(plan.row.tolist(), plan.mate.tolist(), plan.mix.tolist(), strict=True)
    return [
        [cell(label[:, k], kind[:, k], first, second, mix) for k in range(label.shape[1])]
        for first, second, mix in entries
    ]


def cell(value: np.ndarray, kind: np.ndarray, first: int, second: int, mix: float) -> float:
    if value[first] == value[second]:
        return value[first]
    if kind[first] == MAJORITY:
        first, second, mix = second, first, 1 - mix
    return value[first] if mix <= CUTS[kind[first]] else value[second]


@pytest.mark.parametrize("name", ["emotions", "yeast"])
def test_mlsol_labels_and_mates_are_as_the_paper_says(name: str, shared: Path):
    label = published(name, shared)
    feature = like(label)
    near = nearest(feature, 5)
    kind = kinds(local_imbalance(label, near=near), near=near)
    assert set(np.unique(kind).tolist()) == {SAFE, BORDERLINE, RARE, OUTLIER, MAJORITY}
    new = made(sol(label, feature), label)
    assert (new.mate[:, np.newaxis] == near[new.row]).any(axis=1).all()
    assert new.label.tolist() == label_by_rule(new, label, near)
    assert (new.label != label[new.row]).any()


def test_mlsol_draws_the_difficult_films_more_often(shared: Path):
    label = published("emotions", shared)
    feature = like(label)
    weight = difficulty(local_imbalance(label, near=nearest(feature, 5))).sum(axis=1)
    new = made(mlsol(label, feature=feature, percent=1000.0, neighbours=0, seed=0), label)
    times = np.bincount(new.row, minlength=len(label))
    expected = 5930 * weight / weight.sum()
    assert len(new) == 5930
    assert not times[weight == 0].any()
    drawn = weight > 0
    spread = (times[drawn] - expected[drawn]) ** 2 / expected[drawn]
    assert spread.mean() == pytest.approx(1, abs=0.3)


def test_mlsol_makes_as_many_as_asked(shared: Path):
    label = published("birds", shared)
    for percent, films in ((0.1, 0), (25.0, 161), (200.0, 1290)):
        plan = mlsol(label, feature=like(label), percent=percent, neighbours=0, seed=0)
        assert len(made(plan, label)) == films


def test_mlsol_makes_nothing_where_nothing_is_rare_nearby():
    """Two clusters, each of one kind: all safe, local imbalance 0. One lone film: an outlier."""
    label, place = table("10 10 10 01 01 01"), line(0, 1, 2.1, 100, 101, 102.1)
    assert not len(made(sol(label, place, neighbours=2), label))
    assert not len(made(sol(table("1 0 0 0"), line(0, 1, 2, 3)), table("1 0 0 0")))
    assert not len(made(sol(table("1"), line(0)), table("1")))


def test_mlsol_hands_down_what_is_not_stated(shared: Path):
    label = published("yeast", shared)
    label[np.random.default_rng(3).random(label.shape) < 0.3] = np.nan
    new = made(sol(label, like(label)), label)
    own, other = label[new.row], label[new.mate]
    first = np.isclose(new.label, own, equal_nan=True)
    second = np.isclose(new.label, other, equal_nan=True)
    assert (first | second).all()
    agree = (own == 1) == (other == 1)
    np.testing.assert_array_equal(new.label[agree], own[agree])
    assert 0.1 < np.isnan(new.label).mean() < 0.4


@pytest.mark.parametrize("method", [smote, sol])
def test_the_seed_decides_alone(method: Callable[..., Plan], shared: Path):
    label = published("birds", shared)
    feature = like(label)
    first = method(label, feature, seed=0)
    assert same(first, method(label, feature, seed=0))
    for seed in (1, 2):
        other = method(label, feature, seed=seed)
        assert not same(first, other)
        assert not np.array_equal(first.mate, other.mate)


@pytest.mark.parametrize("method", [smote, sol])
def test_films_without_features_are_refused(method: Callable[..., Plan]):
    with pytest.raises(ValueError, match="0 features, expected at least 1"):
        method(table("1 0"), np.zeros((2, 0), dtype=np.float32))
