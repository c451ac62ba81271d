"""How unlike several networks are: what they decide differently, and whether they err together.

Letters in shapes: m networks, k findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.core.predictions import Predictions


def diversity(
    several: Sequence[Predictions], *, threshold: Float64[np.ndarray, "m k"]
) -> pd.DataFrame:
    """Return for each pair of networks how far they differ: network, other, disagreement, error.

    `disagreement` is the share of stated cells that the two decide differently at their thresholds
    (a row a network), `error` the correlation of their errors, probability minus label, over these
    cells. Kuncheva and Whitaker, Machine Learning 51 (2003), 181-207.
    """
    stated = ~np.isnan(several[0].label)
    called = [one.probability >= row for one, row in zip(several, threshold, strict=True)]
    wrong = [(one.probability - one.label)[stated] for one in several]
    rows = []
    for one, other in combinations(range(len(several)), 2):
        apart = float((called[one] != called[other])[stated].mean())
        alike = float(np.corrcoef(wrong[one], wrong[other])[0, 1])
        rows.append((several[one].network, several[other].network, apart, alike))
    return pd.DataFrame(rows, columns=["network", "other", "disagreement", "error"])
