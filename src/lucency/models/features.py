"""Embeddings (pooled features) of many films: of a trained network beside its logits, or alone.

Letters in shapes: n films, m of them, b of a block, k findings, d feature dimensions.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from lucency.config.sections import Network
from lucency.core.files import write_whole
from lucency.core.manifest import Preparation, Prepared
from lucency.core.plan import Plan, originals
from lucency.core.progress import Advance, silent
from lucency.core.stage import fingerprint
from lucency.evaluation.calibration import no_recalibration
from lucency.models.augmentation import seed_of
from lucency.models.classifier import Classifier, save_classifier
from lucency.models.film_loader import Films
from lucency.models.inference import films_for, forward, forward_blocks, part_of
from lucency.models.metadata import FEATURE_VIEWS, FEATURES_ONLY
from lucency.models.networks import FilmNetwork, build_chosen
from lucency.models.weights import initialise

BLOCK = 2_048  # films that a kill may lose
LOGIT, FEATURE, DONE = "logit.npy", "feature.npy", "done.txt"


def frozen_network(choice: Network, *, root: Path) -> FilmNetwork:
    """Return the network `choice`, which is not trained, for its features.

    Weights are found below `root` unless their path is absolute.
    """
    torch.manual_seed(seed_of("features", choice.name))
    network = build_chosen(choice, findings=1)
    initialise(network.body, choice=choice, root=root)
    return network


def save_frozen(
    network: FilmNetwork, *, choice: Network, preparation: Preparation, folder: Path
) -> None:
    """Write a network that is not trained as a classifier's folder; its logit means nothing."""
    classifier = Classifier(
        name=choice.name,
        architecture=choice.built,
        findings=(FEATURES_ONLY,),
        preparation=preparation,
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        provenance=choice.provenance,
        split="",
        device="",
        epoch=0,
        recalibration=no_recalibration(1),
        threshold=np.full(1, 0.5),
        protocol={},
        network=network,
    )
    save_classifier(classifier, folder)


def embed(
    prepared: Prepared,
    *,
    rows: Int64[np.ndarray, " m"],
    network: FilmNetwork,
    views: int = 0,
    progress: Advance = silent,
) -> Float32[np.ndarray, "m d"]:
    """Return the embeddings of the films at `rows` by a network that is not trained.

    Each is the mean over the film and `views` gently changed views of it, which depend on the
    film's name and the view's number alone.
    """
    plan = originals(prepared.manifest.label).take(rows)
    films, turns = Films(prepared=prepared, plan=plan, copies=0), 1 + views
    feature = forward(network, films=films, progress=part_of(progress, 0, turns))[1]
    for view in range(views):
        shown = replace(films, epoch=view, **FEATURE_VIEWS)
        feature += forward(network, films=shown, progress=part_of(progress, 1 + view, turns))[1]
    return feature / turns


def extract(
    classifier: Classifier, *, prepared: Prepared, plan: Plan, folder: Path, progress: Advance
) -> None:
    """Write logits and embeddings of the plan's entries into `folder`.

    One pass of the network fills both, block by block; what an earlier, killed pass of the same
    weights over the same entries has filled is kept, and the end has the bytes of an unbroken pass.
    What any other pass has left is written over. Raises ValueError for films of other findings.
    """
    films = films_for(classifier, prepared=prepared, plan=plan)
    work, note = _name_of(classifier, films), folder / DONE
    earlier, _, filled = (note.read_text("utf-8") if note.is_file() else "").partition(" ")
    done = int(filled) if earlier == work else 0
    for logit, feature in forward_blocks(
        classifier.network, films=films, block=BLOCK, start=done, progress=progress
    ):
        for name, made in ((LOGIT, logit), (FEATURE, feature)):
            mode, shape = "r+" if done else "w+", (len(films), made.shape[1])  # the first makes it
            whole = np.lib.format.open_memmap(folder / name, mode, np.float32, shape)
            whole[done : done + len(made)] = made
            whole.flush()
        done += len(logit)
        write_whole(note, f"{work} {done}")
    note.unlink()


def _name_of(classifier: Classifier, films: Films) -> str:
    """Return the fingerprint of the weights and of the entries they see; pixels go by name."""
    weights = hashlib.sha256()
    for value in classifier.network.body.state_dict().values():
        weights.update(value.cpu().numpy().tobytes())
    image, plan = films.prepared.manifest.image, films.plan
    seen = (plan.names(image), plan.transform, image[plan.mate], plan.mix)
    return fingerprint(
        {
            "weights": weights.hexdigest(),
            "preparation": films.prepared.preparation.model_dump(),
            "entries": [column.tolist() for column in seen],
            "copies": films.copies,
            "block": BLOCK,
        }
    )
