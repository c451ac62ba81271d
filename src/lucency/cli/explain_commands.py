"""Commands on where a finished run's networks look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import Changes, Films, Json, RunFolder, check_folder, tell


def localize(
    folder: RunFolder,
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where other maps than the run's go.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a run's maps on the boxes of its test films, beside maps that know nothing.

    Pointing game, accuracy and false boxes by the protocol of Wang et al. (2017), and tests of
    the maps themselves. Other methods, or another network, go to a folder of their own:

    lucency localize runs/demo --set explanation.methods='["cam","occlusion"]' --out looked
    """
    if out:
        check_folder(out)
    from lucency.cli.output import localised
    from lucency.pipeline.explanation import localize as score

    tell(localised(*score(folder, changes=tuple(changes or ()), out=out)), json)


def explain(
    folder: RunFolder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    films: Films = None,
    network: Annotated[
        str, typer.Option(help="Which network of the run; the best on validation if not said.")
    ] = "",
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method, or several; those of a protocol if none."),
    ] = None,
    finding: Annotated[
        list[str] | None, typer.Option(help="A finding, or several; those named by the network.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw where a network looked: a page, a PNG a film and finding, the maps as .npz.

    FILM is a file, a folder, or the name of a film of the run; without it, the films that the
    report shows are explained.

    lucency explain runs/demo films/00000001_000.png --out explained
    """
    check_folder(out)
    from lucency.config.sections import ExplanationChoices
    from lucency.pipeline.explanation import Request, explain_films

    methods = tuple(method) if method else ExplanationChoices().methods
    request = Request(network, methods, tuple(finding or ()))
    tell(explain_films(folder, films or [], request=request, out=out), json)


EXPLAIN_COMMANDS: tuple[Callable[..., None], ...] = (localize, explain)
