"""Inference: what a trained network predicts of a run's films, of views of them, or of files.

Letters in shapes: n films, b of a block, k findings, d feature dimensions, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from safetensors.torch import load_file
from torch import Tensor

from lucency.core.engines import on_engine
from lucency.core.manifest import Prepared
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.progress import Advance, silent
from lucency.core.stage import fingerprint_of
from lucency.models.classifier import Classifier, load_classifier
from lucency.models.device import place
from lucency.models.film_loader import Batch, Films, batches_in_order, feed
from lucency.models.networks import FilmNetwork

BATCH = 32
Outputs = tuple[Float32[np.ndarray, "_ k"], Float32[np.ndarray, "_ d"]]  # logits and features
Made = TypeVar("Made")


def predict(
    classifier: Classifier, *, prepared: Prepared, plan: Plan, progress: Advance = silent
) -> Predictions:
    """Return logits and pooled features of the plan's entries, in evaluation mode."""
    films = films_for(classifier, prepared=prepared, plan=plan)
    logit, feature = forward(classifier.network, films=films, progress=progress)
    return _predictions(classifier, films, logit, feature)


def predict_on_engine(
    folder: Path, *, prepared: Prepared, plan: Plan, progress: Advance = silent
) -> Predictions:
    """Return what `predict` does with the network of a folder, by the engine's workers.

    They read the network where it lies, and are sent the pictures, a batch a task.
    Raises ValueError where the network's files are damaged, for films of other findings, and where
    workers die.
    """
    classifier = load_classifier(folder)
    films = films_for(classifier, prepared=prepared, plan=plan)
    pictures = (
        np.stack([films.picture(entry) for entry in batch.tolist()])
        for batch in batches_in_order(len(films), batch=BATCH)
    )
    work = partial(_embed_sent, folder.resolve(), fingerprint_of(folder))
    made = _counted(on_engine(work, pictures, workers=1), films=len(films), progress=progress)
    return _predictions(classifier, films, *_joined(made, films=len(films)))


def _counted(outputs: Iterator[Outputs], *, films: int, progress: Advance) -> Iterator[Outputs]:
    done = 0
    for logit, feature in outputs:
        done += len(logit)
        progress(done, films, "")
        yield logit, feature


def _embed_sent(folder: Path, fingerprint: str, pixels: UInt8[np.ndarray, "b h w"]) -> Outputs:
    network, device = _opened(folder, fingerprint)
    return _embedded(network, torch.from_numpy(pixels).to(device))


@lru_cache(1)
def _opened(folder: Path, fingerprint: str) -> tuple[FilmNetwork, torch.device]:
    """Return the network of a folder on this process's device, kept for the batches to come."""
    del fingerprint  # one that is trained anew in the same folder is opened anew
    network = load_classifier(folder).network
    return network, place(network.eval())


def _embedded(network: FilmNetwork, pictures: Tensor) -> Outputs:
    with torch.inference_mode():  # not around a yield, where it would reach the caller
        feature, logit = network.embed(pictures)
        return logit.float().cpu().numpy(), feature.float().cpu().numpy()


def _predictions(
    classifier: Classifier,
    films: Films,
    logit: Float32[np.ndarray, "n k"],
    feature: Float32[np.ndarray, "n d"],
) -> Predictions:
    manifest, plan = films.prepared.manifest, films.plan
    return Predictions(
        network=classifier.name,
        split=classifier.split,
        findings=classifier.findings,
        image=plan.names(manifest.image),
        patient=manifest.patient[plan.row],
        part=plan.part,
        label=plan.label,
        logit=logit,
        feature=feature,
        slope=classifier.recalibration.slope,
        offset=classifier.recalibration.offset,
        knot=classifier.recalibration.knot,
    )


def predict_views(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    recipe: str,
    views: int,
    seed: int,
    progress: Advance,
) -> Predictions:
    """Return the mean logits of the plan's entries as they are and of `views` views by `recipe`.

    This is test-time augmentation. A view depends on seed, film and its number alone. Nothing is
    calibrated, and no features kept. Raises ValueError for films of other findings.
    """
    parts = [part_of(progress, turn, 1 + views) for turn in range(1 + views)]
    plain = predict(classifier, prepared=prepared, plan=plan, progress=parts[0])
    logit = plain.logit.astype(np.float64)
    films = films_for(classifier, prepared=prepared, plan=plan)
    for view in range(views):
        viewed = replace(films, recipe=recipe, seed=seed, epoch=view)
        logit += forward(classifier.network, films=viewed, progress=parts[1 + view])[0]
    return _logits_alone(plain, logit / (1 + views))


