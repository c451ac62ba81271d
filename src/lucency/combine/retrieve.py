"""Films that look alike: exact cosine search among features, the same patient left out.

Letters in shapes: n films of the index, q queries, d feature dimensions, t results a query,
b blocks of films.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped

BLOCK = 128  # films whose best similarity stands for all of them until the best blocks are known
QUERIES = 256  # at once: their similarities to 112,120 films take 115 MB
NOBODY = -1  # the patient of a query that is of none in the index


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """Films to search among: features of length 1, in the order of image and patient.

    The features of 112,120 films in 1,024 dimensions take 460 MB here and half of it on disk.
    """

    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    direction: Float32[np.ndarray, "n d"]

    def __post_init__(self) -> None:
        lengths = [len(self.patient), len(self.direction)]
        if lengths != [len(self.image)] * 2:
            raise ValueError(f"{len(self.image)} films; expected as many patients and features")

    def __len__(self) -> int:
        return len(self.image)


class Found(NamedTuple):
    """For every query the rows of the most similar films, best first, and their similarities.

    A row of -1 with a similarity of NaN stands where the index has no more films of others.
    """

    row: Int64[np.ndarray, "q t"]
    similarity: Float32[np.ndarray, "q t"]


def build_index(
    feature: Float[np.ndarray, "n d"],
    *,
    image: Shaped[np.ndarray, " n"],
    patient: Int64[np.ndarray, " n"],
) -> Index:
    """Return the index of films; raises ValueError for a feature that is not finite or all 0."""
    return Index(image=image, patient=patient, direction=directions(feature))


def directions(feature: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Return the features at length 1, in single precision."""
    wide = feature.astype(np.float32)
    length = np.linalg.norm(wide, axis=1)
    if lost := int((~((length > 0) & np.isfinite(length))).sum()):
        raise ValueError(
            f"{lost:,} of {len(length):,} features are all 0 or not finite; expected a direction "
            "each: extract them with a network that has learnt something"
        )
    wide /= length[:, None]
    return wide


def search(
    index: Index,
    feature: Float[np.ndarray, "q d"],
    *,
    patient: Int64[np.ndarray, " q"],
    top: int,
) -> Found:
    """Return the films of highest cosine similarity to every query, none of the query's patient.

    Exact: every film is compared. `patient` of a query that may find its own patient is NOBODY.
    Ties go to the film that stands first in the index. Raises ValueError for features of other
    dimensions, and for a `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top is {top}; expected how many films to find, 1 or more")
    if feature.shape[1] != index.direction.shape[1]:
        raise ValueError(
            f"queries have {feature.shape[1]} dimensions; expected {index.direction.shape[1]}, "
            "features of the network that the index was made with"
        )
    asked = directions(feature)
    pieces = [np.arange(start, min(start + QUERIES, len(asked))) for start in _starts(len(asked))]
    found = [_search(index, asked[rows], patient=patient[rows], top=top) for rows in pieces]
    empty = Found(np.empty((0, top), dtype=np.int64), np.empty((0, top), dtype=np.float32))
    return Found(*(np.concatenate(parts) for parts in zip(empty, *found, strict=True)))


def _starts(queries: int) -> Iterator[int]:
    yield from range(0, queries, QUERIES)


def _search(
    index: Index, asked: Float32[np.ndarray, "q d"], *, patient: Int64[np.ndarray, " q"], top: int
) -> Found:
    similarity = asked @ index.direction.T
    query, own = _own(index.patient, patient)
    similarity[query, own] = -np.inf
    highest = np.maximum.reduceat(similarity, np.arange(0, len(index), BLOCK), axis=1)
    rows = np.stack([_best(*pair, top=top) for pair in zip(similarity, highest, strict=True)])
    value = np.take_along_axis(similarity, np.maximum(rows, 0), axis=1)
    there = (rows >= 0) & np.isfinite(value)
    return Found(np.where(there, rows, -1), np.where(there, value, np.nan).astype(np.float32))


def _own(
    known: Int64[np.ndarray, " n"], asked: Int64[np.ndarray, " q"]
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Return pairs of a query and a film of the same patient."""
    order = np.argsort(known, kind="stable")
    low, high = (np.searchsorted(known[order], asked, side=side) for side in ("left", "right"))
    query = np.repeat(np.arange(len(asked)), high - low)
    place = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)] or [low])
    return query, order[place]


def _best(
    similarity: Float32[np.ndarray, " n"], highest: Float32[np.ndarray, " b"], *, top: int
) -> Int64[np.ndarray, " t"]:
    """Return the rows of the highest similarities, best first; -1 where there are no more.

    The best films stand in the blocks whose best film is among the best, so only these are sorted.
    """
    wanted = min(top, len(highest))
    bound = np.partition(highest, len(highest) - wanted)[len(highest) - wanted]
    chosen = np.flatnonzero(highest >= bound)
    row = (chosen[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    row = row[row < len(similarity)]
    order = np.argsort(-similarity[row], kind="stable")[:top]
    best = np.full(top, -1, dtype=np.int64)
    best[: len(order)] = row[order]
    return best
