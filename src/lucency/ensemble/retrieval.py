"""Retrieval of similar films: exact cosine search among embeddings, the same patient left out.

The index lies on disk as features (embeddings) in half precision beside image and patient, no
pickle: 112,120 films in 1,024 dimensions take 230 MB. The vote of the nearest training films is a
predictor.

Letters in shapes: n films of the index, q queries, d feature dimensions, t results a query,
b blocks of films, c candidates, k findings.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64, Int64, Shaped
from scipy.special import logit

from lucency.core.files import whole_file, write_array
from lucency.core.predictions import Features, Predictions, concatenate
from lucency.core.saved_files import ARRAY_DAMAGE, naming_damage, read_array
from lucency.evaluation.bootstrap import ratio

BLOCK = 128  # films whose best similarity stands for all of them until the best blocks are known
HELD = 2**28  # numbers of an index in single precision: 1 GiB
AT_ONCE = 2**17  # films of the index at once: 134 MB of similarities of QUERIES
QUERIES = 256  # at most at once
ROWS = 4_096  # features at once in double precision: 34 MB of 1,024 dimensions
ROUNDING = 1.01 * 2.0**-24  # of a sum of products in single precision, for each of its terms
NOBODY = -1  # the patient of a query that is of none in the index
FEATURE, IMAGE, PATIENT = "feature.npy", "image.npy", "patient.npy"  # files of an index
SAME = 1 - 1e-6  # cosine of a film with itself, at least: half precision costs 1e-8
FORGET = getattr(mmap, "MADV_DONTNEED", None)  # which Windows has not
PRIOR = 0.5  # of a positive and of a negative label, added to those of the index


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """Films to search among: features of length 1, in the order of image and patient.

    They are rounded to half precision, as they lie on disk. Up to HELD numbers are held in single
    precision, 460 MB for 112,120 films in 1,024 dimensions: widening them for a query took ten
    times its search. More are held in half precision, 2 GB for a million films, and widened ROWS
    films at a time while they are searched, for many queries together. The answers are the same.
    """

    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    direction: Float[np.ndarray, "n d"]

    def __post_init__(self) -> None:
        lengths = [len(self.patient), len(self.direction)]
        if lengths != [len(self.image)] * 2:
            raise ValueError(f"{len(self.image)} films; expected as many patients and features")
        if not len(self.image):
            raise ValueError("the index holds no film; expected one or more to search among")

    def __len__(self) -> int:
        return len(self.image)


class Found(NamedTuple):
    """For every query the rows of the most similar films, best first, and their similarities.

    A row of -1 with a similarity of NaN stands where the index has no more films of others.
    """

    row: Int64[np.ndarray, "q t"]
    similarity: Float32[np.ndarray, "q t"]


def build_index(*several: Features) -> Index:
    """Return the index of films, which may come in parts of one source that are never joined.

    Raises ValueError for parts of several sources, and for a feature that is not finite or all 0.
    """
    films, shape = _joined(several)
    direction = np.empty(shape, dtype=_held(shape))
    start = 0
    for unit in _half_directions(several):
        direction[start : start + len(unit)] = unit
        start += len(unit)
    return Index(image=films.image.astype(str), patient=films.patient, direction=direction)


def _joined(several: Sequence[Features]) -> tuple[Features, tuple[int, int]]:
    """Return what is known of all films but their features, and the shape of these."""
    films = concatenate([replace(one, feature=one.feature[:, :0]) for one in several])
    return films, (len(films), several[0].feature.shape[1])


def _half_directions(several: Sequence[Features]) -> Iterator[Float16[np.ndarray, "b d"]]:
    """Yield the features of all films, at length 1 and in half precision, some at a time."""
    films, lost = 0, 0
    for feature in (one.feature for one in several):
        for rows in pieces(len(feature), ROWS):
            unit, bad = _units(feature[rows])
            films, lost = films + len(unit), lost + bad
            yield unit.astype(np.float16)
            _let_go(feature)
    _refuse_lost(lost, films)


def _let_go(feature: Float[np.ndarray, "n d"]) -> None:
    """Give back the memory of a file that is mapped to be read: its pages can be read again."""
    if FORGET is not None and isinstance(feature.base, mmap.mmap) and not feature.flags.writeable:
        feature.base.madvise(FORGET)


def _held(shape: tuple[int, ...]) -> type[np.floating[Any]]:
    """Return the precision in which the directions of an index are held."""
    return np.float32 if math.prod(shape) <= HELD else np.float16


def directions(feature: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Return the features at length 1, in single precision."""
    unit, lost = _units(feature)
    _refuse_lost(lost, len(unit))
    return unit


