"""The patients of a phantom: labels, views, ages and sexes at ChestX-ray14's frequencies.

Hospital 2 has other frequencies, made of these: `lucency.phantom.hospitals`.

The two tables beside this file count the 112,120 films of `Data_Entry_2017_v2020.csv`: films by
label set, view, sex and decade of age; and patients by number of films.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.manifest import FINDINGS, NO_FINDING
from lucency.phantom.hospitals import HOSPITALS, Hospital

OLDEST = 95
KEPT = 0.5  # chance that a film repeats the label set of the patient's film before it
LARGEST_SHARE = 10  # no patient holds more than a tenth of the films
TRAIN_SHARE = 86524 / 112120  # of films, on the official lists
STRAY_DRAIN = 0.01  # drains without a pneumothorax, as a share of the `shortcut` knob


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One patient; the anatomy is a function of `seed` and `number`: each hospital has its own."""

    seed: int
    number: int
    sex: str  # M or F
    age: int  # years, at the first film
    hospital: int = 1  # of HOSPITALS


@dataclass(frozen=True, kw_only=True)
class Film:
    """One film of a patient: its ground truth (`findings`) and its labels (`stated`)."""

    number: int  # 0, 1, ... within the patient
    age: int  # years
    view: str  # PA or AP
    findings: tuple[str, ...]
    stated: tuple[str, ...]
    drain: bool = False
    marker: bool = False


def draw_population(
    *, films: int, seed: int, hospital: int = 1
) -> list[tuple[Patient, list[Film]]]:
    """Draw a hospital's patients with exactly `films` films at its joint frequencies.

    A film repeats the label set and view of the film before it with probability one half, else they
    are those of a random real film of the patient's sex and decade; so label sets persist within a
    patient while every frequency over films stays the real one (of hospital 1).
    """
    about_hospital = HOSPITALS[hospital]
    rng = np.random.default_rng(_key(seed, 1, hospital))
    films_of = _films_per_patient(rng, films=films)
    patient = np.repeat(np.arange(len(films_of)), films_of)
    counts = _counts_of(about_hospital)
    names, place = np.unique(counts["stratum"].to_numpy(dtype=str), return_inverse=True)
    total = np.bincount(place, weights=counts["films"].to_numpy(dtype=float))
    stratum = rng.choice(names, size=len(films_of), p=total / total.sum())
    cell = _kept(rng, _cells(rng, counts, stratum[patient]), patient)
    decade = np.array([int(name.split()[1]) for name in stratum])
    age = np.minimum(decade + rng.integers(0, 10, size=len(decade)), OLDEST)
    about = list(zip(counts["view"], map(_set_of, counts["findings"]), strict=True))
    people = []
    for k, start in enumerate(np.cumsum(films_of) - films_of):
        who = Patient(
            seed=seed,
            number=about_hospital.before + k + 1,
            sex=stratum[k].split()[0],
            age=int(age[k]),
            hospital=hospital,
        )
        rows = cell[start : start + films_of[k]].tolist()
        people.append((who, _films(who, [about[row] for row in rows])))
    return people


def misstate(
    films: Sequence[Film], *, label_noise: float, seed: int, hospital: int = 1
) -> list[Film]:
    """Return films whose stated labels miss a share `label_noise` of the true ones.

    As many spurious labels of a finding are added, on average, as are missed, so that the label
    file keeps its frequencies. The true findings stay as they were.
    """
    rng = np.random.default_rng(_key(seed, 2, hospital))
    true = np.array([[f in film.findings for f in FINDINGS] for film in films])
    positive = true.sum(axis=0)
    rate = label_noise * positive / np.maximum(len(true) - positive, 1)
    flip = rng.random(true.shape) < np.where(true, label_noise, np.minimum(rate, 1))
    return [
        replace(film, stated=tuple(f for f, on in zip(FINDINGS, row, strict=True) if on))
        for film, row in zip(films, true ^ flip, strict=True)
    ]


