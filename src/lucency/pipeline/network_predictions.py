"""What trained networks predict of a plan's films: a stage a network, in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from lucency.core.engines import reaches_others
from lucency.core.manifest import Prepared
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions, load_predictions, save_predictions
from lucency.core.progress import progress
from lucency.core.stage import produce
from lucency.pipeline.run import network_inputs


def predict_each(
    trained: Mapping[str, Path],
    films: Prepared,
    seen: Plan,
    *,
    out: Path,
    upstream: Mapping[str, str] = MappingProxyType({}),
) -> list[Predictions]:
    """Return every network's predictions of a plan's entries, each kept in a folder of its own."""
    made = []
    for name, network in trained.items():
        inputs = {**network_inputs(network), **upstream}
        write = partial(_write_predictions, network, films, seen)
        folder = produce(out / name, inputs=inputs, write=write)
        made.append(load_predictions(folder / "predictions.npz"))
    return made


def _write_predictions(network: Path, films: Prepared, seen: Plan, folder: Path) -> None:
    from lucency.models.classifier import load_classifier
    from lucency.models.device import device_here
    from lucency.models.inference import predict, predict_on_engine

    about = {"prepared": films, "plan": seen}
    with progress(f"Predicting with {network.name}", unit="films") as advance:
        if reaches_others() and device_here().type == "cpu":
            found = predict_on_engine(network, progress=advance, **about)
        else:
            found = predict(load_classifier(network), progress=advance, **about)
    save_predictions(found, folder / "predictions.npz")
