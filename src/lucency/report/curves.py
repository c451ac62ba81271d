"""Figures of metrics: AUC by finding, ROC and precision-recall, training curves, leaderboard.

Letters in shapes: n films, g points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lucency.core.predictions import Predictions
from lucency.evaluation.metrics import precision_recall_points, roc_points
from lucency.report.style import INK, MUTED, SETTINGS, WIDTH, Style, name_rows, style_networks, svg

Curve = Float64[np.ndarray, " g"]
Scores = Float[np.ndarray, " n"]
Trace = Callable[[Scores, Scores], Curve]
GRID = np.concatenate([[0.0], np.linspace(0, 1, 201)])  # 0 twice: a ROC curve may rise there
COLUMNS = 5
ROW = 0.26  # inches of a leaderboard's row


def draw_auc(metrics: pd.DataFrame, *, findings: Sequence[str], style: Mapping[str, Style]) -> str:
    """Return dots with intervals: a row for macro and for each finding, a dot for each network.

    `metrics` is the table of `evaluation.evaluate`; what is not computable is left empty.
    """
    rows = ["macro", *findings]
    table = metrics[metrics["metric"] == "auc"].set_index(["network", "finding"])
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.1 + len(rows) * max(0.36, 0.09 * len(style))))
        axes = figure.add_subplot()
        for number, (network, look) in enumerate(style.items()):
            place = np.arange(len(rows)) + ((number + 0.5) / len(style) - 0.5) * 0.72
            row = table.loc[network].reindex(rows)
            axes.hlines(place, row["low"], row["high"], color=look.colour, alpha=0.5)
            axes.plot(row["value"], place, look.marker, color=look.colour, label=network)
        axes.axvline(0.5, color=MUTED, linestyle=":", linewidth=1)
        axes.axhline(0.5, color=MUTED, linewidth=0.6)
        positives = table.loc[next(iter(style))]["positives"]
        name_rows(axes, ["Macro", *(f"{name}  ({positives[name]:,.0f})" for name in findings)])
        axes.set_xlabel("AUC on test films with 95 % interval (in brackets: positives)")
        return svg(figure, name="auc", title="AUC by network and finding")


def draw_macro_curves(several: Sequence[Predictions], *, style: Mapping[str, Style]) -> str:
    """Return the mean ROC and precision-recall curve over findings, one line a network.

    Recall is averaged at equal false positive rate, precision at equal recall, so the areas are
    macro AUC and macro average precision, up to the grid of 1/200.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 4.8))
        left, right = figure.subplots(1, 2)
        for axes, trace in ((left, _roc), (right, _precision_recall)):
            _frame(axes, trace)
            for one in several:
                curves = [trace(*pair) for pair in _scored(one, one.findings)]
                if curves:
                    _line(axes, GRID, np.mean(curves, axis=0), name=one.network, style=style)
            axes.set_xlabel(CURVES[trace][0])
            axes.set_ylabel(CURVES[trace][1])
        return svg(figure, name="macro", title="Mean ROC and precision-recall curves")


def draw_roc(several: Sequence[Predictions], *, style: Mapping[str, Style], best: str) -> str:
    """Return a small ROC panel for each finding; the line of the `best` network is the broadest."""
    return _small_multiples(several, style=style, best=best, trace=_roc)


def draw_precision_recall(
    several: Sequence[Predictions], *, style: Mapping[str, Style], best: str
) -> str:
    """Return a small precision-recall panel for each finding; the `best` line is the broadest."""
    return _small_multiples(several, style=style, best=best, trace=_precision_recall)


