"""Validation during training: each process computes its share of the films.

Letters in shapes: m validation entries, k findings.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from accelerate.utils import broadcast, broadcast_object_list, reduce
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from lucency.core.parallel import rank, world_size
from lucency.evaluation.metrics import macro_auc
from lucency.models import checkpoint
from lucency.models.device import device_here
from lucency.models.film_loader import Films, batches_in_order
from lucency.models.inference import BATCH, forward, over_batches
from lucency.models.losses import mean_cross_entropy
from lucency.models.networks import FilmNetwork


def validate(network: FilmNetwork, films: Films) -> dict[str, float]:
    """Return the figures of all films in every process; all must call this together.

    The batch statistics are the first process's. Batches are those of one process, so its logits
    come out to the bit on equal devices. Raises ValueError, naming the first film, where processes
    have other films.
    """
    if world_size() == 1:
        return validate_here(network, films)
    send_statistics(network)
    name = films.plan.names(films.prepared.manifest.image)
    number = np.array([zlib.crc32(str(one).encode()) for one in name], dtype=np.int64)
    logit, found = (_added_up(one) for one in _own_share(network, films, number))
    if (other := found != number).any():
        raise ValueError(
            f"validation: the processes have different films in place of {name[other][0]}: "
            "expected one plan; let all of them see the same --out"
        )
    figures = [_figures(logit, films) if rank() == 0 else {}]
    return broadcast_object_list(figures)[0]


def validate_here(network: FilmNetwork, films: Films) -> dict[str, float]:
    """Return loss, macro AUC, and accuracy and pooled AUC as Keras has them, by this process."""
    return _figures(forward(network, films=films)[0], films)


def send_statistics(network: nn.Module) -> None:
    """Give every process the first one's buffers, such as the batch statistics of an average."""
    for buffer in network.buffers():
        buffer.copy_(broadcast(buffer))  # in place but on XLA


def _own_share(
    network: FilmNetwork, films: Films, number: Int64[np.ndarray, " m"]
) -> tuple[Float32[np.ndarray, "m k"], Int64[np.ndarray, " m"]]:
    """Return this process's logits, and the numbers of its films, 0 in the others' places."""
    batches = batches_in_order(len(films), batch=BATCH)[rank() :: world_size()]
    logit, found = np.zeros_like(films.plan.label), np.zeros_like(number)

    def logits(pictures: Tensor) -> Float32[np.ndarray, "_ k"]:
        with torch.inference_mode():
            return network(pictures).float().cpu().numpy()

    made = over_batches(network, logits, films=films, batches=batches)
    for batch, values in zip(batches, made, strict=True):
        logit[batch], found[batch] = values, number[batch]
    return logit, found


def _added_up(values: np.ndarray) -> np.ndarray:
    total = reduce(torch.from_numpy(values).to(device_here()), reduction="sum")
    assert isinstance(total, Tensor)
    return total.cpu().numpy()


def _figures(logit: Float32[np.ndarray, "m k"], films: Films) -> dict[str, float]:
    score, label = torch.from_numpy(logit), torch.from_numpy(films.plan.label)
    counts = checkpoint.tally(score, label).double().numpy()
    return {
        "val_loss": float(mean_cross_entropy(score, label=label)),
        "val_auc": macro_auc(films.plan.label, logit),
        "val_accuracy": checkpoint.binary_accuracy(counts),
        "val_pooled_auc": checkpoint.pooled_auc(counts),
    }
