"""Coverage of conformal sets on films that they were not fitted to, and the findings missed.

Both are what is promised: means over patients of the means over a patient's films, so that a
patient with many films counts once. Intervals resample patients.

Letters in shapes: n films, k findings, r columns of weights, c columns, s labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from lucency.core.predictions import Predictions
from lucency.core.tables import load_tables
from lucency.evaluation import bootstrap, intervals
from lucency.evaluation.bootstrap import MACRO, Weights, mean_over_findings, ratio
from lucency.evaluation.conformal import ABSENT, PRESENT, ConformalSets, patient_weights
from lucency.evaluation.subgroups import groups_of

LABELS = (ABSENT, PRESENT)  # in the order of their numbers
ALL, BOTH, VIEW = "all", "both", "view"  # a group, labels, and the fact that makes groups
OWN = "test films"  # of the run's own test part; an external test's name holds no blank
COVERAGE = (
    "network", "films", "group", "finding", "label", "promised", "coverage", "low", "high",
    "decided", "count", "patients", "note",
)  # fmt: skip
MISSED = (
    "network", "films", "group", "cutoff", "promised", "missed", "low", "high", "possible",
    "count", "patients", "note",
)  # fmt: skip
TEXT = ("network", "films", "group", "finding", "label", "note")
Draws = dict[str, int]
Row = tuple[object, ...]


class UnseenFilms(NamedTuple):
    """Predictions of films that nothing was fitted to, and the view of each, if it is known."""

    name: str
    predictions: Predictions
    view: pd.Series | None


class SetCells(NamedTuple):
    """What is known of the sets of each label of LABELS and finding.

    `value` is their coverage, as is and resampled, `decided` the share that holds one label alone.
    """

    value: Float64[np.ndarray, "s k r"]
    decided: Float64[np.ndarray, "s k"]
    films: Int64[np.ndarray, "s k"]
    patients: Int64[np.ndarray, "s k"]

    def take(self, labels: Sequence[int], findings: Sequence[int]) -> SetCells:
        """Return the cells of these labels and findings."""
        return SetCells(*(one[list(labels)][:, list(findings)] for one in self))


@dataclass(frozen=True, kw_only=True, eq=False)
class SetCoverage:
    """What sets and cutoffs of networks are worth; empty where networks have none.

    `coverage` has a row a network, set of films, group, finding (then macro) and label: `promised`
    is the least coverage, `decided` the share of sets that hold one label alone, `count` the films.
    `missed` has a row a network, set of films and group: `promised` is the largest share of missed
    findings, `possible` how many findings a film reach the cutoff.
    """

    coverage: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COVERAGE)))
    missed: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(MISSED)))
    conclusion: str = ""


def measure_sets(
    several: Sequence[tuple[ConformalSets, Sequence[UnseenFilms]]],
    *,
    best: str,
    resamples: int,
    seed: int,
) -> SetCoverage:
    """Return the coverage of several networks' sets on their films, all and by view.

    The first films of each network are its own test films. `best` is the network that the
    conclusion is of.
    """
    draws = {"resamples": resamples, "seed": seed}
    coverage, missed = [], []
    for sets, tested in several:
        for films in tested:
            for group, rows in _groups(films):
                part = films.predictions.take(np.flatnonzero(rows))
                place = (part.network, films.name, group)
                coverage += [(*place, *row) for row in coverage_rows(sets, part, draws=draws)]
                missed.append((*place, *missed_row(sets, part, draws=draws)))
    found = SetCoverage(
        coverage=pd.DataFrame(coverage, columns=list(COVERAGE)),
        missed=pd.DataFrame(missed, columns=list(MISSED)),
    )
    return replace(found, conclusion=conclude_sets(found, network=best))


def coverage_rows(sets: ConformalSets, films: Predictions, *, draws: Draws) -> Iterator[Row]:
    """Yield the columns of COVERAGE from `finding` on: a row a finding and label, then macro's.

    Of both labels, and of macro, coverage is the mean over labels and findings, of each of which
    the level is promised.
    """
    cells, level, every = _cells(sets, films, draws=draws), 1 - sets.error, range(len(LABELS))
    for k, name in enumerate(films.findings):
        for side, label in enumerate(LABELS):
            note = _note_of(sets.note[k], label)
            yield name, label, level, *_one(cells.take([side], [k]), note)
        yield name, BOTH, level, *_average(cells.take(every, [k]))
    findings = range(len(films.findings))
    for label, some in ((ABSENT, [0]), (PRESENT, [1]), (BOTH, every)):
        yield MACRO, label, level, *_average(cells.take(some, findings))


def missed_row(sets: ConformalSets, films: Predictions, *, draws: Draws) -> Row:
    """Return cutoff, promised, missed with its interval, possible, films with findings, patients.

    `missed` is of films with findings, `possible` of all.
    """
    present, reach = films.label == 1, sets.possible(films.probability)
    ill = present.any(axis=1, keepdims=True)
    weights = bootstrap.all_and_resampled(films.patient, **draws)
    weight, people = weights_by_patient(ill, weights.owner)
    share = (present & ~reach).sum(axis=1, keepdims=True) / np.maximum(
        present.sum(axis=1, keepdims=True), 1
    )
    value = _mean(share, weight, weights)[0]
    every, _ = weights_by_patient(np.ones_like(ill), weights.owner)
    possible = _mean(reach.sum(axis=1, keepdims=True), every, bootstrap.once(len(films)))[0, 0]
    patients = int(people[0])
    ends = intervals.mean_interval(value, patients=patients)
    note = _joined(sets.cutoff_note, intervals.no_interval(ends, patients=patients))
    about = (sets.cutoff, sets.missed, float(value[0]), *ends, float(possible))
    return *about, int(ill.sum()), patients, note


def weights_by_patient(
    rows: Bool[np.ndarray, "n c"], owner: Int64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, "n c"], Int64[np.ndarray, " c"]]:
    """Return 1 / its patient's films among the rows of each column, else 0; and the patients."""
    weight, people = np.zeros(rows.shape), []
    for column, mine in zip(weight.T, rows.T, strict=True):
        column[mine], patients = patient_weights(owner[mine])
        people.append(patients)
    return weight, np.array(people, dtype=np.int64)


