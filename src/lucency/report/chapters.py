"""The values of four chapters of a run's report: heat maps, audit, ensembles, reference study.

Each function returns what its template shows, by the template's names; every number comes from
the tables of a results value, nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lucency.audit.label_quality import (
    DOUBTFUL,
    MODERATE,
    RELIABLE,
    UNRELIABLE,
    AuditResults,
    conclude_label_quality,
)
from lucency.audit.shortcuts import shortcut_reasons
from lucency.core.manifest import Prepared
from lucency.ensemble.ensembles import EnsembleResults
from lucency.ensemble.retrieval_metrics import OVERALL, conclude_recognition
from lucency.evaluation.compare import conclude_leaderboard
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.leakage_inflation import (
    HALF_METRICS,
    NOTHING,
    SOURCE,
    TEST_FILMS,
    StudyComparison,
)
from lucency.explain.baselines import conclude_heatmaps, mean_maps
from lucency.explain.heatmap_results import RANDOMISED, STRETCHED, TRIED, HeatmapResults
from lucency.report.curves import draw_leaderboard
from lucency.report.heatmap_figures import (
    draw_pointing,
    explanation_png,
    explanation_svg,
    gallery_figure,
    mean_figure,
    png_uri,
)

WANG = "Wang 2017"
REACHED = {("IoBB", 0.5), ("IoBB", 0.9), ("IoU", 0.3), ("IoU", 0.5), ("IoU", 0.7)}
PAIRS, EXAMPLES = 12, 3  # at most this many are shown
Values = dict[str, Any]


def heatmap_values(results: HeatmapResults, *, prepared: Prepared) -> Values:
    """Return the values of heatmaps.html.jinja."""
    scores = results.scores
    return {
        "network": results.network,
        "remarks": results.remarks,
        "conclusion": conclude_heatmaps(scores.baselines, boxes=results.boxes),
        "boxes": len(results.boxes),
        "films": results.boxes["image"].nunique(),
        "grids": {maps.method: " x ".join(map(str, maps.grid.shape[2:])) for maps in results.maps},
        "faithfulness": _faithfulness(results),
        **(_localisation(results) if len(scores.pointing) else {"pointing": []}),
        "galleries": _galleries(results, prepared),
    }


def audit_values(results: AuditResults, *, source: str) -> Values:
    """Return the values of audit.html.jinja; `source` is that of the protocol's data."""
    strongest = results.shortcuts.sort_values(
        ["shortcut", "leans"], ascending=False, kind="stable"
    ).head(PAIRS)
    reasons = shortcut_reasons(results.shortcuts)
    found = "; ".join(f"{finding}: {reason}" for finding, reason in reasons.items())
    quality = conclude_label_quality(results.label_quality)
    return {
        "network": results.network,
        "conclusion": f"{quality[0].upper()}{quality[1:]}. Shortcuts of {results.network}: "
        f"{found or 'none found among the known facts'}.",
        "objections": objections(results),
        "origin": ORIGINS.get(source, "No expert has read these films."),
        "label_quality": results.label_quality.to_dict("records"),
        "probes": results.probes.to_dict("records"),
        "shortcuts": strongest.to_dict("records"),
        "pairs": len(results.shortcuts),
        "strata": [
            {**row, "shown": ", ".join(row["examples"].split("|")[:EXAMPLES])}
            for row in results.strata.to_dict("records")
        ],
        "image_quality": results.pictures.to_dict("records"),
    }


def ensemble_values(results: EnsembleResults) -> Values:
    """Return the values of ensembles.html.jinja; none without a leaderboard."""
    if not len(results.leaderboard):
        return {}
    table = results.leaderboard.fillna({"note": ""})
    weights = _weights(results.weights)
    reference = table.loc[table["note"] == "the reference", "network"].iloc[0]
    return {
        "leaderboard": table.to_dict("records"),
        "figure": Markup(draw_leaderboard(table, reference=reference)),
        "reference": reference,
        "conclusion": conclude_leaderboard(table, reference=reference),
        "weights": weights,
        "members": list(dict.fromkeys(row for one in weights for row in one["of"])),
        "diversity": results.diversity.to_dict("records"),
        **_retrieval(results.similar),
        "lungs": results.lungs.to_dict("records"),
    }


def study_values(comparison: StudyComparison) -> Values:
    """Return the values of study.html.jinja; none where both tables are empty."""
    if not comparison:
        return {}
    rows = comparison.study.to_dict("records")
    return {
        "conclusion": comparison.conclusion,
        "inflation": comparison.inflation.to_dict("records"),
        "published": {(row["network"], row["metric"]): row for row in rows},
        "networks": {row["network"]: row["as_published"] for row in rows},
        "metrics": {name: HEADINGS[name] for name in HALF_METRICS},
        "source": SOURCE,
        "test_films": TEST_FILMS,
        "all_negative": NOTHING,
    }


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


def _faithfulness(results: HeatmapResults) -> list[Values]:
    """Return a row a method: its sanity check and its tests of faithfulness."""
    if not len(results.faithfulness):
        return []
    tests = results.faithfulness.set_index(["method", "measure"]).to_dict(orient="index")
    return [
        {**row, **{name: tests[row["method"], name] for name in TRIED}}
        for row in results.sanity.to_dict("records")
    ]


