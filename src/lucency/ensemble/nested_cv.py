"""The axes on which a classical learner sees films: fitted to some films, applied to others.

Letters in shapes: n films, d feature dimensions, c axes, t films that are fitted to, m films that
are left out of it.

One learner, nested: what it may choose is chosen, and calibrated, on folds of training patients.

Letters in shapes: n films, k findings, d feature dimensions, c components, t films that are fitted
to, m films that are left out of it, r rows to fit to, of which a film may have several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from sklearn.decomposition import PCA
from sklearn.feature_selection import f_classif
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from lucency.evaluation.bootstrap import mean_over_findings, once
from lucency.evaluation.calibration import Fit, platt
from lucency.evaluation.metrics import auc

COMPONENTS = 128
SELECTED = 32
Reduction = Literal["components", "selection"]


class Space(NamedTuple):
    """Where the films that are fitted to, and those left out, stand on the same axes."""

    fitted: Int64[np.ndarray, " t"]
    left: Int64[np.ndarray, " m"]
    known: Float64[np.ndarray, "t c"]
    asked: Float64[np.ndarray, "m c"]


class Fitting(NamedTuple):
    """How learners are fitted, whichever they are, and who is told how far that is.

    Classes are brought to the same weight as `oversampling`, one of learners.OVERSAMPLING, says, in
    the films that are fitted to and nowhere else; `reduction`, one of REDUCTIONS, makes the axes.
    """

    oversampling: str = "none"
    reduction: Reduction = "components"
    progress: Callable[[int, int], None] = lambda *_: None


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
    space = standardised(feature, fitted=fitted, left=left, seed=seed)
    axes = PCA(min(COMPONENTS, *space.known.shape), random_state=seed)
    known = axes.fit_transform(space.known)
    asked = axes.transform(space.asked)
    size = known.std()
    return space._replace(known=known / size, asked=asked / size)


def standardised(
    feature: Float[np.ndarray, "n d"],
    *,
    fitted: Int64[np.ndarray, " t"],
    left: Int64[np.ndarray, " m"],
    seed: int,
) -> Space:
    """Return features of mean 0 and variance 1 among the fitted films.

    What is NaN takes the fitted films' median, and 0 where they have none.
    """
    del seed
    filled = SimpleImputer(strategy="median", keep_empty_features=True)
    scaler = StandardScaler()
    known = scaler.fit_transform(filled.fit_transform(feature[fitted].astype(np.float64)))
    asked = np.asarray(scaler.transform(filled.transform(feature[left].astype(np.float64))))
    return Space(fitted=fitted, left=left, known=known, asked=asked)


def every(known: Float64[np.ndarray, "t c"], truth: Int64[np.ndarray, " t"]) -> slice:
    """Return all axes, whatever the finding."""
    del known, truth
    return slice(None)


def selected(
    known: Float64[np.ndarray, "t c"], truth: Int64[np.ndarray, " t"]
) -> Int64[np.ndarray, " s"]:
    """Return the SELECTED axes that tell a finding's classes apart best, by the F of an ANOVA.

    An axis on which all films are alike tells nothing and comes last.
    """
    spread = np.flatnonzero(known.std(axis=0) > 0)
    f, _ = f_classif(known[:, spread], truth)
    order = np.argsort(-np.nan_to_num(f, posinf=np.finfo(float).max), kind="stable")
    return np.sort(spread[order[:SELECTED]])


REDUCTIONS = {"components": (components, every), "selection": (standardised, selected)}


INNER = 3  # folds

Choice = Mapping[str, int | float]
Drawn = tuple[Int64[np.ndarray, " r"], Mapping[str, Float64[np.ndarray, " r"]]]
Model = Any  # a classifier of scikit-learn, which states no types
Draw = Callable[[Int64[np.ndarray, " t"], np.random.Generator], Drawn]


class Learner(NamedTuple):
    """How to make a model, of the components it will be fitted to, a seed and a choice of `grid`.

    `score` is what a fitted model says of films, higher for positives; `balance` draws the rows it
    is fitted to, and their weights, so that both classes weigh the same.
    """

    make: Callable[..., Model]
    grid: tuple[Choice, ...]
    score: Callable[..., Float64[np.ndarray, " m"]]
    balance: Draw


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt:
    """Calibrated logits of the films that were left out, and how they came to be.

    `choice` is one for all findings, `auc` of a finding the mean over the inner folds, `line` what
    makes its scores logits; `seconds` were spent on scoring the films that were left out. Where
    nothing was learnt, auc is NaN, the slope 0, and the line's note says why.
    """

    logit: Float64[np.ndarray, "m k"]
    choice: Choice
    auc: Float64[np.ndarray, " k"]
    line: tuple[Fit, ...]
    seconds: float


class _Tried(NamedTuple):
    """What one choice says of training films out of fold, and its mean AUC finding by finding."""

    choice: Choice
    beyond: Float64[np.ndarray, "n k"]
    auc: Float64[np.ndarray, " k"]


class _Scored(NamedTuple):
    said: Float64[np.ndarray, " m"]
    seconds: float


Scores = Callable[[Float32[np.ndarray, " n"], Space, Choice], _Scored]


def learn_nested(
    feature: Float[np.ndarray, "n d"],
    *,
    label: Float32[np.ndarray, "n k"],
    patient: Int64[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    learner: Learner,
    fitting: Fitting,
    seed: int,
) -> Learnt:
    """Return what a learner says of the films outside `train`, in their order.

    All that is fitted is fitted to training films: standardisation and principal components once
    for all findings, or a selection of features for each (`fitting.reduction`), then the
    learner for each finding against the rest. Its choice is that of the highest
    macro AUC over INNER folds of patients, since a rare finding alone has too few positives to
    choose by; what it says of these folds' films, at their natural prevalence, calibrates its
    scores (Platt 1999). `learner.balance` draws the rows of a fold that a finding is fitted to.
    Films whose label is NaN are left out of a finding. A finding that has a class in fewer than
    two inner folds is said to be as common as it is in training, and noted. Raises ValueError for
    fewer training patients than INNER, no film outside `train`, a patient on both sides, and
    features that are infinite or all the same; NaN is filled with the fitted films' median.
    """
    _check(feature, patient, train)
    known = np.flatnonzero(train)
    fold = folds_by_patient(patient[known], folds=INNER, seed=seed)
    place = REDUCTIONS[fitting.reduction][0]
    inner = [
        place(feature, fitted=known[fold != one], left=known[fold == one], seed=seed)
        for one in range(INNER)
    ]
    whole = place(feature, fitted=known, left=np.flatnonzero(~train), seed=seed)
    lacking = [_lacking(truth, inner) for truth in label.T]
    able = np.flatnonzero([not why for why in lacking])
    scores = _counted(
        partial(_scores, learner=learner, reduction=fitting.reduction, seed=seed),
        fits=(len(learner.grid) * INNER + 1) * len(able),
        progress=fitting.progress,
    )
    tried = [_try(label, inner, able, choice, scores) for choice in learner.grid]
    best = max(tried, key=lambda one: mean_over_findings(one.auc[:, None])[0])
    line, score = [], np.zeros((len(whole.left), label.shape[1]))
    common, seconds = prevalence_logit(label[known]).tolist(), 0.0
    for k, (truth, why) in enumerate(zip(label.T, lacking, strict=True)):
        if why:
            line.append(Fit(slope=0.0, offset=common[k], note=why))
        else:
            line.append(_calibration(truth, best.beyond[:, k]))
            score[:, k], taken = scores(truth, whole, best.choice)
            seconds += taken
    slope, offset = (np.array([getattr(one, of) for one in line]) for of in ("slope", "offset"))
    logit = slope * score + offset
    said = {"choice": best.choice, "auc": best.auc, "line": tuple(line), "seconds": seconds}
    return Learnt(logit=logit, **said)


def _counted(scores: Scores, *, fits: int, progress: Callable[[int, int], None]) -> Scores:
    """Return the same scores, each of which is told when it is there."""
    done = 0

    def told(truth: Float32[np.ndarray, " n"], space: Space, choice: Choice) -> _Scored:
        nonlocal done
        found = scores(truth, space, choice)
        done += 1
        progress(done, fits)
        return found

    return told


def folds_by_patient(
    patient: Int64[np.ndarray, " n"], *, folds: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """Return every film's fold, from 0 up: patients are dealt at random, each to one fold.

    Raises ValueError when there are fewer patients than folds, or fewer folds than 2.
    """
    if not 2 <= folds <= (people := len(np.unique(patient))):
        raise ValueError(
            f"{folds} folds of {people} patients; expected 2 folds or more, and a patient for each"
        )
    fold = np.empty(len(patient), dtype=np.int64)
    dealt = GroupKFold(folds, shuffle=True, random_state=seed)
    for place, (_, left) in enumerate(dealt.split(patient, groups=patient)):
        fold[left] = place
    return fold


def prevalence_logit(label: Float32[np.ndarray, "n k"]) -> Float64[np.ndarray, " k"]:
    """Return the log-odds of Platt's smoothed share of positives: what is said where all is alike.

    Exactly what calibration makes the mean probability of training films; 0 without any label.
    """
    stated = [truth[~np.isnan(truth)].astype(np.float64) for truth in label.T]
    return np.array([platt(truth, np.zeros_like(truth)).offset for truth in stated])


def _check(
    feature: Float[np.ndarray, "n d"],
    patient: Int64[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
) -> None:
    known = feature[train]
    if np.isinf(feature).any() or not (known != known[:1])[~np.isnan(known)].any():
        raise ValueError(
            f"features of shape {feature.shape} are infinite, or NaN or the same for all training "
            "films; expected finite numbers that differ: extract them again"
        )
    if train.all():
        raise ValueError(f"all {len(train)} films train; expected some to be asked about")
    if len(both := np.intersect1d(patient[train], patient[~train])):
        raise ValueError(
            f"{len(both)} patients ({both[0]}, …) have films on both sides; expected every patient "
            "to train or to be asked about: split by patient"
        )


def _lacking(truth: Float32[np.ndarray, " n"], inner: Sequence[Space]) -> str:
    """Return which class is in fewer than two inner folds, or nothing."""
    for name, value in (("positives", 1), ("negatives", 0)):
        folds = sum(bool((truth[space.left] == value).any()) for space in inner)
        if folds < 2:
            where = "one inner fold alone" if folds else "no training film"
            return f"not learnt, as common as in training: {name} in {where}"
    return ""


def _try(
    label: Float32[np.ndarray, "n k"],
    inner: Sequence[Space],
    able: Int64[np.ndarray, " a"],
    choice: Choice,
    scores: Scores,
) -> _Tried:
    """Return what a choice says of the films of every inner fold, for the findings it can learn."""
    beyond, area = np.full(label.shape, np.nan), np.full((len(inner), label.shape[1]), np.nan)
    for fold, space in enumerate(inner):
        for k in able.tolist():
            said = beyond[space.left, k] = scores(label[:, k], space, choice).said
            area[fold, k] = auc(label[space.left, k], said, weights=once(len(said)))[0]
    return _Tried(choice=choice, beyond=beyond, auc=mean_over_findings(area))


def _calibration(truth: Float32[np.ndarray, " n"], beyond: Float64[np.ndarray, " n"]) -> Fit:
    """Return the line from scores to logits, fitted to the stated labels of training films."""
    stated = ~np.isnan(truth) & ~np.isnan(beyond)
    return platt(truth[stated].astype(np.float64), beyond[stated])


def _scores(
    truth: Float32[np.ndarray, " n"],
    space: Space,
    choice: Choice,
    *,
    learner: Learner,
    reduction: Reduction,
    seed: int,
) -> _Scored:
    """Return the scores of the films that are left out, by a model of those that are fitted to."""
    known = truth[space.fitted]
    stated = ~np.isnan(known)
    said = known[stated].astype(np.int64)
    axes = REDUCTIONS[reduction][1](space.known[stated], said)
    component = space.known[stated][:, axes]
    rows, weight = learner.balance(said, np.random.default_rng(seed))
    model = learner.make(component[rows], seed, **choice)
    model.fit(component[rows], said[rows], **weight)
    started = perf_counter()
    return _Scored(learner.score(model, space.asked[:, axes]), perf_counter() - started)
