"""`lucency study`: commands on what a choice of the protocol is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from lucency.cli.options import Changes, Json, ProtocolFile, Workers, tell

Item = TypeVar("Item")

study = typer.Typer(help="Ask what a choice of the protocol is worth.", no_args_is_help=True)


@study.command()
def preparation(  # noqa: PLR0913 - the options of one command
    protocol: ProtocolFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The study's folder.")],
    clips: Annotated[
        str, typer.Option(metavar="LIST", help="Clip limits of CLAHE, between commas.")
    ] = "1,2,3,4,8",
    tiles: Annotated[
        str, typer.Option(metavar="LIST", help="Tiles along a side, between commas.")
    ] = "4,8,10,16",
    orders: Annotated[
        str, typer.Option(metavar="LIST", help="CLAHE before or after resizing, or both.")
    ] = "clahe-first,resize-first",
    films: Annotated[int, typer.Option(min=1, help="Films that are measured, at random.")] = 300,
    repeats: Annotated[
        int, typer.Option(min=1, max=50, help="Cross-validations, each with folds of its own.")
    ] = 5,
    ablation: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A finished ablation of preparations, to be shown too."),
    ] = None,
    changes: Changes = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Say whether the choice of CLAHE's parameters matters on a protocol's films.

    Every preparation of a grid is measured, and judged by features of the protocol's first network
    with weights. No CLAHE and clip limit 3 with 10 x 10 tiles are always among them.

    lucency study preparation protocols/preparation-sample.toml --out runs/preparation-sample
    """
    from lucency.config.protocol import read_protocol
    from lucency.evaluation.preparation_grid import make_grid
    from lucency.pipeline.preparation_study import answer, open_study

    read = read_protocol(protocol, changes=tuple(changes or ()))
    grid = make_grid(
        read.preparation,
        clips=_listed(clips, float, "--clips"),
        tiles=_listed(tiles, int, "--tiles"),
        orders=_listed(orders, str, "--orders"),
    )
    asked = {"measured": films, "repeats": repeats, "ablation": ablation}
    opened = open_study(read, grid=grid, out=out, workers=workers, **asked)
    tell(answer(opened), json)


def _listed(text: str, kind: Callable[[str], Item], option: str) -> list[Item]:
    """Return what stands between the commas of an option."""
    try:
        return [kind(one.strip()) for one in text.split(",")]
    except ValueError:
        expected = {"--clips": "numbers such as 2,3", "--tiles": "whole numbers such as 8,10"}
        raise ValueError(f"{option} {text}: expected {expected[option]}") from None
