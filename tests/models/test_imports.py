"""What is not imported on the way to inference: a film is predicted in seconds."""

import subprocess
import sys

PROGRAM = """
import sys
import lucency.models.metadata
print("torch" in sys.modules)
from lucency.models.device import device_here
import lucency.models.inference
device_here()
print(*sorted({"accelerate", "albumentations", "sklearn", "matplotlib"} & {*sys.modules}))
"""


def test_metadata_need_no_torch_and_inference_neither_accelerate_nor_albumentations() -> None:
    run = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False", ""]
