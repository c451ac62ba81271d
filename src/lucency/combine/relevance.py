"""How good a search for similar films is: precision, nDCG and more, beside answers drawn at random.

Letters in shapes: n films of the index, q queries, k findings, t results a query, s label sets,
r resamples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64
from scipy.stats import binom

from lucency.judge.intervals import Weights, interval, once, ratio, resample_patients

OVERALL = "overall"
COLUMNS = ("finding", "metric", "value", "low", "high", "random", "queries")
Gain = Float64[np.ndarray, "q t"]
PerQuery = Float64[np.ndarray, " q"]


def jaccard(
    label: Float32[np.ndarray, "... k"], other: Float32[np.ndarray, "... k"]
) -> Float64[np.ndarray, " ..."]:
    """Return shared findings over all findings of two films: their relevance to each other, 0 to 1.

    Two films without any finding are wholly relevant to each other. A label that is not stated
    counts as absent. Jaccard, New Phytologist 11 (1912), 37-50.
    """
    mine, theirs = label == 1, other == 1
    either = (mine | theirs).sum(axis=-1)
    both = (mine & theirs).sum(axis=-1)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def retrieval_table(
    asked: Float32[np.ndarray, "q k"],
    found: Int64[np.ndarray, "q t"],
    known: Float32[np.ndarray, "n k"],
    *,
    findings: tuple[str, ...],
    patient: Int64[np.ndarray, " q"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return precision, mean average precision and nDCG of the answers, with 95 % intervals.

    `asked` and `known` are the labels of queries and index, `found` the rows of the answers, best
    first, -1 where there is none; `patient` is whose the queries are, who are resampled. Per
    finding: the share of answers that carry it, over the queries that do. Overall: `precision` is
    the share of answers with a shared finding (or none, as the query), `map` the mean over answers
    that are so of the precision down to them, `ndcg` the gains by Jaccard relevance, discounted by
    log2 of the place and divided by the best that the index allows (Järvelin and Kekäläinen, ACM
    Transactions on Information Systems 20, 2002, 422-446). `random` is what answers drawn at random
    from the index would score on average.
    """
    answers = np.where((found >= 0)[..., None], known[found], 0)
    weights = [once(len(asked)), resample_patients(patient, resamples=resamples, seed=seed)]
    share = (known == 1).mean(axis=0)
    rows = []
    for place, finding in enumerate(findings):
        mine = asked[:, place] == 1
        hits = (answers[..., place] == 1).mean(axis=1)
        rows.append((finding, "precision", *_mean(hits, mine, weights), share[place], mine.sum()))
    everyone = np.ones(len(asked), dtype=bool)
    for name, (score, chance) in _overall(asked, found, answers, known).items():
        value = _mean(score, everyone, weights)
        rows.append((OVERALL, name, *value, chance, len(asked)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def recognised(
    patient: Int64[np.ndarray, " q"], first: Int64[np.ndarray, " q"], known: Int64[np.ndarray, " n"]
) -> float:
    """Return how often the nearest other film is of the query's patient, where there is one.

    `first` are the rows of the nearest films when the patient is not left out, the query itself
    excepted. A high rate says that features recognise people: a warning about privacy, and about
    any search that does not leave the patient out. NaN where no query has another film.
    """
    others = pd.Series(known).value_counts()
    has_more = others.reindex(patient).fillna(0).to_numpy() > 1
    if not has_more.any():
        return float("nan")
    return float((known[first[has_more]] == patient[has_more]).mean())


def vote(
    known: Float32[np.ndarray, "n k"],
    found: Int64[np.ndarray, "q t"],
    similarity: Float32[np.ndarray, "q t"],
) -> Float64[np.ndarray, "q k"]:
    """Return the neighbours' vote: the share of positive labels, weighted by similarity.

    Labels that are not stated do not vote; half a positive and half a negative vote are added, so
    that no share is 0 or 1.
    """
    there = (found >= 0)[..., None] & ~np.isnan(known[found])
    said = np.clip(np.nan_to_num(similarity.astype(np.float64)), 0, None)
    weight = np.where(there, said[..., None], 0)
    positive = (weight * (known[found] == 1)).sum(axis=1)
    return (positive + 0.5) / (weight.sum(axis=1) + 1)


def _overall(
    asked: Float32[np.ndarray, "q k"],
    found: Int64[np.ndarray, "q t"],
    answers: Float32[np.ndarray, "q t k"],
    known: Float32[np.ndarray, "n k"],
) -> dict[str, tuple[PerQuery, float]]:
    """Return metric -> its value for every query, and its expectation under random answers."""
    gain = np.where(found >= 0, jaccard(asked[:, None], answers), 0)
    hit = gain > 0
    top = found.shape[1]
    discount = 1 / np.log2(np.arange(2, top + 2))
    ideal, mean_gain, mean_hit = _index_side(asked, known, discount)
    running = np.cumsum(hit, axis=1) / np.arange(1, top + 1)
    average = (running * hit).sum(axis=1) / np.maximum(hit.sum(axis=1), 1)
    by_chance = _chance_of_average(mean_hit, top)
    return {
        "precision": (hit.mean(axis=1), float(mean_hit.mean())),
        "map": (average, float(by_chance.mean())),
        "ndcg": (gain @ discount / ideal, float((mean_gain * discount.sum() / ideal).mean())),
    }


def _index_side(
    asked: Float32[np.ndarray, "q k"],
    known: Float32[np.ndarray, "n k"],
    discount: Float64[np.ndarray, " t"],
) -> tuple[PerQuery, PerQuery, PerQuery]:
    """Return the best possible gain of every query, its mean gain and share of relevant films."""
    sets, count = np.unique(known == 1, axis=0, return_counts=True)
    mine, place = np.unique(asked == 1, axis=0, return_inverse=True)
    relevance = jaccard(mine[:, None].astype(np.float32), sets[None].astype(np.float32))
    best = np.empty(len(mine))
    for row, gain in enumerate(relevance):
        order = np.argsort(-gain, kind="stable")
        filled = np.repeat(gain[order], np.minimum(count[order], len(discount)))[: len(discount)]
        best[row] = filled @ discount[: len(filled)]
    best = np.where(best > 0, best, 1)  # nothing relevant at all: every answer scores 0
    share = count / count.sum()
    place = place.ravel()
    return best[place], (relevance @ share)[place], ((relevance > 0) @ share)[place]


def _chance_of_average(chance: PerQuery, top: int) -> PerQuery:
    """Return the expected average precision of answers that are each relevant by `chance`.

    Given h hits among the answers, the i-th place is one of them with probability h / t, and then
    1 + (i - 1)(h - 1) / (t - 1) hits stand down to it on average.
    """
    places = np.arange(1, top + 1)
    expected = np.zeros(len(chance))
    for hits in range(1, top + 1):
        others = (places - 1) * (hits - 1) / max(1, top - 1)
        mean = float(((1 + others) / places).mean())
        expected += binom.pmf(hits, top, chance) * mean
    return expected


def _mean(score: PerQuery, mine: np.ndarray, weights: list[Weights]) -> tuple[float, float, float]:
    """Return the mean over some queries, and its interval over resampled patients."""
    terms = np.stack([np.where(mine, score, 0), mine.astype(np.float64)])
    plain, drawn = (ratio(*weight.total(terms)) for weight in weights)
    low, high = interval(drawn)
    return float(plain[0]), float(low), float(high)
