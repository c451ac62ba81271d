"""The leakage study: what each scheme of splitting and balancing reports beyond what is true.

Some patients are held out before anything else is done. On the films of the others every scheme
makes its parts, trains its networks and reports its scores on its own test films; then the same
networks are evaluated on the patients held out. The difference is the inflation by leakage.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.config.protocol import Protocol, parse_protocol
from lucency.config.sections import Split
from lucency.core.files import write_table, write_whole
from lucency.core.manifest import counted, read_table
from lucency.core.plan import only_tests
from lucency.core.predictions import Predictions
from lucency.core.progress import say
from lucency.core.stage import Failures, fingerprint_of, produce
from lucency.data.split import split
from lucency.evaluation.leakage_inflation import conclude_inflation, inflate_all
from lucency.pipeline import stages
from lucency.pipeline.network_predictions import predict_each
from lucency.pipeline.run import Run, kept, open_run

SEEN, HELD_OUT = "seen.txt", "held-out.txt"
TEXT = ("scheme", "network", "metric", "finding")


@kept
def lists(run: Run) -> Path:
    """Return the folder of two lists: films of patients set apart, and the films of all others."""
    _check_schemes(run.protocol)
    stages.manifest(run)
    shares = run.protocol.split.model_dump(include={"train", "val", "test", "seed"})
    apart = Split(method="patient", **shares)
    inputs = {"split": apart.model_dump(), **run.fingerprints("manifest")}
    return produce(run.out / "lists", inputs=inputs, write=partial(_write_lists, run, apart))


def _check_schemes(protocol: Protocol) -> None:
    """Raise ValueError unless every scheme's protocol is valid: before any film is read."""
    if protocol.data.exclude:
        raise ValueError(
            "data.exclude is set: the schemes leave out films of their own; remove those films "
            "from the label table instead"
        )
    if protocol.data.also:
        raise ValueError(
            "data.also is set: the schemes leave out films by a list of one source; expected one: "
            'add --set "data.also=[]"'
        )
    if protocol.ensemble.learners or protocol.ensemble.neighbours:
        raise ValueError(
            "ensemble.learners and ensemble.neighbours need a split by patient, and two schemes of "
            "the study split by film: remove them from the protocol, or add --set "
            "'ensemble.learners=[]' --set ensemble.neighbours=0"
        )
    for name, changes in SCHEMES.items():
        _with_scheme(protocol, changes, name=f"scheme {name}")


def _write_lists(run: Run, apart: Split, folder: Path) -> None:
    films = stages.manifest(run)
    tests = split(films, choices=apart, root=Path()) == "test"
    for name, rows in ((SEEN, ~tests), (HELD_OUT, tests)):
        write_whole(folder / name, "\n".join(films.image[rows]) + "\n")
    patients = len(np.unique(films.patient[tests]))
    say(f"Set apart: {counted(tests.sum(), 'film')} of {counted(patients, 'patient')}")


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


def held_out_predictions(run: Run, scheme: str) -> list[Predictions]:
    """Return the predictions of a scheme's networks on the patients held out."""
    apart, trained = _apart(run), stages.classifiers(schemes(run)[scheme])
    films = stages.prepared(apart)
    return predict_each(
        trained,
        films,
        only_tests(films.manifest.label),
        out=run.out / "held-out" / "predictions" / scheme,
        upstream=apart.fingerprints("prepared"),
    )


@kept
def inflation(run: Run) -> pd.DataFrame:
    """Return reported and reached scores of every scheme and network, and their difference."""
    predicted, made = {}, {}
    for name, member in schemes(run).items():
        say(f"Scheme {name}: {DESCRIPTIONS[name]}")
        stages.report(member)
        predicted[name] = held_out_predictions(run, name)
        made[name] = fingerprint_of(member.out / "evaluation")
        for one in predicted[name]:
            place = run.out / "held-out" / "predictions" / name / one.network
            made[f"{name}/{one.network}"] = fingerprint_of(place)
    inputs = {"evaluation": run.protocol.evaluation.scoring, "schemes": made}
    write = partial(_write_inflation, run, predicted)
    folder = produce(run.out / "inflation", inputs=inputs, write=write)
    return read_table(folder / "inflation.csv", text=TEXT)


def _write_inflation(run: Run, predicted: dict[str, list[Predictions]], folder: Path) -> None:
    tables = {}
    for name, reached in predicted.items():
        member = schemes(run)[name]
        own = [one.of("test") for one in stages.predictions(member)]
        seen, fitted = stages.patients_seen(member), stages.evaluation(member).thresholds
        tables[name] = inflate_all(own, reached, seen=seen, thresholds=fitted, **member.draws)
    patients = len(np.unique(stages.prepared(_apart(run)).manifest.patient))
    whole = pd.concat([table.assign(scheme=name) for name, table in tables.items()])
    write_table(whole, folder / "inflation.csv")
    sentence = conclude_inflation(tables, patients=patients)
    write_whole(folder / "conclusion.txt", sentence + "\n")


def report(run: Run) -> Path:
    """Return the page that shows the schemes side by side."""
    table = inflation(run)
    inputs = run.fingerprints("inflation")
    folder = produce(run.out / "page", inputs=inputs, write=partial(_write_page, run, table))
    return folder / "report.html"


def _write_page(run: Run, table: pd.DataFrame, folder: Path) -> None:
    from lucency.report.study_pages import write_leakage_page

    first = next(iter(schemes(run).values()))
    films, apart = (stages.prepared(one).manifest for one in (first, _apart(run)))
    counts = [
        f"{counted(len(one), 'film')} of {counted(len(np.unique(one.patient)), 'patient')}"
        for one in (films, apart)
    ]
    conclusion = (run.out / "inflation" / "conclusion.txt").read_text(encoding="utf-8").strip()
    write_leakage_page(
        run.protocol,
        seen=f"{films.origin}. Every scheme works on {counts[0]}; {counts[1]} are set apart",
        descriptions=DESCRIPTIONS,
        pages={name: f"../schemes/{name}/report/report.html" for name in SCHEMES},
        table=table,
        conclusion=conclusion,
        file=folder / "report.html",
    )


def without(run: Run) -> dict[str, str]:
    """Return the chapters that pages of schemes lack, by scheme, and why."""
    return {
        f"{name}: {chapter}": reason
        for name, member in schemes(run).items()
        for chapter, reason in Failures(member.out / "failed").reasons().items()
    }


@kept
def _apart(run: Run) -> Run:
    """Return the run that prepares the films of the patients set apart, and does no more."""
    protocol = _on(run, leave_out=lists(run) / SEEN, changes={})
    return open_run(protocol, out=run.out / "held-out" / "films", workers=run.workers)


def _on(run: Run, *, leave_out: Path, changes: dict[str, Any]) -> Protocol:
    """Return the protocol on all films but those of a list; phantoms are drawn once for all."""
    name = f"the protocol on all films but {leave_out}"
    data = {"root": stages.source(run).root, "exclude": str(leave_out.resolve())}
    return _with_scheme(run.protocol, changes, name=name, **data)


def _with_scheme(
    protocol: Protocol, changes: dict[str, Any], *, name: str, **data: str
) -> Protocol:
    """Return the protocol as a scheme splits and balances; ValueError where that is impossible."""
    choices = protocol.model_dump()
    choices["data"] |= data
    choices["external"] = ()  # a test of the study's networks, which it does not report
    choices["split"]["method"] = changes.get("split", "patient")
    choices["balance"]["before_split"] = changes.get("before_split", False)
    return parse_protocol(choices, name=name)


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
