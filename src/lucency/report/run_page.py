"""The report of a run: one HTML page that needs no other file and no network.

Every number on the page is read from the tables of an `Experiment`; nothing is computed twice.
Letters in shapes: a films of held-out patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Int64

from lucency.audit.agreement import MODERATE, RATINGS, conclude_label_quality
from lucency.audit.checks.issue import issue_table
from lucency.audit.shortcuts import AuditResults, shortcut_reasons
from lucency.balance.imbalance import Change
from lucency.config.protocol import Protocol, shown_text, text_without_folders
from lucency.core.manifest import PARTS, Manifest, Prepared, listed
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import Failures
from lucency.ensemble.ensembles import EnsembleResults
from lucency.ensemble.retrieval_metrics import OVERALL, conclude_recognition
from lucency.evaluation import leakage_inflation
from lucency.evaluation.compare import conclude_leaderboard
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.external_validation import (
    ENOUGH,
    METRICS_SHOWN,
    STATES,
    ExternalValidation,
)
from lucency.evaluation.preparation_grid import PreparationStudy
from lucency.evaluation.set_coverage import SetCoverage
from lucency.evaluation.summary import Evaluation
from lucency.evaluation.thresholds import HALF
from lucency.evaluation.unfamiliar_results import UnfamiliarResults
from lucency.explain.baselines import conclude_heatmaps
from lucency.explain.heatmap_results import RANDOMISED, STRETCHED, TRIED, HeatmapResults
from lucency.explain.localization import GAME
from lucency.report import imbalance_figures as figures
from lucency.report.coverage_section import coverage_values
from lucency.report.film_figures import show_augmented, show_preparation, show_samples
from lucency.report.heatmap_figures import gallery_figure, mean_figure
from lucency.report.metric_figures import (
    DRAWN,
    choose_findings,
    draw_external,
    draw_leaderboard,
    draw_pointing,
    draw_training,
)
from lucency.report.predictions_page import (
    PredictionsPage,
    areas_of,
    page_values,
    require_networks,
)
from lucency.report.preparation_page import preparation_values
from lucency.report.rendering import render_chapter, svg, webp_uri, write_page
from lucency.report.unfamiliar_section import unfamiliar_values

WANG = "Wang 2017"
REACHED = {("IoBB", 0.5), ("IoBB", 0.9), ("IoU", 0.3), ("IoU", 0.5), ("IoU", 0.7)}
PAIRS, EXAMPLES, STRIPS, SAMPLES, GALLERY, REJECTED = 12, 3, 3, 3, 24, 20  # at most, on the page
EXPLAINED = 14  # findings with examples of heat maps, at most
Values = dict[str, Any]
Made = TypeVar("Made")


class Gallery(NamedTuple):
    """Captions and uint8 pictures of augmentation: all steps together, and each step alone."""

    together: Sequence[tuple[str, np.ndarray]]
    alone: Sequence[tuple[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """All that the report of a run shows; None where a chapter could not be made.

    Raises ValueError where a table is of other networks than `predictions`.
    """

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
    study: leakage_inflation.StudyComparison | None  # published, and on held-out patients
    heatmaps: HeatmapResults | None  # of one of the networks
    audit: AuditResults | None  # of the labels, and of the same network
    ensembles: EnsembleResults | None
    apart: Int64[np.ndarray, " a"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    external: Mapping[str, ExternalValidation] = field(default_factory=dict)  # by name
    coverage: SetCoverage = field(default_factory=SetCoverage)  # of the networks' sets
    unfamiliar: UnfamiliarResults | None = field(default_factory=UnfamiliarResults)
    # In the run's folder, if any.
    preparations: PreparationStudy = field(default_factory=PreparationStudy)

    def __post_init__(self) -> None:
        networks = [predictions.network for predictions in self.predictions]
        require_networks(networks, self.networks["network"], "networks")
        require_networks(networks, self.histories, "histories")
        self.predictions_page()  # which checks the tables of the evaluation

    def predictions_page(self) -> PredictionsPage:
        """Return what the report shares with a page of external predictions."""
        choices = self.protocol.evaluation
        rule = RULES[choices.threshold].format(recall=choices.recall)
        fitted = f"fitted on validation films ({rule})"
        return PredictionsPage(
            title=self.protocol.name,
            data_set=self.manifest.origin,
            predictions=self.predictions,
            evaluation=self.evaluation,
            threshold_origin=rule if choices.threshold == HALF else fitted,
            issues=issue_table([]) if self.issues is None else self.issues,
            checks=self.checks,
        )


def write_report(experiment: Experiment, *, file: Path, failures: Failures) -> None:
    """Write the whole experiment as one HTML file; the same experiment gives the same bytes.

    Films are read again from `manifest.facts["path"]` to show them before preprocessing; where they
    are no longer there, the page says so. A chapter that cannot be drawn is added to `failures`;
    the page names it and the reason, of places in it the last part.
    """
    shown = page_values(experiment.predictions_page()) | _head(experiment)
    for chapter, values in CHAPTERS.items():
        if chapter not in failures.reasons():
            shown |= failures.attempt(chapter, partial(values, experiment, shown)) or {}
    failed = {name: text_without_folders(why) for name, why in failures.reasons().items()}
    write_page(file, "report.html.jinja", **shown, failed=failed)


def _head(experiment: Experiment) -> Values:
    protocol, manifest, prepared = experiment.protocol, experiment.manifest, experiment.prepared
    held_out = prepared.manifest.patient[experiment.apart]
    return {
        "protocol": protocol,
        "protocol_text": shown_text(protocol),
        "leaking": protocol.split.method == "image" or protocol.balance.before_split,
        "films": len(manifest),
        "patients": len(np.unique(manifest.patient)),
        "networks": experiment.networks.set_index("network", drop=False).to_dict("index"),
        "seed": protocol.evaluation.seed,
        "held_out": {"films": len(held_out), "patients": len(np.unique(held_out))},
        "parts": [_part(experiment, part) for part in PARTS],
        "reading": _reading(manifest),
        "uncertain": manifest.uncertain["finding"].value_counts().to_dict(),
        "rejected": prepared.rejected.head(REJECTED),
        "rejected_total": len(prepared.rejected),
        "unused": len(prepared.manifest) - len(np.unique(experiment.plan.row)) - len(held_out),
        "abstain": "",
        "ensembles": "",
        "external": "",
        "study": "",
        "unfamiliar": "",
    }


def _reading(manifest: Manifest) -> list[Values]:
    """Return a row for each step of reading films and labels; none where all stayed as it was."""
    steps = []
    for step, rows in manifest.reading.groupby("step", sort=False):
        of = rows.fillna({"finding": ""}).sort_values("films", ascending=False, kind="stable")
        pairs = zip(of["finding"].tolist(), of["films"].tolist(), strict=True)
        by = listed([f"{finding} {films:,}" for finding, films in pairs if finding])
        steps.append({"step": step, "films": sum(of["films"].tolist()), "by": by})
    return steps if len(steps) > 1 else []


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


def _study(experiment: Experiment, shown: Values) -> Values:
    """Return the comparison with the reference study; empty where both its tables are."""
    comparison = _made(experiment.study)
    rows = comparison.study.to_dict("records")
    values = {
        "conclusion": comparison.conclusion,
        "inflation": comparison.inflation.to_dict("records"),
        "published": {(row["network"], row["metric"]): row for row in rows},
        "networks": {row["network"]: row["as_published"] for row in rows},
        "metrics": {name: HEADINGS[name] for name in leakage_inflation.HALF_METRICS},
        "source": leakage_inflation.SOURCE,
        "test_films": leakage_inflation.TEST_FILMS,
        "all_negative": leakage_inflation.NOTHING,
    }
    return _chapter("study", values if comparison else {}, shown)


def _external(experiment: Experiment, shown: Values) -> Values:
    """Return the external tests; empty where the protocol names none."""
    names = [one.name for one in experiment.protocol.external]
    tests = [
        _external_test(experiment.external[n], shown) for n in names if n in experiment.external
    ]
    lacking = [name for name in names if name not in experiment.external]
    values = {
        "tests": tests,
        "lacking": lacking,
        "enough": ENOUGH,
        "metrics": {name: shown["headings"].get(name, name) for name in METRICS_SHOWN},
        "states": STATES,
    }
    return _chapter("external", values if names else {}, shown)


def _external_test(found: ExternalValidation, shown: Values) -> Values:
    """Return what is shown of one external test."""
    about, scores, calibration = found.about, found.scores, found.calibration
    name, best, shared = about["name"], about["network"], about["shared"]
    drawn = [one for one in shared if one in shown["drawn"]]
    networks = list(dict.fromkeys(scores["network"]))
    figure = draw_external(scores, network=best, name=name, findings=drawn) if networks else ""
    return {
        "about": about,
        "conclusion": found.conclusion,
        "figure": figure,
        "networks": [best, *(one for one in networks if one != best)] if networks else [],
        "score": scores.fillna({"note": ""})
        .set_index(["network", "finding", "metric"])
        .to_dict("index"),
        "calibration": calibration.fillna({"note": ""})
        .set_index(["network", "finding", "state"])
        .to_dict("index"),
        "findings": found.findings.fillna({"reason": ""}).to_dict("records"),
        "shared": shared,
        "mix": {
            fact: rows.to_dict("records") for fact, rows in found.mix.groupby("fact", sort=False)
        },
    }


def _abstain(experiment: Experiment, shown: Values) -> Values:
    """Return the sections on when not to answer; empty where networks have nothing of it."""
    sections = {
        "coverage": coverage_values(experiment.coverage, best=shown["best"]),
        "unfamiliar": unfamiliar_values(experiment.unfamiliar or UnfamiliarResults()),
    }
    return _chapter("abstain", sections if any(sections.values()) else {}, shown)


def _ensembles(experiment: Experiment, shown: Values) -> Values:
    """Return the leaderboard and what stands behind it; empty without a leaderboard."""
    results = _made(experiment.ensembles)
    if not len(results.leaderboard):
        return _chapter("ensembles", {}, shown)
    table = results.leaderboard.fillna({"note": ""})
    weights = _weights(results.weights)
    reference = table.loc[table["note"] == "the reference", "network"].iloc[0]
    values = {
        "results": results,
        "leaderboard": table,
        "figure": draw_leaderboard(table, reference=reference),
        "reference": reference,
        "conclusion": conclude_leaderboard(table, reference=reference),
        "weights": weights,
        "members": list(dict.fromkeys(row for one in weights for row in one["of"])),
        **_retrieval(results.similar),
    }
    return _chapter("ensembles", values, shown)


def _heatmaps(experiment: Experiment, shown: Values) -> Values:
    results = _made(experiment.heatmaps)
    scores = results.scores
    values = {
        "results": results,
        "conclusion": conclude_heatmaps(scores.baselines, boxes=results.boxes),
        "films": results.boxes["image"].nunique(),
        "grids": {maps.method: " x ".join(map(str, maps.grid.shape[2:])) for maps in results.maps},
        "faithfulness": _faithfulness(results),
        **(_localisation(results) if len(scores.pointing) else {"pointing": []}),
        "galleries": _galleries(results, experiment) if results.maps else [],
        "explained": results.cases["finding"].nunique(),
    }
    return _chapter("heatmaps", values, shown)


def _audit(experiment: Experiment, shown: Values) -> Values:
    results = _made(experiment.audit)
    order = ["shortcut", "association"]
    pairs = results.shortcuts.sort_values(order, ascending=False, kind="stable")
    reasons = shortcut_reasons(results.shortcuts)
    found = listed([f"{finding}: {reason}" for finding, reason in reasons.items()], most=6)
    quality = conclude_label_quality(results.label_quality)
    place = experiment.protocol.data
    source = "" if place.also else place.source
    values = {
        "results": results,
        "conclusion": f"{quality} Shortcuts of {results.network}: "
        f"{found or 'none found among the known facts'}.",
        "objections": objections(results),
        "origin": ORIGINS.get(source, "No expert has read these films."),
        "shortcuts": pairs.head(PAIRS),
        "strata": [
            {**row, "shown": ", ".join(row["examples"].split("|")[:EXAMPLES])}
            for row in results.strata.to_dict("records")
        ],
    }
    return _chapter("audit", values, shown)


def _training(experiment: Experiment, shown: Values) -> Values:
    kept_epoch = experiment.networks.set_index("network")["kept_epoch"].to_dict()
    figure = draw_training(experiment.histories, kept_epoch=kept_epoch, style=shown["style"])
    return {"training_figure": figure}


def _balance(experiment: Experiment, shown: Values) -> Values:
    change, drawn = _made(experiment.change), shown["drawn"]
    some = figures.narrowed(change, drawn)
    return {
        "population": change.population,
        "totals": change.totals.set_index("when").to_dict("index"),
        "counts_figure": figures.draw_counts(some),
        "steps_figure": figures.draw_steps(change.steps) if figures.has_steps(change.steps) else "",
        "cooccurrence_figure": figures.draw_cooccurrence(some.cooccurrence, drawn),
        "origins_figure": figures.draw_origins(some.origins),
        "imbalance": figures.finding_rows(change),
        "summary": change.summary,
        "measures": SUMMARY,
    }


def _preparation(experiment: Experiment, shown: Values) -> Values:
    return {
        "strips": show_preparation(experiment.prepared, films=STRIPS, seed=shown["seed"]),
        "preparation_study": preparation_values(experiment.preparations),
    }


def _augmentation(experiment: Experiment, shown: Values) -> Values:
    del shown
    together, alone = _made(experiment.gallery)
    return {
        "augmented": show_augmented(together[:GALLERY]),
        "augmented_total": len(together),
        "steps_alone": show_augmented(alone),
    }


def _samples(experiment: Experiment, shown: Values) -> Values:
    findings, thresholds = experiment.prepared.manifest.findings, experiment.evaluation.thresholds
    fitted = thresholds[thresholds["network"] == shown["best"]].set_index("finding")
    test = next(one for one in experiment.predictions if one.network == shown["best"]).of("test")
    groups = show_samples(
        test,
        prepared=experiment.prepared,
        threshold=fitted.loc[list(findings), "threshold"].to_numpy(dtype=np.float64),
        films=SAMPLES,
        seed=shown["seed"],
    )
    return {"sampled": groups, "tested": len(test)}


def _made(value: Made | None) -> Made:
    assert value is not None, "a chapter that failed before is not drawn"
    return value


def _chapter(name: str, values: Values, shown: Values) -> Values:
    """Return the chapter as HTML, by its name; empty where there are no values."""
    return {name: render_chapter(f"{name}.html.jinja", shown, values) if values else ""}


def _weights(table: pd.DataFrame) -> list[Values]:
    """Return a row a method: each member's mean weight over findings, least and most."""
    if not len(table):
        return []
    grouped = table.groupby(["method", "network"], sort=False)["weight"]
    found = grouped.agg(["mean", "min", "max"]).reset_index()
    return [
        {"method": method, "of": rows.set_index("network").to_dict("index")}
        for method, rows in found.groupby("method", sort=False)
    ]


