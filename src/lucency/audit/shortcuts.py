"""Shortcuts: facts beside the finding, such as view, sex or a drain, on which a score leans.

Linear probes show which facts a network's features hold. A fact is a shortcut of a finding when the
features hold it, it goes with the label, and the score leans on it among films that are labelled
alike. It may be a true companion of the illness; no number decides that.

Letters in shapes: n films, d feature dimensions, r resamples (the first: all films).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from scipy.special import ndtr
from scipy.stats import chi2
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import Weights, all_and_resampled, interval, ratio
from lucency.evaluation.metrics import auc
from lucency.evaluation.significance import holm

FOLDS, COMPONENTS = 5, 32
FEWEST_OF_LEVEL = 20  # films of a level, and patients, for it to be probed
FEWEST_PATIENTS = 20  # with a finding, and without, for it to be tested; of 12, p is too small
UNKNOWN = ""
MOST_LEVELS = 12  # a folder a patient is no fact
OLDEST = 120  # years; ages above are mistakes of entry
LEVEL, TINY = 0.05, 1e-12
PROBES = ("fact", "level", "auc", "low", "high", "films", "others", "note")
SHORTCUTS = (
    "finding", "fact", "levels", "auc", "with_it", "without_it", "alike", "worth", "worth_low",
    "worth_high", "leans", "leans_low", "leans_high", "p_holm", "films", "positives", "left_out",
    "shortcut",
)  # fmt: skip
Levels = Mapping[str, Shaped[np.ndarray, " n"]]  # fact -> the level of each film, or UNKNOWN


def known_facts(facts: pd.DataFrame) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Return the level of each film by each fact of FACTS that has 2 to MOST_LEVELS levels."""
    found = {name: level(facts) for name, (column, level) in FACTS.items() if column in facts}
    number = {name: len({*level} - {UNKNOWN}) for name, level in found.items()}
    several = {name: level for name, level in found.items() if 1 < number[name] <= MOST_LEVELS}
    return {name: np.asarray(level, dtype=object) for name, level in several.items()}


