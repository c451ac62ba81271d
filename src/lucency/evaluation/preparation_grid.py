"""A grid of preprocessing choices: which of its cells differ, and whether the choice matters.

A cell is one preparation, named after CLAHE's clip limit and tiles: `3x10`, `3x10-resize-first`,
or OFF. Predictions of all cells are of the same films in the same folds, so that every difference
is paired. Cross-validation is repeated with other folds, which move AUC as much as patients do.

Letters in shapes: n films, c cells, s repeats of the cross-validation, r resamples (the first
counts every film once).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from pydantic import ValidationError

from lucency.core.manifest import Preparation
from lucency.core.predictions import Predictions
from lucency.core.tables import load_tables
from lucency.evaluation import bootstrap
from lucency.evaluation.ablation_effects import FEWEST_SEEDS, mean_over_seeds
from lucency.evaluation.bootstrap import Weights, mean_over_findings
from lucency.evaluation.compare import check_comparable, macro_test
from lucency.evaluation.intervals import bootstrap_interval, patients_of_rarer
from lucency.evaluation.metrics import by_finding, mean_over_films
from lucency.evaluation.significance import LEVEL, holm

STUDY = "preparation-study"  # the folder of a run whose report shows the study
OFF, OWN = "off", "3x10"  # without CLAHE; the reference study's
ORDERS = ("clahe-first", "resize-first")
TIMES = "\N{MULTIPLICATION SIGN}"
REFERENCE = f"clip limit 3 with 10 {TIMES} 10 tiles before resizing"
OFF_ORDER = "no-clahe"
FROM = {"off": OFF, "own": OWN}  # what every cell is paired with
Repeats = Mapping[str, Sequence[Predictions]]  # of every cell, one for each cross-validation
TEXT = ("cell", "order", "note", "measure", "name", "variant", "network", "keys")


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparationStudy:
    """All tables of a study of preparations; empty where there is none.

    `cells` and `summary` are of `compare_cells`, `measures` of `average_measures`; `about` has
    films, patients, network and how it was done.
    """

    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    measures: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: Mapping[str, object] = field(default_factory=dict)
    conclusion: str = ""


def make_grid(
    base: Preparation, *, clips: Sequence[float], tiles: Sequence[int], orders: Sequence[str]
) -> dict[str, Preparation]:
    """Return the cells by name: OFF, then every order, clip limit and number of tiles, and OWN.

    All else is as in `base`. Raises ValueError for a clip limit, tiles or an order that CLAHE
    does not know.
    """
    if strange := [order for order in orders if order not in ORDERS]:
        known = " or ".join(map(repr, ORDERS))
        raise ValueError(f"preparation.order is {strange[0]!r}: expected {known}")
    chosen = [(OFF_ORDER, 3.0, 10), *product(orders, clips, tiles), ("clahe-first", 3.0, 10)]
    cells = [_cell(base, *one) for one in chosen]
    return {name_cell(cell): cell for cell in cells}


def name_cell(cell: Preparation) -> str:
    """Return the short name of a preparation.

    >>> name_cell(Preparation()), name_cell(Preparation(order="resize-first", clahe_clip=1.5))
    ('3x10', '1.5x10-resize-first')
    """
    if cell.order == OFF_ORDER:
        return OFF
    after = "" if cell.order == "clahe-first" else f"-{cell.order}"
    return f"{cell.clahe_clip:g}x{cell.clahe_tiles}{after}"


def describe_cell(cell: Preparation) -> str:
    """Return a preparation in words.

    >>> describe_cell(Preparation(order="no-clahe")), describe_cell(Preparation())
    ('no CLAHE', 'clip limit 3 with 10 × 10 tiles, before resizing')
    """
    if cell.order == OFF_ORDER:
        return "no CLAHE"
    when = "before" if cell.order == "clahe-first" else "after"
    tiles = f"{cell.clahe_tiles} {TIMES} {cell.clahe_tiles} tiles"
    return f"clip limit {cell.clahe_clip:g} with {tiles}, {when} resizing"


def compare_cells(
    predictions: Repeats, *, grid: Mapping[str, Preparation], resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row a cell: its macro AUC, its paired differences from OFF and from OWN; a summary.

    `predictions` holds a cell's predictions of all films, one for each repeat of the
    cross-validation, the same folds for all cells; a macro AUC is the mean over them. 95 %
    intervals and p hold the noise of patients and, from two repeats on, that of folds and fits
    (`ablation_effects.mean_over_seeds`); from one repeat the noise of patients alone. `off_p_holm`
    and `own_p_holm` are corrected for all cells that are paired with OFF, or with OWN (Holm 1979),
    each by itself. `share_best` is the share of resamples of patients and repeats in which the
    cell's macro AUC is the highest; cells that tie share it.
    The summary has name and value: `cells`, how many; `spread`, the highest less the lowest macro
    AUC; `width`, the mean width of a cell's interval, `paired_width` that of its difference from
    OWN; `optimism`, how much higher than true the highest macro AUC is for having been chosen.
    Raises ValueError when the cells' predictions are not of the same films, labels and folds, or
    OFF or OWN is missing.
    """
    first, repeats = _check(predictions, grid), len(predictions[OFF])
    drawn = bootstrap.all_and_resampled(first.patient, resamples=resamples, seed=seed)
    equal = np.full((repeats, 1), 1 / repeats)
    share = np.column_stack(
        [equal, bootstrap.resample_repeats(repeats, resamples=resamples, seed=seed)]
    )
    each = np.stack([_areas(several, drawn) for several in predictions.values()])
    area = np.stack([_mean_area(repeated, share) for repeated in each])
    patients = patients_of_rarer(first.label, owner=first.patient)
    cells = [
        (name, (one := grid[name]).order, one.clahe_clip, one.clahe_tiles) for name in predictions
    ]
    table = pd.DataFrame(cells, columns=["cell", "order", "clip", "tiles"])
    table = table.assign(auc=area[:, 0], **_tested(each, patients)[["low", "high"]])
    place = {name: list(predictions).index(cell) for name, cell in FROM.items()}
    paired = {name: _paired(each, reference, patients) for name, reference in place.items()}
    for name, tests in paired.items():
        table = table.join(tests.drop(columns="note").add_prefix(f"{name}_"))
    notes = zip(*(tests["note"] for tests in paired.values()), strict=True)
    computable = _computable(area)
    best = computable == computable.max(axis=0)
    table["note"] = ["; ".join(dict.fromkeys(filter(None, pair))) for pair in notes]
    table["share_best"] = (best / best.sum(axis=0)).mean(axis=1)
    other = table.loc[table["cell"] != OWN]
    summary = {
        "cells": len(table),
        "spread": table["auc"].max() - table["auc"].min(),
        "width": (table["high"] - table["low"]).mean(),
        "paired_width": (other["own_high"] - other["own_low"]).mean(),
        "optimism": _optimism(area[:, 0], computable),
    }
    value = [float(one) for one in summary.values()]
    return table, pd.DataFrame({"name": list(summary), "value": value})


