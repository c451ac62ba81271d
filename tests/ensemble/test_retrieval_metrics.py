"""Scores of a search: as scikit-learn's, exact where films are planted; where none, the note."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score, ndcg_score, roc_auc_score

from lucency.core.predictions import Features
from lucency.ensemble.retrieval import Found, build_index
from lucency.ensemble.retrieval_metrics import (
    FIRST,
    PAIRS,
    conclude_recognition,
    draw_pairs,
    jaccard,
    recognition_table,
    retrieval_table,
    similar_table,
)

NONE = float("nan")


def _labels(films, seed):
    return (np.random.default_rng(seed).random((films, 3)) < 0.3).astype(np.float32)


def _queries(label, *, patient=None, feature=None):
    films = len(label)
    return Features(
        source="net", split="0123", findings=("a", "b", "c"), image=np.arange(films).astype(str),
        patient=-1 - np.arange(films) if patient is None else patient,
        part=np.full(films, "test"), label=label,
        feature=np.ones((films, 2), np.float32) if feature is None else feature,
    )  # fmt: skip


def _index(films, *, patient=None, feature=None):
    patient = np.arange(films) if patient is None else patient
    return build_index(_queries(np.zeros((films, 3), np.float32), patient=patient, feature=feature))


def _table(queries, found, known, *, patient=None):
    row = np.asarray(found)
    return retrieval_table(
        queries, index=_index(len(known), patient=patient), label=known,
        found=Found(row, np.ones(row.shape, np.float32)), resamples=50, seed=0,
    ).set_index(["finding", "metric"])  # fmt: skip


def test_relevance_is_scikit_learn_s_jaccard_and_1_where_both_have_none():
    one, other = _labels(50, 0), _labels(50, 1)
    expected = jaccard_score(one, other, average="samples", zero_division=1)
    assert jaccard(one, other).mean() == pytest.approx(expected)
    assert jaccard(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)) == [1]


def test_relevance_leaves_out_what_is_not_stated_of_both():
    one = np.array([[1, NONE, 1], [NONE, NONE, 1], [0, NONE, 1]], np.float32)
    other = np.array([[1, 1, 0], [1, 0, NONE], [0, 1, NONE]], np.float32)
    np.testing.assert_array_equal(jaccard(one, other), [0.5, NONE, 1])


def _average_precision(hit, *, relevant):
    """Return scikit-learn's, which divides by the hits, divided by the hits that could be."""
    if not hit.any():
        return 0
    average = average_precision_score(hit, np.arange(len(hit), 0, -1))
    return average * hit.sum() / min(len(hit), relevant)


def test_scores_are_scikit_learn_s():
    queries, known = _labels(40, 0), _labels(400, 1)
    found = np.stack([np.random.default_rng(s).permutation(400)[:10] for s in range(40)])
    table = _table(_queries(queries), found, known)
    relevance = jaccard(queries[:, None], known[None])
    ndcg, average, hits = [], [], []
    for query in range(40):
        # scikit-learn ranks all of the index: results first, in their order, nothing below counts.
        score = np.zeros(400)
        score[found[query]] = np.arange(10, 0, -1)
        ndcg.append(ndcg_score(relevance[[query]], score[None], k=10))
        hit = relevance[query, found[query]] > 0
        average.append(_average_precision(hit, relevant=(relevance[query] > 0).sum()))
        hits.append(hit.mean())
    assert table.loc[("overall", "ndcg@10"), "value"] == pytest.approx(np.mean(ndcg))
    assert table.loc[("overall", "map@10"), "value"] == pytest.approx(np.mean(average))
    assert table.loc[("overall", "precision@10"), "value"] == pytest.approx(np.mean(hits))
    carriers = np.flatnonzero(queries[:, 0])
    answers = [known[found[query], 0] for query in carriers]
    precision, average = table.loc[("a", "precision@10")], table.loc[("a", "map@10")]
    assert precision["value"] == pytest.approx(np.mean(answers))
    assert precision["queries"] == len(carriers)
    expected = [_average_precision(hit, relevant=known[:, 0].sum()) for hit in answers]
    assert average["value"] == pytest.approx(np.mean(expected))
    few = table["note"].str.startswith("no interval: ")
    assert not few.loc["overall"].any()
    assert (few == table["low"].isna()).all()
    assert (table["low"] < table["value"])[~few].all()
    assert (table["value"] < table["high"])[~few].all()


