"""Features of films as stages: of a run's networks, of networks not trained here, textures.

Balancing, classical learners and similar films take them. Letters in shapes: n films, m of them,
d feature dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from lucency.config.sections import AND, FROZEN, TEXTURE, THUMBNAIL, Network
from lucency.core.files import write_array, write_table
from lucency.core.manifest import Preparation, Prepared
from lucency.core.plan import originals
from lucency.core.predictions import Features
from lucency.core.progress import progress
from lucency.core.stage import fingerprint, fingerprint_of, produce
from lucency.data.preprocess import thumbnails
from lucency.pipeline.run import Trained, best_network, kept, network_inputs


class FeatureSets(NamedTuple):
    """Training films, and validation and test films, as features of one source.

    `made_of` names what the features are.
    """

    train: Features
    evaluated: Features
    made_of: dict[str, str]


def sources(trained: Trained) -> tuple[str, ...]:
    """Return whose features are needed: those that the protocol names, or the best network."""
    named = trained.run.protocol.ensemble.sources
    return named or (best_network(trained.classifiers.values()).name,)


@kept
def feature_sets(trained: Trained, source: str) -> FeatureSets:
    """Return the features of one source, of several where they are joined by +."""
    return _joined(source, [_single(trained, one) for one in source.split(AND)])


@kept
def training_features(trained: Trained, network: str) -> Features:
    """Return a trained network's features of its training films, before balancing.

    The stage: logits and features from one pass, mapped read-only.
    """
    inputs = {**network_inputs(trained.classifiers[network]), **trained.run.fingerprints("plan")}
    write = partial(_write_features, trained, network)
    folder = produce(_place(trained, network), inputs=inputs, write=write)
    feature = np.load(folder / "feature.npy", mmap_mode="r")
    return _of_training(trained, network, feature)


def _of_training(trained: Trained, source: str, feature: Float32[np.ndarray, "n d"]) -> Features:
    """Return the features of the training films, `feature`, beside what is known of the films."""
    films = trained.prepared.manifest.take(trained.training_films)
    return Features(
        source=source,
        split=trained.predictions[0].split,
        findings=films.findings,
        image=films.image,
        patient=films.patient,
        part=np.full(len(films), "train"),
        label=films.label,
        feature=feature,
    )


def _write_features(trained: Trained, network: str, folder: Path) -> None:
    from lucency.models.classifier import load_classifier
    from lucency.models.features import extract

    shown = originals(trained.prepared.manifest.label).take(trained.training_films)
    with progress(f"Features of {network}", unit="films") as advance:
        extract(
            load_classifier(trained.classifiers[network]),
            prepared=trained.prepared,
            plan=shown,
            folder=folder,
            progress=advance,
        )


def _single(trained: Trained, source: str) -> FeatureSets:
    if source in trained.classifiers:
        train, evaluated = training_features(trained, source), trained.predictions_of(source)
        made_of = {source: fingerprint_of(_place(trained, source))}
        made_of[f"{source}, predicted"] = fingerprint_of(trained.run.out / "predictions" / source)
        return FeatureSets(train, evaluated.features, made_of)
    if source == TEXTURE:
        feature = textures(trained)
        made_of = {TEXTURE: fingerprint_of(trained.run.cache / "features" / TEXTURE)}
    else:
        feature, made_of = _frozen(trained, source)
    train = _of_training(trained, source, feature[trained.training_films])
    films = trained.predictions[0].features
    evaluated = replace(films, source=source, feature=feature[trained.evaluated.row])
    return FeatureSets(train, evaluated, made_of)


def _joined(source: str, each: Sequence[FeatureSets]) -> FeatureSets:
    def whole(several: Sequence[Features]) -> Features:
        if len(several) == 1:
            return several[0]
        feature = np.concatenate([one.feature for one in several], axis=1)
        return replace(several[0], source=source, feature=feature)

    made_of = {name: what for one in each for name, what in one.made_of.items()}
    return FeatureSets(whole([s.train for s in each]), whole([s.evaluated for s in each]), made_of)


def _frozen(trained: Trained, source: str) -> tuple[Float32[np.ndarray, "n d"], dict[str, str]]:
    """Return all prepared films' features by a network that is not trained here."""
    name = source.removeprefix(FROZEN)
    choice = next(one for one in trained.run.protocol.ensemble.frozen if one.name == name)
    _keep_network(trained, choice)
    # Apart from those that balancing takes of training films alone:
    home, views = trained.run.cache / "frozen", trained.run.protocol.ensemble.feature_views
    feature = similarity_features(
        trained.prepared,
        rows=np.arange(len(trained.prepared.manifest)),
        choice=choice,
        root=Path(trained.run.protocol.data.root),
        upstream=trained.run.fingerprints("prepared"),
        home=home,
        views=views,
    )
    return feature, {source: fingerprint_of(features_folder(home, choice, views=views))}


