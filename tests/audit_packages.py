"""Known vulnerabilities of the packages of constraints.txt, as PyPI's metadata list them.

`make audit-packages` prints one line a package that has some, and ends with status 1; where PyPI's
JSON interface cannot be reached it prints the reason and ends with status 3.
"""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

INDEX = "https://pypi.org/pypi"
LOCKED = Path(__file__).resolve().parents[1] / "constraints.txt"
PATIENCE = 15.0
FOUND, UNREACHABLE = 1, 3


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


def main(words: Iterable[str]) -> int:
    """Print what is known of all packages, or of those named; return the status."""
    versions = locked(LOCKED.read_text())
    names = [*words] or [*versions]
    found = list[Vulnerability]()
    for number, name in enumerate(names):
        try:
            found += known(name, versions[name])
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            if number == 0:
                sys.stdout.write(f"{INDEX} gives no metadata of {name} here ({error}): not done\n")
                return UNREACHABLE
            sys.stdout.write(f"{name} {versions[name]}: no metadata ({error})\n")
    for one in found:
        sys.stdout.write(f"{one.package}: {one.name}, mended in {one.mended or 'none'}\n")
    sys.stdout.write(f"{len(found)} known vulnerabilities of {len(names)} packages\n")
    return FOUND if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
