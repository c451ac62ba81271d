"""The report's part on films unlike the training films: every number of the tables is shown."""

import numpy as np
import pandas as pd

from lucency.evaluation.unfamiliar_results import ANSWERED, UnfamiliarResults
from lucency.evaluation.unfamiliarity import SCORES
from lucency.report.rendering import DASH, render_chapter
from lucency.report.unfamiliar_section import NAMES, unfamiliar_values

ABOUT = {
    "network": "net", "score": "mahalanobis", "promised": 0.05, "training": 1234,
    "validation": 250, "patients": 61, "neighbours": 7, "low": 0.011, "high": 0.123,
    "findings": ["Mass"], "note": "",
}  # fmt: skip


def _results(**about) -> UnfamiliarResults:
    ends = {"low": 0.512, "high": 0.998}
    aliens = [{"kind": "<hand>", "score": one, "films": 9, "auc": 0.871, **ends} for one in SCORES]
    counts = {"films": 321, "patients": 77, "refused": 12}
    refused = {"kind": "test films", **counts, "share": 0.0413, "low": 0.0202, "high": 0.0789}
    curve = [
        {"score": one, "answered": share, "films": 9, "auc": share, "brier": 1 - share}
        for one in SCORES
        for share in ANSWERED
    ]
    return UnfamiliarResults(
        aliens=pd.DataFrame(aliens),
        refused=pd.DataFrame([refused]),
        abstention=pd.DataFrame(curve),
        about={**ABOUT, **about},
        conclusion="net refuses few.",
    )


def _page(results: UnfamiliarResults) -> str:
    return render_chapter(
        "abstain.html.jinja", {}, {"unfamiliar": unfamiliar_values(results), "coverage": {}}
    )


def test_every_score_has_a_name():
    assert NAMES.keys() == SCORES.keys()


def test_the_part_shows_promise_shares_areas_and_curves():
    text = _page(_results())
    for shown in (
        "When not to answer", "net refuses few.", "1,234 training films", "61 patients",
        "&lt;hand&gt;",
        "5.0 %", "1.1 % to 12.3 %", "4.1 %", f"2.0{DASH}7.9", "0.871", f"0.512{DASH}0.998",
        *NAMES.values(),
    ):  # fmt: skip
        assert shown in text
    assert text.count("<svg") == 1


def test_without_findings_there_is_no_curve_and_without_results_nothing():
    results = _results(findings=[])
    results.abstention[["auc", "brier"]] = np.nan
    text = _page(results)
    assert "<svg" not in text
    assert "no finding has enough test films" in text
    assert unfamiliar_values(UnfamiliarResults()) == {}
