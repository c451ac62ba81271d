"""Films left out for contradicting their neighbours: by eye, and against the papers' rules."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lucency.balance.neighbourhood import adjusted_hamming, mlenn, mltl, mlul
from lucency.core.plan import Plan

# Facts: imbalance.md. By MeanIR and SCUMBLE there: 1 / sqrt(MeanIR) is 0.82, 0.43, 0.89, 0.37, 0.16
# and 0.12; enron's SCUMBLE is 0.302768, the only one above 0.3.
THRESHOLDS = {
    "emotions": 0.5,
    "birds": 0.3,
    "scene": 0.5,
    "yeast": 0.3,
    "genbase": 0.15,
    "enron": 0.5,
}


def table(text: str) -> np.ndarray:
    """Return labels from rows such as "10?"; "?" is not stated."""
    value = {"1": 1.0, "0": 0.0, "?": np.nan}
    return np.array([[value[cell] for cell in row] for row in text.split()], dtype=np.float32)


def line(*place: float) -> np.ndarray:
    return np.array(place, dtype=np.float32)[:, np.newaxis]


def like(label: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return features that tell of the labels, though not all."""
    rng = np.random.default_rng(seed)
    seen = label @ rng.normal(size=(label.shape[1], 8))
    return (seen + rng.normal(size=seen.shape)).astype(np.float32)


def findings_of(label: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row == 1).tolist()) for row in label]


def minorities(label: np.ndarray) -> set[int]:
    """Return the findings whose IRLbl is above MeanIR, by the definition."""
    count = {k: int((label[:, k] == 1).sum()) for k in range(label.shape[1])}
    ratio = {k: max(count.values()) / count[k] for k in count if count[k]}
    return {k for k in ratio if ratio[k] > sum(ratio.values()) / len(ratio)}


def unlike(one: set[int], other: set[int]) -> float:
    """Return the adjusted Hamming distance of two sets of findings, by the definition."""
    return len(one ^ other) / (len(one) + len(other)) if one | other else 0.0


def neighbours_of(feature: np.ndarray, count: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=count).fit(feature).kneighbors(return_distance=False)


def published(name: str, shared: Path) -> np.ndarray:
    return np.load(shared / "multilabel" / f"{name}.npz")["label"].astype(np.float32)


def test_adjusted_hamming_is_what_two_films_do_not_share():
    one = table("110 100 100 000 111 1?0")
    other = table("011 100 010 000 000 110")
    expected = [2 / 4, 0, 1, 0, 1, 1 / 3]
    assert adjusted_hamming(one, other).tolist() == pytest.approx(expected)


def test_mlenn_by_eye():
    """A's with one B among them, A's with one rare R, B's elsewhere: only the stray B goes."""
    label = table("100 100 010 100 100 100 001 100 010 010 010 010")
    place = line(0, 1, 1.4, 2, 50, 51, 51.4, 52, 100, 101, 102, 103)
    assert minorities(label) == {2}
    kept = mlenn(label, feature=place, neighbours=0)
    assert kept.row.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    # With 1 neighbour the A's at 1, 2, 51 and 52 have a stranger beside them, and go as well.
    assert mlenn(label, feature=place, neighbours=1).row.tolist() == [0, 4, 6, 8, 9, 10, 11]


