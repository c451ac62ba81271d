"""What balancing changed, against numbers worked out by hand on six films."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.balance.imbalance import Change, Step, followed
from lucency.balance.imbalance import describe_change as describe
from lucency.balance.resampling import partial, positive_weights
from lucency.core.manifest import NO_FINDING
from lucency.core.plan import Plan, clones, joined, originals
from lucency.report.imbalance_figures import finding_rows

FINDINGS = ("Mass", "Hernia")
# Mass on four of six films, Hernia on one of five; the last film does not state Hernia.
LABEL = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [0, 0], [0, np.nan]], dtype=np.float32)


def describe_change(label: np.ndarray, *, plan: Plan, findings: tuple[str, ...]) -> Change:
    """Describe a plan that was made in one step."""
    steps = followed(label, [Step("by hand", "", plan)], findings=findings).steps
    about = {"findings": findings, "steps": steps, "population": "the training part"}
    return describe(label, plan=plan, **about)


def by_hand() -> Plan:
    """Return all films, film 3 twice more, and film 3 mixed with film 5 as Hernia alone."""
    mixed = replace(
        clones(LABEL, np.array([3])),
        copy=np.array([3]),
        label=np.array([[0, 1]], dtype=np.float32),
        mate=np.array([5]),
        mix=np.array([0.25], dtype=np.float32),
    )
    plan = joined(originals(LABEL), clones(LABEL, np.array([3, 3])), mixed)
    weight = np.ones(plan.label.shape, dtype=np.float32)
    weight[0, 0] = 0.5  # a positive of Mass that counts half
    weight[:, 1] = np.where(plan.label[:, 1] == 1, 2, 1)  # Hernia counts twice
    weight[4] = 0.25  # a negative of both
    return replace(plan, weight=weight)


@pytest.fixture(scope="module")
def change() -> Change:
    return describe_change(LABEL, plan=by_hand(), findings=FINDINGS)


def test_positives_and_ratios_are_weighted(change: Change):
    """Mass: 6 positives less half a one, negatives 1/4 + 1 + 1. Hernia: 4 x 2, 1 + 1 + 1 + 1/4."""
    expected = {
        "finding": ["Mass", "Hernia"],
        "before": [4, 1],
        "after": [5.5, 8.0],
        "irlbl_before": [1.0, 4.0],
        "irlbl_after": [8 / 5.5, 1.0],
        "imr_before": [4 / 2, 4 / 1],
        "imr_after": [5.5 / 2.25, 8 / 3.25],
    }
    pd.testing.assert_frame_equal(change.counts, pd.DataFrame(expected))


def test_without_weights_every_entry_counts_once():
    plain = replace(by_hand(), weight=np.ones((9, 2), dtype=np.float32))
    counts = describe_change(LABEL, plan=plain, findings=FINDINGS).counts
    assert counts["after"].tolist() == [6, 4]
    assert counts["imr_after"].tolist() == [
        6 / 3,
        4 / 4,
    ]  # negatives: films 4, 5, mixed; 0, 1, 2, 4
    assert counts["irlbl_after"].tolist() == [1, 1.5]


def test_measures_before_and_after(change: Change):
    assert list(change.summary.columns) == ["measure", "before", "after"]
    summary = change.summary.set_index("measure")
    for measure, before, after in (
        ("instances", 6, 9),
        ("labels", 2, 2),
        ("cardinality", 5 / 6, 10 / 9),
        ("labelsets", 3, 4),
        ("max_ir", 4, 1.5),
        ("mean_ir", 2.5, 1.25),
    ):
        assert summary.loc[measure].tolist() == pytest.approx([before, after]), measure


def test_findings_that_share_films(change: Change):
    assert list(change.cooccurrence) == ["before", "after"]
    np.testing.assert_array_equal(change.cooccurrence["before"], [[1, 1 / 4], [1, 1]])
    np.testing.assert_array_equal(change.cooccurrence["after"], [[1, 3 / 6], [3 / 4, 1]])


def test_where_the_entries_of_a_finding_come_from(change: Change):
    columns = ["finding", "originals", "copies", "mixed", "sources", "most"]
    rows = [("Mass", 4, 2, 0, 1, 2), ("Hernia", 1, 2, 1, 1, 3)]
    pd.testing.assert_frame_equal(change.origins, pd.DataFrame(rows, columns=columns))


def test_totals_and_no_finding_before_and_after(change: Change):
    """Film 4 has none; of film 5 that is not stated. After: the mixed film is Hernia alone."""
    expected = {
        "when": ["before", "after"],
        "entries": [6, 9],
        "no_finding": [1, 1],
        "share": [1 / 6, 1 / 9],
        "unstated": [1, 1],
    }
    pd.testing.assert_frame_equal(change.totals, pd.DataFrame(expected))


def test_no_finding_as_an_output_is_what_its_own_label_says():
    label = np.array([[1, 0], [0, 1], [0, 0], [0, np.nan]], dtype=np.float32)
    found = describe_change(label, plan=originals(label), findings=("Mass", NO_FINDING))
    before = found.totals.iloc[0].to_dict()
    assert (before["no_finding"], before["unstated"]) == (1, 1)
    rows = finding_rows(found)
    assert rows["finding"].tolist() == ["Mass", NO_FINDING]
    assert rows["share_before"].fillna(-1).tolist() == [-1, 0.25]
    assert rows["irlbl_before"].tolist() == [1, 1]


def test_no_finding_that_is_no_output_is_a_row_and_in_no_measure(change: Change):
    rows = finding_rows(change)
    assert rows["finding"].tolist() == [*FINDINGS, NO_FINDING]
    last = rows.iloc[-1]
    assert (last["before"], last["after"]) == (1, 1)
    assert (last["share_before"], last["share_after"]) == (1 / 6, 1 / 9)
    assert rows["irlbl_before"].isna().tolist() == [False, False, True]
    assert change.counts["finding"].tolist() == list(FINDINGS)
    assert change.summary.set_index("measure").loc["labels", "before"] == 2


def test_steps_that_belong_to_another_plan_are_refused():
    plan = by_hand()
    steps = followed(LABEL, [Step("by hand", "", plan)], findings=FINDINGS).steps
    about = {"findings": FINDINGS, "steps": steps, "population": "all films"}
    assert describe(LABEL, plan=plan, **about).population == "all films"
    with pytest.raises(ValueError, match=r"totals of the first and last step: found \[6, 9\]"):
        describe(LABEL, plan=plan.take(np.arange(5)), **about)
    with pytest.raises(ValueError, match="totals of the first and last step"):
        describe(LABEL[:5], plan=plan, **about)


def test_copies_of_several_films_are_told_apart():
    plan = joined(originals(LABEL), clones(LABEL, np.array([0, 3, 0, 1, 0])))
    origins = describe_change(LABEL, plan=plan, findings=FINDINGS).origins.set_index("finding")
    assert origins.loc["Mass"].tolist() == [4, 5, 0, 3, 3]
    assert origins.loc["Hernia"].tolist() == [1, 1, 0, 1, 1]


def test_a_plan_without_a_finding_has_no_ratio_for_it_and_no_warning():
    none = originals(LABEL).take(np.array([0, 1, 4]))
    found = describe_change(LABEL, plan=none, findings=FINDINGS)
    counts = found.counts.set_index("finding")
    assert counts.loc["Hernia", "after"] == 0
    assert np.isnan(counts.loc["Hernia", ["irlbl_after", "imr_after"]].tolist()).all()
    assert counts.loc["Mass", "imr_after"] == 2
    assert found.origins["most"].tolist() == [0, 0]
    silent = replace(originals(LABEL), weight=np.zeros(LABEL.shape, dtype=np.float32))
    ratios = describe_change(LABEL, plan=silent, findings=FINDINGS).counts
    assert ratios[["irlbl_after", "imr_after"]].isna().all(axis=None)


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_plan_of_the_films_themselves_changes_nothing(seed: int, films: int):
    drawn = np.random.default_rng(seed).choice([0, 1, np.nan], size=(films, 2), p=[0.6, 0.3, 0.1])
    label = drawn.astype(np.float32)
    found = describe_change(label, plan=originals(label), findings=FINDINGS)
    for name in ("irlbl", "imr"):
        before, after = found.counts[f"{name}_before"], found.counts[f"{name}_after"]
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(found.counts["before"], found.counts["after"])
    np.testing.assert_array_equal(found.summary["before"], found.summary["after"])
    np.testing.assert_array_equal(*found.cooccurrence.values())
    assert not found.origins[["copies", "mixed", "sources", "most"]].any(axis=None)


@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_the_ratios_that_weights_promise_are_the_ratios_described(ratio: float):
    label = (np.random.default_rng(0).random((900, 2)) < (0.1, 0.02)).astype(np.float32)
    even = describe_change(label, plan=positive_weights(label), findings=FINDINGS).counts
    np.testing.assert_allclose(even["imr_after"], 1, rtol=1e-5)
    assert (even["imr_before"] > 5).all()
    plan = partial(label, ratio=ratio, positive_weight=2.0, seed=0)
    asked = describe_change(label, plan=plan, findings=FINDINGS).counts
    np.testing.assert_allclose(asked["imr_after"], ratio, rtol=0.03)
    np.testing.assert_allclose(asked["after"], 2 * asked["before"])
