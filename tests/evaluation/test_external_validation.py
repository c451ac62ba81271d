"""Unpaired differences, calibration and distances of an external test, against known truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, ndtri
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from lucency.core.predictions import Predictions, rescale
from lucency.core.tables import save_tables
from lucency.evaluation.compare import compare_unpaired, unpaired_macro_error
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.external_validation import (
    ENOUGH,
    STATES,
    ComparedFilms,
    ExternalValidation,
    compare_mix,
    describe_findings,
    load_validation,
    validate,
)
from lucency.evaluation.feature_distance import describe_distance, distance_from_training
from lucency.evaluation.intervals import unpaired_interval
from lucency.evaluation.metrics import macro_auc
from lucency.evaluation.significance import delong
from lucency.evaluation.thresholds import threshold_table

NAMES = ("Mass", "Edema", "Hernia")
DRAWS = {"resamples": 60, "seed": 0}
NO_DRAWS = {"resamples": 2, "seed": 0}


def some_predictions(
    films: int,
    *,
    seed: int,
    skill: float = 1.5,
    shift: float = 0.0,
    share: tuple[float, ...] = (0.3, 0.2, 0.002),
    a_patient: int = 2,
    part: str = "test",
) -> Predictions:
    """Return predictions whose logits are calibrated but for `shift`; of two films a patient.

    A label is drawn by the logit that made it, so that slope 1 and offset 0 are true.
    """
    random = np.random.default_rng(seed)
    patient = np.arange(films) // a_patient
    own = random.normal(size=(patient.max() + 1, len(NAMES)))[patient]
    truth = logit(np.array(share)) + skill * (0.7 * own + 0.7 * random.normal(size=own.shape))
    label = (random.random(truth.shape) < expit(truth)).astype(np.float32)
    return Predictions(
        network="net",
        split="one",
        findings=NAMES,
        image=np.array([f"{part}-{seed}-{film}" for film in range(films)]),
        patient=patient,
        part=np.full(films, part),
        label=label,
        logit=(truth + shift).astype(np.float32),
        feature=(random.normal(size=(films, 6)) + shift).astype(np.float32),
    )


def validated(external: Predictions, **choices: object) -> ExternalValidation:
    """Return the validation of external predictions beside 800 test films of the same kind."""
    internal = some_predictions(800, seed=1)
    films = ComparedFilms(
        internal=[internal],
        external=[external],
        internal_facts=pd.DataFrame({"view": ["PA"] * 800}),
        external_facts=pd.DataFrame({"view": ["AP"] * len(external)}),
        apart=np.arange(len(external)) < len(external) // 5,
        training=some_predictions(400, seed=9).feature,
    )
    fitted = threshold_table(some_predictions(800, seed=3, part="val"), method="f1")
    about = {"name": "elsewhere", "origin": "a test", "missing": 0, "rejected": 0}
    given = {"thresholds": fitted, "network": "net", "method": "platt", "about": about}
    return validate(films, **{**given, **DRAWS, **choices})


@pytest.fixture(scope="module")
def shifted() -> ExternalValidation:
    """Films whose logits are too high by 1, and are ordered worse."""
    worse = some_predictions(1500, seed=2, shift=1.0)
    noise = np.random.default_rng(5).normal(size=worse.logit.shape) * 2
    return validated(replace(worse, logit=(worse.logit + noise).astype(np.float32)))


def test_the_difference_is_that_of_scikit_learn_s_auc_and_recall():
    one, other = some_predictions(300, seed=1), some_predictions(400, seed=2, skill=0.8)
    limit = np.array([0.4, 0.3, 0.5])
    table = compare_unpaired(one, other, threshold=limit, **NO_DRAWS)
    rows = table.set_index(["finding", "metric"])
    for k, name in enumerate(NAMES[:2]):
        area = [roc_auc_score(p.label[:, k], p.logit[:, k]) for p in (one, other)]
        called = [
            recall_score(p.label[:, k], p.probability[:, k] >= limit[k]) for p in (one, other)
        ]
        for metric, (mine, theirs) in (("auc", area), ("recall", called)):
            row = rows.loc[(name, metric)]
            assert row[["internal", "external"]].tolist() == pytest.approx([mine, theirs])
            assert row["difference"] == pytest.approx(theirs - mine)
            assert row["low"] < row["difference"] < row["high"]


def test_of_many_films_the_interval_is_by_the_sum_of_delong_s_variances():
    one = some_predictions(6000, seed=1, a_patient=1)
    other = some_predictions(5000, seed=2, skill=1.2, a_patient=1)
    table = compare_unpaired(one, other, threshold=np.full(3, 0.5), **NO_DRAWS)
    row = table.set_index(["finding", "metric"]).loc[("Mass", "auc")]
    errors = [delong(p.label[:, 0], p.logit[:, 0], owner=p.patient)[1] for p in (one, other)]
    reach = norm.ppf(0.975) * np.hypot(*errors)
    assert row["high"] - row["low"] == pytest.approx(2 * reach, rel=0.01)


def test_symmetric_intervals_add_up_as_variances_do():
    low, high = unpaired_interval(0.7, (0.6, 0.8), 0.5, (0.3, 0.7))
    reach = np.hypot(0.1, 0.2)
    assert (low, high) == pytest.approx((0.2 - reach, 0.2 + reach))
    assert np.isnan(unpaired_interval(0.7, (np.nan, np.nan), 0.5, (0.3, 0.7))).all()


def test_the_interval_of_a_macro_difference_holds_the_truth():
    """Two sets of one kind, alike films of a patient: their true difference is 0."""
    held, sides, area = [], list[Predictions](), np.array([0.7, 0.8, 0.9])
    apart = reach = np.nan
    lift = ndtri(area) * np.sqrt(2)
    for seed in range(120):
        random = np.random.default_rng(seed)
        sides.clear()
        for patients in (90, 110):
            patient = np.repeat(np.arange(patients), random.geometric(0.3, patients).clip(1, 10))
            base = random.random((patients, 3)) < 0.3
            label = (base[patient] & (random.random((len(patient), 3)) < 0.8)).astype(np.float32)
            noise = 0.6 * random.normal(size=(patients, 3))[patient]
            score = noise + 0.8 * random.normal(size=label.shape) + lift * label
            sides.append(
                Predictions(
                    network="net", split="one", findings=NAMES,
                    image=np.arange(len(patient)).astype(str), patient=patient,
                    part=np.full(len(patient), "test"), label=label, logit=score,
                    feature=np.empty((len(patient), 0), np.float32),
                )
            )  # fmt: skip
        apart = np.diff([macro_auc(one.label, one.logit) for one in sides]).item()
        reach = 1.96 * unpaired_macro_error(sides[0], sides[1], resamples=100, seed=seed)
        held.append(abs(apart) <= reach)
    table = compare_unpaired(sides[0], sides[1], threshold=np.full(3, 0.5), resamples=100, seed=119)
    row = table.set_index(["finding", "metric"]).loc[(MACRO, "auc")]
    assert row[["low", "high"]].tolist() == pytest.approx([apart - reach, apart + reach], rel=1e-4)
    assert 0.89 <= np.mean(held) <= 0.99  # .95, with an error of .02


def test_a_planted_loss_is_found_and_the_same_films_are_not_called_other(
    shifted: ExternalValidation,
):
    assert "It does not travel without loss." in shifted.conclusion
    assert "2 shared findings" in shifted.conclusion
    alike = validated(some_predictions(1500, seed=2))
    assert "stays open, for the interval holds 0" in alike.conclusion
    assert "further from training films than its own" in shifted.about["distance"]
    assert "as near to training films as its own" in alike.about["distance"]


def test_what_is_shared_needs_labels_and_patients_of_either_class_in_both():
    one, other = some_predictions(800, seed=1), some_predictions(800, seed=2)
    bare = replace(other, label=other.label * np.array([1, np.nan, 1], np.float32))
    table = describe_findings(one, bare).set_index("finding")
    assert table["shared"].tolist() == [True, False, False]
    assert table.loc["Edema", "reason"] == "external films: not stated"
    assert f"expected {ENOUGH} or more" in str(table.loc["Hernia", "reason"])
    mean = other.label[:, 0].mean()
    assert table.loc["Mass", "external_prevalence"] == pytest.approx(mean)
    assert table.loc["Mass", "low"] < 0 < table.loc["Mass", "high"]


def test_a_planted_prevalence_is_found():
    one = some_predictions(800, seed=1)
    rare = some_predictions(800, seed=2, share=(0.1, 0.2, 0.002))
    table = describe_findings(one, rare).set_index("finding")
    assert table.loc["Mass", "high"] < 0


def test_calibration_is_scikit_learn_s_and_recalibration_uses_films_apart_alone():
    external = some_predictions(1500, seed=2, shift=1.0)
    found = validated(external).calibration.set_index(["finding", "state"])
    rest = external.take(np.arange(300, 1500))
    label, probability = rest.label[:, 0], rest.probability[:, 0]
    row = found.loc[("Mass", STATES[1])]
    assert row["brier"] == pytest.approx(brier_score_loss(label, probability))
    assert row["gap"] == pytest.approx(np.mean(probability - label))
    line = LogisticRegression(C=np.inf).fit(rest.logit[:, :1], label)
    assert row["slope"] == pytest.approx(line.coef_[0, 0], rel=0.02)  # but for smoothed targets
    again = found.loc[("Mass", STATES[2])]
    fitted = LogisticRegression(C=np.inf).fit(external.logit[:300, :1], external.label[:300, 0])
    theirs = fitted.predict_proba(rest.logit[:, :1])[:, 1]
    assert again["brier"] == pytest.approx(brier_score_loss(label, theirs), rel=0.01)
    assert abs(again["gap"]) < 0.05 < row["gap"]
    spoilt = external.label.copy()
    spoilt[300:] = 1 - spoilt[300:]
    other = validated(replace(external, label=spoilt)).calibration.set_index(["finding", "state"])
    assert other.loc[("Mass", STATES[2]), "films"] == again["films"] == 1200
    assert other.loc[("Mass", STATES[2]), "gap"] == pytest.approx(
        float(np.mean(theirs - (1 - label))), abs=0.01
    )


def test_the_share_set_apart_is_not_evaluated():
    external = some_predictions(1500, seed=2)
    spoilt = external.label.copy()
    spoilt[:300] = 1 - spoilt[:300]
    tables = [validated(one).scores for one in (external, replace(external, label=spoilt))]
    pd.testing.assert_frame_equal(*tables)


def test_distances_are_those_of_scikit_learn_and_the_ratio_holds_its_truth():
    training = some_predictions(500, seed=4).feature
    one, other = some_predictions(300, seed=1), some_predictions(300, seed=2, shift=1.5)
    found = distance_from_training(training, one, other, **DRAWS)
    near = NearestNeighbors(n_neighbors=1).fit(training)
    means = [float(near.kneighbors(p.feature)[0].mean()) for p in (one, other)]
    assert (found.internal, found.external) == pytest.approx(means, rel=1e-5)
    assert found.ratio == pytest.approx(means[1] / means[0], rel=1e-5)
    assert 1 < found.low < found.ratio < found.high
    alike = distance_from_training(training, one, some_predictions(300, seed=7), **DRAWS)
    assert alike.low < 1 < alike.high
    few = distance_from_training(training, one, other.take(np.arange(2)), **DRAWS)
    assert np.isnan(few.low)
    assert describe_distance(few).endswith("(no interval), by the features of net.")


def test_the_mix_counts_films_of_every_group():
    one = pd.DataFrame({"view": ["PA", "AP", "AP", ""], "age": [20, 30, 70, 400]})
    other = pd.DataFrame({"sex": ["F", "M"], "age": [17.0, np.nan]})
    rows = compare_mix(one, other).set_index(["fact", "group"])
    assert rows.loc[("view", "AP"), ["internal_films", "external_films"]].tolist() == [2, 0]
    assert rows.loc[("view", "unknown"), ["internal_films", "external_films"]].tolist() == [1, 2]
    assert rows.loc[("age", "under 18"), "external_share"] == 0.5
    for column in ("internal_share", "external_share"):
        assert rows[column].groupby("fact").sum().tolist() == pytest.approx([1, 1, 1])


def test_nothing_shared_is_said_and_everything_is_saved(
    tmp_path: Path, shifted: ExternalValidation
):
    bare = some_predictions(200, seed=2)
    lost = validated(replace(bare, label=np.full_like(bare.label, np.nan)))
    assert lost.conclusion.endswith(
        "no finding is stated in both sets with enough patients; not compared."
    )
    for number, one in enumerate((shifted, lost)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_tables(one, folder)
        again = load_validation(folder)
        pd.testing.assert_frame_equal(again.scores, one.scores, check_dtype=False)
        assert (again.about, again.conclusion) == (one.about, one.conclusion)


def test_findings_are_taken_with_their_recalibration():
    whole = some_predictions(50, seed=1)
    knot = np.array([[0, -1, -2], [0, 1, 0.5], [2, -1, -1], [2, 2, 3]], dtype=np.float64)
    bent = replace(
        whole, slope=np.array([1.0, 2.0, 3.0]), offset=np.array([0.0, 1.0, 2.0]), knot=knot
    )
    taken = bent.of_findings(["Hernia", "Mass"])
    np.testing.assert_array_equal(taken.calibrated, bent.calibrated[:, [2, 0]])
    np.testing.assert_array_equal(
        taken.calibrated,
        rescale(taken.logit, slope=taken.slope, offset=taken.offset, knot=taken.knot),
    )
    with pytest.raises(ValueError, match="no finding 'Emphysema'"):
        bent.of_findings(["Emphysema"])


def test_a_slope_that_cannot_be_estimated_is_not_shown():
    """Mass is separable, Edema's logits hardly differ: scikit-learn's line of it is steep."""
    external = some_predictions(1500, seed=2, share=(0.3, 0.2, 0.1))
    spoilt = external.logit.copy()
    spoilt[:, 0] = np.where(external.label[:, 0] == 1, 2.0, -2.0)
    spoilt[:, 1] = -1.4 + 1e-3 * (spoilt[:, 1] - spoilt[:, 1].mean())
    found = validated(replace(external, logit=spoilt)).calibration.set_index(["finding", "state"])
    apart = (spoilt[300:, 1:2].astype(np.float64) + 1.4) * 1e3
    line = LogisticRegression(C=np.inf).fit(apart, external.label[300:, 1])
    assert line.coef_[0, 0] * 1e3 > 100
    for state in STATES[1:]:
        rows = found.xs(state, level="state")
        assert np.isnan(rows.loc["Mass", "slope"])
        assert "slope not estimated: a logit separates" in str(rows.loc["Mass", "note"])
    rows = found.xs(STATES[1], level="state")
    assert np.isnan(rows.loc["Edema", "slope"])
    assert "slope not estimated: its standard error is above 1" in str(rows.loc["Edema", "note"])
    assert np.isnan(rows.loc["macro", "slope"])
    assert rows.loc["macro", "note"] == "slope: median of 0 of 2 findings"
    usual = validated(some_predictions(1500, seed=2)).calibration
    assert usual["slope"].notna().all()
    assert not usual["note"].str.contains("slope").any()
    assert found["films"].dtype == np.int64
