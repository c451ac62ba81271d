"""The report of a run shows the numbers of its tables, all of them, and needs no other file."""

import html
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from invented import (
    ISSUE,
    NETWORKS,
    SIZE,
    Page,
    an_experiment,
    an_external_test,
    chapter,
    small_experiment,
    some_heatmaps,
    written,
)

from lucency.audit.agreement import RELIABLE, UNCONFIRMED, UNRELIABLE, conclude_label_quality
from lucency.core.manifest import FINDINGS, NO_FINDING, Preparation, empty_boxes
from lucency.data.image_measures import MEASURES
from lucency.ensemble.ensembles import EnsembleResults
from lucency.ensemble.retrieval_metrics import OVERALL, conclude_recognition
from lucency.evaluation.compare import conclude_leaderboard
from lucency.evaluation.conformal import fit_sets
from lucency.evaluation.metrics import METRICS, PER_FILM
from lucency.evaluation.preparation_grid import (
    PreparationStudy,
    average_measures,
    compare_cells,
    make_grid,
)
from lucency.evaluation.set_coverage import OWN, UnseenFilms, measure_sets
from lucency.evaluation.subgroups import worst_group
from lucency.explain.baselines import conclude_heatmaps
from lucency.explain.heatmap_results import no_scores
from lucency.explain.heatmaps import even_centres
from lucency.report import film_figures
from lucency.report.film_figures import show_preparation
from lucency.report.predictions_page import CHOSEN
from lucency.report.rendering import decimal, p_value, whole
from lucency.report.run_page import CHAPTERS, Experiment, Gallery, objections

