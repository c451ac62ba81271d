"""Reliability against scikit-learn, brute force over patients, and Brier's parts by definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.special import logit as log_odds
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from lucency.core.predictions import Predictions
from lucency.evaluation.calibration import PARTS, brier_parts, reliability_table
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.metrics import BINS

FINDINGS = ("Mass", "Hernia")


def _predictions(seed=0, films=300, spread=2.0):
    generator = np.random.default_rng(seed)
    logit = (generator.normal(size=(films, 2)) * spread - 1).astype(np.float32)
    label = (generator.random((films, 2)) < expit(logit * 0.7)).astype(np.float32)
    label[generator.random((films, 2)) < 0.1] = np.nan
    return Predictions(
        network="net",
        split="0123",
        findings=FINDINGS,
        image=np.arange(films).astype(str),
        patient=np.sort(generator.integers(0, films // 3, films)),
        part=np.full(films, "test"),
        label=label,
        logit=logit,
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _wilson(positives, films):
    found = binomtest(positives, films).proportion_ci(method="wilson")
    return found.low, found.high


def _column(predictions, finding):
    """Return stated labels, their probabilities, and the rows of films they stand in."""
    label, probability = predictions.label, predictions.probability
    if finding != "micro":
        place = [FINDINGS.index(finding)]
        label, probability = label[:, place], probability[:, place]
    row = np.broadcast_to(np.arange(len(label))[:, None], label.shape)
    stated = ~np.isnan(label)
    return label[stated], probability[stated], row[stated]


@pytest.mark.parametrize("finding", [*FINDINGS, "micro"])
@pytest.mark.parametrize("seed", range(4))
def test_shares_and_means_are_those_of_scikit_learn(seed, finding):
    predictions = _predictions(seed)
    table = reliability_table(predictions)
    mine = table[(table["finding"] == finding) & (table["films"] > 0)]
    label, probability, _ = _column(predictions, finding)
    share, mean = calibration_curve(label, probability, n_bins=BINS, strategy="quantile")
    np.testing.assert_allclose(mine["share"], share, atol=1e-12)
    np.testing.assert_allclose(mine["mean_probability"], mean, atol=1e-12)
    assert mine["films"].sum() == len(label)
    assert mine["films"].max() - mine["films"].min() <= 2
    assert mine["positives"].sum() == label.sum()


@pytest.mark.parametrize("finding", [*FINDINGS, "micro"])
def test_intervals_are_wilson_s_where_every_film_is_a_patient_s(finding):
    predictions = replace(_predictions(), patient=np.arange(300))
    if finding == "micro":  # cells of a film are as one: here of independent findings
        predictions = replace(predictions, label=np.where([True, False], predictions.label, np.nan))
    table = reliability_table(predictions)
    for line in table[table["finding"] == finding].to_dict("records"):
        counts = line["positives"], line["films"]
        low, high = _wilson(*counts)
        assert (line["share_low"], line["share_high"]) == pytest.approx((low, high), abs=1e-9)
        assert low < high  # also where all films of a bin are negative


def test_films_of_a_patient_widen_the_intervals():
    predictions = _predictions()
    rows, films = (
        np.repeat(np.arange(300), 4),
        ("image", "patient", "part", "label", "logit", "feature"),
    )
    four = replace(predictions, **{name: getattr(predictions, name)[rows] for name in films})
    single = replace(predictions, patient=np.arange(300))
    alike, apart = replace(four, patient=rows), replace(four, patient=np.arange(1200))
    width = [
        (table["share_high"] - table["share_low"]).mean()
        for table in map(reliability_table, (single, alike, apart))
    ]
    assert width[1] > 0.95 * width[0] > 1.4 * width[2]


def test_a_finding_without_labels_has_one_bin_that_says_so():
    label = _predictions().label.copy()
    label[:, 1] = np.nan
    table = reliability_table(replace(_predictions(), label=label))
    (row,) = table[table["finding"] == "Hernia"].to_dict("records")
    assert (row["films"], row["positives"], row["note"]) == (0, 0, "not computable: 0 films")
    assert np.isnan([row["share"], row["mean_probability"], row["share_low"]]).all()


def test_equal_probabilities_share_a_bin():
    same = replace(_predictions(), logit=np.full((300, 2), -3, dtype=np.float32))
    assert reliability_table(same)["bin"].tolist() == [0, 0, 0]


def test_the_calibration_error_is_the_mean_gap_of_the_table():
    predictions = _predictions()
    table = reliability_table(predictions)
    gap = table["films"] * (table["mean_probability"] - table["share"]).abs()
    films = table.groupby("finding")["films"].sum()
    scores = evaluate(predictions, threshold=np.full(2, 0.5), resamples=20, seed=0)
    error = scores[scores["metric"] == "ece"].set_index("finding")["value"]
    for finding, total in gap.groupby(table["finding"]).sum().items():
        assert total / films[finding] == pytest.approx(error[finding], abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    films=st.integers(3, 400),
    spread=st.sampled_from([0.01, 1.0, 5.0, 100.0]),
)
def test_the_parts_make_up_the_brier_score_exactly(seed, films, spread):
    predictions = _predictions(seed, films=films, spread=spread)
    table = brier_parts(predictions)
    whole = table["reliability"] - table["resolution"] + table["uncertainty"] + table["within"]
    np.testing.assert_allclose(whole, table["brier"], atol=1e-12)
    for finding in FINDINGS:
        label, probability, _ = _column(predictions, finding)
        if len(label):
            expected = brier_score_loss(label, probability, pos_label=1)
            found = table.loc[table["finding"] == finding, "brier"].item()
            assert found == pytest.approx(expected, abs=1e-12)


def test_the_parts_are_those_of_their_definitions():
    """Ferro and Fricker 2012 for small bins; Stephenson, Coelho and Jolliffe 2008 within them."""
    predictions = _predictions()
    table = brier_parts(predictions).set_index("finding")
    for finding in FINDINGS:
        label, probability, _ = _column(predictions, finding)
        films, base = len(label), label.mean(dtype=np.float64)
        found = dict.fromkeys(PARTS[1:], 0.0) | {
            "uncertainty": base * (1 - base) * films / (films - 1)
        }
        place = (
            probability[:, None]
            > np.percentile(probability, 100 * np.linspace(0, 1, BINS + 1)[1:-1])
        ).sum(axis=1)
        for number in range(BINS):
            predicted, truth = (
                probability[place == number],
                label[place == number].astype(np.float64),
            )
            share, weight = truth.mean(), len(truth) / films
            chance = share * (1 - share) / (len(truth) - 1)
            found["reliability"] += weight * ((predicted.mean() - share) ** 2 - chance)
            found["resolution"] += weight * ((share - base) ** 2 - chance)
            variance = ((predicted - predicted.mean()) ** 2).sum()
            covariance = ((predicted - predicted.mean()) * (truth - share)).sum()
            found["within"] += (variance - 2 * covariance) / films
        found["resolution"] += base * (1 - base) / (films - 1)
        assert table.loc[finding, [*found]].tolist() == pytest.approx([*found.values()], abs=1e-12)


def test_a_calibrated_network_has_a_reliability_of_0_on_average():
    found = []
    for seed in range(150):
        generator = np.random.default_rng(seed)
        probability = generator.beta(0.3, 8, size=(236, 2))
        films = _films(log_odds(np.clip(probability, 1e-9, 1 - 1e-9)))
        films["label"] = (generator.random((236, 2)) < probability).astype(np.float32)
        found.append(brier_parts(replace(_predictions(films=3), **films))["reliability"].iloc[-1])
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(150)
    assert np.std(found) / np.sqrt(150) < 1e-4


def test_parts_of_a_toy_by_hand():
    """Six films predicted .2, two of them positive, and two predicted .8, both positive."""
    predicted = np.repeat([0.2, 0.8], [6, 2])
    label = np.array([1, 1, 0, 0, 0, 0, 1, 1], dtype=np.float32)
    logit = np.stack([log_odds(predicted)] * 2, axis=1)
    films = _films(logit) | {"label": np.stack([label, np.full(8, np.nan, np.float32)], axis=1)}
    table = brier_parts(replace(_predictions(films=3), **films))
    chance = 6 / 8 * (1 / 3 * 2 / 3) / 5
    reliability = (6 * (0.2 - 1 / 3) ** 2 + 2 * 0.2**2) / 8 - chance
    resolution = (6 * (1 / 3 - 1 / 2) ** 2 + 2 * (1 / 2) ** 2) / 8 - chance + 1 / 4 / 7
    brier = (2 * 0.8**2 + 4 * 0.2**2 + 2 * 0.2**2) / 8
    expected = [brier, reliability, resolution, 1 / 4 + 1 / 4 / 7, 0]
    assert table.loc[0, list(PARTS)].tolist() == pytest.approx(expected, abs=1e-12)
    assert table.loc[1, list(PARTS)].isna().all()
    assert table.loc[2, list(PARTS)].tolist() == pytest.approx(expected, abs=1e-12)
    assert table["finding"].tolist() == [*FINDINGS, "macro"]
    assert table["note"].tolist() == [
        "", "not computable: 0 films with a label", "mean over 1 of 2 findings, without Hernia",
    ]  # fmt: skip


def _films(logit):
    """Return the fields of films, a patient each, all negative."""
    films = len(logit)
    return {
        "image": np.arange(films).astype(str),
        "patient": np.arange(films),
        "part": np.full(films, "test"),
        "label": np.zeros((films, 2), dtype=np.float32),
        "logit": logit,
        "feature": np.empty((films, 0), dtype=np.float32),
    }


def test_where_the_truth_is_the_probability_most_intervals_hold_it():
    """6,000 films of 700 patients and 14 findings: as many cells as make every bin full."""
    generator = np.random.default_rng(0)
    logit = (generator.normal(size=(6_000, 14)) - 2).astype(np.float32)
    label = (generator.random(logit.shape) < expit(logit)).astype(np.float32)
    fields = _films(logit) | {"label": label, "patient": generator.integers(0, 700, 6_000)}
    names = tuple(f"finding {place}" for place in range(14))
    predictions = replace(_predictions(films=3), **{**fields, "findings": names})
    table = reliability_table(predictions)
    pooled = table[table["finding"] == "micro"]
    sound = (pooled["share_low"] < pooled["mean_probability"]) & (
        pooled["mean_probability"] < pooled["share_high"]
    )
    assert sound[pooled["films"] > 100].mean() > 0.7
