"""Lucency: from chest X-rays to a comparison of networks one may believe.

`lucency.load`, `lucency.evaluate` and the other public names are imported when first used.
"""

import re
from importlib import import_module
from pathlib import Path

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")  # what an editor reads
_HOMES = {name: home for home, name in re.findall(r"^from (\S+) import (\w+)", _STUB, re.M)}
__all__ = [*sorted(_HOMES), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first used."""
    if name == "__version__":
        return import_module("importlib.metadata").version("lucency")
    if name not in _HOMES:
        raise AttributeError(
            f"lucency has no {name!r}; expected one of {', '.join(sorted(_HOMES))}"
        )
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
