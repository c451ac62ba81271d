"""What is not imported on the way to inference: a film is predicted in seconds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lucency
from lucency.models.device import device_here

SOURCE = Path(lucency.__file__).parents[1]
UNUSED = {"accelerate", "albumentations", "sklearn", "matplotlib"}
PROGRAM = """
import sys
import lucency.models.metadata
print("torch" in sys.modules)
from lucency.models.device import device_here
import lucency.models.inference
device_here()
print(*sorted({"accelerate", "albumentations", "sklearn", "matplotlib"} & {*sys.modules}))
"""


def imported_with(module: str) -> set[str]:
    """Return what a module of lucency imports at once, and what its modules import in turn."""
    found, waiting = set(), [module]
    while waiting:
        file = SOURCE.joinpath(*waiting.pop().split(".")).with_suffix(".py")
        for line in ast.parse(file.read_text()).body if file.is_file() else ():
            if isinstance(line, ast.ImportFrom | ast.Import):
                named = line.module if isinstance(line, ast.ImportFrom) else None
                new = {named or "", *(one.name for one in line.names if not named)} - found
                found |= new
                waiting += new
    return {name.partition(".")[0] for name in found}


def test_metadata_need_no_torch_and_inference_neither_accelerate_nor_albumentations(monkeypatch):
    assert imported_with("lucency.models.metadata").isdisjoint({"torch", "timm", *UNUSED})
    assert imported_with("lucency.models.inference").isdisjoint(UNUSED)
    assert imported_with("lucency.models.training") >= {"torch", "accelerate"}  # it can fail
    monkeypatch.setitem(sys.modules, "accelerate", None)
    if not torch.accelerator.is_available():
        assert device_here().type == "cpu"


@pytest.mark.slow
def test_what_others_import_brings_none_of_them_either() -> None:
    run = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False", ""]
