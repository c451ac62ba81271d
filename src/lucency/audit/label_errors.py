"""Which labels are likely wrong: ranked for review by what a network, its folds and neighbours say.

A network must not have trained on the films it judges, or it has learnt their errors. A label of 0
may be missing a finding, a label of 1 may be spurious: a list for each. Letters in shapes: n films,
k findings, d feature dimensions, f folds, c neighbours.

How likely each label is wrong, comparable between findings: which to review first of all.

Letters in shapes: n films, k findings.

How well a suspicion finds wrong labels: by the budget of a review, and by AUC.

Letters in shapes: n films, k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.stats import rankdata

from lucency.core.neighbours import CELLS, nearest_films
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import (
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.metrics import auc, counts_above, ratio

NEIGHBOURS = 10
ROUNDING = 1e-6  # of a probability: two that differ by less are equal
DIRECTIONS = {"missing": 0, "spurious": 1}  # what is wrong with a label, and the label
LABEL_ERRORS = ("finding", "direction", "place", "image", "patient", "suspicion", "reason")
NOISE = ("finding", "direction", "films", "expected", "share", "note")
Label = Float[np.ndarray, "n k"]  # 1, 0 or NaN
Probability = Float[np.ndarray, "n k"]
Suspicion = Float64[np.ndarray, "n k"]


def find_label_errors(
    predictions: Predictions, *, folds: Float[np.ndarray, "f n k"], top: int
) -> pd.DataFrame:
    """Return the `top` most suspect labels of every finding and direction, with the reasons.

    All that is there counts alike, in `combine_ranks`: the network's probability, its features'
    neighbours (where d is not 0), and the folds' probabilities (where f is not 0; NaN where a fold
    trained on the film). `suspicion` compares films labelled alike, not findings or directions; how
    deep a list is worth reading `expected_noise` says. Raises ValueError for training films, and
    for folds of other films or findings.
    """
    evidence = gather_evidence(predictions, folds=folds)
    suspicion = combine_ranks(predictions.label, tuple(evidence.values()))
    rows = []
    for k, finding in enumerate(predictions.findings):
        for direction, given in DIRECTIONS.items():
            films = np.flatnonzero(predictions.label[:, k] == given)
            first = films[np.argsort(-suspicion[films, k], kind="stable")][:top]
            for place, film in enumerate(first.tolist(), start=1):
                about = (predictions.image[film], predictions.patient[film], suspicion[film, k])
                rows.append((finding, direction, place, *about, _reason(evidence, film, k)))
    return pd.DataFrame(rows, columns=list(LABEL_ERRORS))


def gather_evidence(
    predictions: Predictions, *, folds: Float[np.ndarray, "f n k"]
) -> dict[str, Suspicion]:
    """Return what speaks against each label, 0 to 1, NaN for nothing; raises as
    `find_label_errors`."""
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
    evidence = {"network": doubt(label, predictions.probability)}
    if predictions.feature.shape[1]:
        near, distance = nearest_others(predictions.feature, patient=predictions.patient)
        evidence["neighbours"] = doubt(label, vote_near(label, near, distance))
    if len(folds):
        evidence["folds"] = contradicting_folds(label, folds)
    return evidence


def doubt(label: Label, probability: Probability) -> Suspicion:
    """Return 1 - self-confidence, the probability that the label is not what is given.

    With two classes it ranks as the normalised margin does, p of the other less p of the given.
    Northcutt, Jiang and Chuang, Journal of Artificial Intelligence Research 70 (2021), 1373-1411.
    """
    return np.abs(label.astype(np.float64) - probability)


def confident_verdicts(label: Label, probability: Probability) -> Float64[np.ndarray, "n k"]:
    """Return what each film is confidently taken for: 1, 0, or NaN (neither).

    A class is confident where its probability reaches its mean over films labelled so; of both the
    likelier. Northcutt, Jiang and Chuang (2021), equation 1. NaN for a finding with one class only.
    """
    negative, positive = label == 0, label == 1
    absent = 1 - probability >= _mean_of(negative, 1 - probability) - ROUNDING
    present = probability >= _mean_of(positive, probability) - ROUNDING
    likelier = np.where(absent & present, probability > 0.5, present)
    both = negative.any(axis=0) & positive.any(axis=0)
    return np.where((absent | present) & (negative | positive) & both, likelier, np.nan)


def joint_counts(label: Label, probability: Probability) -> Float64[np.ndarray, "k 2 2"]:
    """Return how many films given as i (rows) are likely j (columns), by finding.

    The confident joint of Northcutt, Jiang and Chuang (2021), its rows scaled to the films labelled
    so. NaN for a row without a confident film.
    """
    verdict = confident_verdicts(label, probability)
    given, true = (np.stack([one == 0, one == 1]) for one in (label, verdict))
    joint = np.einsum("ink,jnk->kij", given.astype(np.float64), true.astype(np.float64))
    films = given.sum(axis=1).T.astype(np.float64)
    return joint * _share(films, joint.sum(axis=2))[..., None]


def expected_noise(predictions: Predictions) -> pd.DataFrame:
    """Return how many labels of each finding and direction are likely wrong, by `joint_counts`.

    It supposes that the network's ranking is good; one that is unsure says too many.
    """
    joint = joint_counts(predictions.label, predictions.probability)
    rows = []
    for k, finding in enumerate(predictions.findings):
        for direction, given in DIRECTIONS.items():
            films = int((predictions.label[:, k] == given).sum())
            wrong = float(joint[k, given, 1 - given])
            note = f"not computable: no confident film of label {given}" if wrong != wrong else ""
            rows.append((finding, direction, films, wrong, wrong / max(1, films), note))
    return pd.DataFrame(rows, columns=list(NOISE))


def nearest_others(
    feature: Float32[np.ndarray, "n d"], *, patient: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, "n c"], Float64[np.ndarray, "n c"]]:
    """Return the NEIGHBOURS nearest films of other patients, and their Euclidean distances.

    Exact. A row of -1 at distance NaN stands where there are no more. Raises ValueError for
    features that are not finite.
    """
    near = np.full((len(feature), NEIGHBOURS), -1)
    everyone, asked, count = np.arange(len(feature)), np.arange(len(feature)), 2 * NEIGHBOURS
    while len(asked):
        found = nearest_films(feature, query=asked, among=everyone, count=count)
        other = patient[found] != patient[asked][:, None]
        first = np.argsort(~other, axis=1, kind="stable")[:, :NEIGHBOURS]
        known, others = (np.take_along_axis(one, first, axis=1) for one in (found, other))
        near[asked, : first.shape[1]] = np.where(others, known, -1)
        crowded = other.sum(axis=1) < NEIGHBOURS  # by films of the patient
        asked = asked[crowded & (count < len(feature) - 1)]
        count *= 4
    return near, _distances(feature, near)


def vote_near(
    label: Label, near: Int64[np.ndarray, "n c"], distance: Float64[np.ndarray, "n c"]
) -> Float64[np.ndarray, "n k"]:
    """Return the share of neighbours labelled 1, weighted by 1 / distance; NaN where none is known.

    Where a neighbour is at distance 0, only such count, as with scikit-learn's weights="distance".
    """
    touching = (distance == 0).any(axis=1, keepdims=True)
    weight = np.where(touching, distance == 0, 1 / np.where(distance > 0, distance, np.inf))
    yes, all_said = np.zeros(label.shape), np.zeros(label.shape)
    for film, heavy in zip(near.T, weight.T, strict=True):
        said = label[film]
        stated = ~np.isnan(said) & (film >= 0)[:, None]
        yes += heavy[:, None] * (stated & (said == 1))
        all_said += heavy[:, None] * stated
    return _share(yes, all_said)


def contradicting_folds(label: Label, folds: Float[np.ndarray, "f n k"]) -> Suspicion:
    """Return the share of a film's folds that confidently take it for the other class.

    Each fold has confident thresholds of its own. NaN where no fold has a probability.
    """
    against, asked = np.zeros(label.shape), np.zeros(label.shape)
    for probability in folds:
        stated = ~np.isnan(probability) & ~np.isnan(label)
        given = np.where(stated, label, np.nan)
        against += confident_verdicts(given, probability) == 1 - given
        asked += stated
    return _share(against, asked)


def combine_ranks(label: Label, evidence: Sequence[Suspicion]) -> Suspicion:
    """Return the mean of the ranks by each evidence among films labelled alike, 0 to 1.

    The most suspect are near 1; ties share a rank. Evidence that is NaN for a film does not count
    there; NaN where there is none.
    """
    total, count = np.zeros(label.shape), np.zeros(label.shape)
    for against in evidence:
        for given in DIRECTIONS.values():
            for k in range(label.shape[1]):
                films = np.flatnonzero((label[:, k] == given) & ~np.isnan(against[:, k]))
                total[films, k] += (rankdata(against[films, k]) - 0.5) / max(1, len(films))
                count[films, k] += 1
    return _share(total, count)


def _mean_of(films: Bool[np.ndarray, "n k"], value: Probability) -> Float64[np.ndarray, " k"]:
    total = np.where(films, value, 0).sum(axis=0, dtype=np.float64)
    return ratio(total, films.sum(axis=0, dtype=np.float64))


def _share(part: Float64[np.ndarray, "*s"], whole: Float64[np.ndarray, "*s"]) -> np.ndarray:
    return ratio(part.ravel(), whole.ravel()).reshape(part.shape)


def _distances(
    feature: Float32[np.ndarray, "n d"], near: Int64[np.ndarray, "n c"]
) -> Float64[np.ndarray, "n c"]:
    distance = np.empty(near.shape)
    step = max(1, CELLS // (near.shape[1] * feature.shape[1]))
    for start in range(0, len(near), step):
        rows = slice(start, start + step)
        apart = feature[near[rows]] - feature[rows][:, None]
        distance[rows] = np.sqrt(np.square(apart).sum(axis=2, dtype=np.float64))
    return np.where(near >= 0, distance, np.nan)


def _reason(evidence: Mapping[str, Suspicion], film: int, finding: int) -> str:
    against = {name: float(one[film, finding]) for name, one in evidence.items()}
    return ", ".join(f"{name} {x:.0%} against" for name, x in against.items() if not np.isnan(x))


SHARE = 0.5  # of the noise that joint counts say: an unsure network makes them say too much
LEAST = 1e-4  # of a probability
FIRST = ("place", "finding", "direction", "image", "patient", "chance")
FILMS = ("place", "image", "patient", "chance", "labels")


def chance_wrong(
    label: Float[np.ndarray, "n k"], probability: Float[np.ndarray, "n k"]
) -> Float64[np.ndarray, "n k"]:
    """Return the probability that each label is wrong, by Bayes' rule; NaN where none is stated.

    `probability` is that of the label 1, recalibrated. A true 1 is labelled 0 with probability a, a
    true 0 is labelled 1 with b, whatever the film (noise by class: Natarajan et al., NeurIPS 2013);
    both are half of what `joint_counts` gives. So the chance of a true 1 is q = (p - b) / (1 - a -
    b), and a label of 1 is wrong with b (1 - q) / ((1 - a) q + b (1 - q)); of 0 likewise. The half
    is ours: on invented films with planted errors the whole says far too much.
    """
    joint = joint_counts(label, probability)
    missed = SHARE * np.nan_to_num(ratio(joint[:, 0, 1], joint[:, 0, 1] + joint[:, 1, 1]))
    spurious = SHARE * np.nan_to_num(ratio(joint[:, 1, 0], joint[:, 1, 0] + joint[:, 0, 0]))
    room = np.maximum(1 - missed - spurious, LEAST)
    present = ((probability - spurious) / room).clip(LEAST, 1 - LEAST)
    absent = 1 - present
    positive = spurious * absent / ((1 - missed) * present + spurious * absent)
    negative = missed * present / ((1 - spurious) * absent + missed * present)
    return np.where(np.isnan(label), np.nan, np.where(label == 1, positive, negative))


def first_label_errors(said: Predictions, *, top: int) -> pd.DataFrame:
    """Return the `top` labels of all that are most likely wrong, whatever finding and direction."""
    chance = chance_wrong(said.label, said.probability)
    order = np.argsort(-np.nan_to_num(chance, nan=-1).ravel(), kind="stable")[:top]
    film, k = np.unravel_index(order, chance.shape)
    directions = {given: name for name, given in DIRECTIONS.items()}
    columns = (
        np.arange(1, len(order) + 1),
        np.array(said.findings)[k],
        [directions[int(one)] for one in np.nan_to_num(said.label[film, k])],
        said.image[film],
        said.patient[film],
        chance[film, k],
    )
    return pd.DataFrame(dict(zip(FIRST, columns, strict=True))).dropna(subset=["chance"])


def films_with_label_errors(said: Predictions, *, top: int) -> pd.DataFrame:
    """Return the `top` films most likely to have any wrong label, labels taken as independent."""
    chance = np.nan_to_num(chance_wrong(said.label, said.probability))
    either = 1 - np.prod(1 - chance, axis=1)
    order = np.argsort(-either, kind="stable")[:top]
    named = [
        ", ".join(name for name, one in zip(said.findings, row, strict=True) if one == 1)
        for row in said.label[order]
    ]
    place = np.arange(1, len(order) + 1)
    columns = (place, said.image[order], said.patient[order], either[order], named)
    return pd.DataFrame(dict(zip(FILMS, columns, strict=True)))


REVIEW = ("budget", "found", "precision", "recall", "chance", "note")
DETECTED = ("finding", "direction", "auc", "low", "high", "films", "wrong")
SHARES = (0.05, 0.1, 0.2, 0.5)
Of = Float[np.ndarray, " n"]  # one finding


def review_curve(suspicion: Of, truth: Of, *, budgets: Sequence[int]) -> pd.DataFrame:
    """Return how many wrong labels a review of the most suspect films finds, by its budget.

    `truth` is 1 where a label is wrong, 0 where it is right; films where either is NaN are left
    out. Among equally suspect films the expected number counts. `chance` is the precision of a
    review at random.
    """
    known = np.where(np.isnan(suspicion), np.nan, truth)
    _, wrong, right = counts_above(known, suspicion)
    seen, met = (np.append(0.0, one) for one in (wrong + right, wrong))
    rows = []
    for budget in budgets:
        if not 0 < budget <= seen[-1]:
            note = f"not computable: {seen[-1]:.0f} films to review, 1 to as many expected"
            rows.append((budget, *[np.nan] * 4, note))
            continue
        found = float(np.interp(budget, seen, met))
        recall = found / met[-1] if met[-1] else np.nan
        note = "" if met[-1] else "no recall: 0 labels are wrong"
        rows.append((budget, found, found / budget, recall, met[-1] / seen[-1], note))
    return pd.DataFrame(rows, columns=list(REVIEW))


def review_table(
    suspicion: Float[np.ndarray, "n k"],
    label: Float[np.ndarray, "n k"],
    truth: Float[np.ndarray, "n k"],
    *,
    findings: Sequence[str],
) -> pd.DataFrame:
    """Return `review_curve` of every finding and direction, at SHARES of the films labelled so."""
    tables = []
    for k, finding in enumerate(findings):
        for direction, given in DIRECTIONS.items():
            films = (label[:, k] == given) & ~np.isnan(truth[:, k])
            wrong = (truth[films, k] != given).astype(np.float64)
            budgets = sorted({int(np.ceil(share * films.sum())) for share in SHARES})
            curve = review_curve(suspicion[films, k], wrong, budgets=budgets)
            tables.append(curve.assign(finding=finding, direction=direction))
    return pd.concat(tables, ignore_index=True).loc[:, ["finding", "direction", *REVIEW]]


def detection(
    suspicion: Float[np.ndarray, "n k"],
    label: Float[np.ndarray, "n k"],
    truth: Float[np.ndarray, "n k"],
    *,
    findings: Sequence[str],
    patient: Int64[np.ndarray, " n"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return the AUC of a suspicion for "the label is wrong", by finding and macro, and direction.

    Labels are wrong where `truth` (1, 0, or NaN for not known) says the other; only films labelled
    alike are compared, for labels of 1 are wrong more often than those of 0 and any doubt tells
    the two apart. NaN where no label, or every one, is wrong. 95 % intervals over patients; none
    where the wrong, or the right, are of one patient, whom every resample holds as a whole.
    """
    films = np.flatnonzero(~np.isnan(truth + label).all(axis=1))
    label, truth, suspicion, patient = (one[films] for one in (label, truth, suspicion, patient))
    drawn = resample_patients(patient, resamples=resamples, seed=seed)
    tables = []
    for direction, given in DIRECTIONS.items():
        asked = (label == given) & ~np.isnan(truth)
        wrong = np.where(asked, truth != label, np.nan)
        value, sampled = (_areas(wrong, suspicion, one) for one in (once(len(films)), drawn))
        single = np.append([_of_one(one, patient) for one in wrong.T], False)
        low, high = np.where(single | np.isnan(value[:, 0]), np.nan, interval(sampled))
        count = [np.append(each, each.sum()) for each in (asked.sum(0), (wrong == 1).sum(0))]
        columns = ([*findings, MACRO], direction, value[:, 0], low, high, *count)
        tables.append(pd.DataFrame(dict(zip(DETECTED, columns, strict=True))))
    return pd.concat(tables, ignore_index=True)


def _of_one(wrong: Of, patient: Int64[np.ndarray, " n"]) -> bool:
    return any(len(np.unique(patient[wrong == one])) == 1 for one in (0, 1))


def _areas(
    wrong: Float64[np.ndarray, "n k"], suspicion: Float[np.ndarray, "n k"], weights: Weights
) -> Float64[np.ndarray, "k1 r"]:
    each = np.stack([auc(*one, weights=weights) for one in zip(wrong.T, suspicion.T, strict=True)])
    return np.vstack([each, mean_over_findings(each)])
