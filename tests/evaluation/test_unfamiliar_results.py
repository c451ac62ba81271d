"""What distances are worth: AUC by scikit-learn, shares by pandas, curves of a planted distance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from sklearn.metrics import brier_score_loss, roc_auc_score

from lucency.core.predictions import Predictions
from lucency.core.tables import save_tables
from lucency.evaluation.unfamiliar_results import (
    ANSWERED,
    ORDINARY,
    UnfamiliarResults,
    evaluate_unfamiliarity,
    load_unfamiliar,
    share_of_runs,
)
from lucency.evaluation.unfamiliarity import SCORES, fit_unfamiliarity, know_films

DRAWS = {"resamples": 50, "seed": 0}
KNOWN = know_films(
    np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32), neighbours=5, seed=0
)


def _films(count: int, *, seed: int, far: float = 1.0, patients: int = 40) -> Predictions:
    """Films whose scores are the worse, the further they lie from the training films."""
    generator = np.random.default_rng(seed)
    feature = (generator.normal(size=(count, 6)) * far).astype(np.float32)
    label = generator.integers(0, 2, (count, 2)).astype(np.float32)
    blur = np.linalg.norm(feature, axis=1, keepdims=True)
    logit = 2 * label - 1 + generator.normal(size=(count, 2)) * blur
    return Predictions(
        network="net",
        split="s",
        findings=("Mass", "Edema"),
        image=np.array([f"{seed}-{row}" for row in range(count)]),
        patient=generator.integers(0, patients, count),
        part=np.full(count, "test"),
        label=label,
        logit=logit.astype(np.float32),
        feature=feature,
    )


@pytest.fixture(scope="module")
def stored():
    films = _films(300, seed=1)
    about = {"logit": films.logit, "feature": films.feature, "patient": films.patient}
    return fit_unfamiliarity(KNOWN, **about, score="mahalanobis", refused=0.1, training=200)


@pytest.fixture(scope="module")
def found(stored) -> UnfamiliarResults:
    aliens = {"far": _films(60, seed=3, far=3.0), "alike": _films(60, seed=4)}
    return evaluate_unfamiliarity(stored, KNOWN, _films(400, seed=2), aliens, **DRAWS)


def test_the_auc_is_that_of_scikit_learn(found: UnfamiliarResults):
    test, far = _films(400, seed=2), _films(60, seed=3, far=3.0)
    for name, score in SCORES.items():
        whole = [score(one.logit, one.feature, KNOWN) for one in (test, far)]
        expected = roc_auc_score(np.repeat([0, 1], [400, 60]), np.concatenate(whole))
        row = found.aliens.set_index(["kind", "score"]).loc[("far", name)]
        assert row["auc"] == pytest.approx(expected)
        assert row["low"] < row["auc"] < row["high"]


def test_shares_are_means_over_patients_and_the_promise_is_kept(stored, found: UnfamiliarResults):
    test = _films(400, seed=2)
    out = stored.refuses(stored.of(test.logit, test.feature))
    row = found.refused.iloc[0]
    assert row["kind"] == ORDINARY
    assert row["share"] == pytest.approx(pd.Series(out).groupby(test.patient).mean().mean())
    assert row["share"] <= 0.1 or row["low"] <= 0.1 <= row["high"]
    assert found.refused.set_index("kind").loc["far", "share"] > 0.8
    assert "far " in found.conclusion
    assert ": kept." in found.conclusion or "within chance" in found.conclusion


def test_the_curve_answers_the_most_familiar_films_first(found: UnfamiliarResults):
    test = _films(400, seed=2)
    distance = SCORES["mahalanobis"](test.logit, test.feature, KNOWN)
    curve = found.abstention.loc[found.abstention["score"] == "mahalanobis"]
    assert curve["answered"].tolist() == ANSWERED.tolist()
    for row in curve.itertuples():
        kept = np.argsort(distance)[: round(row.answered * 400)]
        pairs = [(test.label[kept, k], test.probability[kept, k]) for k in (0, 1)]
        assert row.auc == pytest.approx(np.mean([roc_auc_score(*pair) for pair in pairs]))
        assert row.brier == pytest.approx(np.mean([brier_score_loss(*pair) for pair in pairs]))
    assert curve["auc"].iloc[-1] > curve["auc"].iloc[0] + 0.03
    assert found.about["findings"] == ["Mass", "Edema"]


def test_a_finding_with_one_class_is_on_no_curve(stored):
    test = _films(400, seed=2)
    label = test.label.copy()
    label[:, 1] = 0
    some = evaluate_unfamiliarity(stored, KNOWN, replace(test, label=label), {}, **DRAWS)
    assert some.about["findings"] == ["Mass"]
    label[:, 0] = np.nan
    none = evaluate_unfamiliarity(stored, KNOWN, replace(test, label=label), {}, **DRAWS)
    assert none.about["findings"] == []
    assert none.abstention["auc"].isna().all()


def test_the_share_that_runs_refuse_is_that_of_a_beta_distribution(stored):
    """Against simulation: of 99 validation patients the promise of .1 leaves the ten furthest."""
    generator, shares = np.random.default_rng(0), []
    for _ in range(4000):
        limit = np.sort(generator.random(99))[-10]
        shares.append(1 - limit)
    low, high = share_of_runs(replace(stored, patients=99))
    assert (low, high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.01)
    assert (low, high) == pytest.approx(beta(10, 90).ppf([0.025, 0.975]))
    assert share_of_runs(replace(stored, patients=5)) == (0.0, 0.0)


def test_tables_come_back(found: UnfamiliarResults, tmp_path: Path):
    save_tables(found, tmp_path)
    back = load_unfamiliar(tmp_path)
    assert back.about == found.about
    assert back.conclusion == found.conclusion
    pd.testing.assert_frame_equal(back.aliens, found.aliens)
    assert not UnfamiliarResults()


def test_without_an_interval_nothing_is_said_of_chance(stored):
    test = _films(6, seed=2, far=5.0, patients=1)
    few = evaluate_unfamiliarity(stored, KNOWN, test, {}, **DRAWS)
    assert "were promised: too few patients to tell." in few.conclusion
