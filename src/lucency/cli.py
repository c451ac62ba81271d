"""The command line: one command a stage, thin. Everything heavy is imported where it is used."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lucency.options import (
    Changes,
    Films,
    Json,
    LabelFile,
    Out,
    ProtocolFile,
    RunFolder,
    Validation,
    Workers,
    Written,
    tell,
)

INTERRUPTED = 130  # typer's exit status after Ctrl-C

app = typer.Typer(
    help="Multi-label classification of chest X-rays: one protocol, one command, one page. "
    "For research only, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; what people can mend is one line on standard error and status 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("LUCENCY_TRACEBACK"):
            raise
        typer.echo(f"lucency: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo("lucency: stopped; the same command goes on from here", err=True)
        raise


@app.command()
def run(
    protocol: ProtocolFile,
    out: Out,
    changes: Changes = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Do the whole experiment and end with its report.

    What is done is skipped; a killed run goes on where it was. Example:

    lucency run protocols/demo.toml --out runs/demo
    """
    _stage("report", protocol, out, changes, workers, json)


@app.command()
def prepare(
    protocol: ProtocolFile,
    out: Out,
    changes: Changes = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Read the labels and fill the cache of prepared films."""
    _stage("prepare", protocol, out, changes, workers, json)


@app.command()
def split(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Part the films into train, val and test (and prepare them first)."""
    _stage("split", protocol, out, changes, 0, json)


@app.command()
def balance(
    protocol: ProtocolFile,
    out: Out,
    changes: Changes = None,
    write: Written = None,
    json: Json = False,
) -> None:
    """Plan which training films are seen, how often, how changed and with which weight.

    With --write, every entry becomes a film on disk for those who train elsewhere; the label
    file's column Lineage says where a copy comes from.
    """
    if write:
        from lucency.export import write_balanced
        from lucency.protocol import read_protocol
        from lucency.workspace import open_run

        run = open_run(read_protocol(protocol, changes=tuple(changes or ())), out=out)
        write_balanced(run, out=write)
    _stage("balance", protocol, out, changes, 0, json)


@app.command()
def train(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Train every network of the protocol.

    Several processes or machines: accelerate launch -m lucency train PROTOCOL.toml --out DIR
    """
    _stage("train", protocol, out, changes, 0, json)


@app.command()
def evaluate(
    what: Annotated[
        Path, typer.Argument(metavar="PROTOCOL.toml|TABLE.csv", help="A run's, or anybody's.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; of a table, for metrics.")
    ] = None,
    changes: Changes = None,
    labels: LabelFile = None,
    val: Validation = None,
    scale: Annotated[
        str, typer.Option(help="What a table holds: probability or logit.")
    ] = "probability",
    json: Json = False,
) -> None:
    """Judge predictions: thresholds from validation, tables of the test part, intervals.

    Of a protocol's run, or of anybody's table of an image column and one column a finding:

    lucency evaluate predictions.csv --labels Data_Entry_2017_v2020.csv
    """
    if what.suffix == ".toml":
        if out is None or labels or val:
            raise ValueError("a protocol's run is judged with --out, without --labels and --val")
        _stage("evaluate", what, out, changes, 0, json)
        return
    if labels is None:
        raise ValueError(f"{what} holds no labels: expected --labels FILE, the films' label file")
    from lucency.foreign import judge_table

    tell(judge_table(what, labels=labels, val=val, scale=scale, out=out), json)


@app.command()
def report(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Write the page, doing whatever it still needs."""
    _stage("report", protocol, out, changes, 0, json)


@app.command()
def predict(
    folder: RunFolder,
    films: Films = None,
    network: Annotated[
        str, typer.Option(help="Which network of the run; the best on validation if not said.")
    ] = "",
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Give the probabilities of films on disk, prepared as the training films were.

    Films that cannot be read are reported beside the others. Without films: the predictions of
    the run's own validation and test films are made.
    """
    if films:
        from lucency.service import films_in_json, predict_disk

        name, table = predict_disk(folder, films, network=network)
        if csv:
            table.to_csv(csv, index=False)
        said = films_in_json(name, table) if json else f"{csv}\n" if csv else None
        typer.echo(said or table.to_csv(index=False), nl=False)
    elif network or csv:
        raise ValueError("--network and --csv are for films on disk: found no FILM, name some")
    elif not (folder / "protocol.toml").is_file():
        raise ValueError(f"{folder} holds no run: expected the --out folder of `lucency run`")
    else:
        _stage("predict", folder / "protocol.toml", folder, None, 0, json)


@app.command()
def imbalance(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A label file, .csv or .csv.gz.")],
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw which findings share films to this SVG file."),
    ] = None,
    json: Json = False,
) -> None:
    """Say how unbalanced the findings of a label file are, without a look at a picture.

    FILE is NIH's Data_Entry table, a manifest.csv, or any table with a 0/1 column per finding.
    """
    from lucency.service import describe_imbalance

    tell(describe_imbalance(file, figure=figure), json)


@app.command()
def phantom(
    out: Out,
    films: Annotated[int, typer.Option(min=1, help="How many films.")] = 200,
    size: Annotated[int, typer.Option(help="Their side in pixels.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same bytes.")] = 0,
    label_noise: Annotated[float, typer.Option(help="Share of labels made wrong.")] = 0.0,
    shortcut: Annotated[float, typer.Option(help="Share of planted drains and markers.")] = 0.0,
    workers: Workers = 0,
) -> None:
    """Write a data set of invented chest films in ChestX-ray14's own layout."""
    from lucency.data.phantom import write_phantom
    from lucency.progress import progress
    from lucency.receipt import produce

    knobs = {
        "films": films, "size": size, "seed": seed, "label_noise": label_noise,
        "shortcut": shortcut,
    }  # fmt: skip

    def write(folder: Path) -> None:
        with progress("Drawing phantoms", unit="films") as advance:
            count = workers or os.cpu_count() or 1
            write_phantom(folder, **knobs, workers=count, progress=advance)

    typer.echo(str(produce(out, inputs=knobs, write=write)))


def _stage(
    name: str, protocol: Path, out: Path, changes: list[str] | None, workers: int, json: bool
) -> None:
    from lucency.protocol import read_protocol
    from lucency.receipt import rank
    from lucency.service import do_stage
    from lucency.workspace import open_run

    job = open_run(read_protocol(protocol, changes=tuple(changes or ())), out=out, workers=workers)
    answer = do_stage(job, name)
    if rank() == 0:
        tell(answer, json)
