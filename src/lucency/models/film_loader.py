"""Feeding films to a network: which, in which order, how changed; every film a pure function.

Letters in shapes: b films of a batch, m plan entries, h and w pixels.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lucency.core.manifest import Prepared
from lucency.core.parallel import rank, world_size
from lucency.core.plan import Plan, with_targets
from lucency.models.augmentation import augment, augment_copy, seed_of

Batch = Int64[np.ndarray, "_"]
Item = TypeVar("Item")
DRAWS = 20  # tries to find a film of another patient


class Targets(NamedTuple):
    """What a network should give for entries, from 0 to 1 or not stated (NaN), and the weights."""

    label: Float32[np.ndarray, "b k"]
    weight: Float32[np.ndarray, "b k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Films(Dataset[Tensor]):
    """The pictures of a plan's entries; `recipe` changes them anew in every `epoch`.

    `copies` is the seed of the plan's augmented copies, `seed` that of the recipe. With `mixup`
    every picture is mixed anew with an entry of another patient, and so are labels: its share is
    drawn from Beta(mixup, mixup) (Zhang et al., "mixup", ICLR 2018) and at least a half (Berthelot
    et al., "MixMatch", NeurIPS 2019, equation 9).
    """

    prepared: Prepared
    plan: Plan
    copies: int
    recipe: str = "none"
    seed: int = 0
    epoch: int = 0
    mixup: float = 0.0

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, entry: int) -> UInt8[Tensor, "h w"]:
        return torch.from_numpy(np.array(self.picture(entry)))

    def picture(self, entry: int) -> UInt8[np.ndarray, "h w"]:
        """Return the picture of one entry: film or mix of two, its copy's, the epoch's change."""
        mate, share = self._mate(entry)
        if mate == entry:
            return self._alone(entry)
        mixed = cv2.addWeighted(self._alone(entry), 1 - share, self._alone(mate), share, 0.0)
        return mixed.astype(np.uint8)

    @cached_property
    def aims(self) -> Float32[np.ndarray, "m k"]:
        """The labels of the plan, in place of training's those that films have as shares."""
        return with_targets(self.plan, self.prepared.manifest).label

    def targets(self, entries: Batch, *, smoothing: float = 0.0) -> Targets:
        """Return labels and weights of entries, mixed as their pictures are, drawn to .5.

        A mixed label is stated where both are; each counts by its share and its weight. Label
        smoothing: Szegedy et al., CVPR 2016, section 7, for two classes.
        """
        mates, shares = zip(*map(self._mate, entries.tolist()), strict=True)
        share, mate = np.array(shares, dtype=np.float32)[:, None], np.array(mates)
        truth, other_truth = self.aims[entries], self.aims[mate]
        own = (1 - share) * self.plan.weight[entries]
        other = share * self.plan.weight[mate]
        weight, mixed = own + other, own * truth + other * other_truth
        plain = (1 - share) * truth + share * other_truth  # where neither has a weight
        label = np.divide(mixed, weight, out=plain, where=weight > 0)
        return Targets(label * np.float32(1 - smoothing) + np.float32(smoothing / 2), weight)

    def _mate(self, entry: int) -> tuple[int, float]:
        """Return the entry that is mixed in, and its share; the entry itself for none."""
        if not self.mixup:
            return entry, 0.0
        row, copy = self.plan.row[entry], int(self.plan.copy[entry])
        image, patient = str(self.prepared.manifest.image[row]), self.prepared.manifest.patient
        generator = np.random.default_rng(seed_of(self.seed, self.epoch, image, copy, "mixup"))
        share = float(generator.beta(self.mixup, self.mixup))
        for mate in generator.integers(len(self.plan), size=DRAWS).tolist():
            if patient[self.plan.row[mate]] != patient[row]:
                return mate, min(share, 1 - share)
        return entry, 0.0

    def _alone(self, entry: int) -> UInt8[np.ndarray, "h w"]:
        row = self.plan.row[entry]
        image, copy = str(self.prepared.manifest.image[row]), int(self.plan.copy[entry])
        stored = self.prepared.copies
        if (place := stored.place.get((int(row), copy))) is not None:
            picture = stored.pixels[place]
        else:
            transform = str(self.plan.transform[entry])
            picture = augment_copy(
                self._film(entry), transform=transform, image=image, seed=self.copies
            )
        if self.recipe == "none":
            return picture
        seed = seed_of(self.seed, self.epoch, image, copy)
        return augment(picture, recipe=self.recipe, seed=seed)

    def _film(self, entry: int) -> UInt8[np.ndarray, "h w"]:
        film, mix = self.prepared.pixels[self.plan.row[entry]], float(self.plan.mix[entry])
        if mix == 0:
            return film
        mate = self.prepared.pixels[self.plan.mate[entry]]
        return cv2.addWeighted(film, 1 - mix, mate, mix, 0.0).astype(np.uint8)


