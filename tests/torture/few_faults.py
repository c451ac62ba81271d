"""A few faults, kills and shortages of two fast commands: prints what came, one a line."""

import sys
from pathlib import Path

from torture import try_faults, try_kills, try_places, try_together
from torture.fault_layer import KINDS, UNHINDERED, start_again_with_layer
from torture.tiny_commands import Bench

NAMES = ("download", "draw")


def main(folder: Path) -> None:
    """Try them in a folder."""
    bench = Bench(folder, *NAMES)
    found = []
    for name in NAMES:
        found += [one for bit in KINDS.values() for one in try_faults.outcomes(bench, name, bit, 1)]
        found += try_kills.at_moments(bench, name, 1) + try_kills.at_calls(bench, name, 2)
    found += try_places.with_less_memory(bench, "draw", 2)
    found.append(try_together.together(bench, ("download", "download"), UNHINDERED))
    bench.close()
    print("\n".join(found))


if __name__ == "__main__":
    start_again_with_layer()
    main(Path(sys.argv[1]) / "bench")
