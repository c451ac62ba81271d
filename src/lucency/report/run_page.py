"""The report of a run: one HTML page that needs no other file and no network.

Every number on the page is read from the tables of an `Experiment`; nothing is computed twice.
Letters in shapes: a films of held-out patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int64
from markupsafe import Markup

from lucency.audit.checks.issue import issue_table
from lucency.audit.label_quality import AuditResults
from lucency.balance.imbalance import Change
from lucency.config.protocol import Protocol, protocol_text
from lucency.core.manifest import PARTS, Manifest, Prepared
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import Failures
from lucency.ensemble.ensembles import EnsembleResults
from lucency.evaluation.leakage_inflation import StudyComparison
from lucency.evaluation.preparation_grid import PreparationStudy
from lucency.evaluation.summary import Evaluation
from lucency.evaluation.thresholds import HALF
from lucency.explain.heatmap_results import HeatmapResults
from lucency.report.chapters import audit_values, ensemble_values, heatmap_values, study_values
from lucency.report.curves import draw_training
from lucency.report.film_figures import show_augmented, show_preparation, show_samples
from lucency.report.html import render, render_chapter
from lucency.report.imbalance_figures import (
    draw_cooccurrence,
    draw_counts,
    draw_origins,
    draw_steps,
    finding_rows,
    has_steps,
)
from lucency.report.predictions_page import PredictionsPage, page_values, require_networks
from lucency.report.preparation_page import preparation_values

Values = dict[str, Any]
STRIPS, SAMPLES, GALLERY, REJECTED = 3, 3, 24, 20  # at most this many are shown


class Gallery(NamedTuple):
    """Captions and uint8 pictures of augmentation: all steps together, and each step alone."""

    together: Sequence[tuple[str, np.ndarray]]
    alone: Sequence[tuple[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """All that the report of a run shows; None where a chapter could not be made."""

    protocol: Protocol
    manifest: Manifest  # all films of the source that were used
    prepared: Prepared
    plan: Plan  # rows of `prepared`; parts train, val and test
    change: Change | None  # by balancing
    gallery: Gallery | None  # of augmentation
    predictions: Sequence[Predictions]  # one a network, parts val and test
    histories: Mapping[str, pd.DataFrame]  # epoch, step, train_loss, val_loss, val_auc, …
    networks: pd.DataFrame  # network, parameters, weights, provenance, epochs, kept_epoch, …
    evaluation: Evaluation  # of the test part, with the trivial predictor
    issues: pd.DataFrame | None  # of audit.checks.issue
    checks: int  # number of checks of the leak doctor
    study: StudyComparison | None  # published metrics, and those on held-out patients
    heatmaps: HeatmapResults | None  # of one of the networks
    audit: AuditResults | None  # of the labels, and of the same network
    ensembles: EnsembleResults | None
    apart: Int64[np.ndarray, " a"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    # In the run's folder, if any.
    preparations: PreparationStudy = field(default_factory=PreparationStudy)

    def __post_init__(self) -> None:
        networks = [predictions.network for predictions in self.predictions]
        require_networks(networks, self.networks["network"], "networks")
        require_networks(networks, self.histories, "histories")
        _predictions_page(self)  # which checks the tables of the evaluation


def write_report(experiment: Experiment, *, file: Path, failures: Failures) -> None:
    """Write the whole experiment as one HTML file; the same experiment gives the same bytes.

    Films are read again from `manifest.facts["path"]` to show them before preprocessing; where they
    are no longer there, the page says so. A chapter that cannot be drawn is added to `failures`;
    the page names it and the reason.
    """
    shown = page_values(_predictions_page(experiment)) | _head(experiment)
    for chapter, values in CHAPTERS.items():
        if chapter not in failures.reasons():
            drawn = failures.attempt(chapter, partial(values, experiment, shown))
            shown |= drawn if drawn is not None else {}
    page = render("report.html.jinja", **shown, failed=failures.reasons())
    file.write_text(page, encoding="utf-8")


def _predictions_page(experiment: Experiment) -> PredictionsPage:
    """Return what the report shares with a page of external predictions."""
    choices = experiment.protocol.evaluation
    rule = RULES[choices.threshold].format(recall=choices.recall)
    fitted = f"fitted on validation films ({rule})"
    return PredictionsPage(
        title=experiment.protocol.name,
        data_set=experiment.manifest.origin,
        predictions=experiment.predictions,
        evaluation=experiment.evaluation,
        threshold_origin=rule if choices.threshold == HALF else fitted,
        issues=issue_table([]) if experiment.issues is None else experiment.issues,
        checks=experiment.checks,
    )


def _head(experiment: Experiment) -> Values:
    protocol, manifest = experiment.protocol, experiment.manifest
    rejected, held_out = experiment.prepared.rejected, _held_out(experiment)
    return {
        "protocol": protocol,
        "protocol_text": protocol_text(protocol),
        "leaking": protocol.split.method == "image" or protocol.balance.before_split,
        "films": len(manifest),
        "patients": len(np.unique(manifest.patient)),
        "networks": {row["network"]: row for row in experiment.networks.to_dict("records")},
        "seed": protocol.evaluation.seed,
        "held_out": held_out,
        "parts": [_part(experiment, part) for part in PARTS],
        "rejected": rejected.head(REJECTED).to_dict("records"),
        "rejected_total": len(rejected),
        "unused": len(experiment.prepared.manifest)
        - len(np.unique(experiment.plan.row))
        - held_out.get("films", 0),
        "ensembles": "",
        "study": "",
    }


def _study(experiment: Experiment, shown: Values) -> Values:
    assert experiment.study is not None, "a chapter that failed before is not drawn"
    return _chapter("study", study_values(experiment.study), shown)


def _heatmaps(experiment: Experiment, shown: Values) -> Values:
    assert experiment.heatmaps is not None, "a chapter that failed before is not drawn"
    values = heatmap_values(experiment.heatmaps, prepared=experiment.prepared)
    return _chapter("heatmaps", values, shown)


def _audit(experiment: Experiment, shown: Values) -> Values:
    assert experiment.audit is not None, "a chapter that failed before is not drawn"
    values = audit_values(experiment.audit, source=experiment.protocol.data.source)
    return _chapter("audit", values, shown)


def _ensembles(experiment: Experiment, shown: Values) -> Values:
    assert experiment.ensembles is not None, "a chapter that failed before is not drawn"
    return _chapter("ensembles", ensemble_values(experiment.ensembles), shown)


def _chapter(name: str, values: Values, shown: Values) -> Values:
    """Return the chapter as HTML, by its name; empty where there are no values."""
    return {name: render_chapter(f"{name}.html.jinja", shown, values) if values else ""}


def _training(experiment: Experiment, shown: Values) -> Values:
    kept_epoch = experiment.networks.set_index("network")["kept_epoch"].to_dict()
    figure = draw_training(experiment.histories, kept_epoch=kept_epoch, style=shown["style"])
    return {"training_figure": Markup(figure)}


def _balance(experiment: Experiment, shown: Values) -> Values:
    del shown
    change, findings = experiment.change, experiment.prepared.manifest.findings
    assert change is not None, "a chapter that failed before is not drawn"
    return {
        "population": change.population,
        "totals": change.totals.set_index("when").to_dict("index"),
        "counts_figure": Markup(draw_counts(change)),
        "steps_figure": Markup(draw_steps(change.steps) if has_steps(change.steps) else ""),
        "cooccurrence_figure": Markup(draw_cooccurrence(change.cooccurrence, list(findings))),
        "origins_figure": Markup(draw_origins(change.origins)),
        "imbalance": finding_rows(change).to_dict("records"),
        "summary": change.summary.to_dict("records"),
        "measures": SUMMARY,
    }


def _preparation(experiment: Experiment, shown: Values) -> Values:
    strips = show_preparation(experiment.prepared, films=STRIPS, seed=shown["seed"])
    return {
        "strips": [strip._replace(histogram=Markup(strip.histogram)) for strip in strips],
        "preparation_study": preparation_values(experiment.preparations),
    }


def _augmentation(experiment: Experiment, shown: Values) -> Values:
    del shown
    assert experiment.gallery is not None, "a chapter that failed before is not drawn"
    together, alone = experiment.gallery
    return {
        "augmented": show_augmented(together[:GALLERY]),
        "augmented_total": len(together),
        "steps_alone": show_augmented(alone),
    }


def _samples(experiment: Experiment, shown: Values) -> Values:
    best, findings = shown["best"], experiment.prepared.manifest.findings
    thresholds = experiment.evaluation.thresholds
    fitted = thresholds[thresholds["network"] == best].set_index("finding")
    return {
        "sampled": show_samples(
            next(one for one in experiment.predictions if one.network == best),
            prepared=experiment.prepared,
            threshold=fitted.loc[list(findings), "threshold"].to_numpy(dtype=np.float64),
            films=SAMPLES,
            seed=shown["seed"],
        )
    }


def _held_out(experiment: Experiment) -> dict[str, int]:
    """Return the numbers of held-out films and patients; empty where there are none."""
    patient = experiment.prepared.manifest.patient[experiment.apart]
    return {"films": len(patient), "patients": len(np.unique(patient))} if len(patient) else {}


def _part(experiment: Experiment, part: str) -> Values:
    """Return the counts of one part: entries of the plan, and their films and patients."""
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


RULES = {
    "f1": "largest F1", "youden": "largest recall + specificity",
    "recall": "the highest with a recall of {recall:g} or more",
    "half": ".5 for every finding, not fitted",
}  # fmt: skip
SUMMARY = {
    "instances": "Films", "labels": "Findings", "cardinality": "Cardinality",
    "density": "Density", "labelsets": "Labelsets",
    "max_ir": "Largest IRLbl", "mean_ir": "MeanIR", "cvir": "CVIR", "scumble": "SCUMBLE",
    "scumble_cv": "SCUMBLE.CV", "tcs": "TCS",
}  # fmt: skip
CHAPTERS: dict[str, Callable[[Experiment, Values], Values]] = {
    "study": _study,
    "ensembles": _ensembles,
    "heatmaps": _heatmaps,
    "audit": _audit,
    "training": _training,
    "balance": _balance,
    "preparation": _preparation,
    "augmentation": _augmentation,
    "samples": _samples,
}
