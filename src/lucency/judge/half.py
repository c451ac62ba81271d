"""Decisions at .5 on what the network itself gives, all findings pooled: as Keras counts.

`binary_accuracy`, `Precision`, `Recall` and `F1Score(average="micro", threshold=0.5)` of Keras take
the sigmoid as it comes, call positive what is above .5, and pool every film x finding; its `AUC`
pools too, over 200 thresholds, and is the area over all here. Letters in shapes: n films, k
findings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from lucency.judge.decided import DECIDED, count_cells
from lucency.judge.evaluate import MICRO
from lucency.judge.intervals import all_and_resampled, interval
from lucency.judge.metrics import METRICS
from lucency.predictions import Predictions

HALF_METRICS = ("auc", "accuracy", "precision", "recall", "f1", "bce")
HALF_COLUMNS = ("network", "finding", "metric", "value", "low", "high", "films", "note")


def at_half(predictions: Predictions, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return HALF_METRICS pooled over findings, before recalibration, with 95 % intervals.

    `bce` is Keras's loss. Intervals resample patients. A value that cannot be computed is NaN, and
    the note says so; raises ValueError for no films.
    """
    if not len(predictions):
        raise ValueError(f"{predictions.network}: no films; expected those of one part")
    plain = predictions.uncalibrated()
    findings = len(plain.findings)
    drawn = all_and_resampled(plain.patient, resamples=resamples, seed=seed)
    pooled = replace(drawn, owner=np.repeat(drawn.owner, findings))
    label, logit = plain.label.ravel(), plain.logit.ravel()
    cells = count_cells(label, logit > 0, weights=pooled)
    rows = []
    for name in HALF_METRICS:
        if name in DECIDED:
            value = DECIDED[name](cells)
        else:
            value = METRICS[name].function(label, logit, weights=pooled)
        low, high = interval(value[1:])
        note = "not computable from these labels and decisions" if np.isnan(value[0]) else ""
        rows.append((plain.network, MICRO, name, value[0], low, high, len(plain), note))
    return pd.DataFrame(rows, columns=list(HALF_COLUMNS))
