"""Label errors: which labels are likely wrong, and how well such a ranking finds them.

A network must not have trained on the films whose labels it checks, or it has learnt their errors.
A label of 0 may be missing a finding, a label of 1 may be spurious: a ranking for each. Evidence
against a label is a number from 0 to 1, NaN where there is none.

How many labels are wrong no ranking says. From labels and scores alone, classes that overlap look
like label noise: rates are identified only where some films are certain to be of their class
(Scott, Blanchard and Handy, COLT 2013; Menon, van Rooyen, Ong and Williamson, ICML 2015), or where
people review films (audit.review).

Letters in shapes: n films, k findings, k1 one more for their mean, d feature dimensions, f folds,
c neighbours, r resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.stats import rankdata

from lucency.core.neighbours import CELLS, nearest_films
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import all_and_resampled, ratio, with_macro
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.intervals import auc_intervals
from lucency.evaluation.metrics import by_finding, counts_above

NEIGHBOURS = 10
ROUNDING = 1e-6  # of a probability: two that differ by less are equal
LEAST = 1e-4  # of a probability, whose odds are then at most 9,999
SHARES = (0.05, 0.1, 0.2, 0.5)  # of the films to review
DIRECTIONS = {"missing": 0, "spurious": 1}  # what is wrong with a label, and the label
LABEL_ERRORS = ("finding", "direction", "place", "image", "patient", "mean_rank", "reason")
NOISE = ("finding", "direction", "films", "counted", "note")
OVERLAP = "classes that overlap count as noise"
DETECTED = ("finding", "direction", "auc", "low", "high", "films", "wrong")
REVIEW = ("budget", "found", "precision", "recall", "chance", "note")
Label = Float[np.ndarray, "n k"]  # 1, 0 or NaN
Probability = Float[np.ndarray, "n k"]
Evidence = Float64[np.ndarray, "n k"]
Column = Float[np.ndarray, " n"]
Feature = Float32[np.ndarray, "n d"]
Rows = Int64[np.ndarray, " m"]
Joint = Float64[np.ndarray, "k 2 2"]


class Neighbours(NamedTuple):
    """The nearest films of other patients, -1 where there are no more, and their distances."""

    film: Int64[np.ndarray, "n c"]
    distance: Float64[np.ndarray, "n c"]


def find_label_errors(
    predictions: Predictions, evidence: Mapping[str, Evidence], *, top: int
) -> pd.DataFrame:
    """Return the `top` most likely label errors of every finding and direction, with the reasons.

    All of the `evidence` (of `gather_evidence`) counts alike, in `mean_rank`, which compares films
    labelled alike; how deep a list is worth reading, only a review of its first films tells.
    """
    rank = mean_rank(predictions.label, tuple(evidence.values()))
    rows = []
    for k, finding, direction, films in _lists(predictions):
        first = films[np.argsort(-rank[films, k], kind="stable")][:top]
        for place, film in enumerate(first.tolist(), start=1):
            about = (predictions.image[film], predictions.patient[film], rank[film, k])
            against = {name: one[film, k] for name, one in evidence.items()}
            reason = [f"{name} {x:.0%} against" for name, x in against.items() if not np.isnan(x)]
            rows.append((finding, direction, place, *about, ", ".join(reason)))
    return pd.DataFrame(rows, columns=list(LABEL_ERRORS))


def gather_evidence(
    predictions: Predictions, *, folds: Float[np.ndarray, "f n k"], near: Neighbours
) -> dict[str, Evidence]:
    """Return the evidence against each label by its source.

    That is the network's probability, the neighbours `near` (of `nearest_others`; none where c is
    0), and the folds' probabilities (none where f is 0; NaN where a fold trained on the film).
    Raises ValueError for training films, and for folds of other films or findings.
    """
    label = predictions.label
    if trained := int((predictions.part == "train").sum()):
        raise ValueError(
            f"{trained:,} films trained the network, which has learnt their errors; expected films "
            'it has not seen: take predictions.of("test"), or predict each from the other folds'
        )
    if folds.shape[1:] != label.shape:
        raise ValueError(
            f"folds are of films x findings {folds.shape[1:]}, expected {label.shape}: give "
            "probabilities in the order of the predictions, or an empty array of 0 folds"
        )
    evidence = {"network": contradiction(label, predictions.probability)}
    if near.film.shape[1]:
        evidence["neighbours"] = contradiction(label, vote_near(label, near))
    if len(folds):
        evidence["folds"] = contradicting_folds(label, folds)
    return evidence


def contradiction(label: Label, probability: Probability) -> Evidence:
    """Return 1 - self-confidence, the probability that the label is not what is given.

    With two classes it ranks as the normalised margin does, p of the other less p of the given.
    Northcutt, Jiang and Chuang, Journal of Artificial Intelligence Research 70 (2021), 1373-1411.
    """
    return np.abs(label.astype(np.float64) - probability)


def confident_classes(label: Label, probability: Probability) -> Label:
    """Return the class of which each film is confidently predicted to be: 1, 0, or NaN (neither).

    A class is confident where its probability reaches its mean over films labelled so; of both the
    likelier. Northcutt, Jiang and Chuang (2021), equation 1. NaN for a finding with one class only.
    """
    negative, positive = label == 0, label == 1
    absent = 1 - probability >= _mean_of(negative, 1 - probability) - ROUNDING
    present = probability >= _mean_of(positive, probability) - ROUNDING
    likelier = np.where(absent & present, probability > 0.5, present)
    both = negative.any(axis=0) & positive.any(axis=0)
    return np.where((absent | present) & (negative | positive) & both, likelier, np.nan)


def joint_counts(label: Label, probability: Probability) -> Joint:
    """Return how many films given as i (rows) are likely j (columns), by finding.

    The confident joint of Northcutt, Jiang and Chuang (2021), its rows scaled to the films labelled
    so. NaN for a row without a confident film.
    """
    confident = confident_classes(label, probability)
    given, true = (np.stack([one == 0, one == 1]) for one in (label, confident))
    joint = np.einsum("ink,jnk->kij", given.astype(np.float64), true.astype(np.float64))
    films = given.sum(axis=1).T.astype(np.float64)
    return joint * ratio(films, joint.sum(axis=2))[..., None]


def noise_counts(predictions: Predictions, joint: Joint) -> pd.DataFrame:
    """Return how many labels of each finding and direction `joint_counts` takes for wrong.

    It supposes that classes hardly overlap in the network's scores (Northcutt, Jiang and Chuang
    2021, section 4). Where they do, right labels are `counted` too: of 20,000 right labels at a
    prevalence of .05 and an AUC of .8, some 1,600 as missing. Columns NOISE.
    """
    rows = []
    for k, finding, direction, films in _lists(predictions):
        given = DIRECTIONS[direction]
        counted = float(joint[k, given, 1 - given])
        unknown = counted != counted
        note = f"not computable: no confident film of label {given}" if unknown else OVERLAP
        rows.append((finding, direction, len(films), counted, note))
    return pd.DataFrame(rows, columns=list(NOISE))


def nearest_others(feature: Feature, *, patient: Int64[np.ndarray, " n"]) -> Neighbours:
    """Return the NEIGHBOURS nearest films of other patients, by Euclidean distance.

    Exact. No neighbours (c is 0) where there are no features (d is 0). Raises ValueError for
    features that are not finite.
    """
    near = np.full((len(feature), NEIGHBOURS if feature.shape[1] else 0), -1)
    everyone, count = np.arange(len(feature)), 2 * NEIGHBOURS
    query = everyone if near.size else everyone[:0]
    while len(query):
        found = nearest_films(feature, query=query, among=everyone, count=count)
        other = patient[found] != patient[query][:, None]
        first = np.argsort(~other, axis=1, kind="stable")[:, :NEIGHBOURS]
        known, others = (np.take_along_axis(one, first, axis=1) for one in (found, other))
        near[query, : first.shape[1]] = np.where(others, known, -1)
        crowded = other.sum(axis=1) < NEIGHBOURS  # by films of the patient
        query = query[crowded & (count < len(feature) - 1)]
        count *= 4
    return Neighbours(near, _distances(feature, near))


def vote_near(label: Label, near: Neighbours) -> Probability:
    """Return the share of neighbours labelled 1, weighted by 1 / distance; NaN where none is known.

    Where a neighbour is at distance 0, only such count, as with scikit-learn's weights="distance".
    """
    distance = near.distance
    touching = (distance == 0).any(axis=1, keepdims=True)
    weight = np.where(touching, distance == 0, 1 / np.where(distance > 0, distance, np.inf))
    positive, total = np.zeros(label.shape), np.zeros(label.shape)
    for film, heavy in zip(near.film.T, weight.T, strict=True):
        theirs = label[film]
        stated = ~np.isnan(theirs) & (film >= 0)[:, None]
        positive += heavy[:, None] * (stated & (theirs == 1))
        total += heavy[:, None] * stated
    return ratio(positive, total)


def contradicting_folds(label: Label, folds: Float[np.ndarray, "f n k"]) -> Evidence:
    """Return the share of a film's folds that confidently predict the other class.

    Each fold has confident thresholds of its own. NaN where no fold has a probability.
    """
    against, total = np.zeros(label.shape), np.zeros(label.shape)
    for probability in folds:
        stated = ~np.isnan(probability) & ~np.isnan(label)
        given = np.where(stated, label, np.nan)
        against += confident_classes(given, probability) == 1 - given
        total += stated
    return ratio(against, total)


def mean_rank(label: Label, evidence: Sequence[Evidence]) -> Evidence:
    """Return the mean of the ranks by each evidence among films labelled alike, 0 to 1.

    The likeliest label errors are near 1; ties share a rank. Evidence that is NaN for a film does
    not count there; NaN where there is none.
    """
    total, count = np.zeros(label.shape), np.zeros(label.shape)
    for against in evidence:
        for given in DIRECTIONS.values():
            alike = np.where(label == given, against, np.nan)
            rank = rankdata(alike, axis=0, nan_policy="omit")
            known = ~np.isnan(rank)
            total += np.where(known, (rank - 0.5) / np.maximum(1, known.sum(axis=0)), 0)
            count += known
    return ratio(total, count)


def error_score(label: Label, probability: Probability, joint: Joint) -> Evidence:
    """Return a score that ranks labels across findings and directions; NaN where none is stated.

    It is the odds against the label, p / (1 - p) for a label of 0 and (1 - p) / p for one of 1,
    times how often `joint` (of `joint_counts`) counts such errors: of films counted as 1 the share
    labelled 0, and of those counted as 0 the share labelled 1. `probability` is that of the label
    1, recalibrated. Higher is more suspicious, 0 or more; it is no probability, for what `joint`
    counts is no rate of errors. It is the limit for rare errors of Bayes' rule with noise by class
    (Natarajan, Dhillon, Ravikumar and Tewari, NeurIPS 2013), to which only the proportions of the
    counts matter.
    """
    missed = np.nan_to_num(ratio(joint[:, 0, 1], joint[:, 0, 1] + joint[:, 1, 1]))
    spurious = np.nan_to_num(ratio(joint[:, 1, 0], joint[:, 1, 0] + joint[:, 0, 0]))
    present = np.clip(probability, LEAST, 1 - LEAST)
    odds = present / (1 - present)
    return np.where(np.isnan(label), np.nan, np.where(label == 1, spurious / odds, missed * odds))


def first_label_errors(predictions: Predictions, score: Evidence, *, top: int) -> pd.DataFrame:
    """Return the `top` labels of the highest `error_score`, whatever finding and direction."""
    order = np.argsort(-np.nan_to_num(score, nan=-1).ravel(), kind="stable")[:top]
    film, k = np.unravel_index(order, score.shape)
    directions = {given: name for name, given in DIRECTIONS.items()}
    columns = {
        "place": np.arange(1, len(order) + 1),
        "finding": np.array(predictions.findings)[k],
        "direction": [directions[int(one)] for one in np.nan_to_num(predictions.label[film, k])],
        "image": predictions.image[film],
        "patient": predictions.patient[film],
        "score": score[film, k],
    }
    return pd.DataFrame(columns).dropna(subset=["score"])


def films_with_label_errors(predictions: Predictions, score: Evidence, *, top: int) -> pd.DataFrame:
    """Return the `top` films of the highest `film_score` of `error_score`."""
    total = film_score(score)
    order = np.argsort(-total, kind="stable")[:top]
    findings = np.array(predictions.findings)
    columns = {
        "place": np.arange(1, len(order) + 1),
        "image": predictions.image[order],
        "patient": predictions.patient[order],
        "score": total[order],
        "labels": [", ".join(findings[row == 1]) for row in predictions.label[order]],
    }
    return pd.DataFrame(columns)


def film_score(score: Evidence) -> Float64[np.ndarray, " n"]:
    """Return a score that ranks films by all their labels: the sum of their `error_score`.

    0 or more, and 0 for a film without a label. Like the score it is no probability.
    """
    return np.nan_to_num(score).sum(axis=1)


def review_curve(evidence: Column, truth: Column, *, budgets: Sequence[int]) -> pd.DataFrame:
    """Return how many wrong labels a review in order of the evidence finds, by its budget.

    `truth` is 1 where a label is wrong, 0 where it is right; films where either is NaN are left
    out. Among films of equal evidence the expected number counts. `chance` is the precision of a
    review at random.
    """
    known = np.where(np.isnan(evidence), np.nan, truth)
    _, wrong, right = counts_above(known, evidence)
    reviewed, met = (np.append(0.0, one) for one in (wrong + right, wrong))
    rows = []
    for budget in budgets:
        if not 0 < budget <= reviewed[-1]:
            note = f"not computable: {reviewed[-1]:.0f} films to review, 1 to as many expected"
            rows.append((budget, *[np.nan] * 4, note))
            continue
        found = float(np.interp(budget, reviewed, met))
        recall = found / met[-1] if met[-1] else np.nan
        note = "" if met[-1] else "no recall: 0 labels are wrong"
        rows.append((budget, found, found / budget, recall, met[-1] / reviewed[-1], note))
    return pd.DataFrame(rows, columns=list(REVIEW))


def review_table(evidence: Evidence, predictions: Predictions, truth: Label) -> pd.DataFrame:
    """Return `review_curve` of every finding and direction, at SHARES of the films labelled so."""
    tables = []
    for k, finding, direction, labelled in _lists(predictions):
        films = labelled[~np.isnan(truth[labelled, k])]
        wrong = (truth[films, k] != predictions.label[films, k]).astype(np.float64)
        budgets = sorted({int(np.ceil(share * len(films))) for share in SHARES})
        curve = review_curve(evidence[films, k], wrong, budgets=budgets)
        tables.append(curve.assign(finding=finding, direction=direction))
    return pd.concat(tables, ignore_index=True).loc[:, ["finding", "direction", *REVIEW]]


def detection(
    evidence: Evidence, predictions: Predictions, truth: Label, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return the AUC of evidence for "the label is wrong", by finding and macro, and direction.

    Labels are wrong where `truth` (1, 0, or NaN for not known) differs; only films labelled alike
    are compared, for labels of 1 are wrong more often than those of 0, so that any evidence
    separates the two. NaN where no label, or every one, is wrong. 95 % intervals over patients;
    none where the wrong, or the right, are of fewer than FEWEST patients (evaluation.intervals).
    """
    films = np.flatnonzero(~np.isnan(truth + predictions.label).all(axis=1))
    label, truth, evidence = (one[films] for one in (predictions.label, truth, evidence))
    patient = predictions.patient[films]
    weights = all_and_resampled(patient, resamples=resamples, seed=seed)
    tables = []
    for direction, given in DIRECTIONS.items():
        known = (label == given) & ~np.isnan(truth)
        wrong = np.where(known, truth != label, np.nan).astype(np.float32)
        area = with_macro(by_finding("auc", wrong, evidence, weights=weights))
        value = area[:, 0]
        low, high = auc_intervals(wrong, evidence, area=area[:-1], owner=patient)
        count = [np.append(each, each.sum()) for each in (known.sum(0), (wrong == 1).sum(0))]
        columns = ([*predictions.findings, MACRO], direction, value, low, high, *count)
        tables.append(pd.DataFrame(dict(zip(DETECTED, columns, strict=True))))
    return pd.concat(tables, ignore_index=True)


def _lists(predictions: Predictions) -> Iterator[tuple[int, str, str, Rows]]:
    """Yield the place of each finding, its name, each direction, and the films labelled so."""
    for k, finding in enumerate(predictions.findings):
        for direction, given in DIRECTIONS.items():
            yield k, finding, direction, np.flatnonzero(predictions.label[:, k] == given)


def _mean_of(films: Bool[np.ndarray, "n k"], value: Probability) -> Float64[np.ndarray, " k"]:
    total = np.where(films, value, 0).sum(axis=0, dtype=np.float64)
    return ratio(total, films.sum(axis=0, dtype=np.float64))


def _distances(feature: Feature, near: Int64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
    distance = np.empty(near.shape)
    step = max(1, CELLS // max(1, near.shape[1] * feature.shape[1]))
    for start in range(0, len(near), step):
        rows = slice(start, start + step)
        apart = feature[near[rows]] - feature[rows][:, None]
        distance[rows] = np.sqrt(np.square(apart).sum(axis=2, dtype=np.float64))
    return np.where(near >= 0, distance, np.nan)
