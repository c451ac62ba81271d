"""Classical classifiers on a network's features, one finding against the rest, as predictions.

After Shoaib et al. (2024), frozen features and classical classifiers beside the fine-tuned head.
Features are first brought onto axes: principal components, or standardised with a selection a
finding. All that is fitted, chosen or calibrated is so on inner folds of training patients: nested
cross-validation. LEARNERS holds the classifiers of scikit-learn and their grids, OVERSAMPLING how
the rows that they are fitted to are drawn, REDUCTIONS the axes.

Letters in shapes: n films, k findings, d feature dimensions, c axes, t films that are fitted to, m
films that are left out of it, r rows to fit to (a film may have several), s selected axes, a
findings that can be fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, ParameterGrid
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from lucency.core.manifest import Manifest, nearest
from lucency.core.predictions import Features, Predictions, concatenate
from lucency.ensemble.learner_forms import (
    SMOOTHING,
    Axes,
    FittedLearner,
    Form,
    bayes_form,
    boosting_form,
    forest_form,
    kernel_form,
    linear_form,
    neighbours_form,
    perceptron_form,
)
from lucency.evaluation.bootstrap import mean_over_findings, once
from lucency.evaluation.calibration import Fit, platt
from lucency.evaluation.metrics import auc

COMPONENTS = 128
SELECTED = 32
INNER = 3  # folds
LANDMARKS = 200  # films that stand for all in the kernel of the RBF machine
TREES, TREE_FILMS = 100, 10_000  # how many trees, and the most films that one sees
HIDDEN, EPOCHS = 32, 30
NEVER = 1e9  # no epoch lowers the loss by so much, so that EPOCHS of them are the end
Choice = Mapping[str, int | float]
Drawn = tuple[Int64[np.ndarray, " r"], Mapping[str, Float64[np.ndarray, " r"]]]
Model = Any  # a classifier of scikit-learn, which states no types
Components = Float64[np.ndarray, "t c"]
Draw = Callable[[Int64[np.ndarray, " t"], np.random.Generator], Drawn]


class Space(NamedTuple):
    """Where the films that are fitted to, and those left out, stand on the same `axes`."""

    fitted: Int64[np.ndarray, " t"]
    left: Int64[np.ndarray, " m"]
    known: Float64[np.ndarray, "t c"]
    new: Float64[np.ndarray, "m c"]
    axes: Axes


class Fitting(NamedTuple):
    """How any classifier is fitted.

    `oversampling`, one of OVERSAMPLING, brings classes to the same weight, in
    the films that are fitted to and nowhere else; `reduction`, one of REDUCTIONS, makes the axes;
    `progress` is called with the fits done and all fits.
    """

    oversampling: str = "none"
    reduction: Literal["components", "selection"] = "components"
    progress: Callable[[int, int], None] = lambda *_: None


class FeatureClassifier(NamedTuple):
    """How to make a model, of the components it will be fitted to, a seed and a choice of `grid`.

    `score` returns a fitted model's scores of films, higher for positives; `balance` draws the rows
    it is fitted to, and their weights, so that both classes weigh the same. `form` returns a fitted
    model as arrays, whose scores are the same.
    """

    make: Callable[..., Model]
    grid: tuple[Choice, ...]
    score: Callable[..., Float64[np.ndarray, " m"]]
    balance: Draw
    form: Callable[[Model], Form]


@dataclass(frozen=True, kw_only=True, eq=False)
class NestedFit:
    """Calibrated logits of the films that were left out, and how they came to be.

    `choice` is one for all findings, `auc` of a finding the mean over the inner folds, `line` what
    makes its scores logits; `seconds` were spent on scoring the films that were left out. Where
    nothing was fitted, auc is NaN, the slope 0, and the line's note says why. `kept` predicts any
    film.
    """

    logit: Float64[np.ndarray, "m k"]
    choice: Choice
    auc: Float64[np.ndarray, " k"]
    line: tuple[Fit, ...]
    seconds: float
    kept: FittedLearner


PLAIN = Fitting()


def cross_validated(
    feature: Float32[np.ndarray, "n d"],
    *,
    manifest: Manifest,
    source: str,
    learner: str,
    seed: int,
    folds: int = 5,
    fitting: Fitting = PLAIN,
) -> tuple[Predictions, pd.DataFrame]:
    """Return the cross-validated predictions of a classifier of LEARNERS, in folds by patient.

    `source` is the network whose features these are; all films have the part "test". Each fold's
    logits are moved from its training films' prevalence to that of all: the more positives are left
    out, the fewer are trained on, and AUCs of noise fall to .4 (Parker, Gunter and Bedo, BMC
    Bioinformatics 8, 2007, 326). The table holds what was chosen and fitted, by fold and finding.
    Raises ValueError as `fit_on_features` and `folds_by_patient` do.
    """
    fold = folds_by_patient(manifest.patient, folds=folds, seed=seed)
    network, label = f"{learner} on {source}", manifest.label
    films = Features(
        source=source, split=f"{folds} folds by patient, seed {seed}", feature=feature,
        findings=manifest.findings, image=manifest.image, patient=manifest.patient, label=label,
        part=np.full(len(fold), "test"),
    )  # fmt: skip
    logit, tables, common = np.empty(label.shape), [], prevalence_logit(label)
    for one in range(folds):
        train = fold != one
        fitted = fit_on_features(films, train=train, learner=learner, seed=seed, fitting=fitting)
        logit[~train] = fitted.logit + common - prevalence_logit(label[train])
        tables.append(_table(network, fitted, films.findings, label[train], fold=one))
    return films.predictions(network=network, logit=logit), pd.concat(tables, ignore_index=True)


def classical_predictions(
    train: Features, others: Features, *, learner: str, seed: int, fitting: Fitting = PLAIN
) -> tuple[Predictions, pd.DataFrame, FittedLearner]:
    """Return the predictions of other films, such as val and test, by a fitted classifier, kept.

    All are features of one source, and labels of the other films are not used. Where the source is
    a network that was trained on the same training films the classifier is overconfident:
    recalibrate its logits on validation films. The table is that of `cross_validated`, with -1 as
    the fold. Raises ValueError for several sources or splits, no features, and as `fit_on_features`
    does.
    """
    sides = (train, others)
    about = {(one.source, one.split, one.findings, one.feature.shape[1]) for one in sides}
    if len(about) > 1 or not train.feature.shape[1]:
        found = "; ".join(sorted(f"{one[0]}, split {one[1]}, {one[3]} dimensions" for one in about))
        expected = "expected one source, split and list of findings, with features"
        raise ValueError(f"features of {found}; {expected}")
    unlabelled = replace(others, label=np.full_like(others.label, np.nan))
    films = concatenate([train, unlabelled])
    first = np.arange(len(films)) < len(train)
    fitted = fit_on_features(films, train=first, learner=learner, seed=seed, fitting=fitting)
    network = f"{learner} on {train.source}"
    table = _table(network, fitted, train.findings, train.label, fold=-1)
    return others.predictions(network=network, logit=fitted.logit), table, fitted.kept


def fit_on_features(
    films: Features,
    *,
    train: Bool[np.ndarray, " n"],
    learner: str,
    seed: int,
    fitting: Fitting = PLAIN,
) -> NestedFit:
    """Return the calibrated logits that one of LEARNERS gives films outside `train`, in order.

    All that is fitted is fitted to training films: standardisation and principal components once
    for all findings, or a selection of features for each (`fitting.reduction`), then the
    classifier for each finding against the rest. Its choice is that of the highest
    macro AUC over INNER folds of patients, since a rare finding alone has too few positives to
    choose by; its scores of these folds' films, at their natural prevalence, calibrate it (Platt
    1999). OVERSAMPLING draws the rows of a fold that a finding is fitted to.
    Films whose label is NaN are left out of a finding. A finding that has a class in fewer than
    two inner folds is predicted to be as common as it is in training, and noted. Raises ValueError
    for an unknown name, fewer training patients than INNER, no film outside `train`, a patient on
    both sides, and features that are infinite or all the same; NaN is filled with the fitted films'
    median.
    """
    _check(films, train, learner=learner, fitting=fitting)
    classifier = LEARNERS[learner]
    classifier = classifier._replace(balance=OVERSAMPLING[fitting.oversampling](classifier))
    known, label = np.flatnonzero(train), films.label
    fold = folds_by_patient(films.patient[known], folds=INNER, seed=seed)
    sides = [(known[fold != one], known[fold == one]) for one in range(INNER)]
    *inner, whole = (
        REDUCTIONS[fitting.reduction][0](standardised(films.feature, *side), seed)
        for side in (*sides, (known, np.flatnonzero(~train)))
    )
    lacking = [_lacking(truth, inner) for truth in label.T]
    able = np.flatnonzero([not why for why in lacking])
    number = (len(classifier.grid) * INNER + 1) * len(able)
    fits = _Fits(label=label, classifier=classifier, fitting=fitting, seed=seed, fits=number)
    tried = [(one, *fits.out_of_fold(inner, able, one)) for one in classifier.grid]
    choice, beyond, area = max(tried, key=lambda one: mean_over_findings(one[2][:, None])[0])
    line, score = [], np.zeros((len(whole.left), label.shape[1]))
    common, seconds, forms = prevalence_logit(label[known]).tolist(), 0.0, dict[int, Form]()
    for k, (truth, why) in enumerate(zip(label.T, lacking, strict=True)):
        if why:
            line.append(Fit(slope=0.0, offset=common[k], note=why))
            continue
        stated = ~np.isnan(truth) & ~np.isnan(beyond[:, k])
        line.append(platt(truth[stated].astype(np.float64), beyond[stated, k]))
        score[:, k], taken, forms[k] = fits.scores(k, whole, choice)
        seconds += taken
    slope, offset = (np.array([getattr(one, of) for one in line]) for of in ("slope", "offset"))
    return NestedFit(
        logit=slope * score + offset,
        choice=choice,
        auc=area,
        line=tuple(line),
        seconds=seconds,
        kept=_kept(forms, axes=whole.axes, slope=slope, offset=offset),
    )


def _kept(
    forms: Mapping[int, Form],
    *,
    axes: Axes,
    slope: Float64[np.ndarray, " k"],
    offset: Float64[np.ndarray, " k"],
) -> FittedLearner:
    arrays = {**axes.arrays(), "line.slope": slope, "line.offset": offset}
    for k, one in forms.items():
        arrays |= {f"finding.{k}.{name}": np.asarray(value) for name, value in one.arrays.items()}
    names = tuple(forms[k].name if k in forms else "" for k in range(len(slope)))
    return FittedLearner(names, arrays)


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
    """Return the log-odds of Platt's smoothed share of positives: the prediction without features.

    Exactly what calibration makes the mean probability of training films; 0 without any label.
    """
    stated = [truth[~np.isnan(truth)].astype(np.float64) for truth in label.T]
    return np.array([platt(truth, np.zeros_like(truth)).offset for truth in stated])


def standardised(
    feature: Float[np.ndarray, "n d"],
    fitted: Int64[np.ndarray, " t"],
    left: Int64[np.ndarray, " m"],
) -> Space:
    """Return features of mean 0 and variance 1 among the fitted films.

    What is NaN takes the fitted films' median, and 0 where they have none.
    """
    filled: Any = SimpleImputer(strategy="median", keep_empty_features=True)
    scaled: Any = StandardScaler()
    known = scaled.fit_transform(filled.fit_transform(feature[fitted].astype(np.float64)))
    median, mean, scale = filled.statistics_, scaled.mean_, scaled.scale_
    whole = np.empty((0, len(mean)))
    axes = Axes(median, mean, scale, centre=0 * mean, component=whole, spread=np.ones(()))
    return Space(fitted=fitted, left=left, known=known, new=axes.place(feature[left]), axes=axes)


@dataclass(kw_only=True)
class _Fits:
    """One classifier, fitted again and again; each of all `fits` is reported when it is done."""

    label: Float32[np.ndarray, "n k"]
    classifier: FeatureClassifier
    fitting: Fitting
    seed: int
    fits: int
    done: int = 0

    def scores(
        self, finding: int, space: Space, choice: Choice
    ) -> tuple[Float64[np.ndarray, " m"], float, Form]:
        """Return the scores of the films that are left out, their seconds, and the classifier."""
        known = self.label[space.fitted, finding]
        stated = ~np.isnan(known)
        label = known[stated].astype(np.int64)
        chosen = REDUCTIONS[self.fitting.reduction][1](space.known[stated], label)
        component = space.known[stated][:, chosen]
        rows, weight = self.classifier.balance(label, np.random.default_rng(self.seed))
        model = self.classifier.make(component[rows], self.seed, **choice)
        model.fit(component[rows], label[rows], **weight)
        started = perf_counter()
        score = self.classifier.score(model, space.new[:, chosen])
        seconds = perf_counter() - started
        self.done += 1
        self.fitting.progress(self.done, self.fits)
        form = self.classifier.form(model)
        return score, seconds, form._replace(arrays={**form.arrays, "chosen": chosen})

    def out_of_fold(
        self, inner: Sequence[Space], able: Int64[np.ndarray, " a"], choice: Choice
    ) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, " k"]]:
        """Return a choice's scores of the films of every inner fold, and each finding's mean AUC.

        NaN for the findings that are not in `able`.
        """
        findings, beyond = self.label.shape[1], np.full(self.label.shape, np.nan)
        area = np.full((len(inner), findings), np.nan)
        for fold, space in enumerate(inner):
            for k in able.tolist():
                score, *_ = self.scores(k, space, choice)
                truth, beyond[space.left, k] = self.label[space.left, k], score
                area[fold, k] = auc(truth, score, weights=once(len(score)))[0]
        return beyond, mean_over_findings(area)


def _check(
    films: Features, train: Bool[np.ndarray, " n"], *, learner: str, fitting: Fitting
) -> None:
    words = (learner, fitting.oversampling, fitting.reduction)
    for word, known in zip(words, (LEARNERS, OVERSAMPLING, REDUCTIONS), strict=True):
        if word not in known:
            expected = f"expected one of {', '.join(known)}{nearest(word, known)}"
            raise ValueError(f"{word!r} is unknown; {expected}")
    feature, patient = films.feature, films.patient
    known = feature[train]
    if np.isinf(feature).any() or not (known != known[:1])[~np.isnan(known)].any():
        raise ValueError(
            f"features of shape {feature.shape} are infinite, or NaN or the same for all training "
            "films; expected finite numbers that differ: extract them again"
        )
    if train.all():
        raise ValueError(f"all {len(train)} films train; expected some to predict")
    if len(both := np.intersect1d(patient[train], patient[~train])):
        raise ValueError(
            f"{len(both)} patients ({both[0]}, …) have films on both sides; expected every patient "
            "to train or to be predicted: split by patient"
        )


def _lacking(truth: Float32[np.ndarray, " n"], inner: Sequence[Space]) -> str:
    """Return which class is in fewer than two inner folds, or nothing."""
    for name, value in (("positives", 1), ("negatives", 0)):
        folds = sum(bool((truth[space.left] == value).any()) for space in inner)
        if folds < 2:
            where = "one inner fold alone" if folds else "no training film"
            return f"not fitted, predicted at training prevalence: {name} in {where}"
    return ""


def components(space: Space, seed: int) -> Space:
    """Return the principal components of standardised features, on the axes of the fitted films.

    At most COMPONENTS of them, scaled together to a mean variance of 1 among the fitted films.
    """
    found: Any = PCA(min(COMPONENTS, *space.known.shape), random_state=seed)
    known, new = found.fit_transform(space.known), found.transform(space.new)
    turned = {"centre": found.mean_, "component": found.components_, "spread": known.std()}
    axes = space.axes._replace(**{name: np.asarray(value) for name, value in turned.items()})
    return space._replace(known=known / known.std(), new=new / known.std(), axes=axes)


def selected(
    known: Float64[np.ndarray, "t c"], truth: Int64[np.ndarray, " t"]
) -> Int64[np.ndarray, " s"]:
    """Return the SELECTED axes that separate a finding's classes best, by the F of an ANOVA.

    An axis on which all films are alike comes last.
    """
    spread = np.flatnonzero(known.std(axis=0) > 0)
    f, _ = f_classif(known[:, spread], truth)
    order = np.argsort(-np.nan_to_num(f, posinf=np.finfo(float).max), kind="stable")
    return np.sort(spread[order[:SELECTED]])


def _table(
    network: str, fitted: NestedFit, findings: Sequence[str], label: np.ndarray, *, fold: int
) -> pd.DataFrame:
    chosen = ", ".join(f"{name}={value:g}" for name, value in fitted.choice.items())
    return pd.DataFrame(
        {
            "network": network,
            "fold": fold,
            "finding": findings,
            "choice": chosen,
            "inner_auc": fitted.auc,
            "slope": [one.slope for one in fitted.line],
            "offset": [one.offset for one in fitted.line],
            "films": (~np.isnan(label)).sum(axis=0),
            "positives": (label == 1).sum(axis=0),
            "milliseconds": 1000 * fitted.seconds / len(fitted.logit),
            "note": [one.note for one in fitted.line],
        }
    )


def _seeded(kind: Callable[..., Model], **fixed: object) -> Callable[..., Model]:
    return lambda component, seed, **choice: kind(random_state=seed, **fixed, **choice)


_linear_svm = _seeded(LinearSVC, dual=False, max_iter=10_000)


def _rbf_svm(component: Components, seed: int, *, C: float, gamma: float) -> Model:  # noqa: N803
    """Return a linear machine on an RBF kernel's landmarks (Williams and Seeger, NIPS 2000)."""
    films, width = component.shape
    kernel = Nystroem(gamma=gamma / width, n_components=min(LANDMARKS, films), random_state=seed)
    return make_pipeline(kernel, _linear_svm(component, seed, C=C))


