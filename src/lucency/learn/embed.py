"""Pooled features of films by a network that is not trained here: which films are alike?

Letters in shapes: n films, m of them, d feature dimensions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from lucency.choices import Network
from lucency.learn.augment import seed_of
from lucency.learn.device import device_here
from lucency.learn.feed import Films
from lucency.learn.predict import Progress, forward
from lucency.learn.pretrained import initialise
from lucency.learn.zoo import build
from lucency.plan import originals
from lucency.values import Prepared


def embed(
    prepared: Prepared,
    *,
    rows: Int64[np.ndarray, " m"],
    choice: Network,
    root: Path,
    progress: Progress | None = None,
) -> Float32[np.ndarray, "m d"]:
    """Return the pooled features of the films at `rows` by the network `choice`, in their order.

    Weights are found below `root` unless their path is absolute.
    """
    torch.manual_seed(seed_of("features", choice.name))
    about = {"size": choice.size, "colour": choice.colour, "head": choice.head}
    network = build(choice.built, findings=1, **about)
    initialise(network.body, choice=choice, root=root)
    plan = originals(prepared.manifest.label).take(rows)
    films = Films(prepared=prepared, plan=plan, copies=0)
    return forward(network, films=films, device=device_here(), progress=progress)[1]
