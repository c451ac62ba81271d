"""Agreement with radiologists: the facts' table in every cell, scikit-learn's and Fleiss' kappa."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from lucency.audit.agreement import (
    ABNORMAL,
    ANY,
    FOUR_GROUPS,
    GROUPS,
    NORMAL,
    agreement,
    align,
    between_readers,
    fleiss,
    flow,
    in_common,
    merge_labels,
    merge_predictions,
    merged,
)
from lucency.core.manifest import NO_FINDING, Manifest, empty_boxes
from lucency.core.predictions import Predictions
from lucency.data.radiologists import Readings, read_readings
from lucency.evaluation.bootstrap import once

DRAWS = {"resamples": 100, "seed": 0}
# Facts: label-quality.md, NIH v2020 against the majority of 810 films:
# NIH+, expert+, both, PPV, sensitivity, specificity, NPV, Cohen's kappa; Fleiss' kappa
FACTS = {
    "Atelectasis": (102, 303, 68, 0.667, 0.224, 0.933, 0.668, 0.182, 0.313),
    "Cardiomegaly": (35, 81, 22, 0.629, 0.272, 0.982, 0.924, 0.339, 0.328),
    "Effusion": (133, 226, 85, 0.639, 0.376, 0.918, 0.792, 0.336, 0.574),
    "Infiltration": (104, 61, 13, 0.125, 0.213, 0.879, 0.932, 0.069, 0.151),
    "Mass": (58, 99, 33, 0.569, 0.333, 0.965, 0.912, 0.363, 0.562),
    "Nodule": (69, 130, 38, 0.551, 0.292, 0.954, 0.876, 0.305, 0.454),
    "Pneumonia": (12, 2, 0, 0.0, 0.0, 0.985, 0.997, -0.004, 0.037),
    "Pneumothorax": (114, 136, 76, 0.667, 0.559, 0.944, 0.914, 0.537, 0.655),
    "Consolidation": (37, 83, 12, 0.324, 0.145, 0.966, 0.908, 0.146, 0.276),
    "Edema": (8, 23, 0, 0.0, 0.0, 0.990, 0.971, -0.015, 0.161),
    "Emphysema": (39, 7, 1, 0.026, 0.143, 0.953, 0.992, 0.029, 0.042),
    "Fibrosis": (21, 13, 1, 0.048, 0.077, 0.975, 0.985, 0.040, 0.220),
    "Pleural_Thickening": (41, 49, 10, 0.244, 0.204, 0.959, 0.949, 0.177, 0.168),
    "Hernia": (4, 5, 2, 0.500, 0.400, 0.998, 0.996, 0.441, 0.194),
}
FOUR = {  # TP, FP, FN, TN of NIH's labels on the 1,962 test films
    "Pneumothorax": (97, 103, 98, 1_664),
    "Nodule or mass": (134, 103, 161, 1_564),
    "Airspace opacity": (508, 121, 627, 706),
}


def manifest(label: np.ndarray, patient: np.ndarray | None = None, **facts: object) -> Manifest:
    films, findings = label.shape
    return Manifest(
        findings=tuple("abcdefgh"[:findings]),
        image=np.array([f"{film:04d}.png" for film in range(films)]),
        patient=np.arange(films) if patient is None else patient,
        label=label.astype(np.float32),
        facts=pd.DataFrame(facts, index=range(films)),
        boxes=empty_boxes(),
        origin="toys",
    )


def test_every_cell_of_the_facts_table(nih: Manifest, experts: Manifest):
    table = agreement(nih, experts, **DRAWS)
    value = table.pivot(index="finding", columns="measure", values="value")
    for finding, (labelled, seen, both, *measures, _) in FACTS.items():
        rows = table.loc[table["finding"] == finding]
        for name, count in {"labelled": labelled, "seen": seen, "both": both}.items():
            assert set(rows[name]) == {count}
        found = value.loc[finding, ["ppv", "sensitivity", "specificity", "npv", "kappa"]]
        assert found.astype(float).round(3).tolist() == measures
        assert set(rows["films"]) == {810}
        assert set(rows["patients"]) == {532}


def test_fleiss_kappa_of_the_five_readers(shared: Path):
    readings = read_readings(shared / "nih" / "expert", release="all")
    table = between_readers(readings, **DRAWS).set_index("finding")
    for finding, facts in FACTS.items():
        assert round(table.loc[finding, "kappa"], 3) == facts[-1]
    few = table["low"].isna()
    assert few[few].index.tolist() == ["Hernia"]
    assert table["note"].str.startswith("no interval: ").tolist() == few.tolist()
    assert (table["low"] < table["kappa"])[~few].all()
    assert (table["kappa"] < table["high"])[~few].all()
    assert set(table["readings"]) == {4_050}


def test_a_second_reading_of_a_reader_does_not_count(shared: Path):
    readings = read_readings(shared / "nih" / "expert", release="four")
    table = between_readers(readings, **DRAWS).set_index("finding")
    # 13,081 readings, 4 of them repeated by the same reader, 2 films with one reader
    assert table.loc["Airspace opacity", "readings"] == 13_081 - 4 - 2
    assert table.loc["Pneumothorax", "readings"] < 13_081 - 165


def test_merged_groups(nih: Manifest, experts: Manifest):
    table = agreement(merge_labels(nih, GROUPS), merge_labels(experts, GROUPS), **DRAWS)
    value = table.set_index(["finding", "measure"])["value"]
    assert round(value["Opacity", "ppv"], 3) == 0.622
    assert round(value["Opacity", "sensitivity"], 3) == 0.366


def test_the_four_findings_counts(nih: Manifest, four: Manifest):
    seen = four.take(np.flatnonzero(four.facts["part"] == "test"))
    table = agreement(merge_labels(nih, FOUR_GROUPS), seen, **DRAWS)
    assert set(table["finding"]) == set(FOUR)  # NIH knows no fracture
    for finding, (tp, fp, fn, tn) in FOUR.items():
        rows = table.loc[table["finding"] == finding].set_index("measure")
        counts = rows.loc["ppv", ["both", "labelled", "seen", "films"]].tolist()
        assert counts == [tp, tp + fp, tp + fn, tp + fp + fn + tn]
        assert rows.loc["specificity", "value"] == pytest.approx(tn / (tn + fp))


def test_what_readers_saw_behind_no_finding(nih: Manifest, experts: Manifest):
    table = flow(nih, experts).set_index(["labelled", "seen"])
    cells = {
        (NO_FINDING, ABNORMAL): (169, 348), (NO_FINDING, ANY): (142, 348),
        (NO_FINDING, NORMAL): (179, 348), (ANY, NORMAL): (53, 462), ("Mass", "Mass"): (33, 58),
    }  # fmt: skip
    for cell, (films, of) in cells.items():
        assert table.loc[cell, ["films", "of"]].tolist() == [films, of]
        assert table.loc[cell, "share"] == pytest.approx(films / of)
        bounds = binomtest(films, of).proportion_ci(method="wilson")
        found = table.loc[cell, ["wilson_low", "wilson_high"]].astype(float)
        np.testing.assert_allclose(found, [bounds.low, bounds.high])
        assert table.loc[cell, "low"] < films / of < table.loc[cell, "high"]


def test_kappa_is_scikit_learn_s_and_what_is_not_stated_is_left_out():
    generator = np.random.default_rng(0)
    labels, seen = (generator.choice([0, 1, np.nan], (300, 2), p=[0.5, 0.4, 0.1]) for _ in "ab")
    table = agreement(manifest(labels), manifest(seen), **DRAWS).set_index(["finding", "measure"])
    for place, finding in enumerate("ab"):
        stated = ~np.isnan(labels[:, place]) & ~np.isnan(seen[:, place])
        expected = cohen_kappa_score(labels[stated, place], seen[stated, place])
        assert table.loc[(finding, "kappa"), "value"] == pytest.approx(expected)
        assert table.loc[(finding, "kappa"), "films"] == stated.sum()


def test_every_film_twice_leaves_the_patients_interval_and_narrows_wilson_s():
    generator = np.random.default_rng(1)
    patient = generator.integers(60, size=150)
    seen = generator.integers(0, 2, (150, 1))
    labels = np.where(generator.random((150, 1)) < 0.3, 1 - seen, seen)
    single = agreement(manifest(labels, patient), manifest(seen, patient), **DRAWS)
    twice = [manifest(np.repeat(one, 2, axis=0), np.repeat(patient, 2)) for one in (labels, seen)]
    double = agreement(*twice, **DRAWS)
    bounds = ["value", "low", "high"]
    # Of shares within the clamp: films are never more than there are.
    pd.testing.assert_frame_equal(single[bounds], double[bounds], atol=0.02, rtol=0)
    wilson = ["wilson_low", "wilson_high"]
    width = [(one["wilson_high"] - one["wilson_low"])[:4] for one in (single, double)]
    assert (width[0] > 1.3 * width[1]).all()
    assert single[wilson].notna().iloc[:4].all(axis=None)


def test_what_cannot_be_computed_is_nan_with_its_reason():
    none, every = np.zeros((20, 1)), np.ones((20, 1))
    table = agreement(manifest(none), manifest(every), **DRAWS).set_index("measure")
    assert np.isnan(table.loc["ppv", "value"])
    assert "0 films labelled positive" in table.loc["ppv", "note"]
    assert "0 films that experts call negative" in table.loc["specificity", "note"]
    assert table.loc["sensitivity", "note"] == ""
    row = table.loc["sensitivity"]
    assert row["high"] == pytest.approx(row["wilson_high"])
    alike = agreement(manifest(none), manifest(none), **DRAWS).set_index("measure")
    assert "are the same on all films" in alike.loc["kappa", "note"]
    assert (alike["note"] == "").tolist() == alike["low"].notna().tolist()
    assert alike.loc["specificity", "low"] == pytest.approx(0.839, abs=1e-3)  # 20 of 20
    empty = flow(manifest(every), manifest(every))
    assert empty.loc[empty["labelled"] == NO_FINDING, "note"].str.contains("0 films").all()


def test_a_film_of_which_a_finding_is_not_stated_does_not_count_there():
    seen = np.array([[1, np.nan], [0, 1], [np.nan, 0]])
    table = flow(manifest(np.ones((3, 2))), manifest(seen, abnormal=[1.0, 0, np.nan]))
    cells = table.set_index(["labelled", "seen"])[["films", "of"]]
    rows = [cells.loc[("a", name)].tolist() for name in ("a", "b", ANY, ABNORMAL, NORMAL)]
    assert rows == [[1, 2], [1, 2], [2, 2], [1, 2], [1, 2]]


def test_fleiss_s_own_example_in_two_categories_and_its_limits():
    # Hand-computed: 3 readers, films (3, 0), (0, 3), (2, 1): mean agreement 7/9, share 5/9.
    yes, no = np.array([3, 0, 2, 1]), np.array([0, 3, 1, 0])  # the last has one answer only
    chance = (5 / 9) ** 2 + (4 / 9) ** 2
    expected = (7 / 9 - chance) / (1 - chance)
    assert fleiss(yes, no, weights=once(4))[0] == pytest.approx(expected)
    same = fleiss(np.array([3, 3]), np.array([0, 0]), weights=once(2))
    assert np.isnan(same[0])


def test_readers_without_pairs_are_noted():
    label = np.array([[1.0, 1], [np.nan, 1]], np.float32)
    readings = Readings(
        findings=("a", "b"), image=np.array(["x", "x"]), patient=np.array([1, 1]),
        reader=np.array([1, 2]), label=label,
    )  # fmt: skip
    table = between_readers(readings, **DRAWS)
    assert table["kappa"].isna().all()
    assert "no film has two answers" in table["note"][0]
    assert "all answers are the same" in table["note"][1]
    with pytest.raises(ValueError, match="label: found"):
        replace(readings, findings=("a",))


def test_merging_knows_what_is_not_stated():
    label = np.array([[1, np.nan], [0, 0], [0, np.nan], [np.nan, np.nan], [0, 1]])
    np.testing.assert_array_equal(merged(label), [1, 0, np.nan, np.nan, 1])
    with pytest.raises(ValueError, match="group 'g': finding 'A' is unknown; expected some of a"):
        merge_labels(manifest(label), {"g": ("A",)})


def test_a_merged_probability_is_of_any_member_to_the_last_digit():
    logit = np.array([[-300.0, -301.0], [0.2, -1.0], [40.0, 500.0]])
    predictions = Predictions(
        network="toy", split="", findings=("a", "b"), image=np.array(list("xyz")),
        patient=np.arange(3), part=np.full(3, "test"), label=np.zeros((3, 2), np.float32),
        logit=logit, feature=np.empty((3, 0), np.float32),
    )  # fmt: skip
    pair = merge_predictions(predictions, {"both": ("a", "b"), "one": ("b",)})
    p = expit(logit)
    np.testing.assert_allclose(pair.probability[:, 0], p.sum(axis=1) - p.prod(axis=1), rtol=1e-9)
    np.testing.assert_allclose(pair.logit[:, 1], logit[:, 1], rtol=1e-12)
    assert pair.findings == ("both", "one")


def test_labellings_meet_by_name():
    one = manifest(np.array([[1, 0], [0, 1], [1, 1]]))
    other = replace(one, image=np.array(["0002.png", "x", "0000.png"]), findings=("b", "c"))
    mine, theirs = in_common(one, other)
    assert mine.findings == theirs.findings == ("b",)
    assert mine.image.tolist() == theirs.image.tolist() == ["0000.png", "0002.png"]
    np.testing.assert_array_equal(mine.label[:, 0], [0, 1])
    np.testing.assert_array_equal(theirs.label[:, 0], [1, 1])
    found = align(other, replace(one, findings=("a", "c")))
    np.testing.assert_array_equal(found, [[np.nan, 1], [np.nan, np.nan], [np.nan, 0]])
    with pytest.raises(ValueError, match="have none in common"):
        in_common(one, replace(other, findings=("x", "y")))
    with pytest.raises(ValueError, match="no film is in both"):
        in_common(one, replace(other, image=np.array(["x", "y", "z"])))
