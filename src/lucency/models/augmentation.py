"""Augmentation: pictures changed at random, each a pure function of its source and a seed.

Copies therefore need no disk, unless they are made at the films' native size, as the reference
study made them: contrast and brightness come first, then flips, turns and sharpening, and the size
last. This is the only importer of albumentations, and imports it when a picture is first changed:
inference needs none of it. Letters in shapes: h and w pixels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lucency.core.engines import on_engine
from lucency.core.film_shards import (
    SHARDS,
    finish_shards,
    index_of,
    open_shards,
    read_receipts,
    remove_receipts,
    write_shard,
)
from lucency.core.manifest import Copies, Preparation, Prepared
from lucency.core.parallel import rank
from lucency.core.plan import COPY_MARK, Plan
from lucency.data.film_archives import LoadedFilm
from lucency.data.film_cache import load_shards, one_thread, plan_shards, receipt_of
from lucency.data.film_files import FilmFile, StoredFilm, stat_film
from lucency.data.images import read_film
from lucency.data.preprocess import prepare_film

Steps = list[Any]  # of albumentations' transforms
DRAWS = 32  # of a step that is shown alone


def augment_copy(
    picture: UInt8[np.ndarray, "h w"], *, transform: str, image: str, seed: int
) -> UInt8[np.ndarray, "h w"]:
    """Return the copy that a Plan describes; `transform` is its chain, "" for the original."""
    for link in filter(None, transform.split(">")):
        recipe, _, copy = link.rpartition(COPY_MARK)
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
            chances = [float(step.p) for step in several]
            if max(chances) > 0 and not isinstance(several[0], _library().NoOp):
                span = " to ".join(f"{p:g}" for p in sorted({min(chances), max(chances)}))
                title = f"{type(several[0]).__name__}, probability {span} ({name})"
                shown.append((title, _alone(picture, several[0])))
    return shown


def make_copies(
    prepared: Prepared,
    *,
    plan: Plan,
    seed: int,
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write every copy of `plan` into shards in `folder`, in the plan's order.

    What an earlier, killed call left is used. `seed` is that of the plan's copies. Raises
    ValueError for a film that can no longer be read, naming it.
    """
    copies, place = plan.take(plan.copy > 0), (folder / SHARDS).absolute()
    place.mkdir(exist_ok=True)
    film = np.array(prepared.manifest.facts["path"].tolist(), dtype=str)[copies.row]
    size = np.array([_size(one) for one in film.tolist()], dtype=np.int64)
    shards = plan_shards(film, size, side=prepared.preparation.size)
    numbered = enumerate(shards)
    todo = {number: rows for number, rows in numbered if not receipt_of(place, number, rows)}
    made = len(copies) - sum(map(len, todo.values()))
    names, chain = prepared.manifest.image[copies.row].tolist(), copies.transform.tolist()
    tasks = (
        (number, [(one, file, str(names[one]), str(chain[one])) for one, file in films])
        for number, films in load_shards(todo, film)
    )
    work = partial(_make_shard, place, prepared.preparation, seed)
    for count in on_engine(work, tasks, workers=min(workers, len(todo))):
        made += count
        progress(made, len(copies))
    receipts = read_receipts(place, len(shards))
    finish_shards(place, index_of(receipts, films=len(copies)), receipts)


def load_copies(folder: Path, *, copies: Plan, prepared: Prepared) -> Copies:
    """Return what `make_copies` wrote of these copies of the films; the pixels stay on disk."""
    place, names = folder / SHARDS, copies.names(prepared.manifest.image)
    remedy = f"delete {folder}, and the same `lucency run` as before makes all copies anew"
    if rank() == 0:
        remove_receipts(place)
    about = {"image": names, "side": prepared.preparation.size, "remedy": remedy}
    return Copies(row=copies.row, copy=copies.copy, pixels=open_shards(place, **about))


def _size(film: str) -> int:
    found = stat_film(film)
    return found.size if found else 0


def _alone(picture: UInt8[np.ndarray, "h w"], step: Any) -> UInt8[np.ndarray, "h w"]:
    step.p = 1.0
    compose, changed = _library().Compose([step]), picture
    for seed in range(DRAWS):
        compose.set_random_seed(seed)
        changed = compose(image=np.ascontiguousarray(picture))["image"]
        if not np.array_equal(changed, picture):
            break
    return changed


def seed_of(*words: int | str) -> int:
    """Return a seed of 32 bits that depends on nothing but `words`."""
    return zlib.crc32("/".join(map(str, words)).encode())


def _make_shard(
    folder: Path,
    preparation: Preparation,
    seed: int,
    shard: tuple[int, list[tuple[int, FilmFile, str, str]]],
) -> int:
    """Write a shard of copies, each a (place, file, image, transform), and return how many."""
    number, tasks = shard
    made = dict[int, np.ndarray]()
    with one_thread():
        for place, file, image, transform in tasks:
            change = partial(augment_copy, transform=transform, image=image, seed=seed)
            try:
                film = read_film(file, bits=preparation.bits)
            except ValueError as error:
                path = file.place if isinstance(file, LoadedFilm | StoredFilm) else file
                raise ValueError(f"{path}: {error}: its copies cannot be made; mend it") from error
            about = {"padded": film.padded, "preparation": preparation, "change": change}
            made[place] = prepare_film(film.grey, **about)
    places = sorted(made)
    pixels, kept = np.stack([made[place] for place in places]), [True] * len(places)
    write_shard(folder, number, pixels, films={"row": places}, kept=kept)
    return len(tasks)


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


def _strong(strength: float) -> Steps:
    """Return what another machine, another technician and another breath might change too.

    Wider pose and exposure than `gentle`, response of the detector (gamma), sharpness and noise,
    by which films of one source can be distinguished from others'. No flip, as in `gentle`, and
    nothing is hidden: a nodule under a black square is labelled still.
    """
    library, wide = _library(), 0.1 * strength
    return [
        library.Affine(
            rotate=(-10 * strength, 10 * strength),
            scale=(1 - wide, 1 + wide),
            translate_percent=(-wide / 2, wide / 2),
            shear=(-4 * strength, 4 * strength),
            p=1.0,
        ),
        library.RandomBrightnessContrast(2 * wide, 2 * wide, p=0.8),
        library.RandomGamma((100 / (1 + 2 * wide), 100 * (1 + 2 * wide)), p=0.5),
        library.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 0.1 + strength), p=0.2),
        library.GaussNoise(std_range=(0.0, 0.03 * strength), p=0.2),
    ]


AUGMENTATIONS: dict[str, Callable[[float], Steps]] = {
    "none": lambda _: [_library().NoOp(p=1.0)],
    "reference": _reference,
    "gentle": _gentle,
    "strong": _strong,
}
