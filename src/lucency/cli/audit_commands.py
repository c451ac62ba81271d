"""`lucency audit`: commands on the quality of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import print_audit
from lucency.cli.options import (
    ImageColumn,
    Json,
    LabelFile,
    PatientColumn,
    RunFolder,
    Scale,
    Tables,
    label_columns,
    to_folder,
)

audit_group = typer.Typer(
    help="Audit labels: against radiologists, between versions, one by one, by review.\n\n"
    "Example:\n\n"
    "lucency audit labels --labels chestxray14/Data_Entry_2017_v2020.csv --expert expert",
    no_args_is_help=True,
)

PredictionTable = Annotated[
    Path | None,
    typer.Option(
        "--predictions", metavar="TABLE.csv", help="A table of predictions, evaluated too."
    ),
]
EXPERT_HELP = "Radiologists' labels: a table of Google's chest-xray-labels, or its folder."


@audit_group.command()
def labels(  # noqa: PLR0913 - the options of one command
    labels: Annotated[Path, typer.Option(metavar="FILE", help="The label file to audit.")],
    expert: Annotated[Path, typer.Option(metavar="PATH", help=EXPERT_HELP)],
    predictions: PredictionTable = None,
    image_column: ImageColumn = "image",
    patient_column: PatientColumn = "patient",
    scale: Scale = "probability",
    out: Tables = None,
    json: Json = False,
) -> None:
    """Compare a label file with radiologists' labels, finding by finding.

    Agreement, predictive values and sensitivity come with 95 % confidence intervals.

    Example:

    lucency audit labels --labels chestxray14/Data_Entry_2017_v2020.csv --expert expert
    """
    from lucency.audit.label_audit import audit_labels

    columns = label_columns(image_column, patient_column)
    choices = {"table": predictions, "scale": scale, "columns": columns}
    found = audit_labels(labels, expert=expert, **choices)
    print_audit(found, out, json)


@audit_group.command()
def versions(  # noqa: PLR0913 - the options of one command
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A label file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A later one of the same films.")],
    predictions: PredictionTable = None,
    image_column: ImageColumn = "image",
    patient_column: PatientColumn = "patient",
    scale: Scale = "probability",
    out: Tables = None,
    json: Json = False,
) -> None:
    """Compare two versions of a label file.

    With --predictions the AUC of a table is given under both versions.

    Example:

    lucency audit versions chestxray14/Data_Entry_2017.csv chestxray14/Data_Entry_2017_v2020.csv
    """
    from lucency.audit.label_audit import audit_versions

    columns = label_columns(image_column, patient_column)
    choices = {"table": predictions, "scale": scale, "columns": columns}
    print_audit(audit_versions(old, new, **choices), out, json)


@audit_group.command()
def errors(  # noqa: PLR0913 - the options of one command
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="A table, or a predictions.npz of a run.")
    ],
    labels: LabelFile = None,
    expert: Annotated[Path | None, typer.Option(metavar="PATH", help=EXPERT_HELP)] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels of each finding and direction.")] = 20,
    image_column: ImageColumn = "image",
    patient_column: PatientColumn = "patient",
    scale: Scale = "probability",
    out: Tables = None,
    json: Json = False,
) -> None:
    """Rank likely label errors, missing and spurious labels, with reasons.

    The predictions must be of films that the network was not trained on. Scores rank; they are no
    probabilities, and only reviewed films (`audit review`) give a rate of wrong labels. With
    --expert the ranking is compared with radiologists' labels.

    Example:

    lucency audit errors scores.csv --labels chestxray14/Data_Entry_2017_v2020.csv --out errors
    """
    from lucency.audit.label_audit import audit_label_errors

    columns = label_columns(image_column, patient_column)
    choices = {"labels": labels, "columns": columns, "expert": expert, "scale": scale}
    found = audit_label_errors(predictions, **choices, top=top)
    print_audit(found, out, json)


@audit_group.command()
def review(
    folder: RunFolder,
    out: Annotated[Path, to_folder("The folder to write.")],
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="errors.csv of `audit errors`: its films, not random ones."
        ),
    ] = None,
    films: Annotated[int, typer.Option(min=1, max=400, help="Films of each sheet.")] = 36,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random films.")] = 0,
    json: Json = False,
) -> None:
    """Write films for reviewers: contact sheets, a page with buttons, an empty form.

    The films of the run must be prepared.

    Example:

    lucency audit review runs/demo --out review --films 6
    """
    from lucency.pipeline.run_audit import draw_review

    found = draw_review(folder, errors=errors, films=films, seed=seed, out=out)
    print_audit(found, None, json)


@audit_group.command()
def score_review(
    sample: Annotated[
        Path, typer.Argument(metavar="SAMPLE.csv", help="The sample that `audit review` wrote.")
    ],
    forms: Annotated[
        list[Path], typer.Argument(metavar="FORM.csv…", help="Filled forms, of several reviewers.")
    ],
    out: Tables = None,
    json: Json = False,
) -> None:
    """Score filled review forms: the share of right labels, the agreement of reviewers.

    Example:

    lucency audit score-review review/sample.csv filled.csv
    """
    from lucency.pipeline.run_audit import score_reviews

    print_audit(score_reviews(sample, forms), out, json)
