"""What a leak is worth: a network's score on its own test films, less that on untouched ones.

Letters in shapes: n films, k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.judge.evaluate import MACRO, MICRO
from lucency.judge.intervals import (
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.judge.metrics import METRICS
from lucency.predictions import Predictions

SHOWN = (
    ("auc", MACRO), ("auc", MICRO), ("average_precision", MACRO), ("f1", MACRO),
    ("accuracy", MICRO), ("brier", MACRO),
)  # fmt: skip
COLUMNS = (
    "network", "metric", "finding", "claimed", "claimed_low", "claimed_high", "reached",
    "reached_low", "reached_high", "inflation", "low", "high", "claimed_films", "reached_films",
)  # fmt: skip


def inflate(
    claimed: Predictions,
    reached: Predictions,
    *,
    threshold: Float64[np.ndarray, " k"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return what a network scores on its own test films, on untouched ones, and the difference.

    Macro means over findings, micro all cells pooled, of the metrics in SHOWN. The 95 % intervals
    resample the patients of both sets of films, each by itself, since they are other patients. For
    the Brier score, which is better when lower, a leak makes the difference negative. Raises
    ValueError when the untouched films have patients of the test films, or other findings.
    """
    _check(claimed, reached)
    sides = [
        [
            _scores(side, threshold, weights)
            for weights in (
                once(len(side)),
                resample_patients(side.patient, resamples=resamples, seed=seed + place),
            )
        ]
        for place, side in enumerate((claimed, reached))
    ]
    (mine, my_draws), (theirs, their_draws) = sides
    rows = []
    for key in SHOWN:
        bounds = [interval(draws[key]) for draws in (my_draws, their_draws)]
        apart = interval(my_draws[key] - their_draws[key])
        value = float(mine[key][0]), float(theirs[key][0])
        both = (value[0], *bounds[0], value[1], *bounds[1], value[0] - value[1], *apart)
        rows.append((claimed.network, *key, *both, len(claimed), len(reached)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_inflation(tables: Mapping[str, pd.DataFrame], *, patients: int) -> str:
    """Return a sentence a scheme, of its network with the highest claim: what was leak.

    `tables` maps schemes to all networks' rows of `inflate`; `patients` are those untouched.
    """
    said = []
    for scheme, table in tables.items():
        macro = table.loc[(table["metric"] == "auc") & (table["finding"] == MACRO)]
        best = macro.sort_values(by="claimed").iloc[-1]
        leak = "of it is leak" if best["low"] > 0 else "which may be chance"
        said.append(
            f"{scheme}: {best['network']} claims a macro AUC of {best['claimed']:.3f} and reaches "
            f"{best['reached']:.3f} on {patients:,} patients whom it never met; the difference is "
            f"{best['inflation']:.3f} ({best['low']:.3f} to {best['high']:.3f}), {leak}."
        )
    return " ".join(said)


def _check(claimed: Predictions, reached: Predictions) -> None:
    if claimed.findings != reached.findings:
        raise ValueError(
            f"{claimed.network} claims for {', '.join(claimed.findings)}; expected the findings of "
            f"the untouched films, {', '.join(reached.findings)}"
        )
    both = np.intersect1d(claimed.patient, reached.patient)
    if len(both):
        raise ValueError(
            f"{len(both):,} patients of the untouched films are among the test films; expected "
            "none: keep them apart before anything else is done"
        )


def _scores(
    predictions: Predictions, threshold: Float64[np.ndarray, " k"], weights: Weights
) -> dict[tuple[str, str], Float64[np.ndarray, " r"]]:
    label = predictions.label
    given = {
        "logit": predictions.calibrated,
        "probability": predictions.probability,
        "decision": predictions.probability >= threshold,
    }
    pooled = replace(weights, owner=np.repeat(weights.owner, label.shape[1]))
    found = {}
    for name, column in SHOWN:
        metric = METRICS[name]
        said = given[metric.takes]
        if column == MICRO:
            found[name, column] = metric.function(label.ravel(), said.ravel(), weights=pooled)
        else:
            pairs = zip(label.T, said.T, strict=True)
            each = [metric.function(truth, one, weights=weights) for truth, one in pairs]
            found[name, column] = mean_over_findings(np.stack(each))
    return found