def test_half_of_the_neighbours_are_enough_and_half_of_the_labels_are_not():
    """Of two neighbours one has nothing in common: goes. All have half in common: stays."""
    label = table("1000 1000 0100 1100 0101 1100 0101 0101 0010")
    place = line(0, 1, 1.8, 100, 101.5, 102, 103.1, 104, 300)
    assert minorities(label) == {2}
    assert unlike({0, 1}, {1, 3}) == 0.5
    assert mlenn(label, feature=place, neighbours=2).row.tolist() == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_mlenn_drops_what_the_paper_says(name: str, shared: Path):
    label = published(name, shared)
    feature, findings, rare = like(label), findings_of(label), minorities(label)
    near = neighbours_of(feature, 3)
    against = [
        sum(unlike(findings[film], findings[other]) > 0.5 for other in near[film]) >= 1.5
        for film in range(len(label))
    ]
    spared = [bool(carried & rare) for carried in findings]
    assert any(a and s for a, s in zip(against, spared, strict=True)), "nothing to protect"
    expected = [film for film in range(len(label)) if spared[film] or not against[film]]
    kept = mlenn(label, feature=feature, neighbours=0)
    assert kept.row.tolist() == expected
    assert 0 < len(kept) < len(label)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_mltl_drops_what_the_paper_says(name: str, shared: Path):
    label = published(name, shared)
    feature, findings, rare = like(label), findings_of(label), minorities(label)
    nearest = neighbours_of(feature, 1)[:, 0]
    far = [
        unlike(findings[film], findings[nearest[film]]) > THRESHOLDS[name]
        for film in range(len(label))
    ]
    asked = [bool(carried - rare) for carried in findings]
    assert any(f and not a for f, a in zip(far, asked, strict=True)) or all(asked)
    expected = [film for film in range(len(label)) if not (asked[film] and far[film])]
    kept = mltl(label, feature=feature)
    assert kept.row.tolist() == expected
    assert 0 < len(kept) < len(label)


def test_mltl_by_eye():
    """As common as each other, A and B: threshold 0.5, so half in common is alike enough."""
    label = table("10 10 01 11 01 01 10")
    place = line(0, 1, 1.4, 10, 11, 20, 20.5)
    # 1 and 2 share nothing and are each other's nearest, 5 and 6 too; 3 and 4 are 1/3 apart.
    assert mltl(label, feature=place).row.tolist() == [0, 3, 4]


def test_rare_findings_are_protected_in_chestxray14(chestxray14: np.ndarray):
    label = chestxray14[::40]  # all 14 findings occur
    feature, rare = like(label), minorities(label)
    has_rare = [film for film, carried in enumerate(findings_of(label)) if carried & rare]
    no_majority = [film for film, carried in enumerate(findings_of(label)) if not carried - rare]
    assert len(has_rare) > 20
    cleaned, linked = mlenn(label, feature=feature, neighbours=0), mltl(label, feature=feature)
    assert set(has_rare) <= set(cleaned.row.tolist())
    assert set(no_majority) <= set(linked.row.tolist())
    assert len(cleaned) < 0.9 * len(label)
    assert len(linked) < 0.9 * len(label)


def methods() -> dict[str, Callable[[np.ndarray, np.ndarray], Plan]]:
    return {
        "mlenn": lambda label, feature: mlenn(label, feature=feature, neighbours=0),
        "mltl": lambda label, feature: mltl(label, feature=feature),
        "mlul": lambda label, feature: mlul(
            label, feature=feature, percent=25.0, neighbours=0, seed=0
        ),
    }


@pytest.mark.parametrize("name", ["mlenn", "mltl"])
def test_all_films_are_judged_before_any_goes(name: str, shared: Path):
    """Else the order of the films would matter."""
    label = published("emotions", shared)
    feature, method = like(label), methods()[name]
    shuffled = np.random.default_rng(1).permutation(len(label))
    kept = method(label, feature)
    again = method(label[shuffled], feature[shuffled])
    assert sorted(shuffled[again.row].tolist()) == kept.row.tolist()


@pytest.mark.parametrize("name", methods())
def test_what_stays_is_the_films_themselves(name: str, shared: Path):
    label = published("birds", shared)
    label[::5, 3] = np.nan
    plan = methods()[name](label, like(np.nan_to_num(label)))
    assert plan.row.tolist() == sorted(set(plan.row.tolist()))
    np.testing.assert_array_equal(plan.label, label[plan.row])
    assert not plan.copy.any()
    assert (plan.weight == 1).all()


