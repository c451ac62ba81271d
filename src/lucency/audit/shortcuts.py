"""What else gives a finding away: facts that a network's features know, and what they are worth.

A fact is a shortcut of a finding when the features tell it and the AUC falls among films that are
alike in it. It may be a true companion of the illness; that no number can tell. Letters in shapes:
n films, d feature dimensions, k findings, r resamples (the first column: all films).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from scipy.special import ndtr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lucency.judge.intervals import Weights, interval, resample_patients
from lucency.judge.metrics import auc
from lucency.judge.statistics import holm
from lucency.predictions import Predictions

FOLDS, COMPONENTS = 5, 32
FEWEST = 20  # films of a level, and patients, for it to be asked; positives of a finding
LEVEL = 0.05
UNKNOWN = ""
OLDEST = 120  # years; ages above are mistakes of entry
PROBES = ("fact", "level", "auc", "low", "high", "films", "others", "note")
SHORTCUTS = (
    "finding", "fact", "auc", "alike", "alike_low", "alike_high", "worth", "worth_low",
    "worth_high", "p_holm", "films", "positives", "left_out", "shortcut",
)  # fmt: skip
SHORTCUT = "shortcut"
Levels = Mapping[str, Shaped[np.ndarray, " n"]]  # fact -> the level of each film, or UNKNOWN


def known_facts(facts: pd.DataFrame) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Return the level of each film by each fact of FACTS in which films differ."""
    found = {name: level(facts) for name, (column, level) in FACTS.items() if column in facts}
    several = {name: level for name, level in found.items() if len({*level} - {UNKNOWN}) > 1}
    return {name: np.asarray(level, dtype=object) for name, level in several.items()}


def probe(said: Predictions, levels: Levels, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how well each level of each fact can be read off the features: AUC, out of fold.

    A linear probe (Alain and Bengio, 2016): standardised, at most 32 principal components, logistic
    regression; five folds by patient, nothing fitted outside its fold. Of two levels one is asked.
    95 % intervals over patients. A level with fewer than FEWEST films or patients, or so few
    others, is NaN, and so is everything without features.
    """
    drawn = resample_patients(said.patient, resamples=resamples, seed=seed)
    weights = replace(drawn, times=np.column_stack([np.ones(len(drawn.times)), drawn.times]))
    rows = []
    for fact, level in levels.items():
        names = [name for name in pd.unique(level) if name != UNKNOWN]
        for name in sorted(names)[: 1 if len(names) == 2 else len(names)]:
            label = np.where(level == UNKNOWN, np.nan, level == name).astype(np.float32)
            films = [int((label == one).sum()) for one in (1, 0)]
            note = _too_few(label, said)
            bounds = (np.nan,) * 3
            if not note:
                score = _read_off(said.feature, label, said.patient, seed=seed)
                value = auc(label, score, weights=weights)
                bounds = (float(value[0]), *interval(value[1:]).tolist())
            rows.append((fact, name, *bounds, *films, note))
    return pd.DataFrame(rows, columns=list(PROBES))


def find_shortcuts(
    said: Predictions, levels: Levels, probes: pd.DataFrame, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return what each fact is worth to each finding: its AUC less that among films alike in it.

    `alike` is the covariate-adjusted AUC of Janes and Pepe (Biometrika 96, 2009, 371-382): the mean
    of the AUCs within levels, weighted by their positives. Positives of levels without negatives
    cannot be compared and are `left_out`. 95 % intervals over patients; p values are normal, by the
    resamples' standard error, corrected by Holm over all pairs. `shortcut`: p_holm below .05, worth
    above 0, and a level of the fact read off the features (the probe's interval above .5). A
    finding with fewer than FEWEST positives or negatives is left out.
    """
    drawn = resample_patients(said.patient, resamples=resamples, seed=seed)
    weights = replace(drawn, times=np.column_stack([np.ones(len(drawn.times)), drawn.times]))
    readable = set(probes.loc[probes["low"] > 0.5, "fact"])
    rows = []
    for k, finding in enumerate(said.findings):
        for fact, level in levels.items():
            label = np.where(level == UNKNOWN, np.nan, said.label[:, k])
            if min((label == 1).sum(), (label == 0).sum()) < FEWEST:
                continue
            whole = auc(label, said.logit[:, k], weights=weights)
            alike, lost = _adjusted(label, said.logit[:, k], level, weights)
            worth = whole - alike
            numbers = (alike[0], *interval(alike[1:]), worth[0], *interval(worth[1:]))
            spread = np.nanstd(worth[1:]) if np.isfinite(worth[1:]).sum() > 1 else np.nan
            p = 2 * ndtr(-abs(worth[0]) / spread) if spread > 0 else np.nan
            counts = (int((~np.isnan(label)).sum()), int((label == 1).sum()), lost)
            rows.append((finding, fact, whole[0], *numbers, p, *counts, fact in readable))
    table = pd.DataFrame(rows, columns=list(SHORTCUTS))
    table["p_holm"] = holm(table["p_holm"].to_numpy(dtype=np.float64))
    found = table["shortcut"] & (table["p_holm"] < LEVEL) & (table["worth"] > 0)
    return table.assign(shortcut=found.to_numpy(dtype=bool))


def shortcut_reasons(table: pd.DataFrame) -> dict[str, str]:
    """Return for each finding that has shortcuts what they are, in words."""
    reasons: dict[str, list[str]] = {}
    for row in table.loc[table["shortcut"]].to_dict("records"):
        bounds = f"{row['worth_low']:.3f} to {row['worth_high']:.3f}"
        told = f"{row['fact']} gives it away: worth {row['worth']:.3f} of AUC ({bounds})"
        reasons.setdefault(row["finding"], []).append(told)
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


def _adjusted(
    label: Float[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    level: Shaped[np.ndarray, " n"],
    weights: Weights,
) -> tuple[Float64[np.ndarray, " r"], int]:
    """Return the mean of the AUCs within levels by their positives, and the positives left out."""
    total, count, lost = 0.0, 0.0, 0
    for name in pd.unique(level):
        mine = np.where(level == name, label, np.nan)
        area = auc(mine, score, weights=weights)
        positives = weights.total((mine == 1).astype(np.float64)[None])[0]
        lost += int((mine == 1).sum()) if np.isnan(area[0]) else 0
        known = ~np.isnan(area)
        total = total + np.where(known, area * positives, 0)
        count = count + np.where(known, positives, 0)
    return np.divide(total, count, out=np.full_like(count, np.nan), where=count > 0), lost


def _too_few(label: Float32[np.ndarray, " n"], said: Predictions) -> str:
    if not said.feature.shape[1]:
        return "not computable: predictions without features"
    for one, whose in ((1, "of this level"), (0, "of others")):
        films, people = (label == one).sum(), len(np.unique(said.patient[label == one]))
        if min(films, people) < FEWEST:
            return f"not computable: {films} films of {people} patients {whose}, {FEWEST} expected"
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


FACTS: dict[str, tuple[str, Callable[[pd.DataFrame], np.ndarray]]] = {
    "view": ("view", _words("view")),
    "sex": ("sex", _words("sex")),
    "age": ("age", _age),
    "visit": ("follow_up", _visit),
    "folder": ("path", _folder),
    "drain": ("drain", _words("drain")),
    "marker": ("marker", _words("marker")),
}
