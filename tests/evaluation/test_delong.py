"""DeLong and Obuchowski against their formulas written slowly, published numbers, and coverage."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, ndtr
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from lucency.evaluation.bootstrap import resample_patients
from lucency.evaluation.metrics import auc
from lucency.evaluation.significance import (
    delong,
    delong_difference,
    not_computable,
)

# Ovarian cancer and obstruction (DeLong 1988): albumin, total protein, K-G score, benefit of
# surgery; the 43 complete cases as SAS/STAT prints them, PROC LOGISTIC, "Comparing ROC Curves".
PUBLISHED = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6 5 1
"""


def _films(seed, *, films=60, patients=25, levels=4):
    """Return labels, two scores with ties, and patients with films of both classes."""
    generator = np.random.default_rng(seed)
    owner = generator.integers(0, patients, size=films)
    label = (generator.random(films) < 0.4).astype(np.float32)
    label[:4], owner[:4] = (0, 0, 1, 1), (0, 1, 2, 3)
    common = generator.normal(size=films) + generator.normal(size=patients)[owner] + label
    scores = [np.round((common + generator.normal(size=films)) * levels) / levels for _ in "ab"]
    return label, *scores, owner


def _beats(positive, negative):
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def _components(label, score):
    """Return DeLong's V10 of every positive and V01 of every negative film, pair by pair."""
    above, below = score[label == 1], score[label == 0]
    v10 = [sum(_beats(x, y) for y in below) / len(below) for x in above]
    v01 = [sum(_beats(x, y) for x in above) / len(above) for y in below]
    return np.array(v10), np.array(v01)


def _slow_delong(label, *scores):
    """Return the areas and their covariance matrix, DeLong 1988 equations 4 to 6."""
    parts = [_components(label, score) for score in scores]
    s10 = np.atleast_2d(np.cov([v10 for v10, _ in parts]))
    s01 = np.atleast_2d(np.cov([v01 for _, v01 in parts]))
    areas = np.array([v10.mean() for v10, _ in parts])
    return areas, s10 / (label == 1).sum() + s01 / (label == 0).sum()


def _slow_obuchowski(label, owner, one, two):
    """Return the covariance of two areas, Obuchowski 1997, patient by patient."""
    clusters = []
    for patient in sorted(set(owner)):
        mine = owner == patient
        m, n = int((label[mine] == 1).sum()), int((label[mine] == 0).sum())
        sums = []
        for score in (one, two):
            v10, v01 = _components(label, score)
            area = v10.mean()
            x = v10[mine[label == 1]].sum() - m * area
            y = v01[mine[label == 0]].sum() - n * area
            sums.append((x, y))
        clusters.append((m, n, sums))
    big_m, big_n = (sum(cluster[place] for cluster in clusters) for place in (0, 1))
    i10, i01 = (sum(cluster[place] > 0 for cluster in clusters) for place in (0, 1))
    i = len(clusters)
    s10 = i10 / ((i10 - 1) * big_m) * sum(s[0][0] * s[1][0] for _, _, s in clusters)
    s01 = i01 / ((i01 - 1) * big_n) * sum(s[0][1] * s[1][1] for _, _, s in clusters)
    s11 = i / (i - 1) * sum(s[0][0] * s[1][1] for _, _, s in clusters)
    s11 += i / (i - 1) * sum(s[1][0] * s[0][1] for _, _, s in clusters)
    return s10 / big_m + s01 / big_n + s11 / (big_m * big_n)


@pytest.mark.parametrize("seed", range(5))
def test_films_of_their_own_give_delong(seed):
    label, one, two, _ = _films(seed)
    alone = np.arange(len(label))
    areas, covariance = _slow_delong(label, one, two)
    for place, score in enumerate((one, two)):
        error = np.sqrt(covariance[place, place])
        assert delong(label, score, owner=alone) == pytest.approx((areas[place], error), abs=1e-12)
        assert areas[place] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    difference, error, p = delong_difference(label, one, two, owner=alone)
    assert difference == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert error == pytest.approx(np.sqrt([1, -1] @ covariance @ [1, -1]), abs=1e-12)
    assert p == pytest.approx(2 * norm.sf(abs(difference) / error), abs=1e-12)


