"""What one training needs, gathered once: films, network, optimiser, device, course so far.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float32
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from lucency.choices import Network, Training
from lucency.judge.recalibrate import no_recalibration
from lucency.learn.augment import seed_of
from lucency.learn.course import Course, State, load_checkpoint
from lucency.learn.device import accelerator_for, laid_out, name_of
from lucency.learn.freezing import check_frozen, freeze
from lucency.learn.pretrained import fingerprint_weights, initialise
from lucency.learn.zoo import Classifier, FilmNetwork, build, check_name
from lucency.plan import Plan
from lucency.processes import world_size
from lucency.protocol import Protocol
from lucency.values import Prepared

UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_building = threading.Lock()  # on TPU v2 and v3 two ranks are threads and share torch's generator


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One network's training; `best` holds the best weights so far, `wrapped` may be parallel."""

    prepared: Prepared
    train: Plan
    val: Plan
    protocol: Protocol
    training: Training
    choice: Network
    provenance: str
    accelerator: Accelerator
    network: FilmNetwork
    wrapped: nn.Module
    optimizer: Optimizer
    course: Course
    best: State

    def classifier(self, *, split: str) -> Classifier:
        """Return the classifier of the best weights so far, as yet without fitted decisions."""
        findings = len(self.prepared.manifest.findings)
        self.network.body.load_state_dict(self.best)
        mean, std = (tuple(v.flatten().tolist()) for v in (self.network.mean, self.network.std))
        return Classifier(
            network=self.network,
            name=self.choice.name,
            architecture=self.choice.built,
            findings=self.prepared.manifest.findings,
            preparation=self.prepared.preparation,
            mean=mean,
            std=std,
            protocol=self.protocol.model_dump(mode="json"),
            provenance=self.provenance,
            split=split,
            device=name_of(self.accelerator.device),
            epoch=self.course.kept_epoch(self.training.keep) + 1,
            recalibration=no_recalibration(findings),
            threshold=np.full(findings, 0.5),
        )


def check_choice(choice: Network, *, root: Path, frozen: float | str = 0.0) -> None:
    """Raise ValueError unless the zoo has the network, its head and frozen layers, and weights."""
    check_name(choice.built, head=choice.head)
    check_frozen(choice.built, head=choice.head, frozen=frozen)
    fingerprint_weights(choice, root=root)


def check_labels(label: Float32[np.ndarray, "n k"], *, findings: tuple[str, ...]) -> None:
    """Raise ValueError unless every finding is stated, present or absent, on some training film."""
    stated = (~np.isnan(label)).sum(axis=0).tolist()
    names = [name for name, count in zip(findings, stated, strict=True) if not count]
    if names:
        raise ValueError(
            f"no training film has a stated label for {', '.join(names)}: expected some; "
            "leave these out of `findings`"
        )


def begin(
    prepared: Prepared, *, plan: Plan, protocol: Protocol, choice: Network, folder: Path
) -> Job:
    """Return the job of one network as the checkpoint in `folder`, if any, left it."""
    training = protocol.training_of(choice.name)
    accelerator = accelerator_for(training)
    if training.batch < 2 * world_size():
        raise ValueError(
            f"training.batch is {training.batch} for {world_size()} processes: expected at least "
            "two films a process"
        )
    with _building:
        torch.manual_seed(seed_of(training.seed, choice.name))
        network = build(
            choice.built,
            findings=len(prepared.manifest.findings),
            dropout=training.dropout,
            size=choice.size,
            mean_std=UNIT if training.normalise == "unit" else None,
            colour=choice.colour,
            head=choice.head,
        )
        provenance = initialise(network.body, choice=choice, root=Path(protocol.data.root))
    freeze(network, name=choice.built, frozen=training.frozen)
    optimizer = _optimizer(network, training, accelerator.device)
    wrapped, optimizer = accelerator.prepare(laid_out(network), optimizer)
    course, best = load_checkpoint(network=network, optimizer=optimizer, folder=folder)
    return Job(
        prepared=prepared,
        train=plan.take(plan.part == "train"),
        val=plan.take(plan.part == "val"),
        protocol=protocol,
        training=training,
        choice=choice,
        provenance=provenance,
        accelerator=accelerator,
        network=network,
        wrapped=wrapped,
        optimizer=optimizer,
        course=course,
        best=best,
    )


def _optimizer(network: FilmNetwork, training: Training, device: torch.device) -> Optimizer:
    """Return the optimiser; fused where PyTorch can (docs/decisions.md says what that is worth)."""
    own = {"momentum": 0.9, "nesterov": True} if training.optimizer == "sgd" else {}
    return OPTIMIZERS[training.optimizer](
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=device.type in ("cpu", "cuda"),
        **own,
    )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
