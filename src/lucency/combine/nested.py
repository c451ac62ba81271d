"""One learner, nested: what it may choose is chosen, and calibrated, on folds of training patients.

Letters in shapes: n films, k findings, d feature dimensions, c components, t films that are fitted
to, m films that are left out of it, f folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from lucency.judge.intervals import mean_over_findings, once
from lucency.judge.metrics import auc
from lucency.judge.recalibrate import Fit, platt

INNER = 3  # folds
COMPONENTS = 128
Draw = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, Mapping[str, np.ndarray]]]
Choice = Mapping[str, float]


class Model(Protocol):
    """What is fitted to films: any classifier of scikit-learn."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> object:  # noqa: N803
        """Fit to the features and the truth of films."""
        ...


class Learner(NamedTuple):
    """How to make a model of so many films, a seed and a choice; what may be chosen, tamest first.

    `score` gives a fitted model's scores of films, higher for positives. `balance` is how its
    classes are brought to the same weight: by weights, or by copies where it takes none.
    """

    make: Callable[..., Model]
    grid: tuple[Choice, ...]
    score: Callable[[Model, np.ndarray], np.ndarray]
    balance: Draw


class Learnt(NamedTuple):
    """What a learner says of a finding, with what was chosen, its inner AUC, and how it was scaled.

    `note` says why nothing was learnt: then all films have one logit.
    """

    logit: Float64[np.ndarray, " m"]
    choice: str
    inner_auc: float
    calibration: Fit
    note: str


class Space(NamedTuple):
    """The components of the films that are fitted to, and of others, on axes of the former."""

    fitted: Int64[np.ndarray, " t"]
    left: Int64[np.ndarray, " m"]
    known: Float64[np.ndarray, "t c"]
    asked: Float64[np.ndarray, "m c"]


