"""Export of a run's model: a folder that predicts without this program, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lucency.core.files import write_whole
from lucency.core.manifest import Prepared, counted, load_prepared
from lucency.core.plan import Plan, joined, load_plan
from lucency.core.predictions import load_predictions
from lucency.core.progress import say
from lucency.core.stage import NOTE, fingerprint_of, produce
from lucency.core.tables import Answer
from lucency.deploy.model_card import NOTICE, kind_of, model_card, software
from lucency.ensemble.fitted import ARRAYS, DATA, load_predictor, recalibration_as_plain
from lucency.evaluation.calibration import no_recalibration
from lucency.models.metadata import (
    FORMAT,
    MEMBERS,
    METADATA,
    MODEL,
    MODEL_ONNX,
    NETWORK,
    VERSION,
)
from lucency.models.onnx_runtime import TOLERANCE
from lucency.pipeline.film_predictors import (
    WEIGHTS,
    Home,
    best_of,
    cam_metadata,
    find_home,
    load_network,
)
from lucency.pipeline.run import (
    Run,
    network_inputs,
    open_run_folder,
    require_finished,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from lucency.models.classifier import Classifier
    from lucency.models.onnx_runtime import OnnxNetwork

INT8, CARD = "model-int8.onnx", "MODEL_CARD.md"
SHARED = ("name", "findings", "preparation", "recalibration", "threshold", "split")
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

    Of a network: model.onnx, weights.safetensors. Of what was fitted beside networks:
    predictor.json, predictor.safetensors, and in members/ a folder for each of those that it is
    made of. Beside them model.json, MODEL_CARD.md, and receipt.json, by which a second call finds
    the work done. `name` is by default the network that is best on validation films; `int8` adds
    the network in 8 bits. Raises ValueError for a run that is not finished or has no such model,
    for an `out` that holds something else, where 8 bits are slower, and where a logit of a
    network's model.onnx differs from torch's by more than TOLERANCE on PARITY_FILMS films of the
    run, validation films first.
    """
    run = open_run_folder(folder)
    require_finished(run)
    home = find_home(run.out)
    name = name or best_of(home)
    kind = kind_of(run, name)
    if int8 and kind != NETWORK:
        raise ValueError(f"{name} is of kind {kind}: 8 bits are of a network: leave --int8 out")
    made_of = network_inputs(home.networks[name]) if kind == NETWORK else {}
    made_of = made_of or {"predictor": fingerprint_of(home.fitted[name])}
    inputs = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "int8": int8,
        **made_of,
        **run.fingerprints(*STAMPED),
    }
    return produce(out, inputs=inputs, write=partial(_write_model, run, home, name, int8))


def describe_export(folder: Path) -> Answer:
    """Return what an exported folder holds, for people and programs."""
    plain = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    parity = plain["parity"]
    answer = {
        "model": plain["name"],
        "kind": plain["kind"],
        "findings": len(plain["findings"]),
        "films compared": parity["films"],
        "largest difference of a logit": parity["largest"],
        "folder": folder,
        "model card": folder / CARD,
        "notice": plain["notice"],
    }
    return answer | ({"int8": plain["int8"]} if "int8" in plain else {})


def _write_model(run: Run, home: Home, name: str, int8: bool, folder: Path) -> None:
    with _empty_on_error(folder):
        about = _write_entry(run, home, name, folder, int8=int8)
        write_whole(folder / CARD, model_card(run, name, remarks=_remarks(about)))


