"""The command line: one command a stage, thin. Everything heavy is imported where it is used."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn, cast

import typer

from lucency.audit_commands import audit
from lucency.combine_commands import COMBINE_COMMANDS
from lucency.commands import COMMANDS
from lucency.explain_commands import EXPLAIN_COMMANDS
from lucency.options import (
    BalanceFigure,
    Changes,
    Json,
    Out,
    PlanLabels,
    ProtocolFile,
    RunOut,
    StepTable,
    Workers,
    Written,
    check_place,
    do,
    tell_balance,
)

USAGE = cast("type[typer.BadParameter]", typer.BadParameter.__base__)  # a call that is wrong
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
        status = app(standalone_mode=False, prog_name="lucency")
    except USAGE as error:
        told = error.format_message().rstrip(".")  # nothing where help has been shown instead
        called = error.ctx.command_path if error.ctx else "lucency"
        _end(f"{told}; see {called} --help" if told else "")
    except (ValueError, OSError) as error:
        if os.environ.get("LUCENCY_TRACEBACK"):
            raise
        _end(_said(error))
    else:
        if status == INTERRUPTED:
            typer.echo("lucency: stopped; the same command goes on from here", err=True)
        sys.exit(status)


def _end(line: str) -> NoReturn:
    if line:
        typer.echo(f"lucency: {' '.join(line.split())}", err=True)
    sys.exit(2)


def _said(error: ValueError | OSError) -> str:
    """Return what is wrong; of the system's own errors, where and what to do."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; expected a place to read or write"
    return str(error)


def _tell_version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        typer.echo(version("lucency"))
        raise typer.Exit
    return asked


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Only `--version` is about no command."""


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
    do("report", protocol, out, changes, workers, json)


@app.command()
def prepare(
    protocol: ProtocolFile,
    out: Out,
    changes: Changes = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Read the labels and fill the cache of prepared films."""
    do("prepare", protocol, out, changes, workers, json)


@app.command()
def split(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Part the films into train, val and test (and prepare them first)."""
    do("split", protocol, out, changes, 0, json)


@app.command()
def balance(  # noqa: PLR0913 - the options of one command
    protocol: ProtocolFile,
    out: RunOut = None,
    labels: PlanLabels = None,
    changes: Changes = None,
    write: Written = None,
    figure: BalanceFigure = None,
    table: StepTable = None,
    json: Json = False,
) -> None:
    """Plan which films training sees, how often and how changed, step by step.

    The plan is made of the label table alone: no film is needed, nothing is kept. With --out it is
    made of the films in a run's folder, prepared first where they are not, and kept there. Example:

    lucency balance protocols/reference.toml --labels Data_Entry_2017_v2020.csv
    """
    from lucency.balance_answers import balance_from_labels, check_figure
    from lucency.protocol import read_protocol

    check_figure(figure)
    for file in filter(None, (figure, table)):
        check_place(file)
    chosen = read_protocol(protocol, changes=tuple(changes or ()))
    kept = {"figure": figure, "table": table}
    if out is None:
        if write:
            raise ValueError("--write writes prepared films: expected --out DIR, the run's folder")
        tell_balance(balance_from_labels(chosen, labels=labels, **kept), json)
        return
    if labels:
        raise ValueError("--labels is of a plan that needs no films: found --out, leave one out")
    from lucency.export import write_balanced
    from lucency.service import balance_run
    from lucency.workspace import open_run

    run = open_run(chosen, out=out)
    if write:
        write_balanced(run, out=write)
    tell_balance(balance_run(run, **kept), json)


@app.command()
def train(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Train every network of the protocol.

    Several processes or machines: accelerate launch -m lucency train PROTOCOL.toml --out DIR
    """
    do("train", protocol, out, changes, 0, json)


@app.command()
def report(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Write the page, doing whatever it still needs."""
    do("report", protocol, out, changes, 0, json)


for command in (*COMMANDS, *EXPLAIN_COMMANDS, *COMBINE_COMMANDS):
    app.command()(command)
app.add_typer(audit, name="audit")
