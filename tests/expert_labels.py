"""Google's published labels of a whole release, of which each table is read by itself."""

from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.manifest import Manifest, empty_boxes
from lucency.data.radiologists import RELEASES, Release, read_expert_table


def read_experts(root: Path, *, release: Release) -> Manifest:
    """Return the labels of "all" findings, or of "four": test films, then validation films."""
    tables = [read_expert_table(root / name) for name in RELEASES[release].labels]
    return Manifest(
        findings=tables[0].findings,
        image=np.concatenate([one.image for one in tables]),
        patient=np.concatenate([one.patient for one in tables]),
        label=np.concatenate([one.label for one in tables]),
        facts=pd.concat([one.facts for one in tables], ignore_index=True),
        boxes=empty_boxes(),
        origin=f"release {release!r}",
    )
