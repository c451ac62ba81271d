"""Every metric against scikit-learn, published numbers, and what must not change it."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as oracle

from lucency.core.manifest import FINDINGS
from lucency.evaluation.bootstrap import Weights, all_and_resampled, interval, once
from lucency.evaluation.metrics import (
    BLOCK,
    METRICS,
    RANKED,
    WITHOUT_INTERVAL,
    bin_of,
    calibration_floor,
    expected_calibration_error,
    macro_auc,
    measure,
    not_computable,
    precision_of_others,
    precision_recall_points,
    rank_films,
    roc_points,
)

# Facts: evaluation.md; John Zech, reproduce-chexnet, with the labels of v2020.
PUBLISHED = """
.8179808156 .9090149137 .8827164015 .7156449830 .8376837532 .7755751107 .7616870310
.8776145243 .8002045198 .8944599671 .9316231389 .8250897843 .7889195976 .9175253237
"""


def _log_loss(label, logit, sample_weight):
    probability = expit(logit.astype(np.float64))
    return oracle.log_loss(label, probability, sample_weight=sample_weight, labels=[0, 1])


def _specificity(label, decision, sample_weight):
    return oracle.recall_score(label, decision, pos_label=0, sample_weight=sample_weight)


def _npv(label, decision, sample_weight):
    return oracle.precision_score(label, decision, pos_label=0, sample_weight=sample_weight)


def _partial_area(label, logit, sample_weight):
    return oracle.roc_auc_score(label, logit, sample_weight=sample_weight, max_fpr=0.1)


def _recall_at_specificity(label, logit, sample_weight):
    rate, recall, _ = oracle.roc_curve(
        label, logit, sample_weight=sample_weight, drop_intermediate=False
    )
    return recall[1 - rate >= 0.9 - 1e-12].max()


def _specificity_at_recall(label, logit, sample_weight):
    rate, recall, _ = oracle.roc_curve(
        label, logit, sample_weight=sample_weight, drop_intermediate=False
    )
    return (1 - rate)[recall >= 0.9 - 1e-12].max()


def _calibration_error(label, probability, sample_weight):
    """Return the definition, film by film, in the bins of scikit-learn's `calibration_curve`."""
    edges = np.percentile(probability, 100 * np.linspace(0, 1, 16)[1:-1])
    films, positives, predicted = np.zeros(15), np.zeros(15), np.zeros(15)
    for truth, share, weight in zip(label, probability, sample_weight, strict=True):
        place = (share > edges).sum()
        films[place] += weight
        positives[place] += weight * truth
        predicted[place] += weight * share
    filled = films > 0
    gap = np.abs(positives[filled] / films[filled] - predicted[filled] / films[filled])
    return (gap * films[filled]).sum() / films.sum()


ORACLES = {
    "auc": oracle.roc_auc_score,
    "average_precision": oracle.average_precision_score,
    "partial_auc": _partial_area,
    "recall_at_specificity": _recall_at_specificity,
    "specificity_at_recall": _specificity_at_recall,
    "f1": oracle.f1_score,
    "precision": oracle.precision_score,
    "recall": oracle.recall_score,
    "specificity": _specificity,
    "npv": _npv,
    "mcc": oracle.matthews_corrcoef,
    "accuracy": oracle.accuracy_score,
    "balanced_accuracy": oracle.balanced_accuracy_score,
    "bce": _log_loss,
    "brier": oracle.brier_score_loss,
    "ece": _calibration_error,
}
NAMES = list(METRICS)
RANKS = list(RANKED)


def _films(seed, *, films=200, levels=25):
    """Return labels and logits of so many films, with ties, both classes and both decisions."""
    generator = np.random.default_rng(seed)
    label = (generator.random(films) < 0.2).astype(np.float32)
    label[:2] = 0, 1
    logit = np.round((generator.normal(size=films) + label) * levels / 6) * 6 / levels
    logit[2:4] = -1, 1
    return label, logit.astype(np.float32), generator


def _inputs(logit):
    probability = expit(logit.astype(np.float64))
    return {"logit": logit, "probability": probability, "decision": probability >= 0.5}


def _given(name, logit):
    return _inputs(logit)[METRICS[name].takes]


def _value(name, label, logit, weights=None):
    weights = weights or once(len(label))
    value = METRICS[name].function(label, _given(name, logit), weights=weights)
    return value if value.shape != (1,) else float(value[0])


def _weigh(weight):
    return Weights(owner=np.arange(len(weight)), times=weight[:, None])


