"""Heat maps of a run's network on its test films: localisation on boxes, and faithfulness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucency.config.sections import ExplanationChoices
from lucency.core.stage import produce
from lucency.explain import heatmap_results
from lucency.explain.heatmap_results import RANDOMISED, HeatmapResults, HeatmapScores
from lucency.explain.heatmaps import Heatmaps, boxed_in_train, one_cell_remarks
from lucency.pipeline.run import Trained, best_network, network_inputs

if TYPE_CHECKING:
    from lucency.models.classifier import Classifier

CASES = 4  # films of a finding that are shown of each kind


def explain_network(trained: Trained, choices: ExplanationChoices, *, out: Path) -> HeatmapResults:
    """Return the heat maps of a network of the run, and their scores, by these choices."""
    run, networks = trained.run, trained.classifiers
    network = networks[choices.network] if choices.network else best_network(networks.values())
    inputs = {
        "explanation": choices.model_dump(mode="json"),
        "evaluation": run.draws,
        **network_inputs(network),
        **run.fingerprints("prepared", "plan"),
    }
    write = partial(_write_heatmaps, trained, choices, network)
    return heatmap_results.load_heatmap_results(produce(out, inputs=inputs, write=write))


def _write_heatmaps(
    trained: Trained, choices: ExplanationChoices, network: Path, folder: Path
) -> None:
    from lucency.explain.methods.faithfulness_tests import network_heatmaps
    from lucency.models.classifier import load_classifier

    classifier, draws = load_classifier(network), trained.run.draws
    test = trained.plan.take(trained.plan.part == "test")
    test = test.take(test.copy == 0)  # copies made before the split would be tried twice
    names = pd.Series(trained.prepared.manifest.image[test.row])
    boxes, remarks = _boxes_of(trained, names)
    named = set(boxes["finding"])
    wanted = tuple(one for one in classifier.findings if one in named) or classifier.findings
    cases = _cases(trained, classifier, names, wanted)
    boxed, shown = (names.isin(table["image"]).to_numpy() for table in (boxes, cases))
    found = network_heatmaps(
        classifier,
        prepared=trained.prepared,
        plan=test.take(boxed | shown),
        boxed=test.take(boxed),
        tried=test,
        findings=wanted,
        choices=choices,
    )
    refused = [f"{name}: {reason}" for name, reason in found.refused.items()]
    results = HeatmapResults(
        network=classifier.name,
        remarks=(*remarks, *refused, *one_cell_remarks(found.maps)),
        maps=found.maps,
        boxes=boxes,
        cases=cases,
        scores=_score(boxes, found.maps, found.randomised_maps, draws),
        sanity=heatmap_results.sanity_table(found.tests.similarities),
        faithfulness=heatmap_results.faithfulness_table(found.tests.tried, **draws),
    )
    heatmap_results.save_heatmap_results(results, folder)


def _boxes_of(trained: Trained, names: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    """Return the boxes on test films that no network trained on, and remarks on the others."""
    films, seen, remarks = trained.prepared.manifest, trained.plan, []
    boxes = films.boxes.loc[films.boxes["image"].isin(names)].reset_index(drop=True)
    if left := len(films.boxes) - len(boxes):
        remarks.append(f"{left:,} of {len(films.boxes):,} boxes are on films that are not in test")
    if not len(boxes):
        remarks.append(
            "no film of the test part has a box of these findings, so nothing can be localised"
        )
    train = seen.take(seen.part == "train")
    learnt_from = films.image[np.union1d(train.row, train.mate)]
    if message := boxed_in_train(boxes["image"].to_numpy(dtype=str), trained=learnt_from):
        return boxes.iloc[:0], [*remarks, message]
    return boxes, remarks


def _cases(
    trained: Trained, classifier: Classifier, names: pd.Series, findings: Sequence[str]
) -> pd.DataFrame:
    """Return the test films to show of each finding, as `choose_cases` does."""
    predicted = trained.predictions_of(classifier.name).of("test")
    predicted = predicted.take(np.flatnonzero(pd.Series(predicted.image).isin(names).to_numpy()))
    limit = dict(zip(classifier.findings, classifier.threshold.tolist(), strict=True))
    choose = partial(heatmap_results.choose_cases, predicted, films=CASES)
    return pd.concat([
        choose(finding=name, threshold=limit[name]).assign(finding=name) for name in findings
    ])  # fmt: skip


def _score(
    boxes: pd.DataFrame,
    maps: Sequence[Heatmaps],
    randomised_maps: Sequence[Heatmaps],
    draws: dict[str, int],
) -> HeatmapScores:
    """Return what the maps score; nothing where there is no box, or no place to tell."""
    if not len(boxes) or all(one.cells == 1 for one in maps):
        return heatmap_results.no_scores()
    pairs = zip(maps, randomised_maps, strict=True)
    fine, blind = zip(*[pair for pair in pairs if pair[0].cells > 1], strict=True)
    boxed = np.flatnonzero(pd.Series(maps[0].image).isin(boxes["image"]).to_numpy())
    return heatmap_results.score_maps(
        [one.take(boxed) for one in fine],
        randomised_maps=[replace(one, method=f"{one.method}, {RANDOMISED}") for one in blind],
        boxes=boxes,
        **draws,
    )
