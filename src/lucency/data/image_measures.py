"""Image quality measures of preprocessing: contrast, brightness, noise, structural similarity.

MEASURES holds them all. None of them predicts which film a network reads better, and several have
no better direction: more contrast comes with more noise and less similarity.

Letters in shapes: h and w pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage
from skimage.metrics import structural_similarity

BLOCK = 8  # pixels of a side of the blocks of EME
RING = 0.1  # of the film's shorter side: how far from the lungs the background reaches
GREYS = 256

Film = UInt8[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
Take = Literal["film", "original", "lungs"]


class Measure(NamedTuple):
    """A measure: what computes it, what it takes, its unit, its meaning and where it comes from."""

    function: Callable[..., float]
    takes: tuple[Take, ...]
    unit: str
    meaning: str
    source: str


def measure_film(film: Film, *, original: Film, lungs: Mask) -> dict[str, float]:
    """Return every measure of MEASURES; NaN where one is not computable.

    `original` is the film at the same size without CLAHE; `lungs` is empty where none were found.
    """
    given = {"film": film, "original": original, "lungs": lungs}
    return {
        name: one.function(*(given[take] for take in one.takes)) for name, one in MEASURES.items()
    }


def entropy(film: Film) -> float:
    """Return Shannon's entropy of the film's grey levels, in bits: 0 (one level) to 8."""
    count = np.bincount(film.ravel(), minlength=GREYS)
    share = count[count > 0] / film.size
    return float(-(share * np.log2(share)).sum()) + 0.0  # one level alone gives 0, not -0


def eme(film: Film) -> float:
    """Return the mean over blocks of 20 log10((max + 1) / (min + 1)), in decibel.

    Blocks are BLOCK x BLOCK pixels from the upper left corner; rows and columns that fill none are
    left out. Grey levels are counted from 1, so that a minimum of 0 gives no infinite contrast, no
    block is left out, and one of a single level has none. Agaian, Lentz and Grigoryan (IASTED,
    2000); Agaian, Panetta and Grigoryan, IEEE Transactions on Image Processing 10 (2001), 367-382.
    """
    down, across = (side // BLOCK for side in film.shape)
    level = film[: down * BLOCK, : across * BLOCK].astype(np.float64) + 1
    block = level.reshape(down, BLOCK, across, BLOCK)
    return float((20 * np.log10(block.max(axis=(1, 3)) / block.min(axis=(1, 3)))).mean())


def contrast_improvement(film: Film, original: Film, lungs: Mask) -> float:
    """Return the contrast of lungs against what surrounds them, divided by the original's.

    Contrast is (f - b) / (f + b) of the mean grey of the lungs, f, and of the background, b: what
    lies within RING of the film's side of a lung. NaN where no lungs were found, no background is
    left, or the original has no contrast. Morrow et al., IEEE Transactions on Medical Imaging 11
    (1992), 392-406; Laine et al., ibid. 13 (1994), 725-740.
    """
    if not lungs.any() or lungs.all():
        return np.nan
    near = ndimage.distance_transform_edt(~lungs) <= RING * min(film.shape)
    ring = np.asarray(near) & ~lungs
    before, after = (_contrast(one, lungs, ring) for one in (original, film))
    return after / before if before else np.nan


def brightness_error(film: Film, original: Film) -> float:
    """Return how far the mean grey has moved, in grey levels (AMBE).

    Chen and Ramli, IEEE Transactions on Consumer Electronics 49 (2003), 1310-1319.
    """
    return abs(float(film.mean()) - float(original.mean()))


def noise_amplification(film: Film, original: Film) -> float:
    """Return the film's estimated noise divided by the original's; NaN where that has none."""
    before = noise(original)
    return noise(film) / before if before else np.nan


def noise(film: Film) -> float:
    """Return the standard deviation of additive white noise, in grey levels.

    The difference of two Laplacians is blind to steps and slopes and leaves noise, though fine
    structure counts as noise too. Immerkaer, Computer Vision and Image Understanding 64 (1996),
    300-302. Taken rather than the median of wavelet coefficients (skimage's `estimate_sigma`), as
    that is 0 where more than half of an eight-bit film is flat, and needs one more library.
    """
    level = film.astype(np.float64)
    for axis in (0, 1):
        level = np.diff(level, n=2, axis=axis)
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(level).mean())


def similarity(film: Film, original: Film) -> float:
    """Return the mean structural similarity to the original, at most 1 (the same film).

    With the Gaussian window of Wang et al., IEEE Transactions on Image Processing 13 (2004),
    600-612, by scikit-image.
    """
    found: Any = structural_similarity(
        film, original, data_range=GREYS - 1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    return float(found)


def _contrast(film: Film, lungs: Mask, ring: Mask) -> float:
    if not ring.any():
        return np.nan
    front, back = (float(film[where].mean()) for where in (lungs, ring))
    return (front - back) / (front + back) if front + back else 0.0


MEASURES: dict[str, Measure] = {
    "entropy": Measure(entropy, ("film",), "bits, 0 to 8",
                       "how evenly a film uses the grey levels", "Shannon 1948"),
    "eme": Measure(eme, ("film",), "dB, from 0",
                   f"mean contrast of blocks of {BLOCK} x {BLOCK} pixels, grey levels counted "
                   "from 1", "Agaian et al. 2000, 2001"),
    "cii": Measure(contrast_improvement, ("film", "original", "lungs"), "ratio, 1 is unchanged",
                   "contrast of the lungs against what surrounds them, over that of the film "
                   "without CLAHE", "Morrow et al. 1992, Laine et al. 1994"),
    "ambe": Measure(brightness_error, ("film", "original"), "grey levels, from 0",
                    "how far the mean grey has moved", "Chen and Ramli 2003"),
    "noise": Measure(noise_amplification, ("film", "original"), "ratio, 1 is unchanged",
                     "estimated noise over that of the film without CLAHE; fine structure counts "
                     "as noise", "estimate of Immerkaer 1996"),
    "ssim": Measure(similarity, ("film", "original"), "up to 1, the same film",
                    "structural similarity to the film without CLAHE", "Wang et al. 2004"),
}  # fmt: skip