def _retrieval(table: pd.DataFrame) -> Values:
    """Return the overall rows of the retrieval of similar films, and what they mean for privacy."""
    if not len(table):
        return {"similar": [], "privacy": []}
    overall = table.loc[table["finding"] == OVERALL].fillna({"note": ""})
    each = overall.groupby("source", sort=False)
    return {
        "similar": overall.to_dict("records"),
        "privacy": [f"{source}: {conclude_recognition(rows)}" for source, rows in each],
    }


def _faithfulness(results: HeatmapResults) -> list[Values]:
    """Return a row a method: its sanity check and its tests of faithfulness."""
    if not len(results.faithfulness):
        return []
    tests = results.faithfulness.set_index(["method", "measure"]).to_dict("index")
    return [
        {**row, **{name: tests[row["method"], name] for name in TRIED}}
        for row in results.sanity.to_dict("records")
    ]


def _localisation(results: HeatmapResults) -> Values:
    """Return pointing, the accuracy of one method and of Wang et al. by IoBB, and of all by IoU."""
    pointing, found = results.scores.pointing, results.scores.localisation
    macro = pointing.loc[pointing["finding"] == MACRO]
    scored = list(dict.fromkeys(found["method"]))
    first = next(maps for maps in results.maps if maps.method in scored)
    mine = found.loc[found["method"] == first.method]
    cell = found.set_index(["method", "finding", "measure", "threshold"]).to_dict("index")
    drawn = _boxed(pointing)
    shown = drawn if len(first.findings) > DRAWN else first.findings
    mean = mean_figure(first, findings=shown, boxes=results.boxes)
    return {
        "pointing": list(dict.fromkeys(pointing["method"])),
        "measures": list(dict.fromkeys(macro["measure"])),
        "score": macro.set_index(["method", "measure"]).to_dict("index"),
        "randomised": RANDOMISED,
        "stretched": STRETCHED,
        "pointing_figure": draw_pointing(pointing.loc[pointing["finding"].isin([MACRO, *drawn])]),
        "method": first.method,
        "wang": WANG,
        "rows": [MACRO, *(name for name in dict.fromkeys(mine["finding"]) if name != MACRO)],
        "limits": {name: sorted(of["threshold"].unique()) for name, of in mine.groupby("measure")},
        "cell": lambda *key: cell.get(key, NO_MEASURES),
        "localised": [name for name in scored if name != WANG],
        "reach": _reach(results.scores.reach),
        "mean_figure": svg(mean, name="mean", title="Mean heat maps"),
    }