def conclude_sets(found: SetCoverage, *, network: str) -> str:
    """Return in sentences whether a network's sets and cutoff keep what they promise, and where."""
    coverage, missed = (
        one.loc[one["network"] == network] for one in (found.coverage, found.missed)
    )
    if not len(coverage):
        return ""
    coverage = coverage.loc[
        (coverage["finding"] == MACRO) & (coverage["label"] == BOTH) & (coverage["group"] == ALL)
    ].set_index("films")
    missed = missed.loc[missed["group"] == ALL].set_index("films")
    own, lost = coverage.loc[OWN], missed.loc[OWN]
    sentences = [_of_own_sets(network, own), _of_own_missed(lost)]
    for name, row in coverage.drop(index=OWN).iterrows():
        sentences.append(_of_others(str(name), row, missed.loc[name]))
    return " ".join(sentences)


def _of_own_sets(network: str, own: pd.Series) -> str:
    if np.isnan(own["coverage"]):
        return f"Of the sets of {network} no coverage is known: no test film has a label."
    return (
        f"Sets of {network} hold the truth for {_share(own, 'coverage')} of the test films, mean "
        f"over findings and labels; promised: {own['promised']:.2f} or more."
    )


def _of_own_missed(lost: pd.Series) -> str:
    if np.isnan(lost["missed"]):
        return "How many findings are missed is not known: no test film has one."
    return (
        f"Of the findings of a film {_share(lost, 'missed')} are missed at the cutoff; promised: "
        f"{lost['promised']:.2f} at most."
    )


