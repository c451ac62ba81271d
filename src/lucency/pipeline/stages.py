"""The features by which neighbour-based balancing says which films are alike: a stage of its own.

Letters in shapes: n films, m of them, d feature dimensions.

The plan that a protocol makes of a label table: no picture is read, and none need be there.

Letters in shapes: n films.

The program: a protocol's stages in order. Each asks for the one before it, and is done once.

source -> manifest -> prepared -> parts -> plan -> classifiers -> predictions; what these are worth,
verdict -> issues -> report, is in `judgement`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from lucency.balance.imbalance import POPULATIONS, Change, describe_change
from lucency.balance.label_plan import planned, splitter
from lucency.balance.methods import needs_features, plan_parts
from lucency.balance.steps import Balanced, load_steps, save_steps
from lucency.config.sections import THUMBNAIL, Network, Source
from lucency.core.manifest import Manifest, Prepared, load_part, part_fingerprint, save_part
from lucency.core.plan import Plan, load_plan, originals, save_plan
from lucency.core.predictions import Predictions, load_predictions, save_predictions
from lucency.core.progress import progress
from lucency.core.stage import fingerprint, fingerprint_file, fingerprint_of, produce
from lucency.data.preprocess import prepare, thumbnails
from lucency.data.sources import draw_source, read_films
from lucency.data.split import set_apart, split
from lucency.pipeline.run import Run


def features(
    prepared: Prepared,
    *,
    rows: Int64[np.ndarray, " m"],
    choice: Network,
    root: Path,
    upstream: Mapping[str, str],
    home: Path,
) -> Float32[np.ndarray, "m d"]:
    """Return the features of the films at `rows`: thumbnails, or pooled by the network `choice`.

    The stage: `features_folder(home, choice)` holds feature.npy, mapped read-only. Raises
    ValueError when the network's weights do not fit it.
    """

    def write(folder: Path) -> None:
        if choice.name == THUMBNAIL:
            feature = thumbnails(prepared, rows=rows)
        else:
            from lucency.models.features import embed

            with progress("Looking for similar films", unit="films") as advance:
                feature = embed(prepared, rows=rows, choice=choice, root=root, progress=advance)
        np.save(folder / "feature.npy", feature)

    inputs = {"features": choice.model_dump(), "weights": _weights(choice, root), **upstream}
    out = features_folder(home, choice)
    return np.load(produce(out, inputs=inputs, write=write) / "feature.npy", mmap_mode="r")


def features_folder(home: Path, choice: Network) -> Path:
    """Return the folder of one choice's features, so that several may lie beside each other."""
    return home / f"features-{fingerprint(choice.model_dump())[:8]}"


def _weights(choice: Network, root: Path) -> str:
    """Return the fingerprint of the network's weights, so that another file is another result."""
    if choice.name == THUMBNAIL:
        return "none"
    from lucency.models.weights import fingerprint_weights

    return fingerprint_weights(choice, root=root)


def source(run: Run) -> Source:
    """Return where the films are; phantoms are drawn first."""
    protocol, out = run.protocol, run.source / "phantom"
    return draw_source(protocol.data, findings=protocol.findings, out=out, workers=run.workers)


@cache
def manifest(run: Run) -> Manifest:
    """Return the films that lie on disk, with labels."""
    if not (run.source / "manifest").exists():
        check_networks(run)  # before the first of hours of work, not after
    return read_films(source(run), findings=run.protocol.findings, out=run.source / "manifest")


@cache
def prepared(run: Run) -> Prepared:
    """Return the films as a network sees them."""
    films = manifest(run)
    with progress("Preparing films", unit="films") as advance:
        return prepare(
            films,
            preparation=run.protocol.preparation,
            out=run.cache / "prepared",
            workers=run.workers,
            progress=advance,
            inputs={"manifest": fingerprint_of(run.source / "manifest")},
        )


@cache
def parts(run: Run) -> np.ndarray:
    """Return the part of every film; or of every plan entry, where a protocol balances first."""
    films, choices = prepared(run).manifest, run.protocol.split
    early = run.protocol.balance.before_split
    inputs = {
        "split": choices.model_dump(),
        "balance": run.protocol.balance.model_dump() if early else "after the split",
        "prepared": fingerprint_of(run.cache / "prepared"),
    }
    names = _balanced_first(run).plan.names(films.image) if early else films.image

    def write(folder: Path) -> None:
        if early:
            part = _balanced_first(run).plan.part
        else:
            part = split(films, choices=choices, root=Path(source(run).root))
        save_part(names, part, folder / "part.csv")

    return load_part(produce(run.shared / "split", inputs=inputs, write=write) / "part.csv", names)


def split_name(run: Run) -> str:
    """Return the fingerprint of the parts."""
    early = run.protocol.balance.before_split
    image = prepared(run).manifest.image
    return part_fingerprint(_balanced_first(run).plan.names(image) if early else image, parts(run))


@cache
def _balanced_first(run: Run) -> Balanced:
    """Return the plan of a protocol that balances before its split, parted."""
    films = prepared(run).manifest
    return planned(films, splitter(run.protocol)(films, Path()), run.protocol)


def _features(run: Run) -> np.ndarray:
    """Return what says which training films are alike; nothing where no method asks for it."""
    rows = training_films(run)
    if not needs_features(run.protocol.balance):
        return np.empty((len(rows), 0), dtype=np.float32)
    return features(
        prepared(run),
        rows=rows,
        choice=run.protocol.balance.features,
        root=Path(run.protocol.data.root),
        upstream={"prepared": fingerprint_of(run.cache / "prepared"), "split": split_name(run)},
        home=run.shared,
    )


