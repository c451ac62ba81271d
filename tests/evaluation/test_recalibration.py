"""Recalibration against scikit-learn, known slopes, and what it must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.special import logit as log_odds
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lucency.evaluation.bootstrap import once
from lucency.evaluation.calibration import (
    RECALIBRATIONS,
    SMALLEST_SLOPE,
    Recalibration,
    recalibrate,
)
from lucency.evaluation.metrics import METRICS

NAMES = list(RECALIBRATIONS)
FITTED = ["temperature", "platt"]


class Fixed(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its one feature."""

    def fit(self, _, label):
        self.classes_ = np.unique(label)
        return self

    def decision_function(self, feature):
        return feature[:, 0]

    def predict(self, feature):
        return (feature[:, 0] > 0).astype(np.float32)


def _films(seed, *, films=400, slope=0.6, offset=-1.5, spread=2.0):
    """Return one finding whose true log odds are slope x logit + offset."""
    generator = np.random.default_rng(seed)
    logit = (generator.normal(size=(films, 1)) * spread).astype(np.float32)
    label = (generator.random((films, 1)) < expit(slope * logit + offset)).astype(np.float32)
    label[:2, 0] = 0, 1
    return label, logit


def _loss(label, logit):
    """Return the log-loss of one finding in nats."""
    wide = logit.astype(np.float64)
    return float(METRICS["bce"].function(label, wide, weights=once(len(label)))[0])


def _regression(logit, target, *, intercept):
    """Return slope and offset of scikit-learn's logistic regression on soft targets.

    A soft target is a positive film of weight target and a negative one of the rest.
    """
    rows = np.concatenate([logit, logit]).astype(np.float64)
    truth = np.repeat([1, 0], len(logit))
    weight = np.concatenate([target, 1 - target])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000, fit_intercept=intercept)
    model.set_params(solver="newton-cholesky").fit(rows, truth, sample_weight=weight)
    return model.coef_[0, 0], model.intercept_[0] if intercept else 0


def test_no_method_is_forgotten():
    assert set(NAMES) == {"none", *FITTED, "isotonic"}


@pytest.mark.parametrize("seed", range(5))
def test_platt_equals_logistic_regression_on_smoothed_targets(seed):
    label, logit = _films(seed)
    found = recalibrate(label, logit, method="platt")
    positives, negatives = label.sum(), (1 - label).sum()
    target = np.where(label[:, 0] == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    expected = _regression(logit, target, intercept=True)
    assert (found.slope[0], found.offset[0]) == pytest.approx(expected, abs=1e-6)
    assert found.note == ("",)


@pytest.mark.parametrize("seed", range(5))
def test_platt_equals_the_sigmoid_of_scikit_learn(seed):
    label, logit = _films(seed)
    wide = logit.astype(np.float64)
    calibrated = FrozenEstimator(Fixed().fit(wide, label[:, 0]))
    oracle = CalibratedClassifierCV(calibrated, method="sigmoid", ensemble=False, cv=2)
    expected = oracle.fit(wide, label[:, 0]).predict_proba(wide)[:, 1]
    found = expit(recalibrate(label, logit, method="platt").apply(logit))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_temperature_equals_logistic_regression_without_intercept(seed):
    label, logit = _films(seed, offset=0)
    found = recalibrate(label, logit, method="temperature")
    expected, _ = _regression(logit, label[:, 0].astype(np.float64), intercept=False)
    assert found.slope[0] == pytest.approx(expected, abs=1e-6)
    assert found.offset[0] == 0


def test_recovers_the_slopes_and_offsets_that_made_the_labels():
    """Within 4 standard errors, about .013 x 4 for a slope and .016 x 4 for an offset."""
    truth = [(0.25, -1.0), (1.0, 0.0), (2.0, -2.0)]
    pairs = [_films(7, films=100_000, slope=s, offset=o, spread=1.5) for s, o in truth]
    label, logit = (np.hstack(part) for part in zip(*pairs, strict=True))
    found = recalibrate(label, logit, method="platt")
    np.testing.assert_allclose(found.slope, [s for s, _ in truth], atol=0.07)
    np.testing.assert_allclose(found.offset, [o for _, o in truth], atol=0.07)
    label, logit = _films(8, films=100_000, slope=0.4, offset=0)
    assert recalibrate(label, logit, method="temperature").slope[0] == pytest.approx(0.4, abs=0.02)


def test_restores_the_prevalence_that_positive_weights_shifted():
    """Training with positives counted w times adds log w to the log odds of a sound network."""
    generator = np.random.default_rng(3)
    odds = generator.normal(size=20_000) * 1.5 - 4
    label = (generator.random((20_000, 1)) < expit(odds)[:, None]).astype(np.float32)
    logit = (odds + np.log(50)).astype(np.float32)[:, None]
    found = recalibrate(label, logit, method="platt")
    assert expit(logit).mean() > 8 * label.mean()
    assert expit(found.apply(logit)).mean() == pytest.approx(label.mean(), abs=1e-4)
    assert found.slope[0] == pytest.approx(1, abs=0.1)
    assert found.offset[0] == pytest.approx(-np.log(50), abs=0.2)

    def error(calibrated):
        function = METRICS["ece"].function
        return function(label[:, 0], expit(calibrated)[:, 0], weights=once(len(label)))[0]

    assert error(logit) > 0.3
    assert error(found.apply(logit)) < 0.005


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    films=st.integers(3, 300),
    slope=st.floats(-3, 3),
    offset=st.floats(-6, 3),
    spread=st.sampled_from([1e-3, 0.1, 1.0, 10.0, 80.0, 1e4]),
)
@pytest.mark.parametrize("method", NAMES)
def test_keeps_order_and_never_harms(method, seed, films, slope, offset, spread):
    label, logit = _films(seed, films=films, slope=slope, offset=offset, spread=spread)
    found = recalibrate(label, logit, method=method)
    calibrated = found.apply(logit)[:, 0]
    assert np.isfinite(calibrated).all()
    assert found.slope[0] >= SMALLEST_SLOPE
    order = np.argsort(logit[:, 0], kind="stable")
    rises = np.diff(calibrated[order])[np.diff(logit[order, 0]) > 0]
    assert (rises >= 0 if method == "isotonic" else rises > 0).all()
    if method == "temperature":
        assert _loss(label[:, 0], calibrated) <= _loss(label[:, 0], logit[:, 0]) + 1e-12
    if method == "platt":
        # The offset's optimum: calibrated shares sum to the smoothed targets, within one film of
        # the positives.
        assert abs(expit(calibrated).sum() - label.sum()) < 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.01, 1.0, 30.0]))
