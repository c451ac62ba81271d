"""Radiomics: textures of the lungs as numbers, of one film or of many, by worker processes.

First order, co-occurrence, run lengths, patterns, wavelets, after Dunn (2023). Names are those of
the Image Biomarker Standardisation Initiative (IBSI) where it has one (Zwanenburg et al., Radiology
295, 2020, 328-338). Grey levels are of the prepared film, 0 to 255; matrices are of LEVELS levels
of equal width between the lowest and the highest of the lungs, numbered from 1, and what is outside
counts in none.

Letters in shapes: n films, b of a chunk, h and w pixels, d features, p pixels of the lungs,
g levels, r runs, s shares, t taps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from scipy import ndimage
from scipy.stats import kurtosis, skew
from skimage.feature import graycomatrix, local_binary_pattern

from lucency.core.engines import on_engine
from lucency.core.files import write_whole
from lucency.core.manifest import Manifest, Prepared
from lucency.ensemble.lungs import lung_mask

CHUNK = 16  # films a task: about a second of work
FEATURE, REASONS = "feature.npy", "reasons.txt"
LEVELS = 32
DISTANCES = (1, 2, 4)  # pixels
ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)  # whose values are averaged
POINTS, RADII = 8, (1, 2)  # of local binary patterns: uniform ones by how many points are bright
SCALES = 3  # of Haar waves, not thinned out
REACH = 2**SCALES  # pixels beyond the lungs that a wave or a pattern reads, at most
Film = UInt8[np.ndarray, "h w"]  # or its levels
Mask = Bool[np.ndarray, "h w"]
Grey = Float64[np.ndarray, " p"]
Matrix = Float64[np.ndarray, "g g"]
Runs = tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]  # level and length of each


def texture_table(
    prepared: Prepared,
    *,
    folder: Path,
    workers: int,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> pd.DataFrame:
    """Write every film's features into `folder`; return image and reason of those without lungs.

    Theirs are NaN. What an earlier, killed call of the same films has left there is kept. Raises
    ValueError when a worker process dies.
    """
    films, note = len(prepared.manifest), folder / REASONS
    reasons = note.read_text(encoding="utf-8").split("\n")[:-1] if note.is_file() else []
    write_whole(note, "".join(f"{reason}\n" for reason in reasons))
    mode, shape = "r+" if reasons else "w+", (films, len(feature_names()))
    feature = np.lib.format.open_memmap(folder / FEATURE, mode, dtype=np.float32, shape=shape)
    starts, lost = range(len(reasons), films, CHUNK), sum(map(bool, reasons))
    chunks = (np.array(prepared.pixels[first : first + CHUNK]) for first in starts)
    for found, why in on_engine(_textures, chunks, workers=min(workers, len(starts))):
        feature[len(reasons) : len(reasons) + len(why)] = found
        feature.flush()
        with note.open("a", encoding="utf-8") as file:
            file.write("".join(f"{reason}\n" for reason in why))
        reasons, lost = reasons + why, lost + sum(map(bool, why))
        progress(len(reasons), films, f"{lost:,} without lungs")
    image = prepared.manifest.image.tolist()
    failed = [pair for pair in zip(image, reasons, strict=True) if pair[1]]
    note.unlink()
    return pd.DataFrame(failed, columns=["image", "reason"])


def texture_row(film: Film) -> tuple[list[float], str]:
    """Return a film's features, and why it has none: then all are NaN."""
    lungs = lung_mask(film)
    if lungs.reason:
        return [np.nan] * len(feature_names()), lungs.reason
    return list(texture_features(film, lungs.mask).values()), ""


def lungs_table(manifest: Manifest, feature: Float32[np.ndarray, "n d"]) -> pd.DataFrame:
    """Return on how many films no lungs were found: of all, and of those with each finding.

    Columns: films, count, failed, share. Where the share is larger for a finding, textures leave
    out what the finding does to lungs.
    """
    failed = np.isnan(feature).all(axis=1)
    groups = {"all": np.ones(len(manifest), dtype=bool)}
    groups |= {name: manifest.label[:, k] == 1 for k, name in enumerate(manifest.findings)}
    groups["none of the findings"] = (manifest.label == 0).all(axis=1)
    rows = [(name, int(mine.sum()), int((failed & mine).sum())) for name, mine in groups.items()]
    table = pd.DataFrame(rows, columns=["films", "count", "failed"])
    return table.assign(share=table["failed"] / table["count"].where(table["count"] > 0))


