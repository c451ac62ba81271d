"""Commands on a protocol and its run: the experiment, its trainings, its page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from lucency.cli import answers, options
from lucency.core.parallel import left_alone, rank, world_size

if TYPE_CHECKING:
    from lucency.config.protocol import Protocol
    from lucency.core.tables import Answer

BEFORE = "report.before.partial"  # where a page is while another is made in its place
INCOMPLETE = 3  # exit status of a report that lacks a chapter


class StageName(StrEnum):
    """The stages of a run at which it can end, in order."""

    PREPARE = "prepare"
    SPLIT = "split"
    BALANCE = "balance"
    TRAIN = "train"
    PREDICT = "predict"
    EVALUATE = "evaluate"
    CHECK = "check"
    REPORT = "report"


Until = Annotated[
    StageName,
    typer.Option("--until", metavar="STAGE", help=f"The last stage: {', '.join(StageName)}."),
]


def run(  # noqa: PLR0913 - the options of one command
    protocol: options.ProtocolFile,
    out: options.RunOut,
    until: Until = StageName.REPORT,
    changes: options.Changes = None,
    workers: options.Workers = 0,
    engine: options.Engine = "local",
    cache: options.Cache = "",
    json: options.Json = False,
) -> None:
    """Run an experiment: every stage of its protocol, up to the report.

    Finished stages are skipped. A stopped run continues with the same command.

    Example:

    lucency run quick --out runs/quick
    """
    do(until, protocol, out, changes, workers, json, variants=False)


def train(
    protocol: options.ProtocolFile,
    out: options.RunOut,
    changes: options.Changes = None,
    json: options.Json = False,
) -> None:
    """Train every network of a protocol, in one process or in several.

    `run` trains in one process. Several processes or machines train together under a launcher.

    Example:

    accelerate launch -m lucency train demo --out runs/demo
    """
    if left_alone():
        raise ValueError(
            "accelerate launch was to start several processes and has started one, as it does "
            "where there are no two accelerators: add --multi_gpu, which works on CPUs too"
        )
    if world_size() > 1:
        from lucency.models.device import join

        join()  # before any work: whoever is missing is missed now
    do(StageName.TRAIN, protocol, out, changes, 0, json)


def report(folder: options.RunFolder, json: options.Json = False) -> None:
    """Write the page of a finished run again.

    Chapters that failed are tried again. Networks and predictions stay as they are.

    Example:

    lucency report runs/demo
    """
    from lucency.core.locks import locked
    from lucency.core.stage import RECEIPT
    from lucency.pipeline.run import command_of, open_run_folder, read_kept, require_finished

    file = folder / "protocol.toml"
    if read_kept(folder).sweep.space:
        raise ValueError(
            f"{folder} holds a sweep: {command_of(folder)} finishes it and writes its page; its "
            "runs are finals/NAME/seed-N"
        )
    if not (folder / "evaluation" / RECEIPT).is_file():
        raise ValueError(f"{folder} is not evaluated yet: finish it with {command_of(folder)}")
    require_finished(open_run_folder(folder))
    with locked(folder / "report"), _set_aside(folder / "report"):
        do(StageName.REPORT, file, folder, None, 0, json)


@contextmanager
def _set_aside(page: Path) -> Iterator[None]:
    """Let a page be written again; where that fails, the one of before is there again."""
    from lucency.core.stage import RECEIPT

    before = page.with_name(BEFORE)  # also of a command that was killed
    if (page / RECEIPT).is_file():
        shutil.rmtree(before, ignore_errors=True)
        page.rename(before)
    try:
        yield
    finally:
        if before.is_dir() and not (page / RECEIPT).is_file():
            try:
                before.rename(page)
            except OSError:
                if not (page / RECEIPT).is_file():
                    raise
                shutil.rmtree(before)  # another process has made a page meanwhile


def protocols(json: options.Json = False) -> None:
    """List the protocols that come with the package, with their cost and result.

    A name may stand in place of a protocol's path. No result means that nobody has run it whole.

    Example:

    lucency protocols
    """
    from lucency.config.protocol import list_protocols

    found = list_protocols()
    if json:
        answers.print_answer({one.name: one._asdict() for one in found}, json)
        return
    for one in found:
        answers.write_out(f"{one.name}: {one.about}\n")
        for key, text in (("cost", one.cost), ("result", one.result)):
            line = f"  {key}: {text or 'not measured'}"
            answers.write_out(fill(line, width=100, subsequent_indent="    ") + "\n")


def do(
    stage: str,
    protocol: Path,
    out: Path,
    changes: list[str] | None,
    workers: int,
    json: bool,
    *,
    variants: bool | None = None,
) -> None:
    """Do one stage of a protocol's run and all before it, and print what came of it.

    `variants` says which protocols are expected: with variants, without, or either; ValueError for
    another.
    """
    from lucency.cli.output import do_stage, in_table
    from lucency.config.protocol import read_protocol
    from lucency.core.files import no_leftovers
    from lucency.pipeline.run import open_run

    chosen = read_protocol(protocol, changes=changes)
    if variants and not chosen.variant:
        raise ValueError(f"{protocol} has no variants: use lucency run")
    if variants is False:
        refuse_variants(chosen)
    with no_leftovers(out, notes=("protocol.toml",)):
        answer = do_stage(open_run(chosen, out=out, workers=workers), stage)
    if stage == StageName.REPORT:
        shutil.rmtree(out / BEFORE, ignore_errors=True)
    steps = stage == StageName.BALANCE and not chosen.variant
    print_made(answer, json, words=in_table if steps else None)


def refuse_variants(protocol: Protocol) -> None:
    """Raise ValueError for a protocol with variants, or with a search space."""
    if protocol.variant:
        raise ValueError(f"{protocol.name} has variants: use lucency study ablation")
    if protocol.sweep.space:
        raise ValueError(
            f"{protocol.name} has a sweep: use lucency study sweep, or add --set sweep.space={{}}"
        )


def print_made(answer: Answer, json: bool, *, words: Callable[[Answer], str] | None = None) -> None:
    """Print what a run has made; end with status 3 where its report lacks a chapter."""
    from lucency.cli.output import NOT_MADE

    if rank() == 0:
        answers.print_answer(answer, json, words=words)
    if NOT_MADE in answer:
        raise typer.Exit(INCOMPLETE)
