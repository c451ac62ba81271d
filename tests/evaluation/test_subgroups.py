"""Groups of films: plain recounts of every cell, pairing of patients, refusals, one sentence."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import resample_patients
from lucency.evaluation.subgroups import COLUMNS, FACTS, subgroups, worst_group

FINDINGS = ("Mass", "Edema", "Nodule")
GAPS = ["auc", "auc_low", "auc_high", "gap", "gap_low", "gap_high"]


def _predictions(films=600, patients=200, *, seed=0, blind=0.0):
    """Return predictions, and facts in another order; where view is AP the network is blind."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, patients, size=films)
    label = (generator.random((films, 3)) < (0.3, 0.25, 0.2)).astype(np.float32)
    view = np.where(generator.random(films) < 0.4, "AP", "PA")
    sees = 1.5 - blind * (view == "AP")[:, None]
    logit = (generator.normal(size=(films, 3)) + sees * label - 1).astype(np.float32)
    predictions = Predictions(
        network="net",
        split="0123",
        findings=FINDINGS,
        image=np.array([f"{film:04d}.png" for film in range(films)]),
        patient=patient,
        part=np.full(films, "test"),
        label=label,
        logit=logit,
        feature=np.empty((films, 0), dtype=np.float32),
    )
    facts = pd.DataFrame(
        {
            "image": predictions.image,
            "view": view,
            "sex": np.array(["F", "M"])[patient % 2],
            "age": generator.integers(1, 95, size=films).astype(float),
            "follow_up": generator.integers(0, 4, size=films),
        }
    )
    return predictions, facts.sample(frac=1, random_state=seed)


def _table(predictions, facts, *, resamples=30, seed=0):
    return subgroups(predictions, facts=facts, resamples=resamples, seed=seed)


@cache
def _default():
    """Return the default predictions and facts, and their table, which no test changes."""
    predictions, facts = _predictions()
    return predictions, facts, _table(predictions, facts)


def _cell(table, fact, group, finding="Mass"):
    rows = table[(table["fact"] == fact) & (table["group"] == group)]
    (row,) = rows[rows["finding"] == finding].to_dict("records")
    return row


def _fact(predictions, facts, name):
    return facts.set_index("image").loc[predictions.image, name].to_numpy()


def test_every_group_has_a_row_per_finding_and_macro():
    table = _default()[-1]
    assert tuple(table.columns) == COLUMNS
    assert list(table["fact"].unique()) == [name for name in FACTS if name != "source"]
    groups = table.groupby("fact", sort=False)["group"].unique()
    assert {fact: list(found) for fact, found in groups.items()} == {
        "view": ["AP", "PA"],
        "sex": ["F", "M"],
        "age": ["under 18", "18 to 39", "40 to 64", "65 and over"],
        "visit": ["first film", "follow-up"],
        "films of the patient": ["1", "2 to 4", "5 and more"],
    }
    assert (table.groupby(["fact", "group"]).size() == 4).all()
    large = table[~table["small"]]
    for value, low, high in (GAPS[:3], GAPS[3:]):
        assert (large[low] <= large[value]).all()
        assert (large[value] <= large[high]).all()
        assert table.loc[table["small"], [low, high]].isna().all(axis=None)  # too few films
    assert 0 < len(large) < len(table)
    films = table[table["finding"] == "macro"].groupby("fact")["films"].sum()
    assert (films == 600).all()


def test_values_are_those_of_scikit_learn_on_the_rows():
    predictions, facts, table = _default()
    inside = _fact(predictions, facts, "view") == "AP"
    areas, gaps, misses = [], [], []
    for place, finding in enumerate(FINDINGS):
        label, logit = predictions.label[:, place], predictions.logit[:, place]
        mine, theirs = (roc_auc_score(label[rows], logit[rows]) for rows in (inside, ~inside))
        share = predictions.probability[inside, place].mean() - label[inside].mean()
        row = _cell(table, "view", "AP", finding)
        found = row["auc"], row["gap"], row["calibration_gap"]
        assert found == pytest.approx((mine, mine - theirs, share), abs=1e-7)
        counts = inside.sum(), label[inside].sum(), len(set(predictions.patient[inside]))
        assert (row["films"], row["positives"], row["patients"]) == counts
        areas.append(mine), gaps.append(mine - theirs), misses.append(share)
    macro = _cell(table, "view", "AP", "macro")
    found = macro["auc"], macro["gap"], macro["calibration_gap"]
    assert found == pytest.approx((np.mean(areas), np.mean(gaps), np.mean(misses)), abs=1e-7)
    assert macro["positives"] == predictions.label[inside].sum()
    assert macro["note"] == "mean over 3 of 3 findings"


