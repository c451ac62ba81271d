"""The library's lines run as they stand, values have short reprs, errors name the argument."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import lucency as lu
from lucency.cli.app import app
from lucency.core.manifest import FINDINGS
from workplace import guessed, stated_labels

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first-steps.ipynb"
LINES = """
import lucency as lu
films = lu.read_nih("chestxray14")
x     = lu.prepare("film.png", size=224)
model = lu.load("runs/demo")
pred  = model.predict(["a.png", x]); pred.to_frame()
maps  = model.explain("a.png", method="grad-cam"); maps.plot()
lu.evaluate(y, prob, patient=ids, findings=names)
lu.compare({"a": pa, "b": pb}); lu.check(pred)
net   = lu.create_network("densenet121", findings=14, weights="timm"); lu.list_networks()
run   = lu.run("protocol.toml", out="runs/x"); run.evaluation.metrics
"""


@pytest.fixture
def place(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the small run, with the files that the lines name."""
    monkeypatch.chdir(finished)
    films = sorted((finished / "films").iterdir())
    for name, film in zip(("a.png", "film.png"), films, strict=False):
        Path(name).write_bytes(film.read_bytes())
    yield finished
    Path("protocol.toml").unlink(missing_ok=True)


@pytest.fixture
def arrays(finished: Path) -> dict[str, object]:
    labels = stated_labels(finished / "chestxray14" / "Data_Entry_2017_v2020.csv")
    prob = guessed(labels, seed=0).drop(columns="image")
    y = labels[list(FINDINGS)]
    return {"y": y.to_numpy(), "prob": prob.to_numpy(), "ids": labels["patient"], "names": FINDINGS}