def average_measures(
    value: Mapping[str, pd.DataFrame],
    *,
    patient: Int64[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return a row a cell and measure: the mean over films, and its paired change from OFF.

    `value` holds a table a cell, one column a measure, the same films in the same order. 95 %
    intervals resample patients; films on which a measure is not computable (NaN) are left out, and
    `films` counts the others.
    """
    drawn = bootstrap.all_and_resampled(patient, resamples=resamples, seed=seed)
    rows = []
    for cell, table in value.items():
        for measure in table:
            mine, plain = (one[measure].to_numpy(np.float64) for one in (table, value[OFF]))
            people = len(np.unique(patient[~np.isnan(mine)]))
            means = [mean_over_films(one, weights=drawn) for one in (mine, mine - plain)]
            ends = [end for one in means for end in bootstrap_interval(one, patients=people)]
            about = (cell, str(measure), int((~np.isnan(mine)).sum()))
            rows.append((*about, means[0][0], *ends[:2], means[1][0], *ends[2:]))
    columns = ["cell", "measure", "films", "value", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "change", "change_low", "change_high"])


def conclude_preparations(
    cells: pd.DataFrame, summary: pd.DataFrame, *, films: int, patients: int
) -> str:
    """Return which effects are significant, how far cells are apart, and how sure the best is.

    A cell differs where p of its paired difference is below LEVEL after Holm's correction.
    """
    number = dict(zip(summary["name"], summary["value"], strict=True))
    with_clahe = cells.loc[cells["cell"] != OFF]
    others = with_clahe.loc[with_clahe["cell"] != OWN]
    clahe, parameters = _differing(with_clahe, "off"), _differing(others, "own")
    ranked = cells.sort_values("auc", ascending=False, kind="stable")
    best, last = ranked.iloc[0], ranked.iloc[-1]
    return (
        f"CLAHE: {clahe[0]}. CLAHE's parameters: {parameters[0]}. Films: {films:,} of "
        f"{patients:,} patients. Preparations with CLAHE that differ from films without it: "
        f"{clahe[1]}. Others that differ from {REFERENCE}: {parameters[1]}. Level: p below .05 "
        f"after Holm's correction over the grid. Macro AUC: {last['auc']:.3f} ({last['cell']}) to "
        f"{best['auc']:.3f} ({best['cell']}), a spread of {number['spread']:.3f}. Mean width of a "
        f"cell's 95 % interval: {number['width']:.3f}. Best of {len(cells)} cells: {best['cell']}, "
        f"in {100 * best['share_best']:.0f} % of resamples. Its macro AUC is biased upward by "
        f"about {max(0, number['optimism']):.3f}, since it was chosen on these films."
    )


def load_study(folder: Path) -> PreparationStudy:
    """Read what `save_tables` wrote; the empty study where it wrote none."""
    return load_tables(PreparationStudy, folder, text=TEXT)


def _cell(base: Preparation, order: str, clip: float, tiles: int) -> Preparation:
    changes = {"order": order, "clahe_clip": clip, "clahe_tiles": tiles}
    try:
        return Preparation.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"{first['loc'][0]} is {first['input']!r}"
        raise ValueError(f"preparation.{what}: {first['msg'].lower()}") from error


def _check(predictions: Repeats, grid: Mapping[str, Preparation]) -> Predictions:
    """Return the films that all cells are evaluated on."""
    if lacking := [name for name in (OFF, OWN) if name not in predictions]:
        raise ValueError(
            f"cell {lacking[0]!r} is not among {', '.join(predictions)}: expected it, since every "
            "cell is compared with it"
        )
    if set(predictions) != set(grid):
        raise ValueError(
            f"predictions of {', '.join(predictions)}; expected those of {', '.join(grid)}"
        )
    repeats = len(predictions[OFF])
    for name, several in predictions.items():
        if not repeats or len(several) != repeats:
            raise ValueError(f"{name}: found {len(several)} repeats, expected {repeats or 1}")
        for plain, one in zip(predictions[OFF], several, strict=True):
            check_comparable(plain, one, name=name)
    return predictions[OFF][0]


def _areas(several: Sequence[Predictions], drawn: Weights) -> Float64[np.ndarray, "s k r"]:
    """Return every repeat's AUC of each finding, of all films and in every resample."""
    areas = [by_finding("auc", one.label, one.calibrated, weights=drawn) for one in several]
    return np.stack(areas)


def _mean_area(
    area: Float64[np.ndarray, "s k r"], share: Float64[np.ndarray, "s r"]
) -> Float64[np.ndarray, " r"]:
    """Return the macro AUC, the mean over repeats by their share in each resample."""
    return mean_over_findings(np.einsum("skr,sr->kr", area, share))


def _paired(
    area: Float64[np.ndarray, "c s k r"], reference: int, patients: Int64[np.ndarray, " k"]
) -> pd.DataFrame:
    """Return the difference of every cell from one of them, which has no test against itself."""
    table = _tested(area - area[reference], patients)
    p = table["p"].where(table.index != reference).to_numpy(dtype=np.float64)
    return table.assign(p=p, p_holm=holm(p))


def _tested(
    value: Float64[np.ndarray, "c s k r"], patients: Int64[np.ndarray, " k"]
) -> pd.DataFrame:
    """Return every cell's mean over findings and repeats, its interval, and p of a mean of 0."""
    if value.shape[1] < FEWEST_SEEDS:
        return pd.DataFrame([macro_test(one, patients) for one in value[:, 0]]).drop(columns="test")
    macro = np.array([[mean_over_findings(one) for one in cell] for cell in value]).swapaxes(0, 1)
    found = mean_over_seeds(macro[..., 0], macro[..., 1:])._asdict()
    return pd.DataFrame({"difference": found.pop("value"), **found, "note": ""})


def _optimism(area: Float64[np.ndarray, " c"], drawn: Float64[np.ndarray, "c r"]) -> float:
    """Return the mean over resamples of how much the cell that is best there is better than true.

    True is `area`, its score on all films; both are less the mean over cells, which no choice
    favours. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 17.
    """
    best, each = drawn.argmax(axis=0), np.arange(drawn.shape[1])
    apart, true = drawn - drawn.mean(axis=0), area - area.mean()
    return float((apart[best, each] - true[best]).mean())


def _computable(area: Float64[np.ndarray, "c r"]) -> Float64[np.ndarray, "c r2"]:
    """Return the resamples in which every cell has a macro AUC; ValueError for none."""
    kept = area[:, 1:][:, ~np.isnan(area[:, 1:]).any(axis=0)]
    if not kept.shape[1] or np.isnan(area[:, 0]).any():
        raise ValueError("macro AUC is not computable: expected a finding with both classes")
    return kept


def _differing(rows: pd.DataFrame, reference: str) -> tuple[str, str]:
    """Return whether any cell differs from the reference, and how many do."""
    sure = rows[f"{reference}_p_holm"].to_numpy(dtype=np.float64) < LEVEL
    above = rows[f"{reference}_difference"].to_numpy(dtype=np.float64) > 0
    higher, lower = int((sure & above).sum()), int((sure & ~above).sum())
    effect = (
        f"{'a' if higher + lower else 'no'} significant effect" if len(rows) else "not compared"
    )
    return effect, f"{higher + lower} of {len(rows)} ({higher} higher, {lower} lower)"
