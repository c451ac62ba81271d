"""The features that learners and similar films need: of a run's networks, of frozen ones, textures.

Letters in shapes: n films, d feature dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from lucency.config.sections import AND, FROZEN, TEXTURE
from lucency.core.plan import originals
from lucency.core.predictions import Predictions
from lucency.core.progress import progress
from lucency.core.stage import fingerprint_file, fingerprint_of, produce
from lucency.pipeline.run import Run, best_network
from lucency.pipeline.stages import (
    classifiers,
    features,
    features_folder,
    plan,
    predictions,
    prepared,
    training_films,
)


class Sides(NamedTuple):
    """Training films, and validation and test films, as features of one source.

    They are predictions without a say: all logits are 0. `made_of` names what the features are.
    """

    train: Predictions
    asked: Predictions
    made_of: dict[str, str]


def sources(run: Run) -> tuple[str, ...]:
    """Return whose features are asked for: those that the protocol names, or the best network."""
    named = run.protocol.ensemble.sources
    return named or (best_network(classifiers(run).values()).name,)


@cache
def sides(run: Run, source: str) -> Sides:
    """Return the features of one source, of several where they are joined by +."""
    return _joined(source, [_single(run, one) for one in source.split(AND)])


@cache
def said_in_training(run: Run, network: str) -> Predictions:
    """Return what a trained network says of its training films, before balancing.

    The stage: logits and features from one pass, mapped read-only.
    """
    from lucency.models.classifier import load_classifier
    from lucency.models.features import extract

    trained, rows = classifiers(run)[network], training_films(run)
    seen = originals(prepared(run).manifest.label).take(rows)
    inputs = {
        "network": fingerprint_of(trained),
        "weights": fingerprint_file(trained / "weights.safetensors"),
        "plan": fingerprint_of(run.out / "plan"),
    }

    def write(folder: Path) -> None:
        with progress(f"Features of {network}", unit="films") as advance:
            extract(
                load_classifier(trained),
                prepared=prepared(run),
                plan=seen,
                folder=folder,
                progress=advance,
            )

    folder = produce(_place(run, network), inputs=inputs, write=write)
    logit, feature = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("logit", "feature")
    )
    films = prepared(run).manifest.take(rows)
    return replace(
        predictions(run)[0].take(np.arange(0)).uncalibrated(),
        network=network,
        image=films.image,
        patient=films.patient,
        part=np.full(len(rows), "train"),
        label=films.label,
        logit=logit,
        feature=feature,
    )


def _single(run: Run, source: str) -> Sides:
    if source in classifiers(run):
        train = said_in_training(run, source)
        asked = next(one for one in predictions(run) if one.network == source)
        made_of = {source: fingerprint_of(_place(run, source))}
        made_of[f"{source}, asked"] = fingerprint_of(run.out / "predictions" / source)
        return Sides(_mute(train), _mute(asked), made_of)
    if source == TEXTURE:
        feature = textures(run)
        made_of = {TEXTURE: fingerprint_of(run.cache / "features" / TEXTURE)}
    else:
        feature, made_of = _frozen(run, source)
    films, seen = prepared(run).manifest, plan(run)
    rows, asked_of = training_films(run), seen.take(seen.part != "train").row
    asked = _mute(predictions(run)[0])
    train = replace(
        asked.take(np.arange(0)),
        image=films.image[rows],
        patient=films.patient[rows],
        part=np.full(len(rows), "train"),
        label=films.label[rows],
        logit=np.zeros((len(rows), len(films.findings))),
        feature=feature[rows],
    )
    return Sides(train, replace(asked, feature=feature[asked_of]), made_of)


def _mute(said: Predictions) -> Predictions:
    return replace(said.uncalibrated(), logit=np.zeros(said.logit.shape))


def _joined(source: str, each: Sequence[Sides]) -> Sides:
    def whole(several: Sequence[Predictions]) -> Predictions:
        feature = several[0].feature
        if len(several) > 1:
            feature = np.concatenate([one.feature for one in several], axis=1)
        return replace(several[0], network=source, feature=feature)

    made_of = {name: what for one in each for name, what in one.made_of.items()}
    return Sides(whole([s.train for s in each]), whole([s.asked for s in each]), made_of)


def _frozen(run: Run, source: str) -> tuple[Float32[np.ndarray, "n d"], dict[str, str]]:
    """Return all prepared films' features by a network that is not trained here."""
    name = source.removeprefix(FROZEN)
    choice = next(one for one in run.protocol.ensemble.frozen if one.name == name)
    upstream = {"prepared": fingerprint_of(run.cache / "prepared")}
    home = run.cache / "frozen"  # apart from those that balancing takes of training films alone
    feature = features(
        prepared(run),
        rows=np.arange(len(prepared(run).manifest)),
        choice=choice,
        root=Path(run.protocol.data.root),
        upstream=upstream,
        home=home,
    )
    return feature, {source: fingerprint_of(features_folder(home, choice))}


def textures(run: Run) -> Float32[np.ndarray, "n d"]:
    """Return all prepared films' textures of the lungs; NaN without lungs: the stage."""
    from lucency.ensemble.radiomics.extract import texture_table

    def write(folder: Path) -> None:
        with progress("Textures of the lungs", unit="films") as advance:
            _, lost = texture_table(
                prepared(run), folder=folder, workers=run.workers, progress=advance
            )
        lost.to_csv(folder / "lost.csv", index=False)

    inputs = {"prepared": fingerprint_of(run.cache / "prepared")}
    folder = produce(run.cache / "features" / TEXTURE, inputs=inputs, write=write)
    return np.load(folder / "feature.npy", mmap_mode="r")


def _place(run: Run, network: str) -> Path:
    return run.out / "features" / network
