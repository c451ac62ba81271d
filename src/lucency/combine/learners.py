"""LEARNERS of scikit-learn and their grids, and how the films they are fitted to are drawn.

Letters in shapes: t films that are fitted to, m films that are left out of it, c components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from lucency.combine.nested import Choice, Draw, Drawn, Learner, Model

LANDMARKS = 200  # films that stand for all in the kernel of the RBF machine
TREES, TREE_FILMS = 100, 10_000  # how many trees, and the most films that one sees
HIDDEN, EPOCHS = 32, 30
NEVER = 1e9  # no epoch lowers the loss by so much, so that EPOCHS of them are the end
SMOOTHING = 0.01  # added to both shares before their log-odds: no vote is ever certain
Components = Float64[np.ndarray, "t c"]


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


LEARNERS: dict[str, Learner] = {
    "logistic": Learner(
        _seeded(LogisticRegression, solver="newton-cholesky", max_iter=1_000),
        _grid(C=(1e-4, 1e-3, 1e-2, 1e-1)), _margin, _by_weight,
    ),
    "linear-svm": Learner(_linear_svm, _grid(C=(1e-5, 1e-4, 1e-3, 1e-2)), _margin, _by_weight),
    "rbf-svm": Learner(_rbf_svm, _grid(C=(0.1, 1.0), gamma=(0.1, 0.3, 1.0)), _margin, _by_copies),
    "forest": Learner(_forest, _grid(min_samples_leaf=(20, 5)), _votes, _by_weight),
    "neighbours": Learner(_neighbours, _grid(n_neighbors=(200, 100, 50, 25)), _votes, _by_copies),
    "boosting": Learner(
        _seeded(HistGradientBoostingClassifier, max_leaf_nodes=4, max_features=0.25,
                learning_rate=0.05, early_stopping=False),
        _grid(max_iter=(25, 50, 100)), _margin, _by_weight,
    ),
    "bayes": Learner(
        lambda component, seed, **choice: GaussianNB(**choice),
        _grid(var_smoothing=(10.0, 1.0, 0.1)), _evidence, _by_weight,
    ),
    "perceptron": Learner(
        _seeded(MLPClassifier, hidden_layer_sizes=(HIDDEN,), learning_rate_init=0.01,
                n_iter_no_change=EPOCHS, tol=NEVER),
        _grid(alpha=(100.0, 30.0, 3.0)), _votes, _by_copies,
    ),
}  # fmt: skip
OVERSAMPLING: dict[str, Callable[[Learner], Draw]] = {
    "none": lambda learner: _as_found,
    "balanced": lambda learner: learner.balance,
}
