"""Coverage of the networks' sets on own test films and on those of external tests: a stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from lucency.core.manifest import load_manifest
from lucency.core.predictions import load_predictions
from lucency.core.progress import say
from lucency.core.stage import discard_outdated, fingerprint_of, produce
from lucency.core.tables import save_tables
from lucency.evaluation.set_coverage import (
    OWN,
    VIEW,
    SetCoverage,
    UnseenFilms,
    load_coverage,
    measure_sets,
)
from lucency.models.metadata import read_metadata
from lucency.pipeline.run import Run, Trained, best_network, external_run, network_inputs


def cover_networks(trained: Trained, *, tests: Sequence[str]) -> SetCoverage:
    """Return the coverage of all networks' sets; `tests` are external tests that are finished.

    Networks of before there were sets have no rows.
    """
    run = trained.run
    places = {OWN: run.out, **{name: external_run(run, name).out for name in tests}}
    inputs = {
        "evaluation": run.draws,
        "networks": {name: network_inputs(one) for name, one in trained.classifiers.items()},
        "predictions": {
            films: {
                name: fingerprint_of(out / "predictions" / name) for name in trained.classifiers
            }
            for films, out in places.items()
        },
    }
    discard_outdated(run.out / "coverage", inputs=inputs)
    write = partial(_write_coverage, trained, tests)
    return load_coverage(produce(run.out / "coverage", inputs=inputs, write=write))


def _write_coverage(trained: Trained, tests: Sequence[str], folder: Path) -> None:
    say("Counting what sets cover")
    several = []
    for name, place in trained.classifiers.items():
        if sets := read_metadata(place).sets:
            films = [_own(trained, name), *(_external(trained.run, name, one) for one in tests)]
            several.append((sets, films))
    best = best_network(trained.classifiers.values()).name
    save_tables(measure_sets(several, best=best, **trained.run.draws), folder)


def _own(trained: Trained, network: str) -> UnseenFilms:
    facts = trained.prepared.manifest.facts
    row = trained.plan.row[trained.plan.part == "test"]
    return UnseenFilms(OWN, trained.predictions_of(network).of("test"), _views(facts.iloc[row]))


def _external(run: Run, network: str, name: str) -> UnseenFilms:
    test = external_run(run, name)
    predicted = load_predictions(test.out / "predictions" / network / "predictions.npz")
    return UnseenFilms(name, predicted, _views(load_manifest(test.cache / "prepared").facts))


def _views(facts: pd.DataFrame) -> pd.Series | None:
    return pd.Series(facts[VIEW].to_numpy()) if VIEW in facts else None
