"""Imported before Lucency: libraries keep their own bytecode while its types are checked.

jaxtyping names the bytecode of a checked module apart, and that of all that is imported while the
module is. Where Python writes no bytecode, each process would compile torch, timm and pandas anew,
which takes 11 s of CPU.
"""

import importlib
from importlib.machinery import PathFinder
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

HOOK, NAMED = importlib.import_module("jaxtyping._import_hook"), "_optimized_cache_from_source"
APART = getattr(HOOK, NAMED)


def bytecode_name(kind: str, path: str, *how: Any) -> str:
    """Return where a file's bytecode is: apart for Lucency's modules, as ever for others."""
    own = CHECKED in Path(path).parents
    return APART(kind, path, *how) if own else cache_from_source(path, *how)


def package_folder() -> Path:
    """Return Lucency's folder; nothing is imported."""
    found = PathFinder.find_spec("lucency")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


CHECKED = package_folder()
setattr(HOOK, NAMED, bytecode_name)
