"""The page of an ablation: metrics and cost of each variant, and its difference from the base."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lucency.config.protocol import BASE, Protocol, protocol_text
from lucency.evaluation.ablation_effects import RAW
from lucency.evaluation.evaluate import MACRO
from lucency.report.html import render
from lucency.report.style import COLOURS, MUTED, SETTINGS, WIDTH, name_rows, svg

SHOWN = {
    "auc": "Macro AUC", "average_precision": "Average precision", "f1": "F1",
    "brier" + RAW: "Brier before recalibration", "brier": "Brier",
    "ece" + RAW: "ECE before recalibration", "ece": "ECE",
}  # fmt: skip
DRAWN = ("auc", "average_precision", "brier" + RAW, "brier")


def write_ablation_page(
    protocol: Protocol,
    *,
    seen: str,
    issues: pd.DataFrame,
    table: pd.DataFrame,
    costs: pd.DataFrame,
    conclusion: str,
    file: Path,
) -> None:
    """Write the tables of an ablation as one HTML file.

    `seen` describes the films; `issues` as `audit.checks.issue.issue_table` gives
    them. `table` as `evaluation.ablation_effects` gives it; `costs` has the columns variant, seed,
    network, entries, epochs, minutes.
    """
    networks = list(dict.fromkeys(table["network"]))
    macro = table.loc[table["finding"] == MACRO]
    page = render(
        "ablation.html.jinja",
        protocol=protocol,
        protocol_text=protocol_text(protocol),
        data_set=seen,
        issues=issues.to_dict(orient="records"),
        conclusion=conclusion,
        networks=networks,
        variants=[BASE, *(variant.name for variant in protocol.variant)],
        base=BASE,
        findings=[name for name in dict.fromkeys(table["finding"]) if name != MACRO],
        macro=MACRO,
        seeds=protocol.seeds or (protocol.training.seed,),
        changes={BASE: _settings(protocol), **{v.name: _keys(v.changes) for v in protocol.variant}},
        metrics=SHOWN,
        by_finding=DRAWN,
        score=_scores(table),
        cost=_costs(costs),
        figures={name: Markup(draw_ablation(macro, network=name)) for name in networks},
    )
    file.write_text(page, encoding="utf-8")


def draw_ablation(macro: pd.DataFrame, *, network: str) -> str:
    """Return dots with intervals: each variant's paired difference from the base, a panel a metric.

    `macro` holds the macro rows of `evaluation.ablation_effects`; variants come in their order.
    """
    mine = macro.loc[(macro["network"] == network) & (macro["variant"] != BASE)]
    variants = list(dict.fromkeys(mine["variant"]))
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.34 * len(variants)))
        panels = figure.subplots(1, len(DRAWN), sharey=True)
        for panel, metric in zip(panels, DRAWN, strict=True):
            rows = mine.loc[mine["metric"] == metric].set_index("variant").reindex(variants)
            place = np.arange(len(variants))
            panel.axvline(0, color=MUTED, linestyle=":", linewidth=1)
            panel.hlines(
                place, rows["difference_low"], rows["difference_high"], color=COLOURS[0], alpha=0.5
            )
            panel.plot(rows["difference"], place, "o", color=COLOURS[0])
            panel.set_title(SHOWN[metric].replace(" before", "\nbefore"))
            panel.tick_params(axis="x", labelrotation=45)
        name_rows(panels[0], variants)
        figure.supxlabel("difference from the base, with 95 % interval")
        return svg(figure, name=f"ablation-{network}", title=f"Variants of {network}")


def _scores(table: pd.DataFrame) -> dict[tuple[str, ...], dict[Hashable, Any]]:
    keys = ("network", "variant", "finding", "metric")
    rows = table.to_dict(orient="records")
    return {tuple(str(row[key]) for key in keys): row for row in rows}


def _costs(costs: pd.DataFrame) -> dict[tuple[str, ...], dict[str, float]]:
    """Return by network and variant the means over seeds of entries, epochs and minutes."""
    measured = ["entries", "epochs", "minutes"]
    found = {}
    for pair in dict.fromkeys(zip(costs["network"], costs["variant"], strict=True)):
        rows = costs.loc[(costs["network"] == pair[0]) & (costs["variant"] == pair[1])]
        found[pair] = {
            name: float(rows[name].to_numpy(dtype=np.float64).mean()) for name in measured
        }
    return found


def _settings(protocol: Protocol) -> Sequence[str]:
    return [f'balance.method = "{protocol.balance.method}"', "everything as in the protocol below"]


def _keys(changes: Any, prefix: str = "") -> list[str]:
    """Return a line `key = value` for every changed key."""
    if not isinstance(changes, dict):
        return [f"{prefix} = {changes!r}"]
    dot = f"{prefix}." if prefix else ""
    return [line for key, value in changes.items() for line in _keys(value, f"{dot}{key}")]
