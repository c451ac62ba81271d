"""Ablation effects: variants of an experiment against its base, over patients and seeds.

Letters in shapes: n films, k findings, s seeds, r resamples, c columns (the findings, then macro).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.config.protocol import BASE
from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap
from lucency.evaluation.bootstrap import MACRO, Weights, with_macro
from lucency.evaluation.compare import check_comparable, macro_auc_rows
from lucency.evaluation.evaluate import metric_inputs, thresholds_of
from lucency.evaluation.metrics import METRICS, by_finding
from lucency.evaluation.thresholds import RECALL, Rule, threshold_table

RAW = "_before_recalibration"
SHOWN = ("auc", "average_precision", "f1", "brier", "ece", f"brier{RAW}", f"ece{RAW}")
COLUMNS = (
    "network", "variant", "finding", "metric", "value", "low", "high", "difference",
    "difference_low", "difference_high", "seeds",
)  # fmt: skip
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
    draws = bootstrap.resample_patients(films.patient, resamples=resamples, seed=seed)
    fit = partial(threshold_table, method=threshold, recall=recall)
    rows = []
    for network, base in trained[BASE].items():
        chosen = bootstrap.resample_repeats(len(base), resamples=resamples, seed=seed)
        score = partial(_scores, fit=fit, draws=draws, chosen=chosen)
        scores = {variant: score(networks[network]) for variant, networks in trained.items()}
        for (variant, mine), metric in product(scores.items(), SHOWN):
            each = _rows(films.findings, mine[metric], scores[BASE][metric])
            rows += [(network, variant, name, metric, *row, len(base)) for name, *row in each]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_ablation(table: pd.DataFrame) -> str:
    """Return one sentence a network: which variants change macro AUC significantly."""
    macro = macro_auc_rows(table)
    sentences = []
    for network, rows in macro.loc[macro["variant"] != BASE].groupby("network", sort=False):
        higher, lower = rows["difference_low"] > 0, rows["difference_high"] < 0
        named = rows["variant"] + rows["difference"].map(" ({:+.3f})".format)
        effects = [
            f"significantly {word} with {', '.join(named[which])}"
            for word, which in (("higher", higher), ("lower", lower))
            if which.any()
        ]
        if unsure := int((~(higher | lower)).sum()):
            effects.append(f"not significantly different with {unsure} of {len(rows)} variants")
        sentences.append(f"Macro AUC of {network}: {'; '.join(effects)}.")
    return " ".join(sentences)


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
    fit: Callable[[Predictions], pd.DataFrame],
    draws: Weights,
    chosen: Float64[np.ndarray, "s r"],
) -> dict[str, Sampled]:
    """Return metric -> the mean over seeds of every column, plainly and in every resample."""
    limits = [thresholds_of(fit(one.of("val")), one) for one in several]
    plain, drawn = (
        [_metrics(*pair, weights) for pair in zip(several, limits, strict=True)]
        for weights in (bootstrap.once(len(draws.owner)), draws)
    )
    return {
        name: (
            np.mean([one[name][:, 0] for one in plain], axis=0),
            np.einsum("scr,sr->cr", np.stack([one[name] for one in drawn]), chosen),
        )
        for name in SHOWN
    }


def _metrics(
    predictions: Predictions, threshold: Float64[np.ndarray, " k"], weights: Weights
) -> dict[str, Float64[np.ndarray, "c r"]]:
    test = predictions.of("test")
    called = test.probability >= threshold
    inputs, raw = (metric_inputs(one, called) for one in (test, test.uncalibrated()))
    found = {}
    for shown in SHOWN:
        name = shown.removesuffix(RAW)
        given = (inputs if name == shown else raw)[METRICS[name].takes]
        found[shown] = with_macro(by_finding(name, test.label, given, weights=weights))
    return found


def _rows(findings: tuple[str, ...], mine: Sampled, base: Sampled) -> Iterator[tuple[object, ...]]:
    """Return finding, value and difference from the base, each with its interval."""
    apart = tuple(one - other for one, other in zip(mine, base, strict=True))
    numbers = [one for value, drawn in (mine, apart) for one in (value, *bootstrap.interval(drawn))]
    return zip((*findings, MACRO), *numbers, strict=True)
