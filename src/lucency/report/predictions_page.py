"""The page of an evaluation of predictions; a run's report shows the same sections.

Every number on a page is read from the tables of an `Evaluation`; nothing is computed twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.checks.issue import SplitTable, issue_table, ranked, unverified
from lucency.audit.checks.nih_checks import community_lists
from lucency.audit.checks.prediction_checks import CHECKS, check_predictions
from lucency.core.manifest import Manifest, counted
from lucency.core.predictions import Predictions
from lucency.evaluation.compare import LEVEL, OVER_FINDINGS
from lucency.evaluation.evaluate import MACRO, MICRO, PER_FILM_ROW, TRIVIAL
from lucency.evaluation.metrics import METRICS, PER_FILM
from lucency.evaluation.subgroups import worst_group
from lucency.evaluation.summary import Evaluation, macro_over
from lucency.report.metric_figures import choose_findings, draw_evaluation
from lucency.report.rendering import PLAIN, styles_of, write_page

CHOSEN = (
    "auc", "average_precision", "f1", "precision", "recall", "specificity", "accuracy", "bce",
    "brier", "ece",
)  # fmt: skip
HARD = "\N{NO-BREAK SPACE}"
NO_ROW = {"note": "not in the table"} | dict.fromkeys(
    ("value", "difference", "low", "high", "p", "p_holm"), np.nan
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionsPage:
    """All that a page of predictions shows: of one network or several, one finding or more.

    Raises ValueError where a table of `evaluation` holds other networks than `predictions`.
    """

    title: str
    data_set: str  # films, patients and labels, in a sentence
    predictions: Sequence[Predictions]  # one a network; of their films, the test part is shown
    evaluation: Evaluation  # without a trivial predictor, a pair or a ranking where there is none
    threshold_origin: str  # behind "Thresholds:"
    issues: pd.DataFrame  # of audit.checks.issue
    checks: int  # number of checks of the leak doctor

    def __post_init__(self) -> None:
        expected, found = [one.network for one in self.predictions], self.evaluation
        scored = set(found.metrics["network"])
        require_networks(expected, scored - {TRIVIAL}, "metrics")
        require_networks(scored, found.confusion["network"], "confusion")
        for name in ("thresholds", "reliability", "brier"):
            require_networks(expected, getattr(found, name)["network"], name)
        if len(found.ranking):
            require_networks(expected, found.ranking["network"], "ranking")

    @property
    def order(self) -> list[str]:
        """The networks by rank, or in the order of `predictions` where none is ranked."""
        if len(self.evaluation.ranking):
            return self.evaluation.ranking["network"].tolist()
        return [one.network for one in self.predictions]


def write_external_page(
    several: Sequence[Predictions],
    *,
    evaluation: Evaluation,
    films: Manifest,
    out: Path,
    tables: Sequence[str] = (),
) -> None:
    """Write report.html into `out`: the evaluation of predictions of the same test films.

    `films` are those of the label file, with its facts; `tables` the networks that came in tables,
    whatever their split says.
    """
    first = several[0]
    known = community_lists(SplitTable(image=first.image, patient=first.patient, part=first.part))
    checked = map(unverified, several)
    checked = [replace(one, own=one.own and one.network not in tables) for one in checked]
    issues = [*known, *(issue for one in checked for issue in check_predictions(one))]
    fitted = bool(evaluation.thresholds["positives"].to_numpy().any())
    patients = len(np.unique(first.patient))
    page = PredictionsPage(
        title=", ".join(one.network for one in several),
        data_set=f"{counted(len(first), 'film')} of {counted(patients, 'patient')}, labelled by "
        f"{films.origin}",
        predictions=several,
        evaluation=evaluation,
        threshold_origin="fitted on validation films" if fitted else "not fitted, .5 for all",
        issues=issue_table(ranked(list(dict.fromkeys(issues)))),
        checks=len(CHECKS) + 1,
    )
    write_page(out / "report.html", "predictions.html.jinja", **page_values(page))


def page_values(page: PredictionsPage) -> dict[str, Any]:
    """Return the values of the shared sections, by the names of sections.html.jinja."""
    several, best, found = page.predictions, page.order[0], page.evaluation
    style, findings = styles_of([one.network for one in several]), several[0].findings
    drawn = choose_findings(areas_of(found.metrics, network=best, findings=findings))
    return {
        "title": page.title,
        "data_set": page.data_set.rstrip("."),
        "findings": findings,
        "drawn": drawn,
        "macro_over": macro_over(several[0].of("test").label, findings),
        "folded": [name for name in findings if name not in drawn],
        "conclusion": found.conclusion,
        "issues": page.issues.to_dict("records"),
        "checks": page.checks,
        "threshold": _by_key(found.thresholds, "network", "finding"),
        "threshold_origin": page.threshold_origin.rstrip("."),
        "confusion": _by_key(found.confusion, "network", "finding"),
        "brier": _by_key(found.brier, "network", "finding"),
        **_metrics(page),
        **_comparison(found),
        "best": best,
        "style": {**style, TRIVIAL: PLAIN},
        **draw_evaluation(several, evaluation=found, best=best, findings=drawn, style=style),
        **_subgroups(found.subgroups),
        **CONSTANTS,
    }


def areas_of(metrics: pd.DataFrame, *, network: str, findings: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a network's AUC, one a finding, in this order."""
    mine = metrics.loc[(metrics["network"] == network) & (metrics["metric"] == "auc")]
    return mine.set_index("finding").reindex(list(findings)).reset_index()


