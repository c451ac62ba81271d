"""An invented experiment, as a run gathers it, and its pages."""

from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.agreement import COUNTS, rate_label_quality
from lucency.audit.checks.issue import Issue, issue_table
from lucency.audit.image_quality import LISTED, quality_counts
from lucency.audit.shortcuts import PROBES, SHORTCUTS, STRATA, AuditResults
from lucency.balance.imbalance import Change, Step, describe_change, followed
from lucency.config.protocol import parse_protocol
from lucency.core.manifest import FINDINGS, Manifest, Preparation, Prepared, empty_boxes
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import Failures
from lucency.ensemble.ensembles import EnsembleResults
from lucency.ensemble.retrieval_metrics import COLUMNS as RETRIEVAL
from lucency.ensemble.retrieval_metrics import FIRST, OVERALL, PAIRS
from lucency.evaluation.calibration import brier_parts, reliability_table
from lucency.evaluation.compare import LEADERBOARD, SCORES
from lucency.evaluation.evaluate import confusion_table, evaluate, trivial
from lucency.evaluation.external_validation import (
    ComparedFilms,
    ExternalValidation,
    validate,
)
from lucency.evaluation.leakage_inflation import StudyComparison
from lucency.evaluation.summary import Evaluation
from lucency.explain.heatmap_results import (
    HeatmapResults,
    choose_cases,
    faithfulness_table,
    sanity_table,
    score_maps,
)
from lucency.explain.heatmaps import Centres, Heatmaps
from lucency.report.run_page import CHAPTERS, Experiment, Gallery, write_report

ENDS = ("", "_low", "_high")
NETWORKS = ("alexnet", "densenet121", "inception_resnet_v2", "mobilenetv2_100")
FILMS, SIZE, RESAMPLES = 240, 32, 10
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


def an_experiment(
    *,
    findings: tuple[str, ...] = FINDINGS,
    networks: tuple[str, ...] = NETWORKS,
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
        facts=pd.DataFrame({"path": [f"gone/{n}.png" for n in range(FILMS)]}),
        boxes=empty_boxes(),
        origin="Data_Entry.csv: not a published version: 240 films of 120 patients",
    )
    part = np.repeat(["train", "val", "test"], [140, 50, 50])
    several = [
        _predicted(n, manifest, part, skill)
        for n, skill in zip(networks, (0.4, 1.6, 1.5, 0.9, *[1] * 20), strict=False)
    ]
    test = [one.of("test") for one in several]
    threshold, draws = np.full(len(findings), 0.3), {"resamples": RESAMPLES, "seed": 0}
    plain = trivial(test[0], prevalence=label[:140].mean(axis=0).astype(np.float64))
    tables = [evaluate(one, threshold=threshold, **draws) for one in test]
    tables.append(evaluate(plain, threshold=np.full(len(findings), 0.5), **draws))
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
            reliability=pd.concat([reliability_table(one) for one in test]),
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


def an_external_test(experiment: Experiment, *, name: str) -> ExternalValidation:
    """Evaluate the experiment's test films, turned around, as an external test."""
    feature = np.random.default_rng(8).normal(size=(len(experiment.plan), 2)).astype(np.float32)
    several = [one.of("test") for one in experiment.predictions]
    several = [replace(one, feature=feature[: len(one)]) for one in several]
    facts = pd.DataFrame({"view": ["PA"] * len(several[0]), "age": [50] * len(several[0])})
    films = ComparedFilms(
        internal=several,
        external=[replace(one, logit=-one.logit, patient=one.patient + FILMS) for one in several],
        internal_facts=facts,
        external_facts=facts.assign(view="AP"),
        apart=np.arange(len(facts)) % 5 == 0,
        training=feature[len(facts) :],
    )
    about = {"name": name, "origin": "Invented films", "missing": 1, "rejected": 2}
    given = {"network": several[0].network, "method": "platt", "about": about}
    limits = experiment.evaluation.thresholds.assign(split=several[0].split)
    return validate(films, thresholds=limits, **given, resamples=RESAMPLES, seed=0)


def a_change(label: np.ndarray, plan: Plan, findings: tuple[str, ...]) -> Change:
    """Describe a plan of training films, made by copying those of the first finding."""
    steps = followed(label, [Step("copy", findings[0], plan)], findings=findings).steps
    about = {"findings": findings, "steps": steps, "population": "the training part"}
    return describe_change(label, plan=plan, **about)


def an_audit(test: Predictions) -> AuditResults:
    """Invent an audit in which the first finding has a shortcut, its view."""
    first = test.findings[0]
    counts = [(one, 40, 50, 35, 0.6, 0.7, 0.95) for one in test.findings]
    found = pd.DataFrame({name: [0.25] for name in SHORTCUTS})
    found = found.assign(finding=first, fact="view", films=60, positives=20, left_out=0)
    odd = pd.DataFrame({name: [] for name in LISTED}).astype({"value": float})
    strata = pd.DataFrame({name: [0.5] for name in STRATA})
    return AuditResults(
        network=test.network,
        label_quality=rate_label_quality(
            pd.DataFrame(counts, columns=list(COUNTS)), caveats={first: "shortcut: view"}
        ),
        probes=pd.DataFrame([("view", "AP", 0.9, 0.8, 0.95, 30, 30, "")], columns=list(PROBES)),
        shortcuts=found.assign(shortcut=True),
        strata=strata.assign(
            finding=first, stratum=1, films=20, patients=9, examples="a.png|b.png"
        ),
        pictures=quality_counts(odd, films=60, side=224),
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
    draws = {"resamples": RESAMPLES, "seed": 0}
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


def written(experiment: Experiment, folder: Path) -> str:
    write_report(experiment, file=folder / "report.html", failures=Failures(folder / "failed"))
    return (folder / "report.html").read_text(encoding="utf-8")


def small_experiment(**choices: Any) -> Experiment:
    return an_experiment(findings=FINDINGS[:2], networks=NETWORKS[:2], **choices)


def chapter(name: str, experiment: Experiment) -> str:
    """Return a chapter of the page that is made of a template of its own."""
    return CHAPTERS[name](experiment, {"leaking": False, "macro": "macro"})[name]
