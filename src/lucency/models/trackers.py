"""Trackers: TensorBoard, MLflow, Weights & Biases or Trackio see what every epoch gave.

accelerate's trackers write. All stays in the network's folder, and nothing goes over a network,
unless the tracker's own environment variables say so. A tracker gets figures of epochs, parameters
and the names of protocol and network: no names, places or labels of films.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import tracking

from lucency.config.protocol import Protocol, without_folders
from lucency.config.sections import PLACES_OF_NETWORKS, Network
from lucency.core.files import write_whole
from lucency.core.parallel import rank
from lucency.core.progress import AfterEpoch, unwatched
from lucency.core.saved_files import SavedFields, read_fields

NOTE = "tracker.json"  # which run of the tracker goes on, and the last epoch that it was given
EVENTS, STORE = "events", "mlflow.db"
ANONYMOUS = {  # MLflow's own tags, which would name the user, the program's place and its commit
    "mlflow.user": "",
    "mlflow.source.name": "lucency",
    "mlflow.source.type": "LOCAL",
    "mlflow.source.git.commit": "",
}
NOWHERE = "mlflow-artifacts:/"  # no artifact is ever written
INSTALL = {
    "tensorboard": "'lucency[tensorboard]'",
    "mlflow": "'lucency[mlflow]'",
    "wandb": "wandb",
    "trackio": "trackio",
}
Figures = Mapping[str, int | float]
Parameters = dict[str, bool | int | float | str]


class Started(NamedTuple):
    """A tracker at work: its run, and the last epoch that it knows, 0 before the first."""

    tracker: tracking.GeneralTracker
    run: str
    epoch: int


def check_tracker(name: str) -> None:
    """Raise ValueError unless the package of a tracker, a value of `training.tracker`, is there."""
    if name != "none" and find_spec(name) is None:
        raise ValueError(
            f'training.tracker is "{name}", but the package {name} is not installed: '
            f"pip install {INSTALL[name]}"
        )


@contextmanager
def tracked(protocol: Protocol, *, choice: Network, folder: Path) -> Iterator[AfterEpoch]:
    """Lend a function that gives a training's epochs to its tracker, each of them once.

    `folder` is the network's, in which the tracker goes on after a kill.
    """
    name = protocol.training_of(choice.name).tracker
    if name == "none" or rank() > 0:
        yield unwatched
        return
    with _environment(folder, **ENVIRONMENT[name]):
        started = STARTS[name](protocol, choice.name, folder)
        try:
            started.tracker.store_init_configuration(parameters_of(protocol, choice=choice))
            yield _giver(started, folder / NOTE)
        finally:
            started.tracker.finish()


def parameters_of(protocol: Protocol, *, choice: Network) -> Parameters:
    """Return the choices by which one network is trained, by their keys; files are not named."""
    network = choice.model_dump(mode="json", exclude={"training", "provenance"})
    network["weights"] = choice.weights if choice.weights in ("random", "timm") else "a file"
    for key in ("name", "architecture"):
        if network[key].startswith(PLACES_OF_NETWORKS):
            network[key] = network[key].partition(":")[0]
    choices = {
        "training": protocol.training_of(choice.name).model_dump(mode="json"),
        "network": network,
        "preparation": protocol.preparation.model_dump(mode="json"),
        "balance": protocol.balance.model_dump(mode="json", exclude={"features"}),
        "split": {"method": protocol.split.method, "seed": protocol.split.seed},
        "findings": len(protocol.findings),
    }
    return dict(_flat(without_folders(choices)))


def _flat(choices: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in choices.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            yield f"{above}{key}", value if plain else json.dumps(value)


def _giver(started: Started, note: Path) -> AfterEpoch:
    """Return the function that gives epochs to a tracker, but for those that it knows.

    An epoch is noted before it is given: a kill between the two loses it, and nothing doubles it.
    """
    known = started.epoch

    def give(epochs: Sequence[Figures]) -> None:
        nonlocal known
        for figures in epochs[known:]:
            known = int(figures["epoch"])
            _write_note(note, run=started.run, epoch=known)
            finite = {key: value for key, value in figures.items() if math.isfinite(value)}
            started.tracker.log(finite, step=known)

    return give


def _write_note(note: Path, *, run: str, epoch: int) -> None:
    write_whole(note, json.dumps({"run": run, "epoch": epoch}))


class TrackerNote(SavedFields):
    """What tracker.json holds."""

    run: str
    epoch: int


def _read_note(note: Path) -> tuple[str, int]:
    """Return the tracker's run and the last epoch that it was given; "" and 0 where it is new."""
    if not note.exists():
        return "", 0
    found = read_fields(note, TrackerNote, remedy="delete it, and the tracker begins another run")
    return found.run, found.epoch


