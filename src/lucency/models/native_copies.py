"""Copies of films made at their native size, as the reference study made them, and kept on disk.

Contrast and brightness come first, then a copy's flips, turns and sharpening, and the size last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from lucency.core.manifest import Copies, Preparation, Prepared
from lucency.core.parallel import in_workers
from lucency.core.plan import Plan
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film
from lucency.models.augmentation import augment_copy

CHUNK = 16
PIXELS, DONE = "pixels.npy", "done.npy"

Task = tuple[int, str, str, str]  # place, path, image, transform


def make_copies(
    prepared: Prepared,
    *,
    plan: Plan,
    seed: int,
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write every copy of `plan` into `folder` as pixels.npy, in the plan's order.

    What an earlier, killed call left is used. `seed` is that of the plan's copies. Raises
    ValueError for a film that can no longer be read, naming it.
    """
    copies, side = plan.take(plan.copy > 0), prepared.preparation.size
    image, path = prepared.manifest.image, prepared.manifest.facts["path"].tolist()
    if not (folder / DONE).exists():
        np.lib.format.open_memmap(folder / PIXELS, "w+", np.uint8, (len(copies), side, side))
        np.save(folder / f"new-{DONE}", np.zeros(len(copies), dtype=bool))
        (folder / f"new-{DONE}").rename(folder / DONE)
    todo = np.flatnonzero(~np.load(folder / DONE))
    rows, transforms = copies.row[todo].tolist(), copies.transform[todo].tolist()
    films = [(path[row], str(image[row])) for row in rows]
    tasks = (
        (place, *film, transform)
        for place, film, transform in zip(todo.tolist(), films, transforms, strict=True)
    )
    work = partial(_make_chunk, folder, prepared.preparation, seed)
    made, chunks = len(copies) - len(todo), iter(lambda: list(islice(tasks, CHUNK)), [])
    for count in in_workers(work, chunks, workers=min(workers, -(-len(todo) // CHUNK))):
        made += count
        progress(made, len(copies))
    (folder / DONE).unlink()


def load_copies(folder: Path, *, copies: Plan) -> Copies:
    """Return what `make_copies` wrote of these copies; the pixels stay on disk."""
    return Copies(row=copies.row, copy=copies.copy, pixels=np.load(folder / PIXELS, mmap_mode="r"))


def _make_chunk(folder: Path, preparation: Preparation, seed: int, tasks: list[Task]) -> int:
    """Write the copies at their places and return how many."""
    pixels = np.load(folder / PIXELS, mmap_mode="r+")
    done = np.load(folder / DONE, mmap_mode="r+")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    for place, path, image, transform in tasks:
        change = partial(augment_copy, transform=transform, image=image, seed=seed)
        try:
            grey = read_grey(Path(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}: its copies cannot be made; mend it") from error
        pixels[place] = prepare_film(grey, preparation=preparation, change=change)
        done[place] = True  # after the pixels, so that a kill between the two loses nothing
    cv2.setNumThreads(threads)
    return len(tasks)
