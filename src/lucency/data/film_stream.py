"""Films decoded and prepared by threads, beside a network that takes them block by block.

OpenCV, libjpeg and zlib let other threads run while they work, so that no process is started.
Letters in shapes: b films of a block, s pixels of the prepared side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from lucency.core.manifest import Preparation
from lucency.core.parallel import usable_cores
from lucency.data.preprocess import prepare_file

BLOCK = 32  # films that are handed over together
AHEAD = 2  # blocks that are prepared, or under way, while one is used


class FilmBlock(NamedTuple):
    """Names and pixels of films that can be read, in order; name and reason of the others."""

    names: tuple[str, ...]
    pixels: UInt8[np.ndarray, "b s s"]
    rejected: tuple[tuple[str, str], ...]


def stream_films(
    files: Sequence[str | Path],
    *,
    preparation: Preparation,
    block: int = BLOCK,
    threads: int = 0,
) -> Iterator[FilmBlock]:
    """Yield the prepared films of `files`, `block` files at once, in their order.

    So many threads (0: one a core) prepare AHEAD blocks more while the caller is busy with one, so
    memory does not grow with the number of files. Films are those of
    `lucency.data.preprocess.prepare_file`, byte for byte. OpenCV has one thread meanwhile.
    """
    work, before = partial(prepare_file, preparation=preparation), cv2.getNumThreads()
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="films")
    todo = iter(files)
    try:
        first = islice(todo, AHEAD * block)
        waiting = deque((str(file), pool.submit(work, file)) for file in first)
        while waiting:
            films = [waiting.popleft() for _ in range(min(block, len(waiting)))]
            made = _block_of(films, side=preparation.size)
            waiting.extend((str(file), pool.submit(work, file)) for file in islice(todo, block))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)


def _block_of(
    films: Sequence[tuple[str, Future[UInt8[np.ndarray, "s s"] | str]]], *, side: int
) -> FilmBlock:
    """Return the block of films that are under way, as soon as they are done."""
    done = [(name, film.result()) for name, film in films]
    read = [(name, film) for name, film in done if not isinstance(film, str)]
    pixels = np.empty((len(read), side, side), dtype=np.uint8)
    for place, (_, film) in enumerate(read):
        pixels[place] = film
    lost = [(name, film) for name, film in done if isinstance(film, str)]
    return FilmBlock(tuple(name for name, _ in read), pixels, tuple(lost))
