"""Reliability against scikit-learn, brute force over patients, and Brier's parts by definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.special import logit as log_odds
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import resample_patients
from lucency.evaluation.calibration import BINS, PARTS, brier_parts, reliability_table
from lucency.evaluation.evaluate import evaluate

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


def _table(predictions, *, resamples=50, seed=0):
    return reliability_table(predictions, resamples=resamples, seed=seed)


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
    table = _table(predictions)
    mine = table[(table["finding"] == finding) & (table["films"] > 0)]
    label, probability, _ = _column(predictions, finding)
    share, mean = calibration_curve(label, probability, n_bins=BINS)
    np.testing.assert_allclose(mine["share"], share, atol=1e-12)
    np.testing.assert_allclose(mine["mean_probability"], mean, atol=1e-12)
    films, _ = np.histogram(probability, bins=np.arange(BINS + 1) / BINS)
    assert table.loc[table["finding"] == finding, "films"].tolist() == films.tolist()
    assert mine["positives"].sum() == label.sum()


@pytest.mark.parametrize("finding", [*FINDINGS, "micro"])
def test_intervals_are_those_of_patients_drawn_one_by_one(finding):
    predictions = _predictions(films=120)
    table = _table(predictions)
    mine = table[table["finding"] == finding].set_index("bin")
    drawn = resample_patients(predictions.patient, resamples=50, seed=0)
    label, probability, row = _column(predictions, finding)
    for number, line in mine.iterrows():
        inside = (probability > line["low_edge"]) & (probability <= line["high_edge"])
        shares = []
        for times in drawn.times.T:
            again = np.repeat(label[inside], times[drawn.owner][row[inside]].astype(int))
            shares += [again.mean()] if len(again) else []
        bounds = np.quantile(shares, (0.025, 0.975)) if shares else (np.nan, np.nan)
        np.testing.assert_allclose(line[["share_low", "share_high"]].astype(float), bounds)
        lost = 50 - len(shares)
        note = f"empty in {lost} of 50 resamples, left out of the interval" if lost else ""
        assert line["note"] == (note if inside.any() else "not computable: 0 films"), number
    assert mine["note"].str.startswith("empty in").any()


def test_an_empty_bin_is_not_a_number_and_says_so():
    predictions = replace(_predictions(), logit=np.full((300, 2), -3, dtype=np.float32))
    table = _table(predictions)
    assert len(table) == 3 * BINS
    empty = table[table["bin"] > 0]
    assert set(empty["note"]) == {"not computable: 0 films"}
    numbers = ["mean_probability", "share", "share_low", "share_high"]
    assert empty[numbers].isna().all(axis=None)
    assert (empty[["films", "positives"]] == 0).all(axis=None)
    assert table.loc[table["bin"] == 0, numbers].notna().all(axis=None)


def test_a_probability_on_an_edge_is_in_the_bin_below():
    logit = log_odds(np.array([[3 / 15, 3.0001 / 15]]))
    logit[0, 0] = np.nextafter(logit[0, 0], -9)
    table = _table(replace(_predictions(films=3), **_films(logit)))
    assert table.loc[table["films"] == 1, "bin"].tolist() == [2, 3, 2, 3]


def test_every_image_twice_leaves_the_intervals_as_they_were():
    predictions = _predictions()
    rows = np.repeat(np.arange(300), 2)
    names = ("image", "patient", "part", "label", "logit", "feature")
    twice = replace(predictions, **{name: getattr(predictions, name)[rows] for name in names})
    names = ["share", "share_low", "share_high", "mean_probability"]
    np.testing.assert_allclose(_table(predictions)[names], _table(twice)[names], atol=1e-12)


def test_the_calibration_error_is_the_mean_gap_of_the_table():
    predictions = _predictions()
    table = _table(predictions)
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
    """Stephenson, Coelho and Jolliffe 2008, equations 3 to 8, bin by bin and film by film."""
    predictions = _predictions()
    table = brier_parts(predictions).set_index("finding")
    for finding in FINDINGS:
        label, probability, _ = _column(predictions, finding)
        films, base = len(label), label.mean(dtype=np.float64)
        found = dict.fromkeys(PARTS[1:], 0.0) | {"uncertainty": base * (1 - base)}
        for number in range(BINS):
            inside = (probability > number / BINS) & (probability <= (number + 1) / BINS)
            if not inside.any():
                continue
            predicted, truth = probability[inside], label[inside].astype(np.float64)
            found["reliability"] += inside.sum() / films * (predicted.mean() - truth.mean()) ** 2
            found["resolution"] += inside.sum() / films * (truth.mean() - base) ** 2
            variance = ((predicted - predicted.mean()) ** 2).sum()
            covariance = ((predicted - predicted.mean()) * (truth - truth.mean())).sum()
            found["within"] += (variance - 2 * covariance) / films
        assert table.loc[finding, [*found]].tolist() == pytest.approx([*found.values()], abs=1e-12)


def test_murphy_s_parts_of_a_toy_by_hand():
    """Six films predicted .2, two of them positive, and two predicted .8, both positive."""
    predicted = np.repeat([0.2, 0.8], [6, 2])
    label = np.array([1, 1, 0, 0, 0, 0, 1, 1], dtype=np.float32)
    logit = np.stack([log_odds(predicted)] * 2, axis=1)
    films = _films(logit) | {"label": np.stack([label, np.full(8, np.nan, np.float32)], axis=1)}
    table = brier_parts(replace(_predictions(films=3), **films))
    reliability = (6 * (0.2 - 1 / 3) ** 2 + 2 * 0.2**2) / 8
    resolution = (6 * (1 / 3 - 1 / 2) ** 2 + 2 * (1 / 2) ** 2) / 8
    brier = (2 * 0.8**2 + 4 * 0.2**2 + 2 * 0.2**2) / 8
    expected = [brier, reliability, resolution, 1 / 4, 0]
    assert table.loc[0, list(PARTS)].tolist() == pytest.approx(expected, abs=1e-12)
    assert table.loc[1, list(PARTS)].isna().all()
    assert table.loc[2, list(PARTS)].tolist() == pytest.approx(expected, abs=1e-12)
    assert table["finding"].tolist() == [*FINDINGS, "macro"]
    assert table["note"].tolist() == [
        "", "not computable: 0 films with a label", "mean over 1 of 2 findings",
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
    table = _table(predictions, resamples=300)
    pooled = table[table["finding"] == "micro"]
    sound = (pooled["share_low"] < pooled["mean_probability"]) & (
        pooled["mean_probability"] < pooled["share_high"]
    )
    assert sound[pooled["films"] > 100].mean() > 0.7
