"""Write requirements.lock: every version of constraints.txt with the hashes of its files on PyPI.

Usage: python dev/lock.py
`make env` installs by it on Linux with x86-64, so that a file that was exchanged is refused. Hashes
are those of sources and of the wheels that may be installed there, for every Python.
"""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INDEX = "https://pypi.org/simple/{}/"
FORM = "application/vnd.pypi.simple.v1+json"
SUFFIXES = (".whl", ".tar.gz", ".zip")
HEAD = "# Written by dev/lock.py from constraints.txt.\n"


def main() -> None:
    """Fetch the hashes of all packages and write the file; ends with what has none."""
    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split()]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda pin: hashes_of(*pin), pins))
    lost = [
        f"{name}=={version}" for (name, version), one in zip(pins, found, strict=True) if not one
    ]
    if lost:
        raise SystemExit(f"PyPI has no files of {', '.join(lost)}")
    lines = [
        " \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{one}" for one in several)])
        for (name, version), several in zip(pins, found, strict=True)
    ]
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(lines) + "\n")


def hashes_of(name: str, version: str) -> list[str]:
    """Return the SHA-256 of each file of a release that may be installed, in order."""
    request = urllib.request.Request(INDEX.format(plain(name)), headers={"Accept": FORM})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    return sorted(
        one["hashes"]["sha256"] for one in files if of_version(one["filename"], name, version)
    )


def of_version(file: str, name: str, version: str) -> bool:
    """Say whether a file's name is that of a source of this release, or a wheel for Linux.

    >>> of_version("six-1.17.0-py2.py3-none-any.whl", "six", "1.17.0")
    True
    >>> of_version("six-1.17.0.post1.tar.gz", "six", "1.17.0")
    False
    >>> of_version("numpy-2.4.0-cp311-cp311-win_amd64.whl", "numpy", "2.4.0")
    False
    """
    suffix = next((one for one in SUFFIXES if file.endswith(one)), "")
    stem, start = file.removesuffix(suffix), f"{plain(name)}-{version}"
    stem = f"{plain(stem[: len(name)])}{stem[len(name) :]}"
    rest = stem.removeprefix(start)
    if suffix != ".whl":
        return bool(suffix) and rest == "" and stem == start
    return rest.startswith("-") and rest.endswith(("-any", "x86_64")) and "macosx" not in rest


def plain(name: str) -> str:
    """Return a package's name as the index has it."""
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    main()
