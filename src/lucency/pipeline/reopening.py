"""A run found again by its folder, be it a variant of another run, whose films it sees."""

from __future__ import annotations

from pathlib import Path

from lucency.config.protocol import read_protocol
from lucency.pipeline.ablation_study import members
from lucency.pipeline.run import Run, open_run


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