def _of_others(name: str, row: pd.Series, lost: pd.Series) -> str:
    if np.isnan(row["coverage"]):
        return f"{name}: coverage is not known, no film has a label."
    healthy = bool(np.isnan(lost["missed"]))
    known = "no film has a finding" if healthy else f"{_share(lost, 'missed')} missed"
    below = bool(row["high"] < row["promised"])
    broken = ", and coverage is below the level" if below else ""
    return f"{name}: {_share(row, 'coverage')}, and {known}; nothing is promised there{broken}."


def load_coverage(folder: Path) -> SetCoverage:
    """Read what `save_tables` wrote."""
    return load_tables(SetCoverage, folder, text=TEXT)


def _groups(films: UnseenFilms) -> Iterator[tuple[str, Bool[np.ndarray, " n"]]]:
    """Yield all films, then those of each view, where there are several."""
    yield ALL, np.ones(len(films.predictions), dtype=bool)
    if films.view is not None:
        several = list(groups_of(films.view, (), ()))
        yield from several if len(several) > 1 else []


def _mean(
    value: np.ndarray, weight: Float64[np.ndarray, "n c"], weights: Weights
) -> Float64[np.ndarray, "c r"]:
    """Return the weighted means of each column's values."""
    return ratio(weights.total((weight * value).T), weights.total(weight.T))


def _cells(sets: ConformalSets, films: Predictions, *, draws: Draws) -> SetCells:
    """Return what is known of the sets of each finding, by label."""
    holds = sets.holds(films.probability)
    single, once = holds.sum(axis=0) == 1, bootstrap.once(len(films))
    weights = bootstrap.all_and_resampled(films.patient, **draws)
    found = []
    for side, held in enumerate(holds):
        mine = films.label == side
        weight, patients = weights_by_patient(mine, weights.owner)
        value, decided = _mean(held, weight, weights), _mean(single, weight, once)[:, 0]
        found.append((value, decided, mine.sum(axis=0), patients))
    return SetCells(*(np.array(one) for one in zip(*found, strict=True)))


def _one(cell: SetCells, note: str) -> Row:
    """Return coverage, its interval and what follows, of one finding and label."""
    patients, fewest = int(cell.patients[0, 0]), intervals.FEWEST
    value = cell.value[0, 0]
    ends = intervals.mean_interval(value, patients=patients, fewest=fewest)
    few = intervals.no_interval(ends, patients=patients, fewest=fewest)
    numbers = (float(value[0]), *ends, float(cell.decided[0, 0]))
    return *numbers, int(cell.films[0, 0]), patients, _joined(note, few)


def _average(cells: SetCells) -> Row:
    """Return the same of the mean over several findings or labels."""
    several = cells.value.reshape(-1, cells.value.shape[-1])
    patients, known = cells.patients.ravel(), ~np.isnan(several[:, 0])
    ends = intervals.NONE
    if (patients[known] >= intervals.FEWEST).any():
        ends = intervals.macro_interval(several, patients=patients)
        ends = intervals.within_range("coverage", ends)
    mean, single = (
        float(mean_over_findings(one)[0]) for one in (several, cells.decided.reshape(-1, 1))
    )
    lacking = f"mean of {known.sum()} of {len(known)}" if known.sum() < len(known) else ""
    few = intervals.ALIKE if np.isnan(ends[0]) else ""
    note = _joined(lacking, few)
    return mean, *ends, single, int(cells.films.sum()), int(patients.max()), note


def _note_of(note: str, label: str) -> str:
    """Return the part of a finding's note that is of this label."""
    return _joined(*(part for part in note.split("; ") if f" {label}:" in part))


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _share(row: pd.Series, column: str) -> str:
    """Return a share with its interval."""
    if np.isnan(row["low"]):
        return f"{row[column]:.3f}"
    return f"{row[column]:.3f} ({row['low']:.3f}-{row['high']:.3f})"