@pytest.mark.parametrize("name", methods())
@pytest.mark.parametrize("text", ["1", "0", "00 00 00", "1? ?0 01"])
def test_a_few_films_are_enough(name: str, text: str):
    label = table(text)
    plan = methods()[name](label, line(*range(len(label))))
    assert len(plan) <= len(label)
    if len(label) == 1 or not (label == 1).any():
        assert len(plan) == len(label)


# Two A's and a film without between them: with 2 neighbours each A has local imbalance 1/2 and half
# of A's difficulty. w = 1/2, 1/2, 0; v = 1/4 (one A and one of 0 look at it), 1/4, -1/2; far off,
# three films that nobody else looks at: 0. Raised by 1/2, u = 5/4, 5/4, 0, 1/2, 1/2, 1/2.
HARM = table("1 1 0 0 0 0"), line(0, 1, 2.1, 100, 101, 102.1)


def test_mlul_drops_the_film_that_does_harm_first():
    label, place = HARM
    for seed in range(20):
        kept = mlul(label, feature=place, percent=17.0, neighbours=2, seed=seed)
        assert kept.row.tolist() == [0, 1, 3, 4, 5]


def test_mlul_draws_by_usefulness():
    label, place = HARM
    times, runs = np.zeros(6), 600
    for seed in range(runs):
        kept = mlul(label, feature=place, percent=84.0, neighbours=2, seed=seed)
        assert len(kept) == 1
        times[kept.row] += 1
    share = np.array([1.25, 1.25, 0, 0.5, 0.5, 0.5]) / 4
    assert times / runs == pytest.approx(share, abs=4 * np.sqrt(0.3 * 0.7 / runs))
    assert times[2] == 0


def test_an_outlier_does_harm_though_it_carries_the_finding():
    """Three A's, of which the third has only films without A beside it.

    With 3 neighbours the first two have local imbalance 1/3 and half of A's difficulty each, the
    third is an outlier. u = 1/2 + 1/2 for both; for the third and for the first film without A,
    at both of which the two A's look, -(1/2 + 1/2) / 5; nobody with A looks at the other two.
    """
    label, place = table("1 1 1 0 0 0"), line(0.05, 1, 1.9, 2.0, 2.1, 2.2)
    for seed in range(20):
        kept = mlul(label, feature=place, percent=34.0, neighbours=3, seed=seed)
        assert kept.row.tolist() == [0, 1, 4, 5]


def test_harm_is_the_mean_over_those_that_look_at_a_film():
    """As above, and a film without A at -1.5, at which only the first A looks: -1/2, all harm.

    The outlier harms both A's, but four others look at it too: -(1/2 + 1/2) / 6.
    """
    label, place = table("1 1 1 0 0 0 0"), line(0.05, 1, 1.9, 2.0, 2.1, 2.2, -1.5)
    for seed in range(20):
        kept = mlul(label, feature=place, percent=15.0, neighbours=3, seed=seed)
        assert kept.row.tolist() == [0, 1, 2, 3, 4, 5]


def test_mlul_drops_as_many_as_asked_and_by_the_seed(shared: Path):
    label = published("birds", shared)
    feature = like(label)

    def kept(percent: float, seed: int) -> list[int]:
        plan = mlul(label, feature=feature, percent=percent, neighbours=0, seed=seed)
        return plan.row.tolist()

    assert [len(kept(percent, 0)) for percent in (0.1, 25.0, 99.9)] == [645, 484, 1]
    assert kept(25.0, 0) == kept(25.0, 0)
    assert kept(25.0, 0) != kept(25.0, 1)


@pytest.mark.parametrize("percent", [100.0, 250.0])
def test_mlul_leaves_films(percent: float):
    label, place = HARM
    with pytest.raises(ValueError, match=f"balance.percent is {percent:g}, expected less than 100"):
        mlul(label, feature=place, percent=percent, neighbours=0, seed=0)


@pytest.mark.parametrize("name", methods())
def test_films_without_features_are_refused(name: str):
    with pytest.raises(ValueError, match="0 features, expected at least 1"):
        methods()[name](table("1 0"), np.zeros((2, 0), dtype=np.float32))
