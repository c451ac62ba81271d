"""The leakage study: what each scheme of splitting and balancing reports beyond what is true.

Some patients are held out before anything else is done. On the films of the others every scheme
makes its parts, trains its networks and reports its scores on its own test films; then the same
networks are evaluated on the patients held out. The difference is the inflation by leakage.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.config.protocol import Protocol, parse_protocol
from lucency.config.sections import Split
from lucency.core.manifest import read_table
from lucency.core.plan import originals
from lucency.core.predictions import Predictions, load_predictions, save_predictions
from lucency.core.progress import progress, say
from lucency.core.stage import Failures, fingerprint_file, fingerprint_of, produce
from lucency.data.split import split
from lucency.evaluation.leakage_inflation import conclude_inflation, inflate_all
from lucency.pipeline import stages
from lucency.pipeline.run import Run, kept, open_run
from lucency.pipeline.stages import evaluation
from lucency.pipeline.stages import report as report_of

SEEN, HELD_OUT = "seen.txt", "held-out.txt"
TEXT = ("scheme", "network", "metric", "finding")


@kept
def lists(run: Run) -> Path:
    """Return the folder of two lists: films of patients set apart, and the films of all others."""
    if run.protocol.data.exclude:
        raise ValueError(
            "data.exclude is set: the schemes leave out films of their own; remove those films "
            "from the label table instead"
        )
    films = stages.manifest(run)
    shares = run.protocol.split.model_dump(include={"train", "val", "test", "seed"})
    apart = Split(method="patient", **shares)
    inputs = {"split": apart.model_dump(), "manifest": fingerprint_of(run.source / "manifest")}

    def write(folder: Path) -> None:
        tests = split(films, choices=apart, root=Path()) == "test"
        for name, rows in ((SEEN, ~tests), (HELD_OUT, tests)):
            (folder / name).write_text("\n".join(films.image[rows]) + "\n", encoding="utf-8")
        patients = len(np.unique(films.patient[tests]))
        say(f"Set apart: {tests.sum():,} films of {patients:,} patients")

    return produce(run.out / "lists", inputs=inputs, write=write)


@kept
def schemes(run: Run) -> dict[str, Run]:
    """Return the run of every scheme, all on the same films."""
    seen = run.out / "seen"
    found = {}
    for name, changes in SCHEMES.items():
        protocol = _on(run, leave_out=lists(run) / HELD_OUT, changes=changes)
        one = open_run(protocol, out=run.out / "schemes" / name, workers=run.workers)
        found[name] = replace(one, source=seen, cache=seen)
    return found


def held_out_predictions(run: Run, scheme: str) -> dict[str, Predictions]:
    """Return the predictions of a scheme's networks on the patients held out."""
    apart = _apart(run)
    films, predicted = stages.prepared(apart), {}
    upstream = fingerprint_of(apart.cache / "prepared")
    for name, trained in stages.classifiers(schemes(run)[scheme]).items():

        def write(folder: Path, name: str = name, trained: Path = trained) -> None:
            from lucency.models.classifier import load_classifier
            from lucency.models.inference import predict

            shown = originals(films.manifest.label)
            tests = replace(shown, part=np.full(len(shown), "test"))
            with progress(f"Predicting with {name}", unit="films") as advance:
                made = predict(
                    load_classifier(trained), prepared=films, plan=tests, progress=advance
                )
            save_predictions(made, folder / "predictions.npz")

        weights = fingerprint_file(trained / "weights.safetensors")
        inputs = {"network": fingerprint_of(trained), "weights": weights, "prepared": upstream}
        place = run.out / "held-out" / "predictions" / scheme / name
        folder = produce(place, inputs=inputs, write=write)
        predicted[name] = load_predictions(folder / "predictions.npz")
    return predicted


