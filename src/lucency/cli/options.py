"""What several commands share: arguments, options, and how an answer is told."""

from pathlib import Path
from typing import Annotated

import typer

ProtocolFile = Annotated[
    Path, typer.Argument(metavar="PROTOCOL.toml", help="The experiment; see the protocols/ folder.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. training.epochs=3."),
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that prepare films; 0 means one a core.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
RunFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A run's folder, or one trained network's.")
]
Films = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILM", help="PNG or JPEG films, or folders of them."),
]
LabelFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of a table: the films' label file.")
]
NameList = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The image names of this part, one a line.")
]
Scale = Annotated[str, typer.Option(help="What a table holds: probability or logit.")]
Validation = Annotated[
    Path | None, typer.Option(metavar="TABLE.csv", help="Other films, to fit thresholds on.")
]
Written = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="With --out: also write the balanced films here, as NIH lays them; the column "
        "Lineage of their label file says where a copy comes from.",
    ),
]
RunOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Plan a run's films; keep it there.")
]
PlanLabels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Plan from this label file, not the protocol's own."),
]
BalanceFigure = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw counts before and after, and steps, to this SVG file."),
]
StepTable = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the steps to this CSV file.")
]

INCOMPLETE = 3  # exit status of a report that lacks a chapter


def check_place(file: Path) -> None:
    """Raise ValueError unless a file may be written there: said before the work, not after."""
    if file.is_dir() or not file.absolute().parent.is_dir():
        found = "is a folder" if file.is_dir() else "has no folder to lie in"
        raise ValueError(f"{file} {found}: expected the name of a file to write")


def check_folder(folder: Path) -> None:
    """Raise ValueError unless tables may be written there: no file, and no run's folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: expected a folder to write tables to")
    for place in (folder, *folder.resolve().parents):
        if (place / "protocol.toml").is_file():
            raise ValueError(f"{place} holds a run: choose another --out for these tables")


def tell(answer: dict[str, object], json: bool) -> None:
    """Write an answer to standard output, as the user asked for it."""
    from lucency.cli.output import in_json, in_words

    typer.echo(in_json(answer) if json else in_words(answer), nl=False)


def tell_balance(answer: dict[str, object], json: bool) -> None:
    """Write what balancing does to standard output, the steps as a table."""
    from lucency.cli.output import in_table

    if json or "steps" not in answer:  # a protocol with variants has several plans
        tell(answer, json)
    else:
        typer.echo(in_table(answer), nl=False)


def do(
    name: str, protocol: Path, out: Path, changes: list[str] | None, workers: int, json: bool
) -> None:
    """Do one stage of a protocol's run and say what came of it."""
    from lucency.cli.output import NOT_MADE, do_stage
    from lucency.config.protocol import read_protocol
    from lucency.core.parallel import rank
    from lucency.pipeline.run import open_run

    job = open_run(read_protocol(protocol, changes=tuple(changes or ())), out=out, workers=workers)
    answer = do_stage(job, name)
    if rank() == 0:
        tell(answer, json)
    if NOT_MADE in answer:
        raise typer.Exit(INCOMPLETE)
