"""The films of a run as a list that filters: labels, predictions, parts and facts in one table.

Filters are whole-array operations, so that a list of 112,120 films answers at once. Letters in
shapes: n films, k findings, m chosen films.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64, Shaped

from lucency.audit.label_errors import find_label_errors, gather_evidence
from lucency.audit.label_errors import nearest_others as nearest_films_of_others
from lucency.core.manifest import PARTS, Manifest, load_part, nearest
from lucency.core.predictions import Predictions, load_predictions
from lucency.pipeline.run import Run

ERRORS = ("missed", "false alarm", "label error")
ORDERS = ("name", "highest", "lowest")
SUSPECTED = 20  # label errors of each finding and direction, as `lucency audit errors` lists them
NOT_STATED = "not stated"
NO_PART = "no part"
RANKING = Lock()  # label errors are ranked once, however many pages wait for them
Rows = Int64[np.ndarray, " m"]
Chosen = Bool[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmList:
    """Films in the order of their manifest; `probability` is NaN where none is known.

    `predictions` are those of films that the model was not trained on, and may be of no film.
    """

    manifest: Manifest
    part: Shaped[np.ndarray, " n"]
    view: Shaped[np.ndarray, " n"]
    probability: Float64[np.ndarray, "n k"]
    threshold: Float64[np.ndarray, " k"]
    predictions: Predictions | None

    def __len__(self) -> int:
        return len(self.manifest)

    @cached_property
    def label_errors(self) -> Bool[np.ndarray, "n k"]:
        """Whether a label is among the SUSPECTED of its finding and direction.

        Every film is compared with every other, once: minutes where a run has 10,000s of them.
        """
        found = np.zeros(self.probability.shape, dtype=bool)
        if self.predictions is None or not len(self.predictions):
            return found
        near = nearest_films_of_others(self.predictions.feature, patient=self.predictions.patient)
        none = np.empty((0, *self.predictions.label.shape), dtype=np.float32)
        evidence = gather_evidence(self.predictions, folds=none, near=near)
        table = find_label_errors(self.predictions, evidence, top=SUSPECTED)
        row = pd.Index(self.manifest.image).get_indexer(pd.Index(table["image"]))
        column = pd.Index(self.manifest.findings).get_indexer(pd.Index(table["finding"]))
        found[row[row >= 0], column[row >= 0]] = True
        return found


class FilmFilter(NamedTuple):
    """Which films of a list are wanted, in which order; an empty text leaves nothing out.

    `low` and `high` bound the probability of `finding`, or the highest of a film without one.
    """

    finding: str = ""
    part: str = ""
    error: str = ""
    view: str = ""
    text: str = ""
    low: float = 0.0
    high: float = 1.0
    order: str = "name"


def list_films(
    run: Run, *, manifest: Manifest, predicted: Path, threshold: Float64[np.ndarray, " k"]
) -> FilmList:
    """Return the films of a finished run with what a model of its leaderboard predicted of them.

    That is in the folder `predicted`, if anything is. Reads the run's files alone, no network.
    Raises ValueError where they do not fit together.
    """
    file = predicted / "predictions.npz"
    found = load_predictions(file) if file.is_file() else None
    probability = np.full(manifest.label.shape, np.nan)
    if found is not None and found.findings == manifest.findings:
        image, first = np.unique(found.image, return_index=True)
        found = found.take(first.astype(np.int64))
        row = pd.Index(image).get_indexer(pd.Index(manifest.image))
        probability[row >= 0] = found.probability[row[row >= 0]]
    split = run.shared / "split" / "part.csv"
    part = load_part(split, manifest.image) if split.is_file() else _all(manifest, NO_PART)
    facts = manifest.facts
    stated = facts["view"].fillna("").to_numpy(dtype=str) if "view" in facts else None
    return FilmList(
        manifest=manifest,
        part=part,
        view=_all(manifest, NOT_STATED)
        if stated is None
        else np.where(stated == "", NOT_STATED, stated),
        probability=probability,
        threshold=threshold,
        predictions=found,
    )


def read_filter(words: Mapping[str, str], films: FilmList) -> FilmFilter:
    """Return the filter that the words of a query state.

    Raises ValueError for an unknown finding, part, error, view or order, and for bounds that are no
    probabilities.
    """
    known = {
        "finding": films.manifest.findings,
        "part": parts_of(films),
        "error": ERRORS,
        "view": views_of(films),
        "order": ORDERS,
    }
    given = {name: words.get(name, "") for name in known}
    for name, word in given.items():
        if word and word not in known[name]:
            expected = ", ".join(known[name])
            raise ValueError(
                f"{name}: found {word!r}, expected one of {expected}{nearest(word, known[name])}"
            )
    low, high = (
        _share(words.get(name, ""), name, other) for name, other in (("low", 0.0), ("high", 1.0))
    )
    order = given.pop("order") or ORDERS[0]
    return FilmFilter(**given, text=words.get("text", ""), low=low, high=high, order=order)


@lru_cache(maxsize=16)
def select_films(films: FilmList, chosen: FilmFilter) -> Rows:
    """Return the rows of the films that a filter leaves, in its order; ties in that of the list."""
    keep = np.ones(len(films), dtype=bool)
    for wanted, column in ((chosen.part, films.part), (chosen.view, films.view)):
        if wanted:
            keep &= column == wanted
    columns = _columns(films, chosen.finding)
    if chosen.error:
        keep &= _with_error(films, chosen.error)[:, columns].any(axis=1)
    elif chosen.finding:
        keep &= _concerned(films, columns)
    value = highest(films, chosen.finding)
    if chosen.low > 0 or chosen.high < 1:
        keep &= (value >= chosen.low) & (value <= chosen.high)
    if chosen.text:
        keep &= _names(films).str.contains(chosen.text.lower(), regex=False).to_numpy(dtype=bool)
    rows = np.flatnonzero(keep).astype(np.int64)
    if chosen.order == ORDERS[0]:
        return rows
    sign = -1 if chosen.order == "highest" else 1
    return rows[np.argsort(sign * value[rows], kind="stable")]


def highest(films: FilmList, finding: str) -> Float64[np.ndarray, " n"]:
    """Return the probability of a finding, or the highest of each film; NaN where unknown."""
    held = films.probability[:, _columns(films, finding)]
    return np.where(np.isnan(held).all(axis=1), np.nan, np.nan_to_num(held).max(axis=1))


def parts_of(films: FilmList) -> list[str]:
    """Return the parts that films of the list stand in, in their order."""
    there = set(np.unique(films.part).tolist())
    return [*(part for part in PARTS if part in there), *sorted(there - {*PARTS})]


def views_of(films: FilmList) -> list[str]:
    """Return the views of the films of the list."""
    return np.unique(films.view).tolist()


def films_of_patient(films: FilmList, row: int) -> list[int]:
    """Return the rows of a patient's films by follow-up number, where stated, then by name."""
    manifest = films.manifest
    rows = np.flatnonzero(manifest.patient == manifest.patient[row])
    facts = manifest.facts
    turn = facts["follow_up"].to_numpy(dtype=float)[rows] if "follow_up" in facts else 0 * rows
    return rows[np.lexsort((manifest.image[rows], turn))].tolist()


