"""How likely each label is wrong, comparable between findings: which to review first of all.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64

from lucency.audit.suspects import DIRECTIONS, joint_counts
from lucency.judge.decided import ratio
from lucency.predictions import Predictions

SHARE = 0.5  # of the noise that joint counts say: an unsure network makes them say too much
LEAST = 1e-4  # of a probability
FIRST = ("place", "finding", "direction", "image", "patient", "chance")
FILMS = ("place", "image", "patient", "chance", "labels")


def chance_wrong(
    label: Float[np.ndarray, "n k"], probability: Float[np.ndarray, "n k"]
) -> Float64[np.ndarray, "n k"]:
    """Return the probability that each label is wrong, by Bayes' rule; NaN where none is stated.

    `probability` is that of the label 1, recalibrated. A true 1 is labelled 0 with probability a, a
    true 0 is labelled 1 with b, whatever the film (noise by class: Natarajan et al., NeurIPS 2013);
    both are half of what `joint_counts` gives. So the chance of a true 1 is q = (p - b) / (1 - a -
    b), and a label of 1 is wrong with b (1 - q) / ((1 - a) q + b (1 - q)); of 0 likewise. The half
    is ours: on invented films with planted errors the whole says far too much.
    """
    joint = joint_counts(label, probability)
    missed = SHARE * np.nan_to_num(ratio(joint[:, 0, 1], joint[:, 0, 1] + joint[:, 1, 1]))
    spurious = SHARE * np.nan_to_num(ratio(joint[:, 1, 0], joint[:, 1, 0] + joint[:, 0, 0]))
    room = np.maximum(1 - missed - spurious, LEAST)
    present = ((probability - spurious) / room).clip(LEAST, 1 - LEAST)
    absent = 1 - present
    positive = spurious * absent / ((1 - missed) * present + spurious * absent)
    negative = missed * present / ((1 - spurious) * absent + missed * present)
    return np.where(np.isnan(label), np.nan, np.where(label == 1, positive, negative))


def first_suspects(said: Predictions, *, top: int) -> pd.DataFrame:
    """Return the `top` labels of all that are most likely wrong, whatever finding and direction."""
    chance = chance_wrong(said.label, said.probability)
    order = np.argsort(-np.nan_to_num(chance, nan=-1).ravel(), kind="stable")[:top]
    film, k = np.unravel_index(order, chance.shape)
    directions = {given: name for name, given in DIRECTIONS.items()}
    columns = (
        np.arange(1, len(order) + 1),
        np.array(said.findings)[k],
        [directions[int(one)] for one in np.nan_to_num(said.label[film, k])],
        said.image[film],
        said.patient[film],
        chance[film, k],
    )
    return pd.DataFrame(dict(zip(FIRST, columns, strict=True))).dropna(subset=["chance"])


def suspect_films(said: Predictions, *, top: int) -> pd.DataFrame:
    """Return the `top` films most likely to have any wrong label, labels taken as independent."""
    chance = np.nan_to_num(chance_wrong(said.label, said.probability))
    either = 1 - np.prod(1 - chance, axis=1)
    order = np.argsort(-either, kind="stable")[:top]
    named = [
        ", ".join(name for name, one in zip(said.findings, row, strict=True) if one == 1)
        for row in said.label[order]
    ]
    place = np.arange(1, len(order) + 1)
    columns = (place, said.image[order], said.patient[order], either[order], named)
    return pd.DataFrame(dict(zip(FILMS, columns, strict=True)))
