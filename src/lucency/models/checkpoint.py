"""The state of a training: how far it is, how it has gone, and its checkpoint on disk.

Part of the state are counts from which an epoch's accuracy and AUC come as Keras reports them,
pooled over films and findings. `binary_accuracy` counts what is right at .5. `AUC()` keeps how many
labels of either kind lie between 200 thresholds, 0 to 1 in equal steps, and sums trapezes; training
batches are counted with the weights of the moment.
Letters in shapes: b films, k findings, t counts between thresholds.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float, Float32, Float64
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.optim import Optimizer

from lucency.core.files import whole_file
from lucency.core.saved_files import TENSOR_DAMAGE, naming_damage

CHECKPOINT = "checkpoint.pt"
SECONDS = 60.0  # of training, at least, between two checkpoints
SHARE = 0.05  # of training time that writing checkpoints may take
HOURLY = 20e9  # bytes that they may write in an hour
SLOWEST = 50e6  # bytes a second, believed of a disk until it has written one
ANEW = "delete it, and the training begins anew"
STEPS = 199  # between Keras's 200 thresholds
BINS = STEPS + 1
RIGHT, ALL = 2 * BINS, 2 * BINS + 1  # after negatives and positives in each bin
SIZE = 2 * BINS + 2
State = dict[str, Tensor]


@dataclass(kw_only=True)
class TrainingState:
    """How far a training is: the next step, the loss of every step, what epochs gave."""

    step: int = 0
    epoch: int = 0
    step_loss: list[float] = field(default_factory=list)
    epochs: list[dict[str, int | float]] = field(default_factory=list)
    best_epoch: int = -1
    counts: list[float] = field(default_factory=lambda: [0.0] * SIZE)  # of `tally`, this epoch
    seconds: float = 0.0

    def finish_epoch(self, figures: dict[str, int | float]) -> None:
        """Enter an epoch's figures; the best so far has the highest validation AUC."""
        self.epochs.append(figures)
        auc = np.array([one["val_auc"] for one in self.epochs])
        self.best_epoch = int(np.where(np.isnan(auc), -np.inf, auc).argmax())
        self.epoch += 1
        self.counts = [0.0] * SIZE

    def kept_epoch(self, keep: str) -> int:
        """Return the epoch, from 0, whose weights are kept: the best or the last so far."""
        return self.best_epoch if keep == "best" else self.epoch - 1


@dataclass(kw_only=True)
class Pace:
    """When checkpoints may be written: by time, and by what they cost in time and bytes.

    Times are in seconds of one clock; `begun` is when this process began to train.
    """

    begun: float
    saved: float = -math.inf
    spent: float = 0.0
    rate: float = SLOWEST

    def is_due(self, now: float, size: Callable[[], int]) -> bool:
        """Return whether a checkpoint of `size()` bytes may be written now.

        Writing, this one included, has then taken at most SHARE of the time since the beginning,
        if this one takes as long a byte as the last; and since the last no less time has passed
        than its own bytes take at HOURLY.
        """
        waited = now - max(self.begun, self.saved)
        if waited < SECONDS or waited < size() / HOURLY * 3600:
            return False
        return self.spent + size() / self.rate <= SHARE * (now - self.begun)

    def wrote(self, *, size: int, started: float, ended: float) -> None:
        """Enter what a checkpoint has cost."""
        self.saved, self.spent = ended, self.spent + ended - started
        self.rate = size / max(ended - started, 1e-9)


