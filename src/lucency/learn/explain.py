"""Where in a film a network finds its findings: methods by name, and the maps of many films.

Every method is function(network, pixels, findings=columns) -> float32 b k gh gw; the network is
a body of the zoo, pixels are its scaled pictures, and nothing of the network changes.
Letters in shapes: n films, b of them, k findings, gh and gw cells of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped
from torch import Tensor

from lucency.learn.attention import attention_rollout
from lucency.learn.cams import (
    cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    x_grad_cam,
)
from lucency.learn.device import device_here, laid_out
from lucency.learn.feed import Films, batches_in_order, feed
from lucency.learn.gradients import integrated_gradients, smooth_grad
from lucency.learn.occlusion import occlusion
from lucency.learn.predict import Progress
from lucency.learn.zoo import Classifier
from lucency.plan import Plan
from lucency.values import Prepared, nearest

BATCH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Heatmaps:
    """The maps of films for findings by one method, raw, on the grid that the method has.

    The cells of `grid` divide the whole film evenly; `pixels` is the side the network saw.
    """

    method: str
    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    grid: Float32[np.ndarray, "n k gh gw"]
    pixels: int


def explain(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    method: str,
    findings: Sequence[str],
    progress: Progress | None = None,
) -> Heatmaps:
    """Return the maps of the plan's entries for the named findings.

    Raises ValueError for an unknown method or finding, and where the network does not allow it.
    """
    if method not in HEATMAPS:
        raise ValueError(
            f"method {method!r} is unknown: expected {', '.join(HEATMAPS)}"
            f"{nearest(method, HEATMAPS)}"
        )
    unknown = [finding for finding in findings if finding not in classifier.findings]
    if unknown:
        raise ValueError(
            f"the classifier does not know {unknown[0]!r}: expected some of "
            f"{', '.join(classifier.findings)}"
        )
    columns = [classifier.findings.index(finding) for finding in findings]
    device = device_here()
    network = classifier.network.to(device)
    laid_out(network)
    copies = classifier.protocol.get("balance", {}).get("seed", 0)
    films = Films(prepared=prepared, plan=plan, copies=copies)
    found: list[Float32[np.ndarray, "b k gh gw"]] = []
    batches = batches_in_order(len(plan), batch=BATCH)
    for shown in feed(films, batches=batches, device=device):
        maps = HEATMAPS[method](network.body, network.pictures(shown), findings=columns)
        found.append(maps.float().cpu().numpy())
        if progress:
            progress(sum(map(len, found)), len(plan), method)
    return Heatmaps(
        method=method,
        findings=tuple(findings),
        image=plan.names(prepared.manifest.image),
        grid=np.concatenate(found),
        pixels=network.size or prepared.preparation.size,
    )


HEATMAPS: dict[str, Callable[..., Tensor]] = {
    "cam": cam,
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "hires-cam": hires_cam,
    "layer-cam": layer_cam,
    "x-grad-cam": x_grad_cam,
    "occlusion": occlusion,
    "integrated-gradients": integrated_gradients,
    "smooth-grad": smooth_grad,
    "attention-rollout": attention_rollout,
}
