"""Inflation by leakage: scores on a network's own test films, less those on untouched films.

Beside them stand the numbers of the reference study, "Research on Chest X-Rays" (2025), notebooks
at github.com/rahulogoel/Research-on-Chest-X-rays. It dropped and copied films before a random split
by film: test films are balanced, and copies of a film and films of a patient stand on both sides.
It counts as Keras does: `binary_accuracy`, `Precision`, `Recall` and `F1Score(average="micro",
threshold=0.5)` call positive a sigmoid above .5 and pool every film x finding; `AUC` pools too,
over 200 thresholds, where the area here is over all.

Own test films and untouched ones are seldom as many, so that only such metrics are shown (SHOWN)
as few films do not bias. Average precision is not one of them, since few positives raise it, nor is
the mean F1 over findings, since few positives lower that of a rare one.

Letters in shapes: n films, p patients, k findings, c findings or 1, r resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.stats import t as student

from lucency.core.predictions import Predictions
from lucency.core.tables import load_tables
from lucency.evaluation import bootstrap
from lucency.evaluation.bootstrap import HIGH, MACRO, MICRO, Weights, mean_over_findings
from lucency.evaluation.compare import macro_auc_rows
from lucency.evaluation.evaluate import metric_inputs, thresholds_of
from lucency.evaluation.intervals import (
    FEWEST,
    INTERVALS,
    NORMAL,
    Inputs,
    bootstrap_interval,
    macro_error,
    macro_error_of_ranks,
    patients_of_rarer,
    within_range,
)
from lucency.evaluation.metrics import METRICS, by_finding

SHOWN = (
    ("auc", MACRO), ("auc", MICRO), ("f1", MICRO), ("accuracy", MICRO), ("brier", MACRO),
)  # fmt: skip
COLUMNS = (
    "network", "metric", "finding", "own_test", "own_test_low", "own_test_high", "held_out",
    "held_out_low", "held_out_high", "inflation", "low", "high", "own_test_films", "held_out_films",
    "findings",
)  # fmt: skip
SOURCE = "Research on Chest X-Rays (2025), its notebooks"
TEST_FILMS = 7_708  # of 51,382 entries after balancing, copies among them
NOTHING = 0.90095  # accuracy there of the baseline that calls no finding positive
NONE = np.nan  # its F1 is of the finding with the highest probability, which is no F1 of ours
HALF_METRICS = ("auc", "accuracy", "precision", "recall", "f1", "bce")
PUBLISHED = (  # network as protocols name it, what it was, and HALF_METRICS
    ("densenet121", "lr 1e-4, batch 64, 20 epochs", .8421, .9109, .5519, .5147, NONE, .3046),
    ("densenet121-fast", "lr 1e-3, batch 64, 50 epochs", .7786, .8913, .4520, .4825, NONE, .5768),
    ("densenet121-long", "lr 1e-4, batch 64, 50 epochs", .8207, .9108, .5510, .5154, NONE, .4023),
    ("mobilenetv2", "all layers, lr 1e-4, batch 64, 20 epochs", .7691, .8920, .4341, .3522, NONE,
     .3779),
    ("mobilenetv2-frozen", "frozen, lr 1e-3, batch 64, 50 epochs", .7940, .9066, .6224, .2011,
     NONE, .2701),
    ("alexnet-reference", "lr 1e-4, batch 128, 20 epochs, split 60:20:20", NONE, .8865, .2968,
     .0813, NONE, .3582),
)  # fmt: skip
BESIDE = (
    "network", "metric", "published", "own_test", "own_test_low", "own_test_high", "held_out",
    "held_out_low", "held_out_high", "as_published",
)  # fmt: skip
UNPUBLISHED = "no notebook of it was published"


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyComparison:
    """Two tables, each empty where nothing was set apart or no published study is named.

    `inflation` is of `inflate_all`, on patients set apart; `study` of `compare_with_study`.
    `conclusion` is of the first.
    """

    inflation: pd.DataFrame = field(default_factory=partial(pd.DataFrame, columns=list(COLUMNS)))
    study: pd.DataFrame = field(default_factory=partial(pd.DataFrame, columns=list(BESIDE)))
    conclusion: str = ""

    def __bool__(self) -> bool:
        return bool(len(self.inflation) or len(self.study))


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

    The metrics are those of SHOWN. Macro means over the findings that are computable on both sides;
    micro pools all cells. The 95 % intervals are by the standard errors of evaluation.intervals,
    from resampled patients; both sides have other patients, so that their variances add up. The
    Brier score is better when lower: there inflation is negative. `seen` are the patients of all
    the network's own films, of any part. Raises ValueError when one of them is among
    the untouched, or when the two sides have other findings.
    """
    _check(own, untouched, seen)
    sides = []
    for place, side in enumerate((own, untouched)):
        draws = {"resamples": resamples, "seed": seed + place}
        weights = bootstrap.all_and_resampled(side.patient, **draws)
        sides.append(_scores(side, threshold, weights))
    rarer = [patients_of_rarer(side.label, owner=side.patient) for side in (own, untouched)]
    every = [np.array([len(np.unique(side.patient))]) for side in (own, untouched)]
    rows = []
    for key in SHOWN:
        each = [side[key] for side in sides]
        both = ~np.isnan([value[:, 0] for value in each]).any(axis=0)
        mine, theirs = (
            _with_error(key, value[both], patients=patients[both])
            for value, patients in zip(each, rarer if key[1] == MACRO else every, strict=True)
        )
        if min(*every) < FEWEST:
            mine, theirs = ((mean, np.nan) for mean, _ in (mine, theirs))
        apart, error = mine[0] - theirs[0], float(np.hypot(mine[1], theirs[1]))
        sides_ends = [
            (value, *within_range(key[0], (value - NORMAL * spread, value + NORMAL * spread)))
            for value, spread in (mine, theirs)
        ]
        gap = (apart, apart - NORMAL * error, apart + NORMAL * error)
        ends = [end for one in (*sides_ends, gap) for end in one]
        rows.append((own.network, *key, *ends, len(own), len(untouched), int(both.sum())))
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
    apart = {one.network: one for one in untouched}
    fitted = {name: thresholds_of(thresholds, one) for name, one in apart.items()}
    score = partial(inflate, seen=seen, resamples=resamples, seed=seed)
    tables = [score(one, apart[one.network], threshold=fitted[one.network]) for one in own]
    return pd.concat(tables, ignore_index=True)