@pytest.mark.parametrize("patients", [4, 12, 25])
@pytest.mark.parametrize("seed", range(3))
def test_patients_with_several_films_give_obuchowski(seed, patients):
    label, one, two, owner = _films(seed, patients=patients)
    variance = [_slow_obuchowski(label, owner, score, score) for score in (one, two)]
    both = sum(variance) - 2 * _slow_obuchowski(label, owner, one, two)
    for score, expected in zip((one, two), variance, strict=True):
        area, error = delong(label, score, owner=owner)
        assert area == pytest.approx(roc_auc_score(label, score), abs=1e-12)
        assert error == pytest.approx(np.sqrt(expected), abs=1e-12)
    assert delong_difference(label, one, two, owner=owner)[1] == pytest.approx(np.sqrt(both))


def test_the_published_example():
    """Areas, standard errors, differences and p, to every printed digit."""
    table = np.array(PUBLISHED.split(), dtype=np.float64).reshape(-1, 4)
    label, owner = table[:, 3], np.arange(len(table))
    albumin, protein, score = table[:, 0], table[:, 1], -table[:, 2]
    for test, printed in (
        (albumin, ".7366 .0927"),
        (score, ".7258 .1028"),
        (protein, ".6478 .1000"),
    ):
        area, error = delong(label, test, owner=owner)
        assert f"{area:.4f} {error:.4f}".replace("0.", ".") == printed
    for test, printed in ((albumin, (0.0108, 0.0953, 0.9102)), (protein, (-0.078, 0.1046, 0.4561))):
        assert np.round(delong_difference(label, test, score, owner=owner), 4).tolist() == [
            *printed
        ]


def test_a_small_example_by_hand():
    """Positives 5, 3, 2 and negatives 4, 2, 1, 0; the films 3 and 4 are of one patient.

    The positives beat 4, 3 and 2.5 of 4 (V10 1, .75, .625, mean 9.5 / 12), so S10 is .0364583. The
    negatives lose to 1, 2.5, 3 and 3 of 3 (V01 .3333, .8333, 1, 1), so S01 is .0995370. As one of
    six patients, the films 3 and 4 add 2 (6 / 5) (.75 - .7917) (.3333 - .7917) / (3 x 4).
    """
    label = np.array([1, 1, 1, 0, 0, 0, 0], dtype=np.float32)
    score = np.array([5, 3, 2, 4, 2, 1, 0], dtype=np.float32)
    plain = 0.0364583333 / 3 + 0.0995370370 / 4
    area, error = delong(label, score, owner=np.arange(7))
    assert (area, error) == pytest.approx((9.5 / 12, np.sqrt(plain)), abs=1e-9)
    shared = np.array([0, 1, 2, 1, 3, 4, 5])
    more = 2 * 6 / 5 * 0.0416666667 * 0.4583333333 / 12
    assert delong(label, score, owner=shared)[1] == pytest.approx(np.sqrt(plain + more), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), slope=st.floats(0.01, 50), shift=st.floats(-5, 5))
def test_monotone_maps_order_and_unstated_labels_change_nothing(seed, slope, shift):
    label, one, two, owner = _films(seed)
    expected = delong_difference(label, one, two, owner=owner)
    level, place = np.unique(one, return_inverse=True)
    mapped = (np.arange(len(level)) ** 3 * slope + shift)[place]
    assert delong_difference(label, mapped, two, owner=owner) == expected
    order = np.random.default_rng(seed).permutation(len(label))
    given_ = (label[order], one[order], two[order])
    assert delong_difference(*given_, owner=owner[order]) == pytest.approx(expected, abs=1e-12)
    unstated = np.append(label, np.full(3, np.nan, dtype=np.float32))
    longer = [np.append(score, [9.0, -9.0, np.nan]) for score in (one, two)]
    strangers = np.append(owner, [0, 1, 99])
    assert delong_difference(unstated, *longer, owner=strangers) == expected


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_both_ways_round_is_the_same(seed):
    label, one, two, owner = _films(seed)
    area, error = delong(label, one, owner=owner)
    assert delong(1 - label, -one, owner=owner) == pytest.approx((area, error), abs=1e-12)
    difference, error, p = delong_difference(label, one, two, owner=owner)
    other = delong_difference(label, two, one, owner=owner)
    assert other == pytest.approx((-difference, error, p), abs=1e-12)


