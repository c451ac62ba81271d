"""Retrieval of similar films: an index of a run's films, queried with films of it or on disk.

Letters in shapes: n films of the index, q queries, t results a query, d feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from lucency.core.files import write_whole
from lucency.core.manifest import NO_FINDING, Prepared, counted
from lucency.core.plan import originals
from lucency.core.predictions import Predictions
from lucency.core.progress import printable, progress, say
from lucency.core.stage import fingerprint_of, produce
from lucency.core.tables import fitting_films
from lucency.ensemble import retrieval
from lucency.pipeline.feature_stage import training_features
from lucency.pipeline.film_inference import network_folder, requested_films
from lucency.pipeline.run import Run, command_of, open_run_folder, require_finished
from lucency.pipeline.stages import predictions, prepared, trained

PATIENTS = ("others", "all")
LINE = "{:4d}  {similarity:.3f}  {image}  patient {patient}  {findings}"


class Resemblance(NamedTuple):
    """The queries, what was found among `known`, and the answers' vote on each finding.

    `row` are the answers' rows of `known`, -1 where there is none; `left_out` the patient whose
    films were not to be found, NOBODY where none was.
    """

    network: str
    patients: str
    queries: Prepared
    known: Prepared
    row: Int64[np.ndarray, "q t"]
    similarity: Float32[np.ndarray, "q t"]
    share: Float64[np.ndarray, "q k"]
    left_out: Int64[np.ndarray, " q"]


class Collection(NamedTuple):
    """A run's films to search among: their index by a network, and their rows of `known`."""

    network: str
    embeddings: retrieval.Index
    known: Prepared
    row: Int64[np.ndarray, " n"]


def find_similar(
    folder: Path, films: Sequence[Path], *, network: str, top: int, patients: str
) -> Resemblance:
    """Return for every film the run's films that look most alike to a network, best first.

    Films are the run's by name, or files on disk; one that is called as a film of the run, or has
    its pixels, is that patient's. `patients` is one of PATIENTS: "others" leaves the film's own
    patient out, "all" the film alone. Raises ValueError for films and networks that are not there.
    """
    if patients not in PATIENTS:
        raise ValueError(f"--patients {patients!r}: expected {' or '.join(PATIENTS)}")
    collection = open_collection(folder, network=network)
    queries, feature = _embedded(folder, network_folder(folder, network), films)
    return search_collection(collection, queries, feature, top=top, patients=patients)


def open_collection(folder: Path, *, network: str) -> Collection:
    """Return the films of a run and their index by a network, which is made where it is not there.

    Raises ValueError as `searchable` does.
    """
    run, place = searchable(folder, network=network)
    index, known = _index(run, place.name), prepared(run)
    row = pd.Index(known.manifest.image).get_indexer(pd.Index(index.image))
    return Collection(place.name, index, known, row)


def searchable(folder: Path, *, network: str) -> tuple[Run, Path]:
    """Return a run whose films can be searched, and the folder of its network.

    Raises ValueError for a run that is not finished or was balanced before its split, and for a
    network that is not there.
    """
    run, place = open_run_folder(folder), network_folder(folder, network)
    require_finished(run)
    if run.protocol.balance.before_split:
        raise ValueError(f"{folder} balanced before its split: copies stand among its test films")
    return run, place


def search_collection(
    collection: Collection,
    queries: Prepared,
    feature: Float32[np.ndarray, "q d"],
    *,
    top: int,
    patients: str,
    remark: Callable[[str], None] = say,
) -> Resemblance:
    """Return for every query, whose features these are, the films that look most alike.

    `remark` is called with a line for a query that shows what a film of the run does.
    """
    network, index, known, row = collection
    patient = known.manifest.patient
    nobody = np.full(len(queries.manifest), retrieval.NOBODY)
    nearest = retrieval.search(index, feature, patient=nobody, top=1)
    names = _names(queries, known, row[nearest.row], remark)
    owned = pd.Index(known.manifest.image).get_indexer(pd.Index(names))
    left_out = np.where(owned >= 0, patient[owned], nobody) if patients == "others" else nobody
    found = retrieval.search(index, feature, patient=left_out, top=top + 1)
    found = _without(names, found, index, top=top)
    label = known.manifest.label[row]
    share = retrieval.vote(label, found, prior=retrieval.prevalence(label))
    where = np.where(found.row >= 0, row[found.row], -1)
    return Resemblance(network, patients, queries, known, where, found.similarity, share, left_out)


def answer(resemblance: Resemblance) -> dict[str, object]:
    """Return for programs: film -> its answers, best first, and their vote on each finding."""
    answer: dict[str, object] = {"network": resemblance.network}
    for query, name in enumerate(resemblance.queries.manifest.image.tolist()):
        answer[name] = entry_of(resemblance, query)
    lost = resemblance.queries.rejected
    return {**answer, "rejected": dict(zip(lost["image"], lost["reason"], strict=True))}


def entry_of(resemblance: Resemblance, query: int) -> dict[str, Any]:
    """Return for programs the answers to one film; `left_out` is a patient, None for nobody."""
    share = resemblance.share[query].tolist()
    vote = zip(resemblance.known.manifest.findings, share, strict=True)
    return {
        "left_out": _left_out(resemblance, query),
        "similar": similar_to(resemblance, query),
        "vote": {finding: round(value, 4) for finding, value in vote},
    }


def in_words(resemblance: Resemblance) -> str:
    """Return for people: under each film a line an answer, best first."""
    lines = []
    for query, name in enumerate(resemblance.queries.manifest.image.tolist()):
        lines.append(f"{name}: most alike to {resemblance.network}; {_whose(resemblance, query)}")
        found = similar_to(resemblance, query)
        lines += [LINE.format(place, **one) for place, one in enumerate(found, start=1)]
        if not found:
            lines.append("      no film")
    return "\n".join(map(printable, lines)) + "\n"


