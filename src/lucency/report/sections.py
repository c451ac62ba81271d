"""The chapter on where a network looked: is it where the finding is, and may one believe the map?

Every number is read from the tables of `explain.heatmap_results`; nothing is computed twice.

The report's chapter on what may be believed, from the tables of `audit`.

The report's chapter on combining: networks and what was made of them, in one leaderboard.

The report's chapter on claims: beside the published study, and on patients set apart.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lucency.audit.audit_results import AuditResults
from lucency.audit.label_quality import CANNOT, DOUBTFUL, MAY, MODERATE, conclude_label_quality
from lucency.audit.shortcuts import shortcut_reasons
from lucency.core.manifest import Prepared
from lucency.ensemble.ensemble_results import EnsembleResults
from lucency.ensemble.retrieval_metrics import OVERALL, privacy
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.leaderboard import conclude
from lucency.evaluation.reference_study import (
    HALF_METRICS,
    NOTHING,
    SOURCE,
    TEST_FILMS,
    StudyComparison,
)
from lucency.explain.baselines import conclude_heatmaps, mean_maps
from lucency.explain.heatmap_results import RANDOMISED, STRETCHED, TRIED, HeatmapResults
from lucency.explain.localization import GAME
from lucency.report.curves import draw_leaderboard
from lucency.report.heatmap_figures import (
    explanation_png,
    explanation_svg,
    gallery_figure,
    mean_figure,
)
from lucency.report.style import MUTED, SETTINGS, WIDTH, name_rows, style_networks, svg

WANG = "Wang 2017"
REACHED = {("IoBB", 0.5), ("IoBB", 0.9), ("IoU", 0.3), ("IoU", 0.5), ("IoU", 0.7)}


def heatmap_values(sight: HeatmapResults, *, prepared: Prepared) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses."""
    scores = sight.scores
    return {
        "network": sight.network,
        "remarks": sight.remarks,
        "conclusion": conclude_heatmaps(scores.baselines, boxes=sight.boxes),
        "boxes": len(sight.boxes),
        "films": sight.boxes["image"].nunique(),
        "grids": {maps.method: " x ".join(map(str, maps.grid.shape[2:])) for maps in sight.maps},
        "verdicts": _verdicts(sight),
        **(_scored(sight) if len(scores.pointing) else {"pointing": []}),
        "galleries": _galleries(sight, prepared),
    }


def draw_pointing(pointing: pd.DataFrame, *, title: str) -> str:
    """Return dots with intervals: a row for the mean and for each finding, a dot for each method.

    `pointing` is of explain.localization.
    """
    game = pointing.loc[pointing["measure"] == GAME]
    methods = [name for name in game["method"].unique() if STRETCHED not in name]
    rows = [MACRO, *(name for name in game["finding"].unique() if name != MACRO)]
    table = game.set_index(["method", "finding"])
    style = style_networks(methods)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.4 + len(rows) * max(0.36, 0.075 * len(methods))))
        axes = figure.add_subplot()
        for number, name in enumerate(methods):
            place = np.arange(len(rows)) + ((number + 0.5) / len(methods) - 0.5) * 0.72
            row = table.loc[name].reindex(rows)
            axes.hlines(place, row["low"], row["high"], color=style[name].colour, alpha=0.5)
            axes.plot(row["value"], place, style[name].marker, color=style[name].colour, label=name)
        axes.axhline(0.5, color=MUTED, linewidth=0.6)
        films = table.loc[methods[0]]["films"]
        name_rows(axes, ["Mean", *(f"{name}  ({films[name]:,.0f})" for name in rows[1:])])
        axes.set_xlabel("Share of films whose map points into a box, with 95 % interval (films)")
        return svg(figure, name="pointing", title=title)


def _verdicts(sight: HeatmapResults) -> list[dict[str, Any]]:
    """Return one row a method: both tests of its truth, side by side."""
    if not len(sight.faithfulness):
        return []
    faithfulness = sight.faithfulness.set_index(["method", "measure"]).to_dict(orient="index")
    rows = []
    for row in sight.sanity.to_dict("records"):
        rows.append({**row, **{name: faithfulness[row["method"], name] for name in TRIED}})
    return rows


def _scored(sight: HeatmapResults) -> dict[str, Any]:
    scores = sight.scores
    pointing, found = scores.pointing, scores.localisation
    macro = pointing.loc[pointing["finding"] == MACRO]
    methods = list(dict.fromkeys(pointing["method"]))
    table = {(row["method"], row["measure"]): row for row in macro.to_dict("records")}
    scored = set(found["method"])
    first = next(maps for maps in sight.maps if maps.method in scored)
    mean = mean_maps(first, boxes=sight.boxes)
    drawn = mean_figure(mean, findings=first.findings, centres=first.centres, boxes=sight.boxes)
    return {
        "pointing": methods,
        "measures": list(dict.fromkeys(macro["measure"])),
        "score": lambda *key: table[key],
        "randomised_maps": RANDOMISED,
        "stretched": STRETCHED,
        "pointing_figure": Markup(draw_pointing(pointing, title="Where maps point")),
        **_wang(found, method=first.method),
        "reach": _reach(scores.reach),
        "mean_method": first.method,
        "mean_figure": Markup(explanation_svg(drawn, name="mean", title="Mean maps")),
    }


