"""Inference: films of a run or on disk, predicted and explained by a run's network.

Letters in shapes: h and w pixels, n films, k findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped, UInt8

from lucency.audit.image_quality import look_at, problems_of, switched_off
from lucency.config.sections import FROZEN, Source
from lucency.core.manifest import (
    Preparation,
    Prepared,
    counted,
    listed,
    load_prepared,
    unlabelled,
)
from lucency.core.plan import originals
from lucency.core.progress import Advance, progress, say, silent
from lucency.core.stage import RECEIPT, produce_answer
from lucency.core.tables import Answer, match_films
from lucency.data.bit_depth import bits_for_network, with_bits
from lucency.data.film_files import film_exists, fingerprint_film, why_no_film
from lucency.data.film_stream import stream_films
from lucency.data.images import films_below
from lucency.data.several_sources import read_sources
from lucency.data.sources import absent_places, stated_findings
from lucency.evaluation.conformal import UNDECIDED, ConformalSets
from lucency.evaluation.unfamiliarity import UNLIKE
from lucency.explain.heatmaps import Heatmaps, one_cell_remarks
from lucency.pipeline.film_predictors import (
    FilmPredictor,
    best_of,
    find_home,
    of_classifier,
    open_predictor,
)
from lucency.pipeline.run import (
    load_films,
    network_inputs,
    open_run_folder,
    refuse_other_films,
    require_prepared,
)

if TYPE_CHECKING:
    from lucency.models.classifier import Classifier

Film = UInt8[np.ndarray, "h w"]
MOST_FILMS = 200  # on one page
POSSIBLE, SET = "possible", "_set"  # a column of a table of films, and the end of others
MOST_NAMED = 10  # unreadable films, on standard error
MOST_REASONS = 4  # of findings that are undecided


def predict_disk(
    folder: Path, films: list[Path], *, name: str, engine: str = ""
) -> tuple[str, pd.DataFrame]:
    """Return what predicted, and a row a film: its probabilities, or why it was not read.

    Films that cannot be read are named on standard error too. Raises ValueError when not one can.
    """
    predictor, files = open_predictor(folder, name=name, engine=engine), films_below(films)
    if not any(_is_there(file) for file in files):
        raise ValueError(f"{files[0]}: {why_no_film(files[0])}; expected films, or folders of them")
    return predictor.name, _predicted(predictor, files, named=bool(name))


def predict_source(
    folder: Path, place: Source, *, name: str, engine: str = ""
) -> tuple[str, pd.DataFrame]:
    """Return what `predict_disk` does of all films of a source, and whose they are (`patient`).

    Films go by their names in the source's label file. Raises ValueError also for a source that
    cannot be read, or states none of the findings, and where no film lies on disk.
    """
    predictor = open_predictor(folder, name=name, engine=engine)
    if lost := absent_places(place):
        raise ValueError(next(iter(lost.values())))
    if not place.root:
        raise ValueError("phantoms are drawn by `lucency data phantom`: expected their --root")
    findings = stated_findings(place, findings=predictor.findings)
    with TemporaryDirectory() as scratch:
        films = read_sources(place, findings=findings, out=Path(scratch) / "manifest")
    path = films.facts["path"].tolist()
    table = _predicted(predictor, path, named=bool(name))
    row = pd.Index(path).get_indexer(pd.Index(table["film"].astype(str)))
    table["film"] = films.image[row]
    table.insert(1, "patient", films.patient_id[row])
    return predictor.name, table


def _predicted(
    predictor: FilmPredictor, files: Sequence[str | Path], *, named: bool
) -> pd.DataFrame:
    """Return a row a film; films that cannot be read are named on standard error, too."""
    chosen = "" if named or predictor.home.own else ", the best on validation films"
    say(f"Model: {predictor.name} ({predictor.kind}){chosen}")
    with progress("Predicting", unit="films") as advance:
        table, rejected = predict_files(
            predictor, files=files, known=_known_films(predictor), progress=advance
        )
    if not len(table):
        first = rejected.iloc[0]
        message = f"{first['film']}: {first['reason']}"
        raise ValueError(
            f"none of {counted(len(rejected), 'film')} can be read ({message}); expected one or "
            "more"
        )
    _say_left_out(list(zip(rejected["film"], rejected["reason"], strict=True)))
    if predictor.watch and (note := predictor.watch.distance.note):
        say(f"Unfamiliar films: {note}")
    _say_unlike(table)
    _say_undecided(table, predictor)
    whole = pd.concat([table, rejected], ignore_index=True)
    texts = ["reason", "quality", "note", *_set_columns(predictor)]
    return whole.fillna(dict.fromkeys(texts, ""))


def _known_films(predictor: FilmPredictor) -> Prepared | None:
    """Return the prepared films of the run, None where they are not there."""
    place = predictor.home.images
    if not place or not (place / RECEIPT).is_file():
        return None
    for network in predictor.home.networks.values():
        refuse_other_films(place, stage=network)
    films = load_prepared(place)
    return films if films.preparation == predictor.preparation else None


def predict_files(
    model: FilmPredictor | Classifier,
    *,
    files: Sequence[str | Path],
    known: Prepared | None = None,
    progress: Advance = silent,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (film, called, probabilities, sets, quality) of films, (film, reason) of others.

    Where the model has a distance, two columns more: `unfamiliarity`, from 0 to 1, and a `note` on
    films that are not like the training films.

    Others are those that cannot be read. `quality` joins by | what is odd about a film's picture
    (`lucency.audit.image_quality.PROBLEMS`), by comparison with the `known` films of the run; a
    line says which detectors do not hold.
    Probabilities are recalibrated; `called` joins by | the findings that reach their thresholds.
    Sets are FINDING_set, one of SET_WORDS, after `possible`, which joins by | the findings that
    reach the cutoff (`lucency.evaluation.conformal`); a model of before there were any has none.
    Films are prepared exactly as the training films were. A film that is named twice has one row.
    """
    predictor = model if isinstance(model, FilmPredictor) else of_classifier(model)
    files = list(dict.fromkeys(files))
    rows, lost = list[list[object]](), []
    about = {"findings": predictor.findings, "preparation": predictor.preparation}
    reading = bits_for_network(predictor.preparation, files)
    edges, surfaces, strange = [], [], []
    for names, pixels, failed in stream_films(files, preparation=reading):
        lost += failed
        if names:
            shown = unlabelled(names, pixels, **about)
            for kept, part in zip((edges, surfaces), look_at(pixels), strict=True):
                kept.append(part)
            predicted = predictor.predict(shown)
            strange.append(predicted.unfamiliarity)
            rows += _rows(predictor, names, predicted.probability)
        progress(len(rows) + len(lost), len(files), "")
    columns = ["film", "called", *predictor.findings, *_set_columns(predictor)]
    table = pd.DataFrame(rows, columns=columns)
    problems, note = [], ""
    if rows:
        problems, note = problems_of(np.concatenate(edges), np.concatenate(surfaces), known=known)
    off = switched_off(predictor.preparation.size) if rows else ""
    for remark in filter(None, (note, off)):
        say(f"Quality: {remark}")
    table["quality"] = pd.Series(problems, dtype="str")
    if predictor.watch and strange:
        unfamiliarity = np.concatenate(strange)
        refused = predictor.watch.distance.refuses(unfamiliarity)
        notes = np.where(refused, UNLIKE, "")
        table = table.assign(unfamiliarity=unfamiliarity, note=notes)
    return table, pd.DataFrame(lost, columns=["film", "reason"])