@pytest.mark.slow  # it trains a network
def test_the_lines_run_as_they_stand(
    place: Path, arrays: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    fetched = lambda body, choice: (f"timm {choice.name}", body.state_dict())  # noqa: E731 - no network here
    monkeypatch.setattr("lucency.models.weights._published", fetched)
    Path("protocol.toml").write_bytes(Path("protocols/demo.toml").read_bytes())
    pair = dict(zip("ab", predicted(place), strict=True))
    names = {**arrays, "pa": pair["a"], "pb": lu.load_predictions(pair["b"])}
    exec(compile(LINES, "the library", "exec"), names)
    run = names["run"]
    assert isinstance(run, lu.RunResult)
    assert {"finding", "metric", "value", "low", "high"} <= set(run.evaluation.metrics)
    assert run.report.is_file()
    assert set(run.predictions) == {"test_convnext", "test_resnet"}
    assert "<RunResult demo in runs/x" in repr(run)


def predicted(place: Path) -> list[Path]:
    return sorted((place / "runs" / "demo" / "predictions").glob("*/predictions.npz"))


def test_films_are_predicted_from_files_arrays_and_prepared_films_alike(place: Path):
    model = lu.load("runs/demo")
    size = model.preparation.size
    given = [Path("a.png"), lu.read_grey("a.png"), lu.prepare("film.png", size=size)]
    frame = model.predict(given).to_frame()
    assert frame["image"].tolist() == ["a.png", "array 2", "film.png"]
    assert list(frame.columns) == ["image", *model.findings]
    np.testing.assert_allclose(frame.iloc[0, 1:], frame.iloc[1, 1:].astype(float), atol=1e-6)
    other = model.predict(lu.prepare("film.png", size=40)).to_frame()  # prepared again
    np.testing.assert_allclose(other.iloc[0, 1:], frame.iloc[2, 1:].astype(float), atol=1e-6)
    table, _ = lu.predict_files(model.classifier, files=["a.png"])
    np.testing.assert_allclose(
        frame.iloc[0, 1:], table[list(model.findings)].iloc[0].astype(float), atol=1e-6
    )


def test_heat_maps_are_drawn(place: Path):
    maps = lu.load("runs/demo", model="test_resnet").explain("a.png", findings=["Effusion"])
    assert isinstance(maps.plot(), Figure)
    assert isinstance(maps.plot("a.png", findings=["Effusion"]), Figure)
    with pytest.raises(ValueError, match=r"^film: found 1"):
        maps.plot(1)
    with pytest.raises(ValueError, match=r"^findings: found 'Mass'"):
        maps.plot(findings=["Mass"])


def test_maps_of_one_cell_are_named_on_standard_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import torch

    from lucency.explain.methods.registry import HEATMAPS

    model = lu.load("runs/demo", model="test_resnet")
    model.explain("a.png", method="grad-cam", findings=["Effusion"])
    assert "grid" not in capsys.readouterr().err
    monkeypatch.setitem(
        HEATMAPS, "grad-cam", lambda *_, findings: torch.ones(1, len(findings), 1, 1)
    )
    model.explain("a.png", method="grad-cam", findings=["Effusion"])
    warning = "test_resnet, grad-cam: its grid is 1 x 1, which tells no place from another"
    assert warning in capsys.readouterr().err
    words = ["explain", "runs/demo", "a.png", "--model", "test_resnet", "--method", "grad-cam"]
    done = CliRunner().invoke(app, [*words, "--out", "one-cell"], catch_exceptions=False)
    assert warning in done.stderr
    assert "integrated-gradients" in done.stderr


def test_arrays_are_evaluated_as_a_tidy_frame(arrays: dict[str, object]):
    y, prob, ids, names = arrays.values()
    few = {"resamples": 20}
    table = lu.evaluate(y, prob, patient=ids, findings=names, **few)
    assert list(table.columns[:5]) == ["finding", "metric", "value", "low", "high"]
    assert not table.duplicated(["finding", "metric"]).any()
    frame = pd.DataFrame(prob, columns=list(FINDINGS))
    pd.testing.assert_frame_equal(lu.evaluate(y, frame, patient=ids, **few), table)
    one = lu.evaluate([0, 1, 1, 0], [0.1, 0.9, 0.2, 0.3], **few)
    auc = one.loc[one["metric"] == "auc"].set_index("finding")["value"]
    assert auc["finding 1"] == pytest.approx(0.75)


def test_frames_are_joined_by_their_names(arrays: dict[str, object]):
    y, prob, ids, names = arrays.values()
    few = {"resamples": 20}
    films = [f"{row}.png" for row in range(len(prob))]
    score = pd.DataFrame(prob, index=films, columns=list(names))
    label = pd.DataFrame(y, index=films, columns=list(names))
    patient = pd.Series(np.asarray(ids), index=films)
    plain = lu.evaluate(label, score, patient=patient, **few)
    shuffled = label.sample(frac=1, random_state=0)[list(names)[::-1]]
    other = lu.evaluate(shuffled, score, patient=patient.iloc[::-1], **few)
    pd.testing.assert_frame_equal(other, plain)
    with pytest.raises(ValueError, match=r"^y: its columns differs from that of prob"):
        lu.evaluate(label.rename(columns={names[0]: "Other"}), score)
    with pytest.raises(ValueError, match=r"^patient: its index differs"):
        lu.evaluate(label, score, patient=pd.Series(ids))


WRONG = {
    "y": ([0, 2], [0.1, 0.9], {}),
    "prob": ([0, 1], [0.1, 1.9], {}),
    "patient": ([0, 1], [0.1, 0.9], {"patient": [1]}),
    "findings": ([0, 1], [0.1, 0.9], {"findings": ["a", "b"]}),
    "threshold": ([0, 1], [0.1, 0.9], {"threshold": [0.5, 0.4]}),
    "resamples": ([0, 1], [0.1, 0.9], {"resamples": 0}),
    "seed": ([0, 1], [0.1, 0.9], {"seed": -1}),
}


@pytest.mark.parametrize("argument", WRONG)
def test_errors_name_the_argument(argument: str):
    y, prob, more = WRONG[argument]
    with pytest.raises(ValueError, match=f"^{argument}: found"):
        lu.evaluate(y, prob, **more)


def test_other_errors_name_the_argument_too(place: Path):
    with pytest.raises(ValueError, match=r"^patient: 1 of 2 are missing"):
        lu.evaluate([0, 1], [0.1, 0.9], patient=["a", None])
    with pytest.raises(ValueError, match=r"^patient: 4 of 5 are missing"):
        lu.evaluate([0, 1] * 2 + [0], [0.1] * 5, patient=["a", "", "NA", "Unknown", " ?"])
    with pytest.raises(ValueError, match="patient: found 0, expected 2"):
        lu.evaluate([0, 1], [0.1, 0.9], patient=[])
    with pytest.raises(ValueError, match=r"^films: found none"):
        lu.prepare([])
    with pytest.raises(ValueError, match="several: found 1 predictions"):
        lu.compare({"a": predicted(place)[0]})
    with pytest.raises(ValueError, match="findings: found 0"):
        lu.create_network("test_resnet", findings=0)
    with pytest.raises(ValueError, match="nearest is 'densenet121'"):
        lu.create_network("densnet121")
    model = lu.load("runs/demo")
    with pytest.raises(ValueError, match=r"films: gone.png: no such file"):
        model.predict("gone.png")
    with pytest.raises(ValueError, match="films: found an array of float64"):
        model.predict(np.zeros((64, 64)))
    with pytest.raises(ValueError, match="films: found none"):
        model.predict([])


def test_values_show_themselves_in_a_line(place: Path):
    films, model = lu.read_nih("chestxray14"), lu.load("runs/demo")
    predictions = lu.load_predictions(str(predicted(place)[0]))
    explained = model.explain("a.png", method="grad-cam", findings=["Effusion"])
    prepared = lu.prepare(["a.png", "film.png"], size=64)
    shown = [films, model, model.classifier, predictions, explained, explained.maps, prepared]
    for value in shown:
        text = repr(value)
        assert text.startswith(f"<{type(value).__name__}")
        assert text.endswith(">")
        assert len(text) < 100
        assert "\n" not in text
    assert repr(films).startswith("<Manifest: 60 films of ")
    assert "<table" in films._repr_html_()
    assert "<table" in predictions._repr_html_()


def test_networks_are_listed_and_made():
    names = lu.list_networks()
    assert names[0] in ("alexnet", "densenet121")
    assert len(names) > 500
    assert lu.list_networks("densenet12*")[0] == "densenet121"
    network = lu.create_network("test_resnet", findings=["Mass", "Nodule"])
    import torch

    assert network(torch.zeros((1, 64, 64), dtype=torch.uint8)).shape == (1, 2)


def test_the_package_names_its_names():
    assert {"load", "evaluate", "run", "__version__"} <= set(dir(lu))
    assert lu.__version__[0].isdigit()
    stub = (Path(lu.__file__).with_suffix(".pyi")).read_text(encoding="utf-8")
    for name in set(lu.__all__) - {"__version__"}:
        assert f"import {name} as {name}\n" in stub
    assert stub.count("import") == len(lu.__all__) - 1
    assert Path(lu.__file__).with_name("py.typed").is_file()


@pytest.mark.slow  # it times several starts
def test_the_import_costs_milliseconds():
    def fastest(program: str) -> float:
        taken = []
        for _ in range(7):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            taken.append(time.perf_counter() - begun)
        return min(taken)

    assert fastest("import lucency") - fastest("pass") < 0.05


@pytest.mark.slow  # it trains two small networks
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert not any(cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, text in enumerate(code, start=1):
        exec(compile(text, f"cell {number}", "exec"), names)
