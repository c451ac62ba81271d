"""Ablation effects: variants of an experiment against its base, over patients and seeds.

Letters in shapes: n films, k findings, s seeds, r resamples, c columns (the findings, then macro).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.config.protocol import BASE
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import (
    MACRO,
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
    resample_repeats,
)
from lucency.evaluation.compare import check_comparable, macro_auc_rows
from lucency.evaluation.metrics import METRICS
from lucency.evaluation.thresholds import RECALL, Rule, threshold_table

RAW = "_before_recalibration"
COLUMNS = (
    "network", "variant", "finding", "metric", "value", "low", "high", "difference",
    "difference_low", "difference_high", "seeds",
)  # fmt: skip
FitThresholds = Callable[[Predictions], pd.DataFrame]  # from validation films
Sampled = tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, "c r"]]  # on all, in resamples
Trained = Mapping[str, Mapping[str, Sequence[Predictions]]]  # variant, network: one a seed


def ablate(
    trained: Trained, *, threshold: Rule, resamples: int, seed: int, recall: float = RECALL
) -> pd.DataFrame:
    """Return each variant's scores on test films, and its paired difference from the base.

    `trained` holds predictions of validation and test films: for the base (BASE) and for every
    variant, for every network, one for each seed in the same order. A value is the mean over
    seeds. Its 95 % interval, and that of the difference, resamples patients, the same for all, and
    seeds with replacement, the same for base and variant; so it holds the noise of training too,
    as far as so many seeds show it. F1 is that at thresholds fitted on validation films by the rule
    `threshold`, of which "recall" alone reads `recall`. Metrics ending in RAW are those of the
    network's own probabilities. Raises ValueError when films, labels, findings or split differ, or
    a variant lacks a network or a seed.
    """
    films = _check(trained)
    draws = resample_patients(films.patient, resamples=resamples, seed=seed)
    fit = partial(threshold_table, method=threshold, recall=recall)
    rows = []
    for network, base in trained[BASE].items():
        chosen = resample_repeats(len(base), resamples=resamples, seed=seed)
        of_base = _scores(base, fit=fit, draws=draws, chosen=chosen)
        for variant, networks in trained.items():
            mine = of_base
            if variant != BASE:
                mine = _scores(networks[network], fit=fit, draws=draws, chosen=chosen)
            rows += _rows(network, variant, films.findings, mine, of_base, seeds=len(base))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_ablation(table: pd.DataFrame) -> str:
    """Return one sentence a network: which variants change macro AUC, as far as films can tell."""
    macro = macro_auc_rows(table)
    sentences = []
    for network, rows in macro.loc[macro["variant"] != BASE].groupby("network", sort=False):
        better, worse = rows["difference_low"] > 0, rows["difference_high"] < 0
        effects = [
            f"{word} by {_listed(rows.loc[which])}"
            for word, which in (("raised", better), ("lowered", worse))
            if which.any()
        ]
        unsure = int((~(better | worse)).sum())
        if unsure:
            effects.append(
                f"not different from the base beyond chance with {unsure} of {len(rows)} variants"
            )
        sentences.append(f"{network}: macro AUC is {', '.join(effects)}.")
    return " ".join(sentences)


def _listed(rows: pd.DataFrame) -> str:
    pairs = zip(rows["variant"], rows["difference"], strict=True)
    return ", ".join(f"{name} ({difference:+.3f})" for name, difference in pairs)


def _check(trained: Trained) -> Predictions:
    """Return the test films that all were evaluated on."""
    base = trained[BASE]
    first = next(iter(base.values()))[0].of("test")
    for variant, networks in trained.items():
        if set(networks) != set(base):
            raise ValueError(
                f"variant {variant!r} has the networks {', '.join(networks)}; expected those of "
                f"the base: {', '.join(base)}"
            )
        for network, several in networks.items():
            if len(several) != len(base[network]):
                raise ValueError(
                    f"variant {variant!r} has {len(several)} seeds of {network}; expected "
                    f"{len(base[network])}, as the base"
                )
            for predictions in several:
                check_comparable(first, predictions.of("test"), name=variant)
    return first


def _scores(
    several: Sequence[Predictions],
    *,
    fit: FitThresholds,
    draws: Weights,
    chosen: Float64[np.ndarray, "s r"],
) -> dict[str, Sampled]:
    """Return metric -> the mean over seeds of every column, plainly and in every resample."""
    plain = [_metrics(one, fit=fit, weights=once(len(draws.owner))) for one in several]
    drawn = [_metrics(one, fit=fit, weights=draws) for one in several]
    return {
        name: (
            np.mean([one[name][:, 0] for one in plain], axis=0),
            np.einsum("scr,sr->cr", np.stack([one[name] for one in drawn]), chosen),
        )
        for name in plain[0]
    }


def _metrics(
    predictions: Predictions, *, fit: FitThresholds, weights: Weights
) -> dict[str, Float64[np.ndarray, "c r"]]:
    fitted = fit(predictions.of("val"))["threshold"]
    test = predictions.of("test")
    raw = test.uncalibrated().probability
    called = test.probability >= fitted.to_numpy(dtype=np.float64)
    inputs = {
        "auc": test.calibrated, "average_precision": test.calibrated, "f1": called,
        "brier": test.probability, "ece": test.probability, "brier" + RAW: raw, "ece" + RAW: raw,
    }  # fmt: skip
    found = {}
    for name, given in inputs.items():
        function = METRICS[name.removesuffix(RAW)].function
        pairs = zip(test.label.T, given.T, strict=True)
        value = np.stack([function(label, one, weights=weights) for label, one in pairs])
        found[name] = np.concatenate([value, mean_over_findings(value)[None]])
    return found


def _rows(
    network: str,
    variant: str,
    findings: tuple[str, ...],
    mine: dict[str, Sampled],
    base: dict[str, Sampled],
    *,
    seeds: int,
) -> list[tuple[object, ...]]:
    rows = []
    for metric, (value, drawn) in mine.items():
        bounds, apart = interval(drawn), interval(drawn - base[metric][1])
        difference = value - base[metric][0]
        for place, finding in enumerate((*findings, MACRO)):
            scored = (value[place], *bounds[:, place], difference[place], *apart[:, place])
            rows.append((network, variant, finding, metric, *scored, seeds))
    return rows
