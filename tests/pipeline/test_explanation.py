"""Films explained and boxes looked for, by the commands, on a small run of phantoms."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.cli.app import app
from lucency.explain.heatmaps import load_heatmaps

pytestmark = pytest.mark.slow
PROTOCOL = """
name = "look"
findings = ["Atelectasis", "Cardiomegaly", "Effusion"]

[data]
films = 80
size = 96
seed = 3

[preparation]
size = 96

[training]
epochs = 1
batch = 16
learning_rate = 1e-3

[[network]]
name = "test_resnet"

[evaluation]
resamples = 20

[explanation]
films = 2
"""


HEATMAPS = ("study", "heatmaps")


def lucency(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words):
    """Return the one line that refuses."""
    done = lucency(*words)
    assert isinstance(done.exception, ValueError), (done.output, done.exception)
    return str(done.exception)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("look")
    (home / "look.toml").write_text(PROTOCOL)
    done = lucency("run", home / "look.toml", "--out", home / "run")
    assert done.exit_code == 0, done.output
    return home / "run"


def test_the_report_says_where_it_looked(run):
    page = (run / "report" / "report.html").read_text()
    assert "<h3>Pointing game and baselines</h3>" in page
    assert "<h3>Faithfulness</h3>" in page


def test_boxes_are_scored_again_by_other_maps(run, tmp_path):
    same = lucency(*HEATMAPS, run, "--out", tmp_path / "same", "--json")
    said = json.loads(same.stdout)
    assert list(said["pointing game"])[:2] == ["grad-cam", "hires-cam"]
    other = ("--set", 'explanation.methods=["occlusion"]', "--out", tmp_path / "other")
    said = json.loads(lucency(*HEATMAPS, run, *other, "--json").stdout)
    assert next(iter(said["pointing game"])) == "occlusion"
    assert (tmp_path / "other" / "localisation.csv").is_file()
    assert lucency(*HEATMAPS, run, *other).exit_code == 0  # done is done
    out = other[2:]
    assert "explanation.* alone" in refused(*HEATMAPS, run, "--set", "training.epochs=2", *out)
    assert "holds no run" in refused(*HEATMAPS, tmp_path, *out)
    two = ("--set", 'explanation.methods=["cam", "cam"]', "--out", tmp_path / "two")
    assert "each once" in refused(*HEATMAPS, run, *two)


def test_films_of_the_run_and_of_the_disk_are_explained_alike(run, tmp_path):
    manifest = pd.read_csv(run / "prepared" / "manifest.csv")
    name, path = manifest.loc[0, ["image", "path"]]
    both = [("run", name), ("disk", path)]
    for place, film in both:
        done = lucency("explain", run, film, "--finding", "Effusion", "--out", tmp_path / place)
        assert done.exit_code == 0, done.output
    tables = [pd.read_csv(tmp_path / place / "probabilities.csv") for place, _ in both]
    np.testing.assert_allclose(tables[0].iloc[:, 1:], tables[1].iloc[:, 1:], atol=1e-6)
    maps = [load_heatmaps(tmp_path / place / "maps-grad-cam.npz") for place, _ in both]
    np.testing.assert_allclose(maps[0].grid, maps[1].grid, atol=1e-5)
    assert maps[0].grid.shape[:2] == (1, 1)  # of the finding that is asked for
    drawn = [list((tmp_path / place).glob("*.png")) for place, _ in both]
    assert [len(one) for one in drawn] == [1, 1]
    assert drawn[0][0].name == f"0001-{Path(name).stem}-03-Effusion.png"
    assert (
        "Predictions and heat maps of test_resnet"
        in (tmp_path / "disk" / "explained.html").read_text()
    )


def test_the_films_of_the_report_are_explained_by_name(run, tmp_path):
    names = pd.read_csv(run / "explanation" / "cases.csv")["image"].unique()
    done = lucency("explain", run, *names, "--out", tmp_path / "shown", "--json")
    assert json.loads(done.stdout)["films"] == len(names)


def test_bad_requests_are_refused_in_a_line(run, tmp_path):
    film = pd.read_csv(run / "prepared" / "manifest.csv").loc[0, "path"]
    out = ("--out", tmp_path / "never")
    assert "nearest is 'grad-cam'" in refused("explain", run, film, "--method", "gradcam", *out)
    assert "'Effusio'" in refused("explain", run, film, "--finding", "Effusio", *out)
    assert "no such file" in refused("explain", run, "nothing.png", *out)
    assert "is no network of the run" in refused("explain", run, film, "--model", "resnet18", *out)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "text.png" in refused("explain", run, text, *out)
    assert not (tmp_path / "never").exists()
    assert "no such file" in refused("explain", run, film, "gone.png", *out)