@cache
def plan(run: Run) -> Plan:
    """Return what each part sees."""
    films, part = prepared(run).manifest, parts(run)
    choices = run.protocol.balance
    made_of = {"prepared": fingerprint_of(run.cache / "prepared"), "split": split_name(run)}
    inputs = {"balance": choices.model_dump(), **made_of}
    feature = _features(run)
    if needs_features(choices):
        inputs["features"] = fingerprint_of(features_folder(run.shared, choices.features))

    def write(folder: Path) -> None:
        if choices.before_split:
            made = _balanced_first(run)
        else:
            made = plan_parts(
                films.label,
                part=part,
                findings=films.findings,
                choices=choices,
                feature=feature,
            )
        save_plan(made.plan, films.image, folder)
        save_steps(made.steps, folder)

    return load_plan(produce(run.out / "plan", inputs=inputs, write=write), films.image)


def change(run: Run) -> Change:
    """Return what balancing made of the films that it was shown: all, or the training part."""
    films, seen = prepared(run).manifest, plan(run)
    early = run.protocol.balance.before_split
    return describe_change(
        films.label[training_films(run)],
        plan=seen if early else seen.take(seen.part == "train"),
        findings=films.findings,
        steps=load_steps(run.out / "plan"),
        population=POPULATIONS[early],
    )


@cache
def pictures(run: Run) -> Prepared:
    """Return the prepared films, with the plan's copies where these are made at the native size."""
    choices, films = run.protocol.balance, prepared(run)
    if choices.copies_at == "prepared":
        return films
    from lucency.models.native_copies import load_copies, make_copies

    seen = plan(run)
    upstream = {"plan": fingerprint_of(run.out / "plan")}
    upstream |= {"prepared": fingerprint_of(run.cache / "prepared")}

    def write(folder: Path) -> None:
        with progress("Making copies", unit="films") as advance:
            make_copies(
                films,
                plan=seen,
                seed=choices.seed,
                folder=folder,
                workers=run.workers,
                progress=advance,
            )

    folder = produce(run.out / "copies", inputs=upstream, write=write)
    return replace(films, copies=load_copies(folder, copies=seen.take(seen.copy > 0)))


@cache
def classifiers(run: Run) -> dict[str, Path]:
    """Return the folders of the trained networks by name."""
    from lucency.models.training import check_labels, train

    check_networks(run)
    films = prepared(run).manifest
    check_labels(films.label[training_films(run)], findings=films.findings)
    seen = plan(run)
    upstream = {"prepared": fingerprint_of(run.cache / "prepared")}
    upstream |= {"plan": fingerprint_of(run.out / "plan")}
    trained = {}
    for choice in run.protocol.network:
        with progress(f"Training {choice.name}", unit="films") as advance:
            trained[choice.name] = train(
                pictures(run),
                plan=seen,
                protocol=run.protocol,
                choice=choice,
                upstream={**upstream, "split": split_name(run)},
                out=run.out / "networks" / choice.name,
                progress=advance,
            )
    return trained


def check_networks(run: Run) -> None:
    """Raise ValueError for a network that cannot be built, or whose weights are not there.

    Those that are only asked for their features are among them.
    """
    from lucency.models.training import check_choice

    root = Path(run.protocol.data.root)
    for choice in run.protocol.network:
        check_choice(choice, root=root, frozen=run.protocol.training_of(choice.name).frozen)
    for choice in run.protocol.ensemble.frozen:
        check_choice(choice, root=root)


@cache
def predictions(run: Run) -> list[Predictions]:
    """Return every network's predictions on validation and test films."""
    return _predicted(run, plan(run).take(plan(run).part != "train"), place="predictions")


def _predicted(run: Run, seen: Plan, *, place: str) -> list[Predictions]:
    """Return every network's predictions of a plan's entries, each in a folder of its own."""
    made = []
    for name, trained in classifiers(run).items():

        def write(folder: Path, name: str = name, trained: Path = trained) -> None:
            save_predictions(_predict(run, name, trained, seen), folder / "predictions.npz")

        weights = fingerprint_file(trained / "weights.safetensors")
        inputs = {"network": fingerprint_of(trained), "weights": weights}
        folder = produce(run.out / place / name, inputs=inputs, write=write)
        made.append(load_predictions(folder / "predictions.npz"))
    return made


def _predict(run: Run, name: str, trained: Path, seen: Plan) -> Predictions:
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict

    with progress(f"Predicting with {name}", unit="films") as advance:
        films = pictures(run)
        return predict(load_classifier(trained), prepared=films, plan=seen, progress=advance)


def training_films(run: Run) -> np.ndarray:
    """Return the training films before balancing; all films where it comes before the split."""
    if run.protocol.balance.before_split:
        return np.setdiff1d(np.arange(len(prepared(run).manifest)), films_apart(run))
    return np.flatnonzero(parts(run) == "train")


def patients_seen(run: Run) -> Int64[np.ndarray, " p"]:
    """Return the patients of every film that the plan shows or mixes, in any part."""
    seen, films = plan(run), prepared(run).manifest
    return np.unique(films.patient[np.concatenate([seen.row, seen.mate])])


@cache
def films_apart(run: Run) -> Int64[np.ndarray, " m"]:
    """Return the films of patients set apart, whom no network meets; there may be none."""
    return np.flatnonzero(set_apart(prepared(run).manifest, choices=run.protocol.split))


@cache
def predictions_apart(run: Run) -> list[Predictions]:
    """Return every network's predictions on the films of patients set apart, as a test part."""
    rows = films_apart(run)
    shown = originals(prepared(run).manifest.label).take(rows)
    return _predicted(run, replace(shown, part=np.full(len(rows), "test")), place="apart")
