"""Figures of metrics: AUC and pointing by finding, curves, reliability, training, leaderboard.

Letters in shapes: n films, g points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lucency.core.predictions import Predictions
from lucency.evaluation.compare import SIDES
from lucency.evaluation.evaluate import MACRO, MICRO
from lucency.evaluation.external_validation import OWN_FILMS
from lucency.evaluation.metrics import precision_recall_points, roc_points
from lucency.evaluation.summary import Evaluation
from lucency.explain.heatmap_results import STRETCHED
from lucency.explain.localization import GAME
from lucency.report.rendering import INK, MUTED, WIDTH, Styles, name_rows, styled, styles_of, svg

Curve = Float64[np.ndarray, " g"]
Scores = Float[np.ndarray, " n"]
GRID = np.concatenate([[0.0], np.linspace(0, 1, 201)])  # 0 twice: a ROC curve may rise there
DRAWN = 30  # findings in a figure, at most
COLUMNS, POOLED_COLUMNS = 5, 4
TITLE = 24  # characters of a line above a panel
EDGE = 0.01  # around a curve
ROW = 0.26  # inches of a leaderboard's row
TINY = 1e-9
ENDS = {"": "value", "_low": "low", "_high": "high"}
SMALLEST, LARGEST = 6.0, 60.0  # area of a dot of a reliability diagram, in points squared


def choose_findings(
    rows: pd.DataFrame, *, count: str = "positives", most: int = DRAWN
) -> list[str]:
    """Return the findings that figures draw: all, or `most`, where a table has more.

    These are the most frequent, for a half, and those of the others that score worst. `rows` is a
    row a finding, with the columns finding, value, low and `count`. Scores without an interval rest
    on too few films to be called worst, and come last. The order is that of `rows`.
    """
    if len(rows) <= most:
        return rows["finding"].tolist()
    rows = rows.reset_index(drop=True)
    frequent = rows.nlargest(most - most // 2, count)
    others = rows.drop(frequent.index).assign(unsure=rows["low"].isna())
    worst = others.sort_values(["unsure", "value"], kind="stable").head(most // 2)
    return rows.loc[[*frequent.index, *worst.index]].sort_index()["finding"].tolist()


def draw_evaluation(
    several: Sequence[Predictions],
    *,
    evaluation: Evaluation,
    best: str,
    findings: Sequence[str],
    style: Styles,
) -> dict[str, str]:
    """Return all figures of an evaluation, by the names of sections.html.jinja.

    Figures by finding draw `findings`; means are over all.
    """
    reliability, by_finding = evaluation.reliability, {"findings": findings, "style": style}
    curves = {**by_finding, "best": best}
    return {
        "auc_figure": draw_auc(evaluation.metrics, **by_finding),
        "macro_figure": draw_macro_curves(several, style=style),
        "roc_figure": draw_curves(several, name=ROC, **curves),
        "precision_figure": draw_curves(several, name="precision-recall", **curves),
        "pooled_figure": draw_pooled(reliability, style=style),
        "reliability_figure": draw_each_finding(reliability, network=best, **by_finding),
    }


@styled
def draw_auc(metrics: pd.DataFrame, *, findings: Sequence[str], style: Styles) -> str:
    """Return dots with intervals: a row for macro and for each finding, a dot for each network.

    `metrics` is the table of `evaluation.evaluate`; what is not computable is left empty.
    """
    table = metrics[metrics["metric"] == "auc"].set_index(["network", "finding"])
    positives = table.loc[next(iter(style))]["positives"]
    rows = {MACRO: "Macro"} | {name: f"{name}  ({positives[name]:,.0f})" for name in findings}
    figure = Figure(figsize=(WIDTH, 1.1 + len(rows) * max(0.36, 0.09 * len(style))))
    axes = figure.add_subplot()
    _dots(axes, table, rows=rows, style=style)
    axes.axvline(0.5, color=MUTED, linestyle=":", linewidth=1)
    axes.axhline(0.5, color=MUTED, linewidth=0.6)
    axes.set_xlabel("AUC on test films with 95 % interval (in brackets: positives)")
    return svg(figure, name="auc", title="AUC by network and finding")


@styled
def draw_pointing(pointing: pd.DataFrame) -> str:
    """Return dots with intervals: a row for the mean and for each finding, a dot for each method.

    `pointing` is of explain.localization.
    """
    game = pointing.loc[pointing["measure"] == GAME]
    table = game.set_index(["method", "finding"])
    style = styles_of([name for name in game["method"].unique() if STRETCHED not in name])
    films = table.loc[next(iter(style))]["films"]
    findings = [name for name in game["finding"].unique() if name != MACRO]
    rows = {MACRO: "Mean"} | {name: f"{name}  ({films[name]:,.0f})" for name in findings}
    figure = Figure(figsize=(WIDTH, 1.4 + len(rows) * max(0.36, 0.075 * len(style))))
    axes = figure.add_subplot()
    _dots(axes, table, rows=rows, style=style)
    axes.axhline(0.5, color=MUTED, linewidth=0.6)
    axes.set_xlabel("Pointing game: share of films hit, with 95 % interval (in brackets: films)")
    return svg(figure, name="pointing", title="Pointing game by finding and method")


@styled
def draw_external(scores: pd.DataFrame, *, network: str, name: str, findings: Sequence[str]) -> str:
    """Return the AUC of one network on its own test films and on those of an external test.

    A row for the mean and for each of `findings`; `scores` are of evaluation.compare_unpaired,
    `name` is that of the test.
    """
    mine = scores.loc[(scores["network"] == network) & (scores["metric"] == "auc")]
    sides = dict(zip((OWN_FILMS, name), SIDES, strict=True))
    table = pd.concat({shown: _one_side(mine, side) for shown, side in sides.items()})
    rows = {MACRO: "Mean"} | {finding: finding for finding in findings}
    figure = Figure(figsize=(WIDTH, 1.4 + 0.36 * len(rows)))
    axes = figure.add_subplot()
    _dots(axes, table, rows=rows, style=styles_of(list(sides)))
    axes.axhline(0.5, color=MUTED, linewidth=0.6)
    axes.axvline(0.5, color=MUTED, linestyle=":", linewidth=1)
    axes.set_xlabel("AUC, with 95 % interval")
    title = f"AUC of {network} on own test films and on {name}"
    return svg(figure, name=f"external-{name}", title=title)


def _one_side(scores: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return value, low and high of one side of a comparison, by finding."""
    columns = {f"{side}{end}": name for end, name in ENDS.items()}
    return scores.set_index("finding").loc[:, list(columns)].rename(columns=columns)


