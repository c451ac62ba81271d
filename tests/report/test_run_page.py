"""The report of a run shows the numbers of its tables, all of them, and needs no other file."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.audit.checks.issue import Issue, issue_table
from lucency.audit.hidden_strata import STRATA
from lucency.audit.image_quality import LISTED, quality_counts
from lucency.audit.label_quality import (
    COUNTS,
    AuditResults,
    conclude_label_quality,
    rate_label_quality,
)
from lucency.audit.shortcuts import PROBES, SHORTCUTS
from lucency.balance.imbalance import Change, Step, describe_change, followed
from lucency.config.protocol import parse_protocol
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest, Preparation, Prepared, empty_boxes
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import Failures
from lucency.data.image_measures import MEASURES
from lucency.ensemble.ensembles import EnsembleResults
from lucency.ensemble.retrieval_metrics import COLUMNS as RETRIEVAL
from lucency.ensemble.retrieval_metrics import FIRST, OVERALL, PAIRS, conclude_recognition
from lucency.evaluation.calibration import brier_parts, reliability_table
from lucency.evaluation.compare import LEADERBOARD, SCORES, conclude_leaderboard
from lucency.evaluation.evaluate import confusion_table, evaluate, trivial
from lucency.evaluation.leakage_inflation import StudyComparison
from lucency.evaluation.metrics import METRICS, PER_FILM
from lucency.evaluation.preparation_grid import (
    PreparationStudy,
    average_measures,
    compare_cells,
    make_grid,
)
from lucency.evaluation.subgroups import worst_group
from lucency.evaluation.summary import Evaluation
from lucency.explain.baselines import conclude_heatmaps
from lucency.explain.heatmap_results import (
    HeatmapResults,
    choose_cases,
    faithfulness_table,
    no_scores,
    sanity_table,
    score_maps,
)
from lucency.explain.heatmaps import Centres, Heatmaps, even_centres
from lucency.report.chapters import objections
from lucency.report.film_figures import show_preparation
from lucency.report.html import decimal, p_value, whole
from lucency.report.predictions_page import CHOSEN
from lucency.report.run_page import Experiment, Gallery, write_report

ENDS = ("", "_low", "_high")

NETWORKS = ("alexnet", "densenet121", "inception_resnet_v2", "mobilenetv2_100")
SECTIONS = (
    "checks", "comparison", "findings", "curves", "calibration", "subgroups", "ensembles",
    "heatmaps", "audit", "training", "balance", "preparation", "augmentation", "samples", "parts",
    "protocol", "glossary", "versions",
)  # fmt: skip
DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
FILMS, SIZE = 240, 32
FLAT = np.full((8, 8), 90, dtype=np.uint8)
GROUPS = (
    "network", "fact", "group", "finding", "films", "patients", "auc", "auc_low", "auc_high",
    "gap", "gap_low", "gap_high", "calibration_gap", "calibration_low", "calibration_high",
    "small", "note",
)  # fmt: skip
ISSUE = Issue(
    severity="serious", check="apart", message="2 patients stand in train and test", count=2,
    examples=("patient 13", "patient 118"), remedy="split by patient",
)  # fmt: skip


TRIALS = ("deletion", "deletion_random", "insertion", "insertion_random", "stability")


class Page(HTMLParser):
    """A page as tests read it: its tables, tags with attributes, and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.inside:
            self.tables[-1][-1][-1] += data.strip()


