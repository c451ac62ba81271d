"""How unlike the training films a film is: three distances, and one turned into a promise.

A distance is calibrated on validation films: a film's *unfamiliarity* is the share of validation
films that lie nearer. Where it is so high that at most a promised share of ordinary films reaches
it, the film is *not like the training films*. It says nothing about findings, and less about
whether an answer is right.

Letters in shapes: n films, m training or validation films, k findings, d feature dimensions, r
directions, q quantiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.linalg import eigh

from lucency.core.files import write_whole
from lucency.core.neighbours import nearest_films
from lucency.core.saved_files import CHECKSUM, fingerprint_content
from lucency.evaluation.conformal import ROUNDING, cumulative_share

FILE = "unfamiliarity.safetensors"
FOLDER = "unfamiliar"  # of FILE, below a network's
UNLIKE = "not like the training films"
DIRECTIONS = 256  # principal ones that are kept: 4 MB of 4,096 features
QUANTILES = 512  # of validation distances that are kept
MOST_TRAINING = 20_000  # films, of more a random sample
NEIGHBOURS = 10
ALIKE = 1e-12  # of a feature's variance to its square, below which films do not differ
Logit = Float[np.ndarray, "n k"]
Feature = Float32[np.ndarray, "n d"]
Distance = Float64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSpread:
    """Mean and covariance of training films' features: what a Mahalanobis distance needs.

    Along `direction`, unit vectors, features have so much `variance`; in all others, together,
    1 / `precision` each. A precision of 0 means that there are no others.
    """

    mean: Float32[np.ndarray, " d"]
    direction: Float32[np.ndarray, "r d"]
    variance: Float64[np.ndarray, " r"]
    precision: float


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownFilms:
    """What distances compare films with: the training films' spread, and they themselves.

    `direction` are their features scaled to length 1, of which the k-th nearest counts, k being
    `neighbours`. It may be empty: what is stored with a model holds no single film.
    """

    spread: FeatureSpread
    direction: Float32[np.ndarray, "m d"]
    neighbours: int = NEIGHBOURS


@dataclass(frozen=True, kw_only=True, eq=False)
class Unfamiliarity:
    """A distance and its calibration, as they are stored with a network.

    `score` is one of KEPT; `refused` the promised share. `share` of the validation films, patients
    counting alike, lie at `distance` or nearer; both ascend. `training`, `films` and `patients`
    count training films, and validation films and their patients.
    """

    score: str
    refused: float
    spread: FeatureSpread
    distance: Float64[np.ndarray, " q"]
    share: Float64[np.ndarray, " q"]
    training: int
    films: int
    patients: int

    def of(self, logit: Logit, feature: Feature) -> Distance:
        """Return films' unfamiliarity, 0 to 1; raises ValueError for features of another number."""
        if feature.shape[1] != len(self.spread.mean) and self.score != ENERGY:
            raise ValueError(
                f"films have {feature.shape[1]} features, expected {len(self.spread.mean)}, those "
                "of the network that the distance was fitted to: export the model anew"
            )
        return quantile_of(
            SCORES[self.score](logit, feature, self.known), self.distance, self.share
        )

    @property
    def known(self) -> KnownFilms:
        """What the stored distance compares films with."""
        return KnownFilms(spread=self.spread, direction=np.empty((0, len(self.spread.mean)), "f4"))

    def refuses(self, unfamiliarity: Distance) -> Bool[np.ndarray, " n"]:
        """Say which films are not like the training films."""
        return unfamiliarity >= 1 - self.refused - ROUNDING

    @property
    def note(self) -> str:
        """Why no film is ever refused, "" where some may be."""
        if self.share.max(initial=0.0) >= 1 - self.refused - ROUNDING:
            return ""
        return (
            f"validation has {self.patients} patients, and from {needed_patients(self.refused)} on "
            f"films can be refused with a promise of {self.refused:g}: none is"
        )


def needed_patients(refused: float) -> int:
    """Return how many validation patients a promised share needs, so that any film is refused.

    >>> needed_patients(0.05), needed_patients(0.2)
    (19, 4)
    """
    return int(np.ceil(1 / refused - 1 - ROUNDING))


def fit_unfamiliarity(
    known: KnownFilms,
    *,
    logit: Logit,
    feature: Feature,
    patient: Int64[np.ndarray, " n"],
    score: str,
    refused: float,
    training: int,
) -> Unfamiliarity:
    """Return a distance calibrated on validation films, which are no training films.

    Raises ValueError for a score that is not in KEPT: its distance needs single training films.
    """
    if score not in KEPT:
        raise ValueError(f"score {score!r} cannot be stored: expected of {', '.join(KEPT)}")
    distance, share = calibrate(
        SCORES[score](logit, feature, known), patient=patient, refused=refused
    )
    return Unfamiliarity(
        score=score,
        refused=refused,
        spread=known.spread,
        distance=distance,
        share=share,
        training=training,
        films=len(patient),
        patients=len(np.unique(patient)),
    )


