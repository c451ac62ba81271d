"""Commands on films on disk: a trained network's predictions, heat maps and similar films."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli import answers, options


def predict(  # noqa: PLR0913 - the options of one command
    model: options.Model,
    films: options.Films = None,
    name: options.ModelName = "",
    engine: options.EngineName = "",
    csv: Annotated[
        Path | None,
        options.to_table("--csv", "Write the table to this file.", head="film,called,"),
    ] = None,
    source: Annotated[
        str,
        typer.Option(metavar="NAME", help="Predict all films of this source, e.g. chexpert."),
    ] = "",
    root: options.SourceRoot = None,
    labels: options.LabelFile = None,
    image_column: options.ImageColumn = "image",
    patient_column: options.PatientColumn = "patient",
    changes: options.SourceChanges = None,
    json: options.Json = False,
) -> None:
    """Predict the findings of films on disk.

    Whatever stands in the leaderboard of a run predicts: networks, ensembles, learners, neighbours.
    Films are prepared as the training films were. Probabilities are recalibrated. The set of a
    finding (present, absent, undecided, neither) has a stated error rate. Films that cannot be read
    are listed with the reason. With --source films go by its label file's names.

    Example:

    lucency predict runs/demo runs/demo/phantom/images --csv probabilities.csv
    """
    from lucency.cli.answers import in_json
    from lucency.core.files import write_table
    from lucency.data.several_sources import own_keys
    from lucency.pipeline.film_inference import films_for_programs, predict_disk, predict_source

    if bool(films) == bool(source):
        raise ValueError("expected either films (FILM…) or a source of films (--source)")
    if source:
        columns = options.label_columns(image_column, patient_column)
        about = {"source": source, "root": root, "labels": labels, **columns}
        place = options.chosen_source(about, changes=changes)
        with options.named_by_options(), own_keys("external.0"):
            shown, table = predict_source(model, place, name=name, engine=engine)
    elif root or labels or changes:
        raise ValueError("--root, --labels and --set are about --source: expected it beside them")
    else:
        options.refuse_columns(image_column, patient_column, about="--source")
        shown, table = predict_disk(model, films or [], name=name, engine=engine)
    if csv:
        write_table(table, csv, float_format="%.6f")
    if json or csv:
        answers.write_out(in_json(films_for_programs(shown, table)) if json else f"{csv}\n")
    else:
        answers.write_csv_out(table, float_format="%.4f")


def explain(
    model: options.Model,
    films: options.KnownFilms,
    out: Annotated[Path, options.to_folder("The folder to write.")],
    name: options.ModelName = "",
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method, or several. Default: grad-cam and hires-cam."),
    ] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(help="A finding, or several. Default: those that the network predicts."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Draw heat maps of films: a page, one PNG a film and finding, the maps as .npz.

    Example:

    lucency explain runs/demo 00000001_000.png --method integrated-gradients --out explained
    """
    from lucency.config.sections import ExplanationChoices
    from lucency.pipeline.film_inference import explain_films

    methods = tuple(method) if method else ExplanationChoices().methods
    request = {"network": name, "methods": methods, "findings": tuple(finding or ())}
    answers.print_answer(explain_films(model, films, **request, out=out), json)


def similar(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder.")],
    films: options.KnownFilms,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Films to find.")] = 10,
    name: options.ModelName = "",
    patients: Annotated[
        str, typer.Option(help="others; or all, to include films of the same patient.")
    ] = "others",
    figure: Annotated[
        Path | None, options.to_file("Draw the first film and its answers, .svg or .png.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find the films of a run that are most similar to a film, with their labels.

    Similarity is the cosine of the network's features, over all films of other patients. It
    compares appearance, not diagnosis.

    Example:

    lucency similar runs/demo 00000001_000.png --top 10
    """
    from lucency.cli.answers import in_json
    from lucency.core.progress import say
    from lucency.pipeline import similar_films

    if figure:
        similar_films.check_kind(figure)
    found = similar_films.find_similar(model, films, network=name, top=top, patients=patients)
    if figure:
        similar_films.draw_similar(found, figure)
        say(f"Figure: {figure}")
    shown = in_json(similar_films.answer(found)) if json else similar_films.in_words(found)
    answers.write_out(shown)
