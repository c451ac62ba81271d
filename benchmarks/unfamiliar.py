"""What share of new patients' films is refused as not like the training films?

Usage: python benchmarks/unfamiliar.py RUN [REPEATS] (default 200), RUN being a finished run whose
protocol has `[unfamiliar]`, such as that of protocols/abstain.toml. Its validation and test
patients are dealt anew REPEATS times, half to calibrate and half to be refused: both are of one
kind, so that the promise must be kept on average. Beside it films in place of patients as units.
Shares are means over patients, then over repeats, with the standard error over repeats.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from lucency.evaluation.conformal import ROUNDING
from lucency.evaluation.unfamiliarity import (
    KEPT,
    SCORES,
    calibrate,
    load_unfamiliarity,
    quantile_of,
)
from lucency.pipeline import stages
from lucency.pipeline.run import open_run_folder

REPEATS = 200
REFUSED = (0.05, 0.1, 0.2)


def main() -> None:
    """Measure and print a table."""
    run = open_run_folder(Path(sys.argv[1]))
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else REPEATS
    rows = []
    for name, place in stages.classifiers(run).items():
        stored = load_unfamiliarity(place / "unfamiliar")
        films = stages.trained(run).predictions_of(name)
        for score in KEPT:
            distance = SCORES[score](films.logit, films.feature, stored.known)
            for refused in REFUSED:
                about = {"network": name, "score": score, "promised": refused}
                for units, unit in (("patients", films.patient), ("films", np.arange(len(films)))):
                    shares = [
                        share_refused(distance, films.patient, unit, refused=refused, seed=seed)
                        for seed in range(repeats)
                    ]
                    error = float(np.std(shares, ddof=1) / np.sqrt(repeats))
                    found = {"units": units, "refused": np.mean(shares), "standard_error": error}
                    rows.append({**about, **found})
    print(pd.DataFrame(rows).round(4).to_string(index=False))


def share_refused(
    distance: Float64[np.ndarray, " n"],
    patient: Int64[np.ndarray, " n"],
    unit: Int64[np.ndarray, " n"],
    *,
    refused: float,
    seed: int,
) -> float:
    """Return what one half of the patients is refused where the other half calibrates."""
    people = np.random.default_rng(seed).permutation(np.unique(patient))
    known = np.isin(patient, people[: len(people) // 2])
    at, share = calibrate(distance[known], patient=unit[known], refused=refused)
    out = quantile_of(distance[~known], at, share) >= 1 - refused - ROUNDING
    owner = np.unique(patient[~known], return_inverse=True)[1]
    return float((np.bincount(owner, weights=out) / np.bincount(owner)).mean())


if __name__ == "__main__":
    main()