def draw_similar(resemblance: Resemblance, file: Path) -> None:
    """Draw the first film and its answers as SVG or PNG, by the name of the file."""
    from lucency.report.neighbour_figures import SimilarFilm, similar_figure
    from lucency.report.rendering import png, standalone_svg, svg

    found = [row for row in resemblance.row[0].tolist() if row >= 0]
    films = [(resemblance.queries, 0), *((resemblance.known, row) for row in found)]
    query, *answers = [
        SimilarFilm(Path(str(of.manifest.image[row])).name, of.pixels[row], of.manifest.label[row])
        for of, row in films
    ]
    figure = similar_figure(
        query,
        answers,
        similarity=resemblance.similarity[0].tolist(),
        findings=resemblance.known.manifest.findings,
        requested=resemblance.row.shape[1],
        note=_whose(resemblance, 0),
    )
    if file.suffix.lower() == ".png":
        write_whole(file, png(figure))
    else:
        drawing = svg(figure, name="similar", title="A film and those most like it")
        write_whole(file, standalone_svg(drawing))


def _whose(resemblance: Resemblance, query: int) -> str:
    """Return whose films the answers to a query may be."""
    patient = _left_out(resemblance, query)
    if resemblance.patients != PATIENTS[0]:
        return "films of all patients, the query's own too"
    if patient is None:
        return "films of all patients, since the query's own is not known"
    return f"films of other patients than {patient}"


def _left_out(resemblance: Resemblance, query: int) -> str | int | None:
    """Return the patient whose films were not to be found, as the label file names them."""
    films, patient = resemblance.known.manifest, resemblance.left_out[query]
    if patient == retrieval.NOBODY:
        return None
    return films.patient_id.tolist()[int(np.argmax(films.patient == patient))]


def check_kind(file: Path) -> None:
    """Raise ValueError unless `draw_similar` can draw to a file of this name, and over no other."""
    if file.suffix.lower() not in (".svg", ".png"):
        raise ValueError(f"--figure {file}: expected a file name that ends in .svg or .png")
    if file.is_file():
        from lucency.report.rendering import refuse_other_picture

        refuse_other_picture(file)


def similar_to(resemblance: Resemblance, query: int) -> list[dict[str, Any]]:
    """Return the answers to one of the films, best first: image, patient, similarity, findings."""
    films, names = resemblance.known.manifest, np.array(resemblance.known.manifest.findings)
    row, similarity = resemblance.row[query], resemblance.similarity[query]
    return [
        {
            "image": str(films.image[film]),
            "patient": films.patient_id[film],
            "similarity": round(cosine, 4),
            "findings": "|".join(names[films.label[film] == 1].tolist()) or NO_FINDING,
        }
        for film, cosine in zip(row.tolist(), similarity.tolist(), strict=True)
        if film >= 0
    ]


def _index(run: Run, network: str) -> retrieval.Index:
    """Return the index of all films that trained, validated and tested a network: a stage."""
    predicted = next((one for one in predictions(run) if one.network == network), None)
    if predicted is None:
        go_on = command_of(run.out)
        raise ValueError(f"{run.out} has no predictions of {network}: go on with {go_on}")
    inputs = {"predictions": fingerprint_of(run.out / "predictions" / network)}
    write = partial(_write_index, run, predicted)
    return retrieval.load_index(produce(run.out / "index" / network, inputs=inputs, write=write))


def _write_index(run: Run, predicted: Predictions, folder: Path) -> None:
    train = training_features(trained(run), predicted.network)
    say(f"Indexing {counted(len(train) + len(predicted), 'film')}")
    retrieval.save_index(train, predicted.features, folder=folder)


def _embedded(
    folder: Path, place: Path, films: Sequence[Path]
) -> tuple[Prepared, Float32[np.ndarray, "q d"]]:
    """Return the films as the network sees them, and their features."""
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict

    classifier = load_classifier(place)
    queries = requested_films(folder, films, classifier)
    with progress("Embedding films", unit="films") as advance:
        plan = originals(queries.manifest.label)
        predicted = predict(classifier, prepared=queries, plan=plan, progress=advance)
    return queries, predicted.feature


def _names(
    queries: Prepared,
    known: Prepared,
    nearest: Int64[np.ndarray, "q 1"],
    remark: Callable[[str], None],
) -> list[str]:
    """Return what films are called, or would be called in the run if it shows the same pixels."""
    image, names = known.manifest.image, [str(name) for name in queries.manifest.image]
    fits = fitting_films(queries.manifest.image, image)
    for query, (row,) in enumerate(nearest.tolist()):
        same = row >= 0 and np.array_equal(queries.pixels[query], known.pixels[row])
        if len(fits[query]) == 1:
            names[query] = str(image[fits[query][0]])
        elif same:
            remark(
                f"{Path(names[query]).name} shows what {image[row]} of the run does: taken for it"
            )
            names[query] = str(image[row])
    return names


def _without(
    names: Sequence[str], found: retrieval.Found, index: retrieval.Index, *, top: int
) -> retrieval.Found:
    """Return the answers without the query itself, one fewer than there are."""
    themselves = (index.image[found.row] == np.array(names)[:, None]) & (found.row >= 0)
    order = np.argsort(themselves, axis=1, kind="stable")[:, :top]
    row = np.where(themselves, -1, found.row)
    similarity = np.where(themselves, np.nan, found.similarity).astype(np.float32)
    return retrieval.Found(
        np.take_along_axis(row, order, axis=1), np.take_along_axis(similarity, order, axis=1)
    )
