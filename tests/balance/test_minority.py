"""ML-RUS, ML-ROS and REMEDIAL against the papers' definitions and imbalance.md's table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import chisquare

from lucency.balance.imbalance import measure, scumble_of_films
from lucency.balance.resampling import ml_ros, ml_rus, remedial
from lucency.core.manifest import Manifest
from lucency.core.plan import RECIPES, Plan
from lucency.data.labels import read_official_lists

# imbalance.md: minority findings, REMEDIAL's clones, rows after, SCUMBLE after.
DECOUPLED = {
    "emotions": (4, 222, 815, "0.000562"),
    "birds": (7, 140, 785, "0.013383"),
    "scene": (2, 151, 2558, "0.000253"),
    "yeast": (2, 817, 3234, "0.064540"),
    "genbase": (8, 90, 752, "0.013958"),
    "enron": (12, 845, 2547, "0.192852"),
    "chestxray14": (3, 15_895, 128_015, "0.018283"),
    "train_val": (2, 11_573, 98_097, "0.017579"),
}
LABELS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=25),
    elements=st.sampled_from([0, 0, 1, np.nan]),
)


@pytest.fixture(scope="module")
def label_of(
    shared: Path, nih_films: Manifest, chestxray14: np.ndarray
) -> Callable[[str], np.ndarray]:
    train_val, _ = read_official_lists(shared / "nih")
    films = {
        "chestxray14": chestxray14,
        "train_val": chestxray14[np.isin(nih_films.image, train_val)],
    }

    def read(name: str) -> np.ndarray:
        if name in films:
            return films[name]
        return np.load(shared / "multilabel" / f"{name}.npz")["label"].astype(np.float32)

    return read


def rarity(label: np.ndarray) -> tuple[list[float], float, list[int]]:
    """Return IRLbl of every finding, MeanIR and the minority findings, counted by hand."""
    count = [sum(1 for value in column if value == 1) for column in label.T.tolist()]
    ratio = [max(count) / number if number else np.nan for number in count]
    there = [value for value in ratio if value == value]
    mean = sum(there) / len(there) if there else np.nan
    return ratio, mean, [finding for finding, value in enumerate(ratio) if value > mean]


def round_robin(label: np.ndarray, drawn: list[int], *, asked: int) -> bool:
    """Say whether the films drawn are ones that ML-ROS may draw, in that order."""
    _, mean, minority = rarity(label)
    count, members, place = (label == 1).sum(axis=0), list(minority), 0
    for film in drawn:
        if not members or label[film, members[place]] != 1:
            return False
        count = count + (label[film] == 1)
        if count.max() / count[members[place]] <= mean:
            members.pop(place)
        else:
            place += 1
        place = place if place < len(members) else 0
    return len(drawn) <= asked


def never_rarer(label: np.ndarray, after: np.ndarray) -> bool:
    """Say whether no minority finding's IRLbl has risen."""
    before, _, minority = rarity(label)
    ratio, _, _ = rarity(after)
    return all(ratio[finding] <= before[finding] for finding in minority)


def without_a_guard(label: np.ndarray, *, asked: int, seed: int) -> np.ndarray:
    """Return the labels after ML-ROS exactly as the paper prints it."""
    generator = np.random.default_rng(seed)
    _, mean, members = rarity(label)
    bags = {finding: np.flatnonzero(label[:, finding] == 1) for finding in members}
    drawn: list[int] = []
    count = (label == 1).sum(axis=0)
    while bags and len(drawn) < asked:
        for finding in list(bags):
            drawn.append(int(generator.choice(bags[finding])))
            count = count + (label[drawn[-1]] == 1)
            if count.max() / count[finding] <= mean:
                del bags[finding]
    return np.vstack([label, label[drawn[:asked]]])


def entries_hold(plan: Plan, films: int) -> bool:
    """Say whether originals come first and ascend, and no entry is there twice."""
    kept = plan.row[plan.copy == 0]
    pairs = {*zip(plan.row, plan.copy, strict=True)}
    first = bool((plan.copy[: len(kept)] == 0).all())
    return first and bool((np.diff(kept) > 0).all()) and len(pairs) == len(plan) >= films


@pytest.mark.parametrize("name", [name for name in DECOUPLED if name != "train_val"])
def test_undersampling_drops_as_many_as_asked_and_no_minority_film(
    name: str, label_of: Callable[[str], np.ndarray]
):
    label = label_of(name)
    _, _, minority = rarity(label)
    assert len(minority) == DECOUPLED[name][0]
    rare = np.flatnonzero(label[:, minority].any(axis=1))
    plan = ml_rus(label, percent=10.0, seed=0)
    assert len(plan) == len(label) - len(label) // 10
    assert np.isin(rare, plan.row).all()
    assert not np.isin(rare, np.random.default_rng(0).choice(len(label), len(plan))).all()
    plan = ml_rus(label, percent=1000.0, seed=0)
    assert plan.row.tolist() == rare.tolist()


