"""The axes on which a classical learner sees films: fitted to some films, applied to others.

Letters in shapes: n films, d feature dimensions, c axes, t films that are fitted to, m films that
are left out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64
from sklearn.decomposition import PCA
from sklearn.feature_selection import f_classif
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

COMPONENTS = 128
SELECTED = 32
Reduction = Literal["components", "selection"]


class Space(NamedTuple):
    """Where the films that are fitted to, and those left out, stand on the same axes."""

    fitted: Int64[np.ndarray, " t"]
    left: Int64[np.ndarray, " m"]
    known: Float64[np.ndarray, "t c"]
    asked: Float64[np.ndarray, "m c"]


class Fitting(NamedTuple):
    """How learners are fitted, whichever they are, and who is told how far that is.

    Classes are brought to the same weight as `oversampling`, one of learners.OVERSAMPLING, says, in
    the films that are fitted to and nowhere else; `reduction`, one of REDUCTIONS, makes the axes.
    """

    oversampling: str = "none"
    reduction: Reduction = "components"
    progress: Callable[[int, int], None] = lambda *_: None


def components(
    feature: Float[np.ndarray, "n d"],
    *,
    fitted: Int64[np.ndarray, " t"],
    left: Int64[np.ndarray, " m"],
    seed: int,
) -> Space:
    """Return the principal components of standardised features, on the axes of the fitted films.

    At most COMPONENTS of them, scaled together to a mean variance of 1 among the fitted films.
    """
    space = standardised(feature, fitted=fitted, left=left, seed=seed)
    axes = PCA(min(COMPONENTS, *space.known.shape), random_state=seed)
    known = axes.fit_transform(space.known)
    asked = axes.transform(space.asked)
    size = known.std()
    return space._replace(known=known / size, asked=asked / size)


def standardised(
    feature: Float[np.ndarray, "n d"],
    *,
    fitted: Int64[np.ndarray, " t"],
    left: Int64[np.ndarray, " m"],
    seed: int,
) -> Space:
    """Return features of mean 0 and variance 1 among the fitted films.

    What is NaN takes the fitted films' median, and 0 where they have none.
    """
    del seed
    filled = SimpleImputer(strategy="median", keep_empty_features=True)
    scaler = StandardScaler()
    known = scaler.fit_transform(filled.fit_transform(feature[fitted].astype(np.float64)))
    asked = np.asarray(scaler.transform(filled.transform(feature[left].astype(np.float64))))
    return Space(fitted=fitted, left=left, known=known, asked=asked)


def every(known: Float64[np.ndarray, "t c"], truth: Int64[np.ndarray, " t"]) -> slice:
    """Return all axes, whatever the finding."""
    del known, truth
    return slice(None)


def selected(
    known: Float64[np.ndarray, "t c"], truth: Int64[np.ndarray, " t"]
) -> Int64[np.ndarray, " s"]:
    """Return the SELECTED axes that tell a finding's classes apart best, by the F of an ANOVA.

    An axis on which all films are alike tells nothing and comes last.
    """
    spread = np.flatnonzero(known.std(axis=0) > 0)
    f, _ = f_classif(known[:, spread], truth)
    order = np.argsort(-np.nan_to_num(f, posinf=np.finfo(float).max), kind="stable")
    return np.sort(spread[order[:SELECTED]])


REDUCTIONS = {"components": (components, every), "selection": (standardised, selected)}
