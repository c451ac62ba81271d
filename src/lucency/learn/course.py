"""The course of a training: how far it is, how it has gone, and its checkpoint on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from lucency.learn.tally import SIZE

CHECKPOINT = "checkpoint.pt"
State = dict[str, Tensor]


@dataclass(kw_only=True)
class Course:
    """How far a training is: the next step, the loss of every step, what epochs gave."""

    step: int = 0
    epoch: int = 0
    step_loss: list[float] = field(default_factory=list)
    epochs: list[dict[str, int | float]] = field(default_factory=list)
    best_epoch: int = -1
    counts: list[float] = field(default_factory=lambda: [0.0] * SIZE)  # of learn.tally, this epoch
    seconds: float = 0.0

    def add_counts(self, counts: Sequence[float]) -> None:
        """Add a batch's counts, of learn.tally, to those of the epoch."""
        self.counts = [one + other for one, other in zip(self.counts, counts, strict=True)]

    def finish_epoch(self, figures: dict[str, int | float]) -> None:
        """Enter an epoch's figures; the best so far has the highest validation AUC."""
        self.epochs.append(figures)
        if self.best_epoch < 0 or _score(figures) > _score(self.epochs[self.best_epoch]):
            self.best_epoch = self.epoch
        self.epoch += 1
        self.counts = [0.0] * SIZE

    def kept_epoch(self, keep: str) -> int:
        """Return the epoch, from 0, whose weights are kept: the best or the last so far."""
        return self.best_epoch if keep == "best" else self.epoch - 1


def save_checkpoint(
    course: Course, *, network: nn.Module, optimizer: Optimizer, best: State, folder: Path
) -> None:
    """Replace the checkpoint in one rename, so that a kill leaves the old one or the new one.

    Tensors are written as a CPU's, so that every device can read them.
    """
    tensors = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": best,
    }
    content = {"course": json.dumps(asdict(course)), **send_to_device(tensors, "cpu")}
    partial = folder / (CHECKPOINT + ".new")
    torch.save(content, partial)
    partial.rename(folder / CHECKPOINT)


def load_checkpoint(
    *, network: nn.Module, optimizer: Optimizer, folder: Path
) -> tuple[Course, State]:
    """Return the course and the best weights so far, and set network and optimiser accordingly."""
    file = folder / CHECKPOINT
    if not file.exists():
        return Course(), {}
    content = torch.load(file, map_location="cpu", weights_only=True)
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    return Course(**json.loads(content["course"])), content["best"]


def write_events(figures: Mapping[str, int | float], folder: Path) -> None:
    """Add an epoch's figures to TensorBoard's files; raises ValueError without that package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise ValueError(
            "training.tensorboard = true needs the package tensorboard: pip install it"
        ) from None
    with SummaryWriter(str(folder)) as writer:
        for name, value in figures.items():
            writer.add_scalar(name, value, int(figures["step"]))


def _score(figures: dict[str, int | float]) -> float:
    auc = figures["val_auc"]
    return -math.inf if math.isnan(auc) else auc
