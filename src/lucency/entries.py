"""Predictions of several networks, from tables, files or runs, under names of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lucency.foreign import UNKNOWN_SPLIT
from lucency.judge.compare import check_comparable
from lucency.predictions import Predictions, load_predictions
from lucency.progress import say


class Entry(NamedTuple):
    """Predictions, the folders and the network they come from, and how many of these name them."""

    place: tuple[str, ...]
    depth: int
    said: Predictions


def read_entries(
    several: Sequence[Path], *, table: Callable[[Path], Predictions]
) -> list[Predictions]:
    """Return what several files and folders hold, films by name, each under a name of its own.

    Each is a predictions.npz, a run's folder, whose networks all take part, or a table, which
    `table` reads. Raises ValueError for fewer than two networks and for a file named twice.
    """
    entries = [one for file in several for one in _read(file, table)]
    if len(entries) < 2:
        raise ValueError(
            f"found {len(entries)} network; expected two or more: name another table, "
            "predictions.npz or run"
        )
    return _named(entries)


def of_one_split(said: list[Predictions]) -> list[Predictions]:
    """Return the predictions with the split of a table, which is unknown, taken as the others'.

    Raises ValueError unless films, labels and findings are the others' too.
    """
    known = {one.split for one in said if one.split != UNKNOWN_SPLIT}
    unknown = [one.network for one in said if one.split == UNKNOWN_SPLIT]
    if len(known) != 1 or not unknown:
        return said
    taken = [replace(one, split=min(known)) for one in said]
    for one in taken[1:]:
        check_comparable(taken[0], one, name=one.network)
    say(f"Nobody knows under which split {', '.join(unknown)} trained: taken as the others'")
    return taken


def _read(file: Path, table: Callable[[Path], Predictions]) -> Iterator[Entry]:
    """Yield the predictions that a table, a file or a run's folder holds."""
    place = file.resolve().parts
    if file.is_dir():
        found = sorted(file.glob("predictions/*/predictions.npz"))
        if not found:
            raise ValueError(f"{file} holds no predictions: expected the folder of a finished run")
        for one in map(load_predictions, found):
            yield Entry((*place, one.network), 2, one)
    elif not file.is_file():
        raise ValueError(f"{file}: no such file; expected a table, a predictions.npz or a run")
    elif file.suffix == ".npz":
        one = load_predictions(file)
        own = () if file.stem == "predictions" else (file.stem,)
        yield Entry((*place[:-1], *own, one.network), 1, one)
    else:
        one = table(file)
        yield Entry((*place[:-1], one.network), 1, one)


def _named(entries: Sequence[Entry]) -> list[Predictions]:
    """Return the predictions, by film, under names as short as tells them apart."""
    depth = [one.depth for one in entries]
    while True:
        names = ["/".join(one.place[-d:]) for one, d in zip(entries, depth, strict=True)]
        shared = {name for name, times in Counter(names).items() if times > 1}
        if not shared:
            return [_by_film(one.said, name) for one, name in zip(entries, names, strict=True)]
        if twice := [one for one, times in Counter(e.place for e in entries).items() if times > 1]:
            raise ValueError(
                f"{'/'.join(twice[0])} is there twice; expected each file and run once"
            )
        depth = [d + (name in shared) for d, name in zip(depth, names, strict=True)]


def _by_film(said: Predictions, network: str) -> Predictions:
    """Return the predictions in the order of the films' names, as another network's."""
    order = np.argsort(said.image, kind="stable")
    return replace(said.take(order), network=network)
