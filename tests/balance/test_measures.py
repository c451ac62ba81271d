"""The imbalance measures against the numbers of R's mldr, to every printed digit."""

import numpy as np
import pandas as pd
import pytest

from lucency.balance.imbalance import imbalance_ratio, measure, no_finding, scumble_of_films
from lucency.core.manifest import FINDINGS, NO_FINDING

# Facts: imbalance.md. TCS as printed by Charte et al., HAIS 2016, with their number of inputs.
COLUMNS = ("cardinality", "labelsets", "max_ir", "mean_ir", "cvir", "scumble", "scumble_cv", "tcs")
PUBLISHED = {
    "emotions": (72, "1.868465 27 1.7838 1.478068 0.179571 0.010952 1.26456 9.364"),
    "birds": (260, "1.013953 133 17.1667 5.406996 0.816877 0.033028 2.298296 13.395"),
    "scene": (294, "1.073951 15 1.4643 1.253784 0.122239 0.000337 4.250558 10.183"),
    "yeast": (103, "4.237071 198 53.4118 7.196811 1.883751 0.104359 1.064476 12.562"),
    "genbase": (1186, "1.252266 32 171.0 37.314581 1.449416 0.028759 3.614486 13.840"),
    "enron": (1001, "3.378378 753 913.0 73.952793 1.959628 0.302768 0.742898 17.503"),
}
MINORITIES = {"emotions": 4, "birds": 7, "scene": 2, "yeast": 2, "genbase": 8, "enron": 12}


@pytest.fixture(scope="module")
def chestxray14(shared):
    table = pd.read_csv(shared / "nih" / "Data_Entry_2017_v2020.csv").set_index("Image Index")
    code, distinct = pd.factorize(table["Finding Labels"])
    tokens = pd.Series(distinct).str.get_dummies("|")[list(FINDINGS)]
    return pd.DataFrame(tokens.to_numpy(dtype=np.float32)[code], index=table.index)


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_the_published_measures(name, shared):
    label = np.load(shared / "multilabel" / f"{name}.npz")["label"].astype(np.float32)
    inputs, printed = PUBLISHED[name]
    names = tuple(f"label {k}" for k in range(label.shape[1]))
    found = measure(label, names=names, inputs=inputs)
    for column, text in zip(COLUMNS, printed.split(), strict=True):
        _prints_as(found.summary[column], text)
    assert found.summary["instances"] == len(label)
    assert found.summary["density"] == pytest.approx(label.mean())
    assert found.per_finding["minority"].sum() == MINORITIES[name]


def test_equals_the_published_measures_of_chestxray14(chestxray14):
    label = chestxray14.to_numpy()
    found = measure(label, names=FINDINGS)
    # SCUMBLE.CV is 3.01064151 in 40-digit arithmetic; the table in imbalance.md cuts it off.
    printed = "0.724010 801 87.6388 11.553007 1.924682 0.025946 3.010642"
    for column, text in zip(COLUMNS, printed.split(), strict=False):
        _prints_as(found.summary[column], text)
    rare = found.per_finding[found.per_finding["minority"]].set_index("finding")["irlbl"]
    expected = {"Pneumonia": 13.9022, "Fibrosis": 11.7995, "Hernia": 87.6388}
    assert rare.round(4).to_dict() == expected

    nothing = ~label.any(axis=1, keepdims=True)
    with_none = measure(np.hstack([label, nothing]), names=(*FINDINGS, NO_FINDING))
    for column, text in (("mean_ir", "32.783114"), ("cvir", "2.001160"), ("max_ir", "265.9075")):
        _prints_as(with_none.summary[column], text)
    _prints_as(with_none.summary["scumble"], "0.025946")


def test_equals_the_published_measures_of_the_official_training_films(chestxray14, shared):
    lines = (shared / "nih" / "train_val_list.txt").read_text().split()
    found = measure(chestxray14.loc[lines].to_numpy(), names=FINDINGS)
    assert found.summary["instances"] == 86_524
    for column, text in (("labelsets", "619"), ("mean_ir", "12.790051"), ("scumble", "0.022649")):
        _prints_as(found.summary[column], text)
    rare = found.per_finding.loc[found.per_finding["minority"], "finding"]
    assert list(rare) == ["Pneumonia", "Hernia"]


def test_no_finding_is_counted_where_nothing_is_stated_otherwise(chestxray14):
    label = chestxray14.to_numpy()
    found = no_finding(label, names=FINDINGS)
    assert ((found == 1).sum(), np.isnan(found).sum()) == (60_361, 0)
    said = np.array([[0, 0], [1, np.nan], [0, np.nan], [np.nan, np.nan]], dtype=np.float32)
    found = no_finding(said, names=("Mass", "Hernia"))
    np.testing.assert_array_equal(found, [1, 0, np.nan, np.nan])
    found = no_finding(said, names=(NO_FINDING, "Hernia"))
    np.testing.assert_array_equal(found, [0, 1, 0, np.nan])


def test_what_has_no_value_is_nan_and_left_out():
    label = np.array([[1, 0, np.nan], [1, 1, 0], [0, 0, 0]], dtype=np.float32)
    ratio = imbalance_ratio(label)
    assert ratio[:2].tolist() == [1, 2]
    assert np.isnan(ratio[2])
    found = measure(label, names=("a", "b", "c"))
    assert found.summary["mean_ir"] == 1.5
    assert found.per_finding["count"].tolist() == [2, 1, 0]
    assert found.per_finding["minority"].tolist() == [False, True, False]
    assert np.isnan(found.per_finding["scumble"][2])


@pytest.mark.parametrize("films", [0, 3])
def test_films_without_any_finding_are_measured_too(films):
    found = measure(np.zeros((films, 2), dtype=np.float32), names=("a", "b"))
    assert found.summary["cardinality"] == 0
    assert found.summary[["max_ir", "mean_ir", "cvir", "scumble_cv"]].isna().all()


def test_scumble_is_0_unless_rare_and_common_findings_share_a_film():
    apart = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    together = np.array([[1, 0], [1, 0], [1, 1]], dtype=np.float32)
    assert scumble_of_films(apart).tolist() == pytest.approx([0, 0, 0, 0])
    # IRLbl 1 and 3: geometric mean sqrt(3), arithmetic mean 2.
    assert scumble_of_films(together).tolist() == pytest.approx([0, 0, 1 - np.sqrt(3) / 2])


def _prints_as(value: float, text: str) -> None:
    digits = len(text.partition(".")[2])
    assert f"{value:.{digits}f}" == text
