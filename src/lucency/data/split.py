"""Which films train, validate and test: by patient, by NIH's lists, or (leaking) by image.

Letters in shapes: n films, k findings, t and u listed names, g patients, p parts, c columns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from sklearn.model_selection import train_test_split

from lucency.config.sections import Split
from lucency.core.manifest import APART, PARTS, Manifest
from lucency.data.nih import read_official_lists

Share = tuple[float, float, float]


def split(manifest: Manifest, *, choices: Split, root: Path) -> Shaped[np.ndarray, " n"]:
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
    people, owner = np.unique(manifest.patient, return_inverse=True)
    count = _count(manifest.label, owner, patients=len(people))
    share = np.array([1 - choices.apart, choices.apart])
    generator = np.random.default_rng([choices.seed, 1])
    return _deal(count, share=share, generator=generator)[owner] == 1


def split_by_patient(
    label: Float32[np.ndarray, "n k"],
    *,
    patient: Int64[np.ndarray, " n"],
    share: Share,
    seed: int,
) -> Shaped[np.ndarray, " n"]:
    """Split by patient, every finding's films, all films and the patients themselves at `share`.

    Iterative stratification (Sechidis et al., ECML-PKDD 2011) of whole patients: see `_deal`. A
    NaN label counts as not positive. Raises ValueError for fewer patients than parts.
    """
    people, owner = np.unique(patient, return_inverse=True)
    count = _count(label, owner, patients=len(people))
    part = _deal(count, share=np.array(share), generator=np.random.default_rng(seed))
    return np.array(PARTS)[part[owner]]


def split_fold(
    label: Float32[np.ndarray, "n k"],
    *,
    patient: Int64[np.ndarray, " n"],
    folds: int,
    fold: int,
    val_share: float,
    seed: int,
) -> Shaped[np.ndarray, " n"]:
    """Split whole patients into equal folds, as `split_by_patient` does: one of them tests.

    Of the other patients `val_share` validate. With one seed every film tests in one fold. Raises
    ValueError for fewer patients than folds.
    """
    people, owner = np.unique(patient, return_inverse=True)
    count = _count(label, owner, patients=len(people))
    generator = np.random.default_rng(seed)
    rest = _deal(count, share=np.full(folds, 1 / folds), generator=generator) != fold
    part = np.full(len(people), PARTS.index("test"))
    share = np.array([1 - val_share, val_share])
    part[rest] = _deal(count[rest], share=share, generator=generator)
    return np.array(PARTS)[part[owner]]


def split_official(
    image: Shaped[np.ndarray, " n"],
    *,
    patient: Int64[np.ndarray, " n"],
    label: Float32[np.ndarray, "n k"],
    train_val: Shaped[np.ndarray, " t"],
    test: Shaped[np.ndarray, " u"],
    val_share: float,
    seed: int,
) -> Shaped[np.ndarray, " n"]:
    """Split by NIH's two lists; `val_share` of train_val validates, carved out by patient.

    Raises ValueError when a film is on neither list or a patient on both, and when a list has none
    of the films.
    """
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
    return _beside(tests, label=label, patient=patient, val_share=val_share, seed=seed)


def split_shuffled(
    label: Float32[np.ndarray, "n k"],
    *,
    patient: Int64[np.ndarray, " n"],
    test_share: float,
    val_share: float,
    seed: int,
) -> Shaped[np.ndarray, " n"]:
    """Split patients that scikit-learn shuffles, `test_share` of them test, whatever their labels.

    As published studies do with `train_test_split(patients, random_state=seed)`: seed 85 and a
    fifth give SynthEnsemble's 22,356 test films. Of the other patients `val_share` validate, dealt
    as `split_official` does. Raises ValueError for fewer patients than parts.
    """
    people = np.unique(patient)
    if len(people) < len(PARTS):
        raise ValueError(f"{len(people)} patients cannot fill {len(PARTS)} parts: add patients")
    _, drawn = train_test_split(people, test_size=test_share, random_state=seed)
    tests = np.isin(patient, drawn)
    return _beside(tests, label=label, patient=patient, val_share=val_share, seed=seed)


def split_by_image(films: int, *, share: Share, seed: int) -> Shaped[np.ndarray, " n"]:
    """Split rows at random, as the reference study does: patients fall on several sides (a leak).

    Raises ValueError when a part stays empty.
    """
    edges = np.round(np.cumsum(share)[:2] * films).astype(int)
    part = np.repeat(PARTS, np.diff([0, *edges, films]))
    if len(np.unique(part)) < len(PARTS):
        raise ValueError(f"{films} films cannot fill three parts at {share}: add films")
    return np.random.default_rng(seed).permutation(part)


def _beside(
    tests: Bool[np.ndarray, " n"],
    *,
    label: Float32[np.ndarray, "n k"],
    patient: Int64[np.ndarray, " n"],
    val_share: float,
    seed: int,
) -> Shaped[np.ndarray, " n"]:
    """Return the parts where the test films are given and `val_share` of the others validates."""
    people, owner = np.unique(patient[~tests], return_inverse=True)
    count = _count(label[~tests], owner, patients=len(people))
    share = np.array([1 - val_share, val_share])
    part = np.full(len(tests), PARTS.index("test"))
    part[~tests] = _deal(count, share=share, generator=np.random.default_rng(seed))[owner]
    return np.array(PARTS)[part]


def _count(
    label: Float32[np.ndarray, "n k"], owner: Int64[np.ndarray, " n"], *, patients: int
) -> Float64[np.ndarray, "g c"]:
    """Return positive films of each finding, films, and 1, for each patient."""
    columns = [np.bincount(owner, weights=one, minlength=patients) for one in (label == 1).T]
    return np.stack([*columns, np.bincount(owner, minlength=patients), np.ones(patients)], axis=1)


def _deal(
    count: Float64[np.ndarray, "g c"],
    *,
    share: Float64[np.ndarray, " p"],
    generator: np.random.Generator,
) -> Int64[np.ndarray, " g"]:
    """Deal whole patients to parts so that each part holds its share of every column of `count`.

    Heavy patients first, in an order that chance disturbs: each goes where the sum over columns
    and parts of (held share - wanted share)² / wanted share then grows least. Dividing by the
    wanted share lets all parts fill at one pace, so none collects the heavy patients.
    """
    patients, parts = len(count), len(share)
    if patients < parts:
        raise ValueError(f"{patients} patients cannot fill {parts} parts: add patients")
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
    return part


def _split_patients(manifest: Manifest, choices: Split, root: Path) -> Shaped[np.ndarray, " n"]:
    del root
    if not choices.folds:
        share = (choices.train, choices.val, choices.test)
        return split_by_patient(
            manifest.label, patient=manifest.patient, share=share, seed=choices.seed
        )
    return split_fold(
        manifest.label,
        patient=manifest.patient,
        folds=choices.folds,
        fold=choices.fold,
        val_share=_val_of_rest(choices),
        seed=choices.seed,
    )


def _split_officially(manifest: Manifest, choices: Split, root: Path) -> Shaped[np.ndarray, " n"]:
    train_val, test = read_official_lists(root)
    return split_official(
        manifest.image,
        patient=manifest.patient,
        label=manifest.label,
        train_val=train_val,
        test=test,
        val_share=_val_of_rest(choices),
        seed=choices.seed,
    )


def _val_of_rest(choices: Split) -> float:
    return choices.val / (choices.train + choices.val)


def _split_shuffled(manifest: Manifest, choices: Split, root: Path) -> Shaped[np.ndarray, " n"]:
    del root
    return split_shuffled(
        manifest.label,
        patient=manifest.patient,
        test_share=choices.test,
        val_share=_val_of_rest(choices),
        seed=choices.seed,
    )


def _split_images(manifest: Manifest, choices: Split, root: Path) -> Shaped[np.ndarray, " n"]:
    del root
    share = (choices.train, choices.val, choices.test)
    return split_by_image(len(manifest), share=share, seed=choices.seed)


SPLITS: dict[str, Callable[[Manifest, Split, Path], np.ndarray]] = {
    "patient": _split_patients,
    "official": _split_officially,
    "shuffled": _split_shuffled,
    "image": _split_images,
}