def test_no_metric_lacks_an_oracle():
    assert set(ORACLES) == set(METRICS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_with_and_without_weights(name, seed):
    label, logit, generator = _films(seed)
    weight = generator.choice([0.0, 0.5, 1.0, 2.0, 3.7], size=len(label))
    weight[:4] = 1
    shown = _given(name, logit)
    plain = ORACLES[name](label, shown, sample_weight=np.ones(len(label)))
    weighted = ORACLES[name](label, shown, sample_weight=weight)
    assert _value(name, label, logit) == pytest.approx(plain, abs=1e-9)
    assert _value(name, label, logit, _weigh(weight)) == pytest.approx(weighted, abs=1e-9)


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("levels", [1, 2, 3, 6, 10_000])
def test_equals_scikit_learn_with_all_and_with_no_ties(name, levels):
    for seed in range(5):
        label, logit, generator = _films(seed, films=60, levels=levels)
        weight = generator.choice([0.0, 1.0, 2.0], size=60)
        weight[:4] = 1
        expected = ORACLES[name](label, logit, sample_weight=weight)
        found = _value(name, label, logit, _weigh(weight))
        assert found == pytest.approx(expected, abs=1e-9), seed


@pytest.mark.parametrize("weights", ["once", "drawn"])
def test_measure_gives_every_metric_as_it_is_alone(weights):
    label, logit, generator = _films(3)
    label[5:9] = np.nan
    times = generator.integers(0, 4, size=(50, 9)).astype(np.float64)
    owner = generator.integers(0, 50, size=len(label))
    weights = {"once": once(len(label)), "drawn": Weights(owner=owner, times=times)}[weights]
    found = measure(label, _inputs(logit), weights=weights)
    assert list(found) == NAMES
    for name in NAMES:
        alone = METRICS[name].function(label, _given(name, logit), weights=weights)
        expected = alone[:1].repeat(len(alone)) if name in WITHOUT_INTERVAL else alone
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_all_metrics_of_ranks_share_one_walk(monkeypatch):
    label, logit, _ = _films(0)
    counted = []
    histogram = Weights.histogram

    def count(weights, *given, **named):
        counted.append(named)
        return histogram(weights, *given, **named)

    monkeypatch.setattr(Weights, "histogram", count)
    rank_films(label, logit, weights=once(len(label)), names=["auc"])
    walk = len(counted)
    rank_films(label, logit, weights=once(len(label)), names=RANKED)
    assert len(counted) == 2 * walk


def test_a_walk_holds_no_levels_times_resamples():
    label, logit, generator = _films(0, films=10_000, levels=10**6)
    times = generator.integers(0, 3, size=(1_000, 2_400)).astype(np.float64)
    assert (label == 1).sum() * 600 > 2 * BLOCK
    peak = []
    for resamples in (600, 2_400):
        weights = Weights(owner=np.arange(10_000) % 1_000, times=times[:, :resamples])
        tracemalloc.start()
        rank_films(label, logit, weights=weights, names=RANKED)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peak[1] < 1.1 * peak[0]


def test_resamples_in_a_byte_each_give_the_last_bit_of_those_in_double_precision():
    label, logit, generator = _films(3)
    patient = generator.integers(0, 60, size=len(label))
    drawn = all_and_resampled(patient, resamples=150, seed=0)
    assert drawn.times.dtype == np.uint8
    people = len(np.unique(patient))
    equal = np.full(people, 1 / people)
    together = np.random.default_rng(0).multinomial(people, equal, size=150)
    np.testing.assert_array_equal(drawn.times[:, 1:].T, together)
    wide = Weights(owner=drawn.owner, times=np.ascontiguousarray(drawn.times, dtype=np.float64))
    inputs = {"logit": logit, "probability": expit(logit), "decision": logit > 0}
    found, expected = (measure(label, inputs, weights=one) for one in (drawn, wide))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    term = generator.normal(size=(3, len(label)))
    sums = [np.bincount(wide.owner, weights=one, minlength=len(wide.times)) for one in term]
    at_once = np.einsum("cp,pr->cr", np.stack(sums), wide.times)
    np.testing.assert_array_equal(drawn.total(term), at_once)


def test_the_weights_of_some_films_know_their_owners_alone():
    label, logit, generator = _films(3)
    patient = generator.integers(0, 60, size=len(label))
    rows = patient < 20
    whole = all_and_resampled(patient, resamples=50, seed=0)
    some = whole.take(rows)
    assert len(some.times) == len(np.unique(patient[rows]))
    np.testing.assert_array_equal(
        rank_films(label[rows], logit[rows], weights=some, names=["auc"])["auc"],
        rank_films(np.where(rows, label, np.nan), logit, weights=whole, names=["auc"])["auc"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_weights_are_independent_also_over_blocks(name, monkeypatch):
    label, logit, generator = _films(1)
    times = generator.integers(0, 4, size=(50, 9)).astype(np.float64)
    owner = generator.integers(0, 50, size=len(label))
    together = _value(name, label, logit, Weights(owner=owner, times=times))
    monkeypatch.setattr("lucency.evaluation.metrics.BLOCK", 75)
    monkeypatch.setattr("lucency.evaluation.metrics.LINE", 3)
    monkeypatch.setattr("lucency.evaluation.bootstrap.AT_ONCE", 2)
    assert np.array_equal(
        together, _value(name, label, logit, Weights(owner=owner, times=times)), equal_nan=True
    )
    alone = [_value(name, label, logit, _weigh(column[owner])) for column in times.T]
    np.testing.assert_allclose(together, alone, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_doubling_and_unstated_labels_change_nothing(name, seed):
    label, logit, generator = _films(seed)
    value = _value(name, label, logit)
    order = generator.permutation(len(label))
    assert _value(name, label[order], logit[order]) == pytest.approx(value, abs=1e-12)
    doubled = _weigh(np.full(len(label), 2.0))
    assert _value(name, label, logit, doubled) == pytest.approx(value, abs=1e-12)
    unstated = np.append(label, np.full(7, np.nan, dtype=np.float32))
    more = np.append(logit, generator.normal(size=7).astype(np.float32))
    assert _value(name, unstated, more) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", RANKS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), slope=st.floats(0.01, 50), shift=st.floats(-5, 5))
def test_monotone_maps_change_no_rank_metric(name, seed, slope, shift):
    label, logit, _ = _films(seed)
    level, place = np.unique(logit, return_inverse=True)
    mapped = (np.arange(len(level)) ** 3 * slope + shift)[place]
    assert _value(name, label, mapped) == _value(name, label, logit)


def test_bce_is_stable_where_probabilities_saturate():
    label = np.array([0, 1, 0, 1], dtype=np.float32)
    logit = np.array([800, -800, -800, 800], dtype=np.float32)
    assert _value("bce", label, logit) == 400


def test_calibration_error_by_hand():
    """Every film has a bin of its own but two of one probability: gaps .9 - 1/2, .5 - 1, .02."""
    label = np.array([1, 0, 1, 0, np.nan], dtype=np.float32)
    probability = np.array([0.9, 0.9, 0.5, 0.02, 0.7])
    weights = Weights(owner=np.array([0, 0, 1, 2, 2]), times=np.array([[1, 2], [1, 0], [1, 1.0]]))
    found = expected_calibration_error(label, probability, weights=weights)
    drawn = (4 * 0.4 + 0.02) / 5
    assert found == pytest.approx([(2 * 0.4 + 0.5 + 0.02) / 4, drawn], abs=1e-12)


def test_the_bins_hold_as_many_films_each_also_where_a_finding_is_rare():
    """With bins of equal width most of these films are in one."""
    generator = np.random.default_rng(0)
    probability = generator.beta(0.3, 11, size=3000)
    films = np.bincount(bin_of(probability, stated=np.ones(3000, dtype=bool)))
    assert films.tolist() == [200] * 15
    assert (probability <= 1 / 15).mean() > 0.8
    rough = np.round(probability, 2)
    tied = bin_of(rough, stated=np.ones(3000, dtype=bool))
    pairs = set(zip(rough.tolist(), tied.tolist(), strict=True))
    assert len(pairs) == len(set(rough.tolist()))  # equal probabilities share a bin


def test_the_floor_is_the_error_of_labels_drawn_by_the_probabilities():
    generator = np.random.default_rng(1)
    for films in (50, 236, 2000):
        probability = generator.beta(0.3, 11, size=films)
        drawn = [
            expected_calibration_error(
                (generator.random(films) < probability).astype(np.float64), probability,
                weights=once(films),
            )[0]
            for _ in range(300)
        ]  # fmt: skip
        floor = calibration_floor(np.zeros(films), probability)
        assert floor == pytest.approx(np.mean(drawn), abs=3 * np.std(drawn) / np.sqrt(300))
    assert np.isnan(calibration_floor(np.full(3, np.nan), np.full(3, 0.1)))


def test_average_precision_without_its_bias_by_hand():
    """Scores fall; patients a a b c c. The first film has no other above it: 1 by definition."""
    label = np.array([1, 0, 1, 1, 0], dtype=np.float32)
    score = np.array([5.0, 4, 3, 2, 1])
    weights = Weights(owner=np.array([0, 0, 1, 2, 2]), times=np.array([[1, 2], [1, 0], [1, 1.0]]))
    # Above b's film stand both of a: 1 of 2. Above c's, those and b's: 2 of 3; drawn 2 of 4.
    expected = [(1 + 1 / 2 + 2 / 3) / 3, (2 * 1 + 2 / 4) / 3]
    found = precision_of_others(label, score, weights=weights)
    assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_error_is_0_where_shares_are_said_and_large_where_they_are_shifted():
    generator = np.random.default_rng(0)
    share = generator.beta(0.5, 3, size=100_000)
    label = (generator.random(100_000) < share).astype(np.float32)
    weights = once(len(label))
    assert expected_calibration_error(label, share, weights=weights)[0] < 0.005
    shifted = expit(np.log(share / (1 - share)) + 2)
    gap = (shifted - share).mean()
    found = expected_calibration_error(label, shifted, weights=weights)[0]
    assert found == pytest.approx(gap, abs=0.005)


def test_calibration_error_holds_no_bins_times_films():
    films = 400_000
    label, probability = np.zeros(films, dtype=np.float32), np.linspace(0, 1, films)
    weights = once(films)
    expected_calibration_error(label[:9], probability[:9], weights=once(9))
    tracemalloc.start()
    expected_calibration_error(label, probability, weights=weights)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * films * 8


@pytest.mark.parametrize(
    ("label", "lacking"),
    [
        ([0, 0, 0], "positives"),
        ([1, 1, 1], "negatives"),
        ([np.nan] * 3, "films with a label"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_not_computable_and_never_a_warning(name, label, lacking):
    label = np.array(label, dtype=np.float32)
    logit = np.array([-1, 2, 3], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = _value(name, label, logit)
    note = not_computable(name, label=label, decision=logit > 0)
    needed = lacking in METRICS[name].needs or lacking == "films with a label"
    assert np.isnan(value) == needed
    assert note == (f"not computable: 0 {lacking}" if needed else "")


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("absent", [0, 1])
def test_a_resample_without_a_class_has_no_value(name, absent):
    """As when the patients with the few positive films are not drawn; other columns have one."""
    label, logit, _ = _films(0)
    times = np.stack([np.ones(200), label != absent, np.ones(200)], axis=1).astype(np.float64)
    found = _value(name, label, logit, Weights(owner=np.arange(200), times=times))
    assert np.isnan(found).tolist() == [False, True, False]


def test_precision_of_calling_nothing_positive_is_not_zero():
    label, logit = np.array([0, 1], dtype=np.float32), np.array([-2, -1], dtype=np.float32)
    assert np.isnan(_value("precision", label, logit))
    assert _value("f1", label, logit) == _value("recall", label, logit) == 0
    note = not_computable("precision", label=label, decision=logit > 0)
    assert note == "not computable: 0 films called positive"


def test_calling_all_films_alike_has_no_correlation():
    """Where scikit-learn puts 0, which would say that decisions were drawn by lot."""
    label, same = np.array([0, 1, 0], dtype=np.float32), np.ones(3, dtype=np.float32)
    assert oracle.matthews_corrcoef(label, same > 0) == 0
    for decision, other in ((same > 0, "negative"), (same < 0, "positive")):
        assert np.isnan(METRICS["mcc"].function(label, decision, weights=once(3)))
        note = not_computable("mcc", label=label, decision=decision)
        assert note == f"not computable: 0 films called {other}"


def test_a_threshold_that_just_reaches_what_is_asked_for_counts():
    """Ten positive and ten negative films: nine of either are .9 exactly, eight are too few.

    From the highest score down: p, n, eight p, eight n, p, n. Below the ninth positive film one
    negative film is called; below the tenth, nine.
    """
    label = np.array([*[1, 0], *[1] * 8, *[0] * 8, *[1, 0]], dtype=np.float32)
    logit = -np.arange(20, dtype=np.float32)
    assert _value("recall_at_specificity", label, logit) == 0.9
    assert _value("specificity_at_recall", label, logit) == 0.9
    one_worse = logit.copy()
    one_worse[10] = 0.5  # a second negative film among the first
    assert _value("recall_at_specificity", label, one_worse) == 0.1
    assert _value("specificity_at_recall", label, one_worse) == 0.8
    for times in (3, 7, 30, 1000):
        many = _weigh(np.full(20, float(times)))
        assert _value("recall_at_specificity", label, logit, many) == pytest.approx(0.9)
        assert _value("specificity_at_recall", label, logit, many) == pytest.approx(0.9)


def test_one_score_for_all_is_chance_and_finds_nothing():
    label, same = np.array([0, 1, 1, 0], dtype=np.float32), np.zeros(4, dtype=np.float32)
    found = {name: _value(name, label, same) for name in RANKS}
    assert found == {
        "auc": 0.5,
        "average_precision": 0.5,
        "partial_auc": pytest.approx(0.5),
        "recall_at_specificity": 0,
        "specificity_at_recall": 0,
    }


def test_a_note_says_exactly_when_the_value_is_nan():
    """So that no metric's `needs` is wrong: all labellings and decisions of two films."""
    for name in NAMES:
        for code in np.ndindex(3, 3, 2, 2):
            label = np.array([0, 1, np.nan], dtype=np.float32)[list(code[:2])]
            logit = np.array([-1, 1], dtype=np.float32)[list(code[2:])]
            note = not_computable(name, label=label, decision=logit > 0)
            assert np.isnan(_value(name, label, logit)) == bool(note), (name, label, logit)


def test_predictions_of_zech_give_the_published_areas(shared):
    label, probability = _zech(shared)
    logit = np.log(probability / (1 - probability)).astype(np.float32)
    for place, published in enumerate(PUBLISHED.split()):
        for score in (logit, probability):
            area = _value("auc", label[:, place], score[:, place])
            assert f"{area:.10f}"[1:] == published, FINDINGS[place]
    assert f"{macro_auc(label, logit):.10f}" == "0.8382671332"


def test_macro_auc_leaves_out_what_has_one_class():
    label, logit, _ = _films(0)
    two = np.stack([label, np.zeros_like(label)], axis=1)
    assert macro_auc(two, np.stack([logit, logit], axis=1)) == _value("auc", label, logit)
    assert np.isnan(macro_auc(two[:, 1:], two[:, 1:]))


@pytest.mark.parametrize("seed", range(5))
def test_curves_equal_scikit_learn(seed):
    label, logit, _ = _films(seed, levels=10 + 60 * seed)
    rate, recall, _ = oracle.roc_curve(label, logit, drop_intermediate=False)
    corners = np.stack(roc_points(label, logit), axis=1)
    assert {*map(tuple, corners)} <= {*zip(rate, recall, strict=True)}
    area = np.trapezoid(corners[:, 1], corners[:, 0])
    assert area == pytest.approx(oracle.roc_auc_score(label, logit), abs=1e-12)
    assert len(corners) < len(rate) or seed == 0  # many ties: every point is a corner
    precision, recall, _ = oracle.precision_recall_curve(label, logit, drop_intermediate=True)
    expected = recall[-2::-1], precision[-2::-1]  # without its invented end at recall 0
    np.testing.assert_allclose(precision_recall_points(label, logit), expected, atol=1e-12)


def test_curves_of_one_class_are_empty_and_of_one_score_are_straight():
    label, same = np.array([0, 1, 1], dtype=np.float32), np.zeros(3, dtype=np.float32)
    assert [list(axis) for axis in roc_points(label, same)] == [[0, 1], [0, 1]]
    assert [list(axis) for axis in precision_recall_points(label, same)] == [[1], [2 / 3]]
    assert roc_points(np.zeros(3), same)[0].size == roc_points(np.ones(3), same)[0].size == 0
    assert precision_recall_points(np.zeros(3), same)[0].size == 0


def test_interval_holds_the_middle_95_percent_of_what_is_computable():
    values = np.append(np.linspace(0, 1, 1001), [np.nan] * 10)
    np.testing.assert_allclose(interval(values[None])[:, 0], (0.025, 0.975))
    assert np.isnan(interval(np.full((2, 5), np.nan))).all()


def _zech(shared):
    published = pd.read_csv(shared / "nih" / "zech" / "preds.csv")
    columns = ["Image Index", "Finding Labels"]
    table = pd.read_csv(shared / "nih" / "Data_Entry_2017_v2020.csv", usecols=columns)
    table = table.set_index("Image Index")
    code, distinct = pd.factorize(table.loc[published["Image Index"], "Finding Labels"])
    tokens = pd.Series(distinct).str.get_dummies("|")[list(FINDINGS)]
    label = tokens.to_numpy(dtype=np.float32)[code]
    return label, published[[f"prob_{finding}" for finding in FINDINGS]].to_numpy(dtype=np.float64)


@pytest.mark.parametrize("least", [0.0, np.finfo(np.float64).tiny, 1e-300])
def test_the_calibration_floor_of_films_of_probability_0_is_a_number(least):
    probability = np.r_[np.full(40, least), np.linspace(0.01, 0.9, 60)]
    label = np.r_[np.zeros(40), np.tile([0.0, 1.0], 30)]
    assert 0 < calibration_floor(label, probability) < 0.2
