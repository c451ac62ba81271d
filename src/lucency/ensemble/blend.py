"""Fitted ensembles: a weighted mean of members, or a regression on their logits; numpy alone.

Letters in shapes: m members, n films (n2, those of validation), k findings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float64
from scipy.special import expit, logit

CERTAIN = 1e-9  # how near to 0 and 1 a blended probability is kept, so that its logit is finite
Member = Float64[np.ndarray, "m n k"]
Known = Float64[np.ndarray, "m2 n2 k2"]  # those of validation films, sorted, or nothing
Weight = Float64[np.ndarray, "m k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blend:
    """The weights of an ensemble: a weighted mean of its members' values in a space.

    Values are probabilities in the space `probability`, logits in `logit`, and in `rank` the share
    of validation films that score lower, which needs those films' recalibrated logits, `known`,
    sorted; it is empty in other spaces.
    """

    method: str
    space: str
    members: tuple[str, ...]
    weight: Weight
    known: Known = field(default_factory=partial(np.empty, (0, 0, 0)))

    def __post_init__(self) -> None:
        if (self.weight < 0).any() or not np.allclose(self.weight.sum(axis=0), 1):
            raise ValueError(f"{self.method}: weights must not be negative and must add up to 1")

    def logit(self, value: Member) -> Float64[np.ndarray, "n k"]:
        """Return the logits of films by their members' recalibrated logits."""
        shown = scaled(value, self.known, space=self.space)
        mean = np.einsum("mnk,mk->nk", shown, self.weight)
        return mean if self.space == "logit" else logit(np.clip(mean, CERTAIN, 1 - CERTAIN))


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """A logistic regression a finding on the members' logits, standardised.

    A finding that was not fitted has coefficients of 0.
    """

    members: tuple[str, ...]
    middle: Weight
    scale: Weight
    coefficient: Weight
    intercept: Float64[np.ndarray, " k"]

    def logit(self, value: Member) -> Float64[np.ndarray, "n k"]:
        """Return the logits of films by their members' recalibrated logits."""
        standard = (value - self.middle[:, None]) / self.scale[:, None]
        return np.einsum("mnk,mk->nk", standard, self.coefficient) + self.intercept


def scaled(value: Member, known: Known, *, space: str) -> Member:
    """Return members' recalibrated logits in a space; `known` gives the scale of ranks."""
    if space == "logit":
        return value
    if space == "probability":
        return expit(value)
    share = np.empty(value.shape)
    for m, k in np.ndindex(value.shape[0], value.shape[2]):
        below, upto = (
            np.searchsorted(known[m, :, k], value[m, :, k], side=side) for side in ("left", "right")
        )
        share[m, :, k] = (below + upto) / (2 * known.shape[1])  # ties are counted half
    return share
