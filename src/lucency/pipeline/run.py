"""A run: one protocol in one folder, what its stages have made so far, and its variants."""

from __future__ import annotations

import os
import tomllib
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Int64

from lucency.config.protocol import BASE, Protocol, parse_protocol, protocol_text, read_protocol
from lucency.core.manifest import Prepared
from lucency.core.parallel import rank
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.stage import LOCK, NOTE, differences, write_atomically
from lucency.models.metadata import read_metadata

LATE = ("ensemble.",)  # sections that may change in a finished run


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One protocol in one folder.

    Phantoms and the manifest lie in `source`, prepared films in `cache`, parts in `shared`: `out`
    itself unless the run is a variant of another, whose films it sees. `results` holds what the
    stages have returned.
    """

    protocol: Protocol
    out: Path
    workers: int
    source: Path
    cache: Path
    shared: Path
    results: dict[tuple[object, ...], Any] = field(init=False, repr=False, default_factory=dict)


@typing.runtime_checkable
class Keeps(typing.Protocol):
    """A value that keeps the results of its stages."""

    @property
    def results(self) -> dict[tuple[object, ...], Any]:
        """Results by function and arguments."""
        ...


Args = ParamSpec("Args")
Result = TypeVar("Result")
Of = TypeVar("Of", bound=Keeps)


def kept(
    stage: Callable[Concatenate[Of, Args], Result],
) -> Callable[Concatenate[Of, Args], Result]:
    """Let a stage be done once for a run (or study): its result stays in `results` of the value."""

    @wraps(stage)
    def once(run: Of, *args: Args.args, **named: Args.kwargs) -> Result:
        key = (stage.__module__, stage.__qualname__, args, tuple(sorted(named.items())))
        if key not in run.results:
            run.results[key] = stage(run, *args, **named)
        return run.results[key]

    return once


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What the stages up to `predict` made of a run, for the stages after it.

    `root` is where the films lie, `training_films` the rows of `prepared` that networks trained on
    before balancing, `classifiers` the folders of the networks by name.
    """

    run: Run
    root: Path
    prepared: Prepared
    pictures: Prepared
    plan: Plan
    training_films: Int64[np.ndarray, " m"]
    classifiers: dict[str, Path]
    predictions: list[Predictions]

    @property
    def results(self) -> dict[tuple[object, ...], Any]:
        """What the run's stages have returned."""
        return self.run.results


def open_run(protocol: Protocol, *, out: Path, workers: int = 0) -> Run:
    """Return the run of `protocol` in `out`; a folder with work of another protocol is refused.

    Of LATE sections others may be found: no network and no prediction is made from them. Of several
    processes the first checks and writes for all.
    """
    count = workers or os.cpu_count() or 1
    run = Run(protocol=protocol, out=out, workers=count, source=out, cache=out, shared=out)
    if rank() > 0:
        return run
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: expected the run's folder, which may not exist yet")
    file, text = out / "protocol.toml", protocol_text(protocol)
    was = file.read_text(encoding="utf-8") if file.exists() else ""
    known = (
        parse_protocol(tomllib.loads(was), name=str(file)).model_dump(mode="json") if was else {}
    )
    found = differences(known, protocol.model_dump(mode="json"))
    idle = (file.name, NOTE)
    work = [p for p in out.rglob("*") if p.is_file() and p.name not in idle and p.suffix != LOCK]
    early = [one for one in found if not one.startswith(LATE)]
    if was and early and work:
        message = f"{out} holds a run of another protocol ({'; '.join(early[:3])})"
        raise ValueError(f"{message}: choose another --out; nothing was changed")
    if work and not was:
        raise ValueError(f"{out} is not empty and holds no run: choose another --out")
    if found:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    return run


def open_member(run: Run, protocol: Protocol, *, name: str, seed: int) -> Run:
    """Return the run of a variant of `run` at one seed, which shares films and parts with it."""
    home = run.out / "variants" / name
    same = protocol.preparation == run.protocol.preparation
    member = open_run(protocol, out=home / f"seed-{seed}", workers=run.workers)
    if not same:
        return replace(member, source=run.source, cache=home, shared=home)
    return replace(member, source=run.source, cache=run.cache, shared=run.shared)


def best_network(trained: Iterable[Path]) -> Path:
    """Return the folder of the network with the best macro AUC on validation films."""
    return max(trained, key=_validation_auc)


def _validation_auc(network: Path) -> float:
    """Return the validation macro AUC of the epoch whose weights were kept."""
    epoch = read_metadata(network).epoch
    history = pd.read_csv(network / "history.csv").set_index("epoch")
    return float(history["val_auc"].fillna(0).to_dict()[epoch])


Member = tuple[str, int]  # variant and seed


@kept
def members(run: Run) -> dict[Member, Run]:
    """Return the run of the base and of every variant at every seed."""
    protocol = run.protocol
    names = [BASE, *(variant.name for variant in protocol.variant)]
    seeds = protocol.seeds or (protocol.training.seed,)
    return {
        (name, seed): open_member(run, protocol.varied(name, seed=seed), name=name, seed=seed)
        for name in names
        for seed in seeds
    }


def open_run_folder(folder: Path) -> Run:
    """Return the run that a folder holds; raises ValueError for another, and for several."""
    file = folder / "protocol.toml"
    if not file.is_file():
        raise ValueError(f"{folder} holds no run: expected the --out folder of `lucency run`")
    protocol = read_protocol(file)
    if protocol.variant:
        raise ValueError(f"{folder} holds variants: name the folder of one, variants/NAME/seed-N")
    variants = folder.resolve().parent.parent
    whole = variants.parent / "protocol.toml"
    if variants.name != "variants" or not whole.is_file():
        return open_run(protocol, out=folder)
    every = members(open_run(read_protocol(whole), out=variants.parent)).values()
    found = [one for one in every if one.out == folder.resolve()]
    return found[0] if found else open_run(protocol, out=folder)


def require_finished(run: Run) -> None:
    """Raise ValueError unless the run's films are prepared and all its networks trained."""
    done = [run.out / "networks" / network.name for network in run.protocol.network]
    if not all((place / "receipt.json").is_file() for place in (run.cache / "prepared", *done)):
        raise ValueError(
            f"{run.out} is not finished: expected its films prepared and all its networks trained; "
            "go on with lucency run"
        )
