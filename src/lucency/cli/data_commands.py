"""`lucency data`: commands on films and label files, before any network is trained."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli import answers, options

data_group = typer.Typer(
    help="Download, describe, balance, check and write data sets.\n\nExample:\n\n"
    "lucency data describe chestxray14/Data_Entry_2017_v2020.csv",
    no_args_is_help=True,
)


@data_group.command()
def phantom(  # noqa: PLR0913 - the knobs of one data set
    out: Annotated[Path, options.to_own_folder("The data set's folder.")],
    films: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of films.")] = 200,
    size: Annotated[int, typer.Option(help="Their side in pixels.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    label_noise: Annotated[float, typer.Option(help="Share of labels made wrong.")] = 0.0,
    shortcut: Annotated[float, typer.Option(help="Share of planted drains and markers.")] = 0.0,
    hospital: Annotated[
        int, typer.Option(min=1, max=2, help="2: other films of other patients.")
    ] = 1,
    workers: options.Workers = 0,
) -> None:
    """Write a data set of phantoms, invented chest films, in the layout of ChestX-ray14.

    Example:

    lucency data phantom --out phantoms --films 60 --size 128
    """
    from lucency.core.stage import produce_answer
    from lucency.data.sources import draw_phantom

    knobs = {
        "films": films, "size": size, "seed": seed, "label_noise": label_noise,
        "shortcut": shortcut, "hospital": hospital,
    }  # fmt: skip
    write = partial(draw_phantom, knobs, workers or os.cpu_count() or 1)
    answers.write_out(f"{produce_answer(out, inputs=knobs, write=write)}\n")


@data_group.command()
def download(
    name: Annotated[
        str, typer.Argument(metavar="SET", help="nih; of others: where to request them.")
    ],
    out: Annotated[Path, options.to_own_folder("The archives' folder.")] = Path("archives"),
) -> None:
    """Download the twelve archives of ChestX-ray14, 45 GB, three at a time.

    Killed or cut off, the same command goes on where it stopped. A file has its name only when its
    size and MD5 are as published. Sets behind an agreement are not downloaded: the answer is where
    to request them, and which files belong together.

    Example:

    lucency data download nih --out archives
    """
    from lucency.core.progress import say
    from lucency.data.download import NIH_PAGE, NIH_TABLES, download

    download(name, out)
    answers.write_out(f"{out}\n")
    say(f"They are read as they are; put the label files beside: {NIH_TABLES}, from {NIH_PAGE}")


@data_group.command()
def describe(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A label file, .csv or .csv.gz, or a folder of DICOM films."
        ),
    ],
    image_column: options.ImageColumn = "image",
    patient_column: options.PatientColumn = "patient",
    json: options.Json = False,
) -> None:
    """Describe a label file (films, patients, views, ages, findings) or an archive of DICOM films.

    FILE is NIH's Data_Entry table, a manifest.csv, or a table with the columns image and patient
    and a 0/1 column for each finding: no film is read. Or it is a folder: the headers of the DICOM
    files below it are read once, and counted by modality, view, photometric interpretation,
    transfer syntax and so on; what a run would leave out is counted by its reason.

    Example:

    lucency data describe chestxray14/Data_Entry_2017_v2020.csv
    """
    if file.is_dir():
        from lucency.data.dicom_archive import describe_archive

        answers.print_answer(describe_archive(file), json, words=answers.archive_in_words)
        return
    from lucency.cli.output import describe_labels
    from lucency.data.stored_tables import local_table

    columns = options.label_columns(image_column, patient_column)
    answers.print_answer(describe_labels(local_table(file), columns=columns), json)


@data_group.command()
def imbalance(
    file: options.LabelTable, figure: options.Figure = None, json: options.Json = False
) -> None:
    """Measure how imbalanced the findings of a label file are.

    No film is read. FILE is NIH's Data_Entry table, a manifest.csv, or any table with a 0/1 column
    for each finding. The figure shows which findings share films.

    Example:

    lucency data imbalance chestxray14/Data_Entry_2017_v2020.csv
    """
    from lucency.cli.output import describe_imbalance

    answers.print_answer(describe_imbalance(file, figure=figure), json)


@data_group.command()
def balance(
    protocol: options.ProtocolFile,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The label file. Default: that of the protocol."),
    ] = None,
    changes: options.Changes = None,
    figure: options.Figure = None,
    table: Annotated[
        Path | None,
        options.to_table("--table", "Write the steps to this CSV file.", head="step,action,"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Plan a protocol's balancing from labels alone, step by step.

    No film is read and no run is made. The figure shows counts before and after, and the steps.

    Example:

    lucency data balance demo --figure balance.svg --table steps.csv
    """
    from lucency.cli.output import balance_from_labels, in_table
    from lucency.config.protocol import read_protocol

    chosen = read_protocol(protocol, changes=changes)
    answer = balance_from_labels(chosen, labels=labels, figure=figure, table=table)
    answers.print_answer(answer, json, words=in_table)


@data_group.command()
def quality(
    folder: options.RunFolder, out: options.Tables = None, json: options.Json = False
) -> None:
    """Find odd films of a run: repeated, turned, inverted, mirrored, blank, framed, no chest.

    The films must be prepared. quality.csv, or some of its rows, is a list for a protocol's
    data.exclude.

    Example:

    lucency data quality runs/demo --out pictures
    """
    from lucency.pipeline.run_audit import audit_quality

    answers.print_audit(audit_quality(folder), out, json)


@data_group.command()
def export(
    folder: options.RunFolder,
    out: Annotated[Path, options.to_folder("The data set's folder.")],
    json: options.Json = False,
) -> None:
    """Write a run's balanced data set as films, in the layout of ChestX-ray14.

    Copies and mixed films are among them. The column Lineage of the label file names their sources.

    Example:

    lucency data export runs/demo --out balanced
    """
    from lucency.core.stage import RECEIPT
    from lucency.pipeline.export import write_balanced
    from lucency.pipeline.run import command_of, open_run_folder

    opened = open_run_folder(folder)
    if not (folder / "plan" / RECEIPT).is_file():
        raise ValueError(f"{folder} has no plan: go on with {command_of(folder)} --until balance")
    made = write_balanced(opened, out=out)
    films = sum(1 for _ in (made / "images").iterdir())
    answers.print_answer({"films": films, "folder": str(made)}, json)
