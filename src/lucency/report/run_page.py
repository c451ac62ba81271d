"""One experiment becomes one HTML page that needs no other file and no network.

Every number on the page is read from the experiment's tables; nothing is computed twice.
Letters in shapes: k findings, a films of patients set apart.
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

from lucency.audit.audit_results import AuditResults
from lucency.audit.checks.issue import issue_table
from lucency.balance.imbalance import Change
from lucency.config.protocol import Protocol, protocol_text
from lucency.core.manifest import PARTS, Manifest, Prepared
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import Failures
from lucency.ensemble.ensemble_results import EnsembleResults
from lucency.evaluation.evaluate import TRIVIAL
from lucency.evaluation.preparation_grid import PreparationStudy, no_study
from lucency.evaluation.reference_study import StudyComparison
from lucency.evaluation.thresholds import HALF
from lucency.explain.heatmap_results import HeatmapResults
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
from lucency.report.preparation_page import clahe_values
from lucency.report.sections import audit_values, ensemble_values, heatmap_values, study_values

Values = dict[str, Any]
STRIPS, SAMPLES, GALLERY, REJECTED = 3, 3, 24, 20  # at most this many are shown


class Gallery(NamedTuple):
    """Captions and uint8 pictures: films beside their changes, one film and each step alone."""

    together: Sequence[tuple[str, np.ndarray]]
    alone: Sequence[tuple[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """All that one report shows; None where what a chapter shows could not be made."""

    protocol: Protocol
    manifest: Manifest  # all films of the source that were used
    prepared: Prepared
    plan: Plan  # rows of `prepared`; parts train, val and test
    change: Change | None  # by balancing
    gallery: Gallery | None  # of augmentation
    predictions: Sequence[Predictions]  # one a network, parts val and test
    histories: Mapping[str, pd.DataFrame]  # epoch, step, train_loss, val_loss, val_auc, …
    networks: pd.DataFrame  # network, parameters, weights, provenance, epochs, kept_epoch, …
    thresholds: pd.DataFrame  # network, finding, threshold
    metrics: (
        pd.DataFrame
    )  # of evaluation.evaluate, test part, every network and the trivial predictor
    confusion: pd.DataFrame  # of evaluation.evaluate, of the same
    comparison: pd.DataFrame  # of evaluation.compare
    ranking: pd.DataFrame  # of judge.rank
    conclusion: str
    reliability: pd.DataFrame  # of evaluation.calibration
    brier: pd.DataFrame  # of evaluation.calibration
    subgroups: pd.DataFrame  # of evaluation.subgroups, of the highest ranked network
    worst_group: str
    issues: pd.DataFrame | None  # of audit.checks.issue
    checks: int  # of the leak doctor, how many were made
    beside: StudyComparison | None  # what was published, and what is reached on patients set apart
    sight: HeatmapResults | None  # where one of the networks looked
    doubts: AuditResults | None  # what speaks against the same network's scores
    combined: EnsembleResults | None  # what was made of the networks
    apart: Int64[np.ndarray, " a"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    preparations: PreparationStudy = field(default_factory=no_study)  # in the run's folder, if any

    def __post_init__(self) -> None:
        predicted = [predictions.network for predictions in self.predictions]
        require_networks(predicted, self.networks["network"], "networks")
        require_networks(predicted, self.histories, "histories")
        require_networks([*predicted, TRIVIAL], self.metrics["network"], "metrics")
        _judged(self)  # which looks at the other tables


def write_report(experiment: Experiment, *, file: Path, failures: Failures) -> None:
    """Write the whole experiment as one HTML file; the same experiment gives the same bytes.

    Films are read again from `manifest.facts["path"]` to show them before preparation; those that
    are no longer there are left out, and the page says so. A chapter that cannot be drawn is added
    to `failures`; the page names those in its place.
    """
    shown = page_values(_judged(experiment)) | _about(experiment)
    for chapter, values in CHAPTERS.items():
        if chapter not in failures.reasons():
            drawn = failures.attempt(chapter, partial(values, experiment, shown))
            shown |= drawn if drawn is not None else {}
    shown["failed"] = failures.reasons()
    file.write_text(render("report.html.jinja", **shown), encoding="utf-8")


def _judged(experiment: Experiment) -> PredictionsPage:
    """Return the part of the experiment that pages of anybody's predictions show too."""
    choices = experiment.protocol.evaluation
    rule = RULES[choices.threshold].format(recall=choices.recall)
    fitted = f"fitted on validation films ({rule})"
    return PredictionsPage(
        title=experiment.protocol.name,
        seen=experiment.manifest.origin,
        threshold_origin=rule if choices.threshold == HALF else fitted,
        predictions=experiment.predictions,
        metrics=experiment.metrics,
        confusion=experiment.confusion,
        comparison=experiment.comparison,
        ranking=experiment.ranking,
        conclusion=experiment.conclusion,
        thresholds=experiment.thresholds,
        reliability=experiment.reliability,
        brier=experiment.brier,
        subgroups=experiment.subgroups,
        worst_group=experiment.worst_group,
        issues=issue_table([]) if experiment.issues is None else experiment.issues,
        checks=experiment.checks,
    )