def an_experiment(
    *,
    findings: tuple[str, ...] = FINDINGS,
    networks: tuple[str, ...] = NETWORKS,
    folder: Path | None = None,
    **choices: Any,
) -> Experiment:
    """Invent films, labels and scores; the tables are made by `evaluation`, as in a real run."""
    random = np.random.default_rng(3)
    share = np.linspace(0.35, 0.06, len(findings))
    label = (random.random((FILMS, len(findings))) < share).astype(np.float32)
    manifest = Manifest(
        findings=findings,
        image=np.array([f"{n:08d}_000.png" for n in range(FILMS)]),
        patient=np.arange(FILMS, dtype=np.int64) // 2,
        label=label,
        facts=pd.DataFrame(
            {"path": [str((folder or Path("gone")) / f"{n}.png") for n in range(FILMS)]}
        ),
        boxes=empty_boxes(),
        origin="Data_Entry.csv: not a published version: 240 films of 120 patients",
    )
    part = np.repeat(["train", "val", "test"], [140, 50, 50])
    several = [
        _predicted(n, manifest, part, skill)
        for n, skill in zip(networks, (0.4, 1.6, 1.5, 0.9, *[1] * 20), strict=False)
    ]
    test = [one.of("test") for one in several]
    threshold = np.full(len(findings), 0.3)
    plain = trivial(test[0], prevalence=label[:140].mean(axis=0).astype(np.float64))
    tables = [evaluate(one, threshold=threshold, resamples=25, seed=0) for one in test]
    tables.append(evaluate(plain, threshold=np.full(len(findings), 0.5), resamples=25, seed=0))
    ranking = a_ranking(networks)
    plan = Plan(
        row=np.r_[np.arange(FILMS), np.arange(30)],
        copy=np.r_[np.zeros(FILMS, np.int64), np.ones(30, np.int64)],
        transform=np.array([""] * FILMS + ["reference@1.0#1"] * 30),
        part=np.r_[part, ["train"] * 30],
        label=np.vstack([label, label[:30]]),
        weight=np.ones((FILMS + 30, len(findings)), np.float32),
        mate=np.r_[np.arange(FILMS), np.arange(30)],
        mix=np.zeros(FILMS + 30, np.float32),
    )
    return Experiment(
        protocol=parse_protocol(
            {
                "name": "invented", "note": "Invented numbers, to test the page.",
                "preparation": {"size": SIZE}, "network": [{"name": n} for n in networks],
                **choices,
            },
            name="test",
        ),
        manifest=manifest,
        prepared=Prepared(
            manifest=manifest,
            preparation=Preparation(size=SIZE),
            pixels=random.integers(0, 256, (FILMS, SIZE, SIZE), dtype=np.uint8),
            rejected=pd.DataFrame({"image": ["a.png"], "reason": ["zero bytes"]}),
        ),
        plan=plan,
        change=a_change(label[:140], plan.take(plan.part == "train"), findings),
        gallery=Gallery(
            [(f"film {n}", random.integers(0, 256, (64, 64), np.uint8)) for n in range(6)],
            [("film", FLAT), ("Flip, probability 0.5 (reference)", FLAT)],
        ),
        predictions=several,
        histories={one: _history(random) for one in networks},
        networks=pd.DataFrame({
            "network": networks, "parameters": 7_000_000, "weights": "random", "provenance": "none",
            "epochs": 6, "kept_epoch": 4, "minutes": 1.25, "films_per_second": 88.0,
            "device": "cpu",
        }),
        evaluation=Evaluation(
            thresholds=pd.DataFrame(
                [(n, f, 0.3) for n in networks for f in findings],
                columns=["network", "finding", "threshold"],
            ),
            metrics=pd.concat(tables, ignore_index=True),
            confusion=pd.concat(
                [
                    *(confusion_table(one, threshold=threshold) for one in test),
                    confusion_table(plain, threshold=np.full(len(findings), 0.5)),
                ]
            ),
            comparison=a_comparison(networks, findings),
            ranking=ranking,
            conclusion="Macro AUC: a 0.800.",
            reliability=pd.concat([reliability_table(one, resamples=25, seed=0) for one in test]),
            brier=pd.concat([brier_parts(one) for one in test]),
            subgroups=some_groups(ranking["network"].iloc[0]),
        ),
        issues=issue_table([ISSUE]),
        checks=17,
        study=StudyComparison(),
        heatmaps=some_heatmaps(test[0]),
        audit=an_audit(test[0]),
        ensembles=some_ensembles(networks, findings),
    )  # fmt: skip


def a_change(label: np.ndarray, plan: Plan, findings: tuple[str, ...]) -> Change:
    """Describe a plan of training films, made by copying those of the first finding."""
    steps = followed(label, [Step("copy", findings[0], plan)], findings=findings).steps
    about = {"findings": findings, "steps": steps, "population": "the training part"}
    return describe_change(label, plan=plan, **about)


