"""Parsers of films, DICOM, CSV and protocols under a fuzzer that follows their code (atheris).

`--times` are minutes a parser, each in a process, so many at once as there are cores. Held is an
input that was read or refused by a ValueError of the program in at most three lines, within 20 s
and 1.5 GiB of the process. What is wrong is kept in ~/.cache/lucency-torture/findings.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from torture import hostile_dicom, hostile_pictures
from torture.parser_tries import WRONG
from torture.public_corpora import CACHE, run_in
from torture.tally import Tally, script

TIMES = 30  # minutes of each parser
ATHERIS = "3.0.0"
PATIENCE = 120  # seconds to start and to end


def tries(times: int) -> Iterator[Tally]:
    findings = CACHE / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    try:
        library = installed(CACHE / f"atheris-{ATHERIS}")
    except (OSError, ValueError) as error:
        print(f"atheris cannot be had, nothing is fuzzed: {error}")
        return

    def one(name: str, contents: list[bytes]) -> Tally:
        with TemporaryDirectory() as scratch:
            for number, content in enumerate(contents):
                (Path(scratch) / f"{number}").write_bytes(content)
            return fuzzed(name, library, Path(scratch), findings, seconds=60 * times)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(one, *zip(*targets().items(), strict=True))


def installed(folder: Path) -> Path:
    """Return a folder of atheris, which is installed there at most once."""
    if not folder.is_dir():
        with TemporaryDirectory(dir=folder.parent) as scratch:
            place = Path(scratch) / "new"
            words = ("install", "-q", "--no-deps", "--target", str(place), f"atheris=={ATHERIS}")
            run_in(Path(scratch), sys.executable, "-m", "pip", *words)
            place.rename(folder)
    return folder


def targets() -> dict[str, list[bytes]]:
    """Return the parsers by name, with what they are to begin with."""
    protocols = Path(__file__).parents[2] / "protocols"
    table = "film,patient,Left,Right\na/1.png,p1,1,0\na/2.png,p2,,1\n"
    tables = [table.encode(), table.replace(",", ";").encode("utf-16"), b'a,b\n"x,""y",2\n']
    return {
        "decode_film": list(hostile_pictures.whole().values()),
        "decode_dicom": list(hostile_dicom.films()),
        "read_csv": tables,
        "read_protocol": [file.read_bytes() for file in sorted(protocols.glob("*.toml"))],
    }


def fuzzed(name: str, library: Path, seeds: Path, findings: Path, *, seconds: int) -> Tally:
    """Run one parser's process to its end; an end of its own counts as one try that was wrong."""
    package = Path(sys.modules["lucency"].__path__[0]).parent
    paths = os.pathsep.join(map(str, (package, Path(__file__).parents[1], library)))
    words = [
        sys.executable,
        "-m",
        "torture.fuzz_target",
        name,
        str(seconds),
        str(seeds),
        str(findings),
    ]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
        errors="replace", timeout=seconds + PATIENCE, check=False,
    )  # fmt: skip
    lines = [one for one in done.stdout.splitlines() if one.startswith("{")]
    found = json.loads(lines[-1]) if lines else {}
    if done.returncode or not lines:
        print(done.stderr[-2000:])
        found[f"{WRONG} status {done.returncode}"] = 1
    tried = sum(found.values())
    held = sum(count for kind, count in found.items() if not kind.startswith(WRONG))
    text = ", ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
    return Tally(f"{name}, {seconds} s", tried, held, text)


if __name__ == "__main__":
    script("fuzz", tries, times=TIMES, doc=__doc__ or "")