def test_every_film_twice_tells_nothing_new_of_its_patient():
    label, one, two, owner = _films(3)
    twice = [np.repeat(values, 2) for values in (label, one, two)]
    expected = delong_difference(label, one, two, owner=owner)
    found = delong_difference(*twice, owner=np.repeat(owner, 2))
    assert found == pytest.approx(expected, abs=1e-12)
    strangers = delong_difference(*twice, owner=np.arange(2 * len(label)))
    alone = delong_difference(label, one, two, owner=np.arange(len(label)))
    assert strangers[1] < 0.75 * alone[1]


def test_it_agrees_with_resampled_patients():
    label, one, two, owner = _films(0, films=1500, patients=400, levels=50)
    drawn = resample_patients(owner, resamples=1000, seed=0)
    areas = [auc(label, score, weights=drawn) for score in (one, two)]
    _, error = delong(label, one, owner=owner)
    assert error == pytest.approx(areas[0].std(), rel=0.08)
    _, error, _ = delong_difference(label, one, two, owner=owner)
    assert error == pytest.approx((areas[0] - areas[1]).std(), rel=0.08)


def test_perfect_separation_and_one_score_for_all_have_no_width():
    label, owner = np.array([0, 0, 0, 1, 1, 1], dtype=np.float32), np.array([0, 1, 2, 2, 3, 4])
    for score, area in ((label, 1.0), (1 - label, 0.0), (np.full(6, 0.3), 0.5)):
        assert delong(label, score, owner=owner) == (area, 0.0)
        assert delong_difference(label, score, 2 * score, owner=owner) == (0.0, 0.0, 1.0)
    difference, error, p = delong_difference(label, label, 1 - label, owner=owner)
    assert (difference, error) == (1.0, 0.0)
    assert np.isnan(p)


@pytest.mark.parametrize("seed", range(5))
def test_where_all_patients_are_alike_no_dust_is_taken_for_a_standard_error(seed):
    """A standard error of 10^-17 would make any difference a certain one."""
    generator = np.random.default_rng(seed)
    films = {"label": np.arange(10) % 10 < 3, "one": generator.normal(size=10)}
    label, one = (np.tile(values, 7).astype(np.float64) for values in films.values())
    two, owner = np.tile(generator.normal(size=10), 7), np.repeat(np.arange(7), 10)
    area, error = delong(label, one, owner=owner)
    assert area == pytest.approx(roc_auc_score(label, one))
    assert error == 0.0
    assert delong_difference(label, one, two, owner=owner)[1] == 0.0
    assert delong_difference(label, one, expit(one), owner=owner) == (0.0, 0.0, 1.0)
    one[:10] *= -1
    assert delong(label, one, owner=owner)[1] > 0.001


@pytest.mark.parametrize(
    ("label", "owner", "reason"),
    [
        ([0, 0, np.nan], [0, 1, 2], "not computable: 0 positives"),
        ([1, 1, np.nan], [0, 1, 2], "not computable: 0 negatives"),
        ([np.nan] * 3, [0, 1, 2], "not computable: 0 positives and 0 negatives"),
        ([0, 0, 1, 1], [0, 1, 2, 2], "no standard error: all positives are of one owner"),
        ([0, 1], [4, 5], "no standard error: all positives and all negatives are of one owner"),
        ([0, 0, 1, 1], [0, 1, 2, 3], ""),
    ],
)
def test_what_cannot_be_computed_is_nan_with_a_reason(label, owner, reason):
    label, owner = np.array(label, dtype=np.float32), np.array(owner)
    score = np.arange(len(label)) % 2 + 0.5
    area, error = delong(label, score, owner=owner)
    assert not_computable(label, owner=owner) == reason
    assert np.isnan(area) == reason.startswith("not computable")
    assert np.isnan(error) == bool(reason)
    assert np.isnan(delong_difference(label, score, -score, owner=owner)[2]) == bool(reason)


