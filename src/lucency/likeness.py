"""The features by which neighbour-based balancing says which films are alike: a stage of its own.

Letters in shapes: n films, m of them, d feature dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from lucency.choices import THUMBNAIL, Network
from lucency.data.prepare import thumbnails
from lucency.progress import progress
from lucency.receipt import fingerprint, produce
from lucency.values import Prepared


def features(
    prepared: Prepared,
    *,
    rows: Int64[np.ndarray, " m"],
    choice: Network,
    root: Path,
    upstream: Mapping[str, str],
    home: Path,
) -> Float32[np.ndarray, "m d"]:
    """Return the features of the films at `rows`: thumbnails, or pooled by the network `choice`.

    The stage: `features_folder(home, choice)` holds feature.npy, mapped read-only. Raises
    ValueError when the network's weights do not fit it.
    """

    def write(folder: Path) -> None:
        if choice.name == THUMBNAIL:
            feature = thumbnails(prepared, rows=rows)
        else:
            from lucency.learn.embed import embed

            with progress("Looking for similar films", unit="films") as advance:
                feature = embed(prepared, rows=rows, choice=choice, root=root, progress=advance)
        np.save(folder / "feature.npy", feature)

    inputs = {"features": choice.model_dump(), "weights": _weights(choice, root), **upstream}
    out = features_folder(home, choice)
    return np.load(produce(out, inputs=inputs, write=write) / "feature.npy", mmap_mode="r")


def features_folder(home: Path, choice: Network) -> Path:
    """Return the folder of one choice's features, so that several may lie beside each other."""
    return home / f"features-{fingerprint(choice.model_dump())[:8]}"


def _weights(choice: Network, root: Path) -> str:
    """Return the fingerprint of the network's weights, so that another file is another result."""
    if choice.name == THUMBNAIL:
        return "none"
    from lucency.learn.pretrained import fingerprint_weights

    return fingerprint_weights(choice, root=root)