@pytest.mark.parametrize(("films", "top"), [(15, 5), (15, 20), (200, 5)])
def test_the_random_baseline_is_what_random_answers_score(films, top):
    """Own films left out, none drawn twice; 15 films are few enough that both matter much."""
    known, generator = _labels(films, 1), np.random.default_rng(0)
    patient = np.arange(films) // 3
    queries, tables = _queries(known[:30], patient=patient[:30]), []
    found = np.full((len(queries), top), -1)
    for _ in range(30):
        for row, own in zip(found, queries.patient, strict=True):
            others = generator.permutation(np.flatnonzero(patient != own))[:top]
            row[: len(others)] = others
        tables.append(_table(queries, found, known, patient=patient)["value"])
    spread = np.std(tables, axis=0) / np.sqrt(30)
    expected = _table(queries, found, known, patient=patient)["random"]
    found = np.mean(tables, axis=0)
    assert np.isnan(found).tolist() == np.isnan(expected).tolist()
    scored = ~np.isnan(found)
    assert (np.abs(found - expected) < 4.5 * spread + 1e-9)[scored].all()


def test_the_best_that_the_index_allows_is_without_the_patient_s_own_films():
    """The one other film scores all there is to score, though the patient has a better one."""
    known = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    patient = np.array([1, 1, 2, 3])
    queries = _queries(known[:1], patient=patient[:1])
    table = _table(queries, [[2, 3]], known, patient=patient)
    assert table.loc[("overall", "ndcg@2"), "value"] == 1
    assert table.loc[("overall", "precision@2"), "random"] == 0.5


def test_labels_that_are_not_stated_are_no_answers():
    known = np.array([[1, 0, 0], [NONE, NONE, NONE], [0, 1, 0], [1, NONE, 0]], np.float32)
    queries = _queries(np.array([[1, 0, 0]], np.float32))
    table = _table(queries, [[1, 0, 2, 3]], known)
    assert table.loc[("a", "precision@4"), "value"] == pytest.approx(2 / 3)
    assert table.loc[("a", "precision@4"), "random"] == pytest.approx(2 / 3)
    assert table.loc[("a", "map@4"), "value"] == pytest.approx((1 + 2 / 3) / 2)
    assert table.loc[("overall", "precision@4"), "value"] == pytest.approx(2 / 3)


def test_a_relevant_film_more_raises_the_average_precision():
    """Twenty films carry the finding: a hit at the first place alone is a tenth of the best."""
    known = np.zeros((40, 3), np.float32)
    known[:20, 0] = 1
    queries = _queries(np.array([[1, 0, 0]], np.float32))
    few = _table(queries, [[0, *range(20, 29)]], known).loc[("a", "map@10"), "value"]
    more = _table(queries, [[0, *range(20, 28), 1]], known).loc[("a", "map@10"), "value"]
    every = _table(queries, [[*range(10)]], known).loc[("a", "map@10"), "value"]
    assert (few, more, every) == pytest.approx((0.1, 0.12, 1.0))


def test_films_that_are_not_stated_leave_no_gap_in_discounted_gain():
    known = np.array([[1, 0, 0], [NONE, NONE, NONE], [0, 1, 0], [1, NONE, 0]], np.float32)
    queries = _queries(np.array([[1, 0, 0]], np.float32))
    table = _table(queries, [[1, 0, 2, 3]], known)
    second, third = 1 / np.log2(3), 1 / 2
    expected = (1 + third) / (1 + second)
    assert table.loc[("overall", "ndcg@4"), "value"] == pytest.approx(expected)
    chance = 2 / 3 * (1 + second + third) / (1 + second)
    assert table.loc[("overall", "ndcg@4"), "random"] == pytest.approx(chance)


def test_planted_clusters_are_found_exactly():
    generator = np.random.default_rng(0)
    cluster = np.repeat(np.arange(3), 40)
    centre = 50 * np.eye(3, 8)
    feature = (centre[cluster] + generator.normal(size=(120, 8))).astype(np.float32)
    label, patient = np.eye(3, dtype=np.float32)[cluster], np.arange(120)
    # A fifth of the labels are wrong: the share of right ones is known to the last film.
    wrong = label.copy()
    wrong[::5] = np.roll(wrong[::5], 1, axis=1)
    index = _index(120, feature=feature)
    for known, top, expected in ((label, 10, 1.0), (wrong, 39, None)):
        queries = _queries(label, patient=patient, feature=feature)
        table = similar_table(queries, index=index, label=known, resamples=20, seed=0, top=top)
        table = table.set_index(["finding", "metric"])
        if expected is None:
            right = np.array([[32 - (query % 5 > 0)] for query in range(120)]) / 39
            expected = right.mean()
        value = table.loc[("overall", f"precision@{top}"), "value"]
        assert value == pytest.approx(expected, abs=1e-12)
        assert table.loc[("overall", f"precision@{top}"), "random"] < 0.4


