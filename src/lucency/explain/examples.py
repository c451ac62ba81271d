"""Single films that show what a network gets right and wrong.

Letters in shapes: n films.
"""

from __future__ import annotations

import pandas as pd

from lucency.core.manifest import nearest
from lucency.core.predictions import Predictions

KINDS = ("true positive", "false positive", "miss")


def choose_cases(
    predictions: Predictions, *, finding: str, threshold: float, films: int
) -> pd.DataFrame:
    """Return the surest films of each kind: columns kind, image, probability.

    True and false positives (probability >= threshold) by falling, misses by rising probability,
    at most `films` of each; equal ones by name. Raises ValueError for an unknown finding.
    """
    if finding not in predictions.findings:
        near = nearest(finding, predictions.findings)
        known = f"expected one of {', '.join(predictions.findings)}"
        raise ValueError(f"finding {finding!r} is unknown: {known}{near}")
    column = predictions.findings.index(finding)
    probability, label = predictions.probability[:, column], predictions.label[:, column]
    found = probability >= threshold
    masks = (found & (label == 1), found & (label == 0), ~found & (label == 1))
    parts = []
    for kind, mask, rising in zip(KINDS, masks, (False, False, True), strict=True):
        part = pd.DataFrame({
            "kind": kind, "image": predictions.image[mask], "probability": probability[mask],
        })  # fmt: skip
        parts.append(part.sort_values(["probability", "image"], ascending=[rising, True])[:films])
    return pd.concat(parts, ignore_index=True)