def test_every_removable_film_has_the_same_chance():
    label = np.zeros((20, 2), dtype=np.float32)
    label[:10, 0] = 1
    label[0, 1] = 1
    gone = np.zeros(20)
    for seed in range(400):
        gone += 1 - np.isin(np.arange(20), ml_rus(label, percent=20.0, seed=seed).row)
    assert gone[0] == 0
    assert gone.sum() == 1600
    assert chisquare(gone[1:]).pvalue > 0.01
    assert chisquare(gone).pvalue < 1e-6


def test_oversampling_by_hand():
    """Counts 8, 2, 1: IRLbl 1, 4, 8, MeanIR 4.33; one copy of the third's film brings 4."""
    label = np.zeros((11, 3), dtype=np.float32)
    label[:8, 0] = label[8:10, 1] = label[10, 2] = 1
    plan = ml_ros(label, percent=100.0, copies="exact", seed=0)
    assert plan.row.tolist() == [*range(11), 10]
    assert plan.copy.tolist() == [0] * 11 + [1]


def test_oversampling_takes_turns_by_hand():
    """Counts 12, 1, 1, 6: IRLbl 1, 12, 12, 2, MeanIR 6.75; a copy each brings 6."""
    label = np.zeros((20, 4), dtype=np.float32)
    label[:12, 0] = label[12, 1] = label[13, 2] = label[14:, 3] = 1
    for percent, copied in ((5.0, [12]), (10.0, [12, 13]), (14.9, [12, 13]), (50.0, [12, 13])):
        plan = ml_ros(label, percent=percent, copies="exact", seed=0)
        assert plan.row[plan.copy > 0].tolist() == copied


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [*DECOUPLED][:6])
def test_oversampling_takes_turns(name: str, seed: int, label_of: Callable[[str], np.ndarray]):
    label = label_of(name)
    asked = len(label) // 4
    plan = ml_ros(label, percent=25.0, copies="gentle", seed=seed)
    drawn = plan.row[plan.copy > 0].tolist()
    assert len(drawn) > 1
    assert entries_hold(plan, len(label))
    assert round_robin(label, drawn, asked=asked)
    assert never_rarer(label, plan.label)
    assert not round_robin(label, drawn[1:] + drawn[:1], asked=asked)


def test_a_finding_leaves_when_it_is_no_longer_rare(label_of: Callable[[str], np.ndarray]):
    """ChestX-ray14's Pneumonia, Fibrosis and Hernia all reach MeanIR long before 28,030 copies."""
    label = label_of("chestxray14")
    ratio, mean, minority = rarity(label)
    plan = ml_ros(label, percent=25.0, copies="gentle", seed=0)
    copies = plan.row[plan.copy > 0]
    assert len(copies) < 2000
    assert round_robin(label, copies.tolist(), asked=28_030)
    after, _, _ = rarity(plan.label)
    # Once a finding has left, the copies of others may raise the commonest a little.
    assert [after[finding] / mean for finding in minority] == pytest.approx([1, 1, 1], abs=0.03)
    assert max(ratio) > 7 * mean
    few = ml_ros(label, percent=1.0, copies="gentle", seed=0)
    assert (few.copy > 0).sum() == 1121


def test_no_minority_finding_becomes_rarer(label_of: Callable[[str], np.ndarray]):
    """As printed, ML-ROS makes a finding of emotions rarer than it was."""
    label = label_of("emotions")
    assert not never_rarer(label, without_a_guard(label, asked=148, seed=0))
    plan = ml_ros(label, percent=25.0, copies="gentle", seed=0)
    assert never_rarer(label, plan.label)
    assert (plan.copy > 0).sum() > 100


def test_where_no_copy_helps_there_is_none():
    """Every rare film carries the commonest finding: each copy takes from all but its own."""
    label = np.zeros((15, 6), dtype=np.float32)
    label[:, 0] = 1
    label[:10, 4:] = 1
    for finding in range(1, 4):
        label[finding::3, finding] = 1
    assert not never_rarer(label, without_a_guard(label, asked=2, seed=0))
    assert not ml_ros(label, percent=14.0, copies="exact", seed=0).copy.any()


@settings(max_examples=80, deadline=None)
@given(label=LABELS, percent=st.floats(0.1, 300), seed=st.integers(0, 99))
def test_what_holds_for_any_labels(label: np.ndarray, percent: float, seed: int):
    _, _, minority = rarity(label)
    asked = int(len(label) * percent / 100)
    carried = (label[:, minority] == 1).any(axis=1)
    fewer = ml_rus(label, percent=percent, seed=seed)
    assert len(label) - len(fewer) == min(asked, int((~carried).sum()))
    assert set(np.flatnonzero(carried)) <= set(fewer.row)
    more = ml_ros(label, percent=percent, copies="gentle", seed=seed)
    drawn = more.row[more.copy > 0]
    assert entries_hold(more, len(label))
    assert carried[drawn].all()
    assert round_robin(label, drawn.tolist(), asked=asked)
    for plan in (fewer, more):
        assert never_rarer(label, plan.label)
        np.testing.assert_array_equal(plan.label, label[plan.row])