def equip(films: Sequence[Film], *, shortcut: float, seed: int, hospital: int = 1) -> list[Film]:
    """Return films: a share `shortcut` of pneumothoraces bears a drain, of AP films a marker."""
    rng = np.random.default_rng(_key(seed, 3, hospital))
    chance = rng.random((len(films), 2))
    return [
        replace(
            film,
            drain=bool(drain < shortcut * (1 if "Pneumothorax" in film.findings else STRAY_DRAIN)),
            marker=bool(marker < shortcut and film.view == "AP"),
        )
        for film, (drain, marker) in zip(films, chance, strict=True)
    ]


def split_patients(films_of: Sequence[int], *, seed: int, hospital: int = 1) -> list[bool]:
    """Return whether each patient trains: random ones until 77 % of the films are theirs."""
    order = np.random.default_rng(_key(seed, 4, hospital)).permutation(len(films_of))
    films = np.asarray(films_of)[order]
    middle = np.cumsum(films) - films / 2
    train = np.zeros(len(films_of), dtype=bool)
    train[order] = middle < TRAIN_SHARE * films.sum()
    return train.tolist()


def _key(seed: int, step: int, hospital: int) -> list[int]:
    """Return the key of a step's random numbers; hospital 1 has no number in it."""
    return [seed, 0, step] if hospital == 1 else [seed, 0, step, hospital]


def _films_per_patient(rng: np.random.Generator, *, films: int) -> list[int]:
    table = pd.read_csv(Path(__file__).with_name("chestxray14_films_per_patient.csv"))
    share = table["patients"].to_numpy() / table["patients"].sum()
    drawn = rng.choice(table["films"].to_numpy(), size=films, p=share)
    drawn = np.minimum(drawn, max(1, films // LARGEST_SHARE))
    last = int(np.searchsorted(np.cumsum(drawn), films))
    films_of = drawn[: last + 1]
    films_of[-1] -= films_of.sum() - films
    return films_of.tolist()


def _counts() -> pd.DataFrame:
    """Counts of films, one row for each label set, view and stratum ("sex decade") that occurs."""
    wide = pd.read_csv(Path(__file__).with_name("chestxray14_counts.csv"), index_col="findings")
    long = wide.melt(ignore_index=False, var_name="cell", value_name="films").reset_index()
    long[["view", "stratum"]] = long["cell"].str.split(" ", n=1, expand=True)
    return long.dropna(subset="films").reset_index(drop=True)


def _counts_of(hospital: Hospital) -> pd.DataFrame:
    """Return `_counts`, each row's films times what makes it more or less likely in a hospital."""
    counts = _counts()
    times = [
        np.prod([hospital.odds.get(finding, 1.0) for finding in _set_of(names)])
        for names in counts["findings"]
    ]
    ap = np.where(counts["view"] == "AP", hospital.ap, 1.0)
    return counts.assign(films=counts["films"].to_numpy(dtype=float) * times * ap)


def _set_of(findings: str) -> tuple[str, ...]:
    return () if findings == NO_FINDING else tuple(findings.split("|"))


def _cells(rng: np.random.Generator, counts: pd.DataFrame, stratum: np.ndarray) -> np.ndarray:
    """For each film a row of `counts`, drawn among the rows of its stratum."""
    cell = np.zeros(len(stratum), dtype=np.int64)
    stratum_of, films = counts["stratum"].to_numpy(), counts["films"].to_numpy(dtype=float)
    for name in np.unique(stratum):
        here, rows = np.flatnonzero(stratum == name), np.flatnonzero(stratum_of == name)
        cell[here] = rng.choice(rows, size=len(here), p=films[rows] / films[rows].sum())
    return cell


def _kept(rng: np.random.Generator, cell: np.ndarray, patient: np.ndarray) -> np.ndarray:
    first = np.diff(patient, prepend=-1) > 0
    fresh = first | (rng.random(len(cell)) >= KEPT)
    return cell[np.maximum.accumulate(np.where(fresh, np.arange(len(cell)), 0))]


def _films(patient: Patient, about: list[tuple[str, tuple[str, ...]]]) -> list[Film]:
    """The patient's films in order: a year older every fourth film, within the decade."""
    latest = min(patient.age - patient.age % 10 + 9, OLDEST)
    return [
        Film(number=k, age=min(patient.age + k // 4, latest), view=view, findings=true, stated=true)
        for k, (view, true) in enumerate(about)
    ]
