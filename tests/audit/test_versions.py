"""Two labellings of the same films: what changed, and AUCs by both, paired."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lucency.audit.agreement import FOUR_GROUPS, align, merge_predictions, rows_of
from lucency.audit.label_audit import ALL, changed_labels, changes, effect
from lucency.core.manifest import NO_FINDING, Manifest, empty_boxes
from lucency.core.predictions import Predictions
from lucency.evaluation.evaluate import MACRO

DRAWS = {"resamples": 100, "seed": 0}


def by_versions(predictions: Predictions, old: Manifest, new: Manifest) -> pd.DataFrame:
    pair = {"old": align(old, predictions), "new": align(new, predictions)}
    return effect(predictions, pair, **DRAWS)


def by_experts(predictions: Predictions, experts: Manifest) -> pd.DataFrame:
    pair = {"labels": predictions.label, "experts": align(experts, predictions)}
    return effect(predictions, pair, **DRAWS).set_index("finding")


def toys(label: np.ndarray) -> tuple[Predictions, Manifest]:
    films = len(label)
    generator = np.random.default_rng(0)
    common = {
        "findings": ("a", "b"), "image": np.arange(films).astype(str),
        "patient": np.arange(films) // 2, "label": label.astype(np.float32),
    }  # fmt: skip
    predictions = Predictions(
        **common, network="toy", split="", part=np.full(films, "test"),
        logit=generator.normal(label, 1), feature=np.empty((films, 0), np.float32),
    )  # fmt: skip
    facts = pd.DataFrame(index=range(films))
    return predictions, Manifest(**common, facts=facts, boxes=empty_boxes(), origin="toys")


def test_181_films_and_188_labels_differ_between_nih_s_files(nih: Manifest, first_nih: Manifest):
    table = changes(first_nih, nih).set_index("finding")
    assert table.loc[ALL, ["added", "removed", "films"]].tolist() == [188, 0, 181]
    assert table.loc[NO_FINDING, ["added", "removed"]].tolist() == [0, 51]
    assert table.loc["Pneumonia", ["before", "after", "added"]].tolist() == [1_353, 1_431, 78]
    assert table.loc["Hernia", "films"] == 0
    each = changed_labels(first_nih, nih)
    assert (len(each), each["image"].nunique()) == (188, 181)
    assert (each["after"] == 1).all()
    new, old = (one.take(rows_of(one, np.unique(each["image"]))) for one in (nih, first_nih))
    back = changes(new, old).set_index("finding")
    assert back.loc[ALL, ["added", "removed"]].tolist() == [0, 188]


@pytest.mark.slow
def test_the_versions_move_one_real_network_s_aucs_by_less_than_a_hundredth(
    nih: Manifest, first_nih: Manifest, zech: Predictions
):
    table = by_versions(zech, first_nih, nih).set_index("finding")
    # Facts: evaluation.md, the published AUC by the new file; 37 labels of its films differ.
    assert table.loc[MACRO, "new"] == pytest.approx(0.8382671332, abs=1e-9)
    assert table.loc[MACRO, "differing"] == 37
    assert table.loc["Hernia", "difference"] == 0
    assert table.loc["Hernia", "note"].startswith("no interval of the difference: ")
    assert 0.004 < table.loc["Pneumonia", "difference"] < 0.006
    assert table["difference"].abs().max() < 0.01


def test_a_real_network_by_labels_and_by_radiologists(
    zech: Predictions, experts: Manifest, four: Manifest
):
    table = by_experts(zech, experts)
    assert set(table["films"]) == {188}
    assert np.isnan(table.loc["Pneumonia", "difference"])
    assert "one class only by experts" in table.loc["Pneumonia", "note"]
    few = "no interval of the difference: 1 patient of a class, expected 30 or more"
    assert table.loc["Hernia", "note"] == few
    assert table.loc["Hernia", ["difference_low", "experts_high"]].isna().all()
    assert table.loc[MACRO, "note"].startswith("mean over 13 of 14 findings; over fewer in")
    # It agrees with radiologists better than with the labels it was trained on.
    assert table.loc[MACRO, "difference_low"] > 0
    merged = merge_predictions(zech, FOUR_GROUPS)
    table = by_experts(merged, four)
    assert set(table["films"]) == {935}
    seen = dict(zip(four.image, four.label, strict=True))
    film = [image in seen for image in merged.image]
    for place, finding in enumerate(merged.findings):
        column = four.findings.index(finding)
        truth = [seen[image][column] for image in merged.image[film]]
        expected = roc_auc_score(truth, merged.logit[film, place])
        assert table.loc[finding, "experts"] == pytest.approx(expected)
        expected = roc_auc_score(merged.label[film, place], merged.logit[film, place])
        assert table.loc[finding, "labels"] == pytest.approx(expected)


def test_the_difference_is_paired():
    label = np.random.default_rng(1).integers(0, 2, (400, 2))
    predictions, old = toys(label)
    same = by_versions(predictions, old, old)
    bounds = ["difference", "difference_low", "difference_high"]
    assert (same[bounds] == 0).all(axis=None)
    new = replace(old, label=np.where(np.arange(400)[:, None] < 2, 1 - old.label, old.label))
    table = by_versions(predictions, old, new)
    paired = table["difference_high"] - table["difference_low"]
    single = table["old_high"] - table["old_low"]
    assert (paired < single / 2).all()
    assert table["differing"].tolist() == [2, 2, 4]


def test_films_without_a_label_by_both_are_left_out():
    label = np.random.default_rng(1).integers(0, 2, (100, 2)).astype(float)
    predictions, old = toys(label)
    fewer = label.copy()
    fewer[:30, 0] = np.nan
    table = by_versions(predictions, replace(old, label=fewer.astype(np.float32)), old)
    assert table["films"].tolist() == [70, 100, 100]
    assert table["patients"].tolist() == [35, 50, 50]
    expected = roc_auc_score(label[30:, 0], predictions.logit[30:, 0])
    assert table.loc[0, ["old", "new"]].tolist() == pytest.approx([expected] * 2)
    gone = changes(old, replace(old, label=fewer.astype(np.float32))).set_index("finding")
    assert gone.loc["a", "films"] == 30
    assert gone.loc["a", "removed"] == label[:30, 0].sum()
    with pytest.raises(ValueError, match="toy: no film and finding is labelled by both"):
        by_versions(predictions, replace(old, image=np.char.add(old.image, "x")), old)