@pytest.mark.parametrize("method", FITTED)
def test_no_line_nearby_is_better(method, seed, spread):
    label, logit = _films(seed, films=60, spread=spread, slope=0.5 / spread)
    found = recalibrate(label, logit, method=method)
    positives, negatives = label.sum(), (1 - label).sum()
    soft = np.where(label[:, 0] == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    target = soft if method == "platt" else label[:, 0].astype(np.float64)
    wide = logit[:, 0].astype(np.float64)

    def loss(slope, offset):
        calibrated = slope * wide + offset
        return np.mean(np.logaddexp(0, calibrated) - target * calibrated)

    best = loss(found.slope[0], found.offset[0])
    shifts = (-0.05, 0, 0.05) if method == "platt" else (0,)
    for factor in (0.95, 1, 1.05):
        for shift in shifts:
            slope = max(found.slope[0] * factor, SMALLEST_SLOPE)
            assert loss(slope, found.offset[0] + shift) >= best - 1e-12


@pytest.mark.parametrize("method", FITTED)
def test_a_network_that_says_the_opposite_is_held_level_and_not_turned_round(method):
    label, logit = _films(0, slope=-2, offset=0)
    found = recalibrate(label, logit, method=method)
    assert found.slope[0] == SMALLEST_SLOPE
    assert found.note == ("slope held at 0.001: the best on validation films is not above it",)
    assert expit(found.apply(logit)) == pytest.approx(label.mean(), abs=0.05)


def test_temperature_cannot_undo_a_shift_and_says_so():
    label, logit = _films(0, slope=1, offset=-3, spread=0.5)
    shifted = logit + 5
    found = recalibrate(label, shifted, method="temperature")
    assert found.slope[0] == SMALLEST_SLOPE
    assert found.note[0].startswith("slope held")
    assert recalibrate(label, shifted, method="platt").note == ("",)


def test_temperature_without_one_wrong_sign_is_not_fitted():
    label = np.array([[0], [1], [1]], dtype=np.float32)
    right = np.array([[-1], [2], [0]], dtype=np.float32)
    found = recalibrate(label, right, method="temperature")
    assert (found.slope[0], found.offset[0]) == (1, 0)
    assert found.note[0].startswith("not fitted: no logit has the wrong sign")
    wrong = np.array([[-1], [2], [-0.01]], dtype=np.float32)
    assert recalibrate(label, wrong, method="temperature").note == ("",)


@pytest.mark.parametrize("value", [-2.7, 0.1, 3])
def test_platt_of_one_logit_for_all_films_gives_the_smoothed_prevalence(value):
    label = np.array([[1], [0], [0], [0]], dtype=np.float32)
    logit = np.full((4, 1), value, dtype=np.float32)
    found = recalibrate(label, logit, method="platt")
    assert found.slope[0] == SMALLEST_SLOPE
    # Targets 2 / 3 for the positive film, 1 / 5 for each of three negative ones.
    assert found.apply(logit) == pytest.approx(log_odds((2 / 3 + 3 / 5) / 4), abs=1e-6)


def test_platt_of_separated_films_is_finite():
    label = np.array([[1], [1], [0], [0], [0]], dtype=np.float32)
    logit = np.array([[70], [60], [-50], [-60], [-80]], dtype=np.float32)
    calibrated = expit(recalibrate(label, logit, method="platt").apply(logit))
    # Targets 3 / 4 for two positive films, 1 / 5 for three negative ones.
    assert calibrated[:2] == pytest.approx(0.75, abs=0.05)
    assert calibrated[2:] == pytest.approx(0.2, abs=0.05)
    assert calibrated.sum() == pytest.approx(2 * 3 / 4 + 3 / 5, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    films=st.integers(3, 400),
    slope=st.floats(-1, 3),
    digits=st.integers(0, 5),
)
def test_the_levels_of_isotonic_are_those_of_scikit_learn_on_smoothed_targets(
    seed, films, slope, digits
):
    """Rounded logits are tied; at the mean logit of a block scikit-learn says the block's level."""
    label, logit = _films(seed, films=films, slope=slope)
    logit = np.round(logit, digits)
    knot = recalibrate(label, logit, method="isotonic").knot
    positives, negatives = label.sum(), (1 - label).sum()
    target = np.where(label[:, 0] == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    oracle = IsotonicRegression(out_of_bounds="clip")
    oracle.fit(logit[:, 0].astype(np.float64), target)
    moved = knot[:, 2] - log_odds(oracle.predict(knot[:, 1]))
    np.testing.assert_allclose(moved, moved[0], atol=1e-5)
    made = recalibrate(label, logit, method="isotonic").apply(logit)
    assert expit(made).mean() == pytest.approx(target.mean(), abs=1e-6)
    levels = np.unique(np.round(oracle.predict(logit[:, 0].astype(np.float64)), 9))
    assert len(knot) == len(levels)


def test_isotonic_of_a_toy_by_hand():
    """Blocks 0, (1, 2) and 3 of shares 0, 1 / 2 and 1: smoothed 1 / 4, 1 / 2 and 3 / 4."""
    label = np.array([[0], [1], [0], [1]], dtype=np.float32)
    logit = np.array([[0], [1], [2], [3]], dtype=np.float32)
    found = recalibrate(label, logit, method="isotonic")
    third = np.log(3)
    np.testing.assert_allclose(found.knot, [[0, 0, -third], [0, 1.5, 0], [0, 3, third]], atol=1e-12)
    new = np.array([[-9], [0], [0.75], [1.5], [2], [3], [4]], dtype=np.float32)
    expected = [-third, -third, -third / 2, 0, third / 3, third, third]
    np.testing.assert_allclose(found.apply(new)[:, 0], expected, atol=1e-12)
    assert (found.slope.tolist(), found.offset.tolist(), found.note) == ([1], [0], ("",))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_curve_turns_no_two_films_round_and_says_of_one_what_it_says_of_many(seed, spread):
    """Not even films a last digit apart beside its knots."""
    label, logit = _films(seed, films=80, slope=1 / spread, spread=spread)
    found = recalibrate(label, logit, method="isotonic")
    at = found.knot[:, 1]
    between = np.linspace(at.min() - spread, at.max() + spread, 30)
    near = [np.nextafter(at, way) for way in (-np.inf, np.inf)]
    new = np.sort(np.concatenate([at, *near, between]))[:, None]
    calibrated = found.apply(new)
    assert (np.diff(calibrated[:, 0]) >= 0).all()
    assert np.array_equal(calibrated, np.concatenate([found.apply(one[None]) for one in new]))


def test_the_mean_probability_of_isotonic_is_the_prevalence_where_positives_are_few():
    """Straight lines between logits lie above those between shares: it was 1.09 times as much."""
    ratios = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        label = (generator.random((1000, 1)) < 0.02).astype(np.float32)
        logit = (generator.normal(size=(1000, 1)) + 1.8 * label).astype(np.float32)
        truth = generator.random((20_000, 1)) < 0.02
        new = generator.normal(size=truth.shape) + 1.8 * truth
        found = expit(recalibrate(label, logit, method="isotonic").apply(new)).mean()
        ratios.append(found / label.mean())
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_isotonic_bends_where_a_line_cannot():
    """Truth rises, is level, rises again; on other films the curve's log-loss is near its own."""
    generator = np.random.default_rng(4)
    logit = (generator.normal(size=(40_000, 1)) * 3).astype(np.float32)
    odds = np.where(np.abs(logit) < 3, -2, logit - np.sign(logit) * 3 - 2)
    label = (generator.random(odds.shape) < expit(odds)).astype(np.float32)
    known, new = slice(0, 20_000), slice(20_000, None)
    loss = {
        name: _loss(label[new, 0], recalibrate(label[known], logit[known], method=name)
                    .apply(logit[new])[:, 0])
        for name in ("platt", "isotonic")
    }  # fmt: skip
    best = _loss(label[new, 0], odds[new, 0])
    assert loss["platt"] > best + 0.01
    assert best < loss["isotonic"] < best + 0.003


def test_isotonic_of_a_network_that_says_the_opposite_is_one_level_and_says_so():
    label = np.array([[1], [1], [0], [0], [0]], dtype=np.float32)
    logit = np.array([[-2], [-1], [0], [1], [2]], dtype=np.float32)
    found = recalibrate(label, logit, method="isotonic")
    assert found.note == (
        "one level for all films: no higher logits have a higher share in validation",
    )
    # Targets 3 / 4 for two positive films, 1 / 5 for three negative ones.
    assert expit(found.apply(logit)) == pytest.approx((2 * 3 / 4 + 3 / 5) / 5)


@pytest.mark.parametrize("value", [0, 1, np.nan])
def test_isotonic_of_a_finding_that_lacks_a_class_is_platt_s(value):
    label, logit = _films(0)
    label, logit = np.hstack([np.full_like(label, value), label]), np.hstack([logit, logit])
    found, line = (recalibrate(label, logit, method=name) for name in ("isotonic", "platt"))
    assert np.array_equal(found.apply(logit)[:, 0], line.apply(logit)[:, 0])
    assert (found.note[0], found.note[1]) == (line.note[0], "")
    assert "not fitted" in found.note[0]
    assert set(found.knot[:, 0]) == {1}


ONE_CLASS = {
    0: "not fitted: 0 positives in validation",
    1: "not fitted: 0 negatives in validation",
}


@pytest.mark.parametrize(
    ("method", "value", "note"),
    [
        ("temperature", 0, ONE_CLASS[0]),
        ("temperature", 1, ONE_CLASS[1]),
        *((m, np.nan, "not fitted: 0 positives and 0 negatives in validation") for m in FITTED),
    ],
)
def test_a_finding_with_one_class_keeps_its_logits_and_says_so(method, value, note):
    label, logit = _films(0)
    label, logit = np.hstack([label, np.full_like(label, value)]), np.hstack([logit, logit])
    found = recalibrate(label, logit, method=method)
    assert found.note == ("", note)
    assert np.array_equal(found.apply(logit)[:, 1], logit[:, 1])
    assert found.slope[0] != 1


@pytest.mark.parametrize("value", ONE_CLASS)
def test_what_weights_raised_comes_down_where_validation_has_one_class(value):
    """Weights of 400 raise a finding's logits by ln 400; its mean must be near what was seen."""
    label, logit = _films(0)
    label, raised = np.full_like(label, value), logit + np.log(400, dtype=np.float32)
    found = recalibrate(label, raised, method="platt")
    assert found.note == (f"slope {ONE_CLASS[value]}",)
    assert found.slope.tolist() == [1]
    films = len(label)
    mean = (films + 1) / (films + 2) if value else 1 / (films + 2)
    assert expit(found.apply(raised)).mean() == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("method", NAMES)
def test_unstated_labels_other_findings_and_order_do_not_count(method):
    label, logit = _films(0)
    alone = recalibrate(label, logit, method=method)
    more = np.vstack([label, np.full((50, 1), np.nan, dtype=np.float32)])
    calibrated = np.vstack([logit, np.full((50, 1), 9, dtype=np.float32)])
    unstated = recalibrate(more, calibrated, method=method)
    assert (unstated.slope, unstated.offset) == (alone.slope, alone.offset)
    other, noise = _films(5, slope=2)
    both = recalibrate(np.hstack([other, label]), np.hstack([noise, logit]), method=method)
    assert (both.slope[1], both.offset[1]) == (alone.slope[0], alone.offset[0])
    for found, place in ((unstated, 0), (both, 1)):
        curve = found.knot[found.knot[:, 0] == place, 1:]
        assert np.array_equal(curve, alone.knot[:, 1:])
    turned = recalibrate(label[::-1].copy(), logit[::-1].copy(), method=method)
    assert turned.slope == pytest.approx(alone.slope, abs=1e-9)
    np.testing.assert_allclose(turned.knot, alone.knot, atol=1e-9)


def test_none_changes_nothing_but_precision():
    label, logit = _films(0)
    found = recalibrate(label, logit, method="none")
    assert (found.method, found.note) == ("none", ("",))
    assert found.apply(logit).dtype == np.float64
    assert np.array_equal(found.apply(logit), logit)


def test_log_loss_of_a_toy_by_hand():
    """Of logits 2, 2, 2, -2 and labels 1, 1, 0, 0 the best slope is log(3) / 2: p = 3 / 4."""
    label = np.array([[1], [1], [0], [0]], dtype=np.float32)
    logit = np.array([[2], [2], [2], [-2]], dtype=np.float32)
    found = recalibrate(label, logit, method="temperature")
    assert found.slope[0] == pytest.approx(np.log(3) / 2, abs=1e-8)
    calibrated = expit(found.apply(logit))[:, 0]
    assert calibrated == pytest.approx([0.75, 0.75, 0.75, 0.25])
    assert _loss(label[:, 0], found.apply(logit)[:, 0]) == pytest.approx(
        log_loss(label, calibrated)
    )


def test_an_unknown_method_is_refused():
    expected = "recalibration 'beta' is unknown; expected one of none, temperature, platt, isotonic"
    with pytest.raises(ValueError, match=expected):
        recalibrate(*_films(0), method="beta")


@pytest.mark.parametrize("method", NAMES)
def test_arrays_of_different_shapes_are_refused(method):
    label, logit = _films(0)
    with pytest.raises(ValueError, match=r"logits of shape \(399, 1\); expected \(400, 1\)"):
        recalibrate(label, logit[1:], method=method)
    with pytest.raises(ValueError, match=r"logits of shape \(400, 2\); expected \(400, 1\)"):
        recalibrate(label, np.hstack([logit, logit]), method=method)


def test_logits_and_labels_that_are_none_are_refused():
    label, logit = _films(0)
    infinite, odd = logit.copy(), label.copy()
    infinite[3], odd[3] = np.inf, -1
    with pytest.raises(ValueError, match="a logit is NaN or infinite; expected finite"):
        recalibrate(label, infinite, method="none")
    with pytest.raises(ValueError, match=r"a label is -1\.0; expected 1, 0 or NaN"):
        recalibrate(odd, logit, method="none")


def test_logits_of_other_findings_are_refused():
    found = recalibrate(*_films(0), method="platt")
    with pytest.raises(ValueError, match="logits of 3 findings; expected 1"):
        found.apply(np.zeros((5, 3)))


def test_a_line_that_would_turn_the_order_round_is_refused():
    line = {"method": "platt", "slope": np.array([0.0]), "offset": np.zeros(1), "note": ("",)}
    with pytest.raises(ValueError, match="slopes must be above 0"):
        Recalibration(**line)
    with pytest.raises(ValueError, match=r"slope, offset, note: found \[1, 2, 1\]"):
        Recalibration(**{**line, "slope": np.ones(1), "offset": np.zeros(2)})


def test_all_films_of_chestxray14_take_no_time():
    pairs = [_films(seed, films=11_000, offset=-3 - seed) for seed in range(3)]
    label, logit = (np.hstack(part) for part in zip(*pairs, strict=True))
    for method in NAMES:
        assert set(recalibrate(label, logit, method=method).note) == {""}
