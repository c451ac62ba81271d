"""Label errors: cleanlab's joint, scikit-learn's neighbours, planted errors found, experts agree.

The truth is known where labels were flipped on purpose, and where radiologists saw the films.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from lucency.audit.agreement import FOUR_GROUPS, align, merge_predictions
from lucency.audit.label_errors import (
    DIRECTIONS,
    NEIGHBOURS,
    Neighbours,
    confident_classes,
    contradicting_folds,
    contradiction,
    detection,
    find_label_errors,
    gather_evidence,
    joint_counts,
    mean_rank,
    nearest_others,
    noise_counts,
    review_curve,
    vote_near,
)
from lucency.core.manifest import Manifest
from lucency.core.predictions import Predictions
from lucency.evaluation.evaluate import MACRO

Simulated = tuple[Predictions, np.ndarray, np.ndarray]
NO_FOLDS = np.empty((0, 3_000, 3))


def simulate(rate: float, *, films: int = 3_000) -> Simulated:
    """Return predictions from other folds, those of three repeats, and which labels are wrong."""
    generator = np.random.default_rng(0)
    truth = generator.random((films, 3)) < 0.3
    centre = generator.normal(size=(3, 16))
    centre *= 2.4 / np.linalg.norm(centre, axis=1, keepdims=True)
    feature = (generator.normal(size=(films, 16)) + truth @ centre).astype(np.float32)
    patient = np.arange(films) // 2
    wrong = generator.random(truth.shape) < rate
    label = (truth ^ wrong).astype(np.float32)
    folds = np.empty((3, films, 3))
    for repeat in folds:
        fold = generator.permutation(films // 2)[patient] % 5
        for held in range(5):
            rest = fold != held
            for k in range(3):
                learner = LogisticRegression().fit(feature[rest], label[rest, k])
                repeat[~rest, k] = learner.predict_proba(feature[~rest])[:, 1]
    predictions = Predictions(
        network="toy", split="", findings=("a", "b", "c"), image=np.arange(films).astype(str),
        patient=patient, part=np.full(films, "val"), label=label, logit=logit(folds.mean(axis=0)),
        feature=feature,
    )  # fmt: skip
    return predictions, folds, wrong


@pytest.fixture(scope="module")
def tenth() -> Simulated:
    return simulate(0.1)


def precision_at_50(
    predictions: Predictions, evidence: np.ndarray, wrong: np.ndarray
) -> np.ndarray:
    """Return precision and chance of a review of 50 films, by direction: mean over findings."""
    rows = []
    for given in DIRECTIONS.values():
        each = []
        for k, label in enumerate(predictions.label.T):
            films = label == given
            curve = review_curve(evidence[films, k], wrong[films, k] * 1.0, budgets=[50])
            each.append(curve.loc[0, ["precision", "chance"]].astype(float))
        rows.append(np.mean(each, axis=0))
    return np.array(rows)


def near(predictions: Predictions) -> Neighbours:
    return nearest_others(predictions.feature, patient=predictions.patient)


def clearly_found(predictions: Predictions, folds: np.ndarray, wrong: np.ndarray) -> None:
    evidence = gather_evidence(predictions, folds=folds, near=near(predictions))
    for one in evidence.values():
        precision, chance = precision_at_50(predictions, one, wrong).T
        assert (precision > 2 * chance).all()
    rank = mean_rank(predictions.label, tuple(evidence.values()))
    precision, chance = precision_at_50(predictions, rank, wrong).T
    assert (precision > [0.6, 0.85]).all()
    assert (precision > 2.3 * chance).all()


def test_a_tenth_of_flipped_labels_is_found(tenth: Simulated):
    clearly_found(*tenth)


@pytest.mark.slow
def test_a_fifth_of_flipped_labels_is_found():
    clearly_found(*simulate(0.2))


def test_random_evidence_finds_as_many_as_chance(tenth: Simulated):
    predictions, _, wrong = tenth
    evidence = np.random.default_rng(3).random(wrong.shape)
    precision, chance = precision_at_50(predictions, evidence, wrong).T
    assert (precision < 1.6 * chance).all()


def test_the_joint_counts_about_as_many_as_are_wrong_where_classes_hardly_overlap(tenth: Simulated):
    predictions, _, wrong = tenth
    joint = joint_counts(predictions.label, predictions.probability)
    table = noise_counts(predictions, joint).set_index(["finding", "direction"])
    for k, finding in enumerate(predictions.findings):
        spurious = (wrong[:, k] & (predictions.label[:, k] == 1)).sum()
        assert 0.8 < table.loc[(finding, "spurious"), "counted"] / spurious < 1.25
        missing = (wrong[:, k] & (predictions.label[:, k] == 0)).sum()
        assert 1 < table.loc[(finding, "missing"), "counted"] / missing < 3


def test_the_joint_by_hand():
    label = np.array([[0, 0, 0, 0, 1, 1, 1, np.nan]], np.float32).T
    probability = np.array([[0.1, 0.2, 0.3, 0.9, 0.8, 0.7, 0.1, 0.9]]).T
    # Thresholds: 1 - p of the zeros .625, p of the ones .533: all seven are confident.
    verdict = confident_classes(label, probability)
    np.testing.assert_array_equal(verdict[:, 0], [0, 0, 0, 1, 1, 1, 0, np.nan])
    np.testing.assert_allclose(joint_counts(label, probability), [[[3, 1], [1, 2]]])
    # Thresholds .3 and .5: both classes are confident of .6 and .7, which are likelier 1.
    verdict = confident_classes(label[2:6], np.array([[0.6, 0.8, 0.7, 0.3]]).T)
    np.testing.assert_array_equal(verdict[:, 0], [1, 1, 1, 0])
    one_class = joint_counts(np.zeros((5, 1), np.float32), np.full((5, 1), 0.2))
    assert np.isnan(one_class).all()


def test_confident_learning_is_cleanlab_s():
    reason = "cleanlab is absent: pip install cleanlab to compare with the authors' own program"
    count = pytest.importorskip("cleanlab.count", reason=reason)
    scorer = pytest.importorskip("cleanlab.internal.multilabel_scorer", reason=reason)
    generator = np.random.default_rng(0)
    label = (generator.random((2_000, 4)) < [0.5, 0.3, 0.1, 0.05]).astype(np.float32)
    probability = np.clip(0.3 * label + 0.7 * generator.random(label.shape) ** 2, 0.001, 0.999)
    lists = [np.flatnonzero(row).tolist() for row in label]
    theirs = count.compute_confident_joint(lists, probability, multi_label=True)
    np.testing.assert_allclose(
        joint_counts(label, probability), theirs, atol=1
    )  # theirs are rounded
    quality = scorer.MultilabelScorer().get_class_label_quality_scores(
        label.astype(int), probability
    )
    np.testing.assert_allclose(contradiction(label, probability), 1 - quality, atol=1e-12)


def test_neighbours_are_of_other_patients_only_however_crowded():
    generator = np.random.default_rng(0)
    patient = np.concatenate([np.zeros(60, int), generator.integers(1, 40, 140)])
    feature = generator.normal(size=(200, 5)).astype(np.float32)
    feature[:60] *= 0.01  # a patient whose films lie together
    found, distance = nearest_others(feature, patient=patient)
    for film in range(200):
        apart = np.linalg.norm(feature - feature[film].astype(np.float64), axis=1)
        apart[patient == patient[film]] = np.inf
        np.testing.assert_allclose(distance[film], np.sort(apart)[:NEIGHBOURS], rtol=1e-5)
        assert not (patient[found[film]] == patient[film]).any()


def test_a_vote_is_scikit_learn_s_weighted_by_distance():
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(80, 4)).astype(np.float32)
    label = generator.integers(0, 2, (80, 1)).astype(np.float32)
    vote = vote_near(label, nearest_others(feature, patient=np.arange(80)))
    for film in range(80):
        rest = np.arange(80) != film
        knn = KNeighborsClassifier(NEIGHBOURS, weights="distance", algorithm="brute")
        knn.fit(feature[rest], label[rest, 0])
        expected = knn.predict_proba(feature[[film]])[0] @ knn.classes_
        assert vote[film, 0] == pytest.approx(expected, abs=1e-5)
    feature[3] = feature[7]  # at distance 0
    vote = vote_near(label, nearest_others(feature, patient=np.arange(80)))
    assert vote[3, 0] == label[7, 0]


def test_few_films_have_few_neighbours_and_one_patient_s_none():
    feature = np.arange(4, dtype=np.float32)[:, None]
    label = np.array([[1], [0], [np.nan], [1]], np.float32)
    found = nearest_others(feature, patient=np.array([0, 1, 1, 2]))
    assert found.film[0].tolist() == [1, 2, 3] + [-1] * 7
    assert np.isnan(found.distance[0, 3:]).all()
    np.testing.assert_allclose(vote_near(label, found)[0, 0], (1 / 3) / (1 + 1 / 3))
    found = nearest_others(feature, patient=np.zeros(4, int))
    assert (found.film == -1).all()
    assert np.isnan(vote_near(label, found)).all()


def test_folds_vote_only_on_films_they_have_not_seen():
    label = np.array([[0], [0], [1], [1]], np.float32)
    right = np.array([[0.1], [0.1], [0.9], [0.9]])
    swapped = np.array([[0.1], [0.9], [0.9], [0.1]])
    trained = np.array([[0.1], [np.nan], [0.9], [np.nan]])
    share = contradicting_folds(label, np.stack([right, swapped, trained]))
    assert share[0, 0] == share[2, 0] == 0
    assert share[1, 0] == share[3, 0] == 0.5
    assert np.isnan(contradicting_folds(label, np.full((2, 4, 1), np.nan))).all()


def test_ranks_compare_films_labelled_alike_and_skip_what_is_not_known():
    label = np.array([[0], [0], [0], [0], [1], [1], [np.nan]], np.float32)
    one = np.array([[0.1], [0.2], [0.3], [0.3], [0.9], [0.8], [0.5]])
    other = np.array([[0.4], [0.3], [np.nan], [0.1], [np.nan], [np.nan], [0.5]])
    found = mean_rank(label, [one, other])[:, 0]
    ranks = [(0.5 / 4 + 2.5 / 3) / 2, (1.5 / 4 + 1.5 / 3) / 2, 3 / 4, (3 / 4 + 0.5 / 3) / 2]
    np.testing.assert_allclose(found, [*ranks, 1.5 / 2, 0.5 / 2, np.nan])


def test_lists_name_film_and_reasons_in_both_directions(tenth: Simulated):
    predictions, folds, wrong = tenth
    evidence = gather_evidence(predictions, folds=folds, near=near(predictions))
    table = find_label_errors(predictions, evidence, top=30)
    assert len(table) == 3 * 2 * 30
    for (finding, direction), rows in table.groupby(["finding", "direction"]):
        k = predictions.findings.index(str(finding))
        film = rows["image"].astype(int)
        assert (predictions.label[film, k] == DIRECTIONS[str(direction)]).all()
        assert rows["mean_rank"].is_monotonic_decreasing
        assert rows["place"].tolist() == list(range(1, 31))
        assert wrong[film, k].mean() > 0.6
    assert (
        table["reason"]
        .str.fullmatch(r"network \d+% against, neighbours \d+% against, folds \d+% against")
        .all()
    )
    plain = replace(predictions, feature=np.empty((len(predictions), 0), np.float32))
    evidence = gather_evidence(plain, folds=NO_FOLDS, near=near(plain))
    assert set(evidence) == {"network"}
    assert "folds" not in find_label_errors(plain, evidence, top=1)["reason"][0]


def test_training_films_and_strange_folds_are_refused(tenth: Simulated):
    predictions, folds, _ = tenth
    part = np.where(np.arange(len(predictions)) < 7, "train", "test")
    with pytest.raises(ValueError, match="7 films trained the network"):
        gather_evidence(replace(predictions, part=part), folds=folds, near=near(predictions))
    with pytest.raises(ValueError, match=r"findings \(10, 3\), expected \(3000, 3\)"):
        gather_evidence(predictions, folds=folds[:, :10], near=near(predictions))


def test_a_review_curve_by_hand_ties_by_expectation():
    evidence = np.array([0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.1, np.nan])
    truth = np.array([1, 0, 1, 1, 0, 0, 0, 1])
    table = review_curve(evidence, truth * 1.0, budgets=[1, 2, 3, 7, 8, 0])
    np.testing.assert_allclose(table["found"][:4], [1, 1, 1.5, 3])
    np.testing.assert_allclose(table["precision"][:4], [1, 0.5, 0.5, 3 / 7])
    np.testing.assert_allclose(table["recall"][:4], [1 / 3, 1 / 3, 0.5, 1])
    assert table["precision"][4:].isna().all()
    assert table["note"][4] == "not computable: 7 films to review, 1 to as many expected"
    right = review_curve(evidence, truth * 0.0, budgets=[2])
    assert np.isnan(right["recall"][0])
    assert right["note"][0] == "no recall: 0 labels are wrong"


def _auc_of_errors(predictions: Predictions, truth: np.ndarray) -> np.ndarray:
    """Return the AUC of "experts disagree", mean over findings, of both directions and each.

    Rows: both, missing, spurious; columns: value, low, high over patients.
    """
    against = contradiction(predictions.label, predictions.probability)
    table = detection(against, predictions, truth, resamples=300, seed=0)
    return table.loc[table["finding"] == MACRO, ["auc", "low", "high"]].to_numpy()


@pytest.mark.slow
def test_labels_that_radiologists_contradict_rank_first(
    zech: Predictions, experts: Manifest, four: Manifest
):
    for seen, predictions in ((experts, zech), (four, merge_predictions(zech, FOUR_GROUPS))):
        truth = align(seen, predictions)
        found = _auc_of_errors(predictions, truth)
        assert (found[:, 1] > 0.6).all()  # lower ends; of all 14: .815 and .655
        shuffled = np.random.default_rng(0).permutation(predictions.logit)
        assert (_auc_of_errors(replace(predictions, logit=shuffled), truth)[1:, 1] < 0.5).all()


def test_the_contradiction_is_one_less_self_confidence():
    label, probability = np.array([[0, 1, np.nan]], np.float32).T, np.array([[0.2, 0.3, 0.4]]).T
    np.testing.assert_allclose(contradiction(label, probability)[:, 0], [0.2, 0.7, np.nan])
    assert roc_auc_score([0, 1], contradiction(label, probability)[:2, 0]) == 1
