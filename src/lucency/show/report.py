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

from lucency.audit.doubted import Doubts
from lucency.balance.change import Change
from lucency.combine.combined import Combined
from lucency.judge.evaluate import TRIVIAL
from lucency.judge.sight import Sight
from lucency.plan import Plan
from lucency.predictions import Predictions
from lucency.protocol import Protocol, protocol_text
from lucency.show.balancing import (
    draw_cooccurrence,
    draw_counts,
    draw_origins,
    draw_steps,
    finding_rows,
    has_steps,
)
from lucency.show.canvas import Style
from lucency.show.combined import combined_values
from lucency.show.doubted import doubt_values
from lucency.show.figures import draw_training
from lucency.show.judged import Judged, judged_values, require_networks
from lucency.show.page import render
from lucency.show.pictures import show_augmented, show_preparation, show_samples
from lucency.show.seen import sight_values
from lucency.values import PARTS, Manifest, Prepared

STRIPS, SAMPLES, GALLERY, REJECTED = 3, 3, 24, 20  # at most this many are shown


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """All that one report shows."""

    protocol: Protocol
    manifest: Manifest  # all films of the source that were used
    prepared: Prepared
    plan: Plan  # rows of `prepared`; parts train, val and test
    change: Change  # by balancing
    augmented: Sequence[tuple[str, np.ndarray]]  # caption and uint8 picture
    steps_alone: Sequence[tuple[str, np.ndarray]]  # one film, and each step of augmentation alone
    predictions: Sequence[Predictions]  # one a network, parts val and test
    histories: Mapping[str, pd.DataFrame]  # epoch, step, train_loss, val_loss, val_auc, …
    networks: pd.DataFrame  # network, parameters, weights, provenance, epochs, kept_epoch, …
    thresholds: pd.DataFrame  # network, finding, threshold
    metrics: pd.DataFrame  # of judge.evaluate, test part, every network and the trivial predictor
    comparison: pd.DataFrame  # of judge.compare
    ranking: pd.DataFrame  # of judge.rank
    conclusion: str
    reliability: pd.DataFrame  # of judge.reliability
    brier: pd.DataFrame  # of judge.reliability
    subgroups: pd.DataFrame  # of judge.subgroups, of the highest ranked network
    worst_group: str
    complaints: pd.DataFrame  # of judge.complaints
    checks: int  # of the leak doctor, how many were made
    sight: Sight  # where one of the networks looked
    doubts: Doubts  # what speaks against the same network's scores
    combined: Combined  # what was made of the networks

    def __post_init__(self) -> None:
        predicted = [predictions.network for predictions in self.predictions]
        require_networks(predicted, self.networks["network"], "networks")
        require_networks(predicted, self.histories, "histories")
        require_networks([*predicted, TRIVIAL], self.metrics["network"], "metrics")
        _judged(self)  # which looks at the other tables


def write_report(experiment: Experiment, *, file: Path) -> None:
    """Write the whole experiment as one HTML file; the same experiment gives the same bytes.

    Films are read again from `manifest.facts["path"]` to show them before preparation; those that
    are no longer there are left out, and the page says so.
    """
    shown = judged_values(_judged(experiment)) | _about(experiment)
    shown |= _drawn(experiment, style=shown["style"], best=shown["best"]) | _origins(experiment)
    shown["sight"] = sight_values(experiment.sight, prepared=experiment.prepared)
    shown["doubts"] = doubt_values(experiment.doubts, source=experiment.protocol.data.source)
    shown["combined"] = combined_values(experiment.combined)
    file.write_text(render("report.html.jinja", **shown), encoding="utf-8")


def _judged(experiment: Experiment) -> Judged:
    """Return the part of the experiment that pages of anybody's predictions show too."""
    choices = experiment.protocol.judging
    rule = RULES[choices.threshold].format(recall=choices.recall)
    return Judged(
        title=experiment.protocol.name,
        seen=experiment.manifest.origin,
        threshold_origin=f"fitted on validation films ({rule})",
        predictions=experiment.predictions,
        metrics=experiment.metrics,
        comparison=experiment.comparison,
        ranking=experiment.ranking,
        conclusion=experiment.conclusion,
        thresholds=experiment.thresholds,
        reliability=experiment.reliability,
        brier=experiment.brier,
        subgroups=experiment.subgroups,
        worst_group=experiment.worst_group,
        complaints=experiment.complaints,
        checks=experiment.checks,
    )


def _about(experiment: Experiment) -> dict[str, Any]:
    protocol, manifest = experiment.protocol, experiment.manifest
    return {
        "protocol": protocol,
        "protocol_text": protocol_text(protocol),
        "leaking": protocol.split.method == "image" or protocol.balance.before_split,
        "films": len(manifest),
        "patients": len(np.unique(manifest.patient)),
        "networks": {row["network"]: row for row in experiment.networks.to_dict("records")},
    }


def _drawn(experiment: Experiment, *, style: Mapping[str, Style], best: str) -> dict[str, Any]:
    kept_epoch = experiment.networks.set_index("network")["kept_epoch"].to_dict()
    findings, seed = experiment.prepared.manifest.findings, experiment.protocol.judging.seed
    change = experiment.change
    fitted = experiment.thresholds[experiment.thresholds["network"] == best].set_index("finding")
    return {
        "training_figure": Markup(
            draw_training(experiment.histories, kept_epoch=kept_epoch, style=style)
        ),
        "counts_figure": Markup(draw_counts(change)),
        "steps_figure": Markup(draw_steps(change.steps) if has_steps(change.steps) else ""),
        "cooccurrence_figure": Markup(draw_cooccurrence(change.cooccurrence, list(findings))),
        "origins_figure": Markup(draw_origins(change.origins)),
        "seed": seed,
        "strips": [
            strip._replace(greys=Markup(strip.greys))
            for strip in show_preparation(experiment.prepared, films=STRIPS, seed=seed)
        ],
        "augmented": show_augmented(experiment.augmented[:GALLERY]),
        "augmented_total": len(experiment.augmented),
        "steps_alone": show_augmented(experiment.steps_alone),
        "sampled": show_samples(
            next(one for one in experiment.predictions if one.network == best),
            prepared=experiment.prepared,
            threshold=fitted.loc[list(findings), "threshold"].to_numpy(dtype=np.float64),
            films=SAMPLES,
            seed=seed,
        ),
    }


def _origins(experiment: Experiment) -> dict[str, Any]:
    rejected = experiment.prepared.rejected
    return {
        "population": experiment.change.population,
        "totals": experiment.change.totals.set_index("when").to_dict("index"),
        "imbalance": finding_rows(experiment.change).to_dict("records"),
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


RULES = {
    "f1": "largest F1", "youden": "largest recall + specificity",
    "recall": "the highest with a recall of {recall:g} or more",
}  # fmt: skip
MEASURES = {
    "instances": "Films", "labels": "Findings", "cardinality": "Cardinality",
    "density": "Density", "labelsets": "Labelsets",
    "max_ir": "Largest IRLbl", "mean_ir": "MeanIR", "cvir": "CVIR", "scumble": "SCUMBLE",
    "scumble_cv": "SCUMBLE.CV", "tcs": "TCS",
}  # fmt: skip
