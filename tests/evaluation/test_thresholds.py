"""Thresholds: the best on validation by scikit-learn's curves, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import precision_recall_curve, roc_curve

from lucency.config.sections import EvaluationChoices
from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions
from lucency.evaluation.evaluate import thresholds_of
from lucency.evaluation.summary import TEXT
from lucency.evaluation.thresholds import THRESHOLDS, threshold_table


def _predictions(seed=0, films=150, part="val"):
    generator = np.random.default_rng(seed)
    label = (generator.random((films, 2)) < (0.3, 0.1)).astype(np.float32)
    logit = np.round(generator.normal(size=(films, 2)) * 4 + label * 3).astype(np.float32) / 4
    return Predictions(
        network="net",
        split="0123",
        findings=("Mass", "Hernia"),
        image=np.arange(films).astype(str),
        patient=np.arange(films),
        part=np.full(films, part),
        label=label,
        logit=logit,
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _best_f1(label, probability):
    precision, recall, _ = precision_recall_curve(label, probability)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()


def _best_youden(label, probability):
    rate, recall, _ = roc_curve(label, probability)
    return (recall - rate).max()


def _f1(label, decision):
    return 2 * (label * decision).sum() / (label.sum() + decision.sum())


def _youden(label, decision):
    return decision[label == 1].mean() - decision[label == 0].mean()


ORACLES = {"f1": (_f1, _best_f1), "youden": (_youden, _best_youden)}


def test_no_method_lacks_an_oracle():
    assert {*ORACLES, "recall"} == set(THRESHOLDS)


@pytest.mark.parametrize("method", list(ORACLES))
@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_does_better_on_validation(method, seed):
    predictions = _predictions(seed)
    reached, best = ORACLES[method]
    threshold = _fitted(predictions, method=method)
    for place in range(2):
        label, probability = predictions.label[:, place], predictions.probability[:, place]
        assert reached(label, probability >= threshold[place]) == pytest.approx(
            best(label, probability)
        )


@pytest.mark.parametrize("recall", [0.01, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_recall_takes_the_highest_threshold_of_which_it_may_be_expected(seed, recall):
    predictions = _predictions(seed)
    threshold = _fitted(predictions, method="recall", recall=recall)
    for place in range(2):
        label, probability = predictions.label[:, place], predictions.probability[:, place]
        found = {level: (probability >= level)[label == 1].sum() for level in probability}
        positives = label.sum()
        least = min(positives, np.ceil(recall * (positives + 1) - 1e-6))
        expected = max(level for level, count in found.items() if count >= least)
        assert np.array_equal(probability >= threshold[place], probability >= expected)


def test_the_fourteenth_of_twenty_four_films_is_a_recall_of_fifty_six_per_cent():
    """.56 x 25 is 14.000000000000002 to a computer: a fifteenth film would be required."""
    ordered = _ordered(positives=24)
    label = ordered.label
    threshold = _fitted(ordered, method="recall", recall=0.56)
    assert 0.56 * 25 > 14
    assert (label * (ordered.probability >= threshold)).sum(axis=0).tolist() == [14, 14]


def test_the_recall_asked_for_is_that_of_new_films():
    """Beta(10, 1) has mean 10 / 11 and standard deviation .083, so 400 thresholds .004."""
    generator, reached = np.random.default_rng(0), []
    for _ in range(400):
        label = np.repeat([1, 0], [10, 90])[:, None].astype(np.float32)
        logit = (generator.normal(size=(100, 1)) + label).astype(np.float32)
        fitted = _predictions(films=100)
        one = replace(fitted, findings=("Mass",), label=label, logit=logit)
        threshold = _fitted(one, method="recall", recall=0.9)[0]
        reached.append(1 - ndtr(np.log(threshold / (1 - threshold)) - 1))
    assert np.mean(reached) > 0.895


def test_a_recall_that_few_positives_cannot_promise_calls_all_and_says_so():
    ordered = _ordered(positives=8)
    table = threshold_table(ordered, method="recall", recall=0.9)
    called = ordered.probability >= table["threshold"].to_numpy(dtype=np.float64)
    assert (ordered.label * called).sum(axis=0).tolist() == [8, 8]
    assert table["note"][0] == (
        "recall 0.9 cannot be expected with 8 positives in validation; all are called positive, "
        "expected of new films: 0.89"
    )
    assert (threshold_table(_ordered(positives=9), method="recall")["note"] == "").all()


@pytest.mark.parametrize("recall", [0.0, -0.1, 1.01, np.nan])
def test_a_recall_that_is_no_share_is_refused(recall):
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        _fitted(_predictions(), method="recall", recall=recall)
    with pytest.raises(ValueError, match=r"recall\n"):
        EvaluationChoices(threshold="recall", recall=recall)


@pytest.mark.parametrize("method", list(ORACLES))
def test_a_recall_that_no_rule_reads_is_refused(method):
    with pytest.raises(ValueError, match=f"recall means nothing to threshold '{method}'"):
        EvaluationChoices(threshold=method, recall=0.8)
    assert EvaluationChoices(threshold="recall", recall=0.8).recall == 0.8


def test_a_threshold_lies_between_probabilities_so_that_a_last_digit_decides_nothing():
    predictions = _predictions()
    threshold = _fitted(predictions, method="f1")
    assert (np.abs(predictions.probability - threshold) > 1e-3).all()


def test_unstated_labels_do_not_count():
    predictions = _predictions()
    label, logit = predictions.label.copy(), predictions.logit.copy()
    label[:40], logit[:40] = np.nan, 9
    some = _fitted(replace(predictions, label=label, logit=logit), method="youden")
    rows = np.arange(40, 150)
    names = ("image", "patient", "part", "label", "logit", "feature")
    rest = replace(predictions, **{name: getattr(predictions, name)[rows] for name in names})
    assert np.array_equal(some, _fitted(rest, method="youden"))


@pytest.mark.parametrize(("value", "lacking"), [(0, "positives"), (1, "negatives")])
def test_a_finding_with_one_class_falls_back_and_says_so(value, lacking):
    predictions = _predictions()
    label = predictions.label.copy()
    label[:, 1] = value
    table = threshold_table(replace(predictions, label=label), method="f1")
    assert table["threshold"][1] == 0.5
    assert table["note"].tolist() == ["", f"not fitted: 0 {lacking} in validation, 0.5 instead"]
    assert table["positives"].tolist() == [int(label[:, 0].sum()), 150 * value]
    assert table["network"].tolist() == ["net", "net"]


@pytest.mark.parametrize("part", ["test", "train"])
def test_films_of_another_part_are_refused(part):
    with pytest.raises(ValueError, match=f"fitted to {part} films; expected validation films only"):
        _fitted(_predictions(part=part), method="f1")


def test_one_test_film_among_validation_films_is_refused():
    predictions = _predictions()
    part = predictions.part.astype("U5")
    part[-1] = "test"
    with pytest.raises(ValueError, match="fitted to test, val films"):
        _fitted(replace(predictions, part=part), method="f1")


def test_no_film_at_all_is_refused():
    with pytest.raises(ValueError, match="fitted to no films"):
        _fitted(_predictions(films=0), method="f1")


def test_thresholds_fit_the_predictions_of_their_own_split_and_findings(tmp_path):
    predictions = _predictions()
    table = threshold_table(predictions, method="f1")
    table.to_csv(tmp_path / "thresholds.csv", index=False)
    kept = read_table(tmp_path / "thresholds.csv", text=TEXT)
    assert kept["split"].tolist() == ["0123", "0123"]
    tests = replace(predictions, part=np.full(len(predictions), "test"))
    np.testing.assert_allclose(thresholds_of(kept, tests), table["threshold"], rtol=1e-15)
    as_number = read_table(tmp_path / "thresholds.csv", text=("network", "finding", "note"))
    with pytest.raises(ValueError, match="fitted under split 123; expected 0123"):
        thresholds_of(as_number, tests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "4567"}, "net: thresholds were fitted under split 0123; expected 4567"),
        ({"findings": ("Hernia", "Mass")}, "for Mass, Hernia; expected Hernia, Mass, in this"),
        ({"findings": ("Mass", "Edema")}, "for Mass, Hernia; expected Mass, Edema"),
        ({"network": "other"}, "thresholds were fitted for net; expected other"),
    ],
)
def test_thresholds_of_others_are_refused(change, message):
    table = threshold_table(_predictions(), method="youden")
    with pytest.raises(ValueError, match=message):
        thresholds_of(table, replace(_predictions(), **change))


def test_thresholds_of_one_finding_less_and_of_none_are_refused():
    table = threshold_table(_predictions(), method="f1")
    with pytest.raises(ValueError, match="for Mass; expected Mass, Hernia"):
        thresholds_of(table[:1], _predictions())
    with pytest.raises(ValueError, match="fitted for no network; expected net"):
        thresholds_of(table[:0], _predictions())


def _ordered(*, positives):
    """Return as many negative films as positive ones, by turns, probabilities falling."""
    films = 2 * positives
    label = np.tile((np.arange(films) % 2)[:, None], 2).astype(np.float32)
    logit = np.tile(np.linspace(4, -4, films)[:, None], 2).astype(np.float32)
    return replace(_predictions(films=films), label=label, logit=logit)


def _fitted(predictions, **choices):
    return threshold_table(predictions, **choices)["threshold"].to_numpy(dtype=np.float64)