def _set_columns(predictor: FilmPredictor) -> list[str]:
    """Return the columns of sets in a table of films; none for a model without."""
    return [POSSIBLE, *(f"{one}{SET}" for one in predictor.findings)] if predictor.sets else []


def _rows(
    predictor: FilmPredictor, names: Sequence[str], probability: Float64[np.ndarray, "n k"]
) -> Iterator[list[object]]:
    """Yield a film's name, the findings that it is called to have, probabilities and sets."""
    findings, called = np.array(predictor.findings), probability >= predictor.threshold
    answers = _sets(predictor.sets, probability, findings)
    each = zip(names, probability.tolist(), called, answers, strict=True)
    for name, row, present, sets in each:
        yield [name, "|".join(findings[present]), *row, *sets]


def _sets(
    sets: ConformalSets | None,
    probability: Float64[np.ndarray, "n k"],
    findings: Shaped[np.ndarray, " k"],
) -> list[list[str]]:
    """Return what each film's columns of `_set_columns` hold."""
    if sets is None:
        return [[] for _ in probability]
    pairs = zip(sets.possible(probability), sets.words(probability).tolist(), strict=True)
    return [["|".join(findings[possible]), *words] for possible, words in pairs]


def films_for_programs(model: str, table: pd.DataFrame) -> dict[str, object]:
    """Return `predict_disk`'s table for programs."""
    read = table["reason"] == ""
    films = table.loc[read].drop(columns="reason").to_dict(orient="records")
    rejected = table.loc[~read, ["film", "reason"]].to_dict(orient="records")
    return {"model": model, "films": films, "rejected": rejected}


