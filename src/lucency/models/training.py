"""Training: one network, one plan, any device; killed at any step it goes on from a checkpoint.

Every random choice is a function of the seed and the step, so a resumed training on a CPU ends
with the bytes of an unbroken one.
Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from jaxtyping import Float32
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from lucency.config.protocol import Protocol, without_places
from lucency.config.sections import EvaluationChoices, Network, Training
from lucency.core.files import write_table
from lucency.core.manifest import Prepared, counted
from lucency.core.memory import check_room
from lucency.core.parallel import rank, world_size
from lucency.core.plan import Plan
from lucency.core.progress import Advance, AfterEpoch, say, unwatched
from lucency.core.stage import inputs_of, is_complete, partial_folder
from lucency.evaluation.calibration import no_recalibration, recalibrate
from lucency.evaluation.conformal import fit_sets
from lucency.evaluation.thresholds import threshold_table
from lucency.models import checkpoint, optimisation
from lucency.models.augmentation import seed_of
from lucency.models.averages import average_for, measure_batches
from lucency.models.batch_norm import SynchronisedBatchNorm
from lucency.models.classifier import (
    LOWER,
    Classifier,
    DivergedError,
    save_classifier,
    save_weights,
)
from lucency.models.device import accelerator_for, laid_out, name_of
from lucency.models.film_loader import (
    Batch,
    Feeder,
    Films,
    Targets,
    in_pieces,
    share_of_process,
    shuffled_batches,
)
from lucency.models.inference import predict
from lucency.models.layers import thaw
from lucency.models.linear_probe import fit_head, require_linear
from lucency.models.losses import Context, batch_loss, count_labels
from lucency.models.networks import (
    FilmNetwork,
    build_body,
    build_chosen,
    check_frozen,
    check_name,
    freeze,
)
from lucency.models.trackers import check_tracker, tracked
from lucency.models.validation import validate, validate_here
from lucency.models.weights import fingerprint_weights, initialise

UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SETTLE_STEPS = 10
_building = threading.Lock()  # on TPU v2 and v3 two ranks are threads and share torch's generator


@dataclass(kw_only=True, eq=False)
class Job:
    """One network's training; `best` holds the best weights so far, `wrapped` may be parallel.

    `settled` is when losses were last settled, in seconds of `time.monotonic`; `counts` is what
    `count_labels` finds among the training entries.
    """

    train: Films
    val: Films
    feeder: Feeder
    protocol: Protocol
    training: Training
    choice: Network
    provenance: str
    accelerator: Accelerator
    network: FilmNetwork
    wrapped: nn.Module
    optimizer: Optimizer
    state: checkpoint.TrainingState
    best: checkpoint.State
    counts: torch.Tensor
    settled: float
    pace: checkpoint.Pace
    average: AveragedModel | None

    @property
    def shown(self) -> FilmNetwork:
        """The network that is validated and kept: the average of weights, where there is one."""
        if self.average is None or not self.average.n_averaged:
            return self.network
        assert isinstance(self.average.module, FilmNetwork)
        return self.average.module


def train(  # noqa: PLR0913 - what a training is made from, and two who watch it
    prepared: Prepared,
    *,
    plan: Plan,
    protocol: Protocol,
    choice: Network,
    upstream: Mapping[str, str],
    out: Path,
    progress: Advance,
    after_epoch: AfterEpoch = unwatched,
) -> Path:
    """Train one network on the plan's training entries; `load_classifier(out)` reads it.

    The stage: `out` holds weights.safetensors, classifier.json, history.csv and steps.csv.
    Losses see a share where `Manifest.soft` has one; all else sees labels of 0 and 1.
    `upstream` names what the plan came from and must hold `split`, the parts' fingerprint.
    `after_epoch` also sees, in the beginning, the epochs of a training that goes on.
    """
    inputs = {
        "training": protocol.training_of(choice.name).deciding | _tracked_before(out),
        "network": choice.model_dump(exclude={"training"}),
        "weights": fingerprint_weights(choice, root=Path(protocol.data.root)),
        "findings": list(prepared.manifest.findings),
        "evaluation": protocol.evaluation.deciding,
        **upstream,
    }
    if not is_complete(out, inputs=inputs):
        shared = nullcontext(out.with_name(out.name + ".partial"))
        with partial_folder(out, inputs=inputs) if rank() == 0 else shared as folder:
            job = _begin(prepared, plan=plan, protocol=protocol, choice=choice, folder=folder)
            job.accelerator.wait_for_everyone()
            with tracked(protocol, choice=choice, folder=folder) as track:
                _learn(job, folder, progress, watch=(track, after_epoch))
            if rank() == 0:
                _save(job, folder, split=upstream["split"])
        job.accelerator.wait_for_everyone()
    if rank() == 0:
        # Not before: a kill would lose it all. A kill just before has left it.
        left = out / checkpoint.CHECKPOINT
        if left.exists():  # or a finished run could not be read where nothing may be written
            left.unlink()
    return out


def _tracked_before(out: Path) -> dict[str, bool]:
    """Return what the receipt of a network has of its tracker, of which no other is made anew.

    It was `tensorboard` before there were others; `false` still says nothing.
    """
    known = (inputs_of(out) or {}).get("training", {})
    return {"tensorboard": known.get("tensorboard", False)}


def check_choice(choice: Network, *, root: Path, training: Training | None = None) -> None:
    """Raise ValueError unless network, head and weights exist, and the training fits them."""
    check_name(choice.built, head=choice.head)
    if training is not None:
        check_tracker(training.tracker)
        check_layers(choice, training=training)
    fingerprint_weights(choice, root=root)


def check_layers(choice: Network, *, training: Training) -> None:
    """Raise ValueError unless the network has the layers that its training needs."""
    check_frozen(choice.built, head=choice.head, frozen=training.frozen)
    if training.probe or training.retrain != "none":
        with torch.device("meta"):
            body = build_body(choice.built, head=choice.head)
        require_linear(body, name=choice.name)


def check_labels(label: Float32[np.ndarray, "n k"], *, findings: tuple[str, ...]) -> None:
    """Raise ValueError unless every finding is stated, present or absent, on some training film."""
    stated = (~np.isnan(label)).sum(axis=0).tolist()
    names = [name for name, count in zip(findings, stated, strict=True) if not count]
    if names:
        raise ValueError(
            f"no training film has a stated label for {', '.join(names)}: expected some; "
            "leave these out of `findings`"
        )


def fit_decisions(
    classifier: Classifier, *, prepared: Prepared, plan: Plan, choices: EvaluationChoices
) -> Classifier:
    """Return the classifier with recalibration, thresholds and sets fitted to validation films.

    `plan` holds validation films as they are, at their natural prevalence, whatever training saw.
    """
    predictions = predict(classifier, prepared=prepared, plan=plan)
    line = recalibrate(predictions.label, predictions.logit, method=choices.recalibration)
    known = replace(predictions, slope=line.slope, offset=line.offset, knot=line.knot)
    table = threshold_table(known, method=choices.threshold, recall=choices.recall)
    threshold = table["threshold"].to_numpy(dtype=np.float64)
    sets = fit_sets(known, **choices.levels)
    return replace(classifier, recalibration=line, threshold=threshold, sets=sets)


def _begin(
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
        network = build_chosen(
            choice,
            findings=len(prepared.manifest.findings),
            dropout=training.dropout,
            mean_std=UNIT if training.normalise == "unit" else None,
        )
        provenance = initialise(network.body, choice=choice, root=Path(protocol.data.root))
    freeze(network, name=choice.built, frozen=training.frozen)
    val = Films(prepared=prepared, plan=plan.take(plan.part == "val"), copies=protocol.balance.seed)
    films = replace(val, plan=plan.take(plan.part == "train"))
    if training.probe and not (folder / checkpoint.CHECKPOINT).exists():
        say(f"{choice.name}: linear probe on features of {counted(len(films), 'film')}")
        fit_head(network, train=films, val=val, classes="natural")
    optimizer = optimisation.optimizer_for(network, training, accelerator.device)
    wrapped, optimizer = accelerator.prepare(laid_out(network), optimizer)
    average = average_for(network, training)
    state, best = checkpoint.load_checkpoint(
        network=network, optimizer=optimizer, average=average, folder=folder
    )
    change = {"recipe": training.recipe, "seed": training.seed, "mixup": training.mixup}
    films, now = replace(films, **change), time.monotonic()
    return Job(
        train=films,
        val=val,
        feeder=Feeder(films, device=accelerator.device),
        protocol=protocol,
        training=training,
        choice=choice,
        provenance=provenance,
        accelerator=accelerator,
        network=network,
        wrapped=wrapped,
        optimizer=optimizer,
        state=state,
        best=best,
        counts=count_labels(films.aims),
        settled=now,
        pace=checkpoint.Pace(begun=now),
        average=average,
    )


def _learn(job: Job, folder: Path, progress: Advance, *, watch: tuple[AfterEpoch, ...]) -> None:
    """Train from where the state is to the end, or until patience runs out."""
    _show_epochs(job, watch)
    steps = len(shuffled_batches(len(job.train), batch=job.training.batch, seed=0, epoch=0))
    films = job.training.epochs * len(job.train)
    progress(job.state.step * len(job.train) // steps, films, "")
    while job.state.epoch < job.training.epochs and not _out_of_patience(job):
        _learn_epoch(job, folder, progress)
        _finish_epoch(job, folder)
        progress(job.state.epoch * len(job.train), films, _figures(job.state))
        _show_epochs(job, watch)
        job.accelerator.wait_for_everyone()
    if job.training.retrain != "none":
        _retrain(job, folder)
        _show_epochs(job, watch)


def _show_epochs(job: Job, watch: tuple[AfterEpoch, ...]) -> None:
    """Let those who watch see all epochs so far, if there are any."""
    for see in watch if job.state.epochs else ():
        see(job.state.epochs)


def _retrain(job: Job, folder: Path) -> None:
    """Find the head of the kept weights anew, as a last row of history.csv; rank 0 needs it."""
    if rank() > 0:
        return
    state, started = job.state, time.monotonic()
    job.network.body.load_state_dict(job.best)
    job.average = None
    films = replace(job.train, recipe="none", mixup=0.0)
    say(f"{job.choice.name}: the head anew on features of {counted(len(films), 'film')}")
    fit_head(job.network, train=films, val=job.val, classes=job.training.retrain)
    figures = {
        **dict.fromkeys(state.epochs[-1], math.nan),
        "epoch": state.epoch + 1,
        "step": state.step,
        **validate_here(job.shown, job.val),
        "seconds": state.seconds + time.monotonic() - started,
    }
    state.epochs.append(figures)
    job.best.update(_copied(job.network))
    write_table(pd.DataFrame(state.epochs), folder / "history.csv")


def _out_of_patience(job: Job) -> bool:
    waited = job.state.epoch - 1 - job.state.best_epoch
    return 0 < job.training.patience <= waited and job.state.best_epoch >= 0


def _learn_epoch(job: Job, folder: Path, progress: Advance) -> None:
    state, training = job.state, job.training
    batches = shuffled_batches(
        len(job.train), batch=training.batch, seed=training.seed, epoch=state.epoch
    )
    job.network.frozen_body = state.epoch < training.frozen_epochs
    if training.unfreeze_epochs:
        trained = [one for group in job.optimizer.param_groups for one in group["params"]]
        thaw(job.network, min(1.0, state.epoch / training.unfreeze_epochs), among=trained)
    job.wrapped.train()
    losses: list[torch.Tensor] = []
    counts = torch.zeros(checkpoint.SIZE, device=job.accelerator.device)
    job.settled = time.monotonic()
    todo = batches[state.step - state.epoch * len(batches) :]
    pieces = [piece for batch in todo for piece in in_pieces(batch, films=training.micro_batch)]
    shares = [share_of_process(piece) for piece in pieces]
    films = replace(job.train, epoch=state.epoch)
    val_loss = [epoch["val_loss"] for epoch in state.epochs]
    with closing(job.feeder.feed(shares, epoch=state.epoch)) as pictured:
        for batch in todo:
            rate = optimisation.learning_rate(
                training, step=state.step, steps_an_epoch=len(batches), val_loss=val_loss
            )
            loss, counted = _step(job, films, pictured, batch, rate)
            losses.append(loss)
            counts += counted
            state.step += 1
            last = batch is batches[-1]
            if len(losses) < SETTLE_STEPS and not last:
                continue
            _settle(job, losses, counts)
            if not last:  # whose figures and checkpoint come with the epoch's
                total, done = training.epochs * len(job.train), state.step * len(job.train)
                progress(done // len(batches), total, _figures(state))
                _checkpoint_if_due(job, folder)


def _step(
    job: Job, films: Films, pictured: Iterator[torch.Tensor], batch: Batch, rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one optimiser step on this process's share; return the global batch's loss and tally.

    Gradients of the batch's pieces are added up, and exchanged with those of the last.
    """
    torch.manual_seed(seed_of(job.training.seed, job.state.step, rank()))
    for group in job.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    wanted = films.targets(batch, smoothing=job.training.smoothing)
    pieces = in_pieces(batch, films=job.training.micro_batch)
    job.optimizer.zero_grad()
    figures = torch.zeros(1 + checkpoint.SIZE, device=job.accelerator.device)
    start = 0
    for piece, pictures in zip(pieces, islice(pictured, len(pieces)), strict=True):
        alone = piece is not pieces[-1]
        with job.accelerator.no_sync(job.wrapped) if alone else nullcontext():
            figures += _add_gradients(job, films, wanted, pictures, piece, start)
        start += len(piece)
    if job.training.clip_norm:
        job.accelerator.clip_grad_norm_(job.wrapped.parameters(), job.training.clip_norm)
    job.optimizer.step()
    if job.training.ema and job.average is not None:
        job.average.update_parameters(job.network)
    total = job.accelerator.reduce(figures, reduction="sum")
    assert isinstance(total, torch.Tensor)
    return total[0], total[1:]


