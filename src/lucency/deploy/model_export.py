"""Export of a run's model: a folder that predicts by itself, complete or absent.

A network's predicts without this program, by its ONNX file; that of what was fitted beside networks
predicts with it, without the run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lucency.config.protocol import without_folders, without_places
from lucency.config.sections import FROZEN
from lucency.core.files import write_whole
from lucency.core.manifest import Prepared, counted, listed
from lucency.core.plan import Plan, joined, load_plan
from lucency.core.predictions import load_predictions
from lucency.core.progress import progress, say
from lucency.core.saved_files import fingerprint_file, naming_damage, read_json, write_json
from lucency.core.stage import NOTE, fingerprint_of, is_complete, produce
from lucency.core.tables import Answer
from lucency.deploy.model_card import NOTICE, kind_of, model_card, require_kept, software
from lucency.ensemble.fitted import (
    ARRAYS,
    DATA,
    FittedPredictor,
    keeps_films,
    load_predictor,
    save_predictor,
)
from lucency.evaluation.calibration import no_recalibration
from lucency.evaluation.unfamiliarity import (
    FILE,
    FOLDER,
    UNLIKE,
    described_distance,
    load_unfamiliarity,
)
from lucency.models.metadata import (
    FEATURES_ONLY,
    FORMAT,
    MEMBERS,
    METADATA,
    MODEL,
    MODEL_ONNX,
    NETWORK,
    VERSION,
    how_to_replace,
    read_model,
    recalibration_as_plain,
)
from lucency.models.onnx_runtime import TOLERANCE
from lucency.pipeline.film_predictors import (
    WEIGHTS,
    Home,
    best_of,
    cam_metadata,
    find_home,
    highest,
    load_network,
    validation_scores,
)
from lucency.pipeline.run import (
    Run,
    kept,
    load_films,
    network_inputs,
    open_run_folder,
    require_finished,
    validation_auc,
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
    """On how many films of which part a network was compared with torch, and the differences.

    `largest` is that of logits, None where they mean nothing; `largest_feature` that of features,
    in shares of their range.
    """

    films: int
    validation: int
    test: int
    largest: float | None
    largest_feature: float
    bound: float


def export_model(folder: Path, *, name: str = "", out: Path, int8: bool = False) -> Path:
    """Return `out`, which holds a model of the run in `folder`: complete, or it is not there.

    Of a network: model.onnx, weights.safetensors. Of what was fitted beside networks:
    predictor.json, predictor.safetensors, and in members/ a folder for each of those that it is
    made of. Beside them model.json, MODEL_CARD.md, and receipt.json, by which a second call finds
    the work done; it compares the files with what model.json states. `name` is by default the
    network that is best on validation films; `int8` adds the network in 8 bits. Raises ValueError
    for a run that is not finished or has no such model, for an `out` that holds something else or
    an export that is not whole, where 8 bits are slower, and where a logit of a network's
    model.onnx differs from torch's by more than TOLERANCE, or a feature by more than that share of
    their range, on PARITY_FILMS films of the run, validation films first.
    """
    run = open_run_folder(folder)
    require_finished(run)
    home = find_home(run.out)
    if not name:
        name, best = best_of(home), highest(validation_scores(home))
        other = f"; {best} is better on validation films" if best != name else ""
        say(f"Exporting {name}, the best network{other}")
    kind = kind_of(run, name)
    require_kept(home, name)
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
    if distances := _distances(home):
        inputs[FOLDER] = distances
    if is_complete(out, inputs=inputs):
        _require_whole(out)
        return out
    return produce(out, inputs=inputs, write=partial(_write_model, run, home, name, int8))


def _require_whole(out: Path) -> None:
    """Raise ValueError where a file of an export is absent, or other than it was written.

    A model card may be edited.
    """
    again = f"delete {out}, then the same command exports it again"
    lost = [] if (out / CARD).is_file() else [f"{out / CARD} is absent"]
    if found := next(chain(lost, _damage(out, again)), ""):
        raise ValueError(f"{found}: {again}")


def _damage(folder: Path, again: str) -> Iterator[str]:
    """Yield what is absent or damaged of an exported model's files, and of its members'."""
    if not (folder / MODEL).is_file():
        yield f"{folder / MODEL} is absent"
        return
    about = read_json(folder / MODEL, remedy=again)
    with naming_damage(folder / MODEL, kinds=(KeyError, AttributeError), remedy=again):
        fingerprints = dict(about["fingerprints"].items())
    for name, known in fingerprints.items():
        file = folder / name
        if "." in name and not file.is_file():  # others are of stages
            yield f"{file} is absent"
        elif "." in name and fingerprint_file(file) != known:
            yield f"{file} is damaged"
    for number, _ in enumerate(about.get("members", ()), start=1):
        yield from _damage(folder / MEMBERS / str(number), again)


def _distances(home: Home) -> dict[str, str]:
    """Return the fingerprints of the distances that networks keep, by network."""
    files = {name: place / FOLDER / FILE for name, place in home.networks.items()}
    return {name: fingerprint_file(file) for name, file in files.items() if file.is_file()}


def describe_export(folder: Path) -> Answer:
    """Return what an exported folder holds, for people and programs."""
    plain = read_model(folder)
    parity = plain["parity"]
    compared = {
        "films compared": parity["films"],
        "largest difference of a logit": parity["largest"],
        "largest difference of a feature": parity["largest_feature"],
    }
    known = {key: value for key, value in compared.items() if value is not None}
    return {
        "model": plain["name"],
        "kind": plain["kind"],
        "findings": len(plain["findings"]),
        **(known if parity["films"] else {}),
        "folder": folder,
        "model card": folder / CARD,
        "notice": plain["notice"],
        **({"int8": plain["int8"]} if "int8" in plain else {}),
    }


def _write_model(run: Run, home: Home, name: str, int8: bool, folder: Path) -> None:
    with _empty_on_error(folder):
        about = _write_entry(run, home, name, folder, int8=int8)
        write_whole(folder / CARD, model_card(run, name, remarks=_remarks(about, folder)))


def _write_entry(run: Run, home: Home, name: str, folder: Path, *, int8: bool = False) -> Plain:
    """Write what predicts without its model card, and return what model.json holds."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in home.fitted:
        about = _write_fitted(run, home, name, folder)
    else:
        about = _write_network(run, home, name, folder, int8=int8)
    write_json(folder / MODEL, about, finite=True)
    return about


