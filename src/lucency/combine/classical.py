"""Classical learners on the features of a network, one finding against the rest, as predictions.

After Shoaib et al. (2024): frozen features, then learners beside the fine-tuned head; unlike there,
everything is fitted inside folds of patients.

Letters in shapes: n films, k findings, d feature dimensions, m films that are not trained on, t
films that are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from lucency.combine.nested import (
    Draw,
    Learner,
    Learnt,
    Model,
    folds_by_patient,
    learn_nested,
    prevalence_logit,
)
from lucency.predictions import Predictions
from lucency.values import Manifest, nearest

LANDMARKS = 500  # films that stand for all in the kernel of the RBF machine
SMOOTHING = 0.01  # added to both shares before their log-odds: no vote is ever certain
EPOCHS = 40
HIDDEN = 32
TREES = 100
Components = Float64[np.ndarray, "t c"]
COLUMNS = (
    "network", "fold", "finding", "choice", "inner_auc", "slope", "offset", "films", "positives",
    "note",
)  # fmt: skip


def classical_predictions(
    train: Predictions,
    asked: Sequence[Predictions],
    *,
    learner: str,
    seed: int,
    oversampling: str = "none",
) -> tuple[list[Predictions], pd.DataFrame]:
    """Return what a learner fitted to the training films says of others, and what it chose.

    It is named after itself and the network whose features these are. A network's features of
    films that it was trained on are better than those of others, so that calibration on training
    folds may be too bold: recalibrate on validation films as one does a network. Raises ValueError
    when films were not all given features by the same network and split, or a patient trains and
    is asked about.
    """
    _check_sides(train, asked)
    sides = (train, *asked)
    part = np.repeat(np.arange(len(sides)), [len(one) for one in sides])
    logit, found = learn_on_features(
        np.concatenate([one.feature for one in sides]),
        label=np.concatenate([train.label, *(np.full_like(one.label, np.nan) for one in asked)]),
        patient=np.concatenate([one.patient for one in sides]),
        train=part == 0,
        learner=learner,
        seed=seed,
        oversampling=oversampling,
    )
    name = f"{learner} on {train.network}"
    table = _table(found, network=name, fold=0, findings=train.findings, label=train.label)
    said = [_as_predictions(one, name, logit[part[part > 0] == i + 1]) for i, one in enumerate(asked)]
    return said, table


def cross_validated(
    feature: Float[np.ndarray, "n d"],
    *,
    manifest: Manifest,
    source: str,
    learner: str,
    seed: int,
    folds: int = 5,
    oversampling: str = "none",
) -> tuple[Predictions, pd.DataFrame]:
    """Return what learners say of films of patients they have not seen, in folds by patient.

    `source` is the network whose features these are. A fold's logits are shifted from the
    prevalence of its training films to that of all films: where many positives are left out, few
    are trained on, so that without it pooled AUCs fall below those of the folds (Parker, Gunter and
    Bedo, BMC Bioinformatics 8, 2007, 326). All films have the part "test". Raises ValueError for
    fewer patients than folds.
    """
    fold = folds_by_patient(manifest.patient, folds=folds, seed=seed)
    logit, tables = np.empty(manifest.label.shape), []
    name = f"{learner} on {source}"
    common = np.array([prevalence_logit(truth) for truth in manifest.label.T])
    for one in range(folds):
        train = fold != one
        said, found = learn_on_features(
            feature, label=manifest.label, patient=manifest.patient, train=train,
            learner=learner, seed=seed, oversampling=oversampling,
        )  # fmt: skip
        label = manifest.label[train]
        logit[~train] = said + common - [prevalence_logit(truth) for truth in label.T]
        tables.append(_table(found, network=name, fold=one, findings=manifest.findings, label=label))
    said = Predictions(
        network=name,
        split=f"{folds} folds by patient, seed {seed}",
        findings=manifest.findings,
        image=manifest.image,
        patient=manifest.patient,
        part=np.full(len(manifest), "test"),
        label=manifest.label,
        logit=logit,
        feature=np.empty((len(manifest), 0), dtype=np.float32),
    )
    return said, pd.concat(tables, ignore_index=True)


def learn_on_features(
    feature: Float[np.ndarray, "n d"],
    *,
    label: Float32[np.ndarray, "n k"],
    patient: Int64[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    learner: str,
    seed: int,
    oversampling: str = "none",
) -> tuple[Float64[np.ndarray, "m k"], list[Learnt]]:
    """Return the calibrated logits of the films outside `train`, in order, and what was learnt.

    As `learn_nested` says. Raises ValueError for an unknown learner or oversampling, for features
    that are not finite, and when a patient is on both sides.
    """
    _check(feature, patient, train, learner, oversampling)
    chosen = LEARNERS[learner]
    learnt = learn_nested(
        feature, label=label, patient=patient, train=train, learner=chosen,
        draw=OVERSAMPLING[oversampling](chosen), seed=seed,
    )  # fmt: skip
    return np.stack([one.logit for one in learnt], axis=1), learnt


def _check(
    feature: Float[np.ndarray, "n d"],
    patient: Int64[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    learner: str,
    oversampling: str,
) -> None:
    for what, word, known in (
        ("learner", learner, LEARNERS),
        ("oversampling", oversampling, OVERSAMPLING),
    ):
        if word not in known:
            raise ValueError(
                f"{what} {word!r} is unknown; expected one of {', '.join(known)}"
                f"{nearest(word, known)}"
            )
    if not np.isfinite(feature).all():
        raise ValueError("a feature is NaN or infinite; expected finite numbers")
    if len(both := np.intersect1d(patient[train], patient[~train])):
        raise ValueError(
            f"{len(both)} patients ({both[0]}, …) have films on both sides; expected every patient "
            "to train or to be asked about: split by patient"
        )


def _check_sides(train: Predictions, asked: Sequence[Predictions]) -> None:
    for one in asked:
        if (one.network, one.split, one.findings) != (train.network, train.split, train.findings):
            raise ValueError(
                f"{one.network} under split {one.split!r} is asked about and {train.network} under "
                f"{train.split!r} is trained on; expected one network, split and list of findings"
            )
    if any(one.feature.shape[1] != train.feature.shape[1] for one in asked) or not train.feature.size:
        width = [one.feature.shape[1] for one in (train, *asked)]
        raise ValueError(f"features of {width} dimensions; expected as many of all, 1 or more")


def _as_predictions(
    asked: Predictions, name: str, logit: Float64[np.ndarray, "n k"]
) -> Predictions:
    nothing = np.empty((len(asked), 0), dtype=np.float32)
    return replace(asked.uncalibrated(), network=name, logit=logit, feature=nothing)


def _table(
    found: Sequence[Learnt],
    *,
    network: str,
    fold: int,
    findings: tuple[str, ...],
    label: Float32[np.ndarray, "t k"],
) -> pd.DataFrame:
    rows = [
        (network, fold, finding, one.choice, one.inner_auc, one.calibration.slope,
         one.calibration.offset, int((~np.isnan(truth)).sum()), int((truth == 1).sum()), one.note)
        for finding, truth, one in zip(findings, label.T, found, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


class Perceptron(MLPClassifier):
    """A perceptron that goes through the films a fixed number of times."""

    def fit(self, X, y):
        for _ in range(self.max_iter):
            self.partial_fit(X, y, classes=(0, 1))
        return self


def _margin(model: Pipeline, feature: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, " m"]:
    return model.decision_function(feature)


def _log_odds(model: Pipeline, feature: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, " m"]:
    """Return the log-odds of votes; a smoothed one, since all may be on one side."""
    share = model.predict_proba(feature)
    return np.log(share[:, 1] + SMOOTHING) - np.log(share[:, 0] + SMOOTHING)


def _evidence(model: GaussianNB, feature: Float64[np.ndarray, "m c"]) -> Float64[np.ndarray, " m"]:
    """Return the log-odds themselves, which do not end where probabilities are 0 or 1."""
    return np.subtract(*model.predict_joint_log_proba(feature).T[::-1])


def _logistic(feature: Components, seed: int, *, C: float) -> LogisticRegression:
    del feature, seed
    return LogisticRegression(C=C, solver="newton-cholesky", max_iter=1_000)


def _linear_svm(feature: Components, seed: int, *, C: float) -> LinearSVC:
    del feature, seed
    return LinearSVC(C=C, dual=False, max_iter=10_000)


def _rbf_svm(feature: Components, seed: int, *, C: float, gamma: float) -> Pipeline:
    films, width = feature.shape
    landmarks = min(LANDMARKS, films)
    kernel = Nystroem(gamma=gamma / width, n_components=landmarks, random_state=seed)
    return make_pipeline(kernel, LinearSVC(C=C, dual=False, max_iter=10_000))


def _forest(feature: Components, seed: int, *, leaf: int) -> RandomForestClassifier:
    del feature
    return RandomForestClassifier(TREES, min_samples_leaf=leaf, random_state=seed)


def _neighbours(feature: Components, seed: int, *, k: int) -> KNeighborsClassifier:
    del seed
    return KNeighborsClassifier(min(k, len(feature)), algorithm="brute")


def _boosting(
    feature: Components, seed: int, *, iterations: int
) -> HistGradientBoostingClassifier:
    del feature
    return HistGradientBoostingClassifier(
        max_iter=iterations, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip


def _bayes(feature: Components, seed: int, *, smoothing: float) -> GaussianNB:
    del feature, seed
    return GaussianNB(var_smoothing=smoothing)


def _perceptron(feature: Components, seed: int, *, alpha: float) -> Perceptron:
    del feature
    return Perceptron((HIDDEN,), alpha=alpha, max_iter=EPOCHS, random_state=seed)


def _as_they_are(truth, generator):
    return np.arange(len(truth)), {}


def _by_weight(truth, generator):
    weight = len(truth) / (2 * np.bincount(truth, minlength=2))
    return np.arange(len(truth)), {"sample_weight": weight[truth]}


def _by_copies(truth, generator):
    rarer = np.flatnonzero(truth == int(2 * truth.sum() < len(truth)))
    lacking = len(truth) - 2 * len(rarer)
    return np.concatenate([np.arange(len(truth)), generator.choice(rarer, lacking)]), {}

LEARNERS: dict[str, Learner] = {
    "logistic": Learner(_logistic, tuple({"C": 10.0**c} for c in (-5, -4, -3, -2, -1)), _margin, _by_weight),
    "linear-svm": Learner(_linear_svm, tuple({"C": 10.0**c} for c in (-5, -4, -3, -2)), _margin, _by_weight),
    "rbf-svm": Learner(_rbf_svm, tuple({"C": c, "gamma": g} for c in (0.1, 1.,10.) for g in (0.1, 0.3, 1)), _margin, _by_copies),
    "forest": Learner(_forest, tuple({"leaf": leaf} for leaf in (30,10,3)), _log_odds, _by_weight),
    "neighbours": Learner(_neighbours, tuple({"k": k} for k in (100, 50, 20, 10)), _log_odds, _by_copies),
    "boosting": Learner(_boosting, tuple({"iterations": i} for i in (25, 100)), _margin, _by_weight),
    "bayes": Learner(_bayes, tuple({"smoothing": s} for s in (1.0, 0.1,.01)), _evidence, _by_weight),
    "perceptron": Learner(_perceptron, tuple({"alpha": a} for a in (100., 10.,1.)), _log_odds, _by_copies),
}
OVERSAMPLING = {"none": lambda l: _as_they_are, "balanced": lambda l: l.balance}
