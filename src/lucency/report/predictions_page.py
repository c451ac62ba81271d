"""What networks said of test films and what it is worth, as one HTML page.

The report of a run shows the same sections, from the same values. Every number on a page is read
from its tables; nothing is computed twice.

Anybody's predictions heard: the tables of the page, made from test films alone, and the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lucency.audit.checks.issue import SplitTable, issue_table, ranked
from lucency.audit.checks.nih_checks import community_lists
from lucency.audit.checks.prediction_checks import CHECKS, suspect
from lucency.audit.checks.unverified import unverified
from lucency.core.manifest import Manifest
from lucency.core.predictions import Predictions
from lucency.evaluation.compare import LEVEL, OVER_FINDINGS
from lucency.evaluation.evaluate import MACRO, MICRO, PER_FILM_ROW, TRIVIAL
from lucency.evaluation.metrics import METRICS, PER_FILM
from lucency.evaluation.subgroups import worst_group
from lucency.evaluation.summary import Evaluation
from lucency.report.calibration_figures import draw_each_finding, draw_pooled
from lucency.report.curves import draw_auc, draw_macro_curves, draw_precision_recall, draw_roc
from lucency.report.html import render
from lucency.report.style import PLAIN, style_networks

CHOSEN = (
    "auc", "average_precision", "f1", "precision", "recall", "specificity", "accuracy", "bce",
    "brier", "ece",
)  # fmt: skip
HARD = "\N{NO-BREAK SPACE}"
NOTHING = {"note": "not in the table"} | dict.fromkeys(
    ("value", "difference", "low", "high", "p", "p_holm"), np.nan
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionsPage:
    """All that is shown of what networks said: of one network or several, one finding or more."""

    title: str
    seen: str  # films, patients and labels, in a sentence
    predictions: Sequence[Predictions]  # one a network; of their films, the test part is shown
    metrics: pd.DataFrame  # of evaluation.evaluate, every network and maybe the trivial predictor
    confusion: pd.DataFrame  # of evaluation.evaluate, of the same networks
    comparison: pd.DataFrame  # of evaluation.compare; empty where there is no pair
    ranking: pd.DataFrame  # of judge.rank, or empty: then networks stand as they came
    conclusion: str
    thresholds: pd.DataFrame  # network, finding, threshold, note
    threshold_origin: str  # where they come from, to stand behind "Thresholds:"
    reliability: pd.DataFrame  # of evaluation.calibration
    brier: pd.DataFrame  # of evaluation.calibration
    subgroups: pd.DataFrame  # of evaluation.subgroups, of one network
    worst_group: str
    issues: pd.DataFrame  # of audit.checks.issue
    checks: int  # of the leak doctor, how many were made

    def __post_init__(self) -> None:
        predicted = [one.network for one in self.predictions]
        scored = set(self.metrics["network"]) - {TRIVIAL}
        require_networks(predicted, scored, "metrics")
        require_networks(set(self.metrics["network"]), self.confusion["network"], "confusion")
        for name in ("thresholds", "reliability", "brier"):
            require_networks(predicted, getattr(self, name)["network"], name)
        if len(self.ranking):
            require_networks(predicted, self.ranking["network"], "ranking")

    @property
    def order(self) -> list[str]:
        """The networks, the highest ranked first."""
        if len(self.ranking):
            return self.ranking["network"].tolist()
        return [one.network for one in self.predictions]


def write_predictions_page(judged: PredictionsPage, *, file: Path) -> None:
    """Write all that was judged as one HTML file; the same tables give the same bytes."""
    file.write_text(render("judged.html.jinja", **page_values(judged)), encoding="utf-8")


def page_values(judged: PredictionsPage) -> dict[str, Any]:
    """Return what the shared sections show, by the names that they use."""
    return {
        "title": judged.title,
        "seen": judged.seen.rstrip("."),
        "findings": judged.predictions[0].findings,
        "conclusion": judged.conclusion,
        "leaking": False,
        "issues": judged.issues.to_dict("records"),
        "checks": judged.checks,
        "threshold": _by_key(judged.thresholds, "network", "finding"),
        "threshold_origin": judged.threshold_origin.rstrip("."),
        "confusion": _by_key(judged.confusion, "network", "finding"),
        "cells": CELLS,
        **_scores(judged),
        **_compared(judged),
        **_drawn(judged),
        **_calibration(judged),
        **_groups(judged),
    }


def require_networks(expected: Iterable[str], found: Iterable[str], table: str) -> None:
    """Raise ValueError unless a table is of the networks that are shown."""
    if set(expected) != set(found):
        raise ValueError(
            f"{table}: found {', '.join(sorted(set(found)))}; expected "
            f"{', '.join(sorted(expected))}: make every table of the page from the same networks"
        )


def _scores(judged: PredictionsPage) -> dict[str, Any]:
    metrics = judged.metrics.fillna({"note": ""})
    score = _by_key(metrics, "network", "finding", "metric")
    names = list(dict.fromkeys(metrics["metric"]))
    trivial = [TRIVIAL] if TRIVIAL in set(metrics["network"]) else []
    return {
        "order": judged.order,
        "judged": [*judged.order, *trivial],
        "trivial": TRIVIAL,
        "below_trivial": _below_trivial(score, judged.order) if trivial else [],
        "calls_nothing": score.get((TRIVIAL, MICRO, "recall"), NOTHING)["value"] == 0,
        "score": lambda *key: score.get(key, NOTHING),
        "chosen": [name for name in names if name in CHOSEN],
        "others": [name for name in names if name not in CHOSEN and name not in PER_FILM],
        "per_film": [name for name in names if name in PER_FILM],
        "per_film_row": PER_FILM_ROW,
        "meanings": METRICS | PER_FILM,
        "headings": {
            name: HEADINGS.get(name, name.replace("_", " ").capitalize()) for name in names
        },
        "averages": {
            MACRO: "mean over findings",
            MICRO: "pooled over all pairs of film and finding",
        },
        "macro": MACRO,
        "micro": MICRO,
    }


def _below_trivial(score: Mapping[tuple[str, ...], Any], networks: Sequence[str]) -> list[str]:
    """Return the networks whose pooled accuracy is below that of calling nothing positive."""
    accuracy = {
        one: score.get((one, MICRO, "accuracy"), NOTHING)["value"] for one in (TRIVIAL, *networks)
    }
    return [one for one in networks if accuracy[one] < accuracy[TRIVIAL]]


def _compared(judged: PredictionsPage) -> dict[str, Any]:
    difference = _by_key(judged.comparison, "network", "other", "finding", "metric")
    ranking = _by_key(judged.ranking, "network")
    return {
        "ranking": ranking,
        "sharing": Counter(row["rank"] for row in ranking.values()),
        "tied": sum(row["tied_with_best"] for row in ranking.values()),
        "difference": lambda *key: difference.get(key, NOTHING),
        "pairs": list(dict.fromkeys(key[:2] for key in difference)),
        "over_findings": OVER_FINDINGS,
        "level": LEVEL,
    }


def _by_key(table: pd.DataFrame, *columns: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the rows of `table` under their key; raises ValueError when a key is there twice."""
    rows = {tuple(row[name] for name in columns): row for row in table.to_dict("records")}
    if len(rows) < len(table):
        raise ValueError(
            f"{len(table) - len(rows)} rows repeat another's {', '.join(columns)}; expected each "
            "once: make the table anew"
        )
    return rows


