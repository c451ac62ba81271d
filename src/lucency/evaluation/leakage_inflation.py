"""Inflation by leakage: a network's score on its own test films, less that on untouched films.

Letters in shapes: n films, p patients, k findings, c findings or 1, r resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import (
    MACRO,
    MICRO,
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.evaluation.compare import macro_auc_rows
from lucency.evaluation.evaluate import metric_inputs
from lucency.evaluation.metrics import METRICS
from lucency.evaluation.thresholds import check_fitted

SHOWN = (
    ("auc", MACRO), ("auc", MICRO), ("average_precision", MACRO), ("f1", MACRO),
    ("accuracy", MICRO), ("brier", MACRO),
)  # fmt: skip
COLUMNS = (
    "network", "metric", "finding", "own_test", "own_test_low", "own_test_high", "held_out",
    "held_out_low", "held_out_high", "inflation", "low", "high", "own_test_films", "held_out_films",
    "findings",
)  # fmt: skip


def inflate(
    own: Predictions,
    untouched: Predictions,
    *,
    seen: Int64[np.ndarray, " p"],
    threshold: Float64[np.ndarray, " k"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return what a network scores on its own test films, on untouched ones, and the difference.

    Macro means over the findings that are computable on both sides, in every resample anew; micro
    pools all cells. The 95 % intervals resample the patients of both sets of films, each by itself,
    since they are other patients. The Brier score is better when lower: there inflation is
    negative. `seen` are the patients of all the network's own films, of any part. Raises ValueError
    when one of them is among the untouched, or when the two sides have other findings.
    """
    _check(own, untouched, seen)
    once_each = [_scores(side, threshold, once(len(side))) for side in (own, untouched)]
    drawn = [
        _scores(
            side, threshold, resample_patients(side.patient, resamples=resamples, seed=seed + place)
        )
        for place, side in enumerate((own, untouched))
    ]
    rows = []
    for key in SHOWN:
        plain, findings = _means(*(side[key] for side in once_each))
        sampled, _ = _means(*(side[key] for side in drawn))
        value = [float(mean[0]) for mean in plain]
        bounds = [interval(mean) for mean in sampled]
        both = (value[0], *bounds[0], value[1], *bounds[1])
        apart = (value[0] - value[1], *interval(sampled[0] - sampled[1]))
        counts = (len(own), len(untouched), findings)
        rows.append((own.network, *key, *both, *apart, *counts))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def inflate_all(
    own: Sequence[Predictions],
    untouched: Sequence[Predictions],
    *,
    seen: Int64[np.ndarray, " p"],
    thresholds: pd.DataFrame,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the rows of `inflate` for several networks, at thresholds fitted for each.

    `thresholds` is of evaluation.thresholds; `untouched` holds the same networks as `own`.
    """
    apart, tables = {one.network: one for one in untouched}, []
    draws = {"resamples": resamples, "seed": seed}
    for one in own:
        other = apart[one.network]
        check_fitted(thresholds, other)
        mine = thresholds.loc[thresholds["network"] == one.network, "threshold"]
        fitted = mine.to_numpy(dtype=np.float64)
        tables.append(inflate(one, other, seen=seen, threshold=fitted, **draws))
    return pd.concat(tables, ignore_index=True)


def conclude_inflation(tables: Mapping[str, pd.DataFrame], *, patients: int) -> str:
    """Return a sentence a scheme: macro AUC on own and untouched films, and whether they differ.

    `tables` maps schemes to all networks' rows of `inflate`; `patients` are those untouched.
    """
    sentences = []
    for scheme, table in tables.items():
        each = [_sentence(row) for row in macro_auc_rows(table).to_dict("records")]
        sentences.append(f"{scheme}{': ' if scheme else ''}{'; '.join(each)}.")
    head = f"Macro AUC on own test films, and on {patients:,} patients set apart."
    return f"{head} {' '.join(sentences)}"


def _sentence(row: dict[Hashable, Any]) -> str:
    if np.isnan(row["inflation"]):
        return f"{row['network']}, not computable"
    effect = "may be chance"
    if row["low"] > 0:
        effect = "too high"
    elif row["high"] < 0:
        effect = "too low"
    gap = f"{row['inflation']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
    return f"{row['network']} {row['own_test']:.3f} and {row['held_out']:.3f}, {gap}, {effect}"


def _means(
    mine: Float64[np.ndarray, "c r"], theirs: Float64[np.ndarray, "c r"]
) -> tuple[list[Float64[np.ndarray, " r"]], int]:
    """Return both sides' means over what is computable on both, and how many that is at first."""
    both = ~(np.isnan(mine) | np.isnan(theirs))
    means = [mean_over_findings(np.where(both, side, np.nan)) for side in (mine, theirs)]
    return means, int(both[:, 0].sum())


def _check(own: Predictions, untouched: Predictions, seen: Int64[np.ndarray, " p"]) -> None:
    if own.findings != untouched.findings:
        raise ValueError(
            f"{own.network} has the findings {', '.join(own.findings)}; expected those of "
            f"the untouched films, {', '.join(untouched.findings)}"
        )
    both = np.intersect1d([*seen, *own.patient], untouched.patient)
    if len(both):
        raise ValueError(
            f"{len(both):,} patients of the untouched films are among those that the network saw; "
            "expected none: keep them apart before anything else is done"
        )


def _scores(
    predictions: Predictions, threshold: Float64[np.ndarray, " k"], weights: Weights
) -> dict[tuple[str, str], Float64[np.ndarray, "c r"]]:
    """Return the scores in SHOWN: a row a finding for macro, one row for micro."""
    label = predictions.label
    inputs = metric_inputs(predictions, predictions.probability >= threshold)
    pooled = weights.of_cells(label.shape[1])
    found = {}
    for name, column in SHOWN:
        metric = METRICS[name]
        given = inputs[metric.takes]
        if column == MICRO:
            value = metric.function(label.ravel(), given.ravel(), weights=pooled)
            found[name, column] = value[None]
        else:
            pairs = zip(label.T, given.T, strict=True)
            each = [metric.function(truth, one, weights=weights) for truth, one in pairs]
            found[name, column] = np.stack(each)
    return found
