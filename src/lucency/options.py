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
Validation = Annotated[
    Path | None, typer.Option(metavar="TABLE.csv", help="Other films, to fit thresholds on.")
]
Written = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Also write the balanced films here, as NIH lays them."),
]


def tell(answer: dict[str, object], json: bool) -> None:
    """Write an answer to standard output, as the user asked for it."""
    from lucency.service import in_json, in_words

    typer.echo(in_json(answer) if json else in_words(answer), nl=False)
