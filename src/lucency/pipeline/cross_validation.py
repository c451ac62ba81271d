"""Cross-validation: every film predicted by a network that has not seen its patient.

The k folds are by patient, and take k trainings.

A repeat deals patients to folds; several repeats, with seeds of their own, train independently.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lucency.config.protocol import parse_protocol
from lucency.core.predictions import REPEATS_FILE, Predictions, save_predictions
from lucency.core.progress import say
from lucency.core.stage import fingerprint_of, produce
from lucency.pipeline import stages
from lucency.pipeline.run import Run, kept, open_run


@kept
def out_of_fold(run: Run, *, folds: int, repeats: int) -> dict[str, Path]:
    """Return for each network the folder of what it says of films it has not trained on.

    There: predictions.npz, all films in the order of the manifest, part test, the mean recalibrated
    logit of the repeats, without features (each fold's network has its own); and REPEATS_FILE, the
    probabilities by repeat. Films are prepared once, for all.
    """
    films = stages.prepared(run).manifest
    members = [
        [_member(run, folds=folds, fold=fold, repeat=repeat) for fold in range(folds)]
        for repeat in range(repeats)
    ]
    predicted: dict[str, list[Predictions]] = {}
    made = {}
    for repeat, several in enumerate(members):
        tests: dict[str, list[Predictions]] = {}
        for fold, member in enumerate(several):
            say(f"Repeat {repeat + 1} of {repeats}, fold {fold + 1} of {folds}")
            for one in stages.predictions(member):
                tests.setdefault(one.network, []).append(one.of("test"))
                place = member.out / "predictions" / one.network
                made[f"{repeat}/{fold}/{one.network}"] = fingerprint_of(place)
        for network, parts in tests.items():
            predicted.setdefault(network, []).append(_joined(parts, films.image))
    inputs = {"folds": folds, "repeats": repeats, "predictions": made}
    found = {}
    for network, each in predicted.items():

        def write(folder: Path, each: list[Predictions] = each) -> None:
            logit = np.mean([one.calibrated for one in each], axis=0)
            save_predictions(replace(each[0], logit=logit), folder / "predictions.npz")
            np.save(folder / REPEATS_FILE, np.stack([one.probability for one in each]))

        place = run.out / "out-of-fold" / f"{folds}x{repeats}" / network
        found[network] = produce(place, inputs=inputs, write=write)
    return found


def _member(run: Run, *, folds: int, fold: int, repeat: int) -> Run:
    """Return the run that tests one fold, on all films that `run` has prepared."""
    choices = run.protocol.model_dump()
    choices["split"] |= {"method": "patient", "folds": folds, "fold": fold, "apart": 0.0}
    choices["split"]["seed"] += repeat
    choices["training"]["seed"] += repeat
    protocol = parse_protocol(choices, name=f"fold {fold} of repeat {repeat}")
    place = run.out / "members" / f"repeat-{repeat}-fold-{fold}"
    member = open_run(protocol, out=place, workers=run.workers)
    return replace(member, source=run.source, cache=run.cache)


def _joined(parts: list[Predictions], image: np.ndarray) -> Predictions:
    """Return the predictions of all folds as one, films in the order of `image`."""
    names = np.concatenate([one.image for one in parts])
    order = np.argsort(names)
    row = order[np.searchsorted(names[order], image)]
    assert (names[row] == image).all(), "every film tests in one fold"

    def whole(field: str) -> np.ndarray:
        return np.concatenate([getattr(one, field) for one in parts])[row]

    return Predictions(
        network=parts[0].network,
        split=f"{len(parts)} folds by patient: {' '.join(one.split for one in parts)}",
        findings=parts[0].findings,
        image=whole("image"),
        patient=whole("patient"),
        part=whole("part"),
        label=whole("label"),
        logit=whole("calibrated"),
        feature=np.empty((len(row), 0), dtype=np.float32),
    )
