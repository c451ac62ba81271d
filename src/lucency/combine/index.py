"""An index of films on disk: features in half precision beside image and patient, no pickle.

112,120 films in 1,024 dimensions take 230 MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lucency.combine.retrieve import ROWS, Index, pieces

FEATURE, IMAGE, PATIENT = "feature.npy", "image.npy", "patient.npy"


def save_index(index: Index, folder: Path) -> None:
    """Write three arrays into `folder`; a receipt says that they are complete.

    `load_index` gives back every bit, because features are rounded when an index is built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = np.lib.format.open_memmap(
        folder / FEATURE, mode="w+", dtype=np.float16, shape=index.direction.shape
    )
    for rows in pieces(len(index), ROWS):
        half[rows] = index.direction[rows]
    half.flush()
    np.save(folder / IMAGE, index.image, allow_pickle=False)
    np.save(folder / PATIENT, index.patient, allow_pickle=False)


def load_index(folder: Path) -> Index:
    """Read what `save_index` wrote, mapped read-only, and widen the features.

    Raises ValueError where a file lacks, is cut short or holds something else.
    """
    for name in (FEATURE, IMAGE, PATIENT):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no {name}; expected an index as save_index writes it")
    half = np.load(folder / FEATURE, mmap_mode="r", allow_pickle=False)
    if half.dtype != np.float16 or half.ndim != 2:
        raise ValueError(
            f"{folder / FEATURE} holds {half.ndim} axes of {half.dtype}; expected films x "
            "dimensions in float16: make the index anew"
        )
    return Index(
        image=np.load(folder / IMAGE, allow_pickle=False),
        patient=np.load(folder / PATIENT, allow_pickle=False),
        direction=np.array(half, dtype=np.float32),
    )
