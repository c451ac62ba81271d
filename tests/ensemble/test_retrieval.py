"""Search: equal to brute force to the last tie, never the query's patient; votes as by hand."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from lucency.core.predictions import Features
from lucency.ensemble import retrieval as retrieve
from lucency.ensemble.retrieval import (
    FEATURE,
    IMAGE,
    NOBODY,
    PATIENT,
    Found,
    build_index,
    load_index,
    neighbour_predictions,
    prevalence,
    save_index,
    search,
    vote,
)


def _films(films, *, dimensions=8, patients=0, seed=0):
    generator = np.random.default_rng(seed)
    feature = generator.normal(size=(films, dimensions)).astype(np.float32)
    return feature, generator.integers(patients or films, size=films)


def _index(feature, patient):
    nothing = np.zeros((len(feature), 1), np.float32)
    return build_index(_queries(feature, patient, nothing))


def _saved(feature, patient, folder):
    save_index(_queries(feature, patient, np.zeros((len(feature), 1), np.float32)), folder=folder)


def _brute(index, query, patient, *, top):
    """All similarities in double precision, sorted."""
    wide = query.astype(np.float64)
    wide = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    row = np.full((len(query), top), -1)
    for place, (mine, owner) in enumerate(zip(wide, patient, strict=True)):
        similarity = (index.direction.astype(np.float64) * mine.astype(np.float64)).sum(axis=1)
        others = np.flatnonzero(index.patient != owner)
        best = others[np.argsort(-similarity[others], kind="stable")][:top]
        row[place, : len(best)] = best
    return row


def _queries(feature, patient, label):
    films = len(feature)
    return Features(
        source="net", split="0123", findings=tuple("abc"[: label.shape[1]]),
        image=np.arange(films).astype(str), patient=patient, part=np.full(films, "test"),
        label=label, feature=feature,
    )  # fmt: skip


@pytest.mark.parametrize("exactly", [True, False])
def test_without_patients_it_is_scikit_learn_s_brute_force(exactly):
    """To the last digit where half precision holds the features, else but for its rounding."""
    feature, patient = _films(3_000, dimensions=64)
    query = _films(300, dimensions=64, seed=1)[0]
    if exactly:
        feature, query = np.sign(feature), np.sign(query)
    found = search(_index(feature, patient), query, patient=np.full(300, NOBODY), top=10)
    brute = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(feature)
    distance, row = brute.kneighbors(query)
    np.testing.assert_allclose(found.similarity, 1 - distance, atol=1e-6 if exactly else 2e-4)
    if not exactly:
        assert (found.row == row).mean() > 0.99


@settings(max_examples=60, deadline=None)
@given(
    films=st.integers(1, 700),
    patients=st.integers(1, 60),
    top=st.integers(1, 20),
    copies=st.integers(1, 40),
    seed=st.integers(0, 1_000),
)
def test_it_is_brute_force_with_ties_and_never_the_patient_s_own(
    films, patients, top, copies, seed
):
    """Copies of a film are alike to the last digit, so that the first of them comes first."""
    feature, patient = _films(films, patients=patients, seed=seed)
    feature = feature[np.arange(films) // copies * copies]
    index = _index(feature, patient)
    rows = np.random.default_rng(seed).integers(films, size=20)
    found = search(index, feature[rows], patient=patient[rows], top=top)
    expected = _brute(index, feature[rows], patient[rows], top=top)
    np.testing.assert_array_equal(found.row, expected)
    np.testing.assert_array_equal(np.isnan(found.similarity), expected < 0)
    assert not (index.patient[found.row] == patient[rows][:, None])[found.row >= 0].any()


def test_films_that_rounding_would_swap_are_in_order(monkeypatch):
    """Differences of a few 1e-9 lie below single precision; without the second look they swap."""
    generator = np.random.default_rng(0)
    centre = generator.normal(size=256)
    feature = (centre + 1e-2 * generator.normal(size=(4_000, 256))).astype(np.float32)
    index, patient = _index(feature, np.arange(4_000)), np.full(40, NOBODY)
    expected = _brute(index, feature[:40], patient, top=10)
    np.testing.assert_array_equal(
        search(index, feature[:40], patient=patient, top=10).row, expected
    )
    monkeypatch.setattr(retrieve, "ROUNDING", 0.0)
    worse = search(index, feature[:40], patient=patient, top=10)
    assert (worse.row != expected).any()


def test_answers_do_not_depend_on_what_else_is_asked(monkeypatch):
    feature, patient = _films(2_000, dimensions=64, patients=300)
    index = _index(feature, patient)
    at_once = search(index, feature[:300], patient=patient[:300], top=7)
    alone = [search(index, feature[[q]], patient=patient[[q]], top=7) for q in range(300)]
    np.testing.assert_array_equal(at_once.row, np.concatenate([one.row for one in alone]))
    np.testing.assert_array_equal(
        at_once.similarity, np.concatenate([one.similarity for one in alone])
    )
    monkeypatch.setattr(retrieve, "QUERIES", 7)
    for films in (3, 90):  # of the index at once, fewer than are found and more
        monkeypatch.setattr(retrieve, "AT_ONCE", films)
        by_parts = search(index, feature[:300], patient=patient[:300], top=7)
        for mine, truth in zip(by_parts, at_once, strict=True):
            np.testing.assert_array_equal(mine, truth)


def test_an_index_of_one_patient_or_one_film_answers_what_it_can():
    feature, _ = _films(9)
    patient = np.ones(9, int)
    found = search(_index(feature, patient), feature, patient=patient, top=3)
    assert (found.row == -1).all()
    assert np.isnan(found.similarity).all()
    one = search(_index(feature[:1], patient[:1]), feature, patient=np.full(9, NOBODY), top=3)
    assert (one.row == [0, -1, -1]).all()
    assert (np.isnan(one.similarity) == [False, True, True]).all()
    none = search(_index(feature, patient), feature[:0], patient=patient[:0], top=3)
    assert none.row.shape == none.similarity.shape == (0, 3)


def test_an_index_comes_back_from_disk_bit_by_bit(tmp_path):
    feature, patient = _films(5_000, dimensions=12, patients=50)
    index = _index(1e4 * feature, patient)
    _saved(1e4 * feature, patient, tmp_path / "index")
    again = load_index(tmp_path / "index")
    for name in ("image", "patient", "direction"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    np.testing.assert_allclose(again.direction, unit, atol=2.0**-12)
    assert type(again.direction) is np.ndarray
    assert (tmp_path / "index" / FEATURE).stat().st_size == 5_000 * 12 * 2 + 128


def test_a_large_index_is_held_in_half_precision_and_answers_alike(tmp_path, monkeypatch):
    """In memory, from disk and in parts: 9,000 films, more than are widened at once."""
    feature, patient = _films(9_000, dimensions=16, patients=900)
    wide, asked = _index(feature, patient), {"patient": patient[:99], "top": 7}
    expected = search(wide, feature[:99], **asked)
    monkeypatch.setattr(retrieve, "HELD", 9_000)
    monkeypatch.setattr(retrieve, "AT_ONCE", 5_000)
    half = _index(feature, patient)
    _saved(feature, patient, tmp_path / "index")
    for index in (half, load_index(tmp_path / "index")):
        assert index.direction.dtype == np.float16
        assert index.direction.nbytes == wide.direction.nbytes / 2
        np.testing.assert_array_equal(index.direction.astype(np.float32), wide.direction)
        for mine, truth in zip(search(index, feature[:99], **asked), expected, strict=True):
            np.testing.assert_array_equal(mine, truth)


def test_features_mapped_from_a_file_make_the_same_index_and_leave_memory(tmp_path):
    feature, patient = _films(20_000, dimensions=256, patients=50)
    _saved(feature, patient, tmp_path / "held")
    np.save(tmp_path / "feature.npy", feature)
    mapped = np.load(tmp_path / "feature.npy", mmap_mode="r")
    _saved(mapped, patient, tmp_path / "mapped")
    same = [(tmp_path / name / FEATURE).read_bytes() for name in ("held", "mapped")]
    assert same[0] == same[1]
    maps = Path("/proc/self/smaps")
    if maps.exists():  # Linux
        about = maps.read_text().partition(str(tmp_path / "feature.npy"))[2]
        assert int(re.findall(r"Rss:\s+(\d+) kB", about)[0]) < feature.nbytes / 1024 / 4


def test_an_index_of_parts_is_that_of_all_films(tmp_path):
    feature, patient = _films(300)
    whole = _queries(feature, patient, np.zeros((300, 1), np.float32))
    parts = [whole.take(np.arange(120)), whole.take(np.arange(120, 300))]
    save_index(*parts, folder=tmp_path)
    for name in ("image", "patient", "direction"):
        for index in (build_index(*parts), load_index(tmp_path)):
            np.testing.assert_array_equal(getattr(index, name), getattr(build_index(whole), name))
    with pytest.raises(ValueError, match="source"):
        build_index(parts[0], replace(parts[1], source="another"))
    for part in parts:
        part.feature[3] = 0
    with pytest.raises(ValueError, match="2 of 300 features are all 0"):
        build_index(*parts)


def test_an_index_that_is_not_whole_is_refused(tmp_path):
    feature, patient = _films(50)
    _saved(feature, patient, tmp_path)
    file = tmp_path / FEATURE
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="mmap length is greater than file size"):
        load_index(tmp_path)
    np.save(file, feature)
    with pytest.raises(ValueError, match="holds 2 axes of float32; expected films x dimensions"):
        load_index(tmp_path)
    np.save(file, feature[:40].astype(np.float16))
    with pytest.raises((ValueError, TypeError)):  # jaxtyping's under pytest
        load_index(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"holds no feature.npy; expected an index"):
        load_index(tmp_path)
    np.save(file, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        load_index(tmp_path)
    file.write_bytes(whole)
    for damaged in (FEATURE, IMAGE, PATIENT):
        content = (tmp_path / damaged).read_bytes()
        (tmp_path / damaged).write_bytes(b"")
        with pytest.raises(ValueError, match=rf"{damaged} cannot be read"):
            load_index(tmp_path)
        (tmp_path / damaged).write_bytes(content)


def test_bad_queries_are_refused():
    feature, patient = _films(5)
    index = _index(feature, patient)
    with pytest.raises(ValueError, match="queries have 3 dimensions; expected 8"):
        search(index, feature[:, :3], patient=patient, top=2)
    with pytest.raises(ValueError, match="top is 0"):
        search(index, feature, patient=patient, top=0)
    for bad in (0, np.nan, np.inf):
        spoilt = feature.copy()
        spoilt[2] = bad
        with pytest.raises(ValueError, match="1 of 5 features are all 0 or not finite"):
            _index(spoilt, patient)
    with pytest.raises(ValueError, match="the index holds no film"):
        _index(feature[:0], patient[:0])
    with pytest.raises(ValueError, match=r"labels are \(5, 2\); expected .* \(5, 3\)"):
        neighbour_predictions(
            _queries(feature, patient, np.zeros((5, 3), np.float32)),
            index=index, label=np.zeros((5, 2), np.float32), neighbours=2,
        )  # fmt: skip


def test_a_vote_leaves_out_what_is_not_stated_and_falls_back_on_the_prior():
    known = np.array([[1, np.nan], [1, 0], [0, 1]], dtype=np.float32)
    found = np.array([[0, 1, -1], [-1, -1, -1], [0, 2, 1]])
    similarity = np.array([[1, 1, np.nan], [np.nan] * 3, [0.8, 0.4, -1]], dtype=np.float32)
    prior = prevalence(known)
    np.testing.assert_allclose(prior, [2.5 / 4, 1.5 / 3])
    expected = [
        [(2 + prior[0]) / 3, prior[1] / 2],
        prior,
        [(0.8 + prior[0]) / 2.2, (0.4 + prior[1]) / 1.4],
    ]
    voted = vote(known, Found(found, similarity), prior=prior)
    np.testing.assert_allclose(voted, expected, rtol=1e-6)
    nothing = np.full((2, 2), np.nan, np.float32)
    np.testing.assert_array_equal(prevalence(nothing), 0.5)


def test_neighbours_rank_films_as_scikit_learn_s_do():
    """Weights by nearness are the same there; only the prior is ours, and fades with votes."""
    generator = np.random.default_rng(0)
    label = (generator.random((900, 3)) < 0.3).astype(np.float32)
    feature = (label @ generator.normal(size=(3, 20)) + generator.normal(size=(900, 20))) + 1
    feature = feature.astype(np.float32)
    train, test = np.arange(600), np.arange(600, 900)
    index = _index(feature[train], train)
    queries = _queries(feature[test], test, label[test])
    found = neighbour_predictions(queries, index=index, label=label[train], neighbours=40)
    assert found.network == "neighbours on net"
    assert found.feature.shape == (300, 0)
    prior = prevalence(label[train])
    near = KNeighborsClassifier(
        40, metric="cosine", algorithm="brute", weights=lambda distance: 1 - distance
    ).fit(index.direction, label[train])
    votes = (1 - near.kneighbors(feature[test])[0]).sum(axis=1)
    for finding, share in enumerate(near.predict_proba(feature[test])):
        expected = (share[:, 1] * votes + prior[finding]) / (votes + 1)
        apart = np.abs(found.logit[:, finding] - logit(expected))
        assert np.mean(apart < 1e-3) > 0.98  # rounding may swap the last neighbour


def test_a_patient_s_own_films_do_not_vote():
    feature = np.eye(4, 4, dtype=np.float32)[[0, 0, 1, 1]] + 0.1
    label = np.array([[1], [1], [0], [0]], dtype=np.float32)
    index = _index(feature, np.array([1, 1, 2, 2]))
    ours = _queries(feature[:1], np.array([1]), label[:1])
    theirs = _queries(feature[:1], np.array([3]), label[:1])
    for queries, positive in ((ours, False), (theirs, True)):
        found = neighbour_predictions(queries, index=index, label=label, neighbours=2)
        assert (found.logit[0, 0] > 0) == positive
