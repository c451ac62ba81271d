"""The learning rate as a function of how far training is and how it has gone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lucency.config.sections import Training

PLATEAU_PATIENCE, PLATEAU_FACTOR = 2, 0.3


def learning_rate(
    training: Training, *, step: int, steps_an_epoch: int, val_loss: Sequence[float]
) -> float:
    """Return the rate of optimiser step `step` (from 0): linear warm-up, then the schedule.

    "cyclic" falls along a cosine anew in every cycle (Huang et al., ICLR 2017).
    """
    warm_up = training.warmup_epochs * steps_an_epoch
    if step < warm_up:
        return training.learning_rate * (step + 1) / (warm_up + 1)
    ends = [end * steps_an_epoch for end in cycle_ends(training)]
    end = next(end for end in ends if step < end)
    start = max([warm_up, *(one for one in ends if one <= step)])
    done = (step - start) / max(1.0, end - start)
    return training.learning_rate * _SCHEDULES[training.schedule](done, val_loss)


def cycle_ends(training: Training) -> list[int]:
    """Return the epochs that end a cycle of the schedule, of whole epochs and as equal as may be.

    Without snapshots training is one cycle.
    """
    cycles = max(1, training.snapshots)
    return [training.epochs * (cycle + 1) // cycles for cycle in range(cycles)]


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


_SCHEDULES = {"constant": _constant, "cosine": _cosine, "plateau": _plateau, "cyclic": _cosine}