def _write_fitted(run: Run, home: Home, name: str, folder: Path) -> Plain:
    """Write what was fitted, and all that it is made of, each in a folder of its own."""
    place, fitted = home.fitted[name], home.predictor(name)
    save_predictor(_renumbered(fitted), folder)
    members, several = list(fitted.rule.needed), []
    for number, one in enumerate(members, start=1):
        several.append(_write_entry(run, home, one, folder / MEMBERS / str(number)))
    files = {one: fingerprint_file(folder / one) for one in (DATA, ARRAYS)}
    plain = read_json(place / DATA)
    return {
        **_stamp(run, fitted.kind),
        **{key: plain[key] for key in SHARED},
        "sets": plain.get("sets"),
        "members": members,
        "feature_views": home.views,
        "protocol": without_folders(without_places(run.protocol)),
        "provenance": "; ".join(dict.fromkeys(one["provenance"] for one in several)),
        "fingerprints": {"predictor": fingerprint_of(place), **files, **run.fingerprints(*STAMPED)},
        "parity": _widest([one["parity"] for one in several]),
    }


def _renumbered(fitted: FittedPredictor) -> FittedPredictor:
    """Return a predictor whose patients are numbered from 0, in the order of their films.

    Which films are of one patient must be known: they do not vote for each other.
    """
    held = fitted.rule.arrays
    if "patient" not in held:
        return fitted
    arrays = held | {"patient": pd.factorize(held["patient"])[0].astype(np.int64)}
    return replace(fitted, rule=replace(fitted.rule, arrays=arrays))


def _widest(several: Sequence[Plain]) -> Plain:
    """Return the parity of all members: their films, and the largest differences of any."""
    compared = [one for one in several if one["films"]]
    if not compared:
        return Parity(0, 0, 0, None, 0.0, TOLERANCE)._asdict()
    logits = [one["largest"] for one in compared if one["largest"] is not None]
    return compared[0] | {
        "largest": max(logits, default=None),
        "largest_feature": max(one["largest_feature"] for one in compared),
    }


