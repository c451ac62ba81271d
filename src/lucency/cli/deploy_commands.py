"""Commands that bring a finished run out of the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli import answers, options


def export(
    folder: options.RunFolder,
    out: Annotated[Path, options.to_folder("The model's folder.")],
    name: options.ModelName = "",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to 8 bits; report cost in AUC and gain.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a run's model as a folder that predicts without this program.

    The folder holds model.onnx, weights.safetensors, model.json and a model card. It is complete or
    absent: logits must equal those of torch to 0.0001 on 200 films of the run.

    Example:

    lucency export runs/demo --out exported
    """
    from lucency.deploy.model_export import describe_export, export_model

    made = export_model(folder, name=name, out=out, int8=int8)
    answers.print_answer(describe_export(made), json)