def explain_films(
    folder: Path,
    films: Sequence[Path],
    *,
    network: str,
    methods: tuple[str, ...],
    findings: tuple[str, ...],
    out: Path,
) -> Answer:
    """Explain films on disk, or films of the run by name, to `out`.

    There: explained.html, one PNG a film and finding, maps-METHOD.npz, probabilities.csv. No
    finding means those that the network names. Raises ValueError for an unknown film, finding,
    method or network, and as `produce_answer` does.
    """
    from lucency.explain.methods.registry import check_request
    from lucency.models.classifier import load_classifier

    place = network_folder(folder, network)
    classifier = load_classifier(place)
    check_request(classifier, methods=methods, findings=findings)
    shown = requested_films(folder, films, classifier)
    say(f"Network: {classifier.name}; films: {len(shown.manifest):,}")
    request = {"network": network, "methods": methods, "findings": findings}
    inputs = {"films": shown.manifest.origin, "request": request, **network_inputs(place)}
    write = partial(_write_explanation, classifier, shown, methods, findings)
    made = produce_answer(out, inputs=inputs, write=write)
    return {"films": len(shown.manifest), "folder": str(made), "page": str(made / "explained.html")}


def _write_explanation(
    classifier: Classifier,
    films: Prepared,
    methods: tuple[str, ...],
    findings: tuple[str, ...],
    folder: Path,
) -> None:
    from lucency.explain.methods.registry import explain
    from lucency.models.inference import predict
    from lucency.report.heatmap_figures import write_explanation

    plan, maps = originals(films.manifest.label), []
    what = {"prepared": films, "plan": plan, "findings": findings or classifier.findings}
    for name in methods:
        with progress(f"Explaining with {name}", unit="films") as advance:
            maps.append(explain(classifier, method=name, progress=advance, **what))
    warn_of_one_cell(classifier, maps)
    write_explanation(
        predict(classifier, prepared=films, plan=plan),
        maps=maps,
        prepared=films,
        threshold=classifier.threshold,
        findings=findings,
        folder=folder,
    )


def warn_of_one_cell(classifier: Classifier, several: Sequence[Heatmaps]) -> None:
    """Name the methods whose maps of this network have one cell, to standard error."""
    for remark in one_cell_remarks(several):
        say(f"{classifier.name}, {remark}")


def network_folder(folder: Path, network: str) -> Path:
    """Return a network's own folder; of a run the named one, or the best on validation films."""
    home = find_home(folder)
    names = [name for name in home.networks if not name.startswith(FROZEN)]
    if folder in home.networks.values():
        if network not in ("", *names):
            raise ValueError(f"{folder} is one network; expected no --model beside it")
        return folder
    if network and network not in names:
        what = "no network, which this needs" if network in home.fitted else "no network of the run"
        raise ValueError(f"{network!r} is {what}; expected one of {', '.join(names)}")
    return home.networks[network or best_of(home)]


def requested_films(folder: Path, films: Sequence[Path], classifier: Classifier) -> Prepared:
    """Return films as a network sees them: the run's own by name, others prepared anew.

    Files that cannot be read are left out, aloud, and stand in `rejected`. Raises ValueError for a
    film that is neither, for too many, and where none can be read.
    """
    names = [str(film) for film in films if not _is_there(film)]
    if len(names) == len(films) and (folder / "protocol.toml").is_file():
        run = open_run_folder(folder)
        require_prepared(run)
        _refuse_many(names)
        return _films_of(load_films(run), names)
    if names:
        raise ValueError(
            f"{names[0]}: {why_no_film(names[0])}; expected films, folders, or films of the run"
        )
    files = films_below(films)
    _refuse_many(files)
    read = read_films(files, findings=classifier.findings, preparation=classifier.preparation)
    named = [f"{file} {fingerprint_film(file)}" for file in read.manifest.image.tolist()]
    return replace(read, manifest=replace(read.manifest, origin=f"on disk: {', '.join(named)}"))