@styled
def draw_macro_curves(several: Sequence[Predictions], *, style: Styles) -> str:
    """Return the mean ROC and precision-recall curve over findings, one line a network.

    Recall is averaged at equal false positive rate, precision at equal recall, so the areas are
    macro AUC and macro average precision, up to the grid of 1/200.
    """
    figure = Figure(figsize=(WIDTH, 4.8))
    for axes, (name, (trace, *_)) in zip(figure.subplots(1, 2), CURVES.items(), strict=True):
        _unit_square(axes, margin=EDGE)
        _frame(axes, name)
        for one in several:
            curves = [trace(*pair) for pair in _scored(one, one.findings).values()]
            if curves:
                _line(axes, np.mean(curves, axis=0), network=one.network, style=style)
    return svg(figure, name="macro", title="Mean ROC and precision-recall curves")


@styled
def draw_curves(
    several: Sequence[Predictions],
    *,
    name: str,
    findings: Sequence[str],
    style: Styles,
    best: str,
) -> str:
    """Return a panel a finding with its curves, of a kind of CURVES; that of `best` is broadest."""
    trace, scored = CURVES[name][0], {one.network: _scored(one, findings) for one in several}
    rows = -(-len(findings) // COLUMNS)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.0 * rows))
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    _unit_square(panels[0], margin=EDGE)  # whose limits and ticks are those of all
    for panel, finding in zip(panels, findings, strict=False):
        _frame(panel, name)
        panel.set_title(_title(finding))
        for network, pairs in scored.items():
            broad = {"linewidth": 2.2, "zorder": 3} if network == best else {"linewidth": 1}
            if finding in pairs:
                _line(panel, trace(*pairs[finding]), network=network, style=style, **broad)
        if len(panel.get_legend_handles_labels()[1]) == 0:
            _say(panel, "not computable")
        panel.label_outer()
    for panel in panels[len(findings) :]:
        panel.remove()
    return svg(figure, name=name, title=f"{name} by finding")


def draw_pooled(reliability: pd.DataFrame, *, style: Styles) -> str:
    """Return a reliability diagram a network, pooled over all pairs of film and finding.

    `reliability` is the table of `evaluation.calibration.reliability_table`. A dot is a bin of
    probability; below stands how many films there are in each hundredth of probability.
    """
    table = reliability.loc[reliability["finding"] == MICRO]
    panels = {name: (table.loc[table["network"] == name], style[name].colour) for name in style}
    title = "Reliability by network, all findings pooled"
    return _draw_reliability(panels, columns=POOLED_COLUMNS, name="reliability", title=title)


def draw_each_finding(
    reliability: pd.DataFrame, *, network: str, findings: Sequence[str], style: Styles
) -> str:
    """Return a small reliability diagram for each finding, of one network."""
    table = reliability.loc[reliability["network"] == network]
    panels = {one: (table.loc[table["finding"] == one], style[network].colour) for one in findings}
    title = f"Reliability of {network} by finding"
    return _draw_reliability(panels, columns=COLUMNS, name="reliabilities", title=title)


@styled
def draw_training(
    histories: Mapping[str, pd.DataFrame], *, kept_epoch: Mapping[str, int | float], style: Styles
) -> str:
    """Return losses, accuracies and AUCs of training and validation films against the epoch.

    Training films are dotted. A ring marks the epoch whose weights each network keeps.
    """
    figure = Figure(figsize=(WIDTH, 6.8))
    panels = figure.subplots(2, 2).ravel()
    for axes, (title, columns) in zip(panels, TRAINED.items(), strict=True):
        for network, history in histories.items():
            colour, _, line = style[network]
            *training, validation = columns
            for column in training:
                rows = history.dropna(subset=[column])
                axes.plot(rows["epoch"], rows[column], ":.", color=colour, alpha=0.4, linewidth=1)
            rows = history.dropna(subset=[validation])
            axes.plot(
                rows["epoch"], rows[validation], line, marker=".", color=colour, label=network
            )
            kept = history.loc[history["epoch"] == kept_epoch[network]]
            axes.plot(kept["epoch"], kept[validation], "o", color=colour, **RING)
        axes.set_title(title)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return svg(figure, name="training", title="Losses, AUC and accuracy during training")


@styled
def draw_leaderboard(table: pd.DataFrame, *, reference: str) -> str:
    """Return dots with intervals: a row an entry of the leaderboard, coloured by kind.

    `table` is of `evaluation.compare`; the upright line is at the macro AUC of `reference`.
    """
    figure = Figure(figsize=(WIDTH, 1.1 + ROW * len(table)))
    axes = figure.subplots()
    at = table.loc[table["network"] == reference, "auc"].iloc[0]
    axes.axvline(at, color=INK, linewidth=0.8)
    for kind, look in styles_of(list(dict.fromkeys(table["kind"]))).items():
        rows = np.flatnonzero((table["kind"] == kind).to_numpy())
        mine = table.iloc[rows]
        axes.hlines(rows, mine["auc_low"], mine["auc_high"], color=look.colour, linewidth=1.6)
        axes.plot(mine["auc"], rows, "o", color=look.colour, label=kind)
    name_rows(axes, table["network"].tolist())
    axes.set_xlabel(f"Macro AUC on test films with 95 % interval (line: {reference})")
    return svg(figure, name="leaderboard", title="Leaderboard: macro AUC on test films")


def _dots(axes: Axes, table: pd.DataFrame, *, rows: Mapping[str, str], style: Styles) -> None:
    """Draw the dots of several series side by side in each row, with their intervals.

    `table` has value, low and high by the name of the series, then by that of the row; `rows` are
    the names to show.
    """
    for number, (name, look) in enumerate(style.items()):
        place = np.arange(len(rows)) + ((number + 0.5) / len(style) - 0.5) * 0.72
        mine = table.loc[name].reindex(list(rows))
        axes.hlines(place, mine["low"], mine["high"], color=look.colour, alpha=0.5)
        axes.plot(mine["value"], place, look.marker, color=look.colour, label=name)
    name_rows(axes, list(rows.values()))


def _unit_square(axes: Axes, *, margin: float) -> None:
    axes.set(xlim=(-margin, 1 + margin), ylim=(-margin, 1 + margin))
    axes.set_xticks((0, 0.5, 1), labels=("0", "0.5", "1"))
    axes.set_yticks((0, 0.5, 1), labels=("0", "0.5", "1"))


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)


