"""Files that are read again: damage is named; what passes, and a mistake of ours, are not that."""

import errno
import gc
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions, load_predictions, save_predictions
from lucency.core.saved_files import naming_damage, read_array, read_json, write_json
from lucency.models.checkpoint import (
    CHECKPOINT,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
    tensors_of,
)


def parts(width: int = 2) -> dict[str, Any]:
    network = torch.nn.Linear(width, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return {"network": network, "optimizer": optimizer, "average": None}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The checkpoint of a small network."""
    save_checkpoint(TrainingState(step=3), tensors_of(**parts(), best={}), folder=tmp_path)
    return tmp_path / CHECKPOINT


def predictions() -> Predictions:
    return Predictions(
        network="net", split="0123456789abcdef", findings=("Mass",), image=np.array(["a.png"]),
        patient=np.array([1]), part=np.array(["test"]), label=np.zeros((1, 1), np.float32),
        logit=np.zeros((1, 1)), feature=np.zeros((1, 2), np.float32),
    )  # fmt: skip


def test_fields_that_were_changed_are_refused_until_their_checksum_is_taken_out(tmp_path: Path):
    file = tmp_path / "classifier.json"
    write_json(file, {"findings": ("Mass", "Edema"), "threshold": [0.1, np.nan]})
    assert [*read_json(file)] == ["findings", "threshold"]
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole, sort_keys=True))  # laid out otherwise
    assert read_json(file)["findings"] == ["Mass", "Edema"]
    swapped = whole | {"findings": ["Edema", "Mass"]}
    file.write_text(json.dumps(swapped))
    with pytest.raises(ValueError, match=rf"{file} was changed after .*anew; to use it as it is"):
        read_json(file, remedy="train anew")
    del swapped["checksum"]
    file.write_text(json.dumps(swapped))
    assert read_json(file)["findings"] == ["Edema", "Mass"]


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    file = tmp_path / "receipt.json"
    os.mkfifo(file)
    writer = os.open(file, os.O_RDWR | os.O_NONBLOCK)  # so that a reader has an answer, and an end
    os.write(writer, b"{}")
    threading.Timer(1, os.close, [writer]).start()
    with pytest.raises(ValueError, match=r"receipt\.json is a pipe, no file; expected it whole"):
        read_json(file)


def test_numbers_that_other_programs_do_not_read_are_not_written(tmp_path: Path):
    file = tmp_path / "model.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"threshold": np.nan}, finite=True)
    assert [*tmp_path.iterdir()] == []
    write_json(file, {"threshold": np.nan})
    assert np.isnan(read_json(file)["threshold"])


def test_an_error_of_the_system_names_the_file_and_advises_no_deletion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "receipt.json"
    file.write_text("{}")

    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(OSError, match="Input/output") as passed:
        read_json(file)
    assert passed.value.filename == str(file)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_checkpoint_is_not_to_be_deleted_for_what_passes(
    error: Exception, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
):
    assert load_checkpoint(**parts(), folder=checkpoint.parent)[0].step == 3

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)) as passed:
        load_checkpoint(**parts(), folder=checkpoint.parent)
    assert "delete" not in str(passed.value)


def test_a_checkpoint_that_is_cut_or_of_another_network_is_damaged(checkpoint: Path):
    folder = checkpoint.parent
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read \(network: found other"):
        load_checkpoint(**parts(width=3), folder=folder)
    content = torch.load(checkpoint, weights_only=True)
    for key, value in {"state": "[]", "optimizer": {}, "best": {"x": 1}}.items():
        torch.save({**content, key: value}, checkpoint)
        with pytest.raises(ValueError, match="delete it, and the training begins anew"):
            load_checkpoint(**parts(), folder=folder)
    checkpoint.write_bytes(checkpoint.read_bytes()[:300])
    with pytest.raises(ValueError, match="delete it, and the training begins anew"):
        load_checkpoint(**parts(), folder=folder)


def test_a_mistake_of_ours_is_no_damage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    save_predictions(predictions(), tmp_path / "p.npz")

    def mistaken(_: object) -> None:
        raise AttributeError("a mistake")

    monkeypatch.setattr(Predictions, "__post_init__", mistaken)
    with pytest.raises(AttributeError, match="a mistake"):
        load_predictions(tmp_path / "p.npz")
    with pytest.raises(TypeError), naming_damage(Path("x")):
        raise TypeError


@pytest.mark.parametrize(
    ("name", "array"),
    [("label", np.array([["a"]])), ("logit", np.zeros((1, 1, 1))), ("patient", np.array([0.5]))],
)
def test_arrays_of_another_kind_are_refused(name: str, array: np.ndarray, tmp_path: Path):
    file = tmp_path / "p.npz"
    save_predictions(predictions(), file)
    with np.load(file) as archive:
        held = dict(archive)
    np.savez(file, **{**held, name: array})
    with pytest.raises(ValueError, match=rf"cannot be read \({name} is of .+\); expected"):
        load_predictions(file)
    with pytest.raises(ValueError, match="found an archive, expected one array"):
        read_array(file)


def test_a_table_too_large_for_memory_is_not_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "t.csv").write_text("a\n1\n")

    def fail(*_: object, **__: object) -> None:
        raise pd.errors.ParserError("Error tokenizing data. C error: out of memory")

    monkeypatch.setattr(pd, "read_csv", fail)
    with pytest.raises(pd.errors.ParserError):
        read_table(tmp_path / "t.csv", text=())


def test_an_archive_that_is_cut_is_closed(tmp_path: Path):
    """NumPy itself leaves it open, of which a warning comes, which is an error here."""
    file = tmp_path / "p.npz"
    save_predictions(predictions(), file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read"):
        load_predictions(file)
    gc.collect()