def test_groups_are_of_the_scores_that_the_metrics_are_of():
    """A line changes no AUC, a curve ties films; both are the recalibrated scores'."""
    predictions, facts, plain = _default()
    line = replace(predictions, slope=np.array(0.5), offset=np.array(-1.0))
    same = _table(line, facts)
    columns = [name for name in COLUMNS if not name.startswith("calibration")]
    pd.testing.assert_frame_equal(same[columns], plain[columns])
    at = np.quantile(predictions.logit[:, 0], [0.2, 0.5, 0.8])
    knot = np.array([[0, at[0], -1.0], [0, at[1], 0.0], [0, at[2], 1.0]])
    curved = replace(predictions, knot=knot)
    rows = np.asarray(_fact(predictions, facts, "view") == "PA")
    auc = _cell(_table(curved, facts), "view", "PA")["auc"]
    label = predictions.label[rows, 0]
    assert auc == pytest.approx(roc_auc_score(label, curved.calibrated[rows, 0]))
    assert abs(auc - roc_auc_score(label, predictions.logit[rows, 0])) > 1e-3


def test_intervals_are_percentiles_of_plainly_repeated_counts_of_the_same_patients():
    predictions, facts = _predictions(films=300, patients=100)
    view = _fact(predictions, facts, "view")
    drawn = resample_patients(predictions.patient, resamples=40, seed=3)
    label, logit = predictions.label[:, 0], predictions.logit[:, 0]
    sampled = []
    for times in drawn.times.T:
        film = np.repeat(np.arange(300), times[drawn.owner].astype(int))
        mine, theirs = film[view[film] == "PA"], film[view[film] != "PA"]
        area = roc_auc_score(label[mine], logit[mine])
        gap = area - roc_auc_score(label[theirs], logit[theirs])
        miss = predictions.probability[mine, 0].mean() - label[mine].mean(dtype=np.float64)
        sampled.append((area, gap, miss))
    row = _cell(_table(predictions, facts, resamples=40, seed=3), "view", "PA")
    names = [
        ("auc_low", "auc_high"),
        ("gap_low", "gap_high"),
        ("calibration_low", "calibration_high"),
    ]
    for column, ends in zip(np.array(sampled).T, names, strict=True):
        expected = np.quantile(column, (0.025, 0.975))
        assert [row[end] for end in ends] == pytest.approx(expected, abs=1e-7)


def test_two_groups_mirror_each_other():
    table = _default()[-1]
    one, other = _cell(table, "sex", "F"), _cell(table, "sex", "M")
    assert one["gap"] == pytest.approx(-other["gap"])
    assert (one["gap_low"], one["gap_high"]) == pytest.approx(
        (-other["gap_high"], -other["gap_low"])
    )


def test_films_join_by_name_and_order_changes_nothing():
    predictions, facts, table = _default()
    stranger = facts.assign(image="other-" + facts["image"], view="AP", age=50.0)
    more = pd.concat([stranger, facts.iloc[::-1]]).set_index("image")
    pd.testing.assert_frame_equal(_table(predictions, more), table)
    order = np.random.default_rng(1).permutation(len(predictions))
    names = ("image", "patient", "part", "label", "logit", "feature")
    mixed = replace(predictions, **{name: getattr(predictions, name)[order] for name in names})
    pd.testing.assert_frame_equal(_table(mixed, facts), table, rtol=1e-12)