def _boxed(pointing: pd.DataFrame) -> list[str]:
    """Return the findings with boxes that figures draw."""
    game = pointing.loc[(pointing["measure"] == GAME) & (pointing["finding"] != MACRO)]
    return choose_findings(game.loc[game["method"] == game["method"].iloc[0]], count="films")


def _reach(reach: pd.DataFrame) -> list[Values]:
    """Return for each grid the mean share of boxes that it could hit, at some thresholds."""
    pairs = zip(reach["measure"], reach["threshold"], strict=True)
    shown = np.array([pair in REACHED for pair in pairs])
    macro = reach.loc[(reach["finding"] == MACRO) & shown]
    return [
        {"grid": grid, "levels": mine.loc[:, ["measure", "threshold", "reachable"]].values.tolist()}
        for grid, mine in macro.groupby("grid", sort=False)
    ]


def _galleries(results: HeatmapResults, experiment: Experiment) -> list[dict[str, str]]:
    """Return a picture a finding: examples of right and wrong predictions with heat maps."""
    prepared, metrics = experiment.prepared, experiment.evaluation.metrics
    row = {name: place for place, name in enumerate(prepared.manifest.image.tolist())}
    several = [maps for maps in results.maps if maps.grid.shape[2:] != (1, 1)]
    maps, shown = [*several, *results.maps][0], []
    there = [name for name in maps.findings if name in set(results.cases["finding"])]
    rows = areas_of(metrics, network=results.network, findings=there)
    for finding in choose_findings(rows, most=EXPLAINED):
        cases = results.cases.loc[results.cases["finding"] == finding]
        films = {name: np.asarray(prepared.pixels[row[name]]) for name in cases["image"]}
        figure = gallery_figure(cases, finding=finding, films=films, maps=maps, boxes=results.boxes)
        shown.append({"finding": finding, "uri": webp_uri(figure)})
    return shown