def require_networks(expected: Iterable[str], found: Iterable[str], table: str) -> None:
    """Raise ValueError unless a table is of the networks that are shown."""
    if set(expected) != set(found):
        raise ValueError(
            f"{table}: found {', '.join(sorted(set(found)))}; expected "
            f"{', '.join(sorted(expected))}: make every table of the page from the same networks"
        )


def _metrics(page: PredictionsPage) -> dict[str, Any]:
    metrics = page.evaluation.metrics.fillna({"note": ""})
    score = _by_key(metrics, "network", "finding", "metric")
    names = list(dict.fromkeys(metrics["metric"]))
    trivial = [TRIVIAL] if TRIVIAL in set(metrics["network"]) else []
    pooled = {
        one: score.get((one, MICRO, "accuracy"), NO_ROW)["value"] for one in (TRIVIAL, *page.order)
    }
    return {
        "order": page.order,
        "predictors": [*page.order, *trivial],
        "below_trivial": [one for one in page.order if pooled[one] < pooled[TRIVIAL]],
        "calls_nothing": score.get((TRIVIAL, MICRO, "recall"), NO_ROW)["value"] == 0,
        "score": lambda *key: score.get(key, NO_ROW),
        "chosen": [name for name in names if name in CHOSEN],
        "others": [name for name in names if name not in CHOSEN and name not in PER_FILM],
        "per_film": [name for name in names if name in PER_FILM],
        "headings": {name: name.replace("_", " ").capitalize() for name in names} | HEADINGS,
    }


def _comparison(evaluation: Evaluation) -> dict[str, Any]:
    difference = _by_key(evaluation.comparison, "network", "other", "finding", "metric")
    ranking = _by_key(evaluation.ranking, "network")
    return {
        "ranking": ranking,
        "sharing": Counter(row["rank"] for row in ranking.values()),
        "tied": sum(row["tied_with_best"] for row in ranking.values()),
        "difference": lambda *key: difference.get(key, NO_ROW),
        "pairs": list(dict.fromkeys(key[:2] for key in difference)),
    }


def _by_key(table: pd.DataFrame, *columns: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the rows of `table` by their key; raises ValueError for a repeated key."""
    rows = {tuple(row[name] for name in columns): row for row in table.to_dict("records")}
    if len(rows) < len(table):
        raise ValueError(
            f"{len(table) - len(rows)} rows repeat another's {', '.join(columns)}; expected each "
            "once: make the table again"
        )
    return rows


def _subgroups(subgroups: pd.DataFrame) -> dict[str, Any]:
    macro = subgroups.loc[subgroups["finding"] == MACRO]
    facts = macro.groupby("fact", sort=False)
    return {
        "worst_group": worst_group(subgroups),
        "grouped": ", ".join(macro["network"].unique()),
        "groups": {fact: rows.to_dict("records") for fact, rows in facts},
    }


HEADINGS = {
    "auc": "AUC", "partial_auc": "Partial AUC", "f1": "F1", "npv": "NPV", "mcc": "MCC",
    "bce": "BCE", "ece": "ECE", "recall_at_specificity": f"Recall{HARD}at specificity{HARD}.9",
    "specificity_at_recall": f"Specificity{HARD}at recall{HARD}.9",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    "leaking": False, "level": LEVEL, "macro": MACRO, "meanings": METRICS | PER_FILM,
    "micro": MICRO, "over_findings": OVER_FINDINGS, "per_film_row": PER_FILM_ROW,
    "trivial": TRIVIAL,
    "averages": {MACRO: "mean over findings", MICRO: "pooled over all pairs of film and finding"},
    "brier_parts": ("brier", "reliability", "resolution", "uncertainty", "within"),
    "cells": {
        "tp": "True positives", "fp": "False positives", "fn": "False negatives",
        "tn": "True negatives",
    },
}  # fmt: skip
