"""One experiment becomes one HTML page that needs no other file and no network.

Every number on the page is read from the experiment's tables; nothing is computed twice.
Letters in shapes: k findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lucency.balance.change import Change
from lucency.judge.evaluate import MACRO, MICRO, TRIVIAL
from lucency.judge.metrics import METRICS
from lucency.plan import Plan
from lucency.predictions import Predictions
from lucency.protocol import Protocol, protocol_text
from lucency.show.balancing import draw_cooccurrence, draw_counts, draw_origins
from lucency.show.canvas import PLAIN, style_networks
from lucency.show.figures import (
    draw_auc,
    draw_macro_curves,
    draw_precision_recall,
    draw_roc,
    draw_training,
)
from lucency.show.page import render
from lucency.show.pictures import show_augmented, show_preparation, show_samples
from lucency.values import PARTS, Manifest, Prepared

STRIPS, SAMPLES, GALLERY, REJECTED = 3, 3, 24, 20  # at most this many are shown
NOTHING = {"value": np.nan, "low": np.nan, "high": np.nan, "note": "not in the table"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """All that one report shows."""

    protocol: Protocol
    manifest: Manifest  # all films of the source that were used
    prepared: Prepared
    plan: Plan  # rows of `prepared`; parts train, val and test
    change: Change  # of the training part by balancing
    augmented: Sequence[tuple[str, np.ndarray]]  # caption and uint8 picture
    predictions: Sequence[Predictions]  # one a network, parts val and test
    histories: Mapping[str, pd.DataFrame]  # epoch, step, train_loss, val_loss, val_auc, …
    networks: pd.DataFrame  # network, parameters, weights, provenance, epochs, kept_epoch, …
    thresholds: pd.DataFrame  # network, finding, threshold
    metrics: pd.DataFrame  # of judge.evaluate, test part, every network and the trivial predictor
    comparison: pd.DataFrame  # of judge.compare
    ranking: pd.DataFrame  # of judge.rank
    conclusion: str
    warnings: pd.DataFrame  # severity, message, count

    def __post_init__(self) -> None:
        predicted = [predictions.network for predictions in self.predictions]
        judged = {*predicted, TRIVIAL}
        _require(predicted, self.networks["network"], "networks")
        _require(predicted, self.ranking["network"], "ranking")
        _require(predicted, self.histories, "histories")
        _require(judged, self.metrics["network"].unique(), "metrics")


def write_report(experiment: Experiment, *, file: Path) -> None:
    """Write the whole experiment as one HTML file; the same experiment gives the same bytes.

    Films are read again from `manifest.facts["path"]` to show them before preparation; those that
    are no longer there are left out, and the page says so.
    """
    page = render(
        "report.html.jinja",
        **_about(experiment),
        **_scores(experiment),
        **_drawn(experiment),
        **_origins(experiment),
    )
    file.write_text(page, encoding="utf-8")


def _require(expected: Sequence[str] | set[str], found: Any, table: str) -> None:
    if set(expected) != set(found):
        raise ValueError(
            f"{table}: found {', '.join(sorted(found))}; expected {', '.join(sorted(expected))}: "
            "make every table of the report from the same networks"
        )


def _about(experiment: Experiment) -> dict[str, Any]:
    protocol, manifest = experiment.protocol, experiment.manifest
    return {
        "protocol": protocol,
        "protocol_text": protocol_text(protocol),
        "leaking": protocol.split.method == "image" or protocol.balance.before_split,
        "origin": manifest.origin.rstrip("."),
        "films": len(manifest),
        "patients": len(np.unique(manifest.patient)),
        "findings": experiment.prepared.manifest.findings,
        "conclusion": experiment.conclusion,
        "warnings": experiment.warnings.to_dict("records"),
    }


def _scores(experiment: Experiment) -> dict[str, Any]:
    metrics = experiment.metrics.fillna({"note": ""})
    score = _by_key(metrics, "network", "finding", "metric")
    difference = _by_key(experiment.comparison, "network", "other", "finding", "metric")
    ranking = _by_key(experiment.ranking, "network")
    order = [network for (network,) in ranking]
    return {
        "order": order,
        "judged": [*order, TRIVIAL],
        "networks": _by_key(experiment.networks, "network"),
        "ranking": ranking,
        "score": lambda *key: score.get(key, NOTHING),
        "metrics": list(dict.fromkeys(metrics["metric"])),
        "headings": {name: HEADINGS.get(name, name.replace("_", " ")) for name in METRICS},
        "meanings": METRICS,
        "averages": {
            MACRO: "mean over findings",
            MICRO: "pooled over all pairs of film and finding",
        },
        "macro": MACRO,
        "difference": lambda *key: difference.get(key, NOTHING),
        "pairs": list(dict.fromkeys(key[:2] for key in difference)),
        "threshold": _by_key(experiment.thresholds, "network", "finding"),
        "trivial": TRIVIAL,
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


def _drawn(experiment: Experiment) -> dict[str, Any]:
    several, best = experiment.predictions, str(experiment.ranking["network"].iloc[0])
    style = style_networks([one.network for one in several])
    kept_epoch = experiment.networks.set_index("network")["kept_epoch"].to_dict()
    findings, seed = experiment.prepared.manifest.findings, experiment.protocol.judging.seed
    change = experiment.change
    fitted = experiment.thresholds[experiment.thresholds["network"] == best].set_index("finding")
    return {
        "best": best,
        "style": {**style, TRIVIAL: PLAIN},
        "auc_figure": Markup(draw_auc(experiment.metrics, findings=findings, style=style)),
        "macro_figure": Markup(draw_macro_curves(several, style=style)),
        "roc_figure": Markup(draw_roc(several, style=style, best=best)),
        "precision_figure": Markup(draw_precision_recall(several, style=style, best=best)),
        "training_figure": Markup(
            draw_training(experiment.histories, kept_epoch=kept_epoch, style=style)
        ),
        "counts_figure": Markup(draw_counts(change.counts)),
        "cooccurrence_figure": Markup(draw_cooccurrence(change.cooccurrence, list(findings))),
        "origins_figure": Markup(draw_origins(change.origins)),
        "seed": seed,
        "strips": show_preparation(experiment.prepared, films=STRIPS, seed=seed),
        "augmented": show_augmented(experiment.augmented[:GALLERY]),
        "augmented_total": len(experiment.augmented),
        "groups": show_samples(
            next(one for one in several if one.network == best),
            prepared=experiment.prepared,
            threshold=fitted.loc[list(findings), "threshold"].to_numpy(dtype=np.float64),
            films=SAMPLES,
            seed=seed,
        ),
    }


def _origins(experiment: Experiment) -> dict[str, Any]:
    rejected = experiment.prepared.rejected
    return {
        "imbalance": experiment.change.counts.to_dict("records"),
        "summary": experiment.change.summary.to_dict("records"),
        "measures": MEASURES,
        "parts": [_part(experiment, part) for part in PARTS],
        "rejected": rejected.head(REJECTED).to_dict("records"),
        "rejected_total": len(rejected),
        "unused": len(experiment.prepared.manifest) - len(np.unique(experiment.plan.row)),
    }


def _part(experiment: Experiment, part: str) -> dict[str, Any]:
    """Return what is seen of one part: entries of the plan, and the films and patients behind."""
    mine = experiment.plan.row[experiment.plan.part == part]
    films = experiment.prepared.manifest.take(np.unique(mine))
    positives = np.nansum(films.label, axis=0).tolist()
    return {
        "name": part,
        "entries": len(mine),
        "films": len(films),
        "patients": len(np.unique(films.patient)),
        "positives": dict(zip(films.findings, positives, strict=True)),
    }


HEADINGS = {
    "auc": "AUC", "average_precision": "Average precision", "f1": "F1", "precision": "Precision",
    "recall": "Recall", "specificity": "Specificity", "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy", "bce": "BCE", "brier": "Brier", "ece": "ECE",
}  # fmt: skip
MEASURES = {
    "instances": "Films", "labels": "Findings", "cardinality": "Cardinality",
    "density": "Density", "labelsets": "Labelsets",
    "max_ir": "Largest IRLbl", "mean_ir": "MeanIR", "cvir": "CVIR", "scumble": "SCUMBLE",
    "scumble_cv": "SCUMBLE.CV", "tcs": "TCS",
}  # fmt: skip