def _units(feature: Float[np.ndarray, "n d"]) -> tuple[Float32[np.ndarray, "n d"], int]:
    """Return the features at length 1, and how many of them have no direction."""
    unit = np.array(feature, dtype=np.float32)
    lost = 0
    for rows in pieces(len(unit), ROWS):
        length = np.linalg.norm(unit[rows].astype(np.float64), axis=1, keepdims=True)
        whole = (length > 0) & np.isfinite(length)
        lost += int((~whole).sum())
        unit[rows] /= np.where(whole, length, 1)
    return unit, lost


def _refuse_lost(lost: int, films: int) -> None:
    if lost:
        raise ValueError(
            f"{lost:,} of {films:,} features are all 0 or not finite; expected a direction "
            "each: leave those films out, or take other features"
        )


def search(
    index: Index, feature: Float[np.ndarray, "q d"], *, patient: Int64[np.ndarray, " q"], top: int
) -> Found:
    """Return the films of highest cosine similarity to every query, none of the query's patient.

    Exact: every film is compared in single precision, and all that rounding could have put among
    the best are compared again in double precision, so that results do not depend on the other
    queries. `patient` of a query that may find its own patient is NOBODY. Ties go to the film that
    stands first in the index. Raises ValueError for features of other dimensions, and for a `top`
    below 1.
    """
    if top < 1:
        raise ValueError(f"top is {top}; expected how many films to find, 1 or more")
    if feature.shape[1] != index.direction.shape[1]:
        raise ValueError(
            f"queries have {feature.shape[1]} dimensions; expected {index.direction.shape[1]}, "
            "features of the network that the index was made with"
        )
    query, own = directions(feature), _own_films(index.patient, patient)
    row = np.full((len(query), top), -1, dtype=np.int64)
    similarity = np.full(row.shape, np.nan, dtype=np.float32)
    for some in pieces(len(query), QUERIES):
        places = range(*some.indices(len(query)))
        near = _candidates(index, query[some], [own[place] for place in places], top=top)
        for place, candidates in zip(places, near, strict=True):
            best, exact = _best(index, query[place], candidates, top=top)
            row[place, : len(best)], similarity[place, : len(best)] = best, exact
    return Found(row, similarity)


def owners(
    index: Index, feature: Float[np.ndarray, "q d"], *, patient: Int64[np.ndarray, " q"]
) -> Int64[np.ndarray, " q"]:
    """Return whose films the queries are: a film of the index that is the same by its features.

    `patient` is what is known of others, NOBODY or a patient. Features are the same up to the
    rounding of the index.
    """
    nobody = np.full(len(feature), NOBODY)
    row = search(index, feature, patient=nobody, top=1).row[:, 0]
    near, query = index.direction[row].astype(np.float64), directions(feature).astype(np.float64)
    cosine = (near * query).sum(axis=1) / np.linalg.norm(near, axis=1)
    return np.where(cosine > SAME, index.patient[row], patient)