def calibrate(
    distance: Distance, *, patient: Int64[np.ndarray, " n"], refused: float
) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
    """Return distances of validation films, and the share of films that lie there or nearer.

    Each of K patients weighs 1 / (K + 1), divided among his films; so does the patient who is still
    to come, who may lie anywhere. Then a random film of a new patient has `1 - refused` of all
    nearer with a chance of `refused` at most, whatever the distance. Vovk, Gammerman and Shafer,
    Algorithmic Learning in a Random World (2005), chapter 2; patients as units: Lee, Barber and
    Willett, Distribution-Free Inference with Hierarchical Data (2023). Of many distances QUANTILES
    are kept, the one from which films are refused among them; shares between them round down.
    """
    ordered, share = cumulative_share(distance, patient=patient)
    last = np.flatnonzero(np.append(np.diff(ordered) > 0, True))  # of equal ones
    at, share = ordered[last], share[last]
    if len(at) > QUANTILES:
        wanted = np.linspace(share[0], share[-1], QUANTILES - 1)
        kept = np.searchsorted(share, np.append(wanted, 1 - refused) - ROUNDING)
        kept = np.unique(np.minimum(kept, len(share) - 1))
        at, share = at[kept], share[kept]
    return at, share


def quantile_of(
    distance: Distance, at: Float64[np.ndarray, " q"], share: Float64[np.ndarray, " q"]
) -> Distance:
    """Return the share of validation films that lie nearer than each distance."""
    return np.append(0.0, share)[np.searchsorted(at, distance, side="left")]


def know_films(feature: Float32[np.ndarray, "m d"], *, neighbours: int, seed: int) -> KnownFilms:
    """Return what distances need of training films: of more than MOST_TRAINING a random sample.

    Raises ValueError where features do not differ.
    """
    rows = np.random.default_rng(seed).permutation(len(feature))[:MOST_TRAINING]
    some = np.asarray(feature)[np.sort(rows)]
    return KnownFilms(
        spread=spread_of(some), direction=unit_length(some), neighbours=min(neighbours, len(some))
    )


def spread_of(feature: Float32[np.ndarray, "m d"], *, most: int = DIRECTIONS) -> FeatureSpread:
    """Return the mean of features and their covariance, shrunk towards a multiple of the identity.

    The shrinkage is the one of least expected error: Ledoit and Wolf, Journal of Multivariate
    Analysis 88 (2004), 365-411. The `most` directions of largest variance are kept, and all others
    have their mean variance: Moghaddam and Pentland, IEEE PAMI 19 (1997), 696-710. Raises
    ValueError where all films have the same features.
    """
    films, width = feature.shape
    mean = feature.mean(axis=0, dtype=np.float64)
    centred = feature - mean
    product = (centred @ centred.T if films < width else centred.T @ centred) / films
    total, square = float(np.trace(product)), float((product**2).sum())
    if not total > ALIKE * float((mean**2).sum()):
        raise ValueError(
            f"the features of {films} training films do not differ: expected a network that tells "
            "films apart; train it for longer"
        )
    middle = total / width
    excess = square / width - middle**2
    fourth = float((np.square(centred).sum(axis=1) ** 2).mean())
    error = min((fourth - square) / (films * width), excess)
    shrinkage = error / excess if error > 0 else 0.0
    size = len(product)
    value, vector = eigh(product, subset_by_index=[max(0, size - most), size - 1])
    kept = np.flatnonzero(value > ALIKE * total)[::-1]
    direction = vector[:, kept].T
    if films < width:
        direction = direction @ centred / np.sqrt(films * value[kept])[:, np.newaxis]
    variance = (1 - shrinkage) * value[kept] + shrinkage * middle
    others = width - len(kept)
    rest = max(total - variance.sum(), ALIKE * total)
    return FeatureSpread(
        mean=mean.astype(np.float32),
        direction=direction.astype(np.float32),
        variance=variance,
        precision=others / rest if others else 0.0,
    )


def unit_length(feature: Feature) -> Feature:
    """Return features scaled to length 1; those of length 0 stay."""
    length = np.linalg.norm(feature.astype(np.float64), axis=1, keepdims=True)
    return (feature / np.where(length > 0, length, 1)).astype(np.float32)


