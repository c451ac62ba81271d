"""A sample of `try_models`: no pickle is run, damaged weights are refused by name."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lucency.config.sections import Network
from lucency.models.classifier import load_classifier
from lucency.models.onnx_runtime import open_onnx
from lucency.models.weights import fetch_weights
from torture.film_tries import small_model
from torture.hostile_models import DOORS, pickles
from torture.try_models import (
    ARRAYS,
    OTHER,
    PRETRAINED,
    _pretrained,
    control,
    tried_damage,
    tried_pickles,
    write_pretrained,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "model")


def test_the_payloads_do_harm_and_there_are_sixty(tmp_path: Path):
    found = control(tmp_path / "mark")
    assert found.held == found.tried == 10
    assert len({content for _, content in pickles(tmp_path / "mark")}) == 60


@pytest.mark.parametrize("door", DOORS)
def test_no_pickle_is_run(door: str, tmp_path: Path):
    found = tried_pickles(door, tmp_path, every=29)
    assert found.held == found.tried == 3


@pytest.mark.parametrize("name", ["weights.safetensors", "classifier.json"])
def test_damaged_files_are_refused_or_the_same(name: str, model: Path):
    found = tried_damage(name, model, ARRAYS[name], times=8)
    assert found.held == found.tried == 8


@pytest.mark.parametrize("name", PRETRAINED)
def test_damaged_weights_to_begin_with_are_refused_or_read(name: str, model: Path):
    write_pretrained(model)
    found = tried_damage(name, model, partial(_pretrained, name), times=24, may=(OTHER,))
    assert found.held == found.tried == 24


@pytest.mark.parametrize(
    "held",
    [torch.zeros(3), [torch.zeros(3)], {1: torch.zeros(3)}, {"state_dict": None}, {"a": "text"}],
    ids=["tensor", "list", "numbers", "none", "text"],
)
def test_files_that_hold_no_weights_are_refused_by_name(held: object, tmp_path: Path):
    torch.save(held, tmp_path / "w.pth")
    choice = Network(name="test_resnet", weights="w.pth", provenance="none")
    with pytest.raises(ValueError, match=r"w\.pth cannot be read .*expected a whole .safetens"):
        fetch_weights(choice, root=tmp_path)


def test_weights_of_nan_of_another_shape_changed_or_absent_are_named(model: Path):
    file = model / "weights.safetensors"
    whole = load_file(file)
    name = next(one for one in whole if one.endswith("weight"))
    changed = {
        f"{name} holds NaN or infinity": torch.full_like(whole[name], torch.nan),
        f"size mismatch for {name}": torch.zeros(1),
        "is damaged, or of another network": whole[name] + 1,
    }
    for reason, tensor in changed.items():
        save_file({**whole, name: tensor}, file)
        with pytest.raises(ValueError, match=reason):
            load_classifier(model)
    file.unlink()
    with pytest.raises(ValueError, match="safetensors: no such file: fetch its folder again"):
        load_classifier(model)
    save_file(whole, file)


def test_an_onnx_file_is_known_by_its_fingerprint(tmp_path: Path):
    file = tmp_path / "classifier.onnx"
    file.write_bytes(b"changed")
    file.with_suffix(".onnx.sum").write_text("0123456789abcdef")
    with pytest.raises(ValueError, match=r"damaged, by its fingerprint in classifier\.onnx\.sum"):
        open_onnx(file)