def _keep_network(trained: Trained, choice: Network) -> None:
    """Keep a network that is not trained here, so that it embeds other films: the stage."""
    root = Path(trained.run.protocol.data.root)
    inputs = {"network": choice.model_dump(), "weights": _weights(choice, root)}
    preparation = trained.prepared.preparation
    inputs["preparation"] = preparation.model_dump()
    write = partial(_write_network, choice, root, preparation)
    produce(frozen_folder(trained.run.cache, choice), inputs=inputs, write=write)


def frozen_folder(cache: Path, choice: Network) -> Path:
    """Return the folder of a network that is not trained here."""
    return cache / "frozen" / f"network-{fingerprint(choice.model_dump())[:8]}"


def _write_network(choice: Network, root: Path, preparation: Preparation, folder: Path) -> None:
    from lucency.models.features import frozen_network, save_frozen

    network = frozen_network(choice, root=root)
    save_frozen(network, choice=choice, preparation=preparation, folder=folder)


def textures(trained: Trained) -> Float32[np.ndarray, "n d"]:
    """Return all prepared films' textures of the lungs; NaN without lungs: the stage."""
    inputs = trained.run.fingerprints("prepared")
    place, write = trained.run.cache / "features" / TEXTURE, partial(_write_textures, trained)
    return np.load(produce(place, inputs=inputs, write=write) / "feature.npy", mmap_mode="r")


def _write_textures(trained: Trained, folder: Path) -> None:
    from lucency.ensemble.radiomics import texture_table

    with progress("Textures of the lungs", unit="films") as advance:
        lost = texture_table(
            trained.prepared, folder=folder, workers=trained.run.workers, progress=advance
        )
    write_table(lost, folder / "lost.csv")


def _place(trained: Trained, network: str) -> Path:
    return trained.run.out / "features" / network


def similarity_features(
    prepared: Prepared,
    *,
    rows: Int64[np.ndarray, " m"],
    choice: Network,
    root: Path,
    upstream: Mapping[str, str],
    home: Path,
    views: int = 0,
) -> Float32[np.ndarray, "m d"]:
    """Return the features of the films at `rows`: thumbnails, or pooled by the network `choice`.

    Those of a network are means over a film and `views` of it. The stage: `features_folder` holds
    feature.npy, mapped read-only. Raises ValueError when the network's weights do not fit it.
    """
    about = {"features": choice.model_dump(), "views": views}
    inputs = {**about, "weights": _weights(choice, root), **upstream}
    out = features_folder(home, choice, views=views)
    write = partial(_write_similarity, prepared, rows, choice, root, views)
    return np.load(produce(out, inputs=inputs, write=write) / "feature.npy", mmap_mode="r")


def _write_similarity(
    prepared: Prepared,
    rows: Int64[np.ndarray, " m"],
    choice: Network,
    root: Path,
    views: int,
    folder: Path,
) -> None:
    if choice.name == THUMBNAIL:
        feature = thumbnails(prepared, rows=rows)
    else:
        from lucency.models.features import embed, frozen_network

        network = frozen_network(choice, root=root)
        with progress(f"Features of {choice.name}", unit="films") as advance:
            feature = embed(prepared, rows=rows, network=network, views=views, progress=advance)
    write_array(feature, folder / "feature.npy")


def features_folder(home: Path, choice: Network, *, views: int = 0) -> Path:
    """Return the folder of one choice's features, so that several may lie beside each other."""
    return home / f"features-{fingerprint({**choice.model_dump(), 'views': views})[:8]}"


def _weights(choice: Network, root: Path) -> str:
    """Return the fingerprint of the network's weights, so that another file is another result."""
    if choice.name == THUMBNAIL:
        return "none"
    from lucency.models.weights import fingerprint_weights

    return fingerprint_weights(choice, root=root)
