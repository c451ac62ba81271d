"""A run's folder: one protocol lives there, and no other."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from lucency.config.protocol import Protocol, parse_protocol, protocol_text
from lucency.core.parallel import rank
from lucency.core.stage import NOTE, differences, write_atomically
from lucency.models.metadata import read_metadata

LATE = ("ensemble.",)  # what may be asked of a run that is finished


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One protocol in one folder.

    Phantoms and the manifest lie in `source`, prepared films in `cache`, parts in `shared`: `out`
    itself unless the run is a variant of another, whose films it sees.
    """

    protocol: Protocol
    out: Path
    workers: int
    source: Path
    cache: Path
    shared: Path


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
    work = [p for p in out.rglob("*") if p.is_file() and p.name not in (file.name, NOTE)]
    early = [one for one in found if not one.startswith(LATE)]
    if was and early and work:
        said = f"{out} holds a run of another protocol ({'; '.join(early[:3])})"
        raise ValueError(f"{said}: choose another --out; nothing was changed")
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