def tensors_of(
    *, network: nn.Module, optimizer: Optimizer, average: nn.Module | None, best: State
) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint holds beside the state; nothing is copied."""
    tensors = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "best": best}
    if average is not None:
        tensors["average"] = average.state_dict()
    return tensors


def size_of(tensors: object) -> int:
    """Return how many bytes the tensors in nested dictionaries have."""
    if isinstance(tensors, dict):
        return sum(map(size_of, tensors.values()))
    return tensors.nbytes if isinstance(tensors, Tensor) else 0


def save_checkpoint(
    state: TrainingState, tensors: dict[str, dict[str, Any]], *, folder: Path
) -> None:
    """Replace the checkpoint in one rename, so that a kill leaves the old one or the new one.

    Tensors, as `tensors_of` gives them, are written as a CPU's, so that every device can read them.
    """
    content = {"state": json.dumps(asdict(state)), **send_to_device(tensors, "cpu")}
    with whole_file(folder / CHECKPOINT) as stream, _errors_of_the_system():
        torch.save(content, stream)


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """Let an error of a file through that torch, at the end of its archive, covers with its own."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load_checkpoint(
    *, network: nn.Module, optimizer: Optimizer, average: nn.Module | None, folder: Path
) -> tuple[TrainingState, State]:
    """Return the state and the best weights so far, and set network, optimiser and average.

    Raises ValueError for a damaged file, and OSError for one that the system does not read.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        return TrainingState(), {}
    content = _read(file)
    modules = {"network": network} | ({} if average is None else {"average": average})
    with naming_damage(file, remedy=ANEW):
        for name, module in modules.items():
            _require_shapes(name, content.get(name), module.state_dict())
        best = content.get("best")
        if not (isinstance(best, dict) and all(isinstance(one, Tensor) for one in best.values())):
            raise ValueError("no best weights")
        state = TypeAdapter(TrainingState).validate_python(_plain(content.get("state")))
        if not {"state", "param_groups"} <= {*(content.get("optimizer") or ())}:
            raise ValueError("no state of an optimizer")
        optimizer.load_state_dict(content["optimizer"])
    for name, module in modules.items():
        module.load_state_dict(content[name])
    return state, best


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a checkpoint."""
    with naming_damage(file, kinds=TENSOR_DAMAGE, remedy=ANEW):
        with file.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how a file was pickled that is refused
            content = torch.load(stream, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"found a {type(content).__name__}, expected a dict")
        return content


def _plain(state: object) -> object:
    return json.loads(state) if isinstance(state, str) else state


def _require_shapes(what: str, found: object, own: State) -> None:
    """Raise ValueError unless tensors are of the names and shapes of a module's own."""
    held = found if isinstance(found, dict) else {}
    if _shapes(held) != _shapes(own):
        raise ValueError(f"{what}: found other tensors than this network has")


def _shapes(tensors: dict[str, Any]) -> dict[str, torch.Size | None]:
    return {name: getattr(one, "shape", None) for name, one in tensors.items()}


def tally(logit: Float[Tensor, "b k"], label: Float32[Tensor, "b k"]) -> Float32[Tensor, " t"]:
    """Return the counts of one batch; they may be added up over batches and processes.

    Labels that are not stated (NaN) do not count.
    """
    stated, positive = ~torch.isnan(label), label == 1
    probability = torch.sigmoid(logit.detach().float())
    above = torch.ceil(probability * STEPS).long().clamp(min=1, max=STEPS)
    right = ((probability > 0.5) == positive).float()
    counts = torch.zeros(SIZE, device=logit.device)
    counts.index_add_(0, (above + BINS * positive.long()).ravel(), stated.float().ravel())
    counts[RIGHT], counts[ALL] = (right * stated).sum(), stated.sum()
    return counts


def pooled_auc(counts: Float64[np.ndarray, " t"]) -> float:
    """Return the area under the ROC curve through the thresholds; NaN where a class is absent."""
    negatives, positives = counts[:BINS], counts[BINS : 2 * BINS]
    if not (negatives.sum() and positives.sum()):
        return float("nan")
    false, true = (
        np.append(0.0, side[::-1].cumsum() / side.sum()) for side in (negatives, positives)
    )
    return float(np.trapezoid(true, false))


def binary_accuracy(counts: Float64[np.ndarray, " t"]) -> float:
    """Return the share of right answers at .5; NaN where nothing was stated."""
    return float(counts[RIGHT] / counts[ALL]) if counts[ALL] else float("nan")
