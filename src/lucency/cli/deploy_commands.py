"""Commands that take a trained model out of the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli import options


def view(
    model: options.Model,
    films: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILM…]", help="Films to predict and show.")
    ] = None,
    name: options.ModelName = "",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port of the page. 0 is a free one.")
    ] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Show a run's films, predictions and heat maps in the browser.

    The page is on this machine only and needs the token of its address. Films may be dropped on it.
    Verdicts on labels are kept in the run, for `lucency audit score-review`. Without a run, of an
    exported model, only the films that are named or dropped are shown.

    Example:

    lucency view runs/demo
    """
    from lucency.deploy.viewer import serve_viewer

    serve_viewer(model, films=films or [], name=name, port=port, open_browser=open_browser)
