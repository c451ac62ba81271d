"""Which films train, validate and test: by patient, by NIH's lists, or (leaking) by image.

Letters in shapes: n films, m patients, k findings, c columns of labels and views, p parts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from numpy.random import Generator, default_rng
from sklearn.model_selection import train_test_split

from lucency.config.sections import Split
from lucency.core.manifest import APART, PARTS, SOURCE, Manifest
from lucency.core.tables import match_films
from lucency.data.labels import read_official_lists

Share = tuple[float, float, float]
Label = Float32[np.ndarray, "n k"]
Patient = Int64[np.ndarray, " n"]
Part = Shaped[np.ndarray, " n"]
EXCHANGES = 300  # leaves every finding of ChestX-ray14 within 1 % of its share
ROUNDING = 1e-12  # of the imbalance: what is less is no gain


def split(manifest: Manifest, *, choices: Split, root: Path) -> Part:
    """Return train, val or test for every film by the method that `choices` names, or apart.

    `root` is where the official method finds its lists.
    """
    apart = set_apart(manifest, choices=choices)
    if not apart.any():
        return SPLITS[choices.method](manifest, choices, root)
    part, rest = np.full(len(manifest), APART), np.flatnonzero(~apart)
    part[rest] = SPLITS[choices.method](manifest.take(rest), choices, root)
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


def _officially(manifest: Manifest, choices: Split, root: Path) -> Part:
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
    "image": _by_image,
}