def draw_training(
    histories: Mapping[str, pd.DataFrame],
    *,
    kept_epoch: Mapping[str, int | float],
    style: Mapping[str, Style],
) -> str:
    """Return losses, accuracies and AUCs of training and validation films against the epoch.

    Training films are dotted. A ring marks the epoch whose weights each network keeps.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 6.8))
        panels = figure.subplots(2, 2).ravel()
        for axes, (title, columns) in zip(panels, TRAINED.items(), strict=True):
            for network, history in histories.items():
                _trace(axes, history, columns, look=style[network], name=network)
                kept = history.loc[history["epoch"] == kept_epoch[network]]
                axes.plot(
                    kept["epoch"], kept[columns[-1]], "o", color=style[network].colour, **RING
                )
            axes.set_title(title)
            axes.set_xlabel("Epoch")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        return svg(figure, name="training", title="Losses, AUC and accuracy during training")


def draw_leaderboard(table: pd.DataFrame, *, reference: str) -> str:
    """Return dots with intervals: a row an entry of the leaderboard, coloured by kind.

    `table` is of `evaluation.compare`; the upright line is at the macro AUC of `reference`.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    style = style_networks(kinds)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 1.1 + ROW * len(table)))
        axes = figure.subplots()
        at = table.loc[table["network"] == reference, "auc"].iloc[0]
        axes.axvline(at, color=INK, linewidth=0.8)
        for kind in kinds:
            rows = np.flatnonzero((table["kind"] == kind).to_numpy())
            value, low, high = (
                table[f"auc{end}"].to_numpy()[rows] for end in ("", "_low", "_high")
            )
            colour = style[kind].colour
            axes.hlines(rows, low, high, color=colour, linewidth=1.6)
            axes.plot(value, rows, "o", color=colour, label=kind)
        name_rows(axes, table["network"].tolist())
        axes.set_xlabel(f"Macro AUC on test films with 95 % interval (line: {reference})")
        axes.xaxis.label.set_color(MUTED)
        return svg(figure, name="leaderboard", title="Leaderboard: macro AUC on test films")


def _small_multiples(
    several: Sequence[Predictions], *, style: Mapping[str, Style], best: str, trace: Trace
) -> str:
    findings = several[0].findings
    rows = -(-len(findings) // COLUMNS)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, 0.9 + 2.0 * rows))
        panels = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
        for panel, finding in zip(panels, findings, strict=False):
            _frame(panel, trace)
            panel.set_title(finding)
            for one in several:
                broad = {"linewidth": 2.2, "zorder": 3} if one.network == best else {"linewidth": 1}
                for pair in _scored(one, (finding,)):
                    _line(panel, GRID, trace(*pair), name=one.network, style=style, **broad)
            if len(panel.get_legend_handles_labels()[1]) == 0:
                panel.text(0.5, 0.5, "not computable", ha="center", va="center", color=MUTED)
            panel.set(xlabel=CURVES[trace][0], ylabel=CURVES[trace][1])
            panel.label_outer()
        for panel in panels[len(findings) :]:
            panel.remove()
        return svg(figure, name=CURVES[trace][2], title=f"{CURVES[trace][2]} by finding")


def _scored(one: Predictions, findings: Sequence[str]) -> Iterator[tuple[Scores, Scores]]:
    """Yield label and score of the test films for those findings that have both classes."""
    test = one.of("test")
    for place in map(test.findings.index, findings):
        label = test.label[:, place]
        if {0.0, 1.0} <= set(label.tolist()):
            yield label, test.logit[:, place]


def _roc(label: Scores, score: Scores) -> Curve:
    curve = np.interp(GRID, *roc_points(label, score))
    curve[0] = 0
    return curve


def _precision_recall(label: Scores, score: Scores) -> Curve:
    recall, precision = precision_recall_points(label, score)
    return precision[np.searchsorted(recall, np.maximum(GRID, 1e-9))]  # recall 0 finds nothing


def _frame(axes: Axes, trace: Trace) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    axes.set_yticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    if trace is _roc:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)


def _trace(
    axes: Axes, history: pd.DataFrame, columns: Sequence[str], *, look: Style, name: str
) -> None:
    """Draw columns of a history: those of training films faint and without a name."""
    for column in columns:
        rows = history.dropna(subset=[column])
        held_out = column == columns[-1]
        seen: dict[str, Any] = {"label": name} if held_out else {"alpha": 0.4, "linewidth": 1}
        line = look.line if held_out else ":"
        axes.plot(rows["epoch"], rows[column], line, marker=".", color=look.colour, **seen)


def _line(
    axes: Axes, x: Any, y: Any, *, name: str, style: Mapping[str, Style], **look: Any
) -> None:
    axes.plot(x, y, color=style[name].colour, linestyle=style[name].line, label=name, **look)


TRAINED = {  # columns of a history; the last is of validation films, one before it of training
    "Loss": ("train_loss", "val_loss"),
    "Macro AUC of validation films": ("val_auc",),
    "Pooled AUC": ("train_pooled_auc", "val_pooled_auc"),
    "Accuracy at .5": ("train_accuracy", "val_accuracy"),
}
RING: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.6}
CURVES: dict[Trace, tuple[str, str, str]] = {
    _roc: ("False positive rate", "True positive rate (recall)", "roc"),
    _precision_recall: ("Recall", "Precision", "precision-recall"),
}