def predict_snapshots(
    folder: Path, *, prepared: Prepared, plan: Plan, progress: Advance
) -> list[Predictions]:
    """Return the predictions of every snapshot of a trained network for the plan's entries.

    Nothing is calibrated, and no features are kept. Raises ValueError where there is no snapshot.
    """
    found = folder.glob("snapshot-*.safetensors")
    files = {int(file.stem.rpartition("-")[2]): file for file in found}
    if not files:
        raise ValueError(f"{folder} holds no snapshot: expected training.snapshots of 2 or more")
    classifier, made = load_classifier(folder), []
    for turn, number in enumerate(sorted(files)):
        classifier.network.body.load_state_dict(load_file(files[number]), strict=True)
        part = part_of(progress, turn, len(files))
        whole = predict(classifier, prepared=prepared, plan=plan, progress=part)
        name = f"{classifier.name} snapshot {number}"
        made.append(replace(_logits_alone(whole, whole.logit), network=name))
    return made


def films_for(classifier: Classifier, *, prepared: Prepared, plan: Plan) -> Films:
    """Return the plan's entries as a classifier sees them.

    Raises ValueError unless they are labelled with its findings, in its order.
    """
    if classifier.findings != prepared.manifest.findings:
        raise ValueError(
            f"the classifier gives {classifier.findings}, the films are labelled "
            f"{prepared.manifest.findings}: expected the same findings in the same order"
        )
    copies = classifier.protocol.get("balance", {}).get("seed", 0)
    return Films(prepared=prepared, plan=plan, copies=copies)


def forward(
    network: FilmNetwork, *, films: Films, progress: Advance = silent
) -> tuple[Float32[np.ndarray, "n k"], Float32[np.ndarray, "n d"]]:
    """Return logits and features of all entries of `films`."""
    ((logit, feature),) = forward_blocks(network, films=films, block=len(films), progress=progress)
    return logit, feature


def forward_blocks(
    network: FilmNetwork, *, films: Films, block: int, start: int = 0, progress: Advance = silent
) -> Iterator[tuple[Float32[np.ndarray, "b k"], Float32[np.ndarray, "b d"]]]:
    """Yield logits and features of the entries from `start` on, `block` at a time, in one pass.

    What a block gives does not depend on where the pass began, if that was at a block's end.
    """
    blocks = [
        [at + batch for batch in batches_in_order(min(block, len(films) - at), batch=BATCH)]
        for at in range(start, len(films), block)
    ]

    batches = [batch for batches in blocks for batch in batches]
    embedded = partial(_embedded, network)
    made = over_batches(network, embedded, films=films, batches=batches, progress=progress)
    with closing(made) as outputs:
        for batches in blocks:
            yield _joined(islice(outputs, len(batches)), films=sum(map(len, batches)))


def _joined(
    outputs: Iterator[Outputs], *, films: int
) -> tuple[Float32[np.ndarray, "b k"], Float32[np.ndarray, "b d"]]:
    """Return the outputs of batches as arrays of so many films, without holding them twice."""
    logit, feature = next(outputs)
    whole = [np.empty((films, one.shape[1]), dtype=np.float32) for one in (logit, feature)]
    start = 0
    for made in chain([(logit, feature)], outputs):
        end = start + len(made[0])
        whole[0][start:end], whole[1][start:end] = made
        start = end
    return whole[0], whole[1]


def over_batches(
    network: FilmNetwork,
    make: Callable[[Tensor], Made],
    *,
    films: Films,
    batches: Sequence[Batch],
    progress: Advance = silent,
    note: str = "",
) -> Generator[Made]:
    """Yield what `make` makes of each batch of pictures (uint8, b h w), in the order of entries.

    The network is moved to this process's device and stays there; it is in evaluation mode
    meanwhile, and its mode is restored.
    """
    was_training, device = network.training, place(network)
    network.eval()
    try:
        fed = feed(films, batches=batches, device=device)
        for batch, pictures in zip(batches, fed, strict=True):
            made = make(pictures)
            progress(int(batch[-1]) + 1, len(films), note)
            yield made
    finally:
        network.train(was_training)


def part_of(progress: Advance, turn: int, turns: int) -> Advance:
    """Return the progress of one of several equal turns, from 0."""
    return lambda at, total, note: progress(turn * total + at, turns * total, note)


def _logits_alone(predictions: Predictions, logit: Float[np.ndarray, "n k"]) -> Predictions:
    """Return the predictions with these logits, without calibration and features."""
    nothing = np.empty((len(logit), 0), dtype=np.float32)
    return replace(predictions.uncalibrated(), logit=logit, feature=nothing)
