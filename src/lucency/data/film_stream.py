"""Films decoded and prepared by threads, beside a network that takes them block by block.

OpenCV, libjpeg and zlib let other threads run while they work, so that no process is started.
Letters in shapes: b films of a block, s pixels of the prepared side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from lucency.core.manifest import Preparation
from lucency.core.memory import thread_pool
from lucency.core.parallel import usable_cores
from lucency.core.stores import place_text
from lucency.data.film_archives import LoadedFilm
from lucency.data.film_files import FilmFile, in_reading_order
from lucency.data.preprocess import prepare_file

BLOCK = 32  # films that are handed over together
AHEAD = 2  # blocks that are prepared, or under way, while one is used
MOST_LOADED = 1 << 27  # bytes of loaded files that wait for a thread
Done = UInt8[np.ndarray, "s s"] | str
UnderWay = tuple[str, Future[Done]]


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

    Films of an archive that is streamed come last, in its order.
    So many threads (0: one a core) prepare AHEAD blocks more while the caller is busy with one, so
    memory does not grow with the number of files. Films are those of
    `lucency.data.preprocess.prepare_file`, byte for byte. OpenCV has one thread meanwhile.
    """
    work, before = partial(prepare_file, preparation=preparation), cv2.getNumThreads()
    pool = thread_pool(threads or usable_cores(), name="films")
    cv2.setNumThreads(1)
    todo = _under_way(pool, work, files)
    try:
        waiting = deque(islice(todo, AHEAD * block))
        while waiting:
            films = [waiting.popleft() for _ in range(min(block, len(waiting)))]
            made = _block_of(films, side=preparation.size)
            waiting.extend(islice(todo, block))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)


def _under_way(
    pool: ThreadPoolExecutor, work: Callable[[FilmFile], Done], files: Sequence[str | Path]
) -> Iterator[UnderWay]:
    """Yield the films of `files` as they are handed to the pool, with their names.

    Of loaded ones no more than MOST_LOADED bytes wait there, and one film.
    """
    loaded, held = deque[tuple[Future[Done], int]](), 0
    for number, file in in_reading_order(files):
        future = pool.submit(work, file)
        if isinstance(file, LoadedFilm):
            loaded.append((future, len(file.content)))
            held += len(file.content)
        while held > MOST_LOADED:
            first, size = loaded.popleft()
            first.exception()  # waits for it
            held -= size
        yield place_text(files[number]), future


def _block_of(films: Sequence[UnderWay], *, side: int) -> FilmBlock:
    """Return the block of films that are under way, as soon as they are done."""
    done = [(name, film.result()) for name, film in films]
    read = [(name, film) for name, film in done if not isinstance(film, str)]
    pixels = np.empty((len(read), side, side), dtype=np.uint8)
    for place, (_, film) in enumerate(read):
        pixels[place] = film
    lost = [(name, film) for name, film in done if isinstance(film, str)]
    return FilmBlock(tuple(name for name, _ in read), pixels, tuple(lost))