def test_bands_hold_their_edges_and_impossible_facts_are_unknown():
    predictions, facts = _predictions(films=12, patients=5)
    facts = facts.sort_values(by="image").assign(
        age=[0, 17.9, 18, 39.9, 40, 64, 65, 120, 121, 413, -1, np.nan],
        view=["PA", " AP ", "", None, "LATERAL", *["PA"] * 7],
        follow_up=pd.array([0, 1, None, *[2] * 9], dtype="Int64"),
    )
    table = _table(predictions, facts)
    films = table[table["finding"] == "macro"].set_index(["fact", "group"])["films"]
    assert films["age"].to_dict() == {
        "under 18": 2, "18 to 39": 2, "40 to 64": 2, "65 and over": 2, "unknown": 4,
    }  # fmt: skip
    assert films["view"].to_dict() == {"AP": 1, "LATERAL": 1, "PA": 8, "unknown": 2}
    assert films["visit"].to_dict() == {"first film": 1, "follow-up": 10, "unknown": 1}


def test_films_of_the_patient_are_counted_in_these_predictions():
    predictions, facts = _predictions(films=12)
    predictions = replace(predictions, patient=np.array([7, 3, 3, 1, 1, 1, 1, 2, 2, 2, 2, 2]))
    table = _table(predictions, facts)
    rows = table[(table["fact"] == "films of the patient") & (table["finding"] == "macro")]
    assert rows[["group", "films", "patients"]].to_numpy().tolist() == [
        ["1", 1, 1], ["2 to 4", 6, 2], ["5 and more", 5, 1],
    ]  # fmt: skip


def test_a_missing_fact_is_listed_and_the_others_are_judged():
    predictions, facts = _predictions()
    table = _table(predictions, facts[["image", "sex"]])
    skipped = table[table["group"] == ""]
    assert list(skipped["fact"]) == ["view", "age", "visit"]
    assert list(skipped["note"])[2] == "skipped: the facts have no column 'follow_up'"
    assert skipped["small"].all()
    assert skipped[GAPS].isna().all(axis=None)
    assert set(table.loc[table["group"] != "", "fact"]) == {"sex", "films of the patient"}


def test_what_cannot_be_computed_is_nan_and_said():
    predictions, facts = _predictions()
    view, label = _fact(predictions, facts, "view"), predictions.label.copy()
    label[view == "AP", 1] = 0
    label[view == "AP", 2] = np.nan
    table = _table(replace(predictions, label=label), facts[["image", "view"]])
    row = _cell(table, "view", "AP", "Edema")
    assert np.isnan([row[name] for name in GAPS]).all()
    assert row["note"] == "not computable: 0 positives"
    assert row["small"]
    assert row["calibration_gap"] == pytest.approx(
        predictions.probability[view == "AP", 1].mean(), abs=1e-7
    )
    row = _cell(table, "view", "PA", "Edema")
    assert row["note"] == "gap not computable: 0 positives among other films"
    assert not np.isnan([row["auc"], row["auc_low"]]).any()
    assert np.isnan([row["gap"], row["gap_low"]]).all()
    assert not row["small"]
    row = _cell(table, "view", "AP", "Nodule")
    assert (row["films"], row["patients"]) == (0, 0)
    assert np.isnan([row["auc"], row["gap"], row["calibration_gap"]]).all()
    assert row["note"] == "not computable: 0 films with a label"
    macro = _cell(table, "view", "AP", "macro")
    assert macro["note"] == "mean over 1 of 3 findings, without Edema, Nodule"
    assert macro["auc"] == _cell(table, "view", "AP")["auc"]
    macro = _cell(table, "view", "PA", "macro")
    assert macro["note"] == "mean over 3 of 3 findings; gap over 1"
    assert macro["gap"] == _cell(table, "view", "PA")["gap"]


def test_a_single_group_has_no_others():
    predictions, facts = _predictions()
    row = _cell(_table(predictions, facts[["image"]].assign(view="PA")), "view", "PA", "macro")
    assert row["note"] == "mean over 3 of 3 findings; gap over 0"
    assert np.isnan(row["gap"])
    assert not np.isnan([row["auc"], row["calibration_gap"]]).any()


