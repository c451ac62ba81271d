"""Model files that are pickles, or damaged: refused unread, or the same arrays as the whole file.

Pickles: sixty that write a file when they are unpickled, at each place where weights or arrays are
read. Held is a ValueError, and no file written. Damaged files: held is a ValueError of the program,
or arrays equal to those of the whole file; pre-trained weights, which have no fingerprint, may also
be read as they stand.
"""

import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from lucency.config.sections import Network
from lucency.models.classifier import Classifier, load_classifier
from lucency.models.heads import head_names
from lucency.models.networks import build_body
from lucency.models.onnx_runtime import open_onnx, run
from lucency.models.weights import initialise
from torture.damage import cut, flipped, replaced, zeroed
from torture.film_tries import GOOD, SIDE, ran, small_model
from torture.hostile_models import DOORS, payloads, pickles
from torture.hostile_pictures import whole
from torture.parser_tries import REFUSED, WRONG, outcome
from torture.tally import Tally, script

TIMES = 500
EQUAL, OTHER = "equal", "other arrays"
FILMS = np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)


def tries(times: int) -> Iterator[Tally]:
    with TemporaryDirectory() as scratch:
        place = Path(scratch)
        yield control(place / "mark")
        for door in DOORS:
            yield tried_pickles(door, place, every=max(1, TIMES // times))
        model = small_model(place / "model")
        write_onnx_of(model)
        for name, arrays in ARRAYS.items():
            yield tried_damage(name, model, arrays, times=times)
        write_pretrained(model)
        for name in PRETRAINED:
            yield tried_damage(name, model, partial(_pretrained, name), times=times, may=(OTHER,))
        yield external_data(model, place)


def write_onnx_of(model: Path) -> None:
    """Let a network predict a film, by which its ONNX file is written."""
    (model / GOOD).write_bytes(whole()["PNG"])
    assert ran("predict", model, model / GOOD).status == 0


def write_pretrained(model: Path) -> None:
    """Write a network's weights as torch.save does, and as it did before archives."""
    weights = build_body(BEGUN).state_dict()
    for name, is_archive in PRETRAINED.items():
        torch.save(weights, model / name, _use_new_zipfile_serialization=is_archive)


def control(mark: Path) -> Tally:
    """Show that the payloads do what they are for: each writes its file when it is unpickled."""
    found = Counter[str]()
    for payload in payloads(mark).values():
        pickle.loads(pickle.dumps(payload))
        found["runs" if mark.exists() else "does not run"] += 1
        shutil.rmtree(mark, ignore_errors=True)
        mark.unlink(missing_ok=True)
    return _counted("payloads, unpickled by pickle itself", found, held=found["runs"])


def tried_pickles(door: str, place: Path, *, every: int = 1) -> Tally:
    name, wrapped, read = DOORS[door]
    mark, found = place / "mark", Counter[str]()
    for number, (_, content) in enumerate(pickles(mark)):
        if number % every:
            continue
        folder = place / f"door-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        small = place / "small"
        if not small.exists():
            small_model(small)
        shutil.copytree(small, folder)
        (folder / "predictor.json").write_text('{"version": 1}')
        (folder / name).write_bytes(wrapped(content))
        kind = outcome(lambda folder=folder: read(folder))
        found["run" if mark.exists() else kind] += 1
        shutil.rmtree(folder)
    return _counted(f"pickles as {door}", found, held=found[REFUSED])


def tried_damage(
    name: str,
    model: Path,
    arrays: Callable[[Path], dict[str, np.ndarray]],
    *,
    times: int,
    may: tuple[str, ...] = (),
) -> Tally:
    """Damage a file so many times, in four ways; `may` are outcomes that are right too."""
    content, known, found = (model / name).read_bytes(), arrays(model), Counter[str]()
    ways = [list(cut(content))]
    ways += [list(way(content, times=times, seed=5)) for way in (flipped, zeroed, replaced)]
    turns = chain.from_iterable(zip(*map(cycle, ways), strict=True))
    for damaged in islice(turns, times):
        (model / name).write_bytes(damaged)
        found[_compared(model, arrays, known)] += 1
    (model / name).write_bytes(content)
    held = sum(found[kind] for kind in (REFUSED, EQUAL, *may))
    return _counted(f"damaged {name}", found, held=held)


def _compared(
    model: Path, arrays: Callable[[Path], dict[str, np.ndarray]], known: dict[str, np.ndarray]
) -> str:
    made: dict[str, np.ndarray] = {}
    kind = outcome(lambda: made.update(arrays(model)))
    if kind == REFUSED or kind.startswith(WRONG):
        return kind
    same = made.keys() == known.keys() and all(
        np.array_equal(made[name], known[name]) for name in known
    )
    return EQUAL if same else OTHER


def external_data(model: Path, place: Path) -> Tally:
    """Try ONNX files whose weights would lie in other files: outside, links, devices."""
    secret, folder, found = place / "secret.bin", place / "external", Counter[str]()
    secret.write_bytes(bytes(1 << 20))
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    (folder / "beside.bin").write_bytes(bytes(1 << 20))
    goals = (str(secret), "../secret.bin", "link.bin", "beside.bin", "/etc/passwd", "/dev/zero", "",
             ".", "a\nb", "\x1b[31m")  # fmt: skip
    for goal in goals:
        network = onnx.load(model / "classifier.onnx")
        tensor = max(network.graph.initializer, key=lambda one: len(one.raw_data))
        size = len(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, goal, offset=0, length=size)
        tensor.ClearField("raw_data")
        (folder / "m.onnx").write_bytes(network.SerializeToString())
        found[outcome(lambda: open_onnx(folder / "m.onnx"))] += 1
    return _counted("ONNX with weights in other files", found, held=found[REFUSED])


def _weights_of(model: Path) -> dict[str, np.ndarray]:
    found = load_classifier(model)
    return {name: one.numpy() for name, one in found.network.body.state_dict().items()}


def _pretrained(name: str, model: Path) -> dict[str, np.ndarray]:
    """Return what a network begins with, but for its head."""
    body = build_body(BEGUN)
    choice = Network(name=BEGUN, weights=name, provenance="none")
    initialise(body, choice=choice, root=model)
    own = tuple(f"{one}." for one in head_names(body))
    return {
        name: one.numpy() for name, one in body.state_dict().items() if not name.startswith(own)
    }


def _decisions_of(model: Path) -> dict[str, np.ndarray]:
    found: Classifier = load_classifier(model)
    held: dict[str, Any] = {
        "threshold": found.threshold, "slope": found.recalibration.slope,
        "offset": found.recalibration.offset, "mean": found.mean, "std": found.std,
        "findings": found.findings, "preparation": found.preparation.model_dump_json(),
    }  # fmt: skip
    return {name: np.asarray(one) for name, one in held.items()}


def _outputs_of(model: Path) -> dict[str, np.ndarray]:
    """Return what the file gives for films; `lucency predict` makes a refused one anew."""
    logit, feature = run(open_onnx(model / "classifier.onnx"), FILMS)
    return {"logit": logit, "feature": feature}


def _counted(what: str, found: Counter[str], *, held: int) -> Tally:
    text = ", ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
    return Tally(what, found.total(), held, text)


ARRAYS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "weights.safetensors": _weights_of,
    "classifier.json": _decisions_of,
    "classifier.onnx": _outputs_of,
}
BEGUN = "test_resnet"
PRETRAINED = {"pre-trained.pt": True, "pre-trained.pth": False}  # whether it is an archive


if __name__ == "__main__":
    script("models", tries, times=TIMES, doc=__doc__ or "")