def _forest(component: Components, seed: int, **choice: Any) -> Model:
    drawn = min(TREE_FILMS, len(component))
    return RandomForestClassifier(TREES, max_samples=drawn, random_state=seed, **choice)


def _neighbours(component: Components, seed: int, *, n_neighbors: int) -> Model:
    return KNeighborsClassifier(min(n_neighbors, len(component)), algorithm="brute")


def _margin(model: Model, component: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, " m"]:
    return model.decision_function(component)


def _votes(model: Model, component: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, " m"]:
    against, favour = np.log(model.predict_proba(component).T + SMOOTHING)
    return favour - against


def _evidence(model: Model, component: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, " m"]:
    against, favour = model.predict_joint_log_proba(component).T
    return favour - against


def _as_found(truth: Int64[np.ndarray, " t"], generator: np.random.Generator) -> Drawn:
    return np.arange(len(truth)), {}


def _by_weight(truth: Int64[np.ndarray, " t"], generator: np.random.Generator) -> Drawn:
    weight = len(truth) / (2 * np.bincount(truth, minlength=2))
    return np.arange(len(truth)), {"sample_weight": weight[truth]}


def _by_copies(truth: Int64[np.ndarray, " t"], generator: np.random.Generator) -> Drawn:
    rarer = np.flatnonzero(truth == (2 * truth.sum() < len(truth)))
    copies = generator.choice(rarer, len(truth) - 2 * len(rarer))
    return np.concatenate([np.arange(len(truth)), copies]), {}


