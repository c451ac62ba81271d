"""Wilson, Holm and Wilcoxon against scipy, published examples, and all signs tried one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import PermutationMethod, binomtest, norm, rankdata, wilcoxon

from lucency.evaluation.significance import holm, signed_rank, wilson

# Darwin's 15 pairs of Zea mays, crossed minus self-fertilised, in eighths of an inch: the example
# of Wilcoxon 1945 and of scipy's documentation.
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=np.float64)


def test_wilson_equals_scipy():
    trials = np.repeat(np.array([1, 2, 7, 30, 1000]), 4)
    successes = (trials * np.tile([0, 0.3, 0.5, 1], 5)).astype(np.int64)
    low, high = wilson(successes, trials)
    for place, (k, n) in enumerate(zip(successes.tolist(), trials.tolist(), strict=True)):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert (low[place], high[place]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_solves_wilson_s_equation():
    """At its ends the observed share lies exactly 1.96 standard errors of that end away."""
    ends = wilson(np.array([[3, 17], [40, 81]]), np.array([[10, 18], [100, 263]]))
    assert ends.shape == (2, 2, 2)
    share = np.array([[3 / 10, 17 / 18], [40 / 100, 81 / 263]])
    away = (share - ends) / np.sqrt(ends * (1 - ends) / np.array([[10, 18], [100, 263]]))
    np.testing.assert_allclose(away[0], norm.ppf(0.975))
    np.testing.assert_allclose(away[1], -norm.ppf(0.975))


def test_wilson_says_nothing_of_no_trials_and_is_exact_at_the_ends():
    assert np.isnan(wilson(np.array([0]), np.array([0]))).all()
    trials = np.arange(1, 300)
    low, high = wilson(np.zeros(299), trials)
    assert (low == 0).all()
    assert ((high > 0) & (high < 1)).all()
    low, high = wilson(trials, trials)
    assert (high == 1).all()
    assert ((low > 0) & (low < 1)).all()
    assert wilson(np.empty(0), np.empty(0)).shape == (2, 0)


@pytest.mark.parametrize(("successes", "trials"), [(5, 4), (-1, 4), (0, -1), (np.nan, 4)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="1 counts of successes are below 0 or above"):
        wilson(np.array([2, successes]), np.array([3, trials]))


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # Holm 1979's procedure by hand: x 4, x 3, x 2, x 1, never falling.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        ([0.04], [0.04]),
        ([0.5, 0.9], [1, 1]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0, 1, 1], [0, 1, 1]),
        ([0.01, np.nan, 0.04], [0.02, np.nan, 0.04]),
        ([np.nan, np.nan], [np.nan, np.nan]),
        ([], []),
    ],
)
def test_holm_by_hand(p, expected):
    adjusted = holm(np.array(p, dtype=np.float64))
    np.testing.assert_allclose(adjusted, np.array(expected, dtype=np.float64), atol=1e-15)


def _step_down(p, level):
    """Return which hypotheses Holm rejects: the smallest p against level / m, and so on."""
    rejected = np.zeros(len(p), dtype=bool)
    for step, place in enumerate(np.argsort(p)):
        if p[place] > level / (len(p) - step):
            break
        rejected[place] = True
    return rejected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_holm_rejects_what_its_procedure_rejects(seed, count):
    generator = np.random.default_rng(seed)
    p = generator.beta(0.4, 2, size=count)
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2):
        assert ((adjusted <= level) == _step_down(p, level)).all()
    order = generator.permutation(count)
    np.testing.assert_array_equal(holm(p[order]), adjusted[order])
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * count) + 1e-15).all()


def test_holm_keeps_false_alarms_below_the_level_and_plain_p_do_not():
    p = np.random.default_rng(0).random((4000, 14))
    assert np.mean([holm(row).min() < 0.05 for row in p]) < 0.06
    assert np.mean(p.min(axis=1) < 0.05) > 0.4


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_a_p_outside_0_to_1_is_refused(wrong):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        holm(np.array([0.5, wrong]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(6, 50))
def test_signed_rank_equals_scipy_where_nothing_is_tied(seed, count):
    difference = np.random.default_rng(seed).normal(0.3, 1, size=count)
    expected = wilcoxon(difference, method="exact").pvalue
    assert signed_rank(difference)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_tries_all_signs_where_some_are_tied(seed):
    generator = np.random.default_rng(seed)
    difference = generator.choice([-3.0, -2, -1, 1, 2, 3, 4], size=8)
    rank = rankdata(np.abs(difference))
    sums = np.array([rank @ signs for signs in product((0, 1), repeat=8)])
    observed = rank[difference > 0].sum()
    tails = (sums <= observed).mean(), (sums >= observed).mean()
    assert signed_rank(difference)[0] == pytest.approx(min(1, 2 * min(tails)), abs=1e-12)
    every = wilcoxon(difference, method=PermutationMethod(n_resamples=2**8)).pvalue
    assert signed_rank(difference)[0] == pytest.approx(every, abs=1e-12)


def test_signed_rank_of_wilcoxon_s_own_example():
    """Darwin's maize: a rank sum of 24, and p .041259765625 as scipy documents it."""
    assert rankdata(np.abs(DARWIN))[DARWIN < 0].sum() == 24
    assert signed_rank(DARWIN)[0] == pytest.approx(0.041259765625, abs=1e-15)
    assert signed_rank(-DARWIN) == signed_rank(DARWIN)


def test_nothing_and_not_computable_do_not_count():
    padded = np.concatenate([[0, np.nan], DARWIN, [0.0]])
    assert signed_rank(padded) == signed_rank(DARWIN)


@pytest.mark.parametrize("count", range(8))
def test_few_differences_are_no_test(count):
    difference = np.append(np.arange(1.0, count + 1), [0, np.nan])
    p, why = signed_rank(difference)
    if count >= 6:
        assert p == pytest.approx(2 / 2**count)
        assert why == ""
    else:
        assert np.isnan(p)
        assert why == f"not computable: {count} of {count + 2} differences are not 0; needs 6"
