"""Foundation models of chest films: what their published weights expect and have seen; no torch.

FOUNDATIONS holds one record for each layout of published files (`match` of a protocol's network).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lucency.config.sections import Network

NIH = "ChestX-ray14"
COLLECTIONS = {"nih": NIH}  # the collection that a protocol's `data.source` reads


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """One published model: scaling of grey from 0 to 1, side in pixels, films it has seen.

    Training was self-supervised, on images without labels.
    """

    title: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    collections: tuple[str, ...]

    @property
    def provenance(self) -> str:
        """What the weights have been shown, in a sentence."""
        return f"{self.title}: images without labels of {', '.join(self.collections)}"


def seen_by(choice: Network, *, source: str) -> Literal["", "none", "images", "labels"]:
    """Return what of the films of `source` the network's weights have seen; "" is unknown.

    What the protocol states stands; else a foundation model has seen the images of its
    collections. Of a table's films it is unknown, and no phantom has been published.
    """
    published = FOUNDATIONS.get(choice.match)
    if choice.seen or not published:
        return choice.seen
    if source == "phantom":
        return "none"
    return "images" if COLLECTIONS.get(source) in published.collections else ""


FOUNDATIONS: dict[str, Foundation] = {
    # Yao et al. 2024, arXiv 2405.05237; scaling: classification/utils/datasets.py of hustvl/EVA-X.
    "eva-x": Foundation(
        title="EVA-X (Yao et al. 2024)",
        mean=(0.49185243,) * 3,
        std=(0.28509309,) * 3,
        size=224,
        collections=(NIH, "CheXpert", "MIMIC-CXR"),
    ),
    # Pérez-García et al. 2024, arXiv 2401.10815; card and preprocessor_config.json of the hub.
    "rad-dino": Foundation(
        title="RAD-DINO (Pérez-García et al. 2024)",
        mean=(0.5307,) * 3,
        std=(0.2583,) * 3,
        size=518,
        collections=("BRAX", "CheXpert", "MIMIC-CXR", NIH, "PadChest"),
    ),
}
