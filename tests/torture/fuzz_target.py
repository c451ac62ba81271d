"""One parser under atheris, in a process of its own: `python -m torture.fuzz_target NAME SECONDS`.

Inputs go on past what is wrong; at the end the counts come as a line of JSON.
"""

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["lucency.data", "lucency.config", "pydicom", "tomllib"]):
    from lucency.config.protocol import read_protocol
    from lucency.data.csv_tables import read_csv
    from lucency.data.dicom import decode_dicom
    from lucency.data.images import decode_film

from torture.parser_tries import WRONG, outcome

LIMITS = ("-timeout=20", "-rss_limit_mb=1536", "-max_len=32768", "-detect_leaks=0")
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "decode_film": decode_film,
    "decode_dicom": decode_dicom,
}
READERS: dict[str, Callable[[Path], Any]] = {"read_csv": read_csv, "read_protocol": read_protocol}


def main() -> None:
    name, seconds, seeds, findings = sys.argv[1:]
    with TemporaryDirectory() as scratch:
        file, found = Path(scratch) / "file", Counter[str]()

        def read(content: bytes) -> None:
            file.write_bytes(content)
            READERS[name](file)

        act, end = DECODERS.get(name, read), time.monotonic() + float(seconds)

        def attempt(content: bytes) -> None:
            kind = outcome(lambda: act(content))
            if kind.startswith(WRONG) and kind not in found:
                named = hashlib.sha256(content).hexdigest()[:16]
                (Path(findings) / f"{name}-{named}").write_bytes(content)
            found[kind] += 1
            if time.monotonic() > end:
                print(json.dumps(found), flush=True)
                os._exit(0)

        atheris.Setup(
            [sys.argv[0], *LIMITS, f"-artifact_prefix={findings}/{name}-", seeds], attempt
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