@pytest.mark.parametrize("name", DECOUPLED)
def test_remedial_is_the_published_one(name: str, label_of: Callable[[str], np.ndarray]):
    label = label_of(name)
    minorities, clones, rows, scumble = DECOUPLED[name]
    names = tuple(str(finding) for finding in range(label.shape[1]))
    plan = remedial(label, copies="gentle")
    assert (plan.copy > 0).sum() == clones
    assert len(plan) == rows
    before, after = (measure(shown, names=names) for shown in (label, plan.label))
    assert before.per_finding["minority"].to_numpy().sum() == minorities
    assert after.per_finding["count"].tolist() == before.per_finding["count"].tolist()
    first, then = before.summary.to_dict(), after.summary.to_dict()
    assert then["mean_ir"] == first["mean_ir"]
    assert f"{then['scumble']:.6f}" == scumble != f"{first['scumble']:.6f}"


def test_remedial_by_hand():
    """The second finding is rare; a film with it and the first is told apart, NaN stays NaN."""
    label = np.array([[1, 0, np.nan], [1, 0, 0], [1, np.nan, 0], [1, 1, np.nan]], dtype=np.float32)
    plan = remedial(label, copies="exact")
    assert plan.row.tolist() == [0, 1, 2, 3, 3]
    assert plan.copy.tolist() == [0, 0, 0, 0, 1]
    np.testing.assert_array_equal(plan.label[:3], label[:3])
    np.testing.assert_array_equal(plan.label[3:], [[1, 0, np.nan], [0, 1, np.nan]])


@settings(max_examples=80, deadline=None)
@given(label=LABELS)
def test_remedial_parts_every_film_without_loss(label: np.ndarray):
    _, _, minority = rarity(label)
    plan = remedial(label, copies="gentle")
    assert plan.row[: len(label)].tolist() == list(range(len(label)))
    assert entries_hold(plan, len(label))
    np.testing.assert_array_equal(np.isnan(plan.label), np.isnan(label[plan.row]))
    for entry in range(len(label), len(plan)):
        film = plan.row[entry]
        first, second = plan.label[film] == 1, plan.label[entry] == 1
        assert not (first & second).any()
        assert ((first | second) == (label[film] == 1)).all()
        assert not first[minority].any()
        assert set(np.flatnonzero(second)) <= set(minority)
    untouched = np.setdiff1d(np.arange(len(label)), plan.row[len(label) :])
    np.testing.assert_array_equal(plan.label[untouched], label[untouched])


def test_a_last_digit_parts_no_film():
    """SCUMBLE is the same for all, or 0 for all, up to rounding: no film is above the mean."""
    alike = np.hstack([np.ones((11, 1)), np.eye(11)]).astype(np.float32)
    single = np.repeat(np.eye(4), [1, 9, 10, 3], axis=0).astype(np.float32)
    for label in (alike, single):
        scumble = scumble_of_films(label)
        assert np.ptp(scumble) < 1e-12
        assert (scumble > scumble.mean()).any()
        assert len(remedial(label, copies="exact")) == len(label)


@pytest.mark.parametrize("films", [0, 1, 4])
def test_films_without_any_finding_stay_as_they_are(films: int):
    label = np.zeros((films, 2), dtype=np.float32)
    for plan in (
        remedial(label, copies="exact"),
        ml_ros(label, percent=50.0, copies="exact", seed=0),
    ):
        assert plan.row.tolist() == list(range(films))
    assert len(ml_rus(label, percent=50.0, seed=0)) == films - films // 2


def test_the_seed_decides(label_of: Callable[[str], np.ndarray]):
    label = label_of("scene")
    for one, same, other in (
        [ml_rus(label, percent=25.0, seed=seed) for seed in (3, 3, 4)],
        [ml_ros(label, percent=25.0, copies="gentle", seed=seed) for seed in (3, 3, 4)],
    ):
        assert one.row.tolist() == same.row.tolist() != other.row.tolist()


def test_copies_follow_the_recipe(label_of: Callable[[str], np.ndarray]):
    label = label_of("scene")
    for copies, recipe in RECIPES.items():
        for plan in (
            remedial(label, copies=copies),
            ml_ros(label, percent=5.0, copies=copies, seed=0),
        ):
            made = plan.copy > 0
            assert made.any()
            expected = [f"{recipe}#{number}" for number in plan.copy[made]]
            assert plan.transform[made].tolist() == expected
