"""Averages of a training's weights, which are validated and kept in their place."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from lucency.config.sections import Training
from lucency.models.film_loader import Films, batches_in_order, feed
from lucency.models.networks import BATCH_NORMS, FilmNetwork


def average_for(network: FilmNetwork, training: Training) -> AveragedModel | None:
    """Return the average that a training keeps, of no weights yet: none, or a copy's.

    `ema` is the exponential one, of every step, batch statistics too (Tarvainen and Valpola, "Mean
    teachers", NeurIPS 2017); the first step's weights begin it. `swa_epochs` is the plain one of
    the last epochs' ends (Izmailov et al., "Averaging weights leads to wider optima", UAI 2018).
    """
    if training.ema:
        return AveragedModel(network, multi_avg_fn=_by_decay(training.ema), use_buffers=True)
    return AveragedModel(network) if training.swa_epochs else None


def _by_decay(decay: float) -> Callable[..., None]:
    """Return torch's exponential average; whole numbers, such as a table of colours, are copied."""
    mix = get_ema_multi_avg_fn(decay)

    def average(averaged: list[Tensor], current: list[Tensor], number: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            mix(averaged, current, number)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return average


def measure_batches(network: nn.Module, films: Films, *, batch: int) -> None:
    """Set the batch statistics of an average to those of training films, as Izmailov et al. do."""
    if any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        batches = batches_in_order(len(films), batch=batch)
        device = next(network.parameters()).device
        update_bn(feed(films, batches=batches, device=device), network)