def objections(results: AuditResults) -> dict[str, str]:
    """Return the run's own results on each of Oakden-Rayner's three objections.

    "Exploring the ChestXray14 dataset: problems" (2017): the accuracy of the labels, their medical
    meaning, and their use for image analysis.
    """
    return {
        "Accuracy of the labels": _accuracy(results.label_quality),
        "Medical meaning of the labels": _meaning(results),
        "Usefulness of the labels for image analysis": _usefulness(results),
    }


def _accuracy(label_quality: pd.DataFrame) -> str:
    ppv = _known(label_quality, "ppv")
    if not ppv:
        return "Unknown: no expert has read these films."
    low, high = min(ppv, key=ppv.__getitem__), max(ppv, key=ppv.__getitem__)
    span, rating = f"{ppv[low]:.3f}", label_quality["rating"].tolist()
    if ppv[low] < ppv[high]:
        span = f"{span} ({low}) to {ppv[high]:.3f} ({high})"
    counts = "".join(f"{name} {rating.count(name)}, " for name in RATINGS)
    return f"Findings by label quality: {counts}of {len(rating)}. PPV of the labels: {span}."


def _meaning(results: AuditResults) -> str:
    kappa = _known(results.label_quality, "kappa")
    low = [finding for finding, value in kappa.items() if value < MODERATE]
    agreed = "Agreement of experts: unknown."
    if kappa:
        agreed = (
            f"Agreement of experts: kappa below {MODERATE:g} for {len(low)} of {len(kappa)} "
            f"findings{': ' if low else ''}{listed(low)}."
        )
    pairs = [row for row in results.shortcuts.to_dict("records") if row["shortcut"]]
    named = listed([f"{row['finding']} ({row['fact']})" for row in pairs])
    return f"{agreed} Shortcuts of {results.network}: {named or 'none among the known facts'}."


