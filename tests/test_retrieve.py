"""Search: equal to brute force, never the query's patient; scores as their definitions say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, jaccard_score, ndcg_score
from sklearn.neighbors import NearestNeighbors

from lucency.combine.relevance import jaccard, recognised, retrieval_table, vote
from lucency.combine.retrieve import NOBODY, build_index, search


def _films(films: int, *, dimensions: int = 8, patients: int = 0, seed: int = 0):
    generator = np.random.default_rng(seed)
    feature = generator.normal(size=(films, dimensions)).astype(np.float32)
    patient = generator.integers(patients or films, size=films)
    return feature, patient


def _index(feature, patient):
    return build_index(feature, image=np.arange(len(feature)).astype(str), patient=patient)


def test_without_patients_it_is_scikit_learn_s_brute_force():
    feature, patient = _films(3_000, dimensions=16)
    query = _films(300, dimensions=16, seed=1)[0]
    found = search(_index(feature, patient), query, patient=np.full(300, NOBODY), top=10)
    brute = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(feature)
    distance, row = brute.kneighbors(query)
    np.testing.assert_array_equal(found.row, row)
    np.testing.assert_allclose(found.similarity, 1 - distance, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    films=st.integers(1, 700),
    patients=st.integers(1, 60),
    top=st.integers(1, 20),
    seed=st.integers(0, 1_000),
)
def test_the_patient_s_own_films_are_never_found(films, patients, top, seed):
    feature, patient = _films(films, patients=patients, seed=seed)
    rows = np.random.default_rng(seed).integers(films, size=20)
    found = search(_index(feature, patient), feature[rows], patient=patient[rows], top=top)
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    for query, row in enumerate(rows):
        similarity = unit @ unit[row]
        others = np.flatnonzero(patient != patient[row])
        expected = others[np.argsort(-similarity[others], kind="stable")][:top]
        mine = found.row[query]
        assert (mine >= 0).sum() == min(top, len(others))
        np.testing.assert_allclose(similarity[mine[mine >= 0]], similarity[expected], atol=1e-6)
        assert not np.isin(mine, np.flatnonzero(patient == patient[row])).any()
        assert np.isnan(found.similarity[query][mine < 0]).all()


def test_an_index_of_one_patient_answers_nothing():
    feature, _ = _films(9)
    found = search(_index(feature, np.ones(9, int)), feature, patient=np.ones(9, int), top=3)
    assert (found.row == -1).all()
    assert np.isnan(found.similarity).all()


def test_bad_queries_are_refused():
    feature, patient = _films(5)
    index = _index(feature, patient)
    with pytest.raises(ValueError, match="queries have 3 dimensions; expected 8"):
        search(index, feature[:, :3], patient=patient, top=2)
    with pytest.raises(ValueError, match="top is 0"):
        search(index, feature, patient=patient, top=0)
    with pytest.raises(ValueError, match="1 of 5 features are all 0 or not finite"):
        _index(feature * (np.arange(5) > 0)[:, None], patient)


def _labels(films: int, seed: int):
    return (np.random.default_rng(seed).random((films, 3)) < 0.3).astype(np.float32)


def test_relevance_is_scikit_learn_s_jaccard_and_1_where_both_have_none():
    one, other = _labels(50, 0), _labels(50, 1)
    expected = jaccard_score(one, other, average="samples", zero_division=1)
    assert jaccard(one, other).mean() == pytest.approx(expected)
    assert jaccard(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)) == [1]


def _table(asked, found, known):
    return retrieval_table(
        asked, found, known,
        findings=("a", "b", "c"), patient=np.arange(len(asked)), resamples=50, seed=0,
    ).set_index(["finding", "metric"])  # fmt: skip


def test_scores_are_scikit_learn_s():
    asked, known = _labels(40, 0), _labels(400, 1)
    found = np.stack([np.random.default_rng(s).permutation(400)[:10] for s in range(40)])
    table = _table(asked, found, known)
    relevance = jaccard(asked[:, None], known[None])
    ndcg, average, hits = [], [], []
    for query in range(40):
        # scikit-learn ranks all of the index: answers first, in their order, nothing below counts.
        score = np.zeros(400)
        score[found[query]] = np.arange(10, 0, -1)
        ndcg.append(ndcg_score(relevance[[query]], score[None], k=10))
        hit = relevance[query, found[query]] > 0
        average.append(average_precision_score(hit, np.arange(10, 0, -1)) if hit.any() else 0)
        hits.append(hit.mean())
    assert table.loc[("overall", "ndcg"), "value"] == pytest.approx(np.mean(ndcg))
    assert table.loc[("overall", "map"), "value"] == pytest.approx(np.mean(average))
    assert table.loc[("overall", "precision"), "value"] == pytest.approx(np.mean(hits))
    carriers = np.flatnonzero(asked[:, 0])
    expected = np.mean([known[found[query], 0].mean() for query in carriers])
    assert table.loc[("a", "precision"), "value"] == pytest.approx(expected)
    assert table.loc[("a", "precision"), "queries"] == len(carriers)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_the_random_baseline_is_what_random_answers_score():
    asked, known = _labels(30, 0), _labels(500, 1)
    tables = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        tables.append(_table(asked, generator.integers(500, size=(30, 10)), known)["value"])
    expected = _table(asked, np.zeros((30, 10), int), known)["random"]
    np.testing.assert_allclose(np.mean(tables, axis=0), expected, atol=0.02)


def test_planted_clusters_are_found_exactly():
    generator = np.random.default_rng(0)
    cluster = np.repeat(np.arange(3), 40)
    centre = 50 * np.eye(3, 8)
    feature = (centre[cluster] + generator.normal(size=(120, 8))).astype(np.float32)
    label = np.eye(3, dtype=np.float32)[cluster]
    patient = np.arange(120)
    found = search(_index(feature, patient), feature, patient=patient, top=10)
    table = _table(label, found.row, label)
    np.testing.assert_allclose(table["value"], 1)
    assert (table["random"] < 0.6).all()
    np.testing.assert_array_equal(vote(label, found.row, found.similarity).argmax(axis=1), cluster)


def test_recognising_patients_is_counted_where_it_is_possible():
    known = np.array([1, 1, 2, 3, 3])
    patient, first = np.array([1, 2, 3]), np.array([1, 4, 2])
    assert recognised(patient, first, known) == 0.5
    assert np.isnan(recognised(np.array([2]), np.array([0]), known))


def test_a_vote_leaves_out_what_is_not_stated():
    known = np.array([[1, np.nan], [1, 0], [0, 1]], dtype=np.float32)
    found, similarity = np.array([[0, 1, -1]]), np.array([[1.0, 1.0, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(vote(known, found, similarity), [[2.5 / 3, 0.5 / 2]])
