"""Why a folder holds nothing that predicts, or not all that did, and what to do."""

from __future__ import annotations

from pathlib import Path

from lucency.core.saved_files import read_json
from lucency.core.stage import RECEIPT
from lucency.ensemble.fitted import DATA
from lucency.models.metadata import METADATA, MODEL, MODEL_ONNX, WEIGHTS, how_to_replace
from lucency.pipeline.run import command_of

OF_WEIGHTS = (".safetensors", ".pth", ".pt")  # endings of files


def why_nothing_predicts(folder: Path) -> str:
    """Return why nothing in a folder predicts, and what to do."""
    if not folder.exists():
        return f"{folder}: no such folder; expected that of a run, of a network, or an exported one"
    if folder.is_file():
        return f"{folder} is a file; {_instead_of(folder)}"
    if (folder / MODEL_ONNX).is_file() or (folder / DATA).is_file():
        return f"{folder} holds no {MODEL}, which lucency export wrote: export the model anew"
    if (folder / WEIGHTS).is_file():
        return f"{folder} holds no {METADATA}: {how_to_replace(folder)}"
    if (folder / "protocol.toml").is_file():
        return f"{folder} has no trained network yet: go on with {command_of(folder)}"
    runs = sorted(file.parent for file in folder.glob("*/protocol.toml"))
    such = f", such as {runs[0]}" if runs else ""
    return f"{folder} holds no trained network: expected the folder of a run{such}"


def _instead_of(file: Path) -> str:
    """Return what to do where a file is named in place of the folder of what predicts."""
    if file.suffix == ".onnx":
        return f"expected a folder, with {MODEL} beside {MODEL_ONNX}: lucency export RUN --out DIR"
    if file.suffix in OF_WEIGHTS:
        return (
            "expected the folder of a run, which begins with such weights by lucency run PROTOCOL "
            f"--out DIR --set network.0.weights={file}"
        )
    return (
        "expected the folder of a run or of an exported model, which lucency run or lucency export "
        "made; films are named behind it"
    )


def ranks_lost_ensembles(folder: Path) -> bool:
    """Return whether a run's report ranks ensembles that are not there, as in a part of a copy."""
    page = folder / "report" / RECEIPT
    if not page.is_file() or (folder / "ensemble" / "leaderboard" / RECEIPT).is_file():
        return False
    return "ensemble" in read_json(page)
