"""Batches: films that arrive together go through the network together, in one thread.

Letters in shapes: s pixels of a side of a prepared film.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from lucency.core.memory import thread_pool
from lucency.core.predictions import Predictions
from lucency.deploy.problems import Problem

Square = UInt8[np.ndarray, "s s"]
Predict = Callable[[Sequence["NamedFilm"]], Predictions]
Result = TypeVar("Result")


class NamedFilm(NamedTuple):
    """A prepared film and its name, on which augmented views of it depend."""

    name: str
    pixels: Square


class WaitingFilm(NamedTuple):
    """A film, and where its predictions are awaited."""

    film: NamedFilm
    answer: asyncio.Future[Predictions]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The films that wait for the network, and the one thread in which the network runs."""

    predict: Predict
    most: int
    seconds: float
    films: asyncio.Queue[WaitingFilm] = field(default_factory=asyncio.Queue)
    thread: ThreadPoolExecutor = field(default_factory=lambda: thread_pool(1))


@dataclass
class Admission:
    """How many films, or bytes, of all requests are not done with yet, of at most `most`."""

    most: int
    waiting: int = 0
    stopping: bool = False

    @contextmanager
    def admitted(self, number: int) -> Iterator[None]:
        """Count some in while they are worked on; Problem where there are too many already."""
        if self.stopping:
            raise Problem("stopping")
        if self.waiting + number > self.most:
            raise Problem("busy")
        self.waiting += number
        try:
            yield
        finally:
            self.waiting -= number


async def predict_film(batches: Batches, film: NamedFilm) -> Predictions:
    """Return the predictions of one film, which goes through the network with its neighbours."""
    answer = asyncio.get_running_loop().create_future()
    await batches.films.put(WaitingFilm(film, answer))
    return await answer


async def run_alone(batches: Batches, work: Callable[[], Result]) -> Result:
    """Return what `work` returns, done in the network's thread between batches."""
    return await asyncio.get_running_loop().run_in_executor(batches.thread, work)


async def run_batches(batches: Batches, *, observe: Callable[[float], None]) -> None:
    """Predict what waits, batch by batch, for ever; `observe` is called with each one's films.

    A batch is what has come `seconds` after its first film, `most` films at most. An error of the
    network is that of each of its films.
    """
    while True:
        together = [await batches.films.get()]
        await _gather(batches, together)
        observe(float(len(together)))
        films = [one.film for one in together]
        done = asyncio.ensure_future(run_alone(batches, partial(_each, batches.predict, films)))
        await asyncio.wait([done])
        error = done.exception()
        for row, (_, answer) in enumerate(together):
            if answer.done():
                continue
            if error:
                answer.set_exception(error)
            else:
                answer.set_result(done.result()[row])


def _each(predict: Predict, films: Sequence[NamedFilm]) -> list[Predictions]:
    """Return the predictions of each film by itself."""
    together = predict(films)
    return [together.take(np.array([row])) for row in range(len(films))]


async def _gather(batches: Batches, together: list[WaitingFilm]) -> None:
    """Add the films that come within the time of a batch."""
    deadline = asyncio.get_running_loop().time() + batches.seconds
    try:
        async with asyncio.timeout_at(deadline):
            while len(together) < batches.most:
                together.append(await batches.films.get())
    except TimeoutError:
        while len(together) < batches.most and not batches.films.empty():
            together.append(batches.films.get_nowait())