def energy(logit: Logit, feature: Feature, known: KnownFilms) -> Distance:
    """Return minus the sum of log(1 + exp(logit)): high where no finding is likely.

    The joint energy of networks with several labels: Wang, Liu, Bocchieri and Li, Can Multi-Label
    Classification Networks Know What They Don't Know?, NeurIPS (2021). A film without findings
    counts as strange by it.
    """
    del feature, known
    return -np.logaddexp(0, logit.astype(np.float64)).sum(axis=1)


def mahalanobis(logit: Logit, feature: Feature, known: KnownFilms) -> Distance:
    """Return the distance to the mean of training films, in their standard deviations.

    Lee, Lee, Lee and Shin, NeurIPS (2018), with one mean for all films, since a film may have
    several findings: Kamoi and Kobayashi, Why is the Mahalanobis Distance Effective for Anomaly
    Detection? (2020).
    """
    del logit
    spread = known.spread
    centred = feature.astype(np.float64) - spread.mean
    along = centred @ spread.direction.T.astype(np.float64)
    beside = np.square(centred).sum(axis=1) - np.square(along).sum(axis=1)
    square = (np.square(along) / spread.variance).sum(axis=1)
    return np.sqrt(square + spread.precision * np.maximum(beside, 0))


def neighbour(logit: Logit, feature: Feature, known: KnownFilms) -> Distance:
    """Return the distance to the k-th nearest training film, features scaled to length 1.

    Sun, Ming, Zhu and Li, Out-of-Distribution Detection with Deep Nearest Neighbors, ICML (2022).
    """
    del logit
    among, direction = len(known.direction), unit_length(feature)
    near = nearest_films(
        np.concatenate([known.direction, direction]),
        query=among + np.arange(len(direction)),
        among=np.arange(among),
        count=known.neighbours,
    )[:, -1]
    apart = direction.astype(np.float64) - known.direction[near]
    return np.linalg.norm(apart, axis=1)


def described_distance(found: Unfamiliarity) -> dict[str, str | float | int]:
    """Return what a distance is, besides its arrays, for programs."""
    return {"file": f"{FOLDER}/{FILE}", **{name: getattr(found, name) for name in ABOUT}}


def save_unfamiliarity(found: Unfamiliarity, folder: Path) -> None:
    """Write `found` into a folder: one file, without pickle and without a single film."""
    from safetensors.numpy import save

    spread = found.spread
    arrays = {name: np.asarray(getattr(spread, name), order="C") for name in SPREAD}
    arrays |= {name: np.asarray(getattr(found, name), order="C") for name in CALIBRATION}
    about = {name: str(getattr(found, name)) for name in ABOUT}
    about[CHECKSUM] = _checksum(arrays)
    write_whole(folder / FILE, save(arrays, metadata=about))


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return 16 hexadecimal digits of the arrays, in their order."""
    return fingerprint_content(b"".join(one.tobytes() for one in arrays.values()))


def load_unfamiliarity(folder: Path) -> Unfamiliarity:
    """Read what `save_unfamiliarity` wrote; raises ValueError where it is damaged.

    Files of before there were checksums are taken as they are.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / FILE, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in (*SPREAD, *CALIBRATION)}
        known = {name: kind(about[name]) for name, kind in ABOUT.items()}
        if about.get(CHECKSUM, "") not in ("", _checksum(arrays)):
            raise ValueError("its arrays are not those that were written")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"{folder / FILE} cannot be read ({error}): expected what a run or an export wrote; "
            "delete its folder, and go on with lucency run or export anew"
        ) from error
    spread: dict[str, Any] = {name: arrays[name] for name in SPREAD}
    spread["precision"] = float(spread["precision"])
    calibration = {name: arrays[name] for name in CALIBRATION}
    return Unfamiliarity(spread=FeatureSpread(**spread), **calibration, **known)


ENERGY, MAHALANOBIS, NEIGHBOUR = "energy", "mahalanobis", "neighbour"
SCORES: dict[str, Callable[[Logit, Feature, KnownFilms], Distance]] = {
    ENERGY: energy,
    MAHALANOBIS: mahalanobis,
    NEIGHBOUR: neighbour,
}
KEPT = (MAHALANOBIS, ENERGY)  # scores that need no single training film
SPREAD = ("mean", "direction", "variance", "precision")
CALIBRATION = ("distance", "share")
ABOUT: dict[str, Callable[[str], Any]] = {
    "score": str, "refused": float, "training": int, "films": int, "patients": int,
}  # fmt: skip
