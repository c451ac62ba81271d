"""Conformal prediction: sets with a promised error rate, and a cutoff with a promised miss rate.

Both are fitted to validation films, whose patients are the exchangeable units. A set of a finding
holds "present", "absent", both or neither; of new patients' films with (or without) the finding, it
lacks the truth for no more than the share `error`. A finding is possible where its probability
reaches the cutoff; of a new patient's films with findings, no more than the share `missed` of these
lies below it, on average. Both promises are of a random film of a random patient, over draws of
validation patients too, and hold for patients like those alone.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from lucency.core.manifest import counted, require
from lucency.core.predictions import Predictions

PRESENT, ABSENT, UNDECIDED, NEITHER = "present", "absent", "undecided", "neither"
SET_WORDS = (NEITHER, ABSENT, PRESENT, UNDECIDED)  # at 2 x (holds present) + (holds absent)
BOUNDS = ("present_from", "absent_to")
ROUNDING = 1e-9  # of a share: sums of weights that differ by less are equal
Probabilities = Float[np.ndarray, "n k"]
Patients = Int64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConformalSets:
    """The bounds of a predictor's sets, and its cutoff, on recalibrated probabilities.

    A set holds "present" from `present_from` on and "absent" up to `absent_to`; 0 and 1 where
    validation patients are too few, as the `note` of the finding says.
    """

    error: float
    present_from: Float64[np.ndarray, " k"]
    absent_to: Float64[np.ndarray, " k"]
    note: tuple[str, ...]
    missed: float
    cutoff: float
    cutoff_note: str

    def __post_init__(self) -> None:
        lengths = [len(self.present_from), len(self.absent_to), len(self.note)]
        require(len(set(lengths)) == 1, "present_from, absent_to, note", lengths)

    def holds(self, probability: Probabilities) -> Bool[np.ndarray, "2 n k"]:
        """Return whether sets hold "absent" (first) and "present" (second)."""
        return np.stack([probability <= self.absent_to, probability >= self.present_from])

    def words(self, probability: Probabilities) -> Shaped[np.ndarray, "n k"]:
        """Return every set as one of SET_WORDS: "undecided" holds both, "neither" nothing."""
        absent, present = self.holds(probability)
        return np.array(SET_WORDS)[2 * present + absent]

    def possible(self, probability: Probabilities) -> Bool[np.ndarray, "n k"]:
        """Return which findings reach the cutoff."""
        return probability >= self.cutoff


def fit_sets(predictions: Predictions, *, error: float, missed: float) -> ConformalSets:
    """Return the sets and the cutoff of a network's predictions of validation films.

    A finding's sets are the same before and after recalibration, which keeps the order of films.
    Raises ValueError for films of another part and for levels that are not between 0 and 1.
    """
    _check(predictions, error=error, missed=missed)
    label, probability, patient = predictions.label, predictions.probability, predictions.patient
    present, absent, notes = [], [], []
    for truth, score in zip(label.T, probability.T, strict=True):
        few = []
        for value, side, bounds in ((1, -score, present), (0, score, absent)):
            mine = truth == value
            bounds.append(conformal_quantile(side[mine], patient=patient[mine], error=error))
            if np.isinf(bounds[-1]):
                few.append(_always(value, patient[mine], error))
        notes.append("; ".join(few))
    cutoff, note = risk_cutoff(label, probability, patient=patient, missed=missed)
    return ConformalSets(
        error=error,
        present_from=np.maximum(-np.array(present, dtype=np.float64), 0),
        absent_to=np.minimum(np.array(absent, dtype=np.float64), 1),
        note=tuple(notes),
        missed=missed,
        cutoff=cutoff,
        cutoff_note=note,
    )


def conformal_quantile(score: Float[np.ndarray, " n"], *, patient: Patients, error: float) -> float:
    """Return the bound that a random film of a new patient exceeds with at most chance `error`.

    The 1 - error quantile of the scores of K patients' films, each film weighing 1 / ((K + 1) times
    the films of its patient), with 1 / (K + 1) at infinity: infinite below 1 / error - 1 patients.
    Lee, Barber and Willett, Distribution-free inference with hierarchical data (2023); of one film
    a patient the quantile of split conformal prediction, Vovk et al., Algorithmic Learning in a
    Random World (2005). Label-conditional where all films have one label.
    """
    ordered, share = cumulative_share(score, patient=patient)
    place = int(np.searchsorted(share, 1 - error - ROUNDING))
    return float(ordered[place]) if place < len(ordered) else np.inf


def cumulative_share(
    score: Float[np.ndarray, " n"], *, patient: Patients
) -> tuple[Float[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return scores in order, and the share of films up to each.

    Each of K patients weighs 1 / (K + 1), divided among his films; so does the patient who is still
    to come, who may lie anywhere: the last share is K / (K + 1).
    """
    weight, patients = patient_weights(patient)
    order = np.argsort(score, kind="stable")
    return score[order], np.cumsum(weight[order]) / (patients + 1)