@kept
def inflation(run: Run) -> pd.DataFrame:
    """Return reported and reached scores of every scheme and network, and their difference."""
    predicted, made = {}, {}
    for name, member in schemes(run).items():
        say(f"Scheme {name}: {DESCRIPTIONS[name]}")
        report_of(member)
        predicted[name] = held_out_predictions(run, name)
        made[name] = fingerprint_of(member.out / "evaluation")
        for network in predicted[name]:
            place = run.out / "held-out" / "predictions" / name / network
            made[f"{name}/{network}"] = fingerprint_of(place)

    def write(folder: Path) -> None:
        tables = {name: _inflate(schemes(run)[name], one) for name, one in predicted.items()}
        patients = len(np.unique(stages.prepared(_apart(run)).manifest.patient))
        whole = pd.concat([table.assign(scheme=name) for name, table in tables.items()])
        whole.to_csv(folder / "inflation.csv", index=False)
        sentence = conclude_inflation(tables, patients=patients)
        (folder / "conclusion.txt").write_text(sentence + "\n", encoding="utf-8")

    inputs = {"evaluation": run.protocol.evaluation.model_dump(), "schemes": made}
    folder = produce(run.out / "inflation", inputs=inputs, write=write)
    return read_table(folder / "inflation.csv", text=TEXT)


def report(run: Run) -> Path:
    """Return the page that shows the schemes side by side."""
    from lucency.report.study_pages import write_leakage_page

    table = inflation(run)
    inputs = {"inflation": fingerprint_of(run.out / "inflation")}

    def write(folder: Path) -> None:
        films, apart = (stages.prepared(one).manifest for one in (_first(run), _apart(run)))
        counts = [
            f"{len(one):,} films of {len(np.unique(one.patient)):,} patients"
            for one in (films, apart)
        ]
        write_leakage_page(
            run.protocol,
            seen=f"{films.origin}. Every scheme works on {counts[0]}; {counts[1]} are set apart",
            descriptions=DESCRIPTIONS,
            pages={name: f"../schemes/{name}/report/report.html" for name in SCHEMES},
            table=table,
            conclusion=(run.out / "inflation" / "conclusion.txt")
            .read_text(encoding="utf-8")
            .strip(),
            file=folder / "report.html",
        )

    return produce(run.out / "page", inputs=inputs, write=write) / "report.html"


def without(run: Run) -> dict[str, str]:
    """Return the chapters that pages of schemes lack, by scheme, and why."""
    folders = {name: Failures(member.out / "failed") for name, member in schemes(run).items()}
    return {
        f"{name}: {chapter}": reason
        for name, failures in folders.items()
        for chapter, reason in failures.reasons().items()
    }


def _inflate(member: Run, predicted: dict[str, Predictions]) -> pd.DataFrame:
    """Return what every network of a scheme reports, and what it reaches on patients held out."""
    choices = member.protocol.evaluation
    return inflate_all(
        [one.of("test") for one in stages.predictions(member)],
        list(predicted.values()),
        seen=stages.patients_seen(member),
        thresholds=evaluation(member).thresholds,
        resamples=choices.resamples,
        seed=choices.seed,
    )


def _first(run: Run) -> Run:
    return next(iter(schemes(run).values()))


@kept
def _apart(run: Run) -> Run:
    """Return the run that prepares the films of the patients set apart, and does no more."""
    protocol = _on(run, leave_out=lists(run) / SEEN, changes={})
    return open_run(protocol, out=run.out / "held-out" / "films", workers=run.workers)


def _on(run: Run, *, leave_out: Path, changes: dict[str, Any]) -> Protocol:
    """Return the protocol on all films but those of a list; phantoms are drawn once for all."""
    choices = run.protocol.model_dump()
    choices["data"]["root"] = stages.source(run).root
    choices["data"]["exclude"] = str(leave_out.resolve())
    choices["split"]["method"] = changes.get("split", "patient")
    choices["balance"]["before_split"] = changes.get("before_split", False)
    return parse_protocol(choices, name=f"the protocol on all films but {leave_out}")


SCHEMES: dict[str, dict[str, Any]] = {
    "reference": {"split": "image", "before_split": True},
    "by-image": {"split": "image"},
    "by-patient": {},
}
DESCRIPTIONS = {
    "reference": "films are dropped and copied first, then split by film, test films with them",
    "by-image": "films are split by film, then the training part alone is balanced",
    "by-patient": "films are split by patient, then the training part alone is balanced",
}