def _about(experiment: Experiment) -> dict[str, Any]:
    protocol, manifest = experiment.protocol, experiment.manifest
    rejected, apart = experiment.prepared.rejected, _apart(experiment)
    return {
        "protocol": protocol,
        "protocol_text": protocol_text(protocol),
        "leaking": protocol.split.method == "image" or protocol.balance.before_split,
        "films": len(manifest),
        "patients": len(np.unique(manifest.patient)),
        "networks": {row["network"]: row for row in experiment.networks.to_dict("records")},
        "seed": protocol.evaluation.seed,
        "apart": apart,
        "parts": [_part(experiment, part) for part in PARTS],
        "rejected": rejected.head(REJECTED).to_dict("records"),
        "rejected_total": len(rejected),
        "unused": len(experiment.prepared.manifest)
        - len(np.unique(experiment.plan.row))
        - apart.get("films", 0),
        "combined": "",
        "reached": "",
    }


def _reached(experiment: Experiment, shown: Values) -> Values:
    assert experiment.beside is not None, "a chapter that failed before is not drawn"
    values = study_values(experiment.beside)
    return {"reached": render_chapter("beside.html.jinja", shown, values) if values else ""}


def _heatmap_results(experiment: Experiment, shown: Values) -> Values:
    assert experiment.sight is not None, "a chapter that failed before is not drawn"
    values = heatmap_values(experiment.sight, prepared=experiment.prepared)
    return {"sight": render_chapter("sight.html.jinja", shown, values) if values else ""}


def _audit_results(experiment: Experiment, shown: Values) -> Values:
    assert experiment.doubts is not None, "a chapter that failed before is not drawn"
    values = audit_values(experiment.doubts, source=experiment.protocol.data.source)
    return {"doubts": render_chapter("doubted.html.jinja", shown, values) if values else ""}


def _ensemble_results(experiment: Experiment, shown: Values) -> Values:
    assert experiment.combined is not None, "a chapter that failed before is not drawn"
    values = ensemble_values(experiment.combined)
    return {"combined": render_chapter("combined.html.jinja", shown, values) if values else ""}


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
        "measures": MEASURES,
    }


def _preparation(experiment: Experiment, shown: Values) -> Values:
    strips = show_preparation(experiment.prepared, films=STRIPS, seed=shown["seed"])
    return {
        "strips": [strip._replace(greys=Markup(strip.greys)) for strip in strips],
        "clahe": clahe_values(experiment.preparations),
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
    fitted = experiment.thresholds[experiment.thresholds["network"] == best].set_index("finding")
    return {
        "sampled": show_samples(
            next(one for one in experiment.predictions if one.network == best),
            prepared=experiment.prepared,
            threshold=fitted.loc[list(findings), "threshold"].to_numpy(dtype=np.float64),
            films=SAMPLES,
            seed=shown["seed"],
        )
    }


def _apart(experiment: Experiment) -> dict[str, int]:
    """Return how many films, of how many patients, are set apart; nothing where none is."""
    patient = experiment.prepared.manifest.patient[experiment.apart]
    return {"films": len(patient), "patients": len(np.unique(patient))} if len(patient) else {}


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


RULES = {
    "f1": "largest F1", "youden": "largest recall + specificity",
    "recall": "the highest with a recall of {recall:g} or more",
    "half": ".5 for every finding, fitted to nothing",
}  # fmt: skip
MEASURES = {
    "instances": "Films", "labels": "Findings", "cardinality": "Cardinality",
    "density": "Density", "labelsets": "Labelsets",
    "max_ir": "Largest IRLbl", "mean_ir": "MeanIR", "cvir": "CVIR", "scumble": "SCUMBLE",
    "scumble_cv": "SCUMBLE.CV", "tcs": "TCS",
}  # fmt: skip
CHAPTERS: dict[str, Callable[[Experiment, Values], Values]] = {
    "reached": _reached,
    "combined": _ensemble_results,
    "sight": _heatmap_results,
    "doubts": _audit_results,
    "training": _training,
    "balance": _balance,
    "preparation": _preparation,
    "augmentation": _augmentation,
    "samples": _samples,
}
