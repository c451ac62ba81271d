"""What distances from the training films are worth: on aliens, on ordinary films, for scores.

Letters in shapes: n films, k findings, p patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64
from scipy.special import betaincinv

from lucency.core.predictions import Predictions
from lucency.core.tables import load_tables
from lucency.evaluation.bootstrap import HIGH, LOW, all_and_resampled, once
from lucency.evaluation.conformal import ROUNDING, patient_weights
from lucency.evaluation.intervals import FEWEST, auc_interval, mean_interval
from lucency.evaluation.metrics import auc, brier, mean_over_films
from lucency.evaluation.unfamiliarity import (
    SCORES,
    Distance,
    KnownFilms,
    Unfamiliarity,
)

ORDINARY = "test films"
ANSWERED = np.round(np.linspace(1, 0.5, 11), 2)  # shares of films, on the abstention curve
LEAST = 3  # films of either class, for a finding to be on it
TEXT = ("kind", "score")


@dataclass(frozen=True, kw_only=True, eq=False)
class UnfamiliarResults:
    """Tables on films that are not like the training films; all empty where no distance is stored.

    `aliens` has a row a kind of alien and score: how well the score tells it from test films (auc).
    `refused` has a row for test films and each kind: the share that the stored distance refuses,
    patients counting alike. `abstention` has a row a score and share of test films answered, the
    most familiar first: macro AUC and Brier score over the findings of `about`.
    """

    aliens: pd.DataFrame = field(default_factory=pd.DataFrame)
    refused: pd.DataFrame = field(default_factory=pd.DataFrame)
    abstention: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: dict[str, Any] = field(default_factory=dict)
    conclusion: str = ""

    def __bool__(self) -> bool:
        return bool(self.about)


def load_unfamiliar(folder: Path) -> UnfamiliarResults:
    """Read what `save_tables` wrote."""
    return load_tables(UnfamiliarResults, folder, text=TEXT)


def evaluate_unfamiliarity(
    stored: Unfamiliarity,
    known: KnownFilms,
    test: Predictions,
    aliens: Mapping[str, Predictions],
    *,
    resamples: int,
    seed: int,
) -> UnfamiliarResults:
    """Return what the stored distance and all others of SCORES are worth.

    `known` are the training films, single ones among them; aliens' patients of the same number as
    test films' are the same people. Intervals are over patients.
    """
    distance = {name: score(test.logit, test.feature, known) for name, score in SCORES.items()}
    found = [
        {"kind": kind, "score": name, **_told_apart(distance[name], test, films, known, score)}
        for kind, films in aliens.items()
        for name, score in SCORES.items()
    ]
    draws = {"resamples": resamples, "seed": seed}
    refused = pd.DataFrame(
        [
            {"kind": kind, **_refused(stored, films, **draws)}
            for kind, films in {ORDINARY: test, **aliens}.items()
        ]
    )
    shared, abstention = _abstention(test, distance)
    low, high = share_of_runs(stored)
    about = {
        "network": test.network,
        "score": stored.score,
        "promised": stored.refused,
        "training": stored.training,
        "validation": stored.films,
        "patients": stored.patients,
        "neighbours": known.neighbours,
        "low": low,
        "high": high,
        "findings": [test.findings[place] for place in shared],
        "note": stored.note,
    }
    return UnfamiliarResults(
        aliens=pd.DataFrame(found),
        refused=refused,
        abstention=abstention,
        about=about,
        conclusion=_conclude(about, refused),
    )


def share_of_runs(stored: Unfamiliarity) -> tuple[float, float]:
    """Return between which shares of ordinary films a run refuses, in 95 of 100 runs.

    The promise is one on average over validation patients. Of patients of one film each, one draw
    of them refuses a share with a beta distribution: Vovk, Conditional Validity of Inductive
    Conformal Predictors, ACML (2012). Both are 0 where no film is ever refused.
    """
    beyond = int(np.floor(stored.refused * (stored.patients + 1) + ROUNDING))
    if not beyond:
        return 0.0, 0.0
    low, high = (
        float(betaincinv(beyond, stored.patients + 1 - beyond, end)) for end in (LOW, HIGH)
    )
    return low, high


def _told_apart(
    distance: Distance, test: Predictions, films: Predictions, known: KnownFilms, score: Any
) -> dict[str, float | int]:
    """Return the AUC of a distance between aliens and test films, with its interval."""
    whole = np.append(distance, score(films.logit, films.feature, known))
    label = np.repeat([0.0, 1.0], [len(test), len(films)])
    owner = np.append(test.patient, films.patient)
    area = float(auc(label, whole, weights=once(len(whole)))[0])
    low, high = auc_interval(label, whole, owner=owner)
    return {"films": len(films), "auc": area, "low": low, "high": high}


def _refused(
    stored: Unfamiliarity, films: Predictions, *, resamples: int, seed: int
) -> dict[str, float | int]:
    out = stored.refuses(stored.of(films.logit, films.feature))
    share = _by_patient(out, films.patient)
    people = len(share)
    weights = all_and_resampled(np.arange(people), resamples=resamples, seed=seed)
    several = mean_over_films(share, weights=weights)
    low, high = mean_interval(several, patients=people, fewest=FEWEST)
    counts = {"films": len(out), "patients": people, "refused": int(out.sum())}
    return {**counts, "share": float(several[0]), "low": low, "high": high}


def _by_patient(
    out: Bool[np.ndarray, " n"], patient: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " p"]:
    """Return the share of each patient's films that are out."""
    owner = np.unique(patient, return_inverse=True)[1]
    return np.bincount(owner, weights=out * patient_weights(patient)[0])


