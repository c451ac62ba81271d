"""Coverage of sets and findings missed, on test films: by hand, by views, and their intervals."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lucency.config.sections import External
from lucency.core.predictions import Predictions
from lucency.core.tables import save_tables
from lucency.evaluation.bootstrap import MACRO
from lucency.evaluation.conformal import ConformalSets
from lucency.evaluation.set_coverage import (
    COVERAGE,
    MISSED,
    OWN,
    SetCoverage,
    UnseenFilms,
    load_coverage,
    measure_sets,
)
from lucency.report.coverage_section import coverage_values

DRAWS = {"resamples": 100, "seed": 1}
SETS = ConformalSets(
    error=0.2,
    present_from=np.array([0.4, 0.0]),
    absent_to=np.array([0.6, 0.7]),
    note=("", "always holds present: 1 patient with it, expected 4 or more"),
    missed=0.1,
    cutoff=0.3,
    cutoff_note="",
)


def predicted(label, probability, patient):
    logit = np.log(np.array(probability) / (1 - np.array(probability)))
    films = len(label)
    return Predictions(
        network="net",
        split="0123",
        findings=("Mass", "Hernia"),
        image=np.arange(films).astype(str),
        patient=np.asarray(patient, dtype=np.int64),
        part=np.full(films, "test"),
        label=np.array(label, dtype=np.float32),
        logit=logit,
        feature=np.empty((films, 0), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def found() -> SetCoverage:
    nan = np.nan
    films = predicted(
        [[1, 0], [1, 0], [0, 1], [0, nan], [1, 0]],
        [[0.9, 0.8], [0.2, 0.1], [0.5, 0.2], [0.8, 0.5], [0.35, 0.6]],
        [1, 1, 1, 2, 3],
    )
    view = pd.Series(["PA", "PA", "AP", "AP", "PA"])
    return measure_sets([(SETS, [UnseenFilms(OWN, films, view)])], best="net", **DRAWS)


def _row(table, **where):
    rows = table
    for column, value in where.items():
        rows = rows.loc[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_each_patient_counts_once(found: SetCoverage):
    about = {"films": OWN, "group": "all"}
    # With a mass: patient 1's two films, one covered; patient 3's, not. Without: 1 yes, 2 no.
    with_it = _row(found.coverage, finding="Mass", label="present", **about)
    assert with_it[["coverage", "count", "patients"]].tolist() == [0.25, 3, 2]
    without = _row(found.coverage, finding="Mass", label="absent", **about)
    assert without["coverage"] == 0.5
    both = _row(found.coverage, finding="Mass", label="both", **about)
    assert both["coverage"] == pytest.approx(0.375)
    # With a hernia: patient 1's one film, covered. Without: patient 1's 1 of 2, patient 3's.
    mean = _row(found.coverage, finding=MACRO, label="both", **about)
    assert mean["coverage"] == pytest.approx((0.25 + 0.5 + 1 + 0.75) / 4)
    assert (found.coverage["promised"] == 0.8).all()


def test_sets_that_decide_are_counted(found: SetCoverage):
    # Of films with a mass: present and absent alone (patient 1), absent alone (patient 3).
    row = _row(found.coverage, finding="Mass", label="present", group="all")
    assert row["decided"] == 1
    # .5 holds both, .8 present alone.
    assert _row(found.coverage, finding="Mass", label="absent", group="all")["decided"] == 0.5


def test_missed_are_shares_of_a_film_s_findings(found: SetCoverage):
    row = _row(found.missed, group="all")
    # Patient 1: film 2 misses its mass, film 3 its hernia, film 1 nothing; patient 3 nothing.
    assert row["missed"] == pytest.approx((2 / 3 + 0) / 2)
    assert row[["count", "patients", "cutoff", "promised"]].tolist() == [4, 2, 0.3, 0.1]
    # Findings above the cutoff: 2, 0 and 1 of patient 1, 2 of 2, 2 of 3.
    assert row["possible"] == pytest.approx((1 + 2 + 2) / 3)


def test_groups_are_the_views(found: SetCoverage):
    assert found.missed["group"].tolist() == ["all", "AP", "PA"]
    pa = _row(found.coverage, finding="Mass", label="present", group="PA")
    assert pa["coverage"] == 0.25
    ap = _row(found.coverage, finding="Mass", label="present", group="AP")
    assert np.isnan(ap["coverage"])
    assert ap["count"] == 0


def test_notes_say_what_lacks(found: SetCoverage):
    row = _row(found.coverage, finding="Hernia", label="present", group="all")
    assert row["note"] == f"{SETS.note[1]}; no interval: 1 patient, expected 3 or more"
    lacking = _row(found.coverage, finding="Mass", label="both", group="AP")
    assert lacking["note"].startswith("mean of 1 of 2")


def test_intervals_hold_the_truth_as_often_as_stated():
    generator, inside = np.random.default_rng(3), 0
    for seed in range(100):
        patient = np.repeat(np.arange(60), generator.integers(1, 5, 60))
        covers = generator.beta(4, 1, 60)[patient] > generator.random(len(patient))
        probability = np.where(covers, 0.9, 0.1)
        films = predicted(
            np.ones((len(patient), 2)), np.column_stack([probability, probability]), patient
        )
        draws = {"resamples": 200, "seed": seed}
        table = measure_sets([(SETS, [UnseenFilms(OWN, films, None)])], best="net", **draws)
        row = _row(table.coverage, finding="Mass", label="present", group="all")
        inside += row["low"] <= 0.8 <= row["high"]
    assert inside >= 90


def test_tables_are_read_back_and_conclude(found: SetCoverage, tmp_path):
    save_tables(found, tmp_path)
    again = load_coverage(tmp_path)
    assert tuple(again.coverage) == COVERAGE
    assert tuple(again.missed) == MISSED
    assert again.conclusion == found.conclusion
    assert found.conclusion == (
        "Sets of net hold the truth for 0.625 of the test films, mean over findings and "
        "labels; promised: 0.80 or more. Of the findings of a film 0.333 are missed at the "
        "cutoff; promised: 0.10 at most."
    )
    assert measure_sets([], best="net", **DRAWS).conclusion == ""


def test_other_films_are_named_where_coverage_is_below_the_level():
    patient, generator = np.arange(60), np.random.default_rng(1)
    label = generator.integers(0, 2, (60, 2))
    right = predicted(label, 0.1 + 0.8 * label, patient)
    way = np.where(patient < 6, 1, -1)[:, None]  # six films are as they were
    turned = predicted(label, 0.5 + 0.4 * way * (2 * label - 1), patient)
    tested = [UnseenFilms(name, one, None) for name, one in ((OWN, right), ("away", turned))]
    found = measure_sets([(SETS, tested)], best="net", **DRAWS)
    assert "hold the truth for 1.000 of the test films" in found.conclusion
    away = found.conclusion.partition(" away: ")[2]
    assert away.startswith("0.3")
    assert away.endswith("nothing is promised there, and coverage is below the level.")


def test_an_external_test_may_be_called_test():
    films = predicted([[1, 0], [0, 1]], [[0.9, 0.2], [0.2, 0.9]], [1, 2])
    tested = [UnseenFilms(name, films, None) for name in (OWN, "test")]
    found = measure_sets([(SETS, tested)], best="net", **DRAWS)
    assert found.missed["films"].tolist() == [OWN, "test"]
    assert found.conclusion.count("1.000") == 2
    assert not re.match(External.model_fields["name"].metadata[0].pattern, OWN)


def test_what_is_not_known_is_no_number():
    nan = np.nan
    some, healthy, bare = (
        predicted(label, [[0.9, 0.2], [0.2, 0.9]], [1, 2])
        for label in ([[1, 0], [0, 1]], [[0, 0], [0, 0]], [[nan, nan], [nan, nan]])
    )
    for own in (healthy, bare):
        tested = [(OWN, own), ("a", some), ("b", healthy), ("c", bare)]
        several = [UnseenFilms(name, one, None) for name, one in tested]
        found = measure_sets([(SETS, several)], best="net", **DRAWS)
        assert "nan" not in found.conclusion
        assert (
            "How many findings are missed is not known: no test film has one." in found.conclusion
        )
        assert "and no film has a finding; nothing is promised there." in found.conclusion
        assert found.conclusion.endswith("c: coverage is not known, no film has a label.")
    assert "Of the sets of net no coverage is known: no test film has a label." in found.conclusion


def test_each_label_has_its_own_note():
    few = [
        f"always holds {label}: 6 patients, expected 9 or more" for label in ("present", "absent")
    ]
    sets = replace(SETS, note=("; ".join(few), few[1]))
    films = predicted([[1, 0], [0, 1]], [[0.9, 0.2], [0.2, 0.9]], [1, 2])
    found = measure_sets([(sets, [UnseenFilms(OWN, films, None)])], best="net", **DRAWS)
    assert coverage_values(found, best="net")["networks"][0]["notes"] == [
        f"Mass {few[1]}", f"Mass {few[0]}", f"Hernia {few[1]}",
    ]  # fmt: skip
