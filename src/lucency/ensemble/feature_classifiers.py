"""Classical classifiers on a network's features, one finding against the rest, as predictions.

After Shoaib et al. (2024), frozen features and classical classifiers beside the fine-tuned head.
All that is fitted or chosen is fitted inside folds of patients (`lucency.ensemble.nested_cv`).
LEARNERS holds the classifiers of scikit-learn and their grids, OVERSAMPLING how the rows that they
are fitted to are drawn.

Letters in shapes: n films (t train, m do not), k findings, d feature dimensions, c components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from lucency.core.manifest import Manifest, nearest
from lucency.core.predictions import Features, Predictions, concatenate
from lucency.ensemble.nested_cv import (
    REDUCTIONS,
    Choice,
    Draw,
    Drawn,
    FeatureClassifier,
    Fitting,
    Model,
    NestedFit,
    fit_nested,
    folds_by_patient,
    prevalence_logit,
)

LANDMARKS = 200  # films that stand for all in the kernel of the RBF machine
TREES, TREE_FILMS = 100, 10_000  # how many trees, and the most films that one sees
HIDDEN, EPOCHS = 32, 30
NEVER = 1e9  # no epoch lowers the loss by so much, so that EPOCHS of them are the end
SMOOTHING = 0.01  # added to both shares before their log-odds: no vote is ever certain
Components = Float64[np.ndarray, "t c"]
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
) -> tuple[Predictions, pd.DataFrame]:
    """Return the predictions of other films, such as val and test, by a fitted classifier.

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
    return others.predictions(network=network, logit=fitted.logit), table


def fit_on_features(
    films: Features,
    *,
    train: Bool[np.ndarray, " n"],
    learner: str,
    seed: int,
    fitting: Fitting = PLAIN,
) -> NestedFit:
    """Return the `fit_nested` of a classifier of LEARNERS; ValueError for an unknown name, too."""
    names = (LEARNERS, OVERSAMPLING, REDUCTIONS)
    words = (learner, fitting.oversampling, fitting.reduction)
    for word, known in zip(words, names, strict=True):
        if word not in known:
            expected = f"expected one of {', '.join(known)}{nearest(word, known)}"
            raise ValueError(f"{word!r} is unknown; {expected}")
    chosen = LEARNERS[learner]
    classifier = chosen._replace(balance=OVERSAMPLING[fitting.oversampling](chosen))
    return fit_nested(films, train=train, classifier=classifier, fitting=fitting, seed=seed)


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
    return tuple(dict(zip(several, one, strict=True)) for one in product(*several.values()))


LEARNERS: dict[str, FeatureClassifier] = {
    "logistic": FeatureClassifier(
        _seeded(LogisticRegression, solver="newton-cholesky", max_iter=1_000),
        _grid(C=(1e-4, 1e-3, 1e-2, 1e-1)), _margin, _by_weight,
    ),
    "linear-svm": FeatureClassifier(
        _linear_svm, _grid(C=(1e-5, 1e-4, 1e-3, 1e-2)), _margin, _by_weight,
    ),
    "rbf-svm": FeatureClassifier(
        _rbf_svm, _grid(C=(0.1, 1.0), gamma=(0.1, 0.3, 1.0)), _margin, _by_copies,
    ),
    "forest": FeatureClassifier(_forest, _grid(min_samples_leaf=(20, 5)), _votes, _by_weight),
    "neighbours": FeatureClassifier(
        _neighbours, _grid(n_neighbors=(200, 100, 50, 25)), _votes, _by_copies,
    ),
    "boosting": FeatureClassifier(
        _seeded(HistGradientBoostingClassifier, max_leaf_nodes=4, max_features=0.25,
                learning_rate=0.05, early_stopping=False),
        _grid(max_iter=(25, 50, 100)), _margin, _by_weight,
    ),
    "bayes": FeatureClassifier(
        lambda component, seed, **choice: GaussianNB(**choice),
        _grid(var_smoothing=(10.0, 1.0, 0.1)), _evidence, _by_weight,
    ),
    "perceptron": FeatureClassifier(
        _seeded(MLPClassifier, hidden_layer_sizes=(HIDDEN,), learning_rate_init=0.01,
                n_iter_no_change=EPOCHS, tol=NEVER),
        _grid(alpha=(100.0, 30.0, 3.0)), _votes, _by_copies,
    ),
}  # fmt: skip
OVERSAMPLING: dict[str, Callable[[FeatureClassifier], Draw]] = {
    "none": lambda classifier: _as_found,
    "balanced": lambda classifier: classifier.balance,
}
