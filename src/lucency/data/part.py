"""The part of every film: its file, and the fingerprint that names a split.

Letters in shapes: n films.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from lucency.values import APART, PARTS, read_table


def part_fingerprint(image: Shaped[np.ndarray, " n"], part: Shaped[np.ndarray, " n"]) -> str:
    """Return 16 hexadecimal digits that name this split, whatever the order of the films."""
    pairs = sorted(zip(image.tolist(), part.tolist(), strict=True))
    text = "\n".join(f"{name},{where}" for name, where in pairs)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_part(image: Shaped[np.ndarray, " n"], part: Shaped[np.ndarray, " n"], file: Path) -> None:
    """Write a CSV file with the columns image and part."""
    pd.DataFrame({"image": image, "part": part}).to_csv(file, index=False)


def load_part(file: Path, image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Read what `save_part` wrote and return the part of each film, joined by name.

    Raises ValueError when a film is not in the file or twice, or stands neither in one of the three
    parts nor apart.
    """
    table = read_table(file, text=("image", "part")).set_index("image")
    part = table["part"].to_numpy(dtype=str)
    if table.index.has_duplicates or not np.isin(part, (*PARTS, APART)).all():
        raise ValueError(f"{file}: expected each film once, its part {', '.join(PARTS)}")
    row = table.index.get_indexer(pd.Index(image))
    if (row < 0).any():
        raise ValueError(
            f"{file}: {(row < 0).sum()} films are not in it ({image[row < 0][0]}, …): split anew"
        )
    return part[row]
