"""Intervals that hold with few patients: coverage of a known truth, and Wilson's by scipy."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, ttest_1samp

from lucency.evaluation.bootstrap import all_and_resampled, interval, mean_over_findings
from lucency.evaluation.intervals import (
    FEWEST,
    INTERVALS,
    auc_interval,
    bootstrap_interval,
    difference_interval,
    logit_interval,
    macro_error,
    macro_interval,
    macro_interval_of_ranks,
    mean_interval,
    no_interval,
    share_interval,
)
from lucency.evaluation.metrics import auc, mean_over_films

SETS = 150
LEAST = 0.95 - 3 * np.sqrt(0.95 * 0.05 / SETS)  # three standard errors below


def _films(seed, *, positives, area, negatives=400):
    """Return binormal scores of films of a patient each, whose AUC is known."""
    generator = np.random.default_rng(seed)
    label = np.repeat([1.0, 0.0], [positives, negatives])
    score = generator.normal(size=len(label)) + np.sqrt(2) * ndtri(area) * label
    return label, score, np.arange(len(label))


def _alike(seed, *, area, patients=60, films=240):
    """Return films of patients who have several, alike in label and score."""
    generator = np.random.default_rng(seed)
    owner = np.sort(generator.integers(patients, size=films))
    ill = generator.random(patients) < 0.2
    of_patient, of_film = generator.normal(size=patients), generator.normal(size=films)
    label = ill[owner].astype(float)
    noise = np.sqrt(0.7) * of_patient[owner] + np.sqrt(0.3) * of_film
    return label, noise + np.sqrt(2) * ndtri(area) * label, owner


@pytest.mark.parametrize("area", [0.6, 0.75, 0.9, 0.97])
@pytest.mark.parametrize("positives", [3, 5, 10])
def test_the_interval_of_an_auc_holds_the_truth_with_few_positives(positives, area):
    """Percentiles of the bootstrap hold it too seldom with fewer than ten."""
    held, bootstrapped = 0, 0
    for seed in range(SETS):
        label, score, owner = _films(seed, positives=positives, area=area)
        low, high = auc_interval(label, score, owner=owner)
        held += low <= area <= high
        drawn = all_and_resampled(owner, resamples=60, seed=seed)
        ends = interval(auc(label, score, weights=drawn)[1:])
        bootstrapped += ends[0] <= area <= ends[1]
    assert held / SETS >= LEAST
    if positives < 10 and area >= 0.75:
        assert bootstrapped / SETS < LEAST


@pytest.mark.parametrize("area", [0.6, 0.9])
def test_the_interval_of_an_auc_holds_the_truth_where_films_of_a_patient_are_alike(area):
    held, as_films = 0, 0
    for seed in range(SETS):
        label, score, owner = _alike(seed, area=area)
        low, high = auc_interval(label, score, owner=owner)
        held += low <= area <= high
        low, high = auc_interval(label, score, owner=np.arange(len(owner)))
        as_films += low <= area <= high
    assert held / SETS >= LEAST
    assert as_films / SETS < LEAST


def test_perfectly_ranked_films_have_an_interval_and_constant_scores_none():
    label, score = np.repeat([1.0, 0.0], [6, 300]), np.repeat([1.0, 0.0], [6, 300])
    low, high = auc_interval(label, score, owner=np.arange(306))
    assert high == 1
    assert 0.6 < low < 0.95
    assert auc_interval(label, 0 * score, owner=np.arange(306)) == (0.5, 0.5)
    reversed_low, reversed_high = auc_interval(label, -score, owner=np.arange(306))
    assert (reversed_low, reversed_high) == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_with_many_patients_it_is_delong_s():
    """DeLong's on the logit scale, which is as good where there are many."""
    label, score, owner = _films(1, positives=2000, area=0.8, negatives=4000)
    found = auc_interval(label, score, owner=owner)
    drawn = all_and_resampled(owner, resamples=400, seed=0)
    ends = interval(auc(label, score, weights=drawn)[1:])
    assert found == pytest.approx(tuple(ends), abs=0.003)


