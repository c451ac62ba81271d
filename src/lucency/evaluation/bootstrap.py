"""The bootstrap: weights on films, and 95 % confidence intervals from resampling patients.

All films of a patient move together, because they resemble each other: an interval over films
would be too narrow. A resample is therefore a weight per patient, how often it was drawn.

Letters in shapes: n films, p owners of weights (patients), r resamples, b bins, c terms, s repeats
of a training or a cross-validation, k findings, k1 the findings and macro.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real, UInt
from scipy import sparse

AT_ONCE = 64  # resamples whose weights are held in double precision
LOW, HIGH = 0.025, 0.975
MACRO, MICRO = "macro", "micro"  # in place of a finding: the mean over all, or all cells pooled


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """How much each film counts, r times over: film i counts `times[owner[i], j]` in resample j.

    Of resamples `times` are whole numbers in as few bytes as they need, a resample's side by side.
    """

    owner: Int64[np.ndarray, " n"]
    times: Real[np.ndarray, "p r"]

    def columns(self, start: int, end: int) -> Float64[np.ndarray, "p c"]:
        """Return these columns of `times` in double precision, a copy unless they are."""
        times = self.times[:, start:end]
        return times if times.dtype == np.float64 else times.astype(np.float64, order="C")

    def take(self, rows: Bool[np.ndarray, " n"]) -> Weights:
        """Return the weights of these films, without the owners of none of them."""
        owners, owner = np.unique(self.owner[rows], return_inverse=True)
        return Weights(owner=owner, times=self.times.T[:, owners].T)

    def of_cells(self, findings: int) -> Weights:
        """Return the weights of all cells of film x finding, a film's cells side by side."""
        return replace(self, owner=np.repeat(self.owner, findings))

    def total(self, term: Float64[np.ndarray, "c n"]) -> Float64[np.ndarray, "c r"]:
        """Return the weighted sum of each term over all films."""
        owners, resamples = self.times.shape
        sums = np.stack([np.bincount(self.owner, weights=one, minlength=owners) for one in term])
        total = np.empty((len(term), resamples))
        for start in range(0, resamples, AT_ONCE):
            end = start + AT_ONCE
            # Not @: threads for so thin a product cost up to 30 times it on a busy machine.
            np.einsum("cp,pr->cr", sums, self.columns(start, end), out=total[:, start:end])
        return total

    def histogram(
        self, film: Int64[np.ndarray, " m"], *, place: Int64[np.ndarray, " m"], bins: int
    ) -> sparse.csc_array:
        """Return a b x p matrix: how many of these films stand in each bin, by owner.

        `in_bins` makes the weights of it. In a bin a film may be listed once only.
        """
        where = (place, self.owner[film])
        # By columns, so that a product reads `times` in order and looks no film's owner up.
        return sparse.csc_array((np.ones(len(film)), where), shape=(bins, len(self.times)))

    def in_bins(
        self, histogram: sparse.csc_array, start: int, end: int
    ) -> Float64[np.ndarray, "b c"]:
        """Return the weight in each bin, for the columns of weights from `start` to `end`."""
        end = min(end, self.times.shape[1])
        parts = (range(first, min(first + AT_ONCE, end)) for first in range(start, end, AT_ONCE))
        weight = [histogram @ self.columns(part.start, part.stop) for part in parts]
        return np.concatenate(weight, axis=1)


def once(films: int) -> Weights:
    """Return the weights that count each of so many films once: one column, for a plain value."""
    return Weights(owner=np.zeros(films, dtype=np.int64), times=np.ones((1, 1)))


def resample_patients(patient: Int64[np.ndarray, " n"], *, resamples: int, seed: int) -> Weights:
    """Return bootstrap weights: each resample draws as many patients as there are, repeats allowed.

    The draw depends on the seed and the sorted patients alone, so predictions of several networks
    on the same films are resampled alike. Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), chapter 6; for films of one patient as a cluster, Davison and Hinkley (1997), 3.8.
    """
    patients, owner = np.unique(patient, return_inverse=True)
    return Weights(owner=owner, times=_draw(len(patients), resamples, seed).T)


@lru_cache(maxsize=1)
def _draw(patients: int, resamples: int, seed: int) -> UInt[np.ndarray, "r p"]:
    """Return how often each patient is drawn; an evaluation draws the same many times."""
    chance = np.full(patients, 1 / max(1, patients))
    generator, parts = np.random.default_rng(seed), [np.empty((0, patients), dtype=np.uint8)]
    for start in range(0, resamples, AT_ONCE):
        size = min(AT_ONCE, resamples - start)
        drawn = generator.multinomial(patients, chance, size=size)
        parts.append(drawn.astype(np.min_scalar_type(drawn.max(initial=0))))
    every = np.concatenate(parts)
    every.flags.writeable = False
    return every


def all_and_resampled(patient: Int64[np.ndarray, " n"], *, resamples: int, seed: int) -> Weights:
    """Return the weights of `resample_patients` after a first column that counts each film once."""
    drawn = resample_patients(patient, resamples=resamples, seed=seed)
    times = drawn.times.T
    return replace(drawn, times=np.concatenate([np.ones_like(times[:1]), times]).T)


def resample_repeats(count: int, *, resamples: int, seed: int) -> Float64[np.ndarray, "s r"]:
    """Return how much each of `count` repeats counts in each resample: drawn with replacement."""
    equal = np.full(count, 1 / count)
    return np.random.default_rng([seed, count]).multinomial(count, equal, size=resamples).T / count


def interval(value: Float64[np.ndarray, "... r"]) -> Float64[np.ndarray, "2 ..."]:
    """Return the 2.5 and 97.5 percentiles of the computable resamples; NaN where none is."""
    rows = value.reshape(-1, value.shape[-1])
    stated = [row[~np.isnan(row)] for row in rows]
    bounds = [np.quantile(row, (LOW, HIGH)) if len(row) else (np.nan, np.nan) for row in stated]
    return np.array(bounds).reshape(-1, 2).T.reshape(2, *value.shape[:-1])


def ratio(
    part: Real[np.ndarray, " *c"], whole: Real[np.ndarray, " *c"]
) -> Float64[np.ndarray, " *c"]:
    """Return part / whole; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean_over_findings(value: Float64[np.ndarray, "k r"]) -> Float64[np.ndarray, " r"]:
    """Return the mean over the findings that are computable; NaN when none is."""
    computable = ~np.isnan(value)
    count = computable.sum(axis=0)
    total = np.where(computable, value, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def with_macro(value: Float64[np.ndarray, "k r"]) -> Float64[np.ndarray, "k1 r"]:
    """Return the values of the findings, and their mean in a last row."""
    return np.concatenate([value, mean_over_findings(value)[None]])