def _add_gradients(
    job: Job, films: Films, wanted: Targets, pictures: torch.Tensor, piece: Batch, start: int
) -> torch.Tensor:
    """Add the gradients of this process's share of a piece; return its part of loss and tally.

    `wanted` is what the network should give for the global batch, of which the piece begins at
    row `start`.
    """
    rows = slice(start, start + len(piece))
    label, weight, among = (
        torch.from_numpy(one).to(pictures.device)
        for one in (
            share_of_process(wanted.label[rows]),
            share_of_process(wanted.weight[rows]),
            wanted.label,
        )
    )
    together = job.training.sync_batch_norm and world_size() > 1
    with SynchronisedBatchNorm() if together else nullcontext():
        logit = job.wrapped(pictures)
    reweigh = job.state.epoch / job.training.epochs >= job.training.reweigh_after
    context = Context(among=among, counts=job.counts, reweigh=reweigh)
    loss = batch_loss(job.training.loss, logit, label=label, weight=weight, context=context)
    check_room()
    job.accelerator.backward(loss * world_size())
    own = torch.from_numpy(films.plan.label[share_of_process(piece)]).to(pictures.device)
    return torch.cat([loss.detach()[None], checkpoint.tally(logit, own)])


def _settle(job: Job, losses: list[torch.Tensor], counts: torch.Tensor) -> None:
    """Move losses and counts from the device, and the time since then, into the state."""
    values = [float(loss) for loss in losses]
    if not all(map(math.isfinite, values)):
        raise DivergedError(
            f"{job.choice.name}: the loss is no longer finite before step {job.state.step}: {LOWER}"
        )
    losses.clear()
    job.state.step_loss += values
    job.state.counts = np.add(job.state.counts, counts.tolist()).tolist()
    counts.zero_()
    now = time.monotonic()
    job.state.seconds += now - job.settled
    job.settled = now