def test_resamples_without_the_only_positive_patient_are_counted():
    predictions, facts = _predictions()
    view, label = _fact(predictions, facts, "view"), predictions.label.copy()
    label[view == "AP", 0] = 0
    label[np.flatnonzero(view == "AP")[0], 0] = 1
    table = _table(replace(predictions, label=label), facts[["image", "view"]], resamples=1000)
    row = _cell(table, "view", "AP")
    count = int(row["note"].removeprefix("not computable in ").split()[0])
    assert count == pytest.approx(1000 * np.exp(-1), abs=60)
    assert row["note"].endswith(" of 1000 resamples, left out of the intervals")
    assert row["small"]


@pytest.mark.parametrize(
    ("positives", "negatives", "patients", "small"),
    [(30, 30, 20, False), (29, 99, 60, True), (99, 29, 60, True), (50, 50, 19, True)],
)
@pytest.mark.parametrize("group", ["AP", "PA"])
def test_small_is_few_films_of_a_class_or_few_patients_on_either_side(
    positives, negatives, patients, small, group
):
    """AP is as few as stated; PA is large, but compared with AP."""
    few, many = positives + negatives, 400
    label = np.zeros((few + many, 1), dtype=np.float32)
    label[:positives], label[few::2] = 1, 1
    patient = np.concatenate([np.arange(few) % patients, 1000 + np.arange(many)])
    predictions, _ = _predictions(films=few + many)
    predictions = replace(
        predictions, findings=("Mass",), label=label, patient=patient,
        logit=predictions.logit[:, :1],
    )  # fmt: skip
    view = np.where(np.arange(few + many) < few, "AP", "PA")
    table = _table(predictions, pd.DataFrame({"image": predictions.image, "view": view}))
    assert _cell(table, "view", group)["small"] == small
    assert _cell(table, "view", group, "macro")["small"] == small


def test_a_finding_that_is_small_stays_out_of_macro():
    """One positive film has an interval of no width, and would steer the mean with certainty."""
    predictions, facts = _predictions()
    view, label = _fact(predictions, facts, "view"), predictions.label.copy()
    label[view == "AP", 2] = np.arange((view == "AP").sum()) == 3
    table = _table(replace(predictions, label=label), facts[["image", "view"]])
    assert _cell(table, "view", "AP", "Nodule")["small"]
    macro = _cell(table, "view", "AP", "macro")
    assert not macro["small"]
    assert macro["note"].startswith("mean over 2 of 3 findings, without Nodule")
    parts = [_cell(table, "view", "AP", finding)["gap"] for finding in ("Mass", "Edema")]
    assert macro["gap"] == pytest.approx(np.mean(parts))


def test_where_most_findings_are_small_macro_is_over_all_and_small():
    table = _table(*_predictions(films=60, patients=30))
    macro = table[table["finding"] == "macro"]
    assert macro["small"].all()
    row = _cell(table, "sex", "F", "macro")
    parts = [_cell(table, "sex", "F", finding)["auc"] for finding in FINDINGS]
    assert row["auc"] == pytest.approx(np.mean(parts))


def test_the_blind_group_is_named():
    predictions, facts = _predictions(films=1500, patients=500, blind=1.2)
    table = _table(predictions, facts, resamples=60)
    row = _cell(table, "view", "AP", "macro")
    assert row["gap_high"] < -0.1
    large = (~table.loc[table["finding"] == "macro", "small"]).sum()
    assert large > 1
    assert worst_group(table) == (
        f"Largest gap of net: macro AUC {row['auc']:.3f} in the group view = AP, {-row['gap']:.3f} "
        f"below that of all other films (95 % interval {-row['gap_high']:.3f} to "
        f"{-row['gap_low']:.3f}; p below 0.001, Holm-corrected over {large} groups). Groups with "
        f"enough films: {large}."
    )