SECTIONS = (
    "checks", "comparison", "findings", "curves", "calibration", "subgroups", "ensembles",
    "heatmaps", "audit", "training", "balance", "preparation", "augmentation", "samples", "parts",
    "protocol", "glossary", "versions",
)  # fmt: skip
DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
HOSTILE = "<script>alert('$x_{')</script>"
STUDIED = "CLAHE: no significant effect."


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with other preprocessing, its study, an AUC that is NaN, three films left out."""
    chosen = {"brightness": 5, "interpolation": "bicubic", "denoise": "median", "size": SIZE}
    small = small_experiment(preparation=chosen)
    metrics = small.evaluation.metrics.copy()
    lost = (metrics["finding"] == FINDINGS[1]) & (metrics["metric"] == "auc")
    metrics.loc[lost, ["value", "low", "high"]] = np.nan
    metrics.loc[lost, "note"] = "not computable: 0 positives"
    several = [
        replace(one, label=one.label * np.array([1, 0], np.float32)) for one in small.predictions
    ]
    less = replace(
        small,
        plan=small.plan.take(np.flatnonzero(~np.isin(small.plan.row, (100, 101, 102)))),
        evaluation=replace(small.evaluation, metrics=metrics),
        predictions=several,
        ensembles=EnsembleResults(),
        preparations=a_preparation_study(small),
    )
    return written(less, tmp_path_factory.mktemp("sparse"))


def a_preparation_study(experiment: Experiment) -> PreparationStudy:
    """Compare one preparation with those that every study has."""
    grid = make_grid(Preparation(), clips=(3.0,), tiles=(8,), orders=("clahe-first",))
    draws = {"resamples": 5, "seed": 0}
    scored = {name: [experiment.predictions[0].of("test")] for name in grid}
    cells, summary = compare_cells(scored, grid=grid, **draws)
    films = pd.DataFrame({name: np.arange(9.0) for name in MEASURES})
    measures = average_measures(dict.fromkeys(grid, films), patient=np.arange(9), **draws)
    return PreparationStudy(
        cells=cells, summary=summary, measures=measures, about={}, conclusion=STUDIED
    )


def test_every_section_is_there_and_reachable(text: str) -> None:
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    links = [a["href"] for tag, a in page.tags if tag == "a" and a.get("href")]
    assert {f"#{name}" for name in SECTIONS} <= set(links)
    assert len(set(ids)) == len(ids), "figures share ids"
    assert "For research only, not a medical device." in text


def test_examples_of_heat_maps_are_short_pictures_of_few_findings(
    experiment: Experiment, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text.count('src="data:image/webp;base64,') == 1
    assert "Findings shown:" not in text
    heatmaps = experiment.heatmaps
    assert heatmaps is not None
    monkeypatch.setattr("lucency.report.run_page.EXPLAINED", 0)
    monkeypatch.setattr("lucency.report.run_page.render_chapter", lambda *values: values[-1])
    chapter = CHAPTERS["heatmaps"](experiment, {})["heatmaps"]
    assert (chapter["galleries"], chapter["explained"]) == ([], 1)


def test_heat_maps_are_compared_with_baselines(experiment: Experiment, text: str) -> None:
    results = experiment.heatmaps
    tables = {table[0][0]: table for table in Page(text).tables}
    pointing = next(t for t in Page(text).tables if t[0][:2] == ["Map", "Pointing game"])
    named = [row[0] for row in pointing[1:]]
    baselines = ["random", "centre", "mean box", "box density"]
    assert named == [
        "grad-cam",
        "grad-cam, stretched",
        "grad-cam, head randomised",
        *baselines,
    ]
    macro = results.scores.pointing.set_index(["method", "finding", "measure"])["value"]
    assert pointing[1][1].startswith(f"{macro['grad-cam', 'macro', 'pointing game']:.3f}")
    assert "Finding" in tables  # Wang's table, among others
    assert "cam: not defined for it." in text
    assert "Grids: grad-cam 3 x 3." in text
    trial = next(t for t in Page(text).tables if t[0][:2] == ["Map", "Films"])
    assert trial[0][4] == "Sanity check (bound 0.5)"
    assert trial[1][4] == "passes"
    assert trial[1][5:10:2] == ["0.250", "0.750", "0.875no interval"]


def test_a_method_with_a_grid_of_one_cell_is_named_and_the_others_are_shown(
    experiment: Experiment, text: str
) -> None:
    pictures = re.findall(r'class="wide-picture" src="([^"]*)"', text)
    results = experiment.heatmaps
    point = replace(
        results.maps[0],
        method="cam",
        grid=results.maps[0].grid[:, :, :1, :1],
        centres=even_centres((1, 1)),
    )
    both = replace(results, maps=(point, *results.maps))
    text = chapter("heatmaps", replace(experiment, heatmaps=both))
    assert "Grids: cam 1 x 1, grad-cam 3 x 3." in text
    assert "Mean heat maps of grad-cam" in text
    assert re.findall(r'class="wide-picture" src="([^"]*)"', text) == pictures
    assert len(pictures) == 1


def test_label_quality_has_a_conclusion_and_a_reason_for_each_finding(
    experiment: Experiment, text: str
) -> None:
    first = experiment.audit.label_quality["finding"].iloc[0]
    quality = conclude_label_quality(experiment.audit.label_quality)
    assert f"{quality} Shortcuts of" in text
    tables = Page(text).tables
    label_quality = next(t for t in tables if t[0][:2] == ["Finding", "Rating"])
    assert label_quality[1][:2] == [first, "doubtful"]
    assert label_quality[1][-1].endswith("; shortcut: view")
    assert f"{UNRELIABLE}, where the interval ends" in text
    assert f"{UNCONFIRMED}, where it does, but the experts" in text
    assert f"else {RELIABLE}." in text
    shortcuts = next(t for t in tables if t[0][:2] == ["Finding", "Fact"])
    assert shortcuts[1][-1] == "yes"
    assert "Ground truth: the findings drawn on the phantoms" in text
    image = next(t for t in tables if t[0][0] == "Problem")
    assert image[-1] == ["any", "0", "0", "0.0 %"]


def test_three_objections_are_answered_with_the_run_s_numbers(
    experiment: Experiment, text: str
) -> None:
    words = "".join(Page(text).words)
    first, second = FINDINGS[:2]
    assert (
        "Findings by label quality: reliable 2, doubtful 1, unconfirmed 0, unreliable 0, of 3."
        in words
    )
    assert "PPV of the labels: 0.875." in words
    assert "Agreement of experts: kappa below 0.4 for 0 of 3 findings." in words
    audit = experiment.audit
    assert f"Shortcuts of {audit.network}: {first} (view)." in words
    assert f"Lowest AUC of a stratum: 0.500 ({first}, 20 films)" in words
    kappa = [0.1, 0.2, 0.6]
    worse = replace(
        audit,
        label_quality=audit.label_quality.assign(kappa=kappa, ppv=[0.1, 0.9, 0.9]),
        shortcuts=audit.shortcuts.assign(shortcut=False),
        strata=audit.strata.iloc[:0],
    )
    answers = list(objections(worse).values())
    assert answers[0].endswith(f"PPV of the labels: 0.100 ({first}) to 0.900 ({second}).")
    assert f"for 2 of 3 findings: {first}, {second}." in answers[1]
    assert answers[1].endswith("none among the known facts.")
    assert answers[2].startswith("Hidden strata: none found")
    unread = replace(audit, label_quality=audit.label_quality.assign(ppv=np.nan, kappa=np.nan))
    answers = list(objections(unread).values())
    assert answers[0] == "Unknown: no expert has read these films."
    assert answers[1].startswith("Agreement of experts: unknown.")


def test_balance_says_of_whom_its_counts_are_and_what_no_finding_is(
    experiment: Experiment, text: str
) -> None:
    none = int((experiment.manifest.label[:140] == 0).all(axis=1).sum())
    page = Page(text)
    words = " ".join("".join(page.words).split())
    share = f"({100 * none / 140:.1f} %) without a finding."
    assert f"Counted: the training part. Before balancing: 140 films, {none} {share}" in words
    assert "After: 170 entries" in words
    table = next(one for one in page.tables if one[0][:2] == ["Finding", "Positives before"])
    assert [row[0] for row in table[1:]] == [*experiment.manifest.findings, NO_FINDING]
    assert table[-1][1] == f"{none}{100 * none / 140:.1f} %"
    assert table[-1][3:] == [DASH] * 4
    assert "170 (+30)" in page.words


def test_the_head_names_brightness_interpolation_and_filters(text: str, sparse: str) -> None:
    chosen, plain = (" ".join("".join(Page(page).words).split()) for page in (sparse, text))
    side = f"{SIZE} {TIMES} {SIZE} px"
    assert f"then resizing to {side} (bicubic interpolation). Brightness: +5 of 255" in chosen
    assert "of 255 grey levels. Denoising: median. Split by patient: training 137 films" in chosen
    assert "test 50 films of 25 patients. Left out by balancing: 3 films." in chosen
    assert "Left out by balancing" not in plain
    assert f"then resizing to {side} (averaging areas). Split by patient" in plain


def test_each_step_of_augmentation_is_shown_alone_with_its_probability(
    experiment: Experiment, text: str
) -> None:
    assert "<h3>Single steps</h3>" in text
    assert "Flip, probability 0.5 (reference)" in text
    assert len(experiment.gallery.alone) == 2


def test_all_predictors_are_in_one_leaderboard(experiment: Experiment, text: str) -> None:
    tables = Page(text).tables
    leaderboard = next(t for t in tables if t[0][:3] == ["Place", "Predictor", "Kind"])
    assert [row[1] for row in leaderboard[1:]] == experiment.ensembles.leaderboard[
        "network"
    ].tolist()
    table = experiment.ensembles.leaderboard
    assert conclude_leaderboard(table.fillna({"note": ""}), reference="mean-probability") in text
    assert "the reference" in leaderboard[2]
    similar = experiment.ensembles.similar
    assert conclude_recognition(similar.loc[similar["finding"] == OVERALL]) in "".join(
        Page(text).words
    )
    lungs = next(t for t in tables if t[0][:3] == ["Finding", "Films", "No lungs"])
    assert lungs[1:] == [["all", "1,200", "60", "0.050"], ["Hernia", "0", "0", "\N{EN DASH}"]]


def test_without_ensembles_there_is_no_chapter(sparse: str) -> None:
    assert 'id="ensembles"' not in sparse
    assert "#ensembles" not in sparse


def test_without_boxes_the_reason_is_given(experiment: Experiment) -> None:
    empty = pd.DataFrame()
    blind = replace(
        experiment.heatmaps, remarks=("no film of the test part has a box",), maps=(),
        boxes=empty_boxes(), scores=no_scores(), sanity=empty, faithfulness=empty,
    )  # fmt: skip
    text = chapter("heatmaps", replace(experiment, heatmaps=blind))
    assert conclude_heatmaps(empty, boxes=empty_boxes()) in text
    assert "no film of the test part has a box." in text


def test_headings_are_in_order_and_pictures_described(text: str) -> None:
    page = Page(text)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(lower - upper <= 1 for upper, lower in pairwise(levels))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) > 6
    assert all(picture["alt"] for picture in pictures)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == 13
    assert all(drawing["role"] == "img" for drawing in drawings)
    assert all(part.lstrip().startswith("<title>") for part in re.split("<svg [^>]*>", text)[1:])


def _requests(text: str) -> list[str]:
    sources = [value for _, attributes in Page(text).tags for name, value in attributes.items()
               if name in ("src", "href", "xlink:href", "srcset") and value]  # fmt: skip
    sources += re.findall(r"url\(([^)]*)\)", text) + re.findall(r"@import.*", text)
    return [source for source in sources if not source.startswith(("#", "data:image/"))]


def test_the_page_requests_no_other_file(text: str) -> None:
    assert _requests(text) == []
    assert "<script" not in text
    assert _requests('<img src="https://a.b/c.png"><p style="x:url(d.woff)">')


def test_every_number_of_the_comparison_is_the_metrics_own(
    text: str, experiment: Experiment
) -> None:
    others = [name for name in METRICS if name not in CHOSEN]
    assert set(CHOSEN) < set(METRICS)
    table = experiment.evaluation.metrics.set_index(["network", "finding", "metric"])
    seen = 0
    for rows, metrics in zip(Page(text).tables, (list(CHOSEN), others), strict=False):
        average = ""
        for name, *cells in rows[1:]:
            if not cells:
                average = name.partition(":")[0].lower()
                continue
            network = next(n for n in (*NETWORKS, "trivial") if name.startswith(n))
            for metric, cell in zip(metrics, cells[1:], strict=True):
                assert cell == _cell(table.loc[(network, average, metric)])
                seen += 1
    assert seen == 2 * (len(NETWORKS) + 1) * len(METRICS)


def _cell(row: pd.Series) -> str:
    """Return a score as the page prints it, its interval behind it, or why there is none."""
    value, low, high = np.array([row["value"], row["low"], row["high"]], dtype=np.float64)
    if np.isnan(value):
        return DASH
    ends = "" if np.isnan(low) else f"{decimal(low)}{DASH if low >= 0 else ' to '}{decimal(high)}"
    note = row["note"]
    if row.name[2] == "ece":
        return f"{decimal(value)}{note.split('has ')[1]}"
    bias = re.findall(r"bias \+0\.\d{3}", note)
    return "".join([decimal(value), ends, *(bias or ([] if ends else ["no interval"]))])


def test_confusion_counts_are_the_table_s_own(text: str, experiment: Experiment) -> None:
    table = experiment.evaluation.confusion.set_index(["network", "finding"])
    shown = [rows for rows in Page(text).tables if rows[0][-1] == "Truenegatives"]
    networks = [*experiment.evaluation.ranking["network"], "trivial"]
    for network, rows in zip(networks, shown, strict=True):
        assert [row[0] for row in rows[1:]] == list(experiment.manifest.findings)
        for finding, threshold, *counts in rows[1:]:
            row = table.loc[(network, finding)]
            assert threshold == decimal(float(row["threshold"]))
            assert counts == [whole(int(row[cell])) for cell in ("tp", "fp", "fn", "tn")]


def test_metrics_of_whole_films_have_a_table_of_their_own(
    text: str, experiment: Experiment
) -> None:
    rows = Page(text).tables[2]
    table = experiment.evaluation.metrics.set_index(["network", "finding", "metric"])
    assert [row[0] for row in rows[1:]] == [*NETWORKS[::-1], "trivial"]
    for network, *cells in rows[1:]:
        assert cells == [_cell(table.loc[(network, "per film", name)]) for name in PER_FILM]


def test_ranks_are_shared_as_the_ranking_says(text: str) -> None:
    rows = Page(text).tables[0][2 : 2 + len(NETWORKS)]
    assert [row[1] for row in rows] == ["1=", "1=", "3", "4"]
    marks = ["highest", "tied with best", "", ""]
    assert [row[0] for row in rows] == [n + m for n, m in zip(NETWORKS[::-1], marks, strict=True)]


def test_pairs_stand_with_their_tests_and_bold_where_holm_says_so(text: str) -> None:
    table = next(table for table in Page(text).tables if "p (Holm)" in table[0])
    assert len(table) == 1 + 6
    first = f"0.062{MINUS}0.031 to 0.156"
    assert table[1][1:] == [first, "< 0.001", "< 0.001", "< 0.001", "< 0.001"]
    assert table[2][1:] == [first, "0.625", "0.625", "0.625", "0.625"]
    shown = text[text.index('id="comparison"') : text.index('id="findings"')]
    assert shown.count('class="number clear"') == 3 + 3


def test_issues_are_listed_with_examples_and_remedies(text: str) -> None:
    found = "".join(Page(text).words)
    for words in (ISSUE.message, "patient 13, patient 118", "Remedy: split by patient.", "serious"):
        assert words in found


def test_calibration_shows_the_parts_of_the_brier_score(text: str, experiment: Experiment) -> None:
    rows = next(table for table in Page(text).tables if table[0][1:3] == ["Brier", "Reliability"])
    table = experiment.evaluation.brier.set_index(["network", "finding"])
    assert [row[0] for row in rows[1:]] == list(NETWORKS[::-1])
    for network, *cells in rows[1:]:
        parts = ("brier", "reliability", "resolution", "uncertainty", "within")
        assert cells == [decimal(table.loc[(network, "macro"), part], 4) for part in parts]


def test_groups_are_listed_by_fact_and_the_small_are_marked(
    text: str, experiment: Experiment
) -> None:
    tables = [table for table in Page(text).tables if table[0][0] == "Group"]
    assert [row[0] for row in tables[0][1:]] == ["AP", "PA", "LLsmall"]
    assert len(tables) == 1
    gap = f"{MINUS}0.050{MINUS}0.090 to {MINUS}0.010"
    level = f"0.0025{MINUS}0.0100 to 0.0200"
    assert tables[0][1][1:] == ["1,200", "300", f"0.7500.700{DASH}0.800", gap, level]
    shown = text[text.index('id="subgroups"') : text.index('id="ensembles"')]
    assert shown.count("number clear") == 2, "a small group is never bold"
    assert "By sex: skipped: no column &#39;sex&#39;." in shown
    assert shown.index(worst_group(experiment.evaluation.subgroups)) < shown.index("<table")


def test_parts_are_counted_from_the_plan(text: str) -> None:
    rows = {row[0]: row[1:] for row in next(t for t in Page(text).tables if t[1][0] == "Entries")}
    assert rows["Entries"] == ["170", "50", "50"]
    assert rows["Films"] == ["140", "50", "50"]
    assert rows["Patients"] == ["70", "25", "25"]


def test_a_leaking_split_marks_every_score(tmp_path: Path) -> None:
    text = written(small_experiment(split={"method": "image"}), tmp_path)
    scored = "AUC|ROC|Precision|Mean over|etrics|Reliability|Brier|By view|chip|Weights|Diversity"
    captions = re.findall("<figcaption>.*?</figcaption>", text, re.DOTALL)
    scores = [caption for caption in captions if re.search(scored, caption)]
    assert len(scores) == 35
    assert all("leaking split" in caption for caption in scores)
    assert re.search(r'class="conclusion">.*leaking split', text)


def test_an_honest_split_is_not_marked(text: str) -> None:
    assert "leaking split" not in text


def test_what_is_not_computable_is_a_dash_with_its_reason(sparse: str) -> None:
    assert sparse.count("not computable</text>") == 2, "one panel each of ROC, precision-recall"
    assert sparse.count('title="not computable: 0 positives">' + DASH + "</td>") == 6
    assert "nan" not in re.sub('"[^"]*"', "", sparse).lower().split()


def hostile_experiment() -> Experiment:
    """One network, and findings and films whose names are HTML."""
    small = an_experiment(findings=(HOSTILE, '"><img src=x>&'), networks=NETWORKS[:1])
    image = np.array([f"<b>{name}" for name in small.manifest.image])
    manifest = replace(small.manifest, image=image)
    one = small.predictions[0]
    named = replace(one, image=np.array([f"<b>{name}" for name in one.image]))
    return replace(
        small,
        manifest=manifest,
        prepared=replace(small.prepared, manifest=manifest),
        predictions=[named],
        heatmaps=some_heatmaps(named.of("test")),
    )


def test_hostile_names_are_shown_not_run_and_the_same_experiment_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    text = written(hostile_experiment(), tmp_path)
    tags = Page(text).tags
    assert not any(tag == "script" for tag, _ in tags)
    assert not any(attributes.get("src") == "x" for _, attributes in tags)
    assert "<b>0000" not in text
    assert HOSTILE in "".join(Page(text).words)
    assert written(hostile_experiment(), tmp_path) == text


def test_a_chapter_that_failed_names_no_folder(tmp_path: Path) -> None:
    run, failed = tmp_path / "ada", tmp_path / "ada" / "failed"
    reasons = {"training": "OSError: '/data/eve/a.png'", "balance": f"ValueError: {run}/plan/x.csv"}
    failed.mkdir(parents=True)
    for name, reason in reasons.items():
        (failed / f"{name}.txt").write_text(f"{reason}\n\nTraceback")
    text = written(small_experiment(), run)
    assert "this chapter failed with OSError: &#39;.../a.png&#39;. The rest" in text
    assert "this chapter failed with ValueError: .../x.csv. The rest" in text
    assert "/data/" not in text


@pytest.mark.slow
def test_a_page_of_two_hundred_findings_can_be_sent_and_read(tmp_path: Path) -> None:
    findings = tuple(f"Finding {place:03d}" for place in range(200))
    text = written(an_experiment(findings=findings, networks=NETWORKS[:1]), tmp_path)
    assert len(text) < 6_000_000
    assert text.count(">Finding 199</th>") >= text.count("Other findings: 170") > 5


@pytest.mark.slow
def test_one_network_fifteen_findings_and_no_augmentation_make_a_page(tmp_path: Path) -> None:
    findings = (*FINDINGS, NO_FINDING)
    alone = an_experiment(findings=findings, networks=NETWORKS[:1])
    alone = replace(alone, gallery=Gallery([], []))
    text = written(alone, tmp_path)
    assert "Paired differences: none" in text
    assert "Augmentation: none." in text
    assert "Single steps" not in text
    assert all(f">{finding}</th>" in text for finding in findings)


def test_films_before_preparation_are_read_from_disk(
    experiment: Experiment, tmp_path: Path
) -> None:
    for number in range(5):
        shade = np.tile(np.arange(0, 200, dtype=np.uint8), (100, 1)) + np.uint8(number)
        cv2.imwrite(str(tmp_path / f"{number}.png"), shade)
    manifest = experiment.manifest
    path = [str(tmp_path / f"{number}.png") for number in range(len(manifest))]
    here = replace(manifest, facts=manifest.facts.assign(path=path))
    strips = show_preparation(replace(experiment.prepared, manifest=here), films=3, seed=0)
    assert [len(strip["pictures"]) for strip in strips] == [3, 3, 3]
    assert all(strip["pictures"][0].caption.endswith("200 x 100 px") for strip in strips)
    assert all(strip["histogram"].startswith("<svg ") for strip in strips)
    assert re.fullmatch(r"mean 10[0-4] → \d+, standard deviation 58 → \d+", strips[0]["caption"])
    assert show_preparation(experiment.prepared, films=3, seed=0) == []


def test_a_store_that_fails_costs_the_report_no_more_than_its_films(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(place: str) -> bool:
        raise ValueError("s3://films: the store fails")

    monkeypatch.setattr(film_figures, "film_exists", failing)
    assert show_preparation(experiment.prepared, films=3, seed=0) == []
    assert "no preparation of films: s3://films: the store fails" in capsys.readouterr().err


def test_a_preprocessing_study_is_shown_with_the_films(text: str, sparse: str) -> None:
    section = sparse.partition('<section id="preparation">')[2].partition("</section>")[0]
    assert STUDIED in section
    assert "minus 3x10</text>" in section
    assert "Preprocessing study" not in text


def test_external_tests_show_the_numbers_of_their_tables(tmp_path: Path) -> None:
    sources = [{"name": name, "source": "phantom", "seed": 9} for name in ("away", "lost")]
    plain = an_experiment(findings=FINDINGS[:3], networks=NETWORKS[:2], external=sources)
    found = an_external_test(plain, name="away")
    text = written(replace(plain, external={"away": found}), tmp_path)
    section = text.partition('<section id="external">')[2].partition("</section>")[0]
    assert found.conclusion in html.unescape(section)
    assert found.about["distance"] in html.unescape(section)
    assert "lost: not available" in section
    assert "Listed without a file: 1." in section
    shown = found.scores.loc[found.scores["metric"].isin(["auc", "recall", "f1"])]
    assert {*found.about["shared"]} < {*FINDINGS[:3]}
    for row in shown.loc[shown["finding"] != "micro"].to_dict("records"):
        assert f">{decimal(row['internal'])}<" in section
        assert f">{decimal(row['external'])}<" in section
    calibration = found.calibration
    drawn = (calibration["network"] == found.about["network"]) | (calibration["finding"] == "macro")
    for row in calibration.loc[drawn].to_dict("records"):
        assert f">{decimal(row['brier'])}<" in section
    steep = int(calibration.loc[drawn, "slope"].isna().sum())
    assert section.count(">not estimated<") == steep > 0
    for row in found.findings.to_dict("records"):
        assert f"({row['internal_positives']}, {row['external_positives']})" in section
        assert row["reason"] in section
    assert "100.0 %" in section
    assert '<a href="#external">External validation</a>' in text


def test_coverage_of_sets_is_shown_as_in_its_tables(tmp_path: Path) -> None:
    plain = an_experiment(findings=FINDINGS[:3], networks=NETWORKS[:2])
    view = pd.Series(["PA", "AP"] * 25)
    several = []
    for one in plain.predictions:
        sets = fit_sets(one.of("val"), error=0.2, missed=0.2)
        own = one.of("test")
        away = replace(own, logit=-own.logit)
        films = [UnseenFilms(OWN, own, view), UnseenFilms("away", away, None)]
        several.append((sets, films))
    best = plain.evaluation.ranking["network"].iloc[0]
    found = measure_sets(several, best=best, resamples=20, seed=0)
    text = written(replace(plain, coverage=found), tmp_path)
    section = text.partition('<section id="abstain">')[2].partition("</section>")[0]
    assert '<a href="#abstain">When not to answer</a>' in text
    assert found.conclusion in html.unescape(section)
    own = found.coverage.loc[(found.coverage["films"] == OWN) & (found.coverage["group"] == "all")]
    for row in own.to_dict("records"):
        assert f">{decimal(row['coverage'])}<" in section
    for row in found.missed.to_dict("records"):
        assert f">{decimal(row['missed'])}<" in section
    for name in (OWN, f"{OWN}, PA", f"{OWN}, AP", "away"):
        assert f'<th scope="row">{name}</th>' in section


def test_a_page_without_sets_has_no_chapter_on_them(text: str) -> None:
    assert "When not to answer" not in text


def test_a_page_without_external_tests_has_no_such_chapter(text: str) -> None:
    assert "External validation" not in text


def test_a_table_of_other_networks_is_refused(experiment: Experiment) -> None:
    with pytest.raises(ValueError, match=r"ranking: found mobilenetv2_100; expected alexnet"):
        with_evaluation(experiment, ranking=experiment.evaluation.ranking.iloc[:1])
    for name in ("reliability", "brier", "thresholds"):
        table = getattr(experiment.evaluation, name)
        with pytest.raises(ValueError, match=rf"{name}: found alexnet; expected alexnet, dense"):
            with_evaluation(experiment, **{name: table.loc[table["network"] == "alexnet"]})
    with pytest.raises(ValueError, match=r"networks: found alexnet; expected alexnet, dense"):
        replace(experiment, networks=experiment.networks.head(1))


def with_evaluation(experiment: Experiment, **tables: pd.DataFrame) -> Experiment:
    return replace(experiment, evaluation=replace(experiment.evaluation, **tables))


def test_a_repeated_score_is_refused(tmp_path: Path, experiment: Experiment) -> None:
    twice = pd.concat([experiment.evaluation.metrics, experiment.evaluation.metrics.head(2)])
    with pytest.raises(ValueError, match="2 rows repeat another's network, finding, metric"):
        written(with_evaluation(experiment, metrics=twice), tmp_path)


def test_numbers_are_printed_alike() -> None:
    numbers = (0.12345, -0.5, -0.0004, float("nan"))
    assert [decimal(x) for x in numbers] == ["0.123", MINUS + "0.500", "0.000", DASH]
    p = (0.0009, 0.001, 0.25, float("nan"))
    assert [p_value(x) for x in p] == ["< 0.001", "0.001", "0.250", DASH]
    assert [whole(x) for x in (112120, 0, float("nan"))] == ["112,120", "0", DASH]


def test_what_became_of_the_labels_is_counted(
    experiment: Experiment, text: str, tmp_path: Path
) -> None:
    """Steps as reading counts them, and uncertain labels of the films used; else no table."""
    assert "What became of the labels" not in text
    assert "Uncertain labels" not in text
    first, second, *_ = experiment.manifest.findings
    rows = [
        ("in the label files", "", 5_000),
        ("No Finding: 0", first, 1_200),
        ("No Finding: 0", second, 1_300),
        ("uncertain: ones", first, 2),
        ("view not taken: LL", "", 4_760),
    ]
    image = experiment.manifest.image[:2]
    manifest = replace(
        experiment.manifest,
        reading=pd.DataFrame(rows, columns=["step", "finding", "films"]),
        uncertain=pd.DataFrame({"image": image, "finding": first}),
    )
    page = Page(written(replace(experiment, manifest=manifest), tmp_path))
    assert [
        ["Step", "Films or labels", "By finding"],
        ["in the label files", "5,000", ""],
        ["No Finding: 0", "2,500", f"{second} 1,300, {first} 1,200"],
        ["uncertain: ones", "2", f"{first} 2"],
        ["view not taken: LL", "4,760", ""],
    ] in page.tables
    assert [["Finding", "Films"], [first, "2"]] in page.tables
    nothing = replace(manifest, reading=manifest.reading.head(1))
    assert "What became" not in written(replace(experiment, manifest=nothing), tmp_path)
