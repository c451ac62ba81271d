"""Every film predicted by networks of other patients, in order; odd pictures of a run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.cli.app import app
from lucency.core.manifest import load_manifest
from lucency.core.predictions import load_predictions, load_repeats

PROTOCOL = """
name = "folds"
findings = ["Infiltration", "Effusion"]
[data]
films = 80
size = 64
[preparation]
size = 64
[split]
apart = 0.2  # of which folds take no heed: every film tests in one
[training]
epochs = 1
batch = 16
[[network]]
name = "test_resnet"
"""


def lucency(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("folds")
    (home / "folds.toml").write_text(PROTOCOL)
    words = ("--out", home / "run", "--folds", 3, "--repeats", 2)
    lucency("study", "cross-validation", home / "folds.toml", *words)
    return home / "run"


@pytest.mark.slow
def test_every_film_is_predicted_by_networks_of_other_patients(run: Path):
    films = load_manifest(run / "manifest")
    file = run / "out-of-fold" / "3x2" / "test_resnet" / "predictions.npz"
    said = load_predictions(file)
    assert said.image.tolist() == films.image.tolist()
    np.testing.assert_array_equal(said.label, films.label)
    each = load_repeats(file, said)
    assert each.shape == (2, *said.label.shape)
    mean = np.log(each / (1 - each)).mean(axis=0)
    np.testing.assert_allclose(said.calibrated, mean, atol=1e-6)
    for repeat in range(2):
        for fold in range(3):
            member = run / "members" / f"repeat-{repeat}-fold-{fold}"
            part = pd.read_csv(member / "split" / "part.csv").set_index("image")["part"]
            tested = load_predictions(member / "predictions" / "test_resnet" / "predictions.npz")
            tests = tested.of("test")
            assert set(tests.image) == set(part.index[part == "test"])
            row = films.image.tolist().index(tests.image[0])
            np.testing.assert_allclose(each[repeat, row], tests.probability[0], atol=1e-9)
            assert not (member / "prepared").exists()


@pytest.mark.slow
def test_repeats_are_evidence_of_label_errors(run: Path, tmp_path: Path):
    file = run / "out-of-fold" / "3x2" / "test_resnet" / "predictions.npz"
    found = json.loads(lucency("audit", "errors", file, "--top", 2, "--json"))
    assert len(found["errors"]) == 2 * 2 * 2
    assert all("folds" in row["reason"] for row in found["errors"])
    lucency("data", "quality", run, "--out", tmp_path / "pictures")
    measured = pd.read_csv(tmp_path / "pictures" / "measured.csv")
    assert measured["image"].tolist() == load_manifest(run / "manifest").image.tolist()
    listed = tmp_path / "pictures" / "quality.csv"
    assert {"image", "problem", "reason"} <= set(pd.read_csv(listed))


def test_a_folder_without_films_is_refused(tmp_path: Path):
    done = CliRunner().invoke(app, ["data", "quality", str(tmp_path)])
    assert "holds no run" in str(done.exception)
