"""`lucency study`: commands on the effect of a choice of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from lucency.cli import answers, options
from lucency.cli.run_commands import StageName, Until, do, print_made, refuse_variants

Item = TypeVar("Item")

study_group = typer.Typer(
    help="Measure the effect of choices: variants, a sweep, leakage, folds, heat maps, CLAHE.\n\n"
    "Example:\n\n"
    "lucency study heatmaps runs/demo --set explanation.methods='[\"occlusion\"]' --out heatmaps",
    no_args_is_help=True,
)


@study_group.command()
def ablation(  # noqa: PLR0913 - the options of one command
    protocol: options.ProtocolFile,
    out: options.StudyOut,
    until: Until = StageName.REPORT,
    changes: options.Changes = None,
    workers: options.Workers = 0,
    engine: options.Engine = "local",
    cache: options.Cache = "",
    json: options.Json = False,
) -> None:
    """Train every variant of a protocol at every seed, and compare them with the base.

    All variants share films and parts. A stopped study continues with the same command.

    Example:

    lucency study ablation ablation-balance --out runs/ablation-balance
    """
    do(until, protocol, out, changes, workers, json, variants=True)


@study_group.command()
def sweep(
    protocol: options.ProtocolFile,
    out: options.StudyOut,
    changes: options.Changes = None,
    workers: options.Workers = 0,
    engine: options.Engine = "local",
    cache: options.Cache = "",
    json: options.Json = False,
) -> None:
    """Search keys of a protocol by their macro AUC on validation films, never on test films.

    The best trial is trained again at fresh seeds: the report names the optimism of the search.
    The same command in further terminals, or on machines that see the folder, joins in.

    Example:

    lucency study sweep sweep --out runs/sweep
    """
    from lucency.cli.output import concluded
    from lucency.config.protocol import read_protocol
    from lucency.core.files import no_leftovers
    from lucency.pipeline.sweep_study import open_sweep, report

    chosen = read_protocol(protocol, changes=changes)
    with no_leftovers(out, notes=("protocol.toml",)):
        page = report(open_sweep(chosen, out=out, workers=workers))
    best = {"best": out / "evaluation" / "best.toml", "report": page}
    answers.print_answer({**concluded(out / "evaluation"), **best}, json)


@study_group.command()
def leakage(
    protocol: options.ProtocolFile,
    out: options.StudyOut,
    changes: options.Changes = None,
    workers: options.Workers = 0,
    engine: options.Engine = "local",
    cache: options.Cache = "",
    json: options.Json = False,
) -> None:
    """Measure the inflation of metrics by leakage: three schemes of split and balancing.

    Each scheme trains the networks of the protocol. Its metrics are compared with those on patients
    that no network has seen.

    Example:

    lucency study leakage leak --out runs/leak
    """
    from lucency.cli.output import NOT_MADE, concluded
    from lucency.config.protocol import read_protocol
    from lucency.core.files import no_leftovers
    from lucency.pipeline.leakage_study import report, without
    from lucency.pipeline.run import open_run

    chosen = read_protocol(protocol, changes=changes)
    refuse_variants(chosen)
    with no_leftovers(out, notes=("protocol.toml",)):
        job = open_run(chosen, out=out, workers=workers)
        page, missing = report(job), without(job)
    answer = {**concluded(out / "inflation"), "report": page}
    print_made(answer | ({NOT_MADE: missing} if missing else {}), json)


@study_group.command()
def cross_validation(  # noqa: PLR0913 - the options of one command
    protocol: options.ProtocolFile,
    out: options.StudyOut,
    folds: Annotated[int, typer.Option(min=3, max=20, help="Folds of a repeat.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Independent repeats.")] = 1,
    changes: options.Changes = None,
    workers: options.Workers = 0,
    engine: options.Engine = "local",
    cache: options.Cache = "",
    json: options.Json = False,
) -> None:
    """Predict every film by cross-validation, with folds by patient.

    Each network is trained once a fold. The predictions are the input of `audit errors`.

    Example:

    lucency study cross-validation demo --out runs/folds --folds 3
    """
    from lucency.config.protocol import read_protocol
    from lucency.core.files import no_leftovers
    from lucency.pipeline.run import open_run
    from lucency.pipeline.run_audit import audit_folds

    chosen = read_protocol(protocol, changes=changes)
    refuse_variants(chosen)
    with no_leftovers(out, notes=("protocol.toml",)):
        job = open_run(chosen, out=out, workers=workers)
        found = audit_folds(job, folds=folds, repeats=repeats)
    answers.print_audit(found, None, json)


@study_group.command()
def heatmaps(
    folder: options.RunFolder,
    out: Annotated[Path, options.to_folder("The study's folder.")],
    changes: options.Changes = None,
    json: options.Json = False,
) -> None:
    """Score heat maps on the boxes of a run's test films, beside trivial baselines.

    Pointing game, accuracy and false boxes follow Wang et al. (2017). --set changes the methods or
    the network, nothing else.

    Example:

    lucency study heatmaps runs/demo --set explanation.methods='["occlusion"]' --out heatmaps
    """
    from lucency.cli.output import localised
    from lucency.pipeline.run_audit import score_run_heatmaps

    found = score_run_heatmaps(folder, changes=tuple(changes or ()), out=out)
    answers.print_answer(localised(found, out), json)


@study_group.command()
def preparation(  # noqa: PLR0913 - the options of one command
    protocol: options.ProtocolFile,
    out: options.StudyOut,
    clips: Annotated[
        str, typer.Option(metavar="LIST", help="Clip limits of CLAHE, between commas.")
    ] = "1,2,3,4,8",
    tiles: Annotated[
        str, typer.Option(metavar="LIST", help="Tiles along a side, between commas.")
    ] = "4,8,10,16",
    orders: Annotated[
        str, typer.Option(metavar="LIST", help="CLAHE before or after resizing, or both.")
    ] = "clahe-first,resize-first",
    films: Annotated[int, typer.Option(min=1, help="Random films that are measured.")] = 300,
    repeats: Annotated[
        int, typer.Option(min=1, max=50, help="Repeats of the cross-validation.")
    ] = 5,
    ablation: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A finished ablation of preparations, shown too."),
    ] = None,
    changes: options.Changes = None,
    workers: options.Workers = 0,
    engine: options.Engine = "local",
    cache: options.Cache = "",
    json: options.Json = False,
) -> None:
    """Measure the effect of CLAHE's parameters on a protocol's films.

    Films of every preparation of a grid are measured and classified by cross-validation, on the
    features of the protocol's first network with weights. No CLAHE and clip limit 3 with 10 x 10
    tiles are always in the grid.

    Example:

    lucency study preparation preparation-sample --out runs/preparation-sample
    """
    from lucency.config.protocol import read_protocol
    from lucency.evaluation.preparation_grid import make_grid
    from lucency.pipeline.preparation_study import answer, open_study

    read = read_protocol(protocol, changes=changes)
    grid = make_grid(
        read.preparation,
        clips=_listed(clips, float, "--clips"),
        tiles=_listed(tiles, int, "--tiles"),
        orders=_listed(orders, str, "--orders"),
    )
    choices = {"measured": films, "repeats": repeats, "ablation": ablation}
    opened = open_study(read, grid=grid, out=out, workers=workers, **choices)
    answers.print_answer(answer(opened), json)


def _listed(text: str, kind: Callable[[str], Item], option: str) -> list[Item]:
    """Return what stands between the commas of an option."""
    try:
        return [kind(one.strip()) for one in text.split(",")]
    except ValueError:
        expected = {"--clips": "numbers such as 2,3", "--tiles": "whole numbers such as 8,10"}
        raise ValueError(f"{option} {text}: expected {expected[option]}") from None