@pytest.mark.parametrize(("hits", "films"), [(0, 10), (9, 10), (3, 7), (20, 20), (50, 400)])
def test_a_share_of_films_of_a_patient_each_has_wilson_s_interval(hits, films):
    hit = np.arange(films) < hits
    found = share_interval(hit, np.ones(films, dtype=bool), owner=np.arange(films))
    oracle = binomtest(hits, films).proportion_ci(method="wilson")
    assert found == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_a_share_holds_the_truth_where_films_of_a_patient_are_alike():
    """The recall of 20 patients' films; as if of independent films it is held too seldom."""
    held, as_films = 0, 0
    for seed in range(SETS):
        generator = np.random.default_rng(seed)
        owner = np.repeat(np.arange(20), generator.integers(1, 9, size=20))
        level = np.sqrt(0.7) * generator.normal(size=20)[owner]
        hit = level + np.sqrt(0.3) * generator.normal(size=len(owner)) < ndtri(0.8)
        every = np.ones(len(owner), dtype=bool)
        low, high = share_interval(hit, every, owner=owner)
        held += low <= 0.8 <= high
        low, high = share_interval(hit, every, owner=np.arange(len(owner)))
        as_films += low <= 0.8 <= high
    assert held / SETS >= LEAST
    assert as_films / SETS < LEAST


def test_fewer_patients_than_three_have_no_interval():
    assert FEWEST == 3
    label, score = np.array([1.0, 1, 1, 0, 0, 0]), np.arange(6.0)
    owner = np.array([0, 0, 1, 2, 3, 4])
    assert np.isnan(auc_interval(label, score, owner=owner)).all()
    given = {"decision": score > 2, "logit": score, "probability": ndtr(score)}
    assert np.isnan(INTERVALS["recall"](label, given, owner)).all()
    assert not np.isnan(INTERVALS["specificity"](label, given, owner)).any()


def test_the_interval_of_f1_ends_at_those_of_its_share():
    label, called = np.array([1.0] * 12 + [0.0] * 40), np.arange(52) % 3 == 0
    given = {"decision": called, "logit": np.zeros(52), "probability": np.zeros(52)}
    true, either = int((called & (label == 1)).sum()), int((called | (label == 1)).sum())
    ends = binomtest(true, either).proportion_ci(method="wilson")
    expected = [2 * j / (1 + j) for j in (ends.low, ends.high)]
    assert INTERVALS["f1"](label, given, np.arange(52)) == pytest.approx(expected, abs=1e-9)


def test_what_resamples_do_not_show_of_few_patients_widens_a_mean_over_findings():
    generator = np.random.default_rng(0)
    several = 0.8 + 0.05 * generator.normal(size=(2, 401))
    two, many = (macro_error(several, patients=np.array([n, n])) for n in (2, 1000))
    assert two == pytest.approx(np.sqrt(2) * many, rel=0.05)
    beside = macro_error(several, patients=np.array([1, 20]))
    alone = np.var(several[1, 1:], ddof=1) * 20 / 19 * 20  # of one patient of the other finding
    expected = np.sqrt(np.var(several[1, 1:], ddof=1) * 20 / 19 + alone) / 2
    assert beside == pytest.approx(expected, rel=0.05)
    low, high = macro_interval(several, patients=np.array([2, 2]))
    assert (high - low) / 2 / two == pytest.approx(1.96, abs=1e-3)