def _textures(films: UInt8[np.ndarray, "b h w"]) -> tuple[Float32[np.ndarray, "b d"], list[str]]:
    rows, reasons = zip(*map(texture_row, films), strict=True)
    return np.array(rows, dtype=np.float32), list(reasons)


@cache
def feature_names() -> tuple[str, ...]:
    """Return the names of the features, in their order."""
    film = np.arange(64, dtype=np.uint8).reshape(8, 8)
    return tuple(texture_features(film, np.ones(film.shape, dtype=bool)))


def texture_features(film: Film, mask: Mask) -> dict[str, float]:
    """Return the features by name; raises ValueError for a mask without pixels."""
    if not mask.any():
        raise ValueError("the mask holds no pixel; expected the lungs of a film")
    ends = [(int(at.min()), int(at.max())) for at in mask.nonzero()]
    read = tuple(slice(max(0, low - REACH), high + REACH + 1) for low, high in ends)
    film, mask = film[read], mask[read]
    level = discretised(film, mask)
    return {
        **first_order(film[mask].astype(np.float64)),
        **co_occurrence(level),
        **runs(level),
        **patterns(film, mask),
        **waves(film, mask),
    }


def discretised(film: Film, mask: Mask) -> Film:
    """Return levels 1 to LEVELS of equal width in the mask, 0 outside (IBSI: fixed bin number)."""
    inside = film[mask].astype(np.float64)
    low, width = inside.min(), max(np.ptp(inside), 1)
    level = 1 + np.floor(LEVELS * (film.astype(np.float64) - low) / width)
    return np.where(mask, np.clip(level, 1, LEVELS), 0).astype(np.uint8)


def first_order(grey: Grey) -> dict[str, float]:
    """Return statistics of grey levels; kurtosis is the excess, entropy is in bits."""
    low, lower, middle, upper, high = np.percentile(grey, [10, 25, 50, 75, 90])
    count = np.bincount(np.clip((grey / 8).astype(np.int64), 0, LEVELS - 1), minlength=LEVELS)
    share = count / count.sum()
    robust = grey[(grey >= low) & (grey <= high)]
    flat = np.ptp(grey) == 0
    return {
        "mean": grey.mean(),
        "variance": grey.var(),
        "skewness": 0.0 if flat else float(skew(grey)),
        "excess kurtosis": 0.0 if flat else float(kurtosis(grey)),
        "median": middle,
        "10th percentile": low,
        "90th percentile": high,
        "interquartile range": upper - lower,
        "mean absolute deviation": np.abs(grey - grey.mean()).mean(),
        "robust mean absolute deviation": np.abs(robust - robust.mean()).mean(),
        "root mean square": np.sqrt((grey**2).mean()),
        "intensity histogram entropy": _entropy(share),
        "intensity histogram uniformity": (share**2).sum(),
    }


def co_occurrence(level: Film) -> dict[str, float]:
    """Return the features of the grey level co-occurrence matrix, at each of DISTANCES.

    Haralick, Shanmugam and Dinstein, IEEE Transactions on Systems, Man, and Cybernetics 3 (1973),
    610-621; symmetric, each value the mean over ANGLES that have pairs.
    """
    counts = graycomatrix(level, DISTANCES, ANGLES, levels=LEVELS + 1, symmetric=True)[1:, 1:]
    found = {}
    for place, distance in enumerate(DISTANCES):
        each = [counts[:, :, place, angle].astype(np.float64) for angle in range(len(ANGLES))]
        shares = [one / one.sum() for one in each if one.any()]
        for name, measure in CO_OCCURRENCE.items():
            values = [measure(share) for share in shares]
            found[f"{name}, {distance} px"] = float(np.mean(values)) if values else np.nan
    return found


def runs(level: Film) -> dict[str, float]:
    """Return the features of runs of equal levels, the mean over four directions.

    Galloway, Computer Graphics and Image Processing 4 (1975), 172-179; Chu, Sehgal and Greenleaf,
    Pattern Recognition Letters 11 (1990), 415-419.
    """
    each = [run_features(*found) for found in runs_by_direction(level)]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def runs_by_direction(level: Film) -> list[Runs]:
    """Return level and length of every run inside the mask, in each of four directions."""
    found = []
    for order, line in _lines(level.shape):
        along = level.ravel()[order].astype(np.int64)
        starts = np.flatnonzero(np.r_[True, (np.diff(along) != 0) | (np.diff(line) != 0)])
        length = np.diff(np.r_[starts, len(along)])
        inside = along[starts] > 0
        found.append((along[starts][inside], length[inside]))
    return found