def _figures(state: checkpoint.TrainingState) -> str:
    recent = state.step_loss[-SETTLE_STEPS:] or [state.epochs[-1]["train_loss"]]
    loss = f"loss {np.mean(recent):.3f}"
    return f"{loss}, val AUC {state.epochs[-1]['val_auc']:.3f}" if state.epochs else loss


def _checkpoint_if_due(job: Job, folder: Path) -> None:
    """Write a checkpoint, unless it is too early or would cost too much; rank 0 does."""
    if rank() > 0:
        return
    tensors = partial(
        checkpoint.tensors_of,
        network=job.network,
        optimizer=job.optimizer,
        average=job.average,
        best=job.best,
    )
    started = time.monotonic()
    if job.pace.is_due(started, lambda: checkpoint.size_of(tensors())):
        checkpoint.save_checkpoint(job.state, tensors(), folder=folder)
        job.settled = time.monotonic()
        size = checkpoint.size_of(tensors())
        job.pace.wrote(size=size, started=started, ended=job.settled)


def _finish_epoch(job: Job, folder: Path) -> None:
    """Validate the epoch; keep its weights when they are the best so far."""
    state = job.state
    _average_epoch(job)
    before = state.epochs[-1] if state.epochs else {"step": 0, "seconds": 0.0}
    state.finish_epoch(
        {
            "epoch": state.epoch + 1,
            "step": state.step,
            "train_loss": float(np.mean(state.step_loss[int(before["step"]) :])),
            "train_accuracy": checkpoint.binary_accuracy(np.array(state.counts)),
            "train_pooled_auc": checkpoint.pooled_auc(np.array(state.counts)),
            **validate(job.shown, job.val),
            "learning_rate": job.optimizer.param_groups[-1]["lr"],
            "films_per_second": len(job.train) / (state.seconds - before["seconds"]),
            "seconds": state.seconds,
        }
    )
    if state.kept_epoch(job.training.keep) == state.epoch - 1:
        job.best.update(_copied(job.shown))
    if rank() == 0:
        _keep_snapshot(job, folder)
        write_table(pd.DataFrame(state.epochs), folder / "history.csv")
        _checkpoint_if_due(job, folder)  # last: from here a killed training does not come back


