"""The bootstrap: weights on films, and 95 % confidence intervals from resampling patients.

All films of a patient move together, because they resemble each other: an interval over films
would be too narrow. A resample is therefore a weight per patient, how often it was drawn.

Letters in shapes: n films, p owners of weights (patients), r resamples, b bins, c terms, s repeats
of a training or a cross-validation, k findings, k1 the findings and macro.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real
from scipy import sparse

LOW, HIGH = 0.025, 0.975
MACRO, MICRO = "macro", "micro"  # in place of a finding: the mean over all, or all cells pooled


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """How much each film counts, r times over: film i counts `times[owner[i], j]` in resample j."""

    owner: Int64[np.ndarray, " n"]
    times: Float64[np.ndarray, "p r"]

    def take(self, rows: Bool[np.ndarray, " n"]) -> Weights:
        """Return the weights of these films."""
        return replace(self, owner=self.owner[rows])

    def of_cells(self, findings: int) -> Weights:
        """Return the weights of all cells of film x finding, a film's cells side by side."""
        return replace(self, owner=np.repeat(self.owner, findings))

    def total(self, term: Float64[np.ndarray, "c n"]) -> Float64[np.ndarray, "c r"]:
        """Return the weighted sum of each term over all films."""
        owners = len(self.times)
        sums = [np.bincount(self.owner, weights=row, minlength=owners) for row in term]
        # Not @: threads for so thin a product cost up to 30 times the product on a busy machine.
        return np.einsum("cp,pr->cr", np.stack(sums), self.times)

    def histogram(
        self, film: Int64[np.ndarray, " m"], *, place: Int64[np.ndarray, " m"], bins: int
    ) -> sparse.csr_array:
        """Return a b x p matrix: how many of these films stand in each bin, by owner.

        Its product with `times` is the weight in each bin. A film may be listed once only.
        """
        where = (place, self.owner[film])
        return sparse.csr_array((np.ones(len(film)), where), shape=(bins, len(self.times)))


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
    chance = np.full(len(patients), 1 / max(1, len(patients)))
    drawn = np.random.default_rng(seed).multinomial(len(patients), chance, size=resamples)
    return Weights(owner=owner, times=np.ascontiguousarray(drawn.T, dtype=np.float64))


def all_and_resampled(patient: Int64[np.ndarray, " n"], *, resamples: int, seed: int) -> Weights:
    """Return the weights of `resample_patients` after a first column that counts each film once."""
    drawn = resample_patients(patient, resamples=resamples, seed=seed)
    return replace(drawn, times=np.column_stack([np.ones(len(drawn.times)), drawn.times]))


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
