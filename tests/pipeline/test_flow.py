"""The whole run on a few phantoms: done once, found again, killed and resumed, changes refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.core.predictions import load_predictions

pytestmark = pytest.mark.slow
PROTOCOL = """
name = "flow"

[data]
films = 160
size = 96
seed = 3

[preparation]
size = 64

[training]
epochs = 3
batch = 16
learning_rate = 1e-3
augment = "gentle"

[[network]]
name = "test_resnet"

[[network]]
name = "test_convnext"

[evaluation]
resamples = 50
"""


def lucency(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lucency", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("flow") / "flow.toml"
    file.write_text(PROTOCOL)
    return file


@pytest.fixture(scope="module")
def whole(protocol: Path) -> Path:
    out = protocol.parent / "whole"
    done = lucency("run", protocol, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"report: {out / 'report' / 'report.html'}" in done.stdout
    return out


def files(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_a_finished_run_does_nothing_again(protocol: Path, whole: Path) -> None:
    before = files(whole)
    again = lucency("run", protocol, "--out", whole)
    assert again.returncode == 0, again.stderr
    assert files(whole) == before


def test_nothing_half_made_is_left(whole: Path) -> None:
    assert not [name for name in files(whole) if ".partial" in name or name.endswith(".new")]


def test_predictions_join_the_parts(whole: Path) -> None:
    found = load_predictions(whole / "predictions" / "test_resnet" / "predictions.npz")
    part = pd.read_csv(whole / "split" / "part.csv").set_index("image")["part"]
    assert (part.loc[found.image].to_numpy() == found.part).all()
    patients = pd.DataFrame({"patient": found.patient, "part": found.part})
    assert (patients.groupby("patient")["part"].nunique() == 1).all()


def test_films_from_disk_get_the_run_s_own_probabilities(whole: Path) -> None:
    """`lucency predict` agrees with the run to 1e-5, through PNG, CLAHE and resize."""
    found = load_predictions(whole / "predictions" / "test_convnext" / "predictions.npz")
    films = [whole / "phantom" / "images" / name for name in found.image[:5]]
    table = whole.parent / "table.csv"
    done = lucency("predict", whole, *films, "--network", "test_convnext", "--csv", table)
    assert done.returncode == 0, done.stderr
    said = pd.read_csv(table)[list(found.findings)].to_numpy()
    np.testing.assert_allclose(said, found.probability[:5], atol=1e-5)


def test_a_changed_protocol_is_refused_and_nothing_lost(protocol: Path, whole: Path) -> None:
    before = files(whole)
    refused = lucency("run", protocol, "--out", whole, "--set", "training.epochs=4")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "training.epochs: was 3, now 4" in refused.stderr
    assert files(whole) == before


def test_a_changed_label_file_is_refused_and_named(protocol: Path, whole: Path) -> None:
    labels = whole / "phantom" / "Data_Entry_2017_v2020.csv"
    text = labels.read_text()
    try:
        labels.write_text(text + "\n")
        refused = lucency("run", protocol, "--out", whole)
    finally:
        labels.write_text(text)
    assert refused.returncode == 2
    assert "tables.Data_Entry_2017_v2020.csv" in refused.stderr


@pytest.mark.parametrize("seconds", [4.0, 9.0])
def test_killed_anywhere_and_resumed_is_the_whole_run(
    protocol: Path, whole: Path, seconds: float
) -> None:
    out = protocol.parent / f"killed-{seconds}"
    command = [sys.executable, "-m", "lucency", "run", str(protocol), "--out", str(out)]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(seconds)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = lucency("run", protocol, "--out", out)
    assert done.returncode == 0, done.stderr
    for name in ("prepared/pixels.npy", "evaluation/metrics.csv", "evaluation/thresholds.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    for network in ("test_resnet", "test_convnext"):
        name = f"networks/{network}/weights.safetensors"
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
