"""What Keras counts, by Keras's own numbers and by scikit-learn's."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, precision_score, recall_score, roc_auc_score

from lucency.core.predictions import Predictions
from lucency.evaluation.leakage_inflation import (
    HALF_METRICS,
    PUBLISHED,
    UNPUBLISHED,
    at_half,
    compare_with_study,
)
from lucency.evaluation.thresholds import threshold_table
from lucency.models.checkpoint import binary_accuracy, pooled_auc, tally

# keras 3.15.1 on the labels and probabilities of `drawn`: AUC(), BinaryAccuracy(), Precision(),
# Recall(), F1Score(average="micro", threshold=0.5), BinaryCrossentropy()
KERAS = {
    "auc": 0.8274921775, "accuracy": 0.7816666961, "precision": 0.5882353187,
    "recall": 0.6707317233, "f1": 0.6267805696, "bce": 0.4661592841,
}  # fmt: skip
DRAWS = {"resamples": 30, "seed": 0}


def drawn() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    label = (random.random((200, 3)) < [0.5, 0.2, 0.05]).astype(np.float32)
    return label, (random.normal(size=(200, 3)) * 1.5 + 2 * label - 1.5).astype(np.float32)


def predictions(network: str = "densenet121", *, part: str = "test") -> Predictions:
    label, logit = drawn()
    films = len(label)
    return Predictions(
        network=network,
        split="here",
        findings=("a", "b", "c"),
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films) // 2,
        part=np.full(films, part),
        label=label,
        logit=logit,
        feature=np.empty((films, 0), dtype=np.float32),
        slope=np.full(3, 0.5),  # which must change nothing here
        offset=np.full(3, -1.0),
    )


def test_an_epoch_s_figures_are_keras_s() -> None:
    label, logit = (torch.from_numpy(one) for one in drawn())
    whole = tally(logit, label).double().numpy()
    assert pooled_auc(whole) == pytest.approx(KERAS["auc"], abs=1e-6)
    assert binary_accuracy(whole) == pytest.approx(KERAS["accuracy"], abs=1e-6)
    batches = [tally(logit[rows], label[rows]) for rows in torch.arange(200).split(7)]
    np.testing.assert_array_equal(sum(batches).double().numpy(), whole)


def test_labels_that_are_not_stated_do_not_count() -> None:
    label, logit = (torch.from_numpy(one) for one in drawn())
    label[:50] = torch.nan
    np.testing.assert_array_equal(tally(logit, label), tally(logit[50:], label[50:]))
    nothing = tally(logit[:50], label[:50]).double().numpy()
    assert np.isnan(pooled_auc(nothing))
    assert np.isnan(binary_accuracy(nothing))


def test_decisions_at_half_are_keras_s() -> None:
    found = at_half(predictions(), **DRAWS)
    for name in ("accuracy", "precision", "recall", "f1", "bce"):
        assert found.loc[name, "value"] == pytest.approx(KERAS[name], abs=1e-6)
    label, logit = (one.ravel() for one in drawn())
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    assert found.loc["auc", "value"] == pytest.approx(roc_auc_score(label, logit), abs=1e-12)
    assert found.loc["auc", "value"] == pytest.approx(KERAS["auc"], abs=2e-3)  # 200 thresholds
    called = probability > 0.5
    assert found.loc["precision", "value"] == pytest.approx(precision_score(label, called))
    assert found.loc["recall", "value"] == pytest.approx(recall_score(label, called))
    assert found.loc["bce", "value"] == pytest.approx(log_loss(label, probability))
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    with pytest.raises(ValueError, match="no films"):
        at_half(predictions().of("val"), **DRAWS)


def test_half_is_fitted_to_nothing() -> None:
    table = threshold_table(predictions(part="val"), method="half")
    assert table["threshold"].tolist() == [0.5] * 3
    assert table["note"].tolist() == [""] * 3


def test_the_study_stands_beside() -> None:
    """Facts: reference-study.md, the table of training."""
    several = [predictions(), predictions("inceptionresnetv2")]
    table = compare_with_study(several, several[::-1], **DRAWS).set_index(["network", "metric"])
    row = table.loc["densenet121"]
    assert row["published"].dropna().tolist() == [0.8421, 0.9109, 0.5519, 0.5147, 0.3046]
    assert row["published"].isna().sum() == 1  # F1
    assert row.loc["precision", "own_test"] == pytest.approx(KERAS["precision"], abs=1e-6)
    assert row["held_out"].tolist() == row["own_test"].tolist()
    other = table.loc["inceptionresnetv2"]
    assert other["published"].isna().all()
    assert set(other["as_published"]) == {UNPUBLISHED}
    alone = compare_with_study(several, [], **DRAWS)
    assert alone["held_out"].isna().all()
    assert len(alone) == len(several) * len(HALF_METRICS)


def test_every_published_row_has_a_protocol() -> None:
    files = sorted((Path(__file__).resolve().parents[2] / "protocols").glob("reference*.toml"))
    networks = [tomllib.loads(file.read_text())["network"] for file in files]
    assert {row[0] for row in PUBLISHED} <= {one["name"] for several in networks for one in several}
