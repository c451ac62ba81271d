"""Where a run's network looked: maps of its test films, scored on boxes and put to the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from lucency.config.sections import ExplanationChoices
from lucency.core.plan import Plan
from lucency.core.stage import produce
from lucency.explain.heatmap_results import (
    RANDOMISED,
    HeatmapResults,
    HeatmapScores,
    choose_cases,
    faithfulness_table,
    load_heatmap_results,
    no_scores,
    sanity_table,
    save_heatmap_results,
    score_maps,
)
from lucency.explain.heatmaps import Heatmaps, boxed_in_train
from lucency.pipeline.run import Trained, best_network, network_inputs

CASES = 4  # films of a finding that are shown of each kind


class View(NamedTuple):
    """Test films to explain, boxes that may be scored and their films, findings to look for.

    `plan` are the films with boxes and those of `cases`; `boxed` the former; `test` all.
    """

    plan: Plan
    boxed: Plan
    test: Plan
    boxes: pd.DataFrame
    cases: pd.DataFrame
    findings: tuple[str, ...]
    remarks: tuple[str, ...]


def explain_network(trained: Trained, choices: ExplanationChoices, *, out: Path) -> HeatmapResults:
    """Return where a network of the run looked, by these choices, which are kept with it."""
    run, networks = trained.run, trained.classifiers
    network = networks[choices.network] if choices.network else best_network(networks.values())
    inputs = {
        "explanation": choices.model_dump(mode="json"),
        "evaluation": run.draws,
        **network_inputs(network),
        **run.fingerprints("prepared", "plan"),
    }
    write = partial(_write_heatmaps, trained, choices, network)
    return load_heatmap_results(produce(out, inputs=inputs, write=write))


def _write_heatmaps(
    trained: Trained, choices: ExplanationChoices, network: Path, folder: Path
) -> None:
    from lucency.explain.methods.faithfulness_tests import network_heatmaps
    from lucency.models.classifier import load_classifier

    classifier = load_classifier(network)
    view = _view(trained, classifier.name, classifier.findings, classifier.threshold)
    where = {"plan": view.plan, "boxed": view.boxed, "tried": view.test}
    what = {"findings": view.findings, "choices": choices}
    found = network_heatmaps(classifier, prepared=trained.prepared, **where, **what)
    refused = [f"{name}: {reason}" for name, reason in found.refused.items()]
    results = HeatmapResults(
        network=classifier.name,
        remarks=(*view.remarks, *refused, *_coarse(found.maps)),
        maps=found.maps,
        boxes=view.boxes,
        cases=view.cases,
        scores=_score(view, found.maps, found.randomised_maps, **trained.run.draws),
        sanity=sanity_table(found.tests.similarities),
        faithfulness=faithfulness_table(found.tests.tried, **trained.run.draws),
    )
    save_heatmap_results(results, folder)


def _view(
    trained: Trained, network: str, findings: tuple[str, ...], threshold: Float64[np.ndarray, " k"]
) -> View:
    films, seen = trained.prepared.manifest, trained.plan
    train, test = (seen.take(seen.part == part) for part in ("train", "test"))
    test = test.take(test.copy == 0)  # copies made before the split would be tried twice
    boxes, remarks = _boxes_of(films.boxes, films.image[test.row])
    learnt_from = films.image[np.union1d(train.row, train.mate)]
    if message := boxed_in_train(boxes["image"].to_numpy(dtype=str), trained=learnt_from):
        boxes, remarks = boxes.iloc[:0], [*remarks, message]
    wanted = tuple(name for name in findings if name in set(boxes["finding"])) or findings
    predicted = trained.predictions_of(network).of("test")
    predicted = predicted.take(
        np.flatnonzero(pd.Series(predicted.image).isin(films.image[test.row]).to_numpy())
    )
    limit = dict(zip(findings, threshold.tolist(), strict=True))
    cases = [
        choose_cases(predicted, finding=name, threshold=limit[name], films=CASES).assign(
            finding=name
        )
        for name in wanted
    ]
    names = pd.Series(films.image[test.row])
    boxed = names.isin(boxes["image"]).to_numpy()
    shown = names.isin(pd.concat([one["image"] for one in cases])).to_numpy()
    plans = (test.take(boxed | shown), test.take(boxed), test)
    return View(*plans, boxes, pd.concat(cases), wanted, tuple(remarks))


def _boxes_of(
    boxes: pd.DataFrame, test: Shaped[np.ndarray, " t"]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the boxes on test films, and a remark on those that are not."""
    mine = boxes.loc[boxes["image"].isin(pd.Series(test))].reset_index(drop=True)
    remarks = []
    if left := len(boxes) - len(mine):
        remarks.append(f"{left:,} of {len(boxes):,} boxes are on films that are not in test")
    if not len(mine):
        remarks.append(
            "no film of the test part has a box of these findings, so nothing can be localised"
        )
    return mine, remarks


def _score(
    view: View,
    maps: Sequence[Heatmaps],
    randomised_maps: Sequence[Heatmaps],
    *,
    resamples: int,
    seed: int,
) -> HeatmapScores:
    """Return what the maps score; nothing where there is no box, or no place to tell."""
    fine = [place for place, one in enumerate(maps) if _places(one) > 1]
    if not fine or not len(view.boxes):
        return no_scores()
    boxed = np.flatnonzero(pd.Series(maps[0].image).isin(view.boxes["image"]).to_numpy())
    blind = [
        replace(randomised_maps[at], method=f"{randomised_maps[at].method}, {RANDOMISED}")
        for at in fine
    ]
    return score_maps(
        [maps[at].take(boxed) for at in fine],
        randomised_maps=blind,
        boxes=view.boxes,
        resamples=resamples,
        seed=seed,
    )


def _places(maps: Heatmaps) -> int:
    down, across = maps.grid.shape[2:]
    return down * across


def _coarse(several: Sequence[Heatmaps]) -> list[str]:
    return [
        f"{maps.method}: its grid is 1 x 1, which tells no place from another: prepare larger "
        "films, or let the network see them larger"
        for maps in several
        if _places(maps) == 1
    ]
