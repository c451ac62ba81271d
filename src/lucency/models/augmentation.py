"""Augmentation: pictures changed at random, each a pure function of its source and a seed.

Copies therefore need no disk. This is the only importer of albumentations, and imports it when a
picture is first changed: inference needs none of it. Letters in shapes: h and w pixels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8

Steps = list[Any]  # of albumentations' transforms
DRAWS = 32  # of a step that is shown alone


def augment_copy(
    picture: UInt8[np.ndarray, "h w"], *, transform: str, image: str, seed: int
) -> UInt8[np.ndarray, "h w"]:
    """Return the copy that a Plan describes; `transform` is its chain, "" for the original."""
    for link in filter(None, transform.split(">")):
        recipe, _, copy = link.rpartition("#")
        picture = augment(picture, recipe=recipe, seed=seed_of(seed, image, copy))
    return picture


def augment(
    picture: UInt8[np.ndarray, "h w"], *, recipe: str, seed: int
) -> UInt8[np.ndarray, "h w"]:
    """Return `picture` changed by `recipe` (name or name@parameter of AUGMENTATIONS)."""
    compose = _recipe(recipe)
    compose.set_random_seed(seed)
    return compose(image=np.ascontiguousarray(picture))["image"]


def steps_alone(
    picture: UInt8[np.ndarray, "h w"], *, recipes: Sequence[str]
) -> list[tuple[str, UInt8[np.ndarray, "h w"]]]:
    """Return the picture after each step of these recipes, done alone and for certain.

    Each has a caption that names the step and its probability, read from the recipe; recipes of one
    name share their steps, which may differ in probability. A step that may leave the picture as
    it is, as a rotation by 0 does, is drawn until it changes it, 32 times at most.
    """
    shown = []
    for name in dict.fromkeys(recipe.partition("@")[0] for recipe in recipes):
        mine = [_steps(recipe) for recipe in recipes if recipe.partition("@")[0] == name]
        for several in zip(*mine, strict=True):
            chances = sorted({float(step.p) for step in several})
            if chances[-1] > 0 and not isinstance(several[0], _library().NoOp):
                title = f"{type(several[0]).__name__}, probability {_span(chances)} ({name})"
                shown.append((title, _alone(picture, several[0])))
    return shown


def _alone(picture: UInt8[np.ndarray, "h w"], step: Any) -> UInt8[np.ndarray, "h w"]:
    step.p = 1.0
    compose, changed = _library().Compose([step]), picture
    for seed in range(DRAWS):
        compose.set_random_seed(seed)
        changed = compose(image=np.ascontiguousarray(picture))["image"]
        if not np.array_equal(changed, picture):
            break
    return changed


def _span(chances: Sequence[float]) -> str:
    """Return a probability, or from which to which."""
    return " to ".join(f"{chance:g}" for chance in dict.fromkeys((chances[0], chances[-1])))


def seed_of(*words: int | str) -> int:
    """Return a seed of 32 bits that depends on nothing but `words`."""
    return zlib.crc32("/".join(map(str, words)).encode())


@lru_cache(maxsize=64)
def _recipe(recipe: str) -> Any:
    return _library().Compose(_steps(recipe))


def _steps(recipe: str) -> Steps:
    name, _, parameter = recipe.partition("@")
    if name not in AUGMENTATIONS:
        raise ValueError(f"augmentation {name!r}; expected one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name](float(parameter) if parameter else 1.0)


@cache
def _library() -> Any:
    """Return the module albumentations."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    import albumentations

    return albumentations


def _none(parameter: float) -> Steps:
    del parameter
    return [_library().NoOp(p=1.0)]


def _reference(sharpen: float) -> Steps:
    """Return the copies' augmentation of the reference study, whose text names these four."""
    library = _library()
    return [
        library.HorizontalFlip(p=0.5),
        library.RandomRotate90(p=0.5),
        library.VerticalFlip(p=0.5),
        library.Sharpen(p=sharpen),
    ]


def _gentle(strength: float) -> Steps:
    """Return what a second exposure of the same patient might change: pose and exposure.

    No flip: a heart on the right side is a finding (situs inversus), not a variation.
    """
    library, low, high = _library(), 1 - 0.06 * strength, 1 + 0.06 * strength
    return [
        library.Affine(
            rotate=(-7 * strength, 7 * strength),
            scale=(low, high),
            translate_percent=(-0.03 * strength, 0.03 * strength),
            p=1.0,
        ),
        library.RandomBrightnessContrast(0.12 * strength, 0.12 * strength, p=0.8),
    ]


AUGMENTATIONS: dict[str, Callable[[float], Steps]] = {
    "none": _none,
    "reference": _reference,
    "gentle": _gentle,
}
