"""Films that are not like the training films: a distance for every network, tested on aliens.

Letters in shapes: n films, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64, UInt8

from lucency.core.manifest import Prepared, unlabelled
from lucency.core.plan import only_tests
from lucency.core.predictions import Predictions
from lucency.core.progress import Advance, progress, say
from lucency.core.stage import discard_outdated, fingerprint_of, produce
from lucency.core.tables import save_tables
from lucency.data.images import read_film
from lucency.data.preprocess import prepare_film
from lucency.evaluation.unfamiliar_results import (
    UnfamiliarResults,
    evaluate_unfamiliarity,
    load_unfamiliar,
)
from lucency.evaluation.unfamiliarity import (
    FOLDER,
    MOST_TRAINING,
    KnownFilms,
    fit_unfamiliarity,
    know_films,
    load_unfamiliarity,
    save_unfamiliarity,
)
from lucency.phantom.aliens import ALIENS
from lucency.pipeline.feature_stage import training_features
from lucency.pipeline.run import EXTERNAL, Run, Trained, best_network, require_pictures

Aliens = dict[str, UInt8[np.ndarray, "n h w"]]


def store_unfamiliarity(trained: Trained) -> dict[str, Path]:
    """Return the folders of the networks' distances, below the networks' own: the stages."""
    choices = trained.run.protocol.unfamiliar
    places = {}
    for name, network in trained.classifiers.items():
        training_features(trained, name)
        inputs = {
            "unfamiliar": choices.model_dump(include={"score", "refused", "seed"}),
            "features": fingerprint_of(trained.run.out / "features" / name),
            "predictions": fingerprint_of(trained.run.out / "predictions" / name),
        }
        out = network / FOLDER
        discard_outdated(out, inputs=inputs)
        places[name] = produce(out, inputs=inputs, write=partial(_write_distance, trained, name))
    return places


def _write_distance(trained: Trained, name: str, folder: Path) -> None:
    say(f"Fitting the distance of {name} from its training films")
    choices, films = trained.run.protocol.unfamiliar, trained.predictions_of(name).of("val")
    found = fit_unfamiliarity(
        _known(trained, name),
        logit=films.logit,
        feature=films.feature,
        patient=films.patient,
        score=choices.score,
        refused=choices.refused,
        training=min(len(trained.training_films), MOST_TRAINING),
    )
    if found.note:
        say(f"{name}: {found.note}")
    save_unfamiliarity(found, folder)


def _known(trained: Trained, name: str) -> KnownFilms:
    choices = trained.run.protocol.unfamiliar
    feature = training_features(trained, name).feature
    return know_films(feature, neighbours=choices.neighbours, seed=choices.seed)


def compare_aliens(trained: Trained, others: Mapping[str, list[Predictions]]) -> UnfamiliarResults:
    """Return what the distances of the best network are worth, where the protocol wants them.

    `others` are every network's predictions of the films of external tests, by their names. The
    stage: it reads test films, from which aliens are made.
    """
    run = trained.run
    places = store_unfamiliarity(trained)
    network = best_network(trained.classifiers.values()).name
    inputs = {
        "unfamiliar": run.protocol.unfamiliar.model_dump(),
        "draws": run.draws,
        "distance": fingerprint_of(places[network]),
        **{_kind_of(name): _made_from(run, name, network) for name in others},
    }
    discard_outdated(run.out / FOLDER, inputs=inputs)
    write = partial(_write_results, trained, network, others, places[network])
    return load_unfamiliar(produce(run.out / FOLDER, inputs=inputs, write=write))


def _kind_of(test: str) -> str:
    """Return what films of an external test are called: no alien's name holds a blank."""
    return f"external test {test}"


def _made_from(run: Run, test: str, network: str) -> str:
    return fingerprint_of(run.out / EXTERNAL / test / "predictions" / network)


def _write_results(
    trained: Trained,
    network: str,
    others: Mapping[str, list[Predictions]],
    place: Path,
    folder: Path,
) -> None:
    test = trained.predictions_of(network).of("test")
    strange = _predicted_aliens(trained, network)
    last = int(test.patient.max(initial=0))
    for name, several in others.items():
        films = next(one for one in several if one.network == network)
        strange[_kind_of(name)] = _of_other_people(films, after=last)
    found = evaluate_unfamiliarity(
        load_unfamiliarity(place), _known(trained, network), test, strange, **trained.run.draws
    )
    save_tables(found, folder)


def _of_other_people(films: Predictions, *, after: int) -> Predictions:
    return replace(films, patient=films.patient + 1 + after)


def _predicted_aliens(trained: Trained, network: str) -> dict[str, Predictions]:
    """Return the predictions of aliens of each kind, whose patients are those of their films."""
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict

    rows = _test_films(trained)
    with progress("Making aliens", unit="films") as advance:
        made = draw_aliens(
            trained.prepared, rows=rows, seed=trained.run.protocol.unfamiliar.seed, progress=advance
        )
    classifier, found = load_classifier(trained.classifiers[network]), {}
    films = trained.prepared
    about = {"findings": films.manifest.findings, "preparation": films.preparation}
    for kind, pixels in made.items():
        shown = unlabelled([f"{kind} {row}" for row in rows.tolist()], pixels, **about)
        with progress(f"Predicting: {kind}", unit="films") as advance:
            one = predict(
                classifier,
                prepared=shown,
                plan=only_tests(shown.manifest.label),
                progress=advance,
            )
        found[kind] = replace(one, patient=films.manifest.patient[rows])
    return found


def _test_films(trained: Trained) -> Int64[np.ndarray, " n"]:
    """Return the rows of the test films from which aliens are made, a film of a patient first."""
    choices, plan = trained.run.protocol.unfamiliar, trained.plan
    rows = np.unique(plan.row[plan.part == "test"])
    rows = np.random.default_rng(choices.seed).permutation(rows)
    patient = pd.Series(trained.prepared.manifest.patient[rows])
    first = np.argsort(patient.groupby(patient).cumcount().to_numpy(), kind="stable")
    chosen = np.sort(rows[first][: choices.films])
    require_pictures(trained.run, trained.prepared.manifest.facts["path"].iloc[chosen].tolist())
    return chosen


def draw_aliens(
    films: Prepared, *, rows: Int64[np.ndarray, " n"], seed: int, progress: Advance
) -> Aliens:
    """Return aliens of every kind, one for each film at `rows`, prepared as films are.

    Each depends on the seed, its kind and its film's name alone.
    """
    from lucency.models.augmentation import seed_of

    preparation = films.preparation
    made: dict[str, list[np.ndarray]] = {kind: [] for kind in ALIENS}
    names = films.manifest.image[rows].tolist()
    paths = films.manifest.facts["path"].iloc[rows].tolist()
    for done, (name, path) in enumerate(zip(names, paths, strict=True), start=1):
        grey = read_film(path, bits=preparation.bits).grey
        for kind, draw in ALIENS.items():
            strange = draw(grey, np.random.default_rng(seed_of(seed, kind, name)))
            made[kind].append(prepare_film(strange, preparation=preparation))
        progress(done, len(rows), "")
    return {kind: np.stack(pictures) for kind, pictures in made.items()}
