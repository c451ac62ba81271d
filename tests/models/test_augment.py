"""Each step of an augmentation shown alone, with the probability that the recipe gives it."""

import albumentations
import numpy as np
import pytest

from lucency.models.augmentation import AUGMENTATIONS, augment, steps_alone

PICTURE = np.random.default_rng(4).integers(0, 256, (40, 40), dtype=np.uint8)


def test_the_four_steps_of_the_study_are_what_their_names_say():
    shown = dict(steps_alone(PICTURE, recipes=["reference@1", "reference@0.3", "reference@0.5"]))
    assert list(shown) == [
        "HorizontalFlip, probability 0.5 (reference)",
        "RandomRotate90, probability 0.5 (reference)",
        "VerticalFlip, probability 0.5 (reference)",
        "Sharpen, probability 0.3 to 1 (reference)",
    ]
    across, turned, upside, sharp = shown.values()
    np.testing.assert_array_equal(across, PICTURE[:, ::-1])
    np.testing.assert_array_equal(upside, PICTURE[::-1])
    assert any(np.array_equal(turned, np.rot90(PICTURE, times)) for times in (1, 2, 3))
    assert sharp.astype(int).std() > PICTURE.astype(int).std()


def test_the_probabilities_are_the_recipe_s_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        AUGMENTATIONS, "other", lambda chance: [albumentations.VerticalFlip(p=chance / 4)]
    )
    shown = steps_alone(PICTURE, recipes=["other@1"])
    assert [name for name, _ in shown] == ["VerticalFlip, probability 0.25 (other)"]


def test_steps_that_are_never_done_and_exact_copies_are_left_out():
    names = [name for name, _ in steps_alone(PICTURE, recipes=["reference@0", "none@1"])]
    assert len(names) == 3
    assert not any("Sharpen" in name for name in names)
    assert steps_alone(PICTURE, recipes=[]) == []


def test_pose_and_exposure_are_the_steps_of_gentle_and_the_film_is_left_as_it_was():
    before = PICTURE.copy()
    shown = steps_alone(PICTURE, recipes=["gentle", "reference@1"])
    names = [name for name, _ in shown]
    assert names[:2] == [
        "Affine, probability 1 (gentle)",
        "RandomBrightnessContrast, probability 0.8 (gentle)",
    ]
    assert len(shown) == 6
    assert all(not np.array_equal(picture, PICTURE) for _, picture in shown)
    np.testing.assert_array_equal(before, PICTURE)


def test_showing_a_step_for_certain_leaves_the_recipe_as_it_is():
    before = augment(PICTURE, recipe="reference@0.5", seed=3)
    steps_alone(PICTURE, recipes=["reference@0.5"])
    np.testing.assert_array_equal(augment(PICTURE, recipe="reference@0.5", seed=3), before)
