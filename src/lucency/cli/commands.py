"""Commands on things at hand: a run's folder, a table, a list, films; each needs no protocol."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import (
    INCOMPLETE,
    Changes,
    Films,
    Json,
    LabelFile,
    NameList,
    Out,
    ProtocolFile,
    RunFolder,
    Scale,
    Validation,
    Workers,
    check_folder,
    check_place,
    do,
    tell,
)


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
    scale: Scale = "probability",
    json: Json = False,
) -> None:
    """Judge predictions: thresholds from validation, tables of the test part, intervals.

    Of a protocol's run, or of anybody's table of an image column and one column a finding:

    lucency evaluate predictions.csv --labels Data_Entry_2017_v2020.csv
    """
    if what.suffix == ".toml":
        if out is None or labels or val or scale != "probability":
            raise ValueError("a protocol's run is judged with --out alone, and --set")
        do("evaluate", what, out, changes, 0, json)
        return
    if labels is None:
        raise ValueError(f"{what} holds no labels: expected --labels FILE, the films' label file")
    if changes:
        raise ValueError("--set changes a protocol: found a table, expected no --set")
    if out:
        check_folder(out)
    from lucency.pipeline.table_evaluation import evaluate_table

    tell(evaluate_table(what, labels=labels, val=val, scale=scale, out=out), json)


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
        from lucency.cli.output import in_json
        from lucency.pipeline.film_inference import films_for_programs, predict_disk

        if csv:
            check_place(csv)
        name, table = predict_disk(folder, films, network=network)
        if csv:
            table.to_csv(csv, index=False)
        said = in_json(films_for_programs(name, table)) if json else f"{csv}\n" if csv else None
        typer.echo(said or table.to_csv(index=False), nl=False)
    elif network or csv:
        raise ValueError("--network and --csv are for films on disk: found no FILM, name some")
    elif not (folder / "protocol.toml").is_file():
        raise ValueError(f"{folder} holds no run: expected the --out folder of `lucency run`")
    else:
        do("predict", folder / "protocol.toml", folder, None, 0, json)


def check(  # noqa: PLR0913 - the options of one command
    what: Annotated[
        Path | None, typer.Argument(metavar="[PROTOCOL.toml|DIR|TABLE.csv]", help="What to check.")
    ] = None,
    train: NameList = None,
    val: NameList = None,
    test: NameList = None,
    labels: LabelFile = None,
    scale: Scale = "probability",
    changes: Changes = None,
    json: Json = False,
) -> None:
    """Call the leak doctor; exit status 1 when something serious is found.

    On a protocol (no picture is read), a finished run's folder, anybody's table of predictions, or
    anybody's lists of films:

    lucency check --train train.txt --test test.txt --labels Data_Entry_2017_v2020.csv
    """
    from lucency.audit.checks.issue import count_serious
    from lucency.cli.check_command import consult, issues_in_json, issues_in_words
    from lucency.cli.output import in_json

    given = {"train": train, "val": val, "test": test}
    lists = {part: file for part, file in given.items() if file}
    table, checks = consult(
        what,
        lists=lists,
        labels=labels,
        scale=scale,
        changes=tuple(changes or ()),
    )
    said = (
        in_json(issues_in_json(table, checks=checks))
        if json
        else issues_in_words(table, checks=checks)
    )
    typer.echo(said, nl=False)
    sys.exit(int(count_serious(table) > 0))


def compare(
    several: Annotated[
        list[Path],
        typer.Argument(metavar="WHAT…", help="Tables, predictions.npz files or runs' folders."),
    ],
    labels: LabelFile = None,
    scale: Scale = "probability",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the tables and the page here.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare predictions of several networks, film by film, and say which differ.

    lucency compare mine.csv theirs.csv --labels Data_Entry_2017_v2020.csv
    """
    if out:
        check_folder(out)
    from lucency.pipeline.table_evaluation import compare_tables

    tell(compare_tables(several, labels=labels, scale=scale, out=out), json)


def leak(
    protocol: ProtocolFile,
    out: Out,
    changes: Changes = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Measure what leaks are worth: the published scheme and the honest one on the same films.

    Networks are trained under both, and judged on patients whom none of them has met. Example:

    lucency leak protocols/leak.toml --out runs/leak
    """
    from lucency.cli.output import NOT_MADE
    from lucency.config.protocol import read_protocol
    from lucency.pipeline.leakage_study import report, without
    from lucency.pipeline.run import open_run

    job = open_run(read_protocol(protocol, changes=tuple(changes or ())), out=out, workers=workers)
    page = report(job)
    said = (out / "inflation" / "conclusion.txt").read_text().strip()
    answer: dict[str, object] = {"conclusion": said, "tables": str(out / "inflation")}
    missing = without(job)
    tell(answer | {"report": str(page)} | ({NOT_MADE: missing} if missing else {}), json)
    if missing:
        raise typer.Exit(INCOMPLETE)


def imbalance(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A label file, .csv or .csv.gz.")],
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw which findings share films to this SVG file."),
    ] = None,
    json: Json = False,
) -> None:
    """Say how unbalanced the findings of a label file are, without a look at a picture.

    How many films have none of them (No Finding) is said too, with their share.
    FILE is NIH's Data_Entry table, a manifest.csv, or any table with a 0/1 column per finding.
    """
    from lucency.cli.output import describe_imbalance

    tell(describe_imbalance(file, figure=figure), json)


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
    from lucency.core.progress import progress
    from lucency.core.stage import produce
    from lucency.phantom.dataset import write_phantom

    knobs = {
        "films": films, "size": size, "seed": seed, "label_noise": label_noise,
        "shortcut": shortcut,
    }  # fmt: skip

    def write(folder: Path) -> None:
        with progress("Drawing phantoms", unit="films") as advance:
            count = workers or os.cpu_count() or 1
            write_phantom(folder, **knobs, workers=count, progress=advance)

    typer.echo(str(produce(out, inputs=knobs, write=write)))


COMMANDS: tuple[Callable[..., None], ...] = (
    evaluate, compare, check, leak, predict, imbalance, phantom,
)  # fmt: skip
