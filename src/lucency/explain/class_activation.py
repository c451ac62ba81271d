"""Class activation maps without torch: from an exported network's last maps and its head's weights.

Letters in shapes: n films, k findings, c channels, gh and gw cells of the grid.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from lucency.core.manifest import Prepared, nearest
from lucency.core.progress import Advance, silent
from lucency.explain.heatmaps import Centres, Heatmaps
from lucency.models.onnx_runtime import BATCH, OnnxNetwork, maps

METHOD = "cam"


class CamHead(NamedTuple):
    """What turns a network's last maps into maps of findings: `lucency.explain.methods.cam`'s.

    `centres` are those of the maps' cells in shares of the film.
    """

    findings: tuple[str, ...]
    weight: Float32[np.ndarray, "k c"]
    centres: Centres


def head_metadata(head: CamHead) -> dict[str, str]:
    """Return a head as an ONNX file's metadata holds it; weights are float32 in base64."""
    weight = np.ascontiguousarray(head.weight, dtype="<f4")
    about = {
        "findings": head.findings,
        "shape": weight.shape,
        "weight": b64encode(weight.tobytes()).decode(),
        "down": head.centres.down.tolist(),
        "across": head.centres.across.tolist(),
    }
    return {METHOD: json.dumps(about)}


def head_of(metadata: Mapping[str, str]) -> CamHead | None:
    """Return the head that an ONNX file's metadata holds; None where `cam` is not defined."""
    if METHOD not in metadata:
        return None
    about = json.loads(metadata[METHOD])
    weight = np.frombuffer(b64decode(about["weight"]), dtype="<f4").reshape(about["shape"])
    down, across = (np.array(about[name], dtype=np.float64) for name in ("down", "across"))
    return CamHead(tuple(about["findings"]), weight, Centres(down=down, across=across))


def class_activation_maps(
    network: OnnxNetwork,
    *,
    head: CamHead,
    prepared: Prepared,
    findings: Sequence[str] = (),
    progress: Advance = silent,
) -> Heatmaps:
    """Return the maps of prepared films by `cam`, for the named findings, or all of the network's.

    A map is the sum of the last maps, weighted by the finding's weights (Zhou et al., CVPR 2016).
    Raises ValueError for an unknown finding, for a head of another network, and where the last
    features are no maps.
    """
    names = tuple(findings) or head.findings
    if unknown := [name for name in names if name not in head.findings]:
        known = ", ".join(head.findings)
        raise ValueError(
            f"the network does not know {unknown[0]!r}: expected some of {known}"
            f"{nearest(unknown[0], head.findings)}"
        )
    _check_head(network, head)
    weight = head.weight[[head.findings.index(name) for name in names]]
    films, grids = prepared.pixels, []
    for start in range(0, len(films), BATCH):
        last = maps(network, np.asarray(films[start : start + BATCH]))
        grids.append(np.einsum("kc,ncyx->nkyx", weight, last, optimize=True))
        progress(min(start + BATCH, len(films)), len(films), METHOD)
    return Heatmaps(
        method=METHOD,
        findings=names,
        image=prepared.manifest.image,
        patient=prepared.manifest.patient,
        grid=np.concatenate(grids),
        centres=head.centres,
    )


def _check_head(network: OnnxNetwork, head: CamHead) -> None:
    given, expected = head.weight.shape, (network.findings, network.channels)
    if network.channels and given != expected:
        raise ValueError(
            f"the head weighs {given[1]} maps for {given[0]} findings, but the network has "
            f"{expected[1]} and {expected[0]}: expected the head of the same export"
        )