def learn_nested(
    feature: Float[np.ndarray, "n d"],
    *,
    label: Float32[np.ndarray, "n k"],
    patient: Int64[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    learner: Learner,
    draw: Draw,
    seed: int,
) -> list[Learnt]:
    """Return, finding by finding, what a learner fitted to the films in `train` says of the others.

    Whatever is fitted is fitted to training films alone: standardisation and principal components
    once for all findings, then the learner for each. Its choice is that of the highest mean AUC
    over INNER folds of patients; what it says of these folds' films, at their natural prevalence,
    calibrates its final scores (Platt 1999).
    Films whose label is NaN are left out of a finding. One that has a class in fewer than two
    inner folds is said to be as common as it is in training. Raises ValueError where training
    films are of fewer patients than INNER.
    """
    known = np.flatnonzero(train)
    fold = folds_by_patient(patient[known], folds=INNER, seed=seed)
    inner = [
        components(feature, fitted=known[fold != one], left=known[fold == one], seed=seed)
        for one in range(INNER)
    ]
    whole = components(feature, fitted=known, left=np.flatnonzero(~train), seed=seed)
    scores = partial(_scores, learner=learner, draw=draw, seed=seed)
    return [_learn(truth, [*inner, whole], learner.grid, scores) for truth in label.T]


def folds_by_patient(
    patient: Int64[np.ndarray, " n"], *, folds: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """Return every film's fold, from 0 up: patients are dealt at random, each to one fold.

    Raises ValueError when there are fewer patients than folds.
    """
    if (people := len(np.unique(patient))) < folds:
        raise ValueError(
            f"{people} patients for {folds} folds; expected one a fold or more: give films of more "
            "patients"
        )
    fold = np.empty(len(patient), dtype=np.int64)
    dealt = GroupKFold(folds, shuffle=True, random_state=seed)
    for place, (_, left) in enumerate(dealt.split(patient, groups=patient)):
        fold[left] = place
    return fold


def components(
    feature: Float[np.ndarray, "n d"],
    *,
    fitted: Int64[np.ndarray, " t"],
    left: Int64[np.ndarray, " m"],
    seed: int,
) -> Space:
    """Return the principal components of standardised features, on the axes of the fitted films.

    At most COMPONENTS of them, scaled together to a mean variance of 1 among the fitted films.
    """
    scaler, axes = StandardScaler(), PCA(_most(feature[fitted]), random_state=seed)
    known = axes.fit_transform(scaler.fit_transform(feature[fitted].astype(np.float64)))
    size = max(float(known.std()), np.finfo(np.float64).tiny)
    asked = np.empty((0, known.shape[1]))
    if len(left):
        asked = axes.transform(scaler.transform(feature[left].astype(np.float64)))
    return Space(fitted=fitted, left=left, known=known / size, asked=asked / size)


def prevalence_logit(truth: Float32[np.ndarray, " n"]) -> float:
    """Return the log-odds of positives among stated labels, half a film added to both classes."""
    return float(np.log(((truth == 1).sum() + 0.5) / ((truth == 0).sum() + 0.5)))


def _most(feature: Float[np.ndarray, "t d"]) -> int:
    return min(COMPONENTS, *feature.shape)


def _learn(
    truth: Float32[np.ndarray, " n"],
    spaces: Sequence[Space],
    grid: Sequence[Choice],
    scores: Callable[..., np.ndarray],
) -> Learnt:
    """Return what is learnt of one finding in the last space, chosen in those before it."""
    *inner, whole = spaces
    known = truth[whole.fitted]
    if lacking := _lacking(truth, inner):
        logit = prevalence_logit(known)
        said = np.full(len(whole.left), logit)
        return Learnt(said, "", np.nan, Fit(offset=logit), lacking)
    best, area, beyond = _choose(truth, inner, grid, scores)
    rows = whole.fitted[~np.isnan(known)]
    line = platt(truth[rows].astype(np.float64), beyond[rows])
    chosen = ", ".join(f"{name}={value:g}" for name, value in best.items())
    logit = line.slope * scores(truth, whole, best) + line.offset
    return Learnt(logit, chosen, area, line, line.note)


def _lacking(truth: Float32[np.ndarray, " n"], inner: Sequence[Space]) -> str:
    """Return which class is in fewer than two inner folds, or nothing."""
    for name, value in (("positives", 1), ("negatives", 0)):
        folds = sum(bool((truth[space.left] == value).any()) for space in inner)
        if folds < 2:
            where = "only one inner fold" if folds else "no training film"
            return f"not learnt, as common as in training: {name} in {where}"
    return ""


def _choose(
    truth: Float32[np.ndarray, " n"],
    inner: Sequence[Space],
    grid: Sequence[Choice],
    scores: Callable[..., np.ndarray],
) -> tuple[Choice, float, Float64[np.ndarray, " n"]]:
    """Return the choice of the highest mean AUC, the first of equals; its AUC; its scores."""
    tried = []
    for choice in grid:
        beyond, area = np.full(len(truth), np.nan), []
        for space in inner:
            beyond[space.left] = score = scores(truth, space, choice)
            area.append(auc(truth[space.left], score, weights=once(len(score))))
        tried.append((choice, float(mean_over_findings(np.stack(area))[0]), beyond))
    return max(tried, key=lambda one: one[1])


def _scores(
    truth: Float32[np.ndarray, " n"],
    space: Space,
    choice: Choice,
    *,
    learner: Learner,
    draw: Draw,
    seed: int,
) -> Float64[np.ndarray, " m"]:
    """Return the scores of the films that are left, by a model of those that are fitted to."""
    known = truth[space.fitted]
    stated = ~np.isnan(known)
    feature, said = space.known[stated], known[stated].astype(np.int64)
    rows, weight = draw(said, np.random.default_rng(seed))
    model = learner.make(feature[rows], seed, **choice)
    model.fit(feature[rows], said[rows], **weight)
    return learner.score(model, space.asked)
