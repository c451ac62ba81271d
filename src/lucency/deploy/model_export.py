"""Export of a run's model: a folder that predicts without this program, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lucency.core.files import write_whole
from lucency.core.manifest import counted, load_prepared
from lucency.core.plan import joined, load_plan
from lucency.core.progress import say
from lucency.core.stage import NOTE, produce
from lucency.core.tables import Answer
from lucency.deploy.model_card import NOTICE, kind_of, model_card, software
from lucency.models.metadata import FORMAT, METADATA, MODEL, NETWORK, VERSION
from lucency.pipeline.run import (
    Run,
    best_network,
    network_inputs,
    open_run_folder,
    require_finished,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from lucency.models.classifier import Classifier
    from lucency.models.onnx_runtime import OnnxNetwork

ONNX, WEIGHTS, CARD = "model.onnx", "weights.safetensors", "MODEL_CARD.md"
PARITY_FILMS = 200  # on which logits are compared with torch's
STAMPED = ("manifest", "prepared", "plan", "evaluation")  # stages whose fingerprints are kept
Plain = dict[str, Any]


class Parity(NamedTuple):
    """On how many films of which part logits were compared, and how far they are apart at most."""

    films: int
    validation: int
    test: int
    largest: float
    bound: float


def export_model(folder: Path, *, name: str = "", out: Path, int8: bool = False) -> Path:
    """Return `out`, which holds a model of the run in `folder`: complete, or it is not there.

    In it: model.onnx, weights.safetensors, model.json, MODEL_CARD.md and receipt.json, by which a
    second call finds the work done. `name` is by default the network that is best on validation
    films. Raises ValueError for a run that is not finished or has no such model, for an `out` that
    holds something else, and where a logit of model.onnx differs from torch's by more than
    TOLERANCE on PARITY_FILMS films of the run, validation films first.
    """
    run = open_run_folder(folder)
    require_finished(run)
    name = (
        name or best_network(run.out / "networks" / one.name for one in run.protocol.network).name
    )
    kind = kind_of(run, name)
    if kind not in EXPORTS:
        networks = ", ".join(network.name for network in run.protocol.network)
        raise ValueError(f"{name} is of kind {kind}: expected a network, one of {networks}")
    inputs = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "int8": int8,
        **network_inputs(run.out / "networks" / name),
        **run.fingerprints(*STAMPED),
    }
    return produce(out, inputs=inputs, write=partial(EXPORTS[kind], run, name, int8))


def describe_export(folder: Path) -> Answer:
    """Return what an exported folder holds, for people and programs."""
    plain = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    parity = plain["parity"]
    return {
        "model": plain["name"],
        "kind": plain["kind"],
        "findings": len(plain["findings"]),
        "films compared": parity["films"],
        "largest difference of a logit": parity["largest"],
        "folder": folder,
        "model card": folder / CARD,
    }


def _write_network(run: Run, name: str, int8: bool, folder: Path) -> None:
    from lucency.models.classifier import load_classifier
    from lucency.models.onnx_export import write_onnx
    from lucency.models.onnx_runtime import open_onnx

    del int8
    place = run.out / "networks" / name
    classifier = load_classifier(place)
    about = _about(run, place)
    with _empty_on_error(folder):
        say(f"Writing {name} as ONNX")
        size = classifier.preparation.size
        write_onnx(classifier.network, folder / ONNX, size=size, metadata=as_text(about))
        exported = open_onnx(folder / ONNX)
        parity = require_parity(run, classifier, exported)
        whole = {**about, **_tensors(exported.session), "parity": parity._asdict()}
        shutil.copyfile(place / WEIGHTS, folder / WEIGHTS)
        write_whole(folder / MODEL, json.dumps(whole, indent=1))
        write_whole(folder / CARD, model_card(run, name))


@contextmanager
def _empty_on_error(folder: Path) -> Iterator[None]:
    """Remove what was written into a partial folder where writing fails or is stopped."""
    try:
        yield
    except BaseException:
        for file in folder.iterdir():
            if file.name != NOTE:
                file.unlink()
        raise


def _about(run: Run, place: Path) -> Plain:
    """Return what model.onnx and model.json hold: classifier.json, and what lets it stand alone."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": NETWORK,
        "notice": NOTICE,
        **json.loads((place / METADATA).read_text(encoding="utf-8")),
        "fingerprints": {**network_inputs(place), **run.fingerprints(*STAMPED)},
        "software": software(),
    }


def require_parity(run: Run, classifier: Classifier, exported: OnnxNetwork) -> Parity:
    """Return how far logits differ from torch's on films of the run; ValueError beyond TOLERANCE.

    Films are originals, PARITY_FILMS or all that there are, those of validation first.
    """
    from lucency.models.onnx_export import TOLERANCE, largest_difference

    films = load_prepared(run.cache / "prepared")
    plan = load_plan(run.out / "plan", films.manifest.image)
    several = [plan.take((plan.part == part) & (plan.copy == 0)) for part in ("val", "test")]
    whole = joined(*several)
    chosen = whole.take(np.arange(min(len(whole), PARITY_FILMS)))
    compared = counted(len(chosen), "film", of=len(whole))
    say(f"Comparing with torch on {compared} of validation and test")
    pixels = np.asarray(films.pixels[chosen.row])
    largest = largest_difference(classifier.network, exported, pixels=pixels)
    if not largest <= TOLERANCE:
        raise ValueError(
            f"{classifier.name}: logits of {ONNX} differ from torch's by up to {largest:.2g} on "
            f"{counted(len(chosen), 'film')}; expected {TOLERANCE:g} at most: nothing was written"
        )
    tests = int((chosen.part == "test").sum())
    return Parity(len(chosen), len(chosen) - tests, tests, largest, TOLERANCE)


def _tensors(session: InferenceSession) -> Plain:
    """Return the names, types and shapes of what goes in and comes out; a text is any length."""
    ends = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        end: {
            one.name: {"dtype": one.type.removeprefix("tensor(").rstrip(")"), "shape": one.shape}
            for one in several
        }
        for end, several in ends.items()
    }


def as_text(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what model.onnx holds as metadata: text as it is, everything else as JSON."""
    return {key: one if isinstance(one, str) else json.dumps(one) for key, one in about.items()}


EXPORTS: dict[str, Callable[[Run, str, bool, Path], None]] = {NETWORK: _write_network}
