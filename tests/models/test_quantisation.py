"""Networks in 8 bits: near the network, with its metadata, refused where they gain nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lucency.core.predictions import Predictions
from lucency.models import quantisation
from lucency.models.networks import build
from lucency.models.onnx_export import write_onnx
from lucency.models.onnx_runtime import OnnxNetwork, open_onnx, run
from lucency.models.quantisation import Rates, quantisation_cost, quantise
from toys import toy_films

FILMS = toy_films(40, size=64)
FASTER, SLOWER = Rates(10.0, 11.0), Rates(10.0, 10.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small network, and the same in 8 bits."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("int8")
    file, out = folder / "model.onnx", folder / "int8.onnx"
    write_onnx(build("test_resnet", findings=2), file, size=64, metadata={"notice": "research"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "_rates", lambda *_: FASTER)
        assert quantise(file, calibration=FILMS.pixels[:8], out=out) == FASTER
    return file, out


def predictions(network: OnnxNetwork) -> Predictions:
    logit, feature = run(network, FILMS.pixels)
    films = FILMS.manifest
    about = {"image": films.image, "patient": films.patient, "label": films.label}
    part = np.full(len(films), "test", dtype="<U5")
    about |= {"network": "plain", "split": "toys", "findings": films.findings, "part": part}
    return Predictions(**about, logit=logit, feature=feature)


def test_weights_are_integers_and_logits_near_those_of_the_network(files) -> None:
    plain, small = (open_onnx(file) for file in files)
    assert files[1].stat().st_size < files[0].stat().st_size / 2
    assert small.metadata == plain.metadata == {"notice": "research"}
    assert (small.size, small.findings, small.channels) == (64, 2, plain.channels)
    for mine, theirs in zip(run(small, FILMS.pixels), run(plain, FILMS.pixels), strict=True):
        assert 0 < np.abs(mine - theirs).max() < 0.3 * np.abs(theirs).max()
        assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.98


def test_the_cost_is_the_difference_of_macro_auc(files) -> None:
    own, small = predictions(open_onnx(files[0])), open_onnx(files[1])
    about = {"pixels": FILMS.pixels, "row": np.arange(40), "draws": {"resamples": 50, "seed": 0}}
    cost = quantisation_cost(own, quantised=small, **about)
    macro = [
        np.mean([roc_auc_score(own.label[:, k], logit[:, k]) for k in range(2)])
        for logit in (run(small, FILMS.pixels)[0], own.logit)
    ]
    assert cost.difference == pytest.approx(macro[0] - macro[1], abs=1e-9)
    assert cost.low <= cost.difference <= cost.high
    none = quantisation_cost(own, quantised=open_onnx(files[0]), **about)
    assert (none.difference, none.low, none.high) == (0, 0, 0)


def test_films_are_read_in_blocks_where_they_lie(files, monkeypatch) -> None:
    own, small = predictions(open_onnx(files[0])), open_onnx(files[1])
    row, sizes, seen = np.arange(39, 9, -1), [], []

    def counting(network: OnnxNetwork, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(pixels))
        return run(network, pixels)

    how = {"quantised": small, "draws": {"resamples": 20, "seed": 0}}
    whole = quantisation_cost(own.take(row), pixels=FILMS.pixels, row=row, **how)
    monkeypatch.setattr(quantisation, "BLOCK", 8)
    monkeypatch.setattr(quantisation, "run", counting)
    how["progress"] = lambda done, films, *_: seen.append((done, films))
    parts = quantisation_cost(own.take(row), pixels=FILMS.pixels, row=row, **how)
    assert parts == whole
    assert sizes == [8, 8, 8, 6]
    assert seen == [(8, 30), (16, 30), (24, 30), (30, 30)]


def test_a_network_that_gains_nothing_is_not_written(files, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(quantisation, "_rates", lambda *_: SLOWER)
    with pytest.raises(ValueError, match=r"slower here: 10\.0 films a second, 10\.0 as it is"):
        quantise(files[0], calibration=FILMS.pixels[:2], out=tmp_path / "int8.onnx")
    assert [*tmp_path.iterdir()] == []


def test_rates_are_measured(files) -> None:
    network = open_onnx(files[0])
    rates = quantisation._rates(network, network, FILMS.pixels[:4])
    assert min(rates) > 0
    assert 0.1 < rates.plain / rates.quantised < 10


def test_calibration_needs_films_and_a_network(files, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    with pytest.raises(ValueError, match="found no film"):
        quantise(files[0], calibration=FILMS.pixels[:0], out=out)
    with pytest.raises(ValueError, match="cannot be read"):
        quantise(tmp_path / "none.onnx", calibration=FILMS.pixels[:1], out=out)
