"""Textures of many films, by worker processes; an interrupted call is resumed.

Letters in shapes: n films, b of a chunk, h and w pixels, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, UInt8

from lucency.core.manifest import Manifest, Prepared
from lucency.core.parallel import in_workers
from lucency.ensemble.radiomics.lungs import lung_mask
from lucency.ensemble.radiomics.texture import feature_names, texture_features

CHUNK = 16  # films a task: about a second of work
FEATURE, REASONS = "feature.npy", "reasons.txt"
EVERY, NEITHER = "all", "none of the findings"
Chunk = tuple[Float32[np.ndarray, "b d"], list[str]]


def texture_table(
    prepared: Prepared,
    *,
    folder: Path,
    workers: int,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Float32[np.ndarray, "n d"], pd.DataFrame]:
    """Return every film's features, NaN where no lungs were found; image and reason of those.

    The features lie in `folder`, mapped read-only; what an earlier, killed call of the same films
    has left there is kept. Raises ValueError when a worker process dies.
    """
    films, note, names = len(prepared.manifest), folder / REASONS, feature_names()
    reasons = note.read_text(encoding="utf-8").split("\n")[:-1] if note.is_file() else []
    note.write_text("".join(f"{reason}\n" for reason in reasons), encoding="utf-8")
    feature = np.lib.format.open_memmap(
        folder / FEATURE,
        mode="r+" if reasons else "w+",
        dtype=np.float32,
        shape=(films, len(names)),
    )
    chunks = _chunks(prepared, start=len(reasons))
    left, lost = -(-(films - len(reasons)) // CHUNK), sum(map(bool, reasons))
    for found, why in in_workers(_textures, chunks, workers=min(workers, left)):
        feature[len(reasons) : len(reasons) + len(why)] = found
        feature.flush()
        with note.open("a", encoding="utf-8") as file:
            file.write("".join(f"{reason}\n" for reason in why))
        reasons, lost = reasons + why, lost + sum(map(bool, why))
        progress(len(reasons), films, f"{lost:,} without lungs")
    image = prepared.manifest.image.tolist()
    failed = [pair for pair in zip(image, reasons, strict=True) if pair[1]]
    note.unlink()
    return np.load(folder / FEATURE, mmap_mode="r"), pd.DataFrame(
        failed, columns=["image", "reason"]
    )


def texture_row(film: UInt8[np.ndarray, "h w"]) -> tuple[list[float], str]:
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
    groups = {EVERY: np.ones(len(manifest), dtype=bool)}
    groups |= {name: manifest.label[:, k] == 1 for k, name in enumerate(manifest.findings)}
    groups[NEITHER] = (manifest.label == 0).all(axis=1)
    rows = [(name, int(mine.sum()), int((failed & mine).sum())) for name, mine in groups.items()]
    table = pd.DataFrame(rows, columns=["films", "count", "failed"])
    return table.assign(share=table["failed"] / table["count"].where(table["count"] > 0))


def _chunks(prepared: Prepared, *, start: int) -> Iterator[UInt8[np.ndarray, "b h w"]]:
    for first in range(start, len(prepared.manifest), CHUNK):
        yield np.array(prepared.pixels[first : first + CHUNK])


def _textures(films: UInt8[np.ndarray, "b h w"]) -> Chunk:
    rows, reasons = zip(*map(texture_row, films), strict=True)
    return np.array(rows, dtype=np.float32), list(reasons)