def probe(predictions: Predictions, levels: Levels, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how well each level of each fact can be read off the features: AUC, out of fold.

    A linear probe (Alain and Bengio, 2016): standardised, at most 32 principal components, logistic
    regression; five folds by patient, nothing fitted outside its fold. Of two levels one is probed.
    95 % intervals over patients. A level with fewer than FEWEST_OF_LEVEL films or patients, or so
    few others, is NaN, and so is everything without features.
    """
    weights = all_and_resampled(predictions.patient, resamples=resamples, seed=seed)
    rows = []
    for fact, level in levels.items():
        names = [name for name in pd.unique(level) if name != UNKNOWN]
        for name in sorted(names)[: 1 if len(names) == 2 else len(names)]:
            label = np.where(level == UNKNOWN, np.nan, level == name).astype(np.float32)
            films = [int((label == one).sum()) for one in (1, 0)]
            note = _too_few(label, predictions)
            bounds = (np.nan,) * 3
            if not note:
                score = _read_off(predictions.feature, label, predictions.patient, seed=seed)
                value = auc(label, score, weights=weights)
                bounds = (float(value[0]), *interval(value[1:]).tolist())
            rows.append((fact, name, *bounds, *films, note))
    return pd.DataFrame(rows, columns=list(PROBES))


def find_shortcuts(
    predictions: Predictions, levels: Levels, probes: pd.DataFrame, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return for each finding and fact whether the score leans on it, and what that is worth.

    `levels` are those in which the finding is commoner than in all; `with_it` and `without_it` the
    AUCs of positives in these and in the others, against all negatives. `leans` is how well the
    score separates these levels among films labelled alike: the mean of the AUCs within positives
    and within negatives, weighted as van Elteren (1960) does; .5 where it does not. `worth`
    is the AUC less `alike`, the covariate-adjusted AUC of Janes and Pepe (Biometrika 96, 2009,
    371-382): the mean of the AUCs within levels, by their positives; those of levels without
    negatives are `left_out`. 95 % intervals over patients; p is the larger of two, that leans is .5
    (normal, by the resamples' standard error) and that the finding is equally common in all levels,
    for pairs with a level that can be read off the features (the probe's interval is above .5),
    corrected by Holm over these. `shortcut`: leans above .5 with p_holm below .05, and positives
    with it are ranked above those without. A finding with fewer than FEWEST_PATIENTS patients
    with it or without is left out, and so is a fact that is the same on all its films.
    """
    weights = all_and_resampled(predictions.patient, resamples=resamples, seed=seed)
    readable = set(probes.loc[probes["low"] > 0.5, "fact"])
    rows = []
    for k, finding in enumerate(predictions.findings):
        for fact, level in levels.items():
            label = np.where(level == UNKNOWN, np.nan, predictions.label[:, k])
            if (
                min(len(np.unique(predictions.patient[label == one])) for one in (0, 1))
                < FEWEST_PATIENTS
            ):
                continue
            common = _commoner(label, level)
            inside = np.isin(level, common)
            if not inside.any() or inside[~np.isnan(label)].all():
                continue
            score = predictions.logit[:, k]
            alike, lost = _adjusted(label, score, level, weights)
            whole = auc(label, score, weights=weights)
            sides = [
                np.where((label == 1) & (inside != one), np.nan, label) for one in (True, False)
            ]
            apart = [float(auc(side, score, weights=weights)[0]) for side in sides]
            worth, leans = whole - alike, _leans(label, score, inside, weights)
            numbers = [one for each in (worth, leans) for one in (each[0], *interval(each[1:]))]
            spread = np.nanstd(leans[1:]) if np.isfinite(leans[1:]).sum() > 1 else np.nan
            alone = 2 * ndtr(-abs(leans[0] - 0.5) / max(spread, TINY))
            may = fact in readable
            p = np.maximum(alone, _goes_with(label, level, weights.owner)) if may else np.nan
            counts = (int((~np.isnan(label)).sum()), int((label == 1).sum()), lost)
            about = (finding, fact, ", ".join(common), whole[0], *apart, alike[0])
            rows.append((*about, *numbers, p, *counts, may))
    table = pd.DataFrame(rows, columns=list(SHORTCUTS))
    table["p_holm"] = holm(table["p_holm"].to_numpy(dtype=np.float64))
    helps = (table["leans"] > 0.5) & ~(table["with_it"] <= table["without_it"])
    found = table["shortcut"] & (table["p_holm"] < LEVEL) & helps
    return table.assign(shortcut=found.to_numpy(dtype=bool))


def shortcut_reasons(table: pd.DataFrame) -> dict[str, str]:
    """Return for each finding that has shortcuts what they are, in words."""
    reasons: dict[str, list[str]] = {}
    for row in table.loc[table["shortcut"]].to_dict("records"):
        bare = row["without_it"]
        lacking = f"{bare:.3f} without" if bare == bare else "no positive lacks it"
        areas = f"AUC {row['with_it']:.3f} with it, {lacking}"
        reason = (
            f"the score leans on {row['fact']} = {row['levels']} ({row['leans']:.2f} of pairs of "
            f"films labelled alike; {areas})"
        )
        reasons.setdefault(row["finding"], []).append(reason)
    return {finding: "; ".join(several) for finding, several in reasons.items()}


def _read_off(
    feature: Float32[np.ndarray, "n d"],
    label: Float32[np.ndarray, " n"],
    patient: Int64[np.ndarray, " n"],
    *,
    seed: int,
) -> Float64[np.ndarray, " n"]:
    """Return the out-of-fold logits of a fact, NaN where it is unknown."""
    known = np.flatnonzero(~np.isnan(label))
    score = np.full(len(label), np.nan)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, held in folds.split(feature[known], label[known], patient[known]):
        count = min(COMPONENTS, feature.shape[1], len(rest))
        reduced = PCA(count, svd_solver="randomized", random_state=seed)
        learner = make_pipeline(StandardScaler(), reduced, LogisticRegression(max_iter=1000))
        learner.fit(feature[known[rest]], label[known[rest]])
        logit = learner.decision_function(feature[known[held]])
        score[known[held]] = logit - np.median(logit)  # of networks trained apart
    return score


def _too_few(label: Float32[np.ndarray, " n"], predictions: Predictions) -> str:
    if not predictions.feature.shape[1]:
        return "not computable: predictions without features"
    for one, whose in ((1, "of this level"), (0, "of others")):
        films, people = (label == one).sum(), len(np.unique(predictions.patient[label == one]))
        if min(films, people) < FEWEST_OF_LEVEL:
            found = f"{films} films of {people} patients {whose}"
            return f"not computable: {found}, {FEWEST_OF_LEVEL} expected"
    return ""


def _words(column: str) -> Callable[[pd.DataFrame], np.ndarray]:
    return lambda facts: facts[column].fillna(UNKNOWN).astype(str).to_numpy()


def _age(facts: pd.DataFrame) -> np.ndarray:
    years = facts["age"].to_numpy(dtype=np.float64)
    names = ["under 40", "40 to 59", "60 and on"]
    return np.select([years < 40, years < 60, years <= OLDEST], names, UNKNOWN)


def _visit(facts: pd.DataFrame) -> np.ndarray:
    number = facts["follow_up"].to_numpy(dtype=np.float64)
    return np.where(np.isnan(number), UNKNOWN, np.where(number > 0, "later", "first"))


def _folder(facts: pd.DataFrame) -> np.ndarray:
    return np.array([Path(str(path)).parent.name for path in facts["path"]])


def _adjusted(
    label: Float[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    level: Shaped[np.ndarray, " n"],
    weights: Weights,
) -> tuple[Float64[np.ndarray, " r"], int]:
    """Return the mean of the AUCs within levels by their positives, and the positives left out."""
    (total, count), lost = np.zeros((2, weights.times.shape[1])), 0
    for name in pd.unique(level):
        mine = np.where(level == name, label, np.nan)
        area = auc(mine, score, weights=weights)
        positives = weights.total((mine == 1).astype(np.float64)[None])[0]
        lost += int((mine == 1).sum()) if np.isnan(area[0]) else 0
        known = ~np.isnan(area)
        total = total + np.where(known, area * positives, 0)
        count = count + np.where(known, positives, 0)
    return ratio(total, count), lost


def _commoner(label: Float[np.ndarray, " n"], level: Shaped[np.ndarray, " n"]) -> list[str]:
    """Return the levels in which positives are a larger share than in all films."""
    share = np.nanmean(label)
    names = sorted(set(level[~np.isnan(label)].tolist()))
    return [name for name in names if np.nanmean(label[level == name]) > share]


def _leans(
    label: Float[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    inside: Bool[np.ndarray, " n"],
    weights: Weights,
) -> Float64[np.ndarray, " r"]:
    """Return how well a score separates some films from others among those labelled alike."""
    total, count = np.zeros((2, weights.times.shape[1]))
    for one in (0, 1):
        member = np.where(label == one, inside.astype(np.float64), np.nan)
        area = auc(member, score, weights=weights)
        some, others = (
            weights.total((member == side).astype(np.float64)[None])[0] for side in (1, 0)
        )
        heavy = np.divide(some * others, some + others, out=np.zeros_like(some), where=some > 0)
        total = total + np.where(np.isnan(area), 0, area * heavy)
        count = count + np.where(np.isnan(area), 0, heavy)
    return ratio(total, count)


def _goes_with(
    label: Float[np.ndarray, " n"], level: Shaped[np.ndarray, " n"], owner: Int64[np.ndarray, " n"]
) -> float:
    """Return the p that a finding is equally common in all levels: Pearson's chi-squared test.

    Divided by the mean design effect of films of one patient, if above 1, as Rao and Scott do
    (Journal of the American Statistical Association 76, 1981, 221-230).
    """
    known = ~np.isnan(label)
    names, place = np.unique(level[known].astype(str), return_inverse=True)
    odd = label[known] - label[known].mean()
    _, patient = np.unique(owner[known], return_inverse=True)
    cell = patient * len(names) + place
    size = (patient.max() + 1, len(names))
    excess = np.bincount(cell, weights=odd, minlength=size[0] * size[1]).reshape(size)
    share = np.bincount(place) / known.sum()
    even = excess - excess.sum(axis=1, keepdims=True) * share
    expected = share * (odd**2).sum()
    freedom = len(names) - 1
    effect = ((even**2).sum(axis=0) / expected).sum() / freedom
    return float(chi2.sf((even.sum(axis=0) ** 2 / expected).sum() / max(1, effect), freedom))


FACTS: dict[str, tuple[str, Callable[[pd.DataFrame], np.ndarray]]] = {
    "view": ("view", _words("view")),
    "sex": ("sex", _words("sex")),
    "age": ("age", _age),
    "visit": ("follow_up", _visit),
    "folder": ("path", _folder),
    "drain": ("drain", _words("drain")),
    "marker": ("marker", _words("marker")),
}