def _drawn(judged: PredictionsPage) -> dict[str, Any]:
    several, best = judged.predictions, judged.order[0]
    style = style_networks([one.network for one in several])
    findings = several[0].findings
    figures = {
        "auc_figure": draw_auc(judged.metrics, findings=findings, style=style),
        "macro_figure": draw_macro_curves(several, style=style),
        "roc_figure": draw_roc(several, style=style, best=best),
        "precision_figure": draw_precision_recall(several, style=style, best=best),
        "pooled_figure": draw_pooled(judged.reliability, style=style),
        "reliability_figure": draw_each_finding(
            judged.reliability, network=best, findings=findings, look=style[best]
        ),
    }
    drawings = {name: Markup(drawing) for name, drawing in figures.items()}
    return {"best": best, "style": {**style, TRIVIAL: PLAIN}, **drawings}


def _calibration(judged: PredictionsPage) -> dict[str, Any]:
    row = _by_key(judged.brier, "network", "finding")
    findings = judged.predictions[0].findings
    return {
        "brier_parts": BRIER_PARTS,
        "brier_means": [row[network, MACRO] for network in judged.order],
        "brier_each": {
            network: [row[network, finding] for finding in findings] for network in judged.order
        },
    }


def _groups(judged: PredictionsPage) -> dict[str, Any]:
    macro = judged.subgroups.loc[judged.subgroups["finding"] == MACRO]
    return {
        "worst_group": judged.worst_group,
        "grouped": ", ".join(macro["network"].unique()),
        "groups": {
            fact: rows.to_dict("records") for fact, rows in macro.groupby("fact", sort=False)
        },
    }


HEADINGS = {
    "auc": "AUC", "partial_auc": "Partial AUC", "f1": "F1", "npv": "NPV", "mcc": "MCC",
    "bce": "BCE", "ece": "ECE", "recall_at_specificity": f"Recall{HARD}at specificity{HARD}.9",
    "specificity_at_recall": f"Specificity{HARD}at recall{HARD}.9",
}  # fmt: skip
CELLS = {
    "tp": "True positives", "fp": "False positives", "fn": "False negatives",
    "tn": "True negatives",
}  # fmt: skip
BRIER_PARTS = {
    "Brier": "brier", "Reliability": "reliability", "Resolution": "resolution",
    "Uncertainty": "uncertainty", "Within": "within",
}  # fmt: skip


def write_external_page(
    several: Sequence[Predictions], *, evaluation: Evaluation, films: Manifest, out: Path
) -> None:
    """Write report.html into `out`: all that can be said of predictions of the same test films.

    `films` are those of the label file, with its facts.
    """
    first, groups = several[0], evaluation.subgroups
    known = community_lists(SplitTable(image=first.image, patient=first.patient, part=first.part))
    issues = [*known, *(one for each in several for one in suspect(unverified(each)))]
    fitted = bool(evaluation.thresholds["positives"].to_numpy().any())
    write_predictions_page(
        PredictionsPage(
            title=", ".join(one.network for one in several),
            seen=_seen(first, films),
            predictions=several,
            metrics=evaluation.metrics,
            confusion=evaluation.confusion,
            comparison=evaluation.comparison,
            ranking=evaluation.ranking,
            conclusion=evaluation.conclusion,
            thresholds=evaluation.thresholds,
            threshold_origin="fitted on validation films" if fitted else "not fitted, .5 for all",
            reliability=evaluation.reliability,
            brier=evaluation.brier,
            subgroups=groups,
            worst_group=worst_group(groups),
            issues=issue_table(ranked(list(dict.fromkeys(issues)))),
            checks=len(CHECKS) + 1,
        ),
        file=out / "report.html",
    )


def _seen(said: Predictions, films: Manifest) -> str:
    """Return which films and labels these are, in a sentence."""
    patients = len(np.unique(said.patient))
    return f"{len(said):,} films of {patients:,} patients, labelled by {films.origin}"