def an_audit(test: Predictions) -> AuditResults:
    """Invent an audit in which the first finding has a shortcut, its view."""
    first = test.findings[0]
    counts = pd.DataFrame([(one, 40, 50, 35, 0.6) for one in test.findings], columns=list(COUNTS))
    found = pd.DataFrame({name: [0.25] for name in SHORTCUTS})
    found = found.assign(finding=first, fact="view", films=60, positives=20, left_out=0)
    odd = pd.DataFrame({name: [] for name in LISTED}).astype({"value": float})
    strata = pd.DataFrame({name: [0.5] for name in STRATA})
    return AuditResults(
        network=test.network,
        label_quality=rate_label_quality(counts, caveats={first: "shortcut: view"}),
        probes=pd.DataFrame([("view", "AP", 0.9, 0.8, 0.95, 30, 30, "")], columns=list(PROBES)),
        shortcuts=found.assign(shortcut=True),
        strata=strata.assign(
            finding=first, stratum=1, films=20, patients=9, examples="a.png|b.png"
        ),
        pictures=quality_counts(odd, films=60),
        odd=odd,
    )


def some_heatmaps(test: Predictions) -> HeatmapResults:
    """Invent heat maps of all test films, and a box of the first finding on those that have it."""
    random = np.random.default_rng(5)
    finding, films = test.findings[0], len(test)
    grid = random.random((films, 1, 3, 3), dtype=np.float32)
    maps = Heatmaps(
        method="grad-cam", findings=(finding,), image=test.image, patient=test.patient, grid=grid,
        centres=Centres(np.arange(3) / 3, np.arange(3) / 3),
    )  # fmt: skip
    boxed = test.image[test.label[:, 0] == 1]
    boxes = pd.DataFrame(
        {"image": boxed, "finding": finding, "x": 0.1, "y": 0.1, "w": 0.4, "h": 0.4}
    )
    rows = np.flatnonzero(test.label[:, 0] == 1)
    shown = maps.take(rows)
    blind = replace(shown, method="grad-cam, head randomised", grid=grid[rows][:, :, ::-1])
    draws = {"resamples": 25, "seed": 0}
    cases = choose_cases(test, finding=finding, threshold=0.3, films=2).assign(finding=finding)
    similar = pd.DataFrame({"method": "grad-cam", "block": ["head", "all"], "similarity": 0.125})
    tried = pd.DataFrame({"method": "grad-cam", "image": boxed, "patient": test.patient[rows]})
    for name, value in zip(TRIALS, (0.25, 0.5, 0.75, 0.5, 0.875), strict=True):
        tried[name] = value
    return HeatmapResults(
        network=test.network,
        remarks=("cam: not defined for it",),
        maps=(maps,),
        boxes=boxes,
        cases=cases,
        scores=score_maps([shown], randomised_maps=[blind], boxes=boxes, **draws),
        sanity=sanity_table(similar),
        faithfulness=faithfulness_table(tried, **draws),
    )


def some_ensembles(networks: tuple[str, ...], findings: tuple[str, ...]) -> EnsembleResults:
    """A leaderboard in which the greedy ensemble is above equal weights, which stands second."""
    names = ("greedy", "mean-probability", *networks)
    kinds = ("ensemble", "ensemble", *["network"] * len(networks))
    rows = []
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True), start=1):
        scores = {f"{score}{end}": 0.9 - place / 50 for score in SCORES for end in ENDS}
        row = {"place": place, "network": name, "kind": kind, **scores, "milliseconds": 12.5}
        reference = name == "mean-probability"
        paired = {"difference": (2 - place) / 50, "p": 0.001, "p_holm": 0.002}
        row |= dict.fromkeys(paired, np.nan) if reference else paired
        row |= {"note": "the reference"} if reference else {}
        rows.append(row)
    pairs = [("greedy", one, finding, 0.25) for one in networks for finding in findings]
    similar = [
        ("densenet121", OVERALL, "precision@10", 0.4, 0.3, 0.5, 0.2, 90, ""),
        ("densenet121", OVERALL, FIRST, 0.6, 0.5, 0.7, 0.01, 80, ""),
        ("densenet121", OVERALL, PAIRS, 0.9, 0.8, 0.95, 0.5, 80, ""),
    ]
    other = [(*pair, 0.2, 0.5) for pair in combinations(networks, 2)]
    return EnsembleResults(
        leaderboard=pd.DataFrame(rows).reindex(columns=list(LEADERBOARD)),
        weights=pd.DataFrame(pairs, columns=["method", "network", "finding", "weight"]),
        diversity=pd.DataFrame(other, columns=["network", "other", "disagreement", "error"]),
        choices=pd.DataFrame(),
        similar=pd.DataFrame(similar, columns=["source", *RETRIEVAL]),
        lungs=pd.DataFrame(
            [("all", 1200, 60, 0.05), ("Hernia", 0, 0, np.nan)],
            columns=["films", "count", "failed", "share"],
        ),
    )


