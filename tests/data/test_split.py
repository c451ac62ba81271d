"""Splits: nobody on two sides, every finding at its share, the official lists as published."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from lucency.config.sections import Split
from lucency.core.manifest import FINDINGS, PARTS, Manifest, empty_boxes
from lucency.data.split import split

SHARE = (0.70, 0.15, 0.15)
SHUFFLED: dict[str, Any] = {"method": "shuffled", "train": 0.7, "val": 0.1, "test": 0.2}


def invented(label: np.ndarray, patient: np.ndarray) -> Manifest:
    return Manifest(
        findings=tuple(f"finding {place}" for place in range(label.shape[1])),
        image=np.arange(len(label)).astype(str),
        patient=patient,
        label=label,
        facts=pd.DataFrame(index=range(len(label))),
        boxes=empty_boxes(),
        origin="invented",
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_every_film_tests_in_one_fold_and_patients_stay_together(seed: int):
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, 300, 1_200)
    label = (generator.random((1_200, 3)) < [0.3, 0.1, 0.02]).astype(np.float32)
    films = invented(label, patient)
    choices = [
        Split(train=0.64, val=0.16, test=0.2, folds=5, fold=fold, seed=seed) for fold in range(5)
    ]
    found = np.stack([split(films, choices=one, root=Path()) for one in choices])
    assert ((found == "test").sum(axis=0) == 1).all()
    for part in found:
        assert sides(patient, part) == 0
        share = [(part == name).mean() for name in ("train", "val", "test")]
        np.testing.assert_allclose(share, [0.64, 0.16, 0.2], atol=0.02)
        positives = label[part == "test"].sum(axis=0) / label.sum(axis=0)
        np.testing.assert_allclose(positives, 0.2, atol=0.06)


@pytest.mark.parametrize(
    "choices", [{"folds": 2}, {"folds": 5, "method": "image"}, {"folds": 5, "fold": 5}, {"fold": 1}]
)
def test_impossible_folds_are_refused(choices: dict[str, Any]):
    with pytest.raises(ValueError, match="fold"):
        Split(**choices)


@pytest.fixture(scope="module")
def films(nih_films: Manifest, chestxray14: np.ndarray) -> Manifest:
    return replace(nih_films, findings=FINDINGS, label=chestxray14)


def sides(patient: np.ndarray, part: np.ndarray) -> int:
    """Count the patients who stand in more than one part."""
    pairs = {(who, where) for who, where in zip(patient.tolist(), part.tolist(), strict=True)}
    return len(pairs) - len(np.unique(patient))


def assert_stratified(label: np.ndarray, part: np.ndarray, wanted: dict[str, float]) -> None:
    for name, share in wanted.items():
        rows = part == name
        assert rows.mean() == pytest.approx(share, abs=0.01)
        common = label.sum(axis=0) >= 100
        relative = label[rows].mean(axis=0)[common] / label.mean(axis=0)[common]
        np.testing.assert_allclose(relative, 1, atol=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_by_patient_on_the_whole_of_chestxray14(films: Manifest, shared: Path, seed: int):
    part = split(films, choices=Split(seed=seed), root=shared)
    assert sides(films.patient, part) == 0
    assert_stratified(films.label, part, dict(zip(PARTS, SHARE, strict=True)))
    largest = np.array([films.patient[part == name].size for name in PARTS])
    people = np.array([len(np.unique(films.patient[part == name])) for name in PARTS])
    np.testing.assert_allclose(largest / people, 112_120 / 30_805, rtol=0.02)


def test_parts_of_chestxray14_are_alike(films: Manifest):
    """Films of patients with many, and AP films: four standard deviations of 50 seeds."""
    _, owner, count = np.unique(films.patient, return_inverse=True, return_counts=True)
    many, front = count[owner] >= 20, (films.facts["view"] == "AP").to_numpy()
    for seed in range(3):
        part = split(films, choices=Split(seed=seed), root=Path())
        for name in PARTS:
            assert many[part == name].mean() == pytest.approx(many.mean(), abs=0.013)
            assert front[part == name].mean() == pytest.approx(front.mean(), abs=0.005)


def heavy_tailed(seed: int = 0) -> Manifest:
    """Two hundred patients, a few of them with many films, all films of these with findings."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(200), np.ceil(generator.pareto(1.0, 200)).clip(1, 40).astype(int))
    label = (generator.random((len(patient), 3)) < [0.3, 0.1, 0.05]).astype(np.float32)
    return invented(label, patient)


def test_patients_with_many_films_have_the_chances_of_others():
    """The ten with most films, dealt 60 times: .7 has a standard error of .019 at most."""
    films = heavy_tailed()
    _, first, count = np.unique(films.patient, return_index=True, return_counts=True)
    many = first[np.argsort(-count, kind="stable")[:10]]
    parts = [split(films, choices=Split(seed=seed), root=Path())[many] for seed in range(60)]
    share = [(np.array(parts) == name).mean() for name in PARTS]
    np.testing.assert_allclose(share, SHARE, atol=0.06)


@pytest.mark.parametrize("patients", [3, 4, 7, 20])
def test_every_part_gets_a_patient(patients: int):
    label = np.ones((2 * patients, 2), np.float32)
    films = invented(label, np.arange(2 * patients) // 2)
    for seed in range(20):
        part = split(films, choices=Split(seed=seed), root=Path())
        assert sides(films.patient, part) == 0
        assert set(part.tolist()) == set(PARTS)
    with pytest.raises(ValueError, match="2 patients cannot fill 3 parts"):
        split(films.take(np.arange(4)), choices=Split(), root=Path())


@pytest.mark.parametrize("view", [None, np.nan, "AP"])
def test_a_split_is_of_its_seed_and_not_of_the_order_of_films(view: str | float | None):
    films = heavy_tailed()
    if view is not None:
        known = pd.Series(np.where(np.arange(len(films)) % 3, "PA", "AP"), dtype=object)
        known[::5] = view
        films = replace(films, facts=pd.DataFrame({"view": known}))
    part = split(films, choices=Split(), root=Path())
    order = np.random.default_rng(1).permutation(len(films))
    assert split(films.take(order), choices=Split(), root=Path()).tolist() == part[order].tolist()
    assert split(films, choices=Split(seed=1), root=Path()).tolist() != part.tolist()


def test_shuffled_patients_are_those_of_synthensemble(films: Manifest):
    """Patients, seed 85: 22,356 of 112,120 films test."""
    part = split(films, choices=Split(**SHUFFLED, seed=85), root=Path())
    assert (part == "test").sum() == 22_356
    assert (part == "val").mean() == pytest.approx(0.1, abs=0.002)
    assert sides(films.patient, part) == 0
    people = np.unique(films.patient)
    other = np.isin(films.patient, train_test_split(people, test_size=0.2, random_state=86)[1])
    assert other.sum() != 22_356
    few = invented(films.label[:4], np.array([1, 1, 2, 2]))
    with pytest.raises(ValueError, match="2 patients cannot fill 3 parts"):
        split(few, choices=Split(**SHUFFLED), root=Path())