def _abstention(
    test: Predictions, distance: Mapping[str, Distance]
) -> tuple[Int64[np.ndarray, " k"], pd.DataFrame]:
    """Return the findings that have both classes among films at every share, and the curves."""
    counts = np.rint(ANSWERED * len(test)).astype(int)
    order = {name: np.argsort(one, kind="stable") for name, one in distance.items()}
    several = [test.label[rows[:count]] for rows in order.values() for count in counts]
    both = [[((label == value).sum(axis=0) >= LEAST) for value in (0, 1)] for label in several]
    shared = np.flatnonzero(np.all(both, axis=(0, 1)))
    rows = [
        {"score": name, "answered": share, "films": count, **_scores(test, row[:count], shared)}
        for name, row in order.items()
        for share, count in zip(ANSWERED.tolist(), counts.tolist(), strict=True)
    ]
    return shared, pd.DataFrame(rows)


def _scores(
    test: Predictions, rows: Int64[np.ndarray, " n"], findings: Int64[np.ndarray, " k"]
) -> dict[str, float | int]:
    """Return the means over findings of AUC and Brier score; NaN without findings."""
    label, probability = test.label[rows], test.probability[rows]
    weights, found = once(len(rows)), {"auc": auc, "brier": brier}
    each = {
        name: [float(how(label[:, k], probability[:, k], weights=weights)[0]) for k in findings]
        for name, how in found.items()
    }
    return {name: float(np.mean(values)) if values else np.nan for name, values in each.items()}


def _conclude(about: Mapping[str, Any], refused: pd.DataFrame) -> str:
    """Return in a sentence whether the promise is kept, and which aliens are refused."""
    if about["note"]:
        return f"No film is refused: {about['note']}."
    own, *others = refused.to_dict("records")
    low, high, share, promised = (
        100 * one for one in (own["low"], own["high"], own["share"], about["promised"])
    )
    ends = f" ({low:.1f} to {high:.1f})" if low < high else ""
    shares = ", ".join(f"{row['kind']} {100 * row['share']:.0f} %" for row in others)
    return (
        f"{about['network']} refuses {share:.1f} %{ends} of ordinary test films, where "
        f"{promised:g} % at most were promised: {_kept(own, about['promised'])}. "
        f"Of aliens it refuses: {shares}."
    )


def _kept(own: Mapping[Any, Any], promised: float) -> str:
    if own["share"] <= promised:
        return "kept"
    if np.isnan(own["low"]):
        return "too few patients to tell"
    return "missed by more than chance of test films" if own["low"] > promised else "within chance"