def _all(manifest: Manifest, word: str) -> Shaped[np.ndarray, " n"]:
    return np.full(len(manifest), word)


@lru_cache(maxsize=1)
def _names(films: FilmList) -> pd.Series:
    """Return names and patients of the films, in small letters, to search in."""
    patient = pd.Series(films.manifest.patient_id).astype(str)
    return (pd.Series(films.manifest.image).astype(str) + " " + patient).str.lower()


def _columns(films: FilmList, finding: str) -> list[int]:
    findings = films.manifest.findings
    return [findings.index(finding)] if finding else list(range(len(findings)))


def _with_error(films: FilmList, error: str) -> Bool[np.ndarray, "n k"]:
    if error == "label error":
        with RANKING:
            return films.label_errors
    label, called = films.manifest.label, films.probability >= films.threshold
    if error == "missed":
        return (label == 1) & ~called & ~np.isnan(films.probability)
    return (label == 0) & called


def _concerned(films: FilmList, columns: list[int]) -> Chosen:
    """Return the films that are labelled with a finding, or reach its threshold."""
    label, value = films.manifest.label[:, columns], films.probability[:, columns]
    return ((label == 1) | (value >= films.threshold[columns])).any(axis=1)


def _share(text: str, name: str, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: found {text!r}, expected a probability from 0 to 1")
    return value
