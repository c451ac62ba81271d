"""Splits: nobody on two sides, every finding at its share, the official lists as published."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.choices import Split
from lucency.data.nih import read_nih, read_official_lists
from lucency.data.split import (
    SPLITS,
    load_part,
    part_fingerprint,
    save_part,
    split,
    split_by_image,
    split_by_patient,
    split_fold,
    split_official,
)
from lucency.values import PARTS, Manifest

SHARE = (0.70, 0.15, 0.15)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_film_tests_in_one_fold_and_patients_stay_together(seed: int):
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, 300, 1_200)
    label = (generator.random((1_200, 3)) < [0.3, 0.1, 0.02]).astype(np.float32)
    about = {"patient": patient, "folds": 5, "val_share": 0.2, "seed": seed}
    found = np.stack([split_fold(label, **about, fold=fold) for fold in range(5)])
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
def films(shared: Path) -> Manifest:
    return read_nih(shared / "nih")


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


def test_shuffled_patients_alone_are_not_stratified(films: Manifest):
    """The guard can fail: a plain split by patient misses Hernia's share by far."""
    people, owner = np.unique(films.patient, return_inverse=True)
    part = split_by_image(len(people), share=SHARE, seed=0)[owner]
    assert sides(films.patient, part) == 0
    with pytest.raises(AssertionError):
        assert_stratified(films.label, part, dict(zip(PARTS, SHARE, strict=True)))


def test_seeds_make_other_splits_and_the_same_seed_the_same(films: Manifest, shared: Path):
    first, again, other = (split(films, choices=Split(seed=s), root=shared) for s in (3, 3, 4))
    assert (first == again).all()
    assert 0.35 < (first != other).mean() < 0.6  # by chance alone: 1 - .7² - 2 × .15² = .465


def test_official_lists_with_validation_by_patient(films: Manifest, shared: Path):
    part = split(films, choices=Split(method="official"), root=shared / "nih")
    assert (part == "test").sum() == 25_596
    assert sides(films.patient, part) == 0
    rest = part != "test"
    share = {"train": 0.70 / 0.85, "val": 0.15 / 0.85}
    assert_stratified(films.label[rest], part[rest], share)
    assert len(np.unique(films.patient[~rest])) == 2_797
    assert films.label[~rest][:, 2].mean() == pytest.approx(0.182, abs=0.001)  # Effusion


def test_a_split_by_image_leaks_as_published(films: Manifest, shared: Path):
    part = split(films, choices=Split(method="image"), root=shared)
    test = part == "test"
    share = np.isin(films.patient[test], films.patient[part == "train"]).mean()
    assert share == pytest.approx(0.817, abs=0.005)


def test_official_refuses_strangers_and_patients_on_both_sides(shared: Path):
    image, patient = np.array(["a", "b", "c", "d"]), np.array([1, 1, 2, 3])
    choices = {"patient": patient, "label": np.zeros((4, 1), np.float32)}
    choices |= {"val_share": 0.5, "seed": 0}
    lists = {"train_val": np.array(["a", "b", "c"]), "test": np.array(["d", "z"])}
    part = split_official(image, **choices, **lists)
    assert part[3] == "test"
    assert sorted({part[0], part[2]}) == ["train", "val"]
    with pytest.raises(ValueError, match=r"1 films are on neither official list \(d"):
        split_official(image, **choices, train_val=lists["train_val"], test=np.array(["z"]))
    with pytest.raises(ValueError, match="1 patients on both sides"):
        split_official(image, **choices, train_val=np.array(["a", "c"]), test=np.array(["b", "d"]))
    with pytest.raises(ValueError, match="put 4 of 4 films in test"):
        split_official(image, **choices, train_val=np.array(["x"]), test=image)


@settings(max_examples=60, deadline=None)
@given(
    patients=st.integers(3, 40),
    films=st.integers(3, 120),
    findings=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_patient_in_two_parts_and_no_part_empty(
    patients: int, films: int, findings: int, seed: int
):
    generator = np.random.default_rng(seed)
    patient = np.append(np.arange(patients), generator.integers(patients, size=films))
    label = generator.choice(np.array([0, 1, np.nan], np.float32), (len(patient), findings))
    part = split_by_patient(label, patient=patient, share=SHARE, seed=seed)
    assert sides(patient, part) == 0
    assert set(part.tolist()) == set(PARTS)


def test_a_finding_not_stated_counts_as_not_positive():
    generator = np.random.default_rng(0)
    patient, label = np.arange(300), (generator.random((300, 2)) < 0.2).astype(np.float32)
    blank = np.where(label == 0, np.nan, label).astype(np.float32)
    parts = [split_by_patient(one, patient=patient, share=SHARE, seed=5) for one in (label, blank)]
    assert (parts[0] == parts[1]).all()


def test_too_few_to_split():
    with pytest.raises(ValueError, match="2 patients cannot fill 3 parts"):
        split_by_patient(
            np.zeros((9, 1), np.float32), patient=np.repeat([1, 2, 2], 3), share=SHARE, seed=0
        )
    with pytest.raises(ValueError, match="2 films cannot fill three parts"):
        split_by_image(2, share=SHARE, seed=0)


def test_by_image_has_exact_counts():
    part = split_by_image(51_382, share=SHARE, seed=1)
    counts = [int((part == name).sum()) for name in PARTS]
    assert counts == [35_967, 7_708, 7_707]


def test_parts_are_joined_by_name_and_named_by_content(tmp_path: Path):
    image, part = np.array(["c", "a", "b"]), np.array(["test", "train", "val"])
    save_part(image, part, tmp_path / "part.csv")
    assert load_part(tmp_path / "part.csv", image[[2, 0]]).tolist() == ["val", "test"]
    turned = part_fingerprint(image[::-1], part[::-1])
    assert part_fingerprint(image, part) == turned
    assert len(turned) == 16
    assert part_fingerprint(image, part[::-1]) != turned
    with pytest.raises(ValueError, match=r"1 films are not in it \(z"):
        load_part(tmp_path / "part.csv", np.array(["a", "z"]))
    (tmp_path / "part.csv").write_text("image,part\na,training\n")
    with pytest.raises(ValueError, match="expected each film once, its part train, val, test"):
        load_part(tmp_path / "part.csv", np.array(["a"]))


def test_every_method_of_a_protocol_has_a_split(shared: Path):
    assert set(SPLITS) == {"patient", "official", "image"}
    lists = read_official_lists(shared / "nih")
    assert len(np.intersect1d(*lists)) == 0