def _grid(**several: Sequence[int | float]) -> tuple[Choice, ...]:
    return tuple(ParameterGrid(several))


LEARNERS: dict[str, FeatureClassifier] = {
    "logistic": FeatureClassifier(
        _seeded(LogisticRegression, solver="newton-cholesky", max_iter=1_000),
        _grid(C=(1e-4, 1e-3, 1e-2, 1e-1)), _margin, _by_weight,
        linear_form,
    ),
    "linear-svm": FeatureClassifier(
        _linear_svm, _grid(C=(1e-5, 1e-4, 1e-3, 1e-2)), _margin, _by_weight, linear_form,
    ),
    "rbf-svm": FeatureClassifier(
        _rbf_svm, _grid(C=(0.1, 1.0), gamma=(0.1, 0.3, 1.0)), _margin, _by_copies, kernel_form,
    ),
    "forest": FeatureClassifier(
        _forest, _grid(min_samples_leaf=(20, 5)), _votes, _by_weight, forest_form,
    ),
    "neighbours": FeatureClassifier(
        _neighbours, _grid(n_neighbors=(200, 100, 50, 25)), _votes, _by_copies, neighbours_form,
    ),
    "boosting": FeatureClassifier(
        _seeded(HistGradientBoostingClassifier, max_leaf_nodes=4, max_features=0.25,
                learning_rate=0.05, early_stopping=False),
        _grid(max_iter=(25, 50, 100)), _margin, _by_weight, boosting_form,
    ),
    "bayes": FeatureClassifier(
        lambda component, seed, **choice: GaussianNB(**choice),
        _grid(var_smoothing=(10.0, 1.0, 0.1)), _evidence, _by_weight, bayes_form,
    ),
    "perceptron": FeatureClassifier(
        _seeded(MLPClassifier, hidden_layer_sizes=(HIDDEN,), learning_rate_init=0.01,
                n_iter_no_change=EPOCHS, tol=NEVER),
        _grid(alpha=(100.0, 30.0, 3.0)), _votes, _by_copies, perceptron_form,
    ),
}  # fmt: skip
OVERSAMPLING: dict[str, Callable[[FeatureClassifier], Draw]] = {
    "none": lambda classifier: _as_found,
    "balanced": lambda classifier: classifier.balance,
}
REDUCTIONS = {  # how axes are made of standardised features, and which of them a finding takes
    "components": (components, lambda known, truth: np.arange(known.shape[1])),
    "selection": (lambda space, seed: space, selected),
}