def run_features(
    level: Int64[np.ndarray, " r"], length: Int64[np.ndarray, " r"]
) -> dict[str, float]:
    """Return the features of runs of one direction, by name; there must be one at least."""
    number = len(level)
    lengths, levels = (value.astype(np.float64) ** 2 for value in (length, level))
    by_length, by_level = (np.bincount(v).astype(float) ** 2 for v in (length, level))
    return {
        "short runs emphasis": (1 / lengths).mean(),
        "long runs emphasis": lengths.mean(),
        "low grey level run emphasis": (1 / levels).mean(),
        "high grey level run emphasis": levels.mean(),
        "normalised grey level non-uniformity": by_level.sum() / number**2,
        "normalised run length non-uniformity": by_length.sum() / number**2,
        "run percentage": number / length.sum(),
    }


def patterns(film: Film, mask: Mask) -> dict[str, float]:
    """Return the shares of uniform local binary patterns among the lungs' pixels.

    Ojala, Pietikäinen and Mäenpää, IEEE Transactions on Pattern Analysis and Machine Intelligence
    24 (2002), 971-987. The pattern of POINTS + 1 is all that is not uniform.
    """
    found = {}
    for radius in RADII:
        code = local_binary_pattern(film, POINTS, radius, method="uniform")[mask].astype(np.int64)
        share = np.bincount(code, minlength=POINTS + 2) / len(code)
        found |= {f"pattern {k}, {radius} px": float(one) for k, one in enumerate(share)}
    return found


def waves(film: Film, mask: Mask) -> dict[str, float]:
    """Return the mean squares of Haar waves in the lungs: across, down and diagonal, by scale.

    Not thinned out: at scale s the two points of a wave lie 2**(s - 1) pixels apart.
    """
    rest, found = film.astype(np.float64), {}
    for scale in range(1, SCALES + 1):
        apart, bands = 2 ** (scale - 1), {}
        for name, (down, across) in BANDS.items():
            half = ndimage.convolve1d(rest, _haar(apart, down), axis=0, mode="nearest")
            bands[name] = ndimage.convolve1d(half, _haar(apart, across), axis=1, mode="nearest")
        rest = bands.pop("rest")
        found |= {
            f"{name} wave energy, scale {scale}": float((band[mask] ** 2).mean())
            for name, band in bands.items()
        }
    return {**found, f"rest energy, scale {SCALES}": float((rest[mask] ** 2).mean())}


def _entropy(share: Float64[np.ndarray, "*s"]) -> float:
    there = share[share > 0]
    return float(-(there * np.log2(there)).sum())


def _correlation(share: Matrix) -> float:
    """Return the correlation of two neighbours' levels; 1 where all levels are the same (IBSI)."""
    level = np.arange(1, len(share) + 1)
    margin = share.sum(axis=1)
    mean = margin @ level
    variance = margin @ (level - mean) ** 2
    if variance == 0:
        return 1.0
    return float((level - mean) @ share @ (level - mean) / variance)


def _apart(size: int) -> Int64[np.ndarray, "g g"]:
    return np.abs(np.subtract.outer(np.arange(size), np.arange(size)))


def _haar(apart: int, sign: int) -> Float64[np.ndarray, " t"]:
    kernel = np.zeros(2 * apart + 1)
    kernel[[apart, 2 * apart]] = 0.5, 0.5 * sign
    return kernel


@lru_cache(maxsize=8)
def _lines(shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each direction, the order of pixels along its lines, and the line of each."""
    down, across = (place.ravel() for place in np.indices(shape))
    found = []
    for line, along in (
        (down, across),
        (across, down),
        (across - down, down),
        (across + down, down),
    ):
        order = np.lexsort((along, line))
        found.append((order, line[order]))
    return found


CO_OCCURRENCE: dict[str, Callable[[Matrix], float]] = {
    "angular second moment": lambda share: float((share**2).sum()),
    "contrast": lambda share: float((share * _apart(len(share)) ** 2).sum()),
    "difference average": lambda share: float((share * _apart(len(share))).sum()),
    "inverse difference": lambda share: float((share / (1 + _apart(len(share)))).sum()),
    "inverse difference moment": lambda share: float((share / (1 + _apart(len(share)) ** 2)).sum()),
    "correlation": _correlation,
    "joint entropy": _entropy,
}
BANDS = {"across": (1, -1), "down": (-1, 1), "diagonal": (-1, -1), "rest": (1, 1)}  # signs