def risk_cutoff(
    label: Float32[np.ndarray, "n k"],
    probability: Probabilities,
    *,
    patient: Patients,
    missed: float,
) -> tuple[float, str]:
    """Return the highest cutoff whose expected loss is `missed` at most, and a note; 0 where none.

    A patient's loss is the mean, over his films with a finding, of the share of their findings
    below the cutoff. With K such patients and their mean loss R, (K R + 1) / (K + 1) may not exceed
    `missed`: Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal Risk Control, ICLR (2024).
    """
    present = label == 1
    films = present.any(axis=1)
    weight, patients = patient_weights(patient[films])
    share = (weight / present[films].sum(axis=1))[:, None] * present[films]
    level, place = np.unique(probability[films][present[films]], return_inverse=True)
    lost = np.bincount(place, weights=share[present[films]], minlength=len(level))
    below = np.cumsum(lost) - lost
    allowed = np.flatnonzero(below + 1 <= (missed + ROUNDING) * (patients + 1))
    if not len(allowed):
        found = counted(patients, "patient")
        return 0.0, f"all are possible: {found} with findings, expected {_fewest(missed)} or more"
    return float(level[allowed[-1]]), ""


def patient_weights(patient: Patients) -> tuple[Float64[np.ndarray, " n"], int]:
    """Return 1 / the films of each film's patient, and the number of patients."""
    _, owner, films = np.unique(patient, return_inverse=True, return_counts=True)
    return 1 / films[owner], len(films)


def sets_as_plain(sets: ConformalSets) -> dict[str, Any]:
    """Return what JSON holds of sets."""
    bounds = {key: getattr(sets, key).tolist() for key in BOUNDS}
    return {**vars(sets), **bounds, "note": list(sets.note)}


def sets_of(plain: Mapping[str, Any] | None) -> ConformalSets | None:
    """Return the sets of what JSON holds; None where it holds none, as of before there were any."""
    if plain is None:
        return None
    held = {key: np.array(plain[key], dtype=np.float64) for key in BOUNDS}
    return ConformalSets(**{**plain, **held, "note": tuple(plain["note"])})


def _check(predictions: Predictions, **levels: float) -> None:
    for name, level in levels.items():
        if not 0 < level < 1:
            raise ValueError(f"{name} is {level:g}; expected between 0 and 1")
    if not (len(predictions) and (predictions.part == "val").all()):
        parts = ", ".join(sorted(set(predictions.part.tolist()))) or "no"
        raise ValueError(
            f"{predictions.network}: sets fitted to {parts} films; expected validation films "
            'only: take predictions.of("val")'
        )


def _always(value: int, patient: Patients, error: float) -> str:
    """Return why all sets hold a label."""
    word, kind = (PRESENT, "with") if value else (ABSENT, "without")
    found = counted(len(np.unique(patient)), "patient")
    return f"always holds {word}: {found} {kind} it, expected {_fewest(error)} or more"


def _fewest(level: float) -> int:
    """Return how many patients a promise at a level needs."""
    return int(np.ceil(1 / level - ROUNDING)) - 1
