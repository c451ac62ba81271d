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

from lucency.cli import app as cli
from lucency.core.predictions import load_predictions

pytestmark = pytest.mark.slow
PROTOCOL = """
name = "flow"

[data]
films = 60
size = 64
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
resamples = 20

[explanation]
films = 2
methods = ["grad-cam"]
"""


def lucency(*words: str | Path) -> int:
    """Run a command here, as `python -m lucency` does, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lucency", *map(str, words)])
        return cli.call()


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("flow") / "flow.toml"
    file.write_text(PROTOCOL)
    return file


@pytest.fixture(scope="module")
def whole(protocol: Path) -> Path:
    out = protocol.parent / "whole"
    assert lucency("run", protocol, "--out", out) == 0
    return out


def files(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_a_finished_run_does_nothing_again(
    protocol: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    assert lucency("run", protocol, "--out", whole) == 0
    assert f"report: {whole / 'report' / 'report.html'}" in capsys.readouterr().out
    assert files(whole) == before


def test_nothing_half_made_is_left(whole: Path) -> None:
    assert not [
        name for name in files(whole) if ".partial" in name or name.endswith(".lucency-new")
    ]


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
    assert lucency("predict", whole, *films, "--model", "test_convnext", "--csv", table) == 0
    said = pd.read_csv(table)[list(found.findings)].to_numpy()
    np.testing.assert_allclose(said, found.probability[:5], atol=1e-5)


def test_a_changed_protocol_is_refused_and_nothing_lost(
    protocol: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    assert lucency("run", protocol, "--out", whole, "--set", "training.epochs=4") == 2
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) == 1
    assert "training.epochs: was 3, now 4" in message
    assert files(whole) == before


def test_a_changed_label_file_is_refused_and_named(
    protocol: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = whole / "phantom" / "Data_Entry_2017_v2020.csv"
    text = labels.read_text()
    try:
        labels.write_text(text + "\n")
        assert lucency("run", protocol, "--out", whole) == 2
    finally:
        labels.write_text(text)
    assert "tables.Data_Entry_2017_v2020.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    "places",
    [
        ("prepared.partial/shards", "prepared"),
        ("networks/test_convnext.partial/checkpoint.pt", "networks/test_convnext"),
    ],
)
def test_killed_anywhere_and_resumed_is_the_whole_run(
    protocol: Path, whole: Path, tmp_path: Path, places: tuple[str, str]
) -> None:
    """Killed among its films, and between the epochs of its second network, or soon after."""
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "lucency", "run", str(protocol), "--out", str(out)]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    ends = time.monotonic() + 300
    try:
        while not any((out / place).exists() for place in places):
            assert time.monotonic() < ends
            time.sleep(0.005)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert not (out / "report").exists(), "the run was faster than its end"
    assert lucency("run", protocol, "--out", out) == 0
    for name in (
        "prepared/shards/SHA256SUMS",
        "evaluation/metrics.csv",
        "evaluation/thresholds.csv",
    ):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    for network in ("test_resnet", "test_convnext"):
        name = f"networks/{network}/weights.safetensors"
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
