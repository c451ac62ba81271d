"""How far films lie from training films: the mean distance of features to the nearest of these.

Test films of the network's own source are the reference: a ratio of 1 is as near as they lie. It
compares pictures as a network sees them, not diagnoses. The nearest training film as a sign of
films that are unlike training: Sun, Ming, Zhu and Li, Out-of-Distribution Detection with Deep
Nearest Neighbors, ICML (2022).

Letters in shapes: n films, m training films, d feature dimensions, r resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.random import default_rng

from lucency.core.neighbours import nearest_films
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import resample_patients
from lucency.evaluation.intervals import FEWEST, NORMAL
from lucency.evaluation.metrics import mean_over_films

MOST_TRAINING, MOST_FILMS = 20_000, 5_000  # films that are compared, of many a sample


class FeatureDistance(NamedTuple):
    """Mean distances to the nearest training film, the ratio external / internal, its interval."""

    network: str
    internal: float
    external: float
    ratio: float
    low: float
    high: float
    training_films: int
    internal_films: int
    external_films: int


def distance_from_training(
    training: Float32[np.ndarray, "m d"],
    internal: Predictions,
    external: Predictions,
    *,
    resamples: int,
    seed: int,
) -> FeatureDistance:
    """Return how far two sets of films are from training films, by the network's features.

    Distances are Euclidean; of more films than MOST_TRAINING and MOST_FILMS random ones are taken.
    The 95 % interval of the ratio is by the bootstrap's error of the logarithms, patients of each
    set resampled; NaN with fewer than FEWEST patients. Raises ValueError where features are absent.
    """
    sides = [_sampled(one, MOST_FILMS, seed=seed) for one in (internal, external)]
    rows = default_rng(seed).permutation(len(training))[:MOST_TRAINING]
    known = np.asarray(training)[np.sort(rows)]
    found = []
    for place, one in enumerate(sides):
        distance = _nearest(known, one.feature)
        weights = resample_patients(one.patient, resamples=resamples, seed=seed + place)
        several = mean_over_films(distance, weights=weights)
        people = len(weights.times)
        known_error = people >= FEWEST and bool((several > 0).all())
        error = float(np.std(np.log(several), ddof=1)) if known_error else np.nan
        found.append((float(distance.mean()), error))
    (near, error), (far, other) = found
    ratio = far / near if near > 0 and far > 0 else np.nan
    reach = np.exp(NORMAL * np.hypot(error, other))
    counts = (len(known), *(len(one) for one in sides))
    return FeatureDistance(
        internal.network, near, far, ratio, ratio / reach, ratio * reach, *counts
    )


def describe_distance(found: FeatureDistance) -> str:
    """Return in a sentence how far the external films are from training films."""
    given = found.low < found.high
    reach = f"95 % interval {found.low:.2f} to {found.high:.2f}" if given else "no interval"
    first = (
        f"The nearest training film is {found.ratio:.2f} times as far as for the own test films "
        f"({reach}), by the features of {found.network}"
    )
    if not given:
        return f"{first}."
    alike = "as near to training films as" if found.low <= 1 <= found.high else ""
    alike = alike or f"{'further' if found.low > 1 else 'no further'} from training films than"
    return f"{first}: to the network these films are {alike} its own."


def _sampled(films: Predictions, most: int, *, seed: int) -> Predictions:
    rows = default_rng(seed).permutation(len(films))[:most]
    return films.take(np.sort(rows).astype(np.int64))


def _nearest(
    known: Float32[np.ndarray, "m d"], feature: Float32[np.ndarray, "n d"]
) -> Float64[np.ndarray, " n"]:
    """Return each film's distance to the nearest of the known ones."""
    whole = np.concatenate([known, feature])
    among: Int64[np.ndarray, " m"] = np.arange(len(known))
    query = len(known) + np.arange(len(feature))
    near = nearest_films(whole, query=query, among=among, count=1)[:, 0]
    return np.linalg.norm(feature.astype(np.float64) - known[near], axis=1)
