"""The report shows what its tables say, all of it, and nothing from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.balance.measures import measure
from lucency.judge.compare import compare, conclude, rank
from lucency.judge.evaluate import evaluate, trivial
from lucency.judge.metrics import METRICS
from lucency.protocol import parse_protocol
from lucency.show.report import Experiment, decimal, whole, write_report
from lucency.values import (
    FINDINGS,
    NO_FINDING,
    Manifest,
    Plan,
    Predictions,
    Preparation,
    Prepared,
    empty_boxes,
)

NETWORKS = ("alexnet", "densenet121", "inception_resnet_v2", "mobilenetv2_100")
SECTIONS = (
    "warnings", "comparison", "findings", "curves", "training", "balance", "preparation",
    "augmentation", "samples", "parts", "protocol", "numbers", "versions",
)  # fmt: skip
FILMS, SIZE = 240, 32
STEPS = {"train": 0.7, "val": 0.15, "test": 0.15}


class Page(HTMLParser):
    """What a test asks of a page: its tables, ids, headings, pictures and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data


def an_experiment(
    *,
    findings: tuple[str, ...] = FINDINGS,
    networks: tuple[str, ...] = NETWORKS,
    folder: Path | None = None,
    **choices: object,
) -> Experiment:
    """Invent films, labels and scores; the tables are made by `judge`, as in a real run."""
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
    metrics = pd.concat(tables, ignore_index=True)
    comparison = compare(test, resamples=25, seed=0)
    ranking = rank(metrics, comparison)
    train = label[:140]
    before, after = (
        measure(one, names=findings) for one in (train, np.vstack([train, train[:30]]))
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
        plan=Plan(
            row=np.r_[np.arange(FILMS), np.arange(30)],
            copy=np.r_[np.zeros(FILMS, np.int64), np.ones(30, np.int64)],
            transform=np.array([""] * FILMS + ["reference@1.0#1"] * 30),
            part=np.r_[part, ["train"] * 30],
            weight=np.ones((FILMS + 30, len(findings)), np.float32),
        ),
        imbalance=pd.DataFrame({
            "finding": findings,
            "before": before.per_finding["count"], "after": after.per_finding["count"],
            "irlbl_before": before.per_finding["irlbl"], "irlbl_after": after.per_finding["irlbl"],
        }),
        imbalance_summary=pd.DataFrame({
            "measure": before.summary.index,
            "before": before.summary.to_numpy(), "after": after.summary.to_numpy(),
        }),
        augmented=[(f"film {n}, sharpened", random.integers(0, 256, (64, 64), np.uint8)) for n in range(6)],
        predictions=several,
        histories={one: _history(random) for one in networks},
        networks=pd.DataFrame({
            "network": networks, "parameters": 7_000_000, "weights": "random", "provenance": "none",
            "epochs": 6, "best_epoch": 4, "minutes": 1.25, "films_per_second": 88.0, "device": "cpu",
        }),
        thresholds=pd.DataFrame(
            [(n, f, 0.3) for n in networks for f in findings],
            columns=["network", "finding", "threshold"],
        ),
        metrics=metrics,
        comparison=comparison,
        ranking=ranking,
        conclusion=conclude(ranking),
        warnings=pd.DataFrame({
            "severity": ["serious", "note"],
            "message": ["few positives in the test part: Hernia", "random initialisation"],
            "count": [3, 4],
        }),
    )  # fmt: skip


def _predicted(network: str, manifest: Manifest, part: np.ndarray, skill: float) -> Predictions:
    random = np.random.default_rng(sum(map(ord, network)))
    noise = random.normal(size=manifest.label.shape)
    judged = part != "train"
    return Predictions(
        network=network,
        split="0123456789abcdef",
        findings=manifest.findings,
        image=manifest.image[judged],
        patient=manifest.patient[judged],
        part=part[judged],
        label=manifest.label[judged],
        logit=(skill * manifest.label + noise - 1.5).astype(np.float32)[judged],
        feature=np.empty((int(judged.sum()), 0), np.float32),
    )


def _history(random: np.random.Generator) -> pd.DataFrame:
    epoch = np.arange(1, 7)
    fall = np.exp(-epoch / 3) + random.normal(0, 0.01, 6)
    return pd.DataFrame({
        "epoch": epoch, "step": epoch * 9, "train_loss": 0.2 + fall, "val_loss": 0.25 + fall,
        "val_auc": 0.8 - fall / 3, "learning_rate": 1e-4, "films_per_second": 90.0, "seconds": 8.0,
    })  # fmt: skip
