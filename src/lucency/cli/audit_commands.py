"""`lucency audit`: commands on whether labels are true and what networks really see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucency.cli.options import (
    Changes,
    Json,
    LabelFile,
    Out,
    ProtocolFile,
    Scale,
    Workers,
    check_folder,
)

if TYPE_CHECKING:
    from lucency.core.tables import Audit

audit = typer.Typer(
    help="Ask whether the labels are true, and what a network really sees.",
    no_args_is_help=True,
)

Tables = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write all tables here, as CSV.")
]
Predicted = Annotated[
    Path | None,
    typer.Option("--predictions", metavar="TABLE.csv", help="Anybody's predictions, held too."),
]
EXPERT_HELP = "Radiologists' labels: a table of Google's chest-xray-labels, or its folder."


@audit.command()
def labels(
    labels: Annotated[Path, typer.Option(metavar="FILE", help="The label file to audit.")],
    expert: Annotated[Path, typer.Option(metavar="PATH", help=EXPERT_HELP)],
    predictions: Predicted = None,
    scale: Scale = "probability",
    out: Tables = None,
    json: Json = False,
) -> None:
    """Hold a label file against radiologists, finding by finding, and say what may be believed.

    lucency audit labels --labels Data_Entry_2017_v2020.csv --expert expert/
    """
    _check(out)
    from lucency.audit.label_audit import audit_labels

    _tell(audit_labels(labels, expert=expert, table=predictions, scale=scale), out, json)


@audit.command()
def versions(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A label file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A later one of the same films.")],
    predictions: Predicted = None,
    scale: Scale = "probability",
    out: Tables = None,
    json: Json = False,
) -> None:
    """Compare two versions of a label file, and what they make of anybody's AUC.

    lucency audit versions Data_Entry_2017.csv Data_Entry_2017_v2020.csv
    """
    _check(out)
    from lucency.audit.label_audit import audit_versions

    _tell(audit_versions(old, new, table=predictions, scale=scale), out, json)


@audit.command()
def suspects(
    what: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="A table, or a run's predictions.npz.")
    ],
    labels: LabelFile = None,
    expert: Annotated[Path | None, typer.Option(metavar="PATH", help=EXPERT_HELP)] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of each finding and direction.")] = 20,
    scale: Scale = "probability",
    out: Tables = None,
    json: Json = False,
) -> None:
    """Rank the labels that are likely wrong, missing and spurious ones, with the reasons.

    lucency audit suspects runs/demo/predictions/densenet121/predictions.npz --out suspects
    """
    _check(out)
    from lucency.audit.label_audit import audit_label_errors

    found = audit_label_errors(what, labels=labels, expert=expert, scale=scale, top=top)
    _tell(found, out, json)


@audit.command()
def folds(
    protocol: ProtocolFile,
    out: Out,
    folds: Annotated[int, typer.Option(min=3, max=20, help="Trainings of a repeat.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Independent repeats.")] = 1,
    changes: Changes = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Train on folds by patient, so that every film is judged by a network that has not seen it.

    lucency audit folds protocols/demo.toml --out runs/folds --folds 3
    """
    from lucency.config.protocol import read_protocol
    from lucency.pipeline.run import open_run
    from lucency.pipeline.run_audit import audit_folds

    job = open_run(read_protocol(protocol, changes=tuple(changes or ())), out=out, workers=workers)
    _tell(audit_folds(job, folds=folds, repeats=repeats), None, json)


@audit.command()
def quality(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `lucency prepare` has filled.")
    ],
    out: Tables = None,
    json: Json = False,
) -> None:
    """Look for odd pictures: repeated, turned, inverted, mirrored, blank, framed, no chests.

    DIR/quality.csv, or some of its rows, is a list that a protocol's data.exclude leaves out.

    lucency audit quality runs/demo --out pictures
    """
    _check(out)
    from lucency.pipeline.run_audit import audit_quality

    _tell(audit_quality(folder), out, json)


@audit.command()
def review(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `lucency prepare` has filled.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    suspects: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A errors.csv: its films instead of random ones."),
    ] = None,
    films: Annotated[int, typer.Option(min=1, max=400, help="Films of each sheet.")] = 36,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    json: Json = False,
) -> None:
    """Draw films for people to judge: contact sheets, a page with buttons, an empty form.

    lucency audit review runs/demo --out review --films 6
    """
    check_folder(out)
    from lucency.pipeline.run_audit import draw_review

    found = draw_review(folder, suspects=suspects, films=films, seed=seed, out=out)
    _tell(found, None, json)


@audit.command()
def verdicts(
    sample: Annotated[Path, typer.Argument(metavar="SAMPLE.csv", help="As `review` wrote it.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="VERDICTS.csv…", help="Filled, one or more reviewers'.")
    ],
    out: Tables = None,
    json: Json = False,
) -> None:
    """Say from reviewers' verdicts how many labels are right, and how the reviewers agree.

    lucency audit verdicts review/sample.csv answers.csv
    """
    _check(out)
    from lucency.pipeline.run_audit import audit_verdicts

    _tell(audit_verdicts(sample, files), out, json)


def _check(out: Path | None) -> None:
    if out is not None:
        check_folder(out)


def _tell(found: Audit, out: Path | None, json: bool) -> None:
    from lucency.core.tables import audit_in_json, audit_in_words, write_audit

    if out is not None:
        write_audit(found, out)
    typer.echo(audit_in_json(found) if json else audit_in_words(found), nl=False)
    if out is not None and not json:
        typer.echo(f"tables: {out}")