def conclude_inflation(tables: Mapping[str, pd.DataFrame], *, patients: int) -> str:
    """Return a sentence a scheme: macro AUC on own and untouched films, and their difference.

    `tables` maps schemes to all networks' rows of `inflate`; `patients` are those untouched.
    """
    sentences = [f"Macro AUC on own test films, and on {patients:,} patients set apart."]
    for scheme, table in tables.items():
        each = [_sentence(row) for row in macro_auc_rows(table).to_dict("records")]
        sentences.append(f"{scheme}{': ' if scheme else ''}{'; '.join(each)}.")
    return " ".join(sentences)


def compare_with_study(
    own: Sequence[Predictions], untouched: Sequence[Predictions], *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return a row a network and metric: published, on own test films, and on untouched films.

    Everything is pooled over findings and decided at .5, as `at_half` does and Keras did.
    `untouched` are the same networks on patients set apart, none where there are none. What was
    not published, or not tried, is NaN.
    """
    apart = {one.network: one for one in untouched}
    rows = []
    for one in own:
        known = (row[1:] for row in PUBLISHED if row[0] == one.network)
        about, *scores = next(known, (UNPUBLISHED, *[NONE] * len(HALF_METRICS)))
        mine = at_half(one, resamples=resamples, seed=seed)
        other = mine * NONE
        if apart:
            other = at_half(apart[one.network], resamples=resamples, seed=seed)
        for metric, score in zip(HALF_METRICS, scores, strict=True):
            shown = (score, *mine.loc[metric], *other.loc[metric])
            rows.append((one.network, metric, *shown, about))
    return pd.DataFrame(rows, columns=list(BESIDE))


def at_half(predictions: Predictions, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return value, low and high of HALF_METRICS pooled over findings, before recalibration.

    `bce` is Keras's loss. 95 % intervals resample patients. A value that cannot be computed is NaN.
    Raises ValueError for no films.
    """
    if not len(predictions):
        raise ValueError(f"{predictions.network}: no films; expected those of one part")
    plain = predictions.uncalibrated()
    drawn = bootstrap.all_and_resampled(plain.patient, resamples=resamples, seed=seed)
    pooled = drawn.of_cells(len(plain.findings))
    label, logit = plain.label.ravel(), plain.logit.ravel()
    inputs: Inputs = {"logit": logit, "decision": logit > 0}
    rows = {}
    for name in HALF_METRICS:
        value = METRICS[name].function(label, inputs[METRICS[name].takes], weights=pooled)
        if name in INTERVALS:
            ends = INTERVALS[name](label, inputs, np.repeat(plain.patient, len(plain.findings)))
        else:
            ends = bootstrap_interval(value, patients=len(drawn.times))
        rows[name] = (value[0], *ends)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def load_comparison(folder: Path) -> StudyComparison:
    """Read what `save_tables` wrote."""
    text = ("network", "metric", "finding", "as_published")
    return load_tables(StudyComparison, folder, text=text)


def _sentence(row: dict[Hashable, Any]) -> str:
    if np.isnan(row["inflation"]):
        return f"{row['network']} not computable"
    if np.isnan(row["low"]):
        pair = f"{row['own_test']:.3f} and {row['held_out']:.3f}"
        return f"{row['network']} {pair}, {row['inflation']:+.3f} (no interval), not tested"
    gap = f"{row['inflation']:+.3f} (95 % interval {row['low']:+.3f} to {row['high']:+.3f})"
    effect = "significant deflation" if row["high"] < 0 else "no significant inflation"
    effect = "significant inflation" if row["low"] > 0 else effect
    return f"{row['network']} {row['own_test']:.3f} and {row['held_out']:.3f}, {gap}, {effect}"


def _with_error(
    key: tuple[str, str], value: Float64[np.ndarray, "c r"], *, patients: Int64[np.ndarray, " c"]
) -> tuple[float, float]:
    """Return the mean over findings, and its interval's half width in NORMAL; NaN for none."""
    mean = float(mean_over_findings(value)[0]) if len(value) else np.nan
    if key == ("auc", MACRO):
        error, freedom = macro_error_of_ranks(value, patients=patients)
        return mean, error * float(student.ppf(HIGH, freedom)) / NORMAL
    return mean, macro_error(value, patients=patients)


def _check(own: Predictions, untouched: Predictions, seen: Int64[np.ndarray, " p"]) -> None:
    if own.findings != untouched.findings:
        raise ValueError(
            f"{own.network} has the findings {', '.join(own.findings)}; expected those of "
            f"the untouched films, {', '.join(untouched.findings)}"
        )
    if len(both := np.intersect1d([*seen, *own.patient], untouched.patient)):
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
    pooled, found = weights.of_cells(label.shape[1]), {}
    for name, column in SHOWN:
        given = inputs[METRICS[name].takes]
        if column == MICRO:
            value = METRICS[name].function(label.ravel(), given.ravel(), weights=pooled)
            found[name, column] = value[None]
        else:
            found[name, column] = by_finding(name, label, given, weights=weights)
    return found
