"""The command line: one command a stage, thin. Everything heavy is imported where it is used."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, cast

import typer

from lucency.cli.audit_commands import audit
from lucency.cli.commands import COMMANDS
from lucency.cli.ensemble_commands import ENSEMBLE_COMMANDS
from lucency.cli.explain_commands import EXPLAIN_COMMANDS
from lucency.cli.options import (
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
from lucency.cli.study_commands import study
from lucency.core.parallel import left_alone, rank, share_cores, world_size

USAGE = cast("type[typer.BadParameter]", typer.BadParameter.__base__)  # a call that is wrong
INTERRUPTED = 130  # typer's exit status after Ctrl-C
TOGETHER = ("train",)  # what several processes do together
FIRST_SPEAKS_SECONDS = 5.0  # the launcher ends the others when the first process has failed

app = typer.Typer(
    help="Multi-label classification of chest X-rays: one protocol, one command, one page. "
    "For research only, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command and end the program with its status."""
    sys.exit(call())


def call(*, before: Callable[[], None] | None = None) -> int:
    """Run the command in `sys.argv`, after `before`, and return its exit status.

    What people can mend is one line on standard error and status 2.
    """
    share_cores()
    try:
        if before:
            before()
        _check_together(sys.argv[1:])
        status = int(app(standalone_mode=False, prog_name="lucency") or 0)
    except USAGE as error:
        told = error.format_message().rstrip(".")  # nothing where help has been shown instead
        called = error.ctx.command_path if error.ctx else "lucency"
        return _failed(f"{told}; see {called} --help" if told else "")
    except (ValueError, OSError) as error:
        if os.environ.get("LUCENCY_TRACEBACK"):
            raise
        return _failed(_said(error))
    if status == INTERRUPTED and rank() == 0:
        typer.echo("lucency: stopped; the same command goes on from here", err=True)
    return status


def _check_together(words: list[str]) -> None:
    """Raise ValueError where several processes would do, each for itself, what one should do."""
    command = next((word for word in words if not word.startswith("-")), "")
    if command and world_size() > 1 and command not in TOGETHER:
        raise ValueError(
            f"{world_size()} processes were started for `lucency {command}`: start several for "
            "`lucency train` alone, then give this command without a launcher"
        )


def _failed(line: str) -> int:
    """Write the line and return status 2; of several processes that fail alike the first writes."""
    who = f"process {rank()} of {world_size()}: " if rank() > 0 else ""
    if rank() > 0:
        time.sleep(FIRST_SPEAKS_SECONDS)
    if line:
        typer.echo(f"lucency: {who}{' '.join(line.split())}", err=True)
    return 2


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
    from lucency.cli.output import balance_from_labels, check_figure
    from lucency.config.protocol import read_protocol

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
    from lucency.cli.output import balance_run
    from lucency.pipeline.export import write_balanced
    from lucency.pipeline.run import open_run

    run = open_run(chosen, out=out)
    if write:
        write_balanced(run, out=write)
    tell_balance(balance_run(run, **kept), json)


@app.command()
def train(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Train every network of the protocol.

    Several processes or machines: accelerate launch -m lucency train PROTOCOL.toml --out DIR
    """
    if left_alone():
        raise ValueError(
            "accelerate launch was to start several processes and has started one, as it does "
            "where there are no two accelerators: add --multi_gpu, which works on CPUs too"
        )
    if world_size() > 1:
        from lucency.models.device import join

        join()  # before any work: whoever is missing is missed now
    do("train", protocol, out, changes, 0, json)


@app.command()
def report(protocol: ProtocolFile, out: Out, changes: Changes = None, json: Json = False) -> None:
    """Write the page, doing whatever it still needs."""
    do("report", protocol, out, changes, 0, json)


for command in (*COMMANDS, *EXPLAIN_COMMANDS, *ENSEMBLE_COMMANDS):
    app.command()(command)
app.add_typer(audit, name="audit")
app.add_typer(study, name="study")
