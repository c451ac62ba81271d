"""Ablation effects: variants of an experiment against its base, over patients and seeds.

The variance of a mean over seeds has two parts. The patients' part is the covariance, over
resampled patients, of two seeds' scores, averaged over the pairs of seeds: it holds what the choice
of test films does to all seeds alike. The seeds' part is the variance over seeds of the scores on
all test films, divided by the number of seeds: it holds the noise of training and, since the seeds
are scored on the same films, what the choice of films does to each seed by itself. Adding the
variance of the mean over resampled patients instead would count the latter twice.

The seeds' part is estimated with few degrees of freedom, so that the interval is that of the
Behrens-Fisher distribution: a normal variable with the patients' part plus Student's t with the
seeds' part and one degree of freedom less than seeds. Fisher, Annals of Eugenics 6 (1935), 391-398;
it is not narrower than it should be: Robinson, Annals of Statistics 4 (1976), 963-971. Where only
one of the parts is there it is exact. Simulated coverage: docs/balancing.md.

Letters in shapes: n films, k findings, s seeds, r resamples, c columns (the findings, then macro),
q nodes of a quadrature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.special import ndtr, ndtri
from scipy.stats import chi

from lucency.config.protocol import BASE
from lucency.core.manifest import mean_over
from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap
from lucency.evaluation.bootstrap import MACRO, Weights, with_macro
from lucency.evaluation.compare import check_comparable, macro_auc_rows
from lucency.evaluation.evaluate import metric_inputs, thresholds_of
from lucency.evaluation.metrics import METRICS, by_finding
from lucency.evaluation.significance import LEVEL, holm
from lucency.evaluation.thresholds import RECALL, Rule, threshold_table

RAW = "_before_recalibration"
SHOWN = ("auc", "average_precision", "f1", "brier", "ece", f"brier{RAW}", f"ece{RAW}")
COLUMNS = (
    "network", "variant", "finding", "metric", "value", "low", "high", "difference",
    "difference_low", "difference_high", "p", "p_holm", "seeds",
)  # fmt: skip
FEWEST_SEEDS = 2  # one does not show the noise of training
NODES, STEPS = 100, 12  # of the quadrature, and to a quantile
Columns = Float64[np.ndarray, " c"]
Sampled = tuple[Float64[np.ndarray, "s c"], Float64[np.ndarray, "s c r"]]  # on all, in resamples
Trained = Mapping[str, Mapping[str, Sequence[Predictions]]]  # variant, network: one a seed


def ablate(
    trained: Trained, *, threshold: Rule, resamples: int, seed: int, recall: float = RECALL
) -> pd.DataFrame:
    """Return each variant's scores on test films, and its paired difference from the base.

    `trained` holds predictions of validation and test films: for the base (BASE) and for every
    variant, for every network, one for each seed in the same order. A value is the mean over
    seeds. Its 95 % interval, and that of the difference, holds the noise of patients and of
    training (`mean_over_seeds`); a difference is paired, over the same patients and the same seeds.
    `p` is of the difference. `p_holm` is corrected (Holm 1979) within network and metric: that of
    macro over all variants, that of a finding over all variants and findings. With one seed there
    is no interval and no p (NaN), nor is there a p of the base. F1 is that at thresholds fitted on
    validation films by the rule `threshold`, of which "recall" alone reads `recall`. Metrics ending
    in RAW are those of the network's own probabilities. Raises ValueError when films, labels,
    findings or split differ, or a variant lacks a network or a seed.
    """
    films = _check(trained)
    draws = bootstrap.resample_patients(films.patient, resamples=resamples, seed=seed)
    fit = partial(threshold_table, method=threshold, recall=recall)
    rows = []
    for network, base in trained[BASE].items():
        score = partial(_scores, fit=fit, draws=draws)
        scores = {variant: score(networks[network]) for variant, networks in trained.items()}
        for (variant, mine), metric in product(scores.items(), SHOWN):
            each = _rows(films.findings, mine[metric], scores[BASE][metric])
            rows += [(network, variant, name, metric, *row, len(base)) for name, *row in each]
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "p_holm"])
    table.loc[table["variant"] == BASE, "p"] = np.nan
    together = [table["network"], table["metric"], table["finding"] == MACRO]
    table["p_holm"] = table["p"].groupby(together).transform(lambda p: holm(p.to_numpy()))
    return table.reindex(columns=list(COLUMNS))


class SeedMeans(NamedTuple):
    """Means over seeds, the ends of their 95 % intervals, and p of a mean of 0, a column each."""

    value: Columns
    low: Columns
    high: Columns
    p: Columns


def mean_over_seeds(
    score: Float64[np.ndarray, "s c"], sampled: Float64[np.ndarray, "s c r"]
) -> SeedMeans:
    """Return the mean over seeds of each column, with its 95 % interval and two-sided p.

    `score` is of all test films, `sampled` of resampled patients, the same for all seeds; either
    may hold differences. Resamples in which a seed has no score (NaN) are left out. The method is
    this module's; p is NaN, and so are the ends, with fewer than FEWEST_SEEDS seeds or two
    resamples. A mean of 0 without any variance has p 1, another NaN.
    """
    value = score.mean(axis=0)
    if len(score) < FEWEST_SEEDS:
        nothing = np.full((3, len(value)), np.nan)
        return SeedMeans(value, *nothing)
    patients = np.array([_covariance(one) for one in sampled.swapaxes(0, 1)])
    # Less the first seed, so that seeds that are all alike have a variance of 0 exactly.
    seeds = (score - score[0]).var(axis=0, ddof=1) / len(score)
    half = _reach(patients, seeds, freedom=len(score) - 1)
    share, _ = _beyond(np.abs(value), patients, seeds, freedom=len(score) - 1)
    p = np.where((value == 0) & (half == 0), 1, share)
    return SeedMeans(value, value - half, value + half, p)


def conclude_ablation(table: pd.DataFrame) -> str:
    """Return one sentence a network: which variants change macro AUC significantly.

    Significant is `p_holm` below LEVEL. From one seed there is no such sentence, but one that says
    so. A mean over fewer than all findings is named as such.
    """
    macro = macro_auc_rows(table)
    variants = macro.loc[macro["variant"] != BASE].groupby("network", sort=False)
    over = _over(table)
    return " ".join(
        f"Macro AUC of {network}{over}: {_effects(rows)}." for network, rows in variants
    )


def _over(table: pd.DataFrame) -> str:
    """Return over which findings macro AUC is the mean, where not over all."""
    first = (table["network"] == table["network"].iloc[0]) & (table["variant"] == BASE)
    mine = table.loc[first & (table["metric"] == "auc") & (table["finding"] != MACRO)]
    known = mine["value"].notna().tolist()
    return (
        "" if all(known) or not any(known) else f" ({mean_over(mine['finding'].tolist(), known)})"
    )


def _effects(rows: pd.DataFrame) -> str:
    """Return how the variants of a network change its macro AUC."""
    seeds, difference = int(rows["seeds"].iloc[0]), rows["difference"].to_numpy(np.float64)
    if seeds < FEWEST_SEEDS:
        return (
            "no interval and no p value for a difference from the base; one seed does not show the "
            f"noise of training, {FEWEST_SEEDS} or more are needed"
        )
    p = rows["p_holm"].to_numpy(np.float64)
    sure, tested = p < LEVEL, ~np.isnan(p)
    named = rows["variant"] + rows["difference"].map(" ({:+.3f})".format)
    effects = [
        f"significantly {word} with {', '.join(named[which])}"
        for word, which in (
            ("higher", sure & (difference > 0)),
            ("lower", sure & (difference < 0)),
        )
        if which.any()
    ]
    counts = {
        "not significantly different": int((tested & ~sure).sum()),
        "not computable": int((~tested).sum()),
    }
    for word, count in counts.items():
        effects += [f"{word} with {count} of {len(rows)} variants"] if count else []
    tests = int(tested.sum())
    corrected = f", Holm-corrected over {tests} variants" if tests > 1 else ""
    return f"{'; '.join(effects)} (level .05{corrected}; {seeds} seeds)"


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
) -> dict[str, Sampled]:
    """Return metric -> the scores of every seed and column, plainly and in every resample."""
    limits = [thresholds_of(fit(one.of("val")), one) for one in several]
    plain, drawn = (
        [_metrics(*pair, weights) for pair in zip(several, limits, strict=True)]
        for weights in (bootstrap.once(len(draws.owner)), draws)
    )
    return {
        name: (
            np.stack([one[name][:, 0] for one in plain]),
            np.stack([one[name] for one in drawn]),
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
    """Return finding, value and difference from the base, each with its interval, and p."""
    apart = mean_over_seeds(*(one - other for one, other in zip(mine, base, strict=True)))
    value, low, high, _ = mean_over_seeds(*mine)
    # No metric shown lies outside 0 and 1, though half an interval may reach there.
    ends = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return zip((*findings, MACRO), value, *ends, *apart, strict=True)


def _covariance(sampled: Float64[np.ndarray, "s r"]) -> float:
    """Return the covariance of two seeds over resamples, the mean over pairs; 0 if it is below."""
    known = sampled[:, ~np.isnan(sampled).any(axis=0)]
    if known.shape[1] < 2:
        return np.nan
    table, seeds = np.cov(known - known[:, :1]), len(known)
    return max(0.0, float((table.sum() - np.trace(table)) / (seeds * (seeds - 1))))


def _beyond(
    distance: Columns, normal: Columns, student: Columns, *, freedom: int
) -> tuple[Columns, Columns]:
    """Return how often a normal variable plus Student's t is further from 0 than the distance.

    `normal` is the variance of the one, `student` the squared scale of the other. Student's t is a
    normal variable divided by the square root of chi-squared over its degrees of freedom, so that
    the sum is normal given the latter, over which Gauss and Legendre's rule averages. The second
    value is by how much the first falls with the distance. Without any variance both are NaN.
    """
    root, weight = _nodes(freedom)
    spread = np.sqrt(normal[:, None] * root**2 + freedom * student[:, None])
    each = np.divide(root, spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    steps = distance[:, None] * each
    fall = np.exp(-(steps**2) / 2) * each * np.sqrt(2 / np.pi)
    return 2 * ndtr(-steps) @ weight, fall @ weight


@cache
def _nodes(freedom: int) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
    """Return square roots of chi-squared and their weights, which sum to 1."""
    place, weight = np.polynomial.legendre.leggauss(NODES)
    # Cubed, so that nodes are dense near 0, which makes the tail of few degrees of freedom.
    root = float(chi.isf(1e-12, freedom)) * ((place + 1) / 2) ** 3
    weight = weight * (place + 1) ** 2 * chi.pdf(root, freedom)
    return root, weight / weight.sum()


def _reach(normal: Columns, student: Columns, *, freedom: int) -> Columns:
    """Return the distance beyond which LEVEL of `_beyond`'s variables lie, by Newton's rule.

    It starts from the distance were all normal, which is too near, and the share beyond is convex.
    """
    distance = ndtri(1 - LEVEL / 2) * np.sqrt(normal + student)
    for _ in range(STEPS):
        share, fall = _beyond(distance, normal, student, freedom=freedom)
        distance = np.where(distance > 0, distance + (share - LEVEL) / fall, distance)
    return distance
