"""Nearest neighbours among films: exact, Euclidean, in chunks that fit in memory.

Letters in shapes: n films, d feature dimensions, q query films, a films to choose from, c
neighbours, p pairs of films.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int64

from lucency.core.progress import progress

CELLS = 2**24  # distances at once: 64 MiB of them
BLOCK = 64  # distances of which only the smallest is compared first
ROUNDING = 2.0**-24  # of one float32 operation, relative
LARGEST = 1e15  # feature whose square, summed up, float32 still holds

Feature = Float32[np.ndarray, "n d"]
Query = Int64[np.ndarray, " q"]
Pairs = Int64[np.ndarray, " p"]
Neighbours = Int64[np.ndarray, "q c"]


def nearest_films(
    feature: Feature, *, query: Query, among: Int64[np.ndarray, " a"], count: int
) -> Neighbours:
    """Return the rows of the `count` films in `among` nearest to each film in `query`, by distance.

    Distances are Euclidean; of equally near films the lower row comes first, and a film is never
    its own neighbour. When `among` holds fewer films than that, there are fewer columns. A float32
    matrix product rules out films with certainty and float64 ranks the rest, so the result is that
    of float64 throughout, whatever the chunks. Progress is shown when there are several chunks.
    Raises ValueError when there are no features, not of every film, or not ordinary numbers.
    """
    named = 1 + max(query.max(initial=-1), among.max(initial=-1))
    require_features(feature, films=max(len(feature), int(named)))
    among = np.unique(among)
    known = np.isin(query, among)
    near = np.zeros((len(query), min(count, len(among) - int(known.any()))), dtype=np.int64)
    if not near.size:
        return near
    crowd, step = _gather(feature, among), max(1, CELLS // len(among))
    centre = crowd.mean(axis=0)  # lengths as seen from here lose fewest digits
    crowd -= centre
    square = np.einsum("ij,ij->i", crowd, crowd)
    for start in _starts(len(query), step):
        films = query[start : start + step]
        itself = np.where(known[start : start + step], np.searchsorted(among, films), -1)
        position = _gather(feature, films) - centre
        place, column = _candidates(position, crowd, square, itself=itself, count=near.shape[1])
        near[start : start + step] = _rank(feature, films, place, among[column], near.shape[1])
    return near


def require_features(feature: Feature, *, films: int) -> None:
    """Raise ValueError unless `feature` has columns, and a row for each of so many films."""
    if not feature.shape[1]:
        raise ValueError(
            "the films have 0 features, expected at least 1 to compare films by: "
            "give the method features, or choose one that needs none"
        )
    if len(feature) != films:
        raise ValueError(
            f"there are features of {len(feature)} films, expected {films}: "
            "give one row a film, in the order of the labels"
        )


def _gather(feature: Feature, rows: Query) -> Float32[np.ndarray, "q d"]:
    """Return a copy of those rows in memory, where `feature` may be mapped from a file."""
    position = np.asarray(feature)[rows]
    low, high = float(position.min()), float(position.max())
    if not (low > -LARGEST and high < LARGEST):
        raise ValueError(
            f"the films' features go from {low:g} to {high:g}, expected finite numbers below "
            f"{LARGEST:g} in size: compute the features again, or leave such films out"
        )
    return position


def _starts(films: int, step: int) -> Iterator[int]:
    """Yield where each chunk begins, and show progress when there are several."""
    if films <= step:
        yield 0
        return
    with progress("Comparing films", unit="films") as advance:
        for start in range(0, films, step):
            advance(start, films)
            yield start
        advance(films, films)


def _candidates(
    position: Float32[np.ndarray, "q d"],
    crowd: Float32[np.ndarray, "a d"],
    square: Float32[np.ndarray, " a"],
    *,
    itself: Query,
    count: int,
) -> tuple[Pairs, Pairs]:
    """Return the pairs of a place in `position` and one in `crowd` that may be neighbours.

    A squared distance as computed is off by at most `margin` times both squared lengths added up.
    A film with `count` others certainly no farther than some distance has its neighbours within
    it; so pairs are ruled out that are certainly farther than that, and each film with itself.
    """
    margin = 2 * (position.shape[1] + 16) * ROUNDING
    limit = (-2 * position) @ crowd.T
    limit += (1 + margin) * square
    known = np.flatnonzero(itself >= 0)
    limit[known, itself[known]] = np.inf
    height = max(1, min(BLOCK, limit.shape[1] // (count + 1)))
    width = limit.shape[1] // height
    lowest = limit[:, : height * width].reshape(len(limit), height, width).min(axis=1)
    reach = np.partition(lowest, count - 1, axis=1)[:, count - 1]
    reach += 2 * margin * np.einsum("ij,ij->i", position, position)
    limit -= 2 * margin * square
    return np.divmod(np.flatnonzero(limit <= reach[:, np.newaxis]), limit.shape[1])


def _rank(feature: Feature, films: Query, place: Pairs, found: Pairs, count: int) -> Neighbours:
    """Return the nearest of the films `found` for the film at each place; both ascend."""
    step = max(1, CELLS // (8 * feature.shape[1]))
    distance = np.empty(len(place))
    for start in range(0, len(place), step):
        pairs = slice(start, start + step)
        apart = feature[films[place[pairs]]].astype(np.float64) - feature[found[pairs]]
        distance[pairs] = np.square(apart).sum(axis=1)
    order = np.lexsort((distance, place))
    first = np.searchsorted(place, np.arange(len(films)))
    return found[order][first[:, np.newaxis] + np.arange(count)]
