"""By which optimiser and at which rate a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from lucency.config.sections import Training
from lucency.models.layers import groups_of
from lucency.models.networks import FilmNetwork

PLATEAU_PATIENCE, PLATEAU_FACTOR = 2, 0.3


def optimizer_for(network: FilmNetwork, training: Training, device: torch.device) -> Optimizer:
    """Return the optimiser; fused where PyTorch can (docs/decisions.md has what that is worth).

    Not SGD: fused, it fails where weights that were frozen have no momentum yet.
    """
    own = {"momentum": 0.9, "nesterov": True} if training.optimizer == "sgd" else {}
    return OPTIMIZERS[training.optimizer](
        groups_of(network, decay=training.layer_decay),
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=device.type in ("cpu", "cuda") and training.optimizer != "sgd",
        **own,
    )


def learning_rate(
    training: Training, *, step: int, steps_an_epoch: int, val_loss: Sequence[float]
) -> float:
    """Return the rate of optimiser step `step` (from 0): linear warm-up, then the schedule.

    "cyclic" falls along a cosine anew in every cycle (Huang et al., ICLR 2017). Before epochs whose
    weights are averaged it falls to their constant rate.
    """
    warm_up = training.warmup_epochs * steps_an_epoch
    if step < warm_up:
        return training.learning_rate * (step + 1) / (warm_up + 1)
    least = training.swa_rate if training.swa_epochs else 0.0
    if step >= (training.epochs - training.swa_epochs) * steps_an_epoch:
        return training.learning_rate * least
    ends = [end * steps_an_epoch for end in cycle_ends(training)]
    end = next(end for end in ends if step < end)
    start = max([warm_up, *(one for one in ends if one <= step)])
    done = (step - start) / max(1.0, end - start)
    return training.learning_rate * max(least, SCHEDULES[training.schedule](done, val_loss))


def cycle_ends(training: Training) -> list[int]:
    """Return the epochs that end a cycle of the schedule, of whole epochs and as equal as may be.

    Without snapshots training is one cycle, before weights are averaged.
    """
    cycles, epochs = max(1, training.snapshots), training.epochs - training.swa_epochs
    return [epochs * (cycle + 1) // cycles for cycle in range(cycles)]


def _cosine(done: float, *_: object) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _plateau(_: float, val_loss: Sequence[float]) -> float:
    """Return the factor, cut when more than PLATEAU_PATIENCE epochs brought no lower loss."""
    factor, best, waited = 1.0, math.inf, 0
    for loss in val_loss:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited > PLATEAU_PATIENCE:
            factor, waited = factor * PLATEAU_FACTOR, 0
    return factor


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
SCHEDULES: dict[str, Callable[[float, Sequence[float]], float]] = {
    "constant": lambda *_: 1.0,
    "cosine": _cosine,
    "plateau": _plateau,
    "cyclic": _cosine,
}
