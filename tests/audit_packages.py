"""Known vulnerabilities of the packages of constraints.txt, as PyPI's metadata list them.

`make audit-packages` prints one line a package that has some, and ends with status 1; where PyPI's
JSON interface gives no metadata of a package it prints the reason and ends with status 3. Libraries
inside wheels are not among them.
"""

import json
import sys
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

INDEX = "https://pypi.org/pypi"
LOCKED = Path(__file__).resolve().parents[1] / "constraints.txt"
PATIENCE = 15.0
FOUND, WRONG, UNREACHABLE = 1, 2, 3


class Vulnerability(NamedTuple):
    """A known one of a package: its name there, and the releases that mend it."""

    package: str
    name: str
    mended: str


def locked(text: str) -> dict[str, str]:
    """Return the versions of constraints by package.

    >>> locked("pillow==13.0.0\\n# a comment\\n")
    {'pillow': '13.0.0'}
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    return {one.name: str(one.specifier).removeprefix("==") for one in found}


def known(package: str, version: str, *, index: str = INDEX) -> list[Vulnerability]:
    """Return the vulnerabilities that an index lists of a release; OSError where it gives none."""
    with urllib.request.urlopen(f"{index}/{package}/{version}/json", timeout=PATIENCE) as answer:
        listed = json.load(answer).get("vulnerabilities", [])
    return [
        Vulnerability(f"{package} {version}", one["id"], ", ".join(one.get("fixed_in", ())))
        for one in listed
        if not one.get("withdrawn")
    ]


def main(words: Iterable[str], *, index: str = INDEX) -> int:
    """Print what is known of all packages, or of those named; return the status."""
    versions = locked(LOCKED.read_text())
    names = [*words] or [*versions]
    if unknown := [name for name in names if name not in versions]:
        sys.stdout.write(f"{', '.join(unknown)}: not in {LOCKED.name}; expected names from there\n")
        return WRONG
    found, read = list[Vulnerability](), 0
    for name in names:
        try:
            found += known(name, versions[name], index=index)
            read += 1
        except (OSError, HTTPException, ValueError) as error:
            sys.stdout.write(f"{name} {versions[name]}: no metadata ({str(error).strip()})\n")
            if not read:
                sys.stdout.write(f"{index} cannot be reached: not done\n")
                return UNREACHABLE
    for one in found:
        sys.stdout.write(f"{one.package}: {one.name}, mended in {one.mended or 'none'}\n")
    sys.stdout.write(f"{len(found)} known vulnerabilities of {read} of {len(names)} packages\n")
    if found:
        return FOUND
    return 0 if read == len(names) else UNREACHABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
