"""Hold a finished demo to its promise: `python tests/demo_holds.py DIR`."""

import sys
from pathlib import Path

from lucency.evaluation.summary import load_evaluation

BEST, WELL_ABOVE_CHANCE = 0.8, 0.6


def main() -> None:
    folder = Path(sys.argv[1])
    ranking = load_evaluation(folder / "evaluation").ranking.set_index("network")["value"]
    page = folder / "report" / "report.html"
    assert len(ranking) == 4, f"{len(ranking)} networks were evaluated; expected 4"
    assert ranking.max() >= BEST, f"best macro AUC {ranking.max():.3f}; expected {BEST}"
    densenet = ranking["densenet121"]
    assert densenet >= WELL_ABOVE_CHANCE, f"densenet121: {densenet:.3f}; trivial is .5"
    assert page.stat().st_size > 100_000, f"{page} is too small to hold the figures"
    coarse = "tells no place from another"
    assert coarse not in page.read_text(encoding="utf-8"), "heat maps of one cell are not drawn"
    sys.stdout.write(f"demo holds: best {ranking.max():.3f}, densenet121 {densenet:.3f}\n")


if __name__ == "__main__":
    main()
