"""Do features recognise people? Films of one patient beside films of others, and what that means.

A retriever finds the patient before the disease: Packhäuser et al., Scientific Reports 12 (2022),
14851, told patients of ChestX-ray14 apart with an AUC of .994.
Letters in shapes: n films, q queries.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from lucency.combine.retrieve import NOBODY, ROWS, Index, build_index, pieces, search
from lucency.judge.intervals import Weights, interval, once, resample_patients
from lucency.judge.metrics import mean_over_films
from lucency.judge.ranked import auc
from lucency.predictions import Predictions

OVERALL = "overall"
COLUMNS = ("finding", "metric", "value", "low", "high", "random", "queries", "note")
FIRST, PAIRS = "same patient first", "same patient AUC"
WANT = "want of films of others that are labelled, or relevant"
Row = tuple[str, str, float, float, float, float, int, str]


def score_row(
    name: tuple[str, str],
    score: Float64[np.ndarray, " q"],
    mine: Bool[np.ndarray, " q"],
    chance: Float64[np.ndarray, " q"],
    weights: tuple[Weights, Weights],
) -> Row:
    """Return a row of COLUMNS: the mean score of the queries that are `mine`, with its interval.

    `name` is its finding and metric; `weights` are plain and resampled. Queries without a score
    (NaN) are left out of the score and of chance, and counted in the note.
    """
    counted = mine & ~np.isnan(score)
    asked, said = int(mine.sum()), int(counted.sum())
    value, chance = (np.where(counted, part, np.nan) for part in (score, chance))
    low, high = interval(mean_over_films(value, weights=weights[1]))
    plain, random = (mean_over_films(part, weights=weights[0])[0] for part in (value, chance))
    note = "not computable: no query carries it" if not asked else ""
    if said < asked:
        note = f"{'left out' if said else 'not computable'}: {asked - said:,} queries, for {WANT}"
    return (*name, float(plain), float(low), float(high), float(random), said, note)


def recognition_table(asked: Predictions, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how surely the features tell a patient's films from others', among these films.

    `same patient first`: the share of films whose nearest other film is of the same patient.
    `same patient AUC`: of the similarity of a film and another of its patient, above that of the
    film and one of somebody else, one pair of each kind drawn for every film. Both are of the films
    whose patient has several, whose patients are resampled.
    """
    index = build_index(asked.feature, image=asked.image, patient=asked.patient)
    _, owner, count = np.unique(index.patient, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((count[owner] > 1) & (count[owner] < len(index)))
    if not len(rows):
        lost = (np.nan,) * 3
        note = "not computable: expected a patient of several films, and films of others"
        none = [(OVERALL, FIRST, *lost, np.nan, 0, note), (OVERALL, PAIRS, *lost, 0.5, 0, note)]
        return pd.DataFrame(none, columns=list(COLUMNS))
    patient = index.patient[rows]
    weights = (once(len(rows)), resample_patients(patient, resamples=resamples, seed=seed))
    every = np.ones(len(rows), dtype=bool)
    same = (index.patient[_nearest_other(index, rows)] == patient).astype(np.float64)
    chance = (count[owner[rows]] - 1) / (len(index) - 1)
    score = score_row((OVERALL, FIRST), same, every, chance, weights)
    mate, stranger = draw_pairs(index.patient, rows, seed=seed)
    said = np.concatenate([_cosine(index, rows, mate), _cosine(index, rows, stranger)])
    kind = np.repeat([1.0, 0.0], len(rows))
    both = np.concatenate([patient, patient])
    plain = auc(kind, said, weights=once(len(both)))
    drawn = auc(kind, said, weights=resample_patients(both, resamples=resamples, seed=seed))
    low, high = interval(drawn)
    pairs = (OVERALL, PAIRS, float(plain[0]), float(low), float(high), 0.5, len(rows), "")
    return pd.DataFrame([score, pairs], columns=list(COLUMNS))


def privacy(table: pd.DataFrame) -> str:
    """Return in plain words what the rows of `recognition_table` mean for the patients."""
    first, pairs = (table[table["metric"] == metric].iloc[0].to_dict() for metric in (FIRST, PAIRS))
    if not first["queries"]:
        return f"Whether these features recognise people is {first['note']}."
    figures = (
        f"for {first['value']:.1%} of films the most similar other film is of the same patient "
        f"({first['random']:.1%} by chance), and a patient's own film is more similar than a "
        f"stranger's in {pairs['value']:.1%} of pairs (50 % by chance)"
    )
    if first["low"] <= first["random"] and pairs["low"] <= pairs["random"]:
        return f"These features do not surely recognise people: {figures}."
    return (
        f"These features recognise people: {figures}. Whoever has a film of a patient can find "
        "the patient's other films in an index: guard it as the films themselves, and leave the "
        "patient out when similar films are to speak of disease."
    )


def draw_pairs(
    patient: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " q"], *, seed: int
) -> tuple[Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]:
    """Return for each of `rows` another film of its patient, and one of somebody else, at random.

    Every row's patient must have another film, and must not have all of them.
    """
    order = np.argsort(patient, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    _, start, owner, count = np.unique(
        patient[order], return_index=True, return_inverse=True, return_counts=True
    )
    mine = owner[place[rows]]
    first, films = start[mine], count[mine]
    generator = np.random.default_rng(seed)
    step = 1 + generator.integers(films - 1)
    other = generator.integers(len(patient) - films)
    mate = first + (place[rows] - first + step) % films
    return order[mate], order[np.where(other < first, other, other + films)]


def _nearest_other(index: Index, rows: Int64[np.ndarray, " q"]) -> Int64[np.ndarray, " q"]:
    nobody = np.full(len(rows), NOBODY)
    row = search(index, index.direction[rows], patient=nobody, top=2).row
    return np.where(row[:, 0] == rows, row[:, 1], row[:, 0])


def _cosine(
    index: Index, one: Int64[np.ndarray, " q"], other: Int64[np.ndarray, " q"]
) -> Float64[np.ndarray, " q"]:
    several = [
        np.einsum("qd,qd->q", index.direction[one[some]], index.direction[other[some]])
        for some in pieces(len(one), ROWS)
    ]
    return np.concatenate(several).astype(np.float64)
