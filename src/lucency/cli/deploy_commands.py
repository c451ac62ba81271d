"""Commands that bring a finished run out of the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli import answers, options


def export(
    folder: options.RunFolder,
    out: Annotated[Path, options.to_folder("The model's folder.")],
    name: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME",
            help="What to export. Default: the best network on validation films.",
        ),
    ] = "",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Quantise a network to 8 bits; report cost in AUC and gain."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a run's model as a folder that predicts by itself.

    A network's folder holds model.onnx, weights.safetensors, model.json and a model card, and needs
    no Lucency. That of an ensemble, a learner, neighbours, views or snapshots holds predictor.json,
    predictor.safetensors and a folder for each member; `lucency predict` needs no run beside it.
    The folder is complete or absent: logits of networks must equal those of torch to 0.0001 on 200
    films of the run.

    Without --model the best network is exported, where `lucency predict` takes the best of all.

    Example:

    lucency export runs/demo --out exported
    """
    from lucency.deploy.model_export import describe_export, export_model

    made = export_model(folder, name=name, out=out, int8=int8)
    answers.print_answer(describe_export(made), json)


def results(
    model: options.Model,
    films: Annotated[list[Path], typer.Argument(metavar="FILM…", help="DICOM films, by name.")],
    out: Annotated[Path, options.to_folder("The folder to write; outside of runs.")],
    name: options.ModelName = "",
    method: Annotated[str, typer.Option(help="How heat maps are made; or none.")] = "grad-cam",
    segmentation: Annotated[
        str, typer.Option(help="BINARY: the upper half of a map's range; or FRACTIONAL.")
    ] = "BINARY",
    json: options.Json = False,
) -> None:
    """Write the results of DICOM films as DICOM: a report, heat maps, an overlay.

    A structured report (TID 1500) holds every finding's probability, whether it reaches its
    threshold, and a box; a segmentation and a secondary capture hold the heat maps. They copy
    patient and study of the film. Each says that it is not for clinical use.

    Example:

    lucency results runs/demo film.dcm --out results
    """
    from lucency.deploy.dicom_results import (
        algorithm_of,
        need_highdicom,
        refuse_run,
        results_of,
        write_results,
    )
    from lucency.pipeline.library import load

    if method == "none" and segmentation != "BINARY":
        raise ValueError(
            f"--segmentation {segmentation} is of heat maps, and --method none makes none: leave "
            "one of them out"
        )
    refuse_run(out)
    need_highdicom()
    loaded = load(model, model=name)
    found = results_of(films, loaded, method=method)
    written = write_results(
        found, algorithm=algorithm_of(loaded), out=out, segmentation=segmentation
    )
    answer = {"films": len(found), "objects": len(written), "folder": str(out)}
    answers.print_answer(answer, json)


def serve(
    model: options.Model,
    name: options.ModelName = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 means one that is free.")
    ] = 8765,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    expose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Let other machines in, which call this one by NAME; repeatable."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read the token here. Default: a random one."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let in all who reach the port.")
    ] = False,
) -> None:
    """Answer requests with films by HTTP: predictions, heat maps, similar films.

    It listens on this machine alone and wants a token, which it writes with its address when it is
    ready. The routes are described at /openapi.json. It ends at Ctrl-C, after what runs.

    Example:

    lucency serve runs/demo --port 8765
    """
    options.require_service()
    from lucency.deploy.start import serve_model, service_settings

    settings = service_settings(
        host=host, port=port, names=expose or (), token_file=token_file, no_token=no_token
    )
    serve_model(model, name=name, settings=settings)


def view(
    model: options.Model,
    films: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILM…", help="Films to predict and show, or folders of them."),
    ] = None,
    name: options.ModelName = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 means one that is free.")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Write the address, open no browser.")
    ] = False,
) -> None:
    """Show the films of a run in the browser: predictions, heat maps, labels, similar films.

    Films may be dropped on the page to have them predicted. Verdicts on labels are kept in the run,
    in verdicts, for `lucency audit score-review`. Without a run, of an exported model, only films
    that are named or dropped are shown. The page is of this machine alone. It ends at Ctrl-C.

    Example:

    lucency view runs/demo
    """
    options.require_service()
    from lucency.deploy.start import opening_browser, serve_model, service_settings
    from lucency.deploy.viewer import viewer_pages

    pages = viewer_pages(model, films=films or [])
    if not no_open:
        pages = opening_browser(pages)
    serve_model(model, name=name, settings=service_settings(port=port), pages=pages)
