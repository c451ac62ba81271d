"""Retrieval metrics: precision, MAP and nDCG of a search for similar films, and re-identification.

Each metric stands beside the baseline of results drawn at random. Packhäuser et al., Scientific
Reports 12 (2022), 14851, re-identified patients of ChestX-ray14 with an AUC of .994;
`recognition_table` measures how surely given features do.

Letters in shapes: n films of the index, q queries, k findings, t results a query, s label sets,
g groups of queries of one label set and one patient of the index, c columns: overall, findings.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int8, Int64
from scipy import sparse

from lucency.core.predictions import Features
from lucency.ensemble import retrieval
from lucency.ensemble.retrieval import NOBODY, Found, Index, search
from lucency.evaluation.bootstrap import Weights, all_and_resampled, once, ratio
from lucency.evaluation.intervals import FEWEST, auc_interval, mean_interval, no_interval
from lucency.evaluation.metrics import auc, mean_over_films

OVERALL = "overall"
COLUMNS = ("finding", "metric", "value", "low", "high", "random", "queries", "note")
FIRST, PAIRS = "same patient first", "same patient AUC"
WITHOUT = "queries without labelled or relevant films of other patients"
TOP = 10  # results a query
UNSTATED = -1  # how a label that is not stated is written among label sets
PerQuery = Float64[np.ndarray, " q"]
PerColumn = Float64[np.ndarray, "q c"]


def similar_table(
    queries: Features,
    *,
    index: Index,
    label: Float32[np.ndarray, "n k"],
    resamples: int,
    seed: int,
    top: int = TOP,
) -> pd.DataFrame:
    """Return how good the search is: the rows of `retrieval_table`, and of `recognition_table`.

    `label` are the labels of the index. Whether features recognise patients is measured among the
    queries, since the index may hold none of theirs.
    """
    found = search(index, queries.feature, patient=queries.patient, top=top)
    draws = {"resamples": resamples, "seed": seed}
    table = retrieval_table(queries, index=index, label=label, found=found, **draws)
    return pd.concat([table, recognition_table(queries, **draws)], ignore_index=True)


def retrieval_table(
    queries: Features,
    *,
    index: Index,
    label: Float32[np.ndarray, "n k"],
    found: Found,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return precision, mean average precision and nDCG of the results, with 95 % intervals.

    Per finding, over the queries that carry it: `precision` is the share of results that do,
    `map` the sum over results that do of the precision down to them, divided by the most that
    could: the results or, if fewer, the films of others that carry it (Manning et al., Introduction
    to Information Retrieval, 2008, section 8.4, cut off at the results). Overall the same with a
    shared finding (or none at all, as the query), and `ndcg`: the gains by Jaccard relevance,
    discounted by log2 of the place and divided by the best that the index allows (Järvelin and
    Kekäläinen, ACM Transactions on Information Systems 20, 2002, 422-446). Results whose label is
    not stated are left out and the others close up (condensed lists: Sakai, SIGIR 2007, 71-78);
    queries without a result or a relevant film are left out, as the note says.
    `random` is what results drawn at random from the films of others in the index score on average.
    The queries' patients are resampled. Raises ValueError for labels of other films or findings.
    """
    retrieval.require_labels(label, films=len(index), findings=len(queries.findings))
    weights = all_and_resampled(queries.patient, resamples=resamples, seed=seed)
    top = found.row.shape[1]
    discount = 1 / np.log2(np.arange(2, top + 2))
    ideal, mean_gain, relevant_films, stated_films = _chances(queries, index, label, discount)
    there, result = (found.row >= 0)[..., None], label[found.row]
    gain = jaccard(queries.label[:, None], result)[..., None]
    relevant = np.where(there, np.concatenate([gain, result], axis=2), np.nan)
    ndcg = _ndcg(relevant[..., 0], ideal=ideal, discount=discount)
    evenly = np.where(np.arange(top) < stated_films[:, [0]], mean_gain[:, None], np.nan)
    random_ndcg = _ndcg(evenly, ideal=ideal, discount=discount)
    carries = np.column_stack([np.ones(len(queries), bool), queries.label == 1])
    rows = []
    for column, finding in enumerate((OVERALL, *queries.findings)):
        hit, stated = relevant[..., column] > 0, ~np.isnan(relevant[..., column])
        total, carry = stated_films[:, column], relevant_films[:, column]
        scores = {
            f"precision@{top}": (ratio(hit.sum(axis=1), stated.sum(axis=1)), ratio(carry, total)),
            f"map@{top}": (_average(hit, stated, carry), _chance_of_average(carry, total, top)),
        }
        if column == 0:
            scores[f"ndcg@{top}"] = (ndcg, random_ndcg)
        for metric, (score, chance) in scores.items():
            name = (finding, metric)
            rows.append(_score_row(name, score, carries[:, column], chance, weights))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def recognition_table(queries: Features, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how surely the features re-identify a patient among the queries.

    `same patient first`: the share of films whose nearest other film is of the same patient.
    `same patient AUC`: of the similarity of a film and another of its patient, above that of the
    film and one of another patient, one pair of each kind drawn for every film. Both are of the
    films whose patient has several, whose patients are resampled.
    """
    index = retrieval.build_index(queries)
    _, owner, count = np.unique(index.patient, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((count[owner] > 1) & (count[owner] < len(index)))
    if not len(rows):
        note = "not computable: expected a patient of several films, and films of others"
        chances = {FIRST: np.nan, PAIRS: 0.5}
        none = [(OVERALL, name, *[np.nan] * 3, by, 0, note) for name, by in chances.items()]
        return pd.DataFrame(none, columns=list(COLUMNS))
    patient = index.patient[rows]
    weights = all_and_resampled(patient, resamples=resamples, seed=seed)
    every = np.ones(len(rows), dtype=bool)
    nearest = search(index, index.direction[rows], patient=np.full(len(rows), NOBODY), top=2).row
    other = np.where(nearest[:, 0] == rows, nearest[:, 1], nearest[:, 0])
    same = (index.patient[other] == patient).astype(np.float64)
    chance = (count[owner[rows]] - 1) / (len(index) - 1)
    score = _score_row((OVERALL, FIRST), same, every, chance, weights)
    one, other = np.tile(rows, 2), np.concatenate(draw_pairs(index.patient, rows, seed=seed))
    cosines = [
        np.einsum(
            "qd,qd->q", *(index.direction[at[some]].astype(np.float32) for at in (one, other))
        )
        for some in retrieval.pieces(len(one), retrieval.ROWS)
    ]
    similarity = np.concatenate(cosines).astype(np.float64)
    kind = np.repeat([1.0, 0.0], len(rows))
    both = np.concatenate([patient, patient])
    area = float(auc(kind, similarity, weights=once(len(both)))[0])
    ends = auc_interval(kind, similarity, owner=both)
    note = no_interval(ends, patients=len(np.unique(both)), fewest=FEWEST)
    pairs = (OVERALL, PAIRS, area, *ends, 0.5, len(rows), note)
    return pd.DataFrame([score, pairs], columns=list(COLUMNS))


def conclude_recognition(table: pd.DataFrame) -> str:
    """Return sentences on re-identification by the features, from rows of `recognition_table`."""
    first, pairs = (table[table["metric"] == metric].iloc[0].to_dict() for metric in (FIRST, PAIRS))
    if not first["queries"]:
        return f"Patient re-identification is {first['note']}."
    figures = (
        f"Most similar other film of the same patient: {first['value']:.1%} of films "
        f"(chance {first['random']:.1%}). Same-patient AUC: {pairs['value']:.3f} (chance 0.500)."
    )
    if np.isnan([first["low"], pairs["low"]]).all():
        return f"Patient re-identification is not tested ({pairs['note']}). {figures}"
    if not (first["low"] > first["random"] or pairs["low"] > pairs["random"]):
        return f"Patient re-identification is not significantly above chance. {figures}"
    return (
        f"Patient re-identification is significantly above chance. {figures} An index of these "
        "features identifies patients: protect it like the films, and exclude the query's own "
        "patient where similar films are evidence of disease."
    )


def jaccard(
    label: Float32[np.ndarray, "*a k"], other: Float32[np.ndarray, "*b k"]
) -> Float64[np.ndarray, ...]:
    """Return shared findings over all findings of two films: their relevance to each other, 0 to 1.

    Findings that are not stated of both films are left out; NaN where that leaves none. Two films
    without any finding are wholly relevant. Jaccard, New Phytologist 11 (1912), 37-50.
    """
    stated = ~(np.isnan(label) | np.isnan(other))
    either = (((label == 1) | (other == 1)) & stated).sum(axis=-1)
    both = ((label == 1) & (other == 1)).sum(axis=-1)
    return np.where(stated.any(axis=-1) & (either == 0), 1.0, ratio(both, either))


def draw_pairs(
    patient: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " q"], *, seed: int
) -> tuple[Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]:
    """Return for each of `rows` another film of its patient, and one of another patient, at random.

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


def _score_row(
    name: tuple[str, str],
    score: PerQuery,
    mine: Bool[np.ndarray, " q"],
    chance: PerQuery,
    weights: Weights,
) -> tuple[str, str, float, float, float, float, int, str]:
    """Return a row of COLUMNS: the mean score of the queries that are `mine`, with its interval.

    `name` is its finding and metric; the first column of `weights` counts all once. Queries without
    a score (NaN) are left out of the score and of chance, and counted in the note.
    """
    counted = mine & ~np.isnan(score)
    queries, used = int(mine.sum()), int(counted.sum())
    value, chance = (np.where(counted, part, np.nan) for part in (score, chance))
    sampled, random = (mean_over_films(part, weights=weights) for part in (value, chance))
    people = len(np.unique(weights.owner[counted]))
    ends = mean_interval(sampled, patients=people)
    notes = [no_interval(ends, patients=people) if used else ""]
    if used < queries:
        notes += [f"{'left out' if used else 'not computable'}: {queries - used:,} {WITHOUT}"]
    elif not queries:
        notes += ["not computable: no query with this finding"]
    note = "; ".join(filter(None, notes))
    return (*name, float(sampled[0]), *ends, float(random[0]), used, note)


def _average(
    hit: Bool[np.ndarray, "q t"], stated: Bool[np.ndarray, "q t"], relevant: PerQuery
) -> PerQuery:
    """Return the sum over hits of the precision down to them, over the hits that could be.

    These are the stated results or the `relevant` films, whichever are fewer; NaN if there is none.
    """
    down = ratio(np.cumsum(hit, axis=1), np.cumsum(stated, axis=1))
    return ratio(np.where(hit, down, 0).sum(axis=1), np.minimum(stated.sum(axis=1), relevant))


def _ndcg(
    gain: Float64[np.ndarray, "q t"],
    *,
    ideal: Float64[np.ndarray, "q t"],
    discount: Float64[np.ndarray, " t"],
) -> PerQuery:
    """Return discounted gains over the `ideal` of as many results; those of no gain (NaN) close up.

    NaN for a query without results, or whose ideal is 0.
    """
    stated = ~np.isnan(gain)
    place = np.maximum(np.cumsum(stated, axis=1) - 1, 0)
    found = (np.nan_to_num(gain) * discount[place]).sum(axis=1)
    best = np.take_along_axis(ideal, place[:, -1:], axis=1)[:, 0]
    return ratio(found, np.where(stated.any(axis=1), best, 0))


def _chances(
    queries: Features,
    index: Index,
    label: Float32[np.ndarray, "n k"],
    discount: Float64[np.ndarray, " t"],
) -> tuple[Float64[np.ndarray, "q t"], PerQuery, PerColumn, PerColumn]:
    """Return what the index allows a query, without the films of its own patient.

    The best discounted gain of so many results, and the mean gain of a film; then how many films
    are relevant overall or carry each finding, and among how many this is stated.
    """
    sets, known = np.unique(_coded(label), axis=0, return_inverse=True)
    mine, place = np.unique(_coded(queries.label), axis=0, return_inverse=True)
    patients, owner = np.unique(index.patient, return_inverse=True)
    shape = (len(patients), len(sets))
    owned = sparse.csr_array((np.ones(len(index)), (owner, known.ravel())), shape=shape)
    everyone = np.bincount(known.ravel(), minlength=len(sets)).astype(np.float64)
    whose, what = (np.where(s == UNSTATED, np.nan, s).astype(np.float32) for s in (mine, sets))
    relevance = jaccard(whose[:, None], what[None])
    own = np.minimum(np.searchsorted(patients, queries.patient), len(patients) - 1)
    own = np.where(patients[own] == queries.patient, own, -1)
    groups, group = np.unique(np.stack([place.ravel(), own]), axis=1, return_inverse=True)
    found = []
    for which, patient in groups.T:
        count = everyone - owned[[patient]].toarray()[0] if patient >= 0 else everyone
        gain = np.nan_to_num(relevance[which])
        best = np.argsort(-gain, kind="stable")
        filled = np.repeat(gain[best], np.minimum(count[best], len(discount)).astype(np.int64))
        few = np.pad(filled[: len(discount)], (0, max(0, len(discount) - len(filled))))
        relevant = [count @ (gain > 0), *(count @ (sets == 1))]
        stated = [count @ ~np.isnan(relevance[which]), *(count @ (sets != UNSTATED))]
        found.append((np.cumsum(few * discount), gain @ count, relevant, stated))
    ideal, total, relevant, stated = (
        np.array(part)[group.ravel()] for part in zip(*found, strict=True)
    )
    return ideal, ratio(total, stated[:, 0]), relevant, stated


def _coded(label: Float32[np.ndarray, "n k"]) -> Int8[np.ndarray, "n k"]:
    return np.where(np.isnan(label), UNSTATED, label).astype(np.int8)


def _chance_of_average(relevant: PerQuery, total: PerQuery, top: int) -> PerQuery:
    """Return the expected average precision of results drawn at random, none of them twice.

    A place is a hit with probability `relevant` / `total`, and then each place above it with
    (`relevant` - 1) / (`total` - 1). NaN without relevant films.
    """
    place = np.arange(1, top + 1)
    above = np.nan_to_num(ratio(relevant - 1, total - 1))[:, None] * (place - 1)
    down = np.where(place <= total[:, None], (1 + above) / place, 0).sum(axis=1)
    return ratio(ratio(relevant, total) * down, np.minimum(relevant, top))