def neighbour_predictions(
    queries: Features, *, index: Index, label: Float32[np.ndarray, "n k"], neighbours: int
) -> Predictions:
    """Return the vote of the nearest training films, as predictions of a network of its own.

    `label` are the labels of the index, which training films make up; films of a query's own
    patient do not vote. Nothing is calibrated here. Raises ValueError for labels of other films or
    findings, and as `search` does.
    """
    require_labels(label, films=len(index), findings=len(queries.findings))
    found = search(index, queries.feature, patient=queries.patient, top=neighbours)
    share = np.empty(queries.label.shape)
    prior = prevalence(label)
    for some in pieces(len(queries), QUERIES):
        share[some] = vote(label, Found(*(part[some] for part in found)), prior=prior)
    return queries.predictions(network=f"neighbours on {queries.source}", logit=logit(share))


def require_labels(label: Float32[np.ndarray, "n k"], *, films: int, findings: int) -> None:
    """Raise ValueError unless these are labels of so many films and findings."""
    if label.shape != (films, findings):
        expected = f"expected films and findings {(films, findings)}"
        raise ValueError(f"labels are {label.shape}; {expected}")


def vote(
    known: Float32[np.ndarray, "n k"], found: Found, *, prior: Float64[np.ndarray, " k"]
) -> Float64[np.ndarray, "q k"]:
    """Return the neighbours' vote: the share of positive labels, weighted by similarity.

    Labels that are not stated do not vote, nor do films of a similarity below 0; one vote for the
    prior share is added, so that no share is 0 or 1. Dudani, IEEE Transactions on Systems, Man,
    and Cybernetics SMC-6 (1976), 325-327, for weights by nearness.
    """
    label, similarity = known[found.row], found.similarity.astype(np.float64)
    there = (found.row >= 0)[..., None] & ~np.isnan(label)
    weight = np.where(there, np.clip(similarity, 0, None)[..., None], 0)
    positive = (weight * (label == 1)).sum(axis=1)
    return (positive + prior) / (weight.sum(axis=1) + 1)


def prevalence(label: Float32[np.ndarray, "n k"]) -> Float64[np.ndarray, " k"]:
    """Return the share of positive among stated labels, and half a label of each: never 0 or 1."""
    positive, stated = (label == 1).sum(axis=0), (~np.isnan(label)).sum(axis=0)
    return ratio(positive + PRIOR, stated + 2 * PRIOR)


def pieces(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, start + size)


def save_index(*several: Features, folder: Path) -> None:
    """Write the index of films as three arrays into `folder`; a receipt shows they are complete.

    `load_index` gives what `build_index` does, to the last bit; memory never holds the features.
    Raises ValueError as `build_index` does.
    """
    films, shape = _joined(several)
    folder.mkdir(parents=True, exist_ok=True)
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with whole_file(folder / FEATURE) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for unit in _half_directions(several):
            stream.write(unit.astype("<f2", copy=False).data)
    write_array(films.image.astype(str), folder / IMAGE)
    write_array(films.patient, folder / PATIENT)


def load_index(folder: Path) -> Index:
    """Read what `save_index` wrote: widened, or mapped read-only where it is large (`Index`).

    Raises ValueError where a file lacks, is cut short or holds something else.
    """
    for name in (FEATURE, IMAGE, PATIENT):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no {name}; expected an index as save_index writes it")
    with naming_damage(folder / FEATURE, kinds=ARRAY_DAMAGE):
        half = np.load(folder / FEATURE, mmap_mode="r", allow_pickle=False)
    if half.dtype != np.float16 or half.ndim != 2:
        raise ValueError(
            f"{folder / FEATURE} holds {half.ndim} axes of {half.dtype}; expected films x "
            "dimensions in float16: make the index anew"
        )
    return Index(
        image=read_array(folder / IMAGE),
        patient=read_array(folder / PATIENT),
        direction=half if _held(half.shape) == half.dtype else np.array(half, dtype=np.float32),
    )