def _wang(found: pd.DataFrame, *, method: str) -> dict[str, Any]:
    """Return accuracy and false boxes by IoBB of one method beside Wang's, and all by IoU."""
    cell = {
        (row["method"], row["finding"], row["measure"], row["threshold"]): row
        for row in found.to_dict("records")
    }
    mine = found.loc[found["method"] == method]
    limits = {name: sorted(of["threshold"].unique()) for name, of in mine.groupby("measure")}
    methods = [name for name in dict.fromkeys(found["method"]) if name != WANG]
    return {
        "wang": WANG,
        "ours": method,
        "rows": [MACRO, *(name for name in dict.fromkeys(mine["finding"]) if name != MACRO)],
        "limits": limits,
        "cell": lambda *key: cell.get(key, NO_MEASURES),
        "localised": methods,
        "macro": MACRO,
    }


def _reach(reach: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each grid what share of boxes it could hit at some thresholds, on average."""
    pairs = zip(reach["measure"], reach["threshold"], strict=True)
    shown = np.array([pair in REACHED for pair in pairs])
    macro = reach.loc[(reach["finding"] == MACRO) & shown]
    return [
        {"grid": grid, "levels": mine.loc[:, ["measure", "threshold", "reachable"]].values.tolist()}
        for grid, mine in macro.groupby("grid", sort=False)
    ]


def _galleries(sight: HeatmapResults, prepared: Prepared) -> list[dict[str, str]]:
    """Return one picture a finding: its surest hits, false alarms and misses, with their maps."""
    if not sight.maps:
        return []
    row = {name: place for place, name in enumerate(prepared.manifest.image.tolist())}
    shown = []
    for finding in sight.maps[0].findings:
        cases = sight.cases.loc[sight.cases["finding"] == finding]
        if not len(cases):
            continue
        films = {name: np.asarray(prepared.pixels[row[name]]) for name in cases["image"]}
        figure = gallery_figure(
            cases, finding=finding, films=films, maps=sight.maps[0], boxes=sight.boxes
        )
        uri = "data:image/png;base64," + base64.b64encode(explanation_png(figure)).decode()
        shown.append({"finding": finding, "uri": uri})
    return shown


NO_MEASURES: Mapping[str, float] = dict.fromkeys(
    ("accuracy", "accuracy_low", "accuracy_high", "afp", "afp_low", "afp_high"), np.nan
)


PAIRS, EXAMPLES = 12, 3  # at most this many are shown


def audit_values(doubts: AuditResults, *, source: str) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses."""
    largest = doubts.shortcuts.sort_values(
        ["shortcut", "leans"], ascending=False, kind="stable"
    ).head(PAIRS)
    found = shortcut_reasons(doubts.shortcuts)
    told = [f"{finding}: {reason}" for finding, reason in found.items()]
    shortcuts = "; ".join(told) if told else "no shortcut was found among the facts known"
    said = conclude_label_quality(doubts.label_quality)
    return {
        "network": doubts.network,
        "conclusion": f"{said[0].upper()}{said[1:]}. Shortcuts of {doubts.network}: {shortcuts}.",
        "objections": objections(doubts),
        "origin": ORIGINS.get(source, "Nobody has read these films again."),
        "label_quality": doubts.label_quality.to_dict("records"),
        "probes": doubts.probes.to_dict("records"),
        "shortcuts": largest.to_dict("records"),
        "pairs": len(doubts.shortcuts),
        "strata": [
            {**row, "shown": ", ".join(row["examples"].split("|")[:EXAMPLES])}
            for row in doubts.strata.to_dict("records")
        ],
        "pictures": doubts.pictures.to_dict("records"),
    }


def objections(doubts: AuditResults) -> dict[str, str]:
    """Return what a run's own numbers say to the three objections of Oakden-Rayner.

    "Exploring the ChestXray14 dataset: problems" (2017): how accurate the labels are, what they
    mean medically, and how useful they are for image analysis.
    """
    return {
        "How accurate the labels are": _accuracy(doubts.label_quality),
        "What the labels mean": _meaning(doubts),
        "How useful the labels are for learning from pictures": _use(doubts),
    }


def _accuracy(label_quality: pd.DataFrame) -> str:
    seen = {row["finding"]: row["ppv"] for row in label_quality.to_dict("records")}
    read = {finding: ppv for finding, ppv in seen.items() if ppv == ppv}
    if not read:
        return "Not known: nobody has read these films again."
    count = label_quality["verdict"].tolist().count
    low, high = min(read, key=read.__getitem__), max(read, key=read.__getitem__)
    span = f"from {read[low]:.3f} ({low}) to {read[high]:.3f} ({high})"
    return (
        f"Labels of {count(MAY)} of {len(label_quality)} findings may carry a claim, {count(DOUBTFUL)} "
        f"are doubtful, {count(CANNOT)} cannot. The share of films labelled so that show the "
        f"finding (PPV): {span if read[low] < read[high] else f'{read[low]:.3f}'}."
    )


def _meaning(doubts: AuditResults) -> str:
    kappa = {row["finding"]: row["kappa"] for row in doubts.label_quality.to_dict("records")}
    known = {finding: value for finding, value in kappa.items() if value == value}
    unsure = [finding for finding, value in known.items() if value < MODERATE]
    agreed = "How far experts agree on them is not known here."
    if known:
        agreed = (
            f"Experts agree less than moderately (kappa below {MODERATE:g}) on {len(unsure)} of "
            f"{len(known)} findings{': ' if unsure else ''}{', '.join(unsure)}."
        )
    pairs = [row for row in doubts.shortcuts.to_dict("records") if row["shortcut"]]
    named = ", ".join(f"{row['finding']} ({row['fact']})" for row in pairs)
    leans = f"leans on a fact beside the finding for {named}" if named else NO_SHORTCUT
    return f"{agreed} The score of {doubts.network} {leans}."


def _use(doubts: AuditResults) -> str:
    kinds = doubts.strata.to_dict("records")
    if not kinds:
        return (
            "No finding's positives fall into kinds further apart than one kind is cut; where "
            "they are few, that cannot be decided."
        )
    worst = min(kinds, key=lambda row: row["auc"])
    several = len({row["finding"] for row in kinds})
    return (
        f"The positives of {several} finding{'s' if several > 1 else ''} fall into kinds that one "
        f"AUC hides; the lowest is {worst['auc']:.3f} ({worst['finding']}, {worst['films']:.0f} "
        "films)."
    )


NO_SHORTCUT = "leans on no known fact beside the findings"
ORIGINS = {
    "nih": "NIH's labels held against radiologists on 810 test films (Nabulsi et al., 2021), which "
    "were chosen to hold many findings.",
    "phantom": "The label file held against what was drawn.",
}


def ensemble_values(combined: EnsembleResults) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses; nothing for no
    leaderboard."""
    if not len(combined.leaderboard):
        return {}
    table = combined.leaderboard.fillna({"note": ""})
    weights = _weights(combined.weights)
    reference = table.loc[table["note"] == "the reference", "network"].iloc[0]
    return {
        "leaderboard": table.to_dict("records"),
        "figure": Markup(draw_leaderboard(table, reference=reference)),
        "reference": reference,
        "conclusion": conclude(table, reference=reference),
        "weights": weights,
        "members": list(dict.fromkeys(row for one in weights for row in one["of"])),
        "diversity": combined.diversity.to_dict("records"),
        **_similar(combined.similar),
        "lungs": combined.lungs.to_dict("records"),
    }


def _similar(table: pd.DataFrame) -> dict[str, Any]:
    """Return the overall rows of a search for similar films, and what they mean for patients."""
    if not len(table):
        return {"similar": [], "privacy": []}
    overall = table.loc[table["finding"] == OVERALL].fillna({"note": ""})
    each = {one: overall.loc[overall["source"] == one] for one in overall["source"].unique()}
    return {
        "similar": overall.to_dict("records"),
        "privacy": [f"{source}: {privacy(rows)}" for source, rows in each.items()],
    }


def _weights(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row a method: each member's mean weight over findings, and how far it varies."""
    if not len(table):
        return []
    grouped = table.groupby(["method", "network"], sort=False)["weight"]
    found = grouped.agg(["mean", "min", "max"]).reset_index()
    return [
        {"method": method, "of": rows.set_index("network").to_dict("index")}
        for method, rows in found.groupby("method", sort=False)
    ]


def study_values(beside: StudyComparison) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses; nothing for no table."""
    if not beside:
        return {}
    study = beside.study.to_dict("records")
    return {
        "conclusion": beside.conclusion,
        "inflation": beside.inflation.to_dict("records"),
        "macro": MACRO,
        "study": {(row["network"], row["metric"]): row for row in study},
        "networks": {row["network"]: row["as_published"] for row in study},
        "metrics": {name: HEADINGS[name] for name in HALF_METRICS},
        "source": SOURCE,
        "test_films": TEST_FILMS,
        "nothing": NOTHING,
    }


HEADINGS = {
    "auc": "AUC, pooled", "accuracy": "Binary accuracy", "precision": "Precision",
    "recall": "Recall", "f1": "F1", "bce": "Loss",
}  # fmt: skip