def _known(label_quality: pd.DataFrame, column: str) -> dict[str, float]:
    """Return a measure of the findings for which it is known."""
    known = label_quality.dropna(subset=[column])
    return dict(zip(known["finding"], known[column], strict=True))


def _usefulness(results: AuditResults) -> str:
    strata = results.strata.to_dict("records")
    if not strata:
        return "Hidden strata: none found; with few positives they cannot be detected."
    worst, several = min(strata, key=lambda row: row["auc"]), {row["finding"] for row in strata}
    return (
        f"Hidden strata: found in the positives of {len(several)} "
        f"finding{'s' if len(several) > 1 else ''}. "
        f"Lowest AUC of a stratum: {worst['auc']:.3f} ({worst['finding']}, {worst['films']:.0f} "
        "films)."
    )


NO_MEASURES: Mapping[str, float] = dict.fromkeys(
    ("accuracy", "accuracy_low", "accuracy_high", "afp", "afp_low", "afp_high"), np.nan
)
ORIGINS = {
    "nih": "Ground truth: radiologists on 810 test films (Nabulsi et al., 2021), chosen to hold "
    "many findings; compared with NIH's labels.",
    "phantom": "Ground truth: the findings drawn on the phantoms; compared with the label file.",
}
HEADINGS = {
    "auc": "AUC, pooled", "accuracy": "Binary accuracy", "precision": "Precision",
    "recall": "Recall", "f1": "F1", "bce": "Loss",
}  # fmt: skip
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
    "study": _study, "external": _external, "abstain": _abstain, "ensembles": _ensembles,
    "heatmaps": _heatmaps, "audit": _audit, "training": _training, "balance": _balance,
    "preparation": _preparation, "augmentation": _augmentation, "samples": _samples,
}  # fmt: skip
