"""The program in an odd place: `python -m torture.odd_place WORD…`, oddities in the environment.

ODD_PLACE names them: `no-temporary-folder`, and `cores-N`, as many as the system claims to have.
"""

import os
import tempfile
from importlib import import_module


def _without_temporary_folder() -> None:
    tempfile._candidate_tempdir_list = lambda: ["/absent/tmp"]


def _with_cores(number: int) -> None:
    import_module("torch")  # whose threads stay as many: with others the last digits differ
    os.environ.pop("OMP_NUM_THREADS", None)
    os.cpu_count = lambda: number
    os.sched_getaffinity = lambda _: set(range(number))


def make_odd(oddities: str) -> None:
    """Let this process find what the names say."""
    for name in filter(None, oddities.split(",")):
        if name == "no-temporary-folder":
            _without_temporary_folder()
        else:
            _with_cores(int(name.removeprefix("cores-")))


if __name__ == "__main__":
    make_odd(os.environ.get("ODD_PLACE", ""))
    from lucency.cli.app import main

    main()
