"""The learning rate as a function of how far training is and how it has gone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lucency.choices import Training

PLATEAU_PATIENCE, PLATEAU_FACTOR = 2, 0.3


def learning_rate(
    training: Training, *, step: int, steps_an_epoch: int, val_loss: Sequence[float]
) -> float:
    """Return the rate of optimiser step `step` (from 0): linear warm-up, then the schedule."""
    warm_up = training.warmup_epochs * steps_an_epoch
    if step < warm_up:
        return training.learning_rate * (step + 1) / (warm_up + 1)
    total = training.epochs * steps_an_epoch
    done = (step - warm_up) / max(1.0, total - warm_up)
    return training.learning_rate * _SCHEDULES[training.schedule](done, val_loss)


def _constant(done: float, val_loss: Sequence[float]) -> float:
    del done, val_loss
    return 1.0


def _cosine(done: float, val_loss: Sequence[float]) -> float:
    del val_loss
    return 0.5 * (1 + math.cos(math.pi * done))


def _plateau(done: float, val_loss: Sequence[float]) -> float:
    """Return the factor, cut when more than PLATEAU_PATIENCE epochs brought no lower loss."""
    del done
    factor, best, waited = 1.0, math.inf, 0
    for loss in val_loss:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited > PLATEAU_PATIENCE:
            factor, waited = factor * PLATEAU_FACTOR, 0
    return factor


_SCHEDULES = {"constant": _constant, "cosine": _cosine, "plateau": _plateau}
