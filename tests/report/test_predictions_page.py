"""The page of external predictions has the sections of a report on them, and none of a run."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from invented import NETWORKS, Page, an_experiment

from lucency.audit.checks.issue import Issue, issue_table
from lucency.core.manifest import FINDINGS
from lucency.evaluation.evaluate import MACRO, MICRO, PER_FILM_ROW, TRIVIAL
from lucency.report.metric_figures import choose_findings
from lucency.report.predictions_page import PredictionsPage, page_values
from lucency.report.rendering import decimal, render
from lucency.report.run_page import Experiment

DASH = "\N{EN DASH}"
SHARED = ("comparison", "findings", "curves", "calibration", "subgroups")
OWN = ("checks", *SHARED, "glossary", "versions")


def a_page(experiment: Experiment) -> PredictionsPage:
    """Return the part of an experiment that a page of predictions shows."""
    return PredictionsPage(
        title="alexnet against the world",
        data_set="50 films of 25 patients, labelled by Data_Entry.csv",
        predictions=[one.of("test") for one in experiment.predictions],
        threshold_origin="fitted on validation films (largest F1)",
        issues=experiment.issues,
        checks=experiment.checks,
        evaluation=experiment.evaluation,
    )


def alone(experiment: Experiment) -> PredictionsPage:
    """One network without a rank, a pair, a trivial predictor or an issue."""
    page = a_page(experiment)
    tables = {name: getattr(page.evaluation, name) for name in ("metrics", "confusion")}
    plain = {name: table.loc[table["network"] != TRIVIAL] for name, table in tables.items()}
    page = with_tables(page, **plain, comparison=pd.DataFrame(), ranking=pd.DataFrame())
    return replace(page, issues=issue_table([]))


def with_tables(page: PredictionsPage, **tables: pd.DataFrame) -> PredictionsPage:
    return replace(page, evaluation=replace(page.evaluation, **tables))


@pytest.fixture(scope="module")
def shown(experiment: Experiment) -> str:
    return page_of(a_page(experiment))


@pytest.fixture(scope="module")
def single() -> PredictionsPage:
    return alone(an_experiment(findings=FINDINGS[:1], networks=NETWORKS[:1]))


@pytest.fixture(scope="module")
def lonely(single: PredictionsPage) -> str:
    return page_of(single)


def page_of(page: PredictionsPage) -> str:
    return render("predictions.html.jinja", **page_values(page))


def section(text: str, name: str) -> str:
    return text[text.index(f'<section id="{name}">') :].partition("</section>")[0]


def outside_a_scroll(text: str) -> int:
    """Return how many tables and figures would push a narrow page aside."""
    kept = len(re.findall(r'<div class="scroll"[^>]*>\s*<(?:table|svg)\b', text))
    return len(re.findall(r"<(?:table|svg)\b", text)) - kept


def test_it_shows_what_the_report_shows_of_the_same_tables(shown: str, text: str) -> None:
    assert all(section(shown, name) == section(text, name) for name in SHARED)
    assert len({section(shown, name) for name in SHARED}) == len(SHARED)


def test_it_has_its_own_sections_and_none_of_a_run(shown: str) -> None:
    assert re.findall('<section id="([^"]*)">', shown) == list(OWN)
    assert [href[1:] for href in re.findall(r'<li><a href="([^"]*)"', shown)] == list(OWN)
    words = " ".join(Page(shown).words)
    for absent in ("Epochs", "augment", "CLAHE", "IRLbl", "protocol"):
        assert absent not in words
    assert "25 patients, labelled by Data_Entry.csv. Predictions of 3 findings." in words


@pytest.mark.parametrize("name", ["shown", "lonely"])
def test_it_is_one_file_whose_tables_scroll_inside_themselves(
    name: str, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(name)
    assert outside_a_scroll(page) == 0
    assert outside_a_scroll(page + "<table></table>") == 1
    assert not re.search(r"<script|@import|<img|https?://(?!www\.w3\.org)", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


def test_one_network_is_not_ranked_or_compared(lonely: str) -> None:
    words = " ".join(Page(lonely.partition("</style>")[2]).words)
    for absent in ("Rank", "p (Holm)", "Tied", "highest", "trivial", "Trivial", "Broad line"):
        assert absent not in words
    assert "Paired differences: none, there is one network." in words
    assert "Checks made: 17. Issues found: none." in words
    assert "Predictions of 1 finding." in words
    assert 'class="serious"' not in lonely


def test_networks_keep_their_order_where_none_is_ranked(shown: str, experiment: Experiment) -> None:
    page = a_page(experiment)
    assert with_tables(page, ranking=pd.DataFrame()).order == list(NETWORKS)
    assert page.order == list(NETWORKS)[::-1]
    rows = Page(shown).tables[0]
    assert [row[0].removesuffix("highest") for row in rows[2:3]] == page.order[:1]
    assert [row[0] for row in rows[5:7]] == [page.order[3], TRIVIAL]


def test_what_is_not_computable_or_not_known_says_why(single: PredictionsPage) -> None:
    found = single.evaluation
    brier = found.brier.assign(brier=float("nan"), note="not computable: 0 films with a label")
    thresholds = found.thresholds.assign(note="0 positives in validation")
    none = found.subgroups.iloc[:0]
    page = page_of(with_tables(single, brier=brier, thresholds=thresholds, subgroups=none))
    reason = f'<td class="number" title="not computable: 0 films with a label">{DASH}</td>'
    assert section(page, "calibration").count(reason) == 2
    assert '<td class="number" title="0 positives in validation">0.300</td>' in page
    assert "Subgroups: none" in section(page, "subgroups")
    assert "<table" not in section(page, "subgroups")


def test_a_mean_over_fewer_findings_says_so_wherever_it_stands(single: PredictionsPage) -> None:
    metrics = single.evaluation.metrics
    macro = (metrics["finding"] == MACRO) & (metrics["metric"] == "auc")
    note = "mean over 6 of 14 findings, without Hernia and 7 more"
    page = page_of(
        with_tables(single, metrics=metrics.assign(note=metrics["note"].mask(macro, note)))
    )
    cell = f'<td class="number" title="{note}">{decimal(metrics.loc[macro, "value"].iloc[0])}'
    found = page[page.index(cell) :].partition("</td>")[0]
    assert found.endswith("<small>over 6 of 14</small>")
    assert page.count("over 6 of 14</small>") == 1
    predictions = single.predictions[0]
    gone = replace(predictions, label=np.zeros_like(predictions.label))
    values = page_values(replace(single, predictions=[gone]))
    assert values["macro_over"] == "mean over 0 of 1 findings"
    captions = section(page, "findings"), section(page, "curves")
    assert "Macro: mean over 1 of 1 findings." in captions[0]
    assert "Mean over 1 of 1 findings. Left: ROC" in captions[1]


def test_no_interval_is_printed_that_has_no_width(single: PredictionsPage) -> None:
    metrics = single.evaluation.metrics.assign(note="")
    flat = metrics.assign(low=metrics["value"], high=metrics["value"])
    none = metrics.assign(low=float("nan"), high=float("nan"))
    for table in (flat, none):
        page = section(page_of(with_tables(single, metrics=table)), "comparison")
        assert f"{DASH}0" not in page
        known = table.loc[table["finding"].isin([MACRO, MICRO, PER_FILM_ROW]), "value"].notna()
        assert page.count("<small>no interval</small>") == known.sum()


def test_hostile_words_are_shown_not_run(single: PredictionsPage) -> None:
    hostile = "<script>alert(1)</script>"
    issue = Issue(
        severity="note", check="x", message=hostile, count=1, examples=(hostile,), remedy=hostile
    )
    groups = single.evaluation.subgroups.assign(group=hostile)
    evaluation = replace(single.evaluation, conclusion=hostile, subgroups=groups)
    words = dict.fromkeys(("title", "data_set", "threshold_origin"), hostile)
    page = page_of(replace(single, **words, evaluation=evaluation, issues=issue_table([issue])))
    assert not any(tag == "script" for tag, _ in Page(page).tags)
    assert page.count("&lt;script&gt;") > 8


def test_a_wide_table_folds_what_is_not_drawn(lonely: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = alone(an_experiment(findings=FINDINGS[:6], networks=NETWORKS[:1]))
    figures = ("auc", "macro", "roc", "precision", "pooled", "reliability")
    asked: dict[str, list[str]] = {}
    some = partial(choose_findings, most=4)
    monkeypatch.setattr("lucency.report.predictions_page.choose_findings", some)

    def draw(*_: object, findings: list[str], **__: object) -> dict[str, str]:
        asked["drawn"] = findings
        return {f"{name}_figure": "" for name in figures}

    monkeypatch.setattr("lucency.report.predictions_page.draw_evaluation", draw)
    text = section(page_of(page), "findings")
    folded = [name for name in FINDINGS[:6] if name not in asked["drawn"]]
    assert len(folded) == 2
    assert "Findings: 6. Figures draw 4:" in text
    assert text.count("<summary>Other findings: 2</summary>") == 4  # AUC, metrics twice, confusion
    open_, _, rest = text[text.index("AUC by finding, table") :].partition("Other findings: 2")
    assert not [name for name in folded if name in open_]
    assert not [name for name in folded if name not in rest.partition("</details>")[0]]
    assert "Other findings" not in lonely


def test_the_same_predictions_give_the_same_bytes(single: PredictionsPage, lonely: str) -> None:
    assert page_of(single) == lonely


def test_tables_of_other_networks_are_refused(experiment: Experiment) -> None:
    page = a_page(experiment)
    for name in ("metrics", "ranking", "thresholds", "reliability", "brier"):
        table = getattr(page.evaluation, name)
        fewer = table.loc[table["network"] == "alexnet"]
        with pytest.raises(ValueError, match=rf"{name}: found alexnet; expected alexnet, dense"):
            with_tables(page, **{name: fewer})