def _copied(network: FilmNetwork) -> checkpoint.State:
    return {key: value.detach().clone() for key, value in network.body.state_dict().items()}


def _average_epoch(job: Job) -> None:
    """Add the epoch's last weights to the average of `swa_epochs`, if it is one of them."""
    training = job.training
    if not training.swa_epochs or job.state.epoch < training.epochs - training.swa_epochs:
        return
    assert job.average is not None
    job.average.update_parameters(job.network)
    if rank() == 0:
        films = replace(job.train, recipe="none", mixup=0.0)
        measure_batches(job.average.module, films, batch=training.micro_batch or training.batch)


def _keep_snapshot(job: Job, folder: Path) -> None:
    """Write snapshot-N.safetensors when the epoch ends the N-th cycle of the learning rate.

    Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017.
    """
    ends = optimisation.cycle_ends(job.training)
    if job.training.snapshots and job.state.epoch in ends:
        number = ends.index(job.state.epoch) + 1
        save_weights(job.network.body, folder / f"snapshot-{number}.safetensors")


def _kept_epoch(job: Job) -> int:
    """Return the epoch of history.csv, from 1, whose weights are kept."""
    if job.training.retrain != "none":
        return len(job.state.epochs)
    return job.state.kept_epoch(job.training.keep) + 1


def _save(job: Job, folder: Path, *, split: str) -> None:
    """Write the classifier of the best weights, its decisions fitted, and every step's loss."""
    job.network.body.load_state_dict(job.best)
    prepared = job.train.prepared
    findings = prepared.manifest.findings
    mean, std = (tuple(v.flatten().tolist()) for v in (job.network.mean, job.network.std))
    undecided = Classifier(
        network=job.network,
        name=job.choice.name,
        architecture=job.choice.built,
        findings=findings,
        preparation=prepared.preparation,
        mean=mean,
        std=std,
        protocol=without_places(job.protocol),
        provenance=job.provenance,
        split=split,
        device=name_of(job.accelerator.device),
        epoch=_kept_epoch(job),
        recalibration=no_recalibration(len(findings)),
        threshold=np.full(len(findings), 0.5),
    )
    validation = {"prepared": prepared, "plan": job.val.plan}
    save_classifier(fit_decisions(undecided, choices=job.protocol.evaluation, **validation), folder)
    steps = {"step": np.arange(job.state.step), "loss": job.state.step_loss}
    write_table(pd.DataFrame(steps), folder / "steps.csv")