def test_no_group_is_named_for_nothing():
    predictions, facts = _predictions(films=1500, patients=500)
    table = _table(predictions, facts[["image", "view"]])
    level = table.assign(gap_low=-0.1, gap_high=0.1)
    assert worst_group(level) == (
        "Groups with a macro AUC significantly below that of all other films: 0 of 4 with enough "
        "films (level .05, Holm-corrected over 4 groups)."
    )
    none = "Groups with enough films, beside enough other films: 0. No macro AUC is compared."
    assert worst_group(level.assign(small=True)) == none
    assert worst_group(level.assign(gap=np.nan)) == none
    assert worst_group(_table(predictions, facts[["image"]]).iloc[:0]) == none


def test_the_lowest_of_those_below_is_named_and_small_ones_are_not():
    rows = [("A", -0.3, 0.4, False), ("B", -0.2, 0.1, False), ("C", -0.1, 0.05, False)]
    rows += [("D", -0.5, 0.1, True)]
    table = pd.DataFrame(rows, columns=["group", "gap", "reach", "small"])
    table = table.assign(network="net", fact="view", finding="macro", auc=0.6)
    table = table.assign(
        gap_low=table["gap"] - table["reach"], gap_high=table["gap"] + table["reach"]
    )
    found = worst_group(table)
    assert found.startswith(
        "Largest gap of net: macro AUC 0.600 in the group view = B, 0.200 below"
    )
    assert worst_group(table.iloc[:1]).endswith(": 0 of 1 with enough films (level .05).")
    one = worst_group(table.iloc[1:2])
    assert "(95 % interval 0.100 to 0.300; p below 0.001). Groups with enough films: 1." in one


def test_a_gap_is_named_only_where_it_holds_among_all_groups():
    """One interval of eight that just excludes 0 is what chance brings."""
    table = pd.DataFrame({"gap": [-0.21, *[0.0] * 7], "group": list("ABCDEFGH")})
    table = table.assign(network="net", fact="view", finding="macro", auc=0.6, small=False)
    table = table.assign(gap_low=table["gap"] - 0.2, gap_high=table["gap"] + 0.2)
    assert table["gap_high"][0] < 0
    assert ": 0 of 8 with enough films" in worst_group(table)
    assert "group view = A, 0.210 below" in worst_group(table.iloc[:1])
    assert "group view = A, 0.210 below" in worst_group(table.assign(gap_high=table["gap"] + 0.05))


def test_equal_groups_are_seldom_named():
    """Before the correction one was named in a fifth of such data sets."""
    named = 0
    for number in range(40):
        generator = np.random.default_rng(number)
        gap = generator.normal(size=10) / 10  # of groups that do not differ, standard error .1
        table = pd.DataFrame({"gap": gap, "gap_low": gap - 0.196, "gap_high": gap + 0.196})
        table = table.assign(network="net", fact="view", group="A", finding="macro", auc=0.6)
        named += worst_group(table.assign(small=False)).startswith("Largest gap")
    assert named <= 5  # of 40; 1 is expected


def test_films_without_facts_are_refused_by_name():
    predictions, facts = _predictions()
    gone = facts[facts["image"] != "0007.png"]
    with pytest.raises(ValueError, match=r"1 of 600 films are not among the facts, such as '0007"):
        _table(predictions, gone)
    with pytest.raises(ValueError, match=r"600 of 600 films .* by index or by a column 'image'"):
        _table(predictions, facts.drop(columns="image").reset_index(drop=True))
    with pytest.raises(ValueError, match=r"facts name film '0007\.png' more than once"):
        _table(predictions, pd.concat([facts, facts[facts["image"] == "0007.png"]]))


@pytest.mark.parametrize("parts", [["val", "test"], []])
def test_several_parts_at_once_are_refused(parts):
    predictions, facts = _predictions(films=4 * len(parts))
    mixed = replace(predictions, part=np.repeat(np.array(parts, dtype=str), 4))
    with pytest.raises(ValueError, match=r"expected one part: take predictions\.of"):
        _table(mixed, facts)


def test_nothing_is_changed_in_place():
    predictions, facts = _predictions()
    before = facts.copy(deep=True)
    _table(predictions, facts)
    pd.testing.assert_frame_equal(facts, before)