def test_no_films_and_no_score_are_refused_or_nan():
    nothing = np.empty(0)
    assert np.isnan(delong(nothing, nothing, owner=np.empty(0, dtype=np.int64))).all()
    label, score = np.array([0.0, 1, 1]), np.array([0.1, np.nan, 0.3])
    with pytest.raises(ValueError, match="the score of 1 of 3 films with a label is NaN"):
        delong(label, score, owner=np.arange(3))


def test_it_is_fast_enough_for_all_of_chest_x_ray_14():
    """112,120 films: pairs would be 10^9."""
    label, one, two, owner = _films(0, films=112_120, patients=30_805, levels=10**6)
    start = time.process_time()
    delong_difference(label, one, two, owner=owner)
    assert time.process_time() - start < 2


def _patients(generator, *, patients, alike):
    """Return films whose score shares `alike` of its variance with the patient's other films.

    Nine patients in ten have one label for all their films. A positive film is 1 higher, so the
    area is that of two patients, ndtr(1 / sqrt(2)); pairs within a patient are too few to matter.
    """
    owner = np.repeat(np.arange(patients), generator.integers(1, 10, size=patients))
    ill = generator.random(patients) < 0.3
    changing = (generator.random(patients) < 0.1)[owner]
    label = np.where(changing, generator.random(len(owner)) < 0.5, ill[owner]).astype(np.float32)
    own = generator.normal(size=len(owner)) * np.sqrt(1 - alike)
    return label, label + own + generator.normal(size=patients)[owner] * np.sqrt(alike), owner


@pytest.mark.slow
def test_clustered_intervals_cover_and_plain_ones_do_not():
    """Of 650 data sets of 150 patients, films alike by .8: .932 clustered, .620 plain."""
    generator, truth = np.random.default_rng(0), ndtr(1 / np.sqrt(2))
    held = np.zeros((650, 2), dtype=bool)
    for row in held:
        label, score, owner = _patients(generator, patients=150, alike=0.8)
        for place, whose in enumerate((owner, np.arange(len(label)))):
            area, error = delong(label, score, owner=whose)
            reach = norm.ppf(0.975) * error / (area * (1 - area))
            row[place] = abs(logit(area) - logit(truth)) <= reach
    clustered, plain = held.mean(axis=0)
    assert 0.93 <= clustered <= 0.97
    assert plain < 0.85


@pytest.mark.slow
def test_differences_of_equals_are_called_unequal_once_in_twenty():
    """Two scores with their own error for each patient: p < .05 in .049 clustered, .420 plain."""
    generator = np.random.default_rng(1)
    called = np.zeros((650, 2), dtype=bool)
    for row in called:
        label, one, owner = _patients(generator, patients=150, alike=0.8)
        shift = generator.normal(size=(2, owner.max() + 1))[:, owner] * 0.7
        for place, whose in enumerate((owner, np.arange(len(label)))):
            found = delong_difference(label, one + shift[0], one + shift[1], owner=whose)
            row[place] = found[2] < 0.05
    clustered, plain = called.mean(axis=0)
    assert 0.03 <= clustered <= 0.07
    assert plain > 0.15


def test_the_simulated_patients_are_as_alike_as_stated():
    label, score, owner = _patients(np.random.default_rng(0), patients=5000, alike=0.8)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    second = (first + 1)[np.append(np.diff(first), 1) > 1]
    rest = score - label
    assert spearmanr(rest[second - 1], rest[second])[0] == pytest.approx(0.79, abs=0.03)
    assert delong(label, score, owner=owner)[0] == pytest.approx(ndtr(1 / np.sqrt(2)), abs=0.02)
