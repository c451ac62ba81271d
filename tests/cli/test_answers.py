"""Answers in words: what is not computable, over what a mean is, and why there is no interval."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.cli.answers import evaluation_in_words, external_in_words, plain, short_table
from lucency.cli.output import find_issues
from lucency.core.manifest import FINDINGS
from lucency.core.predictions import Predictions
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.summary import macro_over
from lucency.pipeline.table_evaluation import compared, metrics_by_finding

DRAWS = {"resamples": 20, "seed": 0}


def _predictions(patients: int, *, findings: tuple[str, ...] = FINDINGS[:4]) -> Predictions:
    """Invent a network's predictions of two films a patient; the last finding has no positives."""
    random, shape = np.random.default_rng(0), (2 * patients, len(findings))
    label = (random.random(shape) < 0.5).astype(np.float32)
    label[:2], label[:, -1] = [[1], [0]], 0
    return Predictions(
        network="net",
        split="abc",
        findings=findings,
        image=np.arange(len(label)).astype(str),
        patient=np.arange(len(label)) // 2,
        part=np.full(len(label), "test"),
        label=label,
        logit=(label + random.normal(size=shape)).astype(np.float32),
        feature=np.empty((len(label), 0), np.float32),
    )


def _words(films: Predictions) -> str:
    threshold = np.full(len(films.findings), 0.5)
    answer = metrics_by_finding(evaluate(films, threshold=threshold, **DRAWS))
    return evaluation_in_words(plain(answer))


def test_a_macro_value_says_which_findings_it_lacks():
    words = _words(_predictions(20)).splitlines()[0]
    assert "mean over 3 of 4 findings, without " + FINDINGS[3] in words
    many = tuple(f"finding {place}" for place in range(20))
    films = _predictions(20, findings=many)
    films.label[:, 4:] = 0
    words = _words(films).splitlines()[0]
    assert (
        "mean over 4 of 20 findings, without finding 4, finding 5, finding 6 and 13 more" in words
    )
    assert macro_over(films.label, many) in words


def test_of_one_patient_there_is_no_interval_and_the_reason_is_given():
    words = _words(_predictions(1))
    assert "(" not in words.splitlines()[1:][0] + words.splitlines()[4]
    last = words.splitlines()[-2]
    assert "numbers without interval: fewer than 3 patients with positives" in last
    assert "1 patient, expected 3 or more" in last
    assert (
        "without interval" not in _words(_predictions(200, findings=FINDINGS[:1])).split("macro")[0]
    )


def test_json_has_the_note_of_every_number_and_no_interval_without_width():
    rows = [
        ("net", "Mass", "auc", 0.5, 0.5, 0.5, 9, 3, 2, "x"),
        ("net", "macro", "auc", 0.5, 0.4, 0.6, 9, 3, 2, "y"),
    ]
    names = [
        "network",
        "finding",
        "metric",
        "value",
        "low",
        "high",
        "films",
        "positives",
        "patients",
        "note",
    ]
    answer = plain(metrics_by_finding(pd.DataFrame(rows, columns=names)))
    assert answer["Mass"]["auc"] == {"value": 0.5, "low": None, "high": None, "note": "x"}
    assert answer["macro"]["auc"] == {"value": 0.5, "low": 0.4, "high": 0.6, "note": "y"}
    pair = [
        ("a", "b", "macro", 0.0, 0.0, 0.0, 1.0, "same"),
        ("a", "b", "over findings", 0, 0, 0, 1.0, ""),
    ]
    names = ["network", "other", "finding", "difference", "low", "high", "p_holm", "note"]
    ranking = pd.DataFrame(
        [("a", 1, 0.7, 0.7, 0.7, True, "over 2 of 3")],
        columns=["network", "rank", "value", "low", "high", "tied_with_best", "note"],
    )
    found = plain(compared(ranking, pd.DataFrame(pair, columns=names)))
    assert found["pairs"]["a - b"]["low"] is None
    assert found["ranking"]["a"] == {
        "rank": 1,
        "macro_auc": 0.7,
        "low": None,
        "high": None,
        "tied_with_best": True,
        "note": "over 2 of 3",
    }


def test_a_table_s_interval_without_width_is_none():
    table = pd.DataFrame({"name": ["a", "b", "c"], "auc": [0.5, 0.75, np.nan]})
    table = table.assign(auc_low=[0.5, 0.5, np.nan], auc_high=[0.5, 1.0, np.nan])
    assert short_table(table).split() == [
        "name",
        "auc",
        "a",
        ".500",
        "b",
        ".750",
        "(.500-1.000)",
        "c",
        "-",
    ]


def test_a_table_without_rows_is_none():
    assert short_table(pd.DataFrame({"image": [], "oddity": []})) == "none"


@pytest.mark.parametrize("what", ["runs/nope", "scores.csv", "runs/nope/predictions.npz"])
def test_what_is_to_be_checked_and_is_not_there_is_named(tmp_path: Path, what: str):
    with pytest.raises(ValueError, match="no such file or folder; expected a protocol"):
        find_issues(tmp_path / what, lists={}, labels=None, scale="probability", changes=None)


def test_an_external_test_has_whole_films_and_says_which_slope_is_not_estimated():
    row = {"network": "net", "finding": "macro", "films": 24, "brier": 0.25, "brier_low": 0.2}
    row |= {"brier_high": 0.3, "ece": 0.1, "ece_by_chance": 0.05, "gap": 0.0, "note": ""}
    table = pd.DataFrame([{**row, "state": "as it is", "slope": 0.875},
                          {**row, "state": "recalibrated", "slope": np.nan}])  # fmt: skip
    counts = dict.fromkeys(("films", "patients", "apart_films", "apart_patients"), 24)
    score = {"metric": "auc", "finding": "macro", "network": "net", "internal": 0.5}
    answer = {"origin": "a table", **counts, "findings": [], "distance": "", "conclusion": "",
              "scores": pd.DataFrame([score]), "calibration": table, "tables": "t"}  # fmt: skip
    lines = external_in_words(plain(answer)).splitlines()
    shown = [line.split() for line in lines if "as it is" in line or "recalibrated" in line]
    assert [line[-1] for line in shown] == [".875", "estimated"]
    assert all("24" in line and "24.000" not in line for line in shown)
