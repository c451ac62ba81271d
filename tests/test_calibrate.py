"""Thresholds: the best on validation by scikit-learn's curves, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from lucency.judge.calibrate import THRESHOLDS, threshold_table
from lucency.predictions import Predictions


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
    assert set(ORACLES) == set(THRESHOLDS)


@pytest.mark.parametrize("method", list(THRESHOLDS))
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
    with pytest.raises(ValueError, match=f"asked of {part} films; expected validation films only"):
        _fitted(_predictions(part=part), method="f1")


def test_one_test_film_among_validation_films_is_refused():
    predictions = _predictions()
    part = predictions.part.astype("U5")
    part[-1] = "test"
    with pytest.raises(ValueError, match="asked of test, val films"):
        _fitted(replace(predictions, part=part), method="f1")


def test_no_film_at_all_is_refused():
    with pytest.raises(ValueError, match="asked of no films"):
        _fitted(_predictions(films=0), method="f1")


def _fitted(predictions, *, method):
    return threshold_table(predictions, method=method)["threshold"].to_numpy(dtype=np.float64)