def _say_unlike(table: pd.DataFrame) -> None:
    """Name films that are not like the training films, at most MOST_NAMED of them."""
    if "note" not in table or not (unlike := table["film"][table["note"] != ""].tolist()):
        return
    shown = listed([str(film) for film in unlike], most=MOST_NAMED)
    count = counted(len(unlike), "film", "is/are", of=len(table))
    say(f"{count} {UNLIKE}: {shown}")


def _say_undecided(table: pd.DataFrame, predictor: FilmPredictor) -> None:
    """Name the findings whose sets state nothing of any film, each reason once with its own."""
    sets = predictor.sets
    if sets is None:
        return
    stated = table.loc[:, [f"{one}{SET}" for one in predictor.findings]].to_numpy()
    empty = np.flatnonzero((stated == UNDECIDED).all(axis=0)).tolist()
    if empty:
        names = dict[str, list[str]]()  # by reason
        for k in empty:
            names.setdefault(sets.note[k], []).append(predictor.findings[k])
        groups = [
            listed(some, most=MOST_NAMED) + (f" ({why})" if why else "")
            for why, some in names.items()
        ]
        count = counted(len(empty), "finding", of=len(sets.note))
        shown = "; ".join(groups[:MOST_REASONS]) + ("; …" if groups[MOST_REASONS:] else "")
        say(f"Sets of error {sets.error:g}: {count} undecided on every film: {shown}")


def _is_there(film: Path) -> bool:
    return film_exists(film) or film.exists()


def _refuse_many(films: Sequence[object]) -> None:
    if len(films) > MOST_FILMS:
        raise ValueError(
            f"found {len(films):,} films, expected {MOST_FILMS} at most for one page: name fewer"
        )


def _films_of(prepared: Prepared, names: list[str]) -> Prepared:
    """Return the prepared films of these names; ValueError for one that is not among them."""
    row = match_films(np.array(names), prepared.manifest.image, source="the run")
    if (row < 0).any():
        lost = names[int(np.flatnonzero(row < 0)[0])]
        raise ValueError(f"{lost}: {why_no_film(lost)}, and no film of the run; expected either")
    films = replace(prepared.manifest.take(row), origin=f"of the run: {', '.join(names)}")
    return replace(prepared, manifest=films, pixels=np.asarray(prepared.pixels[row]))


def read_films(
    files: Sequence[Path], *, findings: tuple[str, ...], preparation: Preparation
) -> Prepared:
    """Return the films that can be read, prepared, without labels; others are `rejected`, aloud.

    Where the preparation states no bit depth, that of the films is found.
    Raises ValueError where none can be read.
    """
    if not files:
        raise ValueError("films: found none, expected one or more")
    files = list(dict.fromkeys(files))
    if preparation.bits:
        reading = bits_for_network(preparation, files)
    else:
        reading = preparation = with_bits(preparation, files)
    blocks = list(stream_films(files, preparation=reading))
    names = [name for block in blocks for name in block.names]
    lost = [one for block in blocks for one in block.rejected]
    if not names:
        image, reason = lost[0]
        number = counted(len(lost), "file")
        raise ValueError(f"none of {number} can be read ({image}: {reason}); name a film")
    _say_left_out(lost)
    pixels = np.concatenate([block.pixels for block in blocks])
    return unlabelled(names, pixels, findings=findings, preparation=preparation, rejected=lost)


def _say_left_out(lost: Sequence[tuple[str, str]]) -> None:
    """Name the films that cannot be read and why, at most MOST_NAMED of them."""
    for image, reason in lost[:MOST_NAMED]:
        say(f"Left out is {image}: {reason}")
    if len(lost) > MOST_NAMED:
        say(f"and {len(lost) - MOST_NAMED:,} more")
