"""Pickles that run code when they are unpickled, wherever weights or arrays are read."""

import importlib
import io
import operator
import os
import pathlib
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lucency.config.sections import Network
from lucency.core.film_shards import open_shards
from lucency.core.plan import load_plan
from lucency.core.predictions import load_predictions
from lucency.core.saved_files import read_array
from lucency.ensemble.fitted import load_predictor
from lucency.evaluation.unfamiliarity import FILE as DISTANCE
from lucency.evaluation.unfamiliarity import load_unfamiliarity
from lucency.explain.heatmaps import load_heatmaps
from lucency.models.checkpoint import load_checkpoint
from lucency.models.classifier import load_classifier
from lucency.models.onnx_runtime import open_onnx
from lucency.models.weights import initialise

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
IMAGES = np.array(["1.png"])


class _Call:
    """What calls a function with arguments when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what


def payloads(mark: Path) -> dict[str, Any]:
    """Return ten ways to write `mark` when they are unpickled."""
    text = str(mark)
    source = f"open({text!r}, 'w').close()"
    return {
        "os.system": _Call(os.system, f"touch {text}"),
        "subprocess": _Call(subprocess.call, ["touch", text]),
        "exec": _Call(exec, source),
        "eval": _Call(eval, f"__import__('os').system('touch {text}')"),
        "mknod": _Call(os.mknod, text),
        "mkdir": _Call(os.mkdir, text),
        "copy": _Call(shutil.copyfile, __file__, text),
        "path": _Call(pathlib.Path.touch, mark),
        "map": _Call(list, _Call(map, os.mkdir, [text])),
        "operator": _Call(
            operator.call, _Call(getattr, _Call(importlib.import_module, "os"), "mkdir"), text
        ),
    }


def pickles(mark: Path) -> Iterator[tuple[str, bytes]]:
    """Yield sixty pickles: each payload in each protocol."""
    for name, payload in payloads(mark).items():
        for protocol in PROTOCOLS:
            yield f"{name}, protocol {protocol}", pickle.dumps(payload, protocol)


def object_array(content: bytes, *, shape: tuple[int, ...] = (1,)) -> bytes:
    """Return a .npy file of Python objects, whose pickle is `content`."""
    stream = io.BytesIO()
    about = {"descr": "|O", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue() + content


def npz_of(content: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", object_array(content))
    return stream.getvalue()


def torch_archive(content: bytes) -> bytes:
    """Return a file as torch.save writes it, whose pickle is `content`."""
    whole = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, whole)
    made = io.BytesIO()
    with zipfile.ZipFile(whole) as was, zipfile.ZipFile(made, "w") as archive:
        for name in was.namelist():
            archive.writestr(name, content if name.endswith("data.pkl") else was.read(name))
    return made.getvalue()


def _as_it_is(content: bytes) -> bytes:
    return content


def _weights(folder: Path, name: str) -> str:
    """Read a file of pre-trained weights, as a protocol names it."""
    choice = Network(name="test_resnet", weights=name, provenance="none")
    return initialise(torch.nn.Linear(1, 1), choice=choice, root=folder)


def _checkpoint(folder: Path) -> Any:
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters())
    return load_checkpoint(network=network, optimizer=optimizer, average=None, folder=folder)


PREDICTED = ("network", "split", "findings", "image", "patient", "part", "label", "logit",
             "feature", "slope", "offset")  # fmt: skip
MAPPED = ("method", "findings", "image", "patient", "grid", "down", "across")
DOORS: dict[str, tuple[str, Callable[[bytes], bytes], Callable[[Path], Any]]] = {
    "weights.safetensors": ("weights.safetensors", _as_it_is, load_classifier),
    "classifier.json": ("classifier.json", _as_it_is, load_classifier),
    "pre-trained .safetensors": ("w.safetensors", _as_it_is,
                                 lambda f: _weights(f, "w.safetensors")),
    "pre-trained .pth": ("w.pth", _as_it_is, lambda f: _weights(f, "w.pth")),
    "pre-trained .pt, an archive": ("w.pt", torch_archive, lambda f: _weights(f, "w.pt")),
    "checkpoint.pt": ("checkpoint.pt", _as_it_is, _checkpoint),
    "checkpoint.pt, an archive": ("checkpoint.pt", torch_archive, _checkpoint),
    "classifier.onnx": ("m.onnx", _as_it_is, lambda f: open_onnx(f / "m.onnx")),
    "predictor.safetensors": ("predictor.safetensors", _as_it_is, load_predictor),
    "predictor.json": ("predictor.json", _as_it_is, load_predictor),
    "distance of unfamiliar films": (DISTANCE, _as_it_is, load_unfamiliarity),
    "predictions.npz": ("p.npz", _as_it_is, lambda f: load_predictions(f / "p.npz")),
    "predictions.npz, of objects": (
        "p.npz", lambda one: npz_of(one, *PREDICTED), lambda f: load_predictions(f / "p.npz")
    ),
    "heat maps, of objects": (
        "m.npz", lambda one: npz_of(one, *MAPPED), lambda f: load_heatmaps(f / "m.npz")
    ),
    "heat maps": ("m.npz", _as_it_is, lambda f: load_heatmaps(f / "m.npz")),
    "repeats.npy": ("repeats.npy", object_array, lambda f: read_array(f / "repeats.npy")),
    "a plan's label.npy": ("label.npy", object_array, lambda f: load_plan(f, IMAGES)),
    "index of shards": (
        "index.npy", object_array, lambda f: open_shards(f, image=IMAGES, side=1)
    ),
}  # fmt: skip
