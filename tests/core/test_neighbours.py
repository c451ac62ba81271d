"""Nearest films, against brute force in float64 and scikit-learn; memory by what is allocated."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from lucency.core import neighbours
from lucency.core.neighbours import nearest_films, require_features

FILMS, POOLED = 112_120, 1024  # ChestX-ray14, and the features of DenseNet121


def brute_force(
    feature: np.ndarray, query: np.ndarray, among: np.ndarray, count: int
) -> list[list[int]]:
    """Return the neighbours one film at a time, every distance in float64, lower rows first."""
    exact, found = feature.astype(np.float64), []
    for film in query:
        others = np.sort(among[among != film])
        distance = np.square(exact[others] - exact[film]).sum(axis=1)
        found.append(others[np.argsort(distance, kind="stable")][:count].tolist())
    return found


def pooled(films: int = 500, size: int = 256, seed: int = 0) -> np.ndarray:
    """Return features like a network's: not negative, far from 0, some films of one patient."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(20, size))[rng.integers(20, size=films)]
    raw = np.maximum(kinds + rng.normal(size=(films, size)) + 1, 0)
    raw[films // 2 :] = raw[: films - films // 2] + rng.normal(0, 1e-3, (films - films // 2, size))
    return raw.astype(np.float32)


def by_float32_alone(feature: np.ndarray, count: int) -> np.ndarray:
    """Return neighbours by |a|^2 + |b|^2 - 2ab in float32, the formula that loses digits."""
    square = np.square(feature).sum(axis=1)
    distance = square[:, np.newaxis] + square - 2 * feature @ feature.T
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_equals_brute_force_with_ties_and_duplicates_whatever_the_chunks(data: st.DataObject):
    films = data.draw(st.integers(1, 30))
    cell = st.integers(-2, 2)
    width = data.draw(st.integers(1, 3))
    rows = st.lists(st.lists(cell, min_size=width, max_size=width), min_size=films, max_size=films)
    feature = np.array(data.draw(rows), dtype=np.float32)
    some = st.lists(st.integers(0, films - 1), unique=True)
    query, among = (np.array(data.draw(some), dtype=np.int64) for _ in range(2))
    count = data.draw(st.integers(0, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "CELLS", data.draw(st.sampled_from([1, 50, 2**24])))
        found = nearest_films(feature, query=query, among=among, count=count)
    fewest = min(count, len(among) - int(np.isin(query, among).any()))
    expected = [row[:fewest] for row in brute_force(feature, query, among, count)]
    assert found.shape == (len(query), fewest)
    assert found.tolist() == expected


@pytest.mark.parametrize("offset", [0, 1000])
def test_equals_brute_force_on_features_like_a_network_s(offset: float):
    feature = pooled() + np.float32(offset)
    everyone = np.arange(len(feature))
    found = nearest_films(feature, query=everyone, among=everyone, count=5)
    assert found.tolist() == brute_force(feature, everyone, everyone, 5)


def test_float32_alone_would_not_do():
    feature = pooled() + np.float32(1000)
    everyone = np.arange(len(feature))
    naive = by_float32_alone(feature, 5)
    assert (naive != nearest_films(feature, query=everyone, among=everyone, count=5)).mean() > 0.5


def test_distances_equal_those_of_scikit_learn():
    feature = pooled(seed=1)
    query, among = np.arange(0, 500, 7), np.arange(1, 500, 2)
    found = nearest_films(feature, query=query, among=among, count=4)
    oracle = NearestNeighbors(n_neighbors=5, algorithm="kd_tree").fit(feature[among])
    distance, column = oracle.kneighbors(feature[query])
    for film, row, far, columns in zip(query, found, distance, column, strict=True):
        others = far[among[columns] != film][:4]
        assert np.linalg.norm(feature[row] - feature[film], axis=1) == pytest.approx(others)


def test_a_film_s_twins_come_first_and_itself_never():
    feature = np.zeros((100, 3), dtype=np.float32)
    feature[50:] = 1
    everyone = np.arange(100)
    found = nearest_films(feature, query=everyone, among=everyone, count=3)
    assert found[0].tolist() == [1, 2, 3]
    assert found[1].tolist() == [0, 2, 3]
    assert found[49].tolist() == [0, 1, 2]
    assert found[50].tolist() == [51, 52, 53]
    assert found[99].tolist() == [50, 51, 52]


@pytest.mark.parametrize("cells", [2**24, 1000])
def test_says_how_far_it_is_when_there_are_several_chunks(
    cells: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(neighbours, "CELLS", cells)
    feature, everyone = pooled(60), np.arange(60)
    found = nearest_films(feature, query=everyone, among=everyone, count=2)
    assert found.tolist() == brute_force(feature, everyone, everyone, 2)
    told = capsys.readouterr().err
    assert ("Comparing films: 60 of 60 films" in told) == (cells == 1000)
    assert bool(told) == (cells == 1000)


def test_memory_stays_far_below_3_gib_for_all_of_chestxray14():
    """Everything allocated but the features' copies grows with CELLS, not with films or queries."""
    width = 4
    feature = np.random.default_rng(0).random((FILMS, width), dtype=np.float32)
    everyone, step = np.arange(FILMS), neighbours.CELLS // FILMS
    peak = {}
    for chunks in (1, 3):
        tracemalloc.start()
        nearest_films(feature, query=everyone[: chunks * step], among=everyone, count=5)
        peak[chunks] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[3] < 1.2 * peak[1]
    assert peak[3] < 6 * neighbours.CELLS
    copies = 2 * FILMS * POOLED * 4
    assert 6 * neighbours.CELLS + copies < 1.5 * 2**30


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        (np.zeros((4, 0), dtype=np.float32), "0 features, expected at least 1"),
        (np.zeros((3, 2), dtype=np.float32), "of 3 films, expected 4"),
        (np.full((4, 2), np.nan, dtype=np.float32), "expected finite numbers"),
        (np.full((4, 2), -np.inf, dtype=np.float32), "expected finite numbers"),
        (np.full((4, 2), 1e30, dtype=np.float32), "expected finite numbers"),
    ],
)
def test_features_that_say_nothing_are_refused(feature: np.ndarray, problem: str):
    everyone = np.arange(4)
    with pytest.raises(ValueError, match=problem):
        nearest_films(feature, query=everyone, among=everyone, count=1)
    good = np.eye(4, dtype=np.float32)
    assert nearest_films(good, query=everyone, among=everyone, count=1)[:, 0].tolist() == [
        1,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize("films", [3, 5])
def test_features_of_other_films_are_refused(films: int):
    with pytest.raises(ValueError, match=f"features of 4 films, expected {films}: give one row"):
        require_features(np.eye(4, dtype=np.float32), films=films)
    require_features(np.eye(films, dtype=np.float32), films=films)
