"""Audit of a run: the quality of its labels, shortcuts, hidden strata and odd pictures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.audit import shortcuts
from lucency.audit.agreement import (
    COUNTS,
    READ,
    agreement,
    counts_of,
    published_counts,
    rate_label_quality,
)
from lucency.audit.image_quality import inspect, quality_counts, quality_table
from lucency.audit.shortcuts import AuditResults
from lucency.core.manifest import Manifest, name_patients, read_table
from lucency.core.plan import COPY_MARK
from lucency.core.predictions import Predictions
from lucency.core.progress import progress, say
from lucency.core.stage import fingerprint_of, produce
from lucency.data.labels import TRUTH_FILE
from lucency.pipeline.run import Trained, best_network

FEW = 30  # positive test films, below which a score says little
DEVICES = {"Drain": "drain", "Marker": "marker"}


def audit_network(trained: Trained) -> AuditResults:
    """Return the audit of the network that is best on validation films, made on test films."""
    run, network = trained.run, best_network(trained.classifiers.values()).name
    inputs = {
        "network": network,
        "evaluation": run.draws,
        "predictions": fingerprint_of(run.out / "predictions" / network),
        **run.fingerprints("prepared"),
    }
    write = partial(_write_audit, trained, network)
    return shortcuts.load_audit_results(produce(run.out / "audit", inputs=inputs, write=write))


def _write_audit(trained: Trained, network: str, folder: Path) -> None:
    films, predicted = trained.prepared, trained.predictions_of(network).of("test")
    draws = trained.run.draws
    with progress("Looking for odd films", unit="films") as advance:
        odd = quality_table(inspect(films, progress=advance))
    say("Looking for shortcuts and hidden strata")
    truth = _truth(trained)
    levels = shortcuts.known_facts(_facts_of(predicted, films.manifest, truth))
    probes = shortcuts.probe(predicted, levels, seed=draws["seed"])
    found = shortcuts.find_shortcuts(predicted, levels, probes, **draws)
    counts = _counts(trained, films.manifest, truth)
    results = AuditResults(
        network=network,
        label_quality=rate_label_quality(
            counts, caveats=_other(predicted, shortcuts.shortcut_reasons(found))
        ),
        probes=probes,
        shortcuts=found,
        strata=shortcuts.strata(predicted, seed=draws["seed"]),
        pictures=quality_counts(odd, films=len(films.manifest), side=films.preparation.size),
        odd=name_patients(odd, films.manifest),
    )
    shortcuts.save_audit_results(results, folder)


def _truth(trained: Trained) -> pd.DataFrame:
    """Return what is truly on phantoms of one source, a row a film by name; else nothing."""
    file, place = trained.root / TRUTH_FILE, trained.run.protocol.data
    if place.also or place.source != "phantom" or not file.is_file():
        return pd.DataFrame()
    table = read_table(file, text=("Image Index", "True Labels"))
    return table.set_index("Image Index").rename(columns=DEVICES)


def _facts_of(predicted: Predictions, films: Manifest, truth: pd.DataFrame) -> pd.DataFrame:
    """Return the facts of the predicted films; a copy's are its film's."""
    names = [str(name).partition(COPY_MARK)[0] for name in predicted.image]
    facts = films.facts.set_axis(films.image).loc[names]
    if len(truth):
        devices = truth.loc[names, list(DEVICES.values())]
        facts = facts.assign(**{name: devices[name].astype(str) for name in devices})
    return facts.reset_index(drop=True)


def _counts(trained: Trained, films: Manifest, truth: pd.DataFrame) -> pd.DataFrame:
    """Return how many films carry a label, show the finding, and both, where that is known."""
    if trained.run.protocol.data.source == "nih" and not trained.run.protocol.data.also:
        return published_counts(films.findings)
    if not len(truth):
        unread = [(finding, 0, 0, 0, *[np.nan] * 3) for finding in films.findings]
        return pd.DataFrame(unread, columns=list(COUNTS))
    true = [set(names.split("|")) for names in truth["True Labels"].loc[films.image.tolist()]]
    there = np.array([[finding in names for finding in films.findings] for names in true])
    drawn = replace(films, label=there.astype(np.float32))
    return counts_of(agreement(films, drawn, **trained.run.draws), pd.DataFrame(columns=list(READ)))


def _other(predicted: Predictions, facts: dict[str, str]) -> dict[str, str]:
    """Return what else makes each finding's score doubtful; `facts` are its shortcuts."""
    reasons = {name: f"shortcut {fact}" for name, fact in facts.items()}
    positives = (predicted.label == 1).sum(axis=0).tolist()
    for finding, count in zip(predicted.findings, positives, strict=True):
        if count < FEW:
            few = f"{count} positive test films, where {FEW} say a little"
            reasons[finding] = "; ".join(filter(None, (few, reasons.get(finding))))
    return reasons