def _say(axes: Axes, text: str) -> None:
    """Write in the middle, over the diagonal."""
    look: Any = {"ha": "center", "va": "center", "color": MUTED, "backgroundcolor": "white"}
    axes.text(0.5, 0.5, text, **look)


def _title(name: str) -> str:
    """Return a name in lines that are no broader than a panel."""
    return "\n".join(wrap(name, TITLE, max_lines=2, placeholder=" …"))


def _frame(axes: Axes, curve: str) -> None:
    axes.set_aspect("equal")
    _, across, up = CURVES[curve]
    axes.set(xlabel=across, ylabel=up)
    if curve == ROC:
        _diagonal(axes)


def _scored(one: Predictions, findings: Sequence[str]) -> dict[str, tuple[Scores, Scores]]:
    """Return label and score, recalibrated, of the test films, for findings with both classes."""
    test = one.of("test")
    score, places = test.calibrated, [test.findings.index(name) for name in findings]
    pairs = {test.findings[place]: (test.label[:, place], score[:, place]) for place in places}
    return {name: pair for name, pair in pairs.items() if {0.0, 1.0} <= set(pair[0].tolist())}


def _roc(label: Scores, score: Scores) -> Curve:
    curve = np.interp(GRID, *roc_points(label, score))
    curve[0] = 0
    return curve