def a_comparison(networks: tuple[str, ...], findings: tuple[str, ...]) -> pd.DataFrame:
    """Invent the paired tests: the first pair is told apart, the others are not."""
    rows = [
        (*pair, finding, "auc", 0.0625, -0.03125, 0.15625, p := 0.0001 + number, 3 * p, "", "")
        for number, pair in enumerate(combinations(networks, 2))
        for finding in (*findings, "macro", "over findings")
    ]
    names = ["network", "other", "finding", "metric", "difference", "low", "high", "p", "p_holm"]
    table = pd.DataFrame(rows, columns=[*names, "test", "note"])
    table[["p", "p_holm"]] = table[["p", "p_holm"]].clip(upper=0.625)
    return table


def a_ranking(networks: tuple[str, ...]) -> pd.DataFrame:
    """Invent an order: the last is highest, the one before it shares its rank."""
    order = networks[::-1]
    rank = [1, 1, *range(3, len(order) + 1)][: len(order)]
    table = pd.DataFrame({"rank": rank, "network": order, "value": 0.75, "low": 0.7, "high": 0.8})
    return table.assign(tied_with_best=table["rank"] == 1)


def some_groups(network: str) -> pd.DataFrame:
    """Invent three groups of view, of which one is small, and a fact that is not known."""
    numbers = (0.75, 0.7, 0.8, -0.05, -0.09, -0.01, 0.0025, -0.01, 0.02)
    rows = [
        (network, "view", "AP", "macro", 1200, 300, *numbers, False, "mean over 2 of 2 findings"),
        (network, "view", "AP", "Mass", 1200, 300, *numbers, False, "not shown"),
        (network, "view", "PA", "macro", 2000, 400, *numbers, False, ""),
        (network, "view", "LL", "macro", 7, 6, *numbers, True, "mean over 1 of 2 findings"),
        (network, "sex", "", "macro", 0, 0, *[np.nan] * 9, True, "skipped: no column 'sex'"),
    ]
    return pd.DataFrame(rows, columns=list(GROUPS))


def _predicted(network: str, manifest: Manifest, part: np.ndarray, skill: float) -> Predictions:
    random = np.random.default_rng(sum(map(ord, network)))
    noise = random.normal(size=manifest.label.shape)
    kept = part != "train"
    return Predictions(
        network=network,
        split="0123456789abcdef",
        findings=manifest.findings,
        image=manifest.image[kept],
        patient=manifest.patient[kept],
        part=part[kept],
        label=manifest.label[kept],
        logit=(skill * manifest.label + noise - 1.5).astype(np.float32)[kept],
        feature=np.empty((int(kept.sum()), 0), np.float32),
    )


def _history(random: np.random.Generator) -> pd.DataFrame:
    epoch = np.arange(1, 7)
    fall = np.exp(-epoch / 3) + random.normal(0, 0.01, 6)
    return pd.DataFrame({
        "epoch": epoch, "step": epoch * 9, "train_loss": 0.2 + fall, "val_loss": 0.25 + fall,
        "val_auc": 0.8 - fall / 3, "train_accuracy": 0.9 - fall / 9,
        "val_accuracy": 0.88 - fall / 9, "train_pooled_auc": 0.9 - fall / 3,
        "val_pooled_auc": 0.86 - fall / 3, "learning_rate": 1e-4, "films_per_second": 90.0,
        "seconds": 8.0,
    })  # fmt: skip


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return an_experiment(findings=FINDINGS[:3])