def _write_network(run: Run, home: Home, name: str, folder: Path, *, int8: bool) -> Plain:
    from lucency.models.onnx_export import write_onnx
    from lucency.models.onnx_runtime import open_onnx

    place, weights, _ = home.place(name)
    classifier = load_network(place, weights)
    about = _about(run, home, name)
    shutil.copyfile(place / weights, folder / WEIGHTS)
    about["fingerprints"][WEIGHTS] = fingerprint_file(folder / WEIGHTS)
    say(f"Writing {name} as ONNX")
    size, metadata = classifier.preparation.size, as_text(about) | cam_metadata(classifier)
    write_onnx(classifier.network, folder / MODEL_ONNX, size=size, metadata=metadata)
    exported = open_onnx(folder / MODEL_ONNX)
    about |= _tensors(exported.session)
    about["parity"] = require_parity(run, classifier, exported)._asdict()
    about["fingerprints"][MODEL_ONNX] = fingerprint_file(folder / MODEL_ONNX)
    if int8:
        about["int8"] = _quantise(run, name, folder)
        about["fingerprints"][INT8] = fingerprint_file(folder / INT8)
    if (place / FOLDER / FILE).is_file() and name in home.networks:
        (folder / FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(place / FOLDER / FILE, folder / FOLDER / FILE)
        about["unfamiliarity"] = described_distance(load_unfamiliarity(folder / FOLDER))
        about["fingerprints"][f"{FOLDER}/{FILE}"] = fingerprint_file(folder / FOLDER / FILE)
    return about


def _remarks(about: Plain, folder: Path) -> list[str]:
    """Return what the model card states of the exported files."""
    remarks, parity = [], about["parity"]
    whose = MODEL_ONNX
    if about["kind"] != NETWORK:
        whose = f"each network's {MODEL_ONNX}, below {MEMBERS}/,"
    if parity["films"]:
        logits = "" if parity["largest"] is None else f"{parity['largest']:.1g} in logits and "
        remarks.append(
            f"On {counted(parity['films'], 'film')} {whose} differs from torch by at most {logits}"
            f"{parity['largest_feature']:.1g} of their range in features"
        )
    if "unfamiliarity" in about:
        remarks.append(_remark_on_distance(about["unfamiliarity"]))
    inside = (load_predictor(file.parent) for file in sorted(folder.rglob(DATA)))
    if keeping := [one.name for one in inside if keeps_films(one.rule)]:
        remarks.append(
            f"{ARRAYS} of {listed(keeping)} holds features of single training films, with their "
            "labels where these vote; names of films are left out and patients numbered anew, but "
            "it is as private as the films are"
        )
    return remarks + ([_remark_on_8_bits(about["int8"])] if "int8" in about else [])


def _remark_on_distance(held: Plain) -> str:
    return (
        f"Films that are {UNLIKE} are named: by the distance {held['score']!r} of "
        f"{held['file']}, calibrated on {counted(held['films'], 'validation film')} of "
        f"{counted(held['patients'], 'patient')}, at most {100 * held['refused']:g} % of films of "
        "new patients of the same source are, on average; it says nothing about the findings"
    )


def _remark_on_8_bits(held: Plain) -> str:
    cost, rate = held["macro_auc"], held["films_per_second"]
    ends = "" if cost["low"] is None else f", {cost['low']:.4f} to {cost['high']:.4f}"
    return (
        f"{INT8}, in integers of 8 bits, calibrated on "
        f"{counted(held['calibration_films'], 'validation film')}: macro AUC on test films "
        f"{cost['difference']:+.4f}{ends} (paired); {rate['quantised']:.1f} films a second, "
        f"{rate['plain']:.1f} as it was, on the machine of the export"
    )


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
    with progress("Cost of 8 bits", unit="films") as advance:
        cost = quantisation_cost(
            tests.take(np.flatnonzero(row >= 0)),
            quantised=open_onnx(folder / INT8),
            pixels=films.pixels,
            row=row[row >= 0],
            draws=run.draws,
            progress=advance,
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
    with ExitStack() as undo:
        undo.callback(_empty, folder)
        yield
        undo.pop_all()


def _empty(folder: Path) -> None:
    for inside in (MEMBERS, FOLDER):
        shutil.rmtree(folder / inside, ignore_errors=True)
    for file in folder.iterdir():
        if file.name != NOTE:
            file.unlink()


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

    A snapshot is not recalibrated by itself; its AUC on validation films is not known, nor sets.
    """
    place = home.place(name)[0]
    plain = read_json(place / METADATA, remedy=how_to_replace(place))
    if name not in home.networks:
        line = no_recalibration(len(plain["findings"]))
        plain |= {"recalibration": recalibration_as_plain(line), "sets": None}
    elif not name.startswith(FROZEN):
        plain["validation_auc"] = validation_auc(place)
    return {
        **_stamp(run, NETWORK),
        **plain,
        **without_folders({key: plain[key] for key in ("protocol", "provenance")}),
        "name": name,
        "fingerprints": {**network_inputs(place), **run.fingerprints(*STAMPED)},
    }


def require_parity(run: Run, classifier: Classifier, exported: OnnxNetwork) -> Parity:
    """Return how far a network's ONNX file is from torch on films of the run.

    Films are originals, PARITY_FILMS or all that there are, those of validation first. Raises
    ValueError where logits, or features in shares of their range, differ by more than TOLERANCE.
    """
    from lucency.models.onnx_export import largest_differences, too_far

    films, whole = _evaluated(run)
    chosen = whole.take(np.arange(min(len(whole), PARITY_FILMS)))
    compared = counted(len(chosen), "film", of=len(whole))
    say(f"Comparing with torch on {compared} of validation and test")
    pixels = np.asarray(films.pixels[chosen.row])
    apart = largest_differences(classifier.network, exported, pixels=pixels)
    if found := too_far(apart, findings=classifier.findings):
        raise ValueError(
            f"{classifier.name}: in {MODEL_ONNX} {found} on {counted(len(chosen), 'film')}; "
            f"expected {TOLERANCE:g} at most: nothing was written"
        )
    tests = int((chosen.part == "test").sum())
    logit = None if FEATURES_ONLY in classifier.findings else apart.logit
    return Parity(len(chosen), len(chosen) - tests, tests, logit, apart.feature, TOLERANCE)


@kept
def _evaluated(run: Run) -> tuple[Prepared, Plan]:
    """Return the run's films, and its plan's originals of validation, then of test."""
    films = load_films(run)
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