def _precision_recall(label: Scores, score: Scores) -> Curve:
    recall, precision = precision_recall_points(label, score)
    return precision[np.searchsorted(recall, np.maximum(GRID, 1e-9))]  # recall 0 finds nothing


def _line(axes: Axes, curve: Curve, *, network: str, style: Styles, **look: Any) -> None:
    colour, _, line = style[network]
    axes.plot(GRID, curve, color=colour, linestyle=line, label=network, **look)


@styled
def _draw_reliability(
    panels: Mapping[str, tuple[pd.DataFrame, str]], *, columns: int, name: str, title: str
) -> str:
    """Draw a diagram for each title, of the rows of its table in its colour."""
    lines = -(-len(panels) // columns)
    most = max(_density(rows).max(initial=0) for rows, _ in panels.values())
    figure = Figure(figsize=(WIDTH, 0.5 + 1.35 * WIDTH / columns * lines))
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[3.4, 1] * lines)
    for number, (heading, (rows, colour)) in enumerate(panels.items()):
        line, column = divmod(number, columns)
        above = figure.add_subplot(grid[2 * line, column], title=_title(heading))
        below = figure.add_subplot(grid[2 * line + 1, column], sharex=above)
        _reliability_frame(above, below, most=most)
        if rows["films"].to_numpy().any():
            _bins(above, below, rows, colour=colour)
        else:
            _say(above, "no film")
    return svg(figure, name=name, title=title)


def _density(rows: pd.DataFrame) -> Float64[np.ndarray, " b"]:
    """Return the films of each bin by its width, in hundredths of probability."""
    width = (rows["high_edge"] - rows["low_edge"]).to_numpy(dtype=np.float64)
    return rows["films"].to_numpy(dtype=np.float64) / np.maximum(100 * width, TINY)


def _reliability_frame(above: Axes, below: Axes, *, most: float) -> None:
    _unit_square(above, margin=0.02)
    _diagonal(above)
    below.set_yscale("log")
    below.set_ylim(0.7, max(10, 2 * most))
    ticks = [10**power for power in range(0, len(str(int(most))), 2)]
    below.set_yticks(ticks, labels=[f"{count:,}" for count in ticks])
    below.minorticks_off()
    above.set_ylabel("Share of positives")
    below.set(xlabel="Mean probability", ylabel="Films\nper .01")
    for axes in (above, below):
        axes.label_outer()


def _bins(above: Axes, below: Axes, rows: pd.DataFrame, *, colour: str) -> None:
    """Draw the share of positives of each bin above, its films below."""
    seen = rows.loc[rows["films"] > 0]
    mean, films = seen["mean_probability"], seen["films"].to_numpy(dtype=np.float64)
    area = SMALLEST + (LARGEST - SMALLEST) * films / films.max()
    above.vlines(mean, seen["share_low"], seen["share_high"], color=colour, alpha=0.5)
    above.plot(mean, seen["share"], color=colour, linewidth=0.8, alpha=0.4)
    above.scatter(mean, seen["share"], s=area, color=colour, clip_on=False, zorder=3)
    edges = [*rows["low_edge"], rows["high_edge"].iloc[-1]]
    below.stairs(_density(rows), edges, fill=True, color=colour, alpha=0.55)


TRAINED = {  # columns of a history; the last is of validation films, one before it of training
    "Loss": ("train_loss", "val_loss"),
    "Macro AUC of validation films": ("val_auc",),
    "Pooled AUC": ("train_pooled_auc", "val_pooled_auc"),
    "Accuracy at .5": ("train_accuracy", "val_accuracy"),
}
RING: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.6}
ROC = "roc"
CURVES = {  # heights at the points of GRID by labels and scores, and the names of the axes
    ROC: (_roc, "False positive rate", "True positive rate (recall)"),
    "precision-recall": (_precision_recall, "Recall", "Precision"),
}