def test_what_cannot_be_scored_says_why():
    known = _labels(6, 0)
    known[:, 2] = 0
    queries = _queries(known, patient=np.ones(6, int))
    table = _table(queries, np.full((6, 3), -1), known, patient=np.ones(6, int))
    assert table["value"].isna().all()
    assert table["random"].isna().all()
    want = "not computable: 6 queries without labelled or relevant films of other patients"
    assert table.loc[("overall", "ndcg@3"), "note"] == want
    assert table.loc[("c", "map@3"), "note"] == "not computable: no query with this finding"
    mixed = _queries(known, patient=np.array([1, 1, 2, 3, 4, 5]))
    found = np.array([[-1], [-1], [0], [0], [0], [0]])
    some = _table(mixed, found, known, patient=np.ones(6, int))
    row = some.loc[("overall", "precision@1")]
    assert row["queries"] == 4
    few = "no interval: 4 patients, expected 20 or more; left out: 2 queries"
    assert row["note"].startswith(few)
    with pytest.raises(ValueError, match=r"labels are \(5, 3\); expected .* \(6, 3\)"):
        retrieval_table(
            queries, index=_index(6), label=known[:5],
            found=Found(np.zeros((6, 1), int), np.zeros((6, 1), np.float32)), resamples=5, seed=0,
        )  # fmt: skip


def _people(*, same, seed=0, patients=60, films=3):
    """Films of a patient share a direction of so much length."""
    generator = np.random.default_rng(seed)
    patient = generator.permutation(np.repeat(np.arange(patients), films))
    own = generator.normal(size=(patients, 32))
    feature = same * own[patient] + generator.normal(size=(len(patient), 32))
    label = np.zeros((len(patient), 3), np.float32)
    return _queries(label, patient=patient, feature=feature.astype(np.float32))


def test_patients_are_recognised_as_brute_force_does_and_strangers_are_not():
    queries = _people(same=1.0)
    table = recognition_table(queries, resamples=200, seed=0).set_index("metric")
    unit = queries.feature / np.linalg.norm(queries.feature, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    first = queries.patient[cosine.argmax(axis=1)] == queries.patient
    assert table.loc[FIRST, "value"] == pytest.approx(first.mean(), abs=0.006)
    assert table.loc[FIRST, "random"] == pytest.approx(2 / 179)
    upper = np.triu_indices(180, 1)
    same = queries.patient[upper[0]] == queries.patient[upper[1]]
    area = roc_auc_score(same, cosine[upper])
    assert table.loc[PAIRS, "low"] < area < table.loc[PAIRS, "high"]
    conclusion = conclude_recognition(table.reset_index())
    assert conclusion.startswith("Patient re-identification is significantly above chance. Most ")
    assert f"AUC: {table.loc[PAIRS, 'value']:.3f} (chance 0.500)." in conclusion
    none = recognition_table(_people(same=0.0), resamples=200, seed=0)
    assert (none["low"] < none["random"]).all()
    assert (none["random"] < none["high"]).all()
    assert conclude_recognition(none).startswith(
        "Patient re-identification is not significantly above chance. Most similar other film"
    )


@pytest.mark.parametrize("patient", [[1] * 180, np.arange(180)])
def test_recognising_needs_a_patient_of_several_films_and_somebody_else(patient):
    queries = _people(same=1.0)
    table = recognition_table(
        _queries(queries.label, patient=np.asarray(patient), feature=queries.feature),
        resamples=5, seed=0,
    )  # fmt: skip
    assert table["value"].isna().all()
    assert (table["queries"] == 0).all()
    assert conclude_recognition(table) == (
        "Patient re-identification is not computable: expected a patient of several films, and "
        "films of others."
    )


def test_pairs_are_of_one_patient_and_of_two_and_every_film_may_be_drawn():
    patient = np.array([5, 3, 5, 3, 9, 5, 1])
    rows = np.array([0, 1, 2, 3, 5])
    mates, strangers = {}, {}
    for seed in range(200):
        mate, stranger = draw_pairs(patient, rows, seed=seed)
        assert (patient[mate] == patient[rows]).all()
        assert (mate != rows).all()
        assert (patient[stranger] != patient[rows]).all()
        for row, one, other in zip(rows.tolist(), mate.tolist(), stranger.tolist(), strict=True):
            mates.setdefault(row, set()).add(one)
            strangers.setdefault(row, set()).add(other)
    assert mates == {0: {2, 5}, 1: {3}, 2: {0, 5}, 3: {1}, 5: {0, 2}}
    assert strangers[0] == {1, 3, 4, 6}
    assert strangers[1] == {0, 2, 4, 5, 6}


def test_random_features_of_few_patients_are_not_called_identifying():
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(36, 8)).astype(np.float32)
    features = _queries(_labels(36, 0), patient=np.arange(36) // 3, feature=feature)
    text = conclude_recognition(recognition_table(features, resamples=50, seed=0))
    assert text.startswith("Patient re-identification is not significantly above chance.")
