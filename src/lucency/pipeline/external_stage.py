"""External tests: films of other sources, on which a run's networks are tested and not trained.

Each is prepared as the run's own films are, in a folder of its own, `external/NAME`, that holds
phantom, manifest, prepared, predictions and evaluation.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from lucency.config.sections import External, Source, Split
from lucency.core.files import write_table
from lucency.core.locks import LOCK, locked
from lucency.core.manifest import (
    SOURCE,
    UNKNOWN_PATIENT,
    Manifest,
    Prepared,
    counted,
    load_prepared,
    read_table,
)
from lucency.core.parallel import rank
from lucency.core.predictions import Predictions
from lucency.core.progress import progress, say
from lucency.core.stage import RECEIPT, discard_outdated, fingerprint_of, produce
from lucency.core.tables import NIH_NAME, film_names, save_tables
from lucency.data.collections.overlaps import overlap
from lucency.data.duplicates import pixel_digests
from lucency.data.several_sources import TABLES, in_keys, name_sources, own_keys
from lucency.data.sources import absent_places
from lucency.data.split import set_apart
from lucency.evaluation.external_validation import (
    ENOUGH,
    RECALIBRATED_ON,
    ComparedFilms,
    ExternalValidation,
    load_validation,
    validate,
)
from lucency.evaluation.summary import Evaluation
from lucency.pipeline.feature_stage import training_features
from lucency.pipeline.run import (
    EXTERNAL,
    Run,
    Trained,
    best_network,
    external_run,
    is_tested,
    other_films,
)

USUAL_METHOD = "platt"  # of recalibration, where the protocol has none
LEAST_PATIENTS = 2  # one who recalibrates, and one who tests
PSEUDONYM = re.compile(r"[0-9a-f]{16}(?=\.|$)")  # of a film of an archive
Films = Callable[[Run], Manifest]


class KnownFilmsError(ValueError):
    """Films of an external test that are films of the run: no evaluation of them is wanted."""


def check_external(run: Run, *, read: Films) -> None:
    """Raise ValueError for an external test that cannot be one: before networks are trained.

    Of several processes the first checks for all.
    """
    if rank() > 0:
        return
    for choice in run.protocol.external:
        check_test(run, choice.name, read=read)


def check_test(run: Run, name: str, *, read: Films) -> None:
    """Raise ValueError for one external test that cannot be one.

    Its places must be there unless its films are prepared, its films and patients not those of a
    training source, and its patients known. `read` gives the labelled films of the run of a source.
    What was made of other films is discarded, as `discard_other_films` does.
    """
    key, choice = _entry(run, name)
    for own in run.protocol.data.every:
        if why := overlap(own, choice):
            raise ValueError(
                f"{key} ({name}): {why}: networks would be tested on films or patients that they "
                "were trained on; expected another source"
            )
    with own_keys(key):
        test = external_run(run, name)
    lost = absent_places(choice)
    if lost and (test.cache / "prepared" / RECEIPT).is_file():
        return
    for text in lost.values():
        own = in_keys(text, key)
        raise ValueError(own if text.startswith("data.") else f"{key} ({name}): {own}")
    discard_other_films(run, name)
    with own_keys(key):
        films = read(test)
    _refuse_unknown(films, f"{key} ({name})")
    refuse_few_patients(films, f"{key} ({name})")
    if choice.source != "phantom":
        _refuse_own_people(read(run), films, run=run, choice=choice, key=key)


def _entry(run: Run, name: str) -> tuple[str, External]:
    """Return the section of an external test in the protocol, and what stands there."""
    tests = enumerate(run.protocol.external)
    place, choice = next((place, one) for place, one in tests if one.name == name)
    return f"{EXTERNAL}.{place}", choice


def discard_other_films(run: Run, name: str) -> None:
    """Remove what a test that was never finished has left of other films than it has now.

    Nothing is removed while its places are not there. Raises BusyError where another process makes
    the test.
    """
    key, choice = _entry(run, name)
    if is_tested(run.out, name) or absent_places(choice):
        return
    with own_keys(key):
        test = external_run(run, name)
        found = other_films(test)
    if found:
        with locked(test.out):
            remove_test(test.out)
        say(f"{test.out} holds an unfinished test of other films: it is made anew ({found[0]})")


def remove_test(folder: Path) -> None:
    """Remove the folder of a test; raises BusyError where another process writes in it."""
    for lock in list(folder.rglob(f"*{LOCK}")):
        with locked(lock.with_suffix("")):  # which only a process that was killed has left
            pass
    shutil.rmtree(folder)


def refuse_few_patients(films: Manifest, which: str) -> None:
    """Raise ValueError for films of too few patients to set some apart and test on the others."""
    patients = len(np.unique(films.patient))
    if patients < LEAST_PATIENTS:
        raise ValueError(
            f"{which}: {counted(len(films), 'film')} of {counted(patients, 'patient')}: expected "
            f"{LEAST_PATIENTS} patients or more, since {RECALIBRATED_ON} of them are set apart to "
            "recalibrate and the others are tested"
        )


def _refuse_unknown(films: Manifest, which: str) -> None:
    unknown = int((films.patient == UNKNOWN_PATIENT).sum())
    if unknown:
        raise ValueError(
            f"{which}: the patients of {counted(unknown, 'film', 'is/are', of=len(films))} unknown "
            f"({films.image[films.patient == UNKNOWN_PATIENT][0]}, …), so that they may be those "
            "of training, and have no intervals: expected a table that names patients"
        )


def _refuse_own_people(
    own: Manifest, films: Manifest, *, run: Run, choice: External, key: str
) -> None:
    """Raise ValueError where names tell that films of a test, or their patients, are the run's.

    Those are the names of films of ChestX-ray14, which hold the patient, pseudonyms of an archive's
    films, and the patients of tables and archives. Phantoms have names of ChestX-ray14 and are none
    of it.
    """
    shared = np.zeros(len(films), dtype=bool)
    several = name_sources(run.protocol.data)
    theirs = _people(films, choice)
    for name, source in several.items():
        if source.source != "phantom":  # whose names are no one's
            mine = (
                own.take(np.flatnonzero(own.facts[SOURCE].to_numpy(dtype=str) == name))
                if len(several) > 1
                else own
            )
            known = _people(mine, source, of=tuple(several))
            for kind in known.keys() & theirs.keys():
                shared |= np.isin(theirs[kind], known[kind][known[kind] != ""])
    if shared.any():
        raise ValueError(
            f"{key} ({choice.name}): {counted(shared.sum(), 'film', 'is/are', of=len(films))} of "
            f"the run's patients, by name ({films.image[shared][0]}, …): networks would be tested "
            "on patients that they were trained on; list these films in a file and name it as "
            "`exclude` of this test, or, where these are other people, name them apart in the table"
        )


def _people(
    films: Manifest, source: Source, *, of: tuple[str, ...] = ()
) -> dict[str, Shaped[np.ndarray, " n"]]:
    """Return what names each film's patient or the film, by kind of name; "" where nothing does.

    `of` are the sources whose names, and a mark, may stand before those of films and patients.
    """
    before = re.compile(f"(?:{'|'.join(of)})[/:]") if len(of) > 1 else re.compile("")
    plain = [before.sub("", str(name), count=1) for name in film_names(films.image)]
    found = {"ChestX-ray14": [name[:8] if NIH_NAME.fullmatch(name) else "" for name in plain]}
    if source.source in TABLES:
        films_named = [PSEUDONYM.match(name) for name in plain]
        found["pseudonym"] = [match[0] if match else "" for match in films_named]
        found["patient"] = [
            before.sub("", str(name), count=1) if before.match(str(name)) else str(name)
            for name in films.patient_id
        ]
    return {kind: np.array(names, dtype=object) for kind, names in found.items()}


def external_films(
    test: Run, *, prepare: Callable[[Run], Prepared], findings: tuple[str, ...]
) -> Prepared:
    """Return the prepared films of an external test, labelled with all findings of the networks.

    What they do not state is NaN. Where its places are gone, they stay as they were prepared. The
    test is one that `check_test` lets pass.
    """
    if lost := absent_places(test.protocol.data):
        say(f"{test.out.name}: {next(iter(lost.values()))}: films stay as they were prepared")
        made = load_prepared(test.cache / "prepared")
    else:
        made = prepare(test)
    return replace(made, manifest=_with_findings(made.manifest, findings))


def _with_findings(films: Manifest, findings: tuple[str, ...]) -> Manifest:
    """Return the films with more findings, which they do not state."""
    table = pd.DataFrame(films.label, columns=list(films.findings))
    label = table.reindex(columns=list(findings)).to_numpy(dtype=np.float32)
    return replace(films, findings=findings, label=label)


def external_validation(
    trained: Trained,
    films: Prepared,
    predicted: Sequence[Predictions],
    *,
    test: Run,
    evaluation: Evaluation,
) -> ExternalValidation:
    """Return the evaluation of an external test: the stage.

    Raises KnownFilmsError where films of it have the pixels of films of the run.
    """
    run, choices = trained.run, trained.run.protocol.evaluation
    network = best_network(trained.classifiers.values()).name
    training_features(trained, network)
    place = test.out / "predictions"
    inputs = {
        "name": test.out.name,
        "evaluation": choices.model_dump(exclude={"published", *choices.levels}),
        "recalibrated_on": RECALIBRATED_ON,
        "enough": ENOUGH,
        "films": fingerprint_of(test.cache / "prepared"),
        "predictions": {one.network: fingerprint_of(place / one.network) for one in predicted},
        "own": run.fingerprints("evaluation"),
        "features": fingerprint_of(run.out / "features" / network),
    }
    discard_outdated(test.out / "evaluation", inputs=inputs)
    write = partial(_write, trained, films, predicted, test, evaluation, network)
    return load_validation(produce(test.out / "evaluation", inputs=inputs, write=write))


def _write(
    trained: Trained,
    films: Prepared,
    predicted: Sequence[Predictions],
    test: Run,
    evaluation: Evaluation,
    network: str,
    folder: Path,
) -> None:
    name, choices = test.out.name, trained.run.protocol.evaluation
    say(f"External test {name}: {counted(len(films.manifest), 'film')}")
    refuse_few_patients(films.manifest, f"{EXTERNAL} {name}")
    refuse_known_films(trained.prepared, films, name=name, out=trained.run.out)
    entries = trained.plan.row[trained.plan.part == "test"]
    apart = set_apart(films.manifest, choices=Split(apart=RECALIBRATED_ON, seed=choices.seed))
    method = choices.recalibration
    missing = read_table(test.source / "manifest" / "missing.csv", text=("image",))
    found = validate(
        ComparedFilms(
            internal=[trained.predictions_of(one.network).of("test") for one in predicted],
            external=predicted,
            internal_facts=trained.prepared.manifest.facts.iloc[entries],
            external_facts=films.manifest.facts,
            apart=apart,
            training=training_features(trained, network).feature,
        ),
        thresholds=evaluation.thresholds,
        network=network,
        method=USUAL_METHOD if method == "none" else method,
        about={
            "name": name,
            "origin": films.manifest.origin,
            "missing": len(missing),
            "rejected": len(films.rejected),
        },
        **trained.run.draws,
    )
    save_tables(found, folder)


def refuse_known_films(own: Prepared, other: Prepared, *, name: str, out: Path) -> None:
    """Raise KnownFilmsError where prepared films of a test are those of the run, to the pixel.

    They are listed in twice-NAME.csv in `out`. Films of one grey are no film's in particular.
    """
    with progress("Comparing films of the run", unit="films") as advance:
        known = {digest: row for row, digest in pixel_digests(own, progress=advance).items()}
    with progress(name, unit="films") as advance:
        seen = pixel_digests(other, progress=advance)
    pairs = [(known[one], row) for row, one in seen.items() if one in known]
    if pairs:
        mine, theirs = (
            films.manifest.image[list(rows)]
            for films, rows in zip((own, other), zip(*pairs, strict=True), strict=True)
        )
        file = out / f"twice-{name}.csv"
        write_table(pd.DataFrame({"image": theirs, "other": mine}), file)
        count = counted(len(pairs), "film", "shows/show", of=len(other.manifest))
        raise KnownFilmsError(
            f"{EXTERNAL} {name}: {count} what a film of the run does, to the pixel "
            f"({theirs[0]} = {mine[0]}, …): networks may have been trained on them; name {file}, "
            "which lists them, as `exclude` of this test"
        )
