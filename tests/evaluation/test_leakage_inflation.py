"""Inflation by leakage: scikit-learn's scores on both sides, and the interval of the difference."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from lucency.core.predictions import Predictions
from lucency.evaluation.leakage_inflation import SHOWN, conclude_inflation, inflate

HALF = np.full(2, 0.5)
RARE = np.array([0.11, 0.025, 0.121, 0.18, 0.05, 0.021, 0.022, 0.002])


def _predictions(gain: float, *, films: int = 300, first: int = 0, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    label = (generator.random((films, 2)) < 0.4).astype(np.float32)
    return Predictions(
        network="net",
        split="0123",
        findings=("Mass", "Hernia"),
        image=np.array([f"{first + film}.png" for film in range(films)]),
        patient=first + np.arange(films) // 3,
        part=np.full(films, "test"),
        label=label,
        logit=generator.normal(size=label.shape) + gain * (label - 0.5),
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _inflate(own: Predictions, untouched: Predictions, seen=(), *, resamples=100):
    seen = np.array(seen, dtype=np.int64)
    return inflate(own, untouched, seen=seen, threshold=HALF, resamples=resamples, seed=0)


def test_scores_are_scikit_learn_s_on_either_side():
    own, untouched = _predictions(2.0), _predictions(1.0, first=5_000, seed=1)
    table = _inflate(own, untouched).set_index(["metric", "finding"])
    assert table.index.tolist() == list(SHOWN)
    for name, found in (("own_test", own), ("held_out", untouched)):
        called = found.probability >= 0.5
        expected = {
            ("auc", "macro"): roc_auc_score(found.label, found.logit),
            ("auc", "micro"): roc_auc_score(found.label.ravel(), found.logit.ravel()),
            ("f1", "micro"): f1_score(found.label, called, average="micro"),
            ("accuracy", "micro"): accuracy_score(found.label.ravel(), called.ravel()),
            ("brier", "macro"): np.mean((found.probability - found.label) ** 2),
        }
        for key, value in expected.items():
            assert table.loc[key, name] == pytest.approx(value, abs=1e-9)
    difference = table["own_test"] - table["held_out"]
    np.testing.assert_allclose(table["inflation"], difference, atol=1e-12)
    macro = table.loc[("auc", "macro")]
    assert 0 < macro["low"] < macro["inflation"] < macro["high"]


def test_equal_skill_on_both_sides_is_no_leak():
    seeds = range(40)
    pairs = [
        [_predictions(1.0, films=150, first=first, seed=first + s) for first in (0, 5_000)]
        for s in seeds
    ]
    rows = [_inflate(*pair, resamples=60).iloc[0] for pair in pairs]
    held = [row["low"] <= 0 <= row["high"] for row in rows]
    assert sum(held) >= 34  # of 40; 38 are expected


def test_fewer_films_of_the_same_population_are_no_leak_by_any_metric_that_is_shown():
    """The interval of average precision, which was shown too, excluded 0 in two fifths of them."""
    sets, excluded = 30, Counter[tuple[str, str]]()
    for number in range(sets):
        own, apart = (
            _calibrated(films, first=first) for films, first in ((300, number), (1_500, 5_000))
        )
        nobody, fixed = np.empty(0, dtype=np.int64), np.full(len(RARE), 0.3)
        table = inflate(own, apart, seen=nobody, threshold=fixed, resamples=60, seed=number)
        outside = table.loc[(table["low"] > 0) | (table["high"] < 0)]
        excluded.update(zip(outside["metric"], outside["finding"], strict=True))
    assert max(excluded.values(), default=0) <= 8  # of 30; 2 are expected


def _calibrated(films: int, *, first: int) -> Predictions:
    """Return predictions with true probabilities of findings, most of them rare."""
    generator = np.random.default_rng(first)
    label = (generator.random((films, len(RARE))) < RARE).astype(np.float32)
    score = generator.normal(size=label.shape) + 1.5 * label
    return replace(
        _predictions(1.0, films=films, first=10 * first),
        findings=tuple(map(str, RARE)),
        label=label,
        logit=1.5 * score - 1.5**2 / 2 + np.log(RARE / (1 - RARE)),
    )


def test_patients_on_both_sides_are_refused():
    with pytest.raises(ValueError, match="100 patients of the untouched films are among"):
        _inflate(_predictions(1.0), _predictions(1.0, seed=1))
    with pytest.raises(ValueError, match="1 patients of the untouched films are among"):
        _inflate(_predictions(1.0), _predictions(1.0, first=5_000, seed=1), seen=[5_003])


def test_macro_is_over_the_findings_that_both_sides_have():
    own, untouched = _predictions(1.0), _predictions(1.0, first=5_000, seed=1)
    label, logit = untouched.label.copy(), own.logit.copy()
    label[:, 1] = 0  # nobody has a hernia there, and here it is found perfectly
    logit[:, 1] = own.label[:, 1]
    table = _inflate(replace(own, logit=logit), replace(untouched, label=label))
    macro = table.set_index(["metric", "finding"]).loc[("auc", "macro")]
    assert macro["findings"] == 1
    assert macro["own_test"] == pytest.approx(roc_auc_score(own.label[:, 0], logit[:, 0]))
    assert macro["low"] <= 0 <= macro["high"]


def test_other_findings_are_refused():
    other = replace(_predictions(1.0, first=5_000), findings=("Mass", "Edema"))
    with pytest.raises(ValueError, match="net has the findings Mass, Hernia; expected"):
        _inflate(_predictions(1.0), other)


def test_the_conclusion_says_own_and_untouched_scores_of_every_network():
    leaking = _inflate(_predictions(2.5), _predictions(1.0, first=5_000, seed=1))
    honest = _inflate(_predictions(1.0, seed=2), _predictions(1.0, first=5_000, seed=3))
    modest = _inflate(_predictions(1.0, seed=4), _predictions(2.5, first=5_000, seed=5))
    tables = {"by-image": pd.concat([leaking, honest]), "by-patient": modest}
    found = conclude_inflation(tables, patients=200)
    assert found.startswith(
        "Macro AUC on own test films, and on 200 patients set apart. by-image: "
    )
    assert found.count("), significant inflation") == found.count("no significant inflation") == 1
    assert found.endswith(", significant deflation.")
    nothing = leaking.assign(inflation=np.nan)
    assert "x: net not computable." in conclude_inflation({"x": nothing}, patients=9)
