"""Hidden strata: clusters of a finding's positives in feature space, each with its own AUC.

Oakden-Rayner et al., Hidden stratification (CHIL 2020, arXiv 1909.12475): pneumothoraces with a
drain are found easily, those without, which matter, are not. Letters in shapes: m positives,
d feature dimensions, c components.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int, Int64
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import interval, once, resample_patients
from lucency.evaluation.metrics import auc

FEWEST, SMALLEST = 40, 10  # positives of a finding, and of a cluster
MOST, COMPONENTS = 4, 16
EXAMPLES, SAMPLE = 12, 2_000
DRAWS = 19  # of films of one kind: clusters must be further apart than in all, p of .05 at most
STRATA = (
    "finding", "stratum", "auc", "low", "high", "films", "patients", "silhouette", "examples",
)  # fmt: skip


def strata(predictions: Predictions, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return the clusters of each finding's positives, the one with the lowest AUC first.

    K-means on at most 16 principal components of standardised features, 2 to 4 clusters of at least
    SMALLEST films by the best silhouette (Rousseeuw 1987), which measures how far apart they are.
    K-means cuts whatever it is given, so only what is further apart than DRAWS draws of a Gaussian
    of the same spread, cut the same way, is listed (after Tibshirani, Walther and Hastie 2001). The
    AUC is of a cluster's films against all negatives, with 95 % interval over patients. Features
    make the scores, so clusters differ somewhat: view `examples`, the films nearest to the centre,
    joined by |. Findings with fewer than FEWEST positives are left out, those whose clusters are
    too small or not apart, and all without features.
    """
    rows = []
    resampled = resample_patients(predictions.patient, resamples=resamples, seed=seed)
    for k, finding in enumerate(predictions.findings):
        label, films = predictions.label[:, k], np.flatnonzero(predictions.label[:, k] == 1)
        few = len(films) < FEWEST or not predictions.feature.shape[1] or not (label == 0).any()
        if few or not np.ptp(predictions.feature[films], axis=0).any():
            continue
        cluster, distance, apart = _cluster(predictions.feature[films], seed=seed)
        if np.isnan(apart):
            continue
        mine = []
        for one in range(cluster.max() + 1):
            inside = films[cluster == one]
            only = np.where(label == 1, np.nan, label)
            only[inside] = 1
            value = auc(only, predictions.logit[:, k], weights=once(len(label)))[0]
            low, high = interval(auc(only, predictions.logit[:, k], weights=resampled))
            near = inside[np.argsort(distance[cluster == one], kind="stable")][:EXAMPLES]
            people = len(np.unique(predictions.patient[inside]))
            examples = "|".join(predictions.image[near].tolist())
            mine.append((value, low, high, len(inside), people, apart, examples))
        rows += [(finding, place, *row) for place, row in enumerate(sorted(mine), start=1)]
    return pd.DataFrame(rows, columns=list(STRATA))


def _cluster(
    feature: Float32[np.ndarray, "m d"], *, seed: int
) -> tuple[Int64[np.ndarray, " m"], Float[np.ndarray, " m"], float]:
    """Return each film's cluster, its distance from the cluster's centre, and the silhouette.

    The silhouette is NaN where every number of clusters leaves a small one, and where one kind of
    film would be cut into clusters as far apart.
    """
    count = min(COMPONENTS, *feature.shape)
    reduced = PCA(count, svd_solver="randomized", random_state=seed).fit_transform(
        StandardScaler().fit_transform(feature)
    )
    best, apart = _parted(reduced, seed=seed)
    generator, shape = np.random.default_rng(seed), (min(SAMPLE, len(reduced)), count)
    spread = reduced.std(axis=0)
    alike = [_parted(spread * generator.normal(size=shape), seed=seed)[1] for _ in range(DRAWS)]
    cluster = np.asarray(best.labels_, dtype=np.int64)
    surely = apart > np.nanmax([-1.0, *alike])
    return cluster, best.transform(reduced).min(axis=1), apart if surely else np.nan


def _parted(reduced: Float[np.ndarray, "m c"], *, seed: int) -> tuple[KMeans, float]:
    """Return the clusters of the best silhouette, and that."""
    found = [KMeans(k, n_init="auto", random_state=seed).fit(reduced) for k in range(2, MOST + 1)]
    rows = np.random.default_rng(seed).permutation(len(reduced))[:SAMPLE]
    score = [_apart(reduced[rows], np.asarray(one.labels_)[rows]) for one in found]
    place = int(np.argmax(np.nan_to_num(score, nan=-1)))
    return found[place], float(score[place])


def _apart(reduced: Float[np.ndarray, "m c"], label: Int[np.ndarray, " m"]) -> float:
    """Return the silhouette; NaN where a cluster is small, or there is but one."""
    count = np.unique(label, return_counts=True)[1]
    if len(count) < 2 or count.min() < SMALLEST:
        return np.nan
    return float(silhouette_score(reduced, label))