@pytest.fixture(scope="module")
def text(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(experiment, tmp_path_factory.mktemp("page"))


def written(experiment: Experiment, folder: Path) -> str:
    write_report(experiment, file=folder / "report.html", failures=Failures(folder / "failed"))
    return (folder / "report.html").read_text(encoding="utf-8")


def small_experiment(**choices: Any) -> Experiment:
    return an_experiment(findings=FINDINGS[:2], networks=NETWORKS[:2], **choices)


def test_every_section_is_there_and_reachable(text: str) -> None:
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    links = [a["href"] for tag, a in page.tags if tag == "a" and a.get("href")]
    assert {f"#{name}" for name in SECTIONS} <= set(links)
    assert len(set(ids)) == len(ids), "figures share ids"
    assert "For research only, not a medical device." in text


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
    assert trial[1][5:10:2] == ["0.250", "0.750", f"0.8750.875{DASH}0.875"]


def test_a_method_with_a_grid_of_one_cell_is_named_and_the_others_are_shown(
    experiment: Experiment, tmp_path: Path
) -> None:
    results = experiment.heatmaps
    point = replace(
        results.maps[0],
        method="cam",
        grid=results.maps[0].grid[:, :, :1, :1],
        centres=even_centres((1, 1)),
    )
    text = written(
        replace(experiment, heatmaps=replace(results, maps=(point, *results.maps))), tmp_path
    )
    assert "Grids: cam 1 x 1, grad-cam 3 x 3." in text
    assert "Mean heat maps of grad-cam" in text


def test_label_quality_has_a_conclusion_and_a_reason_for_each_finding(
    experiment: Experiment, text: str
) -> None:
    first = experiment.audit.label_quality["finding"].iloc[0]
    quality = conclude_label_quality(experiment.audit.label_quality)
    assert f"{quality[0].upper()}{quality[1:]}. Shortcuts of" in text
    tables = Page(text).tables
    label_quality = next(t for t in tables if t[0][:2] == ["Finding", "Rating"])
    assert label_quality[1][:2] == [first, "doubtful"]
    assert label_quality[1][-1] == "shortcut: view"
    worth = next(t for t in tables if t[0][:2] == ["Finding", "Fact"])
    assert worth[1][-1] == "yes"
    assert "Ground truth: the findings drawn on the phantoms" in text
    image = next(t for t in tables if t[0][0] == "Problem")
    assert image[-1] == ["any", "0", "0", "0.0 %"]


def test_three_objections_are_answered_with_the_run_s_numbers(
    experiment: Experiment, text: str
) -> None:
    words = "".join(Page(text).words)
    first, second = FINDINGS[:2]
    assert "Findings by label quality: reliable 2, doubtful 1, unreliable 0, of 3." in words
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


def test_the_head_names_brightness_interpolation_and_filters(tmp_path: Path) -> None:
    chosen = {"brightness": 5, "interpolation": "bicubic", "denoise": "median", "size": SIZE}
    words = Page(written(small_experiment(preparation=chosen), tmp_path)).words
    head = " ".join("".join(words).split())
    side = f"{SIZE} {TIMES} {SIZE} px"
    assert f"then resizing to {side} (bicubic interpolation). Brightness: +5 of 255" in head
    assert "of 255 grey levels. Denoising: median. Split by patient: training 140 films" in head
    plain = " ".join("".join(Page(written(small_experiment(), tmp_path)).words).split())
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


def test_without_ensembles_there_is_no_chapter(experiment: Experiment, tmp_path: Path) -> None:
    alone = written(replace(experiment, ensembles=EnsembleResults()), tmp_path)
    assert 'id="ensembles"' not in alone
    assert "#ensembles" not in alone


def test_without_boxes_the_reason_is_given(experiment: Experiment, tmp_path: Path) -> None:
    empty = pd.DataFrame()
    blind = replace(
        experiment.heatmaps, remarks=("no film of the test part has a box",), maps=(),
        boxes=empty_boxes(), scores=no_scores(), sanity=empty, faithfulness=empty,
    )  # fmt: skip
    text = written(replace(experiment, heatmaps=blind), tmp_path)
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
    """Return a score as the page prints it, its interval behind it."""
    value, low, high = np.array([row["value"], row["low"], row["high"]], dtype=np.float64)
    if np.isnan(value):
        return DASH
    return f"{decimal(value)}{decimal(low)}{DASH if low >= 0 else ' to '}{decimal(high)}"


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
    for words in (ISSUE.message, "patient 13, patient 118", "Split by patient.", "serious"):
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


def test_what_is_not_computable_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    small = small_experiment()
    metrics = small.evaluation.metrics.copy()
    lost = (metrics["finding"] == FINDINGS[1]) & (metrics["metric"] == "auc")
    metrics.loc[lost, ["value", "low", "high"]] = np.nan
    metrics.loc[lost, "note"] = "not computable: 0 positives"
    several = [
        replace(one, label=one.label * np.array([1, 0], np.float32)) for one in small.predictions
    ]
    evaluation = replace(small.evaluation, metrics=metrics)
    text = written(replace(small, evaluation=evaluation, predictions=several), tmp_path)
    assert text.count("not computable</text>") == 2, "one panel each of ROC and precision-recall"
    assert text.count('title="not computable: 0 positives">' + DASH + "</td>") == 6
    assert "nan" not in re.sub('"[^"]*"', "", text).lower().split()


def test_hostile_names_are_shown_not_run(tmp_path: Path) -> None:
    hostile = "<script>alert('$x_{')</script>"
    small = an_experiment(findings=(hostile, '"><img src=x>&'), networks=NETWORKS[:1])
    image = np.array([f"<b>{name}" for name in small.manifest.image])
    manifest = replace(small.manifest, image=image)
    one = small.predictions[0]
    predictions = [replace(one, image=np.array([f"<b>{name}" for name in one.image]))]
    prepared = replace(small.prepared, manifest=manifest)
    text = written(
        replace(
            small,
            manifest=manifest,
            prepared=prepared,
            predictions=predictions,
            study=StudyComparison(),
            heatmaps=some_heatmaps(predictions[0].of("test")),
        ),
        tmp_path,
    )
    tags = Page(text).tags
    assert not any(
        tag in ("script", "b") and not attributes for tag, attributes in tags if tag == "script"
    )
    assert not any(attributes.get("src") == "x" for _, attributes in tags)
    assert "<b>0000" not in text
    assert hostile in "".join(Page(text).words)


def test_the_same_experiment_gives_the_same_bytes(tmp_path: Path) -> None:
    once, again = (
        an_experiment(findings=FINDINGS[:1], networks=NETWORKS[:1], folder=tmp_path)
        for _ in range(2)
    )
    assert written(once, tmp_path) == written(again, tmp_path)


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


def test_films_before_preparation_are_read_from_disk(tmp_path: Path) -> None:
    for number in range(5):
        shade = np.tile(np.arange(0, 200, dtype=np.uint8), (100, 1)) + np.uint8(number)
        cv2.imwrite(str(tmp_path / f"{number}.png"), shade)
    strips = show_preparation(small_experiment(folder=tmp_path).prepared, films=3, seed=0)
    assert [len(strip.pictures) for strip in strips] == [3, 3, 3]
    assert all(strip.pictures[0].caption.endswith("200 x 100 px") for strip in strips)
    assert all(strip.histogram.startswith("<svg ") for strip in strips)
    assert re.fullmatch(r"mean 10[0-4] → \d+, standard deviation 58 → \d+", strips[0].caption)
    assert show_preparation(small_experiment().prepared, films=3, seed=0) == []


def test_a_preprocessing_study_is_shown_with_the_films(
    tmp_path: Path, experiment: Experiment, text: str
) -> None:
    grid = make_grid(Preparation(), clips=(3.0,), tiles=(8,), orders=("clahe-first",))
    cells, summary = compare_cells(
        {name: [experiment.predictions[0].of("test")] for name in grid}, grid=grid, resamples=25,
        seed=0,
    )  # fmt: skip
    films = pd.DataFrame({name: np.arange(9.0) for name in MEASURES})
    measures = average_measures(
        dict.fromkeys(grid, films), patient=np.arange(9), resamples=25, seed=0
    )
    conclusion = "CLAHE: no significant effect."
    study = PreparationStudy(
        cells=cells, summary=summary, measures=measures, about={}, conclusion=conclusion
    )
    shown = written(replace(experiment, preparations=study), tmp_path)
    section = shown.partition('<section id="preparation">')[2].partition("</section>")[0]
    assert conclusion in section
    assert "minus 3x10</text>" in section
    assert "Preprocessing study" not in text


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
    assert [decimal(x) for x in (0.12345, -0.5, float("nan"))] == ["0.123", MINUS + "0.500", DASH]
    p = (0.0009, 0.001, 0.25, float("nan"))
    assert [p_value(x) for x in p] == ["< 0.001", "0.001", "0.250", DASH]
    assert [whole(x) for x in (112120, 0, float("nan"))] == ["112,120", "0", DASH]