def _own_films(
    known: Int64[np.ndarray, " n"], query: Int64[np.ndarray, " q"]
) -> list[Int64[np.ndarray, " _"]]:
    """Return for every query the films of its patient."""
    order = np.argsort(known, kind="stable")
    low, high = (np.searchsorted(known[order], query, side=side) for side in ("left", "right"))
    return [order[start:end] for start, end in zip(low.tolist(), high.tolist(), strict=True)]


def _candidates(
    index: Index,
    query: Float32[np.ndarray, "q d"],
    own: Sequence[Int64[np.ndarray, " _"]],
    *,
    top: int,
) -> list[Int64[np.ndarray, " c"]]:
    """Return for every query the rows, in their order, of all films that may be among its best.

    Not those of its `own`. All queries are compared with one part of the index after the other, so
    that half precision is widened once for them. Two similarities differ by rounding alone where
    they differ by no more than `slack`, twice the bound of rounding (Higham, Accuracy and Stability
    of Numerical Algorithms, 2002, chapter 3), with two terms more for comparing in single
    precision.
    """
    slack = 2 * ROUNDING * (query.shape[1] + 2)
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in own]
    product = np.empty((len(query), min(len(index), AT_ONCE)), dtype=np.float32)
    for rows in pieces(len(index), AT_ONCE):
        part = index.direction[rows]
        roughly = product[:, : len(part)]
        for some in pieces(len(part), len(part) if part.itemsize > 2 else ROWS):
            wide = part[some].astype(np.float32, copy=False)
            np.matmul(query, wide.T, out=roughly[:, some])
        for films, mine, near in zip(own, roughly, found, strict=True):
            here = films[(films >= rows.start) & (films < rows.start + len(part))]
            mine[here - rows.start] = -np.inf
            row = _near(mine, top=top, slack=slack)
            row = row[np.isfinite(mine[row])]
            near.append((rows.start + row, mine[row]))
    return [_nearest(near, top=top, slack=slack) for near in found]


def _nearest(
    parts: Sequence[tuple[Int64[np.ndarray, " _"], Float32[np.ndarray, " _"]]],
    *,
    top: int,
    slack: float,
) -> Int64[np.ndarray, " c"]:
    """Return the rows of candidates of all parts of an index that may be among the best of all."""
    row, roughly = (np.concatenate(one) for one in zip(*parts, strict=True))
    return row[roughly >= _last_of(roughly, top) - slack] if len(row) > top else row


def _best(
    index: Index, query: Float32[np.ndarray, " d"], row: Int64[np.ndarray, " c"], *, top: int
) -> tuple[Int64[np.ndarray, " t"], Float64[np.ndarray, " t"]]:
    """Return the rows of the highest similarities among candidates, best first, and these."""
    wide = query.astype(np.float64)
    exact = [
        (index.direction[row[some]].astype(np.float64) * wide).sum(axis=1)
        for some in pieces(len(row), ROWS)
    ]
    similarity = np.concatenate([np.empty(0), *exact])
    order = np.argsort(-similarity, kind="stable")[:top]
    return row[order], similarity[order]


def _near(roughly: Float32[np.ndarray, " n"], *, top: int, slack: float) -> Int64[np.ndarray, " c"]:
    """Return in their order the rows of all films that may be among the best.

    The best films stand in the blocks whose best film is among the best, so only these are sorted.
    """
    if top >= len(roughly):
        return np.arange(len(roughly))
    highest = np.maximum.reduceat(roughly, np.arange(0, len(roughly), BLOCK))
    chosen = np.flatnonzero(highest >= _last_of(highest, top) - slack)
    row = (chosen[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    row = row[row < len(roughly)]
    return row[roughly[row] >= _last_of(roughly[row], top) - slack]


def _last_of(value: Float32[np.ndarray, " c"], top: int) -> float:
    """Return the value at place `top` from the highest, or the lowest of fewer."""
    place = max(0, len(value) - top)
    return float(np.partition(value, place)[place])
