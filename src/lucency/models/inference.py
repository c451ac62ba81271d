"""Predictions: of a run's films from the cache, or of films on disk.

Letters in shapes: n films, b of a block, k findings, d feature dimensions, h and w pixels.

Test-time augmentation: a film and several views of it, each said something of; the mean counts.

Letters in shapes: none; predictions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, UInt8
from scipy.special import expit

from lucency.config.sections import EvaluationChoices
from lucency.core.manifest import Prepared
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film
from lucency.evaluation.calibration import recalibrate
from lucency.evaluation.thresholds import threshold_table
from lucency.models.dataset import Films, batches_in_order, feed
from lucency.models.device import device_here, laid_out
from lucency.models.networks import Classifier, FilmNetwork

BATCH = 32
Progress = Callable[[int, int, str], None]


def predict(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    progress: Progress | None = None,
) -> Predictions:
    """Return logits and pooled features of the plan's entries, in evaluation mode."""
    films = films_for(classifier, prepared=prepared, plan=plan)
    logit, feature = forward(
        classifier.network, films=films, device=device_here(), progress=progress
    )
    return Predictions(
        network=classifier.name,
        split=classifier.split,
        findings=classifier.findings,
        image=plan.names(prepared.manifest.image),
        patient=prepared.manifest.patient[plan.row],
        part=plan.part,
        label=plan.label,
        logit=logit,
        feature=feature,
        slope=classifier.recalibration.slope,
        offset=classifier.recalibration.offset,
        knot=classifier.recalibration.knot,
    )


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


def fit_decisions(
    classifier: Classifier, *, prepared: Prepared, plan: Plan, choices: EvaluationChoices
) -> Classifier:
    """Return the classifier with recalibration and thresholds fitted to the validation films.

    `plan` holds validation films as they are, at their natural prevalence, whatever training saw.
    """
    said = predict(classifier, prepared=prepared, plan=plan)
    line = recalibrate(said.label, said.logit, method=choices.recalibration)
    table = threshold_table(
        replace(said, slope=line.slope, offset=line.offset, knot=line.knot),
        method=choices.threshold,
        recall=choices.recall,
    )
    threshold = table["threshold"].to_numpy(dtype=np.float64)
    return replace(classifier, recalibration=line, threshold=threshold)


def forward(
    network: FilmNetwork,
    *,
    films: Films,
    device: torch.device,
    progress: Progress | None = None,
) -> tuple[Float32[np.ndarray, "n k"], Float32[np.ndarray, "n d"]]:
    """Return logits and features of all entries of `films`; the network's mode is restored."""
    whole = forward_blocks(network, films=films, device=device, block=len(films), progress=progress)
    ((logit, feature),) = whole
    return logit, feature


def forward_blocks(
    network: FilmNetwork,
    *,
    films: Films,
    device: torch.device,
    block: int,
    start: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[Float32[np.ndarray, "b k"], Float32[np.ndarray, "b d"]]]:
    """Yield logits and features of the entries from `start` on, `block` at a time, in one pass.

    What a block gives does not depend on where the pass began, if that was at a block's end.
    """
    was_training = network.training
    laid_out(network.to(device)).eval()
    batches = [
        at + batch
        for at in range(start, len(films), block)
        for batch in batches_in_order(min(block, len(films) - at), batch=BATCH)
    ]
    said, done = [], start
    try:
        for pictures in feed(films, batches=batches, device=device):
            said.append(_embedded(network, pictures))
            done += len(pictures)
            if progress:
                progress(done, len(films), "")
            if (done - start) % block == 0 or done == len(films):
                logits, features = zip(*said, strict=True)
                yield np.concatenate(logits), np.concatenate(features)
                said = []
    finally:
        network.train(was_training)


def predict_files(
    classifier: Classifier, *, files: Iterable[Path], progress: Progress | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (film, called, probability per finding) of films, (film, reason) of unreadable ones.

    Probabilities are recalibrated; `called` joins by | the findings that reach their thresholds.
    Films are prepared exactly as the classifier's training films were.
    """
    device, findings = device_here(), np.array(classifier.findings)
    waiting, rows, rejected = list(files), [], []
    network = laid_out(classifier.network.to(device)).eval()
    for chunk in _chunks(waiting):
        pictures, names = _prepared(chunk, classifier, rejected)
        if pictures:
            with torch.inference_mode():
                logit = network(torch.from_numpy(np.stack(pictures)).to(device)).cpu()
            said = expit(classifier.recalibration.apply(logit.numpy()))
            called = ["|".join(findings[row]) for row in said >= classifier.threshold]
            told = zip(names, called, said.tolist(), strict=True)
            rows += [[name, found, *share] for name, found, share in told]
        if progress:
            progress(len(rows) + len(rejected), len(waiting), "")
    table = pd.DataFrame(rows, columns=["film", "called", *classifier.findings])
    return table, pd.DataFrame(rejected, columns=["film", "reason"])


def _embedded(
    network: FilmNetwork, pictures: torch.Tensor
) -> tuple[Float32[np.ndarray, "b k"], Float32[np.ndarray, "b d"]]:
    with torch.inference_mode():  # not around a yield, where it would reach the caller
        feature, logit = network.embed(pictures)
        return logit.float().cpu().numpy(), feature.float().cpu().numpy()


def _chunks(files: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), BATCH):
        yield files[start : start + BATCH]


def _prepared(
    chunk: list[Path], classifier: Classifier, rejected: list[tuple[str, str]]
) -> tuple[list[UInt8[np.ndarray, "h w"]], list[str]]:
    pictures, names = [], []
    for file in chunk:
        try:
            picture = prepare_film(read_grey(file), preparation=classifier.preparation)
        except (ValueError, OSError) as error:
            rejected.append((str(file), str(error)))
            continue
        pictures.append(picture)
        names.append(str(file))
    return pictures, names


def predict_views(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    recipe: str,
    views: int,
    seed: int,
    progress: Progress,
) -> Predictions:
    """Return the mean logits of the plan's entries as they are and of `views` views by `recipe`.

    A view depends on seed, film and its number alone. Nothing is calibrated, and no features kept.
    Raises ValueError for films of other findings.
    """

    def so_far(turn: int) -> Progress:
        return lambda at, total, note: progress(turn * total + at, (1 + views) * total, note)

    said = predict(classifier, prepared=prepared, plan=plan, progress=so_far(0))
    logit = said.logit.astype(np.float64)
    plain = films_for(classifier, prepared=prepared, plan=plan)
    for view in range(views):
        films = replace(plain, recipe=recipe, seed=seed, epoch=view)
        logit += forward(
            classifier.network, films=films, device=device_here(), progress=so_far(1 + view)
        )[0]
    nothing = np.empty((len(plan), 0), dtype=np.float32)
    return replace(said.uncalibrated(), logit=logit / (1 + views), feature=nothing)
