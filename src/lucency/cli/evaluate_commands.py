"""Commands on predictions: evaluation and comparison, ensembles, checks for leakage."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import evaluation_in_words, external_in_words, print_answer
from lucency.cli.options import (
    Changes,
    ImageColumn,
    Json,
    LabelFile,
    NameList,
    PatientColumn,
    Scale,
    SourceChanges,
    SourceRoot,
    chosen_source,
    label_columns,
    named_by_options,
    refuse_columns,
    to_folder,
)

PredictionTables = Annotated[
    list[Path],
    typer.Argument(
        metavar="TABLE…", help="Tables (.csv), predictions.npz files, or runs' folders."
    ),
]


def evaluate(  # noqa: PLR0913 - the options of one command
    tables: PredictionTables,
    labels: LabelFile = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="TABLE.csv", help="Validation films of one table: fits thresholds."),
    ] = None,
    image_column: ImageColumn = "image",
    patient_column: PatientColumn = "patient",
    scale: Scale = "probability",
    source: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Test a run's networks on films of this source, e.g. chexpert."
        ),
    ] = "",
    root: SourceRoot = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of that test. Default: the source's.")
    ] = None,
    changes: SourceChanges = None,
    out: Annotated[
        Path | None, to_folder("Write the tables here, with --labels report.html too.")
    ] = None,
    json: Json = False,
) -> None:
    """Evaluate predictions: metrics of each finding, with 95 % confidence intervals over patients.

    Several networks are compared too: ranking, paired differences, tests. A table has an image
    column and one column a finding; --labels names the films' label file. With --source a finished
    run's networks are tested on films of another source, and it keeps that external test.

    Example:

    lucency evaluate scores.csv --labels chestxray14/Data_Entry_2017_v2020.csv
    """
    from lucency.pipeline.table_evaluation import evaluate_tables

    columns = label_columns(image_column, patient_column)
    if source:
        if val or scale != "probability" or len(tables) != 1:
            raise ValueError(
                "--source tests the networks of a run: expected one run's folder, without --val "
                "and --scale"
            )
        about = {"source": source, "root": root, "labels": labels, **columns}
        test_on_source(tables[0], about, name=name, changes=changes, out=out, json=json)
        return
    if root or changes or name is not None:
        raise ValueError("--root, --name and --set are about --source: expected it beside them")
    if labels is None:
        refuse_columns(image_column, patient_column, about="--labels")
    choices = {"labels": labels, "columns": columns, "val": val, "scale": scale}
    found = evaluate_tables(tables, **choices, out=out)
    print_answer(found, json, words=evaluation_in_words)


def test_on_source(
    run: Path,
    about: Mapping[str, object],
    *,
    name: str | None,
    changes: list[str] | None,
    out: Path | None,
    json: bool,
) -> None:
    """Test a run's networks on another source, whose keys are `about`; print the answer."""
    from lucency.pipeline.added_tests import add_external_test, answer

    choice = chosen_source(about, name=name, changes=changes)
    with named_by_options():
        found = add_external_test(run, choice)
    print_answer(answer(run, found, out=out), json, words=external_in_words)


def ensemble(  # noqa: PLR0913 - the options of one command
    tables: PredictionTables,
    val: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TABLE.csv", help="Validation films of each table, in the order of the tables."
        ),
    ] = None,
    labels: LabelFile = None,
    image_column: ImageColumn = "image",
    patient_column: PatientColumn = "patient",
    scale: Scale = "probability",
    method: Annotated[
        list[str] | None,
        typer.Option(help="An ensemble, or several, such as greedy or stacked. Default: all."),
    ] = None,
    out: Annotated[Path | None, to_folder("Write leaderboard and predictions here.")] = None,
    json: Json = False,
) -> None:
    """Combine networks into ensembles and rank them on test films.

    Ensembles are fitted on validation films. The networks are those of one run, of several runs
    (one a seed), or of tables.

    Example:

    lucency ensemble runs/demo --method greedy --out ensembles
    """
    from lucency.ensemble.external_ensembles import ensemble_networks

    columns = label_columns(image_column, patient_column)
    if labels is None:
        refuse_columns(image_column, patient_column, about="--labels")
    choices = {"val": val or [], "labels": labels, "columns": columns, "scale": scale}
    choices["methods"] = method or []
    print_answer(ensemble_networks(tables, **choices, out=out), json)


def check(  # noqa: PLR0913 - the options of one command
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="[WHAT]", help="A protocol, a finished run, a table (.csv) or predictions.npz."
        ),
    ] = None,
    train: NameList = None,
    val: NameList = None,
    test: NameList = None,
    labels: LabelFile = None,
    image_column: ImageColumn = "image",
    patient_column: PatientColumn = "patient",
    scale: Scale = "probability",
    changes: Changes = None,
    json: Json = False,
) -> None:
    """Check a protocol, a run, a table of predictions or lists of films for leakage and mistakes.

    Exit status 1 means a serious issue. A table and lists need --labels, the films' label file. Of
    a protocol no film is read.

    Example:

    lucency check scores.csv --labels chestxray14/Data_Entry_2017_v2020.csv
    """
    from lucency.cli.answers import in_json, write_out
    from lucency.cli.output import find_issues, issues_in_json, issues_in_words

    lists = {p: file for p, file in (("train", train), ("val", val), ("test", test)) if file}
    columns = label_columns(image_column, patient_column)
    table, checks = find_issues(
        what, lists=lists, labels=labels, columns=columns, scale=scale, changes=changes
    )
    about = issues_in_json(table, checks=checks)
    write_out(in_json(about) if json else issues_in_words(table, checks=checks))
    sys.exit(int(about["serious"] > 0))
