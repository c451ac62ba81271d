"""The program: a protocol's stages in order. Each asks for the one before it, and is done once.

source -> manifest -> prepared -> parts -> plan -> classifiers -> predictions -> verdict -> report
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lucency.balance.resample import plan_parts
from lucency.data.prepare import prepare
from lucency.data.sources import draw_source, read_films
from lucency.data.split import load_part, part_fingerprint, save_part, split, split_by_image
from lucency.judge.verdict import Verdict, judge, load_verdict, save_verdict
from lucency.predictions import Predictions, load_predictions, save_predictions
from lucency.progress import progress, say
from lucency.protocol import Source
from lucency.receipt import (
    fingerprint_file,
    fingerprint_of,
    produce,
)
from lucency.values import Manifest, Plan, Prepared, load_plan, save_plan
from lucency.workspace import Run

if TYPE_CHECKING:
    from lucency.learn.zoo import Classifier


def source(run: Run) -> Source:
    """Return where the films are; phantoms are drawn first."""
    protocol, out = run.protocol, run.out / "phantom"
    return draw_source(protocol.data, findings=protocol.findings, out=out, workers=run.workers)


@cache
def manifest(run: Run) -> Manifest:
    """Return the films that lie on disk, with labels."""
    return read_films(source(run), findings=run.protocol.findings, out=run.out / "manifest")


@cache
def prepared(run: Run) -> Prepared:
    """Return the films as a network sees them."""
    films = manifest(run)
    with progress("Preparing films", unit="films") as advance:
        return prepare(
            films,
            preparation=run.protocol.preparation,
            out=run.out / "prepared",
            workers=run.workers,
            progress=advance,
            inputs={"manifest": fingerprint_of(run.out / "manifest")},
        )


@cache
def parts(run: Run) -> np.ndarray:
    """Return the part of every film; or of every plan entry, where a protocol balances first."""
    films, choices = prepared(run).manifest, run.protocol.split
    early = run.protocol.balance.before_split
    inputs = {
        "split": choices.model_dump(),
        "balance": run.protocol.balance.model_dump() if early else "after the split",
        "prepared": fingerprint_of(run.out / "prepared"),
    }
    names = _balanced_first(run).names(films.image) if early else films.image

    def write(folder: Path) -> None:
        if early:
            share = (choices.train, choices.val, choices.test)
            part = split_by_image(len(names), share=share, seed=choices.seed)
        else:
            part = split(films, choices=choices, root=Path(source(run).root))
        save_part(names, part, folder / "part.csv")

    return load_part(produce(run.out / "split", inputs=inputs, write=write) / "part.csv", names)


def split_name(run: Run) -> str:
    """Return the fingerprint of the parts."""
    early = run.protocol.balance.before_split
    image = prepared(run).manifest.image
    return part_fingerprint(_balanced_first(run).names(image) if early else image, parts(run))


@cache
def _balanced_first(run: Run) -> Plan:
    films = prepared(run).manifest
    return plan_parts(
        films.label,
        part=np.full(len(films), "train"),
        findings=films.findings,
        choices=run.protocol.balance,
    )


@cache
def plan(run: Run) -> Plan:
    """Return what each part sees."""
    films, part = prepared(run).manifest, parts(run)
    choices = run.protocol.balance
    made_of = {"prepared": fingerprint_of(run.out / "prepared"), "split": split_name(run)}
    inputs = {"balance": choices.model_dump(), **made_of}

    def write(folder: Path) -> None:
        if choices.before_split:
            made = replace(_balanced_first(run), part=part)
        else:
            made = plan_parts(films.label, part=part, findings=films.findings, choices=choices)
        save_plan(made, films.image, folder)

    return load_plan(produce(run.out / "plan", inputs=inputs, write=write), films.image)


def classifiers(run: Run) -> dict[str, Classifier]:
    """Return the trained networks by name."""
    from lucency.learn.job import check_choice
    from lucency.learn.train import train

    for choice in run.protocol.network:  # before hours of training, not after
        check_choice(choice, root=Path(run.protocol.data.root))
    _refuse_silent_findings(run)
    seen = plan(run)
    upstream = {name: fingerprint_of(run.out / name) for name in ("prepared", "plan")}
    trained = {}
    for choice in run.protocol.network:
        with progress(f"Training {choice.name}", unit="films") as advance:
            trained[choice.name] = train(
                prepared(run),
                plan=seen,
                protocol=run.protocol,
                choice=choice,
                upstream={**upstream, "split": split_name(run)},
                out=run.out / "networks" / choice.name,
                progress=advance,
            )
    return trained


def _refuse_silent_findings(run: Run) -> None:
    films = prepared(run).manifest
    label = films.label[_training_films(run)]
    stated = (~np.isnan(label)).sum(axis=0).tolist()
    names = [name for name, count in zip(films.findings, stated, strict=True) if not count]
    if names:
        raise ValueError(
            f"no training film has a stated label for {', '.join(names)}: expected some; "
            "leave these out of `findings`"
        )


@cache
def predictions(run: Run) -> list[Predictions]:
    """Return every network's predictions on validation and test films."""
    from lucency.learn.predict import predict

    trained = classifiers(run)
    seen = plan(run).take(plan(run).part != "train")
    made = []
    for name, classifier in trained.items():

        def write(folder: Path, name: str = name, classifier: Classifier = classifier) -> None:
            with progress(f"Predicting with {name}", unit="films") as advance:
                found = predict(classifier, prepared=prepared(run), plan=seen, progress=advance)
            save_predictions(found, folder / "predictions.npz")

        weights = fingerprint_file(run.out / "networks" / name / "weights.safetensors")
        inputs = {"network": fingerprint_of(run.out / "networks" / name), "weights": weights}
        folder = produce(run.out / "predictions" / name, inputs=inputs, write=write)
        made.append(load_predictions(folder / "predictions.npz"))
    return made