def test_the_mean_of_aucs_borrows_the_error_of_findings_with_few_patients():
    """Macro AUC of 14 findings, of which six have 1 to 5 positives: the coverage is nominal."""
    areas, positives = np.linspace(0.6, 0.95, 14), np.array([*[1, 2, 2, 3, 4, 5], *[25] * 8])
    held, without = [], []
    for seed in range(SETS):
        generator = np.random.default_rng(seed)
        label = np.stack([np.arange(300) < count for count in positives], axis=1).astype(float)
        score = generator.normal(size=label.shape) + np.sqrt(2) * ndtri(areas) * label
        weights = all_and_resampled(np.arange(300), resamples=100, seed=seed)
        area = np.stack([auc(*one, weights=weights) for one in zip(label.T, score.T, strict=True)])
        for rule, found in ((macro_interval_of_ranks, held), (_percentiles, without)):
            low, high = rule(area, patients=positives)
            found.append(low <= areas.mean() <= high)
    assert LEAST <= np.mean(held) <= 0.99
    assert np.mean(without) < LEAST, "percentiles of the bootstrap are too narrow"


def _percentiles(area, *, patients):
    assert len(patients) == len(area)
    return interval(mean_over_findings(area)[1:]).tolist()


@pytest.mark.parametrize("patients", [20, 60])
@pytest.mark.parametrize("power", [0.3, 6])
def test_a_mean_of_numbers_between_0_and_1_holds_the_truth(patients, power):
    """Powers of uniform numbers, skewed either way, alike in a patient's films."""
    held = []
    for seed in range(2 * SETS):
        generator = np.random.default_rng(seed)
        owner = np.sort(generator.integers(patients, size=4 * patients))
        alike = generator.normal(size=patients)[owner]
        value = ndtr((alike + generator.normal(size=len(owner))) / np.sqrt(2)) ** power
        weights = all_and_resampled(owner, resamples=200, seed=seed)
        low, high = mean_interval(mean_over_films(value, weights=weights), patients=patients)
        held.append(low <= 1 / (power + 1) <= high)
    assert np.mean(held) > 0.9  # .92 with so few patients


def test_a_share_of_resamples_is_wilson_s_and_a_difference_too():
    hit = np.random.default_rng(0).random(200) < 0.3
    weights = all_and_resampled(np.arange(200), resamples=4000, seed=0)
    sampled = mean_over_films(hit.astype(float), weights=weights)
    expected = binomtest(int(hit.sum()), 200).proportion_ci(method="wilson")
    assert mean_interval(sampled, patients=200) == pytest.approx(tuple(expected), abs=0.005)
    every = mean_interval(np.ones(100), patients=10, fewest=FEWEST)
    assert every[0] == pytest.approx(0.66, abs=0.02)
    assert difference_interval(np.ones(100), patients=10, fewest=3)[0] == 2 * every[0] - 1
    assert difference_interval(np.zeros(100), patients=10, fewest=3) == (0, 0)
    assert np.isnan(mean_interval(sampled, patients=19)).all()
    assert no_interval((np.nan, np.nan), patients=19) == (
        "no interval: 19 patients, expected 20 or more"
    )


def test_what_has_no_formula_is_wider_than_its_percentiles_with_few_patients():
    value = np.random.default_rng(3).normal(size=20)
    sampled = all_and_resampled(np.arange(20), resamples=4000, seed=0).total(value[None])[0] / 20
    low, high = bootstrap_interval(sampled, patients=20)
    expected = ttest_1samp(value, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.03)
    plain = interval(sampled[1:])
    assert high - low > 1.07 * (plain[1] - plain[0])
    assert np.isnan(bootstrap_interval(sampled, patients=19)).all()
    assert np.isnan(bootstrap_interval(np.ones(50), patients=99)).all()


def test_a_mean_over_findings_that_never_differs_has_no_interval():
    same = np.tile(np.array([[0.9], [0.8]]), (1, 200))
    assert np.isnan(macro_interval(same, patients=np.array([5, 5]))).all()
    assert np.isnan(macro_interval(same * np.nan, patients=np.array([9, 9]))).all()


def test_an_interval_on_the_logit_scale_stays_within_0_and_1():
    sampled = np.append(0.95, 0.95 + 0.04 * np.random.default_rng(0).normal(size=300))
    low, high = logit_interval(sampled, patients=30)
    assert 0 < low < 0.95 < high < 1
    assert 0.95 - low > high - 0.95
    assert np.isnan(logit_interval(np.append(1.0, sampled), patients=30)).all()
