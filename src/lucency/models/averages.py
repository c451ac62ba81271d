"""Averages of a training's weights, which are validated and kept in their place."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from lucency.config.sections import Training
from lucency.models.film_loader import Films, batches_in_order, feed
from lucency.models.networks import BATCH_NORMS, FilmNetwork


def average_for(network: FilmNetwork, training: Training) -> AveragedModel | None:
    """Return the average that a training keeps, of no weights yet: none, or a copy's.

    `ema` is the exponential one, of every step, batch statistics too (Polyak and Juditsky, SIAM
    Journal on Control and Optimization 30, 1992; the decay is raised to its value from the first
    step, whose weights begin it). `swa_epochs` is the plain one of the last epochs' ends (Izmailov
    et al., "Averaging weights leads to wider optima", UAI 2018).
    """
    if training.ema:
        decay = get_ema_multi_avg_fn(training.ema)
        return AveragedModel(network, multi_avg_fn=decay, use_buffers=True)
    return AveragedModel(network) if training.swa_epochs else None


def measure_batches(network: nn.Module, films: Films, *, batch: int) -> None:
    """Set the batch statistics of an average to those of training films, as Izmailov et al. do."""
    if any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        batches = batches_in_order(len(films), batch=batch)
        device = next(network.parameters()).device
        update_bn(feed(films, batches=batches, device=device), network)
