"""Copies made at the native size or of the prepared square: how far does each move the pixels?

The reference study flips, turns and sharpens the film at its native size and resizes it last, as
`copies_at = "native"` does; by default Lucency does so with the prepared square. Mean absolute
change, in grey levels of 255, of a film by sharpening alone, over films at their native size.

    python benchmarks/copies.py ../shared/nih/images
"""

from __future__ import annotations

import sys
from pathlib import Path

import albumentations
import numpy as np

from lucency.core.manifest import Preparation
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film

SEEDS = range(4)
STUDY = Preparation(size=224, brightness=5, interpolation="bicubic")


def main() -> None:
    """Print the change by sharpening before and after resizing, and how far the two are apart."""
    enhanced = STUDY.model_copy(update={"size": 1024})
    late = STUDY.model_copy(update={"order": "no-clahe", "brightness": 0})
    found = []
    for file in sorted(Path(sys.argv[1]).glob("*.png")):
        native = prepare_film(read_grey(file), preparation=enhanced)
        square = prepare_film(native, preparation=late).astype(float)
        for seed in SEEDS:
            before = prepare_film(_sharpened(native, seed), preparation=late).astype(float)
            after = _sharpened(square.astype(np.uint8), seed).astype(float)
            changes = (before - square, after - square, before - after)
            found.append([np.abs(one).mean() for one in changes])
    native, prepared, apart = np.mean(found, axis=0)
    print(f"{len(found)} copies of {len(found) // len(SEEDS)} films")
    print(
        f"sharpened at the native size: {native:.2f}; prepared: {prepared:.2f}; apart {apart:.2f}"
    )


def _sharpened(film: np.ndarray, seed: int) -> np.ndarray:
    compose = albumentations.Compose([albumentations.Sharpen(p=1.0)])
    compose.set_random_seed(seed)
    return compose(image=film)["image"]


if __name__ == "__main__":
    main()
