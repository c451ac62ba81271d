"""One picture twice: to the pixel, or nearly so by 64-bit hashes confirmed by correlation.

Letters in shapes: n films, p pairs of films.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt64
from scipy.fft import dctn

from lucency.core.manifest import SOURCE, Prepared
from lucency.core.progress import Advance
from lucency.data.preprocess import THUMBNAIL_SIDE, thumbnails

WAVES = 8  # along each side: 64 bits
MOST_BITS = 4  # a film saved again differs in no more: 99.6 % at least of 1,400 real films
SAME = 0.99  # saved again: .996 and more; films of two patients: up to .959 in 10^6 pairs
FLAT = 2e-3  # standard deviation of grey in 0..1: half a step of 255, so no picture at all
AT_ONCE = 4096  # films or pairs
ALIKE_COLUMNS = ("image", "other", "distance", "correlation")
TWICE_COLUMNS = ("image", SOURCE, "other", "other_source")
Hash = UInt64[np.ndarray, " n"]
Pairs = Int64[np.ndarray, "p 2"]


def pixel_digests(prepared: Prepared, *, progress: Advance) -> dict[int, bytes]:
    """Return by row a digest of the pixels of each film that has more than one grey (BLAKE2b)."""
    found = dict[int, bytes]()
    for row in range(len(prepared.pixels)):
        pixels = np.ascontiguousarray(prepared.pixels[row])
        if pixels.min() < pixels.max():
            found[row] = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        progress(row + 1, len(prepared.pixels))
    return found


def twice_in_sources(prepared: Prepared, *, progress: Advance) -> pd.DataFrame:
    """Return the films that show, to the pixel, what a film of another source before them does.

    Films of one grey are left out. Columns: image, source, other (the first film of those pixels)
    and other_source; in the films' order.
    """
    image, of = prepared.manifest.image, prepared.manifest.facts[SOURCE].tolist()
    first, found = dict[bytes, int](), list[tuple[str, str, str, str]]()
    for row, digest in pixel_digests(prepared, progress=progress).items():
        other = first.setdefault(digest, row)
        if of[other] != of[row]:
            found.append((str(image[row]), of[row], str(image[other]), of[other]))
    return pd.DataFrame(found, columns=list(TWICE_COLUMNS))


def near_identical(
    prepared: Prepared,
    *,
    side: Shaped[np.ndarray, " n"],
    distance: int = MOST_BITS,
    least: float = SAME,
) -> pd.DataFrame:
    """Return the pairs of films on two sides that show the same picture, whatever their names.

    `side` is where each film stands (its part). A pair's hashes differ in at most `distance` bits
    and its thumbnails correlate at `least` or more; so it is one picture, saved, scaled or exposed
    anew, but not one moved or turned by as much as a hundredth. Films without structure (black
    ones) are left out. Columns: image, other, distance (bits), correlation; in the films' order.
    """
    code, flat = _hash_all(prepared)
    kept = np.flatnonzero(~flat)
    pair = kept[near_pairs(code[kept], side=side[kept], distance=distance)]
    pieces = range(0, len(pair), AT_ONCE)
    found = [_correlation(prepared, pair[start : start + AT_ONCE]) for start in pieces]
    correlation = np.concatenate([np.empty(0), *found])
    same = correlation >= least
    one, other = pair[same].T
    image = prepared.manifest.image
    table = (image[one], image[other], np.bitwise_count(code[one] ^ code[other]), correlation[same])
    return pd.DataFrame(dict(zip(ALIKE_COLUMNS, table, strict=True)))


def perceptual_hash(thumbnail: Float32[np.ndarray, "n 1024"]) -> Hash:
    """Return 64 bits that say which of a film's 64 coarsest waves are above their median.

    The waves are the coefficients 1 to 8 down and across of the discrete cosine transform of the
    32 x 32 film; the constant ones, 0, are left out. So exposure and contrast change nothing, and
    half of the bits are set. Zauner, Implementation and Benchmarking of Perceptual Image Hash
    Functions (Hagenberg, 2010), whose library pHash smooths before it reduces; here the reduction
    is by area.
    """
    square = thumbnail.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE).astype(np.float64)
    coarse = np.asarray(dctn(square, axes=(1, 2)))[:, 1 : WAVES + 1, 1 : WAVES + 1]
    wave = coarse.reshape(len(square), WAVES**2)
    bits = wave > np.median(wave, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def near_pairs(code: Hash, *, side: Shaped[np.ndarray, " n"], distance: int) -> Pairs:
    """Return the pairs of different `side` whose hashes differ in at most `distance` bits.

    Cut into distance + 2 blocks, such hashes agree wholly in two blocks at least, so only films
    that share the values of two are compared (Manku, Jain and Das Sarma, Detecting Near-Duplicates
    for Web Crawling, WWW 2007). Each pair once, first film first, sorted. Raises ValueError for a
    distance outside 0 to 15.
    """
    if not 0 <= distance <= 15:
        raise ValueError(f"a distance of {distance} bits: expected 0 to 15, of 64")
    where = np.unique(side, return_inverse=True)[1]
    edges = np.linspace(0, 64, distance + 3).astype(int).tolist()
    block = [np.uint64(2**high - 2**low) for low, high in pairwise(edges)]
    found = [np.empty((0, 2), dtype=np.int64)]
    for first, second in combinations(block, 2):
        for one, other in _sharing(code & (first | second)):
            near = np.bitwise_count(code[one] ^ code[other]) <= distance
            near &= where[one] != where[other]
            pair = np.stack([one[near], other[near]], axis=1)
            found.append(np.sort(pair, axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _hash_all(prepared: Prepared) -> tuple[Hash, Bool[np.ndarray, " n"]]:
    """Return the hash of every film, and whether it is flat; the pixels are read once."""
    films = len(prepared.manifest)
    code, flat = np.zeros(films, dtype=np.uint64), np.zeros(films, dtype=bool)
    for start in range(0, films, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, films))
        small = thumbnails(prepared, rows=rows)
        code[rows] = perceptual_hash(small)
        flat[rows] = small.std(axis=1) < FLAT
    return code, flat


def _sharing(value: Hash) -> Iterator[tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]]:
    """Yield all pairs of films with equal `value`: neighbours in order first, then those two off.

    One step holds at most n pairs, however many share a value.
    """
    order = np.argsort(value, kind="stable")
    ranked, first, step = value[order], np.arange(len(value)), 1
    while len(first):
        first = first[first + step < len(value)]
        first = first[ranked[first + step] == ranked[first]]
        yield order[first], order[first + step]
        step += 1


def _correlation(prepared: Prepared, pair: Pairs) -> Float64[np.ndarray, " p"]:
    """Return the correlation of the thumbnails of each pair."""
    rows, place = np.unique(pair, return_inverse=True)
    small = thumbnails(prepared, rows=rows).astype(np.float64)
    small -= small.mean(axis=1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    one, other = place.reshape(-1, 2).T
    return np.einsum("pd,pd->p", small[one], small[other])
