"""Commands on combining: ensembles of anybody's networks, films like a film."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import (
    Json,
    LabelFile,
    RunFolder,
    Scale,
    check_folder,
    check_place,
    tell,
)


def combine(
    several: Annotated[
        list[Path],
        typer.Argument(metavar="WHAT…", help="Runs, predictions.npz, or tables of test films."),
    ],
    val: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TABLE.csv", help="For each table, in the same order: its validation films."
        ),
    ] = None,
    labels: LabelFile = None,
    scale: Scale = "probability",
    method: Annotated[
        list[str] | None,
        typer.Option(help="An ensemble, or several, such as greedy or stacked; all if none."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where leaderboard and predictions go.")
    ] = None,
    json: Json = False,
) -> None:
    """Combine networks into ensembles, fitted on validation films, and rank them on test films.

    Networks of one run, the same network trained with several seeds, or anybody's tables:

    lucency combine runs/seed-0 runs/seed-1 runs/seed-2 --method greedy
    """
    if out:
        check_folder(out)
    from lucency.ensemble.combine import combine as pool

    what = {"val": val or [], "labels": labels, "scale": scale, "methods": method or []}
    tell(pool(several, **what, out=out), json)


def similar(
    folder: RunFolder,
    films: Annotated[
        list[Path],
        typer.Argument(metavar="FILM…", help="Films on disk, folders, or the run's films by name."),
    ],
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many films to find.")] = 10,
    network: Annotated[
        str, typer.Option(help="By whose features; the best network on validation if not said.")
    ] = "",
    patients: Annotated[
        str, typer.Option(help="others, or all to let films of the same patient in.")
    ] = "others",
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the first film and its answers, .svg or .png."),
    ] = None,
    json: Json = False,
) -> None:
    """Find the run's films that look most like a film, other patients' alone, and their labels.

    Exact cosine similarity of a network's features; an answer says what looks alike to the network,
    not what is ill alike.

    lucency similar runs/demo 00000001_000.png --top 10
    """
    from lucency.cli.output import in_json
    from lucency.core.progress import say
    from lucency.pipeline.similar_films import (
        answer,
        check_kind,
        draw_similar,
        find_similar,
        in_words,
    )

    if figure:
        check_place(figure)
        check_kind(figure)
    found = find_similar(folder, films, network=network, top=top, patients=patients)
    if figure:
        draw_similar(found, figure)
        say(f"Drawn is {figure}")
    typer.echo(in_json(answer(found)) if json else in_words(found), nl=False)


ENSEMBLE_COMMANDS: tuple[Callable[..., None], ...] = (combine, similar)
