"""What a network's features know beside the findings: view, sex, age, by linear probes.

Letters in shapes: n films, d feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64, Shaped
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lucency.judge.intervals import all_and_resampled, interval
from lucency.judge.metrics import auc
from lucency.predictions import Predictions

FOLDS, COMPONENTS = 5, 32
FEWEST = 20  # films of a level, and patients, for it to be asked
UNKNOWN = ""
MOST_LEVELS = 12  # a folder a patient is no fact
OLDEST = 120  # years; ages above are mistakes of entry
PROBES = ("fact", "level", "auc", "low", "high", "films", "others", "note")
Levels = Mapping[str, Shaped[np.ndarray, " n"]]  # fact -> the level of each film, or UNKNOWN


def known_facts(facts: pd.DataFrame) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Return the level of each film by each fact of FACTS that has 2 to MOST_LEVELS levels."""
    found = {name: level(facts) for name, (column, level) in FACTS.items() if column in facts}
    number = {name: len({*level} - {UNKNOWN}) for name, level in found.items()}
    several = {name: level for name, level in found.items() if 1 < number[name] <= MOST_LEVELS}
    return {name: np.asarray(level, dtype=object) for name, level in several.items()}


def probe(said: Predictions, levels: Levels, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return how well each level of each fact can be read off the features: AUC, out of fold.

    A linear probe (Alain and Bengio, 2016): standardised, at most 32 principal components, logistic
    regression; five folds by patient, nothing fitted outside its fold. Of two levels one is asked.
    95 % intervals over patients. A level with fewer than FEWEST films or patients, or so few
    others, is NaN, and so is everything without features.
    """
    weights = all_and_resampled(said.patient, resamples=resamples, seed=seed)
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
