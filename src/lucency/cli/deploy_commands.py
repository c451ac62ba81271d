"""Commands that let a trained model out of the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli import options


def serve(
    model: options.Model,
    name: options.ModelName = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 means one that is free.")
    ] = 8765,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    expose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Let other machines in, which call this one by NAME; repeatable."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read the token here. Default: a random one."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let in all who reach the port.")
    ] = False,
) -> None:
    """Answer requests with films by HTTP: predictions, heat maps, similar films.

    It listens on this machine alone and wants a token, which it writes with its address when it is
    ready. The routes are described at /openapi.json. It ends at Ctrl-C, after what runs.

    Example:

    lucency serve runs/demo --port 8765
    """
    options.require_service()
    from lucency.deploy.start import serve_model, service_settings

    settings = service_settings(
        host=host, port=port, names=expose or (), token_file=token_file, no_token=no_token
    )
    serve_model(model, name=name, settings=settings)


def view(
    model: options.Model,
    films: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILM…]", help="Films to predict and show, or folders of them."),
    ] = None,
    name: options.ModelName = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 means one that is free.")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Write the address, open no browser.")
    ] = False,
) -> None:
    """Show the films of a run in the browser: predictions, heat maps, labels, similar films.

    Films may be dropped on the page to have them predicted. Verdicts on labels are kept in the run,
    in review, for `lucency audit score-review`. Without a run, of an exported model, only films
    that are named or dropped are shown. The page is of this machine alone. It ends at Ctrl-C.

    Example:

    lucency view runs/demo
    """
    options.require_service()
    from lucency.deploy.start import serve_model, service_settings
    from lucency.deploy.viewer import opening_browser, viewer_pages

    pages = viewer_pages(model, films=films or [])
    if not no_open:
        pages = opening_browser(pages)
    serve_model(model, name=name, settings=service_settings(port=port), pages=pages)
