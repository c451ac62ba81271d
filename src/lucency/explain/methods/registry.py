"""The heat map methods by name, and the maps of many films by one of them.

Every method is function(network, pixels, findings=columns) -> float32 b k gh gw; the network is
a body of the zoo, pixels are its scaled pictures. A method leaves the network as it was.
Letters in shapes: b films of a batch, n of all, k findings, gh and gw cells of the grid, h pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from lucency.core.manifest import Prepared, nearest
from lucency.core.plan import Plan
from lucency.core.progress import Advance, silent
from lucency.explain.heatmaps import Centres, Heatmaps, even_centres
from lucency.explain.methods.attribution import ATTRIBUTIONS
from lucency.explain.methods.cam import CAMS
from lucency.explain.methods.network_split import feature_centres
from lucency.models.classifier import Classifier
from lucency.models.film_loader import batches_in_order
from lucency.models.inference import films_for, over_batches

BATCH = 8
FINEST = 56  # cells a side of a map: of 880 films and 8 findings, 88 MB


def explain(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    method: str,
    findings: Sequence[str],
    progress: Advance = silent,
) -> Heatmaps:
    """Return the raw maps of the plan's entries for the named findings, on the method's own grid.

    A grid of pixels is reduced as `heatmaps` says. Raises ValueError for an unknown method or
    finding, and where the network does not allow it.
    """
    check_request(classifier, methods=[method], findings=findings)
    columns = [classifier.findings.index(finding) for finding in findings]
    network, films = classifier.network, films_for(classifier, prepared=prepared, plan=plan)

    def mapped(pictures: Tensor) -> Float32[np.ndarray, "b k gh gw"]:
        pixels = network.pictures(pictures)
        maps = heatmaps(network.body, pixels, method=method, findings=columns)
        return maps.float().cpu().numpy()

    batches = batches_in_order(len(plan), batch=BATCH)
    about = {"films": films, "batches": batches, "progress": progress, "note": method}
    grid = np.concatenate([*over_batches(network, mapped, **about)])
    first = torch.from_numpy(prepared.pixels[plan.row[:1]]).to(network.mean.device)
    return Heatmaps(
        method=method,
        findings=tuple(findings),
        image=plan.names(prepared.manifest.image),
        patient=prepared.manifest.patient[plan.row],
        grid=grid,
        centres=centres_of(method, network.body, network.pictures(first), cells=grid.shape[2:]),
    )


def check_request(
    classifier: Classifier, *, methods: Sequence[str], findings: Sequence[str]
) -> None:
    """Raise ValueError for an unknown method or finding, or one that is named twice."""
    for several in (methods, findings):
        if twice := [name for name in several if list(several).count(name) > 1]:
            raise ValueError(f"{twice[0]!r} is named twice: expected each once")
    check_methods(methods)
    for finding in findings:
        if finding not in classifier.findings:
            near = nearest(finding, classifier.findings)
            known = ", ".join(classifier.findings)
            raise ValueError(
                f"the classifier does not know {finding!r}: expected some of {known}{near}"
            )


def check_methods(methods: Sequence[str]) -> None:
    """Raise ValueError for an unknown method."""
    for method in methods:
        if method not in HEATMAPS:
            near = nearest(method, HEATMAPS)
            raise ValueError(f"method {method!r} is unknown: expected {', '.join(HEATMAPS)}{near}")


def centres_of(
    method: str, body: nn.Module, pixels: Float[Tensor, "b c h w"], *, cells: Sequence[int]
) -> Centres:
    """Return the centres of rows and columns: receptive fields of features, or evenly laid."""
    evenly = even_centres((cells[0], cells[1]))
    return feature_centres(body, pixels, evenly=evenly) if method in OF_FEATURES else evenly


def heatmaps(
    network: nn.Module, pixels: Float[Tensor, "b c h w"], *, method: str, findings: Sequence[int]
) -> Float[Tensor, "b k gh gw"]:
    """Return maps by the named method: as shown, scored and tested.

    Those of pixels have FINEST cells a side at most, each the mean over its pixels, so that its
    strength is still that of a pixel.
    """
    maps = HEATMAPS[method](network, pixels, findings=findings)
    if method not in OF_PIXELS:
        return maps
    down, across = (_means(side).to(maps) for side in maps.shape[2:])
    return down @ maps @ across.T


def _means(side: int) -> Float32[Tensor, "gh h"]:
    """Return how much of each cell's mean each pixel is, cells dividing the side evenly."""
    edge, pixel = np.linspace(0, side, min(side, FINEST) + 1)[:, None], np.arange(side)
    inside = np.minimum(edge[1:], pixel + 1) - np.maximum(edge[:-1], pixel)
    return torch.from_numpy((inside.clip(0) / edge[1]).astype(np.float32))


HEATMAPS: dict[str, Callable[..., Tensor]] = CAMS | ATTRIBUTIONS
OF_PIXELS = {"integrated-gradients", "smooth-grad"}
OF_FEATURES = {*CAMS, "attention-rollout"}
