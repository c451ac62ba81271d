"""The leaderboard: networks, ensembles and other predictors, ranked, with their cost a film."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucency.config.sections import EvaluationChoices
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import MACRO
from lucency.evaluation.compare import ROUGH, compare, macro_auc_rows
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.significance import LEVEL, holm
from lucency.evaluation.thresholds import threshold_table

SCORES = ("auc", "average_precision", "f1", "brier")
COLUMNS = (
    "place", "network", "kind",
    *(f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")),
    "difference", "difference_low", "difference_high", "p", "p_holm", "milliseconds", "note",
)  # fmt: skip


class Entrant(NamedTuple):
    """What a predictor is, and what a film costs it and its members, in milliseconds."""

    kind: str
    milliseconds: float


def leaderboard(
    several: Sequence[Predictions],
    *,
    entrants: Mapping[str, Entrant],
    reference: str,
    choices: EvaluationChoices,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame:
    """Return a row a predictor, by falling macro AUC on test films, beside one reference.

    Every one of SCORES is the mean over findings, with its 95 % interval over patients, at
    thresholds fitted on validation films. `difference` is the macro AUC less that of `reference`,
    paired: the same resampled patients for both; `p_holm` corrects its p for all rows (Holm 1979).
    Raises ValueError when the predictions are not of the same films, labels, findings and split.
    """
    tests = {one.network: one.of("test") for one in several}
    draws = {"resamples": choices.resamples, "seed": choices.seed}
    rows = []
    for done, one in enumerate(several):
        progress(done, len(several), one.network)
        rule = {"method": choices.threshold, "recall": choices.recall}
        fitted = threshold_table(one.of("val"), **rule)["threshold"].to_numpy(dtype=np.float64)
        scores = evaluate(tests[one.network], threshold=fitted, **draws)
        paired = _against(tests[reference], tests[one.network], draws)
        entry = entrants[one.network]._asdict()
        rows.append({"network": one.network, **_macro(scores), **paired, **entry})
    progress(len(several), len(several), "")
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    table = table.sort_values("auc", ascending=False, kind="stable", ignore_index=True)
    table["place"] = np.arange(1, len(table) + 1)
    return table.reindex(columns=list(COLUMNS))


def conclude(table: pd.DataFrame, *, reference: str) -> str:
    """Return one sentence: which predictors are above the reference by more than chance."""
    sure = table["p_holm"] < LEVEL
    above, under = (table[sure & (table["difference"] * sign > 0)] for sign in (1, -1))
    below, others = len(under), len(table) - 1
    rough = sorted({note for note in table["note"] if str(note).startswith(ROUGH)})
    rest = f"{below} of {others} {'does' if below == 1 else 'do'} worse, the rest may be chance"
    rest += f" ({rough[0]}, so that p is too small)" if rough else ""
    pairs = zip(above["network"], above["difference"], strict=True)
    if named := ", ".join(f"{name} (+{difference:.3f})" for name, difference in pairs):
        return f"More than chance above {reference}: {named}; {rest}."
    return f"Nothing surely beats {reference}; {rest}."


def _macro(scores: pd.DataFrame) -> dict[str, object]:
    rows = scores[scores["finding"] == MACRO].set_index("metric")
    return {
        name + end: float(rows.loc[name, column])
        for name in SCORES
        for end, column in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _against(reference: Predictions, one: Predictions, draws: dict[str, int]) -> dict[str, object]:
    """Return the paired difference in macro AUC from the reference, which has none from itself."""
    nothing = dict.fromkeys(("difference", "difference_low", "difference_high", "p"), np.nan)
    if one.network == reference.network:
        return {**nothing, "note": "the reference"}
    table = compare([one, reference], **draws)
    row = macro_auc_rows(table).iloc[0]
    found = {name: float(row[name]) for name in ("difference", "p")}
    ends = {f"difference_{name}": float(row[name]) for name in ("low", "high")}
    return {**found, **ends, "note": str(row["note"])}