def _localisation(results: HeatmapResults) -> Values:
    scores = results.scores
    pointing, found = scores.pointing, scores.localisation
    macro = pointing.loc[pointing["finding"] == MACRO]
    table = {(row["method"], row["measure"]): row for row in macro.to_dict("records")}
    scored = set(found["method"])
    first = next(maps for maps in results.maps if maps.method in scored)
    mean = mean_figure(
        mean_maps(first, boxes=results.boxes),
        findings=first.findings,
        centres=first.centres,
        boxes=results.boxes,
    )
    return {
        "pointing": list(dict.fromkeys(pointing["method"])),
        "measures": list(dict.fromkeys(macro["measure"])),
        "score": lambda *key: table[key],
        "randomised": RANDOMISED,
        "stretched": STRETCHED,
        "pointing_figure": Markup(draw_pointing(pointing)),
        "method": first.method,
        **_detection(found, method=first.method),
        "reach": _reach(scores.reach),
        "mean_figure": Markup(explanation_svg(mean, name="mean", title="Mean heat maps")),
    }


def _detection(found: pd.DataFrame, *, method: str) -> Values:
    """Return accuracy and false boxes by IoBB of one method and of Wang et al., all by IoU."""
    cell = {
        (row["method"], row["finding"], row["measure"], row["threshold"]): row
        for row in found.to_dict("records")
    }
    mine = found.loc[found["method"] == method]
    return {
        "wang": WANG,
        "rows": [MACRO, *(name for name in dict.fromkeys(mine["finding"]) if name != MACRO)],
        "limits": {name: sorted(of["threshold"].unique()) for name, of in mine.groupby("measure")},
        "cell": lambda *key: cell.get(key, NO_MEASURES),
        "localised": [name for name in dict.fromkeys(found["method"]) if name != WANG],
        "macro": MACRO,
    }


def _reach(reach: pd.DataFrame) -> list[Values]:
    """Return for each grid the mean share of boxes that it could hit, at some thresholds."""
    pairs = zip(reach["measure"], reach["threshold"], strict=True)
    shown = np.array([pair in REACHED for pair in pairs])
    macro = reach.loc[(reach["finding"] == MACRO) & shown]
    return [
        {"grid": grid, "levels": mine.loc[:, ["measure", "threshold", "reachable"]].values.tolist()}
        for grid, mine in macro.groupby("grid", sort=False)
    ]


def _galleries(results: HeatmapResults, prepared: Prepared) -> list[dict[str, str]]:
    """Return a picture a finding: examples of right and wrong predictions with heat maps."""
    if not results.maps:
        return []
    row = {name: place for place, name in enumerate(prepared.manifest.image.tolist())}
    shown = []
    for finding in results.maps[0].findings:
        cases = results.cases.loc[results.cases["finding"] == finding]
        if not len(cases):
            continue
        films = {name: np.asarray(prepared.pixels[row[name]]) for name in cases["image"]}
        figure = gallery_figure(
            cases, finding=finding, films=films, maps=results.maps[0], boxes=results.boxes
        )
        shown.append({"finding": finding, "uri": png_uri(explanation_png(figure))})
    return shown


def _accuracy(label_quality: pd.DataFrame) -> str:
    seen = {row["finding"]: row["ppv"] for row in label_quality.to_dict("records")}
    read = {finding: ppv for finding, ppv in seen.items() if ppv == ppv}
    if not read:
        return "Unknown: no expert has read these films."
    count = label_quality["rating"].tolist().count
    low, high = min(read, key=read.__getitem__), max(read, key=read.__getitem__)
    span = f"{read[low]:.3f} ({low}) to {read[high]:.3f} ({high})"
    return (
        f"Findings by label quality: {RELIABLE} {count(RELIABLE)}, {DOUBTFUL} {count(DOUBTFUL)}, "
        f"{UNRELIABLE} {count(UNRELIABLE)}, of {len(label_quality)}. PPV of the labels: "
        f"{span if read[low] < read[high] else f'{read[low]:.3f}'}."
    )


def _meaning(results: AuditResults) -> str:
    kappa = {row["finding"]: row["kappa"] for row in results.label_quality.to_dict("records")}
    known = {finding: value for finding, value in kappa.items() if value == value}
    low = [finding for finding, value in known.items() if value < MODERATE]
    agreed = "Agreement of experts: unknown."
    if known:
        agreed = (
            f"Agreement of experts: kappa below {MODERATE:g} for {len(low)} of {len(known)} "
            f"findings{': ' if low else ''}{', '.join(low)}."
        )
    pairs = [row for row in results.shortcuts.to_dict("records") if row["shortcut"]]
    named = ", ".join(f"{row['finding']} ({row['fact']})" for row in pairs)
    return f"{agreed} Shortcuts of {results.network}: {named or 'none among the known facts'}."


def _usefulness(results: AuditResults) -> str:
    strata = results.strata.to_dict("records")
    if not strata:
        return "Hidden strata: none found; with few positives they cannot be detected."
    worst = min(strata, key=lambda row: row["auc"])
    several = len({row["finding"] for row in strata})
    return (
        f"Hidden strata: found in the positives of {several} finding{'s' if several > 1 else ''}. "
        f"Lowest AUC of a stratum: {worst['auc']:.3f} ({worst['finding']}, {worst['films']:.0f} "
        "films)."
    )


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
    each = {one: overall.loc[overall["source"] == one] for one in overall["source"].unique()}
    return {
        "similar": overall.to_dict("records"),
        "privacy": [f"{source}: {conclude_recognition(rows)}" for source, rows in each.items()],
    }


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