def _write_entry(run: Run, home: Home, name: str, folder: Path, *, int8: bool = False) -> Plain:
    """Write what predicts without its model card, and return what model.json holds."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in home.fitted:
        about = _write_fitted(run, home, name, folder)
    else:
        about = _write_network(run, home, name, folder, int8=int8)
    write_whole(folder / MODEL, json.dumps(about, indent=1, allow_nan=False))
    return about


def _write_fitted(run: Run, home: Home, name: str, folder: Path) -> Plain:
    """Write what was fitted, and all that it is made of, each in a folder of its own."""
    place = home.fitted[name]
    for file in (DATA, ARRAYS):
        shutil.copyfile(place / file, folder / file)
    members, several = list(load_predictor(place).rule.needed), []
    for number, one in enumerate(members, start=1):
        several.append(_write_entry(run, home, one, folder / MEMBERS / str(number)))
    plain = json.loads((place / DATA).read_text(encoding="utf-8"))
    parity = max((one["parity"] for one in several), key=lambda one: one["largest"], default=None)
    return {
        **_stamp(run, plain["kind"]),
        **{key: plain[key] for key in SHARED},
        "members": members,
        "feature_views": home.views,
        "provenance": "; ".join(dict.fromkeys(one["provenance"] for one in several)),
        "fingerprints": {"predictor": fingerprint_of(place), **run.fingerprints(*STAMPED)},
        "parity": parity or Parity(0, 0, 0, 0.0, TOLERANCE)._asdict(),
    }


def _write_network(run: Run, home: Home, name: str, folder: Path, *, int8: bool) -> Plain:
    from lucency.models.onnx_export import write_onnx
    from lucency.models.onnx_runtime import open_onnx

    place, weights, _ = home.place(name)
    classifier = load_network(place, weights)
    about = _about(run, home, name)
    say(f"Writing {name} as ONNX")
    size, metadata = classifier.preparation.size, as_text(about) | cam_metadata(classifier)
    write_onnx(classifier.network, folder / MODEL_ONNX, size=size, metadata=metadata)
    exported = open_onnx(folder / MODEL_ONNX)
    about |= _tensors(exported.session)
    about["parity"] = require_parity(run, classifier, exported)._asdict()
    if int8:
        about["int8"] = _quantise(run, name, folder)
    shutil.copyfile(place / weights, folder / WEIGHTS)
    return about


def _remarks(about: Plain) -> list[str]:
    """Return what the model card states of the exported files."""
    parity = about["parity"]
    largest, films = f"{parity['largest']:.1g}", counted(parity["films"], "film")
    remarks = [f"Logits of {MODEL_ONNX} differ from those of torch by at most {largest} on {films}"]
    if "int8" in about:
        held = about["int8"]
        cost, rate = held["macro_auc"], held["films_per_second"]
        ends = "" if cost["low"] is None else f", {cost['low']:.4f} to {cost['high']:.4f}"
        remarks.append(
            f"{INT8}, in integers of 8 bits, calibrated on "
            f"{counted(held['calibration_films'], 'validation film')}: macro AUC on test films "
            f"{cost['difference']:+.4f}{ends} (paired); {rate['quantised']:.1f} films a second, "
            f"{rate['plain']:.1f} as it was, on the machine of the export"
        )
    return remarks


def _quantise(run: Run, name: str, folder: Path) -> Plain:
    """Write the network in 8 bits, and return what it gains and costs.

    Calibrated on validation films; the cost is measured on test films. Raises ValueError where it
    is slower.
    """
    from lucency.models.onnx_runtime import open_onnx
    from lucency.models.quantisation import quantisation_cost, quantise

    films, seen = _evaluated(run)
    known = seen.row[seen.part == "val"][:PARITY_FILMS]
    say(f"Quantising on {counted(len(known), 'validation film')}")
    try:
        rates = quantise(folder / MODEL_ONNX, calibration=films.pixels[known], out=folder / INT8)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; export it without --int8") from error
    tests = load_predictions(run.out / "predictions" / name / "predictions.npz").of("test")
    row = pd.Index(films.manifest.image).get_indexer(pd.Index(tests.image))
    cost = quantisation_cost(
        tests.take(np.flatnonzero(row >= 0)),
        quantised=open_onnx(folder / INT8),
        pixels=films.pixels[row[row >= 0]],
        **run.draws,
    )
    return {
        "file": INT8,
        "calibration_films": len(known),
        "films_per_second": rates._asdict(),
        "macro_auc": {key: None if one != one else one for key, one in cost._asdict().items()},
    }


@contextmanager
def _empty_on_error(folder: Path) -> Iterator[None]:
    """Remove what was written into a partial folder where writing fails or is stopped."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder / MEMBERS, ignore_errors=True)
        for file in folder.iterdir():
            if file.name != NOTE:
                file.unlink()
        raise


def _stamp(run: Run, kind: str) -> Plain:
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "notice": NOTICE,
        "software": software(),
    }


def _about(run: Run, home: Home, name: str) -> Plain:
    """Return what model.onnx and model.json hold: classifier.json, and what lets it stand alone.

    A snapshot is not recalibrated by itself.
    """
    place = home.place(name)[0]
    plain = json.loads((place / METADATA).read_text(encoding="utf-8"))
    if name not in home.networks:
        line = no_recalibration(len(plain["findings"]))
        plain["recalibration"] = recalibration_as_plain(line)
    return {
        **_stamp(run, NETWORK),
        **plain,
        "name": name,
        "fingerprints": {**network_inputs(place), **run.fingerprints(*STAMPED)},
    }


def require_parity(run: Run, classifier: Classifier, exported: OnnxNetwork) -> Parity:
    """Return how far logits differ from torch's on films of the run; ValueError beyond TOLERANCE.

    Films are originals, PARITY_FILMS or all that there are, those of validation first.
    """
    from lucency.models.onnx_export import largest_difference

    films, whole = _evaluated(run)
    chosen = whole.take(np.arange(min(len(whole), PARITY_FILMS)))
    compared = counted(len(chosen), "film", of=len(whole))
    say(f"Comparing with torch on {compared} of validation and test")
    pixels = np.asarray(films.pixels[chosen.row])
    largest = largest_difference(classifier.network, exported, pixels=pixels)
    if not largest <= TOLERANCE:
        raise ValueError(
            f"{classifier.name}: logits of {MODEL_ONNX} differ from torch's by up to "
            f"{largest:.2g} on {counted(len(chosen), 'film')}; expected {TOLERANCE:g} at "
            "most: nothing was written"
        )
    tests = int((chosen.part == "test").sum())
    return Parity(len(chosen), len(chosen) - tests, tests, largest, TOLERANCE)


def _evaluated(run: Run) -> tuple[Prepared, Plan]:
    """Return the run's films, and its plan's originals of validation, then of test."""
    films = load_prepared(run.cache / "prepared")
    plan = load_plan(run.out / "plan", films.manifest.image)
    own = [plan.take((plan.part == part) & (plan.copy == 0)) for part in ("val", "test")]
    return films, joined(*own)


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
