"""Which films train, validate and test: by patient, as stated, by time, or (leaking) by image.

A split is stated by a publisher, by a column of the films' facts, or by lists of names. Letters in
shapes: n films, m patients, k findings, c columns of labels and views, p parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from numpy.random import Generator, default_rng
from sklearn.model_selection import train_test_split

from lucency.config.sections import Source, Split
from lucency.core.manifest import APART, PARTS, SOURCE, Manifest, counted, listed, nearest
from lucency.core.progress import say
from lucency.core.saved_files import fingerprint_file
from lucency.core.tables import match_films
from lucency.data.csv_tables import read_names
from lucency.data.dicom_source import names_of_films
from lucency.data.labels import OFFICIAL_LISTS, read_official_lists

Share = tuple[float, float, float]
Label = Float32[np.ndarray, "n k"]
Patient = Int64[np.ndarray, " n"]
Part = Shaped[np.ndarray, " n"]
EXCHANGES = 300  # leaves every finding of ChestX-ray14 within 1 % of its share
ROUNDING = 1e-12  # of the imbalance: what is less is no gain
PART_FACT, DATE_FACT = "split", "date"  # the facts of a film's official part, and of its day
WORDS = {  # of parts, in small letters
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DAY = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})(?:[T ].*|\.0)?")


def split(
    manifest: Manifest,
    *,
    choices: Split,
    root: Path,
    place: Source | None = None,
    tell: Callable[[str], None] = say,
) -> Part:
    """Return train, val or test for every film by the method that `choices` names, or apart.

    `root` is where NIH's lists are, and what `choices.lists` are relative to; films on none of
    these are apart. Of an archive in `place` they may have the hospital's names (`names_of_films`).
    `tell` gets a line on names that are no film, and on films that are on no list.
    """
    method = SPLITS[choices.method]
    if choices.lists:
        method = partial(_by_lists, place=place, tell=tell)
    apart = set_apart(manifest, choices=choices)
    if not apart.any():
        return method(manifest, choices, root)
    part, rest = np.full(len(manifest), APART), np.flatnonzero(~apart)
    part[rest] = method(manifest.take(rest), choices, root)
    return part


def set_apart(manifest: Manifest, *, choices: Split) -> Bool[np.ndarray, " n"]:
    """Return which films are of patients set apart: the share `choices.apart`, whole patients.

    Dealt as `split_by_patient` deals, so that every finding's share is apart.
    """
    if not choices.apart:
        return np.zeros(len(manifest), dtype=bool)
    share = np.array([1 - choices.apart, choices.apart])
    generator = default_rng([choices.seed, 1])
    label = _shared_out(manifest)
    return _deal(label, manifest.patient, share=share, generator=generator) == 1


def split_by_patient(label: Label, *, patient: Patient, share: Share, seed: int) -> Part:
    """Split by patient: patients of every number of films and every finding's films at `share`.

    A patient's chance of a part is its share, whatever the number of films, so that parts are
    alike: see `_deal`. `label` may have further columns to share out, as which films are AP. A NaN
    label counts as not positive. Raises ValueError for fewer patients than parts.
    """
    generator = default_rng(seed)
    return np.array(PARTS)[_deal(label, patient, share=np.array(share), generator=generator)]


def split_by_image(films: int, *, share: Share, seed: int) -> Part:
    """Split rows at random, as the reference study does: patients fall on several sides (a leak).

    Raises ValueError when a part stays empty.
    """
    edges = np.round(np.cumsum(share)[:2] * films).astype(int)
    part = np.repeat(PARTS, np.diff([0, *edges, films]))
    if len(np.unique(part)) < len(PARTS):
        raise ValueError(f"{films} films cannot fill three parts at {share}: add films")
    return default_rng(seed).permutation(part)


def _by_patient(manifest: Manifest, choices: Split, root: Path) -> Part:
    """Split whole patients at the shares; with folds into equal ones, of which one tests.

    The other patients train and validate. With one seed every film tests in one fold. Raises
    ValueError for fewer patients than parts or folds.
    """
    label, patient, folds = _shared_out(manifest), manifest.patient, choices.folds
    if not folds:
        share = (choices.train, choices.val, choices.test)
        return split_by_patient(label, patient=patient, share=share, seed=choices.seed)
    generator = default_rng(choices.seed)
    fold = _deal(label, patient, share=np.full(folds, 1 / folds), generator=generator)
    return _beside(fold == choices.fold, manifest, choices, generator)


def list_fingerprints(choices: Split, root: Path) -> dict[str, str]:
    """Return what the films' lists hold, by part; of other methods nothing.

    Raises ValueError for a list that is not there.
    """
    found = dict[str, str]()
    for part, name in _lists(choices).items():
        if not (root / name).is_file():
            raise ValueError(
                f"split.lists.{part}: {root / name}: no such file; expected a list of image names, "
                "relative to data.root"
            )
        found[part] = fingerprint_file(root / name)
    return found


def _officially(manifest: Manifest, choices: Split, root: Path) -> Part:
    """Split as the publisher does: by the fact split, else by NIH's two lists.

    Raises ValueError where there is neither.
    """
    if PART_FACT in manifest.facts:
        return _by_column(manifest, choices.model_copy(update={"column": PART_FACT}), root)
    if not any((root / name).is_file() for name in OFFICIAL_LISTS):
        raise ValueError(
            f"the source states no official split, and {root / OFFICIAL_LISTS[0]} is absent: "
            'choose another split.method, such as "patient"'
        )
    return _by_nih_lists(manifest, choices, root)


def _by_nih_lists(manifest: Manifest, choices: Split, root: Path) -> Part:
    """Split by NIH's two lists; validation films are carved out of train_val by patient.

    Raises ValueError when a film is on neither list or a patient on both, and when a list has none
    of the films.
    """
    image, patient = manifest.image, manifest.patient
    train_val, test = read_official_lists(root)
    known = np.unique(np.concatenate([test, train_val]))
    row = match_films(image, known, source="the official lists")
    tests = (row >= 0) & np.isin(known[row], test)
    lost = image[row < 0]
    if len(lost):
        raise ValueError(
            f"{len(lost)} films are on neither official list ({lost[0]}, …): "
            'use split.method = "patient", or leave those films out'
        )
    both = np.intersect1d(patient[tests], patient[~tests])
    if len(both) or tests.all() or not tests.any():
        raise ValueError(
            f"the official lists put {tests.sum()} of {len(image)} films in test, and {len(both)} "
            'patients on both sides; expected films on both and no such patient: use "patient"'
        )
    return _beside(tests, manifest, choices, default_rng(choices.seed))


def _by_column(manifest: Manifest, choices: Split, root: Path) -> Part:
    """Split by a fact that holds train, val or test, in any case and as WORDS spells them.

    Raises ValueError for other values.
    """
    name = choices.column or PART_FACT
    stated = _fact(manifest, name).fillna("").astype(str).str.strip()
    stated = stated.str.removesuffix(".0")  # of whole numbers beside empty cells
    part = stated.str.casefold().map(WORDS)
    if part.isna().any():
        odd = stated[part.isna()].replace("", "nothing").value_counts().sort_index().to_dict()
        found = listed([f"{value} ({counted(films, 'film')})" for value, films in odd.items()])
        raise ValueError(f"split.column {name!r}: found {found}; expected train, val or test")
    return _completed(part.to_numpy(dtype=str), manifest, choices, where=f"the column {name!r}")


def _by_lists(
    manifest: Manifest,
    choices: Split,
    root: Path,
    *,
    place: Source | None = None,
    tell: Callable[[str], None] = say,
) -> Part:
    """Split by lists of names; films on none of them are apart, in no part.

    Raises ValueError for a film on two lists, and for a list that has none of the films.
    """
    list_fingerprints(choices, root)
    part = np.full(len(manifest), APART, dtype=f"<U{len(APART)}")
    for name, file in _lists(choices).items():
        listed_names = read_names(root / file)
        if place:
            listed_names = names_of_films(listed_names, manifest, place=place)
        names = np.unique(listed_names)
        row = match_films(names, manifest.image, source=file)
        mine = np.unique(row[row >= 0])
        strange = names[row < 0]
        lost = counted(len(strange), "name", "is/are", of=len(names))
        lost = f"{file}: {lost} no film of the run ({', '.join([*strange[:1], '…'])})"
        if not len(mine):
            raise ValueError(
                f"split.lists.{name}: {lost}: expected films on each list, named as in the label "
                f"table ({manifest.image[0]}, …)"
            )
        twice = mine[part[mine] != APART]
        if len(twice):
            raise ValueError(
                f"split.lists.{name}: {file}: {counted(len(twice), 'film', 'is/are')} also on "
                f"{_lists(choices)[str(part[twice[0]])]} ({manifest.image[twice[0]]}, …): expected "
                "each film on one list"
            )
        part[mine] = name
        if len(strange):
            tell(lost)
    if unlisted := int((part == APART).sum()):
        films = counted(unlisted, "film", "is/are", of=len(part))
        tell(
            f"{films} on no list of split.lists: in no part ({manifest.image[part == APART][0]}, …)"
        )
    return _completed(part, manifest, choices, where="the lists")


def _by_time(manifest: Manifest, choices: Split, root: Path) -> Part:
    """Split whole patients by the day of their first film: the earliest train, the latest test.

    Patients of one day are in one part. Every part has the films nearest to its share, and a day at
    least. Raises ValueError where days are not known, lie in the future or are fewer than parts.
    """
    day = _days(manifest, choices.column or DATE_FACT)
    people, owner = np.unique(manifest.patient, return_inverse=True)
    if len(people) < len(PARTS):
        raise ValueError(f"{len(people)} patients cannot fill {len(PARTS)} parts: add patients")
    first = np.full(len(people), day.max())
    np.minimum.at(first, owner, day)
    days, place = np.unique(first[owner], return_inverse=True)
    if len(days) < len(PARTS):
        found = listed([date.fromordinal(one).isoformat() for one in days.tolist()])
        raise ValueError(
            f"split by time: the first films of {len(people):,} patients are all of "
            f"{counted(len(days), 'day')} ({found}): expected {len(PARTS)} or more, for patients "
            'of one day are in one part; choose split.method = "patient"'
        )
    films = np.cumsum(np.bincount(place))[:-1]  # before each border between two days
    train, later = np.cumsum([choices.train, choices.val]) * len(manifest)
    val = int(np.abs(films[:-1] - train).argmin()) + 1  # the first day of validation
    test = val + int(np.abs(films[val:] - later).argmin()) + 1
    return np.array(PARTS)[(place >= val).astype(np.int64) + (place >= test)]


def _lists(choices: Split) -> Mapping[str, str]:
    return {part: choices.lists[part] for part in PARTS if choices.lists.get(part)}


def _fact(manifest: Manifest, name: str) -> pd.Series:
    """Return a fact of the films; raises ValueError where there is none of that name."""
    if name not in manifest.facts:
        known = manifest.facts.columns.tolist()
        raise ValueError(
            f"split.column: the films have no fact {name!r}{nearest(name, known)}: found "
            f"{listed(known)}; a column of a csv table becomes one by data.columns"
        )
    return pd.Series(manifest.facts[name])


def _days(manifest: Manifest, name: str) -> Int64[np.ndarray, " n"]:
    """Return the day of each film as a number; raises ValueError for what is none."""
    stated = _fact(manifest, name)
    if absent := int((stated.isna() | (stated.astype(str) == "")).sum()):
        films = counted(absent, "film", "has/have", of=len(stated))
        raise ValueError(f"split by time: {films} no {name}: expected a day for each")
    known = {one: _day(str(one), name) for one in stated.unique().tolist()}
    latest = max(known.values())
    if latest > date.today():
        raise ValueError(
            f"split by time: {name} goes up to {latest}, which is to come: such dates are shifted, "
            'patient by patient, and have no order; choose split.method = "patient"'
        )
    return stated.map({one: day.toordinal() for one, day in known.items()}).to_numpy(dtype=np.int64)


def _day(text: str, name: str) -> date:
    found = DAY.fullmatch(text.strip())
    try:
        return date(*map(int, found.groups())) if found else date(0, 1, 1)
    except ValueError:
        raise ValueError(
            f"split by time: {name}: found {text!r}, expected a day as 20240131 or 2024-01-31"
        ) from None


def _completed(part: Part, manifest: Manifest, choices: Split, *, where: str) -> Part:
    """Return stated parts, validation films being carved out of train by patient if there are none.

    Raises ValueError where no film trains or tests, and for patients in several parts.
    """
    count = {name: int((part == name).sum()) for name in PARTS}
    if not count["train"] or not count["test"]:
        found = ", ".join(f"{name} {films:,}" for name, films in count.items())
        raise ValueError(
            f"{where} put no film in {'train' if not count['train'] else 'test'} (found {found}): "
            'expected some; choose another split.method, such as "patient"'
        )
    seen = pd.DataFrame({"patient": manifest.patient, "part": part})[part != APART]
    people, sides = np.unique(seen.drop_duplicates()["patient"], return_counts=True)
    if several := int((sides > 1).sum()):
        who = manifest.patient_id[manifest.patient == people[sides > 1][0]][0]
        raise ValueError(
            f"{where} put {counted(several, 'patient')} in several parts ({who}, …): expected all "
            "films of a patient in one; correct them, or choose another split.method"
        )
    if count["val"]:
        return part
    stated, rows = part.copy(), np.flatnonzero(part != APART)
    generator = default_rng(choices.seed)
    stated[rows] = _beside(part[rows] == "test", manifest.take(rows), choices, generator)
    return stated


def _shuffled(manifest: Manifest, choices: Split, root: Path) -> Part:
    """Split patients that scikit-learn shuffles, whatever their labels.

    As published studies do with `train_test_split(patients, random_state=seed)`: seed 85 and a
    fifth give SynthEnsemble's 22,356 test films. The other patients train and validate, dealt as
    those of the official lists are. Raises ValueError for fewer patients than parts.
    """
    people = np.unique(manifest.patient)
    if len(people) < len(PARTS):
        raise ValueError(f"{len(people)} patients cannot fill {len(PARTS)} parts: add patients")
    _, drawn = train_test_split(people, test_size=choices.test, random_state=choices.seed)
    tests = np.isin(manifest.patient, drawn)
    return _beside(tests, manifest, choices, default_rng(choices.seed))


def _by_image(manifest: Manifest, choices: Split, root: Path) -> Part:
    share = (choices.train, choices.val, choices.test)
    return split_by_image(len(manifest), share=share, seed=choices.seed)


def _beside(
    tests: Bool[np.ndarray, " n"], manifest: Manifest, choices: Split, generator: Generator
) -> Part:
    """Return the parts where the test films are given, and the other patients train and validate.

    These two have the proportion of their shares.
    """
    val = choices.val / (choices.train + choices.val)
    label, patient = _shared_out(manifest)[~tests], manifest.patient[~tests]
    part = np.full(len(tests), PARTS.index("test"))
    part[~tests] = _deal(label, patient, share=np.array([1 - val, val]), generator=generator)
    return np.array(PARTS)[part]


def _shared_out(manifest: Manifest) -> Label:
    """Return the columns of which every part gets its share: labels, AP films, each source's films.

    The last two only where they are known.
    """
    columns = [manifest.label]
    if "view" in manifest.facts:
        view = manifest.facts["view"].astype(str).str.upper().str.startswith("AP")
        columns.append(view.to_numpy(dtype=np.float32)[:, None])
    if SOURCE in manifest.facts:
        source = manifest.facts[SOURCE].to_numpy(dtype=str)
        columns.append((source[:, None] == np.unique(source)[1:]).astype(np.float32))
    return np.concatenate(columns, axis=1) if len(columns) > 1 else manifest.label


def _deal(
    label: Label, patient: Patient, *, share: Float64[np.ndarray, " p"], generator: Generator
) -> Int64[np.ndarray, " n"]:
    """Return the part of each film: whole patients, every one with the chances `share`.

    Patients are ordered by their number of films, then by the rarest column of `label` of which
    they have a positive film, the rest by chance. Parts take turns along this order in proportion
    to `share`, from a random start, as in systematic sampling (Cochran, Sampling Techniques, 1977,
    chapter 8). Then `_exchange` brings the columns closer to `share`.
    """
    people, owner = np.unique(patient, return_inverse=True)
    patients, parts = len(people), len(share)
    if patients < parts:
        raise ValueError(f"{patients} patients cannot fill {parts} parts: add patients")
    films = np.bincount(owner)
    columns = [np.bincount(owner, weights=one, minlength=patients) for one in (label == 1).T]
    count = np.array(columns).reshape(-1, patients)
    rank = count.sum(axis=1).argsort(kind="stable").argsort()
    rarest = np.where(count > 0, rank[:, None], len(count)).min(axis=0, initial=len(count))
    order = np.lexsort([generator.random(patients), rarest, films])
    dealt = _take_turns(patients, share=share, generator=generator)
    part = np.empty(patients, dtype=np.int64)
    part[order] = _exchange(
        dealt, count[:, order], films=films[order], share=share, generator=generator
    )
    return part[owner]


def _take_turns(
    patients: int, *, share: Float64[np.ndarray, " p"], generator: Generator
) -> Int64[np.ndarray, " m"]:
    """Return the part of each place in an order of patients: each part regularly, none empty.

    Shares of patients that are not whole are rounded up or down by chance.
    """
    edges = np.floor(np.cumsum(patients * share)[:-1] + generator.random()).astype(np.int64)
    places = np.diff(np.concatenate([[0], np.minimum(edges, patients), [patients]]))
    for empty in np.flatnonzero(places == 0):
        places[places.argmax()] -= 1
        places[empty] = 1
    time = [(np.arange(count) + generator.random()) / count for count in places.tolist()]
    turn = np.repeat(np.arange(len(share)), places)[np.concatenate(time).argsort(kind="stable")]
    return np.roll(turn, generator.integers(patients))


def _exchange(
    part: Int64[np.ndarray, " m"],
    count: Float64[np.ndarray, "c m"],
    *,
    films: Int64[np.ndarray, " m"],
    share: Float64[np.ndarray, " p"],
    generator: Generator,
) -> Int64[np.ndarray, " m"]:
    """Return the parts after patients with alike numbers of films have changed places.

    EXCHANGES patients are drawn, those with most and rarest positive films most often. Each changes
    places with the patient of another part that lowers the sum over columns and parts of
    (held share - wanted share)² / wanted share most, if any does. Numbers of films are alike if
    they differ by less than the factor √2, so that parts keep their patients with many films.
    `films` ascends. Sums run along the first axis, row after row: their last digit does not depend
    on the machine.
    """
    part, band = part.copy(), np.frexp(films.astype(np.float64) ** 2)[1]
    first, last = np.searchsorted(band, band), np.searchsorted(band, band, side="right")
    weight = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    held = np.array([np.bincount(part, weights=row, minlength=len(share)) for row in weight])
    excess = held.reshape(-1, len(share)) - np.minimum(count.sum(axis=1, keepdims=True), 1) * share
    chance = weight.sum(axis=0) + 1 / len(part)
    for one in generator.choice(len(part), size=EXCHANGES, p=chance / chance.sum()).tolist():
        mine, mates = part[one], slice(first[one], last[one])
        theirs, gained = part[mates], weight[:, mates] - weight[:, [one]]
        slope = 2 * (excess[:, [mine]] / share[mine] - excess / share)[:, theirs]
        change = (gained * (slope + gained * (1 / share[mine] + 1 / share)[theirs])).sum(axis=0)
        change[theirs == mine] = 0
        best = int(change.argmin())
        if change[best] < -ROUNDING:
            excess[:, mine] += gained[:, best]
            excess[:, theirs[best]] -= gained[:, best]
            part[one], part[first[one] + best] = theirs[best], mine
    return part


SPLITS: dict[str, Callable[[Manifest, Split, Path], np.ndarray]] = {
    "patient": _by_patient,
    "official": _officially,
    "shuffled": _shuffled,
    "column": _by_column,
    "lists": _by_lists,
    "time": _by_time,
    "image": _by_image,
}