@cache
def verdict(run: Run) -> Verdict:
    """Return thresholds, metrics, comparison, ranking and conclusion."""
    several = predictions(run)
    label = prepared(run).manifest.label[_training_films(run)]
    made = {p.network: fingerprint_of(run.out / "predictions" / p.network) for p in several}
    inputs = {"judging": run.protocol.judging.model_dump(), "predictions": made}

    def write(folder: Path) -> None:
        say(f"Judging {len(several)} networks on {len(several[0].of('test')):,} test films")
        prevalence = np.nanmean(label.astype(np.float64), axis=0)
        save_verdict(judge(several, prevalence=prevalence, choices=run.protocol.judging), folder)

    return load_verdict(produce(run.out / "evaluation", inputs=inputs, write=write))


def _training_films(run: Run) -> np.ndarray:
    """Return the training films before balancing; all films where it comes before the split."""
    if run.protocol.balance.before_split:
        return np.arange(len(prepared(run).manifest))
    return np.flatnonzero(parts(run) == "train")


def report(run: Run) -> Path:
    """Return the page that shows it all."""
    from lucency.experiment import gather
    from lucency.show.report import write_report

    found = verdict(run)
    inputs = {"evaluation": fingerprint_of(run.out / "evaluation")}

    def write(folder: Path) -> None:
        say("Writing the report")
        experiment = gather(
            run.out,
            protocol=run.protocol,
            trained=_training_films(run),
            prepared=prepared(run),
            plan=plan(run),
            predictions=predictions(run),
            verdict=found,
        )
        write_report(experiment, file=folder / "report.html")

    return produce(run.out / "report", inputs=inputs, write=write) / "report.html"


STAGES: dict[str, Callable[[Run], object]] = {
    "prepare": prepared,
    "split": parts,
    "balance": plan,
    "train": classifiers,
    "predict": predictions,
    "evaluate": verdict,
    "report": report,
}
