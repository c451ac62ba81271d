"""Metrics of whole films against scikit-learn, film by film where labels are not stated."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import accuracy_score, label_ranking_loss

from lucency.evaluation.bootstrap import Weights, once
from lucency.evaluation.metrics import METRICS, PER_FILM

ORACLES = {"label_ranking_loss": label_ranking_loss, "exact_match": accuracy_score}
NAMES = list(PER_FILM)


def _films(seed, *, films=200, findings=5, step=0.5):
    """Return labels and tied logits; among the films some have no finding, and some have all."""
    generator = np.random.default_rng(seed)
    label = (generator.random((films, findings)) < 0.4).astype(np.float32)
    label[:3], label[3:6] = 0, 1
    logit = np.round((generator.normal(size=label.shape) + 3 * label - 1.5) / step) * step
    return label, logit.astype(np.float32), generator


def _given(name, logit):
    return logit if PER_FILM[name].takes == "logit" else expit(logit) >= 0.5


def _value(name, label, logit, weights=None):
    weights = weights or once(len(label))
    return PER_FILM[name].function(label, _given(name, logit), weights=weights)


def _weigh(weight):
    return Weights(owner=np.arange(len(weight)), times=weight[:, None])


def test_no_metric_lacks_an_oracle_and_none_is_one_of_findings():
    assert set(ORACLES) == set(PER_FILM)
    assert not set(PER_FILM) & set(METRICS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_with_and_without_weights(name, seed):
    label, logit, generator = _films(seed)
    weight = generator.choice([0.0, 0.5, 1.0, 3.7], size=len(label))
    given = _given(name, logit)
    plain = ORACLES[name](label, given)
    weighted = ORACLES[name](label, given, sample_weight=weight)
    assert _value(name, label, logit) == pytest.approx(plain, abs=1e-9)
    assert _value(name, label, logit, _weigh(weight)) == pytest.approx(weighted, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [0.1, 1.0, 4.0])
def test_a_film_counts_by_the_findings_that_are_stated(name, step):
    """Each film alone by scikit-learn, on its stated findings; one without any is left out."""
    label, logit, generator = _films(0, films=80, step=step)
    label[generator.random(label.shape) < 0.3] = np.nan
    label[7] = np.nan
    given, each = _given(name, logit), []
    for truth, one in zip(label, given, strict=True):
        stated = ~np.isnan(truth)
        if stated.sum() > 1:
            each.append(ORACLES[name](truth[None, stated], one[None, stated]))
        elif stated.any():  # scikit-learn takes a table of one column for a binary problem
            right = one[stated] == truth[stated]
            each.append(0.0 if name == "label_ranking_loss" else float(right.item()))
    assert len(each) == (~np.isnan(label)).any(axis=1).sum() < len(label)
    assert _value(name, label, logit) == pytest.approx(np.mean(each), abs=1e-12)


def test_by_hand():
    """Two pairs of four are wrong in the first film, one of them a tie; the second has no pair."""
    label = np.array([[1, 0, 1, 0], [0, 0, 0, np.nan]], dtype=np.float32)
    logit = np.array([[2, 1, -1, -1], [-1, -2, -3, 5]], dtype=np.float32)
    assert _value("label_ranking_loss", label, logit) == pytest.approx(2 / 4 / 2)
    assert _value("exact_match", label, logit) == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_weights_are_independent_and_order_changes_nothing(name):
    label, logit, generator = _films(1)
    times = generator.integers(0, 4, size=(50, 9)).astype(np.float64)
    owner = generator.integers(0, 50, size=len(label))
    together = _value(name, label, logit, Weights(owner=owner, times=times))
    alone = [_value(name, label, logit, _weigh(column[owner]))[0] for column in times.T]
    np.testing.assert_allclose(together, alone, atol=1e-12)
    films, findings = generator.permutation(len(label)), generator.permutation(label.shape[1])
    shuffled = _value(name, label[films][:, findings], logit[films][:, findings])
    assert shuffled == pytest.approx(_value(name, label, logit), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("films", [0, 3])
def test_without_a_stated_label_there_is_no_value(name, films):
    label = np.full((films, 2), np.nan, dtype=np.float32)
    assert np.isnan(_value(name, label, np.zeros((films, 2), dtype=np.float32)))
