"""Pages of studies: variants of an ablation, schemes of a leakage study, trials of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lucency.config.protocol import BASE, Protocol, shown_text
from lucency.evaluation.ablation_effects import FEWEST_SEEDS, RAW
from lucency.evaluation.evaluate import MACRO, MICRO
from lucency.evaluation.significance import LEVEL
from lucency.evaluation.sweep_optimism import SweepResults
from lucency.report.rendering import COLOURS, MUTED, WIDTH, name_rows, styled, svg, write_page

SHOWN = {  # by metric, of an ablation
    "auc": "Macro AUC", "average_precision": "Average precision", "f1": "F1",
    "brier" + RAW: "Brier before recalibration", "brier": "Brier",
    "ece" + RAW: "ECE before recalibration", "ece": "ECE",
}  # fmt: skip
DRAWN = ("auc", "average_precision", "brier" + RAW, "brier")
NAMES = {  # by metric and finding, of a leakage study
    ("auc", MACRO): "Macro AUC", ("auc", MICRO): "Pooled AUC", ("f1", MICRO): "F1, all cells",
    ("accuracy", MICRO): "Accuracy, all cells", ("brier", MACRO): "Brier score",
}  # fmt: skip
KINDS = (
    ("own_test", "own test films", COLOURS[1], -0.14),
    ("held_out", "held-out patients", COLOURS[0], 0.14),
)


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
    """Write the tables of an ablation as one HTML file: metrics, costs, differences from the base.

    `seen` describes the films; `issues` as `audit.checks.issue.issue_table` gives them. `table` as
    `evaluation.ablation_effects` gives it; `costs` has the columns variant, seed, network, entries,
    epochs, minutes.
    """
    macro = table.loc[table["finding"] == MACRO]
    networks = list(dict.fromkeys(table["network"]))
    spent = costs.groupby(["network", "variant"], sort=False)[["entries", "epochs", "minutes"]]
    base = [f'balance.method = "{protocol.balance.method}"', "everything as in the protocol below"]
    write_page(
        file,
        "ablation.html.jinja",
        protocol=protocol,
        protocol_text=shown_text(protocol),
        data_set=seen,
        issues=issues.to_dict("records"),
        conclusion=conclusion,
        networks=networks,
        base=BASE,
        findings=[name for name in dict.fromkeys(table["finding"]) if name != MACRO],
        macro=MACRO,
        seeds=protocol.seeds or (protocol.training.seed,),
        fewest_seeds=FEWEST_SEEDS,
        level=LEVEL,
        changes={BASE: base} | {one.name: _keys(one.changes) for one in protocol.variant},
        metrics=SHOWN,
        by_finding=DRAWN,
        score=table.set_index(["network", "variant", "finding", "metric"]).to_dict("index"),
        cost={pair: rows.mean().to_dict() for pair, rows in spent},
        figures={name: draw_ablation(macro, network=name) for name in networks},
    )


@styled
def draw_ablation(macro: pd.DataFrame, *, network: str) -> str:
    """Return dots with intervals: each variant's paired difference from the base, a panel a metric.

    From one seed there are dots alone. `macro` holds the macro rows of
    `evaluation.ablation_effects`; variants come in their order.
    """
    mine = macro.loc[(macro["network"] == network) & (macro["variant"] != BASE)]
    variants = list(dict.fromkeys(mine["variant"]))
    place = np.arange(len(variants))
    figure = Figure(figsize=(WIDTH, 1.2 + 0.34 * len(variants)))
    panels = figure.subplots(1, len(DRAWN), sharey=True)
    for panel, metric in zip(panels, DRAWN, strict=True):
        rows = mine.loc[mine["metric"] == metric].set_index("variant").reindex(variants)
        ends = rows["difference_low"], rows["difference_high"]
        panel.axvline(0, color=MUTED, linestyle=":", linewidth=1)
        panel.hlines(place, *ends, color=COLOURS[0], alpha=0.5)
        panel.plot(rows["difference"], place, "o", color=COLOURS[0])
        panel.set_title(SHOWN[metric].replace(" before", "\nbefore"))
        panel.tick_params(axis="x", labelrotation=45)
    name_rows(panels[0], variants)
    untested = bool((mine["seeds"] < FEWEST_SEEDS).any())
    ends = "without interval: one seed" if untested else "with 95 % interval"
    figure.supxlabel(f"difference from the base, {ends}")
    return svg(figure, name=f"ablation-{network}", title=f"Variants of {network}")


def write_leakage_page(
    protocol: Protocol,
    *,
    seen: str,
    descriptions: Mapping[str, str],
    pages: Mapping[str, str],
    table: pd.DataFrame,
    conclusion: str,
    file: Path,
) -> None:
    """Write metrics on own test films and on held-out patients, by scheme, as one HTML file.

    `seen` describes the films; `table` as `evaluation.leakage_inflation` gives it, with a column
    scheme. `descriptions` and `pages` hold a sentence and the path of the report of each scheme.
    """
    cells = table.groupby(["scheme", "metric", "finding"], sort=False)
    write_page(
        file,
        "leakage.html.jinja",
        protocol=protocol,
        protocol_text=shown_text(protocol),
        data_set=seen,
        descriptions=descriptions,
        pages=pages,
        names=NAMES,
        schemes=list(dict.fromkeys(table["scheme"])),
        rows={key: rows.to_dict("records") for key, rows in cells},
        conclusion=conclusion,
        figure=draw_inflation(table),
    )


@styled
def draw_inflation(table: pd.DataFrame) -> str:
    """Return macro AUC on held-out patients and on own test films, joined by a line."""
    macro = table.loc[(table["metric"] == "auc") & (table["finding"] == MACRO)]
    names = (macro["network"] + ", " + macro["scheme"]).tolist()
    place = np.arange(len(names))
    figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * len(names)))
    axes = figure.subplots()
    axes.hlines(place, macro["held_out"], macro["own_test"], color=MUTED, linewidth=1.5)
    for kind, label, colour, shift in KINDS:
        ends = macro[f"{kind}_low"], macro[f"{kind}_high"]
        axes.hlines(place + shift, *ends, color=colour, alpha=0.35, linewidth=3)
        axes.plot(macro[kind], place, "o", color=colour, label=label)
    name_rows(axes, names)
    axes.set_xlabel("macro AUC, with 95 % intervals over patients")
    title = "Macro AUC on own test films and on held-out patients"
    return svg(figure, name="inflation", title=title)


def write_sweep_page(
    protocol: Protocol,
    *,
    seen: str,
    results: SweepResults,
    best: str,
    file: Path,
) -> None:
    """Write a sweep's trials, its optimism and the found protocol as one HTML file.

    `seen` describes the films, `best` is the found protocol as TOML.
    """
    trials, keys = results.trials, list(protocol.sweep.space)
    shown = trials.assign(**{key: trials[key].map(_brief) for key in keys})
    write_page(
        file,
        "sweep.html.jinja",
        protocol=protocol,
        protocol_text=shown_text(protocol),
        data_set=seen,
        trials=shown.to_dict("records"),
        keys=keys,
        best_trial=results.best,
        pruned=list(trials["state"]).count("pruned"),
        row=results.optimism.set_index(["candidate", "part"]).to_dict("index"),
        importance=results.importance.to_dict("records"),
        conclusion=results.conclusion,
        best=best,
        level=LEVEL,
        figure=draw_trials(trials),
    )


def _brief(value: str) -> str:
    """Return a value that is written as JSON, a number with three digits."""
    held = json.loads(value)
    return f"{held:.3g}" if isinstance(held, float) else value


@styled
def draw_trials(trials: pd.DataFrame) -> str:
    """Return validation AUC of every trial, and the best of the finished ones so far as a line."""
    figure = Figure(figsize=(WIDTH, 3))
    axes = figure.subplots()
    for state, marker, colour in (("finished", "o", COLOURS[0]), ("pruned", "x", MUTED)):
        rows = trials.loc[trials["state"] == state]
        axes.plot(rows["trial"], rows["val_auc"], marker, color=colour, label=state)
    axes.step(trials["trial"], trials["best"], where="post", color=COLOURS[1], label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("macro AUC, validation")
    return svg(figure, name="sweep", title="Macro AUC on validation films of every trial")


def _keys(changes: Any, prefix: str = "") -> list[str]:
    """Return a line `key = value` for every changed key; JSON writes simple values as TOML does."""
    if not isinstance(changes, dict):
        return [f"{prefix} = {json.dumps(changes, ensure_ascii=False)}"]
    dot = f"{prefix}." if prefix else ""
    return [line for key, value in changes.items() for line in _keys(value, f"{dot}{key}")]
