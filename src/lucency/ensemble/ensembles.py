"""Ensembles: several networks' predictions of the same films become those of one predictor.

An ensemble is a blend (a weighted mean of probabilities, logits or ranks) or stacked (a logistic
regression on the networks' logits). Whatever is fitted is fitted on validation films and nowhere
else; `diversity` measures how far networks differ. `EnsembleResults` holds the tables of all
predictors that a run sets beside its networks.

Letters in shapes: m networks, n films (n2, others), k findings, c cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64
from scipy.optimize import LinearConstraint, differential_evolution, minimize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from lucency.core.predictions import Predictions, concatenate
from lucency.ensemble.blend import CERTAIN, Blend, Member, Stack, Weight, scaled
from lucency.evaluation.compare import check_comparable
from lucency.evaluation.evaluate import with_logits
from lucency.evaluation.metrics import macro_auc

ALIKE = 1e-4  # evolution ends where candidates differ by this share of their macro AUC
GENERATIONS = 100  # at most; SciPy takes 15 candidates a network
GREEDY_STEPS = 50  # Caruana et al. stop where the validation score stops rising, soon after this
FOLDS = 5
STRENGTH = 1.0  # inverse of the ridge penalty on standardised logits
STACKED = "stacked"
EQUAL = "mean-probability"  # what other ensembles must beat
TEXT = (  # columns of the tables of EnsembleResults
    "network", "other", "kind", "note", "method", "finding", "choice", "source", "metric", "films",
)  # fmt: skip
Label = Float32[np.ndarray, "n k"]


class Ensemble(NamedTuple):
    """An ensemble's predictions of validation and test films, its weights, and what was fitted.

    `weights`: method, network, finding, weight; no row where it has none.
    """

    predictions: Predictions
    weights: pd.DataFrame
    fitted: Blend | Stack


def make_ensemble(several: Sequence[Predictions], *, method: str, seed: int) -> Ensemble:
    """Return an ensemble of networks by one of METHODS; each holds validation and test films.

    Raises ValueError as `fit_blend` does.
    """
    val, test = ([one.of(part) for one in several] for part in ("val", "test"))
    columns = ["method", "network", "finding", "weight"]
    if method == STACKED:
        *both, fitted = stack(val, test)
        return Ensemble(concatenate(both), pd.DataFrame(columns=columns), fitted)
    blend = fit_blend(val, method=method, seed=seed)
    both = [blended(side, blend) for side in (val, test)]
    cells = zip(product(blend.members, several[0].findings), blend.weight.ravel(), strict=True)
    rows = [(method, *cell, weight) for cell, weight in cells]
    return Ensemble(concatenate(both), pd.DataFrame(rows, columns=columns), blend)


def fit_blend(several: Sequence[Predictions], *, method: str, seed: int) -> Blend:
    """Return the blend that a method of ENSEMBLES finds on validation films.

    Raises ValueError when the predictions are not of the same validation films and findings, are
    fewer than two, or for an unknown method.
    """
    if method not in ENSEMBLES:
        raise ValueError(f"ensemble {method!r} is unknown; expected one of {', '.join(ENSEMBLES)}")
    check_members(several, part="val")
    space, fit = ENSEMBLES[method]
    value = np.stack([one.calibrated for one in several])
    known = np.sort(value, axis=1) if space == "rank" else np.empty((0, 0, 0))
    weight = fit(several[0].label, scaled(value, known, space=space), seed)
    members = tuple(one.network for one in several)
    return Blend(method=method, space=space, members=members, weight=weight, known=known)


def blended(several: Sequence[Predictions], blend: Blend) -> Predictions:
    """Return the ensemble's predictions of films.

    Raises ValueError when the members are others than those the blend was fitted to.
    """
    names = tuple(one.network for one in several)
    if names != blend.members:
        raise ValueError(
            f"{blend.method} was fitted to {', '.join(blend.members)}; found {', '.join(names)}"
        )
    for one in several[1:]:
        check_comparable(several[0], one, name=one.network)
    value = np.stack([one.calibrated for one in several])
    return with_logits(several[0], network=blend.method, logit=blend.logit(value))


def stack(
    validation: Sequence[Predictions], test: Sequence[Predictions]
) -> tuple[Predictions, Predictions, Stack]:
    """Return the stack's predictions of validation films, out of fold, and of test films; itself.

    A finding's logits of all networks, standardised on the films that are fitted to, go into one
    logistic regression (Wolpert, Neural Networks 5, 1992, 241-259). A validation film is predicted
    by a regression that has not seen its patient, so that thresholds may be fitted to it. A finding
    without both classes in a fold's films is predicted to be as common as it is there. Raises
    ValueError as `fit_blend` does.
    """
    check_members(validation, part="val")
    check_members(test, part="test")
    known, new = (np.stack([one.calibrated for one in side]) for side in (validation, test))
    label, patient = validation[0].label, validation[0].patient
    folds = min(FOLDS, len(np.unique(patient)))
    beyond = np.empty(label.shape)
    for fitted, left_out in GroupKFold(folds).split(label, groups=patient):
        part = _regress(label[fitted], known[:, fitted], members=())
        beyond[left_out] = part.logit(known[:, left_out])
    whole = _regress(label, known, members=tuple(one.network for one in validation))
    return (
        with_logits(validation[0], network=STACKED, logit=beyond),
        with_logits(test[0], network=STACKED, logit=whole.logit(new)),
        whole,
    )


def check_members(several: Sequence[Predictions], *, part: str) -> None:
    """Raise ValueError unless these are two networks or more on the same films of one part."""
    if len(several) < 2:
        raise ValueError(f"an ensemble of {len(several)} network(s); expected two or more")
    for one in several:
        if not len(one) or (one.part != part).any():
            parts = ", ".join(np.unique(one.part).tolist()) or "no"
            raise ValueError(
                f"{one.network}: an ensemble is fitted to {part} films alone, found {parts} films: "
                f'take predictions.of("{part}")'
            )
        check_comparable(several[0], one, name=one.network)


def diversity(
    several: Sequence[Predictions], *, threshold: Float64[np.ndarray, "m k"]
) -> pd.DataFrame:
    """Return for each pair of networks how far they differ: network, other, disagreement, error.

    `disagreement` is the share of stated cells that the two decide differently at their thresholds
    (a row a network), `error` the correlation of their errors, probability minus label, over these
    cells. Kuncheva and Whitaker, Machine Learning 51 (2003), 181-207.
    """
    stated = ~np.isnan(several[0].label)
    called = [one.probability >= row for one, row in zip(several, threshold, strict=True)]
    wrong = [(one.probability - one.label)[stated] for one in several]
    rows = []
    for one, other in combinations(range(len(several)), 2):
        apart = float((called[one] != called[other])[stated].mean())
        alike = float(np.corrcoef(wrong[one], wrong[other])[0, 1])
        rows.append((several[one].network, several[other].network, apart, alike))
    return pd.DataFrame(rows, columns=["network", "other", "disagreement", "error"])


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleResults:
    """All tables on a run's ensembles; all are empty where a protocol makes none.

    `leaderboard` is of evaluation.compare; `weights` has method, network, finding and weight
    of ensembles; `diversity` is that of test films; `choices` of ensemble.feature_classifiers, with
    its network; `similar` of ensemble.retrieval_metrics, with the source of the features; `lungs`
    of ensemble.radiomics.
    """

    leaderboard: pd.DataFrame = field(default_factory=pd.DataFrame)
    weights: pd.DataFrame = field(default_factory=pd.DataFrame)
    diversity: pd.DataFrame = field(default_factory=pd.DataFrame)
    choices: pd.DataFrame = field(default_factory=pd.DataFrame)
    similar: pd.DataFrame = field(default_factory=pd.DataFrame)
    lungs: pd.DataFrame = field(default_factory=pd.DataFrame)


def _equal(label: Label, value: Member, seed: int) -> Weight:
    """Return equal weights, fitted to nothing."""
    return np.full((len(value), value.shape[2]), 1 / len(value))


def _evolved(label: Label, value: Member, seed: int) -> Weight:
    """Return the weights of highest macro AUC that differential evolution finds, one a network.

    Ashraf et al., SynthEnsemble, arXiv 2311.07750 (2023); Storn and Price, Journal of Global
    Optimization 11 (1997), 341-359. AUC is a step function, so that no gradient leads there.
    """

    def lost(weight: Float64[np.ndarray, " m"]) -> float:
        return -macro_auc(label, np.einsum("mnk,m->nk", value, weight))

    bounds, generator = [(0.0, 1.0)] * len(value), np.random.default_rng(seed)
    found = differential_evolution(
        lost, bounds, maxiter=GENERATIONS, tol=ALIKE, rng=generator, polish=False
    )
    return _every(found.x / found.x.sum(), value)


def _convex(label: Label, value: Member, seed: int) -> Weight:
    """Return the weights of least log-loss of the blended probability, one a network.

    The log-loss of a mixture is convex in its weights, so this is the minimum over the simplex.
    """
    return _every(_least_loss(label.ravel(), value.reshape(len(value), -1)), value)


def _convex_by_finding(label: Label, value: Member, seed: int) -> Weight:
    """Return the weights of least log-loss, one a network and finding.

    A finding without both classes in validation gets equal weights.
    """
    columns = [_least_loss(label[:, k], value[:, :, k]) for k in range(value.shape[2])]
    return np.stack(columns, axis=1)


def _greedy(label: Label, value: Member, seed: int) -> Weight:
    """Return how often each network is chosen when the one that helps most is added, repeatedly.

    With replacement, starting from the best single network and stopping before macro AUC falls, so
    never below it. Caruana, Niculescu-Mizil, Crew and Ksikes, ICML (2004).
    """
    chosen = np.zeros(len(value))
    total, best = np.zeros(value.shape[1:]), -np.inf
    for step in range(GREEDY_STEPS):
        scores = [macro_auc(label, (total + one) / (step + 1)) for one in value]
        place = int(np.argmax(scores))
        if scores[place] < best:
            break
        best, total = scores[place], total + value[place]
        chosen[place] += 1
    return _every(chosen / chosen.sum(), value)


def _every(weight: Float64[np.ndarray, " m"], value: Member) -> Weight:
    return np.repeat(weight[:, None], value.shape[2], axis=1)


def _least_loss(
    label: Float32[np.ndarray, " c"], probability: Float64[np.ndarray, "m c"]
) -> Float64[np.ndarray, " m"]:
    """Return the weights in the simplex of least mean log-loss of the weighted probability."""
    stated = ~np.isnan(label)
    truth = label[stated] == 1
    start = np.full(len(probability), 1 / len(probability))
    if truth.all() or not truth.any():
        return start
    kept = np.clip(probability[:, stated], CERTAIN, 1 - CERTAIN)
    right = np.where(truth, kept, 1 - kept)

    def loss(weight: Float64[np.ndarray, " m"]) -> tuple[float, Float64[np.ndarray, " m"]]:
        likelihood = weight @ right
        return float(-np.log(likelihood).mean()), -(right / likelihood).mean(axis=1)

    found = minimize(
        loss, start, jac=True, method="SLSQP", bounds=[(0, 1)] * len(start),
        constraints=LinearConstraint(np.ones((1, len(start))), 1, 1), options={"ftol": 1e-12},
    )  # fmt: skip
    weight = np.clip(found.x, 0, None)
    return weight / weight.sum()


def _regress(
    label: Float32[np.ndarray, "n k"],
    known: Float64[np.ndarray, "m n k"],
    *,
    members: tuple[str, ...],
) -> Stack:
    """Return the regressions fitted to the known films."""
    networks, _, findings = known.shape
    middle, coefficient = np.zeros((2, networks, findings))
    scale, intercept = np.ones((networks, findings)), np.empty(findings)
    for k in range(findings):
        stated = ~np.isnan(label[:, k])
        truth, score = label[stated, k], known[:, stated, k].T
        positives, negatives = (truth == 1).sum(), (truth == 0).sum()
        if not (positives and negatives):
            intercept[k] = np.log((positives + 0.5) / (negatives + 0.5))
            continue
        middle[:, k], scale[:, k] = score.mean(axis=0), np.maximum(score.std(axis=0), 1e-12)
        model: Any = LogisticRegression(C=STRENGTH, max_iter=1000)
        model.fit((score - middle[:, k]) / scale[:, k], truth)
        coefficient[:, k], intercept[k] = model.coef_[0], model.intercept_[0]
    return Stack(
        members=members, middle=middle, scale=scale, coefficient=coefficient, intercept=intercept
    )


ENSEMBLES: dict[str, tuple[str, Callable[[Label, Member, int], Weight]]] = {
    "mean-probability": ("probability", _equal),
    "mean-logit": ("logit", _equal),
    "mean-rank": ("rank", _equal),
    "evolved": ("probability", _evolved),
    "convex": ("probability", _convex),
    "convex-by-finding": ("probability", _convex_by_finding),
    "greedy": ("probability", _greedy),
}
METHODS = (*ENSEMBLES, STACKED)