def _start_tensorboard(protocol: Protocol, network: str, folder: Path) -> Started:
    """Begin the events anew: those of a killed training may be more than its checkpoint has."""
    del protocol, network
    shutil.rmtree(folder / EVENTS, ignore_errors=True)
    tracker = tracking.TensorBoardTracker(EVENTS, folder)
    tracker.start()
    return Started(tracker, EVENTS, 0)


def _start_mlflow(protocol: Protocol, network: str, folder: Path) -> Started:
    """Go on in the noted run, after the epochs that its store has."""
    from mlflow import MlflowClient

    run, _ = _read_note(folder / NOTE)
    tracker = tracking.MLflowTracker(
        protocol.name,
        run_id=run or None,
        run_name=network,
        tags=ANONYMOUS,
        logging_dir=NOWHERE,
    )
    tracker.start()
    run = tracker.tracker.info.run_id
    given = [one.step for one in MlflowClient().get_metric_history(run, "epoch")]
    _write_note(folder / NOTE, run=run, epoch=max(given, default=0))
    return Started(tracker, run, max(given, default=0))


def _start_wandb(protocol: Protocol, network: str, folder: Path) -> Started:
    """Go on in the noted run; offline that is a second folder of it, which `wandb sync` joins."""
    run, epoch = _begun(folder)
    about = {"name": network, "id": run, "resume": "allow", "dir": str(folder)}
    tracker = tracking.WandBTracker(protocol.name, **about)
    tracker.start()
    return Started(tracker, run, epoch)


def _start_trackio(protocol: Protocol, network: str, folder: Path) -> Started:
    run, epoch = _begun(folder)
    tracker = tracking.TrackioTracker(protocol.name, name=f"{network}-{run}", resume="allow")
    tracker.start()
    return Started(tracker, run, epoch)


def _begun(folder: Path) -> tuple[str, int]:
    """Return the noted run and its last epoch; a new one is noted."""
    run, epoch = _read_note(folder / NOTE)
    run = run or uuid.uuid4().hex[:8]
    _write_note(folder / NOTE, run=run, epoch=epoch)
    return run, epoch


@contextmanager
def _environment(folder: Path, **variables: str) -> Iterator[None]:
    """Set the environment variables that are not set; {folder} in them is the network's."""
    absent = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(
        {name: value.format(folder=folder.resolve()) for name, value in absent.items()}
    )
    try:
        yield
    finally:
        for name in absent:
            os.environ.pop(name, None)


ENVIRONMENT: dict[str, dict[str, str]] = {
    "tensorboard": {},
    "mlflow": {
        "MLFLOW_TRACKING_URI": f"sqlite:///{{folder}}/{STORE}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": NOWHERE,  # or the store holds the working folder
    },
    "wandb": {
        "WANDB_MODE": "offline",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_X_DISABLE_MACHINE_INFO": "true",
        "WANDB_X_DISABLE_META": "true",
        "WANDB_X_DISABLE_STATS": "true",
        "WANDB_X_SAVE_REQUIREMENTS": "false",
    },
    "trackio": {"TRACKIO_DIR": "{folder}/trackio"},
}
STARTS: dict[str, Callable[[Protocol, str, Path], Started]] = {
    "tensorboard": _start_tensorboard,
    "mlflow": _start_mlflow,
    "wandb": _start_wandb,
    "trackio": _start_trackio,
}
