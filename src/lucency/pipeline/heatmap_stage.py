"""Where a run's network looked: maps of its test films, scored on boxes and put to the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from lucency.config.sections import ExplanationChoices
from lucency.core.plan import Plan
from lucency.core.stage import fingerprint_file, fingerprint_of, produce
from lucency.explain.examples import choose_cases
from lucency.explain.faithfulness import sanity_table
from lucency.explain.heatmap_results import (
    RANDOMISED,
    HeatmapResults,
    Scores,
    faithfulness_table,
    load_heatmap_results,
    no_scores,
    save_heatmap_results,
    score_maps,
)
from lucency.explain.heatmaps import Heatmaps, boxed_in_train
from lucency.pipeline.run import Run, best_network
from lucency.pipeline.stages import classifiers, plan, predictions, prepared

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


@cache
def sight(run: Run) -> HeatmapResults:
    """Return where the network that the protocol names looked, and what its maps are worth."""
    return look_again(run, run.protocol.explanation, out=run.out / "explanation")


def look_again(run: Run, choices: ExplanationChoices, *, out: Path) -> HeatmapResults:
    """Return where a network of the run looked, by these choices, which are kept with it."""
    trained = classifiers(run)
    folder = trained[choices.network] if choices.network else best_network(trained.values())
    evaluation = run.protocol.evaluation
    inputs = {
        "explanation": choices.model_dump(mode="json"),
        "evaluation": evaluation.model_dump(include={"resamples", "seed"}),
        "network": fingerprint_of(folder),
        "weights": fingerprint_file(folder / "weights.safetensors"),
        "prepared": fingerprint_of(run.cache / "prepared"),
        "plan": fingerprint_of(run.out / "plan"),
    }

    def write(partial: Path) -> None:
        save_heatmap_results(_look(run, choices, folder), partial)

    return load_heatmap_results(produce(out, inputs=inputs, write=write))


def _look(run: Run, choices: ExplanationChoices, folder: Path) -> HeatmapResults:
    from lucency.explain.methods.faithfulness_tests import look
    from lucency.models.classifier import load_classifier

    classifier = load_classifier(folder)
    view = _view(run, classifier.name, classifier.findings, classifier.threshold)
    where = {"plan": view.plan, "boxed": view.boxed, "tried": view.test}
    what = {"findings": view.findings, "choices": choices}
    found = look(classifier, prepared=prepared(run), **where, **what)
    refused = [f"{name}: {reason}" for name, reason in found.refused.items()]
    draws = {"resamples": run.protocol.evaluation.resamples, "seed": run.protocol.evaluation.seed}
    return HeatmapResults(
        network=classifier.name,
        remarks=(*view.remarks, *refused, *_coarse(found.maps)),
        maps=found.maps,
        boxes=view.boxes,
        cases=view.cases,
        scores=_score(view, found.maps, found.randomised_maps, **draws),
        sanity=sanity_table(found.similarities),
        faithfulness=faithfulness_table(found.tried, **draws),
    )


def _view(
    run: Run, network: str, findings: tuple[str, ...], threshold: Float64[np.ndarray, " k"]
) -> View:
    films, seen = prepared(run).manifest, plan(run)
    train, test = (seen.take(seen.part == part) for part in ("train", "test"))
    test = test.take(test.copy == 0)  # copies made before the split would be tried twice
    boxes, remarks = _boxes_of(films.boxes, films.image[test.row])
    trained = films.image[np.union1d(train.row, train.mate)]
    if told := boxed_in_train(boxes["image"].to_numpy(dtype=str), trained=trained):
        boxes, remarks = boxes.iloc[:0], [*remarks, told]
    wanted = tuple(name for name in findings if name in set(boxes["finding"])) or findings
    said = next(one for one in predictions(run) if one.network == network).of("test")
    said = said.take(np.flatnonzero(pd.Series(said.image).isin(films.image[test.row]).to_numpy()))
    limit = dict(zip(findings, threshold.tolist(), strict=True))
    cases = [
        choose_cases(said, finding=name, threshold=limit[name], films=CASES).assign(finding=name)
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
    """Return the boxes on test films, and what is to be said of those that are not."""
    mine = boxes.loc[boxes["image"].isin(pd.Series(test))].reset_index(drop=True)
    remarks = []
    if left := len(boxes) - len(mine):
        remarks.append(f"{left:,} of {len(boxes):,} boxes are on films that are not in test")
    if not len(mine):
        told = "no film of the test part has a box of these findings, so nothing can be localised"
        remarks.append(told)
    return mine, remarks


def _score(
    view: View,
    maps: Sequence[Heatmaps],
    randomised_maps: Sequence[Heatmaps],
    *,
    resamples: int,
    seed: int,
) -> Scores:
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
