"""Which films train, validate and test: by patient, by NIH's lists, or (leaking) by image.

Letters in shapes: n films, k findings, p parts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from numpy.random import Generator, default_rng
from sklearn.model_selection import train_test_split

from lucency.config.sections import Split
from lucency.core.manifest import APART, PARTS, Manifest
from lucency.data.labels import read_official_lists

Share = tuple[float, float, float]
Label = Float32[np.ndarray, "n k"]
Patient = Int64[np.ndarray, " n"]
Part = Shaped[np.ndarray, " n"]


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
    return _deal(manifest.label, manifest.patient, share=share, generator=generator) == 1


def split_by_patient(label: Label, *, patient: Patient, share: Share, seed: int) -> Part:
    """Split by patient, every finding's films, all films and the patients themselves at `share`.

    Iterative stratification (Sechidis et al., ECML-PKDD 2011) of whole patients: see `_deal`. A
    NaN label counts as not positive. Raises ValueError for fewer patients than parts.
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
    label, patient, folds = manifest.label, manifest.patient, choices.folds
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
    tests = np.isin(image, test)
    lost = image[~tests & ~np.isin(image, train_val)]
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
    label, patient = manifest.label[~tests], manifest.patient[~tests]
    part = np.full(len(tests), PARTS.index("test"))
    part[~tests] = _deal(label, patient, share=np.array([1 - val, val]), generator=generator)
    return np.array(PARTS)[part]


def _deal(
    label: Label, patient: Patient, *, share: Float64[np.ndarray, " p"], generator: Generator
) -> Int64[np.ndarray, " n"]:
    """Return the part of each film: whole patients, so that each part holds its share.

    It is that of the films, of the positive ones of each finding, and of the patients. Heavy
    patients first, in an order that chance disturbs: each goes where the sum over these counts
    and parts of (held share - wanted share)² / wanted share then grows least. Dividing by the
    wanted share lets all parts fill at one pace, so none collects the heavy patients.
    """
    people, owner = np.unique(patient, return_inverse=True)
    patients, parts = len(people), len(share)
    if patients < parts:
        raise ValueError(f"{patients} patients cannot fill {parts} parts: add patients")
    columns = [np.bincount(owner, weights=one, minlength=patients) for one in (label == 1).T]
    count = np.stack([*columns, np.bincount(owner), np.ones(patients)], axis=1)
    weight = count / np.maximum(count.sum(axis=0), 1)
    order = np.argsort(-weight.sum(axis=1) * generator.lognormal(size=patients), kind="stable")
    held, part = np.zeros((parts, count.shape[1])), np.full(patients, -1)
    for place, person in enumerate(order.tolist()):
        mine = weight[person]
        cost = (held + mine / 2) @ mine / share
        empty = ~held.any(axis=1)
        if patients - place <= empty.sum():
            cost[~empty] = np.inf
        part[person] = chosen = int(cost.argmin())
        held[chosen] += mine
    return part[owner]


SPLITS: dict[str, Callable[[Manifest, Split, Path], np.ndarray]] = {
    "patient": _by_patient,
    "official": _officially,
    "shuffled": _shuffled,
    "image": _by_image,
}