def shuffled_batches(entries: int, *, batch: int, seed: int, epoch: int) -> list[Batch]:
    """Return an epoch's batches: every entry once, sizes equal within one and at most `batch`."""
    order = np.random.default_rng([seed, epoch]).permutation(entries).astype(np.int64)
    return np.array_split(order, -(-entries // batch))


def batches_in_order(entries: int, *, batch: int) -> list[Batch]:
    """Return batches of all entries in their order."""
    return np.array_split(np.arange(entries, dtype=np.int64), max(1, -(-entries // batch)))


def share_of_process(batch: np.ndarray) -> np.ndarray:
    """Return this process's entries, or their rows, of a global batch."""
    return batch[rank() :: world_size()]


def in_pieces(batch: Batch, *, films: int) -> list[Batch]:
    """Return a global batch in equal pieces of at most `films` entries a process; whole for 0.

    From two films on, every process has a share of every piece if it has one of the batch.
    """
    return np.array_split(batch, -(-len(batch) // (films * world_size()))) if films else [batch]


class Feeder:
    """The pictures of `films`, epoch after epoch, on `device`, by the same worker processes.

    On a CPU the loop itself makes them; beside an accelerator worker processes do, and a batch goes
    to a CUDA device while it computes on the one before. `workers` is their number, here for tests.
    """

    def __init__(self, films: Films, *, device: torch.device, workers: int = -1) -> None:
        if workers < 0:
            workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        self._device = device
        self._batches: list[list[tuple[int, int]]] = []
        self._loader = DataLoader(
            _OfEpochs(films),
            batch_sampler=self._batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # not the network's, from which a step's dropout is drawn
        )

    def feed(self, batches: Sequence[Batch], *, epoch: int) -> Generator[Tensor]:
        """Yield the pictures (uint8, b h w) of each batch as they are in that epoch."""
        self._batches[:] = [[(epoch, entry) for entry in batch.tolist()] for batch in batches]
        if self._device.type == "cuda":
            yield from _sent_ahead(self._loader, self._device)
            return
        for pictures in self._loader:
            yield pictures.to(self._device)


@dataclass(frozen=True)
class _OfEpochs(Dataset[Tensor]):
    """Films by epoch and entry, so that the epoch reaches workers that outlive it."""

    films: Films

    def __getitem__(self, key: tuple[int, int]) -> UInt8[Tensor, "h w"]:
        epoch, entry = key
        return replace(self.films, epoch=epoch)[entry]


def feed(films: Films, *, batches: Sequence[Batch], device: torch.device) -> Generator[Tensor]:
    """Yield the pictures (uint8, b h w) of each batch on `device`, once."""
    yield from Feeder(films, device=device).feed(batches, epoch=films.epoch)


def _sent_ahead(batches: Iterable[Tensor], device: torch.device) -> Generator[Tensor]:
    """Yield pinned batches on a CUDA device, each sent before the one before it is computed."""
    copying = torch.cuda.Stream(device)

    def send(pictures: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        arrived = torch.cuda.Event()
        with torch.cuda.stream(copying):
            sent = pictures.to(device, non_blocking=True)
            arrived.record(copying)
        return sent, arrived

    for pictures, arrived in one_ahead(map(send, batches)):
        computing = torch.cuda.current_stream(device)
        computing.wait_event(arrived)
        pictures.record_stream(computing)
        yield pictures


def one_ahead(items: Iterable[Item]) -> Generator[Item]:
    """Yield items, each when the next has been taken.

    >>> list(one_ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    taken = iter(items)
    for held in islice(taken, 1):
        for item in taken:
            yield held
            held = item
        yield held
