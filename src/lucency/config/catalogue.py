"""The protocols that come with the package: found by name, listed with their cost and result."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from lucency.core.manifest import nearest


class Listed(NamedTuple):
    """What the comment at the head of a protocol states; empty where it states nothing."""

    name: str
    about: str
    cost: str
    result: str


def protocol_folder() -> Path:
    """Return the folder of the protocols: in the installed package, or in the repository."""
    package = Path(str(files("lucency")))
    installed = package / "protocols"
    return installed if installed.is_dir() else package.parents[1] / "protocols"


def find_protocol(protocol: str | Path) -> Path:
    """Return the file of a protocol: its path, or one of the package by name, such as "quick".

    Raises ValueError for a name that is none of theirs.
    """
    file = Path(protocol)
    if file.exists() or file.suffix or len(file.parts) != 1:
        return file
    known = {one.stem: one for one in _files()}
    if file.name not in known:
        raise ValueError(
            f"{file}: no such protocol; expected a .toml file or a name that lucency protocols "
            f"lists{nearest(file.name, known)}"
        )
    return known[file.name]


def list_protocols() -> list[Listed]:
    """Return the package's protocols by name, with what their comments state."""
    return [_listed(file) for file in _files()]


def _files() -> list[Path]:
    return sorted(protocol_folder().glob("*.toml"))


def _listed(file: Path) -> Listed:
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = "\n".join(line.removeprefix("#").strip() for line in lines[:end])
    about = " ".join(text.partition("\n\n")[0].split())
    cost = COST.search(text)
    result = RESULT.search(text)
    return Listed(
        name=file.stem,
        about=re.split(r"(?<=[.?!]) (?=[A-Z])", about)[0],
        cost=" ".join(cost[1].split()) if cost else "",
        result=" ".join(result[1].split()).lstrip(",: ") if result else "",
    )


COST = re.compile(r"^(?:Cost: |(?=Needs ))(.+?)(?=\nResult|\nNot run|\n\n|\Z)", re.M | re.S)
RESULT = re.compile(r"^(?:Result:? ?|(?=Not run))(.+?)(?=\n\n|\Z)", re.M | re.S)
